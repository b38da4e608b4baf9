"""From a call with gradients to the op that computes both at once, and back."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from . import torch_private
from .ops import NO_DOUBLE_BACKWARD, NO_FORWARD_MODE, scale_, unit_scale
from .options import Options


def fused_loss(x: Tensor, y: Tensor, options: Options) -> Tensor:
    """The loss of x, y [N, C, H, W], differentiable with respect to whichever requires a gradient."""
    grad_enabled = torch.is_grad_enabled()
    wants = grad_enabled and x.requires_grad, grad_enabled and y.requires_grad
    if torch.compiler.is_compiling():  # graphs hold the op itself, with the autograd of ops.py
        return options.op(x, y, unit_scale(x, options), *wants, *options)[0]
    if not any(wants) and not any(unpack_dual(t).tangent is not None for t in (x, y)):
        return _run(x, y, options, 1.0, False, False)[0]
    return torch_private.apply(_Loss, x, y, options, unit_scale(x, options), *wants)[0]


def _run(x: Tensor, y: Tensor, options: Options, *args: float) -> tuple[Tensor, Tensor, Tensor]:
    """The op without the autograd that ops.py gives it, which costs more than a small loss.

    Transforms and subclasses of Tensor see the whole of it.
    """
    if torch_private.transforms_active() or not type(x) is type(y) is Tensor:
        return options.op(x, y, *args, *options)
    with torch_private.below_autograd():
        return options.op(x, y, *args, *options)


class _Function(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def jvp(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(NO_FORWARD_MODE)


class _Loss(_Function):
    """Forward computes the gradient too, times `scale`; backward multiplies it in place, once.

    Asked a second time (retain_graph) or for a graph of its own (create_graph, torch.func), backward
    computes the gradient anew from x and y, which are saved by reference.
    """

    @staticmethod
    def forward(
        x: Tensor, y: Tensor, options: Options, scale: float, want_x: bool, want_y: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        return _run(x, y, options, scale, want_x, want_y)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        x, y, ctx.options, ctx.scale, *_ = inputs
        ctx.save_for_backward(x, y)
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
            units = torch_private.apply(_Gradient, grad_loss, x, y, ctx.options, want_x, want_y)
        elif torch_private.is_batched(grad_loss):  # one unit for many
            x, y = ctx.saved_tensors
            units = ctx.options.backward_op(grad_loss, x, y, want_x, want_y, *ctx.options)
        else:
            for unit, want in zip(units, (want_x, want_y), strict=True):
                if want:
                    scale_(unit, grad_loss, 1 / ctx.scale)
        return units[0] if want_x else None, units[1] if want_y else None, None, None, None, None


class _Gradient(_Function):
    """The gradient computed anew. It has no derivative: asking for one raises."""

    @staticmethod
    def forward(
        grad_loss: Tensor, x: Tensor, y: Tensor, options: Options, want_x: bool, want_y: bool
    ) -> tuple[Tensor, Tensor]:
        return options.backward_op(grad_loss, x, y, want_x, want_y, *options)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise RuntimeError(NO_DOUBLE_BACKWARD)
