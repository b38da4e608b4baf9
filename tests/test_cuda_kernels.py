"""The CUDA launchers as csrc/cuda/api.h declares them, without a GPU, torch's operators or autograd in
between: called through pybind11 (tests/cuda_shim/kernels.cpp), against reference.py in float64.

test_cuda_shim.py tests the operators above them at length.
"""

import platform
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import pytest
import torch
from cases import HALF_TYPES, every_padding, l1_spec, one_minus, pair, relative_error
from torch import Tensor

from ssimloss import reference

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the shim's fibers are x86-64")
SCHEDULES = ("forward", "reverse", "5")


class Launch(NamedTuple):
    """A launcher's arguments, and what they mean: a loss of reference.py with its options."""

    launcher: str
    windows: tuple
    spec: Callable[..., Tensor]
    options: dict
    launches: list[str]  # for value and gradient
    ssim: float = 1.0  # the weights of the two terms
    l1: float = 0.0

    def expected(self, x: Tensor, y: Tensor, padding: str, incoming: Tensor) -> tuple[Tensor, ...]:
        """Loss of each image, and the gradients of their sum times `incoming`."""
        leaves = [t.double().requires_grad_() for t in (x, y)]
        loss = self.spec(*leaves, **self.options, padding=padding, reduction="none")
        return loss.detach(), *torch.autograd.grad(loss, leaves, incoming.double())

    def call(self, kernels: ModuleType, x: Tensor, y: Tensor, padding: str, **given: object) -> None:
        if self.launcher == "gaussian":
            taps = self.windows[1][-1] if self.windows[1] else 1
            crop = taps - 1 if padding == "valid" else 0
            positions = x.shape[1] * (x.shape[2] - crop) * (x.shape[3] - crop)
            for kind in ("mean", "gain"):
                given |= {f"ssim_{kind}": self.ssim / positions, f"l1_{kind}": self.l1 / positions}
            given["l1_windowed"] = taps > 1
        else:
            given |= dict(grad_scale=1 / x.shape[1])
        getattr(kernels, self.launcher)(
            x, y, *self.windows, padding, ssim_weight=self.ssim, l1_weight=self.l1, per_image=True, **given
        )


SSIM, MS_SSIM = one_minus(reference.ssim), one_minus(reference.ms_ssim)
MIX = dict(sigmas=(0.8, 1.5, 2.0), window_size=9, alpha=0.6, l1_range=1.0)
WEIGHTS = (0.3, 0.3, 0.4)
EVERY_LAUNCH = {
    "l1": Launch("gaussian", ([], []), l1_spec, {}, ["l1", "finish"], 0.0, 1.0),
    "strip": Launch("gaussian", ([1.5], [11]), SSIM, dict(window_size=11), ["strip", "finish"]),
    "ring": Launch("gaussian", ([1.5], [7]), SSIM, dict(window_size=7), ["ring", "finish"]),
    "wide": Launch(
        "gaussian", ([5.0], [35]), SSIM, dict(sigma=5.0, window_size=35), ["scales", "adjoint", "finish"]
    ),
    "scales": Launch(
        "gaussian",
        (MIX["sigmas"], [9] * 3),
        reference.mix_loss,
        MIX,
        ["scales", "adjoint", "gather", "finish"],
        0.6,
        0.4,
    ),
    "levels": Launch(
        "dyadic",
        (WEIGHTS, 1.5, 11),
        MS_SSIM,
        dict(weights=WEIGHTS, window_size=11),
        ["strip", "levels", "combine"],
    ),
    "levels by rings": Launch(
        "dyadic",
        (WEIGHTS, 1.5, 5),
        MS_SSIM,
        dict(weights=WEIGHTS, window_size=5),
        ["ring", "pool", "ring", "pool", "ring", "combine"],
    ),
}
every_launch = pytest.mark.parametrize("launch", EVERY_LAUNCH.values(), ids=EVERY_LAUNCH)


@every_launch
@every_padding
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, *HALF_TYPES], ids=str)
def test_loss_and_gradients(
    launch: Launch, padding: str, dtype: torch.dtype, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each image, times its incoming gradient; the same bits in every order of threads."""
    x, y = pair(2, 3, 47, 51, dtype=dtype)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    incoming = torch.tensor([8192.0, -3000.0], dtype=wide)
    results = []
    for schedule in SCHEDULES:
        monkeypatch.setenv("SHIM_SCHEDULE", schedule)
        outputs = torch.full((2,), torch.nan, dtype=wide), *(torch.full_like(x, torch.nan) for _ in range(2))
        loss, grad_x, grad_y = outputs
        launch.call(kernels, x, y, padding, loss=loss, grad_x=grad_x, grad_y=grad_y, incoming=incoming)
        results.append(outputs)
    assert all(torch.equal(*same) for other in results[1:] for same in zip(other, results[0], strict=True))
    value, gradient = (1e-10, 1e-10) if dtype == torch.float64 else (1e-6, 2e-5)
    expected = launch.expected(x, y, padding, incoming)
    for actual, right, bar in zip(results[0], expected, (value, *[gradient] * 2), strict=True):
        assert relative_error(actual, right) < max(bar, torch.finfo(actual.dtype).eps)


@every_launch
@pytest.mark.parametrize("also", ["grad_x", "grad_y", ""])
def test_launches(launch: Launch, also: str, kernels: ModuleType, launched: Callable[..., list[str]]) -> None:
    x, y = pair(1, 2, 47, 51)
    outputs = dict(loss=torch.empty(1)) | ({also: torch.empty_like(x)} if also else {})
    expected = (
        launch.launches
        if also
        else [kernel for kernel in launch.launches if kernel not in ("adjoint", "gather")]
    )
    assert launched(lambda: launch.call(kernels, x, y, "valid", **outputs)) == expected


@every_launch
@every_padding
def test_no_images(launch: Launch, padding: str, kernels: ModuleType) -> None:
    x = torch.empty(0, 3, 47, 51)
    launch.call(kernels, x, x, padding, loss=torch.empty(0), grad_x=x.clone(), grad_y=x.clone())


@pytest.mark.parametrize("multiprocessors", ["1", "132"])  # more pieces than blocks at once, and fewer
@pytest.mark.parametrize("by", [[3.0, 2.0, 0.5], [3.0, 2.0, 2.0], [2.0], [3.0]], ids=str)
def test_scale(
    by: list[float],
    multiprocessors: str,
    kernels: ModuleType,
    launched: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By half of one factor an image, or of one for all; a channel of 2400 pixels takes three pieces."""
    monkeypatch.setenv("SHIM_SMS", multiprocessors)
    unit, factors = torch.rand(3, 3, 40, 60), torch.tensor(by)
    expected = unit * (0.5 * factors)[:, None, None, None]
    assert launched(lambda: kernels.scale(unit, by=factors.squeeze(), factor=0.5)) == ["scale"]
    assert torch.equal(unit, expected)


@every_launch
def test_a_launch_that_fails_is_named(
    launch: Launch, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = launch.launches[0]
    monkeypatch.setenv("SHIM_SHARED", "64" if first == "l1" else "512")
    x, y = pair(1, 1, 47, 51)
    if first not in ("l1", "strip"):
        first = "positions"  # of the tiles: no room for rings
    with pytest.raises(RuntimeError, match=rf"ssimloss: {first}_kernel: invalid argument"):
        launch.call(kernels, x, y, "valid", loss=torch.empty(1))
