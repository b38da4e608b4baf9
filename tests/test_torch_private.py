"""Every private name of torch that ssimloss/torch_private.py uses, gone: the same results, only later."""

import importlib
import re
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import pytest
import test_autograd
import test_second_order
import torch

from ssimloss import torch_private

SOURCES = Path(torch_private.__file__).parent
NAMES = re.findall(r'_found\("([\w.]+)"\)', (SOURCES / "torch_private.py").read_text())


@pytest.fixture(params=[*NAMES, "all of them"])
def torch_without(request: pytest.FixtureRequest) -> Iterator[None]:
    """ssimloss as imported where torch has not the name."""
    with pytest.MonkeyPatch.context() as patch:
        for path in NAMES if request.param == "all of them" else [request.param]:
            owner, _, name = path.rpartition(".")
            patch.delattr(attrgetter(owner)(torch), name)
        importlib.reload(torch_private)
    yield
    importlib.reload(torch_private)


@pytest.mark.usefixtures("torch_without")
class TestWithoutPrivateNames:
    """What differs between autograd's ways: tests of the other files as they are."""

    test_double_backward = staticmethod(test_second_order.test_nested_grad)
    test_forward_mode = staticmethod(test_second_order.test_forward_mode)
    test_hessian = staticmethod(test_second_order.test_hessian)
    test_kept_gradient_is_handed_out_once = staticmethod(test_autograd.test_kept_gradient_is_handed_out_once)
    test_batched_incoming_gradients = staticmethod(test_autograd.test_batched_incoming_gradients)
    test_func_grad = staticmethod(test_autograd.test_func_grad)
    test_vmap = staticmethod(test_autograd.test_vmap)
    test_vjp_after = staticmethod(test_autograd.test_vjp_called_after_its_transform_has_ended)
    test_no_gradient_saves_nothing = staticmethod(test_autograd.test_no_gradient_saves_nothing)


def test_this_torch_has_them() -> None:
    """Or the losses have become slower, and torch_private.py should learn the new names."""
    assert len(NAMES) == 5
    for name in NAMES:
        assert torch_private._found(name) is not None


def test_nobody_else_uses_private_names() -> None:
    for source in SOURCES.glob("*.py"):
        found = re.findall(r"\btorch\._\w+|from torch\._\w+", source.read_text())
        assert not found or source.name == "torch_private.py", source.name
