"""The training loop: one order of patches and one course of the learning rate, whatever the loss.

Lightning Fabric brings the device, the precision and the processes. Every process draws the whole
batch and takes its own share of it, so any number of them sees the patches and the noise of one.
"""

import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from lightning.fabric import Fabric
from torch import Tensor, nn, optim

from .patches import Patches

CHECKPOINT_EVERY = 200  # steps
POINTS = 20  # of a learning curve
COMPILE_FROM = 4000  # steps on a CPU: compiling takes 13 s and saves 3 to 6 ms of each


class Stage(NamedTuple):
    """What a part of the steps descends."""

    loss: nn.Module
    rate: float  # the highest learning rate of the course


def optimizer_of(kind: str, network: nn.Module) -> optim.Optimizer:
    """kind: "adam", or "sgd" with a momentum of 0.9. The rate is set at every step."""
    if kind == "sgd":
        return optim.SGD(network.parameters(), momentum=0.9, fused=True)
    return optim.Adam(network.parameters(), fused=True)


class Diverged(Exception):
    """A loss is no finite number any more."""


class CurvePoint(NamedTuple):
    """The state of a training run at one step: a line of curves.csv."""

    task: str
    variant: str
    seed: int
    step: int
    loss: float  # mean since the last point
    test_l2: float  # mean of (x - y)^2 in [0, 1], over the middles of the test pictures
    test_psnr: float  # dB, the mean of the pictures'
    step_seconds: float = math.nan  # mean since the last point
    loss_share: float = math.nan  # of a step: value and gradient of the loss


class Job(NamedTuple):
    """One network to train."""

    task: str
    variant: str  # its losses' name in the tables
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}/{self.variant}-{self.seed}"


def course(step: int, steps: int) -> float:
    """The learning rate's share of its highest: it rises over the first tenth of the steps, then falls
    to 0 along half a cosine.

    Without the rise Adam's first steps spoil the network, that of l2 most: after 300 steps it
    gains 0.06 dB on the JPEG instead of 0.39.
    """
    rise = min(1.0, (step + 1) / (steps / 10))
    return rise * (1 + math.cos(math.pi * step / steps)) / 2


def train(
    fabric: Fabric,
    network: nn.Module,
    stages: Sequence[Stage],
    patches: Patches,
    probe: tuple[Tensor, Tensor],
    checkpoint: Path,
    job: Job,
    *,
    optimizer: str,
    steps: int,
    batch_size: int,
    stop: Callable[[], bool],
    watch: Callable[[CurvePoint], None],
) -> bool:
    """Train the network in place; go on from the checkpoint if there is one.

    stages    each takes an equal share of the steps, one after the other.
    probe     (degraded, truth), each [N, 3, H, W]: the test of the learning curve.
    stop      asked at every checkpoint; where it is True, training stops and False is returned.
    watch     called in the first process with every point of the learning curve.

    Diverged is raised at the first point of the curve whose loss is not finite.

    Ctrl-C may fall in the middle of an update, so nothing is saved then. The checkpoint is of a
    whole step, and going on from it ends in the same network as never having stopped.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    compiled = compiler and fabric.device.type == "cpu" and steps >= COMPILE_FROM
    runs = torch.compile(network) if compiled else network
    model, descent = fabric.setup(runs, optimizer_of(optimizer, network))
    state = {"model": model, "optimizer": descent, "step": 0}
    if checkpoint.exists():
        fabric.load(checkpoint, state, weights_only=True)
    share = batch_size // fabric.world_size
    own = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
    point_every = max(1, steps // POINTS)
    total, since, clock = 0.0, 0, time.perf_counter()

    for step in range(state["step"], steps):
        turn = step * len(stages) // steps
        if step > 0 and turn != (step - 1) * len(stages) // steps:
            descent.optimizer.state.clear()  # its moments are of the other loss's size
        loss_function, rate = stages[turn]
        descent.param_groups[0]["lr"] = rate * course(step, steps)
        degraded, truth = (half[own] for half in patches.batch(batch_size, job.seed, step))
        restored = model(degraded)
        loss = loss_function(restored, truth)
        descent.zero_grad()
        fabric.backward(loss)
        descent.step()

        state["step"] = step + 1
        total, since = total + loss.detach(), since + 1
        if state["step"] % point_every == 0 or state["step"] == steps:
            loss_mean = fabric.all_reduce(total / since).item()  # waits for the device
            if not math.isfinite(loss_mean):
                checkpoint.unlink(missing_ok=True)  # or a resumed run would go on from there
                raise Diverged(f"{job.name} diverged: its loss is {loss_mean} at step {step + 1}")
            seconds = (time.perf_counter() - clock) / since
            if fabric.is_global_zero:
                cost = loss_seconds(loss_function, restored, truth)
                watch(CurvePoint(*job, step + 1, loss_mean, *test(network, *probe), seconds, cost / seconds))
            total, since, clock = 0.0, 0, time.perf_counter()
        if state["step"] % CHECKPOINT_EVERY == 0 and state["step"] < steps:
            save(fabric, checkpoint, state)
            if fabric.broadcast(stop()):
                return False
    return True


def save(fabric: Fabric, checkpoint: Path, state: dict) -> None:
    """Never half-written; fabric.save writes in the first process and waits for it in all."""
    part = checkpoint.with_name(checkpoint.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    fabric.save(part, state)
    if fabric.is_global_zero:
        os.replace(part, checkpoint)


def loss_seconds(loss_function: nn.Module, restored: Tensor, truth: Tensor) -> float:
    """What the value and the gradient of the loss take."""
    x = restored.detach().requires_grad_()
    wait(x.device)
    clock = time.perf_counter()
    loss_function(x, truth).backward()
    wait(x.device)
    return time.perf_counter() - clock


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def test(network: nn.Module, degraded: Tensor, truth: Tensor) -> tuple[float, float]:
    """Mean squared error and mean PSNR of [N, 3, H, W] in [0, 1]."""
    errors = F.mse_loss(network(degraded).clamp(0, 1), truth, reduction="none").mean((1, 2, 3))
    return errors.mean().item(), (-10 * errors.log10()).mean().item()
