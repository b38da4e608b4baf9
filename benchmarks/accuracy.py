"""The gradient's error of every installed package, as images come together: docs/figures/gradient-error.svg.

    python benchmarks/accuracy.py [--out FILE.svg]

A photograph y, and x = y + distance * Gaussian noise. Each package differentiates its SSIM of 11x11 Gaussian
windows in float32, and once more of the same float32 images in float64; the error is the norm of the
difference over that of the gradient in float64. So each is held against its own definition, borders and
window included, and what is left is rounding. Packages that are not installed are named. The numbers are
printed as a table.
"""

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import torch
from PIL import Image
from torch import Tensor

import ssimloss

ROOT = Path(__file__).parent.parent
PHOTO = ROOT / "examples" / "photos" / "eval" / "001-green-maple.png"
DISTANCES = [10 ** (-tenths / 10) for tenths in range(5, 71, 5)]
Loss = Callable[[Tensor, Tensor], Tensor]


def piqa_ssim(module) -> Loss:
    # Its window is a buffer, in the images' dtype; its check of the values' range is left out.
    def loss(x: Tensor, y: Tensor) -> Tensor:
        kernel = module.SSIM().to(x).kernel
        return 1 - module.ssim(x, y, kernel)[0].mean()

    return loss


# Package: (module, its loss, from that module)
PACKAGES: dict[str, tuple[str, Callable[..., Loss]]] = {
    "frame-analytics": ("frame_analytics", lambda m: lambda x, y: 1 - m.ssim(x, y, data_range=1.0)),
    "pytorch-msssim": ("pytorch_msssim", lambda m: lambda x, y: 1 - m.ssim(x, y, data_range=1.0)),
    "kornia": ("kornia.losses", lambda m: lambda x, y: m.ssim_loss(x, y, 11, padding="valid")),
    "torchmetrics": (
        "torchmetrics.functional.image",
        lambda m: lambda x, y: 1 - m.structural_similarity_index_measure(x, y, data_range=1.0),
    ),
    "piq": ("piq.ssim", lambda m: lambda x, y: 1 - m.ssim(x, y, downsample=False)),
    "piqa": ("piqa.ssim", piqa_ssim),
}


def installed() -> dict[str, Loss]:
    """Ours, and the others' losses by name and version."""
    found: dict[str, Loss] = {f"ssimloss {ssimloss.__version__}": ssimloss.SSIMLoss()}
    for name, (module, make) in PACKAGES.items():
        try:
            found[f"{name} {version(name)}"] = make(imported(module))
        except ImportError:
            print(f"... {name} is not installed: left out (pip install '.[bench]' {name})", file=sys.stderr)
    return found


def imported(name: str) -> ModuleType:
    """The module. The losses of these three need nothing of their other files, which need much more."""
    package = name.partition(".")[0]
    if package in ("piq", "piqa", "fastmri") and package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None:
            raise ImportError(f"{package} is not installed")
        sys.modules[package] = rest = ModuleType(package)
        rest.__path__, rest.__spec__ = list(spec.submodule_search_locations or ()), spec
    return importlib.import_module(name)


def photograph() -> Tensor:
    """[1, 3, 192, 192] in 0.15..0.85, so that noise leaves no value outside of what a package accepts."""
    pixels = torch.tensor(list(Image.open(PHOTO).convert("RGB").tobytes()), dtype=torch.uint8)
    width, height = Image.open(PHOTO).size
    image = pixels.reshape(height, width, 3).permute(2, 0, 1)[None, :, :192, :192]
    return (0.15 + 0.7 * image / 255).contiguous()


def gradient(loss: Loss, x: Tensor, y: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(x, y), x)[0].double()


def errors(
    losses: dict[str, Loss], y: Tensor | None = None, distances: Sequence[float] | None = None
) -> dict[str, list[float]]:
    """For each loss the relative errors of its gradient, one for each distance."""
    y = photograph() if y is None else y
    noise = torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
    found: dict[str, list[float]] = {name: [] for name in losses}
    for distance in DISTANCES if distances is None else distances:
        x = (y + distance * noise).clamp(0, 1)
        for name, loss in losses.items():
            exact = gradient(loss, x.double(), y.double())
            found[name].append(((gradient(loss, x, y) - exact).norm() / exact.norm()).item())
    return found


def table(found: dict[str, list[float]]) -> str:
    lines = ["| distance | " + " | ".join(found) + " |", "|---|" + "---:|" * len(found)]
    for index, distance in enumerate(DISTANCES):
        row = " | ".join(f"{values[index]:.1e}" for values in found.values())
        lines.append(f"| {distance:.1e} | {row} |")
    return "\n".join(lines)


def draw(found: dict[str, list[float]], out: Path) -> None:
    import matplotlib
    from matplotlib.figure import Figure

    # The same bytes every time; letters as text, which a browser draws.
    style = {"svg.hashsalt": "ssimloss", "svg.fonttype": "none", "font.size": 10}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(7.5, 4.6), layout="constrained")
        axes = figure.add_subplot()
        markers = "osv^Dx+"
        for (name, values), marker in zip(found.items(), markers, strict=False):
            ours = name.startswith("ssimloss")
            colour, width = ("black", 2.2) if ours else (None, 1.3)
            axes.loglog(DISTANCES, values, label=name, marker=marker, ms=4, lw=width, color=colour)
        axes.set_xlabel("distance of the images: standard deviation of the noise, of a data range of 1")
        axes.set_ylabel("relative error of the float32 gradient")
        axes.invert_xaxis()
        axes.axhline(1, color="grey", lw=0.8, ls=":")
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False)
        figure.savefig(out, metadata={"Date": None})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures" / "gradient-error.svg")
    options = parser.parse_args(arguments)
    found = errors(installed())
    print(table(found))
    draw(found, options.out)


if __name__ == "__main__":
    main()
