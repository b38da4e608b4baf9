"""Builds csrc/cuda with g++ and tests/cuda_shim, to run the CUDA kernels on the CPU."""

import os
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from torch.utils.cpp_extension import include_paths, library_paths

TESTS = Path(__file__).parent
SHIM, CUDA = TESTS / "cuda_shim", TESTS.parent / "csrc" / "cuda"
FMA = "avx2" in Path("/proc/cpuinfo").read_text()  # contracted as on the device, and half the time
KINDS = {
    "plain": ["-O2", "-march=x86-64-v3"] if FMA else ["-O2"],
    "asan": ["-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "tsan": ["-O1", "-g1", "-fsanitize=thread"],
}


def build(folder: Path, kind: str, *, main: str, cuda: Path = CUDA) -> Path:
    """The kernels in `cuda` with tests/cuda_shim/`main`: an executable, or of ops.cpp a library, which is
    also the Python module `kernels` of kernels.cpp.

    `cuda` may be a copy elsewhere that was changed. What `folder` has is used as it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    common = [*os.environ.get("CXX", "g++").split(), "-std=c++17", "-fPIC", "-Wall", "-Wextra", "-Werror"]
    common += ["-Wno-unknown-pragmas", f"-I{SHIM}", *KINDS[kind]]
    # -O0: mostly headers of others. pybind11 is the one that torch brings.
    torch = ["-O0", "-fvisibility=hidden", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    torch += [f"-isystem{path}" for path in [*include_paths(), sysconfig.get_paths()["include"]]]
    commands, objects = [], []
    bindings = [SHIM / main, SHIM / "kernels.cpp"] if main == "ops.cpp" else [SHIM / main]
    for source in [*bindings, *sorted(cuda.rglob("*.cu")), SHIM / "shim.cpp"]:
        objects.append(folder / f"{source.stem}.o")
        own = torch if source.stem in ("ops", "kernels") else []
        if source.stem == "shim":  # the machine, not the program
            own = ["-O2", *(["-DSHIM_TSAN", "-fno-sanitize=thread"] if kind == "tsan" else [])]
        if not objects[-1].exists():
            commands.append([*common, *own, "-x", "c++", "-c", str(source), "-o", str(objects[-1])])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done in pool.map(lambda c: subprocess.run(c, capture_output=True, text=True), commands):
            assert done.returncode == 0, f"{done.args}\n{done.stderr[:5000]}"
    output = folder / ("ops.so" if main == "ops.cpp" else "driver")
    libraries = [*(f"-L{path}" for path in library_paths()), "-ltorch_cpu", "-lc10"]
    extra = ["-shared", *libraries] if main == "ops.cpp" else ["-rdynamic"]  # for SHIM_TRACE's names
    if commands or not output.exists():
        subprocess.run([*common, *map(str, objects), *extra, "-o", str(output)], check=True)
    return output
