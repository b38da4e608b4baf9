"""The parts of the page of examples/restoration that need no browser."""

import csv
import json
import os
import re
from pathlib import Path

import pytest
import torch
from page_views import NASTY, Claim, Point, pixels, save, write_example
from PIL import Image
from restoration.page import curves, overlays, study, tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_example(folder)
    return folder


def test_page_is_one_file_that_names_nothing_outside(folder):
    html = (folder / "index.html").read_text(encoding="utf-8")
    addresses = re.findall(r"<(?:script|link|img|iframe)[^>]+(?:src|href)=[\"']?([^\"'>]*)", html)
    assert addresses == ["data:,"]  # the icon
    assert "Permission is hereby granted" in html  # the library's licence goes with each copy
    assert "@import" not in html and "fetch(" not in html
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.S).group(1))
    assert data["tasks"][0]["pictures"][1]["name"] == NASTY


def test_tables_bold_the_best_and_show_intervals(folder):
    html = (folder / "index.html").read_text(encoding="utf-8")
    section = html[html.index('<section id="tables"') : html.index('<section id="curves"')]
    assert "<strong>34.61</strong><small>34.40 to 34.80</small>" in section
    assert "<td>33.18<small>33.00 to 33.40</small></td>" in section
    assert "<strong>0.0400</strong>" in section and "<td>0.0490" in section  # lower is better
    assert "Means over 2 pictures, 3 seeds" in section


def test_claims_keep_their_numbers_and_verdicts():
    html = tables.claims([Claim(3, "<i>a", "cannot tell", "b & c"), Claim(7, "d", "holds", "e")])
    assert '<li value="3"><p>&lt;i&gt;a</p><p class="open"><b class="verdict">cannot tell</b></p>' in html
    assert '<li value="7"><p>d</p><p class="yes">' in html and "b &amp; c" in html
    both = tables.claims([Claim(3, "a", "holds", "b")], [Claim(3, "a", "does not hold", "c")])
    assert (
        both.index("One rate for all")
        < both.index("does not hold")
        < both.index("own rate")
        < both.index("holds<")
    )


def test_curves_are_labelled_and_to_scale(folder):
    points = [
        Point("t", v, 0, s, 1 / s, 10**-n, 30 + n) for v, n in (("l2", 2), ("mix", 3)) for s in (1, 100)
    ]
    html = curves.figures([*points, Point("t", "mix", 0, 50, float("nan"), float("nan"), float("nan"))])
    assert html.count("<svg") == 3
    assert "At the end: l2 32.00, Mix 33.00." in html
    assert "At the end: l2 10.0000, Mix 1.0000." in html and "Training loss" in html
    log = curves.Scale(1, 100, 300, 0, log=True)
    assert [round(log(value), 6) for value in (1, 10, 100)] == [300, 150, 0]
    assert curves.ticks(28.1, 34.2, log=False) == [30, 32, 34]
    assert curves.ticks(0.003, 2.5, log=True) == [0.01, 0.1, 1]


def test_labels_at_the_lines_ends_do_not_collide():
    heights = curves.spread([100, 101, 102, 290, 291], lowest=290)
    assert heights[:3] == [100, 115, 130] and heights[3:] == [275, 290]


def test_spots_are_where_the_maps_are_furthest_apart():
    maps = {name: torch.full((300, 400), 250, dtype=torch.uint8) for name in ("l2", "l1", "mix")}
    maps["l2"][200:260, 300:360] = 50
    maps["mix"][20:60, 20:60] = 200
    first, second = overlays.spots(maps)[:2]
    assert (first.worst, second.worst) == ("l2", "mix") and first.best_ssim == pytest.approx(
        250 / 255, abs=1e-3
    )
    assert first.x <= 300 and first.x + first.size >= 360 and first.y <= 200 and first.y + first.size >= 260
    assert second.x <= 20 and second.x + second.size >= 60 and second.y <= 20
    maps["mix"][:] = 249
    assert len(overlays.spots(maps)) == 1  # what is not seen is not pointed at
    assert overlays.spots({"l1": maps["l1"]}) == overlays.spots({"l1": maps["l1"], "b": maps["l1"]}) == []


def test_maps_are_made_once_and_again_after_a_change(tmp_path):
    files = {v: save(tmp_path, "t", "p", v, pixels(v, 0)) for v in ("l1", "truth")}

    def made():
        return overlays.ssim_maps(tmp_path, {"l1": files["l1"]}, files["truth"])["l1"]

    name, values = made()
    time = (tmp_path / name).stat().st_mtime_ns
    assert torch.equal(made()[1], values) and values.min() < 128
    assert (tmp_path / name).stat().st_mtime_ns == time
    Image.fromarray(pixels("truth", 0)).save(tmp_path / files["l1"])
    os.utime(tmp_path / files["l1"], ns=(time + 1, time + 1))
    assert made()[1].min() == 255


def test_study_plots_show_each_loss_at_its_rates(tmp_path):
    keys = ("loss", "optimizer", "rate", "steps", "batch", "size", "start", "seed", "task")
    plain = ("16", "31", "correction", "0", "super_resolution")
    runs = [
        dict(zip(keys, (loss, optimizer, rate, "3000", *plain), strict=True)) | {"validation_psnr": psnr}
        for loss, optimizer, rate, psnr in [
            ("l2", "sgd", "0.2", "25"), ("l2", "sgd", "2", "27"), ("l2", "sgd", "20", "nan"),
            ("mix", "sgd", "0.02", "26"), ("mix", "sgd", "0.2", "20"), ("mix", "sgd", "0.06", "26.5"),
            ("l2", "adam", "0.001", "27"), ("l2", "adam", "0.002", "27.5"),
        ]
    ]  # fmt: skip
    for name, lines in (
        ("runs", runs),
        ("gradients", [{"loss": "l1", "step": s, "batch_norm": 1} for s in (0, 9)]),
    ):
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, lines[0])
            writer.writeheader()
            writer.writerows(lines)
    plots = {plot.name: plot for plot in study.plots(tmp_path)}
    assert plots.keys() == {"rates-sgd", "rates-adam", "gradients"}  # one length is no line
    # Neither a network that diverged nor one that is far below the best.
    points = {line.variant: line.points for line in plots["rates-sgd"].lines}
    assert points == {"l2": [(0.2, 25), (2, 27)], "mix": [(0.02, 26), (0.06, 26.5)]}
    html = study.figures(tmp_path)
    assert html.count("<svg") == 3 and "Highest: l2 27.00, Mix 26.50" in html
    assert html.count("<circle") == 2 + 2 + 2 + 2
    assert study.figures(tmp_path / "nowhere") == ""
