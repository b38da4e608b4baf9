"""The three degradations of the paper, on batches [N, 3, H, W] in [0, 1], on any device."""

import io
import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Generator, Tensor

from .data import as_float, from_image, to_image, to_uint8


class Degradation(Protocol):
    random: bool  # differs with every call: training makes it anew for every patch
    margin: int  # pixels that a patch needs around it
    input: str  # the degraded picture's name in the tables
    note: str  # what was done, with what the paper leaves open

    def __call__(self, pictures: Tensor, corners: Tensor, generator: Generator) -> Tensor:
        """corners: [N, 2], row and column of each picture in its own photograph."""


@dataclass(frozen=True)
class Jpeg:
    """JPEG compression, by Pillow (libjpeg) on the CPU.

    The paper does not state the chroma subsampling; 4:4:4 sits nearer its table than 4:2:0.
    """

    quality: int = 25
    subsampling: str = "4:4:4"

    random: ClassVar[bool] = False
    margin: ClassVar[int] = 0
    input: ClassVar[str] = "jpeg"

    @property
    def note(self) -> str:
        return f"JPEG of quality {self.quality}, chroma {self.subsampling}"

    def __call__(self, pictures: Tensor, corners: Tensor, generator: Generator) -> Tensor:
        return torch.stack([self.one(picture) for picture in pictures])

    def one(self, picture: Tensor) -> Tensor:
        file = io.BytesIO()
        to_image(to_uint8(picture.cpu())).save(
            file, "JPEG", quality=self.quality, subsampling=self.subsampling
        )
        return as_float(from_image(Image.open(file))).to(picture.device)


@dataclass(frozen=True)
class NoisyBayer:
    """Foi's noise of variance a x + b on a Bayer mosaic, clipped to [0, 1]; bilinear demosaicking.

    The paper does not state the phase; here it is RGGB: red where the row and the column of the
    PHOTOGRAPH are even. So patches see all four phases, as a network that slides over a picture does.
    """

    a: float = 0.005
    b: float = 0.0001

    random: ClassVar[bool] = True
    margin: ClassVar[int] = 1  # bilinear interpolation looks one pixel around
    input: ClassVar[str] = "noisy"

    @property
    def note(self) -> str:
        return f"noise of variance {self.a} x + {self.b} on an RGGB mosaic, bilinear demosaicking"

    def __call__(self, pictures: Tensor, corners: Tensor, generator: Generator) -> Tensor:
        return demosaic(self.mosaic(pictures, corners, generator), corners)

    def mosaic(self, pictures: Tensor, corners: Tensor, generator: Generator) -> Tensor:
        """[N, 1, H, W]: one noisy colour a pixel."""
        clean = pictures.gather(1, bayer(pictures, corners))
        noise = torch.randn(clean.shape, generator=generator, device=clean.device, dtype=clean.dtype)
        return (clean + (self.a * clean + self.b).sqrt() * noise).clamp(0, 1)


def bayer(pictures: Tensor, corners: Tensor) -> Tensor:
    """[N, 1, H, W]: the channel that each pixel of an RGGB sensor sees; 0 red, 1 green, 2 blue."""
    height, width = pictures.shape[-2:]
    rows = corners[:, 0, None] + torch.arange(height, device=pictures.device)
    columns = corners[:, 1, None] + torch.arange(width, device=pictures.device)
    return (rows[:, None, :, None] % 2) + (columns[:, None, None, :] % 2)


def demosaic(mosaic: Tensor, corners: Tensor) -> Tensor:
    """[N, 1, H, W] to [N, 3, H, W]: a missing value is the mean of its nearest two or four.

    Beyond the edge the mosaic is mirrored without repeating it, which keeps its phase.
    """
    seen = F.one_hot(bayer(mosaic, corners)[:, 0], 3).movedim(-1, 1).to(mosaic.dtype)
    diagonal = mosaic.new_tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    cross = mosaic.new_tensor([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    kernel = torch.stack([diagonal, cross, diagonal])[:, None]
    return F.conv2d(F.pad(seen * mosaic, (1, 1, 1, 1), mode="reflect"), kernel, groups=3)


@dataclass(frozen=True)
class LowResolution:
    """Gaussian blur, down-sampling and bilinear up-sampling to the old size.

    The paper states neither the factor nor, clearly, the standard deviation (pixels of the truth).
    Pixels are squares of which the samples are the centres, so an even factor samples between pixels.
    """

    factor: int = 2
    sigma: float = 3.0

    random: ClassVar[bool] = False
    margin: ClassVar[int] = 0
    input: ClassVar[str] = "bilinear"

    @property
    def note(self) -> str:
        return f"Gaussian blur of {self.sigma:g} pixels, 1/{self.factor} of the resolution, bilinear"

    def __call__(self, pictures: Tensor, corners: Tensor, generator: Generator) -> Tensor:
        height, width = pictures.shape[-2:]
        below, right = -height % self.factor, -width % self.factor
        blurred = gaussian_blur(F.pad(pictures, (0, right, 0, below), mode="replicate"), self.sigma)
        small = F.interpolate(blurred, scale_factor=1 / self.factor, mode="bilinear")
        return F.interpolate(small, size=blurred.shape[-2:], mode="bilinear")[..., :height, :width]


def gaussian_blur(pictures: Tensor, sigma: float) -> Tensor:
    """[N, 3, H, W], cut off at four standard deviations, the edge repeated outside."""
    if sigma == 0:
        return pictures
    radius = math.ceil(4 * sigma)
    offsets = torch.arange(-radius, radius + 1, device=pictures.device, dtype=torch.float64)
    line = torch.exp(-0.5 * (offsets / sigma) ** 2)
    line = (line / line.sum()).to(pictures.dtype).expand(3, 1, 1, -1)
    wide = F.pad(pictures, (radius, radius, radius, radius), mode="replicate")
    return F.conv2d(F.conv2d(wide, line, groups=3), line.mT, groups=3)
