"""compare.py's records as tables (Markdown), plots (SVG) and one page that needs no other file."""

import io
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from compare_measure import DISTANCES, TOLERANCE
from compare_rows import DTYPES, KINDS, PEERS
from gpu_tables import COPY, L1, OURS

Record = dict[str, Any]
Found = dict[str, dict[str, Record]]  # contender -> what -> record
KEPT = ("answer", "digits", "memory", "launches")


class Run(NamedTuple):
    """What one machine measured."""

    machine: Record
    peaks: dict[tuple[str, int], Record]  # by device and threads: the best of all processes
    rows: dict[tuple[str, str], Found]  # by row and device; times are ("time", threads)
    failed: list[Record]


def runs_of(records: Iterable[Record]) -> list[Run]:
    runs: list[Run] = []
    for record in records:
        if record["what"] == "machine":
            runs.append(Run(record, {}, {}, []))
        elif record["what"] == "peaks":
            best = {key: max(one[key] for one in record["processes"]) for key in record["processes"][0]}
            runs[-1].peaks[record["device"], record["threads"]] = best
        elif record["what"] == "failed":
            runs[-1].failed.append(record)
        else:
            row = runs[-1].rows.setdefault((record["row"], record["device"]), {})
            what = f"time {record['threads']}" if record["what"] == "time" else record["what"]
            row.setdefault(record["contender"], {})[what] = record
    return runs


def threads_of(found: Found) -> list[int]:
    times = {what for records in found.values() for what in records if what.startswith("time ")}
    return sorted(int(what.split()[1]) for what in times)


def compared(run: Run, device: str) -> dict[str, Found]:
    """The rows in which others stand beside us, with times."""
    return {
        row: found
        for (row, of), found in run.rows.items()
        if of == device and threads_of(found) and found[OURS]["answer"]["kind"] != DTYPES
    }


def timed_in(rows: dict[str, Found]) -> set[str]:
    return {name for found in rows.values() for name in found if threads_of({name: found[name]})}


# ---- Tables


def markdown(head: list[str], rows: list[list[str]], texts: int = 1) -> list[str]:
    aligned = ["---"] * texts + ["---:"] * (len(head) - texts)
    return ["| " + " | ".join(cells) + " |" for cells in (head, aligned, *rows)]


def number(value: float) -> str:
    """Three digits."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def with_spread(quartiles: list[float]) -> str:
    low, middle, high = map(number, quartiles)
    return f"{middle} ({low} to {high})" if low != high else middle


def shares(run: Run, name: str, records: dict[str, Record], threads: int) -> list[str]:
    """Of the time of value + gradient: a copy of 12 bytes an element, and the FMA at matmul's rate."""
    time = records.get(f"time {threads}")
    best = time and run.peaks.get((time["device"], threads))
    if not time or not best or time["kind"] == DTYPES or name == COPY:
        return ["", ""]
    elements, seconds = math.prod(time["shape"]), time["both"]["ms"][1] / 1e3
    fma = 0 if name == L1 else KINDS[time["kind"]].fma
    rates = 12 * elements / best["bytes"], fma * elements / best["fma"]
    return [f"{100 * rate / seconds:.0f} %" if rate else "" for rate in rates]


def where(device: str, threads: int) -> str:
    return device if device != "cpu" else f"{threads} thread{'s' * (threads > 1)}"


def table_of_row(run: Run, row: str, device: str) -> list[str]:
    found = run.rows.get((row, device), {})
    lines = [f"### {row}, {device}", ""]
    all_threads = threads_of(found)
    head = [""]
    for threads in all_threads:
        on = where(device, threads)
        head += [f"value + gradient, {on}, ms", "to ours", f"value alone, {on}, ms"]
    head += ["of a copy's rate", "of matmul's FMA", "memory", *(f"error at {d:g}" for d in DISTANCES)]
    head += ["launches"] if device == "cuda" else []
    rows = []
    for name, records in found.items():
        if not any(what.startswith("time ") for what in records):
            continue
        cells = [name]
        for threads in all_threads:
            if time := records.get(f"time {threads}"):
                cells += [with_spread(time["both"]["ms"]), with_spread(time["both"]["ratio"])]
                cells += [number(time["forward"]["ms"][1])]
            else:
                cells += [""] * 3
        cells += shares(run, name, records, all_threads[-1])
        cells += [number(records["memory"]["gradients"]) if "memory" in records else ""]
        digits = records.get("digits", {}).get("errors", [])
        cells += [f"{error:.0e}" for error in digits] or [""] * len(DISTANCES)
        cells += [str(records.get("launches", {}).get("launches", ""))] if device == "cuda" else []
        rows.append(cells)
    lines += [*markdown(head, rows), ""] if rows else []
    return [*lines, *left_out(run, row, device, found)]


def left_out(run: Run, row: str, device: str, found: Found) -> list[str]:
    lines = []
    for name, records in found.items():
        answer = records.get("answer", {"same": True})
        if "raised" in answer:
            lines.append(f"- {name} raises {answer['raised']}")
        elif not answer["same"]:
            value, expected, off = answer["value"], answer["expected"], answer["gradient_off"]
            lines.append(
                f"- {name} computes something else and is not timed: {value:.6g} for {expected:.6g}, "
                f"its gradient is {off:.0e} away."
            )
    lines += [f"- Failed: {f['raised']}" for f in run.failed if (f["row"], f["device"]) == (row, device)]
    return [*lines, ""] if lines else []


def in_short(run: Run, device: str) -> list[str]:
    """The medians of value + gradient at the most threads: ours in ms, the others' as ratios."""
    timed = timed_in(compared(run, device))
    names = [name for name in (OURS, L1, *PEERS) if name in timed]
    rows = []
    for row, found in compared(run, device).items():
        threads = threads_of(found)
        cells = []
        for name in names:
            time = found.get(name, {}).get(f"time {threads[-1]}")
            both = time and time["both"]
            cells.append("" if not both else number(both["ms" if name == OURS else "ratio"][1]))
        rows.append([row, *cells])
    heads = [f"{name} {run.machine['peers'].get(name, '')}".strip() for name in names]
    heads[0] += ", ms"
    return [*markdown(["value + gradient, in times ours", *heads], rows), ""] if rows else []


def described(run: Run) -> list[str]:
    m, ours = run.machine, run.machine["ssimloss"]
    what = f"{m['gpu']}; {m['cpu']}" if m["gpu"] else m["cpu"]
    peers = ", ".join(f"{name} {version}" for name, version in m["peers"].items())
    lines = [
        f"# {what}, {m['date']}",
        "",
        f"{m['cores']} cores, {m['memory_gib']:g} GiB, {m['system']}, load {m['load']} before the run. "
        f"ssimloss {ours['version']}, commit {m['commit']}, CPU kernels {ours['cpu_variant']}, CUDA kernels "
        f"{' '.join(ours['cuda_architectures']) or 'none'}, torch {ours['torch']}, Python {m['python']}. "
        f"Peers: {peers or 'none'}.",
        "",
    ]
    for (device, threads), best in run.peaks.items():
        lines.append(
            f"- {where(device, threads)}: Tensor.copy_ reads and writes "
            f"{best['bytes'] / 1e9:.0f} GB/s, torch.matmul does {best['fma'] / 1e9:.0f} G FMA/s."
        )
    return [*lines, "", NOTES.replace("SAME", f"{TOLERANCE[torch.float64]:g}"), ""]


NOTES = """float32. Medians of interleaved rounds in two processes, and quartiles; a ratio is the median of
the ratios within rounds. What takes 1 s with all threads is not timed with fewer. Memory: the peak of two
steps (of one that takes 1 s) beyond the images, in sizes of the gradient. Errors: of the float32 gradient
against the same in float64, for images so far apart. The shares: the time that a copy of 12 bytes an
element takes (both images read, the gradient written), and the FMA of separable windows at torch.matmul's
rate, which stands for the peak, of the time that was taken. Each answer was first held against the
definition in float64; value and gradient within SAME of it are the same."""


# ---- Plots and the page


def figure(run: Run, device: str) -> str:
    """Dots, a line of them for each row: times, memory and digits."""
    import matplotlib
    from matplotlib.figure import Figure

    rows = compared(run, device)
    timed = timed_in(rows)
    names = [name for name in (*PEERS, L1, COPY, OURS) if name in timed]
    style = {"svg.hashsalt": "ssimloss", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        drawn = Figure(figsize=(11, 1.7 + 0.34 * len(rows)), layout="constrained")
        speed, memory, error = drawn.subplots(1, 3, sharey=True)
        for index, name in enumerate(names):
            look = dict(label=name, fmt="osv^DPX"[index % 7], ms=6, lw=1, alpha=0.9)
            look |= dict(color="black", fmt="o", zorder=4) if name == OURS else dict(color=f"C{index}")
            dots: dict[Any, list[tuple]] = {speed: [], memory: [], error: []}
            for y, found in enumerate(rows.values()):
                records = found.get(name, {})
                if time := records.get(f"time {threads_of(found)[-1]}"):
                    low, middle, high = time["both"]["ratio"]
                    dots[speed].append((middle, y, middle - low, high - middle))
                if "memory" in records and records["memory"]["gradients"] > 0:
                    dots[memory].append((records["memory"]["gradients"], y, 0, 0))
                if "digits" in records and records["digits"]["errors"][0] > 0:
                    dots[error].append((records["digits"]["errors"][0], y, 0, 0))
            for axes, points in dots.items():
                if points:
                    x, y, low, high = zip(*points, strict=True)
                    axes.errorbar(x, y, xerr=(low, high), **look)
        for axes, title in (
            (speed, "time of value + gradient, in times ours"),
            (memory, "peak memory, in sizes of the gradient"),
            (error, f"gradient's error, images {DISTANCES[0]:g} apart"),
        ):
            axes.set_xscale("log")
            axes.set_title(title, fontsize=9)
            axes.grid(alpha=0.3)
        speed.axvline(1, color="black", lw=0.8)
        speed.set_yticks(range(len(rows)), rows)
        speed.set_ylim(len(rows) - 0.5, -0.5)
        drawn.legend(
            *speed.get_legend_handles_labels(), loc="outside upper right", ncols=len(names), frameon=False
        )
        text = io.StringIO()
        drawn.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def tables(run: Run, device: str) -> list[str]:
    lines = []
    for row, of in run.rows:
        if of == device:
            lines += table_of_row(run, row, device)
    return lines


def write(records: Iterable[Record], out: Path) -> None:
    """The page, and beside it its text in Markdown with the plots as SVG."""
    from markdown_it import MarkdownIt

    text: list[str] = []
    plots: dict[str, str] = {}
    for index, run in enumerate(runs_of(records)):
        text += described(run)
        for device in dict.fromkeys(device for _, device in run.rows):
            plot = f"{out.stem}-{device}{f'-{index}' if index else ''}.svg"
            if compared(run, device):
                plots[plot] = figure(run, device)
                text += [f"![Time, memory and digits of every row]({plot})", ""]
            text += [*in_short(run, device), *tables(run, device)]
    html = MarkdownIt("js-default").render("\n".join(text))  # no HTML of a file that somebody sent
    for plot, svg in plots.items():
        out.with_name(plot).write_text(svg, encoding="utf-8")
        html = re.sub(rf'<img src="{re.escape(plot)}"[^>]*>', lambda _, s=svg: s[s.index("<svg") :], html)
    out.with_suffix(".md").write_text("\n".join(text), encoding="utf-8")
    out.write_text(PAGE.replace("BODY", html), encoding="utf-8")


PAGE = """<!doctype html>
<meta charset="utf-8">
<title>ssimloss beside its peers</title>
<style>
body { font: 15px/1.5 sans-serif; max-width: 100em; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
td, th { border-bottom: 1px solid #ddd; padding: 2px 9px }
td { white-space: nowrap }
th { vertical-align: bottom }
svg { max-width: 100%; height: auto }
</style>
BODY"""
