"""Intervals and verdicts on rows made so that each is known by construction."""

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lightning")
sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

import jpeg_deblocking
from restoration import report
from restoration.claims import (
    AT_EDGES,
    BAYER,
    BLUR5,
    FAILS,
    HOLDS,
    IN_FLATS,
    JPEG,
    OPEN,
    SUPER,
    Gain,
    judge,
    last_quarters,
)
from restoration.degrade import Jpeg
from restoration.evaluate import Row
from restoration.metrics import DIGITS, LOWER_IS_BETTER
from restoration.run import parser
from restoration.stats import Cell, Results, bootstrap, summary
from restoration.train import CurvePoint

PICTURES, SEEDS = 12, (0, 1, 2)
RANKS = {  # of the variants, by quality: the ranking the claims describe
    BAYER: ("noisy", "ssim9", "ssim5", "ms_ssim", "l2", "BM3D", "l1", "l2_then_l1", "l1_then_l2", "mix"),
    JPEG: ("jpeg", "ms_ssim", "l2", "l1", "mix"),
    SUPER: ("bilinear", "ms_ssim", "l2", "l1", "mix"),
    BLUR5: ("bilinear", "ms_ssim", "l2", "l1", "mix"),
}
UNTRAINED = ("noisy", "jpeg", "bilinear", "BM3D")


def rows_of(
    ranks: Mapping[str, Iterable[str]],
    quality: Mapping[tuple, float] | None = None,
    metrics: Iterable[str] = (*DIGITS, AT_EDGES, IN_FLATS),
) -> list[Row]:
    """Pictures differ by 100, variants by a rank of 1, noise by 0.1: only pairs decide. `quality` takes
    the place of the rank for some (task, variant, metric) or (task, variant)."""
    generator = np.random.default_rng(0)
    rows = []
    for task, variants in ranks.items():
        for rank, variant in enumerate(variants):
            for metric in metrics:
                better = (quality or {}).get((task, variant), rank)
                better = (quality or {}).get((task, variant, metric), better)
                sign = -1 if metric in LOWER_IS_BETTER else 1
                for seed in (0,) if variant in UNTRAINED else SEEDS:
                    for picture in range(PICTURES):
                        value = 100 * picture + sign * better + 0.1 * generator.standard_normal()
                        rows.append(Row(task, variant, seed, str(picture), metric, value))
    return rows


def verdicts(rows: Iterable[Row]) -> dict[int, str]:
    return {claim.number: claim.verdict for claim in judge(rows, [])}


def without(rows: Iterable[Row], *variants: str) -> list[Row]:
    return [row for row in rows if row.variant not in variants]


def test_all_claims_hold_where_the_ranking_is_the_papers() -> None:
    claims = judge(rows_of(RANKS), [])
    assert [claim.number for claim in claims] == list(range(1, 9))
    # ssim9 must be worse than ssim5 at edges and better in flat areas: not of one ranking.
    assert {claim.number for claim in claims if claim.verdict != HOLDS} == {6}
    flat = {(BAYER, "ssim9", IN_FLATS): 2.5}
    assert verdicts(rows_of(RANKS, flat)) == dict.fromkeys(range(1, 9), HOLDS)


@pytest.mark.parametrize(
    ("number", "quality"),
    [
        (1, {(JPEG, "l1", "GMSD"): 9}),
        (1, {(BAYER, "BM3D", "PSNR"): 99}),
        (2, {(SUPER, "l2", "1000*l2"): 9}),
        (3, {(BAYER, "BM3D", "FSIMc"): 0}),
        (4, {(JPEG, "ms_ssim", "PSNR"): 9}),
        (5, {(BAYER, "l1_then_l2", "1000*l2"): 0}),
        (5, {(BAYER, "l2_then_l1", "GMSD"): 99}),
        (6, {(BAYER, "ms_ssim", AT_EDGES): -9}),
        (6, {(BAYER, "ssim5", IN_FLATS): 9}),
        (8, {(BLUR5, "l2", "SSIM"): 99}),
    ],
)
def test_one_comparison_the_other_way_refutes_a_claim(number: int, quality: dict) -> None:
    flat = {(BAYER, "ssim9", IN_FLATS): 2.5}
    found = verdicts(rows_of(RANKS, flat | quality))
    assert found[number] == FAILS
    assert {found[other] for other in {3, 4, 6, 7} - {number}} == {HOLDS}


@pytest.mark.parametrize(
    ("number", "quality"),
    [
        (1, {(JPEG, "mix", "GMSD"): 3}),  # as l1
        (2, {(SUPER, "l2", "FSIM"): 3}),
        (3, {(BAYER, "BM3D", "SSIM"): 4}),
        (4, {(SUPER, "ms_ssim", "PSNR"): 2}),
        (5, {(BAYER, "l1_then_l2", "1000*l2"): 4}),
        (6, {(BAYER, "ms_ssim", AT_EDGES): 1}),
        (8, {(BLUR5, "ms_ssim", "SSIM"): 2}),
    ],
)
def test_a_tie_cannot_be_told(number: int, quality: dict) -> None:
    flat = {(BAYER, "ssim9", IN_FLATS): 2.5}
    assert verdicts(rows_of(RANKS, flat | quality))[number] == OPEN


def test_what_was_not_measured_cannot_be_told() -> None:
    complete = rows_of(RANKS, {(BAYER, "ssim9", IN_FLATS): 2.5})
    found = verdicts(without(complete, "BM3D"))
    assert (found[1], found[3]) == (OPEN, OPEN)
    assert verdicts([row for row in complete if row.task != BLUR5])[8] == OPEN
    assert verdicts(without(complete, "ms_ssim"))[8] == OPEN
    assert verdicts(without(complete, "ssim9"))[6] == OPEN
    assert verdicts(without(complete, "l2_then_l1"))[5] == OPEN
    assert verdicts([row for row in complete if row.metric != AT_EDGES])[6] == OPEN
    assert verdicts([]) == dict.fromkeys(range(1, 9), OPEN) | {7: HOLDS}
    # One that fails refutes, whatever else is missing.
    worse = rows_of(RANKS, {(JPEG, "l1", "GMSD"): 9})
    assert verdicts(without(worse, "BM3D"))[1] == FAILS


def test_schedules_of_their_own_task() -> None:
    ranks = {"training_schedule": ("noisy", "l2", "l1", "l2_then_l1", "l1_then_l2", "mix")}
    assert verdicts(rows_of(ranks))[5] == HOLDS
    half = judge(without(rows_of(RANKS), "l2_then_l1"), [])[4].evidence
    assert "7 of 14 better, 0 worse, 0 tied, 7 not measured" in half


def test_the_evidence_has_the_numbers() -> None:
    claims = {claim.number: claim for claim in judge(rows_of(RANKS, {(JPEG, "l1", "GMSD"): 9}), [])}
    assert "134 of 135 better, 1 worse, 0 tied, 0 not measured" in claims[1].evidence
    assert "mix better than l1 in GMSD, jpeg_deblocking, by -5" in claims[1].evidence
    assert "mix_released" not in claims[1].evidence  # not measured
    assert "l2 better than ms_ssim in PSNR, super_resolution, by +" in claims[4].evidence


def test_networks_behind_in_their_own_loss_are_named() -> None:
    sentence = "the networks of l1 are behind in l1 itself"
    assert sentence not in judge(rows_of(RANKS), [])[1].evidence
    slow = rows_of(RANKS, {(JPEG, "l1", "1000*l1"): 0, (SUPER, "l1", "1000*l1"): 0})
    assert f"In {JPEG}, {SUPER} {sentence}" in judge(slow, [])[1].evidence


def curve(variant: str, *psnr: float) -> list[CurvePoint]:
    extra = {name: 0.0 for name in CurvePoint._fields[7:]}
    return [CurvePoint(BAYER, variant, 0, 100 * i, 0.1, 0.01, p, **extra) for i, p in enumerate(psnr, 1)]


def test_gain_of_the_last_quarter_is_of_each_network() -> None:
    curves = [
        *curve("l2", 20, 25, 26, 26.3),
        *curve("l1", 20, 25, 26, 26.02),
        *curve("mix", float("nan"), 20),
    ]
    gains = last_quarters(curves)
    assert [(gain.variant, gain.steps, round(gain.psnr, 3)) for gain in gains] == [
        ("l2", 400, 0.3),
        ("l1", 400, 0.02),
    ]


def test_claims_that_rest_on_unconverged_networks_say_so() -> None:
    claims = judge(rows_of(RANKS), [*curve("l2", 20, 25, 26, 26.3), *curve("l1", 20, 25, 26, 26.01)])
    assert "Of the 6 trainings it rests on 1 had not converged" in claims[1].evidence  # l1 against l2
    assert "converged" not in claims[3].evidence  # other tasks
    assert "converged" not in judge(rows_of(RANKS), [])[1].evidence


def test_two_verdicts_stand_side_by_side() -> None:
    best, paper = judge(rows_of(RANKS), []), judge(rows_of(RANKS, {(SUPER, "l2", "1000*l2"): 9}), [])
    text = report.claims_text(
        "Title", "note", best, paper, {"adam": [], "sgd": [Gain(BAYER, "l2", 0, 400, 0.3)]}
    )
    second = text.split("\n## ")[2]
    assert second.startswith("2. l1 beats l2")
    assert f"- {report.PAPER}: **does not hold**" in second and f"- {report.OWN}: **holds**" in second
    assert f"| sgd | {BAYER} | l2 | 0 | 400 | +0.300 | no |" in text


def test_a_run_ends_by_saying_what_it_shows() -> None:
    cells = summary(rows_of({JPEG: RANKS[JPEG]}, metrics=("PSNR", "SSIM")))
    psnr, ssim = report.in_short(cells, JPEG).splitlines()
    number = r"[\d.]+"
    ranked = rf"mix {number}, l1 {number}, l2 {number}, ms_ssim {number}\."
    assert re.fullmatch(rf"PSNR from best to worst: {ranked}", psnr)
    assert re.fullmatch(rf"SSIM from best to worst: {ranked}", ssim)


def test_longer_training_is_told_of_shorter_runs_of_the_same_task_alone() -> None:
    cells = summary(rows_of({JPEG: ("jpeg", "mix", "l1", "l2"), SUPER: ("l2",)}, metrics=("PSNR",)))
    options = parser([jpeg_deblocking.TASK], "", "run").parse_args([])
    study, settings = SimpleNamespace(task=jpeg_deblocking.TASK, options=options), {"optimizer": "adam"}
    told = report.longer(study, cells, settings)
    assert re.search(r"in 30000 steps, .* PSNR l2 [\d.]+, l1 [\d.]+, mix [\d.]+\.\n", told)
    other = replace(jpeg_deblocking.TASK, degradation=Jpeg(quality=50))
    assert not report.longer(SimpleNamespace(task=other, options=options), cells, settings)
    assert not report.longer(study, cells, {"optimizer": "sgd"})
    options.data = Path("elsewhere")
    assert not report.longer(study, cells, settings)


# ---- The statistics


def test_interval_is_that_of_a_mean() -> None:
    """One seed: the standard error of the mean of the pictures."""
    values = np.random.default_rng(1).normal(5, 2, (1, 400))
    mean, lo, hi = bootstrap(values)
    assert mean == values.mean()
    error = values.std() / 20
    np.testing.assert_allclose([lo - mean, hi - mean], [-1.96 * error, 1.96 * error], rtol=0.07)


def test_interval_covers_the_truth_in_95_of_100_samples() -> None:
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(300):
        _, lo, hi = bootstrap(generator.normal(0, 1, (1, 50)))
        covered += lo < 0 < hi
    assert 0.90 < covered / 300 < 0.98


def test_seeds_widen_the_interval() -> None:
    pictures = np.random.default_rng(3).normal(0, 1, (1, 24))
    same = bootstrap(np.repeat(pictures, 3, 0))
    apart = bootstrap(pictures + np.array([[-2.0], [0.0], [2.0]]))
    assert same.mean == pytest.approx(apart.mean)
    assert apart.hi - apart.lo > 2 * (same.hi - same.lo)


def test_gain_is_paired_and_signed() -> None:
    results = Results(rows_of(RANKS))
    for metric in ("PSNR", "GMSD"):
        mean, lo, hi = results.gain(JPEG, "l1", "ms_ssim", metric)  # two ranks
        assert lo < mean < hi and hi - lo < 0.2  # pictures differ by 100 among themselves
        assert mean == pytest.approx(2, abs=0.1)
        assert results.gain(JPEG, "ms_ssim", "l1", metric).mean == pytest.approx(-mean)
    cell = results.cell(JPEG, "l1", "PSNR")
    assert cell.hi - cell.lo > 100 and (cell.pictures, cell.seeds) == (PICTURES, 3)


def test_gain_takes_what_both_have() -> None:
    """Seeds and pictures that one of them lacks are left out; what needs no training has every seed."""
    rows = [row for row in rows_of(RANKS) if (row.variant, row.seed) not in {("mix", 1), ("mix", 2)}]
    rows = [row for row in rows if (row.variant, row.picture) != ("l1", "0")]
    results = Results(rows)
    assert results.cell(JPEG, "mix", "PSNR").seeds == 1
    values = {(r.variant, r.seed, r.picture): r.value for r in rows if r[0] == JPEG and r[4] == "PSNR"}
    kept = [str(n) for n in range(1, PICTURES)]
    expected = np.mean([values["mix", 0, n] - values["l1", 0, n] for n in kept])
    assert results.gain(JPEG, "mix", "l1", "PSNR").mean == pytest.approx(expected)
    expected = np.mean([values["l1", s, n] - values["jpeg", 0, n] for s in SEEDS for n in kept])
    assert results.gain(JPEG, "l1", "jpeg", "PSNR").mean == pytest.approx(expected)
    assert results.gain(JPEG, "l1", "nothing", "PSNR") is None


def test_summary_is_the_same_every_time_and_in_the_rows_order() -> None:
    rows = rows_of({JPEG: RANKS[JPEG]}, metrics=("PSNR", "SSIM"))
    cells = summary(rows)
    assert cells == summary(rows) and all(isinstance(cell, Cell) for cell in cells)
    order = list(dict.fromkeys((r.task, r.variant, r.metric) for r in rows))
    assert [cell[:3] for cell in cells] == order
    for cell in cells:
        own = [row.value for row in rows if (row.task, row.variant, row.metric) == cell[:3]]
        assert cell.mean == pytest.approx(np.mean(own)) and cell.lo <= cell.mean <= cell.hi
