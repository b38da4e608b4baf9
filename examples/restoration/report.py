"""What a run leaves to read, beside rows.csv and curves.csv: the tables, the claims and the page."""

import csv
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

from .claims import CONVERGED, Claim, Gain, judge, last_quarters
from .data import printable
from .evaluate import Row, markdown, read_rows, verdicts
from .files import replacing, write_text
from .losses import PLANS
from .metrics import DIGITS
from .page import Page, PictureView, TaskView, write_page
from .page.curves import CHARTS, lines, standalone, svg
from .paper import beside_paper
from .progress import read_curves
from .stats import Cell, summary
from .task import BM3D, Study
from .train import CurvePoint

RESULTS = Path(__file__).parent.parent / "results"  # the largest run so far, committed
RESULTS_STEPS = dict.fromkeys(("denoise_demosaic", "jpeg_deblocking", "super_resolution"), 30000)

# Where to look in the embedded pictures: {kind of input: {picture: caption}}
CAPTIONS = {
    "noisy": {
        "001-green-maple": "Colour noise on the dark trunk; false colours along the leaves' edges.",
        "002-snow-trees": "Twigs on the snow: grains left beside them, or twigs lost; splotches.",
        "003-life-by-aitzol-berasategi": "Leaves and rock: which variant keeps texture and loses the grain?",
        "004-flower": "Zippering along the petals' stripes; noise in the brown wall behind.",
    },
    "jpeg": {
        "001-green-maple": "Blocks in the soft background; ringing along the leaves.",
        "002-snow-trees": "Blocks and bands in the shaded snow; the halo around the twigs.",
        "003-life-by-aitzol-berasategi": "The white water: ringing, or a blur in its place.",
        "004-flower": "The petals' pink stripes: do their colours shift?",
    },
    "bilinear": {
        "001-green-maple": "The tips of the leaves: sharp, or with a grating beside them?",
        "002-snow-trees": "How many twigs come back; bright seams along the trunks.",
        "003-life-by-aitzol-berasategi": "Leaves above the stream: detail against invented grain.",
        "004-flower": "The stripes of the petals and the yellow middle.",
    },
}


def write_report(title: str, studies: Sequence[Study], rows: Sequence[Row], settings: Mapping) -> None:
    options = studies[0].options
    folder = options.out
    note = note_of(studies, settings)
    curves = read_curves(folder / "curves.csv")
    cells = [cell for cell in summary(rows) if cell.metric in DIGITS]
    write_cells(folder / "table.csv", cells)
    judged, beside = judge(rows, curves), None
    if options.beside:
        beside = judge(read_rows(options.beside / "rows.csv"), read_curves(options.beside / "curves.csv"))
    if options.optimizer == "sgd" and beside:
        judged, beside = beside, judged  # the losses at their own rates first
    text = [f"# {title}\n\n{note}\n"]
    for study in studies:
        for test, degradation in {study.task.name: study.task.degradation, **study.task.also}.items():
            own = [row for row in rows if row.task == test]
            lines = verdicts(own, degradation.input)
            text.append(
                f"## {study.task.title}{'' if test == study.task.name else f': {test}'}\n\n"
                f"{note_on(study, own, degradation.note)}\n\n{markdown(own)}\n- " + "\n- ".join(lines) + "\n"
            )
            if both := beside_paper(cells, test):
                text.append(f"Beside the paper, whose photographs are others:\n\n{both}")
            print(f"\n{test}\n{markdown(own)}" + "\n".join(lines))
    write_text(folder / "table.md", "\n".join(text))
    gains = {options.optimizer: last_quarters(curves)}
    if options.beside:
        other = ({"adam", "sgd"} - {options.optimizer}).pop()
        gains[other] = last_quarters(read_curves(options.beside / "curves.csv"))
    write_text(folder / "claims.md", claims_text(title, note, judged, beside or (), gains))
    views = [
        TaskView(
            study.task.name,
            study.task.title,
            note_on(study, rows, study.task.degradation.note),
            variants_of(study, rows),
            pictures_of(study, rows),
            [cell for cell in cells if cell.task == study.task.name],
        )
        for study in studies
    ]
    write_plots(folder, curves)
    for study in studies:
        print(in_short(cells, study.task.name))
        if more := longer(study, read_cells(RESULTS / "table.csv"), settings):
            print(more)
    write_page(folder, Page(title, note, views, judged, curves, beside or ()))
    print(f"The pictures: {folder / 'index.html'}")


def note_of(studies: Sequence[Study], settings: Mapping) -> str:
    seeds = ", ".join(map(str, studies[0].options.seeds))
    return (
        f"Trained on {settings['train']}; tested on {settings['test']}. {settings['steps']} steps of "
        f"{settings['batch_size']} patches for each network; "
        f"{OWN if settings['optimizer'] == 'adam' else PAPER}; {settings['precision']}; seeds {seeds}."
    )


def note_on(study: Study, rows: Sequence[Row], note: str) -> str:
    """What was done to the pictures, and whether BM3D is missing."""
    missing = BM3D in study.order and BM3D not in {row.variant for row in rows}
    return f"{note}.{' No BM3D: its optional packages are not installed.' if missing else ''}"


def in_short(cells: Sequence[Cell], task: str) -> str:
    """What a run shows of a task."""
    lines = []
    for metric in ("PSNR", "SSIM"):
        means = {
            c.variant: c.mean for c in cells if (c.task, c.metric) == (task, metric) and c.variant in PLANS
        }
        ranked = sorted(means, key=means.__getitem__, reverse=True)
        if ranked:
            told = ", ".join(f"{variant} {means[variant]:.{DIGITS[metric]}f}" for variant in ranked)
            lines.append(f"{metric} from best to worst: {told}.")
    return "\n".join(lines)


def longer(study: Study, cells: Sequence[Cell], settings: Mapping) -> str:
    """What the committed results say of more photographs and steps; "" where this run is no less."""
    task = study.task.name
    means = {c.variant: c.mean for c in cells if (c.task, c.metric) == (task, "PSNR") and c.variant in PLANS}
    less = study.options.data is None and study.options.test is None and settings["optimizer"] == "adam"
    if not (less and means and study.task.degradation == type(study.task.degradation)()):
        return ""
    told = ", ".join(f"{v} {means[v]:.2f}" for v in sorted(means, key=means.__getitem__, reverse=True))
    return (
        f"From 46 photographs in {RESULTS_STEPS[task]} steps, tested on Kodak's 24: PSNR {told}.\n"
        "Four times the steps gave every loss 0.3 to 0.8 dB more in super-resolution (examples/results)."
    )


def read_cells(path: Path) -> list[Cell]:
    """What write_cells wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Cell(task, variant, metric, *map(float, interval), int(pictures), int(seeds))
            for task, variant, metric, *interval, pictures, seeds in list(csv.reader(file))[1:]
        ]


def write_cells(path: Path, cells: Sequence[Cell]) -> None:
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["task", "loss", "metric", "mean", "lo", "hi", "pictures", "seeds"])
        for c in cells:
            numbers = [f"{number:.6g}" for number in (c.mean, c.lo, c.hi)]
            writer.writerow([c.task, c.variant, c.metric, *numbers, c.pictures, c.seeds])


def write_plots(folder: Path, curves: Sequence[CurvePoint]) -> None:
    """curves-TASK.svg: the PSNR of the test pictures while training, without the page."""
    for task in dict.fromkeys(point.task for point in curves):
        drawn = lines([point for point in curves if point.task == task], CHARTS[0])
        if drawn:
            plot = standalone(svg(CHARTS[0], drawn, CHARTS[0].title))
            write_text(folder / f"curves-{task}.svg", plot)


OWN = "each loss at its own rate, Adam"
PAPER = "one rate for all losses, SGD with momentum, as the paper seems to have it"


def claims_text(
    title: str,
    note: str,
    judged: Sequence[Claim],
    paper: Sequence[Claim],
    gains: Mapping[str, Sequence[Gain]],
) -> str:
    """judged: by a run; where there are two, by that with each loss at its own rate, and `paper` by the one
    with the same rate for all. gains: {optimizer: of its networks}."""
    lines = [f"# {title}: the paper's claims\n", f"{note}\n"]
    for claim, other in zip_longest(judged, paper):
        lines.append(f"## {claim.number}. {claim.text}\n")
        if other is None:
            lines.append(f"**{claim.verdict}**. {claim.evidence}\n")
        else:
            lines.append(f"- {PAPER}: **{other.verdict}**. {other.evidence}")
            lines.append(f"- {OWN}: **{claim.verdict}**. {claim.evidence}\n")
    if any(gains.values()):
        lines.append(
            "## Convergence\n\nConverged: in the last quarter of the steps the PSNR in the middles of the "
            f"test pictures gained at most {CONVERGED} dB.\n\n"
            "| optimizer | task | loss | seed | steps | gain, dB | converged |\n|---|---|---|---|---|---|---|"
        )
    for optimizer, networks in gains.items():
        for *network, gain in networks:
            verdict = "yes" if gain <= CONVERGED else "no"
            lines.append(f"| {' | '.join(map(str, (optimizer, *network)))} | {gain:+.3f} | {verdict} |")
    return "\n".join(lines) + "\n"


def variants_of(study: Study, rows: Sequence[Row]) -> list[str]:
    there = {row.variant for row in rows if row.task == study.task.name}
    return [*(variant for variant in study.order if variant in there), "truth"]


def pictures_of(study: Study, rows: Sequence[Row]) -> list[PictureView]:
    """With the metrics of the pictures that were saved: the first seed's."""
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for task, variant, seed, picture, metric, value in rows:
        trained = variant in study.task.losses
        if task == study.task.name and (seed == study.options.seeds[0] or not trained):
            metrics.setdefault(picture, {}).setdefault(variant, {})[metric] = value
    views = []
    for pair in study.pairs:
        height, width = pair.truth.shape[1:]
        files = {
            variant: study.picture_file(pair, variant).relative_to(study.options.out).as_posix()
            for variant in variants_of(study, rows)
        }
        caption = CAPTIONS.get(study.task.degradation.input, {}).get(pair.name, "")
        views.append(PictureView(pair.name, caption, width, height, files, metrics[printable(pair.name)]))
    return views
