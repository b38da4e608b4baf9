"""Pictures of every format through examples/restore.py: kept and true, said, or refused before the work."""

import io
import itertools
import os
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin, TiffTags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

pytest.importorskip("lightning")
pytest.importorskip("safetensors")
EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import restore  # noqa: E402
from fuzz_examples import save_small_network  # noqa: E402
from restoration import pictures  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:IM image format is deprecated")
Image.init()
SUFFIXES: dict[str, str] = {}
for suffix, name in Image.registered_extensions().items():
    SUFFIXES.setdefault(name, suffix)


@pytest.fixture
def checkpoint(tmp_path):
    """checkpoint(kind) -> the path of a network for that kind of input."""

    def save(kind: str = "jpeg") -> Path:
        path = tmp_path / f"{kind}.safetensors"
        save_small_network(path, kind)
        return path

    return save


@pytest.fixture
def works(monkeypatch) -> list[torch.Tensor]:
    """What the network gave, for every picture that it was asked to restore."""
    results = []
    whole = restore.restore

    def kept(*arguments, **keywords):
        results.append(whole(*arguments, **keywords))
        return results[-1]

    monkeypatch.setattr(restore, "restore", kept)
    return results


@pytest.fixture
def refusal(works, capsys):
    """refusal(*arguments) -> the one line that refuses, before any work."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        works.clear()
        try:
            status = restore.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        output = capsys.readouterr()
        lines = output.err.splitlines()
        assert (status, len(lines), output.out, works) == (2, 1, "", []), output.err
        return lines[0]

    return run


@pytest.fixture
def said(works, capsys):
    """said(*arguments) -> what is said beside the work, which succeeds."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        works.clear()
        assert restore.main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
        assert len(works) == 1
        return capsys.readouterr().err

    return run


def noise(height: int, width: int, channels: int = 3, top: int = 256) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    numbers = np.random.default_rng(0).integers(top // 6, top * 5 // 6, shape)
    return numbers.astype(np.uint8 if top == 256 else np.uint16)


def decibels(a: np.ndarray, b: np.ndarray) -> float:
    error = ((a.astype(float) - b.astype(float)) ** 2).mean()
    return 10 * np.log10(255**2 / error) if error else np.inf


def image_of(mode: str, height: int = 24, width: int = 30) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(noise(height, width, 1, top=65536))
    return Image.fromarray(noise(height, width, 4)).convert(mode)


def levels(result: torch.Tensor, bits: int) -> np.ndarray:
    """The network's output [H, W, C] as 8 or 16 bits."""
    values = result.permute(1, 2, 0).numpy()
    if values.dtype == np.uint16 and bits == 8:
        values = np.round(values / 257)
    return values.astype(float)


@pytest.mark.parametrize("format", sorted(SUFFIXES))
def test_every_format_keeps_the_output_or_is_refused(tmp_path, checkpoint, works, capsys, format):
    """To the last bit where the format can; JPEG and AVIF within a few levels."""
    good = checkpoint()
    for mode in ("RGB", "L", "RGBA", "LA", "I;16"):
        image_of(mode).save(tmp_path / "p.png")
        out = tmp_path / f"out{SUFFIXES[format]}"
        out.unlink(missing_ok=True)
        works.clear()
        status = restore.main([str(good), str(tmp_path / "p.png"), "--out", str(out)])
        error = capsys.readouterr().err
        if status == 2:
            assert len(error.splitlines()) == 1 and not works and not out.exists(), (mode, error)
            continue
        assert status == 0
        if format in ("EPS", "PDF"):  # Pillow itself does not read them
            assert out.stat().st_size > 500
            continue
        with Image.open(out) as image:
            image.load()
        deep = image.mode in ("I;16", "I")
        assert deep or mode != "I;16" or "written with 8 bits" in error
        if mode in ("RGBA", "LA"):
            there, alpha = image.convert("RGBA").getchannel("A"), image_of(mode).getchannel("A")
            assert np.abs(np.asarray(there, int) - np.asarray(alpha, int)).max() <= (format == "AVIF")
        colours = np.asarray(image if deep else image.convert("L" if len(works[0]) == 1 else "RGB"))
        off = np.abs(colours.reshape(24, 30, -1) - levels(works[0], 16 if deep else 8)).max()
        assert off <= (6 if format in ("JPEG", "MPO", "AVIF") else 0), (mode, off)


def test_every_common_format_is_written(tmp_path, checkpoint, said):
    image_of("RGB").save(tmp_path / "p.png")
    for suffix in ("png", "jpg", "webp", "tif", "bmp", "ppm", "tga", "jp2", "avif", "pdf"):
        if "." + suffix in Image.registered_extensions():
            said(checkpoint(), tmp_path / "p.png", "--out", tmp_path / f"out.{suffix}")
    image_of("I;16").save(tmp_path / "deep.png")
    for suffix in ("png", "tif", "pgm", "jp2"):
        assert not said(checkpoint(), tmp_path / "deep.png", "--out", tmp_path / f"deep-out.{suffix}")
        with Image.open(tmp_path / f"deep-out.{suffix}") as image:
            assert len(np.unique(np.asarray(image))) > 600, suffix  # not 8 bits made wide


@pytest.mark.parametrize("suffix", ["webp", "avif", "gif", "jpg", "bmp", "tga"])
def test_16_bits_become_8_where_the_format_has_no_more(tmp_path, checkpoint, said, works, suffix):
    image_of("I;16").save(tmp_path / "p.png")
    assert "8 bits, not 16" in said(checkpoint(), tmp_path / "p.png", "--out", tmp_path / f"o.{suffix}")
    with Image.open(tmp_path / f"o.{suffix}") as image:
        grey = np.asarray(image.convert("L"), float)
    assert np.abs(grey - levels(works[0], 8)[..., 0]).max() <= 4
    assert len(np.unique(grey)) > 100  # it came out all white


def test_12_bits_of_a_tiff_are_not_read_as_16(tmp_path):
    """Pillow leaves 0..4095 as they are."""
    values = np.random.default_rng(0).integers(0, 4096, (10, 10)).astype(np.uint16)
    bits = (values.ravel()[:, None] >> np.arange(11, -1, -1, dtype=np.uint16)) & 1
    pixels = np.packbits(bits.astype(np.uint8).reshape(10, -1), 1).tobytes()
    tags = {256: 10, 257: 10, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 10, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels
    (tmp_path / "p.tif").write_bytes(head + struct.pack("<H", len(tags)) + entries + bytes(4))
    there = restore.read(tmp_path / "p.tif").pixels
    assert np.allclose(there[0].numpy(), values / 4095, atol=1e-6)


def test_16_bit_mosaic_becomes_colours_of_8(tmp_path, checkpoint, said, works):
    image_of("I;16").save(tmp_path / "p.png")
    assert "8 bits, not 16" in said(checkpoint("noisy"), tmp_path / "p.png", "--mosaic")
    with Image.open(tmp_path / "p-restored.png") as image:
        assert np.array_equal(np.asarray(image, float), levels(works[0], 8)) and image.mode == "RGB"


@pytest.mark.parametrize("format, least", [("jpg", 44), ("webp", np.inf), ("avif", 44), ("jp2", np.inf)])
def test_quality_is_not_thrown_away(tmp_path, checkpoint, said, works, refusal, format, least):
    image_of("RGB", 64, 64).save(tmp_path / "p.png")
    out, small = tmp_path / f"o.{format}", tmp_path / f"small.{format}"
    assert "quality" not in said(checkpoint(), tmp_path / "p.png", "--out", out)
    with Image.open(out) as image:
        assert decibels(np.asarray(image.convert("RGB")), levels(works[0], 8)) >= least
    if format == "jp2":
        assert "keeps every pixel" in refusal(
            checkpoint(), tmp_path / "p.png", "--out", small, "--quality", 50
        )
        return
    said(checkpoint(), tmp_path / "p.png", "--out", small, "--quality", 50)
    assert small.stat().st_size < 0.7 * out.stat().st_size
    for wrong in ("0", "101", "high", "nan"):
        assert "from 1 to 100" in refusal(
            checkpoint(), tmp_path / "p.png", "--out", small, f"--quality={wrong}"
        )


def test_what_no_writer_takes_is_refused_before_the_work(tmp_path, checkpoint, refusal):
    good = checkpoint()
    image_of("RGB", 4, 17000).save(tmp_path / "wide.png")
    image_of("RGB", 70000, 2).save(tmp_path / "high.png")
    image_of("RGBA").save(tmp_path / "alpha.png")
    image_of("RGB").save(tmp_path / "p.png")
    for name, out, says in (
        ("wide", "o.webp", "16383"),
        ("high", "o.jpg", "70000 pixels"),
        ("high", "o.gif", "GIF"),
        ("high", "o.tga", "TGA"),
        ("alpha", "o.pcx", "RGBA"),
        ("alpha", "o.jpg", "RGBA"),
        ("alpha", "o.bmp", "transparency"),
        ("alpha", "o.ppm", "transparency"),
        ("p", "o.gif", "colours"),
        ("p", "o.ico", "pixels"),
        ("p", "o.icns", "pixels"),
        ("p", "o.xbm", "RGB"),
        ("p", "o.xyz", "suffix '.xyz'"),
        ("p", "o.psd", "not written"),
        ("p", "o", "suffix ''"),
        ("p", "p.png/o.png", "Not a directory"),
        ("p", f"{'x' * 300}.png", "too long"),
        ("p", f"{'x' * 300}/o.png", "too long"),
    ):
        before = sorted(tmp_path.rglob("*"))
        assert says in refusal(good, tmp_path / f"{name}.png", "--out", tmp_path / out), (name, out)
        assert sorted(tmp_path.rglob("*")) == before


def test_enlarged_size_counts(tmp_path, checkpoint, refusal, monkeypatch):
    image_of("RGB", 4, 6000).save(tmp_path / "wide.png")
    assert "16383" in refusal(checkpoint("bilinear"), tmp_path / "wide.png", "--out", tmp_path / "o.webp")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50000)  # a picture that no one could open again
    assert "18000x12" in refusal(checkpoint("bilinear"), tmp_path / "wide.png")


def test_names_do_not_collide(tmp_path, checkpoint, refusal, said):
    good, out = checkpoint(), tmp_path / "IMG-restored.png"
    for suffix in ("png", "jpg"):
        image_of("RGB").save(tmp_path / f"IMG.{suffix}")
    (tmp_path / "d").mkdir()
    for other in (tmp_path / "IMG.jpg", tmp_path / "d" / ".." / "IMG.jpg"):
        assert "would both be" in refusal(good, tmp_path / "IMG.png", other, "--overwrite")
    said(good, tmp_path / "IMG.png")
    first = out.read_bytes()
    assert "--overwrite" in refusal(good, tmp_path / "IMG.jpg")
    assert "--overwrite" in refusal(good, tmp_path / "IMG.png", "--out", out)
    assert out.read_bytes() == first
    said(good, tmp_path / "IMG.jpg", "--overwrite")
    assert out.read_bytes() != first
    for options in ([], ["--overwrite"]):
        assert "the picture itself" in refusal(
            good, tmp_path / "IMG.png", "--out", tmp_path / "IMG.png", *options
        )
    (tmp_path / "link.png").symlink_to(tmp_path / "IMG.png")
    assert "the picture itself" in refusal(
        good, tmp_path / "IMG.png", "--out", tmp_path / "link.png", "--overwrite"
    )


def test_several_pictures_go_on_after_one_that_is_refused(tmp_path, checkpoint, capsys, refusal):
    (tmp_path / "out").mkdir()
    for name in ("a", "c"):
        image_of("RGB").save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no picture")
    pictures = [str(tmp_path / f"{name}.png") for name in "abc"]
    assert "expected a folder" in refusal(checkpoint(), *pictures, "--out", tmp_path / "x.png")
    assert restore.main([str(checkpoint()), *pictures, "--out", str(tmp_path / "out")]) == 2
    output = capsys.readouterr()
    written = [tmp_path / "out" / f"{name}-restored.png" for name in "ac"]
    assert output.out.splitlines() == [str(path) for path in written]
    assert len(output.err.splitlines()) == 1 and "b.png" in output.err
    assert sorted((tmp_path / "out").iterdir()) == written


def test_task_takes_the_network_of_the_examples(tmp_path, checkpoint, monkeypatch, said, refusal):
    image_of("RGB").save(tmp_path / "p.png")
    monkeypatch.setattr(restore, "NETWORKS", tmp_path)
    assert "super_resolution.safetensors" in refusal("--task", "enlarge", tmp_path / "p.png")
    checkpoint("bilinear").rename(tmp_path / "super_resolution.safetensors")
    checkpoint("jpeg").rename(tmp_path / "jpeg_deblocking.safetensors")
    said("--task", "enlarge", tmp_path / "p.png")
    with Image.open(tmp_path / "p-restored.png") as image:
        assert image.size == (90, 72)
    said(tmp_path / "p.png", "--task=jpeg", "--overwrite")
    assert "one name" in refusal(tmp_path / "p.png")
    assert "invalid choice" in refusal("--task", "sharpen", tmp_path / "p.png")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif", "avif"])
def test_dropped_frames_are_said(tmp_path, checkpoint, said, suffix):
    frames = [image_of("L").point(lambda value, n=n: value // n) for n in (1, 2, 3)]
    path = tmp_path / f"p.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert "3 frames" in said(checkpoint(), path)
    frames[0].save(tmp_path / f"one.{suffix}")
    assert "frames" not in said(checkpoint(), tmp_path / f"one.{suffix}")


# ---- what a picture says beside its pixels


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


def png_chunks(chunks: list[tuple[bytes, bytes]]) -> bytes:
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


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


def test_damaged_checkpoints_are_refused(tmp_path, checkpoint, refusal):
    image_of("RGB").save(tmp_path / "p.png")
    good, path = checkpoint("bilinear"), tmp_path / "broken.safetensors"
    content = good.read_bytes()
    for old, new in (
        (b"factor", b"fbctor"), (b'factor\\": 3', b'factor\\": 0'), (b"kernels", b"kermels"),
        (b"bilinear", b"bilimear"), (b'{\\"kind', b'[\\"kind'),
    ):  # fmt: skip
        assert old in content
        path.write_bytes(content.replace(old, new))
        assert path.name in refusal(path, tmp_path / "p.png")
    path.write_bytes(content[:-4] + struct.pack("<f", np.nan))
    assert "finite" in refusal(path, tmp_path / "p.png")
    path.write_bytes(content[:-4])
    assert path.name in refusal(path, tmp_path / "p.png")
    assert "not a file" in refusal(tmp_path, tmp_path / "p.png")


def test_help_says_what_is_read_and_written(capsys):
    with pytest.raises(SystemExit):
        restore.main(["--help"])
    text = capsys.readouterr().out
    for word in ("Read ", "Written ", "HEIC", "--quality", "--overwrite", "--task", "first frame", "EXIF"):
        assert word in text


def test_heic_is_read_where_pillow_heif_is(tmp_path, checkpoint, said, works):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(image_of("RGB", 64, 64)).save(tmp_path / "p.heic", quality=95)
    said(checkpoint(), tmp_path / "p.heic")
    assert works[0].shape == (3, 64, 64)
