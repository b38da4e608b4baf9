"""What a picture says beside its pixels, through examples/restore.py: kept and true, or said."""

import io
import itertools
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

pytest.importorskip("lightning")
pytest.importorskip("safetensors")

from restoring import image_of, levels, noise, pictures, png_chunks, restore

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
TAGS = sorted({*ExifTags.TAGS, *TiffTags.TAGS_V2} & set(range(0x10000)))


def entry(tag: int, kind: int, count: int) -> bytes:
    """EXIF of one entry: numbers near the ends of their ranges, text that is none."""
    size = SIZES.get(kind, 1) * count
    content = (b"\xff\xff\xff\xf0\x00\x00\x00\x03" * (size // 8 + 1))[:size]
    if size <= 4:
        field, content = content.ljust(4, b"\0"), b""
    else:
        field = struct.pack(">I", 26)
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHI", tag, kind, count) + field + b"\0\0\0\0" + content


def jpeg_with(exif: bytes, image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95)
    head = b"\xff\xe1" + struct.pack(">H", len(exif) + 8) + b"Exif\0\0" + exif
    return file.getvalue()[:2] + head + file.getvalue()[2:]


def test_every_exif_entry_of_a_wrong_type_leaves_the_pixels(tmp_path, checkpoint):
    """All tags, all types, three counts, in a JPEG; every 20th written again in all formats with EXIF."""
    image = image_of("RGB", 8, 8)
    plain = pictures.read_file(io.BytesIO(jpeg_with(b"", image))).pixels
    for number, (tag, kind, count) in enumerate(itertools.product(TAGS, [0, *SIZES, 99], (0, 1, 9))):
        picture = pictures.read_file(io.BytesIO(jpeg_with(entry(tag, kind, count), image)))
        assert torch.equal(picture.pixels, plain), (tag, kind, count)
        if number % 20 == 0:
            for suffix in (".png", ".tif", ".jpg", ".webp"):
                how = restore.plan(tmp_path / f"o{suffix}", picture, 3, 8, 8, None)
                restore.write(tmp_path / f"o{suffix}", picture.pixels, picture, how)


@pytest.mark.parametrize(
    "exif, says",
    [
        (bytes(40), "EXIF"),
        (b"MM\0*\xff\xff\xff\xff", "EXIF"),
        (entry(0x0131, 5, 1), "Software"),
        (entry(0x011A, 10, 1), "XResolution"),
        (entry(0x0112, 2, 3), "Orientation"),
        (entry(0x0112, 3, 1), "Orientation"),
        (entry(0x8769, 4, 1), "EXIF"),
    ],
)
def test_damaged_exif_is_left_out_and_said(tmp_path, checkpoint, said, exif, says):
    image = image_of("RGB")
    for name, content in (
        ("a.jpg", jpeg_with(exif, image)),
        ("b.jpg", jpeg_with(exif, image).replace(b"JFIF\0", b"JFIX\0")),  # the density is EXIF's then
    ):
        (tmp_path / name).write_bytes(content)
        line = said(checkpoint(), tmp_path / name, "--out", tmp_path / f"{name}.png")
        assert says in line and len(line.splitlines()) <= 2, line
    file = io.BytesIO()
    image.save(file, "PNG")
    at = file.getvalue().index(b"IDAT") - 4
    content = file.getvalue()[:at] + png_chunks([(b"eXIf", exif)])[8:] + file.getvalue()[at:]
    (tmp_path / "c.png").write_bytes(content)
    assert says in said(checkpoint(), tmp_path / "c.png")


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_damaged_tags_of_a_tiff_leave_the_pixels(mode):
    """A TIFF is turned by its tags while Pillow loads it, which raises where they are damaged."""
    image = image_of(mode)
    for tag, kind, value in (
        (0x8769, 9, -16), (0x8825, 9, -16), (0x8769, 4, 2**32 - 9), (0x0112, 2, "text"), (0x0112, 4, 99),
    ):  # fmt: skip
        directory = ImageFileDirectory_v2()
        directory[tag] = value
        directory.tagtype[tag] = kind
        file = io.BytesIO()
        image.save(file, "TIFF", tiffinfo=directory)
        there = pictures.read_file(file).pixels * (65535 if mode == "I;16" else 1)
        there = there.permute(1, 2, 0).round().numpy().reshape(np.asarray(image).shape)
        assert np.array_equal(there, np.asarray(image)), tag


def test_damaged_metadata_hides_no_sound_pixels():
    """A PNG's chunk of a wrong checksum, a JPEG's XResolution of one byte: Pillow knows neither file."""
    image = image_of("RGB")
    file = io.BytesIO()
    image.save(file, "PNG", dpi=(300, 300), icc_profile=b"profile" * 9)
    for name in (b"iCCP", b"pHYs"):
        content = bytearray(file.getvalue())
        content[content.index(name) + 9] ^= 1
        picture = pictures.read_file(io.BytesIO(content))
        assert np.array_equal(picture.pixels.permute(1, 2, 0).numpy(), np.asarray(image))
        assert "damaged" in " ".join(picture.notes)
    unit = struct.pack(">HHIHH", 0x0128, 3, 1, 2, 0)
    exif = b"MM\0*\0\0\0\x08\0\x02" + struct.pack(">HHII", 0x011A, 1, 1, 72 << 24) + unit + bytes(4)
    plain = pictures.read_file(io.BytesIO(jpeg_with(b"", image))).pixels
    picture = pictures.read_file(io.BytesIO(jpeg_with(exif, image)))
    assert torch.equal(picture.pixels, plain) and "damaged" in " ".join(picture.notes)


def test_damaged_pictures_are_refused_in_one_line(tmp_path, checkpoint, refusal):
    """The head of each, cut or overwritten: Pillow raises SyntaxError, struct.error, ValueError, ..."""
    good = checkpoint()
    for suffix in ("ppm", "jp2", "avif", "png", "tif", "webp", "bmp", "gif", "tga", "qoi", "dds"):
        path = tmp_path / f"p.{suffix}"
        image_of("RGB").save(path)
        content = path.read_bytes()
        for broken in (
            content[:20], content[: len(content) // 2], content[:12] + b"\xff" * 30, content[:3] + b"x", b""
        ):  # fmt: skip
            path.write_bytes(broken)
            assert path.name in refusal(good, path, "--out", tmp_path / "o.png"), (suffix, broken[:20])
    for name, says in (("missing.png", "No such file"), (".", "not a file"), ("\0.png", "null")):
        assert says in refusal(good, tmp_path / name, "--out", tmp_path / "o.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a file" in refusal(good, tmp_path / "pipe.png")


def turned(width: int, height: int) -> dict:
    """Image.save's options for a camera's file that is to be turned by 90 degrees."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0100], exif[0x0101] = 6, "Maker", width, height
    exif[0x011A], exif[0x011B], exif[0x0128] = 300, 200, 2
    exif[0x8769] = {0xA002: width, 0xA003: height, 0x9003: "2020:01:01 00:00:00", 0x9214: (3, 4)}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    xmp = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6" tiff:ImageWidth='{width}' dc:a="b">
    <tiff:ImageLength>{height}</tiff:ImageLength><exif:PixelXDimension>{width}</exif:PixelXDimension></r>"""
    return {
        "exif": exif,
        "xmp": xmp.encode(),
        "dpi": (300, 200),
        "icc_profile": bytes(16) + b"RGB " + bytes(99),
    }


@pytest.mark.parametrize("kind, factor", [("jpeg", 1), ("bilinear", 3)])
@pytest.mark.parametrize("source", ["jpg", "tif", "webp"])
@pytest.mark.parametrize("to", ["png", "jpg", "tif", "webp", "avif"])
def test_metadata_is_kept_and_true(tmp_path, checkpoint, said, kind, factor, source, to):
    """Between all formats that have a place for it; sizes are those after the turn and the enlargement."""
    path, out = tmp_path / f"p.{source}", tmp_path / f"o.{to}"
    options = turned(30, 24)
    if source == "tif":
        options["exif"][700] = options.pop("xmp")
        options["exif"] = options["exif"].tobytes()
    image_of("RGB").save(path, **options)
    line = said(checkpoint(kind), path, "--out", out)
    width, height = (24 * factor, 30 * factor)
    with Image.open(out) as image:
        assert image.size == (width, height)
        exif, xmp = image.getexif(), image.info["xmp"]
        assert exif[0x010F] == "Maker" and exif.get(0x0112, 1) == 1
        assert (exif[0x0100], exif[0x0101]) == (width, height)
        inner = exif.get_ifd(0x8769)
        assert (inner[0xA002], inner[0xA003]) == (width, height) and inner[0x9003].startswith("2020")
        assert exif.get_ifd(0x8825)[1] == "N" and exif.get_ifd(0x8825)[2][0] == 48
        assert image.info["icc_profile"] == options["icc_profile"]
        assert (float(exif[0x011A]), float(exif[0x011B])) == (200, 300)
        if to in ("webp", "avif"):
            assert source == "webp" or "dpi" in line
        elif source != "webp":
            assert np.allclose([float(number) for number in image.info["dpi"]], (200, 300), atol=1)
    assert xmp.rstrip(b"\0") == turned(width, height)["xmp"].replace(b'tion="6"', b'tion="1"')
    assert "Subject" in line and 0x9214 not in inner  # where it was before the turn


def test_chunks_of_a_png_are_kept_or_said(tmp_path, checkpoint, said):
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", struct.pack(">I", 100000))
    info.add(b"cHRM", struct.pack(">8I", *range(31000, 31008)))
    info.add(b"prVt", b"of a program")
    info.add_text("Title", "A night")
    info.add_itxt("Title2", "Eine Nacht, näher")
    image_of("RGB").save(tmp_path / "p.png", pnginfo=info, dpi=(300, 200))
    line = said(checkpoint(), tmp_path / "p.png")
    assert "prVt" in line and "gAMA" not in line
    with Image.open(tmp_path / "p-restored.png") as image:
        image.load()
        assert image.info["gamma"] == 1 and image.info["chromaticity"][0] == 0.31
        assert image.text == {"Title": "A night", "Title2": "Eine Nacht, näher"}
        assert np.allclose(image.info["dpi"], (300, 200), atol=0.1)
    line = said(checkpoint(), tmp_path / "p.png", "--out", tmp_path / "o.webp")
    assert all(name in line for name in ("gAMA", "cHRM", "Title", "Title2", "dpi"))


def test_comment_goes_to_where_the_format_has_one(tmp_path, checkpoint, said):
    image_of("L").save(tmp_path / "p.jpg", comment=b"caf\xc3\xa9")
    said(checkpoint(), tmp_path / "p.jpg")
    with Image.open(tmp_path / "p-restored.png") as image:
        assert image.text == {"Comment": "café"}
    assert not said(checkpoint(), tmp_path / "p-restored.png", "--out", tmp_path / "o.gif")
    with Image.open(tmp_path / "o.gif") as image:
        assert image.info["comment"].decode() == "café"


def test_metadata_that_is_too_large_is_left_out_before_the_work(tmp_path, checkpoint, said):
    exif = Image.Exif()
    exif[0x010F], exif[0x9C9C] = "Maker", bytes(70000)
    image_of("RGB").save(tmp_path / "p.png", exif=exif, dpi=(300, 300))
    assert "EXIF data is too long" in said(checkpoint(), tmp_path / "p.png", "--out", tmp_path / "o.jpg")
    with Image.open(tmp_path / "o.jpg") as image:
        assert not image.getexif().get(0x010F) and image.info["dpi"] == (300, 300)


def test_profile_of_other_colours_is_not_kept(tmp_path, checkpoint, said):
    profile = bytes(16) + b"GRAY" + bytes(99)
    image_of("L").save(tmp_path / "p.png", icc_profile=profile)
    assert "profile" in said(checkpoint("noisy"), tmp_path / "p.png", "--mosaic")  # the result has colours
    assert "profile" not in said(checkpoint("noisy"), tmp_path / "p.png", "--overwrite")
    with Image.open(tmp_path / "p-restored.png") as image:
        assert image.info["icc_profile"] == profile


def test_transparent_colour_of_16_bits_is_kept(tmp_path, checkpoint, said, works):
    black, shown = np.zeros((2, 2, 1), np.uint16), Image.fromarray(np.array([[0, 255]] * 2, np.uint8))
    image, options = pictures.to_image(black, shown)
    assert (np.asarray(image) == options["transparency"]).tolist() == [[True, False]] * 2
    values = noise(20, 20, 1, top=65536)
    values[:5], values[5] = 0x1234, 0x1235
    Image.fromarray(values).save(tmp_path / "p.png", transparency=0x1234)
    assert not said(checkpoint(), tmp_path / "p.png")
    with Image.open(tmp_path / "p-restored.png") as image:
        there = np.asarray(image)
        assert np.array_equal(there == image.info["transparency"], values == 0x1234)
        assert np.array_equal(there[5:], levels(works[0], 16)[5:, :, 0])
    assert "8 bits" in said(checkpoint(), tmp_path / "p.png", "--out", tmp_path / "o.tif")
    with Image.open(tmp_path / "o.tif") as image:
        assert np.array_equal(np.asarray(image.getchannel("A")) == 0, values == 0x1234)
    # Colours of 16 bits: Pillow reads the pixels as 8, and leaves the transparent colour as it is.
    colour = noise(20, 20, 3).astype(">u2") * 257
    colour[:5] = 0x1212, 0x3434, 0x5656
    rows = b"".join(b"\0" + row.tobytes() for row in colour.reshape(20, -1))
    head = struct.pack(">IIBBBBB", 20, 20, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"tRNS", struct.pack(">3H", 0x1212, 0x3434, 0x5656))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    (tmp_path / "c.png").write_bytes(png_chunks(chunks))
    assert "16 bits are read as 8" in said(checkpoint(), tmp_path / "c.png")
    with Image.open(tmp_path / "c-restored.png") as image:
        assert np.array_equal(np.asarray(image)[..., 3] == 0, (colour == colour[0, 0]).all(2))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_transparent_grey_of_few_bits_is_kept(tmp_path, checkpoint, said, bits):
    level, top = 2 ** (bits - 1), 2**bits - 1
    grey = np.random.default_rng(0).integers(0, top + 1, (16, 16), dtype=np.uint8)
    unpacked = (grey[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint8)) & 1
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in unpacked.reshape(16, -1))
    head = struct.pack(">IIBBBBB", 16, 16, bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"tRNS", struct.pack(">H", level))]
    (tmp_path / "p.png").write_bytes(png_chunks([*chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]))
    said(checkpoint(), tmp_path / "p.png")
    with Image.open(tmp_path / "p-restored.png") as image:
        assert image.mode == "LA" and np.array_equal(np.asarray(image)[..., 1] == 0, grey == level)


def test_grey_with_alpha_of_16_bits_stays_grey(tmp_path, checkpoint, said):
    both = noise(20, 20, 2).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in both.reshape(20, -1))
    head = struct.pack(">IIBBBBB", 20, 20, 16, 4, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    (tmp_path / "p.png").write_bytes(png_chunks(chunks))
    assert "16 bits are read as 8" in said(checkpoint(), tmp_path / "p.png")
    with Image.open(tmp_path / "p-restored.png") as image:
        assert image.mode == "LA" and np.array_equal(np.asarray(image)[..., 1], both[..., 1] // 257)
