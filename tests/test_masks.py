"""Masks, and padding "normalized": against tests/masked.py, beside edges, NaN behind, bits, errors."""

from collections.abc import Callable

import masked
import pytest
import torch
import torch.nn.functional as F
from cases import (
    CASES,
    Case,
    every_halving,
    every_loss,
    every_reduction,
    pair,
    relative_error,
    value_and_gradients,
)
from test_accuracy import CONDITIONS, gradient_limit, options_of
from test_autograd import tiny_pair
from torch import Tensor, func

from ssimloss import L1SSIMLoss, MixLoss, MSSSIMLoss, SSIMLoss, ms_ssim, ms_ssim_gaussian, reference, ssim
from ssimloss.options import PADDINGS

FUNCTIONS = [ssim, ms_ssim, ms_ssim_gaussian]
every_name = pytest.mark.parametrize("name", CASES)
every_border = pytest.mark.parametrize("padding", PADDINGS)


def weights(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """A third of the weights 0, a third 1, the others between; the last rows and columns 0."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3 - 1
    mask = mask.clamp(0, 1)
    mask[..., -2:, :] = 0
    mask[..., -1:] = 0
    return mask.to(dtype)


def under(case: Case, mask: Tensor) -> Callable[..., Tensor]:
    return lambda x, y, **options: case.make(**options)(x, y, mask=mask)


# ---- Values and gradients


@pytest.mark.parametrize("shape", [(2, 1), (2, 2), (1,), (2,)], ids=str)
@every_border
@every_name
def test_against_the_windows_own_pixels(name: str, padding: str, shape: tuple[int, ...]) -> None:
    """A mask for each image and channel, for each image, for each channel, for all."""
    case = CASES[name]
    x, y = tiny_pair(case, grow=4)
    mask = weights(*shape, *x.shape[-2:])
    for reduction in case.reductions():
        options = dict(case.tiny, padding=padding, reduction=reduction, data_range=1.5, k1=0.02)
        expected, expected_grads = value_and_gradients(
            lambda x, y, **o: masked.LOSSES[name](x, y, mask if mask.dim() == 4 else mask[None], **o),
            x,
            y,
            **options,
        )
        actual, grads = value_and_gradients(under(case, mask), x, y, **options)
        assert relative_error(actual, expected) < 1e-11
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            assert relative_error(grad, expected_grad) < 1e-11
            assert torch.count_nonzero(grad[mask.expand_as(x) == 0]) == 0


@every_halving
@pytest.mark.parametrize("negative", ["continue", "clamp"])
@pytest.mark.parametrize("name", ["ms_ssim", "mix_dyadic"])
def test_pyramids(name: str, negative: str, halving: str) -> None:
    """Odd sides at two levels, and a channel of negative means."""
    case = CASES[name]
    x, y = pair(2, 2, 31, 34, dtype=torch.float64)
    x[:, 1] = 1 - y[:, 1]
    edges = weights(2, 1, 31, 34)  # without weight at the last rows and columns, then at the first
    for mask in (edges, edges.flip(-1, -2)):
        options = dict(window_size=5, weights=(0.3, 0.3, 0.4), halving=halving, negative=negative)
        expected, expected_grads = value_and_gradients(
            lambda x, y, m=mask, **o: masked.LOSSES[name](x, y, m, **o), x, y, **options
        )
        actual, grads = value_and_gradients(under(case, mask), x, y, **options)
        assert relative_error(actual, expected) < 1e-11
        assert relative_error(case.spec(x, y, mask=mask, **options), expected) < 1e-11
        assert all(relative_error(*g) < 1e-11 for g in zip(grads, expected_grads, strict=True))
        assert torch.count_nonzero(grads[0][:, 0]) > 0
        assert (torch.count_nonzero(grads[0][:, 1]) == 0) == (name == "ms_ssim" and negative == "clamp")


@every_border
@every_reduction
def test_specification(case: Case, reduction: str, padding: str) -> None:
    """reference.py computes the same from its own arguments, and its similarities are 0 where nothing is."""
    x, y = tiny_pair(case, grow=3)
    mask = weights(2, 1, *x.shape[-2:])
    options = dict(case.tiny, padding=padding, reduction=reduction)
    expected = case.spec(x, y, mask=mask, **options)
    if case in (CASES["ssim"], CASES["ms_ssim_gaussian"]) and reduction == "map":
        positions = reference.at_positions(mask, padding, case.tiny.get("window_size", 1) // 2)
        expected = torch.where(positions == 0, 0.0, expected)  # 1 - similarity was 1
    torch.testing.assert_close(under(case, mask)(x, y, **options), expected, rtol=1e-12, atol=1e-14)


@every_border
@every_name
def test_normalized_padding(name: str, padding: str) -> None:
    """It is a mask of ones with nothing around it; a mask changes nothing of that."""
    case = CASES[name]
    x, y = tiny_pair(case, grow=3)
    ones = torch.ones(1, 1, *x.shape[-2:], dtype=x.dtype)
    for reduction in case.reductions():
        options = dict(case.tiny, padding="normalized", reduction=reduction)
        expected, expected_grads = value_and_gradients(
            lambda x, y, **o: masked.LOSSES[name](x, y, ones, **o), x, y, **options
        )
        actual, grads = value_and_gradients(case.fused, x, y, **options)
        assert relative_error(actual, expected) < 1e-11
        assert all(relative_error(*g) < 1e-11 for g in zip(grads, expected_grads, strict=True))


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 2e-6)], ids=str)
@pytest.mark.parametrize("function", [ssim, ms_ssim_gaussian], ids=lambda f: f.__name__)
@every_border
def test_rectangle_is_the_crop(function: Callable, padding: str, dtype: torch.dtype, limit: float) -> None:
    """Ones in a rectangle, whatever the padding of the whole: the crop with padding="normalized"."""
    x, y = pair(2, 3, 40, 41, dtype=dtype)
    mask = torch.zeros(1, 40, 41)
    rows, cols = slice(8, 31), slice(9, 29)
    mask[:, rows, cols] = 1
    window = dict(window_size=11) if function is ssim else dict(window_size=7, sigmas=(0.7, 1.1))
    for reduction in ("mean", "none"):
        whole, grads = value_and_gradients(
            lambda *xy, r=reduction: function(*xy, mask=mask, padding=padding, reduction=r, **window), x, y
        )
        crop, crop_grads = value_and_gradients(
            lambda *xy, r=reduction: function(*xy, padding="normalized", reduction=r, **window),
            x[..., rows, cols],
            y[..., rows, cols],
        )
        assert relative_error(whole, crop) < min(limit, 1e-6)
        for grad, crop_grad in zip(grads, crop_grads, strict=True):
            assert relative_error(grad[..., rows, cols], crop_grad) < limit
            assert torch.count_nonzero(grad) == torch.count_nonzero(grad[..., rows, cols])


@pytest.mark.parametrize("condition", CONDITIONS)
@every_name
def test_float32_on_photographs(name: str, condition: str, photo) -> None:
    """The bars of test_accuracy.py."""
    case = CASES[name]
    side = 24 if case.levels == 1 else 44
    x, y = CONDITIONS[condition](photo("chelsea")[..., 60 : 60 + side, 90 : 92 + side])
    mask = weights(1, side, side + 2)
    window = dict(window_size=11) if case.levels == 1 else dict(weights=(0.5, 0.3, 0.2))
    options = options_of(condition) | window
    expected, expected_grads = value_and_gradients(
        lambda x, y, **o: masked.LOSSES[name](x, y, mask[None], **o), x.double(), y.double(), **options
    )
    actual, grads = value_and_gradients(under(case, mask), x, y, **options)
    assert actual.dtype == grads[0].dtype == torch.float32
    assert relative_error(actual, expected) < 5e-6
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert relative_error(grad, expected_grad) < gradient_limit(name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@every_loss
def test_identical_images(case: Case, dtype: torch.dtype, photo) -> None:
    y = photo("astronaut")[..., :60, :61].to(dtype)
    for scale in (1.0, 255.0):
        mask = weights(1, 60, 61)
        loss, grads = value_and_gradients(under(case, mask), scale * y, scale * y, **case.tiny)
        assert loss == 0 and all(torch.count_nonzero(grad) == 0 for grad in grads)


@every_border
@every_reduction
def test_derivatives(case: Case, reduction: str, padding: str) -> None:
    """By finite differences, first and second order, forward mode: random weights are edges everywhere."""
    x, y = (t[:1].requires_grad_() for t in tiny_pair(case, grow=1))
    loss, mask = case.make(padding=padding, reduction=reduction, **case.tiny), weights(1, *x.shape[-2:])

    def masked_loss(x: Tensor, y: Tensor) -> Tensor:
        return loss(x, y, mask=mask)

    check = dict(fast_mode=True, nondet_tol=1e-12)
    torch.autograd.gradcheck(masked_loss, (x, y), check_forward_ad=True, **check)
    torch.autograd.gradgradcheck(masked_loss, (x, y), **check)


def holed() -> tuple[Tensor, Tensor, Tensor]:
    """x, y and a mask: pixels beside an edge, on it, and behind it."""
    x, y = (t.requires_grad_() for t in pair(1, 1, 9, 10, dtype=torch.float64))
    mask = torch.ones(1, 9, 10)
    mask[:, 3:, 4:8] = 0
    mask[:, 5, 2] = 0.25
    return x, y, mask


def test_gradcheck_pixel_by_pixel() -> None:
    x, y, mask = holed()
    for loss in (
        SSIMLoss(window_size=5),
        L1SSIMLoss(window_size=5),
        MixLoss(sigmas=(0.8, 1.5), window_size=5),
    ):
        torch.autograd.gradcheck(lambda x, y, loss=loss: loss(x, y, mask=mask), (x, y))


# ---- What is left out


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e30])
@every_border
@every_loss
def test_nothing_behind_the_mask_is_seen(case: Case, padding: str, bad: float) -> None:
    """Values and gradients keep their bits, those of second order too."""
    x, y = tiny_pair(case, torch.float32, grow=5)
    mask = weights(2, 1, *x.shape[-2:])
    hidden = (mask == 0).expand_as(x)
    for reduction in case.reductions():
        options = dict(case.tiny, padding=padding, reduction=reduction)
        expected, expected_grads = value_and_gradients(under(case, mask), x, y, **options)
        spoiled = [t.masked_fill(hidden, bad) for t in (x, y)]
        actual, grads = value_and_gradients(under(case, mask), *spoiled, **options)
        assert torch.equal(actual, expected)
        assert all(torch.equal(*g) for g in zip(grads, expected_grads, strict=True))

    def twice(x: Tensor, y: Tensor) -> Tensor:
        loss = under(case, mask)(x.requires_grad_(), y, **case.tiny)
        (grad,) = torch.autograd.grad(loss, x, create_graph=True)
        return torch.autograd.grad(grad.square().sum(), x)[0]

    assert torch.equal(twice(*spoiled), twice(x.clone(), y))


def test_nan_that_is_kept_reaches_its_windows_alone() -> None:
    """And no pixel whose windows that count do not hold it."""
    x, y = pair(1, 1, 20, 24)
    x[..., 10, 20] = torch.nan
    mask = torch.ones(1, 20, 24)
    mask[..., 17:19] = 0
    loss_map = SSIMLoss(window_size=5, padding="zeros", reduction="map")(x, y, mask=mask)
    assert loss_map.isnan().sum() == 20 and loss_map[..., 8:13, 19:23].isnan().all()
    _, (grad, _) = value_and_gradients(under(CASES["ssim"], mask), x, y, window_size=5, padding="zeros")
    assert grad.isnan().sum() == 9 * 5 and grad[..., 6:15, 19:].isnan().all()


@every_border
@every_reduction
def test_no_weight_at_all(case: Case, reduction: str, padding: str) -> None:
    x, y = tiny_pair(case, torch.float32)
    x[0, 0, 0, 0] = torch.nan
    mask = torch.zeros(2, 1, *x.shape[-2:])
    loss, grads = value_and_gradients(
        under(case, mask), x, y, **dict(case.tiny, padding=padding, reduction=reduction)
    )
    assert torch.count_nonzero(loss) == 0
    assert all(torch.count_nonzero(grad) == 0 for grad in grads)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_similarity_of_nothing_is_zero(function: Callable) -> None:
    """Of an image, of the batch, at a position; and one image without weight leaves the mean alone."""
    x, y = pair(2, 3, 60, 60)
    small = dict(window_size=3) | (dict(weights=(0.5, 0.5)) if function is ms_ssim else {})
    mask = torch.ones(2, 1, 60, 60, dtype=torch.bool)
    mask[1] = False
    values = function(x, y, mask=mask, reduction="none", **small)
    torch.testing.assert_close(values[0], function(x[0], y[0], **small))
    assert values[1] == 0
    torch.testing.assert_close(function(x, y, mask=mask, **small), values[0])
    assert function(x, y, mask=torch.zeros(1, 60, 60), **small) == 0
    if function is not ms_ssim:
        similarity = function(x, y, mask=mask, reduction="map", **small)
        torch.testing.assert_close(similarity[0], function(x[0], y[0], reduction="map", **small))
        assert torch.count_nonzero(similarity[1]) == 0


def test_levels_and_channels_without_weight() -> None:
    """A level that keeps no position counts as 1, and the mean is that of the channels that keep some."""
    x, y = pair(1, 2, 60, 60, dtype=torch.float64)
    mask = torch.zeros(2, 60, 60)
    mask[0, 6:9, 6:9] = 1  # the second level has its first position at pixel 10
    options = dict(window_size=11, sigma=1.5)
    m = 1 - masked.LOSSES["ssim"](x[:, :1], y[:, :1], mask[None, :1].double(), **options)
    assert 0.05 < m < 1
    similarity, cs = (
        reference.reduce(t, "mean", reference.at_positions(mask[None, :1].double(), "valid", 5))
        for t in one_window_maps(x[:, :1], y[:, :1], mask[None, :1].double())
    )
    torch.testing.assert_close(similarity, m)
    torch.testing.assert_close(ms_ssim(x, y, mask=mask, weights=(0.4, 0.6), **options), cs**0.4)


def one_window_maps(x: Tensor, y: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    l_map, cs_map = reference.luminance_and_contrast_structure(
        x, y, 1.5, 5, 1e-4, 9e-4, "valid", 5, mask=mask
    )
    return l_map * cs_map, cs_map


# ---- A mask of ones, and kinds of masks


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@every_border
@every_reduction
def test_ones_are_no_mask(case: Case, reduction: str, padding: str, dtype: torch.dtype) -> None:
    """To the bit."""
    x, y = tiny_pair(case, dtype)
    options = dict(case.tiny, padding=padding, reduction=reduction)
    expected, expected_grads = value_and_gradients(case.fused, x, y, **options)
    for kind in (torch.bool, torch.uint8, torch.float16, torch.float64):
        for shape in ((2, 1), (2,)):
            ones = torch.ones(*shape, *x.shape[-2:], dtype=kind)
            actual, grads = value_and_gradients(under(case, ones), x, y, **options)
            assert torch.equal(actual, expected)
            assert all(torch.equal(*g) for g in zip(grads, expected_grads, strict=True))


@every_loss
def test_ones_that_are_not_looked_at(case: Case) -> None:
    """Under a transform the weights are not known: the same numbers."""
    x, y = tiny_pair(case)
    ones = torch.ones(3, 2, 1, *x.shape[-2:])
    values = func.vmap(lambda mask: case.make(**case.tiny)(x, y, mask=mask))(ones)
    torch.testing.assert_close(values, case.fused(x, y, **case.tiny).expand(3), rtol=1e-11, atol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.bfloat16, torch.float32], ids=str)
@every_loss
def test_kinds_of_masks(case: Case, dtype: torch.dtype) -> None:
    x, y = tiny_pair(case, torch.float32)
    mask = weights(2, 2, *x.shape[-2:]) > 0.5
    expected = under(case, mask)(x, y, **case.tiny)
    assert expected != 0
    for kind in (mask.to(dtype), mask.to(dtype).transpose(-1, -2).contiguous().transpose(-1, -2)):
        assert torch.equal(under(case, kind)(x, y, **case.tiny), expected)


@every_reduction
def test_one_image(case: Case, reduction: str) -> None:
    """[C, H, W], as a batch of one."""
    x, y = tiny_pair(case, torch.float32)
    mask, loss = weights(1, *x.shape[-2:]), case.make(reduction=reduction, **case.tiny)
    expected = loss(x[:1], y[:1], mask=mask)
    actual = loss(x[0], y[0], mask=mask)
    assert torch.equal(actual, expected if reduction == "mean" else expected[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@every_name
def test_half_types(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    x, y = tiny_pair(case, dtype, grow=4)
    mask = weights(2, 1, *x.shape[-2:])
    expected, expected_grads = value_and_gradients(
        lambda x, y, **o: masked.LOSSES[name](x, y, mask, **o), x.double(), y.double(), **case.tiny
    )
    actual, grads = value_and_gradients(under(case, mask), x, y, **case.tiny)
    assert actual.dtype == torch.float32 and relative_error(actual, expected) < 1e-6
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad.dtype == dtype and relative_error(grad, expected_grad) < 5e-3


# ---- Transforms and graphs


def test_a_graph_for_changing_sizes_takes_a_mask_and_ranges() -> None:
    """Sizes that have changed are symbols there, those of the first mask and the first ranges are not."""
    torch.compiler.reset()
    loss = SSIMLoss()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for batch in (2, 3, 4):
        x, y = pair(batch, 3, 10 + 10 * batch, 31)
        compiled(x, y)
    given = dict(mask=weights(batch, 1, *x.shape[2:]) > 0, data_range=torch.rand(batch) + 1)
    for names in (["mask"], ["data_range"], ["mask", "data_range"]):
        some = {name: given[name] for name in names}
        torch.testing.assert_close(compiled(x, y, **some), loss(x, y, **some))


@every_loss
def test_compile_and_export(case: Case) -> None:
    torch.compiler.reset()
    x, y = tiny_pair(case, torch.float32)
    loss, mask = case.make(**case.tiny), weights(1, *x.shape[-2:])
    expected, expected_grads = value_and_gradients(lambda x, y: loss(x, y, mask=mask), x, y)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    actual, grads = value_and_gradients(lambda x, y: compiled(x, y, mask=mask), x, y)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    assert all(relative_error(*g) < 1e-6 for g in zip(grads, expected_grads, strict=True))
    exported = torch.export.export(loss, (x, y), dict(mask=mask)).module()
    torch.testing.assert_close(exported(x, y, mask=mask), expected, rtol=1e-6, atol=0)


@every_reduction
def test_vmap(case: Case, reduction: str) -> None:
    """Over images and masks, and over masks alone; the gradient too."""
    x, y = tiny_pair(case)
    masks = torch.stack([weights(1, *x.shape[-2:], seed=seed) for seed in range(2)])
    loss = case.make(reduction=reduction, **case.tiny)

    def gradient(x: Tensor, y: Tensor, mask: Tensor) -> Tensor:
        return func.grad(lambda t: loss(t, y, mask=mask).sum())(x)

    for function in (lambda x, y, mask: loss(x, y, mask=mask), gradient):
        each = torch.stack([function(x[i], y[i], masks[i]) for i in range(2)])
        torch.testing.assert_close(func.vmap(function)(x, y, masks), each, rtol=1e-10, atol=1e-13)
        alone = torch.stack([function(x[0], y[0], mask) for mask in masks])
        over_masks = func.vmap(function, in_dims=(None, None, 0))(x[0], y[0], masks)
        torch.testing.assert_close(over_masks, alone, rtol=1e-10, atol=1e-13)


def test_weights_that_cannot_be_looked_at() -> None:
    """Outside of [0, 1] they make the loss NaN, where an error would have to wait for them."""
    x, y = pair(1, 1, 20, 20)
    for bad in (-0.5, 1.5, torch.nan):
        mask = torch.ones(1, 1, 20, 20)
        mask[..., 10, 10] = bad
        assert func.vmap(lambda m: ssim(x, y, mask=m))(mask).isnan()
        assert func.vmap(lambda m: ms_ssim(x, y, mask=m, weights=(1.0,)))(mask).isnan()


# ---- Errors

X = torch.zeros(2, 3, 20, 21)
EXPECTED = r"mask: expected shape \[1 or 3, 20, 21\] or \[2, 1 or 3, 20, 21\], got "
ERRORS = {
    "list": ([1.0], TypeError, r"mask: expected a torch\.Tensor, got list"),
    "integers": (torch.ones(1, 20, 21).int(), TypeError, r"mask: expected dtype bool, .* got torch\.int32"),
    "complex": (torch.ones(1, 20, 21) * 1j, TypeError, r"mask: expected dtype bool, .*complex64"),
    "sparse": (torch.ones(1, 20, 21).to_sparse(), TypeError, r"mask: expected layout torch\.strided, got"),
    "device": (torch.ones(1, 20, 21, device="meta"), ValueError, r"mask: expected the device of x, cpu, got"),
    "2-D": (torch.ones(20, 21), ValueError, EXPECTED + r"\[20, 21\]"),
    "side": (torch.ones(1, 20, 20), ValueError, EXPECTED + r"\[1, 20, 20\]"),
    "channels": (torch.ones(2, 2, 20, 21), ValueError, EXPECTED + r"\[2, 2, 20, 21\]"),
    "batch": (torch.ones(1, 1, 20, 21), ValueError, EXPECTED + r"\[1, 1, 20, 21\]"),
    "bytes": (torch.full((1, 20, 21), 255, dtype=torch.uint8), ValueError, r"in \[0, 1\], got .*255 to 255"),
    "negative": (torch.full((1, 20, 21), -0.5), ValueError, r"weights in \[0, 1\], got values from -0\.5"),
    "nan": (torch.full((1, 20, 21), torch.nan), ValueError, r"mask: expected weights in \[0, 1\], .*nan"),
    "gradient": (torch.ones(1, 20, 21, requires_grad=True), ValueError, r"mask: .*requires no gradient"),
}


@pytest.mark.parametrize(("mask", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(mask, error: type, message: str) -> None:
    for call in (lambda: ssim(X, X, mask=mask), lambda: MSSSIMLoss(window_size=5)(X, X, mask=mask)):
        with pytest.raises(error, match=message):
            call()


def test_errors_of_one_image() -> None:
    with pytest.raises(ValueError, match=r"mask: expected shape \[1, 20, 21\], got \[1, 1, 20, 21\]$"):
        ssim(X[0, :1], X[0, :1], mask=torch.ones(1, 1, 20, 21))


def test_a_mask_that_is_differentiated() -> None:
    """By forward mode and torch.func, too; without gradients it may require one."""
    x, y = pair(1, 1, 20, 20)
    mask = torch.rand(1, 20, 20)
    with pytest.raises(ValueError, match=r"mask: expected one that requires no gradient"):
        func.grad(lambda m: ssim(x, y, mask=m))(mask)
    with pytest.raises(ValueError, match=r"mask: expected one that requires no gradient"):
        func.jvp(lambda m: ssim(x, y, mask=m), (mask,), (mask,))
    with torch.no_grad():
        ssim(x, y, mask=mask.requires_grad_())


def test_the_smallest_images_under_normalized_padding() -> None:
    for function in FUNCTIONS:
        assert function(*pair(1, 1, 1, 1), padding="normalized") == pytest.approx(
            function(*pair(1, 1, 1, 1), padding="normalized", window_size=1), abs=1e-6
        )


def test_autocast() -> None:
    x, y = (0.9 + 0.01 * t for t in pair(1, 3, 40, 40))
    mask = weights(1, 40, 40)
    with torch.autocast("cpu", torch.bfloat16):
        value = ssim(x, y, mask=mask)
        mixed = ssim(x, y.bfloat16(), mask=mask)
    assert torch.equal(value, ssim(x, y, mask=mask)) and mixed.dtype == torch.float32


def test_memory_formats() -> None:
    """Renders as they lie: the gradient has the layout of its image."""
    x, y = (t.permute(0, 3, 1, 2).requires_grad_() for t in pair(1, 20, 21, 3))
    L1SSIMLoss()(x, y, mask=F.pad(torch.ones(1, 10, 21), [0, 0, 10, 0])).backward()
    expected = [t.detach().contiguous().requires_grad_() for t in (x, y)]
    L1SSIMLoss()(*expected, mask=F.pad(torch.ones(1, 10, 21), [0, 0, 10, 0])).backward()
    for t, e in zip((x, y), expected, strict=True):
        torch.testing.assert_close(t.grad, e.grad, rtol=1e-6, atol=0)
