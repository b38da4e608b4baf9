"""BM3D's variance-stabilising transform and its inverse; BM3D itself where its package is."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as pictures

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from restoration.baseline import anscombe, bm3d, unbiased_inverse
from restoration.data import to_uint8
from restoration.degrade import NoisyBayer, demosaic

A, B = 0.005, 0.0001


def noisy(x: float, count: int = 400_000) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(count)
    return np.clip(x + np.sqrt(A * x + B) * noise, 0, 1)


@pytest.mark.parametrize("x", [0.1, 0.3, 0.5, 0.8])
def test_the_transformed_noise_has_deviation_1(x: float) -> None:
    assert anscombe(noisy(x), A, B).std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("x", [0.0, 0.01, 0.1, 0.5, 0.9, 1.0])
def test_the_inverse_has_no_bias(x: float) -> None:
    """Clipping makes the mean of the noisy values too bright by 0.004 at 0 and too dark by 0.03 at 1;
    the plain inverse of the transform is too dark by 0.001 in between."""
    mean = anscombe(noisy(x), A, B).mean()
    assert unbiased_inverse(mean, A, B) == pytest.approx(x, abs=2e-4)


def test_without_the_package_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm3d", None)
    assert bm3d(torch.zeros(16, 16), A, B) is None


def test_bm3d_beats_the_noisy_picture() -> None:
    pytest.importorskip("bm3d", reason="its licence forbids commercial use: pip install 'ssimloss[bm3d]'")
    pytest.importorskip("colour_demosaicing")
    truth = torch.from_numpy(pictures.coffee()[100:195, 100:197].copy()).permute(2, 0, 1)  # odd sides
    corners = torch.zeros(1, 2, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    mosaic = NoisyBayer(A, B).mosaic(truth[None] / 255, corners, generator)
    restored = bm3d(mosaic[0, 0], A, B)
    assert restored.shape == truth.shape and restored.dtype == torch.uint8

    def psnr(picture: torch.Tensor) -> float:
        return -10 * ((picture.double() - truth.double()) / 255).square().mean().log10().item()

    gain = psnr(restored) - psnr(to_uint8(demosaic(mosaic, corners)[0]))
    assert gain > 3, gain
