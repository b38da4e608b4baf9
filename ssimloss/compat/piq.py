"""piq 0.8.0. Images of 384 pixels and more are halved, or reduced further, first, unless downsample=False.

Values outside [0, data_range] are an AssertionError, for which a device is waited.

Complex images, [N, C, H, W, 2], are computed by its formulas in plain torch. They are never reduced first,
and the result has two parts, [2] or [N, 2]. It is no similarity: where l has the real part of the product of
the means, cs has the imaginary part of the covariance, and the reverse. Identical images do not give 1.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import reference
from ._glue import NO_LUMINANCE, Module, channel_means

__all__ = ["MultiScaleSSIMLoss", "SSIMLoss", "multi_scale_ssim", "ssim"]

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def _check(
    x: Tensor, y: Tensor, kernel_size: int, data_range: float, levels: int = 1
) -> tuple[Tensor, Tensor]:
    """Both in floating point."""
    _check_size(kernel_size)
    for name, image in (("x", x), ("y", y)):
        if not isinstance(image, Tensor):
            raise AssertionError(f"{name}: expected a torch.Tensor, got {type(image).__name__}")
        if image.device != x.device or image.shape != x.shape:
            raise AssertionError(
                f"{name}: expected {list(x.shape)} on {x.device}, got {list(image.shape)} on {image.device}"
            )
        if image.dim() != 4 and (image.dim() != 5 or image.shape[-1] != 2):
            raise AssertionError(
                f"{name}: expected shape [N, C, H, W] or [N, C, H, W, 2], got {list(image.shape)}"
            )
        low, high = image.detach().aminmax()
        if not (low >= 0 and high <= data_range):
            raise AssertionError(f"{name}: expected values in [0, {data_range}], got {low} to {high}")
    least = (kernel_size - 1) * 2 ** (levels - 1) + 1
    if min(x.shape[2:4]) < least:
        raise ValueError(f"x: expected height and width of at least {least}, got {list(x.shape)}")
    dtype = torch.promote_types(torch.promote_types(x.dtype, y.dtype), torch.float16)
    dtype = dtype if x.is_floating_point() or y.is_floating_point() else torch.float32
    return x.to(dtype), y.to(dtype)


def _check_size(kernel_size: int) -> None:
    if kernel_size % 2 == 0:
        raise AssertionError(f"kernel_size: expected an odd number, got {kernel_size}")


def _reduce(values: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return values
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction: expected 'none', 'mean' or 'sum', got {reduction!r}")
    return values.mean(0) if reduction == "mean" else values.sum(0)


def ssim(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: float = 1.0,
    reduction: str = "mean",
    full: bool = False,
    downsample: bool = True,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Any:
    """SSIM of x, y [N, C, H, W] with values in [0, data_range]; full: [SSIM, mean cs]."""
    x, y = _check(x, y, kernel_size, data_range)
    reduce_by = round(min(x.shape[-2:]) / 256)
    if downsample and reduce_by > 1:
        x, y = F.avg_pool2d(x, reduce_by), F.avg_pool2d(y, reduce_by)
    options: dict[str, Any] = dict(sigma=kernel_sigma, window_size=kernel_size, data_range=data_range)
    options |= dict(k1=k1, k2=k2)
    value = _reduce(_means(x, y, **options).mean(1), reduction).to(x.dtype)
    if not full:
        return value
    return [value, _reduce(_means(x, y, cs=True, **options).mean(1), reduction).to(x.dtype)]


def _means(x: Tensor, y: Tensor, cs: bool = False, **options: Any) -> Tensor:
    """The means of SSIM, or of cs, of each image and channel, [N, C]; of complex images [N, C, 2]."""
    if x.dim() == 4:
        return channel_means(x, y, **options | (NO_LUMINANCE if cs else {}))
    return _complex_means(x, y, cs, **options)


def _complex_means(
    x: Tensor, y: Tensor, cs: bool, sigma: float, window_size: int, data_range: float, k1: float, k2: float
) -> Tensor:
    x, y = (torch.view_as_complex(image.double().contiguous() / data_range) for image in (x, y))

    def mean(image: Tensor) -> Tensor:
        return reference.blur(image, sigma, window_size // 2, "valid", window_size // 2)

    def energy(image: Tensor) -> Tensor:
        return image.real**2 + image.imag**2

    mu_x, mu_y = mean(x), mean(y)
    of_means = energy(mu_x) + energy(mu_y)
    variances = mean(energy(x) + energy(y)) - of_means
    covariance = torch.view_as_real(mean(x * y) - mu_x * mu_y).flip(-1)  # theirs: (imaginary, real)
    map_ = (2 * covariance + k2**2) / (variances + k2**2)[..., None]
    if not cs:
        map_ = map_ * (2 * torch.view_as_real(mu_x * mu_y) + k1**2) / (of_means + k1**2)[..., None]
    return map_.mean((2, 3))


def multi_scale_ssim(
    x: Tensor,
    y: Tensor,
    kernel_size: int = 11,
    kernel_sigma: float = 1.5,
    data_range: float = 1.0,
    reduction: str = "mean",
    scale_weights: Tensor | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """MS-SSIM of x, y [N, C, H, W] with values in [0, data_range]; given weights are divided by their sum."""
    levels = len(WEIGHTS) if scale_weights is None else len(scale_weights)
    x, y = _check(x, y, kernel_size, data_range, levels)
    if scale_weights is None:
        scale_weights = torch.tensor(WEIGHTS, dtype=torch.float64, device=x.device)
    elif scale_weights.dim() != 1:
        raise ValueError(f"scale_weights: expected a vector, got {list(scale_weights.shape)}")
    else:
        scale_weights = scale_weights / scale_weights.sum()
    options = dict(sigma=kernel_sigma, window_size=kernel_size, data_range=data_range, k1=k1, k2=k2)
    return _reduce(_product_over_levels(x, y, scale_weights, **options).mean(1), reduction).to(x.dtype)


def _product_over_levels(x: Tensor, y: Tensor, weights: Tensor, **options: Any) -> Tensor:
    """prod_j max(m_j, 0) ** weights[j], [N, C]: ssimloss.ms_ssim, but for the way to halve.

    m_j is the mean of cs at level j, of l * cs at the last. Where one is negative the gradient is 0.
    """
    means = []
    for _ in range(len(weights) - 1):
        means.append(_means(x, y, cs=True, **options))
        x, y = _halve(x), _halve(y)
    means.append(_means(x, y, **options))
    clamped = torch.stack(means, 2).relu()  # [N, C, levels], of complex images [N, C, levels, 2]
    weights = weights.to(clamped)
    if clamped.dim() == 3:
        return (clamped**weights).prod(2)
    return torch.view_as_real((torch.view_as_complex(clamped) ** weights).prod(2))


def _halve(image: Tensor) -> Tensor:
    """Where either side is odd, a row and a column are repeated before the first: not ours to be had."""
    if image.dim() == 5:
        return torch.stack([_halve(part) for part in image.unbind(-1)], -1)
    odd = max(image.shape[-2] % 2, image.shape[-1] % 2)
    return F.avg_pool2d(F.pad(image, [odd, 0, odd, 0], mode="replicate"), 2)


class SSIMLoss(Module):
    """1 - ssim(x, y); with reduction="sum" that is 1 - the sum, as theirs."""

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        downsample: bool = True,
        reduction: str = "mean",
        data_range: float = 1.0,
    ) -> None:
        super().__init__()
        _check_size(kernel_size)
        self.kernel_size, self.kernel_sigma, self.k1, self.k2 = kernel_size, kernel_sigma, k1, k2
        self.downsample, self.reduction, self.data_range = downsample, reduction, data_range

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        window = (self.kernel_size, self.kernel_sigma, self.data_range, self.reduction)
        return 1 - ssim(x, y, *window, False, self.downsample, self.k1, self.k2)


class MultiScaleSSIMLoss(Module):
    """1 - multi_scale_ssim(x, y). The weights are the buffer scale_weights, as in their checkpoints."""

    scale_weights: Tensor

    def __init__(
        self,
        kernel_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        scale_weights: Tensor | None = None,
        reduction: str = "mean",
        data_range: float = 1.0,
    ) -> None:
        super().__init__()
        _check_size(kernel_size)
        weights = torch.tensor(WEIGHTS) if scale_weights is None else scale_weights
        self.register_buffer("scale_weights", weights)
        self.kernel_size, self.kernel_sigma, self.k1, self.k2 = kernel_size, kernel_sigma, k1, k2
        self.reduction, self.data_range = reduction, data_range

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        window = (self.kernel_size, self.kernel_sigma, self.data_range, self.reduction)
        return 1 - multi_scale_ssim(x, y, *window, self.scale_weights, self.k1, self.k2)
