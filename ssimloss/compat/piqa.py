"""piqa 1.3.2: its SSIM and MS-SSIM, whose odd sides are halved as Wang's msssim.m and TensorFlow do.

Values outside [0, value_range] and another number of channels are an AssertionError, for which a device is
waited, unless Python runs with -O. `ssim` takes signals [N, C, L] and volumes [N, C, D, H, W], too.
"""

from typing import Any

import torch
from torch import Tensor

from . import _glue
from ._glue import NO_LUMINANCE, Module, channel_means, window_of

__all__ = ["MS_SSIM", "SSIM", "ms_ssim", "ssim"]


def _options(window: dict, padding: bool, value_range: float, k1: float, k2: float) -> dict:
    return window | dict(padding="zeros" if padding else "valid", data_range=value_range, k1=k1, k2=k2)


def ssim(
    x: Tensor,
    y: Tensor,
    kernel: Tensor,
    channel_avg: bool = True,
    padding: bool = False,
    value_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
) -> tuple[Tensor, Tensor]:
    """SSIM and mean cs of x, y [N, C, H, W], [N] or [N, C] each; kernel [C, 1, K] is Gaussian or uniform."""
    options = _options(window_of(kernel), padding, value_range, k1, k2)
    values = (_channel_means(x, y, **options | only) for only in ({}, NO_LUMINANCE))
    similarity, cs = (value.mean(1) if channel_avg else value for value in values)
    return similarity, cs


def _channel_means(x: Tensor, y: Tensor, **options: Any) -> Tensor:
    x, y = torch.broadcast_tensors(x, y)
    if x.dim() == 3:  # signals: volumes of one row
        x, y = x[:, :, None, None], y[:, :, None, None]
        options["window_size"] = (1, 1, options["window_size"])
    return channel_means(x, y, **options).to(x.dtype)


def ms_ssim(
    x: Tensor,
    y: Tensor,
    kernel: Tensor,
    weights: Tensor,
    padding: bool = False,
    value_range: float = 1.0,
    k1: float = 0.01,
    k2: float = 0.03,
) -> Tensor:
    """MS-SSIM of x, y [N, C, H, W], clamped at 0 level by level, [N]."""
    return _ms_ssim(x, y, weights, _options(window_of(kernel), padding, value_range, k1, k2))


def _ms_ssim(x: Tensor, y: Tensor, weights: Tensor, options: dict) -> Tensor:
    x, y = torch.broadcast_tensors(x, y)
    return _glue.ms_ssim(x, y, weights, reduction="none", **options).to(x.dtype)


class _Module(Module):
    """The window is a buffer, `kernel`, as in their checkpoints: one that is loaded is used."""

    kernel: Tensor

    def __init__(self, window_size: int, sigma: float, n_channels: int, reduction: str, kwargs: Any) -> None:
        super().__init__()
        weights = torch.softmax(-0.5 * ((torch.arange(window_size) - (window_size - 1) / 2) / sigma) ** 2, 0)
        self.register_buffer("kernel", weights.repeat(n_channels, 1, 1))
        self.reduction, self.kwargs = reduction, kwargs
        self._window: dict[str, Any] = dict(sigma=sigma, window_size=window_size)
        self.register_load_state_dict_post_hook(_take_window)

    def _checked(self, x: Tensor, y: Tensor, ranks: tuple[int, ...]) -> tuple[dict, bool]:
        """The options, and whether channels are averaged."""
        named = dict(padding=False, value_range=1.0, k1=0.01, k2=0.03, channel_avg=True) | self.kwargs
        if __debug__:
            _check(x, y, self.kernel, named["value_range"], ranks)
        channel_avg = named.pop("channel_avg")
        return _options(self._window, **named), channel_avg

    def _reduced(self, values: Tensor) -> Tensor:
        return getattr(values, self.reduction)() if self.reduction in ("mean", "sum") else values


def _take_window(module: _Module, _: Any) -> None:
    module._window = window_of(module.kernel)


def _check(x: Tensor, y: Tensor, kernel: Tensor, value_range: float, ranks: tuple[int, ...]) -> None:
    for name, image in (("x", x), ("y", y)):
        if image.device != kernel.device:
            raise AssertionError(f"{name}: expected the module's device, {kernel.device}, got {image.device}")
        if image.dim() not in ranks or image.shape[1] != len(kernel):
            raise AssertionError(f"{name}: expected [N, {len(kernel)}, H, W], got {list(image.shape)}")
        low, high = image.detach().aminmax()
        if not (low >= 0 and high <= value_range):
            raise AssertionError(f"{name}: expected values in [0, {value_range}], got {low} to {high}")


class SSIM(_Module):
    """The module of `ssim`: a similarity. kwargs: those of `ssim`."""

    def __init__(
        self,
        window_size: int = 11,
        sigma: float = 1.5,
        n_channels: int = 3,
        reduction: str = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(window_size, sigma, n_channels, reduction, kwargs)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        options, channel_avg = self._checked(x, y, (3, 4, 5))
        values = _channel_means(x, y, **options)
        return self._reduced(values.mean(1) if channel_avg else values)


class MS_SSIM(_Module):
    """The module of `ms_ssim`: a similarity. The weights are a buffer, too. kwargs: those of `ms_ssim`."""

    WEIGHTS = torch.tensor([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])
    weights: Tensor

    def __init__(
        self,
        window_size: int = 11,
        sigma: float = 1.5,
        n_channels: int = 3,
        weights: Tensor | None = None,
        reduction: str = "mean",
        **kwargs: Any,
    ) -> None:
        super().__init__(window_size, sigma, n_channels, reduction, kwargs)
        self.register_buffer("weights", self.WEIGHTS if weights is None else weights)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        options, _ = self._checked(x, y, (4,))
        return self._reduced(_ms_ssim(x, y, self.weights, options))
