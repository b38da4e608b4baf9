"""The example scripts, on few steps: what they write, how they stop and go on, what they refuse."""

import csv
import dataclasses
import io
import json
import os
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote_to_bytes

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

pytest.importorskip("lightning")
pytest.importorskip("safetensors")
EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import jpeg_deblocking  # noqa: E402
from restoration import data, evaluate, files, task, train  # noqa: E402
from restoration.network import Network  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

LOSSES = ["l2", "l1", "mix"]


def run(*options: object, loss: nn.Module | None = None) -> int:
    """The script with a small network, in this process; `loss` replaces that of l1."""
    small = dataclasses.replace(
        jpeg_deblocking.TASK,
        network=lambda: Network(widths=(4, 4)),
        losses=jpeg_deblocking.TASK.losses | ({"l1": loss} if loss else {}),
    )
    few = ["--steps", "6", "--batch-size", "2", "--accelerator", "cpu"]
    return task.run(small, [*few, *map(str, options)])


def save(path: Path, width: int, height: int, seed: int = 0, **options) -> np.ndarray:
    """A smooth random colour picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    image.save(path, **options)
    return np.asarray(image)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs, of which the first will be held out."""
    for number in range(3):
        save(tmp_path / "photos" / f"{number}.png", 176, 170, seed=number)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on the embedded photographs."""
    folder = tmp_path_factory.mktemp("run")
    assert run("--out", folder) == 0
    return folder


def read_table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def variants(folder: Path) -> list[str]:
    """In the order of the table."""
    return list(dict.fromkeys(row["variant"] for row in read_table(folder)))


def pixels(path: Path) -> Tensor:
    with Image.open(path) as image:
        return data.from_image(image)


class Page(HTMLParser):
    """The elements of index.html: [(tag, attributes)]."""

    def __init__(self, folder: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed((folder / "index.html").read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, text):
        self.text += text

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_table_has_every_value_once(finished):
    rows = read_table(finished)
    keys = {(row["variant"], row["picture"], row["metric"]) for row in rows}
    assert len(rows) == len(keys) == 4 * 4 * 3  # variants, pictures, metrics
    assert variants(finished) == ["jpeg", *LOSSES]
    assert {(row["task"], row["seed"]) for row in rows} == {("jpeg_deblocking", "0")}


def test_table_says_what_the_saved_pictures_say(finished):
    for row in read_table(finished)[::5]:
        folder = finished / "pictures" / row["picture"]
        measured = evaluate.measure(pixels(folder / f"{row['variant']}.png"), pixels(folder / "truth.png"))
        assert float(row["value"]) == pytest.approx(measured[row["metric"]], rel=1e-6)


def test_markdown_table_has_the_means(finished):
    rows = [r for r in read_table(finished) if r["variant"] == "mix" and r["metric"] == "SSIM"]
    mean = sum(float(row["value"]) for row in rows) / 4
    lines = (finished / "table.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "| metric | jpeg | l2 | l1 | mix |"
    (line,) = (line for line in lines if line.startswith("| SSIM"))
    assert line.split("|")[5].strip(" *") == f"{mean:.4f}"


@pytest.mark.parametrize("loss", LOSSES)
def test_checkpoint_restores_the_saved_picture(finished, loss):
    network = Network(widths=(4, 4)).to(memory_format=torch.channels_last)
    network.load_state_dict(load_file(finished / "checkpoints" / f"{loss}.safetensors"))
    for folder in sorted((finished / "pictures").iterdir()):
        with torch.inference_mode():
            output = network(pixels(folder / "jpeg.png")[None] / 255)[0]
        saved = pixels(folder / f"{loss}.png")
        assert torch.equal((output.clamp(0, 1) * 255).round(), saved.float())


def test_losses_start_alike_and_end_apart(finished):
    weights = [load_file(finished / "checkpoints" / f"{loss}.safetensors") for loss in LOSSES]
    first = [w["layers.0.weight"] for w in weights]
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])
    # Adam moves a weight by about the learning rate a step, however large the loss.
    assert (first[0] - first[2]).abs().max() < 2 * 6 * train.LEARNING_RATE


def test_nothing_unfinished_is_left(finished):
    assert not [*finished.rglob("*.part"), *finished.rglob("*.ckpt")]


def test_page_shows_every_variant_with_text(finished):
    page = Page(finished)
    images = page.all("img")
    assert len(images) == 4 * 5
    for image in images:
        assert image["alt"]
        assert (finished / image["src"]).is_file()
    assert all((finished / link["href"]).is_file() for link in page.all("a"))
    radios = {i["id"] for i in page.all("input")}
    assert radios == {label["for"] for label in page.all("label")}


def test_page_needs_no_network(finished):
    page = Page(finished)
    addresses = [v for _, a in page.elements for k, v in a.items() if k in ("src", "href")]
    assert addresses and not [address for address in addresses if ":" in address]
    assert "url(" not in page.text and "@import" not in page.text


def test_file_names_are_escaped(tmp_path):
    name = '<b>"x" & #1?%41'
    photos = tmp_path / "photos"
    save(photos / f"{name}.png", 170, 170)
    save(photos / "z.png", 40, 40)
    assert run("--out", tmp_path / "run", "--data", photos, "--losses", "l2") == 0
    page = Page(tmp_path / "run")
    assert not page.all("b") and page.text.count(name) == 1
    for image in page.all("img"):
        assert image["alt"].startswith(name)
        assert (tmp_path / "run" / os.fsdecode(unquote_to_bytes(image["src"]))).is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file name must be text")
def test_file_name_that_is_no_text(tmp_path):
    photos = tmp_path / "photos"
    save(photos / os.fsdecode(b"caf\xe9.png"), 170, 170)
    save(photos / "z.png", 40, 40)
    assert run("--out", tmp_path / "run", "--data", photos, "--losses", "l2") == 0
    assert {row["picture"] for row in read_table(tmp_path / "run")} == {"caf?"}
    source = Page(tmp_path / "run").all("img")[0]["src"]
    assert (tmp_path / "run" / os.fsdecode(unquote_to_bytes(source))).is_file()


class InterruptedL1(nn.Module):
    """l1 that meets Ctrl-C in its fifth step."""

    calls = 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 5:
            raise KeyboardInterrupt
        return nn.functional.l1_loss(x, y)


def test_interrupted_run_is_readable_and_resumes_exactly(tmp_path, photos, monkeypatch, capsys):
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run("--data", photos, "--out", whole) == 0

    assert run("--data", photos, "--out", broken, loss=InterruptedL1()) == 130
    assert "--resume" in capsys.readouterr().err
    assert variants(broken) == ["jpeg", "l2"]
    assert len(Page(broken).all("img")) == 3  # jpeg, l2, truth
    state = torch.load(broken / "checkpoints" / "l1.ckpt", weights_only=True)
    assert state["step"] == 4

    l1 = InterruptedL1()
    l1.calls = 5  # past the interruption
    assert run("--data", photos, "--out", broken, "--resume", loss=l1) == 0
    assert l1.calls == 5 + 2
    for name in LOSSES:
        left, right = (load_file(f / "checkpoints" / f"{name}.safetensors") for f in (whole, broken))
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    for left, right in zip(read_table(whole), read_table(broken), strict=True):
        assert float(left.pop("value")) == pytest.approx(float(right.pop("value")), rel=1e-6)
        assert left == right


def test_resume_adds_a_loss_and_keeps_the_others(tmp_path, photos):
    out = tmp_path / "run"
    assert run("--data", photos, "--out", out, "--losses", "mix") == 0
    before = (out / "checkpoints" / "mix.safetensors").read_bytes()
    more = ["--data", photos, "--out", out, "--losses", "l1", "--resume"]
    assert run(*more, loss=InterruptedL1()) == 130
    assert variants(out) == ["jpeg", "mix"]
    assert run(*more) == 0
    assert variants(out) == ["jpeg", "l1", "mix"]
    assert (out / "checkpoints" / "mix.safetensors").read_bytes() == before


def test_used_folder_is_refused(finished, tmp_path, photos, capsys):
    before = (finished / "table.csv").stat().st_mtime_ns
    assert run("--out", finished) == 2
    assert "--resume" in capsys.readouterr().err
    assert run("--out", finished, "--resume", "--seed", 7) == 2
    assert "seed 0, not 7" in capsys.readouterr().err
    assert run("--out", finished, "--resume", "--data", photos) == 2
    assert "train 8 photographs" in capsys.readouterr().err
    assert (finished / "table.csv").stat().st_mtime_ns == before
    assert run("--out", photos) == 2
    assert "holds other files" in capsys.readouterr().err


def test_seed_decides_the_network(tmp_path, photos):
    weights = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / str(number)
        assert run("--data", photos, "--out", out, "--losses", "l1", "--seed", seed) == 0
        weights.append(load_file(out / "checkpoints" / "l1.safetensors")["layers.0.weight"])
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_replacing_keeps_the_old_file_on_error(tmp_path):
    path = tmp_path / "file"
    files.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"


def test_learning_rate_rises_a_tenth_and_falls_to_zero():
    rates = [train.learning_rate(step, 100) for step in range(100)]
    assert rates.index(max(rates)) == 9 and rates[0] < 0.11 * rates[9]
    assert 0 < rates[99] < 1e-3 * rates[9]
    assert train.learning_rate(0, 1) == train.LEARNING_RATE


def test_network_starts_as_the_identity_and_keeps_the_size():
    image = torch.rand(2, 3, 33, 41)
    network = Network()
    assert torch.equal(network(image), image)
    shapes = [tuple(p.shape) for p in network.parameters() if p.dim() == 4]
    assert shapes == [(64, 3, 9, 9), (64, 64, 5, 5), (3, 64, 5, 5)]


def test_mix_is_the_papers_loss_on_a_patch():
    """One position a patch, and the window as wide as the patch."""
    x, y = torch.rand(2, 4, 3, 31, 31)
    offsets = torch.arange(-15.0, 16.0)
    total_cs, window = 1.0, None
    for sigma in (0.5, 1, 2, 4, 8):
        line = torch.exp(-0.5 * (offsets / sigma) ** 2)
        window = torch.outer(line, line) / line.sum() ** 2

        def mean(image, window=window):
            return (image * window).sum((-2, -1))

        mu_x, mu_y = mean(x), mean(y)
        c1, c2 = 0.01**2, 0.03**2
        s_xx, s_yy = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2
        total_cs = total_cs * (2 * (mean(x * y) - mu_x * mu_y) + c2) / (s_xx + s_yy + c2)
    luminance = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    l1 = ((x - y).abs() * window).sum((-2, -1)) * 255
    expected = (0.84 * (1 - luminance * total_cs) + 0.16 * l1).mean()
    loss = jpeg_deblocking.TASK.losses["mix"](x, y)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)


def embedded(name: str) -> Tensor:
    return pixels(EXAMPLES / "photos" / name)


def test_jpeg_is_deterministic_quality_25_with_full_colour():
    picture = embedded("eval/004-flower.png")
    once = jpeg_deblocking.jpeg(picture)
    assert once.shape == picture.shape and once.dtype == torch.uint8
    assert torch.equal(once, jpeg_deblocking.jpeg(picture))

    file = io.BytesIO()
    data.to_image(picture).save(file, "JPEG", quality=25, subsampling=0)
    assert torch.equal(once, data.from_image(Image.open(file)))
    # Chroma at half resolution would blur a one-pixel red and blue checkerboard away.
    board = torch.zeros(3, 32, 32, dtype=torch.uint8)
    board[0, ::2], board[2, 1::2] = 255, 255
    red = jpeg_deblocking.jpeg(board)[0].float()
    assert red[::2].mean() - red[1::2].mean() > 100


def test_embedded_pictures_after_jpeg_are_in_the_expected_band(finished):
    values = {r["picture"]: float(r["value"]) for r in read_table(finished)
              if (r["variant"], r["metric"]) == ("jpeg", "PSNR")}  # fmt: skip
    assert len(values) == 4
    assert all(22 < value < 33 for value in values.values())
    assert 26.0 < sum(values.values()) / 4 < 27.3  # measured: 26.64 dB


def test_patches_lie_at_stride_7_in_both_pictures():
    truth = torch.arange(3 * 45 * 40, dtype=torch.int32).remainder(251).to(torch.uint8)
    truth = truth.reshape(3, 45, 40)  # the last row of patches just fits
    pairs = [data.Pair("a", 255 - truth, truth), data.Pair("b", truth, truth.flip(1))]
    patches = data.Patches(pairs)
    corners = [(row, column) for row in (0, 7, 14) for column in (0, 7)]
    assert len(patches) == 2 * len(corners)
    for index, (row, column) in enumerate(corners):
        for number, pair in enumerate(pairs):
            degraded, target = patches[number * len(corners) + index]
            cut = (slice(None), slice(row, row + 31), slice(column, column + 31))
            torch.testing.assert_close(degraded, pair.degraded[cut] / 255)
            torch.testing.assert_close(target, pair.truth[cut] / 255)


def test_unusable_files_are_named_and_skipped(tmp_path, capsys):
    save(tmp_path / "deep" / "er" / "good.PNG", 50, 40)
    save(tmp_path / "small.png", 50, 30)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    save(tmp_path / "cut.png", 60, 60)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    Image.fromarray(np.zeros((40, 40), np.uint16)).save(tmp_path / "deep16.png")
    Image.new("CMYK", (40, 40)).save(tmp_path / "ink.jpg")
    (tmp_path / "notes.txt").write_text("ignored")
    (tmp_path / "folder.png").mkdir()
    found = data.read_folder(tmp_path, 31)
    assert [photograph.name for photograph in found] == ["deep/er/good"]
    output = capsys.readouterr()
    assert "1 photographs, 5 skipped" in output.out
    for name in (
        "small.png: 50x30",
        "broken.jpg",
        "cut.png",
        "deep16.png: its mode is I;16",
        "CMYK",
    ):
        assert name in output.err
    assert "notes.txt" not in output.err


def test_photographs_are_upright_rgb_and_reduced(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees
    sideways = save(tmp_path / "camera.png", 50, 40, exif=exif)
    Image.fromarray(sideways[..., 0]).save(tmp_path / "grey.png")
    opaque = np.full((40, 50, 1), 99, np.uint8)
    Image.fromarray(np.concatenate([sideways, opaque], 2)).save(tmp_path / "alpha.png")
    large = save(tmp_path / "large.png", 2001, 90)
    found = {name: p.permute(1, 2, 0).numpy() for name, p in data.read_folder(tmp_path, 30)}
    np.testing.assert_array_equal(found["camera"], np.rot90(sideways, -1))
    np.testing.assert_array_equal(found["grey"], sideways[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(found["alpha"], sideways)
    assert found["large"].shape == (30, 667, 3)
    np.testing.assert_allclose(found["large"][0, 0], large[:3, :3].mean((0, 1)), atol=0.51)


def test_same_name_twice_stays_two_pictures(tmp_path):
    save(tmp_path / "a.bmp", 40, 40, seed=1)
    save(tmp_path / "a.png", 40, 40, seed=2)
    assert [photograph.name for photograph in data.read_folder(tmp_path, 31)] == ["a", "a.png"]


def test_every_tenth_is_held_out(tmp_path):
    for number in range(12):
        save(tmp_path / f"{number:02}.png", 162, 40 if number == 0 else 161)
    train_set, test_set = data.train_and_test(tmp_path, None)
    assert [photograph.name for photograph in test_set] == ["01", "11"]
    assert [photograph.name for photograph in train_set] == [f"{n:02}" for n in (0, *range(2, 11))]


def test_without_photographs_the_run_says_why(tmp_path, photos, capsys):
    out = tmp_path / "run"
    assert run("--out", out, "--data", tmp_path / "nowhere") == 2
    assert "is not a folder" in capsys.readouterr().err
    save(tmp_path / "tiny" / "a.png", 100, 100)
    assert run("--out", out, "--data", tmp_path / "tiny") == 2
    assert "161" in capsys.readouterr().err
    assert run("--out", out, "--data", photos, "--test", tmp_path / "tiny") == 2
    assert "a.png: 100x100" in capsys.readouterr().err
    assert not out.exists()


def test_settings_are_on_record(finished):
    settings = json.loads((finished / "settings.json").read_text())
    assert settings["steps"] == 6 and settings["seed"] == 0
    assert str(EXAMPLES) not in json.dumps(settings)


def test_verdicts_compare_both_metrics():
    def rows(variant, psnr, ssim):
        values = {"PSNR": psnr, "SSIM": ssim, "MS-SSIM": 0.9}
        return [evaluate.Row("t", variant, 0, "p", metric, v) for metric, v in values.items()]

    table = [
        *rows("jpeg", 30, 0.8),
        *rows("l1", 31, 0.9),
        *rows("l2", 31, 0.7),
        *rows("mix", 29, 0.9),
    ]
    says = evaluate.verdicts(table, "jpeg")
    assert [line.split(" jpeg")[0] for line in says] == [
        "l1 beats", "l2 does NOT beat", "mix does NOT beat"
    ]  # fmt: skip


def test_credits_name_every_embedded_picture():
    photos = EXAMPLES / "photos"
    text = (photos / "CREDITS.md").read_text(encoding="utf-8")
    for folder in ("train", "eval"):
        with (photos / folder / "MANIFEST.csv").open(newline="") as file:
            listed = {f"{folder}/{row['file']}" for row in csv.DictReader(file)}
        assert listed == {f"{folder}/{path.name}" for path in (photos / folder).glob("*.png")}
        assert all(name in text for name in listed)
