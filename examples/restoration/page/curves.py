"""The training curves as inline SVG: one small chart a quantity, labelled at the lines' ends."""

import math
from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby, pairwise
from typing import NamedTuple

from . import names
from .tables import plural

WIDTH, HEIGHT = 620, 330  # of the drawing, in its own units
LEFT, RIGHT, TOP, BOTTOM = 58, 116, 14, 40  # margins around the plot
LABEL_STEP = 15  # least distance of two labels
FEW = 10  # points of a line that are marked


class Chart(NamedTuple):
    title: str
    value: Callable  # of a point and of the first point of its run
    log: bool
    digits: int
    across: str = "training step"
    log_across: bool = False


CHARTS = (
    Chart("PSNR in the middles of the test pictures, dB", lambda point, first: point.test_psnr, False, 2),
    Chart("1000·l2 in the middles of the test pictures", lambda point, first: 1000 * point.test_l2, True, 4),
    Chart(
        "Training loss, relative to its first value", lambda point, first: point.loss / first.loss, True, 3
    ),
)


class Line(NamedTuple):
    variant: str
    seed: int
    points: list[tuple[float, float]]


class Scale(NamedTuple):
    """From values to the drawing's units."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def lines(points: Sequence, chart: Chart) -> list[Line]:
    """One for each run, of the values that can be drawn."""
    result = []
    runs: dict[tuple[str, int], list] = {}
    for point in points:
        runs.setdefault((point.variant, point.seed), []).append(point)
    for (variant, seed), run in runs.items():
        run.sort(key=lambda point: point.step)
        first = next((point for point in run if point.loss > 0), run[0])
        drawn = [(p.step, chart.value(p, first)) for p in run if first.loss > 0 or chart is not CHARTS[2]]
        drawn = [(x, y) for x, y in drawn if math.isfinite(y) and (y > 0 or not chart.log)]
        if drawn:
            result.append(Line(variant, seed, drawn))
    return result


def ticks(low: float, high: float, log: bool, about: int = 5) -> list[float]:
    """Round numbers within [low, high]."""
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
            found = [d * 10.0**e for e in decades for d in digits if low <= d * 10.0**e <= high]
            if len(found) >= 3:
                return found
    rough = (high - low) / about
    power = 10 ** math.floor(math.log10(rough))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def limits(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        room = (high / low) ** 0.04 if high > low else 1.1
        return low / room, high * room
    room = (high - low) * 0.04 if high > low else abs(high) * 0.1 or 1
    return low - room, high + room


def spread(heights: Sequence[float], lowest: float) -> list[float]:
    """Heights moved apart by at least LABEL_STEP, in the same order, none below `lowest`."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    placed = list(heights)
    for before, after in pairwise(order):
        placed[after] = max(placed[after], placed[before] + LABEL_STEP)
    bound = lowest
    for index in reversed(order):
        placed[index] = min(placed[index], bound)
        bound = placed[index] - LABEL_STEP
    return placed


def svg(chart: Chart, drawn: Sequence[Line], label: str) -> str:
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    low, high = limits(ys, chart.log)
    ends = limits(xs, True) if chart.log_across else (min(0, *xs), max(xs) or 1)
    across = Scale(*ends, LEFT, WIDTH - RIGHT, chart.log_across)
    up = Scale(low, high, HEIGHT - BOTTOM, TOP, chart.log)
    parts = []
    for value in ticks(low, high, chart.log):
        y = up(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in ticks(across.low, across.high, chart.log_across):
        parts.append(
            f'<text x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:g}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{chart.across}</text>'
    )
    last: dict[str, Line] = {}
    for line in drawn:
        colour, dashes = names.LINES.get(line.variant, ("grey", ""))
        path = " ".join(f"{across(x):.1f},{up(y):.1f}" for x, y in line.points)
        title = f"{names.variant(line.variant)}, seed {line.seed}"
        few = line.points if len(line.points) <= FEW else []
        marks = "".join(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3"/>' for x, y in few)
        parts.append(
            f'<g class="{colour}"><title>{escape(title)}</title>'
            f'<polyline points="{path}" stroke-dasharray="{dashes}"/>{marks}</g>'
        )
        last.setdefault(line.variant, line)
    ends = [(across(line.points[-1][0]), up(line.points[-1][1])) for line in last.values()]
    heights = spread([y for _, y in ends], HEIGHT - BOTTOM)
    for variant, (x, y), at in zip(last, ends, heights, strict=True):
        colour, dashes = names.LINES.get(variant, ("grey", ""))
        edge = WIDTH - RIGHT
        parts.append(
            f'<g class="{colour}"><path opacity=".35" d="M{x:.1f} {y:.1f}L{edge + 6} {at:.1f}h10"'
            f' stroke-dasharray="{dashes}"/>'
            f'<text x="{edge + 20}" y="{at + 4:.1f}">{escape(names.variant(variant))}</text></g>'
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


# Of a plot without the page, whose colours are in its style sheet.
STYLE = """svg { background: white; font: 12px sans-serif; fill: #555; } .grid { stroke: #ddd; }
polyline, path { fill: none; stroke: currentColor; stroke-width: 1.75; }
g text, circle { fill: currentColor; }
.blue { color: #0072b2; } .red { color: #d55e00; } .green { color: #009e73; } .purple { color: #a0568a; }
.orange { color: #b87800; } .sky { color: #3a94c9; } .grey { color: #777; }"""


def standalone(plot: str) -> str:
    """A file of its own."""
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'  # or 300x150
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>{plot}</svg>\n'


def figures(points: Sequence) -> str:
    """The charts of one task, each with what a screen reader says of it."""
    parts = []
    for chart in CHARTS:
        drawn = lines(points, chart)
        if not drawn:
            continue
        finals = []
        for variant, runs in groupby(sorted(drawn, key=lambda line: line.variant), lambda line: line.variant):
            ends = [run.points[-1][1] for run in runs]
            finals.append((names.variant(variant), sum(ends) / len(ends), len(ends)))
        at_the_end = ", ".join(f"{name} {value:.{chart.digits}f}" for name, value, _ in finals)
        seeds = plural(max(count for *_, count in finals), "seed")
        label = f"{chart.title}, against the training step. At the end: {at_the_end}."
        scale = "logarithmic scale, " if chart.log else ""
        parts.append(
            f'<figure><figcaption>{escape(chart.title)} <span class="quiet">({scale}{seeds})</span>'
            f"</figcaption>{svg(chart, drawn, label)}</figure>\n"
        )
    return f'<div class="charts">\n{"".join(parts)}</div>\n'
