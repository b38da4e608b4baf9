"""Joint denoising and demosaicking: Zhao et al., IEEE TCI 2017, section IV.A.

    python examples/denoise_demosaic.py --data ~/Pictures --steps 20000

Writes runs/denoise_demosaic, as jpeg_deblocking.py its folder.
"""

import sys

from restoration.degrade import NoisyBayer
from restoration.losses import LOSSES
from restoration.run import main, parser
from restoration.task import Task

TASK = Task(
    name="denoise_demosaic",
    title="Denoising and demosaicking",
    degradation=NoisyBayer(),
    # l2 and Mix are best at 1e-3 after 800 steps; within 4000 l2's loss exploded there.
    rates=dict.fromkeys(LOSSES, 5e-4),
    losses=tuple(LOSSES),
)

if __name__ == "__main__":
    sys.exit(main(TASK.title, [TASK], parser([TASK], TASK.title, TASK.name).parse_args()))
