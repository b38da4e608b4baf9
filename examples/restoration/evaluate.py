"""Restored pictures and their metrics, in long format; the table of the means."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .data import as_float, printable, to_image, to_uint8
from .files import replacing
from .metrics import DIGITS, LOWER_IS_BETTER, measure
from .residuals import residuals


class Row(NamedTuple):
    """One line of rows.csv: long format, so that tasks, seeds and metrics only add lines."""

    task: str
    variant: str  # the degraded input, or the loss its network was trained with
    seed: int
    picture: str
    metric: str
    value: float


class Pair(NamedTuple):
    """A test picture."""

    name: str
    degraded: Tensor  # [3, H, W], float in [0, 1]
    truth: Tensor  # [3, H, W], uint8


@torch.inference_mode()
def restore(network: nn.Module, degraded: Tensor) -> Tensor:
    """The network's output for a whole picture, both [3, H, W]; rounded to uint8, as saved."""
    device = next(network.parameters()).device
    output = network(as_float(degraded)[None].to(device))[0]
    return to_uint8(output.cpu())


def rows_of(task: str, variant: str, seed: int, pair: Pair, restored: Tensor) -> list[Row]:
    name = printable(pair.name)
    values = measure(restored, pair.truth) | residuals(restored, pair.truth)
    return [Row(task, variant, seed, name, metric, value) for metric, value in values.items()]


def save_picture(path: Path, pixels: Tensor) -> None:
    with replacing(path) as part:
        to_image(pixels).save(part, "PNG")


def means(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """{variant: {metric: mean over the pictures and seeds}}, in the order of the rows."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        values.setdefault(row.variant, {}).setdefault(row.metric, []).append(row.value)
    return {v: {m: fmean(numbers) for m, numbers in by.items()} for v, by in values.items()}


def markdown(rows: Sequence[Row]) -> str:
    """The means as a table, metrics down and variants across as in the paper, best in bold."""
    table = means(rows)
    lines = ["| metric | " + " | ".join(table) + " |", "|---" * (len(table) + 1) + "|"]
    for metric, digits in DIGITS.items():
        best = (min if metric in LOWER_IS_BETTER else max)(by[metric] for by in table.values())
        texts = [f"{by[metric]:.{digits}f}" for by in table.values()]
        cells = [f"**{t}**" if t == f"{best:.{digits}f}" else t for t in texts]
        lines.append(f"| {metric} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def verdicts(rows: Sequence[Row], input_name: str) -> list[str]:
    """For each network on which of the paper's nine metrics its mean is worse than its input's."""
    table = means(rows)
    lines = []
    for variant, by in table.items():
        if variant != input_name:
            worse = [
                m for m in DIGITS if (by[m] - table[input_name][m]) * (-1 if m in LOWER_IS_BETTER else 1) <= 0
            ]
            says = (
                f"does NOT beat {input_name} on {', '.join(worse)}" if worse else f"beats {input_name} on all"
            )
            gain = by["PSNR"] - table[input_name]["PSNR"]
            lines.append(f"{variant} {says}: PSNR {gain:+.2f} dB")
    return lines


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)


def read_rows(path: Path) -> list[Row]:
    """What write_rows wrote; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(task, variant, int(seed), picture, metric, float(value))
            for task, variant, seed, picture, metric, value in list(csv.reader(file))[1:]
        ]
