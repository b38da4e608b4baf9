"""Every kind of CUDA call under ASan, UBSan and TSan, and in several orders of threads; and planted bugs,
each of which must be seen, or what sees none proves nothing.

tests/cuda_shim/driver.cpp runs the calls and prints a hash of what each wrote.
"""

import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import shim

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the shim's fibers are x86-64")
Build = Callable[[str, str], Path]


# Of a block, in bytes: an H100's, and Turing's, where the default five scales are left to tiles.cuh.
SHARED, LITTLE_SHARED = "232448", "65536"


def run(
    driver: Path, part: str = "", schedule: str = "forward", shared: str = SHARED
) -> subprocess.CompletedProcess:
    environment = {
        "SHIM_SCHEDULE": schedule,
        "SHIM_SHARED": shared,
        "TSAN_OPTIONS": "halt_on_error=1",
    }
    return subprocess.run([driver, part], env=environment, capture_output=True, text=True, timeout=400)


def test_every_call_gives_the_same_bits_in_any_order(shim_build: Build) -> None:
    driver = shim_build("plain", "driver.cpp")
    expected = run(driver)
    assert expected.returncode == 0 and expected.stdout.count("\n") > 100, expected.stdout
    for schedule in ("reverse", "7"):
        actual = run(driver, schedule=schedule)
        assert actual.returncode == 0 and actual.stdout == expected.stdout, schedule


@pytest.mark.parametrize(("kind", "schedule"), [("asan", "3"), ("tsan", "4")])
def test_every_call_is_clean(shim_build: Build, kind: str, schedule: str) -> None:
    """Also the small cases alone: a race seen once by TSan is not reported again."""
    done = run(shim_build(kind, "driver.cpp"), schedule=schedule)
    assert done.returncode == 0, done.stderr[:5000] + done.stdout[-1000:]
    assert done.stderr == ""


@pytest.mark.parametrize(("kind", "schedule"), [("asan", "5"), ("tsan", "6")])
def test_calls_on_a_device_with_little_shared_memory_are_clean(
    shim_build: Build, kind: str, schedule: str
) -> None:
    done = run(shim_build(kind, "driver.cpp"), "default", schedule, LITTLE_SHARED)
    assert done.returncode == 0 and done.stderr == "", done.stderr[:5000] + done.stdout[-1000:]
    assert done.stdout.count("\n") == 3


class Bug(NamedTuple):
    old: str  # in one of the kernels' headers, the source's own first; its first occurrence becomes `new`
    new: str
    source: str  # that must be compiled anew
    part: str  # of the driver's cases
    kind: str
    seen: str  # in what the sanitizer says; or "differs" or "not finite", in what was computed
    shared: str = SHARED


SSIM, MIX = ("strip", "ssim zeros x"), ("tiles", "mix zeros default")
RING, SCALES = ("ring", "ssim zeros taps9"), ("scales", "mix zeros x")
MASKED = "masked l1_ssim zeros x"
VOLUME = ("volume", "volume zeros x")
WAIT, BARRIER = "__pipeline_wait_prior(0);", "__syncthreads();"
LAST_COLUMN = "return col0 + p.own < p.width ? col0 + p.own : p.width;"
BUGS = {
    "no barrier after the fill": Bug(f"{WAIT}\n        {BARRIER}", WAIT, *SSIM, "tsan", "data race"),
    "no wait for cp.async": Bug(WAIT, "", *SSIM, "plain", "not finite"),
    "shared memory too small": Bug(
        "4 * strip_rows * strip_pitch", "3 * strip_rows * strip_pitch", *SSIM, "asan", "use-after-poison"
    ),
    "gradient written beyond the image": Bug(
        LAST_COLUMN, "return col0 + p.own;", *SSIM, "asan", "heap-buffer-overflow"
    ),
    "no barrier after the levels' sums": Bug(
        f"1, ssim, l1);\n  {BARRIER}", "1, ssim, l1);", "dyadic", "mix_dyadic zeros x", "plain", "not finite"
    ),
    "no barrier between the scales": Bug(
        f"if (j > 0) {BARRIER}", "", *MIX, "plain", "differs", LITTLE_SHARED
    ),
    "no barrier between a chunk's phases": Bug(
        f"{BARRIER}\n      if (row + K < end)", "if (row + K < end)", *RING, "tsan", "data race"
    ),
    "ring of rows too short": Bug("capacity = lag + K", "capacity = lag + K - 4", *RING, "plain", "differs"),
    "halo one row short": Bug(
        "rows = tile_height + 2 * radius",
        "rows = tile_height + 2 * radius - 1",
        *MIX,
        "plain",
        "differs",
        LITTLE_SHARED,
    ),
    "no barrier between the steps of a chunk": Bug(
        f"{BARRIER}\n      }}\n      if (n >= 0)", "}\n      if (n >= 0)", *SCALES, "tsan", "data race"
    ),
    "no barrier between a scale's chunks": Bug(
        f"{BARRIER}\n      if (n >= 0) slot = next(slot, R, capacity());",
        "if (n >= 0) slot = next(slot, R, capacity());",
        *SCALES,
        "tsan",
        "data race",
    ),
    "no barrier between a slice's directions": Bug(
        f"{BARRIER}\n  const T* const from = slots",
        "const T* const from = slots",
        *VOLUME,
        "plain",
        "not finite",
    ),
    "halo of a slice one row short": Bug(
        "rows = tile_height + 2 * radius",
        "rows = tile_height + 2 * radius - 1",
        *VOLUME,
        "plain",
        "differs",
    ),
    "ring of maps a row too short": Bug(
        "at - ring_rows;", "at - ring_rows + 1;", "scales", "mix in portions", "plain", "differs"
    ),
    "what a mask leaves out is multiplied": Bug(
        "if (weight == 0.f) one = {};", "", "ring", MASKED, "plain", "not finite"
    ),
    "no room for the weights": Bug(
        "(weighted ? 3 : 2) * each_raw", "2 * each_raw", "ring", MASKED, "plain", "differs"
    ),
    "maps of slices beyond the volume": Bug(
        "if (first + o >= p.d.size) break;", "", *VOLUME, "plain", "differs"
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_seen(name: str, shim_build: Build, tmp_path: Path) -> None:
    bug = BUGS[name]
    good = shim_build(bug.kind, "driver.cpp")
    csrc = shutil.copytree(shim.CUDA.parent, tmp_path / "csrc")
    objects = shutil.copytree(good.parent, tmp_path / "objects")
    (objects / f"{bug.source}.o").unlink()
    headers = sorted(csrc.rglob("*.*h"), key=lambda path: (not path.name.startswith(bug.source), path))
    holding = [path for path in headers if bug.old in path.read_text()]
    assert holding, f"{bug.old!r} is no longer there: plant the bug elsewhere"
    holding[0].write_text(holding[0].read_text().replace(bug.old, bug.new, 1))
    driver = shim.build(objects, bug.kind, main="driver.cpp", cuda=csrc / "cuda")
    expected = run(good, bug.part, shared=bug.shared)
    assert expected.returncode == 0
    if bug.seen == "differs":
        runs = [run(driver, bug.part, schedule, bug.shared) for schedule in ("forward", "reverse", "7")]
        assert any(done.stdout != expected.stdout for done in runs)
        return
    done = run(driver, bug.part, "reverse", bug.shared)
    assert done.returncode != 0
    assert ("NOT FINITE" in done.stdout) if bug.seen == "not finite" else (bug.seen in done.stderr), (
        done.stderr
    )
