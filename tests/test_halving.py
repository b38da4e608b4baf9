"""Odd sides of the dyadic form's levels: where their halves come from, and what goes back to their pixels.

test_cuda_shim.py runs the tests of the kernels on CUDA's, too.
"""

from collections.abc import Callable

import checkerboards
import conventions
import exact
import pytest
import torch
from cases import (
    CASES,
    HALF_TYPES,
    HALVINGS,
    assert_same,
    every_halving,
    every_padding,
    pair,
    relative_error,
    value_and_gradients,
)
from test_compat import images, unlike
from test_compat_peers import assert_peer, installed
from torch import Tensor, func

from ssimloss import MSSSIMLoss, ms_ssim, options, reference

DEFINITIONS = {
    "edge": conventions.last_repeated,
    "zeros": conventions.zeros_at_both_ends,
    "drop": conventions.dropped,
}
every_negative = pytest.mark.parametrize("negative", ["continue", "clamp"])
F64, F32 = dict(value=1e-11, gradient=1e-10), dict(value=5e-6, gradient=5e-6)
WANG = reference.WANG_WEIGHTS
WEIGHTS = (0.2, 0.3, 0.1, 0.4)
FOUR_LEVELS = dict(weights=WEIGHTS, window_size=5)


def test_halving_names_are_all_tested() -> None:
    assert options.HALVINGS == HALVINGS == tuple(DEFINITIONS)


# ---- Whose numbers they are


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_published_values(dtype: torch.dtype) -> None:
    """MATLAB's, as TensorFlow's tests assert them, with the default arguments. Six digits are given."""
    boards = [image.to(dtype) for image in checkerboards.images()]
    for (i, j), published in checkerboards.MATLAB.items():
        for x, y in ((boards[i], boards[j]), (boards[j], boards[i])):
            assert abs(ms_ssim(x, y).item() - published) < 1e-6
    assert all(ms_ssim(board, board) == 1 for board in boards)
    flat = torch.zeros_like(boards[0]), torch.full_like(boards[0], 255)  # TensorFlow's testRange
    for x, y in ((boards[0], flat[0]), (boards[2], flat[1]), flat):
        assert 0 <= ms_ssim(x, y) <= 1
    zeros = ms_ssim(boards[0], boards[1], halving="zeros").item()
    assert abs(zeros - 0.086740) < 1e-6  # pytorch-msssim 1.0.0's


@every_halving
@pytest.mark.parametrize("make", [images, unlike])
def test_definition(halving: str, make: Callable) -> None:
    """From padded, copied or cropped images, without a line of the reference's own halving."""
    for shape in ((2, 2, 181, 183), (1, 2, 179, 176)):
        x, y = make(*shape)
        expected, expected_grads = value_and_gradients(
            lambda x, y: conventions.clamped_product(x, y, DEFINITIONS[halving], WANG).mean(1), x, y
        )
        given = dict(halving=halving, reduction="none")
        actual, grads = value_and_gradients(lambda x, y, o=given: ms_ssim(x, y, **o), x, y)
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-12)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            assert relative_error(grad, expected_grad) < 1e-9
    torch.testing.assert_close(reference.halve(x, halving), DEFINITIONS[halving](x), rtol=1e-14, atol=0)


@pytest.mark.parametrize("size", [(161, 171), (182, 167), (176, 192)], ids=str)
def test_peers(size: tuple[int, int]) -> None:
    """pytorch-msssim's zeros and piqa's edge, value and gradients, in float64."""
    x, y = unlike(2, 2, *size)
    window = reference.gaussian(1.5, 5).expand(2, 1, 1, -1)
    peer = installed("pytorch_msssim")
    assert_peer(
        lambda x, y: ms_ssim(x, y, halving="zeros", reduction="none"),
        lambda x, y: peer.ms_ssim(x, y, data_range=1, win=window, size_average=False),
        x,
        y,
    )
    piqa, weights = installed("piqa.ssim"), torch.tensor(WANG, dtype=torch.float64)
    assert_peer(
        lambda x, y: ms_ssim(x, y, reduction="none"),
        lambda x, y: piqa.ms_ssim(x, y, window[:, 0], weights),
        x,
        y,
    )


# ---- The kernels


@every_padding
@every_halving
def test_levels_of_every_parity(halving: str, padding: str) -> None:
    """Sides whose halves are odd at every level, at none, and at single ones; with seams."""
    case = CASES["mix_dyadic"]._replace(spec=exact.LOSSES["mix_dyadic"])
    for dtype, limits in ((torch.float64, F64), (torch.float32, F32)):
        for height, width in ((47, 63), (45, 52), (64, 57), (46, 50)):
            x, y = pair(1, 2, height, width, dtype=dtype)
            assert_same(case, x, y, halving=halving, padding=padding, **FOUR_LEVELS, **limits)
    for shape in ((1, 1, 41, 1101), (1, 1, 1103, 47), (9, 3, 43, 45)):
        assert_same(case, *pair(*shape), halving=halving, padding=padding, **FOUR_LEVELS, **F32)


@every_halving
@pytest.mark.parametrize("dtype", [torch.float32, *HALF_TYPES], ids=str)
def test_layouts_and_types(halving: str, dtype: torch.dtype) -> None:
    scale = 1 if dtype == torch.float32 else 8192  # as under loss scaling
    case = CASES["ms_ssim"]
    scaled = case._replace(
        make=lambda **o: lambda x, y: case.fused(x, y, **o) * scale,
        spec=lambda x, y, **o: case.spec(x, y, **o) * scale,
    )
    limits = F32 if scale == 1 else dict(value=1e-6, gradient=torch.finfo(dtype).eps)
    x, y = pair(2, 3, 49, 43, dtype=dtype)
    wide = torch.zeros(2, 3, 55, 50, dtype=dtype)
    wide[..., 3:52, 2:45] = x
    for image in (x, x.contiguous(memory_format=torch.channels_last), wide[..., 3:52, 2:45]):
        assert_same(scaled, image, y, halving=halving, **FOUR_LEVELS, **limits)


@pytest.mark.parametrize("taps", [3, 11])
@pytest.mark.parametrize("sides", [(41, 40), (40, 41), (43, 47)], ids=str)
def test_what_the_coarser_level_takes_of_an_odd_side(sides: tuple[int, int], taps: int) -> None:
    """The finest level has no say here: the images are those that are padded or cropped by hand."""
    x, y = pair(1, 2, *sides, dtype=torch.float64)
    odd = [0, sides[1] % 2, 0, sides[0] % 2]
    by_hand: dict[str, Callable[[Tensor], Tensor]] = {
        "edge": lambda t: torch.nn.functional.pad(t, odd, mode="replicate"),
        "zeros": lambda t: torch.nn.functional.pad(t, [*odd[1::-1], *odd[:1:-1]]),
        "drop": lambda t: t[..., : sides[0] - odd[3], : sides[1] - odd[1]],
    }
    given = dict(weights=(0.0, 1.0), window_size=taps)
    even = MSSSIMLoss("dyadic", **given)
    for halving, change in by_hand.items():
        loss = MSSSIMLoss("dyadic", halving=halving, **given)
        actual, grads = value_and_gradients(loss, x, y)
        expected, expected_grads = value_and_gradients(lambda x, y, c=change: even(c(x), c(y)), x, y)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            assert relative_error(grad, expected_grad) < 1e-10
            last = [grad[..., -1, :]] * (sides[0] % 2) + [grad[..., -1]] * (sides[1] % 2)
            for pixels in last:
                assert torch.count_nonzero(pixels) == (0 if halving == "drop" else pixels.numel())


def test_even_sides_are_halved_alike() -> None:
    x, y = pair(2, 2, 48, 80)
    for want in ("x", "xy"):
        results = []
        for halving in HALVINGS:
            loss, grads = value_and_gradients(
                MSSSIMLoss("dyadic", halving=halving, weights=WEIGHTS, window_size=3), x, y, want
            )
            results.append([loss, *grads])
        for other in results[1:]:
            assert all(torch.equal(*same) for same in zip(results[0], other, strict=True))


@every_negative
@every_halving
def test_a_nan_that_the_coarser_level_drops(halving: str, negative: str) -> None:
    """The finest level sees it: the whole channel is NaN, and no other."""
    x, y = pair(1, 2, 21, 23)
    x[0, 1, -1, -1] = torch.nan
    for weights in ((0.5, 0.5), (1.0, 0.0), (0.0, 1.0)):
        given = dict(halving=halving, negative=negative, weights=weights, window_size=3, reduction="none")
        for padding in ("zeros", "valid"):
            loss = MSSSIMLoss("dyadic", padding=padding, **given)
            value, (grad,) = value_and_gradients(loss, x, y, "x")
            assert value.isnan() and grad[:, 1].isnan().any() and grad[:, 0].isfinite().all()


# ---- Derivatives and transforms


def small(sides: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Two channels, of which the second is inverted."""
    x, y = pair(1, 2, *sides, dtype=torch.float64)
    x[:, 1] = 1 - y[:, 1]
    return x.requires_grad_(), y.requires_grad_()


@every_negative
@every_halving
@pytest.mark.parametrize("sides", [(7, 7), (9, 6), (8, 11)], ids=str)
def test_beside_odd_edges(sides: tuple[int, int], halving: str, negative: str) -> None:
    """Every element of both gradients, as the specification's."""
    for padding in ("valid", "zeros", "reflect"):
        given = dict(halving=halving, negative=negative, padding=padding, window_size=3)
        assert_same(CASES["ms_ssim"], *small(sides), weights=(0.3, 0.7), **given, **F64)


@every_negative
@every_halving
@pytest.mark.parametrize("sides", [(7, 7), (9, 6), (8, 11)], ids=str)
def test_gradcheck_beside_odd_edges(sides: tuple[int, int], halving: str, negative: str) -> None:
    for padding in ("valid", "zeros", "reflect"):
        given = dict(halving=halving, negative=negative, padding=padding, window_size=3)
        loss = MSSSIMLoss("dyadic", weights=(0.3, 0.7), **given)
        torch.autograd.gradcheck(loss, small(sides))


@every_negative
@every_halving
def test_second_order(halving: str, negative: str) -> None:
    """The level that is clamped gives neither NaN nor a derivative."""
    loss = MSSSIMLoss("dyadic", halving=halving, negative=negative, weights=(0.3, 0.7), window_size=3)
    x, y = small((7, 9))
    torch.autograd.gradgradcheck(loss, (x, y), fast_mode=True, nondet_tol=1e-12)
    (grad,) = torch.autograd.grad(loss(x, y), x, create_graph=True)
    (twice,) = torch.autograd.grad(grad.square().sum(), x)
    assert twice.isfinite().all() and twice[:, 0].any() and twice[:, 1].any() == (negative == "continue")


@every_negative
@every_halving
def test_transforms(halving: str, negative: str) -> None:
    torch.compiler.reset()
    loss = MSSSIMLoss("dyadic", halving=halving, negative=negative, **FOUR_LEVELS)
    assert f"halving={halving!r}, negative={negative!r}" in repr(loss)
    x, y = pair(3, 2, 45, 47)
    x[0, 0] = 1 - y[0, 0]
    expected = value_and_gradients(loss, x, y)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(value_and_gradients(compiled, x, y), expected)
    exported = torch.export.export(loss, (x, y)).module()
    assert torch.equal(exported(x, y), expected[0])
    mapped = func.vmap(loss)(x, y)
    torch.testing.assert_close(mapped, torch.stack([loss(*one) for one in zip(x, y, strict=True)]))
    torch.testing.assert_close(func.grad(loss)(x, y), torch.autograd.grad(loss(x.requires_grad_(), y), x)[0])
