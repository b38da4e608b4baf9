"""The dyadic MS-SSIM where structure is inverted: m_j goes on below 0.05, and training finds its way back."""

import math
from collections.abc import Callable

import exact
import pytest
import torch
import torch.nn.functional as F
from cases import CASES, relative_error, values_and_gradients
from skimage import data
from torch import Tensor

from ssimloss import MSSSIMLoss, ms_ssim, reference

TS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def mixed_with_its_negative(y: Tensor, t: float) -> Tensor:
    return (1 - t) * y + t * (1 - y)


def grey(photo: Callable[[str], Tensor], side: int = 176) -> Tensor:
    return photo("astronaut").mean(1, keepdim=True)[..., :side, :side].contiguous()


def losses_of_adam(loss: Callable[[Tensor, Tensor], Tensor], t: float) -> tuple[float, float]:
    """After 60 and 200 steps of rate 0.02, from a picture mixed with its negative."""
    whole = torch.from_numpy(data.astronaut()).permute(2, 0, 1)[None].float() / 255
    y = F.interpolate(whole, (176, 176), mode="area").mean(1, keepdim=True)
    x = mixed_with_its_negative(y, t).requires_grad_()
    adam = torch.optim.Adam([x], lr=0.02)
    values = []
    for _ in range(201):
        adam.zero_grad()
        values.append(loss(x, y))
        values[-1].backward()
        adam.step()
    return values[60].item(), values[200].item()


def test_continuation() -> None:
    """Nothing changes above the knee; value and slope are those at the knee; positive down to m = -1."""
    above = torch.linspace(0.0501, 1, 100, dtype=torch.float64)
    assert torch.equal(reference.continued(above), above)
    at = torch.tensor([0.05 - 1e-9, 0.05 + 1e-9, -1.0], dtype=torch.float64, requires_grad=True)
    values = reference.continued(at)
    (slopes,) = torch.autograd.grad(values.sum(), at)
    expected = torch.tensor([0.05, 0.05, 0.0025 / 1.1], dtype=torch.float64)
    torch.testing.assert_close(values.detach(), expected, rtol=1e-7, atol=0)
    expected = torch.tensor([1, 1, 0.0025 / 1.1**2], dtype=torch.float64)
    torch.testing.assert_close(slopes, expected, rtol=1e-7, atol=0)


def test_nan_is_continued_as_nan() -> None:
    m = torch.tensor([math.nan, 0.5, -0.5], requires_grad=True)
    values = reference.continued(m)
    (slopes,) = torch.autograd.grad(values.sum(), m)
    assert values.isnan().tolist() == slopes.isnan().tolist() == [True, False, False]


@pytest.mark.parametrize("t", TS)
@pytest.mark.parametrize("name", ["ms_ssim", "mix_dyadic"])
def test_digits_of_a_small_similarity(name: str, t: float, photo: Callable[[str], Tensor]) -> None:
    """ssimloss.ms_ssim's docstring: float32 within 2e-7. The worst gradient was 5.3e-6 off (CUDA's)."""
    y = grey(photo)
    x = mixed_with_its_negative(y, t)
    for actual, expected, grads in values_and_gradients(CASES[name], x, y, exact.LOSSES[name]):
        assert relative_error(actual, expected) < 2e-7
        for grad, expected_grad in grads:
            assert relative_error(grad, expected_grad) < 1e-5
            assert grad.abs().max() > 1e-7
    if name == "ms_ssim":
        going_on = dict(negative="continue")
        similarity = ms_ssim(x, y, **going_on)
        expected = reference.ms_ssim(x.double(), y.double(), **going_on)
        assert similarity > 0.002
        assert (similarity - expected).abs() < 2e-7
        again = ms_ssim(x.double(), y.double(), **going_on)
        torch.testing.assert_close(again, expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("negative", ["clamp", "continue"])
@pytest.mark.parametrize("name", ["ms_ssim", "mix_dyadic"])
def test_negative_means(name: str, negative: str, photo: Callable[[str], Tensor]) -> None:
    """One channel of three is inverted. Clamped, its similarity is 0 and has no gradient; the others have."""
    y = photo("astronaut")
    x = 0.9 * y + 0.02
    x[:, 1] = 1 - y[:, 1]
    options = dict(negative=negative) | (dict(alpha=1.0) if name == "mix_dyadic" else {})
    case = CASES[name]
    for dtype in (torch.float32, torch.float64):
        images = x.to(dtype), y.to(dtype)
        for actual, expected, grads in values_and_gradients(case, *images, exact.LOSSES[name], **options):
            assert relative_error(actual, expected) < (2e-7 if dtype == torch.float32 else 1e-11)
            for grad, expected_grad in grads:
                assert relative_error(grad, expected_grad) < (5e-6 if dtype == torch.float32 else 1e-9)
                alive = [bool(grad[:, c].any()) for c in range(3)]
                assert alive == [True, negative == "continue", True]
    single = case.fused(x[:, 1:2], y[:, 1:2], **options)
    assert single == 1 if negative == "clamp" else 0.9 < single < 1


def test_a_weight_of_zero_clamps_nothing(photo: Callable[[str], Tensor]) -> None:
    """0 to the power of 0 is 1."""
    y = photo("astronaut")
    for dtype in (torch.float32, torch.float64):
        x = (1 - y).to(dtype).requires_grad_()
        similarity = ms_ssim(x, y.to(dtype), weights=(0.0, 0.0))
        assert similarity == reference.ms_ssim(x, y.to(dtype), weights=(0.0, 0.0)) == 1
        assert torch.count_nonzero(torch.autograd.grad(similarity, x)[0]) == 0
        assert ms_ssim(x, y.to(dtype), weights=(0.0, 0.5)) == 0


def test_clamped_is_what_the_similarity_is_by_default(photo: Callable[[str], Tensor]) -> None:
    """And the losses go on."""
    y = grey(photo)
    assert ms_ssim(1 - y, y) == reference.ms_ssim(1 - y.double(), y.double()) == 0
    assert 0.9 < MSSSIMLoss("dyadic")(1 - y, y) < 1
    assert MSSSIMLoss("dyadic", negative="clamp")(1 - y, y) == 1


@pytest.mark.parametrize("t", [0.8, 1.0])
def test_adam_recovers(t: float) -> None:
    """With log m's tangent in the hyperbola's place it was still at 1.0000 after 60 steps."""
    early, late = losses_of_adam(MSSSIMLoss("dyadic"), t)
    assert early < 0.2 and late < 0.002


def test_adam_recovers_under_the_reference() -> None:
    early, late = losses_of_adam(lambda x, y: 1 - reference.ms_ssim(x, y, negative="continue"), 1.0)
    assert early < 0.2 and late < 0.002
