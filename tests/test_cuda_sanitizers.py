"""Every kind of CUDA call under ASan, UBSan and TSan, and in several orders of threads; and planted bugs,
each of which must be seen, or what sees none proves nothing.

tests/cuda_shim/driver.cpp runs the calls and prints a hash of what each wrote.
"""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import shim

Build = Callable[[str, str], Path]


def run(driver: Path, part: str = "", schedule: str = "forward") -> subprocess.CompletedProcess:
    environment = {"SHIM_SCHEDULE": schedule, "TSAN_OPTIONS": "halt_on_error=1"}
    return subprocess.run([driver, part], env=environment, capture_output=True, text=True, timeout=200)


@pytest.mark.parametrize("schedule", ["reverse", "7"])
def test_every_call_gives_the_same_bits_in_any_order(shim_build: Build, schedule: str) -> None:
    driver = shim_build("plain", "driver.cpp")
    expected, actual = run(driver), run(driver, schedule=schedule)
    assert expected.returncode == 0 and actual.returncode == 0, expected.stdout + actual.stdout
    assert expected.stdout.count("\n") > 100
    assert actual.stdout == expected.stdout


@pytest.mark.parametrize(("kind", "schedule"), [("asan", "3"), ("tsan", "4")])
def test_every_call_is_clean(shim_build: Build, kind: str, schedule: str) -> None:
    """Also the small cases alone: a race seen once by TSan is not reported again."""
    done = run(shim_build(kind, "driver.cpp"), schedule=schedule)
    assert done.returncode == 0, done.stderr[:5000] + done.stdout[-1000:]
    assert done.stderr == ""


class Bug(NamedTuple):
    file: str
    old: str
    new: str
    source: str  # that must be compiled anew
    part: str  # of the driver's cases
    kind: str
    seen: str  # in what the sanitizer says; or "differs", "not finite"


BUGS = {
    "no barrier after the fill": Bug(
        "strip.cuh",
        "__pipeline_wait_prior(0);\n        __syncthreads();",
        "__pipeline_wait_prior(0);",
        "strip",
        "ssim zeros x",
        "tsan",
        "data race",
    ),
    "no wait for cp.async": Bug(
        "strip.cuh", "__pipeline_wait_prior(0);", "", "strip", "ssim zeros x", "plain", "not finite"
    ),
    "shared memory too small": Bug(
        "strip.cuh",
        "4 * strip_rows * pitch + 2",
        "3 * strip_rows * pitch + 2",
        "strip",
        "ssim zeros x",
        "asan",
        "poison",
    ),
    "gradient written beyond the image": Bug(
        "strip.cuh",
        "return col0 + own < p.width ? col0 + own : p.width;",
        "return col0 + own;",
        "strip",
        "ssim zeros x",
        "asan",
        "heap-buffer-overflow",
    ),
    "no barrier between the scales": Bug(
        "tiles.cuh", "if (j > 0) __syncthreads();", "", "tiles", "mix zeros x", "plain", "differs"
    ),
    "halo one row short": Bug(
        "tiles.cuh",
        "rows = tile_height + 2 * radius, pitch",
        "rows = tile_height + 2 * radius - 1, pitch",
        "tiles",
        "mix zeros x",
        "asan",
        "",
    ),
}


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_seen(name: str, shim_build: Build, tmp_path: Path) -> None:
    bug = BUGS[name]
    good = shim_build(bug.kind, "driver.cpp")
    csrc = shutil.copytree(shim.CUDA.parent, tmp_path / "csrc")
    objects = shutil.copytree(good.parent, tmp_path / "objects")
    (objects / f"{bug.source}.o").unlink()
    text = (csrc / "cuda" / bug.file).read_text()
    assert bug.old in text, f"{bug.old!r} is no longer in {bug.file}: plant the bug elsewhere"
    (csrc / "cuda" / bug.file).write_text(text.replace(bug.old, bug.new, 1))
    driver = shim.build(objects, bug.kind, main="driver.cpp", cuda=csrc / "cuda")
    assert run(good, bug.part).returncode == 0
    if bug.seen == "differs":
        expected = run(good, bug.part).stdout
        assert any(run(driver, bug.part, s).stdout != expected for s in ("forward", "reverse", "7"))
        return
    done = run(driver, bug.part, "reverse")
    assert done.returncode != 0
    assert bug.seen in done.stderr if bug.seen != "not finite" else "NOT FINITE" in done.stdout
