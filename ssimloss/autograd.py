"""From a call with gradients to the op that computes both at once, and back."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from . import recompute, torch_private
from .ops import scale_, unit_scale
from .options import Dyadic, Gaussian, Options, Volume, with_tensors


def detailed_loss(x: Tensor, y: Tensor, options: Gaussian | Volume, want_map: bool) -> tuple | None:
    """The loss, its terms and its map, as schema.cpp says; None where forward mode asks for a tangent."""
    if _has_tangent(x, y):
        return None
    loss, _, _, terms, loss_map = fused_loss(x, y, options, want_map)
    return loss, terms, loss_map


def fused_loss(x: Tensor, y: Tensor, options: Options, want_map: bool | None = None) -> tuple[Tensor, ...]:
    """What the op gives: first the loss of x, y [N, C, H, W], differentiable with respect to both.

    want_map: None, or of the detailed op.
    """
    grad_enabled = torch.is_grad_enabled()
    wants = grad_enabled and x.requires_grad, grad_enabled and y.requires_grad
    ranges, mask = options.inverse_ranges, options.mask
    # Per unit of a range that is not known yet a gradient may be too small for float16, until it is scaled;
    # and too large where a mask keeps few pixels.
    kept = wants if x.dtype != torch.float16 or (ranges is None and mask is None) else (False, False)
    if torch.compiler.is_compiling():  # graphs hold the op itself, with the autograd of ops.py
        if _has_tangent(x, y):  # which has no forward mode
            return (recompute.widened(x, y, options),)
        return _call(options, want_map, x, y, unit_scale(x, options), *kept)
    if not any(wants) and not _has_tangent(x, y):
        return _run(x, y, options, want_map, 1.0, False, False)
    request = _Request(options, want_map, unit_scale(x, options), *kept)
    return torch_private.apply(_Loss, x, y, ranges, mask, request)


def _has_tangent(*images: Tensor) -> bool:
    return any(unpack_dual(image).tangent is not None for image in images)


def _call(options: Options, want_map: bool | None, *args: Any) -> tuple:
    """The op with the autograd that ops.py gives it."""
    if want_map is None:
        return options.op(*args, *options)
    assert not isinstance(options, Dyadic)
    return options.detailed_op(*args, want_map, *options)


def _run(x: Tensor, y: Tensor, options: Options, want_map: bool | None, *args: float) -> tuple:
    """The op without that autograd, which costs more than a small loss.

    Transforms and subclasses of Tensor see the whole of it.
    """
    if torch_private.transforms_active() or not type(x) is type(y) is Tensor:
        return _call(options, want_map, x, y, *args)
    with torch_private.below_autograd():
        return (
            options.op(x, y, *args, *options) if want_map is None else _call(options, want_map, x, y, *args)
        )


class _Request:
    """All that is asked of the op but tensors, as one argument: vmap takes a tuple apart."""

    __slots__ = ("options", "scale", "want_map", "want_x", "want_y")

    def __init__(self, options: Options, want_map: bool | None, scale: float, want_x: bool, want_y: bool):
        none = options.inverse_ranges is None and options.mask is None
        self.options = options if none else with_tensors(options, (None, None))
        self.want_map, self.scale, self.want_x, self.want_y = want_map, scale, want_x, want_y

    def options_with(self, ranges: Tensor | None, mask: Tensor | None) -> Options:
        return self.options if ranges is None and mask is None else with_tensors(self.options, (ranges, mask))


class _Loss(torch.autograd.Function):
    """Forward computes the gradient too, times `scale`; backward multiplies it in place, once.

    Asked a second time (retain_graph) or for a graph of its own (create_graph, torch.func), backward
    computes the gradient anew from x and y, which are saved by reference.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        y: Tensor,
        ranges: Tensor | None,
        mask: Tensor | None,
        request: _Request,
    ) -> tuple[Tensor, ...]:
        options = request.options_with(ranges, mask)
        return _run(x, y, options, request.want_map, request.scale, request.want_x, request.want_y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, request = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # no zeros as large as the images for the units
        ctx.request = request
        made = request.options.reduction != "map" and (request.want_x or request.want_y)
        ctx.units = output[1:3] if made else None

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: None) -> tuple:
        want_x, want_y = ctx.needs_input_grad[:2]
        units, ctx.units = ctx.units, None
        if grad_loss is None:
            units = (None, None)
        elif units is None or torch.is_grad_enabled():
            units = torch_private.apply(_Gradient, grad_loss, *ctx.saved_tensors, ctx.request, want_x, want_y)
        elif torch_private.is_batched(grad_loss):  # one unit for many
            x, y, ranges, mask = ctx.saved_tensors
            options = ctx.request.options_with(ranges, mask)
            units = options.backward_op(grad_loss, x, y, want_x, want_y, *options)
        else:
            for unit, want in zip(units, (want_x, want_y), strict=True):
                if want:
                    scale_(unit, grad_loss, 1 / ctx.request.scale)
        return units[0] if want_x else None, units[1] if want_y else None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple:
        *images, ranges, mask = ctx.saved_tensors
        options = ctx.request.options_with(ranges, mask)
        images = recompute.differentiable(tuple(images), options)

        def loss(x: Tensor, y: Tensor) -> tuple[Tensor]:
            return (recompute.widened(x, y, options),)

        others = 2 if ctx.request.want_map is None else 4  # of what the op gives
        return *recompute.push_forward(loss, images, _all(images, tangents)), *[None] * others


def _all(primals: Sequence[Tensor], tangents: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """The primals' tangents, with zeros for those that have none."""
    return tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=False))


class _Gradient(torch.autograd.Function):
    """The gradient computed anew, and its derivatives by recompute.py."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad_loss: Tensor,
        x: Tensor,
        y: Tensor,
        ranges: Tensor | None,
        mask: Tensor | None,
        request: _Request,
        want_x: bool,
        want_y: bool,
    ) -> tuple[Tensor, Tensor]:
        options = request.options_with(ranges, mask)
        return options.backward_op(grad_loss, x, y, want_x, want_y, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        *tensors, ctx.request, want_x, want_y = inputs
        ctx.wants = want_x, want_y
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        *inputs, ranges, mask = ctx.saved_tensors
        options = ctx.request.options_with(ranges, mask)
        pulled = recompute.pull_back_gradient(grads, tuple(inputs), options, ctx.wants)
        return *pulled, *[None] * 5

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple:
        *inputs, ranges, mask = ctx.saved_tensors
        options, wants = ctx.request.options_with(ranges, mask), ctx.wants
        inputs = recompute.differentiable(tuple(inputs), options)

        def gradient(*inputs: Tensor) -> tuple[Tensor, ...]:
            return recompute.gradient(inputs, options, wants)

        pushed = iter(recompute.push_forward(gradient, inputs, _all(inputs, tangents)))
        return tuple(next(pushed) if want else inputs[1].new_empty(0) for want in wants)
