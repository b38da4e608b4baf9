"""How variants and metrics are written for a reader; a name that is not listed stays as it is."""

from ..metrics import LOWER_IS_BETTER

VARIANTS = {
    "noisy": "Noisy", "jpeg": "JPEG", "bilinear": "Bilinear", "BM3D": "BM3D", "l2": "l2", "l1": "l1",
    "ssim5": "SSIM5", "ssim9": "SSIM9", "ms_ssim": "MS-SSIM", "mix": "Mix",
    "mix_l1_range1": "Mix, l1 range 1", "mix_released": "Mix, released", "l2_released": "l2, released",
    "ms_ssim+l2": "MS-SSIM + l2",
    "l2_then_l1": "l2, then l1", "l1_then_l2": "l1, then l2", "truth": "Ground truth",
}  # fmt: skip
METRICS = {"1000*l2": "1000·l2", "1000*l1": "1000·l1", "PSNR": "PSNR, dB"}
VERDICTS = {"holds": "yes", "does not hold": "no", "cannot tell": "open"}  # their CSS classes

# A family of losses shares its colour; dashes tell its members apart. Okabe and Ito's palette is
# distinguishable with every common colour blindness.
LINES = {
    "l2": ("blue", ""), "l2_released": ("blue", "2 3"), "l1": ("red", ""),
    "ssim5": ("orange", ""), "ssim9": ("sky", ""),
    "ms_ssim": ("purple", ""), "ms_ssim+l2": ("purple", "6 3"), "mix": ("green", ""),
    "mix_l1_range1": ("green", "6 3"), "mix_released": ("green", "2 3"),
    "l2_then_l1": ("blue", "6 3"), "l1_then_l2": ("red", "6 3"),
}  # fmt: skip


def variant(name: str) -> str:
    return VARIANTS.get(name, name)


def metric(name: str) -> str:
    return METRICS.get(name, name)


def better(name: str) -> str:
    return "lower is better" if name in LOWER_IS_BETTER else "higher is better"
