"""torchmetrics 1.9.0: its two functions. A Gaussian window has 2 int(3.5 sigma + 0.5) + 1 taps whatever
kernel_size is.

A data range that is found in the images is a constant here: no gradient goes through it.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional
from ..options import window_of
from ._glue import NO_LUMINANCE

__all__ = ["multiscale_structural_similarity_index_measure", "structural_similarity_index_measure"]

DataRange = float | tuple[float, float] | None
Window = tuple[tuple[float, ...], tuple[int, ...]]  # sigma and kernel_size of each dimension


def _check(
    preds: Tensor, target: Tensor, sigma: float | Sequence[float], kernel_size: int | Sequence[int]
) -> tuple[Tensor, Window]:
    """The target, in preds' dtype, and for each dimension sigma and kernel_size."""
    if preds.shape != target.shape:
        raise RuntimeError(
            f"target: expected the same shape as preds, {list(preds.shape)}, got {list(target.shape)}"
        )
    if preds.dim() not in (4, 5):
        raise ValueError(
            f"Expected `preds` and `target` to have BxCxHxW or BxCxDxHxW shape, got {list(preds.shape)}"
        )
    sides = preds.dim() - 2
    sizes = tuple(kernel_size) if isinstance(kernel_size, Sequence) else (kernel_size,) * sides
    sigmas = tuple(sigma) if isinstance(sigma, Sequence) else (sigma,) * sides
    for name, each in (("kernel_size", sizes), ("sigma", sigmas)):
        if len(each) != sides:
            raise ValueError(f"`{name}` has dimension {len(each)}, but expected {sides}")
    if any(size <= 0 or size % 2 == 0 for size in sizes):
        raise ValueError(f"Expected `kernel_size` to have odd positive number, got {sizes}")
    if any(s <= 0 for s in sigmas):
        raise ValueError(f"Expected `sigma` to have positive number, got {sigmas}")
    return target.to(preds.dtype), (sigmas, sizes)


class _Pair(NamedTuple):
    """What ssimloss.ssim is given: images, or volumes."""

    x: Tensor
    y: Tensor
    options: dict[str, Any]
    border: list[int] | None  # mirrored around volumes, as F.pad takes it

    def similarity(self, reduction: str) -> Tensor:
        if self.border is None:
            return functional.ssim(self.x, self.y, padding="reflect", reduction=reduction, **self.options)
        x, y = (F.pad(t, self.border, mode="reflect") for t in (self.x, self.y))
        return functional.ssim(x, y, reduction=reduction, **self.options)

    def cs(self) -> Tensor:
        return functional.ssim(self.x, self.y, reduction="none", **self.options | NO_LUMINANCE)


def _pair(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool,
    window: Window,
    data_range: DataRange,
    k1: float,
    k2: float,
) -> _Pair:
    if data_range is None:
        lows, highs = zip(*(t.detach().aminmax() for t in (preds, target)), strict=True)
        data_range = max(float(high - low) for low, high in zip(lows, highs, strict=True))
        if not 0 < data_range < math.inf:  # blank images, or NaN in them: 0 / 0 there
            preds, data_range = preds * math.nan, 1.0
    elif isinstance(data_range, tuple):
        preds, target = preds.clamp(*data_range), target.clamp(*data_range)
        data_range = data_range[1] - data_range[0]
    options: dict[str, Any] = dict(data_range=data_range, k1=k1, k2=k2)
    sigmas, sizes = window
    taps = tuple(window_of(s, None) for s in sigmas) if gaussian_kernel else sizes
    if len(sizes) == 2 and len(set(sigmas if gaussian_kernel else sizes)) == 1:
        options |= dict(sigma=sigmas[0]) if gaussian_kernel else dict(window="uniform", window_size=taps[0])
        return _Pair(preds, target, options, None)
    options |= dict(sigma=(1.0, *sigmas)[-3:]) if gaussian_kernel else dict(window="uniform")
    options |= dict(window_size=(1, *taps)[-3:])
    if len(sizes) == 3:  # theirs mirrors the last dimension by kernel_size, whatever sigma is
        mirrored = (*taps[:2], sizes[2])
    else:  # images under a window that is no square: volumes of one slice
        mirrored, preds, target = (1, *taps), preds.unsqueeze(2), target.unsqueeze(2)
    border = [side // 2 for side in reversed(mirrored) for _ in ("before", "behind")]
    return _Pair(preds, target, options, border)


def _reduce(values: Tensor, reduction: str | None) -> Tensor:
    if reduction == "elementwise_mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    if reduction in ("none", None):
        return values
    raise ValueError(f"reduction: expected 'elementwise_mean', 'sum', 'none' or None, got {reduction!r}")


def structural_similarity_index_measure(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    reduction: str | None = "elementwise_mean",
    data_range: DataRange = None,
    k1: float = 0.01,
    k2: float = 0.03,
    return_full_image: bool = False,
    return_contrast_sensitivity: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """SSIM of [B, C, H, W] or [B, C, D, H, W], mirrored at the border; with the map, or each image's mean cs.

    data_range None: the larger of the two images' ranges, of which on a device the call waits; a tuple: the
    images are clamped to it.
    """
    target, window = _check(preds, target, sigma, kernel_size)
    if return_full_image and return_contrast_sensitivity:
        raise ValueError("return_full_image, return_contrast_sensitivity: expected one of them, got both")
    pair = _pair(preds, target, gaussian_kernel, window, data_range, k1, k2)
    if return_full_image:
        full = pair.similarity("map").to(preds.dtype)
        full = full if preds.dim() == 5 else full.reshape(preds.shape)
        return _reduce(full.flatten(1).mean(1), reduction), full
    similarity = _reduce(pair.similarity("none"), reduction).to(preds.dtype)
    return (similarity, pair.cs().to(preds.dtype)) if return_contrast_sensitivity else similarity


def multiscale_structural_similarity_index_measure(
    preds: Tensor,
    target: Tensor,
    gaussian_kernel: bool = True,
    sigma: float | Sequence[float] = 1.5,
    kernel_size: int | Sequence[int] = 11,
    reduction: str | None = "elementwise_mean",
    data_range: DataRange = None,
    k1: float = 0.01,
    k2: float = 0.03,
    betas: tuple[float, ...] = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333),
    normalize: str | None = "relu",
) -> Tensor:
    """MS-SSIM of [B, C, H, W] or [B, C, D, H, W]: of each image's mean cs, the channels averaged first.

    The last level's is SSIM with a mirrored border. Halving drops an odd last row or column.
    normalize: "relu" clamps each mean at 0, "simple" takes (mean + 1) / 2, None neither, and may give NaN.
    """
    if not isinstance(betas, tuple) or not all(isinstance(beta, float) for beta in betas):
        raise ValueError(f"Argument `betas`: expected a tuple of floats, got {betas!r}")
    if normalize not in ("relu", "simple", None):
        raise ValueError(f"Argument `normalize`: expected 'relu', 'simple' or None, got {normalize!r}")
    target, window = _check(preds, target, sigma, kernel_size)
    divisor = max(1, len(betas) - 1) ** 2  # theirs
    for side, size in zip(preds.shape[-2:], window[1], strict=False):
        if side < 2 ** len(betas) or side // divisor <= size - 1:
            least = max(2 ** len(betas), size * divisor)
            raise ValueError(f"preds: expected height and width of at least {least}, got {list(preds.shape)}")
    halve = F.avg_pool2d if preds.dim() == 4 else F.avg_pool3d
    means, x, y = [], preds, target
    for _ in betas[1:]:
        means.append(_pair(x, y, gaussian_kernel, window, data_range, k1, k2).cs())
        x, y = halve(x, 2), halve(y, 2)
    last = _pair(x, y, gaussian_kernel, window, data_range, k1, k2)
    means.append(last.similarity("none"))
    values = torch.stack(means)
    values = values.relu() if normalize == "relu" else values
    values = (values + 1) / 2 if normalize == "simple" else values
    exponents = torch.tensor(betas, device=values.device)[:, None]
    return _reduce((values**exponents).prod(0), reduction).to(preds.dtype)
