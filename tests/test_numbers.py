"""Every line of docs/numbers.md, executed: against the definition in float64, and the package where it is."""

import math
import re
from collections.abc import Callable
from pathlib import Path

import conventions
import pytest
import torch
from test_compat import images
from test_compat_peers import installed
from torch import Tensor

import ssimloss
from ssimloss import compat, reference
from ssimloss.compat import piq, piqa, torchmetrics  # noqa: F401  (the table has them as compat.piq)

PAGE = Path(__file__).parent.parent / "docs" / "numbers.md"
ROW = re.compile(r"^\| (.*?) \| `(.*)` \| `(.*)` \|$", re.M)
TABLE = ROW.findall(PAGE.read_text())
WANG = reference.WANG_WEIGHTS


def ssim(x: Tensor, y: Tensor, padding: str = "valid") -> Tensor:
    return conventions.maps(x, y, 1.5, 5, padding)[0]


def uniform(x: Tensor, y: Tensor, size: int, padding: str = "valid", **options) -> Tensor:
    return conventions.maps(x, y, math.inf, size // 2, padding, **options)[0]


def levels(halve: Callable, padding: str = "valid") -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: conventions.clamped_product(x, y, halve, WANG, padding=padding)


def torchmetrics_levels(x: Tensor, y: Tensor) -> Tensor:
    """The channels are averaged before the powers are taken; the last level is mirrored."""
    value = torch.ones((), dtype=x.dtype)
    for level, weight in enumerate(WANG):
        last = level == len(WANG) - 1
        value = (
            value
            * (ssim(x, y, "reflect") if last else conventions.maps(x, y, 1.5, 5, "valid")[1]).mean() ** weight
        )
        x, y = conventions.dropped(x), conventions.dropped(y)
    return value


def kornia_mix(x: Tensor, y: Tensor) -> Tensor:
    parts = [conventions.maps(x, y, sigma, 16, "zeros") for sigma in (0.5, 1.0, 2.0, 4.0, 8.0)]
    value = math.prod([cs for _, cs in parts[:-1]], start=parts[-1][0])
    l1 = reference.blur((x - y).abs(), 8.0, 16, "zeros", 16)
    return 200 * (0.025 * (1 - value) + 0.975 * l1)


# By the beginning of a row's name; the values are averaged.
DEFINITIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "scikit-image": lambda x, y: uniform(x, y, 7, sample_covariance=True),
    "scikit-image, as Wang": ssim,
    "scikit-image, grey": lambda x, y: uniform(x[:, :1], y[:, :1], 7, sample_covariance=True),
    "Wang's": ssim,
    "TensorFlow, SSIM": ssim,
    "TensorFlow and Wang's": levels(conventions.last_repeated),
    "torchmetrics, SSIM": lambda x, y: ssim(x, y, "reflect"),
    "torchmetrics, uniform": lambda x, y: uniform(x, y, 7, "reflect"),
    "torchmetrics, MS-SSIM": torchmetrics_levels,
    "pytorch-msssim, SSIM": ssim,
    "pytorch-msssim, CompressAI": levels(conventions.zeros_at_both_ends),
    "kornia, SSIM (": lambda x, y: ssim(x, y, "reflect"),
    "kornia, SSIM loss": lambda x, y: (1 - ssim(x, y, "reflect")) / 2,
    "kornia, MS-SSIM": kornia_mix,
    "piq, SSIM": ssim,
    "piq, MS-SSIM": levels(conventions.first_repeated),
    "piqa, SSIM": ssim,
    "piqa, MS-SSIM": levels(conventions.last_repeated),
    "frame-analytics": levels(conventions.dropped),
    "fused-ssim": lambda x, y: ssim(x, y, "zeros"),
    "fused-ssim, valid": ssim,
    "Gaussian splatting": lambda x, y: 0.8 * (x - y).abs() + 0.2 * (1 - ssim(x, y, "zeros")),
    "gsplat on a CPU": lambda x, y: 1 - ssim(x, y, "zeros"),
    "gsplat on a GPU": lambda x, y: 1 - ssim(x, y),
    "nerfstudio": lambda x, y: 1 - ssim(x, y),
    "MONAI": lambda x, y: 1 - ssim(x, y),
    "MONAI, uniform": lambda x, y: 1 - uniform(x, y, 11),
    "scikit-image, volumes": lambda x, y: uniform(*volumes(), 7, sample_covariance=True),
    "pytorch-msssim, volumes": lambda x, y: ssim(*volumes()),
    "kornia, volumes": lambda x, y: ssim(*volumes(), "reflect"),
    "kornia, loss of volumes": lambda x, y: (1 - ssim(*volumes(), "reflect")) / 2,
    "fused-ssim, volumes": lambda x, y: ssim(*volumes(), "zeros"),
    "MONAI, volumes": lambda x, y: 1 - ssim(*volumes()),
    "MONAI, volumes, uniform": lambda x, y: 1 - uniform(*volumes(), 7),
    "fastMRI": lambda x, y: 1 - uniform(x[:, :1], y[:, :1], 7, sample_covariance=True),
    "neosr": lambda x, y: 1 - levels(conventions.zeros_at_both_ends, "zeros")(x[:, :1], y[:, :1]),
}


def definition(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return DEFINITIONS[max((key for key in DEFINITIONS if name.startswith(key)), key=len)]


def test_the_table_is_read_whole() -> None:
    table = re.search(r"\|---\|---\|---\|\n(.*?)\n\n", PAGE.read_text(), re.S)
    assert table and len(TABLE) == len(table[1].splitlines()) == len(DEFINITIONS)
    assert len({definition(name) for name, _, _ in TABLE}) == len({*DEFINITIONS.values()})


def volumes() -> tuple[Tensor, Tensor]:
    return images(1, 2, 15, 20, 17)


def names() -> dict[str, object]:
    x, y = images(1, 3, 177, 190)
    v, w = volumes()
    return dict(x=x, y=y, v=v, w=w, g=x[:, :1], h=y[:, :1], a=x[0].numpy(), b=y[0].numpy(), torch=torch)


@pytest.mark.parametrize(("name", "ours"), [(name, ours) for name, _, ours in TABLE])
def test_definition(name: str, ours: str) -> None:
    given = names()
    value = eval(ours, vars(ssimloss) | given | dict(compat=compat)).mean()
    expected = definition(name)(given["x"], given["y"]).mean()
    torch.testing.assert_close(value, expected, rtol=1e-7, atol=0)  # piqa's weights are in float32


IMPORTED = r"(skimage|torchmetrics|pytorch_msssim|kornia|piq|piqa|gsplat|monai|fastmri)\."


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(theirs, ours) for name, theirs, ours in TABLE if re.search(IMPORTED, theirs) and "GPU" not in name],
)
def test_package(theirs: str, ours: str) -> None:
    given = names()
    package = re.search(IMPORTED, theirs)[1]
    path = re.search(rf"({package}(?:\.[a-z_]+)*)\.", theirs)[1]
    given[package] = installed(package)
    installed(path)
    expected = torch.as_tensor(eval(theirs, given)).double().mean()
    value = eval(ours, vars(ssimloss) | given | dict(compat=compat)).mean()
    torch.testing.assert_close(value, expected, rtol=1e-4 if "MS" in ours else 2e-5, atol=0)
