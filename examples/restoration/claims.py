"""The paper's eight claims, judged by a run's rows: holds, does not hold, cannot tell.

A comparison is the mean difference of two variants over the same pictures and seeds. It is decided where
its 95 % interval leaves out 0. One comparison that goes the other way refutes a claim; only all of them
prove it; tied or not measured, it cannot be told.
"""

import math
from collections.abc import Container, Iterable, Sequence
from itertools import combinations, product
from typing import NamedTuple

import torch

from ssimloss import SSIMLoss

from .evaluate import Row
from .metrics import AT_EDGES, COLOUR, DIGITS, IN_FLATS
from .stats import UNTRAINED, Interval, Results
from .train import CurvePoint

HOLDS, FAILS, OPEN = "holds", "does not hold", "cannot tell"
BAYER, JPEG, SUPER = "denoise_demosaic", "jpeg_deblocking", "super_resolution"
BLUR5 = "super_resolution_blur5"  # the networks of SUPER on pictures of a wider blur
TABLES = {  # what stands beside Mix in the paper's tables
    BAYER: ("noisy", "BM3D", "l2", "l1", "ssim5", "ssim9", "ms_ssim"),
    JPEG: ("jpeg", "l2", "l1", "ms_ssim"),
    SUPER: ("bilinear", "l2", "l1", "ms_ssim"),
}
READINGS = ("mix_l1_range1", "mix_released")  # of alpha, beside the one that is judged
SCHEDULES = ("l2_then_l1", "l1_then_l2")
PERCEPTUAL = ("SSIM", "MS-SSIM", "IW-SSIM", "GMSD", "FSIM", "FSIMc")
CONVERGED = 0.02  # dB, gained in the last quarter of the steps


class Claim(NamedTuple):
    number: int
    text: str
    verdict: str
    evidence: str


class Gain(NamedTuple):
    """What a network still gained in the last quarter of its steps."""

    task: str
    variant: str
    seed: int
    steps: int
    psnr: float  # dB, in the middles of the test pictures


class Comparison(NamedTuple):
    """That a variant is better than another."""

    task: str
    variant: str
    other: str
    metric: str
    gain: Interval | None  # above 0: it is; None: not in the rows

    @property
    def verdict(self) -> str:
        if self.gain is None:
            return OPEN
        return HOLDS if self.gain.lo > 0 else FAILS if self.gain.hi < 0 else OPEN

    def __str__(self) -> str:
        what = f"{self.variant} better than {self.other} in {self.metric}, {self.task}"
        if self.gain is None:
            return f"{what}: not measured"
        mean, lo, hi = self.gain
        return f"{what}, by {mean:+.2g} ({lo:+.2g} to {hi:+.2g})"


def compare(results: Results, tasks: Iterable[str], variants: Iterable[str], others: Iterable[str],
            metrics: Iterable[str]) -> list[Comparison]:  # fmt: skip
    """Every variant with every other, by every metric, in every task."""
    return [Comparison(*key, results.gain(*key)) for key in product(tasks, variants, others, metrics)]


def all_of(comparisons: Sequence[Comparison]) -> str:
    verdicts = {comparison.verdict for comparison in comparisons}
    return FAILS if FAILS in verdicts else HOLDS if verdicts == {HOLDS} else OPEN


def tally(comparisons: Sequence[Comparison]) -> str:
    known = [c for c in comparisons if c.gain]
    better, worse, tied = (sum(c.verdict == verdict for c in known) for verdict in (HOLDS, FAILS, OPEN))
    missing = len(comparisons) - len(known)
    return f"{better} of {len(comparisons)} better, {worse} worse, {tied} tied, {missing} not measured"


def told(comparisons: Sequence[Comparison], most: int = 2) -> str:
    """The tally, and of many comparisons those least in favour, by the width of their intervals."""

    def clarity(comparison: Comparison) -> float:
        mean, lo, hi = comparison.gain or (0, 0, 1)
        return mean / max(hi - lo, 1e-12)

    known = sorted((c for c in comparisons if c.gain), key=clarity)
    if len(comparisons) <= most:
        return "; ".join(map(str, comparisons)) + "."
    if not known:
        return f"{tally(comparisons)}."
    return f"{tally(comparisons)}. Least in favour: {'; '.join(map(str, known[:most]))}."


def judge(rows: Iterable[Row], curves: Sequence[CurvePoint]) -> list[Claim]:
    """The claims 1 to 8; rows of the tasks BAYER, JPEG, SUPER and BLUR5, as far as they are there."""
    rows = list(rows)
    results = Results([*rows, *colour_errors(rows)])

    gaining = {gain[:2] for gain in last_quarters(curves) if gain.psnr > CONVERGED}

    def claim(number: int, text: str, comparisons: Sequence[Comparison], *more: str) -> Claim:
        evidence = (told(comparisons), *more, unconverged(comparisons, gaining))
        return Claim(number, text, all_of(comparisons), " ".join(filter(None, evidence)))

    def best(mix: str) -> list[Comparison]:
        return [c for task, others in TABLES.items() for c in compare(results, [task], [mix], others, DIGITS)]

    schedules = BAYER if {*SCHEDULES} & {*results.variants(BAYER)} else "training_schedule"
    return [
        claim(1, "Mix is best on all nine metrics, in all three tasks", best("mix"),
              *(f"With {mix} instead: {tally(best(mix))}." for mix in READINGS if best(mix)[-1].gain)),
        claim(2, "l1 beats l2 on every metric, even on l2",
              compare(results, TABLES, ["l1"], ["l2"], DIGITS), behind_in_its_own_loss(results)),
        claim(3, "l2 is below BM3D", compare(results, [BAYER], ["BM3D"], ["l2"], DIGITS)),
        claim(4, "MS-SSIM alone is worse than l2 in PSNR (super-resolution, JPEG): it shifts colours",
              compare(results, [SUPER, JPEG], ["l2"], ["ms_ssim"], ["PSNR"]),
              "Judged by PSNR. The colours:",
              told(compare(results, [SUPER, JPEG], ["l2"], ["ms_ssim"], [COLOUR]))),
        claim(5, "Switching the loss helps: both orders of l1 and l2 beat l2 alone on l2; neither beats Mix "
              "on a perceptual metric",
              compare(results, [schedules], SCHEDULES, ["l2"], ["1000*l2"])
              + compare(results, [schedules], ["mix"], SCHEDULES, PERCEPTUAL)),
        claim(6, "SSIM_9 leaves noise around edges, small sigmas leave splotches in flat areas; MS-SSIM "
              "removes the halo",
              compare(results, [BAYER], ["ssim5", "ms_ssim"], ["ssim9"], [AT_EDGES])
              + compare(results, [BAYER], ["ssim9"], ["ssim5"], [IN_FLATS])),
        bright_bias(),
        wrong_blur(results, gaining),
    ]  # fmt: skip


def unconverged(comparisons: Iterable[Comparison], gaining: Container[tuple[str, str]]) -> str:
    """How many of the trainings that comparisons rest on had not converged; gaining: (task, variant)."""
    trained = {
        (SUPER if c.task == BLUR5 else c.task, variant)
        for c in comparisons
        for variant in (c.variant, c.other)
        if c.gain and variant not in UNTRAINED
    }
    count = sum(training in gaining for training in trained)
    return f"Of the {len(trained)} trainings it rests on {count} had not converged." if count else ""


def last_quarters(curves: Sequence[CurvePoint]) -> list[Gain]:
    """By how much the test PSNR of each network rose in the last quarter of its steps."""
    runs: dict[tuple[str, str, int], dict[int, float]] = {}
    for point in curves:
        if math.isfinite(point.test_psnr):
            runs.setdefault((point.task, point.variant, point.seed), {})[point.step] = point.test_psnr
    gains = []
    for key, psnr in runs.items():
        last = max(psnr)
        before = [step for step in psnr if step <= 0.75 * last]
        if before:
            gains.append(Gain(*key, last, psnr[last] - psnr[max(before)]))
    return gains


def behind_in_its_own_loss(results: Results) -> str:
    """A network of l1 that has converged cannot be worse in l1 than one of another loss."""
    behind = [c.task for c in compare(results, TABLES, ["l1"], ["l2"], ["1000*l1"]) if c.verdict == FAILS]
    if not behind:
        return ""
    return (
        f"In {', '.join(behind)} the networks of l1 are behind in l1 itself, which they would not be at the "
        "end of their training."
    )


def bright_bias() -> Claim:
    """A line of a dark and a bright half, and two errors of the same l1: a bias and alternating signs."""
    error = 0.05
    line = torch.cat([torch.full((64,), 0.1), torch.full((64,), 0.9)]).double().expand(1, 1, 11, -1)
    signs = torch.tensor([1.0, -1.0]).repeat(64)
    loss = SSIMLoss(reduction="map")  # 11 taps: of 11 equal rows one position is left
    dark, bright = loss(line + error, line)[0, 0, 0, [27, 91]].tolist()
    noisy = loss(line + error * signs, line)[0, 0, 0, 91].item()
    return Claim(
        7,
        "SSIM is insensitive to a uniform bias in bright regions",
        HOLDS if 10 * bright < min(dark, noisy) else FAILS,
        f"One dimension, 1 - SSIM (sigma 1.5) where l1 is {error} everywhere: a bias costs {bright:.4f} "
        f"at 0.9 and {dark:.4f} at 0.1, {dark / bright:.0f} times as much; errors of alternating signs cost "
        f"{noisy:.4f} at 0.9, {noisy / bright:.0f} times as much.",
    )


def wrong_blur(results: Results, gaining: Container[tuple[str, str]]) -> Claim:
    """Whatever is decided between two losses on the right blur is decided likewise on the wrong one."""
    decided, again = 0, []
    for first, second in combinations(("l2", "l1", "ms_ssim", "mix"), 2):
        for before in compare(results, [SUPER], [first], [second], DIGITS):
            if before.gain is None:
                again.append(before)
            elif before.verdict != OPEN:
                pair = (first, second) if before.verdict == HOLDS else (second, first)
                again += compare(results, [BLUR5], pair[:1], pair[1:], [before.metric])
                decided += 1
    verdict = all_of(again) if decided else OPEN
    text = f"{decided} rankings are decided where the blur is the trained one (sigma 3)."
    if decided:
        text += f" Where it is 5, of these and of those not measured: {told(again)}"
    text = " ".join(filter(None, (text, unconverged(again, gaining))))
    return Claim(8, "Rankings survive a wrong blur (sigma 3 in training, 5 in the test)", verdict, text)


def colour_errors(rows: Iterable[Row]) -> list[Row]:
    """By how much FSIM falls when it sees colours."""
    pairs: dict[tuple[str, str, int, str], dict[str, float]] = {}
    for *key, metric, value in rows:
        pairs.setdefault(tuple(key), {})[metric] = value
    return [
        Row(*key, COLOUR, by["FSIM"] - by["FSIMc"])
        for key, by in pairs.items()
        if {"FSIM", "FSIMc"} <= by.keys()
    ]
