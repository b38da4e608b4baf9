"""The paper's network: conv 9x9 to 64 channels, conv 5x5 to 64, conv 5x5 to 3, PReLU between."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn


class Network(nn.Module):
    """[N, 3, H, W] to the same; zero padding keeps the size. Super-resolution: (9, 1, 5), (64, 32).

    Where the paper is silent: the network predicts the correction to its input, and its last
    layer starts at zero. So before the first step the output IS the input, whatever the loss, and a
    few hundred steps suffice to improve on it; without this they would go into learning to copy.
    """

    def __init__(self, kernels: Sequence[int] = (9, 5, 5), widths: Sequence[int] = (64, 64)):
        super().__init__()
        layers: list[nn.Module] = []
        for kernel, (before, after) in zip(kernels, pairwise([3, *widths, 3]), strict=True):
            convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2)
            layers += [convolution, nn.PReLU(after)]
        nn.init.zeros_(convolution.weight)
        nn.init.zeros_(convolution.bias)
        self.layers = nn.Sequential(*layers[:-1])  # no PReLU at the end

    def forward(self, image: Tensor) -> Tensor:
        return image + self.layers(image)
