"""Restored pictures, their PSNR, SSIM and MS-SSIM, and the table of them."""

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssimloss import ms_ssim, ssim

from .data import as_float, to_image
from .files import replacing, write_text


class Row(NamedTuple):
    """One line of table.csv: long format, so that tasks, seeds and metrics only add lines."""

    task: str
    variant: str  # the degraded input, or the loss its network was trained with
    seed: int
    picture: str
    metric: str
    value: float


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """In dB, of values in [0, 1]; infinite for equal images."""
    return -10 * F.mse_loss(x, y).log10()


METRICS = {"PSNR": psnr, "SSIM": ssim, "MS-SSIM": ms_ssim}  # [N, 3, H, W] in [0, 1] -> scalar
DIGITS = {"PSNR": 2, "SSIM": 4, "MS-SSIM": 4}


@torch.inference_mode()
def restore(network: nn.Module, degraded: Tensor) -> Tensor:
    """The network's output for a whole picture, both [3, H, W]; rounded to uint8, as saved."""
    device = next(network.parameters()).device
    output = network(as_float(degraded)[None].to(device))[0]
    return to_uint8(output.cpu())


def to_uint8(pixels: Tensor) -> Tensor:
    """float 0..1 to uint8 0..255, rounded; uint8 is left as it is."""
    if pixels.dtype == torch.uint8:
        return pixels
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


@torch.inference_mode()
def measure(restored: Tensor, truth: Tensor) -> dict[str, float]:
    """Every metric of two pictures [3, H, W], uint8: the numbers of the saved files."""
    x, y = as_float(restored)[None], as_float(truth)[None]
    return {name: metric(x, y).item() for name, metric in METRICS.items()}


def save_picture(path: Path, pixels: Tensor) -> None:
    with replacing(path) as part:
        to_image(pixels).save(part, "PNG")


def means(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """{variant: {metric: mean over the pictures}}, in the order of the rows."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        values.setdefault(row.variant, {}).setdefault(row.metric, []).append(row.value)
    return {v: {m: fmean(numbers) for m, numbers in by.items()} for v, by in values.items()}


def markdown(rows: Sequence[Row]) -> str:
    """The means as a table, metrics down and variants across as in the paper, best in bold."""
    table = means(rows)
    lines = ["| metric | " + " | ".join(table) + " |", "|---" * (len(table) + 1) + "|"]
    for metric, digits in DIGITS.items():
        best = max(by[metric] for by in table.values())
        texts = [f"{by[metric]:.{digits}f}" for by in table.values()]
        cells = [f"**{t}**" if t == f"{best:.{digits}f}" else t for t in texts]
        lines.append(f"| {metric} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def verdicts(rows: Sequence[Row], input_name: str) -> list[str]:
    """For each network whether the mean PSNR and SSIM are above those of its input."""
    table = means(rows)
    lines = []
    for variant, by in table.items():
        if variant != input_name:
            gain = {metric: by[metric] - table[input_name][metric] for metric in ("PSNR", "SSIM")}
            beats = "beats" if min(gain.values()) > 0 else "does NOT beat"
            lines.append(
                f"{variant} {beats} {input_name}: PSNR {gain['PSNR']:+.2f} dB, SSIM {gain['SSIM']:+.4f}"
            )
    return lines


def write_tables(folder: Path, rows: Sequence[Row], note: str) -> None:
    """table.md: the means; table.csv: every value."""
    write_text(folder / "table.md", f"{markdown(rows)}\n{note}\n")
    with (
        replacing(folder / "table.csv") as part,
        part.open("w", newline="", encoding="utf-8", errors="replace") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows(rows)
