"""What a loss leaves in smooth regions: noise beside edges (a halo), splotches in flat areas.

The paper shows both in pictures (section V); no metric of its tables looks at one region. So this is
our own measure of what it says there, on the luma of the error, in levels of 0..255.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .metrics import AT_EDGES, IN_FLATS, YIQ, gradient_magnitude

EDGE, SMOOTH = 30.0, 6.0  # levels a pixel: gradients of the truth above and below
REACH = 15  # pixels: half of the losses' window
FEWEST = 500  # pixels in a region, or it tells nothing


@torch.inference_mode()
def residuals(x: Tensor, y: Tensor) -> dict[str, float]:
    """Of a restored picture x and the truth y, both [3, H, W], uint8; a region that y lacks is left out.

    AT_EDGES: root mean square of the fine error (less its 5x5 mean) in smooth pixels within REACH of an
    edge. IN_FLATS: that of the coarse error (its 5x5 mean less its 31x31 mean) in smooth pixels further
    from any edge.
    """
    luma = torch.tensor(YIQ[0])
    x, y = (torch.einsum("c,chw->hw", luma, picture.float())[None] for picture in (x, y))
    framed = F.pad(y, [1] * 4, "replicate")  # the picture's border is no edge
    gradient = gradient_magnitude(framed, (3 / 16, 10 / 16, 3 / 16))[:, 1:-1, 1:-1]
    smooth = greatest(gradient, 2) < SMOOTH
    beside = greatest((gradient > EDGE).float(), REACH) > 0
    fine, coarse = mean(x - y, 2), mean(x - y, REACH)
    found = {AT_EDGES: (x - y - fine)[smooth & beside], IN_FLATS: (fine - coarse)[smooth & ~beside]}
    return {
        name: error.square().mean().sqrt().item() for name, error in found.items() if error.numel() >= FEWEST
    }


def greatest(plane: Tensor, radius: int) -> Tensor:
    """Of the square around each pixel; by rows, then by columns, for speed."""
    side = 2 * radius + 1
    return F.max_pool2d(F.max_pool2d(plane, (1, side), 1, (0, radius)), (side, 1), 1, (radius, 0))


def mean(plane: Tensor, radius: int) -> Tensor:
    """Of the square around each pixel, as far as it lies in the picture."""
    for side, padding in (((1, 2 * radius + 1), (0, radius)), ((2 * radius + 1, 1), (radius, 0))):
        plane = F.avg_pool2d(plane, side, 1, padding, count_include_pad=False)
    return plane
