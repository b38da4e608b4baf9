"""All that differentiates, traces or batches the losses: autograd, opcheck, compile, func."""

import copy

import pytest
import torch
from cases import (
    CASES,
    Case,
    assert_same,
    every_loss,
    every_padding,
    pair,
    relative_error,
    value_and_gradients,
)
from torch import Tensor, func

import ssimloss
from ssimloss import L1SSIMLoss, MixLoss, SSIMLoss, ops
from ssimloss.options import Options

FORMS = ("gaussian", "gaussian_backward", "dyadic", "dyadic_backward")
DETAILED = ("gaussian_detailed", "volume_detailed")
ALL_OPS = (*FORMS, "volume", "volume_backward", *DETAILED, "scale_", "gradient_like", "warn_once")


def tiny_pair(case: Case, dtype: torch.dtype = torch.float64, grow: int = 2) -> tuple[Tensor, Tensor]:
    side = case.least("valid", case.tiny["window_size"], len(case.tiny.get("weights", "1")))
    return pair(2, 2, side + grow, side + 1, dtype=dtype)


# ---- Derivatives


@pytest.mark.parametrize("at_least_size", [True, False], ids=["window", "larger"])
@every_padding
@every_loss
def test_gradcheck(case: Case, padding: str, at_least_size: bool) -> None:
    levels = len(case.tiny.get("weights", "1"))
    side = case.least(padding, case.tiny["window_size"], levels) + (0 if at_least_size else 3)
    x, y = pair(1, 2, side, side, dtype=torch.float64)
    x.requires_grad_(), y.requires_grad_()
    for reduction in case.reductions():
        loss = case.make(padding=padding, reduction=reduction, **case.tiny)
        # gradcheck also passes an undefined incoming gradient, as autograd does for unused outputs.
        torch.autograd.gradcheck(loss, (x, y), fast_mode=not at_least_size)


# ---- The kept gradient


@every_loss
def test_kept_gradient_is_handed_out_once(case: Case) -> None:
    """Overwritten by its receiver, it must not come back when asked for again."""
    x, y = tiny_pair(case)
    x.requires_grad_(), y.requires_grad_()
    for reduction in case.reductions():
        loss = case.fused(x, y, reduction=reduction, **case.tiny).sum()
        first = torch.autograd.grad(loss, (x, y), retain_graph=True)
        expected = [grad.clone() for grad in first]
        for grad in first:
            grad.fill_(7)
        for again in range(2):
            second = torch.autograd.grad(loss, (x, y), retain_graph=again == 0)
            assert all(relative_error(*g) < 1e-12 for g in zip(second, expected, strict=True))


def test_images_changed_in_place_are_noticed() -> None:
    """They are saved by reference: the gradient computed anew would be of other images."""
    x, y = (t.requires_grad_() for t in pair(1, 1, 20, 20))
    loss = SSIMLoss()(x, y)
    torch.autograd.grad(loss, x, retain_graph=True)
    with torch.no_grad():
        y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
def test_incoming_one_leaves_the_gradient_alone(dtype: torch.dtype, monkeypatch) -> None:
    """No multiplication in place, not even by one, and no copy: x.grad is the op's own buffer."""
    addresses = []

    def spy(unit: Tensor, *args) -> None:
        addresses.append(unit.data_ptr())
        ops.scale_(unit, *args)

    monkeypatch.setattr("ssimloss.autograd.scale_", spy)
    x, y = pair(2, 3, 40, 41, dtype=dtype)
    x.requires_grad_()
    SSIMLoss()(x, y).backward()
    assert [x.grad.data_ptr()] == addresses
    # Any arithmetic turns a signalling NaN into a quiet one, whose bits differ.
    integer, bits = {
        torch.float32: (torch.int32, 0x7F800001),
        torch.float64: (torch.int64, 0x7FF0000000000001),
        torch.float16: (torch.int16, 0x7C01),
    }[dtype]
    for factor, untouched in ((1.0, True), (0.25, True), (2.0, False)):
        unit = torch.full((1, 1, 4, 40), bits, dtype=integer).view(dtype)
        ops.scale_(unit, torch.full((), 4.0 if factor == 0.25 else 1.0), factor)
        assert bool((unit.view(integer) == bits).all()) == untouched


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_scale(dtype: torch.dtype) -> None:
    unit = pair(2, 3, 17, 19, dtype=dtype)[0]
    for grad_loss in (torch.tensor(-2.5), torch.tensor([1.0, 0.5])):
        for layout in (unit.clone(), unit.contiguous(memory_format=torch.channels_last)):
            ops.scale_(layout, grad_loss, 3.0)
            gain = grad_loss if grad_loss.dim() == 0 else grad_loss[:, None, None, None]
            torch.testing.assert_close(layout, (unit.double() * gain * 3).to(dtype))


@pytest.mark.parametrize("name", CASES)
def test_float16_gradients_survive_the_mean(name: str) -> None:
    """1/N of a gradient is below float16's smallest number; loss scaling must bring it back."""
    case = CASES[name]
    x, y = pair(2, 3, 192, 200, dtype=torch.float16)
    scaled = case._replace(
        make=lambda **o: lambda x, y: case.fused(x, y, **o) * 65536,
        spec=lambda x, y, **o: case.spec(x, y, **o) * 65536,
    )
    options = dict(l1_range=1.0) if name.startswith("mix") else {}
    assert_same(scaled, x, y, value=1e-6, gradient=5e-4, **options)


@pytest.mark.parametrize("data_range", [255.0, 1e6])
def test_float16_gradients_of_a_large_l1(data_range: float) -> None:
    """Kept in units of the mean and the data range, l1's own gradient was beyond float16's largest number."""
    x, y = pair(2, 3, 40, 41, dtype=torch.float16)
    scaled = CASES["l1_ssim"]._replace(
        make=lambda **o: lambda x, y: CASES["l1_ssim"].fused(x, y, **o) * 1024,
        spec=lambda x, y, **o: CASES["l1_ssim"].spec(x, y, **o) * 1024,
    )
    assert_same(scaled, x, y, value=1e-6, gradient=1e-3, data_range=data_range)


# ---- torch.library


def op_arguments(form: str, **options) -> tuple[Case, Options]:
    case = CASES["mix" if form == "gaussian" else "mix_dyadic"]
    return case, case.make(**case.tiny, **options).options


@pytest.mark.parametrize("reduction", ["mean", "none", "map"])
@pytest.mark.parametrize("form", ["gaussian", "dyadic"])
def test_opcheck(form: str, reduction: str) -> None:
    if form == "dyadic" and reduction == "map":
        reduction = "mean"  # has no map: checked with one gradient instead of two
    case, options = op_arguments(form, reduction=reduction)
    for wants, dtype in (((True, True), torch.float64), ((False, True), torch.float16)):
        images = [
            image.requires_grad_(want) for image, want in zip(tiny_pair(case, dtype), wants, strict=True)
        ]
        torch.library.opcheck(options.op, (*images, 2.0, *wants, *options))
        if form == "gaussian" and reduction != "map":
            torch.library.opcheck(options.detailed_op, (*images, 2.0, *wants, wants[0], *options))
        grad_loss = torch.ones_like(options.op(*images, 1.0, False, False, *options)[0])
        images = [t.detach() for t in images]
        torch.library.opcheck(options.backward_op, (grad_loss, *images, *wants, *options))


def test_opcheck_scale() -> None:
    torch.library.opcheck(ops.scale_, (torch.rand(2, 3, 4, 5), torch.rand(2), 0.5))


def test_opcheck_gradient_like() -> None:
    """But for its values, of which there are none yet."""
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(
        torch.ops.ssimloss.gradient_like.default, (torch.rand(2, 3, 4, 5),), test_utils=checks
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_opcheck_warn_once() -> None:
    torch.library.opcheck(torch.ops.ssimloss.warn_once.default, (torch.rand(2, 3, 4, 5), "said"))


def test_no_op_is_unchecked() -> None:
    """A new op must enter the tests above."""
    registered = {n for n in torch._C._dispatch_get_all_op_names() if n.startswith("ssimloss::")}
    assert registered == {f"ssimloss::{name}" for name in ALL_OPS}


# ---- Transforms: each the same as eager


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@every_loss
def test_compile(case: Case, dtype: torch.dtype) -> None:
    torch.compiler.reset()
    x, y = tiny_pair(case, dtype, grow=5)
    for reduction in case.reductions():
        loss = case.make(reduction=reduction, **case.tiny)
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        expected, expected_grads = value_and_gradients(loss, x, y)
        actual, grads = value_and_gradients(compiled, x, y)
        torch.testing.assert_close(actual, expected)
        torch.testing.assert_close(grads, expected_grads)
        torch.testing.assert_close(compiled(x, y), expected)  # without gradients


def test_compile_with_inductor() -> None:
    torch.compiler.reset()
    case = CASES["mix"]
    x, y = tiny_pair(case, torch.float32)
    loss = case.make(**case.tiny)
    actual = value_and_gradients(torch.compile(loss, fullgraph=True), x, y)
    torch.testing.assert_close(actual, value_and_gradients(loss, x, y))


def test_vjp_called_after_its_transform_has_ended() -> None:
    x, y = pair(1, 1, 16, 16)
    _, vjp = func.vjp(lambda t: SSIMLoss()(t, y), x)
    (gradient,) = vjp(torch.tensor(1.0))
    assert not gradient.requires_grad
    assert relative_error(gradient, func.grad(lambda t: SSIMLoss()(t, y))(x)) == 0


@every_loss
def test_func_grad(case: Case) -> None:
    x, y = tiny_pair(case)
    loss = case.make(**case.tiny)
    x_leaf, y_leaf = x.clone().requires_grad_(), y.clone().requires_grad_()
    expected = torch.autograd.grad(loss(x_leaf, y_leaf), (x_leaf, y_leaf))
    torch.testing.assert_close(func.grad(loss, argnums=(0, 1))(x, y), expected)
    torch.testing.assert_close(func.jacrev(loss)(x, y), expected[0])


@pytest.mark.parametrize("batched", ["both", "x", "y"])
@every_loss
def test_vmap(case: Case, batched: str) -> None:
    x, y = tiny_pair(case)
    stacks = [torch.stack([t, t.flip(0) * 0.7, t.flip(-1)]) for t in (x, y)]
    dims = tuple(0 if batched in ("both", name) else None for name in "xy")
    images = [s if d == 0 else s[0] for s, d in zip(stacks, dims, strict=True)]
    rows = [[s if d is None else s[i] for s, d in zip(images, dims, strict=True)] for i in range(3)]
    for reduction in case.reductions():
        loss = case.make(reduction=reduction, **case.tiny)
        mapped = func.vmap(loss, in_dims=dims)(*images)
        torch.testing.assert_close(mapped, torch.stack([loss(*row) for row in rows]))

        def total(x: Tensor, y: Tensor, loss: torch.nn.Module = loss) -> Tensor:
            return loss(x, y).square().sum()

        both = func.grad(total, argnums=(0, 1))
        expected = [torch.stack(g) for g in zip(*(both(*row) for row in rows), strict=True)]
        torch.testing.assert_close(list(func.vmap(both, in_dims=dims)(*images)), expected)


@every_loss
def test_batched_incoming_gradients(case: Case) -> None:
    """is_grads_batched: many incoming gradients, one kept gradient."""
    x, y = tiny_pair(case)
    x.requires_grad_()
    factors = torch.tensor([1.0, -2.0, 0.5], dtype=x.dtype)

    def grad(incoming: Tensor, batched: bool) -> Tensor:
        loss = case.fused(x, y, **case.tiny)
        return torch.autograd.grad(loss, x, incoming, is_grads_batched=batched)[0]

    expected = torch.stack([grad(factor, False) for factor in factors])
    torch.testing.assert_close(grad(factors, True), expected)


@every_loss
def test_vmap_over_single_images_and_jacobians(case: Case) -> None:
    x, y = tiny_pair(case)
    loss = case.make(reduction="none", **case.tiny)
    torch.testing.assert_close(func.vmap(loss)(x, y), loss(x, y))
    jacobian = func.jacrev(loss)(x, y)
    x_leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(x_leaf, y).sum(), x_leaf)
    torch.testing.assert_close(jacobian[[0, 1], [0, 1]], expected)
    assert torch.count_nonzero(jacobian[[0, 1], [1, 0]]) == 0  # images do not mix


@every_loss
def test_export(case: Case) -> None:
    x, y = tiny_pair(case, torch.float32)
    loss = case.make(**case.tiny)
    exported = torch.export.export(loss, (x, y)).module()
    assert torch.equal(exported(x, y), loss(x, y))
    other = pair(*x.shape, seed=9)
    assert torch.equal(exported(*other), loss(*other))


@every_loss
def test_autocast(case: Case) -> None:
    """A network's bfloat16 output beside a float32 target: float32 inside, gradients as given."""
    x, y = tiny_pair(case, torch.float32)
    x = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        actual, grads = value_and_gradients(lambda x, y: case.fused(x, y, **case.tiny), x, y)
    expected, expected_grads = value_and_gradients(lambda x, y: case.fused(x.float(), y, **case.tiny), x, y)
    assert torch.equal(actual, expected)
    assert [g.dtype for g in grads] == [torch.bfloat16, torch.float32]
    assert all(torch.equal(*g) for g in zip(grads, expected_grads, strict=True))


@every_loss
def test_modules_copy_and_print(case: Case) -> None:
    x, y = tiny_pair(case)
    loss = case.make(**case.tiny)
    assert torch.equal(copy.deepcopy(loss)(x, y), loss(x, y))
    assert "reduction=" in repr(loss) and not loss.state_dict()


def test_modules_print_their_arguments() -> None:
    assert repr(MixLoss(0.5, 100)).startswith("MixLoss(alpha=0.5, l1_range=100.0, multiscale='gaussian', sig")
    assert repr(L1SSIMLoss(0.3)).startswith(
        "L1SSIMLoss(ssim_weight=0.3, sigmas=(1.5,), window_sizes=(11,), p"
    )
    uniform = SSIMLoss(window="uniform", sample_covariance=True)
    assert repr(uniform).startswith(
        "SSIMLoss(window='uniform', sample_covariance=True, k2=0.03, sigmas=(inf,)"
    )


def test_no_gradient_saves_nothing() -> None:
    x, y = pair(1, 3, 30, 30)
    for leaf, context in ((x, torch.enable_grad()), (x.clone().requires_grad_(), torch.no_grad())):
        with context:
            loss = ssimloss.MixLoss(window_size=5)(leaf, y)
        assert loss.grad_fn is None and not loss.requires_grad


def test_incoming_gradient_of_a_map_in_another_dtype_is_refused() -> None:
    x = torch.rand(1, 1, 11, 11)
    options = SSIMLoss(reduction="map").options
    options.backward_op(torch.ones(1, 1, 1, 1), x, x, True, False, *options)
    with pytest.raises(ValueError, match=r"grad_loss: expected .* of a map, its dtype"):
        options.backward_op(torch.ones(1, 1, 1, 1).double(), x, x, True, False, *options)
