"""FireANTs: GreedyRegistration(..., loss_type="custom", custom_loss=FusedSSIMLoss())."""

from torch import Tensor, nn

from ssimloss import SSIMLoss


class FusedSSIMLoss(nn.Module):
    """1 - SSIM of [B, C, H, W] or [B, C, D, H, W], with zeros around; arguments of ssimloss.SSIMLoss."""

    def __init__(self, padding: str = "zeros", **options):
        super().__init__()
        self.loss = SSIMLoss(padding=padding, **options)

    def forward(self, moved: Tensor, fixed: Tensor, *_, **__) -> Tensor:
        return self.loss(moved, fixed)

    def get_image_padding(self) -> int:
        """How far a window reaches: what the parts of a distributed registration share."""
        return max(self.loss.options.windows) // 2
