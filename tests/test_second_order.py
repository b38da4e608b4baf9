"""Derivatives of second order and in forward mode: by recomputation, where the kernels have none."""

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from cases import Case, every_padding, every_reduction, every_windowed_loss, pair, relative_error
from test_autograd import op_arguments, tiny_pair
from torch import Tensor, func
from torch.autograd import forward_ad

from ssimloss import MixLoss, SSIMLoss, recompute

CHECK = dict(fast_mode=True, nondet_tol=1e-12)  # torch's convolutions may round otherwise the next time


def with_its_spec(case: Case, **options) -> tuple[Tensor, Callable, Callable]:
    """x, and the loss and its specification as functions of it, summed."""
    x, y = tiny_pair(case, grow=1)
    options |= case.tiny
    return (
        x,
        lambda t: case.fused(t, y, **options).sum(),
        lambda t: case.spec(t, y, **options).sum(),
    )


@every_reduction
def test_recomputed_loss(case: Case, reduction: str) -> None:
    """The options of the kernels, back in the arguments of reference.py."""
    for padding in ("valid", "zeros", "reflect"):
        x, y = tiny_pair(case)
        given = dict(padding=padding, reduction=reduction, data_range=1.5, k1=0.02, **case.tiny)
        if case.levels > 1:
            given |= dict(halving="drop", negative="clamp")
            x[:, 1] = 1 - y[:, 1]
        loss, expected = case.make(**given), case.spec(x, y, **given)
        actual = recompute.loss(x, y, loss.options)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14)


def test_recomputed_uniform_window() -> None:
    x, y = pair(1, 2, 12, 12, dtype=torch.float64)
    loss = SSIMLoss(window="uniform", sample_covariance=True, window_size=5)
    torch.testing.assert_close(recompute.loss(x, y, loss.options), loss(x, y), rtol=1e-12, atol=0)


@every_padding
@every_reduction
def test_gradgradcheck(case: Case, reduction: str, padding: str) -> None:
    """By finite differences of the kernels' gradient, both images and one alone."""
    x, y = tiny_pair(case, grow=1)
    loss = case.make(padding=padding, reduction=reduction, **case.tiny)
    for wants in ((True, True), (True, False), (False, True)):
        x.requires_grad_(wants[0]), y.requires_grad_(wants[1])
        torch.autograd.gradgradcheck(loss, (x, y), check_fwd_over_rev=all(wants), **CHECK)
    torch.autograd.gradcheck(loss, (x, y), check_forward_ad=True, **CHECK)


@every_windowed_loss
def test_nested_grad(case: Case) -> None:
    """create_graph, nested func.grad, and the third derivative."""
    x, loss, spec = with_its_spec(case)

    def squared_gradient(f: Callable) -> Callable:
        return lambda t: func.grad(f)(t).square().sum()

    expected = func.grad(squared_gradient(spec))(x)
    assert relative_error(func.grad(squared_gradient(loss))(x), expected) < 1e-10
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    (twice,) = torch.autograd.grad(grad.square().sum(), leaf, create_graph=True)
    assert relative_error(twice.detach(), expected) < 1e-10
    (thrice,) = torch.autograd.grad(twice.square().sum(), leaf)
    third = func.grad(lambda t: func.grad(squared_gradient(spec))(t).square().sum())(x)
    assert relative_error(thrice, third) < 1e-9


@every_windowed_loss
def test_hessian(case: Case) -> None:
    """Forward over backward, under vmap."""
    x, loss, spec = with_its_spec(case)
    small = x[:1, :1]
    expected = func.hessian(lambda t: spec(torch.cat([t, x[:1, 1:]], 1).expand_as(x)))(small)
    actual = func.hessian(lambda t: loss(torch.cat([t, x[:1, 1:]], 1).expand_as(x)))(small)
    assert relative_error(actual, expected) < 1e-10


@every_reduction
def test_forward_mode(case: Case, reduction: str) -> None:
    x, y = tiny_pair(case)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    options = dict(reduction=reduction, **case.tiny)
    for images, tangents in (((x, y), (direction, x)), ((x,), (direction,))):
        actual = func.jvp(lambda x, y=y: case.fused(x, y, **options), images, tangents)
        expected = func.jvp(lambda x, y=y: case.spec(x, y, **options), images, tangents)
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, direction)
        again = forward_ad.unpack_dual(case.fused(dual, y, **options)).tangent
    torch.testing.assert_close(again, actual[1], rtol=1e-12, atol=1e-14)


def test_forward_mode_compiled() -> None:
    """Where the op alone stood in the graph, the tangent would be a silent zero."""
    x, y = pair(1, 1, 14, 15)
    loss = SSIMLoss()

    def tangent(x: Tensor) -> Tensor:
        return func.jvp(lambda t: loss(t, y), (x,), (torch.ones_like(x),))[1]

    expected = tangent(x)
    assert expected != 0
    compiled = torch.compile(tangent, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("form", ["gaussian", "dyadic"])
def test_raw_op(form: str) -> None:
    case, arguments = op_arguments(form)
    x, y = (t.requires_grad_() for t in tiny_pair(case))
    loss = arguments.op(x, y, 1.0, True, True, *arguments)[0]
    grads = torch.autograd.grad(loss, (x, y), create_graph=True)
    twice = torch.autograd.grad(sum(g.square().sum() for g in grads), (x, y))
    spec = recompute.loss(x, y, arguments)
    grads = torch.autograd.grad(spec, (x, y), create_graph=True)
    expected = torch.autograd.grad(sum(g.square().sum() for g in grads), (x, y))
    for one, other in zip(twice, expected, strict=True):
        assert relative_error(one, other) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
def test_narrow_types(dtype: torch.dtype) -> None:
    """Computed in float64: near images keep their digits, where plain float32 has none left."""
    y = (1 + pair(1, 1, 24, 24, dtype=torch.float64)[1]).to(dtype)
    x = y * (1 + 2**-9)

    def twice(x: Tensor, loss: Callable) -> Tensor:
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(1000 * loss(x, y.to(x.dtype)), x, create_graph=True)
        result = torch.autograd.grad(grad.sum(), x)[0]
        assert result.dtype == x.dtype
        return result

    error = relative_error(twice(x, SSIMLoss()), twice(x.double(), SSIMLoss()))
    assert error < (2e-3 if dtype == torch.float16 else 1e-6)


def test_images_are_let_go() -> None:
    """What forward mode saves is not held by a loss that was differentiated."""
    x, y = pair(1, 1, 20, 20)
    image = x.requires_grad_() * 1
    held = weakref.ref(image)
    loss = MixLoss(window_size=11)(image, y)
    del image
    loss.backward()
    gc.collect()
    assert held() is None
