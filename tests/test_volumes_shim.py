"""The CUDA kernels of volumes and their operators without a GPU: with the fixtures of test_cuda_shim.py."""

import platform
from collections.abc import Callable

import pytest
import test_kernels
import test_volumes
import torch
from cases import HALF_TYPES, assert_same, every_padding, pair, value_and_gradients, wanted_by
from test_cuda_shim import F32, SCHEDULES, cuda_operators, library  # noqa: F401  (fixtures)

from ssimloss import SSIMLoss

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the shim's fibers are x86-64")


@test_kernels.every_precision
@every_padding
@test_volumes.every_reduction
@test_volumes.every_loss
def test_value_and_gradients(name: str, reduction: str, padding: str, dtype: torch.dtype) -> None:
    test_volumes.test_value_and_gradients(name, reduction, padding, dtype)


test_windows = test_volumes.test_windows
test_any_strides = test_volumes.test_any_strides
test_incoming_gradient = test_volumes.test_incoming_gradient_of_any_strides
test_identical = test_volumes.test_identical_volumes
test_nan = test_volumes.test_nan_reaches_exactly_its_windows
test_empty_batches = test_volumes.test_empty_batches
test_backward = test_volumes.test_backward_scales_what_forward_kept


@every_padding
@test_volumes.every_reduction
@test_volumes.every_loss
def test_a_range_for_each_volume(name: str, reduction: str, padding: str) -> None:
    test_volumes.test_a_range_for_each_volume(name, reduction, padding)


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
@every_padding
@test_volumes.every_reduction
def test_half_types(reduction: str, padding: str, dtype: torch.dtype) -> None:
    test_volumes.check_half_types(reduction, padding, dtype, (2, 3, 13, 14, 12))


@pytest.mark.parametrize("condition", [c for c in test_volumes.CONDITIONS if "data ranges" not in c])
def test_digits(condition: str) -> None:
    test_volumes.test_digits(condition)


@pytest.mark.parametrize("shape", [(1, 1, 9, 33, 70), (1, 2, 21, 65, 34)], ids=str)
@every_padding
def test_seams(padding: str, shape: tuple[int, ...]) -> None:
    test_volumes.test_seams(padding, shape)


def test_of_65_taps() -> None:
    x, y = pair(1, 1, 5, 9, 6)
    options = dict(padding="zeros", window_size=(65, 31, 47), sigma=20.0)
    assert_same(test_volumes.VOLUMES["l1_ssim"], x, y, **options, **F32)
    with pytest.raises(ValueError, match="at most 65 taps, got 67"):
        SSIMLoss(padding="zeros", window_size=(3, 67, 3))(x, y)


@pytest.mark.parametrize("want", ["", "x", "y", "xy"])
def test_launches_of_volumes(want: str, launched: Callable) -> None:
    leaves = wanted_by(want, *pair(2, 3, 12, 14, 15))
    gradient = ["spread", "voxels"] if want else []
    assert launched(lambda: SSIMLoss()(*leaves)) == ["moments", "depth", *gradient, "finish"]


@pytest.mark.parametrize("schedule", SCHEDULES[1:])
def test_in_every_schedule(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = pair(1, 2, 12, 20, 40)
    results = []
    for order in ("forward", schedule):
        monkeypatch.setenv("SHIM_SCHEDULE", order)
        loss, grads = value_and_gradients(test_volumes.VOLUMES["l1_ssim"].fused, x, y)
        results.append([loss, *grads])
    assert all(torch.equal(*same) for same in zip(*results, strict=True))
