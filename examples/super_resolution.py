"""Super-resolution with SRCNN: Zhao et al., IEEE TCI 2017, section IV.C.

    python examples/super_resolution.py --factor 2 --sigma 3 --data ~/Pictures --steps 20000

Writes runs/super_resolution, as jpeg_deblocking.py its folder.
"""

import sys
from dataclasses import replace

from restoration.command import real, whole
from restoration.degrade import LowResolution
from restoration.losses import LOSSES
from restoration.run import main, parser
from restoration.task import Task

TASK = Task(
    name="super_resolution",
    title="Super-resolution",
    degradation=LowResolution(),
    rates=dict.fromkeys(LOSSES, 2e-3) | dict.fromkeys(("l1", "mix", "mix_released"), 1e-3),
    losses=("l2", "l1", "ms_ssim", "mix", "mix_l1_range1", "mix_released", "ms_ssim+l2"),
    network={"kernels": (9, 1, 5), "widths": (64, 32)},  # SRCNN's: a sixth of the others' cost
    also={"super_resolution_blur5": LowResolution(sigma=5)},  # do the rankings survive a wrong blur?
)

if __name__ == "__main__":
    arguments = parser([TASK], TASK.title, TASK.name)
    arguments.set_defaults(steps=7500)  # as long as the others, whose networks cost six times as much
    default = LowResolution()
    arguments.add_argument("--factor", type=whole(1, 32), default=default.factor, help="default: %(default)s")
    arguments.add_argument(
        "--sigma",
        type=real(0, 100),
        default=default.sigma,
        help="of the blur, in pixels; default: %(default)s",
    )
    options = arguments.parse_args()
    task = replace(TASK, degradation=LowResolution(options.factor, options.sigma), also={})
    sys.exit(main(task.title, [task], options))
