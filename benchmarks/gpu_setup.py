"""What comes before gpu.py measures: the packages, built or unpacked, and the tests on the device."""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent


def ask(*command: str) -> str:
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return ""


def prepare(args: argparse.Namespace, folder: Path) -> None:
    """Ours, and the peers that were brought, unpacked or built into folder, importable from it."""
    environment = os.environ.copy()
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        environment |= {"SSIMLOSS_CUDA_ARCHS": f"{major}{minor}", "TORCH_CUDA_ARCH_LIST": f"{major}.{minor}"}
    wheels = sorted(args.peers.glob("*.whl")) if args.peers else []
    builds = []

    def build(*command: str, where: Path) -> None:
        log = (folder / f"build{len(builds)}.log").open("w+")
        builds.append((subprocess.Popen(command, cwd=where, env=environment, stdout=log, stderr=log), log))

    if args.wheel:
        wheels.append(args.wheel)
    elif not args.installed:
        base = ["--build-base", str(folder / "base"), "--build-lib", str(folder)]
        build(sys.executable, "setup.py", "-q", "build", *base, where=ROOT)
    if args.fused_ssim:
        source = shutil.copytree(args.fused_ssim, folder / "source")  # its build writes beside its sources
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        build(*pip, "--no-build-isolation", "--target", str(folder), str(source), where=folder)
    for wheel in wheels:
        zipfile.ZipFile(wheel).extractall(folder)
    for process, log in builds:
        if process.wait():
            log.seek(0)
            print(f"{' '.join(process.args)} failed:\n{log.read()[-3000:]}", flush=True)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])


def tests() -> Iterator[str]:
    """Lines on what tests/test_gpu.py says, and compute-sanitizer of tests/cuda_shim/driver.cpp."""
    # Not the package in the sources' folder, where no library may lie, but the one made ready.
    environment = os.environ | {"PYTHONSAFEPATH": "1"}

    def outcome(seconds: float, *command: str) -> tuple[str, str]:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            return f"out of time, {seconds} s", ""
        except OSError as error:
            return f"not run: {error}", ""
        print(done.stdout[-6000:], done.stderr[-3000:], flush=True)
        return "passed" if done.returncode == 0 else "FAILED", done.stdout

    pytest = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-rs", "-p", "no:cacheprovider"]
    result, said = outcome(110, *pytest, "tests/test_gpu.py")
    yield f"tests/test_gpu.py: {result}: {(said.strip().splitlines() or [''])[-1].strip('= ')}"
    if not torch.cuda.is_available():
        return
    with tempfile.TemporaryDirectory() as folder:
        driver = str(Path(folder) / "driver")
        sources = sorted(map(str, (ROOT / "csrc/cuda").glob("*.cu")))
        flags = ["-std=c++17", "-O2", "-lineinfo", "-arch=native", "--threads=0"]
        built, _ = outcome(
            50, "nvcc", *flags, "-x", "cu", "tests/cuda_shim/driver.cpp", *sources, "-o", driver
        )
        for tool in ("memcheck", "racecheck"):
            found = f"not run, the driver's build: {built}"
            if built == "passed":
                found, _ = outcome(40, "compute-sanitizer", "--tool", tool, "--error-exitcode", "9", driver)
            yield f"compute-sanitizer {tool}: {found}"
