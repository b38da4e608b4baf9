"""What a loss is made of, for logs and heuristics: its terms and its map. None of it has a gradient."""

import torch
from torch import Tensor

from .images import loss_of, similarity_of
from .options import Dyadic, OneWindow, Options

NO_LUMINANCE = 1e8  # a k1 beside which means are nothing: l is 1, in float64 as well, and SSIM is cs


def parts_of(
    x: Tensor,
    y: Tensor,
    options: Options | OneWindow,
    mask: Tensor | None,
    data_range: Tensor | None,
    *,
    similarity: str,
    l1_range: float | None,
) -> dict[str, Tensor]:
    """The similarity under its name; l1, where the data range is l1_range; of SSIM without an l1 its cs."""
    x, y = x.detach(), y.detach()
    with torch.no_grad():
        alone = _replaced(options, ssim_weight=1.0, l1_weight=0.0)
        parts = {similarity: similarity_of(x, y, alone, mask, data_range)}
        if l1_range is not None:
            l1 = _replaced(options, ssim_weight=0.0, l1_weight=l1_range)
            parts["l1"] = loss_of(x, y, l1, mask, data_range)
        elif isinstance(options, OneWindow):
            no_luminance = _replaced(alone, k1=NO_LUMINANCE)
            parts["cs"] = similarity_of(x, y, no_luminance, mask, data_range)
    return parts


def map_of(
    x: Tensor, y: Tensor, options: Options | OneWindow, mask: Tensor | None, data_range: Tensor | None
) -> Tensor:
    """What reduction="map" gives."""
    with torch.no_grad():
        return loss_of(x.detach(), y.detach(), _replaced(options, reduction="map"), mask, data_range)


def check_map(options: Options) -> None:
    if isinstance(options, Dyadic):
        raise ValueError(
            "return_map: expected False for the dyadic form, whose levels have different sizes "
            "(multiscale='gaussian' has maps), got True"
        )
    if options.reduction == "map":
        raise ValueError("return_map: expected False for reduction='map', as that is the map, got True")


def _replaced(options: Options | OneWindow, **fields: float | str) -> Options | OneWindow:
    if not isinstance(options, OneWindow):
        return options._replace(**fields)  # type: ignore[arg-type]
    images = options.images and options.images._replace(**fields)  # type: ignore[arg-type]
    return OneWindow(images, options.volumes._replace(**fields))  # type: ignore[arg-type]
