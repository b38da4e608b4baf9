"""FireANTs: GreedyRegistration(..., loss_type="custom", custom_loss=FusedSSIMLoss()), of images."""

from torch import Tensor, nn

from ssimloss import SSIMLoss


class FusedSSIMLoss(nn.Module):
    """1 - SSIM of [B, C, H, W]. Arguments: those of ssimloss.SSIMLoss; zeros lie around the images."""

    def __init__(self, padding: str = "zeros", **options):
        super().__init__()
        self.loss = SSIMLoss(padding=padding, **options)

    def forward(self, moved: Tensor, fixed: Tensor, *_, **__) -> Tensor:
        if moved.dim() == 5:
            raise NotImplementedError(f"moved: expected [B, C, H, W], got the volume {list(moved.shape)}")
        return self.loss(moved, fixed)

    def get_image_padding(self) -> int:
        """How far a window reaches: what the parts of a distributed registration share."""
        return self.loss.options.largest_window // 2
