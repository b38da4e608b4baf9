"""The nine metrics of the paper's tables, of two pictures as they are saved.

SSIM and MS-SSIM are ssimloss's; IW-SSIM, GMSD, FSIM and FSIMc are written here after their
publications, in plain torch and float64. A kept library, piq, has them too, but needs torchvision, and so a
second build of torch's kernels; tests/test_metrics.py holds our values to piq's within 1e-4.

[1] Xue et al., "Gradient magnitude similarity deviation", IEEE TIP 2014, doi:10.1109/TIP.2013.2293423
[2] Zhang et al., "FSIM: a feature similarity index", IEEE TIP 2011, doi:10.1109/TIP.2011.2109730
[3] Kovesi, "Image features from phase congruency", Videre 1(3), 1999
[4] Wang and Li, "Information content weighting for perceptual image quality assessment",
    IEEE TIP 2011, doi:10.1109/TIP.2010.2092435
"""

import math
import warnings
from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from ssimloss import ms_ssim, reference, ssim

# The coarsest level of IW-SSIM's pyramid has values up to 16 * 255, and constants for 255, on purpose.
warnings.filterwarnings("ignore", "ssimloss: data_range", module=__name__)

DIGITS = {
    "1000*l2": 4, "PSNR": 2, "1000*l1": 4, "SSIM": 4, "MS-SSIM": 4,
    "IW-SSIM": 4, "GMSD": 4, "FSIM": 4, "FSIMc": 4,
}  # fmt: skip  # the metrics in the tables' order, and their digits there
# Not in the tables; of the claims on colours, halos and splotches.
COLOUR, AT_EDGES, IN_FLATS = "FSIM - FSIMc", "noise at edges", "splotches in flat areas"
LOWER_IS_BETTER = frozenset({"1000*l2", "1000*l1", "GMSD", COLOUR, AT_EDGES, IN_FLATS})
SMALLEST = 161  # pixels a side: MS-SSIM and IW-SSIM halve four times and then need 11 pixels
TINY = 1e-12  # a weight for every pixel, so that flat pictures have a mean
YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))  # [2], equation 8


@torch.inference_mode()
def measure(x: Tensor, y: Tensor) -> dict[str, float]:
    """Every metric of a restored picture x and the truth y, both [3, H, W], uint8, H and W >= 161.

    All but FSIMc are means over the channels. l2 and l1 are of values in [0, 1], PSNR is in dB,
    infinite for equal pictures. Raises ValueError for other shapes and types.
    """
    for name, picture in (("x", x), ("y", y)):
        if picture.dtype != torch.uint8 or picture.dim() != 3 or picture.shape[0] != 3:
            raise ValueError(f"{name}: expected [3, H, W], uint8, got {list(picture.shape)}, {picture.dtype}")
        if min(picture.shape[1:]) < SMALLEST:
            raise ValueError(f"{name}: expected at least {SMALLEST} pixels a side, got {list(picture.shape)}")
    if x.shape != y.shape:
        raise ValueError(f"y: expected the shape of x, {list(x.shape)}, got {list(y.shape)}")
    x, y = x.double(), y.double()
    d = (x - y) / 255
    l2 = d.square().mean().item()
    values = {
        "1000*l2": 1000 * l2,
        "PSNR": -10 * math.log10(l2) if l2 > 0 else math.inf,
        "1000*l1": 1000 * d.abs().mean().item(),
        "SSIM": ssim(x, y, data_range=255).item(),
        "MS-SSIM": ms_ssim(x, y, data_range=255, halving="zeros").item(),  # as the results were measured
        "IW-SSIM": iw_ssim(x, y).mean().item(),
        "GMSD": gmsd(x, y).mean().item(),
    }
    per_channel, chromatic = fsim(x, y)
    return values | {"FSIM": per_channel.mean().item(), "FSIMc": chromatic.item()}


def filtered(image: Tensor, line: Sequence[float], dim: int, step: int = 1) -> Tensor:
    """Correlation with a line of weights along one dimension, no padding, at every step-th position.

    A sum of shifted copies: in float64 a tenth of the time of conv2d on one channel.
    """
    size = image.shape[dim] - len(line) + 1
    result: Tensor | float = 0.0
    for offset, weight in enumerate(line):
        if weight:
            shifted = image.narrow(dim, offset, size)
            shifted = shifted[..., ::step] if dim == -1 else shifted[..., ::step, :]
            result = torch.add(result, shifted, alpha=weight)
    return result


def similarity(a: Tensor, b: Tensor, constant: float) -> Tensor:
    """The form that all of these share: 1 where a = b."""
    return (2 * a * b + constant) / (a.square() + b.square() + constant)


def gradient_magnitude(image: Tensor, across: Sequence[float]) -> Tensor:
    """Of planes [..., H, W]: central differences, averaged with the weights `across`; zeros around."""
    image, difference = F.pad(image, [1] * 4), (1.0, 0.0, -1.0)
    horizontal = filtered(filtered(image, across, -2), difference, -1)
    return torch.hypot(horizontal, filtered(filtered(image, across, -1), difference, -2))


def gmsd(x: Tensor, y: Tensor) -> Tensor:
    """Gradient magnitude similarity deviation of planes [planes, H, W] in 0..255: [1]; 0 is best."""
    odd = [0, x.shape[-1] % 2, 0, x.shape[-2] % 2]
    halves = (F.avg_pool2d(F.pad(image, odd), 2) for image in (x, y))
    x, y = (gradient_magnitude(half, (1 / 3, 1 / 3, 1 / 3)) for half in halves)  # Prewitt
    return similarity(x, y, 170.0).std((-2, -1), correction=0)


# ---- FSIM


@lru_cache(maxsize=4)
def log_gabor(height: int, width: int) -> tuple[Tensor, Tensor]:
    """[4 orientations, 4 scales, H, W], the filters' transfer functions, and [4], the expected
    energy of noise in units of its energy under the finest filter: [3], and [2], section II.A."""
    u, v = (torch.fft.fftfreq(n, 1 - n % 2 / n, dtype=torch.float64) for n in (width, height))
    v = v[:, None]
    radius, angle = torch.hypot(u, v), torch.atan2(-v, u)
    radius[0, 0] = 1.0
    lowpass = 1 / (1 + (radius / 0.45) ** 30)  # Butterworth: no response in the spectrum's corners
    wavelengths = 6.0 * 2.0 ** torch.arange(4, dtype=torch.float64)
    radial = torch.exp(-((radius * wavelengths[:, None, None]).log() ** 2) / (2 * math.log(0.55) ** 2))
    radial = radial * lowpass
    radial[:, 0, 0] = 0.0
    centre = torch.arange(4, dtype=torch.float64)[:, None, None] * (math.pi / 4)
    difference = torch.remainder(angle - centre + math.pi, 2 * math.pi) - math.pi
    angular = torch.exp(-(difference**2) / (2 * (math.pi / 4 / 1.2) ** 2))
    filters = radial[None] * angular[:, None]
    # Energy that white noise would have: the even filters' spectra, their products over the scales.
    even = (filters + filters.flip(-2, -1).roll((1, 1), (-2, -1))) / 2
    squares = even.square().sum((1, 2, 3))
    products = (even.sum(1).square().sum((-2, -1)) - squares) / 2
    noise = (2 * squares + 4 * products) / filters[:, 0].square().sum((-2, -1))
    return filters.to(torch.complex64), noise.float()  # complex: else converted at every use


def phase_congruency(plane: Tensor) -> Tensor:
    """Of one plane [H, W], float32; in 0..1: [3], as [2] applies it (equation 3)."""
    filters, noise = log_gabor(*plane.shape)
    spectrum = torch.fft.fft2(plane)
    energies, amplitudes = torch.zeros_like(plane), torch.zeros_like(plane)
    for bank, share in zip(filters, noise, strict=True):
        responses = torch.fft.ifft2(spectrum * bank)  # real: even filter, imaginary: odd
        amplitude = (responses.real.square() + responses.imag.square()).sqrt_()  # half of abs()'s time
        total = responses.sum(0)
        length = total.abs()
        direction = total / (length + 1e-4)
        deviation = (responses * direction.conj()).imag.abs().sum(0)
        # Noise has Rayleigh distributed amplitudes; their median under the finest filter says which.
        tau = amplitude[0].median() * (share / (2 * math.log(2))).sqrt()
        threshold = tau * (math.sqrt(math.pi / 2) + 2 * math.sqrt(2 - math.pi / 2)) / 1.7
        energies += (length.square() / (length + 1e-4) - deviation - threshold).clamp(min=0)
        amplitudes += amplitude.sum(0)
    return energies / (amplitudes + 1e-4)


def fsim(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """FSIM of each channel, [3], and FSIMc, [], of pictures [3, H, W] in 0..255: [2]."""
    yiq = torch.tensor(YIQ).to(x)
    factor = max(1, round(min(x.shape[-2:]) / 256))
    maps = []
    for picture in (x, y):
        planes = torch.cat([picture, torch.einsum("ic,chw->ihw", yiq, picture)])
        planes = F.avg_pool2d(planes, factor).float()
        congruency = torch.stack([phase_congruency(plane) for plane in planes[:4]])
        gradient = gradient_magnitude(planes[:4], (3 / 16, 10 / 16, 3 / 16))  # Scharr
        maps.append((congruency, gradient, planes[4:]))
    (pc_x, g_x, iq_x), (pc_y, g_y, iq_y) = maps
    weight = torch.maximum(pc_x, pc_y) + TINY
    local = similarity(pc_x, pc_y, 0.85) * similarity(g_x, g_y, 160.0) * weight
    # abs as in piq: [2] does not say what the power of a negative similarity is.
    chromatic = similarity(iq_x, iq_y, 200.0).prod(0).abs() ** 0.03
    total = weight.sum((-2, -1))
    return local[:3].sum((-2, -1)) / total[:3], (local[3] * chromatic).sum() / total[3]


# ---- IW-SSIM


def laplacian_pyramid(image: Tensor) -> list[Tensor]:
    """Five levels of planes [planes, H, W]: four bands and the rest. As in [4] (whose pyramid is
    Simoncelli's) each level's values are twice as large as those of the level above."""
    binomial = [math.sqrt(2) * weight / 16 for weight in (1, 4, 6, 4, 1)]
    levels = []
    for _ in range(4):
        low = filtered(F.pad(image, [2, 2, 0, 0], "reflect"), binomial, -1, step=2)
        low = filtered(F.pad(low, [0, 0, 2, 2], "reflect"), binomial, -2, step=2)
        wide = low.new_zeros(*low.shape[:-1], image.shape[-1])
        wide[..., ::2] = low
        wide = filtered(F.pad(wide, [2, 2, 0, 0], "reflect"), binomial, -1)
        tall = torch.zeros_like(image)
        tall[..., ::2, :] = wide
        levels.append(image - filtered(F.pad(tall, [0, 0, 2, 2], "reflect"), binomial, -2))
        image = low
    return [*levels, image]


def boxed(plane: Tensor) -> Tensor:
    """Means of 3x3 neighbourhoods, [H - 2, W - 2]."""
    third = (1 / 3, 1 / 3, 1 / 3)
    return filtered(filtered(plane, third, -1), third, -2)


def information_weights(x: Tensor, y: Tensor, parent: Tensor | None) -> Tensor:
    """Information content of the 3x3 neighbourhoods of one level's plane, [H - 2, W - 2]: [4],
    equation 27, of the truth y (a Gaussian scale mixture) and its distorted version x = g y + v."""
    noise = 0.4  # variance of the visual channel
    mean_x, mean_y = boxed(x), boxed(y)
    s_xx = (boxed(x * x) - mean_x * mean_x).clamp_(min=0)
    s_yy = (boxed(y * y) - mean_y * mean_y).clamp_(min=0)
    s_xy = boxed(x * y) - mean_x * mean_y
    flat_x, flat_y = s_xx < 1e-15, s_yy < 1e-15
    g = torch.where(flat_x | flat_y, 0.0, s_xy / (s_yy + 1e-15))
    v = torch.where(flat_x, 0.0, torch.where(flat_y, s_xx, s_xx - g * s_xy))
    height, width = g.shape
    # float32 will do for these, at a third of the time; for g and v it loses 1e-3 of the result.
    neighbours = torch.empty(9 if parent is None else 10, height, width)
    for k in range(9):
        neighbours[k] = y[k // 3 : k // 3 + height, k % 3 : k % 3 + width]
    if parent is not None:
        size = [4 * n - 3 for n in parent.shape]
        upsampled = F.interpolate(parent[None, None].float(), size, mode="bilinear")[0, 0]
        neighbours[9] = upsampled[1::2, 1::2][:height, :width]
    flat = neighbours.flatten(1)
    variances, axes = torch.linalg.eigh(flat @ flat.T / flat.shape[1])
    kept = variances > 1e-12 * variances[-1]
    variances, axes = variances[kept], axes[:, kept]
    energy = ((axes / variances.sqrt()).T @ flat).square_().sum(0).view_as(g) / len(neighbours)  # s^2

    fixed = 1 + v / noise
    slope = (v + (1 + g * g) * noise) * energy / noise**2
    information = torch.zeros_like(g)
    for variance in variances.tolist():
        information += torch.add(fixed, slope, alpha=variance).log2_()
    return information


def iw_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Of planes [planes, H, W] in 0..255, y the truth: [4]."""
    levels_x, levels_y = laplacian_pyramid(x), laplacian_pyramid(y)
    result: Tensor | float = 1.0
    for j, exponent in enumerate(reference.WANG_WEIGHTS):
        a, b = levels_x[j], levels_y[j]
        if j == 4:
            pooled = ssim(a, b, data_range=255, reduction="map").mean((-2, -1))
        else:
            # With this k1 the luminance factor is 1 to the last digit: what remains is cs.
            cs_map = ssim(a, b, data_range=255, k1=1e9, reduction="map")
            # The coarsest band has no parent: what lies below it is no band.
            parents = levels_y[j + 1] if j < 3 else (None, None, None)
            weights = torch.stack([*map(information_weights, a, b, parents)])
            weights = weights[:, 4:-4, 4:-4] + TINY  # where the SSIM window fits
            pooled = (cs_map * weights).sum((-2, -1)) / weights.sum((-2, -1))
        result = result * pooled.abs() ** exponent
    return result
