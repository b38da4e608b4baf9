"""JPEG de-blocking: Zhao et al., IEEE TCI 2017, section IV.B.

    python examples/jpeg_deblocking.py              # on the embedded photographs: minutes, 2 cores
    python examples/jpeg_deblocking.py --data ~/Pictures --steps 20000

The folder runs/jpeg_deblocking then holds table.md, table.csv, checkpoints, the restored pictures
and index.html, which shows them. Needs: pip install 'ssimloss[examples]'
"""

import sys

from restoration.degrade import Jpeg
from restoration.losses import LOSSES
from restoration.run import main, parser
from restoration.task import Task

TASK = Task(
    name="jpeg_deblocking",
    title="JPEG de-blocking",
    degradation=Jpeg(),
    rates=dict.fromkeys(LOSSES, 5e-4) | dict.fromkeys(("ms_ssim", "mix_l1_range1"), 2.5e-4),
    losses=("l2", "l1", "ms_ssim", "mix", "mix_l1_range1", "mix_released", "ms_ssim+l2"),
)

if __name__ == "__main__":
    sys.exit(main(TASK.title, [TASK], parser([TASK], TASK.title, TASK.name).parse_args()))
