"""examples/study.py from end to end on two steps, and what it chooses rates by."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("lightning")
EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import study  # noqa: E402


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    command = [sys.executable, EXAMPLES / "study.py", "--smoke", "--out", out, "--workers", "1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=150, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    return out


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_question_has_its_networks(smoke):
    runs = read_csv(smoke / "runs.csv")
    assert {run["start"] for run in runs} == {"correction", "plain"}
    assert {"l2", "l1", "alpha=0.5"} <= {run["loss"] for run in runs}
    assert {run["batch"] for run in runs} == {"16", "64"}
    for run in runs:
        assert run["diverged"] == "False" and 5 < float(run["validation_psnr"]) < 40
        assert 0 < float(run["test_ssim"]) < 1
    assert len(read_csv(smoke / "curves.csv")) == 2 * len(runs)


def test_gradients_are_measured_from_the_same_weights(smoke):
    lines = read_csv(smoke / "gradients.csv")
    norms = {line["loss"]: float(line["batch_norm"]) for line in lines if line["step"] == "0"}
    assert norms["l2"] == pytest.approx(2 * norms["l2_released"], rel=1e-5)
    # The two readings of alpha are of the same odds, one 34 to 42 times as large.
    assert 30 < norms["mix"] / norms["mix_released"] < 45
    for line in lines:
        assert 0 < float(line["mean_norm"]) <= float(line["batch_norm"]) * (1 + 1e-6)


def test_rate_is_the_best_on_the_validation_pictures(tmp_path):
    finished = study.Finished(tmp_path)
    for rate, psnr in ((5e-4, 24.0), (1e-3, 25.0), (2e-3, float("nan")), (4e-3, 23.0)):
        file = finished.file(study.Run("l1", "adam", rate))
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({"validation_psnr": psnr, "test_psnr": -rate}))
    assert finished.rate("l1") == 1e-3
    with pytest.raises(study.Refused, match="rates of mix with adam come first"):
        finished.rate("mix")
