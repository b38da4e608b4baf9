"""Devices that no kernels are written for: plain torch computes the losses."""

from collections.abc import Callable

import pytest
import torch

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
