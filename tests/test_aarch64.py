"""The CPU kernels on aarch64, without torch: cross-compiled, and run by qemu-user.

On Debian: apt-get install g++-aarch64-linux-gnu qemu-user. Skipped where these are not.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

CXX, QEMU = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
pytestmark = pytest.mark.skipif(not (CXX and QEMU), reason="no g++-aarch64-linux-gnu, or no qemu-user")
TESTS = Path(__file__).parent
SOURCES = [TESTS / "cpu_driver.cpp", *(TESTS.parent / "csrc" / "cpu").glob("*.cpp")]


def numbers(compiler: str, folder: Path, *emulator: str) -> dict[str, list[float]]:
    """What tests/cpu_driver.cpp prints of each of its cases, in the baseline's kernels."""
    sources = [source for source in SOURCES if source.stem != "scratch"]  # the driver's own
    options = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
    subprocess.run([compiler, *options, *sources, "-o", folder / "driver"], check=True)
    command = [*emulator, folder / "driver", "2"]
    done = subprocess.run(
        command, env={"SSIMLOSS_CPU": "baseline"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr
    cases = {}
    for line in done.stdout.splitlines()[1:]:
        name, _, printed = line.partition(":")
        cases[name] = [float(number) for number in printed.split()[:-1]]  # the last one is the hash
    return cases


def test_numbers_are_those_of_this_machine(tmp_path: Path) -> None:
    """A sum and the sum of sizes in turn, each within 1e-4 of the latter: of 16 bits one step is more."""
    (tmp_path / "own").mkdir(), (tmp_path / "arm").mkdir()
    expected = numbers("g++", tmp_path / "own")
    actual = numbers(CXX, tmp_path / "arm", QEMU)
    assert actual.keys() == expected.keys() and len(actual) > 400
    for name, wanted in expected.items():
        assert len(actual[name]) == len(wanted) > 0
        for i, (one, other) in enumerate(zip(actual[name], wanted, strict=True)):
            size = max(abs(wanted[i | 1]), abs(wanted[i & ~1]) * 1e-3)
            assert abs(one - other) <= 1e-4 * size, f"{name}: {one}, expected {other}"
