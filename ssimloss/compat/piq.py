"""piq 0.8.0. Images of 384 pixels and more are halved, or reduced further, first, unless downsample=False.

Values outside [0, data_range] are an AssertionError, for which a device is waited. Not served: complex
images, [N, C, H, W, 2].
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional
from ._glue import NO_LUMINANCE, Module, channel_means, missing

__all__ = ["MultiScaleSSIMLoss", "SSIMLoss", "multi_scale_ssim", "ssim"]

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def _check(
    x: Tensor, y: Tensor, kernel_size: int, data_range: float, levels: int = 1
) -> tuple[Tensor, Tensor]:
    """Both in floating point, [N, C, H, W]."""
    _check_size(kernel_size)
    for name, image in (("x", x), ("y", y)):
        if not isinstance(image, Tensor):
            raise AssertionError(f"{name}: expected a torch.Tensor, got {type(image).__name__}")
        if image.device != x.device or image.shape != x.shape:
            raise AssertionError(
                f"{name}: expected {list(x.shape)} on {x.device}, got {list(image.shape)} on {image.device}"
            )
        if image.dim() not in (4, 5):
            raise AssertionError(f"{name}: expected shape [N, C, H, W], got {list(image.shape)}")
        low, high = image.detach().aminmax()
        if not (low >= 0 and high <= data_range):
            raise AssertionError(f"{name}: expected values in [0, {data_range}], got {low} to {high}")
    least = (kernel_size - 1) * 2 ** (levels - 1) + 1
    if min(x.shape[2:4]) < least:
        raise ValueError(f"x: expected height and width of at least {least}, got {list(x.shape)}")
    if x.dim() == 5:
        raise missing(f"complex images, {list(x.shape)}")
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
    options |= dict(k1=k1, k2=k2, reduction="none")
    value = _reduce(functional.ssim(x, y, **options), reduction).to(x.dtype)
    if not full:
        return value
    return [value, _reduce(functional.ssim(x, y, **options | NO_LUMINANCE), reduction).to(x.dtype)]


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
        means.append(channel_means(x, y, **options | NO_LUMINANCE))
        x, y = _halve(x), _halve(y)
    means.append(channel_means(x, y, **options))
    clamped = torch.stack(means, -1).relu()
    return (clamped ** weights.to(clamped)).prod(-1)


def _halve(image: Tensor) -> Tensor:
    """Where either side is odd, a row and a column are repeated before the first: not ours to be had."""
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
