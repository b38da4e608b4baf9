"""nerfstudio: `import nerfstudio_splatfacto` before the model is made, as in a method's configuration.

splatfacto.py makes SSIM(data_range=1.0, size_average=True, channel=3): now ours, of the same number.
"""

from nerfstudio.models import splatfacto

from ssimloss.compat.pytorch_msssim import SSIM

splatfacto.SSIM = SSIM
