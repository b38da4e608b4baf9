"""SSIM, MS-SSIM and Mix: fused losses for training image-restoration and rendering networks."""

from importlib.metadata import version as _version

import torch as _torch

from . import _C
from .functional import ms_ssim, ms_ssim_gaussian, ssim
from .modules import L1SSIMLoss, MixLoss, MSSSIMLoss, SSIMLoss

__version__ = _version("ssimloss")
__all__ = [
    "L1SSIMLoss",
    "MSSSIMLoss",
    "MixLoss",
    "SSIMLoss",
    "info",
    "ms_ssim",
    "ms_ssim_gaussian",
    "ssim",
]


def info() -> dict[str, object]:
    """What runs here: versions, the CPU kernels in use, the CUDA architectures inside."""
    return {
        "version": __version__,
        "torch": _torch.__version__,
        "cpu_variant": _C.cpu_variant(),
        "cuda_architectures": _C.cuda_architectures().split(),
    }
