"""Warnings at the line of the user's code, said once a process."""

import sys
import warnings
from types import FrameType

import torch
from torch import Tensor

from ._ops import add_op_namespace_prefix

OURS = __name__.partition(".")[0]  # ssimloss, but in a kernel hub's build
_said: set[str] = set()


def warn_once(message: str) -> None:
    if message in _said:
        return
    _said.add(message)
    level, frame = 2, sys._getframe(1)
    while frame.f_back and _package(frame) in ("torch", OURS):
        level, frame = level + 1, frame.f_back
    warnings.warn(f"ssimloss: {message} (said once a process)", stacklevel=level)


def _package(frame: FrameType) -> str:
    name = frame.f_globals.get("__name__") or "torch"  # code that torch has made has no name
    return name.partition(".")[0]


def _of_operator(like: Tensor, message: str) -> None:
    """So that the kernels can warn, from compiled graphs as well; `like` leads the dispatcher here."""
    warn_once(message)


torch.library.define(add_op_namespace_prefix("warn_once"), "(Tensor like, str message) -> ()")
torch.library.impl(add_op_namespace_prefix("warn_once"), "CPU", _of_operator)
torch.library.register_fake(add_op_namespace_prefix("warn_once"), lambda like, message: None)
