"""Tasks from the command line to their folder: read, degrade, train each loss, evaluate, report."""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor

from .data import NoPhotographs, Photograph, digest, to_uint8, train_and_test
from .degrade import Degradation
from .evaluate import Pair, Row, read_rows, restore, rows_of, save_picture, write_rows
from .files import write_text
from .losses import LOSSES, PLANS
from .network import Network, load_network, save_network
from .patches import Patches, degrade
from .progress import Progress
from .train import Job, train

PHOTOS = Path(__file__).parent.parent / "photos"
PROBE = 64  # pixels a side, from the middle of each of at most 24 test pictures


@dataclass(frozen=True)
class Task:
    name: str
    title: str
    degradation: Degradation
    losses: Sequence[str]  # names in losses.PLANS
    default: Sequence[str] = ("l2", "l1", "mix")  # those trained unless --losses names others
    network: Mapping[str, Sequence[int]] = field(default_factory=dict)  # options of Network
    pace: int = 1  # steps for each of --steps: a cheaper network has time for more


class Refused(Exception):
    """The run cannot start; the text says what to do."""


def parser(tasks: Sequence[Task], description: str, out: str) -> argparse.ArgumentParser:
    def positive(text: str) -> int:
        if int(text) < 1:
            raise ValueError
        return int(text)

    result = argparse.ArgumentParser(description=description)
    add = result.add_argument
    folder = {"type": Path, "metavar": "DIR"}
    add("--data", **folder, help="your photographs, any tree; default: the embedded ones")
    add("--test", **folder, help="those to evaluate on; default: every tenth of --data")
    add("--out", **folder, default=Path("runs") / out, help="default: %(default)s")
    add("--resume", action="store_true", help="go on with the run in --out")
    every = list(dict.fromkeys(loss for task in tasks for loss in task.losses))
    default = "; ".join(f"{task.name}: {' '.join(task.default)}" for task in tasks)
    add("--losses", nargs="+", choices=every, help=f"default: {default}")
    add("--steps", type=positive, default=400, help="for each network, but more where a task has a "
        "cheaper one; default: %(default)s")
    add("--batch-size", type=positive, default=16, help="patches a step; default: %(default)s")
    add("--seeds", nargs="+", type=int, default=[0], help="a network for each; default: 0")
    add("--minutes", type=float, default=float("inf"), help="train no longer; --resume goes on")
    add("--train-only", action="store_true", help="do not evaluate; --resume without it does")
    # Not Fabric's "auto": it would choose Apple's GPU, for which ssimloss has no kernels.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--accelerator", default=device, choices=["cpu", "cuda"], help="default here: %(default)s")
    add("--devices", type=positive, default=1, help="processes, a GPU each; default: %(default)s")
    add("--nodes", type=positive, default=1, help="machines, started by torchrun; default: %(default)s")
    precisions = ["32-true", "bf16-mixed", "16-mixed"]
    add("--precision", choices=precisions, default="32-true", help="default: %(default)s")
    return result


def claim(folder: Path, settings: Mapping[str, object], resume: bool) -> str | None:
    """Make the folder this run's own, or say why not."""
    file = folder / "settings.json"
    if not file.exists():
        if folder.exists() and any(folder.iterdir()):
            return f"{folder} holds other files; choose another --out"
        write_text(file, json.dumps(settings, indent=2) + "\n")
        return None
    if not resume:
        return f"{folder} holds a run; --resume goes on with it, or choose another --out"
    there = json.loads(file.read_text())
    other = [f"{k} {there.get(k)}, not {v}" for k, v in settings.items() if there.get(k) != v]
    return f"the run in {folder} has {'; '.join(other)}; choose another --out" if other else None


class Study:
    """One task in a run: its patches, its test pictures, its networks."""

    def __init__(self, task: Task, fabric: Fabric, options: argparse.Namespace,
                 photographs: tuple[Sequence[Photograph], Sequence[Photograph]]):  # fmt: skip
        self.task, self.fabric, self.options = task, fabric, options
        self.patches = Patches(photographs[0], task.degradation, fabric.device)
        # On the CPU, so that every device is tested on the same noise.
        self.pairs = [
            Pair(name, degrade(task.degradation, pixels, number), pixels)
            for number, (name, pixels) in enumerate(photographs[1])
        ]
        middles = [(middle(p.degraded), middle(p.truth) / 255) for p in self.pairs[:24]]
        self.probe = tuple(torch.stack(half).to(fabric.device) for half in zip(*middles, strict=True))

    @property
    def steps(self) -> int:
        return self.options.steps * self.task.pace

    @property
    def order(self) -> list[str]:
        return [self.task.degradation.input, *self.task.losses]

    def jobs(self, seed: int) -> list[Job]:
        losses = self.options.losses or self.task.default
        return [Job(self.task.name, loss, seed) for loss in self.task.losses if loss in losses]

    def file(self, job: Job) -> Path:
        return self.options.out / "checkpoints" / f"{job.name}.safetensors"

    def trained(self, job: Job, progress: Progress, deadline: float) -> Network | None:
        """From its file or trained now; None when the time is up."""
        file, fabric = self.file(job), self.fabric
        unfinished = file.with_suffix(".ckpt")
        if file.exists():
            return load_network(file)[0].to(fabric.device)
        if fabric.broadcast(time.monotonic() > deadline):
            return None
        fabric.seed_everything(job.seed, verbose=False)  # the same initial weights for every loss
        # channels_last: 60 instead of 80 ms a step on 2 cores.
        network = Network(**self.task.network).to(fabric.device, memory_format=torch.channels_last)
        losses = [LOSSES[name].to(fabric.device) for name in PLANS[job.variant]]
        ended = train(
            fabric, network, losses, self.patches, self.probe, unfinished, job,
            steps=self.steps, batch_size=self.options.batch_size,
            deadline=deadline, watch=progress.watch,
        )  # fmt: skip
        if not ended:
            return None
        if fabric.is_global_zero:
            degradation = {"kind": self.task.degradation.input, **vars(self.task.degradation)}
            about = {"task": job.task, "loss": job.variant, "input": json.dumps(degradation)}
            save_network(file, network, about)
            unfinished.unlink(missing_ok=True)
        fabric.barrier()
        return network

    def evaluated(self, variant: str, seed: int, pictures: Iterator[Tensor]) -> list[Row]:
        """Rows of one variant of every test picture; those of the first seed are saved."""
        rows = []
        for pair, pixels in zip(self.pairs, pictures, strict=True):
            if seed == self.options.seeds[0]:
                save_picture(self.picture_file(pair, variant), pixels)
            rows += rows_of(self.task.name, variant, seed, pair, pixels)
        return rows

    def picture_file(self, pair: Pair, variant: str) -> Path:
        return self.options.out / "pictures" / self.task.name / pair.name / f"{variant}.png"


def middle(picture: Tensor) -> Tensor:
    top, left = ((side - PROBE) // 2 for side in picture.shape[1:])
    return picture[:, top : top + PROBE, left : left + PROBE]


def train_and_report(title: str, tasks: Sequence[Task], options: argparse.Namespace) -> None:
    """Everything is written as soon as it is known, so a stopped run is readable as it lies."""
    deadline = time.monotonic() + 60 * options.minutes
    fabric = Fabric(
        accelerator=options.accelerator, devices=options.devices, num_nodes=options.nodes,
        precision=options.precision,
    )  # fmt: skip
    fabric.launch()
    if options.batch_size % fabric.world_size:
        raise Refused(f"--batch-size {options.batch_size} does not divide among {fabric.world_size} processes")
    embedded = options.data is None and options.test is None
    photographs = train_and_test(
        options.data or PHOTOS / "train", PHOTOS / "eval" if embedded else options.test
    )
    settings = {
        "tasks": {task.name: task.degradation.note for task in tasks},
        "train": digest(photographs[0]),
        "test": digest(photographs[1]),
        "steps": options.steps,
        "batch_size": options.batch_size,
        "precision": options.precision,
    }  # neither the losses nor the seeds: each network stands alone, so --resume may add some
    refusal = claim(options.out, settings, options.resume) if fabric.is_global_zero else None
    if refusal := fabric.broadcast(refusal):
        raise Refused(refusal)
    if embedded and fabric.is_global_zero:
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

    def add(study: Study, variant: str, seed: int, pictures: Iterator[Tensor]) -> None:
        known = (study.task.name, variant, seed) in {row[:3] for row in rows}
        if known or options.train_only or not fabric.is_global_zero:
            return
        rows.extend(study.evaluated(variant, seed, pictures))
        rows.sort(key=lambda row: (list(studies).index(row.task), studies[row.task].order.index(row.variant)))
        write_rows(options.out / "rows.csv", rows)

    for study in studies.values():
        for pair in study.pairs:
            if fabric.is_global_zero:
                save_picture(study.picture_file(pair, "truth"), pair.truth)
        first = study.task.degradation.input
        add(study, first, 0, (to_uint8(pair.degraded) for pair in study.pairs))
    try:
        with Progress(options.out, {job: studies[job.task].steps for job in jobs}) as progress:
            for job in jobs:
                study = studies[job.task]
                network = study.trained(job, progress, deadline)
                if network is not None:
                    restored = (restore(network, pair.degraded) for pair in study.pairs)
                    add(study, job.variant, job.seed, restored)
    finally:
        if fabric.is_global_zero and rows:
            from .report import write_report  # it needs this module

            write_report(title, list(studies.values()), rows, settings)


def main(title: str, tasks: Sequence[Task], options: argparse.Namespace) -> int:
    """The whole script; returns its exit status."""
    try:
        train_and_report(title, tasks, options)
    except (Refused, NoPhotographs) as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; {options.out} has what was finished, --resume goes on", file=sys.stderr)
        return 130  # as a shell reports Ctrl-C
    return 0
