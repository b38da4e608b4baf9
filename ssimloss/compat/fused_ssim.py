"""fused-ssim, and fused_l1_ssim_loss of its forks. The gradient goes to img1 alone, the data range is 1.

It takes float32 on a GPU alone; here every device and dtype of ssimloss.
"""

from torch import Tensor

from .. import functional
from ..modules import L1SSIMLoss

__all__ = ["fused_l1_ssim_loss", "fused_ssim", "fused_ssim3d"]

IMAGES = "[N, C, H, W]"
PADDINGS = {"same": "zeros", "valid": "valid"}


def _padding(padding: str) -> str:
    if padding not in PADDINGS:
        raise AssertionError(f"padding: expected 'same' or 'valid', got {padding!r}")
    return PADDINGS[padding]


def _check_rank(img1: Tensor, shape: str) -> None:
    if img1.dim() != shape.count(",") + 1:
        raise ValueError(f"img1: expected shape {shape}, got {list(img1.shape)}")


def fused_ssim(img1: Tensor, img2: Tensor, padding: str = "same", train: bool = True) -> Tensor:
    """Mean SSIM of img1, img2 [N, C, H, W], 11 taps; without `train` there is no gradient."""
    _check_rank(img1, IMAGES)
    return _ssim(img1, img2, padding, train)


def _ssim(img1: Tensor, img2: Tensor, padding: str, train: bool) -> Tensor:
    img1 = img1 if train else img1.detach()
    return functional.ssim(img1, img2.detach(), padding=_padding(padding))


def fused_l1_ssim_loss(
    img1: Tensor, img2: Tensor, ssim_weight: float = 0.2, padding: str = "same", train: bool = True
) -> Tensor:
    """(1 - ssim_weight) * l1 + ssim_weight * (1 - SSIM), the mean over the positions that padding leaves."""
    _check_rank(img1, IMAGES)
    img1 = img1 if train else img1.detach()
    if _padding(padding) == "valid":  # there l1 is cropped, too
        loss = L1SSIMLoss(ssim_weight, padding="valid", reduction="map")
        return loss(img1, img2.detach()).mean()
    return L1SSIMLoss(ssim_weight)(img1, img2.detach())


def fused_ssim3d(img1: Tensor, img2: Tensor, padding: str = "same", train: bool = True) -> Tensor:
    """Mean SSIM of volumes img1, img2 [N, C, D, H, W], 11 taps; without `train` there is no gradient."""
    _check_rank(img1, "[N, C, D, H, W]")
    return _ssim(img1, img2, padding, train)
