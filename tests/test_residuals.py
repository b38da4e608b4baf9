"""Noise beside edges and splotches in flat areas, on pictures that have just one of them."""

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from restoration.metrics import AT_EDGES, IN_FLATS
from restoration.residuals import residuals


def step() -> Tensor:
    """[3, 120, 200], 60 left of column 100 and 180 right of it: one edge, smooth elsewhere."""
    return torch.where(torch.arange(200) < 100, 60.0, 180.0).expand(3, 120, 200)


def measured(error: Tensor) -> dict[str, float]:
    return residuals((step() + error).round().to(torch.uint8), step().to(torch.uint8))


def test_no_error_has_none() -> None:
    assert measured(torch.zeros(120, 200)) == {AT_EDGES: 0, IN_FLATS: 0}


def test_noise_beside_the_edge_and_elsewhere() -> None:
    noise = 8 * torch.randn(120, 200, generator=torch.Generator().manual_seed(0))
    beside = (torch.arange(200) - 100).abs() < 20
    halo, rest = measured(noise * beside), measured(noise * ~beside)
    assert halo[AT_EDGES] == pytest.approx(8 * (24 / 25) ** 0.5, rel=0.05)  # less its 5x5 mean
    assert rest[AT_EDGES] == 0
    assert halo[IN_FLATS] < 0.3 * rest[IN_FLATS]


def test_splotches_are_coarse() -> None:
    """A wave of 16 pixels: the 5x5 mean keeps it, the 31x31 mean does not."""
    wave = 8 * torch.sin(torch.arange(120) * (torch.pi / 8))[:, None].expand(120, 200)
    found = measured(wave)
    assert found[IN_FLATS] == pytest.approx(8 / 2**0.5 * 0.86, rel=0.1)
    assert found[AT_EDGES] < 0.3 * found[IN_FLATS]


def test_pictures_without_such_regions_say_nothing() -> None:
    flat = torch.full((3, 120, 200), 90, dtype=torch.uint8)
    assert residuals(flat, flat) == {IN_FLATS: 0}
    texture = (torch.arange(200) // 2).remainder(2).mul(200).expand(3, 120, 200).to(torch.uint8)
    assert residuals(texture, texture) == {}
