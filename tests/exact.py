"""The losses once more, in float64, where the standard formulas lose digits even there.

Images 1e-5 apart have 1 - SSIM near 1e-8. float64's 1 - (2 s_xy + c2) / (s_xx + s_yy + c2) knows
that to 1e-13: 1e-5 of itself, worse than the bar. This form works with the difference d = x - y,
    1 - l = mu_d^2 / (mu_x^2 + mu_y^2 + c1)        1 - cs = s_dd / (s_xx + s_yy + c2),
where nothing near 1 is ever subtracted. It shares no code with the kernels, differentiates by
autograd, blurs by a matrix from the left and one from the right (which is fast, too), and
test_accuracy.py holds it against ssimloss.reference, and against 40 digits of mpmath.
"""

import functools

import torch
from torch import Tensor

from ssimloss import reference


@functools.cache
def matrix(size: int, sigma: float, radius: int, padding: str, largest: int) -> Tensor:
    """Blurring along one side: [positions, size]."""
    crop = largest if padding == "valid" else 0
    at = torch.arange(crop, size - crop)[:, None] + torch.arange(-radius, radius + 1)
    if padding == "reflect":
        at = torch.where(at < size, at.abs(), 2 * (size - 1) - at)
    weights = reference.gaussian(sigma, radius) * ((at >= 0) & (at < size))
    rows = torch.zeros(size - 2 * crop, size, dtype=torch.float64)
    return rows.scatter_add_(1, at.clamp(0, size - 1), weights)


def dissimilarities(
    x: Tensor, y: Tensor, sigmas: tuple[float, ...], options: dict
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(1 - l, 1 - cs, the blurred l1) for each sigma, maps of the same size."""
    window_size, padding = options["window_size"], options["padding"]
    radii = [reference.radius_of(sigma, window_size) for sigma in sigmas]
    c1, c2 = ((options[k] * options["data_range"]) ** 2 for k in ("k1", "k2"))
    result = []
    for sigma, radius in zip(sigmas, radii, strict=True):
        down, across = (
            matrix(side, sigma, radius, padding, max(radii)) for side in (x.shape[-2], x.shape[-1])
        )

        def mean(image: Tensor, down: Tensor = down, across: Tensor = across) -> Tensor:
            return down @ image @ across.T

        d = x - y
        mu_x, mu_y, mu_d = mean(x), mean(y), mean(d)
        s_xx, s_yy, s_dd = mean(x * x) - mu_x**2, mean(y * y) - mu_y**2, mean(d * d) - mu_d**2
        e_l = mu_d**2 / (mu_x**2 + mu_y**2 + c1)
        result.append((e_l, s_dd / (s_xx + s_yy + c2), mean(d.abs())))
    return result


def loss(
    x: Tensor,
    y: Tensor,
    *,
    multiscale: str = "gaussian",
    sigmas: tuple[float, ...] = reference.ZHAO_SIGMAS,
    sigma: float = 1.5,
    weights: tuple[float, ...] = reference.WANG_WEIGHTS,
    halving: str = "edge",
    negative: str = "continue",
    ssim_weight: float = 1.0,
    l1_weight: float = 0.0,
    reduction: str = "mean",
    **options,
) -> Tensor:
    """ssim_weight * (1 - similarity) + l1_weight * (blurred l1)."""
    options = dict(window_size=None, padding="valid", data_range=1.0, k1=0.01, k2=0.03) | options
    if multiscale == "gaussian":
        scales = dissimilarities(x, y, tuple(sorted(sigmas)), options)
        e = scales[-1][0]
        for _, e_cs, _ in scales:
            e = e + e_cs - e * e_cs
        return reference.reduce(ssim_weight * e + l1_weight * scales[-1][2], reduction)
    log_similarity: Tensor | float = 0.0
    l1 = dissimilarities(x, y, (sigma,), options)[0][2].mean((-2, -1))
    for level, weight in enumerate(weights):
        ((e_l, e, _),) = dissimilarities(x, y, (sigma,), options)
        if level == len(weights) - 1:
            e = e_l + e - e_l * e
        e = e.mean((-2, -1))
        if negative == "clamp":
            alive = e < 1
            log_power = weight * torch.log1p(-e.masked_fill(~alive, 0.0))
            log_power = log_power.masked_fill(e >= 1, -torch.inf if weight else 0.0) + 0 * e.detach()  # NaN
        else:
            hyperbola = 0.05**2 / (e.clamp(min=0.95) - 0.9)  # m = 1 - e below 0.05
            log_power = weight * torch.where(e < 0.95, torch.log1p(-e.clamp(max=0.95)), hyperbola.log())
        log_similarity = log_similarity + log_power
        if level < len(weights) - 1:
            x, y = reference.halve(x, halving), reference.halve(y, halving)
    return reference.reduce(ssim_weight * -torch.expm1(log_similarity) + l1_weight * l1, reduction)


def ssim(x: Tensor, y: Tensor, *, sigma: float = 1.5, **options) -> Tensor:
    return loss(x, y, sigmas=(sigma,), **options)


def ms_ssim(x: Tensor, y: Tensor, **options) -> Tensor:
    return loss(x, y, multiscale="dyadic", **options)


def mix(x: Tensor, y: Tensor, *, alpha: float = 0.84, l1_range: float = 255.0, **options) -> Tensor:
    l1_weight = (1 - alpha) * l1_range / options.get("data_range", 1.0)
    return loss(x, y, ssim_weight=alpha, l1_weight=l1_weight, **options)


def mix_dyadic(x: Tensor, y: Tensor, **options) -> Tensor:
    return mix(x, y, multiscale="dyadic", **options)


def l1_ssim(x: Tensor, y: Tensor, *, ssim_weight: float = 0.2, **options) -> Tensor:
    """ "mean" or "none": l1 over all pixels."""
    l1 = reference.reduce((x - y).abs(), options.get("reduction", "mean"))
    similarity = ssim(x, y, ssim_weight=ssim_weight, **dict(padding="zeros") | options)
    return (1 - ssim_weight) * l1 + similarity


def l1(x: Tensor, y: Tensor, *, reduction: str = "mean", **of_windows) -> Tensor:
    return reference.reduce((x - y).abs(), reduction)


LOSSES = dict(
    l1=l1,
    ssim=ssim,
    l1_ssim=l1_ssim,
    ms_ssim_gaussian=loss,
    ms_ssim=ms_ssim,
    mix=mix,
    mix_dyadic=mix_dyadic,
)
