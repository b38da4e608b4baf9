"""A task, and its part of a run: its patches, its test pictures, its networks."""

import argparse
import json
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor

from .baseline import bm3d
from .data import Photograph, to_uint8
from .degrade import Degradation, NoisyBayer
from .evaluate import Pair, Row, restore, rows_of, save_picture
from .losses import LOSSES, NOT_BY_SGD, PLANS, RELEASED
from .network import Network, load_network, save_network
from .patches import Patches, degrade, whole
from .train import CurvePoint, Diverged, Job, Stage, train

PROBE = 64  # pixels a side, from the middle of each of at most 24 test pictures
BM3D = "BM3D"
# A run records it: --resume does not go on with one whose patches were made in another way.
RECIPE = "patches in 8 orientations, of few photographs in 8 colours; networks see them less 0.5"
SGD_RATE = 0.06  # of all losses: results/README.md


@dataclass(frozen=True)
class Task:
    name: str
    title: str
    degradation: Degradation
    losses: Sequence[str]  # names in losses.PLANS
    default: Sequence[str] = ("l2", "l1", "mix")  # those trained unless --losses names others
    network: Mapping[str, Sequence[int]] = field(default_factory=dict)  # options of Network
    rates: Mapping[str, float] = field(default_factory=dict)  # each loss's best under Adam
    # Other degradations to test the networks on, by the name of their rows' task.
    also: Mapping[str, Degradation] = field(default_factory=dict)


class Study:
    """photographs: of the training and of the test."""

    def __init__(self, task: Task, fabric: Fabric, options: argparse.Namespace,
                 photographs: tuple[Sequence[Photograph], Sequence[Photograph]]):  # fmt: skip
        self.task, self.fabric, self.options = task, fabric, options
        self.photographs = photographs[0]
        # On the CPU, so that every device is tested on the same noise.
        self.tests = {
            name: [
                Pair(picture, degrade(degradation, pixels, number), pixels)
                for number, (picture, pixels) in enumerate(photographs[1])
            ]
            for name, degradation in {task.name: task.degradation, **task.also}.items()
        }
        self.pairs = self.tests[task.name]
        middles = [(middle(p.degraded, PROBE), middle(p.truth, PROBE) / 255) for p in self.pairs[:24]]
        self.probe = tuple(torch.stack(half).to(fabric.device) for half in zip(*middles, strict=True))

    @cached_property
    def patches(self) -> Patches:
        """Made by the first network that is trained: a run may only evaluate."""
        return Patches(self.photographs, self.task.degradation, self.fabric.device)

    @property
    def order(self) -> list[str]:
        """Of the variants, in every table."""
        baseline = [BM3D] if isinstance(self.task.degradation, NoisyBayer) else []
        return [self.task.degradation.input, *baseline, *self.task.losses]

    def jobs(self, seed: int) -> list[Job]:
        without = NOT_BY_SGD if self.options.optimizer == "sgd" else ()
        losses = self.options.losses or [loss for loss in self.task.default if loss not in without]
        return [Job(self.task.name, loss, seed) for loss in self.task.losses if loss in losses]

    def file(self, job: Job) -> Path:
        return self.options.out / "checkpoints" / f"{job.name}.safetensors"

    def trained(
        self, job: Job, watch: Callable[[CurvePoint], None], stop: Callable[[], bool]
    ) -> Network | None:
        """From its file or trained now; None where `stop` said so."""
        file, fabric = self.file(job), self.fabric
        unfinished = file.with_suffix(".ckpt")
        if file.exists():
            return load_network(file)[0].to(fabric.device, memory_format=torch.channels_last)
        if fabric.broadcast(stop()):
            return None
        fabric.seed_everything(job.seed, verbose=False)  # the same initial weights for every loss
        # channels_last: 60 instead of 80 ms a step on 2 cores.
        network = Network(**self.task.network).to(fabric.device, memory_format=torch.channels_last)
        stages = [self.stage(name) for name in PLANS[job.variant]]
        ended = train(
            fabric, network, stages, self.patches, self.probe, unfinished, job,
            optimizer=self.options.optimizer, steps=self.options.steps, batch_size=self.options.batch_size,
            stop=stop, watch=watch,
        )  # fmt: skip
        if not ended:
            return None
        if fabric.is_global_zero:
            degradation = {"kind": self.task.degradation.input, **vars(self.task.degradation)}
            about = {
                "task": job.task,
                "loss": job.variant,
                "input": json.dumps(degradation),
                "trained": f"{self.options.steps} steps of {self.options.batch_size} patches, "
                f"{self.options.optimizer}, rate {', '.join(f'{stage.rate:g}' for stage in stages)}",
            }
            save_network(file, network, about)
            unfinished.unlink(missing_ok=True)
        fabric.barrier()
        return network

    def stage(self, name: str) -> Stage:
        """Under Adam each loss has its own rate; under SGD all have the same, and their released sizes."""
        if self.options.optimizer == "sgd":
            return Stage(RELEASED[name].to(self.fabric.device), SGD_RATE)
        return Stage(LOSSES[name].to(self.fabric.device), self.task.rates[name])

    def baselines(self) -> Iterator[tuple[str, str, Iterator[Tensor | None]]]:
        """(test, variant, its pictures) of what needs no training; None: its package is missing."""
        for name, pairs in self.tests.items():
            yield name, self.task.degradation.input, (to_uint8(pair.degraded) for pair in pairs)
        if isinstance(noise := self.task.degradation, NoisyBayer):
            mosaics = (whole(noise.mosaic, pair.truth, number) for number, pair in enumerate(self.pairs))
            yield self.task.name, BM3D, (bm3d(mosaic[0], noise.a, noise.b) for mosaic in mosaics)

    def restored(self, network: Network) -> Iterator[tuple[str, Iterator[Tensor]]]:
        """(test, its pictures)."""
        for name, pairs in self.tests.items():
            yield name, (restore(network, pair.degraded) for pair in pairs)

    def finished(
        self, job: Job, known: Container[tuple], watch: Callable[[CurvePoint], None], stop: Callable[[], bool]
    ) -> list[Row] | Diverged:
        """Rows of a network, trained if need be, in the tests that are not known of it yet."""
        try:
            network = self.trained(job, watch, stop)
        except Diverged as error:  # the other networks are trained all the same
            return error
        if network is None or self.options.train_only:
            return []
        return [
            row
            for test, pictures in self.restored(network)
            if (test, job.variant, job.seed) not in known
            for row in self.evaluated(test, job.variant, job.seed, pictures)
        ]

    def evaluated(self, test: str, variant: str, seed: int, pictures: Iterator[Tensor | None]) -> list[Row]:
        """Rows of every picture of a test; the pictures of the task's own and the first seed are saved."""
        rows: list[Row] = []
        for pair, pixels in zip(self.tests[test], pictures, strict=True):
            if pixels is None:
                return []
            if test == self.task.name and seed == self.options.seeds[0]:
                save_picture(self.picture_file(pair, variant), pixels)
            rows += rows_of(test, variant, seed, pair, pixels)
        return rows

    def picture_file(self, pair: Pair, variant: str) -> Path:
        return self.options.out / "pictures" / self.task.name / pair.name / f"{variant}.png"


def middle(picture: Tensor, side: int) -> Tensor:
    """Its middle `side` x `side` pixels."""
    top, left = ((length - side) // 2 for length in picture.shape[1:])
    return picture[:, top : top + side, left : left + side]
