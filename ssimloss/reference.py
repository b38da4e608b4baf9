"""The specification: every function of this package in plain torch, for float64 and for readers.

Slow and memory-hungry on purpose; the kernels compute the same numbers from better-conditioned
formulas (csrc/ssim_math.h). x is the restored image, y the truth, both [N, C, H, W]; in ssim and l1_ssim_loss
they may be volumes, [N, C, D, H, W], where sigma, radius and size are one for all sides or three, along D, H
and W. A mask holds weights in [0, 1], [N or 1, C or 1, (D,) H, W]: statistics are those of the window's
weights times the mask's, divided by their sum (normalised convolution), and so is every mean over positions.
`kept_pixels` prepares the three.

[1] Wang et al., "Image quality assessment", IEEE TIP 2004, doi:10.1109/TIP.2003.819861
[2] Wang et al., "Multiscale structural similarity", Asilomar 2003, doi:10.1109/ACSSC.2003.1292216
[3] Zhao et al., "Loss functions for image restoration with neural networks", IEEE TCI 2017,
    doi:10.1109/TCI.2016.2644865
"""

import math
from collections.abc import Callable, Sequence
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


Sigma = float | Sequence[float]
Taps = int | Sequence[int]


def per_side(image: Tensor, value: Any) -> tuple:
    """One value for each of H, W or of D, H, W: `value` itself, or that number for all."""
    return tuple(value) if isinstance(value, Sequence) else (value,) * (image.dim() - 2)


def blur(image: Tensor, sigma: Sigma, radius: Taps, padding: str, largest: Taps) -> Tensor:
    """G_sigma * image; "valid" keeps the positions where a window of radius `largest` fits.

    Around the image lie zeros, or mirrored pixels ("reflect"), or the outermost ones repeated ("replicate").
    """
    sides, radii = range(2, image.dim()), per_side(image, radius)
    if padding == "valid":
        rest = [most - r for most, r in zip(per_side(image, largest), radii, strict=True)]
        image = at_positions(image, padding, rest)
    elif any(radii):
        mode = padding if padding in ("reflect", "replicate") else "constant"
        image = F.pad(image, [r for r in reversed(radii) for _ in range(2)], mode=mode)
    convolve, channels = F.conv2d if image.dim() == 4 else F.conv3d, image.shape[1]
    for side, s, r in reversed(list(zip(sides, per_side(image, sigma), radii, strict=True))):
        window = gaussian(s, r).to(image).reshape([-1 if dim == side else 1 for dim in range(image.dim())])
        image = convolve(image, window.expand(channels, *window.shape[1:]), groups=channels)
    return image


def at_positions(image: Tensor, padding: str, radius: Taps) -> Tensor:
    """The image at the positions, those where a window of this radius fits for "valid"."""
    for side, r in enumerate(per_side(image, radius if padding == "valid" else 0), start=2):
        image = image.narrow(side, r, image.shape[side] - 2 * r)
    return image


def kept_pixels(
    x: Tensor, y: Tensor, mask: Tensor | None, padding: str
) -> tuple[Tensor, Tensor, Tensor | None]:
    """x and y with 0 where the mask is 0, whatever was there, and the mask in their dtype.

    A weight outside of [0, 1] becomes NaN. Padding "normalized" is a mask of ones with zeros around it.
    """
    if mask is None:
        return x, y, x.new_ones(1, 1, *x.shape[2:]) if padding == "normalized" else None
    mask = mask.to(x.dtype)
    mask = torch.where((mask >= 0) & (mask <= 1), mask, torch.nan)
    return x.masked_fill(mask == 0, 0), y.masked_fill(mask == 0, 0), mask


def windowed_mean(
    mask: Tensor | None, sigma: Sigma, radius: Taps, padding: str, largest: Taps
) -> Callable[[Tensor], Tensor]:
    """image -> G * image, under a mask G * (mask image) / (G * mask), or 0 at positions of weight 0."""
    if mask is None:
        return lambda image: blur(image, sigma, radius, padding, largest)
    # Zeros that padding adds have the weight of the pixel next to them.
    weight = blur(mask, sigma, radius, "replicate" if padding == "zeros" else padding, largest)
    left_out = at_positions(mask, padding, largest) == 0
    weight = weight.masked_fill(left_out, 1)

    def mean(image: Tensor) -> Tensor:
        return (blur(mask * image, sigma, radius, padding, largest) / weight).masked_fill(left_out, 0)

    return mean


def luminance_and_contrast_structure(
    x: Tensor,
    y: Tensor,
    sigma: Sigma,
    radius: Taps,
    c1: float,
    c2: float,
    padding: str,
    largest: Taps,
    sample_covariance: bool = False,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The maps l(p) and cs(p): [1] equations 6 and 13 (its c3 = c2/2), [3] equation 5.

    With d = x - y the numerators 2 mu_x mu_y + c1 and 2 sigma_xy + c2 are the denominators less mu_d^2 and
    sigma_dd: written so, images that are nearly alike keep their digits.

    sample_covariance: variances and covariance are unbiased estimates, n / (n - 1) times the means.
    """
    mean = windowed_mean(mask, sigma, radius, padding, largest)
    d = x - y
    mu_x, mu_y, mu_d = mean(x), mean(y), mean(d)
    sigma_xx, sigma_yy = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2
    sigma_dd = mean(d * d) - mu_d**2
    if sample_covariance:
        n = math.prod(2 * r + 1 for r in per_side(x, radius))
        sigma_xx, sigma_yy, sigma_dd = (s * n / (n - 1) for s in (sigma_xx, sigma_yy, sigma_dd))
    l_map = 1 - mu_d**2 / (mu_x**2 + mu_y**2 + c1)
    cs_map = 1 - sigma_dd / (sigma_xx + sigma_yy + c2)
    return l_map, cs_map


def reduce(loss_map: Tensor, reduction: str, mask: Tensor | None = None) -> Tensor:
    """ "mean": a scalar; "none": one value an image, [N]; "map": as it is, [N, C, H', W'].

    The mask has the map's sides. Where it is 0 a map is 0, and a mean of nothing is 0.
    """
    if mask is not None:
        mask = mask * torch.ones_like(loss_map)  # laid out as the map, or the sums were rounded differently
        loss_map = loss_map.masked_fill(mask == 0, 0)
    if reduction == "map":
        return loss_map
    if mask is None:
        return loss_map.mean() if reduction == "mean" else loss_map.flatten(1).mean(1)
    total, weight = (t.sum() if reduction == "mean" else t.flatten(1).sum(1) for t in (mask * loss_map, mask))
    return total / weight.masked_fill(weight == 0, 1)


def of_identical(
    x: Tensor, mask: Tensor | None, padding: str, radius: Taps, reduction: str
) -> Tensor | float:
    """The similarity of identical images: 1, but 0 where a mask leaves nothing."""
    if mask is None:
        return 1.0
    ones = torch.ones_like(at_positions(x, padding, radius))
    return reduce(ones, reduction, at_positions(mask, padding, radius))


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
    mask: Tensor | None = None,
) -> Tensor:
    """l_M(p) * prod_j cs_j(p), all scales at full resolution: [3] equation 9, exponents one."""
    x, y, mask = kept_pixels(x, y, mask, padding)
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    radii = [radius_of(sigma, window_size) for sigma in sigmas]
    largest = sigmas.index(max(sigmas))
    similarity: Tensor | float = 1.0
    for j, (sigma, radius) in enumerate(zip(sigmas, radii, strict=True)):
        l_map, cs_map = luminance_and_contrast_structure(
            x, y, sigma, radius, c1, c2, padding, max(radii), sample_covariance, mask
        )
        similarity = similarity * cs_map * (l_map if j == largest else 1.0)
    assert isinstance(similarity, Tensor)
    return reduce(similarity, reduction, None if mask is None else at_positions(mask, padding, max(radii)))


def one_window(x: Tensor, window: str, sigma: Sigma | None, size: Taps | None) -> tuple[tuple, tuple]:
    """sigma and radius along each side; a uniform window is a Gaussian of infinite sigma."""
    sigmas, sizes = per_side(x, 1.5 if sigma is None else sigma), per_side(x, size)
    if window == "uniform":
        sigmas = tuple(math.inf for _ in sigmas)
        sizes = tuple(7 if taps is None else taps for taps in sizes)
    return sigmas, tuple(radius_of(s, taps) for s, taps in zip(sigmas, sizes, strict=True))


def ssim(
    x: Tensor,
    y: Tensor,
    *,
    data_range: float = 1.0,
    window: str = "gaussian",
    sigma: Sigma | None = None,
    window_size: Taps | None = None,
    k1: float = 0.01,
    k2: float = 0.03,
    padding: str = "valid",
    reduction: str = "mean",
    sample_covariance: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """l(p) * cs(p): [1] equation 13, one scale of ms_ssim_gaussian."""
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    x, y, mask = kept_pixels(x, y, mask, padding)
    sigmas, radii = one_window(x, window, sigma, window_size)
    l_map, cs_map = luminance_and_contrast_structure(
        x, y, sigmas, radii, c1, c2, padding, radii, sample_covariance, mask
    )
    return reduce(l_map * cs_map, reduction, None if mask is None else at_positions(mask, padding, radii))


def halve(image: Tensor, halving: str = "edge") -> Tensor:
    """2x2 means. Of an odd side "edge" repeats the last row or column (msssim.m, TensorFlow, piqa), "zeros"
    has a zero before the first and behind the last, where it is left over (pytorch-msssim), and "drop"
    leaves the last out (torchmetrics).
    """
    odd_height, odd_width = image.shape[-2] % 2, image.shape[-1] % 2
    if halving == "edge":
        image = F.pad(image, [0, odd_width, 0, odd_height], mode="replicate")
    elif halving == "zeros":
        image = F.pad(image, [odd_width, 0, odd_height, 0])
    return F.avg_pool2d(image, 2)


def halve_under(mask: Tensor, halving: str, *images: Tensor) -> tuple[Tensor, ...]:
    """The images' 2x2 means under the mask, and last the mask's own: a zero weighs as the pixel behind it."""
    weights = mask
    if halving == "zeros":
        height, width = mask.shape[-2:]
        weights = F.pad(mask, [width % 2, 0, height % 2, 0], mode="replicate")
    weight = halve(weights, halving)
    divisor = weight.masked_fill(weight == 0, 1)
    return *(halve(mask * image, halving) / divisor for image in images), weight


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
    mask: Tensor | None = None,
) -> Tensor:
    """prod_j m_j^w_j per image and channel, m_j the mean of cs (of l*cs at the last level): [2].

    A level of which a mask leaves no position counts as 1; images and channels without any are left out.
    """
    x, y, mask = kept_pixels(x, y, mask, padding)
    kept = None
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    radius = radius_of(sigma, window_size)
    log_similarity: Tensor | float = 0.0
    for level, weight in enumerate(weights):
        l_map, cs_map = luminance_and_contrast_structure(
            x, y, sigma, radius, c1, c2, padding, radius, mask=mask
        )
        last = level == len(weights) - 1
        similarity = l_map * cs_map if last else cs_map
        if mask is None:
            m = similarity.mean((-2, -1))  # [N, C]
        else:
            at = at_positions(mask, padding, radius)
            total = at.sum((-2, -1))
            m = 1 - (at * (1 - similarity)).sum((-2, -1)) / total.masked_fill(total == 0, 1)
            kept = (total != 0).to(m) if kept is None else kept
        log_similarity = log_similarity + log_power(m, weight, negative)
        if last:
            break
        if mask is None:
            x, y = halve(x, halving), halve(y, halving)
        else:
            x, y, mask = halve_under(mask, halving, x, y)
    assert isinstance(log_similarity, Tensor)
    return reduce(log_similarity.exp(), reduction, kept)


def windowed_l1(
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    sigma: float,
    radius: Taps,
    padding: str,
    largest: Taps,
    reduction: str,
) -> Tensor:
    """G_sigma * abs(x - y), reduced."""
    l1 = windowed_mean(mask, sigma, radius, padding, largest)((x - y).abs())
    return reduce(l1, reduction, None if mask is None else at_positions(mask, padding, largest))


def pixel_l1(x: Tensor, y: Tensor, mask: Tensor | None, padding: str, radius: Taps, reduction: str) -> Tensor:
    """abs(x - y) reduced over all pixels, whatever the padding; a "map" has only the positions."""
    crop = radius if reduction == "map" else 0
    l1 = at_positions((x - y).abs(), padding, crop)
    return reduce(l1, reduction, None if mask is None else at_positions(mask, padding, crop))


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
    mask: Tensor | None = None,
    **constants,
) -> Tensor:
    """alpha * (1 - MS-SSIM) + (1 - alpha) * G_sigma_M * l1: [3] equation 14."""
    common: dict[str, Any] = dict(data_range=data_range, window_size=window_size, padding=padding)
    common |= dict(reduction=reduction, mask=mask, **constants)
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
    x, y, mask = kept_pixels(x, y, mask, padding)
    l1 = windowed_l1(x, y, mask, largest_sigma, radius, padding, largest, reduction) * (l1_range / data_range)
    return alpha * (of_identical(x, mask, padding, largest, reduction) - similarity) + (1 - alpha) * l1


def l1_loss(x: Tensor, y: Tensor, *, reduction: str = "mean", mask: Tensor | None = None) -> Tensor:
    """abs(x - y), in the images' own units."""
    x, y, mask = kept_pixels(x, y, mask, "zeros")
    return reduce((x - y).abs(), reduction, mask)


def l1_ssim_loss(
    x: Tensor,
    y: Tensor,
    *,
    ssim_weight: float = 0.2,
    window: str = "gaussian",
    sigma: Sigma | None = None,
    window_size: Taps | None = None,
    padding: str = "zeros",
    reduction: str = "mean",
    mask: Tensor | None = None,
    **options,
) -> Tensor:
    """(1 - w) * l1 + w * (1 - SSIM), Kerbl et al. 2023, doi:10.1145/3592433, equation 7."""
    radii = one_window(x, window, sigma, window_size)[1]
    options |= dict(window=window, sigma=sigma, window_size=window_size, mask=mask)
    similarity = ssim(x, y, padding=padding, reduction=reduction, **options)
    x, y, mask = kept_pixels(x, y, mask, padding)
    l1 = pixel_l1(x, y, mask, padding, radii, reduction)
    dissimilarity = of_identical(x, mask, padding, radii, reduction) - similarity
    return (1 - ssim_weight) * l1 + ssim_weight * dissimilarity
