"""What a picture says beside its pixels: read without trust, made true for the result, written again.

All of it is a dictionary of
exif         {tag: value}, those of an IFD below as {tag: {tag: value}}; only what can be written again
icc_profile  bytes
xmp          bytes
dpi          (across, down)
text         {keyword: text}; the comment of a JPEG or GIF is its "Comment"
png          {name: content} of the PNG chunks that say how its values are to be shown
"""

import contextlib
import re
import struct
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from .command import one_line

Metadata = dict[str, Any]

ORIENTATION, XMP = 0x0112, 0x02BC
ACROSS, DOWN = 0x011A, 0x011B  # the resolutions
BELOW = {0x8769: "Exif", 0x8825: "GPS"}  # tags that lead to IFDs
SIZES = {0x0100: 0, 0x0101: 1, 0xA002: 0, 0xA003: 1}  # {tag: width or height}
# Of how the old file stored its pixels, of what is carried as itself, and where in the old file more was.
STORED = {
    0x00FE, 0x00FF, 0x0102, 0x0103, 0x0106, 0x010A, 0x0111, 0x0115, 0x0116, 0x0117, 0x0118, 0x0119, 0x011C,
    0x0120, 0x0121, 0x013D, 0x0140, 0x0142, 0x0143, 0x0144, 0x0145, 0x014A, 0x0152, 0x0153, 0x015B, 0x0201,
    0x0202, 0x0211, 0x0212, 0x0213, 0x0214, XMP, 0x8773, 0x9101, 0x9102, 0xA005,
}  # fmt: skip
# Where in the old picture something was, and how dense its pixels were on the sensor.
PLACES = {0x9214, 0xA20E, 0xA20F, 0xA210, 0xA214}
SHOWN = {b"cHRM", b"cICP", b"gAMA", b"sRGB"}
# Chunks of pixels, frames and what Pillow reads; what is true of the old file alone (tIME) is not missed.
READ = SHOWN | {
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"iCCP", b"eXIf", b"pHYs",
    b"tEXt", b"zTXt", b"iTXt", b"tIME", b"sBIT", b"hIST",
}  # fmt: skip


def chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """(name, content) of a PNG's chunks; those of pixels without content. Nothing for another file."""
    file.seek(0)
    if file.read(8) != b"\x89PNG\r\n\x1a\n":
        return
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in (b"IDAT", b"fdAT"):
            file.seek(length + 4, 1)
            yield name, b""
        else:
            yield name, file.read(length)
            file.seek(4, 1)


def bare(file: BinaryIO) -> bytes:
    """A PNG or a JPEG without its metadata, whose damage may hide sound pixels; b"" for another file."""
    file.seek(0)
    data = file.read()
    parts, at = [data[:8]], 8
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        while at + 12 <= len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            if data[at + 4 : at + 8] in (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"):
                parts.append(data[at:end])
            at = end
        return b"".join(parts)
    if data[:3] != b"\xff\xd8\xff":
        return b""
    parts, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:  # up to the pixels
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if not 0xE1 <= data[at + 1] <= 0xED and data[at + 1] != 0xFE:  # APP14 says what the colours are
            parts.append(data[at:end])
        at = end
    return b"".join([*parts, data[at:]])


def writable(tag: int, value: object, below: int | None = None) -> bool:
    """A wrong type or a number out of its range makes Pillow raise nearly anything."""
    try:
        exif_bytes({tag: value} if below is None else {below: {tag: value}})
    except Exception:
        return False
    return True


def exif_bytes(entries: dict[int, Any]) -> bytes:
    exif = Image.Exif()
    for tag, value in entries.items():
        exif[tag] = value
    return exif.tobytes()


def read_exif(image: Image.Image) -> tuple[dict[int, Any], list[str]]:
    """The entries that can be written again, and the names of the others."""
    found: dict[int, Any] = {}
    lost: list[str] = []

    def keep(into: dict[int, Any], tag: int, value: object, below: int | None = None) -> None:
        if writable(tag, value, below):
            into[tag] = value
        else:
            lost.append(name_of(tag, below))

    try:
        if isinstance(raw := image.info.get("exif"), bytes):
            Image.Exif().load(
                raw
            )  # raises each time; getexif only the first, which may have been Pillow's own
        exif = type(image).getexif(image)  # not image.getexif: see pictures.load
        tags = sorted(set(exif) - STORED)
    except Exception:
        return {}, ["EXIF"]
    for tag in tags:
        try:
            if tag in BELOW:
                inner: dict[int, Any] = {}
                for inner_tag, value in exif.get_ifd(tag).items():
                    if inner_tag not in STORED:
                        keep(inner, inner_tag, value, tag)
                keep(found, tag, inner)
            else:
                keep(found, tag, exif[tag])
        except Exception:
            lost.append(name_of(tag))
    return found, lost


def name_of(tag: int, below: int | None = None) -> str:
    names = ExifTags.GPSTAGS if below == 0x8825 else ExifTags.TAGS
    return f"EXIF {BELOW.get(tag) or names.get(tag, hex(tag))}"


def read_metadata(image: Image.Image, file: BinaryIO, exif: dict[int, Any]) -> tuple[Metadata, list[str]]:
    """Of a picture that is loaded, with the names of what is there and not carried."""
    info = image.info
    keep: Metadata = {"exif": exif}
    for name in ("icc_profile", "xmp"):
        if isinstance(value := info.get(name), bytes) and value:
            keep[name] = value
    with contextlib.suppress(TypeError, ValueError, ZeroDivisionError, OverflowError):
        across, down = (float(number) for number in info["dpi"]) if "dpi" in info else (0, 0)
        if 0 < across < 1e6 and 0 < down < 1e6:
            keep["dpi"] = across, down
    found = list(chunks(file))
    keep["png"] = {name: content for name, content in found if name in SHOWN}
    texts = getattr(image, "text", {}) if found else {}
    raw = {name for name in texts if name.startswith("Raw profile type ")}  # ImageMagick's
    keep["text"] = {k: str(v) for k, v in texts.items() if k not in raw and k != "XML:com.adobe.xmp"}
    comment = info.get("comment")
    if isinstance(comment, bytes) and comment:
        try:
            keep["text"]["Comment"] = comment.decode()
        except UnicodeDecodeError:
            keep["text"]["Comment"] = comment.decode("latin-1")
    # Of a JPEG's segments APP0, 1, 2 and 14 are JFIF, EXIF, XMP, the profile and what the colours are.
    segments = {name for name, _ in getattr(image, "applist", [])}
    lost = {f"JPEG {name}" for name in segments - {"APP0", "APP1", "APP2", "APP14", "COM"}}
    lost |= {f"PNG {name.decode('latin-1')}" for name, _ in found if name not in READ}
    lost |= {f"PNG {name}" for name in raw if name != "Raw profile type exif"}
    return {name: value for name, value in keep.items() if value}, sorted(lost)


def true_of(keep: Metadata, width: int, height: int, channels: int, *, turned: bool, reshaped: bool):
    """The metadata of a result of this size, and the names of what is not true of it any more.

    turned    the width was the height; reshaped: any pixel is elsewhere than in the file that was read.
    """
    keep, lost = dict(keep), []
    exif = {tag: {**value} if tag in BELOW else value for tag, value in keep.get("exif", {}).items()}
    exif.pop(ORIENTATION, None)
    for entries in (exif, exif.get(0x8769, {})):
        for tag in SIZES.keys() & entries.keys():
            entries[tag] = (width, height)[SIZES[tag]]
        for tag in PLACES & entries.keys() if reshaped else ():
            lost.append(name_of(tag))
            del entries[tag]
    if turned:
        if ACROSS in exif and DOWN in exif:
            exif[ACROSS], exif[DOWN] = exif[DOWN], exif[ACROSS]
        if "dpi" in keep:
            keep["dpi"] = keep["dpi"][::-1]
    keep["exif"] = exif
    if "xmp" in keep:
        keep["xmp"] = true_xmp(keep["xmp"], width, height)
    space = {1: b"GRAY", 3: b"RGB "}[channels]
    if "icc_profile" in keep and keep["icc_profile"][16:20] in {b"GRAY", b"RGB "} - {space}:
        lost.append("the colour profile, of other colours")
        del keep["icc_profile"]
    return {name: value for name, value in keep.items() if value}, lost


def true_xmp(xmp: bytes, width: int, height: int) -> bytes:
    """Both spellings of a property: name="value" and <name>value</name>."""
    for names, value in (
        (rb"tiff:Orientation", 1),
        (rb"tiff:ImageWidth|exif:PixelXDimension", width),
        (rb"tiff:ImageLength|exif:PixelYDimension", height),
    ):
        pattern = rb"(?<![/\w])((?:" + names + rb")\s*(?:=\s*[\"']|>))[^<\"']*"
        xmp = re.sub(pattern, lambda match, value=value: match[1] + b"%d" % value, xmp)
    return xmp


def keywords(format: str, keep: Metadata) -> dict[str, Any]:
    """Of Image.save, for what the format has a place for; a writer ignores those it does not know."""
    exif = dict(keep.get("exif", {}))
    result = {name: keep[name] for name in ("icc_profile", "dpi", "xmp") if name in keep}
    text = keep.get("text", {})
    if format == "TIFF":  # its own tags, and the sizes are the writer's
        exif = {tag: value for tag, value in exif.items() if tag not in (0x0100, 0x0101)}
        if "xmp" in keep:
            exif[XMP] = keep["xmp"]
    if exif:
        result["exif"] = exif_bytes(exif)
    if format == "PNG":
        result["pnginfo"] = info = PngInfo()
        for name, content in keep.get("png", {}).items():
            info.add(name, content)
        for name, value in text.items():
            info.add_text(name, value)
        if "xmp" in keep:
            info.add_itxt("XML:com.adobe.xmp", keep["xmp"].decode("utf-8"))
    elif "Comment" in text:
        result["comment"] = text["Comment"].encode()
    return result


def pieces(keep: Metadata) -> Iterator[tuple[str, Metadata]]:
    """(name, metadata of it alone), each of which a format may have a place for or not."""
    names = {"icc_profile": "the colour profile", "xmp": "XMP", "dpi": "dpi", "exif": "EXIF"}
    for kind, value in keep.items():
        if kind in ("text", "png"):
            for name, content in value.items():
                text = f"PNG {name.decode()}" if kind == "png" else f"the text {one_line(name)!r}"
                yield text, {kind: {name: content}}
        else:
            yield names[kind], {kind: value}


def joined(parts: Iterable[Metadata]) -> Metadata:
    """One dictionary of what `pieces` took apart."""
    result: Metadata = {}
    for part in parts:
        for kind, value in part.items():
            result[kind] = {**result.get(kind, {}), **value} if isinstance(value, dict) else value
    return result


def missing(name: str, piece: Metadata, back: Metadata) -> list[str]:
    """The names of what is in a piece and not in the metadata that was read back."""
    ((kind, value),) = piece.items()
    there = back.get(kind)
    if there is None:
        return [name]
    if kind == "exif":
        return [name_of(tag) for tag in value if tag not in there] + [
            name_of(tag, below)
            for below in BELOW.keys() & value.keys() & there.keys()
            for tag in value[below].keys() - there[below].keys()
        ]
    if kind == "dpi":
        same = all(abs(a - b) < 0.01 * a + 0.5 for a, b in zip(value, there, strict=True))
    elif isinstance(value, dict):
        same = value.items() <= there.items()
    else:
        same = value == there
    return [] if same else [name]
