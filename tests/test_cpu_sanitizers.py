"""Every kind of call of the CPU kernels under ASan, UBSan and TSan, for each instruction set of this machine;
and planted bugs, each of which must be seen, or what sees none proves nothing.

tests/cpu_driver.cpp runs the calls and prints numbers and a hash of what each wrote.
"""

import functools
import os
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
KINDS = {
    "asan": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "tsan": ["-fsanitize=thread"],
}
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """build(kind, *definitions of the driver) -> it, of kernels that are compiled once a kind."""

    def compiled(folder: Path, kind: str, sources: list[Path], *definitions: str) -> list[Path]:
        # Not optimised: -O1 takes two minutes longer, and UBSan sees less of what it leaves out.
        common = [*os.environ.get("CXX", "g++").split(), "-std=c++17", "-O0", "-g1", "-Wall", "-Wextra"]
        objects = [folder / f"{source.stem}.o" for source in sources]
        commands = [
            [*common, "-Werror", *KINDS[kind], *definitions, "-c", source, "-o", output]
            for source, output in zip(sources, objects, strict=True)
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in pool.map(lambda c: subprocess.run(c, capture_output=True, text=True), commands):
                assert done.returncode == 0, done.stderr[:5000]
        return objects

    @functools.cache
    def kernels(kind: str) -> list[Path]:
        folder = TESTS.parent / "csrc" / "cpu"
        sources = [folder / "dispatch.cpp", *sorted(folder.glob("variant_*.cpp"))]
        return compiled(tmp_path_factory.mktemp(kind), kind, sources)

    @functools.cache
    def driver(kind: str, *definitions: str) -> Path:
        folder = tmp_path_factory.mktemp("driver")
        objects = compiled(folder, kind, [TESTS / "cpu_driver.cpp"], *definitions)
        output = folder / "cpu_driver"
        subprocess.run(["g++", *KINDS[kind], *kernels(kind), *objects, "-pthread", "-o", output], check=True)
        return output

    return driver


def run(driver: Path, threads: int, variant: str = "", part: str = "") -> subprocess.CompletedProcess:
    return subprocess.run(
        [driver, str(threads), part],
        env={"SSIMLOSS_CPU": variant, "TSAN_OPTIONS": "halt_on_error=1"},
        capture_output=True,
        text=True,
        timeout=200,
    )


def variants(driver: Path) -> list[str]:
    """Those that this machine runs."""
    best = run(driver, 1, part="no case").stdout.strip()
    every = ["baseline", "x86-64-v3", "x86-64-v4"]
    return every[: every.index(best) + 1]


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_is_clean(kind: str, build: Build) -> None:
    driver = build(kind)
    for variant in variants(driver):
        done = run(driver, 3, variant)
        assert done.returncode == 0 and done.stderr == "", done.stderr[:5000] + done.stdout[-1000:]
        assert done.stdout.startswith(f"{variant}\n") and done.stdout.count("\n") > 400


def test_threads_change_no_bit(build: Build) -> None:
    one, three = (run(build("asan"), threads).stdout for threads in (1, 3))
    assert one == three and one.count("beyond float32") > 10


@pytest.mark.parametrize(
    ("kind", "bug", "seen"),
    [
        ("asan", "SHORT_GRADIENT", "AddressSanitizer: heap-buffer-overflow"),
        ("asan", "SHORT_SCRATCH", "AddressSanitizer: "),  # what it overwrites may be ASan's own
        ("tsan", "SHARED_SCRATCH", "ThreadSanitizer: data race"),
    ],
)
def test_planted_bug_is_seen(kind: str, bug: str, seen: str, build: Build) -> None:
    done = run(build(kind, f"-DPLANT_{bug}"), 3)
    assert done.returncode != 0 and seen in done.stderr, done.stderr[:5000]
