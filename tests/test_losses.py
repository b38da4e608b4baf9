"""The losses of the paper's tables on its 31x31 patches, against their formulas written out."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from restoration.losses import LOSSES, PLANS

X, Y = torch.rand(2, 4, 3, 31, 31, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
OFFSETS = torch.arange(-15, 16, dtype=torch.float64)


def window(sigma: float) -> Tensor:
    line = torch.exp(-0.5 * (OFFSETS / sigma) ** 2)
    return torch.outer(line, line) / line.sum() ** 2


def l_and_cs(sigma: float) -> tuple[Tensor, Tensor]:
    """[4, 3] each: at the centre of the patch."""

    def mean(image: Tensor) -> Tensor:
        return (image * window(sigma)).sum((-2, -1))

    mu_x, mu_y = mean(X), mean(Y)
    s_xx, s_yy, s_xy = mean(X * X) - mu_x**2, mean(Y * Y) - mu_y**2, mean(X * Y) - mu_x * mu_y
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1), (2 * s_xy + c2) / (s_xx + s_yy + c2)


def ms_ssim() -> Tensor:
    product = l_and_cs(8)[0]
    for sigma in (0.5, 1, 2, 4, 8):
        product = product * l_and_cs(sigma)[1]
    return product


L1 = ((X - Y).abs() * window(8)).sum((-2, -1))  # [4, 3]
L2 = ((X - Y) ** 2 * window(8)).sum((-2, -1))
EXPECTED = {
    "l2": ((X - Y) ** 2).mean(),
    "l1": (X - Y).abs().mean(),
    "ssim5": (1 - torch.stack(l_and_cs(5)).prod(0)).mean(),
    "ssim9": (1 - torch.stack(l_and_cs(9)).prod(0)).mean(),
    "ms_ssim": (1 - ms_ssim()).mean(),
    "mix": (0.84 * (1 - ms_ssim()) + 0.16 * 255 * L1).mean(),
    "mix_l1_range1": (0.84 * (1 - ms_ssim()) + 0.16 * L1).mean(),
    "mix_released": (0.025 * (1 - ms_ssim()) + 0.975 * L1).mean(),
    "ms_ssim+l2": (0.84 * (1 - ms_ssim()) + 0.16 * 255**2 * L2).mean(),
}


def test_every_loss_is_written_out_here():
    assert LOSSES.keys() == EXPECTED.keys()
    assert all(set(plan) <= LOSSES.keys() for plan in PLANS.values())


@pytest.mark.parametrize("name", EXPECTED)
def test_loss_is_the_papers(name):
    torch.testing.assert_close(LOSSES[name](X, Y), EXPECTED[name], rtol=1e-6, atol=0, check_dtype=False)
