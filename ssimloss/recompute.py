"""A loss by the formulas of reference.py, in plain torch: for what the kernels do not give. Slow.

They give a value and its first derivative, on the CPU and on CUDA. Derivatives of second order and in forward
mode are computed here in float64, as these formulas lose the digits that the kernels keep; and everything on
other devices.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, func

from . import reference
from .options import Dyadic, Gaussian, Options

Tensors = tuple[Tensor, ...]
Wants = tuple[bool, bool]


def loss(x: Tensor, y: Tensor, options: Options) -> Tensor:
    """The loss of x, y [N, C, H, W] in their dtype, which torch can differentiate any number of times."""
    if isinstance(options, Gaussian) and not options.sigmas:
        return options.l1_weight / options.data_range * reference.l1_loss(x, y, reduction=options.reduction)
    common: dict[str, Any] = dict(data_range=options.data_range, k1=options.k1, k2=options.k2)
    common |= dict(padding=options.padding, reduction=options.reduction)
    if isinstance(options, Dyadic):
        sigma, size = options.sigma, options.window_size
        common |= dict(weights=options.weights, halving=options.halving, negative=options.negative)
        similarity = reference.ms_ssim(x, y, sigma=sigma, window_size=size, **common)
    else:
        sigma, size = options.sigmas[-1], options.window_sizes[-1]
        given = size if len({*options.window_sizes}) == 1 else None  # else each from its sigma
        similarity = reference.ms_ssim_gaussian(x, y, sigmas=options.sigmas, window_size=given, **common)
    if options.l1_weight == 0:
        return options.ssim_weight * (1 - similarity)
    l1, radius = (x - y).abs() / options.data_range, size // 2
    if isinstance(options, Dyadic) or options.l1_windowed:
        l1 = reference.blur(l1, sigma, radius, options.padding, radius)
    elif options.padding == "valid" and options.reduction == "map":
        l1 = l1[..., radius : l1.shape[-2] - radius, radius : l1.shape[-1] - radius]
    l1 = reference.reduce(l1, options.reduction)
    return options.ssim_weight * (1 - similarity) + options.l1_weight * l1


def widened(x: Tensor, y: Tensor, options: Options) -> Tensor:
    """The loss computed in float64, in the dtype that the kernels give."""
    value = loss(x.double(), y.double(), options)
    return value if x.dtype == torch.float64 else value.float()


def gradient(inputs: Tensors, options: Options, wants: Wants) -> Tensors:
    """The gradients to those of x and y that are wanted, in their dtype; inputs: grad_loss, x, y."""
    grad_loss, *images = inputs

    def of_wanted(*wanted: Tensor) -> Tensor:
        given = iter(wanted)
        x, y = ((next(given) if want else t).double() for t, want in zip(images, wants, strict=True))
        return loss(x, y, options)

    pull_back = func.vjp(of_wanted, *(t for t, want in zip(images, wants, strict=True) if want))[1]
    return pull_back(grad_loss.double())


def pull_back_gradient(grads: Tensors, inputs: Tensors, options: Options, wants: Wants) -> Tensors:
    """Double backward: from gradients of what `gradient` gives to those of its inputs."""
    pull_back = func.vjp(lambda *inputs: gradient(inputs, options, wants), *inputs)[1]
    return pull_back(tuple(grad for grad, want in zip(grads, wants, strict=True) if want))


def push_forward(function: Callable[..., Tensors], primals: Tensors, tangents: Tensors) -> Tensors:
    """The tangents of function(*primals), by two pull-backs: torch cannot nest its forward mode."""
    results, pull_back = func.vjp(function, *primals)[:2]
    zeros = tuple(torch.zeros_like(result) for result in results)
    return func.vjp(lambda *grads: pull_back(grads), *zeros)[1](tangents)
