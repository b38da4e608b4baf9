"""What a loss is made of, for logs and heuristics: its terms and its map. None of it has a gradient."""

import torch
from torch import Tensor

from .images import in_one_launch, loss_of, similarity_of
from .options import Dyadic, OneWindow, Options

NO_LUMINANCE = 1e8  # a k1 beside which means are nothing: l is 1, in float64 as well, and SSIM is cs


def loss_and_details(
    x: Tensor,
    y: Tensor,
    options: Options | OneWindow,
    mask: Tensor | None,
    data_range: Tensor | None,
    *,
    parts: bool,
    map: bool,
    similarity: str,
    l1_range: float | None,
) -> tuple:
    """(loss, parts, map), without what is not asked for.

    similarity: its name among the parts. l1_range: what l1 is where x - y is the data range; None: there is
    no l1.
    From the launch of the loss, if there is one that gives them; else each by one of its own.
    """
    given = mask, data_range
    shown = options.shown if isinstance(options, OneWindow) else options
    if map:
        check_map(shown)
    found = in_one_launch(x, y, options, *given, want_map=map)
    loss = loss_of(x, y, options, *given) if found is None else found[0]
    result: list[Tensor | dict[str, Tensor]] = [loss]
    x, y = x.detach(), y.detach()
    with torch.no_grad():
        if parts:
            alone = _replaced(options, ssim_weight=1.0, l1_weight=0.0)
            terms = similarity_of(x, y, alone, *given) if found is None else 1 - found[1][0]
            named = {similarity: terms}
            if l1_range is not None and found is not None and shown.l1_weight != 0:
                named["l1"] = found[1][1] * l1_range
            elif l1_range is not None:
                named["l1"] = loss_of(x, y, _replaced(options, ssim_weight=0.0, l1_weight=l1_range), *given)
            elif isinstance(options, OneWindow):
                named["cs"] = similarity_of(x, y, _replaced(alone, k1=NO_LUMINANCE), *given)
            result.append(named)
        if map:
            of_map = _replaced(options, reduction="map")
            result.append(loss_of(x, y, of_map, *given) if found is None else found[2])
    return tuple(result)


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
