"""The example scripts, on few steps: what they write, how they stop and go on, what they refuse."""

import csv
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor, nn

pytest.importorskip("lightning")
pytest.importorskip("safetensors")
EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import jpeg_deblocking  # noqa: E402
from restoration import data, evaluate, files, losses, progress, run, train  # noqa: E402
from restoration.degrade import Jpeg  # noqa: E402
from restoration.network import Network, load_network, save_network  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

LOSSES = ["l2", "l1", "mix"]
SMALL = dataclasses.replace(jpeg_deblocking.TASK, network={"widths": (4, 4)})
NAME = SMALL.name
ENDLESS = str(train.COMPILE_FROM - 1)  # steps that last until the run is stopped


def script(*options: object) -> int:
    """The script with a small network, in this process unless --workers says otherwise."""
    few = ["--steps", "6", "--batch-size", "2", "--accelerator", "cpu", "--workers", "1"]
    parser = run.parser([SMALL], SMALL.title, NAME)
    return run.main(SMALL.title, [SMALL], parser.parse_args([*few, *map(str, options)]))


def save(path: Path, seed: int, side: int = 170) -> None:
    """A smooth random colour picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((side + 6, side), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs, of which the first will be held out."""
    for number in range(3):
        save(tmp_path / "photos" / f"{number}.png", number)
    return tmp_path / "photos"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run on the embedded photographs."""
    folder = tmp_path_factory.mktemp("run")
    assert script("--out", folder) == 0
    return folder


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def variants(folder: Path) -> list[str]:
    """In the order of the table."""
    return list(dict.fromkeys(row["variant"] for row in read_csv(folder / "rows.csv")))


def weights(folder: Path, loss: str, seed: int = 0) -> dict[str, Tensor]:
    return load_file(folder / "checkpoints" / NAME / f"{loss}-{seed}.safetensors")


def pixels(path: Path) -> Tensor:
    with Image.open(path) as image:
        return data.from_image(image)


def test_rows_have_every_value_once(finished):
    rows = read_csv(finished / "rows.csv")
    keys = {(row["variant"], row["picture"], row["metric"]) for row in rows}
    assert len(rows) == len(keys)
    assert sum(row["metric"] in evaluate.DIGITS for row in rows) == 4 * 4 * 9  # variants, pictures, metrics
    assert variants(finished) == ["jpeg", *LOSSES]
    assert {(row["task"], row["seed"]) for row in rows} == {(NAME, "0")}


def test_rows_say_what_the_saved_pictures_say(finished):
    measured: dict[tuple[str, str], dict[str, float]] = {}
    for row in read_csv(finished / "rows.csv")[::20]:
        folder = finished / "pictures" / NAME / row["picture"]
        key = row["picture"], row["variant"]
        if key not in measured:
            measured[key] = evaluate.measure(
                pixels(folder / f"{row['variant']}.png"), pixels(folder / "truth.png")
            )
        if row["metric"] in evaluate.DIGITS:
            assert float(row["value"]) == pytest.approx(measured[key][row["metric"]], rel=1e-6)


def test_table_has_the_means_and_their_intervals(finished):
    values = [float(r["value"]) for r in read_csv(finished / "rows.csv")
              if (r["variant"], r["metric"]) == ("mix", "SSIM")]  # fmt: skip
    (cell,) = (c for c in read_csv(finished / "table.csv") if (c["loss"], c["metric"]) == ("mix", "SSIM"))
    assert float(cell["mean"]) == pytest.approx(sum(values) / 4, rel=1e-5)
    assert min(values) <= float(cell["lo"]) < float(cell["mean"]) < float(cell["hi"]) <= max(values)
    assert (cell["task"], cell["pictures"], cell["seeds"]) == (NAME, "4", "1")
    lines = (finished / "table.md").read_text(encoding="utf-8").splitlines()
    assert "| metric | jpeg | l2 | l1 | mix |" in lines
    line, beside_paper = (line for line in lines if line.startswith("| SSIM"))
    assert beside_paper.split("|")[3].strip() == "0.9410"  # the paper's JPEG
    assert line.split("|")[5].strip(" *") == f"{sum(values) / 4:.4f}"


@pytest.mark.parametrize("loss", LOSSES)
def test_checkpoint_restores_the_saved_picture(finished, loss):
    network, about = load_network(finished / "checkpoints" / NAME / f"{loss}-0.safetensors")
    assert about["task"] == NAME and about["loss"] == loss
    assert json.loads(about["input"]) == {"kind": "jpeg", "quality": 25, "subsampling": "4:4:4"}
    network.to(memory_format=torch.channels_last)
    for folder in sorted((finished / "pictures" / NAME).iterdir()):
        with torch.inference_mode():
            output = network(pixels(folder / "jpeg.png")[None] / 255)[0]
        saved = pixels(folder / f"{loss}.png")
        assert torch.equal((output.clamp(0, 1) * 255).round(), saved.float())


def test_file_that_is_no_network_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="metadata lacks 'network'"):
        load_network(tmp_path / "other.safetensors")


def test_losses_start_alike_and_end_apart(finished):
    first = [weights(finished, loss)["layers.0.weight"] for loss in LOSSES]
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])
    # Adam moves a weight by about the learning rate a step, however large the loss.
    assert (first[0] - first[2]).abs().max() < 2 * 6 * max(SMALL.rates.values())


def test_nothing_unfinished_is_left(finished):
    assert not [*finished.rglob("*.part"), *finished.rglob("*.ckpt")]


def test_learning_curve_is_logged(finished):
    points = read_csv(finished / "curves.csv")
    assert [(p["variant"], p["step"]) for p in points] == [(v, str(n)) for v in LOSSES for n in range(1, 7)]
    for point in points:
        # The mean of the PSNRs is at least the PSNR of the mean: -log is convex.
        assert 20 < -10 * np.log10(float(point["test_l2"])) <= float(point["test_psnr"]) < 40
        assert float(point["loss_share"]) > 0 and float(point["step_seconds"]) > 0


def test_page_credits_and_claims_are_written(finished):
    html = (finished / "index.html").read_text(encoding="utf-8")
    for file in (finished / "pictures" / NAME).rglob("*.png"):
        assert file.relative_to(finished).as_posix() in html
    assert (finished / "CREDITS.md").is_file()
    assert "## 1. " in (finished / "claims.md").read_text(encoding="utf-8")


class Interrupted(nn.Module):
    """l1 that meets Ctrl-C in its fifth call."""

    calls = 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 5:
            raise KeyboardInterrupt
        return nn.functional.l1_loss(x, y)


@pytest.fixture
def interrupted(monkeypatch) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(train, "loss_seconds", lambda *_: 0.0)  # it calls the loss as well
    monkeypatch.setitem(losses.LOSSES, "l1", Interrupted())


def test_interrupted_run_is_readable_and_resumes_exactly(tmp_path, photos, monkeypatch, interrupted, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    stop = losses.LOSSES["l1"]
    assert script("--data", photos, "--out", broken) == 130
    assert "--resume" in capsys.readouterr().err
    assert variants(broken) == ["jpeg", "l2"] and (broken / "index.html").is_file()
    state = torch.load(broken / "checkpoints" / NAME / "l1-0.ckpt", weights_only=True)
    assert state["step"] == 4

    assert script("--data", photos, "--out", broken, "--resume") == 0
    assert stop.calls == 5 + 2
    monkeypatch.setitem(losses.LOSSES, "l1", nn.L1Loss())
    assert script("--data", photos, "--out", whole) == 0
    for name in LOSSES:
        left, right = weights(whole, name), weights(broken, name)
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert read_csv(whole / "rows.csv") == read_csv(broken / "rows.csv")
    steps = [(p["variant"], p["step"]) for p in read_csv(broken / "curves.csv")]
    assert sorted(steps) == sorted((v, str(n)) for v in LOSSES for n in range(1, 7))


def test_killed_run_loses_at_most_one_interval(tmp_path):
    """SIGKILL, at any moment: what is on the disk is whole and goes on."""
    out = tmp_path / "run"
    command = [sys.executable, EXAMPLES / "super_resolution.py", "--out", out, "--losses", "l1", "--steps",
               ENDLESS, "--batch-size", "1", "--train-only", "--accelerator", "cpu"]  # fmt: skip
    checkpoint = out / "checkpoints" / "super_resolution" / "l1-0.ckpt"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        limit = time.monotonic() + 90
        while not checkpoint.exists() and time.monotonic() < limit and process.poll() is None:
            time.sleep(0.05)
        process.kill()
        assert checkpoint.exists(), process.stderr.read()
    state = torch.load(checkpoint, weights_only=True)
    assert state["step"] > 0 and state["step"] % train.CHECKPOINT_EVERY == 0
    assert not (out / "rows.csv").exists()


def test_networks_side_by_side_are_those_one_after_the_other(finished, tmp_path):
    assert script("--out", tmp_path / "run", "--workers", 2) == 0
    for name in LOSSES:
        one, two = weights(finished, name), weights(tmp_path / "run", name)
        # The first process may add in another order, with more than one thread.
        assert all(torch.allclose(one[key], two[key], rtol=0, atol=1e-4) for key in one), name
    keys = [row["variant"] for row in read_csv(tmp_path / "run" / "rows.csv")]
    assert keys == [row["variant"] for row in read_csv(finished / "rows.csv")]
    assert len(read_csv(tmp_path / "run" / "curves.csv")) == len(LOSSES) * 6


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_workers_stop_with_the_first_process(tmp_path, signal_number):
    out = tmp_path / "run"
    command = [sys.executable, EXAMPLES / "super_resolution.py", "--out", out, "--losses", "l1", "l2",
               "--steps", ENDLESS, "--batch-size", "1", "--train-only", "--accelerator", "cpu", "--workers",
               "2"]  # fmt: skip
    folder = out / "checkpoints" / "super_resolution"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                          start_new_session=True) as process:  # fmt: skip
        limit = time.monotonic() + 90
        while not [*folder.glob("*.ckpt")] and time.monotonic() < limit and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal_number) if signal_number == signal.SIGINT else process.kill()
        errors = process.communicate(timeout=60)[1]  # ends when no process holds the pipe any more
    assert [*folder.glob("*.ckpt")], errors
    if signal_number == signal.SIGINT:
        assert process.returncode == 130 and "--resume goes on" in errors and "Traceback" not in errors


def test_compiled_steps_are_the_plain_ones(finished, tmp_path, monkeypatch):
    """And a checkpoint of compiled training goes on."""
    monkeypatch.setattr(train, "COMPILE_FROM", 1)
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    clock = iter([0.0, 0.0, 1e9])  # the start, the first network, its first checkpoint
    with monkeypatch.context() as patched:
        patched.setattr(time, "monotonic", lambda: next(clock, 1e9))
        assert script("--out", tmp_path / "run", "--losses", "mix", "--train-only", "--minutes", 1) == 0
    assert [*(tmp_path / "run").rglob("*.ckpt")]
    assert script("--out", tmp_path / "run", "--losses", "mix", "--train-only", "--resume") == 0
    plain, compiled = weights(finished, "mix"), weights(tmp_path / "run", "mix")
    assert plain.keys() == compiled.keys()
    for key in plain:
        assert torch.allclose(plain[key], compiled[key], rtol=0, atol=6 * 0.1 * SMALL.rates["mix"]), key


def test_diverged_network_is_named_and_not_kept(tmp_path, photos, monkeypatch, capsys):
    class Endless(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (x - y).mean() * float("inf")

    monkeypatch.setitem(losses.LOSSES, "l1", Endless())
    assert script("--data", photos, "--out", tmp_path / "run") == 2
    assert "l1-0 diverged" in capsys.readouterr().err
    assert variants(tmp_path / "run") == ["jpeg", "l2", "mix"]
    assert not [*(tmp_path / "run").rglob("l1-0.safetensors")]


def test_time_limit_stops_at_a_checkpoint(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_EVERY", 2)
    out = tmp_path / "run"
    assert script("--data", photos, "--out", out, "--minutes", 0) == 0
    assert variants(out) == ["jpeg"] and not (out / "checkpoints").exists()
    now = iter([0.0, 0.0, 1e9])  # the start, the first network, its first checkpoint
    monkeypatch.setattr(time, "monotonic", lambda: next(now, 1e9))
    assert script("--data", photos, "--out", out, "--resume", "--minutes", 1) == 0
    assert torch.load(out / "checkpoints" / NAME / "l2-0.ckpt", weights_only=True)["step"] == 2
    assert variants(out) == ["jpeg"]


def test_resume_adds_a_loss_and_a_seed_and_keeps_the_others(tmp_path, photos):
    out = tmp_path / "run"
    common = ["--data", photos, "--out", out]
    assert script(*common, "--losses", "mix") == 0
    before = (out / "checkpoints" / NAME / "mix-0.safetensors").read_bytes()
    assert script(*common, "--losses", "l1", "mix", "--seeds", 0, 1, "--resume") == 0
    assert variants(out) == ["jpeg", "l1", "mix"]
    assert (out / "checkpoints" / NAME / "mix-0.safetensors").read_bytes() == before
    name = "layers.0.weight"
    assert not torch.equal(weights(out, "mix")[name], weights(out, "mix", 1)[name])
    assert {row["seed"] for row in read_csv(out / "rows.csv") if row["variant"] == "mix"} == {"0", "1"}
    (cell,) = (c for c in read_csv(out / "table.csv") if (c["loss"], c["metric"]) == ("mix", "PSNR"))
    assert (cell["pictures"], cell["seeds"]) == ("1", "2")


def test_train_only_leaves_the_evaluation_to_a_later_call(tmp_path, photos):
    out = tmp_path / "run"
    common = ["--data", photos, "--out", out, "--losses", "l1"]
    assert script(*common, "--train-only") == 0
    before = (out / "checkpoints" / NAME / "l1-0.safetensors").stat().st_mtime_ns
    assert not (out / "rows.csv").exists()
    assert script(*common, "--resume") == 0
    assert variants(out) == ["jpeg", "l1"]
    assert (out / "checkpoints" / NAME / "l1-0.safetensors").stat().st_mtime_ns == before


def test_used_folder_is_refused(finished, tmp_path, photos, capsys):
    before = (finished / "rows.csv").stat().st_mtime_ns
    assert script("--out", finished) == 2
    assert "--resume" in capsys.readouterr().err
    assert script("--out", finished, "--resume", "--batch-size", 7) == 2
    assert "batch_size 2, not 7" in capsys.readouterr().err
    assert script("--out", finished, "--resume", "--data", photos) == 2
    assert "train 23 photographs" in capsys.readouterr().err
    assert (finished / "rows.csv").stat().st_mtime_ns == before
    assert script("--out", photos) == 2
    assert "holds other files" in capsys.readouterr().err


def test_without_photographs_the_run_says_why(tmp_path, photos, capsys):
    out = tmp_path / "run"
    assert script("--out", out, "--data", tmp_path / "nowhere") == 2
    assert "is not a folder" in capsys.readouterr().err
    save(tmp_path / "tiny" / "a.png", 0, side=100)
    assert script("--out", out, "--data", tmp_path / "tiny") == 2
    assert "161" in capsys.readouterr().err
    assert script("--out", out, "--data", photos, "--test", tmp_path / "tiny") == 2
    assert "a.png: 106x100" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a file name must be text")
def test_file_names_of_any_bytes(tmp_path):
    photos = tmp_path / "photos"
    save(photos / os.fsdecode(b'<b>"x" & #1?%41caf\xe9.png'), 0)
    save(photos / "z.png", 1, side=40)
    assert script("--out", tmp_path / "run", "--data", photos, "--losses", "l2") == 0
    assert {row["picture"] for row in read_csv(tmp_path / "run" / "rows.csv")} == {'<b>"x" & #1?%41caf?'}


def test_two_processes_give_the_network_of_one(tmp_path):
    """Lightning Fabric starts them; each takes half of every batch."""
    for processes in (1, 2):
        command = [sys.executable, EXAMPLES / "denoise_demosaic.py", "--out", tmp_path / str(processes),
                   "--losses", "mix", "--steps", "5", "--batch-size", "4", "--train-only",
                   "--accelerator", "cpu", "--devices", str(processes), "--precision", "32-true",
                   "--workers", "1"]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run(command, check=True, timeout=150, env=environment, capture_output=True)
    one, two = (
        load_file(tmp_path / n / "checkpoints" / "denoise_demosaic" / "mix-0.safetensors") for n in "12"
    )
    assert one.keys() == two.keys()
    moved = one["layers.4.weight"].abs().max()  # it started at 0
    for key in one:
        # Where a gradient is all rounding, Adam still takes whole steps: hence not 1e-7. (0.03 seen; how many
        # planes the CPU's kernels put side by side, and with it the rounding, depends on the batch.)
        assert (one[key] - two[key]).abs().max() < 0.06 * moved, key


def test_batch_must_divide_among_the_processes(tmp_path, capsys):
    assert script("--out", tmp_path / "run", "--devices", 2, "--batch-size", 3) == 2
    assert "--batch-size 3 does not divide among 2" in capsys.readouterr().err


def test_replacing_keeps_the_old_file_on_error(tmp_path):
    path = tmp_path / "file"
    files.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as part:
        part.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"


def test_learning_rate_rises_a_tenth_and_falls_to_zero():
    shares = [train.course(step, 100) for step in range(100)]
    assert shares.index(max(shares)) == 9 and shares[0] < 0.11 * shares[9]
    assert 0 < shares[99] < 1e-3 * shares[9]
    assert train.course(0, 1) == 1


def test_network_starts_as_the_identity_and_keeps_the_size():
    image = torch.rand(2, 3, 33, 41)
    network = Network()
    assert torch.equal(network(image), image)
    shapes = [tuple(p.shape) for p in network.parameters() if p.dim() == 4]
    assert shapes == [(64, 3, 9, 9), (64, 64, 5, 5), (3, 64, 5, 5)]


def test_plain_network_starts_from_the_usual_weights():
    image = torch.rand(1, 3, 33, 41)
    plain = Network(correction=False)
    assert plain.layers[-1].weight.abs().max() > 0 and torch.equal(plain(image), plain.layers(image - 0.5))


def test_networks_of_older_files_see_their_input_as_it_is(tmp_path):
    old = Network(centre=0.0)
    del old.shape["centre"]
    nn.init.normal_(old.layers[-1].weight, std=0.01)
    save_network(tmp_path / "old.safetensors", old, {})
    image = torch.rand(1, 3, 33, 41)
    assert torch.equal(load_network(tmp_path / "old.safetensors")[0](image), old(image))


def test_verdicts_name_what_is_worse_in_its_own_direction():
    def rows(variant, **values):
        every = {metric: 0.5 for metric in evaluate.DIGITS} | values
        return [evaluate.Row("t", variant, 0, "p", metric, v) for metric, v in every.items()]

    better = {m: 0.4 if m in evaluate.LOWER_IS_BETTER else 0.6 for m in evaluate.DIGITS}
    table = [*rows("jpeg"), *rows("l1", **better), *rows("l2", **(better | {"GMSD": 0.6, "SSIM": 0.4}))]
    assert evaluate.verdicts(table, "jpeg") == [
        "l1 beats jpeg on all: PSNR +0.10 dB",
        "l2 does NOT beat jpeg on SSIM, GMSD: PSNR +0.10 dB",
    ]


def test_embedded_pictures_after_jpeg_are_in_the_expected_band(finished):
    values = [float(r["value"]) for r in read_csv(finished / "rows.csv")
              if (r["variant"], r["metric"]) == ("jpeg", "PSNR")]  # fmt: skip
    assert len(values) == 4 and all(22 < value < 33 for value in values)
    assert 26.0 < sum(values) / 4 < 27.3  # measured: 26.64 dB
    assert Jpeg() == SMALL.degradation


def test_live_table_shows_every_network_and_the_time_left(tmp_path):
    jobs = {train.Job("t", "l1", 0): 100, train.Job("t", "mix", 0): 100}
    with progress.Progress(tmp_path, jobs) as shown:
        shown.watch(train.CurvePoint("t", "l1", 0, 60, 0.5, 0.001, 30.0, 0.25, 0.125))
        # 40 steps of one and, as nothing else is known, as fast ones of the other.
        assert shown.seconds_left() == pytest.approx((40 + 100) * 0.25)
        console = Console(record=True, width=100, file=io.StringIO())
        console.print(shown.table())
    lines = console.export_text().splitlines()
    assert "about 0:35 min left" in lines[0]
    (one,) = (line for line in lines if "t/l1-0" in line)
    assert one.replace("│", " ").split() == ["t/l1-0", "60/100", "0.5", "30.00", "4.0", "12%"]
    assert any("t/mix-0" in line for line in lines)
