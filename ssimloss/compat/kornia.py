"""kornia 0.9.0: SSIM and its loss, and Mix, which it calls MS_SSIMLoss; by a flag those of before.

Its `eps` is not added to the denominator: at the default and a data range of 1 that is at most 1.1e-5 of
SSIM, where both images are black. Where it is more than 2e-4, NotImplementedError. Not served: complex
images, and sigmas of which the last is not the largest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import functional
from ..modules import MixLoss
from ..modules import SSIMLoss as _SSIMLoss
from ..options import MAX_TAPS
from ._glue import NO_CONTRAST, NO_LUMINANCE, Module, missing

__all__ = [
    "SSIM",
    "SSIM3D",
    "MS_SSIMLoss",
    "SSIM3DLoss",
    "SSIMLoss",
    "ssim",
    "ssim3d",
    "ssim3d_loss",
    "ssim_loss",
]

PADDINGS = {"same": "reflect", "valid": "valid"}
VOLUMES = "[B, C, D, H, W]"


def _in_one_dtype(img1: Tensor, img2: Tensor) -> tuple[Tensor, Tensor]:
    """Integers are float32; of two dtypes both are the wider."""
    img1, img2 = (t if t.is_floating_point() or t.is_complex() else t.float() for t in (img1, img2))
    dtype = torch.promote_types(img1.dtype, img2.dtype)
    return img1.to(dtype), img2.to(dtype)


def _ssim_arguments(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float,
    eps: float,
    padding: str,
    shape: str = "[B, C, H, W]",
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    for name, image in (("img1", img1), ("img2", img2)):
        if not isinstance(image, Tensor):
            raise TypeError(f"Input {name} type is not a torch.Tensor, got {type(image).__name__}")
    if not isinstance(max_val, float):
        raise TypeError(f"Input max_val type is not a float, got {max_val!r}")
    for name, image in (("img1", img1), ("img2", img2)):
        if image.dim() != shape.count(",") + 1:
            raise ValueError(f"Invalid {name} shape: expected {shape}, got {list(image.shape)}")
    if img1.shape != img2.shape:
        raise ValueError(
            f"img1 and img2 shapes must be the same: got {list(img1.shape)} and {list(img2.shape)}"
        )
    if str(padding).lower() not in PADDINGS:
        raise ValueError(f"Invalid padding mode: expected 'same' or 'valid', got {padding!r}")
    if eps > 2e-4 * (0.01 * max_val) ** 2 * (0.03 * max_val) ** 2:
        raise missing(
            f"eps={eps:g} at max_val={max_val:g}, more than 2e-4 of SSIM where it is dark, (eps=0 is served)"
        )
    options = dict(sigma=1.5, window_size=window_size, data_range=max_val)
    return *_in_one_dtype(img1, img2), options | dict(padding=PADDINGS[str(padding).lower()])


def ssim(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    padding: str = "same",
) -> Tensor:
    """The map of SSIM of img1, img2 [B, C, H, W], mirrored at their border, or cropped for "valid"."""
    return _map(*_ssim_arguments(img1, img2, window_size, max_val, eps, padding))


def ssim_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    reduction: str = "mean",
    padding: str = "same",
) -> Tensor:
    """(1 - SSIM) / 2 of img1, img2 [B, C, H, W]: its mean, its sum, or ("none") the map."""
    return _loss(*_ssim_arguments(img1, img2, window_size, max_val, eps, padding), reduction)


def ssim3d(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    padding: str = "same",
    before_0_9: bool = False,
) -> Tensor:
    """The map of SSIM of volumes img1, img2 [B, C, D, H, W], as `ssim`.

    before_0_9: as kornia before 0.9, whose "same" repeats the voxels at the border.
    """
    return _map(*_volumes(img1, img2, window_size, max_val, eps, padding, before_0_9))


def ssim3d_loss(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float = 1.0,
    eps: float = 1e-12,
    reduction: str = "mean",
    padding: str = "same",
    before_0_9: bool = False,
) -> Tensor:
    """(1 - SSIM) / 2 of volumes img1, img2 [B, C, D, H, W], as `ssim_loss`.

    before_0_9: 1 - SSIM as kornia before 0.9, see `ssim3d`.
    """
    volumes = _volumes(img1, img2, window_size, max_val, eps, padding, before_0_9)
    return _loss(*volumes, reduction, 1.0 if before_0_9 else 0.5)


def _volumes(
    img1: Tensor,
    img2: Tensor,
    window_size: int,
    max_val: float,
    eps: float,
    padding: str,
    before_0_9: bool,
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    x, y, options = _ssim_arguments(img1, img2, window_size, max_val, eps, padding, VOLUMES)
    if before_0_9 and options["padding"] == "reflect":
        x, y = (F.pad(t, [window_size // 2] * 6, mode="replicate") for t in (x, y))
        options["padding"] = "valid"
    return x, y, options


def _map(x: Tensor, y: Tensor, options: dict[str, Any]) -> Tensor:
    return functional.ssim(x, y, reduction="map", **options).to(x.dtype)


def _loss(x: Tensor, y: Tensor, options: dict[str, Any], reduction: str, weight: float = 0.5) -> Tensor:
    if reduction == "mean":
        return (weight * _SSIMLoss(**options)(x, y)).to(x.dtype)
    if reduction not in ("sum", "none"):
        raise NotImplementedError(f"Invalid reduction: expected 'mean', 'sum' or 'none', got {reduction!r}")
    loss = weight * _SSIMLoss(reduction="map", **options)(x, y)
    return (loss.sum() if reduction == "sum" else loss).to(x.dtype)


class SSIM(Module):
    """The module of `ssim`: a map of similarities."""

    def __init__(
        self, window_size: int, max_val: float = 1.0, eps: float = 1e-12, padding: str = "same"
    ) -> None:
        super().__init__()
        self.window_size, self.max_val, self.eps, self.padding = window_size, max_val, eps, padding

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        return ssim(img1, img2, self.window_size, self.max_val, self.eps, self.padding)


class SSIMLoss(Module):
    """The module of `ssim_loss`."""

    def __init__(
        self,
        window_size: int,
        max_val: float = 1.0,
        eps: float = 1e-12,
        reduction: str = "mean",
        padding: str = "same",
    ) -> None:
        super().__init__()
        self.window_size, self.max_val, self.eps = window_size, max_val, eps
        self.reduction, self.padding = reduction, padding

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        options = (self.window_size, self.max_val, self.eps, self.reduction, self.padding)
        return ssim_loss(img1, img2, *options)


class SSIM3D(SSIM):
    """The module of `ssim3d`: a map of similarities of volumes."""

    def __init__(
        self,
        window_size: int,
        max_val: float = 1.0,
        eps: float = 1e-12,
        padding: str = "same",
        before_0_9: bool = False,
    ) -> None:
        super().__init__(window_size, max_val, eps, padding)
        self.before_0_9 = before_0_9

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        options = (self.window_size, self.max_val, self.eps, self.padding, self.before_0_9)
        return ssim3d(img1, img2, *options)


class SSIM3DLoss(SSIMLoss):
    """The module of `ssim3d_loss`."""

    def __init__(
        self,
        window_size: int,
        max_val: float = 1.0,
        eps: float = 1e-12,
        reduction: str = "mean",
        padding: str = "same",
        before_0_9: bool = False,
    ) -> None:
        super().__init__(window_size, max_val, eps, reduction, padding)
        self.before_0_9 = before_0_9

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        options = (self.window_size, self.max_val, self.eps, self.reduction, self.padding)
        return ssim3d_loss(img1, img2, *options, self.before_0_9)


class MS_SSIMLoss(Module):
    """compensation * (alpha * (1 - MS-SSIM) + (1 - alpha) * G * l1 / data_range), of [B, C, H, W].

    The mean or the sum of its map [B, H, W], which "none" gives. One batch may be 1 image, which is then
    compared with all of the other. The masks in a checkpoint of kornia before 0.9 are not looked at.

    before_0_9  the value of kornia before 0.9, to go on with what was trained with it; 1 or 3 channels. Three
                windows of each scale are dealt out to the channels in order, so that the first of three gets
                the small scales, all cs are multiplied, and l of the last channel is cubed.
    """

    def __init__(
        self,
        sigmas: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0),
        data_range: float = 1.0,
        K: tuple[float, float] = (0.01, 0.03),
        alpha: float = 0.025,
        compensation: float = 200.0,
        reduction: str = "mean",
        before_0_9: bool = False,
    ) -> None:
        super().__init__()
        if sigmas[-1] != max(sigmas):
            raise missing(f"sigmas={sigmas!r}, of which the last is not the largest,")
        if not 4 * sigmas[-1] + 1 <= MAX_TAPS:
            raise ValueError(
                f"sigmas: expected a window, of 4 sigma + 1, of at most {MAX_TAPS} taps, got {sigmas!r}"
            )
        if int(4 * sigmas[-1] + 1) % 2 == 0:
            raise missing(f"sigmas={sigmas!r}, whose window has an even number of taps,")
        self.alpha, self.compensation, self.reduction = alpha, compensation, reduction
        self.sigmas, self.before_0_9 = list(sigmas), before_0_9
        self._options: dict[str, Any] = dict(window_size=int(4 * sigmas[-1] + 1), padding="zeros")
        self._options |= dict(data_range=data_range, k1=K[0], k2=K[1], reduction="map")

    def _load_from_state_dict(self, state_dict: Mapping, prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        unexpected = rest[3]
        if prefix + "_g_masks" in unexpected:
            unexpected.remove(prefix + "_g_masks")

    def forward(self, img1: Tensor, img2: Tensor) -> Tensor:
        x, y = _batches(img1, img2)
        mix = self._map_before_0_9 if self.before_0_9 else self._map
        loss = self.compensation * mix(x, y)
        if self.reduction not in ("mean", "sum", "none"):
            raise NotImplementedError(
                f"Invalid reduction mode: expected 'mean', 'sum' or 'none', got {self.reduction!r}"
            )
        return (loss if self.reduction == "none" else getattr(loss, self.reduction)()).to(x.dtype)

    def _map(self, x: Tensor, y: Tensor) -> Tensor:
        return MixLoss(self.alpha, 1.0, sigmas=self.sigmas, **self._options)(x, y).mean(1)

    def _map_before_0_9(self, x: Tensor, y: Tensor) -> Tensor:
        channels, copies = x.shape[1], [sigma for sigma in self.sigmas for _ in range(3)]
        if channels not in (1, 3):
            raise missing(f"before_0_9 of {channels} channels")
        share = len(copies) // channels
        cs = [
            functional.ms_ssim_gaussian(
                x[:, c : c + 1],
                y[:, c : c + 1],
                sigmas=copies[c * share : (c + 1) * share],
                **self._options | NO_LUMINANCE,
            )
            for c in range(channels)
        ]
        last = dict(sigma=self.sigmas[-1], **self._options | NO_CONTRAST)
        luminance = functional.ssim(x[:, -1:], y[:, -1:], **last)
        similarity = luminance**3 * torch.cat(cs, 1).prod(1, keepdim=True)
        l1 = MixLoss(0.0, 1.0, sigmas=self.sigmas[-1:], **self._options)(x, y)
        return self.alpha * (1 - similarity).squeeze(1) + (1 - self.alpha) * l1.mean(1)


def _batches(img1: Tensor, img2: Tensor) -> tuple[Tensor, Tensor]:
    for name, image in (("Input", img1), ("Output", img2)):
        if not isinstance(image, Tensor):
            raise TypeError(f"{name} type is not a torch.Tensor. Got {type(image).__name__}")
    for name, image in (("img1", img1), ("img2", img2)):
        if image.dim() != 4:
            raise ValueError(f"Invalid {name} shape: expected [B, C, H, W], got {list(image.shape)}")
    batches = len(img1), len(img2)
    if img1.shape[1:] != img2.shape[1:] or (batches[0] != batches[1] and 1 not in batches):
        raise ValueError(
            "Input and target must have the same shape, but for a batch of 1: "
            f"got {list(img1.shape)} and {list(img2.shape)}"
        )
    return _in_one_dtype(*torch.broadcast_tensors(img1, img2))
