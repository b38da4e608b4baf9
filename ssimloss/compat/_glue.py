"""What several peers ask for, in terms of ssimloss.ssim: values of each channel, cs, pyramids, windows."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional

NO_LUMINANCE = {"k1": 1e6}  # c1 so large that l is 1 to 1e-12: SSIM is cs
NO_CONTRAST = {"k2": 1e6}  # and here it is l


class Module(nn.Module):
    """What torch.jit.script is told."""

    def __prepare_scriptable__(self) -> None:
        raise RuntimeError(functional.NO_SCRIPT)


def missing(what: str) -> NotImplementedError:
    return NotImplementedError(f"ssimloss.compat: {what}: not served here yet")


def channel_means(x: Tensor, y: Tensor, **options: Any) -> Tensor:
    """SSIM of each image (or volume) and channel, [N, C]: the channels are taken for images."""
    planes = (image.reshape(-1, 1, *image.shape[2:]) for image in (x, y))
    data_range = options.get("data_range")
    if isinstance(data_range, Tensor) and data_range.dim() == 1:  # one for each image
        options["data_range"] = data_range.repeat_interleave(x.shape[1])
    return functional.ssim(*planes, reduction="none", **options).unflatten(0, x.shape[:2])


def ms_ssim(
    x: Tensor, y: Tensor, weights: Sequence[float] | Tensor, window: str = "gaussian", **options: Any
) -> Tensor:
    """ssimloss.ms_ssim, whose windows are Gaussian: one this wide is uniform. Weights in a tensor are looked
    at: on a device that waits for it.
    """
    if window == "uniform":
        options["sigma"] = 1e9
    weights = weights.tolist() if isinstance(weights, Tensor) else weights
    return functional.ms_ssim(x, y, weights=weights, **options)


def window_of(kernel: Tensor) -> dict[str, Any]:
    """Options of the window that `kernel` [..., taps] holds the weights of; Gaussian or uniform.

    Its numbers are looked at: on a device that waits for it.
    """
    rows = kernel.detach().double().cpu().reshape(-1, kernel.shape[-1])
    taps, size = rows[0], kernel.shape[-1]
    if size % 2 == 0:
        raise ValueError(f"window: expected an odd number of weights, got {size}")
    radius = size // 2
    falls = math.log(taps[radius] / taps[radius - 1]) if radius and taps[radius - 1] > 0 else 0.0
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    expected = torch.softmax(-falls * offsets**2, 0)  # exp(-0.5 (offset / sigma)^2), of sum 1
    if not torch.allclose(rows, expected.expand_as(rows), rtol=0, atol=1e-5):
        raise missing("a window that is neither Gaussian nor uniform, or not the same for all channels")
    if radius == 0 or abs(falls) < 1e-6:
        return {"window": "uniform", "window_size": size}
    sigma = float(f"{math.sqrt(0.5 / falls):.6g}")  # weights in float32 do not tell more digits
    return {"sigma": sigma, "window_size": size}
