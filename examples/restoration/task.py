"""A task from the command line to its folder: read, degrade, train each loss, evaluate, write."""

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning.fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .data import NoPhotographs, Pair, Patches, digest, train_and_test
from .evaluate import (
    Row,
    markdown,
    measure,
    restore,
    save_picture,
    to_uint8,
    verdicts,
    write_tables,
)
from .files import replacing, write_text
from .page import write_page
from .train import train

PHOTOS = Path(__file__).parent.parent / "photos"


@dataclass(frozen=True)
class Task:
    name: str
    title: str
    input_name: str  # of the degraded picture, in tables and on the page
    degrade: Callable[[Tensor], Tensor]  # of [3, H, W], uint8; may draw from torch's generator
    network: Callable[[], nn.Module]
    losses: Mapping[str, nn.Module]


class Refused(Exception):
    """The run cannot start; the text says what to do."""


def parse(task: Task, arguments: Sequence[str] | None) -> argparse.Namespace:
    def positive(text: str) -> int:
        if int(text) < 1:
            raise ValueError
        return int(text)

    parser = argparse.ArgumentParser(
        description=f"{task.title}: trains one network with each of {', '.join(task.losses)}.",
    )
    add = parser.add_argument
    folder = {"type": Path, "metavar": "DIR"}
    add("--data", **folder, help="your photographs, any tree; default: the embedded ones")
    add("--test", **folder, help="those to evaluate on; default: every tenth of --data")
    add("--out", **folder, default=Path("runs") / task.name, help="default: %(default)s")
    add("--resume", action="store_true", help="go on with the run in --out")
    add("--losses", nargs="+", choices=task.losses, default=list(task.losses), help="default: all")
    add("--steps", type=positive, default=400, help="for each loss; default: %(default)s")
    add("--batch-size", type=positive, default=16, help="patches a step; default: %(default)s")
    add("--seed", type=int, default=0, help="default: %(default)s")
    # Not Fabric's "auto": it would choose Apple's GPU, for which ssimloss has no kernels.
    device = "cuda" if torch.cuda.is_available() else "cpu"
    add("--accelerator", default=device, choices=["cpu", "cuda"], help="default here: %(default)s")
    precisions = ["32-true", "bf16-mixed", "16-mixed"]
    add("--precision", choices=precisions, default="32-true", help="default: %(default)s")
    return parser.parse_args(arguments)


def claim(folder: Path, settings: Mapping[str, object], resume: bool) -> None:
    """Make the folder this run's own, or refuse to touch it."""
    file = folder / "settings.json"
    if not file.exists():
        if folder.exists() and any(folder.iterdir()):
            raise Refused(f"{folder} holds other files; choose another --out")
        write_text(file, json.dumps(settings, indent=2) + "\n")
        return
    if not resume:
        raise Refused(f"{folder} holds a run; --resume goes on with it, or choose another --out")
    there = json.loads(file.read_text())
    other = [f"{k} {there.get(k)}, not {v}" for k, v in settings.items() if there.get(k) != v]
    if other:
        raise Refused(f"the run in {folder} has {'; '.join(other)}; choose another --out")


def weights_file(folder: Path, loss: str) -> Path:
    return folder / "checkpoints" / f"{loss}.safetensors"


def trained(
    task: Task, loss: str, fabric: Fabric, patches: Patches, options: argparse.Namespace
) -> nn.Module | None:
    """The network of one loss, from its checkpoint or trained now; None if it was not asked for."""
    finished = weights_file(options.out, loss)
    fabric.seed_everything(options.seed, verbose=False)  # the same initial weights for every loss
    # channels_last: 60 instead of 80 ms a step on 2 cores.
    network = task.network().to(fabric.device, memory_format=torch.channels_last)
    if finished.exists():
        network.load_state_dict(load_file(finished))
        return network
    if loss not in options.losses:
        return None
    unfinished = finished.with_suffix(".ckpt")
    train(
        fabric, network, task.losses[loss], patches, unfinished,
        steps=options.steps, batch_size=options.batch_size, seed=options.seed, label=loss,
    )  # fmt: skip
    with replacing(finished) as part:
        save_file({key: value.contiguous() for key, value in network.state_dict().items()}, part)
    unfinished.unlink(missing_ok=True)
    return network


def train_and_report(task: Task, options: argparse.Namespace) -> None:
    """Everything is written as soon as it is known, so a stopped run is readable as it lies."""
    fabric = Fabric(accelerator=options.accelerator, devices=1, precision=options.precision)
    embedded = options.data is None and options.test is None
    train_photographs, test_photographs = train_and_test(
        options.data or PHOTOS / "train", PHOTOS / "eval" if embedded else options.test
    )
    settings = {
        "task": task.name,
        "train": digest(train_photographs),
        "test": digest(test_photographs),
        "steps": options.steps,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "precision": options.precision,
    }  # not the losses: each stands alone, so --resume may add one
    claim(options.out, settings, options.resume)
    if embedded:
        shutil.copyfile(PHOTOS / "CREDITS.md", options.out / "CREDITS.md")

    fabric.seed_everything(options.seed, verbose=False)
    train_pairs, test_pairs = (
        [Pair(name, task.degrade(pixels), pixels) for name, pixels in photographs]
        for photographs in (train_photographs, test_photographs)
    )
    patches = Patches(train_pairs)
    note = (
        f"Trained on {len(patches)} patches of {len(train_pairs)} photographs: {options.steps} "
        f"steps of {options.batch_size} patches for each loss, seed {options.seed}."
    )
    print(note)

    rows: list[Row] = []
    order = [task.input_name, *task.losses]

    def report(variant: str, pictures: Sequence[Tensor]) -> None:
        for pair, pixels in zip(test_pairs, pictures, strict=True):
            save_picture(options.out / "pictures" / pair.name / f"{variant}.png", pixels)
            for metric, value in measure(pixels, pair.truth).items():
                rows.append(Row(task.name, variant, options.seed, pair.name, metric, value))
        rows.sort(key=lambda row: order.index(row.variant))
        write_tables(options.out, rows, note)
        write_page(options.out, task.title, note, test_pairs, rows)

    for pair in test_pairs:
        save_picture(options.out / "pictures" / pair.name / "truth.png", pair.truth)
    report(task.input_name, [to_uint8(pair.degraded) for pair in test_pairs])
    # Those already trained first, so that stopping a resumed run does not take them off the table.
    for loss in sorted(task.losses, key=lambda loss: not weights_file(options.out, loss).exists()):
        network = trained(task, loss, fabric, patches, options)
        if network is not None:
            report(loss, [restore(network, pair.degraded) for pair in test_pairs])

    print(markdown(rows))
    print("\n".join(verdicts(rows, task.input_name)))
    print(f"The pictures: {options.out / 'index.html'}")


def run(task: Task, arguments: Sequence[str] | None = None) -> int:
    """The whole script; returns its exit status."""
    options = parse(task, arguments)
    try:
        train_and_report(task, options)
    except (Refused, NoPhotographs) as error:
        print(f"{task.name}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; {options.out} has what was finished, --resume goes on", file=sys.stderr)
        return 130  # as a shell reports Ctrl-C
    return 0
