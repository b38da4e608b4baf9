"""fastMRI: the arguments and the number of fastmri.losses.SSIMLoss; each image has its own data range."""

from torch import Tensor, nn

import ssimloss


class SSIMLoss(nn.Module):
    def __init__(self, win_size: int = 7, k1: float = 0.01, k2: float = 0.03):
        super().__init__()
        options = dict(window="uniform", window_size=win_size, sample_covariance=True, k1=k1, k2=k2)
        self.mean = ssimloss.SSIMLoss(**options)
        self.map = ssimloss.SSIMLoss(reduction="map", **options)

    def forward(self, X: Tensor, Y: Tensor, data_range: Tensor, reduced: bool = True) -> Tensor:
        """X, Y [N, 1, H, W], data_range [N]: SSIM under a range is that of the images in units of it."""
        unit = data_range[:, None, None, None]
        return (self.mean if reduced else self.map)(X / unit, Y / unit)
