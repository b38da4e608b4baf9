"""SSIM, MS-SSIM and Mix: fused losses for training image-restoration and rendering networks."""

import torch as _torch

try:
    from . import _ops  # noqa: F401  (it loads the library)
except ImportError as _error:
    from pathlib import Path as _Path

    _folder = _Path(__file__).parent
    if not [*_folder.glob("*.so"), *_folder.glob("*.pyd")]:
        raise ImportError(
            f"ssimloss is not built in {_folder}: run `pip install --no-build-isolation -e .` there, or "
            "start Python in another folder to use an installed one"
        ) from _error
    raise
from . import memory as _memory  # noqa: F401  (the operators call it)
from . import ops as _operators
from .functional import ms_ssim, ms_ssim_gaussian, ssim
from .modules import L1Loss, L1SSIMLoss, MixLoss, MSSSIMLoss, SSIMLoss

__version__ = "0.2.0"
__all__ = [
    "L1Loss",
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
        "cpu_variant": _operators.library.cpu_variant(),
        "cuda_architectures": _operators.library.cuda_architectures().split(),
    }
