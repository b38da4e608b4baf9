"""We beside our peers, in one run: `python benchmarks/peers.py [--out FILE] [--only ROW]`.

Every row's contenders run in turn, round after round, so that whatever else the machine does hits
all of them; the figures are medians, and only the ratios should be read across machines. Memory is
the peak of a fresh process beyond the images (Linux). Peers that are not installed are named. Every row is
printed, and written, when it is measured: what was stopped keeps what it has.
"""

import argparse
import contextlib
import datetime
import functools
import importlib
import multiprocessing
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import ssimloss

Loss = Callable[[Tensor, Tensor], Tensor]
SHAPES = [(1, 3, 1080, 1920), (16, 3, 128, 128), (1, 3, 256, 256), (1, 1, 96, 128, 128)]
COPY = "copy of as many bytes"
VOLUMES = "SSIM of volumes"
DTYPES = "dtypes"  # the row that has no peers
PACKAGES = {
    "frame-analytics": "frame_analytics",
    "pytorch-msssim": "pytorch_msssim",
    "torchmetrics": "torchmetrics",
    "kornia": "kornia",
}


def peers() -> dict[str, object]:
    """The peers' modules by name; missing ones are reported and left out."""
    found = {}
    for name, module in PACKAGES.items():
        try:
            found[name] = importlib.import_module(module)
        except ImportError:
            progress(f"{name} is not installed: its rows are left out (pip install '.[bench]')")
    return found


def contenders(found: dict, shape: tuple[int, ...]) -> dict[str, dict[str, Loss]]:
    """Rows: task -> contender -> loss. The first contender of a row is ours."""
    if len(shape) == 5:
        return {VOLUMES: contenders_of_volumes(found)}
    rows: dict[str, dict[str, Loss]] = {
        "L1": {"ssimloss": ssimloss.L1Loss(), "F.l1_loss": F.l1_loss, COPY: copy_of_as_many_bytes},
        "SSIM": {"ssimloss": ssimloss.SSIMLoss(), "F.l1_loss": F.l1_loss},
        "L1 + SSIM": {"ssimloss": ssimloss.L1SSIMLoss(), "F.l1_loss": F.l1_loss},
    }
    if min(shape[-2:]) > 160:
        rows["MS-SSIM, dyadic"] = {
            "ssimloss": ssimloss.MSSSIMLoss("dyadic"),
            "our SSIM": ssimloss.SSIMLoss(),
        }
    if shape[-1] <= 256:
        rows["Mix, 33 taps, zeros"] = {"ssimloss": ssimloss.MixLoss(window_size=33, padding="zeros")}
    if "frame-analytics" in found:
        fa = found["frame-analytics"]
        rows["SSIM"]["frame-analytics"] = lambda x, y: 1 - fa.ssim(x, y, data_range=1.0)
        if "MS-SSIM, dyadic" in rows:
            rows["MS-SSIM, dyadic"]["frame-analytics"] = lambda x, y: 1 - fa.ms_ssim(x, y, data_range=1.0)
    if "pytorch-msssim" in found:
        pm = found["pytorch-msssim"]
        rows["SSIM"]["pytorch-msssim"] = lambda x, y: 1 - pm.ssim(x, y, data_range=1.0)
        if "MS-SSIM, dyadic" in rows:
            rows["MS-SSIM, dyadic"]["pytorch-msssim"] = lambda x, y: 1 - pm.ms_ssim(x, y, data_range=1.0)
    if "torchmetrics" in found:
        ssim = found["torchmetrics"].functional.image.structural_similarity_index_measure
        rows["SSIM"]["torchmetrics"] = lambda x, y: 1 - ssim(x, y, data_range=1.0)
    if "kornia" in found:
        kornia = found["kornia"]
        rows["SSIM"]["kornia"] = lambda x, y: kornia.losses.ssim_loss(x, y, 11, padding="valid")
        if "Mix, 33 taps, zeros" in rows:
            rows["Mix, 33 taps, zeros"]["kornia"] = kornia.losses.MS_SSIMLoss()
    return rows


def contenders_of_volumes(found: dict) -> dict[str, Loss]:
    losses: dict[str, Loss] = {"ssimloss": ssimloss.SSIMLoss(), "F.l1_loss": F.l1_loss}
    if "pytorch-msssim" in found:
        losses["pytorch-msssim"] = lambda x, y: 1 - found["pytorch-msssim"].ssim(x, y, data_range=1.0)
    if "kornia" in found:
        losses["kornia"] = lambda x, y: found["kornia"].losses.ssim3d_loss(x, y, 11, padding="valid")
    return losses


def copy_of_as_many_bytes(x: Tensor, y: Tensor) -> Tensor:
    """In the place of a loss: as many bytes read and written as l1 must, which are x, y and a gradient."""
    count = x.numel() * (3 if x.requires_grad else 2) // 2
    source, target = buffers(3 * x.numel() // 2)
    target[:count].copy_(source[:count])
    return torch.zeros((), requires_grad=x.requires_grad)


@functools.lru_cache(1)
def buffers(count: int) -> tuple[Tensor, Tensor]:
    return torch.zeros(count), torch.zeros(count)


def medians(runs: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each, interleaved, after one round to warm up; at least 9 rounds.

    In a new order every round: who comes after a peer that gave gigabytes back pays for fresh pages.
    """
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = None
    while end is None or time.perf_counter() < end or len(next(iter(times.values()))) < 9:
        for name, run in order.sample(list(runs.items()), len(runs)):
            start = time.perf_counter()
            run()
            if end is not None:
                times[name].append(1e3 * (time.perf_counter() - start))
        end = end or time.perf_counter() + seconds
    return {name: statistics.median(values) for name, values in times.items()}


def backward(loss: Loss, x: Tensor, y: Tensor) -> Callable[[], None]:
    def run() -> None:
        x.grad = None
        loss(x, y).backward()

    return run


def peak_memory(shape: tuple[int, ...], task: str, name: str, threads: int) -> tuple[float, float]:
    """Peak resident memory beyond the images', in sizes of the gradient: of one step, and of ten.

    Meant for a fresh process: what was freed before can be used again without growing it.
    """
    torch.set_num_threads(threads)
    loss = contenders(peers(), shape)[task][name]

    def images(*size: int) -> tuple[Tensor, Tensor]:
        return torch.rand(size, requires_grad=True), torch.rand(size)

    small = (1, 3, 200, 200) if len(shape) == 4 else (1, 1, 16, 16, 16)
    backward(loss, *images(*small))()  # lazy imports
    x, y = images(*shape)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from what is resident now
    before, step, peaks = resident("VmRSS"), backward(loss, x, y), []
    for steps in (1, 9):
        for _ in range(steps):
            step()
        peaks.append((resident("VmHWM") - before) / (4 * x.numel()))
    return peaks[0], peaks[1]


def resident(key: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def progress(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


def times_table(found: dict, shape: tuple[int, ...], seconds: float, only: list[str]) -> Iterator[str]:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(shape, generator=generator) for _ in range(2))
    size = "x".join(map(str, shape))
    rows = {task: losses for task, losses in contenders(found, shape).items() if task in only}
    if not rows:
        return
    yield f"### {size}, float32"
    yield ""
    yield "| loss | contender | forward ms | ratio | forward + backward ms | ratio |"
    yield "|---|---|---:|---:|---:|---:|"
    for task, losses in rows.items():
        progress(f"{task}, {size}: {', '.join(losses)}")
        with torch.no_grad():
            forward = medians({k: lambda f=f: f(x, y) for k, f in losses.items()}, seconds)
        leaf = x.clone().requires_grad_()
        both = medians({k: backward(f, leaf, y) for k, f in losses.items()}, seconds)
        for name in losses:
            yield (
                f"| {task} | {name} | {forward[name]:.2f} | {forward[name] / forward['ssimloss']:.2f} "
                f"| {both[name]:.2f} | {both[name] / both['ssimloss']:.2f} |"
            )
    yield ""


def dtypes_table(seconds: float, only: list[str]) -> Iterator[str]:
    if DTYPES not in only:
        return
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(1, 3, 1080, 1920, generator=generator) for _ in range(2))
    loss = ssimloss.SSIMLoss()
    variants = {
        "float32": (x, y),
        "float16": (x.half(), y.half()),
        "bfloat16": (x.bfloat16(), y.bfloat16()),
        "float64": (x.double(), y.double()),
        "float32, channels_last": tuple(t.contiguous(memory_format=torch.channels_last) for t in (x, y)),
    }
    runs = {name: backward(loss, a.detach().requires_grad_(), b) for name, (a, b) in variants.items()}
    render, truth = (t.permute(0, 2, 3, 1).contiguous() for t in (x, y))

    def of_renders(x: Tensor, y: Tensor) -> Tensor:
        return loss(x.permute(0, 3, 1, 2), y.permute(0, 3, 1, 2))

    runs["float32, [N, H, W, C] permuted"] = backward(of_renders, render.requires_grad_(), truth)
    progress(f"{DTYPES}: {', '.join(runs)}")
    result = medians(runs, seconds)
    yield "### SSIM at 1x3x1080x1920, forward + backward"
    yield ""
    yield "| images | ms | to float32 |"
    yield "|---|---:|---:|"
    for name, value in result.items():
        yield f"| {name} | {value:.2f} | {value / result['float32']:.2f} |"
    yield ""


def memory_table(found: dict, only: list[str]) -> Iterator[str]:
    rows = [
        (shape, task, name)
        for shape in (*SHAPES[:2], *SHAPES[3:])
        for task, losses in contenders(found, shape).items()
        for name in losses
        if task in only and name != COPY
    ]
    if not rows:
        return
    yield "### Peak resident memory of forward + backward, float32, in sizes of the gradient"
    yield ""
    yield "| shape | loss | contender | one step | ten steps |"
    yield "|---|---|---|---:|---:|"
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as fresh_processes:
        for shape, task, name in rows:
            size = "x".join(map(str, shape))
            progress(f"memory of {task}, {size}: {name}")
            run = fresh_processes.submit(peak_memory, shape, task, name, torch.get_num_threads())
            yield "| {} | {} | {} | {:.2f} | {:.2f} |".format(size, task, name, *run.result())
    yield ""


def header() -> list[str]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES if _installed(name))
    return [
        f"# CPU, {datetime.date.today()}",
        "",
        f"{ssimloss.info()}, commit {commit.stdout.strip() or 'unknown'}, Python "
        f"{platform.python_version()}, {torch.get_num_threads()} threads on {os.cpu_count()} cores. "
        f"Peers: {versions}.",
        "",
        "Medians, interleaved in a new order every round; ratio: how many times ssimloss's time.",
        "",
    ]


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def lines(found: dict, seconds: float, only: list[str]) -> Iterator[str]:
    yield from header()
    for shape in SHAPES:
        yield from times_table(found, shape, seconds, only)
    yield from dtypes_table(seconds, only)
    yield from memory_table(found, only)


def main(arguments: list[str] | None = None) -> None:
    found = peers()
    tasks = dict.fromkeys(task for shape in SHAPES for task in contenders(found, shape))
    rows = [*tasks, DTYPES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write the tables to this Markdown file")
    parser.add_argument(
        "--only",
        action="append",
        choices=rows,
        metavar="ROW",
        help=f"measure this one, at every size it is at; may be repeated; of {', '.join(map(repr, rows))}",
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="for each row and direction")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    with args.out.open("w") if args.out else contextlib.nullcontext() as file:
        for line in lines(found, args.seconds, args.only or rows):
            if file:
                print(line, file=file, flush=True)
            print(line, flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
