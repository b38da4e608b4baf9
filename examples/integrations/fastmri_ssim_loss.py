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
        """X, Y [N, 1, H, W], data_range [N]."""
        return (self.mean if reduced else self.map)(X, Y, data_range=data_range)
