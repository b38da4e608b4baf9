"""BM3D on the Bayer data, then Menon's demosaicking: the tables' baseline without a network.

The package bm3d is free for NON-COMMERCIAL use only: pip install 'ssimloss[bm3d]' installs it and
colour-demosaicing; nothing else needs them.

[1] Dabov et al., "Image denoising by sparse 3-D transform-domain collaborative filtering",
    IEEE TIP 2007, doi:10.1109/TIP.2007.901238
[2] Foi, "Clipped noisy images: heteroskedastic modeling and practical denoising",
    Signal Processing 2009, doi:10.1016/j.sigpro.2009.04.035
[3] Makitalo and Foi, "Optimal inversion of the generalized Anscombe transformation for
    Poisson-Gaussian noise", IEEE TIP 2013, doi:10.1109/TIP.2012.2202675
[4] Menon et al., "Demosaicing with directional filtering and a posteriori decision",
    IEEE TIP 2007, doi:10.1109/TIP.2006.884928
"""

import numpy as np
import torch
from torch import Tensor

from .data import to_uint8


def bm3d(mosaic: Tensor, a: float, b: float) -> Tensor | None:
    """A noisy RGGB mosaic [H, W], float in [0, 1], to a picture [3, H, W], uint8; None without the packages.

    Noise: variance a x + b, then clipped to [0, 1]. Neighbours in a mosaic have different colours, so
    BM3D [1] runs on the four planes of one colour and phase, each of half the size.
    """
    try:
        from bm3d import bm3d as denoise
        from colour_demosaicing import demosaicing_CFA_Bayer_Menon2007 as demosaic  # [4]
    except ImportError:
        return None
    darkest, brightest = anscombe(np.array([0.0, 1.0]), a, b)
    span = brightest - darkest  # BM3D expects values in [0, 1]; the noise has deviation 1 / span there
    stable = (anscombe(mosaic.double().cpu().numpy(), a, b) - darkest) / span
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        phase = np.s_[row::2, column::2]
        stable[phase] = denoise(np.ascontiguousarray(stable[phase]), 1 / span)
    picture = demosaic(unbiased_inverse(stable * span + darkest, a, b), "RGGB")
    return to_uint8(torch.from_numpy(picture).permute(2, 0, 1))


def anscombe(values: np.ndarray, a: float, b: float) -> np.ndarray:
    """The generalised Anscombe transformation: noise of variance a x + b gets about variance 1 [3]."""
    return 2 / a * np.sqrt(np.maximum(a * values + 0.375 * a**2 + b, 0))


def unbiased_inverse(means: np.ndarray, a: float, b: float) -> np.ndarray:
    """The x of which the transformed noisy values have these means: the exact unbiased inverse [3].

    Tabulated for this very noise, normal and clipped, so it undoes the clipping's bias too [2].
    """
    x = np.linspace(0, 1, 1001)[:, None]
    n = np.linspace(-6, 6, 601)
    density = np.exp(-0.5 * n**2)
    noisy = np.clip(x + np.sqrt(a * x + b) * n, 0, 1)
    expected = anscombe(noisy, a, b) @ (density / density.sum())
    return np.interp(means, expected, x[:, 0])
