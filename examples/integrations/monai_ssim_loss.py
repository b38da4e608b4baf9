"""MONAI: the arguments and the number of monai.losses.SSIMLoss, for images and volumes."""

from torch import Tensor, nn

import ssimloss


class SSIMLoss(nn.Module):
    def __init__(
        self,
        spatial_dims: int,
        data_range: float = 1.0,
        kernel_type: str = "gaussian",
        win_size: int = 11,
        kernel_sigma: float = 1.5,
        k1: float = 0.01,
        k2: float = 0.03,
        reduction: str = "mean",
    ):
        super().__init__()
        if spatial_dims not in (2, 3):
            raise NotImplementedError(f"spatial_dims: expected 2 or 3, got {spatial_dims}")
        window = {} if kernel_type == "uniform" else {"sigma": kernel_sigma}
        window |= {"window": str(kernel_type), "window_size": win_size}
        self.loss = ssimloss.SSIMLoss(data_range=data_range, k1=k1, k2=k2, reduction="none", **window)
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """[B, C, H, W] or [B, C, D, H, W] each; "none": [B, 1]."""
        losses = self.loss(input, target)[:, None]
        return losses if self.reduction == "none" else getattr(losses, self.reduction)()
