"""The same numbers as the packages people know, and as the paper.

Peers run in float64, where each is within its own rounding of 1e-12 or so. Where a peer builds its
window in float32 (pytorch-msssim, kornia) it is handed one of float64.
"""

import math
from collections.abc import Callable, Iterator

import kornia
import numpy as np
import pytest
import pytorch_msssim
import torch
import torch.nn.functional as F
from cases import pair, relative_error, value_and_gradients
from skimage.metrics import structural_similarity
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ssimloss import MixLoss, MSSSIMLoss, SSIMLoss, ms_ssim, reference, ssim

CLOSE = dict(rtol=0, atol=1e-12)
ODD_SIZES = [(64, 64), (61, 48), (33, 77)]


@pytest.fixture
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_peer(ours: Callable, theirs: Callable, x: Tensor, y: Tensor) -> None:
    """The same value and gradients."""
    actual, grads = value_and_gradients(ours, x, y)
    expected, expected_grads = value_and_gradients(theirs, x, y)
    torch.testing.assert_close(actual, expected, **CLOSE)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert relative_error(grad, expected_grad) < 1e-10


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
def test_scikit_image(size: tuple[int, int], sigma: float, photo) -> None:
    y = photo("chelsea").double()[0, :, : size[0], : size[1]] * 255
    x = y + 9 * pair(3, *size, dtype=torch.float64)[0]
    peer = structural_similarity(
        x.numpy(),
        y.numpy(),
        channel_axis=0,
        data_range=255,
        gaussian_weights=True,
        use_sample_covariance=False,
        sigma=sigma,
    )
    np.testing.assert_allclose(ssim(x, y, data_range=255, sigma=sigma).item(), peer, rtol=0, atol=1e-12)


@pytest.mark.parametrize("window_size", [7, 11])
@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
def test_scikit_image_by_default(size: tuple[int, int], window_size: int, photo) -> None:
    """Its defaults are a uniform window and sample covariances."""
    y = photo("chelsea").double()[0, :, : size[0], : size[1]] * 255
    x = y + 9 * pair(3, *size, dtype=torch.float64)[0]
    given = {} if window_size == 7 else dict(win_size=window_size)
    peer = structural_similarity(x.numpy(), y.numpy(), channel_axis=0, data_range=255, **given)
    ours = dict(window="uniform", sample_covariance=True, data_range=255)
    ours |= {} if window_size == 7 else dict(window_size=window_size)
    np.testing.assert_allclose(ssim(x, y, **ours).item(), peer, rtol=0, atol=1e-12)
    biased = structural_similarity(
        x.numpy(), y.numpy(), channel_axis=0, data_range=255, use_sample_covariance=False, **given
    )
    ours["sample_covariance"] = False
    np.testing.assert_allclose(ssim(x, y, **ours).item(), biased, rtol=0, atol=1e-12)


def loss_of_fast_mri(x: Tensor, y: Tensor, data_range: float) -> Tensor:
    """1 - SSIM of one channel as fastMRI's U-Net and VarNet are trained with: means over 7x7 pixels, the
    unbiased variances, Wang's constants."""
    c1, c2, n = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2, 49

    def mean(image: Tensor) -> Tensor:
        return F.avg_pool2d(image, 7, stride=1)

    mu_x, mu_y = mean(x), mean(y)
    s_xx, s_yy, s_xy = ((mean(a * b) - mean(a) * mean(b)) * n / (n - 1) for a, b in ((x, x), (y, y), (x, y)))
    numerator = (2 * mu_x * mu_y + c1) * (2 * s_xy + c2)
    return 1 - (numerator / ((mu_x**2 + mu_y**2 + c1) * (s_xx + s_yy + c2))).mean()


@pytest.mark.parametrize("data_range", [1.0, 40.0])
@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
def test_fast_mri(size: tuple[int, int], data_range: float) -> None:
    x, y = (t * data_range for t in pair(3, 1, *size, dtype=torch.float64))
    loss = SSIMLoss(window="uniform", sample_covariance=True, data_range=data_range)
    assert_peer(loss, lambda x, y: loss_of_fast_mri(x, y, data_range), x, y)


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
def test_pytorch_msssim(size: tuple[int, int]) -> None:
    window = reference.gaussian(1.5, 5).expand(3, 1, 1, -1)
    assert_peer(
        lambda x, y: ssim(x, y, data_range=2.0, reduction="none"),
        lambda x, y: pytorch_msssim.ssim(x, y, data_range=2.0, win=window, size_average=False),
        *pair(2, 3, *size, dtype=torch.float64),
    )


@pytest.mark.parametrize("size", [(161, 161), (167, 172)], ids=str)
def test_pytorch_msssim_pyramid(size: tuple[int, int]) -> None:
    window = reference.gaussian(1.5, 5).expand(2, 1, 1, -1)
    assert_peer(
        lambda x, y: ms_ssim(x, y, halving="zeros", reduction="none"),
        lambda x, y: pytorch_msssim.ms_ssim(x, y, data_range=1, win=window, size_average=False),
        *pair(2, 2, *size, dtype=torch.float64),
    )


@pytest.mark.parametrize("size", ODD_SIZES, ids=str)
def test_torchmetrics(size: tuple[int, int]) -> None:
    """It pads by reflection and averages every position; no crop."""
    assert_peer(
        lambda x, y: ssim(x, y, padding="reflect", sigma=1.2),
        lambda x, y: structural_similarity_index_measure(x, y, sigma=1.2, data_range=1.0),
        *pair(2, 3, *size, dtype=torch.float64),
    )


@pytest.mark.parametrize("data_range", [1.0, 255.0])
@pytest.mark.parametrize("size", [(40, 40), (61, 35), (9, 70)], ids=str)
def test_kornia(size: tuple[int, int], data_range: float, float64_by_default) -> None:
    """kornia: 200 times the released layer's Mix, alpha 0.025 and l1 in units of the range."""
    peer = kornia.losses.MS_SSIMLoss(data_range=data_range)
    mix = MixLoss(0.025, l1_range=1.0, data_range=data_range, window_size=33, padding="zeros")
    x, y = pair(2, 3, *size, dtype=torch.float64)
    assert_peer(lambda x, y: 200 * mix(x, y), peer, x * data_range, y * data_range)
    lone = MixLoss(1.0, data_range=data_range, window_size=33, padding="zeros", reduction="none")
    peer = kornia.losses.MS_SSIMLoss(data_range=data_range, alpha=1.0, compensation=1.0, reduction="none")
    assert_peer(lone, lambda x, y: peer(x, y).mean((1, 2)), x * data_range, y * data_range)


# ---- The paper (Zhao et al. 2017) at the centre of a 31x31 patch, in numpy, from its text.


def paper_patch(x: np.ndarray, y: np.ndarray, sigmas: tuple[float, ...], mix: bool) -> tuple:
    """(loss, its derivative by x) of one channel [31, 31]: equations 5 to 14 as printed."""
    c1, c2 = 0.01**2, 0.03**2
    q = np.arange(-15, 16)
    cs, dcs = [], []
    for sigma in sigmas:
        g = np.exp(-(q[:, None] ** 2 + q[None, :] ** 2) / (2 * sigma**2))
        g = g / g.sum()
        mu_x, mu_y = (g * x).sum(), (g * y).sum()
        s_xx, s_yy = (g * (x - mu_x) ** 2).sum(), (g * (y - mu_y) ** 2).sum()
        s_xy = (g * (x - mu_x) * (y - mu_y)).sum()
        cs.append((2 * s_xy + c2) / (s_xx + s_yy + c2))
        dcs.append(2 * g * ((y - mu_y) - cs[-1] * (x - mu_x)) / (s_xx + s_yy + c2))
        # Those of the last, largest sigma are used below.
        lum = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
        dlum = 2 * g * (mu_y - mu_x * lum) / (mu_x**2 + mu_y**2 + c1)
    product = math.prod(cs)
    d_product = sum(d * math.prod(c for i, c in enumerate(cs) if i != j) for j, d in enumerate(dcs))
    value, derivative = 1 - lum * product, -(dlum * product + lum * d_product)
    if not mix:
        return value, derivative
    l1, dl1 = (g * abs(x - y)).sum(), g * np.sign(x - y)
    return 0.84 * value + 0.16 * 255 * l1, 0.84 * derivative + 0.16 * 255 * dl1


@pytest.mark.parametrize(
    ("loss", "sigmas", "mix"),
    [
        (SSIMLoss(sigma=5.0, window_size=31), (5.0,), False),
        (SSIMLoss(sigma=9.0, window_size=31), (9.0,), False),
        (MSSSIMLoss(window_size=31), (0.5, 1.0, 2.0, 4.0, 8.0), False),
        (MixLoss(window_size=31), (0.5, 1.0, 2.0, 4.0, 8.0), True),
    ],
    ids=["SSIM_5", "SSIM_9", "MS-SSIM", "Mix"],
)
def test_paper(loss: torch.nn.Module, sigmas: tuple[float, ...], mix: bool, photo) -> None:
    """Averages over batch and channels; the gradient reaches every pixel of the patch."""
    y = F.unfold(photo("chelsea").double(), 31, stride=31).mT.reshape(-1, 3, 31, 31)[:6]
    x = (y + 0.1 * pair(*y.shape, dtype=torch.float64)[0]).requires_grad_()
    patches = [
        [paper_patch(x[i, c].detach().numpy(), y[i, c].numpy(), sigmas, mix) for c in range(3)]
        for i in range(6)
    ]
    actual = loss(x, y)
    torch.testing.assert_close(
        actual.item(), np.mean([[p[0] for p in image] for image in patches]).item(), **CLOSE
    )
    derivative = torch.tensor(np.array([[p[1] for p in image] for image in patches])) / (6 * 3)
    assert relative_error(torch.autograd.grad(actual, x)[0], derivative) < 1e-11
