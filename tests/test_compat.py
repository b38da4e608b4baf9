"""ssimloss.compat against the conventions of its peers in float64; none of them need be installed."""

import math
from collections.abc import Callable

import conventions
import numpy as np
import pytest
import torch
from cases import pair, relative_error, value_and_gradients
from torch import Tensor

from ssimloss import L1SSIMLoss, reference
from ssimloss.compat import (
    fused_ssim,
    gaussian_splatting,
    kornia,
    piq,
    piqa,
    pytorch_msssim,
    skimage,
    torchmetrics,
)

WANG = reference.WANG_WEIGHTS
ROUNDED = tuple(torch.tensor(WANG).tolist())  # as a buffer in float32 holds them
ODD = (2, 2, 181, 167)  # 45 and 41 at the third level


def images(*shape: int, data_range: float = 1.0) -> tuple[Tensor, Tensor]:
    """In [0, data_range], alike."""
    return tuple((t / 1.2 + 0.1) * data_range for t in pair(*shape, dtype=torch.float64))


def unlike(*shape: int) -> tuple[Tensor, Tensor]:
    """Independent noise, and a negative: means of cs of either sign."""
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.rand(shape, generator=generator, dtype=torch.float64) for _ in "xy")
    y[-1, 0] = 0.9 - 0.8 * x[-1, 0]
    return x, y


def assert_same(ours: Callable, expected: Callable, x: Tensor, y: Tensor, want: str = "xy") -> None:
    """Value and gradients in float64, and the value in float32."""
    actual, grads = value_and_gradients(ours, x, y, want)
    wanted, wanted_grads = value_and_gradients(expected, x, y, want)
    torch.testing.assert_close(actual, wanted, rtol=1e-11, atol=1e-12)
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        assert relative_error(grad, wanted_grad) < 1e-9
    single = ours(x.float(), y.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), wanted, rtol=2e-5, atol=2e-6)


def reduced(map_: Tensor) -> Tensor:
    return map_.flatten(1).mean(1)


def ssim_map(x: Tensor, y: Tensor, padding: str = "valid", **options) -> Tensor:
    return conventions.maps(x, y, 1.5, 5, padding, **options)[0]


# ---- Values and gradients


def test_pytorch_msssim() -> None:
    x, y = images(2, 3, 40, 33, data_range=255)
    scaled = dict(data_range=255.0)
    assert_same(pytorch_msssim.ssim, lambda x, y: ssim_map(x, y, **scaled).mean(), x, y)
    assert_same(
        lambda x, y: pytorch_msssim.ssim(x, y, 255, False, 7, 1.1, None, (0.02, 0.04)),
        lambda x, y: reduced(conventions.maps(x, y, 1.1, 3, "valid", k1=0.02, k2=0.04, **scaled)[0]),
        x,
        y,
    )
    x, y = unlike(4, 3, 12, 12)
    assert (ssim_map(x, y).mean((-2, -1)) < 0).any()
    assert_same(
        pytorch_msssim.SSIM(1.0, False, nonnegative_ssim=True),
        lambda x, y: ssim_map(x, y).mean((-2, -1)).relu().mean(1),
        x,
        y,
    )


@pytest.mark.parametrize("make", [images, unlike])
def test_pytorch_msssim_multiscale(make: Callable) -> None:
    def expected(x: Tensor, y: Tensor, weights=WANG) -> Tensor:
        return conventions.clamped_product(x, y, conventions.zeros_at_both_ends, weights).mean(1)

    x, y = make(*ODD)
    assert_same(lambda x, y: pytorch_msssim.ms_ssim(x, y, 1.0, False), expected, x, y)
    weights = [0.5, 1.0, 2.0]
    module = pytorch_msssim.MS_SSIM(data_range=1, weights=weights)
    assert_same(module, lambda x, y: expected(x, y, weights).mean(), x, y)
    module.weights = torch.tensor(weights)
    assert_same(module, lambda x, y: expected(x, y, weights).mean(), x, y)


def test_pytorch_msssim_window() -> None:
    x, y = images(1, 2, 30, 30)
    window = reference.gaussian(2.0, 4).expand(2, 1, 1, -1)
    expected = conventions.maps(x, y, 2.0, 4, "valid")[0].mean()
    torch.testing.assert_close(pytorch_msssim.ssim(x, y, 1, win=window), expected, rtol=1e-12, atol=0)
    ones = torch.full((2, 1, 1, 7), 1 / 7)
    expected = conventions.maps(x, y, math.inf, 3, "valid")[0].mean()
    torch.testing.assert_close(pytorch_msssim.ssim(x, y, 1, win=ones), expected, rtol=1e-12, atol=0)
    x, y = images(1, 2, 99, 98)
    levels = []
    for _ in range(2):
        levels.append([m.mean((-2, -1)) for m in conventions.maps(x, y, math.inf, 3, "valid")])
        x, y = conventions.zeros_at_both_ends(x), conventions.zeros_at_both_ends(y)
    expected = (levels[0][1] ** 0.4 * levels[1][0] ** 0.6).mean()
    actual = pytorch_msssim.ms_ssim(*images(1, 2, 99, 98), 1, win=ones, weights=[0.4, 0.6])
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def test_volumes() -> None:
    """The definitions of images, under a window of three dimensions."""
    x, y = images(2, 3, 12, 15, 13)
    expected = ssim_map(x, y)
    torch.testing.assert_close(pytorch_msssim.ssim(x, y, 1), expected.mean(), rtol=1e-12, atol=0)
    actual = pytorch_msssim.SSIM(1, False, channel=1, spatial_dims=3)(x, y)
    torch.testing.assert_close(actual, expected.flatten(1).mean(1), rtol=1e-12, atol=0)
    zeros = ssim_map(x, y, "zeros").mean()
    torch.testing.assert_close(fused_ssim.fused_ssim3d(x, y), zeros, rtol=1e-12, atol=0)
    torch.testing.assert_close(fused_ssim.fused_ssim3d(x, y, "valid"), expected.mean(), rtol=1e-12, atol=0)
    mirrored = ssim_map(x, y, "reflect")
    torch.testing.assert_close(kornia.ssim3d(x, y, 11), mirrored, rtol=1e-12, atol=1e-14)
    loss = kornia.ssim3d_loss(x, y, 11, reduction="sum", padding="valid")
    torch.testing.assert_close(loss, ((1 - expected) / 2).sum(), rtol=1e-12, atol=0)
    assert kornia.SSIM3D(3)(x.half(), y.half()).dtype == torch.float16
    assert not fused_ssim.fused_ssim3d(x.requires_grad_(), y, train=False).requires_grad


def test_sides_of_one_are_squeezed() -> None:
    x, y = images(2, 3, 1, 40, 40)
    expected = ssim_map(x[:, :, 0], y[:, :, 0]).mean()
    torch.testing.assert_close(pytorch_msssim.ssim(x, y, 1), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("padding", ["same", "valid", "SAME"])
def test_kornia_ssim(padding: str) -> None:
    ours = {"same": "reflect", "valid": "valid"}[padding.lower()]
    x, y = images(2, 3, 21, 30, data_range=2.0)

    def expected(x: Tensor, y: Tensor) -> Tensor:
        return conventions.maps(x, y, 1.5, 3, ours, data_range=2.0)[0]

    assert_same(lambda x, y: kornia.ssim(x, y, 7, 2.0, padding=padding), expected, x, y)
    assert_same(kornia.SSIM(7, 2.0, padding=padding), expected, x, y)
    for reduction, reduce in (("mean", torch.mean), ("sum", torch.sum), ("none", torch.clone)):
        loss = kornia.SSIMLoss(7, 2.0, reduction=reduction, padding=padding)
        assert_same(loss, lambda x, y, reduce=reduce: reduce((1 - expected(x, y)) / 2), x, y)


def kornia_mix(x: Tensor, y: Tensor, sigmas=(0.5, 1.0, 2.0), radius: int = 4, scale: float = 1.0) -> Tensor:
    """Its map [B, H, W] by the definition: alpha 0.025, 200 times."""
    value = conventions.maps(x, y, sigmas[-1], radius, "zeros", data_range=scale)[0]
    for sigma in sigmas[:-1]:
        value = value * conventions.maps(x, y, sigma, radius, "zeros", data_range=scale)[1]
    l1 = reference.blur((x - y).abs(), sigmas[-1], radius, "zeros", radius) / scale
    return 200 * (0.025 * (1 - value) + 0.975 * l1).mean(1)


def test_kornia_mix() -> None:
    options = dict(sigmas=(0.5, 1.0, 2.0), data_range=3.0)
    x, y = images(2, 3, 20, 23, data_range=3.0)
    for reduction, reduce in (("mean", torch.mean), ("sum", torch.sum), ("none", torch.clone)):
        loss = kornia.MS_SSIMLoss(reduction=reduction, **options)
        assert_same(loss, lambda x, y, reduce=reduce: reduce(kornia_mix(x, y, scale=3.0)), x, y)
    loss = kornia.MS_SSIMLoss(reduction="none", **options)
    assert_same(loss, lambda x, y: kornia_mix(*torch.broadcast_tensors(x, y), scale=3.0), x, y[:1])


@pytest.mark.parametrize("channels", [1, 3])
def test_kornia_before_0_9(channels: int) -> None:
    """Scales of three channels dealt out in order: here 3 to each of 3, 9 to 1."""
    sigmas, radius = (0.5, 1.0, 2.0), 4
    dealt = [s for s in sigmas for _ in range(3)]

    def expected(x: Tensor, y: Tensor) -> Tensor:
        value = torch.ones((), dtype=x.dtype)
        for i, sigma in enumerate(dealt):
            c = i * channels // 9
            similarity, cs = conventions.maps(x[:, c : c + 1], y[:, c : c + 1], sigma, radius, "zeros")
            value = value * (similarity if i >= 6 else cs)
            if i >= 6:  # the last three: l of the largest scale
                continue
        l1 = reference.blur((x - y).abs(), 2.0, radius, "zeros", radius).mean(1)
        return (200 * (0.025 * (1 - value[:, 0]) + 0.975 * l1)).mean()

    loss = kornia.MS_SSIMLoss(sigmas=sigmas, before_0_9=True)
    assert_same(loss, expected, *images(2, channels, 20, 23))


@pytest.mark.parametrize(("padding", "ours"), [("same", "zeros"), ("valid", "valid")])
def test_fused_ssim(padding: str, ours: str) -> None:
    x, y = images(2, 3, 24, 31)
    assert_same(
        lambda x, y: fused_ssim.fused_ssim(x, y, padding), lambda x, y: ssim_map(x, y, ours).mean(), x, y, "x"
    )

    def mixed(x: Tensor, y: Tensor) -> Tensor:
        similarity, l1 = ssim_map(x, y, ours), (x - y).abs()
        l1 = l1 if ours == "zeros" else l1[..., 5:-5, 5:-5]
        return (0.7 * l1 + 0.3 * (1 - similarity)).mean()

    assert_same(lambda x, y: fused_ssim.fused_l1_ssim_loss(x, y, 0.3, padding), mixed, x, y, "x")


def test_fused_ssim_gives_img1_alone_a_gradient() -> None:
    x, y = (t.requires_grad_() for t in images(1, 1, 20, 20))
    for function in (fused_ssim.fused_ssim, fused_ssim.fused_l1_ssim_loss):
        assert not function(x, y, train=False).requires_grad
        assert torch.autograd.grad(function(x, y), (x, y), allow_unused=True)[1] is None
    assert y.grad is None


def test_gaussian_splatting() -> None:
    x, y = images(2, 3, 24, 31)
    assert_same(gaussian_splatting.ssim, lambda x, y: ssim_map(x, y, "zeros").mean(), x, y)
    per_image = lambda x, y: reduced(conventions.maps(x, y, 1.5, 2, "zeros")[0])  # noqa: E731
    assert_same(lambda x, y: gaussian_splatting.ssim(x, y, 5, False), per_image, x, y)
    assert_same(gaussian_splatting.ssim, lambda x, y: ssim_map(x[None], y[None], "zeros").mean(), x[0], y[0])
    step = 0.8 * (x - y).abs().mean() + 0.2 * (1 - gaussian_splatting.ssim(x, y))
    torch.testing.assert_close(step, L1SSIMLoss(0.2)(x, y), rtol=1e-12, atol=0)


TORCHMETRICS = {
    "default": ({}, 1.5, 5),
    "sigma": (dict(sigma=(0.8, 0.8), kernel_size=3), 0.8, 3),
    "uniform": (dict(gaussian_kernel=False, kernel_size=7), math.inf, 3),
}


@pytest.mark.parametrize(("given", "sigma", "radius"), TORCHMETRICS.values(), ids=TORCHMETRICS)
def test_torchmetrics(given: dict, sigma: float, radius: int) -> None:
    ours = torchmetrics.structural_similarity_index_measure
    x, y = images(3, 2, 20, 26)

    def map_(x: Tensor, y: Tensor) -> Tensor:
        return conventions.maps(x, y, sigma, radius, "reflect")[0]

    given = given | dict(data_range=1.0)
    for reduction, reduce in (("elementwise_mean", torch.mean), ("sum", torch.sum), (None, torch.clone)):
        assert_same(
            lambda x, y, r=reduction: ours(x, y, reduction=r, **given),
            lambda x, y, reduce=reduce: reduce(reduced(map_(x, y))),
            x,
            y,
        )
    assert_same(lambda x, y: ours(x, y, return_full_image=True, **given)[1], map_, x, y)
    assert_same(
        lambda x, y: ours(x, y, return_contrast_sensitivity=True, **given)[1],
        lambda x, y: reduced(conventions.maps(x, y, sigma, radius, "valid")[1]),
        x,
        y,
    )


def test_torchmetrics_data_range() -> None:
    ours = torchmetrics.structural_similarity_index_measure
    x, y = images(2, 1, 20, 26, data_range=7.0)
    found = max((x.max() - x.min()).item(), (y.max() - y.min()).item())
    expected = ssim_map(x, y, "reflect", data_range=found).mean()
    torch.testing.assert_close(ours(x, y), expected, rtol=1e-12, atol=0)
    low, high = 1.0, 5.0
    clamped = ssim_map(x.clamp(low, high), y.clamp(low, high), "reflect", data_range=4.0).mean()
    torch.testing.assert_close(ours(x, y, data_range=(low, high)), clamped, rtol=1e-12, atol=0)


@pytest.mark.parametrize("normalize", ["relu", "simple", None])
@pytest.mark.parametrize("make", [images, unlike])
def test_torchmetrics_multiscale(make: Callable, normalize: str | None) -> None:
    betas = (0.3, 0.7, 1.0)

    def expected(x: Tensor, y: Tensor) -> Tensor:
        means = []
        for level in range(3):
            means.append(reduced(conventions.maps(x, y, 1.5, 5, "valid")[1]))
            if level == 2:
                means[-1] = reduced(ssim_map(x, y, "reflect"))
            x, y = conventions.dropped(x), conventions.dropped(y)
        values = torch.stack(means)
        values = values.relu() if normalize == "relu" else (values + 1) / 2 if normalize else values
        return (values ** torch.tensor(betas)[:, None]).prod(0).nan_to_num(nan=-9.0)

    def ours(x: Tensor, y: Tensor) -> Tensor:
        options = dict(reduction="none", data_range=1.0, betas=betas, normalize=normalize)
        return torchmetrics.multiscale_structural_similarity_index_measure(x, y, **options).nan_to_num(
            nan=-9.0
        )

    x, y = make(3, 2, 61, 71)
    if make is unlike and normalize is None:
        torch.testing.assert_close(ours(x, y), expected(x, y))
    else:
        assert_same(ours, expected, x, y)


def test_piq() -> None:
    x, y = images(2, 3, 30, 41, data_range=255)

    def expected(x: Tensor, y: Tensor) -> Tensor:
        return reduced(ssim_map(x, y, data_range=255.0))

    ours = dict(data_range=255)
    assert_same(lambda x, y: piq.ssim(x, y, reduction="none", **ours), expected, x, y)
    assert_same(lambda x, y: piq.ssim(x, y, reduction="sum", **ours), lambda x, y: expected(x, y).sum(), x, y)
    assert_same(piq.SSIMLoss(**ours), lambda x, y: 1 - expected(x, y).mean(), x, y)
    assert_same(piq.SSIMLoss(reduction="sum", **ours), lambda x, y: 1 - expected(x, y).sum(), x, y)
    assert_same(
        lambda x, y: piq.ssim(x, y, reduction="none", full=True, **ours)[1],
        lambda x, y: reduced(conventions.maps(x, y, 1.5, 5, "valid", data_range=255.0)[1]),
        x,
        y,
    )
    whole = x.byte(), y.byte()
    expected_of_bytes = expected(*(t.double() for t in whole)).mean().float()
    torch.testing.assert_close(piq.ssim(*whole, data_range=255), expected_of_bytes, rtol=2e-5, atol=2e-6)


def test_piq_reduces_large_images() -> None:
    x, y = images(1, 1, 391, 400)
    small = x[..., :390, :].unflatten(-1, (200, 2)).unflatten(-3, (195, 2)).mean((-3, -1))
    small_y = y[..., :390, :].unflatten(-1, (200, 2)).unflatten(-3, (195, 2)).mean((-3, -1))
    torch.testing.assert_close(piq.ssim(x, y), ssim_map(small, small_y).mean(), rtol=1e-12, atol=0)
    whole = piq.ssim(x, y, downsample=False)
    torch.testing.assert_close(whole, ssim_map(x, y).mean(), rtol=1e-12, atol=0)
    assert abs(whole - piq.ssim(x, y)) > 1e-3


@pytest.mark.parametrize("make", [images, unlike])
def test_piq_multiscale(make: Callable) -> None:
    def expected(x: Tensor, y: Tensor, weights=WANG) -> Tensor:
        return conventions.clamped_product(x, y, conventions.first_repeated, weights).mean(1)

    x, y = make(*ODD)
    assert_same(lambda x, y: piq.multi_scale_ssim(x, y, reduction="none"), expected, x, y)
    given = piq.MultiScaleSSIMLoss(scale_weights=torch.tensor([1.0, 3.0]))
    assert_same(given, lambda x, y: 1 - expected(x, y, (0.25, 0.75)).mean(), x, y)


@pytest.mark.parametrize(("padding", "ours"), [(False, "valid"), (True, "zeros")])
def test_piqa(padding: bool, ours: str) -> None:
    x, y = images(2, 3, 30, 41)
    options = dict(padding=padding, k1=0.02)
    kernel = reference.gaussian(1.5, 5).repeat(3, 1, 1)

    def expected(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return conventions.maps(x, y, 1.5, 5, ours, k1=0.02)

    for i in range(2):
        assert_same(
            lambda x, y, i=i: piqa.ssim(x, y, kernel, **options)[i],
            lambda x, y, i=i: reduced(expected(x, y)[i]),
            x,
            y,
        )
        assert_same(
            lambda x, y, i=i: piqa.ssim(x, y, kernel, channel_avg=False, **options)[i],
            lambda x, y, i=i: expected(x, y)[i].mean((-2, -1)),
            x,
            y,
        )
    for reduction, reduce in (("mean", torch.mean), ("sum", torch.sum), ("none", torch.clone)):
        module = piqa.SSIM(reduction=reduction, **options)
        assert_same(module, lambda x, y, reduce=reduce: reduce(reduced(expected(x, y)[0])), x, y)


@pytest.mark.parametrize("make", [images, unlike])
def test_piqa_multiscale(make: Callable) -> None:
    def expected(x: Tensor, y: Tensor) -> Tensor:
        return conventions.clamped_product(x, y, conventions.last_repeated, ROUNDED).mean(1)

    x, y = make(*ODD)
    module = piqa.MS_SSIM(n_channels=2, reduction="none")
    assert_same(module, expected, x, y)
    assert_same(lambda x, y: piqa.ms_ssim(x, y, module.kernel.double(), module.weights), expected, x, y)


def shown(array: Tensor) -> np.ndarray:
    return array.movedim(-3, -1).contiguous().numpy()


SKIMAGE = {
    "default": ({}, math.inf, 3, True),
    "biased": (dict(use_sample_covariance=False, win_size=9), math.inf, 4, False),
    "gaussian": (dict(gaussian_weights=True, sigma=1.2), 1.2, 4, True),
    "Wang": (dict(gaussian_weights=True, use_sample_covariance=False), 1.5, 5, False),
}


@pytest.mark.parametrize(("given", "sigma", "radius", "unbiased"), SKIMAGE.values(), ids=SKIMAGE)
def test_skimage(given: dict, sigma: float, radius: int, unbiased: bool) -> None:
    x, y = images(1, 3, 24, 31, data_range=255)
    options = dict(data_range=255.0, sample_covariance=unbiased)
    value = conventions.maps(x, y, sigma, radius, "valid", **options)[0].mean().item()
    ours = skimage.structural_similarity
    given = given | dict(data_range=255)
    actual = ours(shown(x[0]), shown(y[0]), channel_axis=-1, **given)
    assert isinstance(actual, np.float64)
    np.testing.assert_allclose(actual, value, rtol=1e-11)
    grey = conventions.maps(x[:, :1], y[:, :1], sigma, radius, "valid", **options)[0].mean().item()
    np.testing.assert_allclose(ours(x[0, 0].numpy(), y[0, 0].numpy(), **given), grey, rtol=1e-11)
    # The map: at a border the images are mirrored, with the edge twice.
    mirrored = [
        torch.from_numpy(np.pad(t[0].numpy(), [(0, 0), (radius, radius), (radius, radius)], "symmetric"))
        for t in (x, y)
    ]
    full = conventions.maps(*(t[None] for t in mirrored), sigma, radius, "valid", **options)[0][0]
    again, map_ = ours(shown(x[0]), shown(y[0]), channel_axis=-1, full=True, **given)
    np.testing.assert_allclose(again, value, rtol=1e-11)
    np.testing.assert_allclose(map_, shown(full), rtol=1e-10)


def test_skimage_gradient() -> None:
    """Of the mean of the map, by finite differences; biased covariances, of which theirs is the gradient."""
    generator = np.random.default_rng(0)
    x, y, direction = generator.random((3, 15, 18))
    options = dict(data_range=1.0, use_sample_covariance=False)
    value, gradient, map_ = skimage.structural_similarity(x, y, gradient=True, full=True, **options)
    step = 1e-5
    ends = [
        skimage.structural_similarity(x, y + s * direction, full=True, **options)[1].mean()
        for s in (step, -step)
    ]
    np.testing.assert_allclose((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-6)
    assert map_.shape == x.shape
    np.testing.assert_allclose(value, skimage.structural_similarity(x, y, **options), rtol=1e-12)
    # With sample covariances equation 7 and 8 of Avanaki 2009 in numpy, filters by their matrices.
    filters = []
    for side in x.shape:
        matrix = np.zeros((side, side))
        for i in range(side):
            for j in range(i - 3, i + 4):
                matrix[i, min(max(j, -1 - j), 2 * side - 1 - j)] += 1 / 7
        filters.append(matrix)

    def blur(image: np.ndarray) -> np.ndarray:
        return filters[0] @ image @ filters[1].T

    u_x, u_y, n = blur(x), blur(y), 49 / 48
    v_x, v_y, v_xy = (n * (blur(a * b) - blur(a) * blur(b)) for a, b in ((x, x), (y, y), (x, y)))
    a1, a2 = 2 * u_x * u_y + 1e-4, 2 * v_xy + 9e-4
    b1, b2 = u_x**2 + u_y**2 + 1e-4, v_x + v_y + 9e-4
    similarity = a1 * a2 / (b1 * b2)
    inner = (u_x * (a2 - a1) - u_y * (b2 - b1) * similarity) / (b1 * b2)
    expected = 2 / x.size * (blur(a1 / (b1 * b2)) * x - blur(similarity / b2) * y + blur(inner))
    gradient = skimage.structural_similarity(x, y, gradient=True, data_range=1.0)[1]
    np.testing.assert_allclose(gradient, expected, rtol=1e-9, atol=1e-14)


def test_torchmetrics_of_blank_images_is_no_number() -> None:
    """It finds a data range of 0 there, and divides 0 by 0."""
    blank = torch.zeros(2, 1, 180, 180)
    for function in (
        torchmetrics.structural_similarity_index_measure,
        torchmetrics.multiscale_structural_similarity_index_measure,
    ):
        assert function(blank, blank).isnan()


def test_kornia_windows_of_an_even_number_of_taps_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="even number of taps"):
        kornia.MS_SSIMLoss(sigmas=(0.5, 5.3))
