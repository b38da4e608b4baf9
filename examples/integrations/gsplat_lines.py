"""gsplat: two ways. The losses of its trainers, whose renders are [N, H, W, 3], cost no copy here."""

import sys

from torch import Tensor

from ssimloss import L1SSIMLoss
from ssimloss.compat import fused_ssim


def take_the_place_of_fused_ssim() -> None:
    """Before gsplat.losses.ssim_loss is called, which imports fused_ssim if it can. Forks of 3DGS, too."""
    sys.modules["fused_ssim"] = fused_ssim


def photometric_loss(colors: Tensor, pixels: Tensor, ssim_lambda: float = 0.2) -> Tensor:
    """In simple_trainer.py in place of l1loss, ssimloss and their lerp: one pass for both terms."""
    loss = L1SSIMLoss(ssim_lambda, padding="valid")
    return loss(colors.permute(0, 3, 1, 2), pixels.permute(0, 3, 1, 2))
