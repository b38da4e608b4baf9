"""reproduce.py from end to end, on two steps and small pictures: every task, loss, table and claim."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("lightning")
EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import reproduce  # noqa: E402
from restoration.losses import LOSSES, SCHEDULES  # noqa: E402
from restoration.metrics import DIGITS  # noqa: E402

PAPER = {  # paper's tables; the two schedules are in the text
    "denoise_demosaic": {"l2", "l1", "ssim5", "ssim9", "ms_ssim", "mix"},
    "jpeg_deblocking": {"l2", "l1", "ms_ssim", "mix"},
    "super_resolution": {"l2", "l1", "ms_ssim", "mix"},
}
OURS = {"mix_l1_range1", "mix_released", "ms_ssim+l2"}  # the other readings of alpha, and l2 for l1


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `reproduce.py --smoke`; two test pictures from the middles of embedded ones."""
    root = tmp_path_factory.mktemp("reproduce")
    for part, names in (
        ("train", ["001-bamboo", "004-white-flower"]),
        ("eval", ["004-flower", "001-green-maple"]),
    ):
        (root / part).mkdir()
        for name in names:
            with Image.open(EXAMPLES / "photos" / part / f"{name}.png") as image:
                image.crop((100, 50, 268, 218)).save(root / part / f"{name}.png")
    command = [sys.executable, EXAMPLES / "reproduce.py", "--smoke", "--data", root / "train", "--test",
               root / "eval", "--out", root / "run", "--batch-size", "2",
               "--accelerator", "cpu"]  # fmt: skip
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=170, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return root / "run"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_network_of_the_paper_and_ours_is_in_the_table(run):
    cells = read_csv(run / "table.csv")
    wanted = {(task, loss) for task, names in PAPER.items() for loss in names | OURS}
    wanted |= {("denoise_demosaic", name) for name in SCHEDULES}
    wanted |= {("super_resolution_blur5", name) for name in PAPER["super_resolution"] | OURS}
    inputs = {
        ("denoise_demosaic", "noisy"), ("jpeg_deblocking", "jpeg"), ("super_resolution", "bilinear"),
        ("super_resolution_blur5", "bilinear"),
    }  # fmt: skip
    there = {(c["task"], c["loss"]) for c in cells}
    assert there - {("denoise_demosaic", "BM3D")} == wanted | inputs  # BM3D: if it is installed
    assert {c["metric"] for c in cells} == set(DIGITS)
    assert {c["pictures"] for c in cells} == {"2"}


def test_our_means_stand_beside_the_papers(run):
    text = (run / "table.md").read_text(encoding="utf-8")
    (head, *_) = (part for part in text.split("\n\n") if part.startswith("| | jpeg | paper | l2 | paper"))
    cells = {row["metric"]: row for row in read_csv(run / "table.csv")
             if (row["task"], row["loss"]) == ("jpeg_deblocking", "l2")}  # fmt: skip
    (line,) = (line for line in head.splitlines() if line.startswith("| GMSD |"))
    assert line.split(" | ")[3:5] == [
        f"{float(cells['GMSD']['mean']):.4f}",
        "0.0427",
    ]  # the paper's table III


def test_every_claim_has_a_verdict_and_evidence(run):
    text = (run / "claims.md").read_text(encoding="utf-8")
    *parts, convergence = text.split("\n## ")[1:]
    assert convergence.count("\n| ") > 20  # networks, and the head
    assert [part[0] for part in parts] == list("12345678")
    for part in parts:
        assert any(f"**{verdict}**" in part for verdict in ("holds", "does not hold", "cannot tell")), part
        assert any(character.isdigit() for character in part.split("**")[2]), part  # evidence: a number


def test_schedules_change_their_loss_half_way(run):
    """Their first half is the first loss's own training; there they are, to the last digit, that network."""
    curves = {(p["task"], p["variant"], p["seed"], p["step"]): p for p in read_csv(run / "curves.csv")}
    for name, (first, second) in SCHEDULES.items():
        half, whole = (str(n) for n in (reproduce.SMOKE_STEPS // 2, reproduce.SMOKE_STEPS))
        mine = ("denoise_demosaic", name, "0")
        assert curves[(*mine, half)]["test_l2"] == curves["denoise_demosaic", first, "0", half]["test_l2"]
        assert curves[(*mine, whole)]["test_l2"] != curves["denoise_demosaic", first, "0", whole]["test_l2"]
        ratio = float(curves[(*mine, whole)]["loss"]) / float(
            curves["denoise_demosaic", second, "0", whole]["loss"]
        )
        assert 0.9 < ratio < 1.1


def test_every_network_has_the_steps_asked_for(run):
    steps = {p["task"]: int(p["step"]) for p in read_csv(run / "curves.csv")}
    assert steps == dict.fromkeys(PAPER, reproduce.SMOKE_STEPS)


def test_page_shows_the_pictures_of_the_first_seed(run):
    html = (run / "index.html").read_text(encoding="utf-8")
    pictures = [p for p in run.glob("pictures/*/*/*.png") if p.stem != "BM3D"]
    networks = sum(len(names | OURS) for names in PAPER.values()) + len(SCHEDULES)
    assert len(pictures) == 2 * (networks + 3 * 2)  # the inputs and the truths
    for picture in pictures:
        assert picture.relative_to(run).as_posix().replace("+", "%2B") in html


def test_run_says_what_it_was(run):
    settings = json.loads((run / "settings.json").read_text())
    assert settings["steps"] == reproduce.SMOKE_STEPS and settings["batch_size"] == 2
    note = (run / "table.md").read_text(encoding="utf-8")
    assert "RGGB" in note and "4:4:4" in note and "seeds 0." in note
    assert len(list(run.glob("checkpoints/*/*.safetensors"))) == len(LOSSES) + len(SCHEDULES) + 14
