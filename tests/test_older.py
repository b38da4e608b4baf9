"""A library that .ci/older.py has linked runs on an older Linux, and what would not is seen."""

import ctypes
import importlib.util
import math
import platform
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = """
#include <cmath>
#include <dlfcn.h>
#include <memory>
#include <sstream>

using Numbers = std::shared_ptr<double>;

extern "C" __attribute__((visibility("default")))
double exponential(double x, std::size_t count, Numbers* other) {
  std::ostringstream text;
  Numbers numbers(std::allocator<double>().allocate(count));
  if (other) *other = numbers;
  *numbers = std::exp(x);
  return text && dlopen(nullptr, RTLD_NOW) ? *numbers : 0;
}
"""


def version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


SYSTEM, GLIBC = platform.libc_ver()
COMPILER = shutil.which("g++") and subprocess.check_output(["g++", "-dumpversion"], text=True)
pytestmark = [
    pytest.mark.skipif(SYSTEM != "glibc" or not shutil.which("readelf"), reason="not a Linux with glibc"),
    pytest.mark.skipif(not COMPILER or version(COMPILER) >= (13,), reason="releases are built with g++ 12"),
]


@pytest.fixture(scope="module")
def older() -> ModuleType:
    path = Path(__file__).parents[1] / ".ci" / "older.py"
    spec = importlib.util.spec_from_file_location("older", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def link(folder: Path, *options: str) -> Path:
    (folder / "source.cpp").write_text(SOURCE)
    library = folder / "library.so"
    common = ["-O0", "-std=c++17", "-fPIC", "-fvisibility=hidden", "-shared"]
    subprocess.run(["g++", *options, *common, folder / "source.cpp", "-o", library], check=True)
    return library


def test_library_needs_nothing_newer_and_computes_the_same(older: ModuleType, tmp_path: Path) -> None:
    library = link(tmp_path, *older.options(tmp_path / "older"))
    assert older.too_new(library) == []
    exponential = ctypes.CDLL(str(library)).exponential
    exponential.restype, exponential.argtypes = (
        ctypes.c_double,
        [ctypes.c_double, ctypes.c_size_t, ctypes.c_void_p],
    )
    assert exponential(-1.7, 1, None) == math.exp(-1.7)
    exported = subprocess.check_output(["nm", "-D", "--defined-only", library], text=True)
    assert "single_threaded" not in exported and "bad_array" not in exported


@pytest.mark.skipif(SYSTEM != "glibc" or version(GLIBC) < (2, 34), reason="this glibc has no newer versions")
def test_what_is_too_new_is_seen(older: ModuleType, tmp_path: Path) -> None:
    seen = older.too_new(link(tmp_path))
    assert {"dlopen GLIBC_2.34", "exp GLIBC_2.29", "__libc_single_threaded GLIBC_2.32"} <= {*seen}


def test_what_another_library_happens_to_have_is_seen(older: ModuleType, tmp_path: Path) -> None:
    """libc10 exports functions of libstdc++, without a version."""
    seen = older.too_new(link(tmp_path, "-nostdlib"))
    assert "_ZSt28__throw_bad_array_new_lengthv" in seen and "_Znwm" in seen
