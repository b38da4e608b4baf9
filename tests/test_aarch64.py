"""The CPU kernels on aarch64, without torch: cross-compiled, and run by qemu-user.

On Debian: apt-get install g++-aarch64-linux-gnu qemu-user. Skipped where these are not.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

CXX, QEMU = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
TESTS = Path(__file__).parent
SOURCES = [*(TESTS.parent / "csrc" / "cpu").glob("*.cpp")]
OBJECTS = [*(TESTS.parent / "build" / "cpu" / "csrc" / "cpu").glob("*.o")]  # of this machine's library
pytestmark = [
    pytest.mark.skipif(not (CXX and QEMU), reason="no g++-aarch64-linux-gnu, or no qemu-user"),
    pytest.mark.skipif(not OBJECTS, reason="no kernels of the CPU are compiled in build/"),
]


def numbers(compiler: str, folder: Path, kernels: list[Path], *emulator: str) -> dict[str, list[float]]:
    """What tests/cpu_driver.cpp prints of each of its cases, in the baseline's kernels."""
    kernels = [path for path in kernels if path.stem != "scratch"]  # the driver has its own
    options = ["-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-pthread"]
    command = [compiler, *options, TESTS / "cpu_driver.cpp", *kernels, "-o", folder / "driver"]
    subprocess.run(command, check=True)
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
    expected = numbers("g++", tmp_path / "own", OBJECTS)
    actual = numbers(CXX, tmp_path / "arm", SOURCES, QEMU)
    assert actual.keys() == expected.keys() and len(actual) > 400
    for name, wanted in expected.items():
        assert len(actual[name]) == len(wanted) > 0
        for i, (one, other) in enumerate(zip(actual[name], wanted, strict=True)):
            size = max(abs(wanted[i | 1]), abs(wanted[i & ~1]) * 1e-3)
            assert abs(one - other) <= 1e-4 * size, f"{name}: {one}, expected {other}"
