"""What gpu.py measures, and how it writes it down."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SHAPES = [(1, 3, 1080, 1920), (16, 3, 128, 128), (1, 3, 2160, 3840), (16, 3, 256, 256), (4, 3, 512, 512)]
FUSED_SSIM, FRAME_ANALYTICS, MSSSIM, KORNIA = "fused-ssim", "frame-analytics", "pytorch-msssim", "kornia"
OURS, L1, COPY = "ssimloss", "F.l1_loss", "copy of as many bytes"
Loss = Callable[[Tensor, Tensor], Tensor]


class Task(NamedTuple):
    losses: dict[str, Loss]  # ours first
    taps: int  # of all windows together: 14 FMA a tap and element, 8 of them forward
    scales: int


class Row(NamedTuple):
    """Microseconds; memory beyond the inputs in sizes of the gradient."""

    forward: float
    both: float
    captured: float | None
    step: float
    memory: float


class Roofline(NamedTuple):
    """What the device can do: bytes and FP32 instructions (an FMA is one) a microsecond."""

    bandwidth: float
    rate: float

    def floor(self, task: Task, x: Tensor) -> float:
        """Microseconds of forward + backward: read x and y, write a gradient; or the arithmetic."""
        slots = 14 * task.taps + 28 * task.scales
        return max(3 * x.numel() * x.element_size() / self.bandwidth, x.numel() * slots / self.rate)


def table(title: str, results: dict[str, tuple[dict[str, Row], float | None]], x: Tensor) -> list[str]:
    lines = [
        f"### {title}",
        "",
        "| loss | contender | forward us | forward + backward us | ours times | captured us | step us | "
        "GB/s | of the roofline | peak memory |",
        "|---|---|" + "---:|" * 8,
    ]
    floor_bytes = 3 * x.numel() * x.element_size()
    for task, (rows, floor) in results.items():
        for name, row in rows.items():
            captured = "" if row.captured is None else f"{row.captured:.1f}"
            share = "" if floor is None or name in (L1, COPY) else f"{100 * floor / row.both:.0f} %"
            ratio = f"{row.both / rows[OURS].both:.2f}" if OURS in rows else ""
            rate = floor_bytes / row.both / 1e3
            lines.append(
                f"| {task} | {name} | {row.forward:.1f} | {row.both:.1f} | {ratio} | {captured} | "
                f"{row.step:.1f} | {rate:.0f} | {share} | {row.memory:.2f} |"
            )
    return [*lines, ""]


def bars(all_rows: dict[tuple, dict[str, Row]]) -> list[str]:
    """The issue's bars for an H200, in float32: name, limit, what was measured."""
    lines = ["### Bars, float32", "", "| bar | limit | measured | |", "|---|---:|---:|---|"]

    def bar(
        what: str, shape: tuple, task: str, peer: str, least: float, key: Callable = lambda r: r.both
    ) -> None:
        rows = all_rows.get((shape, torch.float32, task), {})
        if OURS not in rows or peer not in rows:
            lines.append(f"| {what} | {least:g} | not measured | |")
            return
        ratio = key(rows[peer]) / key(rows[OURS])
        lines.append(f"| {what} | {least:g} | {ratio:.3g} | {'met' if ratio >= least else 'MISSED'} |")

    large, small = SHAPES[:2]
    bar("1080p SSIM: fused-ssim's time, in ours", large, "SSIM", FUSED_SSIM, 3)
    bar("1080p SSIM: frame-analytics' time, in ours", large, "SSIM", FRAME_ANALYTICS, 2)
    bar("1080p SSIM: the copy's time, in ours", large, "SSIM", COPY, 1 / 5)
    for peer in (FUSED_SSIM, FRAME_ANALYTICS, MSSSIM):
        bar(f"16x3x128x128 SSIM, a step: {peer}'s time, in ours", small, "SSIM", peer, 1, lambda r: r.step)
        bar(f"1080p SSIM, forward: {peer}'s time, in ours", large, "SSIM", peer, 1, lambda r: r.forward)
    bar("16x3x128x128 Mix: kornia's time, in ours", small, "Mix, 33 taps", KORNIA, 50)
    rows = all_rows.get((large, torch.float32, "SSIM"), {})
    if OURS in rows:
        memory = rows[OURS].memory
        lines.append(
            f"| 1080p SSIM: peak memory, in gradients, at most | 1.1 | {memory:.3f} | "
            f"{'met' if memory <= 1.1 else 'MISSED'} |"
        )
    return [*lines, ""]
