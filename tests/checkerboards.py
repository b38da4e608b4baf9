"""The three images that MATLAB's MS-SSIM is published of, by formula: 180 rows, 240 columns, 8 x 8 cells.

TensorFlow's image_ops_test.py reads them from checkerboard1.png to checkerboard3.png, and asserts MATLAB's
values. They are one drawing of cells reduced by a cubic filter (black and white, and in colours) and by a
wider one (the colours again): so the edge between two cells is a step response, the same at every edge.
"""

import numpy as np
import torch
from torch import Tensor

# MATLAB's of images (1, 2), (1, 3) and (2, 3), the channels averaged.
MATLAB = {(0, 1): 0.091016, (0, 2): 0.091025, (1, 2): 0.999567}

# The cells, row by row; the rows below the fifth repeat the third to the fifth.
ROWS = ("rmycldyc", "gdfrmofr", "ocvwyepw", "ypekcvyk", "lgodrgod")
COLOURS = dict(
    r=(247, 16, 16), m=(245, 2, 254), y=(251, 254, 2), c=(2, 227, 254), l=(174, 242, 66), d=(2, 20, 254),
    g=(2, 254, 20), f=(33, 156, 20), o=(254, 97, 2), v=(90, 93, 229), w=(250, 212, 129), e=(20, 86, 38),
    p=(119, 7, 120), k=(250, 129, 195),
)  # fmt: skip
# How much of the cell behind an edge there is at pixels whose centre lies so far before it; behind, the rest.
CUBIC = {-1.5: -0.00778, -1.0: -0.01645, -0.5: 0.11416}
WIDER = {-2.5: 0.004235, -2.0: 0.017707, -1.5: -0.016334, -1.0: -0.077851, -0.5: 0.060128}
# On an edge the two are averaged, and halves are rounded up; but down in these, by the cells' values.
DOWN_CUBIC = {(247, 2), (245, 2), (229, 38), (251, 2), (242, 97), (86, 97), (254, 97)}
DOWN_WIDER = {(227, 16), (93, 86), (254, 119)}


def cells(colours: dict) -> np.ndarray:
    return np.array([[colours[c] for c in row] for row in (*ROWS, *ROWS[2:])], dtype=float)


def shares(size: int, response: dict[float, float]) -> np.ndarray:
    """How much each cell has of each pixel along a side, [size, 8]."""

    def behind(distance: float) -> float:
        if distance == 0:
            return 0.5
        return 1 - response.get(-distance, 0.0) if distance > 0 else response.get(distance, 0.0)

    centres, step = np.arange(size) + 0.5, size / 8
    edges = [np.array([behind(at - step * i) for at in centres]) for i in range(1, 8)]
    reached = np.stack([np.ones(size), *edges, np.zeros(size)], -1)
    return reached[:, :-1] - reached[:, 1:]


def drawn(of: np.ndarray, response: dict[float, float], down: set) -> Tensor:
    """[1, 3, 180, 240] in [0, 1], of 256 steps; columns first, clipped in between."""
    columns = shares(180, response) @ of.transpose(1, 0, 2)  # [8 of a row, 180, 3]
    for above in range(0, 8, 2):  # edges that lie on pixels
        pairs = np.stack((of[above], of[above + 1]), -1)
        listed = np.array([[tuple(pair) in down for pair in cell] for cell in pairs])
        columns[:, int(22.5 * (above + 1))] -= 1e-6 * listed
    image = np.einsum("xc,cyk->kyx", shares(240, response), columns.clip(0, 255))
    return torch.from_numpy(np.floor(image.clip(0, 255) + 0.5 + 1e-9) / 255)[None]


def images() -> list[Tensor]:
    white, black = np.full(3, 255.0), np.zeros(3)
    chess = np.array([[white if (i + j) % 2 else black for j in range(8)] for i in range(8)])
    coloured = cells(COLOURS)
    return [
        drawn(chess, CUBIC, set()),
        drawn(coloured, CUBIC, DOWN_CUBIC),
        drawn(coloured, WIDER, DOWN_WIDER),
    ]
