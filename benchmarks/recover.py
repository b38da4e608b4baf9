"""A restoration without a training set: an image recovered by gradient descent on a loss.

    python benchmarks/recover.py [--figure FILE.jpg] [--only LOSS]

The pixels themselves are what Adam trains, once from noise and once from the photograph's negative, as Ding
et al. (IJCV 2021, doi:10.1007/s11263-020-01419-7) compare metrics. A gradient that is dead leaves the start
as it is; one that is wrong turns away from the truth or stops before it. Ours take seconds; the packages that
are installed stand beside. Prints the steps to a PSNR of 30 dB, what is reached at the end, and the seconds.
"""

import argparse
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from accuracy import photograph
from compare import progress
from compare_page import markdown
from compare_rows import DYADIC, PEERS, REFLECT, SSIM, installed, loss_of
from gpu_tables import Loss
from torch import Tensor

from ssimloss import L1Loss, L1SSIMLoss, MixLoss, MSSSIMLoss, SSIMLoss, ssim

STEPS, RATE = 300, 0.05  # Adam's rate at the start; it falls to 0 along a cosine
ENOUGH = 30.0  # dB
SHOWN = {"noise": 30, "the negative": STEPS}  # after so many steps the pictures are drawn
SIDE = 176  # MS-SSIM of five levels needs more than 160
OURS: dict[str, Loss] = {
    "l1": L1Loss(),
    "L1 + SSIM": L1SSIMLoss(),
    "SSIM": SSIMLoss(),
    "MS-SSIM, Gaussian": MSSSIMLoss(),
    "MS-SSIM": MSSSIMLoss("dyadic"),
    "Mix": MixLoss(),
    # With a border every pixel has as many windows as the others.
    "SSIM, mirrored": SSIMLoss(padding="reflect"),
    "MS-SSIM, Gaussian, zeros": MSSSIMLoss(padding="zeros"),
    "Mix, zeros": MixLoss(padding="zeros"),
}
# Of curves: one loss has one colour, one package one kind of line.
COLOURS = {kind: f"C{index}" for index, kind in enumerate(OURS)}
LINES = dict(zip(PEERS, ("--", ":", "-.", (0, (4, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (6, 4))), strict=True))


class Descent(NamedTuple):
    """psnr: before each step and at the end; images: the one that is drawn, and the last."""

    psnr: list[float]
    shown: Tensor
    last: Tensor
    seconds: float


def losses() -> dict[str, Loss]:
    """Ours, and every package's SSIM and MS-SSIM by its name."""
    found = dict(OURS)
    for name in installed():
        kinds = PEERS[name][1]
        for kind in (SSIM, REFLECT, DYADIC):
            if kind in kinds and not (kind == REFLECT and SSIM in kinds):
                found[f"{name}: {kind.partition(',')[0]}"] = loss_of(name, kind)
    return found


def psnr(x: Tensor, y: Tensor) -> float:
    error = (x - y).double().square().mean().item()
    return math.inf if error == 0 else -10 * math.log10(error)  # NaN stays NaN


def descend(loss: Loss, start: Tensor, truth: Tensor, shown: int, steps: int = STEPS) -> Descent:
    x = start.clone().requires_grad_()
    adam = torch.optim.Adam([x], lr=RATE)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    went, at, began = [psnr(x.detach(), truth)], x.detach().clone(), time.perf_counter()
    for step in range(1, steps + 1):
        adam.zero_grad()
        loss(x, truth).backward()
        adam.step()
        falling.step()
        with torch.no_grad():
            x.clamp_(0, 1)
        went.append(psnr(x.detach(), truth))
        if step == shown:
            at = x.detach().clone()
    return Descent(went, at, x.detach(), time.perf_counter() - began)


def steps_to(went: list[float]) -> int | None:
    return next((step for step, value in enumerate(went) if value >= ENOUGH), None)


def verdict(path: Descent, truth: Tensor) -> list[str]:
    steps = steps_to(path.psnr)
    last = "NaN" if math.isnan(path.psnr[-1]) else f"{path.psnr[-1]:.0f}"
    return [str(steps or "never"), last, f"{ssim(path.last, truth).item():.3f}", f"{path.seconds:.1f}"]


def draw(found: dict[str, dict[str, Descent]], starts: dict[str, Tensor], truth: Tensor, out: Path) -> None:
    from matplotlib.figure import Figure

    columns = 6
    rows = -(-(len(found) + 2) // columns)
    figure = Figure(figsize=(12, 4 + 2 * 1.75 * rows), layout="constrained")
    above, *below = figure.subfigures(3, 1, height_ratios=[4, 1.75 * rows, 1.75 * rows])
    for axes, start in zip(above.subplots(1, 2, sharey=True), starts, strict=True):
        for name, paths in found.items():
            package, _, kind = name.rpartition(": ")
            colour, line = COLOURS[kind], LINES.get(package, "-")
            axes.plot(paths[start].psnr, ls=line, label=name, color=colour, lw=1.4 if package else 2)
        axes.axhline(ENOUGH, color="grey", lw=0.8, ls=":")
        axes.set_title(f"from {start}", fontsize=10)
        axes.set_xlabel("steps")
        axes.grid(alpha=0.3)
    above.axes[0].set_ylabel("PSNR, dB")
    above.axes[0].legend(frameon=False, fontsize=7, ncols=2)
    for part, (start, image) in zip(below, starts.items(), strict=True):
        part.suptitle(f"from {start}, after {SHOWN[start]} steps", fontsize=10)
        pictures = {"the truth": truth, "the start": image}
        pictures |= {name: paths[start].shown for name, paths in found.items()}
        grid = list(part.subplots(rows, columns, squeeze=False).flat)
        for axes in grid:
            axes.set_axis_off()
        for axes, (name, picture) in zip(grid, pictures.items(), strict=False):
            axes.imshow(picture[0].permute(1, 2, 0).nan_to_num().clamp(0, 1).numpy())
            axes.set_title(name, fontsize=8)
    figure.savefig(out, dpi=100, **({"pil_kwargs": {"quality": 88}} if out.suffix == ".jpg" else {}))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everyone = losses()
    parser.add_argument("--figure", type=Path, metavar="FILE")
    parser.add_argument("--only", action="append", choices=everyone, metavar="LOSS", help=", ".join(everyone))
    options = parser.parse_args(arguments)
    truth = photograph()[..., :SIDE, :SIDE].contiguous()
    noise = torch.rand(truth.shape, generator=torch.Generator().manual_seed(0))
    starts = {"noise": noise, "the negative": 1 - truth}
    found: dict[str, dict[str, Descent]] = {}
    head = [f"steps to {ENOUGH:g} dB", "dB at the end", "SSIM at the end", "seconds"]
    rows = []
    for name in options.only or everyone:
        progress(name)
        found[name] = {s: descend(everyone[name], image, truth, SHOWN[s]) for s, image in starts.items()}
        rows.append([name, *(cell for path in found[name].values() for cell in verdict(path, truth))])
    print("\n".join(markdown(["", *(f"from {start}: {what}" for start in starts for what in head)], rows)))
    if options.figure:
        draw(found, starts, truth, options.figure)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
