"""The kernels against ssimloss.reference in float64: every option, size, layout and dtype.

float32 is held to bar 3's own limits here as well: the well-conditioned form needs no easy images.
"""

import exact
import pytest
import torch
from cases import (
    CASES,
    HALF_TYPES,
    Case,
    assert_same,
    every_loss,
    every_padding,
    every_reduction,
    pair,
    relative_error,
    sizes,
    value_and_gradients,
)
from torch import Tensor

import ssimloss
from ssimloss import reference

F64 = dict(value=1e-11, gradient=1e-10)
F32 = dict(value=5e-6, gradient=5e-6)
TOLERANCE = {torch.float64: F64, torch.float32: F32}
every_precision = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float64", "float32"])


@every_precision
@every_padding
@every_reduction
def test_value_and_both_gradients(case: Case, reduction: str, padding: str, dtype: torch.dtype) -> None:
    for seed, (height, width) in enumerate(sizes(case, padding)):
        x, y = pair(1 + seed, 2, height, width, seed=seed, dtype=dtype)
        # One row of zero padding on all sides: the shift to the local mean costs digits there.
        flat = dict(value=1e-4, gradient=1e-4) if height == 1 and dtype == torch.float32 else {}
        assert_same(case, x, y, padding=padding, reduction=reduction, **TOLERANCE[dtype] | flat)


@pytest.mark.parametrize("want", ["x", "y"])
@every_padding
@every_reduction
def test_one_gradient_alone(case: Case, reduction: str, padding: str, want: str) -> None:
    """The kernels keep fewer maps for one gradient than for both: another path."""
    side = case.least(padding) + 9
    x, y = pair(1, 3, side, side + 4)
    assert_same(case, x, y, wants=[want], padding=padding, reduction=reduction, **F32)


@every_loss
def test_options_change_what_they_say(case: Case) -> None:
    x, y = pair(1, 2, 45, 52, dtype=torch.float64)
    options = dict(data_range=2.5, k1=0.03, k2=0.2, padding="zeros", **case.tiny)
    assert_same(case, x, y, **options, **F64)


@pytest.mark.parametrize("sample_covariance", [False, True])
@pytest.mark.parametrize("window_size", [None, 1, 3, 11, 15])
@every_padding
@pytest.mark.parametrize("name", ["ssim", "l1_ssim"])
def test_uniform_windows(name: str, padding: str, window_size: int | None, sample_covariance: bool) -> None:
    options = dict(window="uniform", window_size=window_size, padding=padding)
    if window_size != 1:  # one pixel has no covariance to estimate
        options["sample_covariance"] = sample_covariance
    for reduction in ("none", "map"):
        for dtype, limits in TOLERANCE.items():
            x, y = pair(2, 2, 21, 35, dtype=dtype)
            assert_same(CASES[name], x, y, reduction=reduction, **options, **limits)


@pytest.mark.parametrize("constants", [dict(k1=1e-9), dict(k2=1e-9), dict(k1=1e9), dict(k2=5e18)], ids=str)
def test_extreme_constants(constants: dict[str, float]) -> None:
    assert_same(CASES["ssim"], *pair(1, 2, 30, 33), **constants, **F32)


@pytest.mark.parametrize("sigmas", [(2.0,), (1.0, 3.0), (8.0, 0.5, 2.0), (1.0,) * 16])
def test_any_sigmas_in_any_order(sigmas: tuple[float, ...]) -> None:
    x, y = pair(1, 1, 61, 70, dtype=torch.float64)
    assert_same(CASES["mix"], x, y, sigmas=sigmas, **F64)


@pytest.mark.parametrize("weights", [(1.0,), (0.5, 0.5), (0.0, 1.0, 2.0), (0.2,) * 6])
@every_padding
def test_any_levels(weights: tuple[float, ...], padding: str) -> None:
    """As many levels as weights, down to the least size (even at every level, or never)."""
    case = CASES["mix_dyadic"]
    side = case.least(padding, 3, len(weights))
    for height, width in ((side, side + 1), (side + 31, side + 18)):
        x, y = pair(1, 2, height, width, dtype=torch.float64)
        assert_same(case, x, y, weights=weights, window_size=3, padding=padding, **F64)


@pytest.mark.parametrize("alpha", [0.0, 0.025, 1.0])
def test_weights_of_the_two_terms(alpha: float) -> None:
    x, y = pair(2, 3, 40, 37, dtype=torch.float64)
    tiny = CASES["mix"].tiny
    assert_same(CASES["mix"], x, y, alpha=alpha, l1_range=1.0, data_range=3.0, **tiny, **F64)
    assert_same(CASES["mix_dyadic"], x, y, alpha=alpha, l1_range=7.0, window_size=3, **F64)
    assert_same(CASES["l1_ssim"], x, y, ssim_weight=alpha, data_range=3.0, padding="valid", **F64)


@pytest.mark.parametrize("taps", [1, 3, 7, 31])
@every_padding
@every_loss
def test_window_size_down_to_the_window(case: Case, padding: str, taps: int) -> None:
    levels = dict(weights=(0.6, 0.4)) if case.levels > 1 else {}
    least = case.least(padding, taps, 2 if levels else 1)
    x, y = pair(1, 2, least, least + 1, dtype=torch.float64)
    assert_same(case, x, y, window_size=taps, padding=padding, **levels, **F64)


@pytest.mark.parametrize("shape", [(1, 1, 300, 1500), (1, 2, 1100, 161), (2, 5, 164, 331)], ids=str)
@every_loss
def test_images_of_many_strips_and_bands(case: Case, shape: tuple[int, ...]) -> None:
    """The seams between strips of columns and bands of rows must not show (exact.py: fast)."""
    name = next(name for name, other in CASES.items() if other is case)
    fast = case._replace(spec=exact.LOSSES[name])
    assert_same(fast, *pair(*shape), padding="reflect", **F32)


@pytest.mark.parametrize("channels", [1, 5])
@every_loss
def test_channels_and_images_without_batch(case: Case, channels: int) -> None:
    x, y = pair(channels, 41, 38)
    tiny = case.tiny
    expected, expected_grads = value_and_gradients(case.fused, x[None], y[None], **tiny)
    actual, grads = value_and_gradients(case.fused, x, y, **tiny)
    assert actual.shape == () and torch.equal(actual, expected)
    assert all(torch.equal(g, e[0]) for g, e in zip(grads, expected_grads, strict=True))
    assert_same(case, x[None], y[None], **tiny, **F32)
    for reduction in case.reductions()[1:]:
        batched = case.fused(x[None], y[None], reduction=reduction, **tiny)
        single = case.fused(x, y, reduction=reduction, **tiny)
        assert torch.equal(single, batched[0])


def layouts(t: Tensor) -> dict[str, Tensor]:
    """The images of t [2, 3, 40, 44] (or others as large) laid out otherwise in memory."""
    wide = torch.zeros(3, 5, 50, 60, dtype=t.dtype)
    wide[1:, 1:4, 3:43, 5:49] = t
    return {
        "channels_last": t.contiguous(memory_format=torch.channels_last),
        "crop": wide[1:, 1:4, 3:43, 5:49],
        "crop of channels_last": wide.contiguous(memory_format=torch.channels_last)[1:, 1:4, 3:43, 5:49],
        "transposed": t.mT.contiguous().mT,
        "every other": t.repeat_interleave(2, -1).repeat_interleave(2, -2)[..., ::2, ::2],
        "expanded batch": t[:1].expand(2, -1, -1, -1),
        "expanded channels": t[:, :1].expand(-1, 3, -1, -1),
        "expanded rows": t[:, :, :1].expand(-1, -1, 40, -1),
        "flipped channels": t.flip(1).transpose(0, 1).contiguous().transpose(0, 1),
    }


@pytest.mark.parametrize("layout", layouts(torch.zeros(2, 3, 40, 44)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@every_loss
def test_any_strides(case: Case, dtype: torch.dtype, layout: str) -> None:
    """One image laid out so, the other plain, then both: the same bits as both plain."""
    x, y = (layouts(t)[layout] for t in pair(2, 3, 40, 44, dtype=dtype))
    plain_x, plain_y = x.contiguous(), y.contiguous()
    expected, expected_grads = value_and_gradients(case.fused, plain_x, plain_y, **case.tiny)
    for images in ((x, plain_y), (plain_x, y), (x, y)):
        actual, grads = value_and_gradients(case.fused, *images, **case.tiny)
        assert torch.equal(actual, expected)
        assert all(torch.equal(g, e) for g, e in zip(grads, expected_grads, strict=True))


@pytest.mark.parametrize("layout", ["plain", *layouts(torch.zeros(2, 3, 40, 44)), "one row", "one column"])
def test_gradients_have_the_strides_of_empty_like(layout: str) -> None:
    """What torch.compile was told of them, and what lets a leaf take its gradient over."""
    plain = pair(2, 3, 40, 44)[0]
    others = {"plain": plain, "one row": plain[:, :, :1], "one column": plain[..., :1].contiguous()}
    images = (layouts(plain) | others)[layout]
    for x in (images, images[:, :1], images[:1].expand(2, -1, -1, -1), images[:, :1].expand(-1, 3, -1, -1)):
        grad = value_and_gradients(ssimloss.SSIMLoss(window_size=1), x, x.clone(), "x")[1][0]
        assert grad.stride() == torch.empty_like(x).stride()


def test_incoming_gradient_of_any_strides() -> None:
    """The incoming gradient of a map or of "none" is often expanded (.sum()) or transposed."""
    x, y = pair(2, 3, 30, 31)
    x.requires_grad_()
    for reduction, shape in (("map", (2, 3, 20, 21)), ("none", (2,))):
        loss = ssimloss.SSIMLoss(reduction=reduction)(x, y)
        assert loss.shape == shape
        one = torch.tensor(0.7).expand(shape)
        wide = torch.full((*shape[:-1], 2 * shape[-1]), 0.7)[..., ::2]
        for incoming in (one, wide, one.contiguous().mT.contiguous().mT if one.dim() > 1 else one):
            actual = torch.autograd.grad(loss, x, incoming, retain_graph=True)
            expected = torch.autograd.grad(loss, x, one.contiguous(), retain_graph=True)
            assert relative_error(actual[0], expected[0]) < 1e-6


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=["float16", "bfloat16"])
@every_padding
@every_reduction
def test_half_types(case: Case, reduction: str, padding: str, dtype: torch.dtype) -> None:
    """Computed in float32 from the rounded inputs; the gradient is rounded once, at the end."""
    side = case.least(padding) + 5
    x, y = pair(2, 3, side, side + 6, dtype=dtype)
    # As under loss scaling: the gradients of a mean stay clear of float16's subnormal numbers.
    factor = 1.0 if reduction == "map" else 8192.0
    scaled = case._replace(
        make=lambda **o: lambda x, y: case.fused(x, y, **o) * factor,
        spec=lambda x, y, **o: case.spec(x, y, **o) * factor,
    )
    half_an_ulp = torch.finfo(dtype).eps / 2
    assert_same(scaled, x, y, padding=padding, reduction=reduction, value=1e-6, gradient=half_an_ulp)


@pytest.mark.parametrize("name", ["ssim", "ms_ssim", "ms_ssim_gaussian"])
def test_similarities_are_what_the_reference_says(name: str) -> None:
    x, y = pair(2, 3, 163, 166, dtype=torch.float64)
    for options in ({}, dict(reduction="none", padding="zeros", window_size=7, data_range=2.0)):
        actual = getattr(ssimloss, name)(x, y, **options)
        torch.testing.assert_close(actual, getattr(reference, name)(x, y, **options), rtol=0, atol=1e-12)
        modules = dict(
            ssim=ssimloss.SSIMLoss,
            ms_ssim=lambda **o: ssimloss.MSSSIMLoss("dyadic", **o),
            ms_ssim_gaussian=ssimloss.MSSSIMLoss,
        )
        assert torch.equal(1 - actual, 1 - (1 - modules[name](**options)(x, y)))
