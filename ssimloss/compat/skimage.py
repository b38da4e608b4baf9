"""scikit-image 0.26.0: structural_similarity, of numpy arrays with one to three spatial dimensions.

The arithmetic is this package's: float64 for integers and float64, float32 for float32 and float16.
"""

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import functional
from ..options import window_of
from ._glue import NO_CONTRAST, NO_LUMINANCE, missing

__all__ = ["structural_similarity"]


def structural_similarity(
    im1: np.ndarray,
    im2: np.ndarray,
    *,
    win_size: int | None = None,
    gradient: bool = False,
    data_range: float | None = None,
    channel_axis: int | None = None,
    gaussian_weights: bool = False,
    full: bool = False,
    **kwargs: Any,
) -> Any:
    """Mean SSIM, or (SSIM, gradient with respect to im2, map), the last two where asked for.

    kwargs: use_sample_covariance (True), K1, K2, sigma. Without data_range that of the dtype, with a warning
    for other integers than uint8; ValueError for floating point.
    """
    if im1.shape != im2.shape:
        raise ValueError(f"im2: expected the dimensions of im1, {im1.shape}, got {im2.shape}")
    k1, k2, sigma = kwargs.pop("K1", 0.01), kwargs.pop("K2", 0.03), kwargs.pop("sigma", 1.5)
    for name, value in (("K1", k1), ("K2", k2), ("sigma", sigma)):
        if value < 0:
            raise ValueError(f"{name} must be positive, got {value}")
    taps = window_of(sigma, None) if gaussian_weights else 7
    size = taps if win_size is None else win_size
    spatial = list(im1.shape)
    if channel_axis is not None:
        del spatial[channel_axis]
    if min(spatial, default=0) < size:
        raise ValueError(
            f"win_size exceeds image extent: expected sides of at least {size}, got {spatial} (channel_axis "
            "says which axis holds channels)"
        )
    if size % 2 == 0:
        raise ValueError(f"Window size must be odd, got {size}")
    if data_range is None:
        data_range = _range_of_dtype(im1, im2)
    if not 1 <= len(spatial) <= 3:
        raise missing(f"arrays of {len(spatial)} spatial dimensions, {im1.shape}")
    pixels = size ** len(spatial)
    unbiased = pixels / (pixels - 1) if kwargs.pop("use_sample_covariance", True) and pixels > 1 else 1.0
    options: dict[str, Any] = dict(data_range=float(data_range), k1=k1, k2=k2 / math.sqrt(unbiased))
    options |= (
        dict(sigma=sigma, window_size=taps) if gaussian_weights else dict(window="uniform", window_size=size)
    )
    radius = options["window_size"] // 2
    if min(spatial) < radius:
        raise missing(f"images of {spatial} under a window of {2 * radius + 1}")

    float32 = im1.dtype in (np.float16, np.float32)
    dtype = np.float32 if float32 else np.float64
    x, y = (_planes(image.astype(dtype), channel_axis) for image in (im1, im2))
    crop = size // 2
    if full or gradient or crop != radius:
        similarity, grad = _map(x, y, radius, gradient, unbiased, options)
    if crop == radius:
        value = _ssim(x, y, **options)
    else:  # theirs crops by win_size what the Gaussian window has made
        inner = [slice(crop, side - crop) for side in similarity.shape[1:]]
        value = similarity[(slice(None), *inner)].double().mean()
    number = np.float32(value.item()) if float32 and channel_axis is not None else np.float64(value.item())
    if not full and not gradient:
        return number
    arrays = [grad] * gradient + [similarity] * full
    return number, *(_array(planes, channel_axis) for planes in arrays)


def _range_of_dtype(im1: np.ndarray, im2: np.ndarray) -> float:
    if any(np.issubdtype(image.dtype, np.floating) for image in (im1, im2)):
        raise ValueError("data_range: expected a number for images in floating point, got None")
    if im1.dtype != im2.dtype:
        warnings.warn("Inputs have mismatched dtypes: the data range is that of im1", stacklevel=3)
    if im1.dtype == bool:
        return 1.0
    whole = np.iinfo(im1.dtype)
    data_range = float(whole.max) - float(whole.min)
    if im1.dtype != np.uint8:
        message = f"Setting data_range based on im1.dtype: {data_range:.0f}. Passing it avoids mistakes"
        warnings.warn(message, stacklevel=3)
    return data_range


def _planes(image: np.ndarray, channel_axis: int | None) -> Tensor:
    """[C, *spatial]."""
    planes = image[None] if channel_axis is None else np.moveaxis(image, channel_axis, 0)
    return torch.from_numpy(np.ascontiguousarray(planes))


def _array(planes: Tensor, channel_axis: int | None) -> np.ndarray:
    array = planes.numpy()
    return array[0] if channel_axis is None else np.moveaxis(array, 0, channel_axis)


def _ssim(x: Tensor, y: Tensor, **options: Any) -> Tensor:
    """ssimloss.ssim of [C, *spatial]; what is no image is a volume with sides of 1."""
    sides = x.dim() - 1
    if sides == 2:
        return functional.ssim(x, y, **options)
    x, y = (t.reshape(1, len(t), *[1] * (3 - sides), *t.shape[1:]) for t in (x, y))
    options["window_size"] = (1,) * (3 - sides) + (options["window_size"],) * sides
    value = functional.ssim(x, y, **options)
    return value if value.dim() == 0 else value.reshape(x.shape[1], *value.shape[-sides:])


def _map(
    x: Tensor, y: Tensor, radius: int, gradient: bool, unbiased: float, options: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """The map at every pixel [C, *spatial], and the gradient of its mean with respect to y.

    Their gradient (Avanaki 2009, equations 7 and 8) does not know of the factor `unbiased` of sample
    covariances: it is 1 / unbiased of the true one, and the rest that of l alone.
    """

    def similarity(y: Tensor, **only: float) -> Tensor:
        padded = (_edges_repeated(image, radius) for image in (x, y))
        return _ssim(*padded, reduction="map", **options | only)

    if not gradient:
        return similarity(y), y
    y = y.requires_grad_()
    with torch.enable_grad():
        values = similarity(y)
        mean = values.flatten(1).mean(1).sum() / unbiased
        if unbiased != 1:
            luminance, cs = similarity(y, **NO_CONTRAST), similarity(y.detach(), **NO_LUMINANCE)
            mean = mean + (1 - 1 / unbiased) * (luminance * cs).flatten(1).mean(1).sum()
    return values.detach(), torch.autograd.grad(mean, y)[0]


def _edges_repeated(image: Tensor, radius: int) -> Tensor:
    """Mirrored with the edge twice, which scipy calls reflect: once more, and without the edge's copy."""
    for side in range(1, image.dim()):
        first = image.narrow(side, 0, radius).flip(side)
        last = image.narrow(side, image.shape[side] - radius, radius).flip(side)
        image = torch.cat([first, image, last], side)
    return image
