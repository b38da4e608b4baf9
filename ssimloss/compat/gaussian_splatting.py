"""utils/loss_utils.py of Kerbl et al. 2023 (3-D Gaussian splatting), and of what has grown from it."""

from torch import Tensor

from .. import functional

__all__ = ["ssim"]


def ssim(img1: Tensor, img2: Tensor, window_size: int = 11, size_average: bool = True) -> Tensor:
    """SSIM of [C, H, W] or [N, C, H, W] under zero padding, data range 1: a scalar, or one an image.

    ssimloss.L1SSIMLoss is the whole loss, and faster than its two terms.
    """
    reduction = "mean" if size_average else "none"
    value = functional.ssim(img1, img2, window_size=window_size, padding="zeros", reduction=reduction)
    return value.to(img1.dtype)
