"""Restores pictures of yours with a network that one of the scripts has trained.

    python examples/restore.py runs/jpeg_deblocking/checkpoints/jpeg_deblocking/mix-0.safetensors picture.jpg
    python examples/restore.py CHECKPOINT picture.jpg --out better.webp
    python examples/restore.py --task jpeg *.jpg --out restored/

Writes picture-restored.png beside each picture, or to --out. --task takes a network that comes with the
examples; a checkpoint says itself what its network expects:

jpeg      jpeg_deblocking    a JPEG of a quality up to 50; one above 75 gets worse
enlarge   super_resolution   a picture to enlarge: it is up-sampled by the network's factor first
denoise   denoise_demosaic   a noisy picture that a camera's mosaic was interpolated to; with --mosaic
                             a grey picture that IS the mosaic, red first, green beside and below it

Read      any picture that Pillow reads, HEIC where pillow-heif is installed: RGB, palette and grey of 8
          bits, grey of 16; colours of 16 bits as 8; the first frame of several. CMYK and the like are
          refused. The picture is turned as its EXIF says; damaged metadata is left out.
Written   any format that Pillow writes and that keeps the picture, by the suffix of --out: PNG, TIFF, WebP,
          JPEG 2000, BMP, PPM, ... to the last bit, JPEG and AVIF at their best, unless --quality says
          otherwise. Grey stays grey, 16 bits stay where the format has them, and transparency, colour
          profile, EXIF, XMP, resolution and text where it has a place for them; sizes in them become the
          result's. What is not kept is said, what cannot be written is refused before the work, and no
          file is replaced without --overwrite.

It goes tile by tile: 12 megapixels take 0.5 GB of memory, enlarged to 48 they take 1 GB, and about a
minute on 2 cores.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from restoration.command import Parser, Refused, message, one_line, printable, whole
from restoration.degrade import demosaic
from restoration.network import load_network
from restoration.pictures import Picture, format_of, plan, read, write
from restoration.tiling import receptive_radius, tiled
from safetensors import SafetensorError
from torch import Tensor, nn

NETWORKS = Path(__file__).parent / "networks"
TASKS = {"jpeg": "jpeg_deblocking", "denoise": "denoise_demosaic", "enlarge": "super_resolution"}
KINDS = ("jpeg", "bilinear", "noisy")


def load(path: Path) -> tuple[nn.Module, dict]:
    """The network, and what it expects: {"kind": one of KINDS, ...}. safetensors only: no code runs."""
    name = printable(path)
    try:
        if path.exists() and not path.is_file():
            raise Refused(f"{name}: not a file")
        network, about = load_network(path)
        expects = json.loads(about.get("input", "{}"))
    except SafetensorError as error:
        raise Refused(f"{name} is no safetensors file: {one_line(error)}") from error
    except Refused:
        raise
    except Exception as error:  # a damaged file has any shape and type in its metadata
        raise Refused(f"{name}: {one_line(error)}") from error
    if not isinstance(expects, dict) or expects.get("kind") not in KINDS:
        raise Refused(f"{name}: its metadata names no input of {', '.join(KINDS)}")
    factor = expects.get("factor")
    if expects["kind"] == "bilinear" and not (isinstance(factor, int) and 1 <= factor <= 32):
        raise Refused(f"{name}: its metadata names no factor from 1 to 32")
    if not all(weight.isfinite().all() for weight in network.state_dict().values()):
        raise Refused(f"{name}: its weights are not all finite numbers")
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


def result_shape(expects: dict, picture: Picture, mosaic: bool) -> tuple[int, int, int]:
    """[3 or 1, H, W]; Refused for a picture that the network cannot take."""
    channels, height, width = picture.pixels.shape
    if mosaic:
        if expects["kind"] != "noisy":
            raise Refused(f"--mosaic: the network expects {expects['kind']} pictures, not a camera's")
        if channels != 1 or min(height, width) < 2:
            raise Refused("--mosaic: expected a grey picture of 2x2 pixels or more, one colour a pixel")
        return 3, height, width
    factor = expects["factor"] if expects["kind"] == "bilinear" else 1
    return channels, factor * height, factor * width


def restore(network: nn.Module, expects: dict, picture: Picture, mosaic: bool, **tiling: int) -> Tensor:
    """[3 or 1, H, W], whole numbers; enlarged if that is the network's task. `tiling`: of tiled."""
    _, height, _ = result_shape(expects, picture, mosaic)
    radius = receptive_radius(network)
    grey = picture.pixels.shape[0] == 1
    if mosaic:
        # An even halo and an even side: every tile begins with red.
        function = restorer(network, from_mosaic, picture.bits, grey=False)
        return tiled(function, picture.pixels, halo=radius + 2 - radius % 2, **tiling)
    factor = height // picture.pixels.shape[1]

    def enlarge(tile: Tensor) -> Tensor:
        return F.interpolate(tile, scale_factor=factor, mode="bilinear") if factor > 1 else tile

    function = restorer(network, enlarge, picture.bits, grey)
    halo = radius if factor == 1 else -(-radius // factor) + 1  # interpolation: one more
    return tiled(function, picture.pixels, halo=halo, scale=factor, **tiling)


def from_mosaic(tile: Tensor) -> Tensor:
    return demosaic(tile, torch.zeros(1, 2, dtype=torch.long))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """With `checkpoint` and `pictures`, whichever of the two forms was used."""
    parser = Parser(
        usage="%(prog)s [options] (CHECKPOINT | --task TASK) PICTURE...",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "pictures",
        type=Path,
        nargs="+",
        metavar="PICTURE",
        help="after a .safetensors file of a run, or --task",
    )
    add("--task", choices=TASKS, help="the network that comes with the examples for it")
    add(
        "--out", type=Path, help="a file, or a folder that is there; default: PICTURE-restored.png, beside it"
    )
    add("--overwrite", action="store_true", help="replace a file that is there")
    add("--quality", type=whole(1, 100), help="of .jpg, .avif, .webp; default: as exact as the format can be")
    add("--mosaic", action="store_true", help="the picture is a grey RGGB mosaic")
    options = parser.parse_args(arguments)
    if options.task:
        options.checkpoint = NETWORKS / f"{TASKS[options.task]}.safetensors"
    else:
        options.checkpoint = options.pictures.pop(0)
        if not options.pictures:
            parser.error("expected CHECKPOINT PICTURE or --task TASK PICTURE, got one name")
    return options


def destinations(options: argparse.Namespace) -> list[tuple[Path, Path]]:
    """(picture, where its result goes); Refused where one would take the place of another."""
    pictures = list(dict.fromkeys(options.pictures))
    folder = options.out if options.out is not None and options.out.is_dir() else None
    if options.out is not None and folder is None:
        if len(pictures) > 1:
            raise Refused(
                f"--out: expected a folder for {len(pictures)} pictures; none is {printable(options.out)}"
            )
        pairs = [(pictures[0], options.out)]
    else:
        pairs = [(p, (folder or p.parent) / f"{p.stem}-restored.png") for p in pictures]
    of: dict[str, Path] = {}
    for picture, out in pairs:
        format_of(out)
        file = os.path.realpath(out)
        if file in of:
            names = f"{printable(of[file])} and {printable(picture)}"
            raise Refused(f"{names} would both be {printable(out)}; restore one of them with --out")
        of[file] = picture
    return pairs


def check_free(out: Path, pictures: Sequence[Path], overwrite: bool) -> None:
    if not out.exists():
        return
    if any(picture.exists() and out.samefile(picture) for picture in pictures):
        raise Refused(f"--out: {printable(out)} is the picture itself")
    if not overwrite:
        raise Refused(f"{printable(out)} is there; --overwrite replaces it, --out names another")


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        pairs = destinations(options)
        network, expects = load(options.checkpoint)
    except (Refused, OSError, ValueError) as error:
        print(f"restore: {message(error)}", file=sys.stderr)
        return 2
    status = 0
    for path, out in pairs:
        try:
            check_free(out, options.pictures, options.overwrite)
            picture = read(path)
            shape = result_shape(expects, picture, options.mosaic)
            how = plan(out, picture, *shape, options.quality)
            for note in (*picture.notes, *how.notes):
                print(f"restore: {printable(path)}: {note}", file=sys.stderr)
            write(out, restore(network, expects, picture, options.mosaic), picture, how)
            print(printable(out), flush=True)
        except (Refused, OSError, MemoryError, RuntimeError) as error:  # torch lacks memory; the next may do
            print(f"restore: {message(error)}", file=sys.stderr)
            status = 2
    return status


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports Ctrl-C
