"""Reading a tree of photographs: what is handled, what is named and skipped."""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

from restoration import data  # noqa: E402


def save(path: Path, width: int, height: int, seed: int = 0, **options) -> np.ndarray:
    """A smooth random colour picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.save(path, **options)
    return np.asarray(image)


def test_unusable_files_are_named_and_skipped(tmp_path, capsys):
    save(tmp_path / "deep" / "er" / "good.PNG", 50, 40)
    save(tmp_path / "small.png", 50, 30)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    save(tmp_path / "cut.png", 60, 60)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    Image.fromarray(np.zeros((40, 40), np.int32)).save(tmp_path / "deep32.tif")
    Image.new("CMYK", (40, 40)).save(tmp_path / "ink.jpg")
    Image.new("RGBA", (40, 40), (9, 9, 9, 254)).save(tmp_path / "veil.png")
    (tmp_path / "notes.txt").write_text("ignored")
    (tmp_path / "folder.png").mkdir()
    found = data.read_folder(tmp_path, 31)
    assert [photograph.name for photograph in found] == ["deep/er/good"]
    output = capsys.readouterr()
    assert "1 photographs, 6 skipped" in output.out
    for name in (
        "small.png: 50x30",
        "broken.jpg",
        "cut.png",
        "deep32.tif: its mode is I;",
        "CMYK",
        "veil.png: it has transparent pixels",
    ):
        assert name in output.err
    assert "notes.txt" not in output.err


def test_photographs_are_upright_rgb_and_reduced(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    sideways = save(tmp_path / "camera.png", 50, 40, exif=exif)
    Image.fromarray(sideways[..., 0]).save(tmp_path / "grey.png")
    opaque = np.full((40, 50, 1), 255, np.uint8)
    Image.fromarray(np.concatenate([sideways, opaque], 2)).save(tmp_path / "alpha.png")
    deep = sideways[..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png", exif=exif)
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    large = save(tmp_path / "large.png", 2001, 90)
    found = {name: p.permute(1, 2, 0).numpy() for name, p in data.read_folder(tmp_path, 30)}
    np.testing.assert_array_equal(found["camera"], np.rot90(sideways, -1))
    np.testing.assert_array_equal(found["grey"], sideways[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(found["alpha"], sideways)
    np.testing.assert_array_equal(found["deep"], np.rot90(sideways[..., :1].repeat(3, 2), -1))
    np.testing.assert_array_equal(found["deep.tif"], sideways[..., :1].repeat(3, 2))
    assert found["large"].shape == (30, 667, 3)
    np.testing.assert_allclose(found["large"][0, 0], large[:3, :3].mean((0, 1)), atol=0.51)


def test_same_name_twice_stays_two_pictures(tmp_path):
    save(tmp_path / "a.bmp", 40, 40, seed=1)
    save(tmp_path / "a.png", 40, 40, seed=2)
    assert [photograph.name for photograph in data.read_folder(tmp_path, 31)] == ["a", "a.png"]


def test_every_tenth_is_held_out(tmp_path):
    for number in range(12):
        save(tmp_path / f"{number:02}.png", 162, 40 if number == 0 else 161, seed=number)
    train_set, test_set = data.train_and_test(tmp_path, None)
    assert [photograph.name for photograph in test_set] == ["01", "11"]
    assert [photograph.name for photograph in train_set] == [f"{n:02}" for n in (0, *range(2, 11))]


def test_credits_name_every_embedded_picture():
    photos = EXAMPLES / "photos"
    text = (photos / "CREDITS.md").read_text(encoding="utf-8")
    for folder in ("train", "eval"):
        with (photos / folder / "MANIFEST.csv").open(newline="") as file:
            listed = {f"{folder}/{row['file']}" for row in csv.DictReader(file)}
        assert listed == {f"{folder}/{path.name}" for path in (photos / folder).glob("*.png")}
        assert all(name in text for name in listed)
