"""Where gradients on the CPU lie: in memory of torch, which a training loop gets again at every step.

Touching a large fresh buffer costs as much as computing the loss, and what torch's posix_memalign got and
freed, glibc gives to nobody who asks for as much (its bug 14581). So of the gradients handed out, at most two
are held: of the last two layouts asked for, and asked for again. One that nobody else holds is handed out
anew. What is asked for once is not held, nor what is asked for no longer.
"""

import sys
import threading
from typing import NamedTuple

import torch
from torch import Tensor, UntypedStorage

from . import torch_private
from ._ops import add_op_namespace_prefix


class _Held(NamedTuple):
    layout: tuple  # shape, strides, dtype
    gradient: Tensor
    storage: UntypedStorage


_busy = threading.Lock()  # who finds it taken goes without: a child forked meanwhile would wait forever
_held: list[_Held] = []
_layouts: tuple = (None, None)  # the last two asked for


def gradient_like(like: Tensor) -> Tensor:
    """Not yet filled: sizes, strides and dtype of `like`, which is dense; called by csrc/torch/cpu.cpp."""
    global _layouts
    if not _busy.acquire(blocking=False):
        return torch.empty_like(like)
    try:
        layout = (like.shape, like.stride(), like.dtype)
        again = layout in _layouts
        _layouts = layout, _layouts[0]
        for held in _held:
            if held.layout == layout and _is_free(held) and _is_intact(held):
                return held.gradient.detach()
        _held[:] = [held for held in _held if held.layout in _layouts and _is_intact(held)]
        gradient = torch.empty_like(like)
        if again and len(_held) < 2:
            _held.append(_new(layout, gradient))
            return gradient.detach()
        return gradient
    finally:
        _busy.release()


def _uses(held: _Held) -> tuple[int | None, int]:
    """In C++, and in Python: grad.untyped_storage() is the same object whoever asks for it."""
    return torch_private.users_of(held.storage), sys.getrefcount(held.storage)


def _new(layout: tuple, gradient: Tensor) -> _Held:
    return _Held(layout, gradient, gradient.untyped_storage())


_FREE = _uses(_new((), torch.empty(1)))  # of what nobody else holds


def _is_free(held: _Held) -> bool:
    uses = _uses(held)
    return uses[0] is not None and uses == _FREE


def _is_intact(held: _Held) -> bool:
    """Not resized, nor given to numpy, after which it cannot be, nor to another process, which may use it."""
    storage = held.storage
    return storage.nbytes() == held.gradient.nbytes and storage.resizable() and not storage.is_shared()


torch.library.define(add_op_namespace_prefix("gradient_like"), "(Tensor like) -> Tensor")
torch.library.impl(add_op_namespace_prefix("gradient_like"), "CPU", gradient_like)
torch.library.register_fake(add_op_namespace_prefix("gradient_like"), torch.empty_like)
