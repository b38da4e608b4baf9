"""benchmarks/gpu.py, which is to run unattended on a lent device: tried on the CPU where there is none."""

import importlib
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import pair
from torch import Tensor


def test_benchmark_script(tmp_path: Path) -> None:
    """benchmarks/gpu.py from end to end, on the CPU where there is no device: it will run unattended."""
    script = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
    out = tmp_path / "table.md"
    command = [sys.executable, script, "--dry-run", "--installed", "--seconds", "0.001", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    written = out.read_text()
    for shape in ("1x3x162x164, float32", "2x3x40x48, bfloat16"):
        assert f"### {shape}" in written
    for row in ("SSIM | ssimloss", "Mix, 33 taps | ssimloss", "MS-SSIM, dyadic | ssimloss"):
        assert f"| {row} |" in written
    assert "### Bars" in written and "tests/test_gpu.py: " in written
    assert "fused-ssim: not importable" in written  # never installed in CI: the missing are named


def test_a_contender_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours too: the others and the table are there all the same."""
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    gpu = importlib.import_module("gpu")

    def broken(x: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("this one\nhas two lines")

    task = gpu.Task({gpu.OURS: broken, gpu.L1: torch.nn.functional.l1_loss}, 11, 1)
    x, y = pair(1, 1, 20, 20)
    notes: list[str] = []
    with pytest.raises(TimeoutError, match="out of time"):
        gpu.rows_of(gpu.Cpu(), task, x, y, 0.001, 0.0, notes)
    rows = gpu.rows_of(gpu.Cpu(), task, x, y, 0.001, math.inf, notes)
    assert list(rows) == [gpu.L1] and notes == ["ssimloss left out: RuntimeError: this one"]
    assert any("| SSIM | F.l1_loss |" in line for line in gpu.table("", {"SSIM": (rows, None)}, x))
    assert any("not measured" in line for line in gpu.bars({(gpu.SHAPES[0], x.dtype, "SSIM"): rows}))
