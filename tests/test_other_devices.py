"""Devices that no kernels are written for: plain torch computes the losses."""

from collections.abc import Callable

import pytest
import torch
from cases import pair, relative_error

import ssimloss
from ssimloss import images


def test_other_device(python: Callable) -> None:
    """other_device.py checks values, gradients, the warning and errors on a stand-in for such a device."""
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no devices written in Python")
    done = python("import runpy; runpy.run_module('other_device', run_name='__main__')")
    assert (done.returncode, done.stdout) == (0, "checked\n"), done.stderr


def test_amd(monkeypatch: pytest.MonkeyPatch) -> None:
    """ROCm calls its devices cuda; these kernels are not for them."""
    gpu = torch.device("cuda")
    monkeypatch.setattr(images, "CUDA_INSIDE", False)
    assert images.has_kernels(gpu)
    with pytest.raises(RuntimeError, match="no CUDA kernels; rebuild"):
        images.check_device(gpu)
    monkeypatch.setattr(torch.version, "hip", "7.0")
    assert not images.has_kernels(gpu)
    images.check_device(gpu)


def test_autocast_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolved in 16 bits, squares less squares of means were -0.5 where 0.02 is right."""
    x, y = (0.9 + 0.01 * t for t in pair(1, 3, 40, 40))
    expected = ssimloss.ssim(x.double(), y.double())
    monkeypatch.setattr(images, "has_kernels", lambda device: False)
    with torch.autocast("cpu", torch.bfloat16):
        value = ssimloss.ssim(x, y)
    assert value.dtype == torch.float32 and relative_error(value, expected) < 1e-3
