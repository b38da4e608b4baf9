"""The README's figure: crops of an embedded picture as the networks of a run restore it.

    python examples/figure.py runs/reproduce examples/results/figure.png

A row for each task: the input, l2, l1, Mix, the truth; below each the PSNR and the SSIM of the whole picture.
"""

import sys
from pathlib import Path

import denoise_demosaic
import jpeg_deblocking
import super_resolution
import torch
from PIL import Image, ImageDraw, ImageFont
from restoration.command import Parser, message, printable
from restoration.data import SMALLEST_TEST, read_folder, to_image, to_uint8
from restoration.evaluate import restore
from restoration.files import replacing
from restoration.metrics import measure
from restoration.network import load_network
from restoration.page import names
from restoration.patches import degrade
from restoration.run import PHOTOS
from restoration.task import Task
from safetensors import SafetensorError
from torch import Tensor

SIDE, ZOOM, GAP, TEXT = 96, 2, 8, 40  # pixels
LOSSES = ("l2", "l1", "mix")
# Where the losses differ visibly: (task, its picture, the crop's top, its left)
CROPS = (
    (jpeg_deblocking.TASK, "001-green-maple", 90, 250),
    (denoise_demosaic.TASK, "004-flower", 150, 200),
    (super_resolution.TASK, "001-green-maple", 90, 250),
)


def row(run: Path, task: Task, name: str) -> list[tuple[str, Tensor, Tensor]]:
    """(title, picture, truth) from left to right, the pictures uint8."""
    number, (_, truth) = next(
        (n, p) for n, p in enumerate(read_folder(PHOTOS / "eval", SMALLEST_TEST, False)) if p.name == name
    )
    degraded = degrade(task.degradation, truth, number)
    found = [(names.variant(task.degradation.input), to_uint8(degraded), truth)]
    for loss in LOSSES:
        network, _ = load_network(run / "checkpoints" / task.name / f"{loss}-0.safetensors")
        found.append((names.variant(loss), restore(network, degraded), truth))
    return [*found, ("Truth", truth, truth)]


def main() -> int:
    arguments = Parser(description=__doc__.splitlines()[0])
    arguments.add_argument("run", type=Path, help="a folder of reproduce.py")
    arguments.add_argument("out", type=Path, help="a .png")
    options = arguments.parse_args()
    try:
        draw_all(options.run, options.out)
    except (OSError, SafetensorError) as error:
        print(f"figure.py: {message(error)}", file=sys.stderr)
        return 2
    print(printable(options.out))
    return 0


def draw_all(run: Path, out: Path) -> None:
    cell = SIDE * ZOOM
    sheet = Image.new("RGB", (5 * (cell + GAP) - GAP, len(CROPS) * (cell + TEXT + GAP) - GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for line, (task, name, top, left) in enumerate(CROPS):
        for column, (title, picture, truth) in enumerate(row(run, task, name)):
            x, y = column * (cell + GAP), line * (cell + TEXT + GAP)
            crop = to_image(picture[:, top : top + SIDE, left : left + SIDE])
            sheet.paste(crop.resize((cell, cell), Image.Resampling.NEAREST), (x, y))
            values = {} if picture is truth else measure(picture, truth)
            numbers = f"{values['PSNR']:.2f} dB, SSIM {values['SSIM']:.4f}" if values else ""
            draw.text((x, y + cell + 4), f"{title}\n{numbers}", "black", font)
    with replacing(out) as part:
        sheet.save(part, "PNG", optimize=True)


if __name__ == "__main__":
    with torch.inference_mode():
        sys.exit(main())
