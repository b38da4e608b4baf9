"""What training shows while it runs: one live table of all networks, curves.csv, TensorBoard."""

import csv
import importlib.util
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from .files import replacing
from .train import CurvePoint, Job


def read_curves(path: Path) -> list[CurvePoint]:
    """The points of curves.csv; none if there is no such file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [
            CurvePoint(task, variant, int(seed), int(step), *map(float, numbers))
            for task, variant, seed, step, *numbers in list(csv.reader(file))[1:]
        ]


class Progress:
    """A context: the table stays on the screen within it. Without a terminal, a line a network."""

    def __init__(self, folder: Path, jobs: Mapping[Job, int], active: bool = True, workers: int = 1):
        """jobs: the networks and the steps of each; active: in one process only; workers: networks that are
        trained at a time."""
        self.file = folder / "curves.csv"
        self.jobs, self.workers = jobs, workers
        # By step, so that a run that was stopped and went on says nothing twice.
        self.points = {(*p[:3], p.step): p for p in read_curves(self.file)}
        self.console = Console(quiet=not active)
        self.live = Live(console=self.console, get_renderable=self.table, refresh_per_second=1)
        self.tensorboard = None
        if active and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self.tensorboard = SummaryWriter(folder / "tensorboard")

    def __enter__(self) -> "Progress":
        if self.console.is_terminal and not self.console.quiet:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()
        if self.tensorboard is not None:
            self.tensorboard.close()

    def watch(self, point: CurvePoint) -> None:
        self.points[(*point[:3], point.step)] = point
        with replacing(self.file) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(CurvePoint._fields)
            writer.writerows(self.points.values())
        if self.tensorboard is not None:
            for name in ("loss", "test_psnr"):
                tag = f"{point.task}/{point.variant}-{point.seed}/{name}"
                self.tensorboard.add_scalar(tag, getattr(point, name), point.step)
        job = Job(*point[:3])
        if point.step == self.jobs[job] and not self.console.is_terminal:
            left = clock(self.seconds_left())
            print(
                f"{job.name}: loss {point.loss:.4g}, PSNR {point.test_psnr:.2f} dB, "
                f"{1 / point.step_seconds:.1f} steps/s, loss {point.loss_share:.0%} of a step, {left} left",
                flush=True,
            )

    def last(self, job: Job) -> CurvePoint | None:
        steps = [step for *name, step in self.points if tuple(name) == job]
        return self.points[(*job, max(steps))] if steps else None

    def seconds_left(self) -> float:
        """At the speeds seen so far; a network not begun takes what others of its task took."""
        last = {job: self.last(job) for job in self.jobs}
        seen = [point for point in last.values() if point]
        total = 0.0
        for (job, steps), point in zip(self.jobs.items(), last.values(), strict=True):
            like = [point] if point else [other for other in seen if other.task == job.task] or seen
            if like:
                seconds = sum(other.step_seconds for other in like) / len(like)
                total += (steps - (point.step if point else 0)) * seconds
        return total / self.workers

    def table(self) -> Table:
        table = Table(title=f"training, about {clock(self.seconds_left())} left")
        for name in ("network", "step", "loss", "PSNR (dB)", "steps/s", "loss's share"):
            table.add_column(name, justify="left" if name == "network" else "right")
        for job, steps in self.jobs.items():
            point = self.last(job)
            values = ["", "", "", "", ""]
            if point:
                values = [f"{point.step}/{steps}", f"{point.loss:.4g}", f"{point.test_psnr:.2f}",
                          f"{1 / point.step_seconds:.1f}", f"{point.loss_share:.0%}"]  # fmt: skip
            table.add_row(job.name, *values)
        return table


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02} min"
