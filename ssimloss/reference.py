"""The specification: every function of this package in plain torch, for float64 and for readers.

Slow and memory-hungry on purpose; the kernels compute the same numbers from better-conditioned
formulas (csrc/ssim_math.h). x is the restored image, y the truth, both [N, C, H, W].

[1] Wang et al., "Image quality assessment", IEEE TIP 2004, doi:10.1109/TIP.2003.819861
[2] Wang et al., "Multiscale structural similarity", Asilomar 2003, doi:10.1109/ACSSC.2003.1292216
[3] Zhao et al., "Loss functions for image restoration with neural networks", IEEE TCI 2017,
    doi:10.1109/TCI.2016.2644865
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WANG_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # [2], section 3.2
ZHAO_SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0)  # [3], section III.C
KNEE = 0.05  # below it ms_ssim continues m along a hyperbola


def radius_of(sigma: float, window_size: int | None) -> int:
    """Radius of the Gaussian window in pixels; scikit-image's rule where no size is given."""
    return int(3.5 * sigma + 0.5) if window_size is None else window_size // 2


def gaussian(sigma: float, radius: int) -> Tensor:
    """Gaussian weights [2 * radius + 1] in float64, truncated at the radius, sum 1; sigma inf: all equal."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def blur(image: Tensor, sigma: float, radius: int, padding: str, largest: int) -> Tensor:
    """G_sigma * image; "valid" keeps the positions where a window of radius `largest` fits."""
    channels = image.shape[1]
    if padding == "valid":
        crop = largest - radius
        image = image[..., crop : image.shape[-2] - crop, crop : image.shape[-1] - crop]
    elif radius > 0:
        mode = "reflect" if padding == "reflect" else "constant"
        image = F.pad(image, [radius] * 4, mode=mode)
    window = gaussian(sigma, radius).to(image).expand(channels, 1, 1, -1)
    image = F.conv2d(image, window, groups=channels)
    return F.conv2d(image, window.transpose(-1, -2), groups=channels)


def luminance_and_contrast_structure(
    x: Tensor,
    y: Tensor,
    sigma: float,
    radius: int,
    c1: float,
    c2: float,
    padding: str,
    largest: int,
    sample_covariance: bool = False,
) -> tuple[Tensor, Tensor]:
    """The maps l(p) and cs(p): [1] equations 6 and 13 (its c3 = c2/2), [3] equation 5.

    sample_covariance: variances and covariance are unbiased estimates, n / (n - 1) times the means.
    """

    def mean(image: Tensor) -> Tensor:
        return blur(image, sigma, radius, padding, largest)

    mu_x, mu_y = mean(x), mean(y)
    sigma_xx, sigma_yy = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2
    sigma_xy = mean(x * y) - mu_x * mu_y
    if sample_covariance:
        n = (2 * radius + 1) ** 2
        sigma_xx, sigma_yy, sigma_xy = (s * n / (n - 1) for s in (sigma_xx, sigma_yy, sigma_xy))
    l_map = (2 * mu_x * mu_y + c1) / (mu_x**2 + mu_y**2 + c1)
    cs_map = (2 * sigma_xy + c2) / (sigma_xx + sigma_yy + c2)
    return l_map, cs_map


def reduce(loss_map: Tensor, reduction: str) -> Tensor:
    """ "mean": a scalar; "none": one value an image, [N]; "map": as it is, [N, C, H', W']."""
    if reduction == "map":
        return loss_map
    return loss_map.mean() if reduction == "mean" else loss_map.flatten(1).mean(1)


def ms_ssim_gaussian(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    sigmas: Sequence[float] = ZHAO_SIGMAS,
    window_size: int | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
    sample_covariance: bool = False,
) -> Tensor:
    """l_M(p) * prod_j cs_j(p), all scales at full resolution: [3] equation 9, exponents one."""
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    radii = [radius_of(sigma, window_size) for sigma in sigmas]
    largest = sigmas.index(max(sigmas))
    similarity: Tensor | float = 1.0
    for j, (sigma, radius) in enumerate(zip(sigmas, radii, strict=True)):
        l_map, cs_map = luminance_and_contrast_structure(
            x, y, sigma, radius, c1, c2, padding, max(radii), sample_covariance
        )
        similarity = similarity * cs_map * (l_map if j == largest else 1.0)
    assert isinstance(similarity, Tensor)
    return reduce(similarity, reduction)


def one_window(window: str, sigma: float | None, size: int | None) -> tuple[float, int | None]:
    """sigma and window_size of a single window; a uniform one is a Gaussian of infinite sigma."""
    if window == "uniform":
        return math.inf, 7 if size is None else size
    return 1.5 if sigma is None else sigma, size


def ssim(
    x: Tensor,
    y: Tensor,
    *,
    window: str = "gaussian",
    sigma: float | None = None,
    window_size: int | None = None,
    **options,
) -> Tensor:
    """l(p) * cs(p): [1] equation 13, one scale of ms_ssim_gaussian."""
    sigma, window_size = one_window(window, sigma, window_size)
    return ms_ssim_gaussian(x, y, sigmas=(sigma,), window_size=window_size, **options)


def halve(image: Tensor, halving: str = "edge") -> Tensor:
    """2x2 means. Of an odd side "edge" repeats the last row or column (MATLAB, TensorFlow, piqa), "zeros"
    has a zero before the first and behind the last, where it is left over (pytorch-msssim), and "drop"
    leaves the last out (torchmetrics).
    """
    odd_height, odd_width = image.shape[-2] % 2, image.shape[-1] % 2
    if halving == "edge":
        image = F.pad(image, [0, odd_width, 0, odd_height], mode="replicate")
    elif halving == "zeros":
        image = F.pad(image, [odd_width, 0, odd_height, 0])
    return F.avg_pool2d(image, 2)


def continued(m: Tensor) -> Tensor:
    """m, and below KNEE the hyperbola of the same value and slope there: positive however negative m is."""
    above = m > KNEE
    return torch.where(above, m, KNEE**2 / (2 * KNEE - m.masked_fill(above, KNEE)))


def log_power(m: Tensor, weight: float, negative: str) -> Tensor:
    """weight * log(m) of m continued, or ("clamp") of max(m, 0): -inf without a gradient where m <= 0."""
    if negative == "continue":
        return weight * continued(m).log()
    dead = m <= 0
    return (weight * m.masked_fill(dead, 1.0).log()).masked_fill(dead, -math.inf if weight > 0 else 0.0)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    sigma: float = 1.5,
    window_size: int | None = None,
    weights: Sequence[float] = WANG_WEIGHTS,
    halving: str = "edge",
    negative: str = "clamp",
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
) -> Tensor:
    """prod_j m_j^w_j per image and channel, m_j the mean of cs (of l*cs at the last level): [2]."""
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    radius = radius_of(sigma, window_size)
    log_similarity: Tensor | float = 0.0
    for level, weight in enumerate(weights):
        l_map, cs_map = luminance_and_contrast_structure(x, y, sigma, radius, c1, c2, padding, radius)
        last = level == len(weights) - 1
        m = (l_map * cs_map if last else cs_map).mean((-2, -1))  # [N, C]
        log_similarity = log_similarity + log_power(m, weight, negative)
        if not last:
            x, y = halve(x, halving), halve(y, halving)
    assert isinstance(log_similarity, Tensor)
    return reduce(log_similarity.exp(), reduction)


def mix_loss(
    x: Tensor,
    y: Tensor,
    *,
    alpha: float = 0.84,
    l1_range: float = 255.0,
    multiscale: str = "gaussian",
    sigmas: Sequence[float] = ZHAO_SIGMAS,
    sigma: float = 1.5,
    weights: Sequence[float] = WANG_WEIGHTS,
    halving: str = "edge",
    negative: str = "continue",
    data_range: float = 1.0,
    window_size: int | None = None,
    padding: str = "valid",
    reduction: str = "mean",
    **constants,
) -> Tensor:
    """alpha * (1 - MS-SSIM) + (1 - alpha) * G_sigma_M * l1: [3] equation 14."""
    common: dict[str, Any] = dict(data_range=data_range, window_size=window_size, padding=padding)
    common |= dict(reduction=reduction, **constants)
    if multiscale == "gaussian":
        similarity = ms_ssim_gaussian(x, y, sigmas=sigmas, **common)
        largest_sigma = max(sigmas)
        largest = max(radius_of(s, window_size) for s in sigmas)
    else:
        common |= dict(weights=weights, halving=halving, negative=negative)
        similarity = ms_ssim(x, y, sigma=sigma, **common)
        largest_sigma = sigma
        largest = radius_of(sigma, window_size)
    radius = radius_of(largest_sigma, window_size)
    l1 = blur((x - y).abs() * (l1_range / data_range), largest_sigma, radius, padding, largest)
    return alpha * (1 - similarity) + (1 - alpha) * reduce(l1, reduction)


def l1_loss(x: Tensor, y: Tensor, *, reduction: str = "mean") -> Tensor:
    """abs(x - y), in the images' own units."""
    return reduce((x - y).abs(), reduction)


def l1_ssim_loss(
    x: Tensor,
    y: Tensor,
    *,
    ssim_weight: float = 0.2,
    window: str = "gaussian",
    sigma: float | None = None,
    window_size: int | None = None,
    padding: str = "zeros",
    reduction: str = "mean",
    **options,
) -> Tensor:
    """(1 - w) * l1 + w * (1 - SSIM), Kerbl et al. 2023, doi:10.1145/3592433, equation 7."""
    l1 = (x - y).abs()
    if reduction == "map" and padding == "valid":
        radius = radius_of(*one_window(window, sigma, window_size))
        l1 = l1[..., radius : l1.shape[-2] - radius, radius : l1.shape[-1] - radius]
    options |= dict(window=window, sigma=sigma, window_size=window_size)
    similarity = ssim(x, y, padding=padding, reduction=reduction, **options)
    return (1 - ssim_weight) * reduce(l1, reduction) + ssim_weight * (1 - similarity)
