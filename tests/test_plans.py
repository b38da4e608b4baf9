"""How the CUDA launchers cut images into blocks, on four devices: pinned in plans.txt.

Nothing runs: the shim only writes down what would be launched. A change of a plan is a change of speed, which
no test without a GPU sees; so it shows here, and plans.txt changes in the same commit, with its reason.
"""

import difflib
import platform
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the shim's fibers are x86-64")
TABLE = Path(__file__).with_name("plans.txt")
DEVICES = {  # multiprocessors, bytes of shared memory that a block may have
    "RTX 2080 Ti": (68, 65536),
    "A100": (108, 166912),
    "RTX 4090": (128, 101376),
    "H200": (132, 232448),
}
FULL_HD, PATCHES, SMALL = (1, 3, 1080, 1920), (16, 3, 128, 128), (16, 3, 31, 31)
SHAPES = [FULL_HD, PATCHES, (16, 3, 256, 256), (4, 3, 512, 512), (1, 3, 2160, 3840), (1, 1, 700, 31)]
ZHAO = ([0.5, 1.0, 2.0, 4.0, 8.0], [5, 9, 15, 29, 57])
LEVELS = ([0.0448, 0.2856, 0.3001, 0.2363, 0.1333], 1.5)


def problems() -> Iterator[tuple[str, str, tuple, tuple[int, ...], str, dict]]:
    """Name, launcher, windows, shape, the gradients wanted, and what else api.h has."""
    for shape in SHAPES:
        for want in ("", "x", "xy"):
            yield "ssim 11 taps", "gaussian", ([1.5], [11]), shape, want, {}
    for shape in (FULL_HD, PATCHES):
        for want in ("", "x", "xy"):
            yield "map 11 taps", "gaussian", ([1.5], [11]), shape, want, dict(map=True)
        for taps in (1, 3, 7, 9, 17, 33, 35, 65):
            yield f"ssim {taps} taps", "gaussian", ([taps / 6], [taps]), shape, "x", {}
        for want in ("", "xy"):
            yield "ssim 9 taps", "gaussian", ([1.5], [9]), shape, want, {}
        yield "ssim 9 taps", "gaussian", ([1.5], [9]), shape, "x", dict(dtype=torch.bfloat16)
        yield "ssim 9 taps", "gaussian", ([1.5], [9]), shape, "x", dict(dtype=torch.float64)
        yield "mix of one", "gaussian", ([2.0], [15]), shape, "x", dict(l1_weight=0.5)
        for want in ("", "x", "xy"):
            yield "mix default", "gaussian", ZHAO, shape, want, dict(l1_weight=0.5)
        yield "mix 33 taps", "gaussian", (ZHAO[0], [33] * 5), shape, "x", dict(l1_weight=0.5, padding="zeros")
        for want in ("", "x", "xy"):
            yield "5 levels", "dyadic", (*LEVELS, 11), shape, want, dict(padding="zeros")
        yield "5 levels, 5 taps", "dyadic", (*LEVELS, 5), shape, "x", dict(padding="zeros")
    yield "mix 31 taps", "gaussian", (ZHAO[0], [31] * 5), SMALL, "x", dict(l1_weight=0.5)
    yield "7 levels", "dyadic", ([1 / 7] * 7, 1.5, 11), FULL_HD, "x", dict(padding="zeros")
    yield "mean of many", "dyadic", (*LEVELS, 11), (1, 65, 200, 200), "x", dict(padding="zeros")


def table(kernels: ModuleType, device: str, trace: Path) -> list[str]:
    lines = [f"{device}: {DEVICES[device][0]} multiprocessors, {DEVICES[device][1]} bytes"]
    for name, launcher, windows, shape, want, others in problems():
        given = dict(others)
        dtype, padding = given.pop("dtype", torch.float32), given.pop("padding", "valid")

        x = torch.empty(shape, dtype=dtype)  # takes no memory where nobody writes
        outputs = {f"grad_{name}": x for name in want}
        if given.pop("map", False):
            outputs["grad_map" if want else "loss_map"] = torch.empty(shape)
        else:
            outputs["loss"] = torch.empty(1)
        trace.write_text("")
        size = getattr(kernels, launcher)(x, x, *windows, padding, **outputs, **given)
        said = re.findall(r"([a-z]+)_kernel\S* (\d+) (\d+) (\d+)$", trace.read_text(), re.M)
        launches = [f"{kernel} {blocks}x{threads} {shared}" for kernel, threads, shared, blocks in said]
        times = Counter(launches)
        if times.total() > 12:  # portions
            launches = [f"{times[launch]} times {launch}" for launch in times]
        sizes, kind = "x".join(map(str, shape)), str(dtype).removeprefix("torch.")
        lines.append(f"{name:16} {sizes:15} {kind:8} {want:2} | {', '.join(launches)} | {size}")
    return lines


def test_a_plan_is_said_once(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("SHIM_DRY", "1")
    monkeypatch.setenv("SHIM_SMS", "77")  # nobody else's: nothing is remembered of it
    x = torch.empty(1, 3, 300, 310)
    for said in ("", "1", "1"):
        monkeypatch.setenv("SSIMLOSS_PLAN", said)
        kernels.gaussian(x, x, [1.5], [13 if said else 15], "zeros", loss=torch.empty(1))
        kernels.gaussian(x, x, *ZHAO, "zeros" if said else "reflect", loss=torch.empty(1), grad_x=x)
    lines = capfd.readouterr().err.splitlines()
    said = [re.match(r"ssimloss: (\w+) of family (\w+), ", line).groups() for line in lines]
    assert said == [("ring_kernel", "ring"), ("scales_kernel", "scales"), ("adjoint_kernel", "scales")]
    for line in lines:
        assert re.search(
            r"of 3 planes 300x310, [01] gradients: \d+ strips of \d+ columns, .* us predicted", line
        )


def test_plans(kernels: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHIM_DRY", "1")
    monkeypatch.setenv("SHIM_TRACE", str(tmp_path / "launches.txt"))
    said = [
        "Launches: kernel, blocks x threads, bytes of shared memory a block; then bytes of the workspace."
    ]
    for device, (multiprocessors, shared) in DEVICES.items():
        monkeypatch.setenv("SHIM_SMS", str(multiprocessors))
        monkeypatch.setenv("SHIM_SHARED", str(shared))
        said += ["", *table(kernels, device, tmp_path / "launches.txt")]
    actual = tmp_path / "plans.txt"
    actual.write_text("\n".join(said) + "\n")
    difference = difflib.unified_diff(TABLE.read_text().splitlines(), said, "plans.txt", str(actual), n=0)
    assert not list(difference), f"the plans have changed; if they should have, copy {actual}"
