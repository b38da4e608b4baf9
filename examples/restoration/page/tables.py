"""The tables of means with their intervals, and the claims."""

import math
from collections.abc import Sequence
from html import escape
from itertools import zip_longest

from ..metrics import DIGITS, LOWER_IS_BETTER
from . import names


def number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if math.isfinite(value) else "∞" if value > 0 else "?"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def best(metric: str, values: Sequence[float]) -> float:
    """NaN without a number to choose from."""
    known = [value for value in values if not math.isnan(value)]
    return (min if metric in LOWER_IS_BETTER else max)(known, default=math.nan)


def means(task) -> str:
    """Metrics down, variants across, as in the paper; the best mean in bold."""
    cells = {(cell.metric, cell.variant): cell for cell in task.cells}
    variants = [v for v in task.variants if any(variant == v for _, variant in cells)]
    rows = []
    for metric, digits in DIGITS.items():
        row = [cells.get((metric, variant)) for variant in variants]
        if not any(row):
            continue
        top = number(best(metric, [cell.mean for cell in row if cell]), digits)
        columns = "".join(
            "<td></td>" if cell is None
            else f"<td>{emphasised(number(cell.mean, digits), top)}"
            f"<small>{number(cell.lo, digits)} to {number(cell.hi, digits)}</small></td>"
            for cell in row
        )  # fmt: skip
        arrow = "↓" if metric in LOWER_IS_BETTER else "↑"
        sign = f'<abbr title="{names.better(metric)}">{arrow}</abbr>'
        rows.append(f'<tr><th scope="row">{escape(names.metric(metric))} {sign}</th>{columns}</tr>\n')
    head = "".join(f'<th scope="col">{escape(names.variant(v))}</th>' for v in variants)
    counts = {(cell.pictures, cell.seeds) for cell in task.cells}
    of = " or ".join(f"{plural(p, 'picture')}, {plural(s, 'seed')}" for p, s in sorted(counts))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(task.title)}, table">'
        f'<table aria-label="{escape(task.title)}">\n<thead><tr><td></td>{head}</tr></thead>\n'
        f"<tbody>\n{''.join(rows)}</tbody></table></div>\n"
        f'<p class="note">Means over {of}; below each its 95 % interval.</p>\n'
    )


def emphasised(text: str, top: str) -> str:
    return f"<strong>{text}</strong>" if text == top else text


def claims(listed: Sequence, beside: Sequence = ()) -> str:
    """beside: the same claims judged by a run with the paper's optimiser, or none."""

    def judged(claim, by: str) -> str:
        verdict = f'<b class="verdict">{escape(claim.verdict)}</b>'
        return (
            f'<p class="{names.VERDICTS[claim.verdict]}">{by}{verdict}</p>'
            f'<p class="evidence">{escape(claim.evidence)}</p>'
        )

    items = []
    for claim, other in zip_longest(listed, beside):
        parts = judged(claim, "Each loss at its own rate, by Adam: " if other else "")
        if other:
            parts = judged(other, "One rate for all, by SGD: ") + parts
        items.append(f'<li value="{claim.number}"><p>{escape(claim.text)}</p>{parts}</li>\n')
    return f'<ol class="claims">\n{"".join(items)}</ol>\n'
