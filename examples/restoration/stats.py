"""Means over pictures and seeds with 95 % intervals: a bootstrap over both, paired between variants."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .evaluate import Row
from .metrics import LOWER_IS_BETTER

RESAMPLES = 4000
UNTRAINED = frozenset({"noisy", "jpeg", "bilinear", "BM3D"})  # the same whatever the seed


class Interval(NamedTuple):
    mean: float
    lo: float
    hi: float


class Cell(NamedTuple):
    """One number of the tables."""

    task: str
    variant: str
    metric: str
    mean: float
    lo: float  # 95 % interval
    hi: float
    pictures: int
    seeds: int


class Results:
    """The rows by task, variant and metric."""

    def __init__(self, rows: Iterable[Row]):
        self.values: dict[tuple[str, str, str], dict[tuple[int, str], float]] = {}
        for task, variant, seed, picture, metric, value in rows:
            self.values.setdefault((task, variant, metric), {})[seed, picture] = value

    def variants(self, task: str) -> list[str]:
        return list(dict.fromkeys(variant for name, variant, _ in self.values if name == task))

    def cell(self, task: str, variant: str, metric: str) -> Cell:
        values = grid([self.values[task, variant, metric]])[0]
        return Cell(task, variant, metric, *bootstrap(values), values.shape[1], values.shape[0])

    def gain(self, task: str, variant: str, other: str, metric: str) -> Interval | None:
        """By how much the variant is better than the other (below 0: worse), over the pictures and
        seeds that both have; None if there are none."""
        found = [self.values.get((task, name, metric), {}) for name in (variant, other)]
        seeds = {seed for column in found for seed, _ in column}
        for i, name in enumerate((variant, other)):
            if name in UNTRAINED:
                found[i] = {(seed, picture): v for (_, picture), v in found[i].items() for seed in seeds}
        ours, theirs = grid(found)
        if ours.size == 0:
            return None
        return bootstrap(theirs - ours if metric in LOWER_IS_BETTER else ours - theirs)


def grid(columns: Sequence[dict[tuple[int, str], float]]) -> np.ndarray:
    """[columns, seeds, pictures]: the seeds of which every column has some picture, and the pictures
    which every column has for all of those."""
    seeds = sorted(set.intersection(*({seed for seed, _ in column} for column in columns)))
    names = dict.fromkeys(name for _, name in columns[0])
    names = [name for name in names if all((s, name) in column for column in columns for s in seeds)]
    return np.array([[[column[s, n] for n in names] for s in seeds] for column in columns]).reshape(
        len(columns), len(seeds), len(names)
    )


@lru_cache
def weights(count: int, stream: int) -> np.ndarray:
    """[RESAMPLES, count]: how often each of `count` things is drawn, as a share. The same at every
    call, so that every variant is resampled alike."""
    generator = np.random.default_rng([2017, stream])
    return generator.multinomial(count, np.full(count, 1 / count), RESAMPLES) / count


def bootstrap(values: np.ndarray) -> Interval:
    """Of values [seeds, pictures]: pictures and seeds are drawn again independently.

    One seed alone says nothing about how seeds differ: the interval is then of the pictures only.
    """
    seeds, pictures = values.shape
    with np.errstate(invalid="ignore"):  # an infinite PSNR
        means = np.einsum("bs,sp,bp->b", weights(seeds, 0), values, weights(pictures, 1), optimize=True)
        lo, hi = np.quantile(means, [0.025, 0.975])
        return Interval(float(values.mean()), float(lo), float(hi))


def summary(rows: Iterable[Row]) -> list[Cell]:
    """A cell for every task, variant and metric, in the order of the rows."""
    results = Results(rows)
    return [results.cell(*key) for key in results.values]
