"""JPEG de-blocking with l2, l1 and Mix: Zhao et al., IEEE TCI 2017, section IV.B.

    python examples/jpeg_deblocking.py              # on the embedded photographs: minutes, 2 cores
    python examples/jpeg_deblocking.py --data ~/Pictures --steps 20000

The folder runs/jpeg_deblocking then holds table.md, table.csv, checkpoints, the restored pictures
and index.html, which shows them. Needs: pip install 'ssimloss[examples]'
"""

import io
import sys

from PIL import Image
from restoration.data import PATCH, from_image, to_image
from restoration.network import Network
from restoration.task import Task, run
from torch import Tensor, nn

from ssimloss import MixLoss


def jpeg(picture: Tensor) -> Tensor:
    """A picture [3, H, W] (uint8) after JPEG of quality 25, colours at full resolution.

    The paper does not state the chroma subsampling; 4:4:4 sits nearer its table than 4:2:0.
    """
    file = io.BytesIO()
    to_image(picture).save(file, "JPEG", quality=25, subsampling="4:4:4")
    return from_image(Image.open(file))


TASK = Task(
    name="jpeg_deblocking",
    title="JPEG de-blocking",
    input_name="jpeg",
    degrade=jpeg,
    network=Network,
    losses={
        "l2": nn.MSELoss(),
        "l1": nn.L1Loss(),
        "mix": MixLoss(window_size=PATCH),  # as wide as the patch: exactly the paper's loss
    },
)

if __name__ == "__main__":
    sys.exit(run(TASK))
