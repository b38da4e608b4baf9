"""index.html: every picture in every variant, switched in place; the tables, the curves, the claims.

No server, no network: the page opens from the disk.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol


class Cell(Protocol):
    """A mean over pictures and seeds with its 95 % interval; what stats.summary returns."""

    task: str
    variant: str
    metric: str
    mean: float
    lo: float
    hi: float
    pictures: int
    seeds: int


class Claim(Protocol):
    """What claims.judge returns."""

    number: int
    text: str
    verdict: str  # "holds", "does not hold", "cannot tell"
    evidence: str


class CurvePoint(Protocol):
    """The state of a training run at one step; NaN for a number that was not measured there."""

    task: str
    variant: str
    seed: int
    step: int
    loss: float
    test_l2: float  # mean of (x - y)^2, values in [0, 1]
    test_psnr: float  # dB


class PictureView(NamedTuple):
    """One picture in all variants, all of width x height pixels."""

    name: str
    caption: str  # where to look; may be empty
    width: int
    height: int
    files: Mapping[str, str]  # variant -> path relative to the page's folder, "/" between
    metrics: Mapping[str, Mapping[str, float]]  # variant -> metric -> value; none for the truth


class TaskView(NamedTuple):
    """What one restoration task has to show; "truth" among the variants is what they aim at."""

    name: str  # letters, digits and "_"
    title: str
    note: str
    variants: Sequence[str]  # in the order of the keys 1, 2, ...
    pictures: Sequence[PictureView]
    cells: Sequence[Cell] = ()


class Page(NamedTuple):
    title: str
    note: str
    tasks: Sequence[TaskView]
    claims: Sequence[Claim] = ()
    curves: Sequence[CurvePoint] = ()


def write_page(folder: Path, page: Page, *rest) -> None:
    """Writes folder/index.html; the pictures it names are there already."""
    from .old import write_page as old  # until the new one is here

    if not isinstance(page, Page):
        return old(folder, page, *rest)
    raise NotImplementedError
