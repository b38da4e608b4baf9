"""index.html: every picture in every variant, switched in place; the tables, the curves, the claims.

No server, no network: the page opens from the disk.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from ..data import printable
from ..files import write_text
from ..metrics import DIGITS, LOWER_IS_BETTER
from . import curves, names, overlays, study, tables

if TYPE_CHECKING:  # a page is tested without what training needs
    from ..claims import Claim
    from ..stats import Cell
    from ..train import CurvePoint

ASSETS = Path(__file__).parent
STUDY = ASSETS.parents[1] / "results" / "study"  # of examples/study.py, committed
TRUTH = "truth"


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
    beside: Sequence[Claim] = ()  # the same claims by the run with the paper's optimiser


def address(file: str) -> str:
    """A relative URL; a file name may hold any byte but "/" and zero."""
    return quote(os.fsencode(file))


def picture_data(folder: Path, task: TaskView, picture: PictureView) -> dict:
    """What viewer.js needs of one picture; makes its SSIM maps."""
    maps = {}
    if TRUTH in picture.files:
        files = {v: picture.files[v] for v in task.variants if v in picture.files and v != TRUTH}
        maps = overlays.ssim_maps(folder, files, picture.files[TRUTH])
    # Not of the input: it is the worst everywhere, and would decide where to look.
    restored = {variant: pixels for variant, (_, pixels) in list(maps.items())[1:]}
    return {
        "name": printable(picture.name),
        "caption": picture.caption,
        "width": picture.width,
        "height": picture.height,
        "files": {variant: address(file) for variant, file in picture.files.items()},
        "maps": {variant: address(file) for variant, (file, _) in maps.items()},
        "metrics": {
            v: {m: tables.number(by[m], DIGITS[m]) for m in DIGITS if m in by}
            for v, by in picture.metrics.items()
        },
        "spots": [spot._asdict() for spot in overlays.spots(restored)],
    }


def script_data(folder: Path, page: Page) -> str:
    """JSON that no text in it can end early."""
    variants = {variant for task in page.tasks for variant in task.variants}
    data = {
        "tasks": [
            {
                "name": task.name,
                "title": task.title,
                "note": task.note,
                "variants": list(task.variants),
                "pictures": [picture_data(folder, task, picture) for picture in task.pictures],
            }
            for task in page.tasks
        ],
        "variants": {variant: names.variant(variant) for variant in variants},
        "metrics": [{"name": m, "label": names.metric(m), "lower": m in LOWER_IS_BETTER} for m in DIGITS],
    }
    return json.dumps(data, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")


def section(name: str, title: str, content: str) -> str:
    heading = f'<h2 id="{name}-title">{title}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">{heading}\n{content}</section>\n'


def sections(folder: Path, page: Page) -> dict[str, tuple[str, str]]:
    """{name: (title, HTML)} of those that have something to show."""
    found = {}
    if tabled := [task for task in page.tasks if task.cells]:
        found["tables"] = "Tables", "".join(f"<h3>{escape(t.title)}</h3>\n{tables.means(t)}" for t in tabled)
    titles = {task.name: task.title for task in page.tasks}
    trained = list(dict.fromkeys(point.task for point in page.curves))
    drawn = [(t, curves.figures([p for p in page.curves if p.task == t])) for t in trained]
    if any("<svg" in charts for _, charts in drawn):
        found["curves"] = "Curves", "".join(f"<h3>{escape(titles.get(t, t))}</h3>\n{c}" for t, c in drawn)
    if page.claims:
        found["claims"] = "Claims", tables.claims(page.claims, page.beside)
    if drawn := study.figures(STUDY):
        text = "Why the losses rank as they do: examples/results/study has the tables and the verdicts."
        found["study"] = "Study", f"<p>{text}</p>\n{drawn}"
    notes = "".join(f"<h3>{escape(task.title)}</h3>\n<p>{escape(task.note)}</p>\n" for task in page.tasks)
    credit = (folder / "CREDITS.md").exists()
    link = '<p><a href="CREDITS.md">The photographs and their licences</a></p>\n' if credit else ""
    found["about"] = "About", f"<p>{escape(page.note)}</p>\n{notes}{link}"
    return found


def write_page(folder: Path, page: Page) -> None:
    """Writes folder/index.html and the SSIM maps folder/maps; the pictures it names are there already."""

    def asset(name: str) -> str:
        return (ASSETS / name).read_text(encoding="utf-8")

    parts = sections(folder, page)
    targets = [(task.name, escape(task.title)) for task in page.tasks]
    targets += [(name, title) for name, (title, _) in parts.items()]
    links = "".join(f'<a href="#{name}">{title}</a>\n' for name, title in targets)
    html = Template(asset("index.html")).substitute(
        title=escape(page.title),
        style=asset("style.css"),
        links=links,
        sections="".join(section(name, title, content) for name, (title, content) in parts.items()),
        data=script_data(folder, page),
        library=f"/*\n{asset('vendor/panzoom.LICENSE.txt')}*/\n{asset('vendor/panzoom.min.js')}",
        script=asset("zoom.js") + asset("viewer.js"),
    )
    write_text(folder / "index.html", html)
