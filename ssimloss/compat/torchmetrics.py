"""torchmetrics 1.9.0: its two functions. A Gaussian window has 2 int(3.5 sigma + 0.5) + 1 taps whatever
kernel_size is.

A data range that is found in the images is a constant here: no gradient goes through it. Not served: volumes,
and sigma or kernel_size that differ from one dimension to the other.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional
from ._glue import NO_LUMINANCE, no_volumes, one_for_all

__all__ = ["multiscale_structural_similarity_index_measure", "structural_similarity_index_measure"]

DataRange = float | tuple[float, float] | None


def _check(preds: Tensor, target: Tensor, sigma, kernel_size) -> Tensor:
    """The target, in preds' dtype."""
    if preds.shape != target.shape:
        raise RuntimeError(
            f"target: expected the same shape as preds, {list(preds.shape)}, got {list(target.shape)}"
        )
    if preds.dim() not in (4, 5):
        raise ValueError(
            f"Expected `preds` and `target` to have BxCxHxW or BxCxDxHxW shape, got {list(preds.shape)}"
        )
    for name, values in (("kernel_size", kernel_size), ("sigma", sigma)):
        values = values if isinstance(values, Sequence) else [values] * (preds.dim() - 2)
        if len(values) != preds.dim() - 2:
            raise ValueError(f"`{name}` has dimension {len(values)}, but expected {preds.dim() - 2}")
        if name == "kernel_size" and any(v <= 0 or v % 2 == 0 for v in values):
            raise ValueError(f"Expected `kernel_size` to have odd positive number, got {values}")
        if name == "sigma" and any(v <= 0 for v in values):
            raise ValueError(f"Expected `sigma` to have positive number, got {values}")
    no_volumes(preds)
    return target.to(preds.dtype)


def _options(
    preds: Tensor, target: Tensor, gaussian_kernel, sigma, kernel_size, data_range, k1, k2
) -> tuple[Tensor, Tensor, dict]:
    if data_range is None:
        lows, highs = zip(*(t.detach().aminmax() for t in (preds, target)), strict=True)
        data_range = max(float(high - low) for low, high in zip(lows, highs, strict=True))
        if not 0 < data_range < math.inf:  # blank images, or NaN in them: 0 / 0 there
            preds, data_range = preds * math.nan, 1.0
    elif isinstance(data_range, tuple):
        preds, target = preds.clamp(*data_range), target.clamp(*data_range)
        data_range = data_range[1] - data_range[0]
    window = dict(sigma=one_for_all("sigma", sigma))
    if not gaussian_kernel:
        window = dict(window="uniform", window_size=one_for_all("kernel_size", kernel_size))
    return preds, target, window | dict(data_range=data_range, k1=k1, k2=k2)


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
    """SSIM of [B, C, H, W], the images mirrored at their border; with the map, or the mean cs of each image.

    data_range None: the larger of the two images' ranges, of which on a device the call waits; a tuple: the
    images are clamped to it.
    """
    target = _check(preds, target, sigma, kernel_size)
    if return_full_image and return_contrast_sensitivity:
        raise ValueError("return_full_image, return_contrast_sensitivity: expected one of them, got both")
    x, y, options = _options(preds, target, gaussian_kernel, sigma, kernel_size, data_range, k1, k2)
    if return_full_image:
        full = functional.ssim(x, y, padding="reflect", reduction="map", **options).to(preds.dtype)
        return _reduce(full.flatten(1).mean(1), reduction), full
    similarity = functional.ssim(x, y, padding="reflect", reduction="none", **options)
    similarity = _reduce(similarity, reduction).to(preds.dtype)
    if return_contrast_sensitivity:
        cs = functional.ssim(x, y, reduction="none", **options | NO_LUMINANCE)
        return similarity, cs.to(preds.dtype)
    return similarity


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
    """MS-SSIM of [B, C, H, W]: of each image's mean cs, the channels averaged before the powers are taken.

    The last level's is SSIM with a mirrored border. Halving drops an odd last row or column.
    normalize: "relu" clamps each mean at 0, "simple" takes (mean + 1) / 2, None neither, and may give NaN.
    """
    if not isinstance(betas, tuple) or not all(isinstance(beta, float) for beta in betas):
        raise ValueError(f"Argument `betas`: expected a tuple of floats, got {betas!r}")
    if normalize not in ("relu", "simple", None):
        raise ValueError(f"Argument `normalize`: expected 'relu', 'simple' or None, got {normalize!r}")
    target = _check(preds, target, sigma, kernel_size)
    size = one_for_all("kernel_size", kernel_size)
    divisor = max(1, len(betas) - 1) ** 2  # theirs
    if min(preds.shape[-2:]) < 2 ** len(betas) or min(preds.shape[-2:]) // divisor <= size - 1:
        least = max(2 ** len(betas), size * divisor)
        raise ValueError(f"preds: expected height and width of at least {least}, got {list(preds.shape)}")
    means, x, y = [], preds, target
    for level in range(1, len(betas) + 1):
        u, v, options = _options(x, y, gaussian_kernel, sigma, kernel_size, data_range, k1, k2)
        options |= {"padding": "reflect"} if level == len(betas) else NO_LUMINANCE
        means.append(functional.ssim(u, v, reduction="none", **options))
        if level < len(betas):
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    values = torch.stack(means)
    values = values.relu() if normalize == "relu" else values
    values = (values + 1) / 2 if normalize == "simple" else values
    exponents = torch.tensor(betas, device=values.device)[:, None]
    return _reduce((values**exponents).prod(0), reduction).to(preds.dtype)
