"""The networks that come with the examples, measured beside their input on photographs of yours.

    python examples/check_networks.py                # on the embedded held-out pictures
    python examples/check_networks.py --test DIR

Prints the means of the nine metrics; its exit status is 1 where a network does not beat its input on all.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import denoise_demosaic
import jpeg_deblocking
import super_resolution
from restoration.command import Parser, message, printable
from restoration.data import SMALLEST_TEST, NoPhotographs, Photograph, read_folder, to_uint8
from restoration.evaluate import Pair, Row, markdown, restore, rows_of, verdicts
from restoration.network import load_network
from restoration.patches import degrade
from restoration.run import PHOTOS
from restoration.task import Task
from tqdm import tqdm

NETWORKS = Path(__file__).parent / "networks"
TASKS = (jpeg_deblocking.TASK, denoise_demosaic.TASK, super_resolution.TASK)


def measured(task: Task, photographs: Sequence[Photograph]) -> list[Row]:
    """The rows of the input and of the network of a task."""
    network, about = load_network(NETWORKS / f"{task.name}.safetensors")
    rows: list[Row] = []
    bar = tqdm(photographs, task.name, unit="picture", leave=False, disable=None)
    for number, (name, truth) in enumerate(bar):
        pair = Pair(name, degrade(task.degradation, truth, number), truth)
        rows += rows_of(task.name, task.degradation.input, 0, pair, to_uint8(pair.degraded))
        rows += rows_of(task.name, about["loss"], 0, pair, restore(network, pair.degraded))
    return rows


def main() -> int:
    arguments = Parser(description=__doc__.splitlines()[0])
    add = arguments.add_argument
    add("--test", type=Path, metavar="DIR", default=PHOTOS / "eval", help="default: the embedded pictures")
    options = arguments.parse_args()
    status = 0
    try:
        photographs = read_folder(options.test, SMALLEST_TEST)
        if not photographs:
            raise NoPhotographs(f"{printable(options.test)}: no photograph of {SMALLEST_TEST} pixels a side")
        for task in TASKS:
            rows = measured(task, photographs)
            (verdict,) = verdicts(rows, task.degradation.input)
            print(f"\n{task.title}: {task.degradation.note}\n\n{markdown(rows)}\n{verdict}", flush=True)
            status |= " does NOT " in verdict
    except (NoPhotographs, OSError) as error:
        print(f"check_networks.py: {message(error)}", file=sys.stderr)
        return 2
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
