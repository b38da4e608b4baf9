"""index.html: every picture in every variant, switched in place. No server, no network."""

import os
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from ..data import Pair
from ..evaluate import DIGITS, Row, means
from ..files import write_text

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#ddd, #3a3a3a);
  --paper: light-dark(#fff, #161616); --mark: light-dark(#fff0b8, #4a4012); }
body { margin: 0 auto; max-width: 78rem; padding: 0 1.25rem 3rem;
  font: 16px/1.5 system-ui, sans-serif; background: var(--paper); }
h1 { margin: 1.5rem 0 .25rem; } h2 { margin: 2rem 0 .5rem; font-size: 1.05rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .75rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child { text-align: left; } tbody th { font-weight: normal; }
nav { position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; gap: .25rem 2rem;
  margin-top: 1.5rem; padding: .5rem 0; background: var(--paper);
  border-bottom: 1px solid var(--line); }
fieldset { display: flex; flex-wrap: wrap; gap: .25rem; margin: 0; padding: 0; border: 0; }
legend { float: left; margin-right: .75rem; padding: .2rem 0; }
nav input { position: absolute; opacity: 0; }
nav label { padding: .2rem .7rem; border: 1px solid var(--line); border-radius: .4rem;
  cursor: pointer; }
nav input:checked + label { background: var(--mark); border-color: currentColor; }
nav input:focus-visible + label, .frame:focus-visible { outline: 3px solid #3b82f6; }
kbd { font: inherit; opacity: .6; }
.picture { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; align-items: start; }
.frame { max-width: 100%; max-height: 85vh; overflow: auto; }
.stack { display: grid; cursor: pointer; }
.stack img { grid-area: 1 / 1; visibility: hidden; image-rendering: pixelated;
  width: calc(var(--width) * var(--zoom) * 1px); height: calc(var(--height) * var(--zoom) * 1px); }
"""

SCRIPT = """
const variants = [...document.querySelectorAll('input[name=variant]')];
document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  variants[Number(event.key) - 1]?.click();
});
document.addEventListener('click', event => {
  if (!event.target.closest('.stack')) return;
  const now = variants.findIndex(variant => variant.checked);
  variants[(now + 1) % variants.length].click();
});
"""


def address(*parts: str) -> str:
    """A relative URL in an attribute; a file name may hold any byte but "/" and zero."""
    return escape(quote(os.fsencode("/".join(parts))))


def table(head: str, rows: Sequence[tuple[str, str, dict[str, float]]]) -> str:
    """rows of (class, name, {metric: value})."""
    lines = "".join(
        f'<tr class="{css}"><th scope="row">{escape(name)}</th>'
        + "".join(f"<td>{values[m]:.{digits}f}</td>" for m, digits in DIGITS.items())
        + "</tr>\n"
        for css, name, values in rows
    )
    columns = "".join(f'<th scope="col">{metric}</th>' for metric in DIGITS)
    return (
        f'<table><thead><tr><th scope="col">{escape(head)}</th>{columns}</tr></thead>\n'
        f"<tbody>\n{lines}</tbody></table>"
    )


def choice(group: str, title: str, options: Sequence[tuple[str, str]]) -> str:
    """One of several, as radio buttons: arrow keys and screen readers work by themselves."""
    buttons = "".join(
        f'<input type="radio" name="{group}" id="{id_}"{" checked" if number == 0 else ""}>'
        f'<label for="{id_}">{label}</label>\n'
        for number, (id_, label) in enumerate(options)
    )
    return f"<fieldset><legend>{title}</legend>\n{buttons}</fieldset>"


def section(pair: Pair, variants: Sequence[str], rows: Sequence[Row]) -> str:
    height, width = pair.truth.shape[1:]
    images = "".join(
        f'<img class="v{number}" src="{address("pictures", pair.name, variant + ".png")}" '
        f'alt="{escape(pair.name)}, {escape(variant)}" width="{width}" height="{height}">\n'
        for number, variant in enumerate(variants, 1)
    )
    own = means([row for row in rows if row.picture == pair.name])
    numbers = [(f"v{n}", v, own[v]) for n, v in enumerate(variants, 1) if v in own]
    return f"""<section><h2>{escape(pair.name)}</h2>
<div class="picture">
<div class="frame" tabindex="0" role="region" aria-label="{escape(pair.name)}">
<div class="stack" style="--width: {width}; --height: {height}">
{images}</div></div>
{table("variant", numbers)}
</div></section>
"""


def write_page(folder: Path, title: str, note: str, pairs: Sequence[Pair], rows: Sequence[Row]) -> None:
    """The variants are those of the rows, and the truth."""
    average = means(rows)
    variants = [*average, "truth"]
    keys = [(f"v{n}", f"<kbd>{n}</kbd> {escape(v)}") for n, v in enumerate(variants, 1)]
    zooms = [(f"z{zoom}", f"{zoom}&times;") for zoom in (1, 2, 4, 8)]
    # The buttons choose by CSS alone; the script only adds the digit keys and the click.
    rules = [f"body:has(#v{n}:checked) img.v{n} {{ visibility: visible; }}\n"
             f"body:has(#v{n}:checked) tr.v{n} {{ background: var(--mark); }}"
             for n in range(1, len(variants) + 1)]  # fmt: skip
    rules += [f"body:has(#z{zoom}:checked) {{ --zoom: {zoom}; }}" for zoom in (1, 2, 4, 8)]
    overview = [(f"v{n}", variant, average[variant]) for n, variant in enumerate(average, 1)]
    credit = '<footer><p><a href="CREDITS.md">The photographs and their licences</a></p></footer>'
    footer = credit if (folder / "CREDITS.md").exists() else ""
    sections = "".join(section(pair, variants, rows) for pair in pairs)
    write_text(
        folder / "index.html",
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{chr(10).join(rules)}
</style></head><body>
<header><h1>{escape(title)}</h1>
<p>{escape(note)} A digit key or a click on a picture switches all of them in place.</p>
{table(f"mean of {len(pairs)} pictures", overview)}
</header>
<nav>
{choice("variant", "Show", keys)}
{choice("zoom", "Zoom", zooms)}
</nav>
<main>
{sections}</main>
{footer}
<script>{SCRIPT}</script>
</body></html>
""",
    )
