"""What is checked of a mask, its batch dimension, and who computes a loss under one."""

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from . import torch_private
from .options import Dyadic, Gaussian, Options, Volume

DTYPES = (torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
LEAST = 1e-300  # float64 holds no inverses of blurred weights where they are much less


def check_mask(mask: Tensor, x: Tensor) -> Tensor | None:
    """The mask as [N or 1, C or 1, (D,) H, W]; None where all weights are seen to be 1.

    One of float64 becomes float32 beside other images, and 0 where it is less than LEAST, so that all of this
    package agree on what it leaves out.

    Weights are looked at on the CPU alone, outside of compiled graphs and transforms: elsewhere that would
    have to wait for them, or they are not there. There one that is not in [0, 1] makes the loss NaN.
    """
    if not isinstance(mask, Tensor):
        raise TypeError(f"mask: expected a torch.Tensor, got {type(mask).__name__}")
    if mask.layout != torch.strided:
        raise TypeError(f"mask: expected layout torch.strided, got {mask.layout}")
    if mask.dtype not in DTYPES:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES)
        raise TypeError(f"mask: expected dtype {names}, got {mask.dtype}")
    if mask.device != x.device:
        raise ValueError(f"mask: expected the device of x, {x.device}, got {mask.device}")
    channels, *sides = x.shape if x.dim() == 3 else x.shape[1:]
    if not _fits(mask, x):
        one_or_all = f"{'1' if channels == 1 else f'1 or {channels}'}, {', '.join(map(str, sides))}]"
        expected = f"[{one_or_all}" + (f" or [{len(x)}, {one_or_all}" if x.dim() != 3 else "")
        raise ValueError(f"mask: expected shape {expected}, got {list(mask.shape)}")
    if wants_derivative(mask):
        raise ValueError("mask: expected one that requires no gradient, as none is computed; mask.detach()")
    if mask.dim() == 1 + len(sides):
        mask = mask.unsqueeze(0)
    if _can_look_at(mask) and _all_ones(mask):
        return None
    if mask.dtype == torch.float64:
        mask = mask.masked_fill(mask.abs() < LEAST, 0) if x.dtype == torch.float64 else mask.float()
    return mask


def _fits(mask: Tensor, x: Tensor) -> bool:
    """Size by size, each an int: of lists of sizes a compiled graph knows too little."""
    dims = 3 if x.dim() == 3 else x.dim() - 1  # of an image
    if mask.dim() != dims and (mask.dim() != x.dim() or mask.shape[0] != x.shape[0]):
        return False
    channels, *sides = mask.shape[-dims:]
    same = all(side == of_x for side, of_x in zip(sides, x.shape[1 - dims :], strict=True))
    return same and (channels == 1 or channels == x.shape[-dims])


def as_weights(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """For the kernels, which multiply by what they find: NaN where it is not in [0, 1].

    Those of the CPU take bytes as they are, which are seen to be 0 and 1.
    """
    if _can_look_at(mask):
        return _bytes(mask) if mask.dtype in (torch.bool, torch.uint8) else mask.to(dtype)
    weights = mask.to(dtype)
    if mask.dtype == torch.bool:
        return weights
    return torch.where((weights >= 0) & (weights <= 1), weights, torch.nan)


def have_kernels(x: Tensor, options: Options) -> bool:
    """Whether the device's compute windows that are normalised by weights; plain torch does, too.

    On CUDA they do not for volumes, nor in float64 in the dyadic form and for l1 alone, nor for wide windows
    in the dyadic form, which shared memory may not hold.
    """
    if x.device.type != "cuda":
        return x.device.type in ("cpu", "meta")
    if isinstance(options, Gaussian) and options.sigmas:
        return True
    small = not isinstance(options, Dyadic) or options.window_size <= 33
    return small and not isinstance(options, Volume) and x.dtype != torch.float64


def wants_derivative(given: Tensor) -> bool:
    """Whether torch would have a gradient, or a tangent, go through it."""
    return (given.requires_grad and torch.is_grad_enabled()) or unpack_dual(given).tangent is not None


def _bytes(mask: Tensor) -> Tensor:
    """bool as uint8, on which torch is 17 times faster here."""
    return mask.view(torch.uint8) if mask.dtype == torch.bool else mask


def _can_look_at(mask: Tensor) -> bool:
    if torch.compiler.is_compiling() or mask.device.type != "cpu" or mask.numel() == 0:
        return False
    return type(mask) is Tensor and not torch_private.transforms_active()


def _all_ones(mask: Tensor) -> bool:
    """An error where a weight is not in [0, 1]."""
    if mask.dtype == torch.bool:
        return bool(_bytes(mask).all())
    least, largest = mask.amin().item(), mask.amax().item()
    if not 0 <= least <= largest <= 1:
        raise ValueError(f"mask: expected weights in [0, 1], got values from {least} to {largest}")
    return least == 1
