"""Pictures of every format through examples/restore.py: the output kept, or refused before the work."""

import struct

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("lightning")
pytest.importorskip("safetensors")

from restoring import decibels, image_of, levels, restore

pytestmark = pytest.mark.filterwarnings("ignore:IM image format is deprecated")
Image.init()
SUFFIXES: dict[str, str] = {}
for suffix, name in Image.registered_extensions().items():
    SUFFIXES.setdefault(name, suffix)


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
