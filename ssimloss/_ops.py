"""The operators' namespace. The kernel hub's builder puts another file, with the same names, in its place."""

import torch

from . import _C as ssimloss  # noqa: F401  (loading it registers the operators; it has their namespace's name)

ops = torch.ops.ssimloss


def add_op_namespace_prefix(op_name: str) -> str:
    return f"ssimloss::{op_name}"
