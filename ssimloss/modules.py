"""Losses: 0 for identical images, lower is better. Shapes, options, errors: see ssimloss.functional."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .functional import NO_SCRIPT
from .images import loss_of
from .options import (
    OneWindow,
    Options,
    fraction,
    l1_options,
    multiscale_options,
    positive,
    ssim_options,
)
from .parts import loss_and_details

__all__ = ["L1Loss", "L1SSIMLoss", "MSSSIMLoss", "MixLoss", "SSIMLoss"]


class _Loss(nn.Module):
    """Checked options, applied to x (restored) and y (truth)."""

    _similarity = "ssim"  # what it is called among the parts
    _l1_range: float | None = None  # what l1 is where x - y is the data range; None: there is no l1

    def __init__(self, options: Options | OneWindow, **own: float | str):
        super().__init__()
        self.options = options.shown if isinstance(options, OneWindow) else options
        self._of_any_rank = options
        self._own = own  # the module's own arguments, which the options hold in another form

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        *,
        mask: Tensor | None = None,
        data_range: Tensor | None = None,
        return_parts: bool = False,
        return_map: bool = False,
    ) -> Tensor | tuple:
        """The loss of x (restored) and y (truth): see ssimloss.functional for their shapes.

        mask          weights of the pixels in [0, 1]: see ssimloss.functional.
        data_range    [] or [N], in the place of the module's own: see ssimloss.functional. Not of L1Loss.
        return_parts  gives (loss, parts): a dict of the terms, unweighted, in the shape of the loss: the
                      similarity, "ssim", or "ms_ssim" of MSSSIMLoss and MixLoss; "l1" of L1SSIMLoss and
                      MixLoss, as it stands in their formulas; "cs" of SSIMLoss: SSIM without its luminance l.
        return_map    gives (loss, map): what reduction="map" gives. With both (loss, parts, map). The dyadic
                      form has no map.

        Parts and map are detached: gradients flow through the loss alone. They come out of the pass that
        makes the loss, but cs, an l1 of weight 0, parts of the dyadic form or of reduction="map", on CUDA
        the map, all under a mask or padding "normalized", those of L1SSIMLoss with a range for each image,
        and what plain torch computes: these take a pass each, without a gradient. L1Loss has neither.
        """
        if not (data_range is None or isinstance(data_range, Tensor)):
            raise TypeError(
                f"data_range: expected a torch.Tensor or None, got {data_range!r}; a number is given to the "
                f"constructor, {type(self).__name__}(data_range=...)"
            )
        if not (return_parts or return_map):
            return loss_of(x, y, self._of_any_rank, mask, data_range)
        asked: dict[str, Any] = dict(similarity=self._similarity, l1_range=self._l1_range)
        asked |= dict(parts=return_parts, map=return_map)
        return loss_and_details(x, y, self._of_any_rank, mask, data_range, **asked)

    def __prepare_scriptable__(self) -> None:
        raise RuntimeError(NO_SCRIPT)

    def extra_repr(self) -> str:
        hidden = {"ssim_weight", "l1_weight", "l1_windowed", "inverse_ranges", "mask"}
        shown = {k: v for k, v in self.options._asdict().items() if k not in hidden}
        return ", ".join(f"{name}={value!r}" for name, value in (self._own | shown | self._own).items())


class L1Loss(_Loss):
    """abs(x - y), in the images' own units: torch.nn.L1Loss, with value and gradient in one pass.

    reduction  "mean": a scalar; "none": one value an image, [N], a scalar for [C, H, W]; "map": one value a
               pixel, [N, C, H, W].
    data_range what 255 of a uint8 y is worth, as in the other losses; such a y needs it, nothing else does.

    Shapes and errors: see ssimloss.functional. x and y must have the same shape. Where they are equal the
    gradient is 0, where one is NaN it is NaN (torch's is 0).
    """

    def __init__(self, *, reduction: str = "mean", data_range: float | None = None):
        super().__init__(l1_options(reduction, 1.0 if data_range is None else data_range))
        self.data_range = data_range

    def forward(  # type: ignore[override]  # it has no range
        self, x: Tensor, y: Tensor, *, mask: Tensor | None = None
    ) -> Tensor:
        if self.data_range is None and isinstance(y, Tensor) and y.dtype == torch.uint8:
            raise TypeError("y: expected the dtype of x, got torch.uint8, which takes L1Loss(data_range=...)")
        return loss_of(x, y, self.options, mask)

    def extra_repr(self) -> str:
        ranged = "" if self.data_range is None else f", data_range={self.data_range!r}"
        return f"reduction={self.options.reduction!r}{ranged}"


def _uniform(window: str, sample_covariance: bool, k2: float) -> dict[str, float | str]:
    """The arguments of a uniform window."""
    if window == "gaussian":
        return {}
    return dict(window=window, sample_covariance=sample_covariance, k2=k2)


class SSIMLoss(_Loss):
    """1 - SSIM: see ssimloss.ssim. Shapes, options and errors: see ssimloss.functional."""

    def __init__(
        self,
        *,
        data_range: float = 1.0,
        window: str = "gaussian",
        sigma: float | Sequence[float] | None = None,
        window_size: int | Sequence[int] | None = None,
        sample_covariance: bool = False,
        k1: float = 0.01,
        k2: float = 0.03,
        padding: str = "valid",
        reduction: str = "mean",
    ):
        options = ssim_options(
            window=window,
            sigma=sigma,
            window_size=window_size,
            sample_covariance=sample_covariance,
            data_range=data_range,
            k1=k1,
            k2=k2,
            padding=padding,
            reduction=reduction,
        )
        super().__init__(options, **_uniform(window, sample_covariance, k2))


class L1SSIMLoss(_Loss):
    """(1 - ssim_weight) * l1 + ssim_weight * (1 - SSIM), in one pass.

    The loss of 3-D Gaussian splatting: Kerbl et al. 2023, equation 7, doi:10.1145/3592433. l1 is the
    mean of abs(x - y) over all pixels, in the images' own units, whatever the padding; in a "map"
    each position has the l1 of its own pixel. Unlike the other losses it pads with zeros by default.
    Shapes, options and errors: see ssimloss.functional.
    """

    def __init__(
        self,
        ssim_weight: float = 0.2,
        *,
        data_range: float = 1.0,
        window: str = "gaussian",
        sigma: float | Sequence[float] | None = None,
        window_size: int | Sequence[int] | None = None,
        sample_covariance: bool = False,
        k1: float = 0.01,
        k2: float = 0.03,
        padding: str = "zeros",
        reduction: str = "mean",
    ):
        weight = fraction("ssim_weight", ssim_weight)
        options = ssim_options(
            window=window,
            sigma=sigma,
            window_size=window_size,
            sample_covariance=sample_covariance,
            data_range=data_range,
            k1=k1,
            k2=k2,
            padding=padding,
            reduction=reduction,
            ssim_weight=weight,
            l1_weight=(1 - weight) * positive("data_range", data_range),
            l1_windowed=False,
        )
        super().__init__(options, ssim_weight=weight, **_uniform(window, sample_covariance, k2))
        self._l1_range = self.options.data_range


class MSSSIMLoss(_Loss):
    """1 - MS-SSIM.

    multiscale  "gaussian": see ssimloss.ms_ssim_gaussian (sigmas); "dyadic": see ssimloss.ms_ssim
                (sigma, weights, halving, negative). None means the default, which is "continue" for
                negative: with "clamp" nothing is learned where a level's mean is negative. An option of
                the other form is refused.

    Shapes, the other options and errors: see ssimloss.functional.
    """

    def __init__(
        self,
        multiscale: str = "gaussian",
        *,
        data_range: float = 1.0,
        sigmas: Sequence[float] | None = None,
        sigma: float | None = None,
        weights: Sequence[float] | None = None,
        halving: str | None = None,
        negative: str | None = None,
        window_size: int | None = None,
        k1: float = 0.01,
        k2: float = 0.03,
        padding: str = "valid",
        reduction: str = "mean",
    ):
        options = multiscale_options(
            multiscale,
            sigmas,
            sigma,
            weights,
            halving,
            negative,
            window_size,
            padding,
            data_range,
            k1,
            k2,
            reduction,
        )
        super().__init__(options, multiscale=multiscale)
        self._similarity = "ms_ssim"


class MixLoss(_Loss):
    """alpha * (1 - MS-SSIM) + (1 - alpha) * G_sigma_M * l1.

    Zhao et al. 2017, equation 14, doi:10.1109/TCI.2016.2644865. The l1 term is blurred by the window
    of the largest sigma, with the same borders ("dyadic": by sigma, at full resolution), and measured
    in units in which the data range is l1_range.

    alpha, l1_range  the two only mean something together. The paper's alpha = 0.84 balances the terms
                     when l1 is in 0..255 (l1_range 255, the default, which equals alpha = 0.021 with
                     l1_range 1); the authors' released layer has alpha = 0.025 with l1_range 1: nearly the
                     same loss, 40 times smaller and, like its gradient, about as large as l1.
    window_size      31 on 31x31 patches with padding "valid" is the paper's training loss.
    multiscale, sigmas, sigma, weights, halving, negative  as in MSSSIMLoss.

    Shapes, the other options and errors: see ssimloss.functional. The default windows need 57x57 pixels.
    """

    def __init__(
        self,
        alpha: float = 0.84,
        l1_range: float = 255.0,
        multiscale: str = "gaussian",
        *,
        data_range: float = 1.0,
        sigmas: Sequence[float] | None = None,
        sigma: float | None = None,
        weights: Sequence[float] | None = None,
        halving: str | None = None,
        negative: str | None = None,
        window_size: int | None = None,
        k1: float = 0.01,
        k2: float = 0.03,
        padding: str = "valid",
        reduction: str = "mean",
    ):
        alpha, l1_range = fraction("alpha", alpha), positive("l1_range", l1_range)
        options = multiscale_options(
            multiscale,
            sigmas,
            sigma,
            weights,
            halving,
            negative,
            window_size,
            padding,
            data_range,
            k1,
            k2,
            reduction,
            ssim_weight=alpha,
            l1_weight=(1 - alpha) * l1_range,
        )
        super().__init__(options, alpha=alpha, l1_range=l1_range, multiscale=multiscale)
        self._similarity, self._l1_range = "ms_ssim", l1_range
