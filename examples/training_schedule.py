"""A change of loss half-way through the training: Zhao et al., IEEE TCI 2017, section V.

    python examples/training_schedule.py --data ~/Pictures --steps 20000

Every network has --steps in all and the same learning rates, so that a gain is not one of more
training. Writes runs/training_schedule, as jpeg_deblocking.py its folder.
"""

import sys
from dataclasses import replace

import denoise_demosaic
from restoration.losses import SCHEDULES
from restoration.run import main, parser

TASK = replace(
    denoise_demosaic.TASK,
    name="training_schedule",
    title="Training schedules",
    losses=("l2", "l1", "mix", *SCHEDULES),
    default=("l2", "l1", "mix", *SCHEDULES),
)

if __name__ == "__main__":
    sys.exit(main(TASK.title, [TASK], parser([TASK], TASK.title, TASK.name).parse_args()))
