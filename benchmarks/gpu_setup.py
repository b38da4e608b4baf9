"""What comes before gpu.py measures: the packages, built or unpacked, and the tests on the device."""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
BUILD_SECONDS = 150  # one H200's machine with 16 cores should need 40
# From the objects that setup.py keeps in build/cuda, or makes: what is tested is what is measured.
DRIVER = """
import subprocess, sys
sys.path.insert(0, sys.argv[1])
import setup
nvcc = setup.find_nvcc()
objects = setup.compile_cuda(nvcc, setup.cuda_architectures(nvcc))
source = sys.argv[1] + "/tests/cuda_shim/driver.cpp"
subprocess.run([nvcc, "-std=c++17", source, *objects, "-o", sys.argv[2]], check=True)
"""


def ask(*command: str) -> str:
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return ""


def stop(process: subprocess.Popen) -> None:
    """And the compilers that it has started: they would keep the cores while others are timed."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def prepare(args: argparse.Namespace, folder: Path) -> list[str]:
    """Ours, and the peers that were brought, unpacked or built into folder, importable from it.

    Lines on what could not be built.
    """
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        os.environ |= {"SSIMLOSS_CUDA_ARCHS": f"{major}{minor}", "TORCH_CUDA_ARCH_LIST": f"{major}.{minor}"}
    wheels = sorted(args.peers.glob("*.whl")) if args.peers else []
    builds = []

    def build(what: str, *command: str, where: Path) -> None:
        log = (folder / f"build{len(builds)}.log").open("w+")
        process = subprocess.Popen(command, cwd=where, stdout=log, stderr=log, start_new_session=True)
        builds.append((what, process, log))

    if args.wheel:
        wheels.append(args.wheel)
    elif not args.installed:
        base = ["--build-base", str(folder / "base"), "--build-lib", str(folder)]
        build("ssimloss", sys.executable, "setup.py", "-q", "build", *base, where=ROOT)
    if args.fused_ssim:
        source = shutil.copytree(args.fused_ssim, folder / "source")  # its build writes beside its sources
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
        pip += ["--no-build-isolation", "--target", str(folder), str(source)]
        build("fused-ssim", *pip, where=folder)
    for wheel in wheels:
        zipfile.ZipFile(wheel).extractall(folder)
    failed, end = [], time.monotonic() + BUILD_SECONDS
    for what, process, log in builds:
        try:
            code = process.wait(max(end - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            stop(process)
            code = f"none after {BUILD_SECONDS} s"
        if code:
            failed.append(f"{what} was not built, exit status {code}")
            log.seek(0)
            print(f"{failed[-1]}:\n{log.read()[-3000:]}", flush=True)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    return failed


def outcome(seconds: float, *command: str) -> str:
    """passed, FAILED or out of time, with the last line of what the command said and every test that it names
    as failed; prints the end of it."""
    # Not the package in the sources' folder, where no library may lie, but the one made ready.
    environment = os.environ | {"PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryFile("w+") as said:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT, timeout=seconds
            )
            result = "passed" if done.returncode == 0 else f"FAILED ({done.returncode})"
        except subprocess.TimeoutExpired:
            result = f"out of time, {seconds:g} s"
        except OSError as error:
            return f"not run: {error}"
        said.seek(0)
        text = said.read().strip()
    print(text[-8000:], flush=True)
    lines = text.splitlines() or [""]
    failed = [f"  - {line[:300]}" for line in lines if line.startswith(("FAILED ", "ERROR "))]
    return "\n".join([f"{result}: {lines[-1].strip('= ')[:200]}", *failed])


def tests(seconds: float) -> Iterator[str]:
    """Lines on what tests/test_gpu.py says, and compute-sanitizer of tests/cuda_shim/driver.cpp."""
    pytest = [
        sys.executable,
        "-m",
        "pytest",
        "-m",
        "gpu",
        "-q",
        "-rsfE",
        "--tb=short",
        "-p",
        "no:cacheprovider",
    ]
    script, end = "tests/test_gpu.py", time.monotonic() + seconds
    if not torch.cuda.is_available():
        yield f"{script}: {outcome(seconds, *pytest, script)}"
        return
    with tempfile.TemporaryDirectory() as folder:
        driver = Path(folder) / "driver"
        build = subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(ROOT), str(driver)], start_new_session=True
        )
        yield f"{script}: {outcome(seconds / 2, *pytest, script)}"
        try:
            build.wait(max(1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            stop(build)
        sanitizer = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        for tool in ("memcheck", "racecheck"):
            found = "not run: its driver was not built"
            if build.returncode == 0:
                left = max(1, min(40, end - time.monotonic()))
                found = outcome(left, sanitizer, "--tool", tool, "--error-exitcode", "9", str(driver))
            yield f"compute-sanitizer {tool}: {found}"
