"""The paper: its three tasks, every loss, the schedules, the tables, the claims and the page.

    python examples/reproduce.py --quick           # the embedded photographs, under 25 minutes, 2 cores
    python examples/reproduce.py --data DIR --test DIR --seeds 0 1 2     # with a GPU

Writes runs/reproduce: table.csv (means with 95 % intervals), table.md, claims.md, curves.csv,
rows.csv (every value), checkpoints, pictures, and index.html, which shows it all.
"""

import sys
from dataclasses import replace

import denoise_demosaic
import jpeg_deblocking
import super_resolution
from restoration.losses import SCHEDULES
from restoration.run import main, parser

TITLE = "Loss functions for image restoration with neural networks: a reproduction"
# The schedules restore the noisy pictures too, so their networks stand beside the others.
BAYER = replace(denoise_demosaic.TASK, losses=(*denoise_demosaic.TASK.losses, *SCHEDULES))
TASKS = [replace(task, default=task.losses) for task in (BAYER, jpeg_deblocking.TASK, super_resolution.TASK)]
FULL_STEPS, QUICK_STEPS, SMOKE_STEPS = 20000, 400, 2

if __name__ == "__main__":
    arguments = parser(TASKS, TITLE, "reproduce")
    arguments.set_defaults(steps=FULL_STEPS)
    add = arguments.add_argument
    names = [task.name for task in TASKS]
    add("--tasks", nargs="+", choices=names, default=names, help="default: all")
    add("--quick", action="store_true", help=f"{QUICK_STEPS} steps")
    add("--smoke", action="store_true", help=f"{SMOKE_STEPS} steps: does everything run?")
    options = arguments.parse_args()
    if options.quick or options.smoke:
        options.steps = SMOKE_STEPS if options.smoke else QUICK_STEPS
    sys.exit(main(TITLE, [task for task in TASKS if task.name in options.tasks], options))
