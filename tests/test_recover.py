"""benchmarks/recover.py and growth.py, on small images."""

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_compare import BENCHMARKS, Inline, records_of

sys.path.insert(0, str(BENCHMARKS))

import growth
import recover


def test_growth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("matplotlib")
    l1 = {"L1Loss": growth.LOSSES["L1Loss"], "F.l1_loss": growth.LOSSES["F.l1_loss"]}
    curves = {
        "pixels": growth.Curve("side", (8, 16), lambda n: (1, 1, n, n), lambda _: l1),
        "window": growth.Curve("taps", (5, 7), lambda n: (1, 1, 24, 24), growth.of_windows),
        "threads": growth.Curve("threads", (1, 2), lambda n: (1, 1, 24, 24), lambda _: l1),
    }
    monkeypatch.setattr(growth, "CURVES", curves)
    monkeypatch.setattr(growth, "Processes", Inline)
    out, figure = tmp_path / "out.jsonl", tmp_path / "figure.svg"
    growth.main(["--seconds", "0", "--out", str(out), "--figure", str(figure), "--threads", "1"])
    torch.set_num_threads(1)
    points = records_of(out)
    assert [(p["curve"], p["value"]) for p in points] == [(c, v) for c in curves for v in curves[c].values]
    assert points[1]["shape"] == [1, 1, 16, 16] and [p["threads"] for p in points] == [1, 1, 1, 1, 1, 2]
    printed = capsys.readouterr().out
    assert "| side | L1Loss, ms | F.l1_loss, ms |" in printed and "\n| 16 | " in printed
    assert figure.read_text().count("ns an element") == 2
    growth.main(["--read", str(out)])
    assert capsys.readouterr().out == printed


def test_growth_is_drawn_an_element() -> None:
    points = [
        {"curve": "pixels", "value": 100, "shape": [1, 1, 100, 100], "ms": {"a": [1.0, 2.0, 4.0]}},
        {"curve": "threads", "value": 1, "shape": [1], "ms": {"a": [7.0, 8.0, 9.0]}},
        {"curve": "threads", "value": 4, "shape": [1], "ms": {"a": [1.0, 2.0, 4.0]}},
    ]
    assert growth.scaled(points[0], "a", points) == pytest.approx([100, 200, 400])
    assert growth.scaled(points[2], "a", points[1:]) == [2, 4, 8]


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    return 0.2 + 0.6 * torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_descent_recovers_the_image(truth: torch.Tensor) -> None:
    went = recover.descend(F.l1_loss, 1 - truth, truth, shown=5, steps=60)
    assert len(went.psnr) == 61 and went.psnr[0] < 15 and went.psnr[-1] > 40
    steps = recover.steps_to(went.psnr)
    assert steps and went.psnr[steps - 1] < recover.ENOUGH <= went.psnr[steps]
    assert recover.psnr(went.last, truth) == went.psnr[-1]
    assert recover.psnr(went.shown, truth) == went.psnr[5]
    assert recover.verdict(went, truth)[0] == str(steps)


@pytest.mark.parametrize(
    ("loss", "ends"),
    [
        (lambda x, y: 0 * F.l1_loss(x, y), lambda start, end: end == start),  # dead
        (lambda x, y: -F.l1_loss(x, y), lambda start, end: end < start - 0.3),  # the wrong way
        (lambda x, y: math.nan * F.l1_loss(x, y), lambda start, end: math.isnan(end)),
    ],
)
def test_a_descent_shows_dead_and_wrong_gradients(
    loss: Callable, ends: Callable, truth: torch.Tensor
) -> None:
    went = recover.descend(loss, 1 - truth, truth, shown=1, steps=30)
    assert ends(went.psnr[0], went.psnr[-1])
    steps, last, *_ = recover.verdict(went, truth)
    assert steps == "never" and last == ("NaN" if math.isnan(went.psnr[-1]) else f"{went.psnr[-1]:.0f}")


def test_recover(
    truth: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The whole, with a small image: each loss has a line in the table and a picture from each start."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(recover, "photograph", lambda: truth)
    monkeypatch.setattr(recover, "SHOWN", {"noise": 1, "the negative": 2})
    monkeypatch.setattr(recover.descend, "__defaults__", (2,))
    figure = tmp_path / "figure.svg"
    recover.main(["--only", "l1", "--only", "SSIM", "--figure", str(figure)])
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == ["| l1", "| SSIM"]
    assert all(len(line.split(" | ")) == 9 for line in table)
    drawn = figure.read_text()
    assert drawn.count("<image") == 2 * 4


def test_the_packages_stand_beside_ours() -> None:
    found = recover.losses()
    assert list(found)[: len(recover.OURS)] == list(recover.OURS)
    assert {"pytorch-msssim: SSIM", "pytorch-msssim: MS-SSIM", "kornia: SSIM", "torchmetrics: SSIM"} <= set(
        found
    )
