"""What the hub's builder runs, where kernels are found by LOCAL_KERNELS."""

import kernels
import pytest
import torch

ssimloss = kernels.get_kernel("ssimloss/ssimloss", version=0, trust_remote_code=True)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.kernels_ci
@pytest.mark.parametrize("device", DEVICES)
def test_value_and_gradient(device: str) -> None:
    x, y = torch.rand(2, 2, 3, 64, 70, device=device, dtype=torch.float64)
    x.requires_grad_()
    for loss, spec in (
        (ssimloss.SSIMLoss(), lambda x, y: 1 - ssimloss.reference.ssim(x, y)),
        (ssimloss.MixLoss(), ssimloss.reference.mix_loss),
    ):
        value, expected = loss(x, y), spec(x, y)
        torch.testing.assert_close(value, expected)
        gradients = (torch.autograd.grad(v, x)[0] for v in (value, expected))
        torch.testing.assert_close(*gradients)
