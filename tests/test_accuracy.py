"""float32 against float64 on photographs: what the issue promises of values and gradients.

    similarity within 2e-7; loss within 5e-6 of ITSELF; gradient within 5e-6 relative L2, and
    within 1e-5 for windows over 31 taps and for Mix; identical images exactly 0.

float64 means the same float32 images, converted, through tests/exact.py (which says why not
ssimloss.reference: it gives SSIM, not 1 - SSIM, which is near 1e-8 for images 1e-5 apart).
"""

from collections.abc import Callable

import exact
import mpmath
import pytest
import torch
from cases import (
    CASES,
    PADDINGS,
    WANTS,
    Case,
    every_loss,
    pair,
    relative_error,
    value_and_gradients,
    values_and_gradients,
)
from conftest import photo_names
from skimage import data
from torch import Tensor

from ssimloss import reference, ssim

every_named_loss = pytest.mark.parametrize("name", CASES)


def noise(like: Tensor, size: float) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return size * torch.randn(like.shape, generator=generator)


def flat(y: Tensor) -> tuple[Tensor, Tensor]:
    flat_y = torch.full_like(y, 0.99) + noise(y, 1e-4).flip(-1)
    return flat_y + noise(y, 1e-4), flat_y


def eight_bits(y: Tensor) -> tuple[Tensor, Tensor]:
    return (255 * (y + noise(y, 0.1)).clamp(0, 1)).round(), (255 * y).round()


# y [1, 3, H, W] in 0..1 -> (x, y)
CONDITIONS: dict[str, Callable[[Tensor], tuple[Tensor, Tensor]]] = {
    "noise": lambda y: (y + noise(y, 0.1), y),
    "flat": flat,
    "1e-3 apart": lambda y: (y + noise(y, 1e-3), y),
    "1e-5 apart": lambda y: (y + noise(y, 1e-5), y),
    "dark": lambda y: (0.01 * y + noise(y, 1e-3), 0.01 * y),
    "biased": lambda y: (y + 0.1, y),
    "negative": lambda y: (1 - y, y),
    "0..255": eight_bits,
}


def options_of(condition: str) -> dict:
    return dict(data_range=255.0) if condition == "0..255" else {}


def measure(name: str, condition: str, y: Tensor, **options) -> tuple[float, float, float]:
    """Error of the similarity, relative errors of the loss and of its worst gradient: the worst of WANTS."""
    x, y = CONDITIONS[condition](y)
    options |= options_of(condition)
    similarity = loss = gradient = 0.0
    for actual, expected, grads in values_and_gradients(CASES[name], x, y, exact.LOSSES[name], **options):
        similarity = max(similarity, (actual.double() - expected).abs().item())
        loss = max(loss, relative_error(actual, expected))
        gradient = max(gradient, *(relative_error(*pair) for pair in grads))
    return similarity, loss, gradient


def gradient_limit(name: str) -> float:
    return 1e-5 if name.startswith("mix") or CASES[name].taps > 31 else 5e-6


@pytest.mark.parametrize("picture", photo_names())
@pytest.mark.parametrize("condition", CONDITIONS)
@every_named_loss
def test_photographs(name: str, condition: str, picture: str, photo) -> None:
    similarity, loss, gradient = measure(name, condition, photo(picture))
    if not name.startswith(("mix", "l1")):  # these two are no similarities, and may be large
        assert similarity < 2e-7
    assert loss < 5e-6
    assert gradient < gradient_limit(name)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", ["ssim", "ms_ssim_gaussian"])
def test_wide_pictures(name: str, condition: str) -> None:
    """The kernels' segments grow with the width, and what lies under one of them varies more."""
    y = torch.from_numpy(data.astronaut()[64:224].copy()).permute(2, 0, 1)[None, :1].float() / 255
    similarity, loss, gradient = measure(name, condition, torch.cat([y, y.flip(-1)], -1))  # 160 x 1024
    assert similarity < 2e-7 and loss < 5e-6 and gradient < gradient_limit(name)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", ["ssim", "l1_ssim", "ms_ssim_gaussian", "mix"])
def test_batches_of_patches(name: str, condition: str, photo) -> None:
    """Planes of narrow images share a row of segments."""
    y = photo("astronaut")[0, :, 32:160, 32:160]
    y = y.unfold(1, 64, 32).unfold(2, 64, 32).permute(1, 2, 0, 3, 4).flatten(0, 1)  # [9, 3, 64, 64]
    similarity, loss, gradient = measure(name, condition, y.contiguous())
    assert similarity < 2e-7 or name in ("mix", "l1_ssim")
    assert loss < 5e-6 and gradient < gradient_limit(name)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("sigma", [0.5, 1.0, 1.3, 1.4])
def test_windows_much_smaller_than_a_segment(sigma: float, condition: str, photo) -> None:
    similarity, loss, gradient = measure("ssim", condition, photo("astronaut"), sigma=sigma)
    assert similarity < 2e-7 and loss < 5e-6 and gradient < 5e-6


@pytest.mark.parametrize("padding", PADDINGS)
@every_named_loss
def test_exact_is_the_reference(name: str, padding: str) -> None:
    """On images far enough apart for ssimloss.reference the two float64 forms agree."""
    case, options = CASES[name], dict(padding=padding, k1=0.02, data_range=1.5)
    x, y = pair(2, 2, 47, 50, dtype=torch.float64)
    y[:, :1] = 1 - x[:, :1]  # a negative cs as well
    for tiny in (case.tiny, {"window_size": 11} | ({"weights": (0.5,)} if case.levels > 1 else {})):
        expected, expected_grads = value_and_gradients(case.spec, x, y, **options, **tiny)
        actual, grads = value_and_gradients(exact.LOSSES[name], x, y, **options, **tiny)
        assert relative_error(actual, expected) < 1e-11
        for g, e in zip(grads, expected_grads, strict=True):
            assert relative_error(g, e) < 1e-11


def test_exact_is_exact() -> None:
    """The standard formula in 40 digits, one window of images 1e-5 apart; in float64 it loses them."""
    x, y = CONDITIONS["1e-5 apart"](pair(1, 1, 11, 11)[1])
    x, y = x.double(), y.double()
    with mpmath.workdps(40):
        half = [mpmath.exp(-mpmath.mpf(t * t) / mpmath.mpf(4.5)) for t in range(-5, 6)]
        weights = [a * b / sum(half) ** 2 for a in half for b in half]

        def mean(*images: Tensor) -> mpmath.mpf:
            values = zip(*(map(mpmath.mpf, i.flatten().tolist()) for i in images), strict=True)
            return sum(w * mpmath.fprod(v) for w, v in zip(weights, values, strict=True))

        def standard(mu_x, mu_y, xx, yy, xy, c1, c2):
            luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
            return 1 - luminance * (2 * (xy - mu_x * mu_y) + c2) / (xx - mu_x**2 + yy - mu_y**2 + c2)

        numbers = [mean(*images) for images in ((x,), (y,), (x, x), (y, y), (x, y))]
        numbers += [mpmath.mpf(0.01) ** 2, mpmath.mpf(0.03) ** 2]
        expected = standard(*numbers)
        assert abs(exact.ssim(x, y).item() / expected - 1) < 1e-9
        assert abs((1 - reference.ssim(x, y).item()) / expected - 1) < 1e-7  # 1 - SSIM has no more digits
        assert abs(standard(*map(float, numbers)) / expected - 1) > 1e-7


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("picture", photo_names()[:2])
@every_loss
def test_identical_images(case: Case, picture: str, dtype: torch.dtype, photo) -> None:
    """Exactly 0, value and gradient: SSIM is at its maximum, and sign(0) = 0."""
    for scale, offset in ((1.0, 0.0), (255.0, 10.0), (1e-3, 0.0), (0.0, 0.5)):
        y = (photo(picture) * scale + offset).to(dtype)
        for want in WANTS:
            loss, grads = value_and_gradients(case.fused, y, y.clone(), want)
            assert loss == 0
            assert all(torch.count_nonzero(grad) == 0 for grad in grads)


@pytest.mark.parametrize("padding", PADDINGS)
def test_partly_identical_images(padding: str, photo) -> None:
    """Exactly 0 where a window sees no difference, however large it is elsewhere."""
    y = photo("chelsea")
    for rows, cols in (
        (slice(0, 90), slice(None)),
        (slice(None), slice(0, 100)),
        (slice(60, 99), slice(50, 93)),
    ):
        x = (y + 0.3).requires_grad_()
        with torch.no_grad():
            x[..., rows, cols] = y[..., rows, cols]
        ssim(x, y, padding=padding).backward()
        inner = torch.zeros(x.shape[-2:])
        inner[rows, cols] = 1
        inside = -torch.nn.functional.max_pool2d(-inner[None], 21, 1, 10)[0] > 0  # windows of windows
        assert inside.any() and torch.count_nonzero(x.grad[..., inside]) == 0


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", ["ssim", "ms_ssim", "ms_ssim_gaussian"])
def test_never_above_one(name: str, condition: str, photo) -> None:
    """Nowhere in the map (per image for the pyramid) is a similarity above 1, a loss below 0."""
    case, picture = CASES[name], photo("chelsea")
    for apart in (CONDITIONS[condition], lambda y: (y * (1 + 1e-7), y)):
        x, y = apart(picture)
        for padding in PADDINGS:
            options = dict(padding=padding, reduction=case.reductions()[-1])
            assert case.fused(x, y, **options, **options_of(condition)).min() >= 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@every_loss
def test_negative_images(case: Case, dtype: torch.dtype, photo) -> None:
    """cs is negative nearly everywhere: the gradient stays finite and alive in each channel."""
    y = photo("astronaut").to(dtype)
    for want in WANTS:
        loss, grads = value_and_gradients(lambda x, y: case.fused(x, y) * 1024, 1 - y, y, want)
        assert loss.isfinite()
        for grad in grads:
            assert grad.isfinite().all()
            assert (grad.double().abs().amax((-2, -1)) > 0).all()
