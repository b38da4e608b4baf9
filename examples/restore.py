"""Restores a picture of yours with a network that one of the scripts has trained.

    python examples/restore.py runs/jpeg_deblocking/checkpoints/jpeg_deblocking/mix-0.safetensors picture.jpg
    python examples/restore.py CHECKPOINT picture.jpg --out better.png

Writes picture-restored.png beside the picture. The checkpoint says what its network expects:

jpeg_deblocking    a picture that was a JPEG of low quality
super_resolution   a picture to enlarge: it is up-sampled by the network's factor first
denoise_demosaic   a noisy picture that a camera's mosaic was interpolated to; with --mosaic a grey
                   picture that IS the mosaic, red at its first pixel, green beside and below it

The picture is turned as its EXIF says. Grey stays grey, 16-bit grey stays 16-bit, transparency is
kept; colours of 16 bits are read as 8, which is said. CMYK and the like are refused. It goes tile by
tile: 12 megapixels take 0.5 GB of memory, enlarged to 48 they take 1 GB, and about a minute on 2 cores.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from restoration.data import MODES, MODES_16, printable
from restoration.degrade import demosaic
from restoration.files import replacing
from restoration.network import load_network
from restoration.tiling import receptive_radius, tiled
from safetensors import SafetensorError
from torch import Tensor, nn

KINDS = ("jpeg", "bilinear", "noisy")


class Refused(Exception):
    """Nothing is written; the text says why."""


class Picture(NamedTuple):
    pixels: Tensor  # [3 or 1, H, W]; uint8, or float in [0, 1]
    bits: int  # 8 or 16
    alpha: Image.Image | None
    keep: dict[str, object]  # colour profile and EXIF, as Image.save takes them


def read(path: Path) -> Picture:
    """Upright; Refused for a file that is no picture or one of another kind of colour."""
    try:
        with Image.open(path) as image:
            deep = any(";16" in str(part.args) for part in image.tile)
            upright = ImageOps.exif_transpose(image)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise Refused(f"{printable(path)}: {printable(str(error))}") from error
    keep: dict[str, object] = {"exif": upright.getexif()}
    if profile := upright.info.get("icc_profile"):
        keep["icc_profile"] = profile
    if upright.mode in MODES_16:
        values = np.asarray(upright).astype(np.float32) / 65535
        return Picture(torch.from_numpy(values)[None], 16, None, keep)
    if upright.mode not in MODES:
        raise Refused(f"{printable(path)}: its mode is {upright.mode}; save it as RGB or grey")
    if deep:
        print(f"{printable(path)}: its colours of 16 bits are read as 8", file=sys.stderr)
    alpha = upright.convert("RGBA").getchannel("A") if upright.has_transparency_data else None
    grey = upright.mode in ("1", "L", "LA")
    values = np.array(upright.convert("L" if grey else "RGB"))
    pixels = torch.from_numpy(values[None] if grey else values.transpose(2, 0, 1).copy())
    return Picture(pixels, 8, alpha, keep)


def write(path: Path, pixels: Tensor, picture: Picture) -> None:
    """pixels: [3 or 1, H, W], whole numbers of as many bits as the picture's."""
    values = pixels.numpy().transpose(1, 2, 0)
    image = Image.fromarray(values.squeeze(2) if values.shape[2] == 1 else values)
    if picture.alpha is not None:
        image.putalpha(picture.alpha.resize(image.size, Image.Resampling.BILINEAR))
    suffix = Image.registered_extensions().get(path.suffix.lower())
    if suffix is None:
        raise Refused(f"--out: no picture format has the suffix {printable(path.suffix)!r}")
    try:
        with replacing(path) as part:
            image.save(part, suffix, **picture.keep)
    except OSError as error:  # for one, JPEG knows no transparency and no 16 bits
        raise Refused(f"{printable(path)}: {printable(str(error))}") from error


def load(path: Path) -> tuple[nn.Module, dict]:
    """The network, and what it expects: {"kind": one of KINDS, ...}. safetensors only: no code runs."""
    try:
        network, about = load_network(path)
        expects = json.loads(about.get("input", "{}"))
    except SafetensorError as error:
        raise Refused(f"{printable(path)} is no safetensors file: {error}") from error
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise Refused(f"{printable(path)}: {printable(str(error))}") from error
    if expects.get("kind") not in KINDS:
        raise Refused(f"{printable(path)}: its metadata names no input of {', '.join(KINDS)}")
    return network.eval().to(memory_format=torch.channels_last), expects


def restorer(network: nn.Module, prepare: Callable[[Tensor], Tensor], bits: int, grey: bool) -> Callable:
    """From a tile as it is read to a tile as it is written."""
    levels = 2**bits - 1

    def function(tile: Tensor) -> Tensor:
        pixels = tile / 255 if tile.dtype == torch.uint8 else tile
        restored = network(prepare(pixels[None]).expand(-1, 3, -1, -1))[0]
        if grey:
            restored = restored.mean(0, keepdim=True)
        whole = (restored.clamp(0, 1) * levels).round()
        return whole.to(torch.uint8 if bits == 8 else torch.uint16)

    return function


def restore(network: nn.Module, expects: dict, picture: Picture, mosaic: bool, **tiling: int) -> Tensor:
    """[3 or 1, H, W], whole numbers; enlarged if that is the network's task. `tiling`: of tiled."""
    radius = receptive_radius(network)
    grey = picture.pixels.shape[0] == 1
    if mosaic:
        if expects["kind"] != "noisy":
            raise Refused(f"--mosaic: the network expects {expects['kind']} pictures, not a camera's")
        if not grey or min(picture.pixels.shape[1:]) < 2:
            raise Refused("--mosaic: expected a grey picture of 2x2 pixels or more, one colour a pixel")
        # An even halo and an even side: every tile begins with red.
        function = restorer(network, from_mosaic, picture.bits, grey=False)
        return tiled(function, picture.pixels, halo=radius + 2 - radius % 2, **tiling)
    factor = expects["factor"] if expects["kind"] == "bilinear" else 1

    def enlarge(tile: Tensor) -> Tensor:
        return F.interpolate(tile, scale_factor=factor, mode="bilinear") if factor > 1 else tile

    function = restorer(network, enlarge, picture.bits, grey)
    halo = radius if factor == 1 else -(-radius // factor) + 1  # interpolation: one more
    return tiled(function, picture.pixels, halo=halo, scale=factor, **tiling)


def from_mosaic(tile: Tensor) -> Tensor:
    return demosaic(tile, torch.zeros(1, 2, dtype=torch.long))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="a .safetensors file of a run")
    add("picture", type=Path)
    add("--out", type=Path, help="default: PICTURE-restored.png, beside the picture")
    add("--mosaic", action="store_true", help="the picture is a grey RGGB mosaic")
    options = parser.parse_args(arguments)
    out = options.out or options.picture.with_name(options.picture.stem + "-restored.png")
    try:
        if out.exists() and options.picture.exists() and out.samefile(options.picture):
            raise Refused(f"--out: {printable(out)} is the picture itself")
        network, expects = load(options.checkpoint)
        picture = read(options.picture)
        write(out, restore(network, expects, picture, options.mosaic), picture)
    except Refused as error:
        print(f"restore: {error}", file=sys.stderr)
        return 2
    print(printable(out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
