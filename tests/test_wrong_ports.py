"""Known wrong re-implementations: our losses pass the check, a small copy of the mistake fails it."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cases import pair, value_and_gradients
from torch import Tensor

from ssimloss import L1SSIMLoss, MixLoss, MSSSIMLoss, reference


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
        (MSSSIMLoss(), True),
        (MixLoss(multiscale="dyadic", weights=(0.5, 0.5)), True),
        (L1SSIMLoss(), True),
        (scale_major_mix, False),
    ],
    ids=["33 taps", "default", "MS-SSIM", "dyadic", "L1SSIM", "wrong port"],
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
