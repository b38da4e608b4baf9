"""Processes and threads side by side, and a disk that is full; test_examples.py kills a training."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from cases import CASES, Case, every_loss, pair
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ssimloss import MixLoss, SSIMLoss

EXAMPLES = Path(__file__).parent.parent / "examples"


def loss_and_gradient(loss: Callable, seed: int) -> tuple[Tensor, Tensor]:
    x, y = pair(2, 3, 96, 80, seed=seed)
    value = loss(x.requires_grad_(), y)
    return value.detach(), torch.autograd.grad(value, x)[0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@every_loss
def test_fork(case: Case) -> None:
    """A child has its parent's scratch memory and its kept gradients, and computes on: the same bits."""
    loss = case.make(**case.tiny)
    expected = loss_and_gradient(loss, 0)
    kept = loss_and_gradient(loss, 1)
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        same = all(map(torch.equal, loss_and_gradient(loss, 0), expected))
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(map(torch.equal, loss_and_gradient(loss, 1), kept))


class Losses(Dataset):
    """What a worker computes from a number."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, seed: int) -> tuple[Tensor, Tensor]:
        return loss_and_gradient(MixLoss(), seed)


@pytest.mark.parametrize("start", multiprocessing.get_all_start_methods())
def test_workers_of_a_data_loader(start: str) -> None:
    expected = [loss_and_gradient(MixLoss(), seed) for seed in range(6)]
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # that a child may not wait for
    try:
        MixLoss()(*pair(4, 3, 96, 80))
        loader = DataLoader(Losses(), batch_size=None, num_workers=2, multiprocessing_context=start)
        for result, wanted in zip(loader, expected, strict=True):
            assert all(map(torch.equal, result, wanted))
    finally:
        torch.set_num_threads(before)


def test_threads_side_by_side() -> None:
    """Each with a loss of its own, and with torch's threads besides."""
    losses = [CASES[name].make() for name in ("mix", "mix_dyadic", "l1_ssim")] + [SSIMLoss(padding="reflect")]
    x, y = pair(2, 3, 176, 180)
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def run(i: int) -> list[Tensor]:
        results = []
        for _ in range(8):
            leaf = x.clone().requires_grad_()
            value = losses[i](leaf, y)
            results += [value.detach(), *torch.autograd.grad(value, leaf)]
        return results

    try:
        expected = [run(i)[:2] for i in range(len(losses))]
        with ThreadPoolExecutor(len(losses)) as threads:
            for results, wanted in zip(threads.map(run, range(len(losses))), expected, strict=True):
                assert all(torch.equal(result, wanted[k % 2]) for k, result in enumerate(results))
    finally:
        torch.set_num_threads(before)


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from lightning import Fabric
from restoration import files, train

folder = Path(sys.argv[2])
fabric = Fabric(accelerator="cpu", devices=1)
train.save(fabric, folder / "a.ckpt", {"step": 200, "weights": torch.zeros(10)})
files.write_text(folder / "page.html", "short")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # so that a write fails, as on a full disk
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
for write in (
    lambda: train.save(fabric, folder / "a.ckpt", {"step": 400, "weights": torch.zeros(10_000)}),
    lambda: files.write_text(folder / "page.html", "long" * 10_000),
):
    try:
        write()
    except OSError as error:
        print(error.strerror)
print(torch.load(folder / "a.ckpt")["step"], (folder / "page.html").read_text())
print(*sorted(path.name for path in folder.iterdir()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit of the size of files")
def test_full_disk_leaves_the_files_of_before(tmp_path: Path, python: Callable) -> None:
    pytest.importorskip("lightning")
    code = FULL.replace("sys.argv[1]", repr(str(EXAMPLES))).replace("sys.argv[2]", repr(str(tmp_path)))
    done = python(code)
    assert done.stdout.splitlines()[-4:] == [
        "File too large",
        "File too large",
        "200 short",
        "a.ckpt page.html",
    ], done.stdout + done.stderr
