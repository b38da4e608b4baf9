"""From a call with gradients to the op that computes both at once, and back."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from . import recompute, torch_private
from .ops import scale_, unit_scale
from .options import Options


def fused_loss(x: Tensor, y: Tensor, options: Options) -> Tensor:
    """The loss of x, y [N, C, H, W], differentiable with respect to whichever requires a gradient."""
    grad_enabled = torch.is_grad_enabled()
    wants = grad_enabled and x.requires_grad, grad_enabled and y.requires_grad
    if torch.compiler.is_compiling():  # graphs hold the op itself, with the autograd of ops.py
        if _has_tangent(x, y):  # which has no forward mode
            return recompute.widened(x, y, options)
        return options.op(x, y, unit_scale(x, options), *wants, *options)[0]
    if not any(wants) and not _has_tangent(x, y):
        return _run(x, y, options, 1.0, False, False)[0]
    return torch_private.apply(_Loss, x, y, _Leaf(options), unit_scale(x, options), *wants)[0]


def _has_tangent(*images: Tensor) -> bool:
    return any(unpack_dual(image).tangent is not None for image in images)


def _run(x: Tensor, y: Tensor, options: Options, *args: float) -> tuple[Tensor, Tensor, Tensor]:
    """The op without the autograd that ops.py gives it, which costs more than a small loss.

    Transforms and subclasses of Tensor see the whole of it.
    """
    if torch_private.transforms_active() or not type(x) is type(y) is Tensor:
        return options.op(x, y, *args, *options)
    with torch_private.below_autograd():
        return options.op(x, y, *args, *options)


class _Leaf:
    """Options as one argument: vmap takes a tuple apart."""

    __slots__ = ("options",)

    def __init__(self, options: Options):
        self.options = options


class _Loss(torch.autograd.Function):
    """Forward computes the gradient too, times `scale`; backward multiplies it in place, once.

    Asked a second time (retain_graph) or for a graph of its own (create_graph, torch.func), backward
    computes the gradient anew from x and y, which are saved by reference.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, y: Tensor, leaf: _Leaf, scale: float, want_x: bool, want_y: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _run(x, y, leaf.options, scale, want_x, want_y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, y, leaf, ctx.scale, *_ = inputs
        ctx.options = leaf.options
        ctx.save_for_backward(x, y)
        ctx.save_for_forward(x, y)
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # no zeros as large as the images for the units
        ctx.units = None if ctx.options.reduction == "map" else output[1:]

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor | None, *_: None) -> tuple:
        want_x, want_y = ctx.needs_input_grad[:2]
        units, ctx.units = ctx.units, None
        if grad_loss is None:
            units = (None, None)
        elif units is None or torch.is_grad_enabled():
            x, y = ctx.saved_tensors
            units = torch_private.apply(_Gradient, grad_loss, x, y, _Leaf(ctx.options), want_x, want_y)
        elif torch_private.is_batched(grad_loss):  # one unit for many
            x, y = ctx.saved_tensors
            units = ctx.options.backward_op(grad_loss, x, y, want_x, want_y, *ctx.options)
        else:
            for unit, want in zip(units, (want_x, want_y), strict=True):
                if want:
                    scale_(unit, grad_loss, 1 / ctx.scale)
        return units[0] if want_x else None, units[1] if want_y else None, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple:
        images, options = ctx.saved_tensors, ctx.options

        def loss(x: Tensor, y: Tensor) -> tuple[Tensor]:
            return (recompute.widened(x, y, options),)

        return *recompute.push_forward(loss, images, _all(images, tangents)), None, None


def _all(primals: tuple[Tensor, ...], tangents: tuple[Tensor | None, ...]) -> tuple[Tensor, ...]:
    """The primals' tangents, with zeros for those that have none."""
    return tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=False))


class _Gradient(torch.autograd.Function):
    """The gradient computed anew, and its derivatives by recompute.py."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        grad_loss: Tensor, x: Tensor, y: Tensor, leaf: _Leaf, want_x: bool, want_y: bool
    ) -> tuple[Tensor, Tensor]:
        return leaf.options.backward_op(grad_loss, x, y, want_x, want_y, *leaf.options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        ctx.options, ctx.wants = inputs[3].options, inputs[4:]
        ctx.save_for_backward(*inputs[:3])
        ctx.save_for_forward(*inputs[:3])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        inputs = ctx.saved_tensors
        return *recompute.pull_back_gradient(grads, inputs, ctx.options, ctx.wants), None, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple:
        inputs, options, wants = ctx.saved_tensors, ctx.options, ctx.wants

        def gradient(*inputs: Tensor) -> tuple[Tensor, ...]:
            return recompute.gradient(inputs, options, wants)

        pushed = iter(recompute.push_forward(gradient, inputs, _all(inputs, tangents)))
        return tuple(next(pushed) if want else inputs[1].new_empty(0) for want in wants)
