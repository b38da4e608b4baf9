"""examples/data.py: photographs out of Debian packages, on packages made for it."""

import hashlib
import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import data as assembling  # noqa: E402

pytestmark = pytest.mark.skipif(not shutil.which("dpkg-deb"), reason="needs Debian's dpkg-deb")


def package(root: Path, name: str, files: dict[str, bytes]) -> Path:
    """A .deb of these files, named as apt-get download names it."""
    for path, content in files.items():
        (root / name / path).parent.mkdir(parents=True, exist_ok=True)
        (root / name / path).write_bytes(content)
    control = root / name / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text(
        f"Package: {name}\nVersion: 1:2-3\nArchitecture: all\nMaintainer: nobody <a@b.c>\nDescription: test\n"
    )
    deb = root / f"{name}_1%3a2-3_all.deb"
    subprocess.run(["dpkg-deb", "--build", root / name, deb], check=True, capture_output=True)
    return deb


def jpeg(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "JPEG")
    return file.getvalue()


def test_photographs_are_area_averages_with_a_manifest(tmp_path, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (95, 2005, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    folder, other = "usr/share/lxqt/wallpapers", "usr/share/doc/lxqt-themes/copyright"
    deb = package(
        tmp_path,
        "lxqt-themes",
        {f"{folder}/drop.png": file.getvalue(), f"{folder}/not-asked-for.png": b"", other: b"free"},
    )
    (line,) = assembling.assemble(deb, tmp_path / "out")
    small = np.asarray(Image.open(tmp_path / "out" / "lxqt-themes-drop.png"))
    means = noise[:93, :2004].reshape(31, 3, 668, 3, 3).mean((1, 3))  # whole squares of 3x3 only
    assert small.shape == (31, 668, 3)
    np.testing.assert_allclose(small, means, atol=0.57)  # Pillow rounds a sum of 5 ninths down
    assert line == {
        "file": "lxqt-themes-drop.png", "width": 668, "height": 31, "source": "debian:lxqt-themes=1:2-3",
        "source_path": f"{folder}/drop.png", "original": "2005x95", "area_factor": 3,
        "licence": "copyright/lxqt-themes.txt", "sha256": hashlib.sha256(small.tobytes()).hexdigest(),
    }  # fmt: skip
    assert (tmp_path / "out" / line["licence"]).read_text() == "free"
    assert "lacks usr/share/lxqt/wallpapers/beam.png" in capsys.readouterr().err


def test_largest_picture_of_an_edj_file_is_taken(tmp_path):
    parts = [b"head \xff\xd8\xff not a picture", jpeg(20, 10, (255, 0, 0)), jpeg(400, 200, (0, 0, 255)),
             jpeg(40, 20, (0, 255, 0))]  # fmt: skip
    path = "usr/share/enlightenment/data/backgrounds/Bamboo.edj"
    deb = package(tmp_path, "enlightenment-data", {path: b"----".join(parts)})
    (line,) = assembling.assemble(deb, tmp_path / "out")
    picture = Image.open(tmp_path / "out" / line["file"])
    assert picture.size == (400, 200) and picture.getpixel((9, 9))[2] > 250


def test_pictures_of_the_test_are_not_assembled():
    """Those of examples/photos/eval come from the same packages."""
    listed = " ".join(names for _, names in assembling.PHOTOGRAPHS.values()).lower().replace("_", "-").split()
    held_out = {path.stem[4:] for path in (EXAMPLES / "photos" / "eval").glob("*.png")}
    assert not held_out & set(listed) and len(listed) == 43


def test_used_folder_is_refused(tmp_path, monkeypatch, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    monkeypatch.setattr(sys, "argv", ["data.py", "--from-debian", str(tmp_path)])
    assert assembling.main() == 2
    assert "holds other files" in capsys.readouterr().err
