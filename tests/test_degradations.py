"""The three degradations against values known from elsewhere, and the patches made of them."""

import io
import math
import sys
from itertools import permutations
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

EXAMPLES = Path(__file__).parent.parent / "examples"
sys.path.insert(0, str(EXAMPLES))

import restoration.patches  # noqa: E402
from restoration import data  # noqa: E402
from restoration.degrade import (  # noqa: E402
    Jpeg,
    LowResolution,
    NoisyBayer,
    bayer,
    demosaic,
    gaussian_blur,
)
from restoration.patches import Patches, degrade, generator  # noqa: E402

CPU = torch.device("cpu")
CORNER = torch.zeros(1, 2, dtype=torch.long)


def embedded(name: str) -> Tensor:
    with Image.open(EXAMPLES / "photos" / name) as image:
        return data.from_image(image)


def psnr(x: Tensor, picture: Tensor) -> float:
    return -10 * (x - picture / 255).square().mean().log10().item()


def test_bayer_is_rggb_at_the_photographs_corner():
    assert bayer(torch.zeros(1, 3, 2, 4), CORNER)[0, 0].tolist() == [[0, 1, 0, 1], [1, 2, 1, 2]]
    shifted = bayer(torch.zeros(2, 3, 2, 2), torch.tensor([[7, 14], [14, 7]]))
    assert shifted[:, 0].tolist() == [[[1, 2], [0, 1]], [[1, 0], [2, 1]]]


@pytest.mark.parametrize("level", [0.1, 0.5, 0.8])
def test_noise_has_fois_variance(level):
    noisy = NoisyBayer().mosaic(torch.full((1, 3, 400, 400), level), CORNER, generator(CPU, 1))
    # The variance of 160000 samples is known to 0.35 %, one standard deviation.
    assert noisy.var().item() == pytest.approx(0.005 * level + 0.0001, rel=0.02)
    assert noisy.mean().item() == pytest.approx(level, abs=4 * (0.0041 / 160000) ** 0.5)


def test_noise_is_clipped_to_the_range():
    black_and_white = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 100, 100)
    noisy = NoisyBayer().mosaic(black_and_white, CORNER.repeat(2, 1), generator(CPU, 1))
    assert noisy.min() == 0 and noisy.max() == 1
    assert 0.45 < (noisy[0] == 0).float().mean() < 0.55


def test_demosaicking_is_bilinear():
    """A colour that rises evenly is found exactly; a single lit pixel spreads as a tent."""
    ramp = torch.arange(8.0).view(1, 1, 1, 8).expand(1, 3, 8, 8) + torch.arange(3.0).view(1, 3, 1, 1)
    mosaic = ramp.gather(1, bayer(ramp, CORNER))
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(demosaic(mosaic, CORNER)[inside], ramp[inside])

    lit = torch.zeros(1, 1, 7, 7)
    lit[..., 2, 2] = 1  # red
    tent = torch.tensor([[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]])
    red, green, blue = demosaic(lit, CORNER)[0]
    assert torch.equal(red[1:4, 1:4], tent) and red.sum() == tent.sum()
    assert not green.any() and not blue.any()
    lit = torch.zeros(1, 1, 7, 7)
    lit[..., 2, 3] = 1  # green
    green = demosaic(lit, CORNER)[0, 1]
    assert torch.equal(green[1:4, 2:5], torch.tensor([[0, 0.25, 0], [0.25, 1, 0.25], [0, 0.25, 0]]))


def test_demosaicking_keeps_a_flat_colour_at_the_edges():
    flat = torch.tensor([0.2, 0.5, 0.7]).view(1, 3, 1, 1).expand(1, 3, 9, 12)
    torch.testing.assert_close(demosaic(flat.gather(1, bayer(flat, CORNER)), CORNER), flat)


def test_noisy_photographs_are_near_the_papers_28_db():
    """28.24 dB in the paper, on other photographs. Ours at half their resolution: two by two pixels
    averaged, as photographs at full resolution are as smooth as that."""
    values = []
    for path in sorted((EXAMPLES / "photos").glob("*/*.png")):
        picture = embedded(f"{path.parent.name}/{path.name}")[None] / 255
        smooth = (F.interpolate(picture, scale_factor=2, mode="bicubic").clamp(0, 1) * 255).round()
        values.append(psnr(degrade(NoisyBayer(), smooth[0].to(torch.uint8), 0), smooth[0]))
    assert sum(values) / len(values) == pytest.approx(28.2, abs=1)


def test_noise_is_seeded():
    picture = embedded("eval/004-flower.png")
    once = degrade(NoisyBayer(), picture, 3)
    assert torch.equal(once, degrade(NoisyBayer(), picture, 3))
    assert not torch.equal(once, degrade(NoisyBayer(), picture, 4))
    draws = [torch.rand(1, generator=generator(CPU, s, n)).item() for s in range(9) for n in range(9)]
    assert len(set(draws)) == 81


def test_jpeg_is_deterministic_quality_25_with_full_colour():
    picture = embedded("eval/004-flower.png")
    once = degrade(Jpeg(), picture, 0)
    file = io.BytesIO()
    data.to_image(picture).save(file, "JPEG", quality=25, subsampling=0)
    torch.testing.assert_close(once, data.from_image(Image.open(file)) / 255)
    # Chroma at half resolution would blur a one-pixel red and blue checkerboard away.
    board = torch.zeros(3, 32, 32, dtype=torch.uint8)
    board[0, ::2], board[2, 1::2] = 255, 255
    red = degrade(Jpeg(), board, 0)[0]
    assert red[::2].mean() - red[1::2].mean() > 0.4


def test_blur_has_its_standard_deviation():
    point = torch.zeros(1, 3, 61, 61)
    point[..., 30, 30] = 1
    spread = gaussian_blur(point, 3)
    offsets = torch.arange(61.0) - 30
    assert spread.sum(dim=(2, 3)) == pytest.approx(torch.ones(1, 3))
    variance = (spread[0, 0].sum(0) * offsets**2).sum().item()
    assert variance == pytest.approx(9, rel=0.01)  # cut off at 4 sigma: 0.1 % less


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_low_resolution_is_aligned(factor):
    """An even rise stays where it was: no shift by a part of a pixel."""
    ramp = torch.linspace(0, 1, 60).expand(1, 3, 60, 60)
    inner = (..., slice(20, -20), slice(20, -20))
    for picture in (ramp, ramp.mT):
        low = LowResolution(factor)(picture, CORNER, generator(CPU, 0))
        torch.testing.assert_close(low[inner], picture[inner], atol=1e-5, rtol=0)
    odd = LowResolution(factor)(torch.rand(1, 3, 47, 53), CORNER, generator(CPU, 0))
    assert odd.shape == (1, 3, 47, 53)


@pytest.mark.parametrize("period", [60, 24, 12])
def test_blur_dims_a_wave_as_a_gaussian_does(period):
    """A wave of frequency f keeps exp(-2 (pi f sigma)^2) of its height."""
    wave = torch.sin(2 * torch.pi * (torch.arange(240.0) + 0.5) / period).expand(1, 3, 240, 240)
    kept = gaussian_blur(wave, 3)[0, 0, 60:180, 60:180].std() / wave[0, 0, 60:180, 60:180].std()
    assert kept.item() == pytest.approx(math.exp(-2 * (math.pi * 3 / period) ** 2), rel=0.01)


class Untouched:
    random, margin, input, note = False, 0, "same", ""

    def __call__(self, pictures, corners, generator):
        return 1 - pictures


class Marked(Untouched):
    """Shows where a patch was cut: its corner, as the degraded value."""

    random, margin = True, 1

    def __call__(self, pictures, corners, generator):
        return pictures + corners.sum(1).view(-1, 1, 1, 1)


def photographs() -> list[data.Photograph]:
    truth = torch.arange(3 * 45 * 40, dtype=torch.int32).remainder(251).to(torch.uint8)
    truth = truth.reshape(3, 45, 40)  # the last row of patches just fits
    return [data.Photograph("a", truth), data.Photograph("b", truth.flip(1, 2)[:, :, :38])]


def test_patches_lie_at_stride_7_in_both_pictures():
    patches = Patches(photographs(), Untouched(), CPU)
    corners = [(row, column) for row in (0, 7, 14) for column in (0, 7)]
    assert len(patches) == 8 * 2 * len(corners)
    degraded, truth = patches.cut(torch.arange(12), generator(CPU, 0))
    for index, (row, column) in enumerate(corners):
        for number, (_, pixels) in enumerate(photographs()):
            cut = pixels[:, row : row + 31, column : column + 31] / 255
            torch.testing.assert_close(truth[number * 6 + index], cut)
            torch.testing.assert_close(degraded[number * 6 + index], 1 - cut)


def test_patches_of_a_random_degradation_know_their_corner_and_lose_their_margin():
    patches = Patches(photographs(), Marked(), CPU)
    assert [corner.tolist() for corner in patches.corners[:4]] == [[0, 0, 0], [0, 0, 7], [0, 7, 0], [0, 7, 7]]
    degraded, truth = patches.cut(torch.arange(4), generator(CPU, 0))
    assert degraded.shape == truth.shape == (4, 3, 31, 31)
    for index, (row, column) in enumerate([(0, 0), (0, 7), (7, 0), (7, 7)]):
        cut = photographs()[0].pixels[:, row + 1 : row + 32, column + 1 : column + 32] / 255
        torch.testing.assert_close(truth[index], cut)
        torch.testing.assert_close(degraded[index], cut + row + column)


def test_noisy_patches_are_cut_from_what_whole_pictures_show():
    """Without noise the patch of the picture and the picture of the patch are the same."""
    pixels = embedded("eval/004-flower.png")
    noiseless = NoisyBayer(a=0, b=0)
    patches = Patches([data.Photograph("flower", pixels)], noiseless, CPU)
    chosen = torch.tensor([0, 1, 64, len(patches.corners) - 1])
    degraded, _ = patches.cut(chosen, generator(CPU, 0))
    picture = degrade(noiseless, pixels, 0)
    for patch, (_, row, column) in zip(degraded, patches.corners[chosen].tolist(), strict=True):
        torch.testing.assert_close(patch, picture[:, row + 1 : row + 32, column + 1 : column + 32])


def test_batches_take_the_eight_orientations_in_turn():
    square = torch.arange(31 * 31).remainder(251).to(torch.uint8).expand(3, 961).reshape(3, 31, 31)  # grey
    patches = Patches([data.Photograph("one", square)], Untouched(), CPU)
    seen = []
    for step in range(8):
        degraded, truth = patches.batch(2, 0, step)
        torch.testing.assert_close(degraded, 1 - truth)  # both are turned alike
        assert torch.equal(truth[0], truth[1])
        seen.append((truth[0] * 255).round().to(torch.uint8))
    turns = [torch.rot90(side, k, (1, 2)) for side in (square, square.flip(2)) for k in range(4)]
    assert all(sum(torch.equal(turn, one) for one in seen) == 1 for turn in turns)


class Strongest(Untouched):
    """Treats channels differently, as JPEG does."""

    def __call__(self, pictures, corners, generator):
        return pictures * torch.tensor([1, 0.5, 0.25]).view(3, 1, 1)


def test_few_photographs_are_shown_in_other_colours(monkeypatch):
    pixels = torch.tensor([51, 102, 204], dtype=torch.uint8).view(3, 1, 1).expand(3, 31, 31)
    few = [data.Photograph("a", pixels), data.Photograph("b", pixels)]
    patches = Patches(few, Strongest(), CPU)
    assert len(patches) == 16
    degraded, truth = patches.cut(torch.arange(16), generator(CPU, 0))
    torch.testing.assert_close(truth[:2], torch.stack([pixels / 255] * 2))  # the photographs themselves
    colours = {tuple((255 * patch[:, 0, 0]).round().int().tolist()) for patch in truth}
    # Their luma is 0.299 * 51 + 0.587 * 102 + 0.114 * 204 = 98.4; a tenth and three tenths of the way back:
    paler = {(94, 99, 109), (84, 99, 130)}
    assert colours == {*permutations((51, 102, 204))} | paler
    once = truth * torch.tensor([1, 0.5, 0.25]).view(3, 1, 1)  # degraded in their new colours
    torch.testing.assert_close(degraded, once, rtol=0, atol=0.51 / 255)
    monkeypatch.setattr(restoration.patches, "FEW", 2 * 31 * 31 - 1)
    assert len(Patches(few, Strongest(), CPU)) == 2


def test_batches_follow_from_seed_and_step():
    patches = Patches(photographs(), NoisyBayer(), CPU)
    once = patches.batch(8, 0, 5)
    assert all(torch.equal(a, b) for a, b in zip(once, patches.batch(8, 0, 5), strict=True))
    for other in ((0, 6), (1, 5), (5, 0)):
        assert not torch.equal(once[0], patches.batch(8, *other)[0])
