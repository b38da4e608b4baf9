"""Photographs from a folder tree."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from rich.progress import track
from torch import Tensor

PATCH = 31  # pixels, the paper's
SMALLEST = 33  # pixels; demosaicking needs one around a patch
LONGEST = 1000  # pixels; the paper's photographs are 999x666
SMALLEST_TEST = 161  # pixels; MS-SSIM halves four times and then still needs its 11-pixel window
HELD_OUT = 10  # every tenth photograph
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm"}
MODES = {"RGB", "RGBA", "L", "LA", "P", "1"}  # Pillow would clip or misread others
MODES_16 = {"I;16", "I;16L", "I;16B"}  # grey; 16-bit colours Pillow itself reads as 8


class Photograph(NamedTuple):
    name: str  # the path below its folder, without the suffix; unique in its folder
    pixels: Tensor  # [3, H, W], uint8


class NoPhotographs(Exception):
    """Nothing to train or to evaluate on; the text says why."""


def from_image(image: Image.Image) -> Tensor:
    """[3, H, W], uint8. Grey becomes three equal channels; alpha is dropped."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


def to_image(pixels: Tensor) -> Image.Image:
    """From [3, H, W], uint8."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def as_float(pixels: Tensor) -> Tensor:
    """uint8 0..255 to float 0..1; a float is left as it is."""
    return pixels / 255 if pixels.dtype == torch.uint8 else pixels


def to_uint8(pixels: Tensor) -> Tensor:
    """float 0..1 to uint8 0..255, rounded; uint8 is left as it is."""
    if pixels.dtype == torch.uint8:
        return pixels
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8)


def printable(path: Path | str) -> str:
    """A file name may hold bytes that are no text: "?" instead."""
    return str(path).encode("utf-8", errors="replace").decode()


def read(path: Path, smallest: int) -> Tensor:
    """One photograph, upright, [3, H, W], uint8; an exception says why it is of no use."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image)
    if upright.mode in MODES_16:
        upright = Image.fromarray((np.asarray(upright) / 257).round().astype(np.uint8))
    if upright.mode not in MODES:
        raise ValueError(f"its mode is {upright.mode}; save it as RGB or grey of 8 or 16 bits")
    if upright.has_transparency_data and upright.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        raise ValueError("it has transparent pixels; save it without")
    upright = upright.convert("RGB")
    # Area averages, as the embedded pictures are made: a camera's own pixels are interpolated
    # from a mosaic and mostly JPEG-compressed, a poor truth.
    upright = upright.reduce(-(-max(upright.size) // LONGEST))
    if min(upright.size) < smallest:
        raise ValueError(f"{upright.width}x{upright.height} pixels; needs {smallest} a side")
    return from_image(upright)


def read_folder(root: Path, smallest: int, verbose: bool = True) -> list[Photograph]:
    """All photographs below a folder, sorted by path; one of no use is named and skipped."""
    if not root.is_dir():
        raise NoPhotographs(f"{printable(root)} is not a folder")
    photographs: dict[str, Tensor] = {}
    skipped = 0
    paths = [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    bar = not (verbose and sys.stdout.isatty())
    for path in track(paths, "reading", transient=True, disable=bar):
        try:
            pixels = read(path, smallest)
        except Exception as error:  # a broken file makes Pillow raise nearly anything
            skipped += 1
            if verbose:
                print(f"skipped {printable(path)}: {printable(str(error))}", file=sys.stderr)
            continue
        below = path.relative_to(root)
        name = below.with_suffix("").as_posix()
        photographs[below.as_posix() if name in photographs else name] = pixels
    if verbose:
        print(f"{printable(root)}: {len(photographs)} photographs, {skipped} skipped", flush=True)
    return [Photograph(name, pixels) for name, pixels in photographs.items()]


def train_and_test(
    train_root: Path, test_root: Path | None, verbose: bool = True
) -> tuple[list[Photograph], list[Photograph]]:
    """The photographs of both folders; without a test folder every tenth is held out for it."""
    train = read_folder(train_root, SMALLEST, verbose)
    if test_root is not None:
        test = read_folder(test_root, SMALLEST_TEST, verbose)
    else:
        test = [p for p in train if min(p.pixels.shape[1:]) >= SMALLEST_TEST][::HELD_OUT]
        names = {photograph.name for photograph in test}
        train = [photograph for photograph in train if photograph.name not in names]
        if verbose:
            print(f"held out for the test: {len(test)}, every tenth")
    if not train:
        raise NoPhotographs(f"no photograph to train on in {printable(train_root)}")
    if not test:
        where = printable(test_root or train_root)
        raise NoPhotographs(f"no photograph of {SMALLEST_TEST} pixels a side to test on in {where}")
    return train, test


def digest(photographs: Sequence[Photograph]) -> str:
    """A few letters that change with any name or pixel."""
    total = hashlib.sha256()
    for name, pixels in photographs:
        total.update(f"{printable(name)} {tuple(pixels.shape)} ".encode())
        total.update(pixels.numpy().tobytes())
    return f"{len(photographs)} photographs, sha256 {total.hexdigest()[:16]}"
