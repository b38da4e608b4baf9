"""The CUDA kernels on this machine's GPU, in one offline call: build, test, measure, write the table.

    python benchmarks/gpu.py [--wheel FILE] [--peers DIR] [--fused-ssim DIR] [--out FILE]

Times are medians of CUDA events, the contenders of a row taking turns, the L2 cache flushed before each
run, and each run queued behind a spinning kernel so that Python's time does not count; "step" is the time
of one of many forward + backward calls in a row as a training loop has it, Python included. A peer that is
not importable, or raises, is named and left out. After --budget seconds what is measured is written as it is.
"""

import argparse
import datetime
import gc
import importlib
import platform
import signal
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gpu_setup import ROOT, ask, prepare, tests
from gpu_tables import (
    COPY,
    FRAME_ANALYTICS,
    FUSED_SSIM,
    KORNIA,
    L1,
    MSSSIM,
    OURS,
    SHAPES,
    Loss,
    Roofline,
    Row,
    Task,
    bars,
    table,
)
from torch import Tensor

DRY_SHAPES = [(1, 3, 162, 164), (2, 3, 40, 48)]
DTYPES = [torch.float32, torch.bfloat16]
MODULES = {
    FUSED_SSIM: "fused_ssim",
    FRAME_ANALYTICS: "frame_analytics",
    MSSSIM: "pytorch_msssim",
    KORNIA: "kornia",
}
# fused-ssim launches on the default stream, frame-analytics' backward cannot be captured, pytorch-msssim
# copies its window from the host at every call, kornia's backward waits for a product: each would break the
# capture, and with it maybe what is measured after it.
NOT_CAPTURED = (FUSED_SSIM, FRAME_ANALYTICS, MSSSIM, KORNIA)

Run = Callable[[], object]


# ---- What is measured, and against whom


def peers() -> dict[str, Any]:
    found = {}
    for name, module in MODULES.items():
        try:
            found[name] = importlib.import_module(module)
        except Exception as error:  # a library inside that does not load, say
            print(f"{name} left out: {type(error).__name__}: {error}", flush=True)
    return found


def tasks(found: dict[str, Any], x: Tensor) -> dict[str, Task]:
    import ssimloss

    shape = tuple(x.shape)
    ssim: dict[str, Loss] = {OURS: ssimloss.SSIMLoss()}
    zeros: dict[str, Loss] = {OURS: ssimloss.SSIMLoss(padding="zeros")}
    l1: dict[str, Loss] = {OURS: ssimloss.L1Loss(), L1: F.l1_loss, COPY: copy_of_as_many_bytes}
    l1_ssim: dict[str, Loss] = {OURS: ssimloss.L1SSIMLoss()}
    dyadic: dict[str, Loss] = {OURS: ssimloss.MSSSIMLoss("dyadic")}
    paper: dict[str, Loss] = {OURS: ssimloss.MixLoss(padding="zeros")}
    kornias = dict(alpha=0.025, l1_range=1.0, window_size=33, padding="zeros")
    mix: dict[str, Loss] = {OURS: ssimloss.MixLoss(**kornias)}
    if fused := found.get(FUSED_SSIM):
        ssim[FUSED_SSIM] = lambda x, y: 1 - fused.fused_ssim(x, y, padding="valid")
        zeros[FUSED_SSIM] = lambda x, y: 1 - fused.fused_ssim(x, y)
        l1_ssim[FUSED_SSIM] = lambda x, y: 0.8 * F.l1_loss(x, y) + 0.2 * (1 - fused.fused_ssim(x, y))
    if frame := found.get(FRAME_ANALYTICS):
        ssim[FRAME_ANALYTICS] = lambda x, y: 1 - frame.ssim(x, y, data_range=1.0)
        dyadic[FRAME_ANALYTICS] = lambda x, y: 1 - frame.ms_ssim(x, y, data_range=1.0)
    if msssim := found.get(MSSSIM):
        ssim[MSSSIM] = lambda x, y: 1 - msssim.ssim(x, y, data_range=1.0)
        dyadic[MSSSIM] = lambda x, y: 1 - msssim.ms_ssim(x, y, data_range=1.0)
    small = x.numel() <= (16 * 3 * 256 * 256 if x.is_cuda else 2 * 3 * 40 * 48)  # dense 33x33 windows
    if (kornia := found.get(KORNIA)) and small:
        mix[KORNIA] = kornia.losses.MS_SSIMLoss(compensation=1.0).to(x.device)
    ssim |= {L1: F.l1_loss, COPY: copy_of_as_many_bytes}
    rows = {"L1": Task(l1, 0, 0), "SSIM": Task(ssim, 11, 1), "SSIM, zeros": Task(zeros, 11, 1)}
    rows["L1 + SSIM"] = Task(l1_ssim, 11, 1)
    rows["SSIM, half of it masked"] = Task({OURS: masked(ssimloss.SSIMLoss(), x)}, 11, 1)
    for taps in (17, 33):
        if min(shape[-2:]) >= taps:
            wide = ssimloss.SSIMLoss(sigma=taps / 7, window_size=taps)
            rows[f"SSIM, {taps} taps"] = Task({OURS: wide}, taps, 1)
    if min(shape[-2:]) > 160:
        rows["MS-SSIM, dyadic"] = Task(dyadic, 15, 1)  # the coarser levels: a third more elements
    rows["Mix, half of it masked"] = Task({OURS: masked(ssimloss.MixLoss(padding="zeros"), x)}, 115, 5)
    return rows | {"Mix, 33 taps": Task(mix, 165, 5), "Mix, 5 to 57 taps": Task(paper, 115, 5)}


def masked(loss: Loss, x: Tensor) -> Loss:
    """Under a mask that leaves out squares of 32 pixels, half of them."""
    rows, columns = (torch.arange(side, device=x.device) // 32 for side in x.shape[-2:])
    mask = ((rows[:, None] + columns) % 2 == 0).to(torch.float32)[None]
    return lambda x, y: loss(x, y, mask=mask)


def copy_of_as_many_bytes(x: Tensor, y: Tensor) -> Tensor:
    """In the place of a loss: as many bytes read and written as SSIM must (see `runs`)."""
    raise NotImplementedError


def runs(name: str, loss: Loss, x: Tensor, y: Tensor) -> tuple[Run, Run, Tensor | None]:
    """Forward alone and forward + backward, to x; the tensor that gets the gradient."""
    if name == COPY:
        count = x.numel()
        source, target = (torch.zeros(3 * count // 2, dtype=x.dtype, device=x.device) for _ in range(2))
        return lambda: target[:count].copy_(source[:count]), lambda: target.copy_(source), None
    leaf = x.detach().clone().requires_grad_()

    def forward() -> None:
        with torch.no_grad():
            loss(x, y)

    def both() -> None:
        leaf.grad = None
        loss(leaf, y).backward()

    return forward, both, leaf


# ---- Clocks


class Cpu:
    """For --dry-run where there is no GPU."""

    name = platform.processor() or "CPU"

    def capture(self, run: Run) -> Run | None:
        return None

    def peak(self, run: Run, leaf: Tensor | None) -> int:
        run()
        return 0

    def synchronize(self) -> None:
        pass

    def measure(self, run: Run, spin: float) -> Callable[[], float]:
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        return lambda: 1e6 * seconds


class Gpu:
    def __init__(self) -> None:
        properties = torch.cuda.get_device_properties(0)
        self.name = properties.name
        self.lanes = 128 * properties.multi_processor_count
        self.cache = torch.empty(4 * properties.L2_cache_size, dtype=torch.uint8, device="cuda")
        self.synchronize = torch.cuda.synchronize

    def capture(self, run: Run) -> Run | None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                run()
        finally:  # torch does not leave the capture's stream if the capture fails: events would miss kernels
            torch.cuda.set_stream(torch.cuda.default_stream())
        return graph.replay

    def peak(self, run: Run, leaf: Tensor | None) -> int:
        """Bytes of tensors alive at once, at most, in the second of two runs: the gradient is one of them."""
        run()
        if leaf is not None:
            leaf.grad = None
        gc.collect()
        self.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before

    def measure(self, run: Run, spin: float) -> Callable[[], float]:
        """Queues one run; the answer, microseconds, is ready after the device has run it."""
        # Of the default stream, on which fused-ssim launches: on another they would miss its kernels.
        assert torch.cuda.current_stream() == torch.cuda.default_stream()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        self.cache.zero_()
        torch.cuda._sleep(int(spin * 2e9))  # about 2 GHz
        start.record()
        run()
        end.record()
        return lambda: 1e3 * start.elapsed_time(end)


def medians(clock: Cpu | Gpu, all_runs: dict[str, Run], seconds: float) -> dict[str, float]:
    """Median microseconds of each, interleaved, after a round to warm up; at least 5 rounds."""
    spins = {}
    for name, run in all_runs.items():
        run()
        clock.synchronize()
        start = time.perf_counter()
        run()
        spins[name] = min(2 * (time.perf_counter() - start) + 5e-5, 0.02)
        clock.synchronize()
    times: dict[str, list[float]] = {name: [] for name in all_runs}
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 5 or (time.perf_counter() < end and rounds < 100):
        queued = {name: clock.measure(run, spins[name]) for name, run in all_runs.items()}
        clock.synchronize()
        for name, answer in queued.items():
            times[name].append(answer())
        rounds += 1
    return {name: statistics.median(values) for name, values in times.items()}


def steps(clock: Cpu | Gpu, all_runs: dict[str, Run], seconds: float) -> dict[str, float]:
    """Microseconds a call of calls in a row, Python and launches included; the best of five turns."""
    best = dict.fromkeys(all_runs, float("inf"))
    for _ in range(5):
        for name, run in all_runs.items():
            clock.synchronize()
            start, count = time.perf_counter(), 0
            while count < 3 or (count < 50 and time.perf_counter() < start + seconds / 5):
                run()
                count += 1
            clock.synchronize()
            best[name] = min(best[name], 1e6 * (time.perf_counter() - start) / count)
    return best


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"


def in_time(end: float) -> None:
    if time.perf_counter() > end:
        raise TimeoutError("out of time")


def rows_of(
    clock: Cpu | Gpu, task: Task, x: Tensor, y: Tensor, seconds: float, end: float, notes: list[str]
) -> dict[str, Row]:
    """Every contender that runs; what one raises, and values far from ours, go into the notes."""
    forward, both, memory, captured = {}, {}, {}, {}
    ours = None
    for name, loss in task.losses.items():
        in_time(end)
        try:
            if name not in (COPY, L1):
                value = float(loss(x, y))
                ours = value if ours is None else ours
                if abs(value - ours) > 1e-2 * abs(ours):
                    notes.append(f"{name}: its loss is {value:.5g}, ours {ours:.5g}")
            one, two, leaf = runs(name, loss, x, y)
            memory[name] = clock.peak(two, leaf) / (x.numel() * x.element_size())
            forward[name], both[name] = one, two
            if name not in NOT_CAPTURED and (graph := clock.capture(two)):
                captured[name] = graph
        except Exception as error:
            what = "left out" if name not in both else "not captured"
            notes.append(f"{name} {what}: {short(error)}")
    times = []
    for some in (forward, both, captured):
        in_time(end)
        times.append(medians(clock, some, seconds))
    in_time(end)
    step = steps(clock, both, seconds)
    return {
        name: Row(times[0][name], times[1][name], times[2].get(name), step[name], memory[name])
        for name in both
    }


# ---- The whole


def roofline(clock: Cpu | Gpu) -> Roofline | None:
    if isinstance(clock, Cpu):
        return None
    source, target = (torch.zeros(2**28, device="cuda") for _ in range(2))
    times = medians(clock, {COPY: lambda: target.copy_(source)}, 0.2)
    mhz = ask("nvidia-smi", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits", "--id=0")
    if not mhz.isdecimal():  # no nvidia-smi, or it does not say
        return None
    return Roofline(2 * 4 * 2**28 / times[COPY], clock.lanes * float(mhz))


def header(clock: Cpu | Gpu, line: Roofline | None) -> list[str]:
    import ssimloss

    commit = ask("git", "-C", str(ROOT), "describe", "--always", "--dirty") or "unknown"
    driver = ask("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0")
    lines = [
        f"# {clock.name}, {datetime.date.today()}",
        "",
        f"{ssimloss.info()}, commit {commit}, Python {platform.python_version()}, driver {driver or 'none'}.",
    ]
    if line:
        lines.append(
            f"Roofline: a copy of 1 GiB moves {line.bandwidth / 1e3:.0f} GB/s; {line.rate / 1e6:.1f} T FP32 "
            "instructions/s at the highest clock; 14 FMA a tap and 28 more a scale, 12 bytes, an element."
        )
    return [*lines, "", *(__doc__ or "").strip().splitlines()[4:], ""]


def measure(
    clock: Cpu | Gpu,
    line: Roofline | None,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    found: dict[str, Any],
    seconds: float,
    end: float,
    all_rows: dict[tuple, dict[str, Row]],
    notes: list[str],
) -> list[str]:
    """The table of one shape and dtype: every loss, or what there is time for."""
    title = f"{'x'.join(map(str, shape))}, {str(dtype).removeprefix('torch.')}"
    y = torch.rand(shape, device="cuda" if isinstance(clock, Gpu) else "cpu")
    x, y = (y + 0.1 * torch.randn_like(y)).to(dtype), y.to(dtype)
    results = {}
    for name, task in tasks(found, x).items():
        here: list[str] = []
        try:
            rows = rows_of(clock, task, x, y, seconds, end, here)
        except TimeoutError as error:
            here.append(f"not measured: {error}")
        except Exception as error:  # of the device, by whatever contender
            here.append(f"not measured: {short(error)}")
            all_rows[shape, dtype, name] = {}
        else:
            all_rows[shape, dtype, name] = rows
            results[name] = (rows, line and line.floor(task, x))
        notes += [f"{title}, {name}: {note}" for note in here]
    return table(title, results, x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="of ssimloss, unpacked instead of building the sources")
    parser.add_argument("--installed", action="store_true", help="the ssimloss that is importable already")
    parser.add_argument("--peers", type=Path, help="a folder of the peers' wheels")
    parser.add_argument("--fused-ssim", type=Path, help="a folder of fused-ssim's sources: built")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu-DATE.md")
    parser.add_argument("--budget", type=float, default=450, help="seconds for all of it")
    parser.add_argument("--seconds", type=float, default=0.4, help="a row and kind of run")
    parser.add_argument("--dry-run", action="store_true", help="small images, and the CPU without a GPU")
    args = parser.parse_args()
    start = time.perf_counter()
    if not torch.cuda.is_available() and not args.dry_run:
        parser.error("no CUDA device; --dry-run runs the script on the CPU")
    for given in (args.wheel, args.peers, args.fused_ssim):
        if given and not given.exists():
            parser.error(f"{given}: expected a file or folder, there is none")
    out = args.out or ROOT / "benchmarks" / "results" / f"gpu-{datetime.date.today()}.md"
    if not args.out and out.exists():
        parser.error(f"{out} is there already: give another name by --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    clock = Gpu() if torch.cuda.is_available() else Cpu()
    text: list[str] = []

    def write(lines: list[str]) -> None:  # at once: what is measured stays, whatever comes
        print("\n".join(lines), flush=True)
        text.extend(lines)
        out.write_text("\n".join(text) + "\n")

    def terminate(*_: object) -> None:
        raise SystemExit("terminated")

    signal.signal(signal.SIGTERM, terminate)  # as `timeout` does it: the rest is written all the same
    with tempfile.TemporaryDirectory() as folder:
        failed = prepare(args, Path(folder))
        found, line = peers(), roofline(clock)
        notes = failed + [f"{name}: not importable" for name in MODULES if name not in found]
        write(header(clock, line))  # imports ssimloss
        all_rows: dict[tuple, dict[str, Row]] = {}
        try:
            for said in tests(args.budget / 2):
                write([f"- {said}"])
            write([""])
            for dtype, shape in (
                zip(DTYPES, DRY_SHAPES, strict=True) if args.dry_run else product(DTYPES, SHAPES)
            ):
                end = start + args.budget - 15
                write(measure(clock, line, shape, dtype, found, args.seconds, end, all_rows, notes))
        finally:
            write(bars(all_rows))
            write([f"- {note}" for note in notes] + ["", f"{time.perf_counter() - start:.0f} s in all."])
    if any(OURS not in rows for rows in all_rows.values()):
        raise SystemExit(f"{OURS} failed: see the notes in {out}")


if __name__ == "__main__":
    main()
