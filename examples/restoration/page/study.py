"""The plots of the study of the losses, from its tables."""

import csv
import math
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import NamedTuple

from ..files import write_text
from . import names
from .curves import Chart, Line, standalone, svg

Row = dict[str, str]
SHOWN = ("l2", "l1", "ms_ssim", "mix", "ms_ssim+l2")
RANGE = 3.0  # dB below the best; what is further below is left out


class Plot(NamedTuple):
    name: str  # of its file
    chart: Chart
    lines: list[Line]
    caption: str


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def lines(rows: Iterable[Row], across: str, up: str) -> list[Line]:
    """One for each loss that has two points at least."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if math.isfinite(value := float(row[up])):
            points.setdefault(row["loss"], []).append((float(row[across]), value))
    best = max((value for run in points.values() for _, value in run), default=0)
    if up == "validation_psnr":
        points = {loss: [p for p in run if p[1] > best - RANGE] for loss, run in points.items()}
    return [Line(loss, 0, sorted(run)) for loss, run in points.items() if len(run) > 1]


def plots(folder: Path) -> list[Plot]:
    """Of the tables in the study's folder; none where there is no such folder."""
    if not folder.exists():
        return []

    def psnr(title: str, across: str) -> Chart:
        return Chart(title, lambda *_: math.nan, False, 2, across, True)

    runs = [row for row in read(folder / "runs.csv") if row["task"] == "super_resolution"]
    plain = [
        row
        for row in runs
        if (row["batch"], row["size"], row["start"], row["seed"]) == ("16", "31", "correction", "0")
        and row["loss"] in SHOWN
    ]
    short = min((int(row["steps"]) for row in plain if row["optimizer"] == "sgd"), default=0)

    def rates(optimizer: str) -> list[Line]:
        tried = [row for row in plain if row["optimizer"] == optimizer and row["steps"] == str(short)]
        return lines(tried, "rate", "validation_psnr")

    best: dict[tuple[str, str], Row] = {}
    for row in plain:
        key = row["loss"], row["steps"]
        if row["optimizer"] == "adam" and float(row["validation_psnr"]) > float(
            best.get(key, {"validation_psnr": "-inf"})["validation_psnr"]
        ):
            best[key] = row
    sizes = [
        r for r in read(folder / "gradients.csv") if r["loss"] in (*SHOWN[1:3], "l2_released", "mix_released")
    ]
    found = [
        Plot("rates-sgd", psnr("SGD: validation PSNR, dB", "learning rate"),
             [line for line in rates("sgd") if line.variant != "ms_ssim+l2"],  # it has a range of its own
             f"Super-resolution, {short} steps of SGD, momentum 0.9, the losses of their released sizes."),
        Plot("rates-adam", psnr("Adam: validation PSNR, dB", "learning rate"), rates("adam"),
             f"Super-resolution, {short} steps of Adam."),
        Plot("length", psnr("Validation PSNR, dB, by length", "training steps"),
             lines(best.values(), "steps", "validation_psnr"),
             f"Super-resolution, Adam, each loss at the rate that is best for {short} steps."),
        Plot("gradients", Chart("Norm of the gradient", lambda *_: math.nan, True, 4, "training step"),
             lines(sizes, "step", "batch_norm"),
             "Super-resolution: the gradients of the released losses with respect to the same weights."),
    ]  # fmt: skip
    return [plot for plot in found if plot.lines]


def ends(plot: Plot) -> str:
    """What a screen reader says: where each line is highest."""
    tops = [(names.variant(line.variant), max(y for _, y in line.points)) for line in plot.lines]
    return f"{plot.chart.title}. Highest: " + ", ".join(f"{n} {y:.{plot.chart.digits}f}" for n, y in tops)


def figures(folder: Path) -> str:
    parts = [
        f"<figure><figcaption>{escape(plot.chart.title)} "
        f'<span class="quiet">({escape(plot.caption)})</span></figcaption>'
        f"{svg(plot.chart, plot.lines, ends(plot))}</figure>\n"
        for plot in plots(folder)
    ]
    return f'<div class="charts">\n{"".join(parts)}</div>\n' if parts else ""


def write_plots(folder: Path) -> None:
    """NAME.svg beside the study's tables."""
    for plot in plots(folder):
        write_text(folder / f"{plot.name}.svg", standalone(svg(plot.chart, plot.lines, ends(plot))))
