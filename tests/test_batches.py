"""Batches of narrow images, which the CPU kernels put side by side: no plane may see another."""

from collections.abc import Callable

import pytest
import torch
from cases import (
    CASES,
    Case,
    assert_same,
    every_loss,
    every_padding,
    every_reduction,
    pair,
    relative_error,
    value_and_gradients,
    values_and_gradients,
)
from torch import Tensor

SIDE_BY_SIDE = (10, 5, 21, 23)  # 50 planes: whole groups of any size, and a rest


def unlike_pair(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Every plane with a brightness and a contrast of its own."""
    x, y = pair(*shape, dtype=dtype)
    planes = torch.arange(shape[0] * shape[1], dtype=dtype).view(*shape[:2], 1, 1)
    contrast, brightness = 1 + planes % 7 / 3, (planes * 5 % 11) / 4
    return x * contrast + brightness, y * contrast + brightness


@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["plain", "channels_last"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@every_padding
@every_reduction
def test_each_plane_is_its_own(
    case: Case, padding: str, reduction: str, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    """Value and gradients of each plane, of all weights, against the specification."""
    images = [t.contiguous(memory_format=layout) for t in unlike_pair(*SIDE_BY_SIDE, dtype=dtype)]
    limit = 1e-5 if dtype == torch.float32 else 1e-10
    eleven = [] if case.levels > 1 else [dict(case.tiny, window_size=11)]  # a pyramid of these is too small
    for options in (case.tiny, *eleven):
        options = dict(options, padding=padding, reduction=reduction)
        for actual, expected, pairs in values_and_gradients(case, *images, case.spec, ("xy", "y"), **options):
            assert relative_error(actual, expected) < limit
            for grad, expected_grad in pairs:
                planes = zip(grad.flatten(0, 1), expected_grad.flatten(0, 1), strict=True)
                assert max(relative_error(*plane) for plane in planes) < limit


@pytest.mark.parametrize("width", [*range(11, 23), 31, 32, 33, 47, 48, 64, 65, 79])
@every_padding
def test_any_width(padding: str, width: int) -> None:
    """Segments that are full, and those that reach beyond their plane; dense rows, and others."""
    for dtype, rounding in ((torch.float32, 5e-6), (torch.bfloat16, 5e-3)):
        x, y = unlike_pair(33, 3, 14, width, dtype=dtype)
        assert_same(CASES["ssim"], x, y, padding=padding, value=5e-6, gradient=rounding)


def spoil(change: Callable[[Tensor, Tensor], None]) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def spoiled(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = x.clone(), y.clone()
        change(x[3, 2], y[3, 2])
        return x, y

    return spoiled


SPOILED = {
    "nan": spoil(lambda x, y: x[5].fill_(torch.nan)),
    "inf everywhere": spoil(lambda x, y: y.fill_(torch.inf)),
    "huge": spoil(lambda x, y: x.mul_(1e9)),
    "identical": spoil(lambda x, y: x.copy_(y)),
}


@pytest.mark.parametrize("what", SPOILED)
@every_padding
@every_loss
def test_planes_do_not_see_each_other(case: Case, padding: str, what: str) -> None:
    """Whatever one plane holds, the others' gradients keep their bits."""
    x, y = unlike_pair(*SIDE_BY_SIDE)
    for want, options in (("xy", case.tiny), ("x", case.tiny if case.levels > 1 else dict(window_size=11))):
        options = dict(options, padding=padding)
        _, expected = value_and_gradients(case.fused, x, y, want, **options)
        loss, grads = value_and_gradients(case.fused, *SPOILED[what](x, y), want, **options)
        assert loss.isfinite() == (what in ("huge", "identical"))
        for grad, expected_grad in zip(grads, expected, strict=True):
            changed = (grad != expected_grad).flatten(2).any(-1)
            assert changed.nonzero().tolist() == [[3, 2]]
            if what == "identical":
                assert torch.count_nonzero(grad[3, 2]) == 0
