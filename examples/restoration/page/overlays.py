"""SSIM maps as pictures, and the places where they differ most."""

import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ssimloss import ssim

from ..data import from_image
from ..files import replacing

SPOT = 96  # pixels, the side of a place
SPOTS = 3
LEAST = 0.01  # of SSIM: less is not seen


class Spot(NamedTuple):
    """A square window of a picture, and its variants of the least and the greatest mean SSIM there."""

    x: int
    y: int
    size: int
    worst: str
    worst_ssim: float
    best: str
    best_ssim: float


def ssim_maps(folder: Path, files: Mapping[str, str], truth: str) -> dict[str, tuple[str, Tensor]]:
    """{variant: (its map's path below the folder, the map [H, W], uint8)}, of {variant: picture's path}.

    Mean over the channels, 0..255 for SSIM 0..1; negative SSIM is 0. A map that is newer than its
    picture and the truth is read, not made again.
    """

    @cache
    def pixels(file: str) -> Tensor:
        with Image.open(folder / file) as image:
            return from_image(image)[None].float()

    maps = {}
    for variant, file in files.items():
        name = f"maps/{file}" if file.endswith(".png") else f"maps/{file}.png"
        path = folder / name
        newest = max(os.stat(folder / part).st_mtime_ns for part in (file, truth))
        if path.exists() and path.stat().st_mtime_ns > newest:
            with Image.open(path) as image:
                maps[variant] = name, torch.from_numpy(np.array(image))
            continue
        values = ssim(pixels(file), pixels(truth), data_range=255, padding="reflect", reduction="map")[0]
        levels = (values.mean(0).clamp(0, 1) * 255).round().to(torch.uint8)
        with replacing(path) as part:
            Image.fromarray(levels.numpy()).save(part, "PNG", compress_level=1)  # 11 ms instead of 62
        maps[variant] = name, levels
    return maps


def spots(maps: dict[str, Tensor]) -> list[Spot]:
    """The windows in which the mean SSIM is furthest apart; of maps of one size, none of a single one."""
    if len(maps) < 2:
        return []
    height, width = next(iter(maps.values())).shape
    size = min(SPOT, height, width)
    step = max(1, size // 6)
    stack = torch.stack(list(maps.values())).float() / 255
    means = F.avg_pool2d(stack[:, None], size, step)[:, 0]  # [variants, rows, columns]
    apart = means.amax(0) - means.amin(0)
    found = []
    for _ in range(SPOTS):
        row, column = divmod(int(apart.argmax()), apart.shape[1])
        if apart[row, column] < LEAST:
            break
        here, variants = means[:, row, column], list(maps)
        low, high = int(here.argmin()), int(here.argmax())
        found.append(
            Spot(
                column * step, row * step, size,
                variants[low], round(here[low].item(), 3), variants[high], round(here[high].item(), 3),
            )
        )  # fmt: skip
        near = size // step  # windows that would overlap this one
        apart[max(0, row - near + 1) : row + near, max(0, column - near + 1) : column + near] = 0
    return found
