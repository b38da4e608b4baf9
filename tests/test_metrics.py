"""The nine metrics: the values of piq 0.8.0, and what follows from their definitions."""

import importlib.util
import math
import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from skimage import data as pictures
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from restoration.metrics import DIGITS, LOWER_IS_BETTER, measure


def noisy(picture: Tensor, deviation: float) -> Tensor:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    return (picture + deviation * noise).clamp(0, 255).round().to(torch.uint8)


def blurred(picture: Tensor) -> Tensor:
    """With its red too bright as well: a shift of colours."""
    result = F.avg_pool2d(F.pad(picture.float()[None], [2] * 4, "reflect"), 5, 1)[0]
    result[0] += 20
    return result.clamp(0, 255).round().to(torch.uint8)


def photograph(name: str, height: int, width: int) -> Tensor:
    """[3, height, width], uint8, from the scikit-image wheel."""
    pixels = torch.from_numpy(getattr(pictures, name)()[:height, :width].copy())
    return pixels.permute(2, 0, 1).contiguous()


# FSIM halves pictures of 384 pixels and more; odd sides have their own frequencies and borders.
CASES: dict[str, tuple[tuple, Callable[[Tensor], Tensor]]] = {
    "even": (("astronaut", 512, 512), lambda y: noisy(y, 12)),
    "odd": (("chelsea", 299, 451), lambda y: noisy(y, 20)),
    "small": (("chelsea", 161, 162), blurred),
    "blurred": (("coffee", 400, 600), blurred),
    "coarse": (("coffee", 398, 500), lambda y: y // 32 * 32 + 16),
}
# Of these cases by piq 0.8.0, as piq_values computes them.
PIQ = {
    "even": {
        "SSIM": 0.5708024,
        "IW-SSIM": 0.9408864,
        "GMSD": 0.0753131,
        "FSIM": 0.9468022,
        "FSIMc": 0.9696449,
    },
    "odd": {"SSIM": 0.3610107, "IW-SSIM": 0.8383495, "GMSD": 0.1229993, "FSIM": 0.679634, "FSIMc": 0.7687343},
    "small": {
        "SSIM": 0.7870641,
        "IW-SSIM": 0.9391608,
        "GMSD": 0.0575658,
        "FSIM": 0.8869626,
        "FSIMc": 0.8842415,
    },
    "blurred": {
        "SSIM": 0.7555646,
        "IW-SSIM": 0.9214561,
        "GMSD": 0.0756643,
        "FSIM": 0.9423776,
        "FSIMc": 0.942445,
    },
    "coarse": {
        "SSIM": 0.7957646,
        "IW-SSIM": 0.9293425,
        "GMSD": 0.1091015,
        "FSIM": 0.9127074,
        "FSIMc": 0.950413,
    },
}


def case(name: str) -> tuple[Tensor, Tensor]:
    which, distort = CASES[name]
    y = photograph(*which)
    return distort(y), y


@cache
def piq() -> dict[str, Callable[..., Tensor]]:
    """Its metrics, without its __init__, which would import torchvision: they need nothing of that."""
    spec = importlib.util.find_spec("piq")
    if spec is None:
        pytest.skip("piq is not installed: pip install --no-deps piq==0.8.0")
    if "piq" not in sys.modules:  # else another test has it so
        sys.modules["piq"] = package = ModuleType("piq")
        package.__path__, package.__spec__ = spec.submodule_search_locations, spec
    files = {"ssim": "ssim", "information_weighted_ssim": "iw_ssim", "gmsd": "gmsd", "fsim": "fsim"}
    return {name: getattr(import_module(f"piq.{file}"), name) for name, file in files.items()}


def piq_values(x: Tensor, y: Tensor) -> dict[str, float]:
    """In float64; all but FSIMc of three grey pictures, the channels."""
    x, y = x.double()[:, None] / 255, y.double()[:, None] / 255
    values = {
        "SSIM": piq()["ssim"](x, y, downsample=False),
        "IW-SSIM": piq()["information_weighted_ssim"](x, y),
        "GMSD": piq()["gmsd"](x, y),
        "FSIM": piq()["fsim"](x, y, chromatic=False),
        "FSIMc": piq()["fsim"](x.transpose(0, 1), y.transpose(0, 1)),
    }
    return {name: value.item() for name, value in values.items()}


@pytest.mark.parametrize("name", CASES)
def test_values_of_piq(name: str) -> None:
    values = measure(*case(name))
    assert {metric: values[metric] for metric in PIQ[name]} == pytest.approx(PIQ[name], abs=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_the_recorded_values_are_piqs(name: str) -> None:
    assert piq_values(*case(name)) == pytest.approx(PIQ[name], abs=1e-6)


def test_all_nine_and_their_directions() -> None:
    y = photograph("coffee", 170, 200)
    light, heavy = measure(noisy(y, 5), y), measure(noisy(y, 15), y)
    assert list(light) == list(DIGITS)
    for metric in DIGITS:
        assert (light[metric] < heavy[metric]) == (metric in LOWER_IS_BETTER), metric


def test_equal_pictures_are_perfect() -> None:
    y = photograph("coffee", 170, 200)
    perfect = dict.fromkeys(DIGITS, 1.0) | {"1000*l2": 0, "PSNR": math.inf, "1000*l1": 0, "GMSD": 0}
    assert measure(y, y) == pytest.approx(perfect, abs=1e-6)


def test_units_of_l2_l1_and_psnr() -> None:
    """One level too bright everywhere, two in a third of the values."""
    y = photograph("coffee", 170, 200).clamp(max=250)
    x = y + 1
    x[0] += 1
    values = measure(x, y)
    assert values["1000*l1"] == pytest.approx(1000 * 4 / 3 / 255)
    assert values["1000*l2"] == pytest.approx(1000 * 2 / 255**2)
    assert values["PSNR"] == pytest.approx(10 * math.log10(255**2 / 2))


def test_means_over_the_channels() -> None:
    """One bad channel beside two equal ones counts a third; FSIMc asks which one it is."""
    y = photograph("coffee", 170, 200)
    bad = noisy(y, 20)
    perfect, all_bad = measure(y, y), measure(bad, y)
    one_bad = [measure(torch.cat([y[:c], bad[c : c + 1], y[c + 1 :]]), y) for c in range(3)]
    turned = measure(bad[[2, 0, 1]], y[[2, 0, 1]])
    for metric in ("SSIM", "MS-SSIM", "IW-SSIM", "GMSD", "FSIM"):
        losses = [values[metric] - perfect[metric] for values in one_bad]
        assert sum(losses) == pytest.approx(all_bad[metric] - perfect[metric], rel=1e-5), metric
        assert turned[metric] == pytest.approx(all_bad[metric], rel=1e-6), metric
    assert turned["FSIMc"] != pytest.approx(all_bad["FSIMc"], rel=1e-4)


def test_flat_and_smooth_truths_are_finite() -> None:
    """Where nothing varies there is no information to weigh by, and no phase."""
    flat = torch.full((3, 165, 170), 127, dtype=torch.uint8)
    ramp = torch.linspace(0, 255, 170).expand(3, 165, 170).round().to(torch.uint8)
    for y in (flat, 0 * flat, ramp):
        for x in (y, y // 2, noisy(y, 5)):
            values = measure(x, y)
            assert not any(math.isnan(value) for value in values.values()), values


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (
            torch.zeros(3, 200, 200),
            torch.zeros(3, 200, 200),
            r"x: expected \[3, H, W\], uint8, got .*float32",
        ),
        (torch.zeros(1, 200, 200).byte(), torch.zeros(1, 200, 200).byte(), r"x: expected \[3, H, W\]"),
        (torch.zeros(3, 160, 200).byte(), torch.zeros(3, 160, 200).byte(), "x: expected at least 161"),
        (torch.zeros(3, 200, 200).byte(), torch.zeros(3, 200, 201).byte(), "y: expected the shape of x"),
    ],
    ids=["float", "grey", "small", "shapes"],
)
def test_bad_pictures_are_refused(x: Tensor, y: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(x, y)
