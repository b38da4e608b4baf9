"""The same from the CUDA kernels without a GPU: with the fixtures of test_cuda_shim.py."""

import platform
from collections.abc import Callable

import pytest
import test_parts
import torch
from cases import pair, value_and_gradients
from test_cuda_shim import cuda_operators, library  # noqa: F401  (fixtures)

from ssimloss import L1SSIMLoss, MixLoss

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the shim's fibers are x86-64")

test_parts_are_the_specifications = test_parts.test_parts_are_the_specifications
test_loss_and_gradient_do_not_change = test_parts.test_loss_and_gradient_do_not_change
test_the_formulas = test_parts.test_the_formulas
test_volumes = test_parts.test_volumes


def test_a_range_for_each_image_and_one_image() -> None:
    for given in ("range", "one image"):
        test_parts.test_with_other_options("mix", given)


@pytest.mark.parametrize("loss", [L1SSIMLoss(), MixLoss(sigmas=(0.5, 1.0))], ids=["l1_ssim", "mix"])
def test_launches(loss: torch.nn.Module, launched: Callable[..., list[str]]) -> None:
    """The terms cost two more sums of the blocks' sums; a map one more launch, without a gradient."""
    x, y = pair(1, 3, 41, 44)

    def step(**asked: bool) -> list[str]:
        def of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            given = loss(x, y, **asked)
            return given[0] if asked else given

        return launched(lambda: value_and_gradients(of, x, y, "x"))

    plain, parts = step(), step(return_parts=True)
    assert parts == [*plain[:-1], "finish", "finish", plain[-1]] and plain[-2:] == ["finish", "scale"]
    both = step(return_parts=True, return_map=True)
    assert len(both) == len(parts) + 1 and both.count("finish") == 3
