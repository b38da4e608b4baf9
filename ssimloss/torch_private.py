"""Every private name of torch that this package uses, and what is public and slower in its place.

With all of them a step on a tiny image takes 186 us; without, about 400 (one thread, 1x1x16x16, 2026-11-30).
A torch that has renamed one loses that time and nothing else.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor


def _found(path: str) -> Any:
    """torch.`path`, or None."""
    try:
        return attrgetter(path)(torch)
    except AttributeError:
        return None


_unwrap_dead_wrappers = _found("_functorch.utils.unwrap_dead_wrappers")
_storage_Use_Count = _found("_C._storage_Use_Count")

# transforms_active(): whether torch.func's vmap, grad and the like may be on their way: then nothing is
# skipped.
transforms_active: Callable[[], bool] = _found("_C._are_functorch_transforms_active") or (lambda: True)

# Within below_autograd() an op runs its kernel at once, without the autograd that it was registered with.
below_autograd: Callable[[], AbstractContextManager] = _found("_C._AutoDispatchBelowAutograd") or nullcontext

# is_batched(t): whether t may stand for many tensors, as the incoming gradient under is_grads_batched does.
is_batched: Callable[[Tensor], bool] = _found("_C._functorch.is_legacy_batchedtensor") or (lambda t: True)


def users_of(storage: torch.UntypedStorage) -> int | None:
    """How many tensors and storages of Python and C++ hold this memory; None: who knows."""
    return None if _storage_Use_Count is None else _storage_Use_Count(storage._cdata)


def apply(function: type[torch.autograd.Function], *args: Any) -> Any:
    """function.apply(*args), without looking up the names of forward's arguments each time.

    That costs more than a small loss. Tensors of transforms that have ended are unwrapped, as torch's own
    apply does (torch/autograd/function.py).
    """
    if transforms_active() or _unwrap_dead_wrappers is None:
        return function.apply(*args)
    return super(torch.autograd.Function, function).apply(*_unwrap_dead_wrappers(args))  # type: ignore[misc]
