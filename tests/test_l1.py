"""What is L1Loss's own: beside torch's, and by any way through memory. cases.py has it among all losses."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from cases import CASES, assert_same, pair, relative_error, value_and_gradients
from torch import Tensor

from ssimloss import L1Loss, L1SSIMLoss, reference

# More than an item's pixels in a row, in rows, and beside each other; and an odd number of them.
SHAPES = [(1, 1, 3, 70_001), (2, 3, 150, 301), (3, 70, 9, 7), (1, 2, 40_000, 1)]
F32 = dict(value=1e-7, gradient=2e-7)


def layouts(t: Tensor) -> dict[str, Tensor]:
    wide = torch.zeros([side + 3 for side in t.shape], dtype=t.dtype)
    crop = tuple(slice(1, side + 1) for side in t.shape)
    wide[crop] = t
    return {
        "plain": t,
        "channels last": t.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        "crop": wide[crop],
        "crop of channels last": wide.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)[crop],
        "columns first": t.mT.contiguous().mT,
        "images last": t.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("of_y", ["plain", "crop", "same"])
@pytest.mark.parametrize("of_x", layouts(torch.zeros(1, 1, 1, 1)))
def test_any_way_through_memory(of_x: str, of_y: str, shape: tuple[int, ...]) -> None:
    """Rows and channels are joined only where x, y, the gradients and the maps all lie so."""
    x, y = pair(*shape)
    x, y = layouts(x)[of_x], layouts(y)[of_x if of_y == "same" else of_y]
    for reduction in ("mean", "none", "map"):
        assert_same(CASES["l1"], x, y, wants=("xy", "y"), reduction=reduction, **F32)


@pytest.mark.parametrize("incoming", ["expanded", "channels last", "float64"])
def test_incoming_gradient_of_a_map(incoming: str) -> None:
    x, y = (t.contiguous(memory_format=torch.channels_last).requires_grad_() for t in pair(2, 3, 17, 19))
    weights = torch.rand(x.shape, dtype=torch.float64)
    given = {
        "expanded": weights[:1, :1, :1, :1].expand_as(weights).float(),
        "channels last": weights.contiguous(memory_format=torch.channels_last).float(),
        "float64": weights.contiguous().float(),
    }[incoming]
    grads = torch.autograd.grad(L1Loss(reduction="map")(x, y), (x, y), given)
    sign = (x - y).sign().detach()
    for grad, expected in zip(grads, (given * sign, -given * sign), strict=True):
        assert torch.equal(grad, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_as_torch(dtype: torch.dtype) -> None:
    """Equal pixels, infinities of one sign and of two, NaN: what F.l1_loss gives."""
    inf, nan = torch.inf, torch.nan
    x = torch.tensor([0.0, 1, -0.0, 2, inf, -inf, inf, inf, nan, 1, 0.5, 3], dtype=dtype).reshape(1, 1, 3, 4)
    y = torch.tensor([0.0, 1, 0.0, 1, 1, 1, -inf, inf, 1, nan, 0.75, 3], dtype=dtype).reshape(1, 1, 3, 4)
    for columns in (4, 3, 1):  # whole images, and rows that are not joined
        images = x[..., :columns], y[..., :columns]
        for reduction, of_torch in (("map", "none"), ("none", "mean"), ("mean", "mean")):
            loss, grads = value_and_gradients(L1Loss(reduction=reduction), *images)
            theirs = value_and_gradients(lambda x, y: F.l1_loss(x, y, reduction=of_torch), *images)  # noqa: B023
            expected = theirs[0].reshape(loss.shape).to(loss)
            torch.testing.assert_close(
                loss, expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-3, atol=0, equal_nan=True
            )
            if reduction == "none":
                continue  # its fixed random incoming gradient is another
            for grad, their_grad in zip(grads, theirs[1], strict=True):
                nan = (images[0] - images[1]).isnan()  # the sign of NaN, which is 0 in torch
                assert torch.equal(grad.isnan(), nan)
                torch.testing.assert_close(grad[~nan], their_grad[~nan])


@pytest.mark.parametrize("reduction", ["mean", "map"])
def test_second_derivatives(reduction: str) -> None:
    """Those of l1 are 0, of l1 of something else they are not."""
    x, y = pair(1, 2, 2, 3, dtype=torch.float64)

    def of(l1: Callable[..., Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda t: l1(t**2, y).square().sum()

    expected = torch.func.hessian(of(lambda x, y: reference.l1_loss(x, y, reduction=reduction)))(x)
    assert relative_error(torch.func.hessian(of(L1Loss(reduction=reduction)))(x), expected) < 1e-12
    assert torch.count_nonzero(torch.func.hessian(lambda t: L1Loss()(t, y))(x)) == 0


def test_sums_do_not_lose_digits() -> None:
    """1 and 2^24 small differences: float32 would not count one of them."""
    x = torch.full((1, 1, 4096, 4097), 2.0**-25)
    x[0, 0, 0, 0] = 1
    x.requires_grad_()
    loss = L1Loss(reduction="none")(x, torch.zeros_like(x))
    expected = (1 + (x.numel() - 1) * 2.0**-25) / x.numel()
    assert loss.item() == torch.tensor(expected, dtype=torch.float32).item()


def test_is_the_l1_of_l1_ssim() -> None:
    x, y = pair(2, 3, 40, 41)
    expected = value_and_gradients(L1SSIMLoss(ssim_weight=0.0), x, y)
    loss, grads = value_and_gradients(L1Loss(), x, y)
    assert relative_error(loss, expected[0]) < 1e-7
    assert all(relative_error(*pair) < 1e-7 for pair in zip(grads, expected[1], strict=True))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x: L1Loss(reduction="sum"),
            ValueError,
            "reduction: expected one of 'mean', 'none', 'map', got 'sum'",
        ),
        (
            lambda x: L1Loss()(x, x[:1]),
            ValueError,
            r"y: expected the shape of x, \[2, 3, 4, 5\], got \[1, 3, 4, 5\]",
        ),
        (
            lambda x: L1Loss()(x, x.double()),
            TypeError,
            "y: expected the dtype of x, torch.float32, got torch.float64",
        ),
        (
            lambda x: L1Loss()(x[0, 0], x[0, 0]),
            ValueError,
            r"x: expected shape \[N, C, H, W\] or \[C, H, W\], got",
        ),
    ],
    ids=["reduction", "shape", "dtype", "dimensions"],
)
def test_errors(call: Callable, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(torch.rand(2, 3, 4, 5))


def test_prints_what_it_knows() -> None:
    assert repr(L1Loss(reduction="map")) == "L1Loss(reduction='map')"


def test_a_range_for_each_image_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"data_range: expected a finite number > 0 or None, got a torch\.Tensor$"
    ):
        L1Loss(data_range=torch.ones(2))
