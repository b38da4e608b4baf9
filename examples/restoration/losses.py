"""The losses of the tables: each is one line.

On 31x31 patches a window of 31 leaves one position, the centre: exactly the paper's losses. There
its Gaussians of 5, 8 and 9 pixels are cut off and act as narrower ones.

The paper gives Mix an alpha of 0.84 "roughly balanced", its released layer one of 0.025. What that means
hangs on the unit of the l1 term, so there are three readings: "mix" has 0.84 with l1 in 0..255,
"mix_l1_range1" 0.84 with l1 in 0..1, "mix_released" 0.025 with l1 in 0..1.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssimloss import MixLoss, MSSSIMLoss, SSIMLoss

from .data import PATCH

ALPHA = 0.84


class HalfMSELoss(nn.Module):
    """sum (x - y)^2 / (2 count), as the layer that the paper's authors used."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(x, y) / 2


class MSSSIML2Loss(nn.Module):
    """alpha (1 - MS-SSIM) + (1 - alpha) G_8 * l2: Mix with l2 in the place of l1, values in 0..255.

    For patches [N, C, 31, 31] in [0, 1]. In these units l2 outweighs MS-SSIM by far: on patches of noisy
    photographs its term is about ten times as large.
    """

    def __init__(self):
        super().__init__()
        self.ms_ssim = MSSSIMLoss(window_size=PATCH)
        offsets = torch.arange(PATCH) - PATCH // 2
        line = torch.exp(-0.5 * (offsets / 8.0) ** 2)
        self.register_buffer("window", torch.outer(line, line) / line.sum() ** 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        l2 = ((255 * (x - y)) ** 2 * self.window).sum((-2, -1)).mean()
        return ALPHA * self.ms_ssim(x, y) + (1 - ALPHA) * l2


LOSSES = {
    "l2": nn.MSELoss(),
    "l1": nn.L1Loss(),
    "ssim5": SSIMLoss(sigma=5, window_size=PATCH),
    "ssim9": SSIMLoss(sigma=9, window_size=PATCH),
    "ms_ssim": MSSSIMLoss(window_size=PATCH),
    "mix": MixLoss(alpha=ALPHA, l1_range=255, window_size=PATCH),
    "mix_l1_range1": MixLoss(alpha=ALPHA, l1_range=1, window_size=PATCH),
    "mix_released": MixLoss(alpha=0.025, l1_range=1, window_size=PATCH),
    "ms_ssim+l2": MSSSIML2Loss(),
}

# Of the size that the paper's authors gave them: under SGD a step is as long as the gradient.
RELEASED = LOSSES | {"l2": HalfMSELoss(), "mix": LOSSES["mix_released"]}

# Not trained by default under SGD: the l2 in 0..255 diverges at the others' rate, the other is Mix itself.
NOT_BY_SGD = ("ms_ssim+l2", "mix_released")

# A network may change its loss half-way: {variant: the losses in their order}.
SCHEDULES = {"l2_then_l1": ("l2", "l1"), "l1_then_l2": ("l1", "l2")}
PLANS = {name: (name,) for name in LOSSES} | SCHEDULES
