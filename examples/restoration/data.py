"""Photographs from a folder tree."""

import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import track
from torch import Tensor

from .command import one_line, printable
from .pictures import Picture, opened

PATCH = 31  # pixels, the paper's
SMALLEST = 33  # pixels; demosaicking needs one around a patch
LONGEST = 1000  # pixels; the paper's photographs are 999x666
SMALLEST_TEST = 161  # pixels; MS-SSIM halves four times and then still needs its 11-pixel window
HELD_OUT = 10  # every tenth photograph
ALIKE = 3.0  # levels of 255, of the means of 16x16 fields: a photograph and its JPEG, or half its size
SUFFIXES = {
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".avif", ".heic", ".heif", ".tif", ".tiff",
    ".bmp", ".ppm", ".pgm", ".jp2",
} & set(Image.registered_extensions())  # fmt: skip
# Which no one takes for a picture; every other kind of file that is not read is counted and named.
NOTES = {".csv", ".html", ".ini", ".json", ".log", ".md", ".pdf", ".txt", ".xml", ".xmp", ".yaml", ".zip"}
RESULT = "-restored"  # how restore.py ends the names of its files


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


def photograph(picture: Picture, smallest: int) -> Tensor:
    """[3, H, W], uint8; ValueError says why a picture is of no use."""
    if picture.alpha is not None and picture.alpha.getextrema()[0] < 255:
        raise ValueError("it has transparent pixels; save it without")
    # Area averages, as the embedded pictures are made: a camera's own pixels are interpolated
    # from a mosaic and mostly JPEG-compressed, a poor truth.
    image = to_image(to_uint8(picture.pixels).expand(3, -1, -1))
    image = image.reduce(-(-max(image.size) // LONGEST))
    if min(image.size) < smallest:
        raise ValueError(f"{image.width}x{image.height} pixels; needs {smallest} a side")
    return from_image(image)


def is_run(folder: Path) -> bool:
    """Whether one of these scripts has written its results there."""
    try:
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and settings.keys() >= {"tasks", "train", "test", "steps"}


def search(root: Path, out: Path | None) -> tuple[list[Path], list[str]]:
    """The pictures below a folder, sorted, and in words what else is there. Nothing hidden is looked at."""
    found, said, unread, results = [], [], Counter(), 0

    def denied(error: OSError) -> None:
        said.append(f"skipped {printable(error.filename)}: {error.strerror}")

    for name, folders, files in os.walk(root, onerror=denied):
        folder = Path(name)
        if is_run(folder) or (out is not None and folder.resolve() == out.resolve()):
            said.append(f"left out {printable(folder)}: a run's results")
            folders.clear()
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (folder / name for name in files if not name.startswith(".")):
            kind = path.suffix.lower()
            if kind not in SUFFIXES:
                unread.update({kind} - NOTES)
            elif path.stem.endswith(RESULT):
                results += 1
            else:
                found.append(path)
    if results:
        said.append(f"left out {results} *{RESULT}.*: restore.py's results")
    if unread:
        kinds = ", ".join(
            f"{n} {printable(kind) or 'without a suffix'}" for kind, n in sorted(unread.items())
        )
        said.append(f"not read: {kinds}")
    return sorted(found), said


def read_folder(root: Path, smallest: int, verbose: bool = True, out: Path | None = None) -> list[Photograph]:
    """All photographs below a folder, sorted by path; one of no use is named and skipped.

    out: where the run that reads them writes; it is left out, as are other runs.
    """
    try:
        os.scandir(root).close()
    except (OSError, ValueError) as error:
        why = "is not a folder" if not isinstance(error, PermissionError) else "may not be read"
        raise NoPhotographs(f"{printable(root)} {why}") from error
    photographs: dict[str, Tensor] = {}
    skipped = 0
    paths, said = search(root, out)
    for line in said if verbose else ():
        print(line, file=sys.stderr)
    bar = not (verbose and sys.stdout.isatty())
    for path in track(paths, "reading", transient=True, disable=bar):
        try:
            picture = opened(path)
            pixels = photograph(picture, smallest)
        except Exception as error:  # whatever it is, the others may do
            skipped += 1
            if verbose:
                print(f"skipped {printable(path)}: {one_line(error)}", file=sys.stderr)
            continue
        if verbose and picture.frames > 1:
            print(f"{printable(path)}: the first of {picture.frames} frames", file=sys.stderr)
        below = path.relative_to(root)
        name = below.with_suffix("").as_posix()
        photographs[below.as_posix() if name in photographs else name] = pixels
    if verbose:
        print(f"{printable(root)}: {len(photographs)} photographs, {skipped} skipped", flush=True)
    return [Photograph(name, pixels) for name, pixels in photographs.items()]


def without_copies(photographs: Sequence[Photograph], known: set[bytes]) -> list[Photograph]:
    """Those whose pixels are not `known` yet; it grows by the digests of theirs."""
    kept = []
    for one in photographs:
        key = hashlib.sha256(f"{tuple(one.pixels.shape)}".encode() + one.pixels.numpy().tobytes()).digest()
        if key not in known:
            known.add(key)
            kept.append(one)
    return kept


def near_copies(train: Sequence[Photograph], test: Sequence[Photograph]) -> list[tuple[str, str]]:
    """(name in train, name in test) of what differs in size or compression alone; no crops."""

    def fields(photographs: Sequence[Photograph]) -> Tensor:
        return torch.stack([F.adaptive_avg_pool2d(p.pixels.float(), 16).flatten() for p in photographs])

    if not train or not test:
        return []
    there = fields(test)
    distances, nearest = torch.cdist(fields(train), there).div(there.shape[1] ** 0.5).min(1)
    return [
        (train[number].name, test[nearest[number]].name)
        for number in (distances < ALIKE).nonzero().flatten().tolist()
    ]


def train_and_test(
    train_root: Path, test_root: Path | None, verbose: bool = True, out: Path | None = None
) -> tuple[list[Photograph], list[Photograph]]:
    """The photographs of both folders; without a test folder every tenth is held out for it.

    A photograph that is there twice counts once, and not for the training if it is in the test.
    """
    train = read_folder(train_root, SMALLEST, verbose, out)
    test = [] if test_root is None else read_folder(test_root, SMALLEST_TEST, verbose, out)
    before, known = len(train) + len(test), set[bytes]()
    test = without_copies(test, known)
    train = without_copies(train, known)
    if verbose and (copies := before - len(train) - len(test)):
        print(f"left out {copies} copies of other photographs, equal in every pixel", flush=True)
    if test_root is None:
        test = [p for p in train if min(p.pixels.shape[1:]) >= SMALLEST_TEST][::HELD_OUT]
        names = {photograph.name for photograph in test}
        train = [photograph for photograph in train if photograph.name not in names]
        if verbose:
            print(f"held out for the test: {len(test)}, every tenth")
    for mine, other in near_copies(train, test) if verbose else ():
        print(f"{printable(mine)} looks like {printable(other)}, which is in the test", file=sys.stderr)
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
