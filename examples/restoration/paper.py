"""The cells of the paper's tables (Zhao et al., IEEE TCI 2017, tables I to IV), to stand beside ours."""

from collections.abc import Sequence

from .metrics import DIGITS
from .stats import Cell

# {task: {variant: its nine metrics, in the order of DIGITS}}
CELLS = {
    "denoise_demosaic": {
        "noisy": (1.65, 28.24, 27.36, 0.8075, 0.8965, 0.8673, 0.1229, 0.9439, 0.9381),
        "BM3D": (0.45, 34.05, 14.14, 0.9479, 0.9719, 0.9597, 0.0441, 0.9744, 0.9737),
        "l2": (0.56, 33.18, 15.90, 0.9346, 0.9636, 0.9473, 0.0490, 0.9716, 0.9706),
        "l1": (0.43, 34.42, 13.47, 0.9535, 0.9745, 0.9619, 0.0434, 0.9775, 0.9767),
        "ssim5": (0.58, 33.15, 15.90, 0.9500, 0.9721, 0.9587, 0.0452, 0.9764, 0.9752),
        "ssim9": (0.61, 32.98, 16.33, 0.9495, 0.9718, 0.9582, 0.0467, 0.9759, 0.9746),
        "ms_ssim": (0.55, 33.29, 15.99, 0.9536, 0.9741, 0.9617, 0.0437, 0.9782, 0.9769),
        "mix": (0.41, 34.61, 13.19, 0.9564, 0.9757, 0.9636, 0.0401, 0.9795, 0.9788),
        "l2_then_l1": (0.3939, 34.76, 12.7932, 0.9544, 0.9753, 0.9634, 0.0432, 0.9777, 0.9770),
        "l1_then_l2": (0.3896, 34.77, 12.8919, 0.9540, 0.9748, 0.9624, 0.0405, 0.9781, 0.9774),
    },
    "jpeg_deblocking": {
        "jpeg": (0.6463, 32.60, 16.5129, 0.9410, 0.9672, 0.9527, 0.0467, 0.9805, 0.9791),
        "l2": (0.6511, 32.73, 16.2633, 0.9427, 0.9692, 0.9562, 0.0427, 0.9803, 0.9790),
        "l1": (0.6027, 32.96, 16.0687, 0.9467, 0.9714, 0.9591, 0.0413, 0.9825, 0.9809),
        "ms_ssim": (1.9262, 27.66, 33.6134, 0.9364, 0.9674, 0.9550, 0.0468, 0.9789, 0.9705),
        "mix": (0.5580, 33.25, 15.5489, 0.9501, 0.9734, 0.9625, 0.0402, 0.9830, 0.9815),
    },
    "super_resolution": {
        "bilinear": (2.5697, 27.16, 28.7764, 0.8632, 0.9603, 0.9532, 0.0714, 0.9070, 0.9064),
        "l2": (1.2407, 30.66, 20.4730, 0.9274, 0.9816, 0.9868, 0.0298, 0.9600, 0.9596),
        "l1": (1.1062, 31.26, 19.0643, 0.9322, 0.9826, 0.9879, 0.0259, 0.9671, 0.9667),
        "ms_ssim": (1.3223, 30.11, 22.3968, 0.9290, 0.9817, 0.9866, 0.0316, 0.9601, 0.9597),
        "mix": (1.0990, 31.34, 18.8983, 0.9334, 0.9829, 0.9881, 0.0255, 0.9680, 0.9677),
    },
}


def beside_paper(cells: Sequence[Cell], task: str) -> str:
    """A table, metrics down, of our means and the paper's; "" for a task that the paper lacks. The paper's
    photographs are others, so what compares is the order within a row."""
    ours = {(cell.variant, cell.metric): cell.mean for cell in cells if cell.task == task}
    variants = [v for v in CELLS.get(task, ()) if any(variant == v for variant, _ in ours)]
    if not variants:
        return ""
    lines = [
        "| | " + " | ".join(f"{variant} | paper" for variant in variants) + " |",
        "|---" * (1 + 2 * len(variants)) + "|",
    ]
    for column, (metric, digits) in enumerate(DIGITS.items()):
        row = [f"{ours[v, metric]:.{digits}f} | {CELLS[task][v][column]:.{digits}f}" for v in variants]
        lines.append(f"| {metric} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"
