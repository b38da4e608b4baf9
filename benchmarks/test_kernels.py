"""Timings of every loss, forward and forward + backward: `pytest benchmarks/`.

One table a shape and dtype; F.l1_loss is the price that an SSIM loss competes with. For ratios that
mean something (interleaved in one run, peers beside us) see compare.py.
"""

import pytest
import torch
import torch.nn.functional as F

import ssimloss

LOSSES = {
    "F.l1_loss": F.l1_loss,
    "L1Loss": ssimloss.L1Loss(),
    "SSIMLoss": ssimloss.SSIMLoss(),
    "L1SSIMLoss": ssimloss.L1SSIMLoss(),
    "MSSSIMLoss-gaussian": ssimloss.MSSSIMLoss("gaussian"),
    "MSSSIMLoss-dyadic": ssimloss.MSSSIMLoss("dyadic"),
    "MixLoss-gaussian": ssimloss.MixLoss(),
    "MixLoss-dyadic": ssimloss.MixLoss(multiscale="dyadic"),
    "MixLoss-paper": ssimloss.MixLoss(window_size=31),
    "ssim-map": lambda x, y: ssimloss.ssim(x, y, reduction="map").mean(),
}
SHAPES = [(1, 3, 1080, 1920), (16, 3, 192, 192), (1, 3, 256, 256)]
DTYPES = [torch.float32, torch.bfloat16]
DEVICES = ["cpu", "cuda"]


@pytest.fixture
def pair(device, dtype, shape):
    if device == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        if not ssimloss.info()["cuda_architectures"]:
            pytest.skip("this build has no CUDA kernels")
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(shape, generator=generator).to(device, dtype) for _ in range(2))
    return x.requires_grad_(), y


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
class TestTimes:
    def test_forward(self, benchmark, pair, name, device, dtype, shape):
        benchmark.group = f"forward {device} {dtype} {shape}"
        x, y = pair[0].detach(), pair[1]

        def run():
            LOSSES[name](x, y)
            wait(device)

        benchmark.pedantic(run, rounds=7, warmup_rounds=2)

    def test_forward_and_backward(self, benchmark, pair, name, device, dtype, shape):
        benchmark.group = f"forward + backward {device} {dtype} {shape}"
        x, y = pair

        def run():
            x.grad = None
            LOSSES[name](x, y).backward()
            wait(device)

        benchmark.pedantic(run, rounds=7, warmup_rounds=2)
