"""The operators of csrc/torch/schema.cpp, and what torch must know of them beyond their kernels.

Three forms, each a frozen set of options that ends the op's arguments. An op returns the loss and, where
wanted, `unit_scale` times its gradient from the same pass over the images.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import _ops, recompute
from ._ops import add_op_namespace_prefix, ops
from .options import Dyadic, Gaussian, Options, Volume, tensors_of, with_tensors

Pair = tuple[Tensor, Tensor]
library: Any = getattr(_ops, ops.name)  # the compiled one, for what it says of itself


def output_size(x: Tensor, options: Options) -> tuple[int, ...]:
    """Height and width of the positions at full resolution, or depth, height and width."""
    if options.padding != "valid":
        return x.shape[2:]
    return tuple(side - taps + 1 for side, taps in zip(x.shape[2:], options.windows, strict=True))


def unit_scale(x: Tensor, options: Options) -> float:
    """How many times its size a gradient is kept in: 1, but for 16-bit images what undoes the mean.

    A gradient of 1/N underflows in float16; times N and the data range it is of the order of 1, or of
    l1_weight, which may be too much for float16.
    """
    if x.dtype in (torch.float32, torch.float64):
        return 1.0
    images = x.shape[0] if options.reduction == "mean" else 1
    positions = max(images * x.shape[1] * math.prod(output_size(x, options)), 1)
    return positions * options.data_range / max(1.0, options.l1_weight / 4096)


def loss_dtype(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _fake_loss(x: Tensor, options: Options) -> Tensor:
    shapes = {"mean": (), "none": x.shape[:1], "map": (*x.shape[:2], *output_size(x, options))}
    return x.new_empty(shapes[options.reduction], dtype=loss_dtype(x))


def _fake_gradients(x: Tensor, y: Tensor, want_x: bool, want_y: bool) -> Pair:
    return (
        torch.empty_like(x) if want_x else x.new_empty(0),
        torch.empty_like(y) if want_y else x.new_empty(0),
    )


def _register_forward(form: type[Options], name: str, detailed: bool = False) -> None:
    """The op `name`: (x, y, unit_scale, want_x, want_y, *options) -> (loss, unit_x, unit_y).

    A detailed one has want_map before the options, and gives (terms, map) behind the units, which have no
    gradient: see schema.cpp.
    """
    first = int(detailed)  # of the options, behind want_map

    @torch.library.register_fake(name)
    def _(x, y, unit_scale, want_x, want_y, *options):
        want_map, options = detailed and options[0], form(*options[first:])
        no_map = options.reduction != "map"
        loss = _fake_loss(x, options)
        result = loss, *_fake_gradients(x, y, want_x and no_map, want_y and no_map)
        if not detailed:
            return result
        loss_map = _fake_loss(x, options._replace(reduction="map")) if want_map else x.new_empty(0)
        return *result, loss.new_empty((2, *loss.shape)), loss_map

    def setup_context(ctx, inputs, output):
        x, y, ctx.unit_scale, _, _, *options, ranges, mask = inputs
        ctx.options, ctx.no_gradients = form(*options[first:]), [None] * len(inputs[2:])
        ctx.save_for_backward(x, y, ranges, mask, *output[1:3])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    def backward(ctx, grad_loss, *_):
        if grad_loss is None:
            return None, None, *ctx.no_gradients
        x, y, ranges, mask, *units = ctx.saved_tensors
        wants = ctx.needs_input_grad[:2]
        kept = all(unit.shape == x.shape for unit, want in zip(units, wants, strict=True) if want)
        # With create_graph the op with its own autograd formula must stand in the graph.
        if kept and (torch.compiler.is_compiling() or not torch.is_grad_enabled()):
            factor = grad_loss / ctx.unit_scale
            factor = factor if factor.dim() == 0 else factor.reshape(-1, *[1] * (x.dim() - 1))
            grads = [(u * factor).to(x.dtype) if w else None for u, w in zip(units, wants, strict=True)]
        else:
            options = with_tensors(ctx.options, (ranges, mask))
            grads = options.backward_op(grad_loss, x, y, *wants, *options)
            grads = [g if w else None for g, w in zip(grads, wants, strict=True)]
        return *grads, *ctx.no_gradients

    torch.library.register_autograd(name, backward, setup_context=setup_context)

    # vmap folds its dimension into the batch; a mean becomes the mean over each fold's images. Under a mask
    # it is none, so each fold is a call; detailed ops take none.
    @torch.library.register_vmap(name)
    def _(info, in_dims, x, y, scale, want_x, want_y, *options):
        details, options, wants = options[:first], form(*options[first:]), (want_x, want_y)
        if options.mask is not None and not detailed:
            of_args = in_dims[:2], _dims_of_tensors(in_dims[5:], options)
            return _of_each(info, of_args, options.op, (x, y), (scale,), wants, options)
        x, y, images = _fold(info, in_dims, x, y)
        options = folded = _fold_ranges(info, _dims_of_tensors(in_dims[5 + first :], options)[0], options)
        if options.reduction == "mean":
            folded, scale = options._replace(reduction="none"), scale / max(images, 1)
        op = options.detailed_op if detailed else options.op  # type: ignore[union-attr]
        loss, unit_x, unit_y, *given = op(x, y, scale, want_x, want_y, *details, *folded)

        def of_folds(loss: Tensor) -> Tensor:
            loss = loss.reshape(info.batch_size, images, *loss.shape[1:])
            return loss.mean(1) if options.reduction == "mean" else loss

        units = [
            _unfold(info, unit) if want else unit for unit, want in zip((unit_x, unit_y), wants, strict=True)
        ]
        result, dims = (of_folds(loss), *units), (0, *(0 if want else None for want in wants))
        if not detailed:
            return result, dims
        terms = torch.stack([of_folds(term) for term in given[0]], 1)
        loss_map = _unfold(info, given[1]) if details[0] else given[1]
        return (*result, terms, loss_map), (*dims, 0, 0 if details[0] else None)


def _register_backward(form: type[Options], name: str) -> None:
    """The op `name`: (grad_loss, x, y, want_x, want_y, *options) -> (grad_x, grad_y)."""

    @torch.library.register_fake(name)
    def _(grad_loss, x, y, want_x, want_y, *options):
        return _fake_gradients(x, y, want_x, want_y)

    def setup_gradient(ctx, inputs, output):
        ctx.wants, options = inputs[3:5], form(*inputs[5:])
        ctx.options = with_tensors(options, (None, None))
        ctx.save_for_backward(*inputs[:3], *tensors_of(options))

    def double_backward(ctx, *grads):
        *images, ranges, mask = ctx.saved_tensors
        options, nothing = with_tensors(ctx.options, (ranges, mask)), [None] * (2 + len(ctx.options))
        return *recompute.pull_back_gradient(grads, images, options, ctx.wants), *nothing

    torch.library.register_autograd(name, double_backward, setup_context=setup_gradient)

    @torch.library.register_vmap(name)
    def _(info, in_dims, grad_loss, x, y, want_x, want_y, *options):
        options, wants = form(*options), (want_x, want_y)
        if options.mask is not None:
            of_args = in_dims[:3], _dims_of_tensors(in_dims[5:], options)
            return _of_each(info, of_args, options.backward_op, (grad_loss, x, y), (), wants, options)
        options = _fold_ranges(info, _dims_of_tensors(in_dims[5:], options)[0], options)
        x, y, images = _fold(info, in_dims[1:], x, y)
        grad_loss = _leading(info, in_dims[0], grad_loss)
        if options.reduction == "mean":
            options = options._replace(reduction="none")
            grad_loss = (grad_loss / max(images, 1))[:, None].expand(-1, images)
        grad_loss = grad_loss.reshape(-1, *grad_loss.shape[2:])
        grads = options.backward_op(grad_loss, x, y, *wants, *options)
        grads = [_unfold(info, g) if want else g for g, want in zip(grads, wants, strict=True)]
        return tuple(grads), tuple(0 if want else None for want in wants)


def _leading(info, in_dim: int | None, t: Tensor) -> Tensor:
    """t with vmap's dimension in front, expanded where t has none."""
    return t.expand(info.batch_size, *t.shape) if in_dim is None else t.movedim(in_dim, 0)


def _fold(info, in_dims, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, int]:
    x, y = _leading(info, in_dims[0], x), _leading(info, in_dims[1], y)
    return x.flatten(0, 1), y.flatten(0, 1), x.shape[1]


def _fold_ranges(info, in_dim: int | None, options: Options) -> Options:
    ranges = options.inverse_ranges
    if ranges is None:
        return options
    return options._replace(inverse_ranges=_leading(info, in_dim, ranges).flatten())


def _dims_of_tensors(in_dims, options: Options) -> tuple:
    """Of the tensors among the options, which are the last; torch leaves out those that are the defaults."""
    return (*in_dims[len(options) - 2 :], None, None)[:2]


def _of_each(info, in_dims, op, images: Sequence[Tensor], scale, wants, options: Options):
    """op(*images, *scale, *wants, *options) of one after the other, and its dimensions for vmap."""
    if info.batch_size == 0:
        raise ValueError("mask: expected a dimension of vmap that is not empty, got one of size 0")
    tensors, dims = (*images, *tensors_of(options)), (*in_dims[0], *in_dims[1])
    results = []
    for i in range(info.batch_size):
        *each, ranges, mask = (
            t if t is None or dim is None else t.select(dim, i) for t, dim in zip(tensors, dims, strict=True)
        )
        results.append(op(*each, *scale, *wants, *with_tensors(options, (ranges, mask))))
    together = [torch.stack(parts) for parts in zip(*results, strict=True)]
    return tuple(together), (0,) * len(together)


def _unfold(info, t: Tensor) -> Tensor:
    return t.reshape(info.batch_size, -1, *t.shape[1:])


for _form, _name in ((Gaussian, "gaussian"), (Dyadic, "dyadic"), (Volume, "volume")):
    _register_forward(_form, add_op_namespace_prefix(_name))
    _register_backward(_form, add_op_namespace_prefix(f"{_name}_backward"))
    if _form is not Dyadic:
        _register_forward(_form, add_op_namespace_prefix(f"{_name}_detailed"), detailed=True)
scale_ = ops.scale_.default
torch.library.register_fake(add_op_namespace_prefix("scale_"))(lambda unit, grad_loss, factor: None)
