"""Builds ssimloss._C: one library for every Python >= 3.10 (abi3) and torch >= 2.11 (stable ABI).

Where nvcc is found, the CUDA kernels go into it as well: for every architecture of CUDA_ARCHITECTURES that
nvcc knows, and as PTX for later ones. They include nothing of torch, so a CPU build of torch will do.
SSIMLOSS_CUDA_ARCHS="90" builds for fewer (development), SSIMLOSS_CUDA_ARCHS="" leaves CUDA out. MAX_JOBS is
the number of compilers at a time, by default that of the cores.

Objects are kept in build/ and made anew only where something they depend on has changed, so that a build that
was interrupted goes on where it stopped.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths

ROOT = Path(__file__).resolve().parent
CUDA_ARCHITECTURES = ("75", "80", "86", "90", "100", "120")  # a GPU of 8.9 runs the code of 8.6
# What the compiler's first half, which takes longest, makes code for; its second half makes that of the later
# architectures from it. 8.0 has all that the kernels use (cp.async, bfloat16). First halves of later ones add
# nothing to it (2026-11-30): up to 9.0 they differ in how they read bfloat16 alone; that of 10.0 is another
# compiler, whose code needs more registers and, in the main kernel, 6 % more instructions.
VIRTUAL_ARCHITECTURES = ("75", "80")
# 8.6 runs the code of 8.0, and has its own where most of the time goes. That of the rest, float64 and what
# memory bounds, was 3 % of the library.
OF_86 = ("strip", "ring", "scales")
LONGEST_FIRST = ("strip", "ring", "scales", "volume", "tiles")  # or all cores but one would wait for the last


def optimisation() -> list[str]:
    """What gains of -O3 on the CPU kernels, which are unrolled and vectorised by hand.

    The rest of it, copies of loops and functions above all, made them 1 to 6 % slower, a fifth larger and a
    fifth longer to compile; -fwrapv, which Python's own flags bring, 2 % slower (GCC 12, Zen 5, 2026-12-01).
    """
    compiler = shlex.split(os.environ.get("CXX", "c++"))
    said = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True).stdout
    own = ["-O3"] if "clang" in said else ["-O2", "-fvect-cost-model=dynamic", "-fpeel-loops"]
    return [*own, "-fno-wrapv"]


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    candidates = [str(Path(home) / "bin" / "nvcc")] if home else []
    return next(filter(None, map(shutil.which, [*candidates, "nvcc", "/usr/local/cuda/bin/nvcc"])), None)


def known_architectures(nvcc: str) -> list[str]:
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"compute_(\d+)\b", listed)


def cuda_architectures(nvcc: str) -> list[str]:
    """The architectures to build for, those asked for or all; [] for none."""
    known = known_architectures(nvcc)
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


def compression(version: str) -> str:
    """nvcc's option for small machine code, by what `nvcc --version` says.

    The smallest mode needs a driver of CUDA 12.4, which every driver for CUDA 13 is.
    """
    release = re.search(r"release (\d+)", version)
    return "--compress-mode=size" if release and int(release[1]) >= 13 else "-Xfatbin=-compress-all"


def nvcc_command(nvcc: str, source: str, output: str, archs: list[str]) -> list[str]:
    """One .cu file to one object with machine code for `archs` and PTX that later ones can use."""
    codes: dict[str, list[str]] = {}
    for arch in archs:
        if arch == "86" and "80" in archs and Path(source).stem not in OF_86:
            continue
        virtual = max((v for v in VIRTUAL_ARCHITECTURES if int(v) <= int(arch)), key=int, default=arch)
        codes.setdefault(virtual, []).append(f"sm_{arch}")
    codes[virtual].append(f"compute_{virtual}")
    code = [f"-gencode=arch=compute_{v},code=[{','.join(c)}]" for v, c in codes.items()]
    host = "-fPIC,-fvisibility=hidden,-Wall,-Wextra"
    return [nvcc, "-std=c++17", "-O3", "-Xptxas=-v", *code, "-Xcompiler", host, "-c", source, "-o", output]


def compile_cuda(nvcc: str, archs: list[str]) -> list[str]:
    """Every .cu file of csrc/cuda to an object in build/cuda, beside it a .log of what nvcc said of it.

    That folder is the same for all kinds of installs, and for tests/test_cuda_build.py: what has not
    changed, neither source nor command nor nvcc's version, is kept. An object counts once its log is there,
    which is written last.
    """
    said = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    version = said.strip().splitlines()[-1]  # with the build's number
    folder = ROOT / "build" / "cuda"
    folder.mkdir(parents=True, exist_ok=True)
    newest = max(path.stat().st_mtime for path in (ROOT / "csrc").rglob("*.*h"))
    jobs = int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)
    threads = min(jobs, len(archs))  # of one nvcc, which compiles as many architectures side by side
    sources = sorted((ROOT / "csrc" / "cuda").rglob("*.cu"))
    sources.sort(key=lambda path: [*LONGEST_FIRST, path.stem].index(path.stem))
    commands = {}
    for source in sources:
        output = folder / f"{source.stem}.o"
        command = [*nvcc_command(nvcc, str(source), str(output), archs), compression(said)]
        log, key = output.with_suffix(".log"), f"{' '.join(command)} # {version}"
        kept = output.exists() and log.exists() and log.stat().st_mtime > max(newest, source.stat().st_mtime)
        if not kept or log.read_text().splitlines()[0] != key:
            log.unlink(missing_ok=True)
            commands[source] = (key, [*command, f"--threads={threads}"], log)

    def compile_one(number: int, source: Path) -> None:
        key, command, log = commands[source]
        print(f"ssimloss: nvcc {source.name} ({number} of {len(commands)})", file=sys.stderr, flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}")
        unfinished = log.with_suffix(".part")
        unfinished.write_text(f"{key}\n{done.stdout}")
        unfinished.replace(log)

    with ThreadPoolExecutor(max(1, jobs // threads)) as pool:
        running = [pool.submit(compile_one, i, source) for i, source in enumerate(commands, 1)]
        try:
            for one in as_completed(running):
                one.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # nobody waits for the rest to hear of an error
            raise
    return [str(folder / f"{source.stem}.o") for source in sources]


def cudart_folder(nvcc: str) -> str:
    """Where libcudart_static.a lies. nvcc may be a wrapper script: it knows its toolkit's root."""
    dry = subprocess.run([nvcc, "--dryrun", "x.cu"], capture_output=True, text=True).stderr
    top = re.search(r"TOP=(\S+)", dry)
    root = Path(top.group(1)) if top else Path(nvcc).resolve().parents[1]
    for library in ("lib64", "lib", *(str(t.relative_to(root)) + "/lib" for t in root.glob("targets/*"))):
        if (root / library / "libcudart_static.a").exists():
            return str((root / library).resolve())
    raise SystemExit(f"libcudart_static.a: not found under {root}")


def name_architectures(archs: list[str]) -> str:
    """A source that says what is inside: nothing else is compiled anew when that changes."""
    source = Path("build") / "architectures.cpp"
    text = f'namespace ssimloss {{\nextern const char cuda_architectures[] = "{" ".join(archs)}";\n}}\n'
    (ROOT / source).parent.mkdir(exist_ok=True)
    if not (ROOT / source).exists() or (ROOT / source).read_text() != text:
        (ROOT / source).write_text(text)
    return str(source)


class Build(BuildExtension):
    """Compiles csrc/cuda before the rest; keeps all objects in build/."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.build_temp = str(ROOT / "build" / "cpu")  # an editable install's is a new folder each time

    def build_extensions(self) -> None:
        nvcc = find_nvcc()
        archs = cuda_architectures(nvcc) if nvcc else []
        if not nvcc and os.environ.get("SSIMLOSS_CUDA_ARCHS", "") != "":
            raise SystemExit("SSIMLOSS_CUDA_ARCHS is set, but there is no nvcc on the PATH or in CUDA_HOME")
        (extension,) = self.extensions
        extension.sources.append(name_architectures(archs))
        if nvcc and archs:
            extension.extra_objects += compile_cuda(nvcc, archs)
            extension.library_dirs.append(cudart_folder(nvcc))
            extension.libraries += ["cudart_static", "dl", "rt", "pthread"]
        else:
            extension.sources.remove("csrc/torch/cuda.cpp")
            why = "SSIMLOSS_CUDA_ARCHS is empty" if nvcc else "nvcc not found"
            print(f"ssimloss: {why}: building the CPU back end only", file=sys.stderr)
        super().build_extensions()


def main() -> None:
    sources = sorted(str(path) for path in Path("csrc").rglob("*.cpp") if "hub" not in path.parts)
    extension = CppExtension(
        "ssimloss._C",
        sources,
        depends=sorted(str(path) for path in Path("csrc").rglob("*.h")),
        define_macros=[("TORCH_TARGET_VERSION", "0x020b000000000000")],
        extra_compile_args=[*optimisation(), "-g0", "-std=c++17", "-fvisibility=hidden", "-Wall", "-Wextra"]
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
