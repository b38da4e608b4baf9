"""From a call's images to the op: what is checked of them, and the batch dimension."""

from collections.abc import Sequence
from contextlib import nullcontext
from operator import lt

import torch
from torch import Tensor

from . import recompute
from .autograd import detailed_loss, fused_loss
from .masks import as_weights, check_mask, have_kernels, wants_derivative
from .ops import library, loss_dtype
from .options import Dyadic, Gaussian, OneWindow, Options, Volume, l1_options
from .reference import at_positions
from .warn import warn_once

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_CUDA_TAPS = 65
MAX_CUDA_LEVELS = 16  # of the dyadic form
CUDA_INSIDE = bool(library.cuda_architectures())  # a constant: torch.compile cannot trace the call


def loss_of(
    x: Tensor,
    y: Tensor,
    options: Options | OneWindow,
    mask: Tensor | None = None,
    data_range: object = None,
) -> Tensor:
    """The loss with checked options: checks the images, adds and takes away the batch dimension.

    data_range: where it is a Tensor, in the place of that of the options.
    """
    return _computed(x, y, options, mask, data_range, similarity=False)


def similarity_of(
    x: Tensor, y: Tensor, options: Options | OneWindow, mask: Tensor | None, data_range: object
) -> Tensor:
    """That of identical images, 1 (0 where a mask leaves nothing), less the loss."""
    return _computed(x, y, options, mask, data_range, similarity=True)


def _computed(
    x: Tensor,
    y: Tensor,
    options: Options | OneWindow,
    mask: Tensor | None,
    data_range: object,
    similarity: bool,
) -> Tensor:
    x, y, options, is_batch = _checked(x, y, options, mask, data_range)
    value = _of_batch(x, y, options)
    if similarity:
        value = of_identical(options, value) - value
    return value if is_batch or options.reduction == "mean" else value.squeeze(0)


def of_identical(options: Options, value: Tensor) -> Tensor | float:
    """The similarity of identical images, of the shape of `value`: 1, but 0 where a mask leaves nothing."""
    if options.mask is None:
        return 1.0
    kept = at_positions(options.mask, options.padding, [taps // 2 for taps in options.windows]) != 0
    if options.reduction != "map":
        kept = kept.any() if options.reduction == "mean" else kept.flatten(1).any(1)
    return kept.expand(value.shape).to(value.dtype)


def in_one_launch(
    x: Tensor,
    y: Tensor,
    options: Options | OneWindow,
    mask: Tensor | None,
    data_range: object,
    want_map: bool,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """The loss, its terms and, if wanted, its map, as a detailed op gives them; None where none does."""
    x, y, options, is_batch = _checked(x, y, options, mask, data_range)
    if isinstance(options, Dyadic) or options.reduction == "map" or _has_own_l1(options):
        return None
    if options.mask is not None or options.padding == "normalized" or not has_kernels(x.device):
        return None
    if x.device.type == "cuda":
        x, y = one_dtype(x, y, options)
    result = detailed_loss(x, y, options, want_map)
    if result is None or is_batch:
        return result
    loss, terms, loss_map = result
    per_image = options.reduction == "none"
    return (
        loss.squeeze(0) if per_image else loss,
        terms.squeeze(1) if per_image else terms,
        loss_map.squeeze(0),
    )


def _checked(
    x: Tensor, y: Tensor, options: Options | OneWindow, mask: Tensor | None, data_range: object
) -> tuple[Tensor, Tensor, Options, bool]:
    """All of it with a batch dimension, and whether there was one."""
    x, y, options = check_images(x, y, options)
    if mask is not None:
        options = options._replace(mask=check_mask(mask, x))
    if isinstance(data_range, Tensor):
        options = options._replace(data_range=1.0, inverse_ranges=inverse_ranges(data_range, x))
    is_batch = x.dim() != 3
    if not is_batch:
        x, y = x.unsqueeze(0), y.unsqueeze(0)
    return x, y, options, is_batch


def _has_own_l1(options: Options) -> bool:
    """L1SSIMLoss: its l1 is in units of the images, not in those that the kernels measure both terms in."""
    if options.inverse_ranges is None or options.l1_weight == 0:
        return False
    return isinstance(options, Volume) or (isinstance(options, Gaussian) and not options.l1_windowed)


def _of_batch(x: Tensor, y: Tensor, options: Options) -> Tensor:
    mask = options.mask
    if _has_own_l1(options):
        x, y = one_dtype(x, y, options)
        ssim = _of_batch(x, y, options._replace(l1_weight=0.0))
        # The slices of a volume one below the other.
        rows = l1_options(options.reduction)._replace(mask=None if mask is None else mask.flatten(2, -2))
        l1 = _of_batch(x.flatten(2, -2), y.flatten(2, -2), rows)
        if options.reduction == "map":
            l1 = at_positions(l1.reshape(x.shape), options.padding, [taps // 2 for taps in options.windows])
        return ssim + (1 - options.ssim_weight) * l1
    weighted = mask is not None or options.padding == "normalized"
    if not has_kernels(x.device) or (weighted and not have_kernels(x, options)):
        return plain_loss(x, y, options)
    if x.dtype != y.dtype and x.device.type == "cuda":  # where they read one
        x, y = one_dtype(x, y, options)
    if mask is not None:
        options = options._replace(mask=as_weights(mask, loss_dtype(x)))
    return fused_loss(x, y, options)[0]


def one_dtype(x: Tensor, y: Tensor, options: Options) -> tuple[Tensor, Tensor]:
    """x, y of two dtypes as the kernels of the CPU read them."""
    if x.dtype == y.dtype:
        return x, y
    dtype = torch.promote_types(x.dtype, torch.float32)
    return x.to(dtype), recompute.target(y, options, dtype)


def check_images(x: Tensor, y: Tensor, options: Options | OneWindow) -> tuple[Tensor, Tensor, Options]:
    ranks: tuple[int, ...] = (3, 4)
    shapes = "[N, C, H, W] or [C, H, W]"
    if isinstance(options, OneWindow) and options.images is None:
        ranks, shapes = (5,), "[N, C, D, H, W] for a sigma or window_size for each of D, H and W"
    elif isinstance(options, OneWindow):
        ranks, shapes = (3, 4, 5), "[N, C, H, W], [C, H, W] or [N, C, D, H, W]"
    for name, image in (("x", x), ("y", y)):
        if not isinstance(image, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(image).__name__}")
        if type(image) is not Tensor and hasattr(image, "to_local"):
            raise TypeError(
                f"{name}: expected a tensor of this process, got a {type(image).__name__}; "
                f"{name}.to_local() is its part here"
            )
        if image.layout != torch.strided:
            raise TypeError(f"{name}: expected layout torch.strided, got {image.layout}")
        if image.dim() not in ranks:
            hint = "; ssim, SSIMLoss and L1SSIMLoss alone take volumes" if image.dim() == 5 else ""
            raise ValueError(f"{name}: expected shape {shapes}, got {list(image.shape)}{hint}")
        if image.dtype not in DTYPES and (name == "x" or image.dtype != torch.uint8):
            allowed = DTYPES if name == "x" else (*DTYPES, torch.uint8)
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in allowed)
            hint = ""
            if image.dtype == torch.uint8:
                hint = " (x.float() with data_range=255 takes it; y may be uint8 beside an x that is not)"
            raise TypeError(f"{name}: expected dtype {names}, got {image.dtype}{hint}")
    if x.shape != y.shape:
        raise ValueError(f"y: expected the shape of x, {list(x.shape)}, got {list(y.shape)}")
    device = x.device
    if device != y.device:
        raise ValueError(f"y: expected the device of x, {device}, got {y.device}")
    on_gpu = device.type == "cuda"
    if on_gpu:
        check_device(device)
    if x.dtype != y.dtype:
        x, y = check_dtypes(x, y)
    if isinstance(options, OneWindow):
        options = options.volumes if x.dim() == 5 else options.shown
    if on_gpu and has_kernels(device):
        check_cuda_limits(options)
    check_size(x, options)
    return x, y, options


def check_dtypes(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Of two dtypes: y may be uint8, or of 16 bits beside float32 and float64, and then has no gradient."""
    narrower = y.dtype.itemsize < min(x.dtype.itemsize, 4)
    if narrower and not wants_derivative(y):
        return x, y
    if under_autocast(x.device.type):
        dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        return x.to(dtype), y.to(dtype)
    if narrower:
        raise ValueError(
            f"y: expected one that requires no gradient, as {y.dtype} beside {x.dtype} has none, got "
            f"one that does; y.detach(), or y.to({x.dtype})"
        )
    raise TypeError(f"y: expected the dtype of x, {x.dtype}, got {y.dtype}")


def inverse_ranges(data_range: Tensor, x: Tensor) -> Tensor:
    """1 / data_range [N] of the images x; NaN where it is not a finite number > 0. Waits for no device."""
    images = 1 if x.dim() == 3 else x.shape[0]
    if data_range.layout != torch.strided:
        raise TypeError(f"data_range: expected layout torch.strided, got {data_range.layout}")
    # Its size as an int: of lists of sizes a compiled graph knows too little.
    one_each = x.dim() != 3 and data_range.dim() == 1 and data_range.shape[0] == images
    if data_range.dim() != 0 and not one_each:
        expected = "[]" if x.dim() == 3 else f"[] or [{images}]"
        raise ValueError(f"data_range: expected shape {expected}, got {list(data_range.shape)}")
    if data_range.dtype.is_complex or data_range.dtype == torch.bool:
        raise TypeError(f"data_range: expected real numbers, got {data_range.dtype}")
    if data_range.device != x.device:
        raise ValueError(f"data_range: expected the device of x, {x.device}, got {data_range.device}")
    if wants_derivative(data_range):
        raise ValueError("data_range: takes no gradient, got a tensor that requires one; detach() it")
    wide = data_range.to(torch.float64 if has_kernels(x.device) else torch.float32)
    inverse = torch.where((wide > 0) & wide.isfinite(), wide.reciprocal(), torch.nan)
    return inverse.expand(images).contiguous()


def plain_loss(x: Tensor, y: Tensor, options: Options) -> Tensor:
    """By reference.py: what no kernels are written for.

    Such a device may have no float64: there it is float32.
    """
    kind, dtype = x.device.type, torch.float64
    if not has_kernels(x.device):
        dtype = torch.promote_types(x.dtype, torch.float32)
        if not torch.compiler.is_compiling():
            warn_once(
                f"no kernels for {kind}: computed in plain torch, many times slower, in more memory, "
                "and with fewer right digits"
            )
    # Autocast would convolve squares in 16 bits.
    with torch.autocast(kind, enabled=False) if under_autocast(kind) else nullcontext():
        return recompute.loss(x.to(dtype), y, options).to(loss_dtype(x))


def under_autocast(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def has_kernels(device: torch.device) -> bool:
    """Or it is one that this package has none for. AMD's GPUs are called cuda, too."""
    return device.type in ("cpu", "meta") or (device.type == "cuda" and torch.version.hip is None)


def check_device(device: torch.device) -> None:
    """Of a GPU: the kernels are in this build, or it is AMD's, for which there are none."""
    if has_kernels(device) and not CUDA_INSIDE:
        raise RuntimeError(
            f"x: no ssimloss kernels for a tensor on {device}: this build has no CUDA kernels; rebuild from "
            "source where nvcc is on the PATH"
        )


def check_cuda_limits(options: Options) -> None:
    if max(options.windows) > MAX_CUDA_TAPS:
        raise ValueError(
            f"window_size: expected at most {MAX_CUDA_TAPS} taps on CUDA, got {max(options.windows)}"
        )
    if isinstance(options, Dyadic) and len(options.weights) > MAX_CUDA_LEVELS:
        raise ValueError(f"weights: expected at most {MAX_CUDA_LEVELS} on CUDA, got {len(options.weights)}")


def check_size(x: Tensor, options: Options) -> None:
    """The window must fit, in the dyadic form into the coarsest level."""
    shape, windows = tuple(x.shape), options.windows  # whose slices cost less
    sides, channels = shape[-len(windows) :], shape[-len(windows) - 1]
    least = least_sides(windows, options.padding)
    if isinstance(options, Dyadic):
        halved = 2 ** (len(options.weights) - 1)
        # A level is half the one before, rounded up or down.
        drop = options.halving == "drop"
        least = tuple(side * halved if drop else (side - 1) * halved + 1 for side in least)
    channels_last = sides[-1] <= 4 < channels
    if any(map(lt, sides, least)):
        levels = len(options.weights) if isinstance(options, Dyadic) else 1
        at = f" at the coarsest of {levels} levels" if levels > 1 else ""
        advice = ""
        if channels_last:
            advice = f"; {channels_last_question(x)}"
        elif options.padding in ("valid", "reflect"):
            advice = "; a smaller window_size or padding='zeros' takes smaller images"
            advice += "; so do fewer weights" if levels > 1 else ""
        names = "depth, height and width" if isinstance(options, Volume) else "height and width"
        reason = f" for padding={options.padding!r} and a window of {one_or_each(windows)} taps{at}"
        raise ValueError(
            f"x: expected {names} of at least {one_or_each(least)}{reason if max(windows) > 1 else ''}, "
            f"got {by(sides)}{advice}"
        )
    if channels_last and not torch.compiler.is_compiling():
        taken_for = f"images taken for {channels} channels of {by(sides)} pixels"
        warn_once(f"{taken_for}: {channels_last_question(x)}")


def least_sides(windows: tuple[int, ...], padding: str) -> tuple[int, ...]:
    if padding == "valid":
        return windows
    return tuple(taps // 2 + 1 for taps in windows) if padding == "reflect" else (1,) * len(windows)


def by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def one_or_each(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else by(values)


def channels_last_question(x: Tensor) -> str:
    order = {3: "2, 0, 1", 4: "0, 3, 1, 2", 5: "0, 4, 1, 2, 3"}[x.dim()]
    return f"channels last? permute({order}) costs nothing here"
