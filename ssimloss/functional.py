"""Similarities of two batches of images, differentiable with respect to both.

Each takes x and y of the same shape [N, C, H, W] or [C, H, W] and the same dtype (float16, bfloat16,
float32 or float64; under autocast mixed dtypes are taken as float32), and these options:

data_range   the difference between the largest and the smallest possible value (1.0, 255, ...).
window_size  side of every Gaussian window, odd; None: 2 * int(3.5 * sigma + 0.5) + 1, as scikit-image. At
             most 1023, on CUDA 65.
padding      "valid": positions where the largest window fits; "zeros": zeros around the images (what
             fused-ssim calls same); "reflect": the images mirrored, the edge not repeated.
reduction    "mean": a scalar; "none": one value an image, [N], a scalar for [C, H, W]; "map": one
             value a position and channel, [N, C, H', W'].

The result is float32 for 16-bit images; gradients have the images' dtype. Values outside the data
range are computed as they are; NaN gives NaN. Bad arguments raise ValueError, other dtypes, layouts and
DTensors TypeError, a device without kernels RuntimeError.

Beyond some hundred data ranges float32's gradient is not exact where flat regions meet contrasts.

Black must be 0, as SSIM compares means: of images in [-1, 1] take x + 1 and y + 1 with data_range=2, or the
value is another one.

Two mistakes warn, with a UserWarning each, once a process: sides that look like [N, H, W, C], and values of
which most lie beyond twice the data range. For the latter 16 pixels are looked at, on the CPU alone: on
CUDA that would have to wait for the device.

On the CPU at most two gradients whose shapes come again are held for the next step: see ssimloss.memory.
"""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

from . import _C
from .autograd import fused_loss
from .ops import Dyadic, Gaussian, Options
from .reference import WANG_WEIGHTS, ZHAO_SIGMAS, radius_of
from .warn import warn_once

__all__ = ["ms_ssim", "ms_ssim_gaussian", "ssim"]

PADDINGS = ("valid", "zeros", "reflect")
REDUCTIONS = ("mean", "none", "map")
MULTISCALES = ("gaussian", "dyadic")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
MAX_SCALES = 16
MAX_TAPS = 1023  # of a window
MAX_CUDA_TAPS = 65
MAX_CUDA_LEVELS = 16  # of the dyadic form
CUDA_INSIDE = bool(_C.cuda_architectures())  # a constant: torch.compile cannot trace the call
LEAST_K = 1e-9  # its square must not underflow in float32


def ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    sigma: float = 1.5,
    window_size: int | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
) -> Tensor:
    """Structural similarity, in [-1, 1]; 1 for identical images.

    Wang et al. 2004, equation 13, doi:10.1109/TIP.2003.819861, under a Gaussian window of standard
    deviation sigma (pixels). Shapes, options and errors: see ssimloss.functional.
    """
    options = gaussian_options(
        (sigma,), window_size, padding, data_range, k1, k2, reduction=reduction, sigma_name="sigma"
    )
    return 1 - loss_of(x, y, options)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    sigma: float = 1.5,
    window_size: int | None = None,
    weights: Sequence[float] = WANG_WEIGHTS,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
) -> Tensor:
    """Multi-scale structural similarity over a dyadic pyramid, in [0, 1]; 1 for identical images.

    Wang et al. 2003, equation 7, doi:10.1109/ACSSC.2003.1292216: prod_j m_j^w_j an image and channel,
    m_j the mean of cs at level j (of l * cs at the last), one level for each of `weights`. Images of
    any size into which the window fits at the coarsest level; fewer weights, fewer levels. There is
    no "map".

    A fractional power of a negative m_j does not exist: below m_j = 0.05 its place is taken by
    0.05**2 / (0.1 - m_j), which has the same value and slope at 0.05 and is 0.0023 at m_j = -1. So on
    anti-correlated images the value stays positive and the gradient large enough to train with
    (pytorch-msssim clamps there: its gradient is dead or NaN).

    The similarity is one minus the loss that is computed: in float32 it is right to 2e-7, the least of
    them to four digits; take float64 images where the logarithm of a small one must have more.

    Shapes, options and errors: see ssimloss.functional. By default images of 161x161 pixels and more.
    """
    options = dyadic_options(weights, sigma, window_size, padding, data_range, k1, k2, reduction=reduction)
    return 1 - loss_of(x, y, options)


def ms_ssim_gaussian(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    sigmas: Sequence[float] = ZHAO_SIGMAS,
    window_size: int | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
) -> Tensor:
    """Multi-scale structural similarity at full resolution, in [-1, 1]; 1 for identical images.

    Zhao et al. 2017, equation 9, doi:10.1109/TCI.2016.2644865: l_M(p) * prod_j cs_j(p), scale j under
    a Gaussian of standard deviation sigmas[j] (at most 16), l from the largest, all exponents 1.
    Nothing is clamped: where cs_j is negative the product is what it is, and so is its gradient.

    Shapes, options and errors: see ssimloss.functional. By default images of 57x57 pixels and more.
    """
    options = gaussian_options(sigmas, window_size, padding, data_range, k1, k2, reduction=reduction)
    return 1 - loss_of(x, y, options)


NO_SCRIPT = (
    "ssimloss: torch.jit.script is not supported; torch.compile and torch.export are, or leave the loss out "
    "of what is scripted"
)
for _function in (ssim, ms_ssim, ms_ssim_gaussian):
    vars(_function)["__script_unsupported"] = NO_SCRIPT  # torch.jit.script looks for it, and raises it


def gaussian_options(
    sigmas: Sequence[float],
    window_size: int | None,
    padding: str,
    data_range: float,
    k1: float,
    k2: float,
    *,
    reduction: str,
    ssim_weight: float = 1.0,
    l1_weight: float = 0.0,
    l1_windowed: bool = True,
    sigma_name: str = "sigmas",
) -> Gaussian:
    """Checked options of the Gaussian form; l1_weight weighs l1 in units of the data range."""
    if not 1 <= len(sequence(sigma_name, sigmas)) <= MAX_SCALES:
        raise ValueError(f"{sigma_name}: expected 1 to {MAX_SCALES} values, got {len(sigmas)}")
    ascending = tuple(sorted(positive(sigma_name, sigma) for sigma in sigmas))
    return Gaussian(
        ascending,
        tuple(window_of(sigma, window_size) for sigma in ascending),
        one_of("padding", padding, PADDINGS),
        positive("data_range", data_range),
        positive("k1", k1, LEAST_K),
        positive("k2", k2, LEAST_K),
        ssim_weight,
        l1_weight,
        l1_windowed,
        one_of("reduction", reduction, REDUCTIONS),
    )


def dyadic_options(
    weights: Sequence[float],
    sigma: float,
    window_size: int | None,
    padding: str,
    data_range: float,
    k1: float,
    k2: float,
    *,
    reduction: str,
    ssim_weight: float = 1.0,
    l1_weight: float = 0.0,
) -> Dyadic:
    """Checked options of the dyadic form."""
    if len(sequence("weights", weights)) == 0:
        raise ValueError("weights: expected one weight for each level, got none")
    if one_of("reduction", reduction, REDUCTIONS) == "map":
        raise ValueError(
            "reduction: expected 'mean' or 'none' for the dyadic form, got 'map': its levels have "
            "different sizes (multiscale='gaussian' has maps)"
        )
    return Dyadic(
        tuple(positive("weights", weight, or_zero=True) for weight in weights),
        positive("sigma", sigma),
        window_of(sigma, window_size),
        one_of("padding", padding, PADDINGS),
        positive("data_range", data_range),
        positive("k1", k1, LEAST_K),
        positive("k2", k2, LEAST_K),
        ssim_weight,
        l1_weight,
        reduction,
    )


def loss_of(x: Tensor, y: Tensor, options: Options) -> Tensor:
    """The loss with checked options: checks the images, adds and takes away the batch dimension."""
    x, y = check_images(x, y, options)
    if x.dim() == 4:
        return fused_loss(x, y, options)
    loss = fused_loss(x.unsqueeze(0), y.unsqueeze(0), options)
    return loss if options.reduction == "mean" else loss.squeeze(0)


def check_images(x: Tensor, y: Tensor, options: Options) -> tuple[Tensor, Tensor]:
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
        if image.dim() not in (3, 4):
            raise ValueError(f"{name}: expected shape [N, C, H, W] or [C, H, W], got {list(image.shape)}")
        if image.dtype not in DTYPES:
            names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
            hint = f" ({name}.float() with data_range=255 takes it)" if image.dtype == torch.uint8 else ""
            raise TypeError(f"{name}: expected dtype {names}, got {image.dtype}{hint}")
    if x.shape != y.shape:
        raise ValueError(f"y: expected the shape of x, {list(x.shape)}, got {list(y.shape)}")
    if x.device != y.device:
        raise ValueError(f"y: expected the device of x, {x.device}, got {y.device}")
    check_device(x.device)
    if x.dtype != y.dtype:
        if x.device.type == "meta" or not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"y: expected the dtype of x, {x.dtype}, got {y.dtype}")
        dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float32)
        x, y = x.to(dtype), y.to(dtype)
    if x.device.type == "cuda":
        check_cuda_limits(options)
    check_size(x, options)
    return x, y


def check_device(device: torch.device) -> None:
    if device.type in ("cpu", "meta"):
        return
    if device.type == "cuda" and CUDA_INSIDE:
        return
    reason = (
        "this build has no CUDA kernels; rebuild from source where nvcc is on the PATH"
        if device.type == "cuda"
        else f"this build has kernels for {'cpu and cuda' if CUDA_INSIDE else 'cpu'}"
    )
    raise RuntimeError(f"x: no ssimloss kernels for a tensor on {device}: {reason}")


def check_cuda_limits(options: Options) -> None:
    if options.largest_window > MAX_CUDA_TAPS:
        raise ValueError(
            f"window_size: expected at most {MAX_CUDA_TAPS} taps on CUDA, got {options.largest_window}"
        )
    if isinstance(options, Dyadic) and len(options.weights) > MAX_CUDA_LEVELS:
        raise ValueError(f"weights: expected at most {MAX_CUDA_LEVELS} on CUDA, got {len(options.weights)}")


def check_size(x: Tensor, options: Options) -> None:
    """The window must fit, in the dyadic form into the coarsest level."""
    levels = len(options.weights) if isinstance(options, Dyadic) else 1
    window, height, width = options.largest_window, *x.shape[-2:]
    coarsest = {"valid": window, "zeros": 1, "reflect": window // 2 + 1}[options.padding]
    least = (coarsest - 1) * 2 ** (levels - 1) + 1  # a level is half the one before, rounded up
    if min(height, width) < least:
        at = f" at the coarsest of {levels} levels" if levels > 1 else ""
        advice = ""
        if width <= 4 < x.shape[-3]:
            advice = f"; {channels_last_question(x)}"
        elif options.padding != "zeros":
            advice = "; a smaller window_size or padding='zeros' takes smaller images"
            advice += "; so do fewer weights" if levels > 1 else ""
        raise ValueError(
            f"x: expected height and width of at least {least} for padding={options.padding!r} and a window "
            f"of {window} taps{at}, got {height}x{width}{advice}"
        )
    if not torch.compiler.is_compiling() and width <= 4 < x.shape[-3]:
        taken_for = f"images taken for {x.shape[-3]} channels of {height}x{width} pixels"
        warn_once(f"{taken_for}: {channels_last_question(x)}")


def channels_last_question(x: Tensor) -> str:
    order = "0, 3, 1, 2" if x.dim() == 4 else "2, 0, 1"
    return f"channels last? permute({order}) costs nothing here"


def window_of(sigma: float, window_size: int | None) -> int:
    if window_size is None:
        window_size = 2 * radius_of(sigma, None) + 1
    integral = isinstance(window_size, Integral) and not isinstance(window_size, bool)
    if not integral or window_size < 1 or window_size % 2 == 0:
        raise ValueError(f"window_size: expected an odd positive integer or None, got {window_size!r}")
    if window_size > MAX_TAPS:
        raise ValueError(
            f"window_size: expected at most {MAX_TAPS} taps, got {window_size} (sigma {sigma:g})"
        )
    return int(window_size)


def sequence(name: str, values: Sequence[float]) -> Sequence[float]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name}: expected a list or tuple of numbers, got {values!r}")
    return values


def number(name: str, value: float, expected: str) -> float:
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    got = "a torch.Tensor" if isinstance(value, Tensor) else repr(value)
    raise TypeError(f"{name}: expected {expected}, got {got}")


def positive(name: str, value: float, least: float = 0.0, or_zero: bool = False) -> float:
    expected = "a finite number >= 0" if or_zero else "a finite number > 0"
    value = number(name, value, expected)
    if not math.isfinite(value) or value < 0 or (value == 0 and not or_zero):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least:g}, got {value!r}")
    return value


def fraction(name: str, value: float) -> float:
    value = number(name, value, "a number in [0, 1]")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number in [0, 1], got {value!r}")
    return value


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value
