"""Builds ssimloss._C: one library for every Python >= 3.10 (abi3) and torch >= 2.11 (stable ABI).

Where nvcc is found, the CUDA kernels go into it as well: for every architecture of CUDA_ARCHITECTURES that
nvcc knows, and as PTX for later ones. They include nothing of torch, so a CPU build of torch will do.
SSIMLOSS_CUDA_ARCHS="90" builds for fewer (development), SSIMLOSS_CUDA_ARCHS="" leaves CUDA out.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths

ROOT = Path(__file__).resolve().parent
CUDA_ARCHITECTURES = ("75", "80", "86", "89", "90", "100", "120")


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [str(Path(home) / "bin" / "nvcc")] if home else []
    return next(filter(None, map(shutil.which, [*candidates, "nvcc", "/usr/local/cuda/bin/nvcc"])), None)


def cuda_architectures(nvcc: str) -> list[str]:
    """The architectures to build for, those asked for or all; [] for none."""
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    known = re.findall(r"compute_(\d+)\b", listed)
    asked = os.environ.get("SSIMLOSS_CUDA_ARCHS")
    if asked is None:
        return [arch for arch in CUDA_ARCHITECTURES if arch in known]
    wanted = re.split(r"[\s,;]+", asked.strip()) if asked.strip() else []
    unknown = [arch for arch in wanted if arch not in known]
    if unknown:
        raise SystemExit(
            f"SSIMLOSS_CUDA_ARCHS: expected some of {' '.join(known)} ({nvcc}), got {' '.join(unknown)}"
        )
    return sorted(wanted, key=int)


def nvcc_command(nvcc: str, source: str, output: str, archs: list[str]) -> list[str]:
    """One .cu file to one object with machine code for `archs` and PTX for the newest of them."""
    code = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
    code.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
    host = "-fPIC,-fvisibility=hidden,-Wall,-Wextra"
    return [nvcc, "-std=c++17", "-O3", "-Xptxas=-v", *code, "-Xcompiler", host, "-c", source, "-o", output]


def compile_cuda(nvcc: str, archs: list[str]) -> list[str]:
    """Every csrc/cuda/*.cu to an object in build/cuda, beside it a .log of what nvcc said of it.

    That folder is the same for all kinds of installs, and for tests/test_cuda_build.py: what has not
    changed, neither source nor command nor nvcc's version, is kept.
    """
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    version = version.strip().splitlines()[-1]  # with the build's number
    folder = ROOT / "build" / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for path in (ROOT / "csrc").rglob("*.*h"))

    def compile_one(source: Path) -> str:
        output, log = folder / f"{source.stem}.o", folder / f"{source.stem}.log"
        command = nvcc_command(nvcc, str(source), str(output), archs)
        kept = output.exists() and log.exists() and log.stat().st_mtime > max(newest, source.stat().st_mtime)
        key = f"{' '.join(command)} # {version}"
        if kept and log.read_text().splitlines()[0] == key:
            return str(output)
        log.unlink(missing_ok=True)
        print(" ".join(command), file=sys.stderr)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(done.stdout)
        log.write_text(f"{key}\n{done.stdout}")
        return str(output)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, sorted((ROOT / "csrc" / "cuda").glob("*.cu"))))


def cudart_folder(nvcc: str) -> str:
    """Where libcudart_static.a lies. nvcc may be a wrapper script: it knows its toolkit's root."""
    dry = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True).stderr
    top = re.search(r"TOP=(\S+)", dry)
    root = Path(top.group(1)) if top else Path(nvcc).resolve().parents[1]
    for library in ("lib64", "lib", *(str(t.relative_to(root)) + "/lib" for t in root.glob("targets/*"))):
        if (root / library / "libcudart_static.a").exists():
            return str((root / library).resolve())
    raise SystemExit(f"libcudart_static.a: not found under {root}")


class Build(BuildExtension):
    """Compiles csrc/cuda/*.cu before the rest."""

    def build_extensions(self) -> None:
        nvcc = find_nvcc()
        archs = cuda_architectures(nvcc) if nvcc else []
        if not nvcc and os.environ.get("SSIMLOSS_CUDA_ARCHS", "") != "":
            raise SystemExit("SSIMLOSS_CUDA_ARCHS is set, but there is no nvcc on the PATH or in CUDA_HOME")
        (extension,) = self.extensions
        extension.define_macros.append(("SSIMLOSS_CUDA_ARCHITECTURES", f'"{" ".join(archs)}"'))
        if nvcc and archs:
            extension.extra_objects += compile_cuda(nvcc, archs)
            extension.library_dirs.append(cudart_folder(nvcc))
            extension.libraries += ["cudart_static", "dl", "rt", "pthread"]
        else:
            extension.sources.remove("csrc/ops_cuda.cpp")
            why = "SSIMLOSS_CUDA_ARCHS is empty" if nvcc else "nvcc not found"
            print(f"ssimloss: {why}: building the CPU back end only", file=sys.stderr)
        super().build_extensions()


def main() -> None:
    sources = sorted(str(path) for path in Path("csrc").glob("*.cpp"))
    sources += sorted(str(path) for path in Path("csrc/cpu").glob("*.cpp"))
    extension = CppExtension(
        "ssimloss._C",
        sources,
        depends=sorted(str(path) for path in Path("csrc").rglob("*.h")),
        define_macros=[("TORCH_TARGET_VERSION", "0x020b000000000000")],
        extra_compile_args=["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-Wall", "-Wextra"]
        + [f"-isystem{path}" for path in include_paths()],  # torch's headers warn under -Wextra
        py_limited_api=True,
    )
    extension.include_dirs = []
    setup(
        ext_modules=[extension],
        cmdclass={"build_ext": Build},
        options={"bdist_wheel": {"py_limited_api": "cp310"}},
    )


if __name__ == "__main__":
    main()
