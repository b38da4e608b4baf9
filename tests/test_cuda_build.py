"""nvcc on every kernel, for every architecture of the wheel: no warning, and what each kernel costs.

The fast paths live in registers: no spill, no local memory. Skipped by name where there is no nvcc, or no
word of CUDA: neither inside the library nor in SSIMLOSS_CUDA_ARCHS.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import shim

import ssimloss

NVCC = shutil.which("nvcc")
pytestmark = pytest.mark.skipif(NVCC is None, reason="no nvcc on the PATH")
ARCHS = os.environ.get("SSIMLOSS_CUDA_ARCHS", "").split() or ssimloss.info()["cuda_architectures"]

# One scale of 11 taps, and what every loss runs on. positions_kernel keeps arrays over the scales in local
# memory.
FAST = re.compile(
    r"(?<!weighted_)(l1|strip|levels|ring|scales|adjoint|gather|gradient|scale|pool|combine|finish)_kernel"
)  # not weighted_gradient_kernel: the plainest, of float64 under weights
OF_86 = re.compile(r"\d(strip|levels|ring|scales|adjoint|gather)_kernel")  # the others of 8.6 run 8.0's
# But this one, under weights, may spill so many bytes before sm_90, where a block less would cost more.
RING_OF_WEIGHTS, FEW = "ring_kernelILi8ELi1ELb1E", {"sm_75": 24, "sm_80": 24, "sm_86": 60}
REGISTERS, SHARED, THREADS, BLOCKS = 65536, 233472, 2048, 32  # of one multiprocessor of sm_90


class Usage(NamedTuple):
    kernel: str  # mangled
    arch: str
    registers: int
    stack: int  # bytes of local memory a thread
    spills: int  # bytes stored and loaded


def setup_py() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_py", shim.TESTS.parent / "setup.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def usages_in(log: str) -> list[Usage]:
    """What `ptxas -v` says of each kernel and architecture."""
    found = []
    for part in re.split(r"Compiling entry function ", log)[1:]:
        name, arch = re.match(r"'(\w+)' for '(\w+)'", part).groups()
        numbers = {
            key: int(re.search(rf"(\d+) {what}", part)[1])
            for key, what in (
                ("registers", "registers"),
                ("stack", "bytes stack frame"),
                ("stores", "bytes spill stores"),
                ("loads", "bytes spill loads"),
            )
        }
        spills = numbers["stores"] + numbers["loads"]
        found.append(Usage(name, arch, numbers["registers"], numbers["stack"], spills))
    return found


@pytest.fixture(scope="module")
def logs() -> list[str]:
    """What nvcc and ptxas said of each source; setup.py compiles only what it has not compiled yet."""
    if not ARCHS:
        pytest.skip("a library without CUDA: SSIMLOSS_CUDA_ARCHS='80 90' compiles it for the tests")
    build = setup_py()
    objects = build.compile_cuda(NVCC, ARCHS)
    return [Path(name).with_suffix(".log").read_text() for name in objects]


@pytest.fixture(scope="module")
def usages(logs: list[str]) -> list[Usage]:
    return [usage for log in logs for usage in usages_in(log)]


def plain_names(mangled: list[str]) -> list[str]:
    done = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True)
    return [
        re.sub(r"\(.*|void |ssimloss::|\(anonymous namespace\)::", "", n) for n in done.stdout.splitlines()
    ]


def test_every_architecture_compiles_without_a_warning(logs: list[str], usages: list[Usage]) -> None:
    assert [line for log in logs for line in log.splitlines() if "warning" in line.lower()] == []
    every = {f"sm_{arch}" for arch in ARCHS}
    for kernel in {usage.kernel for usage in usages}:
        expected = every if "80" not in ARCHS or OF_86.search(kernel) else every - {"sm_86"}
        assert {usage.arch for usage in usages if usage.kernel == kernel} == expected, kernel


NVCC_THAT_COUNTS = """#!/bin/bash
cd "$(dirname "$0")"
if [ "$1" = --version ]; then cat version; exit; fi
echo >>calls
while [ "$1" != -o ]; do shift; done
echo half >"$2"; [ ! -e killed ] || exit 1
echo whole >>"$2"
"""


def test_what_is_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One source once, and again where it, a header, the architectures or nvcc itself changed."""
    build, nvcc = setup_py(), tmp_path / "nvcc"
    monkeypatch.setattr(build, "ROOT", tmp_path)
    nvcc.write_text(NVCC_THAT_COUNTS)
    nvcc.chmod(0o755)
    csrc = tmp_path / "csrc"
    (csrc / "cuda").mkdir(parents=True)
    source, header, version = csrc / "cuda" / "one.cu", csrc / "one.h", tmp_path / "version"
    for path in (source, header, version):
        path.write_text("Build 1")

    def compiled(archs: str = "75 90") -> int:
        """How often, when asked twice."""
        (tmp_path / "calls").write_text("")
        for _ in range(2):
            build.compile_cuda(str(nvcc), archs.split())
        return len((tmp_path / "calls").read_text().splitlines())

    assert compiled() == 1
    assert compiled() == 0
    assert compiled("90") == 1
    version.write_text("Build 2")
    assert compiled("90") == 1
    (tmp_path / "killed").touch()  # half way: what is there must not be taken
    with pytest.raises(SystemExit):
        compiled("75")
    (tmp_path / "killed").unlink()
    assert compiled("75") == 1
    assert (tmp_path / "build" / "cuda" / "one.o").read_text() == "half\nwhole\n"
    assert compiled("90") == 1
    log, now = tmp_path / "build" / "cuda" / "one.log", time.time()
    for changed in (source, header):
        for path, age in ((source, 100), (header, 100), (log, 50), (changed, 10)):
            os.utime(path, (now - age, now - age))
        assert compiled("90") == 1


def test_fast_paths_live_in_registers(usages: list[Usage]) -> None:
    fast = [usage for usage in usages if FAST.search(usage.kernel)]
    assert {usage.arch for usage in fast} == {usage.arch for usage in usages}
    spilling = [usage for usage in fast if usage.spills or usage.stack]
    few = [u for u in spilling if RING_OF_WEIGHTS in u.kernel and u.spills <= FEW.get(u.arch, 0)]
    assert [u for u in spilling if u not in few] == []


def test_resource_table(
    usages: list[Usage], shim_build: Callable[[str, str], Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Prints it, for sm_90; threads and shared memory as the launchers ask for them."""
    trace = tmp_path / "launches.txt"
    subprocess.run(
        [shim_build("plain", "driver.cpp")], env={"SHIM_TRACE": str(trace)}, check=True, capture_output=True
    )
    launches = {}
    for line in trace.read_text().splitlines():
        kernel, threads, shared, _ = line.split()
        launches.setdefault(kernel, set()).add((int(threads), int(shared)))
    rows = []
    here = [usage for usage in usages if usage.arch == "sm_90"]
    for usage, name in zip(here, plain_names([usage.kernel for usage in here]), strict=True):
        for threads, shared in sorted(launches.get(usage.kernel, ()))[-1:]:
            in_registers = REGISTERS // (-(-usage.registers // 8) * 8 * threads)
            in_shared = SHARED // (shared + 1024)
            blocks = min(in_registers, in_shared, THREADS // threads, BLOCKS)
            assert blocks >= 1, f"{name}: no block fits on a multiprocessor"
            share = f"{100 * blocks * threads / THREADS:3.0f} %"
            rows.append(
                f"{usage.registers:9} {threads:7} {shared:6} {blocks:6} {share}  {usage.stack:5}  {name}"
            )
    assert rows
    with capsys.disabled():
        print("\n\nregisters threads shared blocks occupancy stack kernel (sm_90)", *sorted(rows), sep="\n")
