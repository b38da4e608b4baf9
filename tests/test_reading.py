"""Reading a tree of photographs: what is handled, what is named and skipped."""

import csv
import hashlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
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


def test_sound_pixels_are_not_skipped_for_what_their_exif_says(tmp_path, capsys):
    image = Image.fromarray(save(tmp_path / "plain.png", 60, 50))
    exif = bytes(40), b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04six\0\0\0\0\0", b"MM\0*\xff\xff\xff\xff"
    for number, content in enumerate(exif):
        image.save(tmp_path / f"{number}.jpg", exif=b"Exif\0\0" + content, dpi=(300, 300))
    image.save(tmp_path / "list.jpg")
    whole = (tmp_path / "list.jpg").read_bytes()
    index = b"\xff\xe2" + struct.pack(">H", 18) + b"MPF\0MM\0*\0\0\0\x08\0\x01"  # cut short
    (tmp_path / "list.jpg").write_bytes(whole[:2] + index + whole[2:])
    assert len(data.read_folder(tmp_path, 31)) == 5
    assert "5 photographs, 0 skipped" in capsys.readouterr().out


def test_every_kind_of_picture_is_read_or_counted(tmp_path, capsys):
    for number, name in enumerate(("a.avif", "b.jfif", "c.mpo", "d.jpe", "e.jp2", "f.pgm", "g.PNG")):
        if Path(name).suffix.lower() in Image.registered_extensions():
            image = Image.fromarray(save(tmp_path / "x.png", 50, 40, number))
            more = {"save_all": True, "append_images": [image]} if name == "c.mpo" else {}
            (image.convert("L") if name == "f.pgm" else image).save(tmp_path / name, **more)
    (tmp_path / "x.png").unlink()
    for name in ("h.heic", "i.heic", "j.cr2", "k.mov", "l", "MANIFEST.csv", "notes.txt"):
        (tmp_path / name).write_bytes(b"not read")
    for name in (".thumbnails/a.png", ".hidden.png", "deep/.cache/b.jpg"):
        save(tmp_path / name, 50, 40, seed=9)
    found = [photograph.name for photograph in data.read_folder(tmp_path, 31)]
    assert found == [name for name in "abcdefg" if name != "a" or ".avif" in Image.registered_extensions()]
    error = capsys.readouterr().err
    heic = "" if ".heic" in Image.registered_extensions() else ", 2 .heic"
    assert f"not read: 1 without a suffix, 1 .cr2{heic}, 1 .mov\n" in error
    assert "frames" not in error  # the previews of a camera are none


def test_frames_that_are_not_read_are_said(tmp_path, capsys):
    frames = [Image.fromarray(save(tmp_path / "a.png", 50, 40, seed)) for seed in range(3)]
    frames[0].save(tmp_path / "b.tif", save_all=True, append_images=frames[1:])
    found = {name: pixels.permute(1, 2, 0).numpy() for name, pixels in data.read_folder(tmp_path, 31)}
    np.testing.assert_array_equal(found["b"], np.asarray(frames[0]))
    assert "b.tif: the first of 3 frames" in capsys.readouterr().err


def test_results_are_no_photographs(tmp_path, capsys):
    save(tmp_path / "a.png", 50, 40, 1)
    save(tmp_path / "a-restored.png", 50, 40, 2)
    save(tmp_path / "runs" / "one" / "pictures" / "t" / "b" / "mix.png", 50, 40, 3)
    settings = {"tasks": {}, "train": "", "test": "", "steps": 1, "batch_size": 1, "precision": "32-true"}
    (tmp_path / "runs" / "one" / "settings.json").write_text(json.dumps(settings))
    save(tmp_path / "runs" / "two" / "c.png", 50, 40, 4)
    save(tmp_path / "mine" / "d.png", 50, 40, 5)
    (tmp_path / "mine" / "settings.json").write_text('{"of": "another program"}')
    found = data.read_folder(tmp_path, 31, out=tmp_path / "mine" / ".." / "runs" / "two")
    assert [photograph.name for photograph in found] == ["a", "mine/d"]
    error = capsys.readouterr().err
    assert f"left out {tmp_path}/runs/one: a run" in error and f"left out {tmp_path}/runs/two: a run" in error
    assert "left out 1 *-restored.*" in error


def test_copies_are_left_out(tmp_path, capsys):
    """Of every photograph under two names and in two formats no copy is trained on, if it is in the test."""
    for number in range(12):
        pixels = save(tmp_path / f"{number:02}.png", 170, 161, number)
        Image.fromarray(pixels).save(tmp_path / f"copy-{number:02}.bmp")
    train_set, test_set = data.train_and_test(tmp_path, None)
    pictures = [pixels.numpy().tobytes() for _, pixels in [*train_set, *test_set]]
    assert len(pictures) == len(set(pictures)) == 12 and len(test_set) == 2
    assert "left out 12 copies" in capsys.readouterr().out
    other = tmp_path / "test"
    other.mkdir()
    for number in (3, 4):
        (tmp_path / f"{number:02}.png").rename(other / f"another-{number}.png")
    train_set, test_set = data.train_and_test(tmp_path, other)
    assert len(test_set) == 2 and len(train_set) == 10
    assert not {p.pixels.numpy().tobytes() for p in train_set} & {
        p.pixels.numpy().tobytes() for p in test_set
    }


def test_near_copies_in_the_test_are_named(tmp_path, capsys):
    embedded = sorted((EXAMPLES / "photos" / "train").glob("*.png"))[:4]
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
    for number, path in enumerate(embedded):
        with Image.open(path) as image:
            image.save(tmp_path / "train" / f"{number}.png")
            if number == 1:
                image.save(tmp_path / "test" / "compressed.jpg", quality=30)
            elif number == 2:
                image.resize((image.width * 2 // 3, image.height * 2 // 3)).save(
                    tmp_path / "test" / "small.png"
                )
            elif number == 3:
                image.crop((0, 0, 300, 300)).save(tmp_path / "test" / "part.png")
    train_set, _ = data.train_and_test(tmp_path / "train", tmp_path / "test")
    assert len(train_set) == 4
    lines = [line for line in capsys.readouterr().err.splitlines() if "looks like" in line]
    assert lines == [
        f"{a} looks like {b}, which is in the test" for a, b in (("1", "compressed"), ("2", "small"))
    ]


def test_different_photographs_are_no_near_copies():
    every = [p for part in ("train", "eval") for p in data.read_folder(EXAMPLES / "photos" / part, 33, False)]
    for number in range(len(every)):
        assert not data.near_copies(every[number : number + 1], every[:number] + every[number + 1 :])


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX")
def test_folders_one_may_not_enter_are_named(tmp_path):
    """As nobody, if the tests run as root, whom nothing is forbidden."""
    save(tmp_path / "photos" / "a.png", 50, 40)
    for name in ("closed", "secret"):
        save(tmp_path / "photos" / name / "b.png", 50, 40, seed=1)
    (tmp_path / "photos" / "a.bmp").write_bytes(b"")
    code = f"""
import os, sys
sys.path.insert(0, {str(EXAMPLES)!r})
from pathlib import Path
from restoration import data
root = Path({str(tmp_path / "photos")!r})
for path in [root, *root.parents][:-1]:
    if path.stat().st_uid == os.getuid(): path.chmod(0o755)
(root / "closed").chmod(0)
(root / "secret").chmod(0o444)
(root / "a.bmp").chmod(0)
if os.getuid() == 0: os.setuid(65534)
print([p.name for p in data.read_folder(root, 31)])
try: data.read_folder(root / "closed", 31)
except data.NoPhotographs as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    (tmp_path / "photos" / "closed").chmod(0o755)
    (tmp_path / "photos" / "secret").chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert "['a']" in done.stdout and "closed may not be read" in done.stdout
    assert "closed: Permission denied" in done.stderr and "secret/b.png: Permission denied" in done.stderr
    assert "a.bmp: Permission denied" in done.stderr


def test_credits_name_every_embedded_picture():
    photos = EXAMPLES / "photos"
    text = (photos / "CREDITS.md").read_text(encoding="utf-8")
    for folder in ("train", "eval"):
        with (photos / folder / "MANIFEST.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        listed = {f"{folder}/{row['file']}" for row in rows}
        for row in rows:
            assert hashlib.sha256((photos / folder / row["file"]).read_bytes()).hexdigest() == row["sha256"]
        assert listed == {f"{folder}/{path.name}" for path in (photos / folder).glob("*.png")}
        assert all(name in text for name in listed)
