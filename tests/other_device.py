"""A device without kernels, for tests: its tensors lie on the CPU. To be run alone, as torch keeps it.

Every operation on such a tensor goes through torch as it would there, and is then carried out on the CPU.
"""

import warnings

import torch
from cases import CASES, PADDINGS, pair, relative_error
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

import ssimloss

_setup_privateuseone_for_python_backend("npu")
DEVICE = torch.device("npu:0")


class Elsewhere(Tensor):
    """What a CPU tensor `inner` would be on DEVICE."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> "Elsewhere":
        return Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), dtype=inner.dtype, device=DEVICE
        )

    def __init__(self, inner: Tensor):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return carry_out(op, args, kwargs or {})


def carry_out(op, args, kwargs):
    """On the CPU. There is no float64 on DEVICE, and what nothing of DEVICE goes into stays where it is."""
    there = kwargs.get("device") == DEVICE
    seen = []

    def inner(value):
        if isinstance(value, Elsewhere):
            seen.append(value)
            return value.inner
        return torch.device("cpu") if isinstance(value, torch.device) and value == DEVICE else value

    args, kwargs = tree_map(inner, args), tree_map(inner, kwargs)
    result = op(*args, **kwargs)
    if not seen and not there:
        return result

    def outer(value):
        if not isinstance(value, Tensor):
            return value
        assert value.dtype != torch.float64, f"{op}: there is no float64"
        return Elsewhere(value)

    return tree_map(outer, result)


class Device(TorchDispatchMode):
    """So that tensors of the CPU can be moved to DEVICE."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        return carry_out(op, args, kwargs or {})


def check_values_and_gradients() -> None:
    for case in CASES.values():
        levels = len(case.tiny.get("weights", "1"))
        side = case.least("valid", case.tiny["window_size"], levels) + 3
        x, y = pair(2, 2, side, side + 1)
        for padding in PADDINGS:
            for reduction in case.reductions():
                there = [Elsewhere(t).requires_grad_() for t in (x, y)]
                value = case.make(padding=padding, reduction=reduction, **case.tiny)(*there)
                leaves = [t.double().requires_grad_() for t in (x, y)]
                expected = case.spec(*leaves, padding=padding, reduction=reduction, **case.tiny)
                grads = torch.autograd.grad(value.sum(), there)
                expected_grads = torch.autograd.grad(expected.sum(), leaves)
                for one, other in zip([value, *grads], [expected, *expected_grads], strict=True):
                    assert one.device == DEVICE and one.dtype == torch.float32
                    assert relative_error(one.detach().inner, other.detach()) < 1e-5


def check_masks() -> None:
    """And padding "normalized"."""
    x, y = pair(2, 2, 20, 21)
    mask = (torch.arange(20)[:, None] + torch.arange(21) > 12).expand(2, 1, 20, 21)
    for case in CASES.values():
        options = dict(case.tiny, padding="normalized")
        leaves = [t.double().requires_grad_() for t in (x, y)]
        expected = case.spec(*leaves, mask=mask, **options)
        there = [Elsewhere(t).requires_grad_() for t in (x, y)]
        value = case.make(**options)(*there, mask=Elsewhere(mask))
        grads = torch.autograd.grad(value, there)
        expected_grads = torch.autograd.grad(expected, leaves)
        for one, other in zip([value, *grads], [expected, *expected_grads], strict=True):
            assert one.device == DEVICE and one.dtype == torch.float32
            assert relative_error(one.detach().inner, other.detach()) < 1e-5


def check_half_types() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        x, y = (t.to(dtype) for t in pair(1, 20, 20))
        value = ssimloss.ssim(Elsewhere(x), Elsewhere(y))
        assert value.dtype == torch.float32
        assert relative_error(value.inner, ssimloss.ssim(x.double(), y.double())) < 1e-5
        value = ssimloss.ssim(Elsewhere(x), Elsewhere((y * 255).byte()))
        assert relative_error(value.inner, ssimloss.ssim(x.double(), (y * 255).byte().double() / 255)) < 1e-5


def check_one_warning() -> None:
    x, y = (Elsewhere(t) for t in pair(1, 3, 20, 20))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            ssimloss.ssim(x, y)
    (warning,) = said
    assert "ssimloss: no kernels for npu: computed in plain torch" in str(warning.message)
    assert warning.filename == __file__


def check_errors() -> None:
    x, y = pair(1, 3, 20, 20)
    for other, options, message in [
        (Elsewhere(y), dict(window_size=21), "expected height and width of at least 21"),
        (y, {}, "y: expected the device of x, npu:0, got cpu"),
        (
            Elsewhere(y.half()).requires_grad_(),
            {},
            "y: expected one that requires no gradient, as torch.float16",
        ),
    ]:
        try:
            ssimloss.ssim(Elsewhere(x), other, **options)
        except (TypeError, ValueError) as error:
            assert message in str(error), error
        else:
            raise AssertionError(message)


if __name__ == "__main__":
    with Device():
        check_one_warning()
        check_values_and_gradients()
        check_masks()
        check_half_types()
        check_errors()
    print("checked")
