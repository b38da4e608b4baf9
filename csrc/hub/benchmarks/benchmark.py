"""`kernels benchmark`: value and gradient, beside plain torch, which is what is right."""

import torch
from kernels.benchmark import Benchmark


class Loss(Benchmark):
    seed = 0

    def setup(self):
        self.x = torch.rand(16, 3, 128, 128, device=self.device, requires_grad=True)
        self.y = torch.rand(16, 3, 128, 128, device=self.device)

    def gradient(self, loss):
        """Times the number of pixels, or it would be too small for the runner's tolerance."""
        return torch.autograd.grad(loss * self.x.numel(), self.x)[0]

    def benchmark_ssim(self):
        self.out = self.gradient(self.kernel.SSIMLoss()(self.x, self.y))

    def verify_ssim(self):
        return self.gradient(1 - self.kernel.reference.ssim(self.x, self.y))

    def benchmark_mix(self):
        self.out = self.gradient(self.kernel.MixLoss()(self.x, self.y))

    def verify_mix(self):
        return self.gradient(self.kernel.reference.mix_loss(self.x, self.y))
