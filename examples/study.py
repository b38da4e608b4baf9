"""Why the paper ranks the losses as it does: one question, one table.

    python examples/study.py --data DIR --validation DIR --test DIR

Trains the networks of all questions, on the CPU one for each core, and writes runs/study: runs.csv (a
line for each network), curves.csv, gradients.csv. Every network is kept as soon as it is trained; a
study that was stopped goes on where it was. Rates are chosen by the validation pictures alone.
"""

import argparse
import csv
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from pathlib import Path

import denoise_demosaic
import jpeg_deblocking
import super_resolution
import torch
from lightning.fabric import Fabric
from restoration import workers
from restoration.command import Parser, Refused, message, whole
from restoration.data import PATCH, SMALLEST_TEST, NoPhotographs, Photograph, as_float, digest, read_folder
from restoration.files import replacing, write_text
from restoration.losses import ALPHA, LOSSES, RELEASED
from restoration.network import Network, save_network
from restoration.page.study import write_plots
from restoration.patches import Patches, degrade
from restoration.run import PHOTOS, claim, default_precision
from restoration.task import RECIPE, middle
from restoration.train import CurvePoint, Diverged, Job, Stage, course, optimizer_of, train
from restoration.workers import Workers
from torch import Tensor, nn
from tqdm import tqdm

from ssimloss import MixLoss, ms_ssim_gaussian, ssim

TASKS = {m.TASK.name: m.TASK for m in (super_resolution, jpeg_deblocking, denoise_demosaic)}
STEPS = 3000  # of every question but that of length
ADAM = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3)
SGD = {  # each loss has its own range, and all but the last have 0.02 to 0.6 in common
    "l2": (0.02, 0.06, 0.2, 0.6, 2, 3, 6, 10, 20),
    "l1": (0.02, 0.06, 0.2, 0.6, 2),
    "ms_ssim": (0.007, 0.02, 0.03, 0.06, 0.2, 0.6),
    "mix": (0.02, 0.06, 0.2, 0.6, 2),
    "ms_ssim+l2": (7e-6, 2e-5, 6e-5, 2e-4, 6e-4, 2e-3),  # its l2 is in 0..255
}
COMPARED = ("l2", "l1", "ms_ssim", "mix", "ms_ssim+l2")
SIDE = 128  # pixels of the middles of the pictures that networks are measured on


@dataclass(frozen=True)
class Run:
    """A network to train."""

    loss: str
    optimizer: str
    rate: float
    steps: int = STEPS
    batch: int = 16
    size: int = PATCH  # of a patch; larger ones give every position of the window, reflected at the border
    start: str = "correction"  # or "plain": no skip connection, the usual initialisation
    seed: int = 0
    task: str = "super_resolution"

    @property
    def name(self) -> str:
        values = asdict(self)
        values["rate"] = f"{self.rate:g}"
        return "-".join(map(str, values.values()))


def loss_of(run: Run) -> nn.Module:
    if run.loss.startswith("alpha="):
        return MixLoss(alpha=float(run.loss.removeprefix("alpha=")), l1_range=255, window_size=PATCH)
    if run.loss == "mix" and run.size > PATCH:
        return MixLoss(alpha=ALPHA, l1_range=255, window_size=PATCH, padding="reflect")
    return (RELEASED if run.optimizer == "sgd" else LOSSES)[run.loss]


# ---- The questions: each gives its networks, some of which depend on what others have shown.


class Finished:
    """What is known of the networks that are trained: {run: its line of runs.csv}."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.lines: dict[Run, dict] = {}

    def file(self, run: Run) -> Path:
        return self.folder / "networks" / f"{run.name}.json"

    def read(self, run: Run) -> dict | None:
        if run not in self.lines and self.file(run).exists():
            self.lines[run] = json.loads(self.file(run).read_text())
        return self.lines.get(run)

    def rate(self, loss: str, optimizer: str = "adam") -> float:
        """The best by the PSNR of the validation pictures."""
        tried = [run for run in rates(self) if (run.loss, run.optimizer) == (loss, optimizer)]
        found = [(line["validation_psnr"], run.rate) for run in tried if (line := self.read(run))]
        if not found:
            raise Refused(f"the rates of {loss} with {optimizer} come first: --only rates")
        return max(found)[1]


def rates(finished: Finished) -> list[Run]:
    """Which optimiser, which rate?"""
    adam = [Run(loss, "adam", rate) for rate in ADAM for loss in COMPARED]
    sgd = [Run(loss, "sgd", rate) for loss in COMPARED for rate in SGD[loss]]
    return adam + sgd


def tasks(finished: Finished) -> list[Run]:
    """Which rate for the larger network of the other tasks?"""
    return [
        Run(loss, "adam", rate, steps=800, task=task)
        for task in ("jpeg_deblocking", "denoise_demosaic")
        for rate in (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3)
        for loss in COMPARED[:4]
        if rate > 2e-4 or loss == "ms_ssim"  # the others are best above it
    ]


def length(finished: Finished) -> list[Run]:
    """Does the order change with longer training?"""
    return [
        Run(loss, "adam", finished.rate(loss), steps)
        for steps in (STEPS // 4, 4 * STEPS)  # beside STEPS: 1, 4 and 16 times the shortest
        for loss in COMPARED
    ]


def start(finished: Finished) -> list[Run]:
    """Does the order hang on where training starts?"""
    return [
        Run(loss, "adam", factor * finished.rate(loss), start="plain")
        for loss in ("l2", "l1", "mix")
        for factor in (1 / 2, 1)
    ]


def sample(finished: Finished) -> list[Run]:
    """Does the noise of a small batch cost some losses more than others?"""
    found = []
    for loss in ("l2", "mix"):
        run = Run(loss, "adam", finished.rate(loss))
        found += [
            replace(run, batch=64, steps=STEPS),  # four times the patches a step
            replace(run, batch=16, steps=4 * STEPS),  # as many patches, in small batches
            replace(run, batch=4, size=2 * PATCH),  # as many pixels as 16 patches, every position
        ]
    return found


def alpha(finished: Finished) -> list[Run]:
    """What does Mix's weight do?"""
    rate = finished.rate("mix")
    return [Run(f"alpha={value}", "adam", rate) for value in (0.5, 0.95, 1)]  # beside 0.84


def smoke(question: Callable[[Finished], list[Run]]) -> list[Run]:
    """Two networks of a question and two steps of each, whatever its rates."""

    class Known(Finished):
        def rate(self, loss: str, optimizer: str = "adam") -> float:
            return 1e-3

    return [replace(run, steps=2) for run in question(Known(Path()))[:2]]


QUESTIONS: dict[str, Callable[[Finished], list[Run]]] = {
    question.__name__: question for question in (rates, tasks, length, start, sample, alpha)
}

# ---- A network, in a process of its own


@cache
def photographs(folder: Path) -> list[Photograph]:
    return read_folder(folder, SMALLEST_TEST, verbose=False)


@cache
def patches(folder: Path, task: str, size: int) -> Patches:
    return Patches(photographs(folder), TASKS[task].degradation, torch.device("cpu"), size)


@cache
def pictures(folder: Path, task: str, side: int) -> tuple[Tensor, Tensor]:
    """(degraded, truth), [N, 3, side, side]: the middles of at most 24 photographs."""
    degradation = TASKS[task].degradation
    pairs = [
        (middle(degrade(degradation, pixels, number), side), middle(as_float(pixels), side))
        for number, (_, pixels) in enumerate(photographs(folder)[:24])
    ]
    degraded, truth = zip(*pairs, strict=True)
    return torch.stack(degraded), torch.stack(truth)


def trained(run: Run, options: argparse.Namespace) -> dict | None:
    """The line of runs.csv, which is written with the curve beside the network; None when stopped."""
    fabric = Fabric(accelerator="cpu", devices=1, precision=options.precision)
    fabric.seed_everything(run.seed, verbose=False)
    network = Network(**TASKS[run.task].network, correction=run.start == "correction")
    network.to(memory_format=torch.channels_last)
    file = Finished(options.out).file(run)
    points = file.with_suffix(".points")  # of the curve so far, as the checkpoint may go on
    curve: list[tuple[int, float]] = json.loads(points.read_text()) if points.exists() else []

    def watch(point: CurvePoint) -> None:
        curve.append((point.step, point.test_psnr))
        write_text(points, json.dumps(curve))

    source = patches(options.data, run.task, run.size)
    diverged = False
    try:
        ended = train(
            fabric, network, [Stage(loss_of(run), run.rate)], source,
            pictures(options.validation, run.task, SIDE // 2), file.with_suffix(".ckpt"),
            Job(run.task, run.loss, run.seed), optimizer=run.optimizer,
            steps=run.steps, batch_size=run.batch, stop=workers.stopped, watch=watch,
        )  # fmt: skip
    except Diverged:
        ended = diverged = True
    if not ended:
        return None
    line = {**asdict(run), "diverged": diverged}
    for name, folder in (("validation", options.validation), ("test", options.test)):
        line |= {
            f"{name}_{key}": value
            for key, value in measured(network, *pictures(folder, run.task, SIDE)).items()
        }
    save_network(file.with_suffix(".safetensors"), network, {"task": run.task, "loss": run.loss})
    write_text(file, json.dumps({**line, "curve": sorted(dict(curve).items())}))
    for unfinished in (points, file.with_suffix(".ckpt")):
        unfinished.unlink(missing_ok=True)
    return line


@torch.inference_mode()
def measured(network: nn.Module, degraded: Tensor, truth: Tensor) -> dict[str, float]:
    """NaN if the network gives no finite numbers."""
    restored = network(degraded).clamp(0, 1)
    error = restored - truth
    values = {
        "psnr": -10 * error.square().mean((1, 2, 3)).log10().mean(),
        "l1": 1000 * error.abs().mean(),
        "ssim": ssim(restored, truth),
        "ms_ssim": ms_ssim_gaussian(restored, truth),
    }
    return {name: round(value.item(), 5) for name, value in values.items()}


# ---- The size of a step


def gradients(options: argparse.Namespace) -> list[dict]:
    """The norm of each loss's gradient with respect to the weights, from the same weights and patches,
    at some steps of a training with l2 and Adam. mean_norm: of the mean over BATCHES batches, what a
    step aims at; batch_norm: the mean norm of one batch's, what a step takes."""
    torch.manual_seed(0)
    steps, batches = (3, 2) if options.smoke else (STEPS, 16)
    wanted = [step for step in (0, 10, 30, 100, 300, 1000, 2999) if step < steps]
    network = Network(**TASKS["super_resolution"].network).to(memory_format=torch.channels_last)
    source = patches(options.data, "super_resolution", PATCH)
    optimizer = optimizer_of("adam", network)
    measured = {"l2_released": RELEASED["l2"]} | {
        name: LOSSES[name]
        for name in ("l1", "ssim5", "ssim9", "ms_ssim", "mix_released", "l2", "mix", "ms_ssim+l2")
    }
    lines = []

    def gradient(loss: nn.Module, *numbers: int) -> Tensor:
        degraded, truth = source.batch(16, *numbers)
        found = torch.autograd.grad(loss(network(degraded), truth), list(network.parameters()))
        return torch.cat([part.flatten() for part in found])

    for step in tqdm(range(steps), "gradients", unit="step", disable=None):
        if workers.stopped():
            return []
        if step in wanted:
            for name, loss in measured.items():
                each = torch.stack([gradient(loss, 1, step, batch) for batch in range(batches)])
                mean, norm = each.mean(0).norm().item(), each.norm(dim=1).mean().item()
                lines.append({"step": step, "loss": name, "mean_norm": mean, "batch_norm": norm})
        optimizer.param_groups[0]["lr"] = 2e-3 * course(step, steps)
        degraded, truth = source.batch(16, 0, step)
        optimizer.zero_grad()
        LOSSES["l2"](network(degraded), truth).backward()
        optimizer.step()
    return lines


# ---- The whole study


def write_csv(path: Path, lines: Sequence[dict]) -> None:
    with replacing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)


def write_runs(finished: Finished) -> None:
    """runs.csv and curves.csv of all networks that are trained."""
    lines = [json.loads(file.read_text()) for file in sorted((finished.folder / "networks").glob("*.json"))]
    if not lines:
        return
    keys = [field.name for field in fields(Run)]
    lines.sort(key=lambda line: [line[key] for key in ("task", "steps", "optimizer", "loss", "rate")])
    write_csv(
        finished.folder / "runs.csv", [{k: v for k, v in line.items() if k != "curve"} for line in lines]
    )
    points = [
        {key: line[key] for key in keys} | {"at": step, "psnr": round(psnr, 4)}
        for line in lines
        for step, psnr in line["curve"]
    ]
    write_csv(finished.folder / "curves.csv", points)
    if (finished.folder / "gradients.csv").exists():
        write_plots(finished.folder)


def settings_of(options: argparse.Namespace) -> dict[str, str]:
    """What all networks of a folder have in common; Refused where a photograph is in two of the three."""
    settings = {"precision": options.precision, "smoke": str(options.smoke), "recipe": RECIPE}
    known: dict[str, str] = {}
    for name in ("data", "validation", "test"):
        found = photographs(getattr(options, name))
        settings[name] = digest(found)
        for photograph in found:
            other = known.setdefault(digest([photograph._replace(name="")]), name)
            if other != name and not options.smoke:
                raise Refused(f"--{name}: {photograph.name} is in --{other}, too")
    return settings


def main() -> int:
    arguments = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = arguments.add_argument
    folder = {"type": Path, "metavar": "DIR"}
    add("--data", **folder, help="photographs to train on")
    add("--validation", **folder, help="others, to choose rates by")
    add("--test", **folder, help="others again, to report on")
    add("--out", **folder, default=Path("runs/study"), help="default: %(default)s")
    add("--only", nargs="+", choices=["gradients", *QUESTIONS], default=["gradients", *QUESTIONS])
    add(
        "--workers",
        type=whole(1, 256),
        default=workers.COUNT,
        help="networks at a time; default here: %(default)s",
    )
    add("--precision", choices=["32-true", "bf16-mixed"], default=default_precision())
    add("--smoke", action="store_true", help="2 steps, few networks: does everything run?")
    options = arguments.parse_args()
    if options.smoke:
        options.data = options.validation = PHOTOS / "train"
        options.test = PHOTOS / "eval"
    if not (options.data and options.validation and options.test):
        arguments.error("--data, --validation and --test: expected a folder of photographs each")
    options.out = options.out.resolve()
    finished = Finished(options.out)
    try:
        if refusal := claim(options.out, settings_of(options), resume=True):
            raise Refused(refusal)
        with Workers(options.workers, lambda point: None) as pool:
            if "gradients" in options.only and not (options.out / "gradients.csv").exists():
                for _, lines in pool.map(gradients, [options]):
                    if lines:  # else it was stopped
                        write_csv(options.out / "gradients.csv", lines)
            for name in options.only:
                if name == "gradients":
                    continue
                asked = smoke(QUESTIONS[name]) if options.smoke else QUESTIONS[name](finished)
                missing = [run for run in dict.fromkeys(asked) if not finished.read(run)]
                ended = pool.map(partial(trained, options=options), missing)
                for run, line in tqdm(ended, name, len(missing), unit="network", disable=None):
                    if line is None:
                        continue
                    tqdm.write(f"{run.name}: {line['validation_psnr']:.2f} dB")
                    write_runs(finished)
    except KeyboardInterrupt:
        write_runs(finished)
        print(f"\nstopped; {options.out} has what was finished, the same command goes on", file=sys.stderr)
        return 130
    except (Refused, NoPhotographs, BrokenExecutor, OSError) as error:
        print(f"study.py: {message(error)}", file=sys.stderr)
        return 2
    write_runs(finished)
    return 0


if __name__ == "__main__":
    sys.exit(main())
