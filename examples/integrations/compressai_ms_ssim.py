"""CompressAI: `import compressai_ms_ssim` before RateDistortionLoss(metric="ms-ssim") is made.

The numbers are the same, clamp included. To train from scratch, where the clamp's gradient is 0,
`functools.partial(ssimloss.ms_ssim, halving="zeros", negative="continue")` may take its place here.
"""

from compressai.losses import rate_distortion

from ssimloss.compat.pytorch_msssim import ms_ssim

rate_distortion.ms_ssim = ms_ssim
