"""A function of a picture, tile by tile: the memory of one tile, the result of the whole."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from tqdm import tqdm

SIDE = 512  # pixels; 64 channels of a tile take 73 MB


def receptive_radius(network: nn.Module) -> int:
    """How many pixels around its own a network of convolutions of stride 1 looks at."""
    return sum(layer.kernel_size[0] // 2 for layer in network.modules() if isinstance(layer, nn.Conv2d))


@torch.inference_mode()
def tiled(
    function: Callable[[Tensor], Tensor], picture: Tensor, *, halo: int, scale: int = 1, side: int = SIDE
) -> Tensor:
    """function(picture) for a picture [C, H, W] and a result [C', scale * H, scale * W].

    Each pixel of the result must depend on no more than `halo` pixels around its own. A tile reaches
    that far into its neighbours, and ends where the picture ends: what the function does at the
    picture's edge it does there, and nowhere else in what is kept.
    """
    _, height, width = picture.shape
    result = None
    corners = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
    # None: no bar where no terminal is.
    for top, left in tqdm(corners, unit="tile", leave=False, disable=len(corners) == 1 or None):
        bottom, right = min(top + side, height), min(left + side, width)
        above, before = max(top - halo, 0), max(left - halo, 0)
        tile = function(picture[:, above : bottom + halo, before : right + halo])
        if result is None:
            result = tile.new_empty(tile.shape[0], scale * height, scale * width)
        result[:, scale * top : scale * bottom, scale * left : scale * right] = tile[
            :,
            scale * (top - above) : scale * (bottom - above),
            scale * (left - before) : scale * (right - before),
        ]
    if result is None:
        raise ValueError(f"picture: expected at least one pixel, got {list(picture.shape)}")
    return result
