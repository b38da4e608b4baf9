"""How the cost of a loss grows, with pixels, window, batch, channels and threads: docs/figures/growth.svg.

    python benchmarks/growth.py [--figure FILE.svg] [--only CURVE]

Value + gradient on the CPU, float32. The losses of a point take turns, in two processes one after the other
(compare.py's); a figure is the median of both processes' rounds. Every point is written as it comes, a line
of JSON; the tables are printed.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from compare import Processes, Record, progress, quartiles
from compare_measure import Rounds, clock_of, rounds, runs
from compare_page import markdown, number
from compare_rows import Contender
from gpu_tables import L1, Loss

import ssimloss

CORES = os.cpu_count() or 1
LOSSES: dict[str, Callable[[], Loss]] = {
    "Mix": ssimloss.MixLoss,
    "MS-SSIM": lambda: ssimloss.MSSSIMLoss("dyadic"),
    "SSIM": ssimloss.SSIMLoss,
    "L1Loss": ssimloss.L1Loss,
    L1: lambda: F.l1_loss,
}


def of_windows(taps: int) -> dict[str, Callable[[], Loss]]:
    return {
        "SSIM, Gaussian": lambda: ssimloss.SSIMLoss(window_size=taps, sigma=taps / 7),
        "SSIM, uniform": lambda: ssimloss.SSIMLoss(window="uniform", window_size=taps),
    }


class Curve(NamedTuple):
    along: str  # the axis
    values: tuple[int, ...]
    shape: Callable[[int], tuple[int, ...]]
    losses: Callable[[int], dict[str, Callable[[], Loss]]] = lambda _: LOSSES


CURVES = {
    "pixels": Curve("side of a square image", (256, 512, 1024, 2048, 4096, 8192), lambda n: (1, 1, n, n)),
    "batch": Curve("images, 3x192x192", (1, 2, 4, 8, 16, 32, 64), lambda n: (n, 3, 192, 192)),
    "channels": Curve("channels, 256x256", (1, 2, 3, 4, 8, 16, 32, 64), lambda n: (1, n, 256, 256)),
    "window": Curve(
        "taps, 1024x1024",
        (5, 7, 9, 11, 15, 21, 27, 33, 41, 49, 57, 65),
        lambda n: (1, 1, 1024, 1024),
        of_windows,
    ),
    "threads": Curve(
        "threads, 3x1080x1920",
        (*(n for n in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64) if n < CORES), CORES),
        lambda n: (1, 3, 1080, 1920),
    ),
}


def measure(name: str, value: int, threads: int, seconds: float, seed: int) -> Rounds:
    """In a process of its own: the rounds at one point of a curve."""
    curve = CURVES[name]
    clock = clock_of("cpu", value if name == "threads" else threads)
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(curve.shape(value), generator=generator) for _ in "xy")
    losses = {loss: runs(Contender(make()), x, y)[1] for loss, make in curve.losses(value).items()}
    return rounds(clock, losses, seconds, seed)


def point(name: str, value: int, options: argparse.Namespace, processes: Any) -> Record:
    progress(f"{name}: {value} ({CURVES[name].along})")
    found = processes.in_turn(measure, name, value, options.threads, options.seconds)
    everything = [one for process in found for one in process]
    losses = CURVES[name].losses(value)
    return {
        "curve": name,
        "value": value,
        "shape": CURVES[name].shape(value),
        "threads": value if name == "threads" else options.threads,
        "ms": {loss: quartiles([one[loss] for one in everything if loss in one]) for loss in losses},
    }


def table(name: str, points: list[Record]) -> list[str]:
    losses = list(points[0]["ms"])
    rows = [[str(p["value"]), *(number(p["ms"][loss][1]) for loss in losses)] for p in points]
    return [*markdown([CURVES[name].along, *(f"{loss}, ms" for loss in losses)], rows), ""]


def draw(points: list[Record], out: Path) -> None:
    """Nanoseconds an element, so that a level line is a cost in proportion; of threads, times one thread."""
    import matplotlib
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(point["curve"] for point in points))
    style = {"svg.hashsalt": "ssimloss", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(11, 3.3 * -(-len(names) // 3)), layout="constrained")
        grid = figure.subplots(-(-len(names) // 3), min(3, len(names)), squeeze=False).flat
        for name, axes in zip(names, grid, strict=False):
            these = [point for point in points if point["curve"] == name]
            values = [point["value"] for point in these]
            for loss in these[0]["ms"]:
                low, middle, high = zip(*(scaled(point, loss, these) for point in these), strict=True)
                axes.plot(values, middle, "o-", ms=3.5, lw=1.2, label=loss)
                axes.fill_between(values, low, high, alpha=0.25)
            if name == "threads":
                axes.plot(values, values, ":", color="grey", lw=1, label="as many times as threads")
            if name != "window":
                axes.set_xscale("log", base=2)
                axes.set_xticks(values, values)
            axes.set_yscale("linear" if name in ("threads", "window") else "log")
            if name in ("threads", "window"):
                axes.set_ylim(bottom=0)
            else:
                axes.set_ylim(top=5 * axes.get_ylim()[1])  # room for the legend
            axes.set_xlabel(CURVES[name].along)
            axes.set_ylabel("times as fast as one thread" if name == "threads" else "ns an element")
            axes.grid(alpha=0.3)
            axes.legend(frameon=False, fontsize=7.5, ncols=2)
        for axes in grid:
            axes.set_visible(False)
        figure.savefig(out, metadata={"Date": None})


def scaled(point: Record, loss: str, points: list[Record]) -> list[float]:
    quartiles = point["ms"][loss]
    if point["curve"] == "threads":
        return [points[0]["ms"][loss][1] / ms for ms in reversed(quartiles)]
    elements = torch.Size(point["shape"]).numel()
    return [1e6 * ms / elements for ms in quartiles]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/growth.jsonl"), help="default: %(default)s")
    add("--figure", type=Path, metavar="FILE.svg")
    add("--read", type=Path, metavar="FILE", help="draw and print what is in this one; measure nothing")
    add("--only", action="append", choices=CURVES, metavar="CURVE", help=", ".join(CURVES))
    add("--threads", type=int, default=CORES)
    add("--seconds", type=float, default=0.2, help="of a loss in a process (default: %(default)s)")
    options = parser.parse_args(arguments)
    names = [name for name in CURVES if name in (options.only or CURVES)]
    if options.read:
        points = [json.loads(line) for line in options.read.read_text().splitlines()]
        names = list(dict.fromkeys(point["curve"] for point in points))
    else:
        points = []
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", encoding="utf-8") as file, Processes() as processes:
            for name in names:
                for value in CURVES[name].values:
                    points.append(point(name, value, options, processes))
                    print(json.dumps(points[-1]), file=file, flush=True)
    for name in names:
        print("\n".join(table(name, [point for point in points if point["curve"] == name])))
    if options.figure:
        draw(points, options.figure)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
