"""The same numbers as the packages people know, as the paper, and not as its wrong ports.

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

from ssimloss import L1SSIMLoss, MixLoss, MSSSIMLoss, SSIMLoss, ms_ssim, reference, ssim

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
        lambda x, y: ms_ssim(x, y, reduction="none"),
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


# ---- Known wrong ports: our loss passes the check, a copy of the mistake fails it.


def masks(sigmas: tuple[float, ...], radius: int) -> Tensor:
    lines = torch.stack([reference.gaussian(sigma, radius) for sigma in sigmas])
    return lines[:, None, :, None] * lines[:, None, None, :]


def scale_major_mix(x: Tensor, y: Tensor) -> Tensor:
    """The well-known port: masks in scale-major order where the grouped convolution reads them
    channel-major, luminance from the last three, everything multiplied across the channels."""
    window = masks(tuple(s for s in reference.ZHAO_SIGMAS for _ in range(3)), 16)

    def mean(image: Tensor) -> Tensor:
        return F.conv2d(image, window, groups=3, padding=16)

    mu_x, mu_y = mean(x), mean(y)
    variances = mean(x * x) - mu_x**2 + mean(y * y) - mu_y**2
    cs = (2 * (mean(x * y) - mu_x * mu_y) + 9e-4) / (variances + 9e-4)
    lum = ((2 * mu_x * mu_y + 1e-4) / (mu_x**2 + mu_y**2 + 1e-4))[:, -3:]
    l1 = F.conv2d((x - y).abs(), window[-3:], groups=3, padding=16)
    loss = 0.84 * (1 - lum.prod(1) * cs.prod(1)).mean() + 0.16 * 255 * l1.mean()
    return loss


@pytest.mark.parametrize(
    ("mix", "right"),
    [
        (MixLoss(window_size=33, padding="zeros"), True),
        (MixLoss(), True),
        (MixLoss(multiscale="dyadic", weights=(0.5, 0.5)), True),
        (L1SSIMLoss(), True),
        (scale_major_mix, False),
    ],
    ids=["33 taps", "default", "dyadic", "L1SSIM", "wrong port"],
)
def test_bias_on_any_channel_is_the_same(mix: Callable, right: bool) -> None:
    grey = pair(1, 1, 64, 70, dtype=torch.float64)[1].expand(1, 3, -1, -1)
    losses = []
    for channel in range(3):
        biased = grey.clone()
        biased[:, channel] += 0.2
        losses.append(mix(biased, grey).item())
    assert (max(losses) - min(losses) < 1e-12) == right, losses


def eleven_taps(x: Tensor, y: Tensor) -> Tensor:
    """The port whose every window has 11 taps."""
    return reference.mix_loss(x, y, alpha=0.0, padding="zeros", reduction="map", window_size=11)


@pytest.mark.parametrize(
    ("mix", "right"),
    [(MixLoss(0.0, padding="zeros", reduction="map"), True), (eleven_taps, False)],
    ids=["ours", "wrong port"],
)
def test_the_largest_window_is_as_wide_as_its_sigma(mix: Callable, right: bool) -> None:
    """The l1 of a single pixel, spread by G_8: its standard deviation must be 8 (11 taps: 3.1)."""
    x = torch.zeros(1, 1, 101, 101, dtype=torch.float64)
    y = x.clone()
    y[..., 50, 50] = 1
    profile = mix(x, y)[0, 0].sum(0)
    offsets = torch.arange(-50, 51)
    deviation = (profile * offsets**2).sum().div(profile.sum()).sqrt()
    assert (abs(deviation - 8) < 0.1) == right, deviation


def powers(x: Tensor, y: Tensor, clamp: bool) -> Tensor:
    """Fractional exponents as ports have them: of the bare mean of cs, or clamped at 0."""
    similarity = torch.ones(())
    for level, weight in enumerate(reference.WANG_WEIGHTS):
        lum, cs = reference.luminance_and_contrast_structure(x, y, 1.5, 5, 1e-4, 9e-4, "valid", 5)
        m = (cs if level < 4 else lum * cs).mean()
        similarity = similarity * (m.clamp(min=0) if clamp else m) ** weight
        x, y = reference.halve(x), reference.halve(y)
    return 1 - similarity


@pytest.mark.parametrize(
    ("loss", "right"),
    [
        (MSSSIMLoss("dyadic"), True),
        (MSSSIMLoss("gaussian"), True),
        (lambda x, y: powers(x, y, clamp=False), False),
        (lambda x, y: powers(x, y, clamp=True), False),
    ],
    ids=["dyadic", "gaussian", "NaN port", "dead port"],
)
def test_negative_images_have_a_gradient(loss: Callable, right: bool, photo) -> None:
    y = photo("astronaut").double()
    value, (grad, _) = value_and_gradients(loss, 1 - y, y)
    alive = bool(value.isfinite() and grad.isfinite().all() and grad.abs().max() > 0)
    assert alive == right
