"""The dyadic MS-SSIM where structure is inverted: m_j goes on below 0.05, and training finds its way back."""

from collections.abc import Callable

import exact
import pytest
import torch
from cases import CASES, relative_error, values_and_gradients
from torch import Tensor

from ssimloss import MSSSIMLoss, ms_ssim, reference

TS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def mixed_with_its_negative(y: Tensor, t: float) -> Tensor:
    return (1 - t) * y + t * (1 - y)


def grey(photo: Callable[[str], Tensor], side: int = 176) -> Tensor:
    return photo("astronaut").mean(1, keepdim=True)[..., :side, :side].contiguous()


def loss_after(loss: Callable[[Tensor, Tensor], Tensor], y: Tensor, t: float, steps: int = 200) -> float:
    """Of Adam, rate 0.02, from y mixed with its negative."""
    x = mixed_with_its_negative(y, t).requires_grad_()
    adam = torch.optim.Adam([x], lr=0.02)
    for _ in range(steps):
        adam.zero_grad()
        loss(x, y).backward()
        adam.step()
    return loss(x, y).item()


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
        similarity = ms_ssim(x, y)
        expected = reference.ms_ssim(x.double(), y.double())
        assert similarity > 0.002
        assert (similarity - expected).abs() < 2e-7
        torch.testing.assert_close(ms_ssim(x.double(), y.double()), expected, rtol=1e-11, atol=0)


@pytest.mark.parametrize("t", [0.8, 1.0])
def test_adam_recovers(t: float, photo: Callable[[str], Tensor]) -> None:
    assert loss_after(MSSSIMLoss("dyadic"), grey(photo), t) < 0.005


def test_adam_recovers_under_the_reference(photo: Callable[[str], Tensor]) -> None:
    assert loss_after(lambda x, y: 1 - reference.ms_ssim(x, y), grey(photo), 1.0) < 0.005
