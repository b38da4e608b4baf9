"""How compare.py measures: answers, digits, interleaved times, memory, launches, peaks of the machine.

Every function runs in a process that compare.py started for it, and returns what JSON can hold.
"""

import math
import random
import time
from collections.abc import Callable
from pathlib import Path

import torch
from accuracy import errors
from compare_rows import (
    CLAIM_NOTHING,
    COPY,
    DTYPES,
    KINDS,
    L1,
    ONLY_CUDA_FLOAT32,
    Contender,
    Row,
    contenders,
    picture,
)
from gpu import Cpu, Gpu
from torch import Tensor

# Relative, of the value and of the gradient's norm. A peer that makes its window in float32 is within 2e-5 of
# the definition; one with other borders is off by more than 1e-3.
TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 2e-2}
DISTANCES = (1e-3, 1e-5)  # as in accuracy.py
SLOW = 1000.0  # ms: what takes longer is measured once in a process, and not with fewer threads
MOST, LEAST = 31, 3  # rounds
Rounds = list[dict[str, float]]


def clock_of(device: str, threads: int) -> Cpu | Gpu:
    torch.set_num_threads(threads)
    return Gpu() if device == "cuda" else Cpu()


def relative(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


# ---- What is right


def check(row: Row, device: str) -> dict[str, dict]:
    """Each contender's value and gradient against the definition in float64: how far off, and whether that is
    the row's loss; or what it raised. On a photograph with noise of 0.1."""
    torch.set_num_threads(1)
    y = picture(row).to(device, torch.float64)
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = (y + 0.1 * noise.to(device)).clamp(0, 1)
    everyone = contenders(row, device).items()
    nothing = CLAIM_NOTHING.get(row.kind, [L1])
    return {name: answer(row, name, one, x, y) for name, one in everyone if name not in nothing}


def answer(row: Row, name: str, contender: Contender, x: Tensor, y: Tensor) -> dict:
    if name in ONLY_CUDA_FLOAT32:
        x, y = x.float(), y.float()
    x, y = (contender.lay(t).detach() for t in (x, y))
    try:
        value, gradient = value_and_gradient(contender, x, y)
    except Exception as error:
        return {"same": False, "raised": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
    plain = Contender(KINDS[row.kind].definition)
    expected, expected_gradient = value_and_gradient(plain, *(contender.view(t).double() for t in (x, y)))
    off = abs(value - expected) / abs(expected)
    gradient_off = relative(contender.view(gradient).double(), expected_gradient)
    return {
        "same": max(off, gradient_off) <= TOLERANCE[x.dtype],  # NaN is not
        "value": value,
        "expected": expected,
        "value_off": off,
        "gradient_off": gradient_off,
    }


def value_and_gradient(contender: Contender, x: Tensor, y: Tensor) -> tuple[float, Tensor]:
    x = x.detach().requires_grad_()
    value = contender.loss(contender.view(x), contender.view(y))
    return value.item(), torch.autograd.grad(value, x)[0]


def digits(row: Row, names: list[str], device: str) -> dict[str, list[float]]:
    """The error of the float32 gradient at DISTANCES, each against its own in float64: accuracy.py's."""
    torch.set_num_threads(1)
    losses = {
        name: contender.loss
        for name, contender in contenders(row, device).items()
        if name in names and name not in (COPY, *ONLY_CUDA_FLOAT32) and row.kind != DTYPES
    }
    return errors(losses, picture(row).to(device), DISTANCES)


# ---- What it costs


def images(row: Row, device: str) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y, noise = (torch.rand(row.shape, generator=generator) for _ in "yx")
    return (0.7 * y + 0.3 * noise).to(device), y.to(device)


def runs(contender: Contender, x: Tensor, y: Tensor) -> tuple[Callable[[], None], Callable[[], None], Tensor]:
    """Value alone; value + gradient; the leaf that gets the gradient."""
    leaf, truth = contender.lay(x).detach().requires_grad_(), contender.lay(y)

    def forward() -> None:
        with torch.no_grad():
            contender.loss(contender.view(leaf), contender.view(truth))

    def both() -> None:
        leaf.grad = None
        contender.loss(contender.view(leaf), contender.view(truth)).backward()

    return forward, both, leaf


def warm_up(row: Row, contender: Contender, device: str) -> None:
    """Lazy imports, threads, and what frame-analytics compiles: after two shapes it is for every shape."""
    image, batch = picture(row).to(device), min(row.shape[0], 2)
    for more in (0, 8):  # not fewer, as the peers' MS-SSIM needs all of them
        small = torch.cat((image, image[..., :more]), -1).repeat(batch, *[1] * (image.dim() - 1))
        for run in runs(contender, small, small)[:2]:
            run()
        batch += batch > 1


def times(
    row: Row, names: list[str], device: str, threads: int, seconds: float, seed: int
) -> dict[str, Rounds]:
    """Milliseconds of value + gradient ("both") and of the value alone ("forward")."""
    clock = clock_of(device, threads)
    made = {}
    x, y = images(row, device)
    for name, contender in contenders(row, device).items():
        if name in names:
            warm_up(row, contender, device)
            made[name] = runs(contender, x, y)
    return {
        "both": rounds(clock, {name: run[1] for name, run in made.items()}, seconds, seed),
        "forward": rounds(clock, {name: run[0] for name, run in made.items()}, seconds, seed),
    }


def rounds(clock: Cpu | Gpu, all_runs: dict[str, Callable], seconds: float, seed: int = 0) -> Rounds:
    """Each contender once a round, in a new order every time; milliseconds.

    In a new order: who comes after a peer that gave gigabytes back pays for fresh pages. A contender drops
    out when its own runs have taken `seconds`, and LEAST rounds; the first, ours, is in every round.
    """
    order, first = random.Random(seed), next(iter(all_runs))
    spins = dict.fromkeys(all_runs, 0.0)
    found: Rounds = []

    def milliseconds(name: str) -> float:
        taken = clock.measure(all_runs[name], spins[name])
        clock.synchronize()
        return taken() / 1e3

    taking_part = []
    for name in all_runs:
        once = milliseconds(name)  # to warm up
        if SLOW < once < 4 * SLOW:  # it may have compiled once more
            once = milliseconds(name)
        if once > SLOW and name != first:
            found.append({name: once, first: milliseconds(first)})
        else:
            taking_part.append(name)
    if isinstance(clock, Gpu):  # it waits so long before a run, while Python queues it
        spins |= {name: queueing(all_runs[name]) for name in taking_part}
    used = dict.fromkeys(all_runs, 0.0)
    for count in range(1, MOST + 1):
        found.append({name: milliseconds(name) for name in order.sample(taking_part, len(taking_part))})
        for name, taken in found[-1].items():
            used[name] += taken / 1e3
        more = [name for name in taking_part if count < LEAST or used[name] < seconds]
        if not more:
            break
        taking_part = [first, *(name for name in more if name != first)]
    return found


def queueing(run: Callable[[], object]) -> float:
    """Seconds, with a reserve, that a GPU is to wait so that Python's time does not count."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    return min(2 * (time.perf_counter() - start) + 5e-5, 0.02)


def memory(row: Row, name: str, device: str, threads: int) -> float:
    """The peak beyond the images, in sizes of the gradient, of two steps; of one that is slow.

    On a CPU of the resident memory (Linux), in a fresh process: what was freed before can be used again
    without growing it. On CUDA of torch's allocator.
    """
    clock = clock_of(device, threads)
    contender = contenders(row, device)[name]
    warm_up(row, contender, device)
    x, y = images(row, device)
    _, step, leaf = runs(contender, x, y)
    size = leaf.numel() * leaf.element_size()
    del x, y
    if isinstance(clock, Gpu):
        return clock.peak(step, leaf) / size
    reset = Path("/proc/self/clear_refs")
    if not reset.exists():
        return math.nan
    reset.write_text("5")  # the peak starts anew from what is resident now
    before = resident("VmRSS")
    start = time.perf_counter()
    step()
    if time.perf_counter() - start < SLOW / 1e3:  # what F.l1_loss holds grows with the second
        step()
    return (resident("VmHWM") - before) / size


def resident(key: str) -> int:
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith(key))


def launches(row: Row, names: list[str]) -> dict[str, int]:
    """Kernels, copies and fills that one step starts on CUDA, as torch's profiler counts them."""
    x, y = images(row, "cuda")
    found = {}
    for name, contender in contenders(row, "cuda").items():
        if name in names:
            both = runs(contender, x, y)[1]
            both()
            torch.cuda.synchronize()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
                both()
                torch.cuda.synchronize()
            on_device = torch.autograd.DeviceType.CUDA
            found[name] = sum(event.device_type == on_device for event in profile.events())
    return found


def peaks(device: str, threads: int, seed: int) -> dict[str, float]:
    """What this machine does at best, now: bytes a second read and written by Tensor.copy_ of 256 MiB, and
    FMA a second of torch.matmul of float32 matrices, which stands for the FMA peak."""
    clock = clock_of(device, threads)
    side = 8192 if device == "cuda" else 1536
    a, b = (torch.rand(side, side, device=device) for _ in "ab")
    c = torch.empty_like(a)
    source, target = (torch.zeros(2**26, device=device) for _ in "st")
    all_runs = {"copy": lambda: target.copy_(source), "matmul": lambda: torch.matmul(a, b, out=c)}
    found = rounds(clock, all_runs, 0.3, seed)
    best = {name: min(one[name] for one in found if name in one) / 1e3 for name in all_runs}
    return {"bytes": 2 * 4 * 2**26 / best["copy"], "fma": side**3 / best["matmul"]}
