"""examples/restore.py: any picture, tile by tile as if whole, and what it refuses."""

import json
import pickle
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

pytest.importorskip("safetensors")
EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import restore  # noqa: E402
from restoration import degrade, network, tiling  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

INPUTS = {
    "jpeg": {"kind": "jpeg", "quality": 25},
    "noisy": {"kind": "noisy", "a": 0.005, "b": 0.0001},
    "bilinear": {"kind": "bilinear", "factor": 3, "sigma": 3.0},
}


def random_network(seed: int = 0, **shape) -> network.Network:
    """One that changes every pixel and looks as far as it can."""
    torch.manual_seed(seed)
    made = network.Network(**shape)
    torch.nn.init.normal_(made.layers[-1].weight, std=0.05)
    return made


@pytest.fixture
def checkpoint(tmp_path):
    """checkpoint(kind) -> the path of a network for that kind of input."""

    def save(kind: str) -> Path:
        path = tmp_path / f"{kind}.safetensors"
        shape = {"kernels": (9, 1, 5), "widths": (8, 8)} if kind == "bilinear" else {"widths": (8, 8)}
        network.save_network(path, random_network(**shape), {"task": "t", "input": json.dumps(INPUTS[kind])})
        return path

    return save


def photograph(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Random but for the range, which leaves room for what the network adds."""
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(40, 215, shape, dtype=np.uint8)


def whole(path: Path, image: np.ndarray) -> np.ndarray:
    """The network on a picture [H, W, 3] in one piece."""
    loaded, _ = network.load_network(path)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        result = loaded(pixels)[0].clamp(0, 1) * 255
    return result.round().to(torch.uint8).permute(1, 2, 0).numpy()


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return int(np.abs(a.astype(int) - b.astype(int)).max())


def run(checkpoint: Path, picture: Path, *options: object) -> np.ndarray:
    assert restore.main([str(checkpoint), str(picture), "--overwrite", *map(str, options)]) == 0
    with Image.open(picture.with_name(picture.stem + "-restored.png")) as image:
        return np.array(image)


@pytest.mark.parametrize("shape", [(9, 5, 5), (9, 1, 5)])
def test_tiles_give_the_whole(shape):
    made = random_network(kernels=shape, widths=(8, 8)).double()
    picture = torch.rand(3, 61, 83, dtype=torch.float64)
    with torch.inference_mode():
        expected = made(picture[None])[0]
    radius = tiling.receptive_radius(made)
    assert radius == sum(kernel // 2 for kernel in shape)

    def function(tile):
        assert max(tile.shape[1:]) <= side + 2 * radius  # what the memory is for
        return made(tile[None])[0]

    for side in (16, 25, 61, 200):
        result = tiling.tiled(function, picture, halo=radius, side=side)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)
    side = 16
    short = tiling.tiled(function, picture, halo=radius - 1, side=side)
    assert (short - expected).abs().max() > 1e-6  # the halo is as wide as it must be, and no wider


def test_rounded_tiles_show_no_seam(checkpoint):
    made, expects = restore.load(checkpoint("jpeg"))
    pixels = torch.from_numpy(photograph(150, 170).transpose(2, 0, 1).copy())
    picture = restore.Picture(pixels, 8, None, {})
    one = restore.restore(made, expects, picture, False, side=1000)
    many = restore.restore(made, expects, picture, False, side=32)
    assert distance(one.numpy(), many.numpy()) <= 1
    assert (one != many).float().mean() < 1e-3


def test_one_command(tmp_path, checkpoint):
    image = photograph(50, 70)
    Image.fromarray(image).save(tmp_path / "a b#1.png")
    command = [sys.executable, EXAMPLES / "restore.py", checkpoint("jpeg"), tmp_path / "a b#1.png"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "a b#1-restored.png")), done.stderr
    with Image.open(tmp_path / "a b#1-restored.png") as restored:
        assert distance(np.array(restored), whole(checkpoint("jpeg"), image)) <= 1
        assert distance(np.array(restored), image) > 10


def test_super_resolution_enlarges_first(tmp_path, checkpoint):
    image = photograph(40, 30)
    Image.fromarray(image).save(tmp_path / "p.png")
    result = run(checkpoint("bilinear"), tmp_path / "p.png")
    assert result.shape == (120, 90, 3)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    large = F.interpolate(pixels, size=(120, 90), mode="bilinear")
    loaded, expects = restore.load(checkpoint("bilinear"))
    with torch.inference_mode():
        expected = (loaded(large)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    assert distance(result, expected) <= 1
    picture = restore.Picture(pixels[0], 8, None, {})
    tiles = restore.restore(loaded, expects, picture, False, side=8).permute(1, 2, 0).numpy()
    assert distance(tiles, expected) <= 1


def test_a_mosaic_is_interpolated_first(tmp_path, checkpoint):
    truth = torch.from_numpy(photograph(46, 38)).permute(2, 0, 1)[None] / 255
    corners = torch.zeros(1, 2, dtype=torch.long)
    mosaic = (truth.gather(1, degrade.bayer(truth, corners)) * 65535).round()
    Image.fromarray(mosaic[0, 0].numpy().astype(np.uint16)).save(tmp_path / "m.png")
    made, expects = restore.load(checkpoint("noisy"))
    picture = restore.read(tmp_path / "m.png")
    with torch.inference_mode():
        expected = (made(degrade.demosaic(mosaic / 65535, corners))[0].clamp(0, 1) * 65535).round().numpy()
    for side in (16, 512):  # an odd phase of a tile would show
        result = restore.restore(made, expects, picture, True, side=side)
        assert distance(result.numpy(), expected) <= 1


def test_mosaic_is_refused_where_it_makes_no_sense(tmp_path, checkpoint, capsys):
    Image.fromarray(photograph(40, 40)).save(tmp_path / "colour.png")
    Image.fromarray(photograph(40, 40, 1)).save(tmp_path / "grey.png")
    for kind, name, says in (
        ("noisy", "colour", "expected a grey picture"),
        ("jpeg", "grey", "expects jpeg"),
    ):
        assert restore.main([str(checkpoint(kind)), str(tmp_path / f"{name}.png"), "--mosaic"]) == 2
        assert says in capsys.readouterr().err


def test_orientation_profile_and_alpha_are_kept(tmp_path, checkpoint):
    image = photograph(40, 60)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"  # turn by 90 degrees
    alpha = np.arange(2400, dtype=np.uint16).reshape(40, 60, 1).astype(np.uint8)
    Image.fromarray(np.concatenate([image, alpha], 2)).save(
        tmp_path / "p.png", exif=exif, icc_profile=b"a colour profile"
    )
    result = run(checkpoint("jpeg"), tmp_path / "p.png")
    upright = np.rot90(image, -1).copy()
    assert distance(result[..., :3], whole(checkpoint("jpeg"), upright)) <= 1
    assert np.array_equal(result[..., 3], np.rot90(alpha[..., 0], -1))
    with Image.open(tmp_path / "p-restored.png") as restored:
        assert restored.info["icc_profile"] == b"a colour profile"
        assert restored.getexif()[0x010F] == "Maker" and 0x0112 not in restored.getexif()


def test_grey_stays_grey_and_16_bits_stay(tmp_path, checkpoint):
    grey = photograph(50, 60, 1)
    expected = whole(checkpoint("jpeg"), grey[..., None].repeat(3, 2)).astype(float).mean(2)
    Image.fromarray(grey).save(tmp_path / "p.png")
    result = run(checkpoint("jpeg"), tmp_path / "p.png")
    assert result.dtype == np.uint8 and result.ndim == 2 and np.abs(result - expected).max() <= 1.2
    deep = grey.astype(np.uint16) * 257 + 3
    Image.fromarray(deep).save(tmp_path / "p.png")
    result = run(checkpoint("jpeg"), tmp_path / "p.png")
    assert result.dtype == np.uint16 and np.abs(result / 257 - expected).max() <= 1.2
    assert len(np.unique(result)) > 1000  # not 8 bits made wide


def test_palette_and_black_and_white(tmp_path, checkpoint):
    image = Image.fromarray(photograph(40, 40)).quantize(16)
    image.save(tmp_path / "p.png")
    expected = whole(checkpoint("jpeg"), np.array(image.convert("RGB")))
    assert distance(run(checkpoint("jpeg"), tmp_path / "p.png"), expected) <= 1
    Image.fromarray(photograph(40, 40, 1) > 128).save(tmp_path / "p.png")
    assert run(checkpoint("jpeg"), tmp_path / "p.png").shape == (40, 40)


def test_16_bit_colours_are_named(tmp_path, checkpoint, capsys):
    values = (photograph(40, 40).astype(">u2") * 257).reshape(40, -1)  # Pillow does not write such a file
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 40, 40, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    assert run(checkpoint("jpeg"), tmp_path / "p.png").dtype == np.uint8
    assert "16 bits are read as 8" in capsys.readouterr().err


def test_refusals_say_why_and_write_nothing(tmp_path, checkpoint, capsys):
    good = checkpoint("jpeg")
    Image.fromarray(photograph(40, 40)).save(tmp_path / "good.png")
    Image.new("CMYK", (40, 40)).save(tmp_path / "ink.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:300])
    save_file({"w": torch.zeros(1)}, tmp_path / "other.safetensors")
    network.save_network(tmp_path / "kindless.safetensors", random_network(widths=(8, 8)), {})

    class Code:
        def __reduce__(self):
            return (Path(tmp_path / "pickle-ran").touch, ())

    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Code()))
    before = sorted(tmp_path.iterdir())
    for model, picture, says in (
        (good, "ink.jpg", "its mode is CMYK"),
        (good, "broken.jpg", "broken.jpg: "),
        (good, "cut.png", "cut.png: "),
        (good, "missing.png", "No such file"),
        (tmp_path / "pickle.pt", "good.png", "no safetensors file"),
        (tmp_path / "missing.pt", "good.png", "missing.pt"),
        (tmp_path / "other.safetensors", "good.png", "lacks 'network'"),
        (tmp_path / "kindless.safetensors", "good.png", "names no input"),
    ):
        assert restore.main([str(model), str(tmp_path / picture)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("restore: ") and says in error
    for out, says in (("good.png", "the picture itself"), ("x.abc", "suffix '.abc'"), ("x", "suffix ''")):
        assert restore.main([str(good), str(tmp_path / "good.png"), "--out", str(tmp_path / out)]) == 2
        assert says in capsys.readouterr().err
    rgba = np.concatenate([photograph(9, 9), np.zeros((9, 9, 1), np.uint8)], 2)
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    assert restore.main([str(good), str(tmp_path / "alpha.png"), "--out", str(tmp_path / "x.jpg")]) == 2
    assert "RGBA" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "alpha.png"])
