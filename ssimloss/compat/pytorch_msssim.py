"""pytorch-msssim 1.0.0. The data range is 255 by default; the multi-scale form is clamped at 0.

Not served: MS-SSIM of volumes, and what is smaller than the window, which it does not filter in that
direction. Windows given as `win` are Gaussian or uniform. The window is not rounded to float32 here.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import functional, reference
from . import _glue
from ._glue import Module, channel_means, missing, window_of

__all__ = ["MS_SSIM", "SSIM", "ms_ssim", "ssim"]


def _images(X: Tensor, Y: Tensor) -> tuple[Tensor, Tensor]:
    """Both without spatial dimensions of size 1, [N, C, H, W] or [N, C, D, H, W]."""
    if X.shape != Y.shape:
        raise ValueError(f"Y: expected the dimensions of X, {list(X.shape)}, got {list(Y.shape)}")
    for dimension in range(X.dim() - 1, 1, -1):
        X, Y = X.squeeze(dimension), Y.squeeze(dimension)
    if X.dim() not in (4, 5):
        raise ValueError(
            f"X: expected shape [N, C, H, W] or [N, C, D, H, W], without sides of 1, got {list(X.shape)}"
        )
    return X, Y


def _options(X: Tensor, data_range, win_size, win_sigma, win, K) -> dict:
    window = dict(window_size=win_size, sigma=win_sigma) if win is None else window_of(win)
    if window["window_size"] % 2 == 0:
        raise ValueError(f"win_size: expected an odd number, got {win_size}")
    if min(X.shape[2:]) < window["window_size"]:
        sides = "x".join(map(str, X.shape[2:]))
        raise missing(f"images of {sides} under a window of {window['window_size']}")
    return window | dict(data_range=_range(data_range, X), k1=K[0], k2=K[1])


def _range(data_range: float | Tensor, X: Tensor) -> float | Tensor:
    """A number, a tensor that holds one, or one for each image, which theirs takes as [N, 1, 1, 1]."""
    if not isinstance(data_range, Tensor):
        return data_range
    data_range = data_range.detach().to(X.device)
    if data_range.numel() == 1:
        return data_range.reshape(())
    if data_range.shape != torch.Size([len(X)] + [1] * (X.dim() - 1)):
        shape = [len(X)] + [1] * (X.dim() - 1)
        raise ValueError(f"data_range: expected one number, or shape {shape}, got {list(data_range.shape)}")
    return data_range.flatten()


def ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float | Tensor = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    K: Sequence[float] = (0.01, 0.03),
    nonnegative_ssim: bool = False,
) -> Tensor:
    """SSIM of X, Y [N, C, H, W] or [N, C, D, H, W]: a scalar, or [N] without size_average.

    nonnegative_ssim: that of each channel is at least 0.
    """
    X, Y = _images(X, Y)
    options = _options(X, data_range, win_size, win_sigma, win, K)
    if not nonnegative_ssim:
        return functional.ssim(X, Y, reduction="mean" if size_average else "none", **options).to(X.dtype)
    value = channel_means(X, Y, **options).relu()
    return (value.mean() if size_average else value.mean(1)).to(X.dtype)


def ms_ssim(
    X: Tensor,
    Y: Tensor,
    data_range: float | Tensor = 255,
    size_average: bool = True,
    win_size: int = 11,
    win_sigma: float = 1.5,
    win: Tensor | None = None,
    weights: Sequence[float] | Tensor | None = None,
    K: Sequence[float] = (0.01, 0.03),
) -> Tensor:
    """MS-SSIM of X, Y [N, C, H, W], clamped at 0 level by level: a scalar, or [N] without size_average.

    Sides of more than 16 (win_size - 1) pixels whatever the number of weights, or AssertionError.
    """
    X, Y = _images(X, Y)
    options = _options(X, data_range, win_size, win_sigma, win, K)
    if X.dim() == 5:
        raise missing(f"MS-SSIM of volumes, {list(X.shape)}")
    least = 16 * (options["window_size"] - 1)
    if min(X.shape[2:]) <= least:
        raise AssertionError(f"X: expected sides of more than {least}, for 4 halvings, got {list(X.shape)}")
    options |= dict(halving="zeros", reduction="mean" if size_average else "none")
    return _glue.ms_ssim(X, Y, reference.WANG_WEIGHTS if weights is None else weights, **options).to(X.dtype)


class SSIM(Module):
    """The module of `ssim`: a similarity. `channel` and `spatial_dims` are not looked at."""

    def __init__(
        self,
        data_range: float | Tensor = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        K: Sequence[float] = (0.01, 0.03),
        nonnegative_ssim: bool = False,
    ) -> None:
        super().__init__()
        self.data_range, self.size_average, self.K = data_range, size_average, K
        self.win_size, self.win_sigma, self.nonnegative_ssim = win_size, win_sigma, nonnegative_ssim

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        window = (self.win_size, self.win_sigma, None)
        return ssim(X, Y, self.data_range, self.size_average, *window, self.K, self.nonnegative_ssim)


class MS_SSIM(Module):
    """The module of `ms_ssim`: a similarity. `channel` and `spatial_dims` are not looked at."""

    def __init__(
        self,
        data_range: float | Tensor = 255,
        size_average: bool = True,
        win_size: int = 11,
        win_sigma: float = 1.5,
        channel: int = 3,
        spatial_dims: int = 2,
        weights: Sequence[float] | Tensor | None = None,
        K: Sequence[float] = (0.01, 0.03),
    ) -> None:
        super().__init__()
        self.data_range, self.size_average, self.K = data_range, size_average, K
        self.win_size, self.win_sigma, self.weights = win_size, win_sigma, weights

    def forward(self, X: Tensor, Y: Tensor) -> Tensor:
        window = (self.win_size, self.win_sigma, None)
        return ms_ssim(X, Y, self.data_range, self.size_average, *window, self.weights, self.K)
