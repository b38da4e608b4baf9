"""BasicSR, traiNNer-redux, neosr: copy this file into their `losses` folder; its name must end in _loss.py.

    pixel_opt:                      # BasicSR; of traiNNer an entry of losses:, of neosr [train.mssim_opt]
      type: FusedMSSSIMLoss         # or FusedMixLoss
      loss_weight: 1.0

Options of ssimloss.MSSSIMLoss("dyadic") or ssimloss.MixLoss may follow. Patches of any size.
"""

from torch import Tensor, nn

from ssimloss import MixLoss, MSSSIMLoss

from ..utils.registry import LOSS_REGISTRY

WEIGHS_LATER = __name__.startswith("traiNNer.")  # its models multiply by loss_weight themselves


class _Weighted(nn.Module):
    def __init__(self, loss: nn.Module, loss_weight: float):
        super().__init__()
        self.loss, self.loss_weight = loss, loss_weight

    def forward(self, pred: Tensor, target: Tensor, weight: None = None, **_) -> Tensor:
        if weight is not None:
            raise NotImplementedError("weight: expected None; a mask of ssimloss is something else")
        return self.loss(pred, target) * (1 if WEIGHS_LATER else self.loss_weight)


@LOSS_REGISTRY.register()
class FusedMSSSIMLoss(_Weighted):
    def __init__(self, loss_weight: float = 1.0, padding: str = "zeros", **options):
        super().__init__(MSSSIMLoss("dyadic", padding=padding, **options), loss_weight)


@LOSS_REGISTRY.register()
class FusedMixLoss(_Weighted):
    def __init__(self, loss_weight: float = 1.0, padding: str = "zeros", **options):
        super().__init__(MixLoss(padding=padding, **options), loss_weight)
