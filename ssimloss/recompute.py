"""A loss by the formulas of reference.py, in plain torch: for what the kernels do not give. Slow.

They give a value and its first derivative, on the CPU and on CUDA. Derivatives of second order and in forward
mode are computed here in float64, as these formulas lose the digits that the kernels keep; so is what is left
of masks and of padding "normalized" (masks.py says what), and everything on other devices.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, func

from . import reference
from .options import Dyadic, Gaussian, Options, Volume

Tensors = tuple[Tensor, ...]
Wants = tuple[bool, bool]


def loss(x: Tensor, y: Tensor, options: Options) -> Tensor:
    """The loss of x, y in the dtype of x, which torch can differentiate any number of times."""
    y = target(y, options, x.dtype)
    if options.inverse_ranges is not None:
        inverse = options.inverse_ranges.to(x.dtype).reshape(-1, *[1] * (x.dim() - 1))
        x, y, options = x * inverse, y * inverse, options._replace(inverse_ranges=None)
    padding, reduction = options.padding, options.reduction
    radii = [taps // 2 for taps in options.windows]
    x, y, mask = reference.kept_pixels(x, y, options.mask, padding)
    if isinstance(options, Gaussian) and not options.sigmas:
        l1 = reference.l1_loss(x, y, reduction=reduction, mask=mask)
        return options.l1_weight / options.data_range * l1
    common: dict[str, Any] = dict(data_range=options.data_range, k1=options.k1, k2=options.k2)
    common |= dict(padding=padding, reduction=reduction, mask=mask)
    sigma: float | None = None  # of an l1 term under the window
    if isinstance(options, Volume):
        windows: dict[str, Any] = dict(sigma=options.sigmas, window_size=options.window_sizes)
        similarity = reference.ssim(x, y, **windows, **common)
    elif isinstance(options, Dyadic):
        sigma, size = options.sigma, options.window_size
        common |= dict(weights=options.weights, halving=options.halving, negative=options.negative)
        similarity = reference.ms_ssim(x, y, sigma=sigma, window_size=size, **common)
    else:
        sigma = options.sigmas[-1] if options.l1_windowed else None
        size = options.window_sizes[-1]
        given = size if len({*options.window_sizes}) == 1 else None  # else each from its sigma
        similarity = reference.ms_ssim_gaussian(x, y, sigmas=options.sigmas, window_size=given, **common)
    of_identical = reference.of_identical(x, mask, padding, radii, reduction)
    dissimilarity = options.ssim_weight * (of_identical - similarity)
    if options.l1_weight == 0:
        return dissimilarity
    if sigma is None:
        l1 = reference.pixel_l1(x, y, mask, padding, radii, reduction)
    else:
        l1 = reference.windowed_l1(x, y, mask, sigma, radii, padding, radii, reduction)
    return dissimilarity + options.l1_weight / options.data_range * l1


def target(y: Tensor, options: Options, dtype: torch.dtype) -> Tensor:
    """y in this dtype and in the units of x: bytes count as value * data_range / 255."""
    y_wide = y.to(dtype)
    if y.dtype != torch.uint8:
        return y_wide
    data_range: float | Tensor = options.data_range
    if options.inverse_ranges is not None:
        data_range = options.inverse_ranges.reciprocal().to(dtype).reshape(-1, *[1] * (y.dim() - 1))
    return y_wide * data_range / 255


def differentiable(inputs: Tensors, options: Options) -> Tensors:
    """inputs, x and y the last of them, as torch can differentiate with respect to: no bytes."""
    *others, y = inputs
    return inputs if y.is_floating_point() else (*others, target(y, options, torch.float64))


def widened(x: Tensor, y: Tensor, options: Options) -> Tensor:
    """The loss computed in float64, in the dtype that the kernels give."""
    value = loss(x.double(), y, options)
    return value if x.dtype == torch.float64 else value.float()


def gradient(inputs: Tensors, options: Options, wants: Wants) -> Tensors:
    """The gradients to those of x and y that are wanted, in their dtype; inputs: grad_loss, x, y."""
    grad_loss, *images = inputs

    def of_wanted(*wanted: Tensor) -> Tensor:
        given = iter(wanted)
        x, y = (next(given) if want else t for t, want in zip(images, wants, strict=True))
        return loss(x.double(), y, options)

    pull_back = func.vjp(of_wanted, *(t for t, want in zip(images, wants, strict=True) if want))[1]
    return pull_back(grad_loss.double())


def pull_back_gradient(grads: Tensors, inputs: Tensors, options: Options, wants: Wants) -> Tensors:
    """Double backward: from gradients of what `gradient` gives to those of its inputs."""
    inputs = differentiable(inputs, options)
    pull_back = func.vjp(lambda *inputs: gradient(inputs, options, wants), *inputs)[1]
    return pull_back(tuple(grad for grad, want in zip(grads, wants, strict=True) if want))


def push_forward(function: Callable[..., Tensors], primals: Tensors, tangents: Tensors) -> Tensors:
    """The tangents of function(*primals), by two pull-backs: torch cannot nest its forward mode."""
    results, pull_back = func.vjp(function, *primals)[:2]
    zeros = tuple(torch.zeros_like(result) for result in results)
    return func.vjp(lambda *grads: pull_back(grads), *zeros)[1](tangents)
