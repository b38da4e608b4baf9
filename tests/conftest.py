"""Fixtures: photographs, CPU variants, the CUDA kernels on the CPU."""

import fcntl
import functools
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import shim
import torch
from skimage import data
from skimage.io import imread
from torch import Tensor

# On a loaded machine a team of threads waits for its slowest at every small tensor (6 s instead of
# 0.1 s measured). test_semantics.py shows that 2 and 3 threads give the bits of 1.
torch.set_num_threads(1)

# From 200 s of one core down to 20 (30 November 2026): no process is left alone with one of these at the end.
LONGEST_FIRST = [
    *("cuda_shim", "cuda_sanitizers", "cpu_sanitizers", "examples", "masks_shim", "kernels"),
    *("reproduce", "compat_peers", "volumes_shim", "study", "aarch64"),
]

PHOTOS = Path(__file__).parent.parent / "examples" / "photos"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = {f"test_{name}.py": place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: first.get(item.path.name, len(first)))


def photo_names() -> list[str]:
    """Photographs inside the scikit-image wheel, and a few of those embedded in examples/photos."""
    return ["astronaut", "chelsea", *(p.stem for p in sorted(PHOTOS.glob("eval/*.png"))[:2])]


@pytest.fixture(scope="session")
def photo() -> Callable[[str], Tensor]:
    """photo(name) -> float32 [1, 3, 176, 208] in 0..1, from the picture's middle."""

    @functools.cache
    def load(name: str) -> Tensor:
        embedded = PHOTOS / "eval" / f"{name}.png"
        pixels = imread(embedded) if embedded.exists() else getattr(data, name)()
        image = torch.from_numpy(pixels[..., :3].copy()).permute(2, 0, 1)[None].float() / 255
        top, left = (image.shape[-2] - 176) // 2, (image.shape[-1] - 208) // 2
        return image[..., top : top + 176, left : left + 208].contiguous()

    return load


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess]:
    """python(code, **environment) -> its finished process: the CPU variant is chosen only once."""

    def run(code: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)} | environment,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run


@pytest.fixture(scope="session")
def shim_build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """shim_build(kind, main) -> shim.build's output; a kind's objects are compiled once, by whichever of
    pytest-xdist's processes asks first.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    @functools.cache
    def build(kind: str, main: str) -> Path:
        folder = shared / f"shim-{kind}"
        folder.mkdir(exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return shim.build(folder, kind, main=main)

    return build


@pytest.fixture(scope="session")
def kernels(shim_build: Callable[[str, str], Path]) -> ModuleType:
    """The launchers of csrc/cuda/api.h under the shim: tests/cuda_shim/kernels.cpp."""
    loader = importlib.machinery.ExtensionFileLoader("kernels", str(shim_build("plain", "ops.cpp")))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("kernels", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """launched(call) -> the kernels that the call launches under the shim, in order."""
    trace = tmp_path / "launches.txt"
    monkeypatch.setenv("SHIM_TRACE", str(trace))

    def names(call: Callable[[], object]) -> list[str]:
        trace.write_text("")
        call()
        return re.findall(r"[a-z]+1?(?=_kernel)", trace.read_text())

    return names


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[str], Path]:
    """checkpoint(kind) -> the path of a network for that kind of input of examples/restore.py."""
    from fuzz_examples import save_small_network

    def save(kind: str = "jpeg") -> Path:
        path = tmp_path / f"{kind}.safetensors"
        save_small_network(path, kind)
        return path

    return save


@pytest.fixture
def works(monkeypatch) -> list[torch.Tensor]:
    """What the network gave, for every picture that it was asked to restore."""
    import restore

    results = []
    whole = restore.restore

    def kept(*arguments, **keywords):
        results.append(whole(*arguments, **keywords))
        return results[-1]

    monkeypatch.setattr(restore, "restore", kept)
    return results


@pytest.fixture
def refusal(works, capsys):
    """refusal(*arguments) -> the one line that refuses, before any work."""

    import restore

    def run(*arguments: object) -> str:
        capsys.readouterr()
        works.clear()
        try:
            status = restore.main([str(argument) for argument in arguments])
        except SystemExit as end:
            status = end.code
        output = capsys.readouterr()
        lines = output.err.splitlines()
        assert (status, len(lines), output.out, works) == (2, 1, "", []), output.err
        return lines[0]

    return run


@pytest.fixture
def said(works, capsys):
    """said(*arguments) -> what is said beside the work, which succeeds."""

    import restore

    def run(*arguments: object) -> str:
        capsys.readouterr()
        works.clear()
        assert restore.main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
        assert len(works) == 1
        return capsys.readouterr().err

    return run
