"""ssimloss.compat of signals, volumes, windows that are no square, and a range for each image.

By the definition in float64, and beside the packages where they are installed.
"""

import math

import conventions
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_compat import assert_same, images, reduced
from test_compat_peers import assert_peer, installed
from torch import Tensor

from ssimloss import reference
from ssimloss.compat import kornia, piq, piqa, pytorch_msssim, skimage, torchmetrics

# ---- torchmetrics

VOLUMES = {
    "default": ({}, (1.5,) * 3, (5, 5, 5), (5, 5, 5)),
    # Theirs mirrors the last dimension by kernel_size, 11, where its window has 5 taps.
    "sigma": (dict(sigma=0.5), (0.5,) * 3, (2, 2, 2), (2, 2, 5)),
    "sigmas": (dict(sigma=(1.0, 0.5, 1.5)), (1.0, 0.5, 1.5), (4, 2, 5), (4, 2, 5)),
    "uniform": (
        dict(gaussian_kernel=False, kernel_size=(3, 7, 5)),
        (math.inf,) * 3,
        (1, 3, 2),
        (1, 3, 2),
    ),
}


def mirrored(image: Tensor, border: tuple[int, ...]) -> Tensor:
    return F.pad(image, [pad for side in reversed(border) for pad in (side, side)], mode="reflect")


@pytest.mark.parametrize(("given", "sigma", "radius", "border"), VOLUMES.values(), ids=VOLUMES)
def test_torchmetrics_volumes(given: dict, sigma: tuple, radius: tuple, border: tuple) -> None:
    ours = torchmetrics.structural_similarity_index_measure
    x, y = images(2, 2, 12, 14, 13)
    given = given | dict(data_range=1.0)

    def map_(x: Tensor, y: Tensor) -> Tensor:
        return conventions.maps(mirrored(x, border), mirrored(y, border), sigma, radius, "valid")[0]

    assert_same(lambda x, y: ours(x, y, reduction=None, **given), lambda x, y: reduced(map_(x, y)), x, y)
    assert_same(lambda x, y: ours(x, y, return_full_image=True, **given)[1], map_, x, y)
    cs = reduced(conventions.maps(x, y, sigma, radius, "valid")[1])
    actual = ours(x, y, return_contrast_sensitivity=True, **given)[1]
    torch.testing.assert_close(actual, cs, rtol=1e-11, atol=0)
    peer = installed("torchmetrics.functional.image").structural_similarity_index_measure
    assert_peer(lambda x, y: ours(x, y, **given), lambda x, y: peer(x, y, **given), x, y)


NO_SQUARES = {
    "sigmas": (dict(sigma=(0.5, 1.5)), (0.5, 1.5), (2, 5)),
    "uniform": (dict(gaussian_kernel=False, kernel_size=(7, 3)), (math.inf, math.inf), (3, 1)),
}


@pytest.mark.parametrize(("given", "sigma", "radius"), NO_SQUARES.values(), ids=NO_SQUARES)
def test_torchmetrics_windows_that_are_no_square(given: dict, sigma: tuple, radius: tuple) -> None:
    ours = torchmetrics.structural_similarity_index_measure
    x, y = images(3, 2, 20, 26)
    given = given | dict(data_range=1.0)

    def map_(x: Tensor, y: Tensor) -> Tensor:
        return conventions.maps(x, y, sigma, radius, "reflect")[0]

    assert_same(lambda x, y: ours(x, y, reduction=None, **given), lambda x, y: reduced(map_(x, y)), x, y)
    assert_same(lambda x, y: ours(x, y, return_full_image=True, **given)[1], map_, x, y)
    peer = installed("torchmetrics.functional.image")
    for name in ("structural_similarity_index_measure", "multiscale_structural_similarity_index_measure"):
        options = given | (dict(betas=(0.5, 0.5)) if name.startswith("multi") else {})
        pair = [lambda x, y, m=m, n=name, o=options: getattr(m, n)(x, y, **o) for m in (torchmetrics, peer)]
        assert_peer(*pair, x, y)


def test_torchmetrics_multiscale_volumes() -> None:
    def expected(x: Tensor, y: Tensor) -> Tensor:
        first = reduced(conventions.maps(x, y, 1.5, 5, "valid")[1]).relu()
        x, y = (t.unfold(2, 2, 2).unfold(3, 2, 2).unfold(4, 2, 2).mean((-3, -2, -1)) for t in (x, y))
        border = (5, 5, 1)  # the last by kernel_size
        x, y = mirrored(x, border), mirrored(y, border)
        last = reduced(conventions.maps(x, y, 1.5, 5, "valid")[0]).relu()
        return first**0.25 * last**0.75

    options = dict(reduction=None, data_range=1.0, kernel_size=3, betas=(0.25, 0.75))
    ours = torchmetrics.multiscale_structural_similarity_index_measure
    x, y = images(2, 2, 24, 26, 23)
    assert_same(lambda x, y: ours(x, y, **options), expected, x, y)


# ---- scikit-image


@pytest.mark.parametrize("sides", [(40,), (13, 16, 14)], ids=str)
@pytest.mark.parametrize(
    ("given", "sigma", "radius", "unbiased"),
    [({}, math.inf, 3, True), (dict(gaussian_weights=True, sigma=0.9, win_size=3), 0.9, 3, False)],
    ids=["default", "gaussian"],
)
def test_skimage(sides: tuple, given: dict, sigma: float, radius: int, unbiased: bool) -> None:
    """Signals and volumes: value, map and gradient, with channels and without."""
    generator = np.random.default_rng(1)
    x, y = generator.random((2, *sides, 2))
    ones = (0,) * (3 - len(sides))
    options = dict(channel_axis=-1, data_range=1.0, use_sample_covariance=unbiased, **given)
    value, gradient, full = skimage.structural_similarity(x, y, gradient=True, full=True, **options)
    # The map: mirrored with the edge twice, every dimension.
    pads = [(0, 0), *[(0, 0)] * len(ones), *[(radius, radius)] * len(sides)]
    planes = [
        np.pad(np.moveaxis(t, -1, 0).reshape(2, *[1] * len(ones), *sides), pads, "symmetric") for t in (x, y)
    ]
    window = (ones + (radius,) * len(sides),)
    map_ = conventions.maps(
        *(torch.from_numpy(p)[None] for p in planes),
        (sigma,) * 3,
        *window,
        "valid",
        sample_covariance=unbiased,
    )[0]
    map_ = map_.reshape(2, *sides).movedim(0, -1).numpy()
    np.testing.assert_allclose(full, map_, rtol=1e-10)
    crop = given.get("win_size", 7) // 2
    inner = map_[(*[slice(crop, side - crop) for side in sides], slice(None))]
    np.testing.assert_allclose(value, inner.mean(), rtol=1e-11)
    np.testing.assert_allclose(skimage.structural_similarity(x, y, **options), value, rtol=1e-12)
    assert gradient.shape == x.shape
    peer = installed("skimage.metrics").structural_similarity
    for axis, crop in ((-1, np.s_[:]), (None, np.s_[..., 0])):
        options["channel_axis"] = axis
        theirs = peer(x[crop], y[crop], gradient=True, full=True, **options)
        ours = skimage.structural_similarity(x[crop], y[crop], gradient=True, full=True, **options)
        for actual, wanted in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-9, atol=1e-14)


# ---- piqa


@pytest.mark.parametrize("shape", [(2, 3, 40), (2, 3, 14, 13, 15)], ids=str)
def test_piqa(shape: tuple[int, ...]) -> None:
    x, y = images(*shape)
    sides = len(shape) - 2
    module = piqa.SSIM(7, 1.1, reduction="none").double()
    volume = (*shape[:2], *[1] * (3 - sides), *shape[2:])
    radius = (0,) * (3 - sides) + (3,) * sides

    def expected(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return conventions.maps(x.reshape(volume), y.reshape(volume), (1.1,) * 3, radius, "valid")

    assert_same(module, lambda x, y: reduced(expected(x, y)[0]), x, y)
    theirs = installed("piqa.ssim").ssim
    for i, padding in ((0, False), (1, False), (0, True)):
        assert_peer(
            *(
                lambda x, y, f=f, i=i, p=padding: f(x, y, module.kernel, padding=p)[i]
                for f in (piqa.ssim, theirs)
            ),
            x,
            y,
            1e-5,  # its window is in float32
        )
    with pytest.raises(AssertionError, match=r"expected \[N, 3, H, W\]"):
        piqa.MS_SSIM()(x, y)


# ---- piq


def complex_means(x: Tensor, y: Tensor) -> list[Tensor]:
    """[N, C, 2] of its "SSIM" and "cs" of complex images: of plain parts, without complex numbers."""

    def blurred(image: Tensor) -> Tensor:
        return reference.blur(image, 1.5, 5, "valid", 5)

    a, b, c, d = (part for image in (x, y) for part in image.unbind(-1))
    mu_a, mu_b, mu_c, mu_d = (blurred(part) for part in (a, b, c, d))
    means = mu_a**2 + mu_b**2 + mu_c**2 + mu_d**2
    variances = blurred(a**2 + b**2 + c**2 + d**2) - means
    real = blurred(a * c - b * d) - (mu_a * mu_c - mu_b * mu_d)
    imaginary = blurred(a * d + b * c) - (mu_a * mu_d + mu_b * mu_c)
    cs = [(2 * part + 9e-4) / (variances + 9e-4) for part in (imaginary, real)]
    luminance = [
        (2 * part + 1e-4) / (means + 1e-4) for part in (mu_a * mu_c - mu_b * mu_d, mu_a * mu_d + mu_b * mu_c)
    ]
    maps = [torch.stack([p * q for p, q in zip(cs, luminance, strict=True)], -1), torch.stack(cs, -1)]
    return [m.mean((2, 3)) for m in maps]


def complex_images(*shape: int) -> tuple[Tensor, Tensor]:
    """Alike, with parts that are alike, too, so that all means are positive."""
    base, x, y = (torch.rand(*shape, parts, dtype=torch.float64) for parts in (1, 2, 2))
    return base * 0.8 + 0.2 * x, base * 0.8 + 0.2 * y


def test_piq_complex_images() -> None:
    x, y = complex_images(2, 3, 20, 300)  # real images of this size were not reduced either
    for i in range(2):
        assert_same(
            lambda x, y, i=i: piq.ssim(x, y, reduction="none", full=True)[i],
            lambda x, y, i=i: complex_means(x, y)[i].mean(1),
            x,
            y,
        )
    assert_same(piq.SSIMLoss(), lambda x, y: 1 - complex_means(x, y)[0].mean((0, 1)), x, y)
    theirs = installed("piq.ssim")
    assert_peer(lambda x, y: piq.ssim(255 * x, 255 * y, data_range=255), theirs.ssim, x, y, 1e-9)
    assert (piq.ssim(x, x) - 1).abs().min() > 0.01  # it is no similarity


def test_piq_complex_images_multiscale() -> None:
    x, y = complex_images(2, 2, 171, 164)
    theirs = installed("piq.ms_ssim")
    assert_peer(piq.multi_scale_ssim, theirs.multi_scale_ssim, x, y, 1e-8)
    options = dict(reduction="none", scale_weights=torch.tensor([0.3, 0.7], dtype=torch.float64))

    def expected(x: Tensor, y: Tensor) -> Tensor:
        first = torch.view_as_complex(complex_means(x, y)[1].relu()) ** 0.3
        x, y = (torch.stack([conventions.first_repeated(p) for p in t.unbind(-1)], -1) for t in (x, y))
        last = torch.view_as_complex(complex_means(x, y)[0].relu()) ** 0.7
        return torch.view_as_real(first * last).mean(1)

    assert_same(lambda x, y: piq.multi_scale_ssim(x, y, **options), expected, x, y)


# ---- kornia


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_kornia_volumes_before_0_9(padding: str) -> None:
    """Its border repeats the voxels, and its loss is not halved."""
    x, y = images(2, 2, 9, 12, 11)

    def similarity(x: Tensor, y: Tensor) -> Tensor:
        if padding == "same":
            x, y = (F.pad(t, [2] * 6, mode="replicate") for t in (x, y))
        return conventions.maps(x, y, 1.5, 2, "valid")[0]

    options = dict(padding=padding, before_0_9=True)
    assert_same(kornia.SSIM3D(5, **options), similarity, x, y)
    for reduction, reduce in (("mean", torch.mean), ("sum", torch.sum), ("none", torch.clone)):
        loss = kornia.SSIM3DLoss(5, reduction=reduction, **options)
        assert_same(loss, lambda x, y, reduce=reduce: reduce(1 - similarity(x, y)), x, y)


def test_kornia_half_a_range() -> None:
    """Its eps, left out here, is at most 2e-4 at max_val 0.5: where both images are black."""
    peer = installed("kornia.metrics")
    x, y = images(1, 1, 16, 16, data_range=0.5)
    x[..., :8], y[..., :8] = 0, 0
    ours, theirs = kornia.ssim(x, y, 3, 0.5), peer.ssim(x, y, 3, 0.5)
    assert 1e-4 < (ours - theirs).abs().max() < 2e-4
    torch.testing.assert_close(ours[..., 10:], theirs[..., 10:], rtol=0, atol=1e-5)


# ---- A range for each image


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 20, 21), (2, 3, 12, 13, 14)], ids=str)
def test_pytorch_msssim_ranges(shape: tuple[int, ...], nonnegative: bool) -> None:
    x, y = images(*shape)
    ranges = torch.tensor([0.5, 3.0]).reshape(2, *[1] * (len(shape) - 1))
    more = (False, 11, 1.5, None, (0.01, 0.03), nonnegative)
    each = [pytorch_msssim.ssim(x[i : i + 1], y[i : i + 1], ranges[i].item(), *more) for i in range(2)]
    actual = pytorch_msssim.ssim(x, y, ranges, *more)
    torch.testing.assert_close(actual, torch.cat(each), rtol=1e-12, atol=0)
    assert abs(each[0] - each[1]) > 1e-3
    theirs = installed("pytorch_msssim").ssim
    torch.testing.assert_close(actual, theirs(x, y, ranges, *more), rtol=1e-5, atol=0)


def test_pytorch_msssim_multiscale_ranges() -> None:
    x, y = images(2, 1, 170, 168)
    ranges = torch.tensor([0.5, 3.0]).reshape(2, 1, 1, 1)
    each = [pytorch_msssim.ms_ssim(x[i : i + 1], y[i : i + 1], ranges[i], False) for i in range(2)]
    torch.testing.assert_close(
        pytorch_msssim.ms_ssim(x, y, ranges, False), torch.cat(each), rtol=1e-12, atol=0
    )
