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
    rates=dict.fromkeys(LOSSES, 5e-4) | dict.fromkeys(("l2", "mix", "mix_released", "ms_ssim+l2"), 1e-3),
    losses=tuple(LOSSES),
)

if __name__ == "__main__":
    sys.exit(main(TASK.title, [TASK], parser([TASK], TASK.title, TASK.name).parse_args()))
