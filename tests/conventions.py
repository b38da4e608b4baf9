"""How other packages define SSIM and MS-SSIM, in plain torch from reference.py: what compat computes."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ssimloss import reference


def maps(x: Tensor, y: Tensor, sigma: float, radius: int, padding: str, **options) -> tuple[Tensor, Tensor]:
    """l * cs and cs at each position; options: data_range, k1, k2, sample_covariance."""
    data_range, k1, k2 = (options.get(n, d) for n, d in (("data_range", 1.0), ("k1", 0.01), ("k2", 0.03)))
    constants = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    unbiased = options.get("sample_covariance", False)
    l_map, cs_map = reference.luminance_and_contrast_structure(
        x, y, sigma, radius, *constants, padding, radius, unbiased
    )
    return l_map * cs_map, cs_map


def clamped_product(
    x: Tensor,
    y: Tensor,
    halve: Callable[[Tensor], Tensor],
    weights: Sequence[float],
    padding: str = "valid",
    **options,
) -> Tensor:
    """prod_j relu(mean)^w_j, [N, C], 11 taps of sigma 1.5, over levels made by `halve`."""
    values = torch.ones((), dtype=x.dtype)
    for level, weight in enumerate(weights):
        similarity, cs = maps(x, y, 1.5, 5, padding, **options)
        last = level == len(weights) - 1
        values = values * (similarity if last else cs).mean((-2, -1)).relu() ** weight
        x, y = halve(x), halve(y)
    return values


def zeros_at_both_ends(image: Tensor) -> Tensor:
    """pytorch-msssim: a zero before and behind an odd side, and the zeros count."""
    odd_rows, odd_columns = image.shape[-2] % 2, image.shape[-1] % 2
    padded = F.pad(image, [odd_columns, odd_columns, odd_rows, odd_rows])
    return padded.unfold(-2, 2, 2).unfold(-2, 2, 2).mean((-2, -1))


def first_repeated(image: Tensor) -> Tensor:
    """piq: the first row and column twice where either side is odd; what is then left over is dropped."""
    if image.shape[-2] % 2 or image.shape[-1] % 2:
        image = torch.cat([image[..., :1, :], image], -2)
        image = torch.cat([image[..., :1], image], -1)
    return dropped(image)


def last_repeated(image: Tensor) -> Tensor:
    """MATLAB, TensorFlow, piqa: the last row or column of an odd side twice."""
    if image.shape[-2] % 2:
        image = torch.cat([image, image[..., -1:, :]], -2)
    if image.shape[-1] % 2:
        image = torch.cat([image, image[..., -1:]], -1)
    return dropped(image)


def dropped(image: Tensor) -> Tensor:
    """torchmetrics: the last row or column of an odd side is left out."""
    return image.unfold(-2, 2, 2).unfold(-2, 2, 2).mean((-2, -1))
