"""Command lines of the examples: what cannot run is refused in one line, exit status 2, and nothing made."""

import dataclasses
import json
import os
import runpy
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("lightning")
pytest.importorskip("safetensors")
EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import data as assembling  # noqa: E402
import fuzz_examples  # noqa: E402
import jpeg_deblocking  # noqa: E402
import restore  # noqa: E402
from restoration import data, files, run  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:IM image format is deprecated")
SMALL = dataclasses.replace(jpeg_deblocking.TASK, network={"widths": (4, 4)})
NAME = SMALL.name


def script(*options: object) -> int:
    """The script with a small network, in this process; its exit status."""
    few = ["--steps", "2", "--batch-size", "2", "--accelerator", "cpu", "--losses", "l1"]
    parser = run.parser([SMALL], SMALL.title, NAME)
    try:
        return run.main(SMALL.title, [SMALL], parser.parse_args([*few, *map(str, options)]))
    except SystemExit as end:
        return end.code


@pytest.fixture
def refusal(capsys):
    """refusal(*options) -> the one line that refuses them."""

    def run(*options: object) -> str:
        capsys.readouterr()
        status = script(*options)
        lines = capsys.readouterr().err.splitlines()
        assert (status, len(lines)) == (2, 1), lines
        return lines[0]

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs, of which the first will be held out."""
    (tmp_path / "photos").mkdir()
    for number in range(3):
        values = np.random.default_rng(number).integers(0, 256, (170, 176, 3), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    "options, says",
    [
        (["--seeds", "-1"], "--seeds: expected a whole number from 0 to 4294967295, got '-1'"),
        (["--seeds", "4294967296"], "--seeds"),
        (["--seeds", "0.5"], "--seeds"),
        (["--steps", "0"], "--steps"),
        (["--batch-size", "9" * 20], "--batch-size"),
        (["--minutes", "nan"], "--minutes"),
        (["--minutes", "-1"], "--minutes"),
        (["--precision", "16-mixed"], "--precision 16-mixed needs a GPU"),
        (["--devices", "100000"], "--devices"),
        (["--nodes", "2", "--batch-size", "2"], "torchrun"),
        (["--accelerator", "tpu"], "--accelerator"),
        (["--losses", "nonsense"], "--losses"),
        (["--nonsense"], "--nonsense"),
        (["--data", "\0"], "is not a folder"),
        (["--data", "x" * 300], "is not a folder"),
    ],
)
def test_options_that_cannot_run_are_refused(tmp_path, refusal, options, says, monkeypatch):
    for name in ("WORLD_SIZE", "MASTER_ADDR", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert says in refusal("--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path, refusal):
    assert "--accelerator cuda" in refusal("--out", tmp_path / "run", "--accelerator", "cuda")


def test_folders_that_cannot_be_written_are_refused_before_the_reading(
    tmp_path, photos, refusal, monkeypatch
):
    monkeypatch.setattr(run, "train_and_test", None)  # a call would raise
    (tmp_path / "file").write_text("mine")
    for out, says in (
        (tmp_path / "file", "Not a directory"),
        (tmp_path / "file" / "run", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
        (tmp_path / ("x" * 300) / "run", "File name too long"),
    ):
        assert says in refusal("--data", photos, "--out", out)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="needs POSIX")
def test_read_only_and_closed_folders_are_refused(tmp_path):
    """As nobody, if the tests run as root, whom nothing is forbidden."""
    for name, mode in (("read-only", 0o555), ("closed", 0o000)):
        (tmp_path / name / "below").mkdir(parents=True)
        (tmp_path / name).chmod(mode)
    Image.new("RGB", (20, 20)).save(tmp_path / "p.png")
    fuzz_examples.save_small_network(tmp_path / "n.safetensors", "jpeg")
    code = f"""
import os, sys
for path in {[str(path) for path in [tmp_path, *tmp_path.parents][:-1]]!r}:
    if os.stat(path).st_uid == os.getuid(): os.chmod(path, 0o755)
sys.path[:0] = [{str(EXAMPLES)!r}, {str(Path(__file__).parent)!r}]
import restore, test_command_lines as t
if os.getuid() == 0: os.setuid(65534)
os.chdir({str(tmp_path)!r})
for out in ("read-only/run", "closed/run", "closed/below/run", "closed"):
    assert t.script("--out", out) == 2
    assert restore.main(["n.safetensors", "p.png", "--out", out + ".png"]) == 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    (tmp_path / "closed").chmod(0o755)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 8 and all("Permission denied" in line for line in lines), done.stderr
    assert not [*tmp_path.rglob("*.part"), *tmp_path.rglob("run*")]


def test_the_record_is_what_ran(tmp_path, photos):
    assert (
        script("--data", photos, "--out", tmp_path / "run", "--precision", "bf16-mixed", "--train-only") == 0
    )
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert settings["precision"] == "bf16-mixed"


def test_damaged_settings_are_refused(tmp_path, photos, refusal):
    (tmp_path / "run").mkdir()
    for text in ('{"steps": ', "[]", "\0"):
        (tmp_path / "run" / "settings.json").write_text(text)
        refusal("--data", photos, "--out", tmp_path / "run", "--resume")
        assert (tmp_path / "run" / "settings.json").read_text() == text


def test_results_below_the_data_are_not_trained_on(tmp_path, photos, monkeypatch, capsys):
    """--data . with --out below it: the second run and --resume see the photographs of the first."""
    monkeypatch.chdir(photos)
    common = ("--data", ".", "--steps", "1")
    assert script(*common, "--out", "runs/a") == 0
    (photos / "0-restored.png").write_bytes((photos / "0.png").read_bytes())
    assert [*(photos / "runs" / "a").rglob("truth.png")]
    assert script(*common, "--out", "runs/a", "--resume") == 0
    capsys.readouterr()
    assert script(*common, "--out", "runs/b", "--train-only") == 0
    assert "left out runs/a: a run" in capsys.readouterr().err
    a, b = (json.loads((photos / "runs" / n / "settings.json").read_text()) for n in "ab")
    assert a == b


def test_a_full_disk_is_one_line(tmp_path, photos, monkeypatch, refusal):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run, "write_rows", full)
    assert "No space left" in refusal("--data", photos, "--out", tmp_path / "run")


@pytest.mark.parametrize("umask, mode", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_every_file_is_as_readable_as_the_umask_says(tmp_path, photos, umask, mode):
    before = os.umask(umask)
    try:
        assert script("--data", photos, "--out", tmp_path / "run") == 0
        checkpoint = tmp_path / "run" / "checkpoints" / NAME / "l1-0.safetensors"
        assert restore.main([str(checkpoint), str(photos / "0.png")]) == 0
    finally:
        os.umask(before)
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    written = [path for path in written if path.name != "CREDITS.md" and "tensorboard" not in path.parts]
    assert checkpoint in written and photos / "0-restored.png"
    assert {stat.S_IMODE(path.stat().st_mode) for path in [*written, photos / "0-restored.png"]} == {mode}


def test_a_part_that_a_killed_run_left_is_replaced(tmp_path):
    (tmp_path / "a.txt.part").write_text("half of an earlier text")
    (tmp_path / "a.txt.part").chmod(0o400)
    files.write_text(tmp_path / "a.txt", "whole")
    assert (tmp_path / "a.txt").read_text() == "whole" and not (tmp_path / "a.txt.part").exists()


@pytest.mark.parametrize(
    "options",
    [["--factor", "0"], ["--factor", "1.5"], ["--sigma", "nan"], ["--sigma=-1"], ["--sigma", "inf"]],
)
def test_super_resolution_refuses_what_is_no_factor(tmp_path, options, monkeypatch, capsys):
    path = EXAMPLES / "super_resolution.py"
    monkeypatch.setattr(sys, "argv", [str(path), "--out", str(tmp_path / "run"), *options])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(path), run_name="__main__")
    error = capsys.readouterr().err
    assert (end.value.code, len(error.splitlines())) == (2, 1), error
    assert options[0].split("=")[0] in error and not (tmp_path / "run").exists()


def test_assembling_refuses_a_file_as_its_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for name, says in (("file", "Not a directory"), ("x" * 300, "too long")):
        monkeypatch.setattr(sys, "argv", ["data.py", "--from-debian", str(tmp_path / name)])
        assert assembling.main() == 2
        error = capsys.readouterr().err
        assert says in error and len(error.splitlines()) == 1


def test_help_says_what_is_read_and_written(capsys):
    assert script("--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--data and --test read PNG, JPEG" in text and "--out gets PNG" in text
    for suffix in sorted(data.SUFFIXES & {".avif", ".jfif", ".mpo", ".webp", ".tif", ".bmp", ".ppm"}):
        assert suffix[1:4].upper() in text.upper()


def test_fuzz_finds_nothing_in_a_few_cases():
    """python tests/fuzz_examples.py runs 2000."""
    result = fuzz_examples.fuzz(40, seed=0)
    assert not result.failures, result.failures[0][1]
    assert result.pictures >= 30 and sum(result.outcomes.values()) == 40
