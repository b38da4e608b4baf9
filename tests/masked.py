"""The losses under a mask once more, in float64: each window by its own pixels.

No convolution and no normalisation of one: a window's weights times the mask's are divided by their sum, and
variances are means of squared deviations, so that nothing is lost where images are bright, or nearly alike.
It shares nothing with ssimloss.reference but the Gaussian and the hyperbola, and is for small images.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssimloss import reference

BEYOND = {"reflect": "reflect", "zeros": "replicate"}  # the weights of what padding adds; else 0


def windows(image: Tensor, radius: int, padding: str, largest: int, mode: str = "constant") -> Tensor:
    """[N, C, H, W] -> [N, C, H', W', taps, taps]"""
    border = radius if padding != "valid" else radius - largest
    image = F.pad(image, [border] * 4, mode=mode) if border else image
    return image.unfold(-2, 2 * radius + 1, 1).unfold(-2, 2 * radius + 1, 1)


def dissimilarities(
    x: Tensor, y: Tensor, mask: Tensor, sigma: float, radius: int, largest: int, options: dict
) -> tuple[Tensor, Tensor, Tensor]:
    """1 - l, 1 - cs and the blurred l1 at each position, [N, C, H', W']."""
    padding = options["padding"]
    c1, c2 = ((options[k] * options["data_range"]) ** 2 for k in ("k1", "k2"))
    line = reference.gaussian(sigma, radius)
    weights = line[:, None] * line * windows(mask, radius, padding, largest, BEYOND.get(padding, "constant"))
    total = weights.sum((-2, -1), keepdim=True)
    weights = weights / torch.where(total == 0, 1, total)

    def mean(image: Tensor) -> Tensor:
        return (weights * image).sum((-2, -1))

    def variance(image: Tensor) -> Tensor:
        return mean((image - mean(image)[..., None, None]) ** 2)

    mode = "reflect" if padding == "reflect" else "constant"
    a, b = (windows(t, radius, padding, largest, mode) for t in (x, y))
    e_l = mean(a - b) ** 2 / (mean(a) ** 2 + mean(b) ** 2 + c1)
    return e_l, variance(a - b) / (variance(a) + variance(b) + c2), mean((a - b).abs())


def cropped(image: Tensor, padding: str, radius: int) -> Tensor:
    return image[..., radius:-radius, radius:-radius] if padding == "valid" and radius else image


def mean_over(mask: Tensor, loss_map: Tensor, reduction: str) -> Tensor:
    mask = mask.expand_as(loss_map)
    if reduction == "map":
        return torch.where(mask == 0, 0.0, loss_map)
    means = []
    for m, values in [(mask, loss_map)] if reduction == "mean" else zip(mask, loss_map, strict=True):
        kept = m > 0
        means.append((m[kept] * values[kept]).sum() / m[kept].sum() if kept.any() else 0 * values.sum())
    return means[0] if reduction == "mean" else torch.stack(means)


def halved(image: Tensor, mask: Tensor, halving: str) -> tuple[Tensor, Tensor]:
    """A zero before an odd side's first takes the weight of that."""
    for axis in (-1, -2):
        if image.shape[axis] % 2 and halving == "edge":
            image, mask = (torch.cat([t, t.narrow(axis, -1, 1)], axis) for t in (image, mask))
        elif image.shape[axis] % 2 and halving == "zeros":
            image = torch.cat([0 * image.narrow(axis, 0, 1), image], axis)
            mask = torch.cat([mask.narrow(axis, 0, 1), mask], axis)
    cells, weights = (t.unfold(-2, 2, 2).unfold(-2, 2, 2) for t in (image, mask))
    total = weights.sum((-2, -1))
    return (cells * weights).sum((-2, -1)) / torch.where(total == 0, 1, total), total / 4


def loss(
    x: Tensor,
    y: Tensor,
    mask: Tensor,
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
    padding = options["padding"]
    kept = mask.expand_as(x) > 0
    x, y = torch.where(kept, x, 0.0), torch.where(kept, y, 0.0)
    if multiscale == "gaussian":
        radii = [reference.radius_of(s, options["window_size"]) for s in sigmas]
        e: Tensor | float = 0.0
        for s, radius in zip(sigmas, radii, strict=True):
            e_l, e_cs, l1 = dissimilarities(x, y, mask, s, radius, max(radii), options)
            e = e + e_cs - e * e_cs
        e = e + e_l - e * e_l  # the largest sigma comes last
        return mean_over(cropped(mask, padding, max(radii)), ssim_weight * e + l1_weight * l1, reduction)
    radius = reference.radius_of(sigma, options["window_size"])
    l1 = dissimilarities(x, y, mask, sigma, radius, radius, options)[2]
    l1 = mean_over(cropped(mask, padding, radius), l1, reduction)
    log_similarity = torch.zeros(x.shape[:2], dtype=x.dtype)
    planes = torch.zeros(x.shape[:2], dtype=x.dtype)
    for level, weight in enumerate(weights):
        e_l, e, _ = dissimilarities(x, y, mask, sigma, radius, radius, options)
        if level == len(weights) - 1:
            e = e_l + e - e_l * e
        at = cropped(mask, padding, radius).expand_as(e)
        logs = []
        for n in range(x.shape[0]):
            for c in range(x.shape[1]):
                if (at[n, c] > 0).any():
                    planes[n, c] = 1
                    m = 1 - mean_over(at[n, c], e[n, c], "mean")
                    if negative == "clamp":
                        logs.append(torch.log(m) if m > 0 else torch.tensor(-torch.inf, dtype=x.dtype))
                    else:
                        logs.append(torch.log(m) if m > 0.05 else -torch.log((0.1 - m) / 0.05**2))
                else:
                    logs.append(torch.zeros((), dtype=x.dtype))
        log_similarity = log_similarity + weight * torch.stack(logs).view_as(planes)
        if level < len(weights) - 1:
            (x, _), (y, mask) = halved(x, mask, halving), halved(y, mask, halving)
    return ssim_weight * mean_over(planes, -torch.expm1(log_similarity), reduction) + l1_weight * l1


def l1(x: Tensor, y: Tensor, mask: Tensor, *, reduction: str = "mean", **of_windows) -> Tensor:
    return mean_over(mask, torch.where(mask == 0, 0.0, x - y).abs(), reduction)


def mix(x: Tensor, y: Tensor, mask: Tensor, *, alpha: float = 0.84, **options) -> Tensor:
    l1_weight = (1 - alpha) * options.pop("l1_range", 255.0) / options.get("data_range", 1.0)
    return loss(x, y, mask, ssim_weight=alpha, l1_weight=l1_weight, **options)


def ssim(x: Tensor, y: Tensor, mask: Tensor, *, sigma: float = 1.5, **options) -> Tensor:
    return loss(x, y, mask, sigmas=(sigma,), **options)


def l1_ssim(x: Tensor, y: Tensor, mask: Tensor, *, ssim_weight: float = 0.2, **options) -> Tensor:
    options = dict(padding="zeros", reduction="mean") | options
    radius = reference.radius_of(1.5, options.get("window_size"))
    l1, at = (torch.where(mask == 0, 0.0, x) - torch.where(mask == 0, 0.0, y)).abs(), mask
    if options["reduction"] == "map":
        l1, at = (cropped(t, options["padding"], radius) for t in (l1, mask))
    l1 = mean_over(at, l1, options["reduction"])
    return (1 - ssim_weight) * l1 + ssim(x, y, mask, ssim_weight=ssim_weight, **options)


LOSSES: dict[str, Callable[..., Tensor]] = dict(
    l1=l1,
    ssim=ssim,
    l1_ssim=l1_ssim,
    ms_ssim_gaussian=loss,
    ms_ssim=lambda *images, **options: loss(*images, multiscale="dyadic", **options),
    mix=mix,
    mix_dyadic=lambda *images, **options: mix(*images, multiscale="dyadic", **options),
)
