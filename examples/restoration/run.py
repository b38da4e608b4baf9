"""Tasks from the command line to their folder: read, degrade, train each loss, evaluate, report."""

import argparse
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import BrokenExecutor
from itertools import zip_longest
from pathlib import Path

import torch
from lightning.fabric import Fabric

from . import workers
from .command import Parser, Refused, message, one_line, printable, real, whole
from .data import NoPhotographs, Photograph, digest, train_and_test
from .evaluate import Row, read_rows, save_picture, write_rows
from .files import check_writable, write_text
from .progress import Progress
from .report import write_report
from .task import RECIPE, Study, Task
from .train import Diverged, Job

PHOTOS = Path(__file__).parent.parent / "photos"
MANY = 2**31 - 1
READ_AND_WRITTEN = (
    "--data and --test read PNG, JPEG, JFIF, MPO, WebP, AVIF, TIFF, BMP, PPM and JPEG 2000, HEIC where "
    "pillow-heif is installed, of RGB or grey; not what is hidden or transparent, nor the results of these "
    "scripts. What is not read is named or counted. --out gets PNG, CSV, SVG, HTML, Markdown and safetensors."
)


def default_precision() -> str:
    """On a CPU that multiplies bfloat16 a step of training takes half the time in it."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # not in every torch
    fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bf16-mixed" if fast and not torch.cuda.is_available() else "32-true"


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
    add("--steps", type=whole(1, MANY), default=4500, help="for each network; default: %(default)s")
    add("--batch-size", type=whole(1, 2**16), default=16, help="patches a step; default: %(default)s")
    add("--seeds", nargs="+", type=whole(0, 2**32 - 1), default=[0], help="a network for each; default: 0")
    add("--optimizer", choices=["adam", "sgd"], default="adam",
        help="adam, each loss at its own best rate, or as the paper seems to have it: sgd, one rate for all "
        "(default: %(default)s)")  # fmt: skip
    add("--beside", **folder, help="a finished run with the other optimizer: its verdicts on the claims, too")
    add("--minutes", type=real(0, math.inf), default=math.inf, help="train no longer; --resume goes on")
    add("--train-only", action="store_true", help="do not evaluate; --resume without it does")
    # Not Fabric's "auto": it would choose Apple's GPU, for which ssimloss has no kernels.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--accelerator", default=device, choices=["cpu", "cuda"], help="default here: %(default)s")
    add("--devices", type=whole(1, MANY), default=1, help="processes, a GPU each; default: %(default)s")
    add("--nodes", type=whole(1, MANY), default=1, help="machines, started by torchrun; default: %(default)s")
    precisions = ["32-true", "bf16-mixed", "16-mixed"]
    add("--precision", choices=precisions, default=default_precision(), help="default here: %(default)s")
    add("--workers", type=whole(1, 256),
        help=f"networks trained at a time on a CPU; default here: {workers.COUNT}, or all of up to "
        f"{workers.COUNT + workers.COUNT // 2}")  # fmt: skip
    return result


def read_photographs(options: argparse.Namespace, verbose: bool) -> tuple[list[Photograph], list[Photograph]]:
    """Those to train on and those to test on."""
    test = PHOTOS / "eval" if is_embedded(options) else options.test
    return train_and_test(options.data or PHOTOS / "train", test, verbose, options.out)


def is_embedded(options: argparse.Namespace) -> bool:
    """Whether all photographs are the project's own."""
    return options.data is None and options.test is None


studies: dict[str, Study]  # of a worker, which prepares them once
done: Container[tuple]
stop: Callable[[], bool]


def prepare(
    tasks: Sequence[Task], options: argparse.Namespace, known: Container[tuple], deadline: float
) -> None:
    global studies, done, stop
    fabric = Fabric(accelerator="cpu", devices=1, precision=options.precision)
    photographs = read_photographs(options, verbose=False)
    studies = {task.name: Study(task, fabric, options, photographs) for task in tasks}
    done, stop = known, lambda: workers.stopped() or time.monotonic() > deadline


def finish(job: Job) -> list[Row] | Diverged:
    return studies[job.task].finished(job, done, workers.watch, stop)


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
    if options.beside and not (options.beside / "rows.csv").is_file():
        raise Refused(
            f"--beside {printable(options.beside)}: expected a finished run's folder, with rows.csv"
        )
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
    side_by_side = options.accelerator == "cpu" and options.devices * options.nodes == 1
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
    photographs = read_photographs(options, verbose=first)
    settings = {
        "tasks": {task.name: task.degradation.note for task in tasks},
        "train": digest(photographs[0]),
        "test": digest(photographs[1]),
        "steps": options.steps,
        "batch_size": options.batch_size,
        "precision": options.precision,
        "optimizer": options.optimizer,
        "recipe": RECIPE,
    }  # neither the losses nor the seeds: each network stands alone, so --resume may add some
    refusal = claim(options.out, settings, options.resume) if first else None
    if refusal := fabric.broadcast(refusal):
        raise Refused(refusal)
    if is_embedded(options) and first:
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

    def out_of_time() -> bool:
        return time.monotonic() > deadline

    def known(test: str, variant: str, seed: int) -> bool:
        return (test, variant, seed) in {row[:3] for row in rows}

    diverged: list[str] = []

    def keep(more: Sequence[Row] | Diverged) -> None:
        if isinstance(more, Diverged):
            diverged.append(str(more))
            return
        if not first or not more:
            return
        rows.extend(more)
        rows.sort(key=lambda row: (list(order).index(row.task), order[row.task].index(row.variant), row.seed))
        write_rows(options.out / "rows.csv", rows)

    try:
        if first and not options.train_only:
            for study in studies.values():
                for pair in study.pairs:
                    save_picture(study.picture_file(pair, "truth"), pair.truth)
                for test, variant, pictures in study.baselines():
                    if not known(test, variant, 0):
                        keep(study.evaluated(test, variant, 0, pictures))
        steps = dict.fromkeys(jobs, options.steps)
        asked = options.workers or workers.at_a_time(len(jobs))
        count = min(asked, len(jobs)) if side_by_side else 1
        with Progress(options.out, steps, active=first, workers=count) as progress:
            done = {row[:3] for row in rows}
            if count > 1:
                with workers.Workers(count, progress.watch, prepare, tasks, options, done, deadline) as pool:
                    for _, more in pool.map(finish, jobs):
                        keep(more)
            else:
                for job in jobs:
                    keep(studies[job.task].finished(job, done, progress.watch, out_of_time))
    finally:
        if first and rows:
            write_report(title, list(studies.values()), rows, settings)
    if diverged:
        raise Diverged("; ".join(diverged))


def main(title: str, tasks: Sequence[Task], options: argparse.Namespace) -> int:
    """The whole script; returns its exit status."""
    try:
        train_and_report(title, tasks, options)
    except (Refused, NoPhotographs, Diverged, BrokenExecutor, OSError) as error:
        # BrokenExecutor: a worker was killed, by lack of memory for one; OSError: for one, the disk is full.
        print(f"{Path(sys.argv[0]).name}: {message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; {printable(options.out)} has what was finished, --resume goes on", file=sys.stderr)
        return 130  # as a shell reports Ctrl-C
    return 0
