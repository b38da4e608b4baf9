"""Tasks from the command line to their folder: read, degrade, train each loss, evaluate, report."""

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor

from .command import Parser, Refused, message, one_line, printable, real, whole
from .data import NoPhotographs, digest, train_and_test
from .evaluate import read_rows, save_picture, write_rows
from .files import check_writable, write_text
from .progress import Progress
from .report import write_report
from .task import Study, Task

PHOTOS = Path(__file__).parent.parent / "photos"
MANY = 2**31 - 1
READ_AND_WRITTEN = (
    "--data and --test read PNG, JPEG, JFIF, MPO, WebP, AVIF, TIFF, BMP, PPM and JPEG 2000, HEIC where "
    "pillow-heif is installed, of RGB or grey; not what is hidden or transparent, nor the results of these "
    "scripts. What is not read is named or counted. --out gets PNG, CSV, SVG, HTML, Markdown and safetensors."
)


def parser(tasks: Sequence[Task], description: str, out: str) -> argparse.ArgumentParser:
    result = Parser(description=description, epilog=READ_AND_WRITTEN)
    add = result.add_argument
    folder = {"type": Path, "metavar": "DIR"}
    add("--data", **folder, help="your photographs, any tree; default: the embedded ones")
    add("--test", **folder, help="those to evaluate on; default: every tenth of --data")
    add("--out", **folder, default=Path("runs") / out, help="default: %(default)s")
    add("--resume", action="store_true", help="go on with the run in --out")
    every = list(dict.fromkeys(loss for task in tasks for loss in task.losses))
    default = "; ".join(f"{task.name}: {' '.join(task.default)}" for task in tasks)
    add("--losses", nargs="+", choices=every, help=f"default: {default}")
    more = "".join(f" ({task.pace} times as many for {task.name})" for task in tasks if task.pace > 1)
    add("--steps", type=whole(1, MANY), default=400, help=f"for each network{more}; default: %(default)s")
    add("--batch-size", type=whole(1, 2**16), default=16, help="patches a step; default: %(default)s")
    add("--seeds", nargs="+", type=whole(0, 2**32 - 1), default=[0], help="a network for each; default: 0")
    add("--minutes", type=real(0, math.inf), default=math.inf, help="train no longer; --resume goes on")
    add("--train-only", action="store_true", help="do not evaluate; --resume without it does")
    # Not Fabric's "auto": it would choose Apple's GPU, for which ssimloss has no kernels.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--accelerator", default=device, choices=["cpu", "cuda"], help="default here: %(default)s")
    add("--devices", type=whole(1, MANY), default=1, help="processes, a GPU each; default: %(default)s")
    add("--nodes", type=whole(1, MANY), default=1, help="machines, started by torchrun; default: %(default)s")
    precisions = ["32-true", "bf16-mixed", "16-mixed"]
    add("--precision", choices=precisions, default="32-true", help="default: %(default)s")
    return result


def check(options: argparse.Namespace) -> None:
    """Refused for what cannot run here, before anything is read."""
    cuda = options.accelerator == "cuda"
    if cuda and not torch.cuda.is_available():
        raise Refused("--accelerator cuda: torch finds no GPU here; --accelerator cpu does without")
    there = torch.cuda.device_count() if cuda else max(8, os.cpu_count() or 1)
    if options.devices > there:
        raise Refused(f"--devices {options.devices}: at most {there} here")
    processes = options.devices * options.nodes
    if options.batch_size % processes:
        raise Refused(f"--batch-size {options.batch_size} does not divide among {processes} processes")
    if options.nodes > 1 and not {"WORLD_SIZE", "MASTER_ADDR", "SLURM_NTASKS"} & os.environ.keys():
        raise Refused(f"--nodes {options.nodes}: start the script by torchrun on each of them")
    if options.precision == "16-mixed" and not cuda:  # Fabric would take bf16-mixed in its place
        raise Refused("--precision 16-mixed needs a GPU; bf16-mixed runs on a CPU")
    try:
        check_writable(options.out / "settings.json")
    except (OSError, ValueError) as error:
        raise Refused(f"--out {printable(options.out)}: {one_line(error)}") from error


def claim(folder: Path, settings: Mapping[str, object], resume: bool) -> str | None:
    """Make the folder this run's own, or say why not."""
    file, name = folder / "settings.json", printable(folder)
    try:
        if not file.exists():
            if folder.exists() and any(folder.iterdir()):
                return f"{name} holds other files; choose another --out"
            write_text(file, json.dumps(settings, indent=2) + "\n")
            return None
        if not resume:
            return f"{name} holds a run; --resume goes on with it, or choose another --out"
        there = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"--out {name}: {one_line(error)}"
    if not isinstance(there, dict):
        return f"{name}: settings.json is no run's; choose another --out"
    other = [f"{k} {there.get(k)}, not {v}" for k, v in settings.items() if there.get(k) != v]
    return f"the run in {name} has {'; '.join(other)}; choose another --out" if other else None


def train_and_report(title: str, tasks: Sequence[Task], options: argparse.Namespace) -> None:
    """Everything is written as soon as it is known, so a stopped run is readable as it lies."""
    check(options)
    options.seeds = list(dict.fromkeys(options.seeds))
    deadline = time.monotonic() + 60 * options.minutes
    fabric = Fabric(
        accelerator=options.accelerator, devices=options.devices, num_nodes=options.nodes,
        precision=options.precision,
    )  # fmt: skip
    fabric.launch()
    first = fabric.is_global_zero
    if options.batch_size % fabric.world_size:
        raise Refused(
            f"--batch-size {options.batch_size} does not divide among {fabric.world_size} processes"
        )
    embedded = options.data is None and options.test is None
    photographs = train_and_test(
        options.data or PHOTOS / "train", PHOTOS / "eval" if embedded else options.test, first, options.out
    )
    settings = {
        "tasks": {task.name: task.degradation.note for task in tasks},
        "train": digest(photographs[0]),
        "test": digest(photographs[1]),
        "steps": options.steps,
        "batch_size": options.batch_size,
        "precision": options.precision,
    }  # neither the losses nor the seeds: each network stands alone, so --resume may add some
    refusal = claim(options.out, settings, options.resume) if first else None
    if refusal := fabric.broadcast(refusal):
        raise Refused(refusal)
    if embedded and first:
        shutil.copyfile(PHOTOS / "CREDITS.md", options.out / "CREDITS.md")

    studies = {task.name: Study(task, fabric, options, photographs) for task in tasks}
    # One of each task in turn, so that a run which is stopped has something of all.
    jobs = [
        job
        for seed in options.seeds
        for turn in zip_longest(*(study.jobs(seed) for study in studies.values()))
        for job in turn
        if job
    ]
    rows = read_rows(options.out / "rows.csv")
    order = {test: study.order for study in studies.values() for test in study.tests}

    def evaluate(study: Study, test: str, variant: str, seed: int, pictures: Iterator[Tensor | None]) -> None:
        known = (test, variant, seed) in {row[:3] for row in rows}
        if known or options.train_only or not first:
            return
        rows.extend(study.evaluated(test, variant, seed, pictures))
        rows.sort(key=lambda row: (list(order).index(row.task), order[row.task].index(row.variant), row.seed))
        write_rows(options.out / "rows.csv", rows)

    try:
        for study in studies.values():
            for pair in study.pairs if first else ():
                save_picture(study.picture_file(pair, "truth"), pair.truth)
            for test, variant, pictures in study.baselines():
                evaluate(study, test, variant, 0, pictures)
        steps = {job: studies[job.task].steps for job in jobs}
        with Progress(options.out, steps, active=first) as progress:
            for job in jobs:
                study = studies[job.task]
                network = study.trained(job, progress, deadline)
                for test, pictures in study.restored(network) if network else ():
                    evaluate(study, test, job.variant, job.seed, pictures)
    finally:
        if first and rows:
            write_report(title, list(studies.values()), rows, settings)


def main(title: str, tasks: Sequence[Task], options: argparse.Namespace) -> int:
    """The whole script; returns its exit status."""
    try:
        train_and_report(title, tasks, options)
    except (Refused, NoPhotographs, OSError) as error:  # OSError: for one, the disk is full
        print(f"{Path(sys.argv[0]).name}: {message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; {printable(options.out)} has what was finished, --resume goes on", file=sys.stderr)
        return 130  # as a shell reports Ctrl-C
    return 0
