"""Pictures of any format that Pillow knows, with what they say beside their pixels.

What a format can hold is not listed here but tried: a small picture of the same kind is written and
read back before the work begins. What does not come back is refused if it is pixels, said if it is
anything else.
"""

import contextlib
import io
import stat
import warnings
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from .command import Refused, one_line, printable
from .files import check_writable, replacing
from .metadata import (
    ORIENTATION,
    Metadata,
    bare,
    joined,
    keywords,
    missing,
    pieces,
    read_exif,
    read_metadata,
    true_of,
)

with contextlib.suppress(ImportError):
    import pillow_heif

    pillow_heif.register_heif_opener()

MODES = {"RGB", "RGBA", "L", "LA", "P", "1"}  # Pillow would clip or misread others
MODES_16 = {"I;16", "I;16L", "I;16B"}  # grey; 16-bit colours Pillow itself reads as 8
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
# As exactly as the format can; every other is exact without being asked. --quality takes its place.
BEST: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 100, "subsampling": "4:4:4"},
    "MPO": {"quality": 100, "subsampling": "4:4:4"},
    "PDF": {"quality": 100, "subsampling": "4:4:4"},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "WEBP": {"lossless": True, "exact": True},
}
UNREADABLE = {"EPS", "PDF"}  # Pillow writes these but does not read them, or not without another program
TRIAL = 32  # pixels; of the short side of the pictures that are written to see how they come back
LEVELS = 8  # of 255: what a JPEG of the best quality may change in the trial


class Picture(NamedTuple):
    pixels: Tensor  # [3 or 1, H, W]; uint8, or float in [0, 1]
    bits: int  # 8 or 16
    alpha: Image.Image | None  # of 8 bits; a picture of 16 bits is nowhere half transparent
    keep: Metadata
    notes: tuple[str, ...] = ()  # what the file holds and the picture does not
    frames: int = 1  # of the file; the first alone is read
    turn: int = 1  # the file's orientation


class Plan(NamedTuple):
    """How a result will be written; made before there is one."""

    format: str
    bits: int
    options: dict[str, Any]  # of Image.save
    notes: list[str]


def read(path: Path) -> Picture:
    """Upright; Refused for what is no picture or one of another kind of colour."""
    try:
        return opened(path)
    except (OSError, ValueError) as error:
        raise Refused(f"{printable(path)}: {one_line(error)}") from error


def opened(path: Path) -> Picture:
    """As read; OSError or ValueError says why not."""
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
        raise ValueError("not a file")
    with path.open("rb") as file:
        return read_file(file)


def read_file(file: BinaryIO) -> Picture:
    """As read; ValueError says why not."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        picture = unpacked(file)
    doubts = [one_line(str(warning.message)) for warning in said if warning.category is UserWarning]
    return picture._replace(notes=(*dict.fromkeys(doubts), *picture.notes))


def unpacked(file: BinaryIO) -> Picture:
    try:
        image, rawmode, exif, lost = load(file)
    except Exception as error:  # a damaged file makes Pillow raise nearly anything
        try:
            file = io.BytesIO(bare(file))
            image, rawmode, exif, lost = load(file)
        except Exception:
            unknown = isinstance(error, UnidentifiedImageError)  # whose text is an address in memory
            why = "no picture that Pillow can read, or damaged" if unknown else one_line(error)
            raise ValueError(why) from error
        lost.append("its metadata, which is damaged")
    turn = exif.get(ORIENTATION, 1)
    if not (isinstance(turn, int) and 1 <= turn <= 8):
        lost.append("EXIF Orientation")
        turn = 1
    keep, more = read_metadata(image, file, exif)
    frames = count_frames(file)
    notes = [f"not kept: {', '.join(dict.fromkeys(lost + more))}"] if lost or more else []
    if frames > 1:
        notes.append(f"it has {frames} frames; only the first is read")
    upright = image.transpose(TURNS[turn]) if turn > 1 else image
    key = upright.info.get("transparency")
    if upright.mode in MODES_16 or (upright.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(upright).astype(np.float32)
        alpha = Image.fromarray(np.uint8(255) * (values != key)) if isinstance(key, int) else None
        values /= 4095 if rawmode == "I;12" else 65535  # Pillow leaves 12 bits as they are
        return Picture(torch.from_numpy(values)[None], 16, alpha, keep, tuple(notes), frames, turn)
    if upright.mode not in MODES:
        raise ValueError(f"its mode is {upright.mode}; save it as RGB or grey of 8 or 16 bits")
    if ";16" in rawmode:
        notes.append("its colours of 16 bits are read as 8")
        if isinstance(key, tuple):  # Pillow leaves the transparent colour as it is
            upright.info["transparency"] = tuple(value >> 8 for value in key)
    elif rawmode in ("L;2", "L;4") and isinstance(key, int):
        upright.info["transparency"] = key * {"L;2": 85, "L;4": 17}[rawmode]
    grey = upright.mode in ("1", "L", "LA") or rawmode == "LA;16B"  # which Pillow reads as RGBA
    alpha = None
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        alpha = upright.getchannel("A")
    values = np.array(upright.convert("L" if grey else "RGB"))
    pixels = torch.from_numpy(values[None] if grey else values.transpose(2, 0, 1).copy())
    return Picture(pixels, 8, alpha, keep, tuple(notes), frames, turn)


def load(file: BinaryIO) -> tuple[Image.Image, str, dict[int, Any], list[str]]:
    """The picture as it lies in the file, how Pillow unpacks it, its EXIF and what is lost of that."""
    file.seek(0)
    image = Image.open(file)
    rawmode = ""
    for part in image.tile:
        arguments = part.args if isinstance(part.args, tuple) else (part.args,)
        rawmode = str(arguments[0]) if arguments else ""
        if image.format == "PPM" and isinstance(arguments[-1], int) and arguments[-1] > 255:
            rawmode += ";16"
    if image.format == "TIFF":  # its pixels are turned while they are loaded, by an EXIF that may be damaged
        exif, lost = read_exif(image)
        image.getexif = Image.Exif  # type: ignore[method-assign]
        image.load()
    else:
        image.load()
        exif, lost = read_exif(image)
    return image, rawmode, exif, lost


def count_frames(file: BinaryIO) -> int:
    """Not the layers of a PSD, of which the first is all of them; not the previews in a camera's JPEG."""
    with contextlib.suppress(Exception):
        file.seek(0)
        image = Image.open(file)
        if image.format not in ("PSD", "MPO"):
            return getattr(image, "n_frames", 1)
    return 1


def to_image(values: np.ndarray, alpha: Image.Image | None) -> tuple[Image.Image, dict[str, Any]]:
    """values: [H, W, 3 or 1], uint8 or uint16; the options that a transparent colour needs."""
    if values.shape[2] == 1:
        values = values[:, :, 0]
    if alpha is None:
        return Image.fromarray(values), {}
    alpha = alpha.resize((values.shape[1], values.shape[0]), Image.Resampling.BILINEAR)
    if values.dtype == np.uint16:  # one level is transparent: 0, so that an opaque 0 becomes 1 of 65535
        return Image.fromarray(np.where(np.asarray(alpha) < 128, 0, values.clip(1))), {"transparency": 0}
    image = Image.fromarray(values)
    image.putalpha(alpha)
    return image, {}


def to_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """uint16 to uint8 where 8 bits are asked for; uint8 stays."""
    if bits == 8 and values.dtype == np.uint16:
        return (values / 257).round().astype(np.uint8)
    return values


def format_of(path: Path) -> str:
    format = Image.registered_extensions().get(path.suffix.lower())
    if format is None:
        raise Refused(f"--out: no picture format has the suffix {printable(path.suffix)!r}")
    if format not in Image.SAVE:
        raise Refused(f"--out: {printable(path.suffix)} can be read, not written; choose .png")
    return format


def plan(path: Path, picture: Picture, channels: int, height: int, width: int, quality: int | None) -> Plan:
    """For a result [channels, height, width] of this picture; Refused if it cannot be written to the path."""
    format, name = format_of(path), printable(path)
    try:
        check_writable(path)
    except (OSError, ValueError) as error:
        raise Refused(f"{name}: {one_line(error)}") from error
    limit = 2 * (Image.MAX_IMAGE_PIXELS or np.inf)
    if width * height > limit:
        raise Refused(f"{name}: {width}x{height} pixels; a picture of more than {limit} is not read again")
    options = dict(BEST.get(format, {}))
    if quality is not None:
        if format not in BEST:
            raise Refused(f"--quality: {printable(path.suffix)} keeps every pixel as it is")
        options["quality"] = quality
        options.pop("lossless", None)
    notes = []
    bits, kind, reason = picture.bits, (format, channels, picture.alpha is not None), ""
    while True:
        try:
            for shape in ((TRIAL, TRIAL), (TRIAL, width), (height, TRIAL)):
                trial(*kind, bits, shape, {})
            break
        except ValueError as error:
            if bits == 8:
                raise Refused(f"{name}: {error}; choose .png") from error
            bits, reason = 8, str(error)
    if bits < picture.bits:
        notes.append(f"written with 8 bits, not 16: {reason}")

    reshaped = picture.turn > 1 or tuple(picture.pixels.shape[1:]) != (height, width)
    keep, lost = true_of(picture.keep, width, height, channels, turned=picture.turn > 4, reshaped=reshaped)
    kept = []
    for what, piece in pieces(keep):
        try:
            lost += missing(what, piece, trial(*kind, bits, (TRIAL, TRIAL), piece))
            kept.append(piece)
        except ValueError as error:
            lost.append(f"{what} ({error})")
    if lost:
        notes.append(f"{name} does not keep {', '.join(lost)}")
    return Plan(format, bits, options | keywords(format, joined(kept)), notes)


def trial(
    format: str, channels: int, transparent: bool, bits: int, shape: tuple[int, int], keep: Metadata
) -> Metadata:
    """What comes back of the metadata of a picture of this kind; ValueError if the picture does not."""
    down, across = np.linspace(0, 1, shape[0])[:, None], np.linspace(0, 1, shape[1])
    ramps = [np.broadcast_to(down, shape), np.broadcast_to(across, shape), (down + across) / 2]
    values = (
        (np.stack(ramps[-channels:], 2) * (2**bits - 1)).round().astype(np.uint8 if bits == 8 else np.uint16)
    )
    alpha = Image.fromarray((255 * ramps[1]).round().astype(np.uint8)) if transparent else None
    file = io.BytesIO()
    try:
        image, more = to_image(values, alpha)
        save(image, file, format, **BEST.get(format, {}), **keywords(format, keep), **more)
    except Exception as error:  # Pillow's writers raise nearly anything, too
        size = f" of {max(shape)} pixels a side" if max(shape) > TRIAL else ""
        raise ValueError(f"{format}{size}: {one_line(error)}") from error
    if format in UNREADABLE:
        return {}
    try:
        back = read_file(file)
    except ValueError as error:
        raise ValueError(f"{format}: it could not be read again: {error}") from error
    if back.bits != bits:
        raise ValueError(f"{format} has no {bits} bits")
    if back.pixels.shape[1:] != shape:
        raise ValueError(f"{format} has no {shape[1]}x{shape[0]} pixels")
    if (back.alpha is not None) != transparent:
        raise ValueError(f"{format} does not keep transparency")
    if bits == 16 and transparent:  # what is transparent has no colour
        values, alpha = np.where(np.asarray(alpha)[..., None] < 128, 0, values.clip(1)), None
    there = back.pixels.permute(1, 2, 0).numpy() * (1 if bits == 8 else 65535)
    worst = np.abs(there - values.astype(np.float32)).max()
    if alpha is not None:
        worst = max(worst, np.abs(np.asarray(back.alpha) - np.asarray(alpha).astype(np.float32)).max())
    if worst > (LEVELS if bits == 8 else 0.5):
        raise ValueError(
            f"{format} does not keep its colours: they come back {worst:.0f} of {2**bits - 1} off"
        )
    return back.keep


def save(image: Image.Image, file: BinaryIO, format: str, **options: Any) -> None:
    with warnings.catch_warnings():  # said already, when the picture was read
        warnings.simplefilter("ignore")
        image.save(file, format, **options)


def write(path: Path, pixels: Tensor, picture: Picture, plan: Plan) -> None:
    """pixels: [3 or 1, H, W], whole numbers of as many bits as the picture's."""
    values = to_bits(pixels.permute(1, 2, 0).contiguous().numpy(), plan.bits)
    image, more = to_image(values, picture.alpha)
    try:
        with replacing(path) as part, part.open("w+b") as file:
            save(image, file, plan.format, **plan.options, **more)
    except Exception as error:  # for one, the disk is full
        raise Refused(f"{printable(path)}: {one_line(error)}") from error
