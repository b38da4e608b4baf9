"""The networks that come with the examples, on the embedded pictures and through restore.py --task."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

pytest.importorskip("lightning")
EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import check_networks  # noqa: E402
import restore  # noqa: E402
from restoration.data import SMALLEST_TEST, read_folder  # noqa: E402
from restoration.evaluate import verdicts  # noqa: E402
from restoration.network import load_network  # noqa: E402
from restoration.run import PHOTOS  # noqa: E402

TASKS = {task.name: task for task in check_networks.TASKS}


@pytest.mark.parametrize("name", TASKS)
def test_network_beats_its_input_on_all_nine_metrics(name):
    rows = check_networks.measured(TASKS[name], read_folder(PHOTOS / "eval", SMALLEST_TEST, False))
    assert len({row.picture for row in rows}) == 4
    (verdict,) = verdicts(rows, TASKS[name].degradation.input)
    assert "beats" in verdict and "NOT" not in verdict, verdict


@pytest.mark.parametrize("name", TASKS)
def test_network_says_how_it_was_trained(name):
    network, about = load_network(check_networks.NETWORKS / f"{name}.safetensors")
    assert about["loss"] == "mix" and about["task"] == name and "steps" in about["trained"]
    widths = TASKS[name].network.get("widths", (64, 64))
    assert network.shape["widths"] == list(widths) and network.correction


@pytest.mark.parametrize(("task", "factor"), [("jpeg", 1), ("denoise", 1), ("enlarge", 2)])
def test_a_picture_is_restored_without_any_training(tmp_path, task, factor):
    with Image.open(PHOTOS / "eval" / "004-flower.png") as image:
        truth = image.convert("RGB").crop((0, 0, 200, 160))
    if task == "jpeg":
        file = tmp_path / "picture.jpg"
        truth.save(file, quality=25, subsampling="4:4:4")
    elif task == "denoise":
        file = tmp_path / "picture.png"
        degradation = TASKS["denoise_demosaic"].degradation
        pixels = torch.from_numpy(np.array(truth)).permute(2, 0, 1)[None] / 255
        noisy = degradation(pixels, torch.zeros(1, 2, dtype=torch.long), torch.Generator().manual_seed(0))[0]
        noisy = (noisy.clamp(0, 1) * 255).round().to(torch.uint8)
        Image.fromarray(noisy.permute(1, 2, 0).numpy()).save(file)
    else:
        file = tmp_path / "picture.png"
        truth.filter(ImageFilter.GaussianBlur(3)).resize((100, 80), Image.Resampling.BOX).save(file)
    assert restore.main(["--task", task, str(file)]) == 0
    with Image.open(tmp_path / "picture-restored.png") as image:
        restored = np.array(image, dtype=float)
    with Image.open(file) as image:
        before = np.array(image.resize(truth.size, Image.Resampling.BILINEAR), dtype=float)
    assert restored.shape == before.shape == (160, 200, 3)
    errors = [np.square(picture - np.array(truth, dtype=float)).mean() for picture in (restored, before)]
    assert errors[0] < 0.95 * errors[1], errors
