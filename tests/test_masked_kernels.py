"""The kernels under masks and padding "normalized", against plain torch in float64: larger images than
test_masks.py's, cut into strips, bands and groups; and what float32 could not hold."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from cases import CASES, Case, every_loss, pair, relative_error, value_and_gradients
from test_masks import FUNCTIONS, every_border, every_name, under, weights
from torch import Tensor

from ssimloss import L1SSIMLoss, SSIMLoss, images, ms_ssim, ssim

KINDS = ("soft", "bits", "hole", "none")


def mask_of(kind: str, n: int, c: int, height: int, width: int) -> Tensor | None:
    """Soft and hard weights, one mask for all channels; a hole, another in each; none: the padding alone."""
    if kind == "none":
        return None
    if kind != "hole":
        soft = weights(n, 1, height, width)
        return soft if kind == "soft" else soft > 0
    hole = torch.ones(n, c, height, width, dtype=torch.uint8)
    for channel in range(c):
        hole[:, channel, height // 4 : height // 2, width // 3 : width // 2 + channel] = 0
    return hole


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Tensor, list[Tensor]]]:
    """Values and gradients by reference.py, in float64."""

    def compute(case: Case, x: Tensor, y: Tensor, mask: Tensor | None, **options) -> tuple:
        with monkeypatch.context() as patch:
            patch.setattr(images, "have_kernels", lambda *_: False)
            if mask is not None:
                mask = mask.double()
            return value_and_gradients(under(case, mask), x.double(), y.double(), **options)

    return compute


def options_of(name: str) -> dict:
    if "dyadic" in name or name == "ms_ssim":
        return dict(weights=(0.3, 0.3, 0.4))
    return dict(window_size=17) if CASES[name].taps > 11 else {}


@every_border
@every_name
def test_kernels_compute_them(name: str, padding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor goes through plain torch."""

    def plain_loss(*args) -> None:
        raise AssertionError("plain torch")

    monkeypatch.setattr(images, "plain_loss", plain_loss)
    x, y = pair(2, 2, 60, 60)
    options = options_of(name) | dict(padding=padding)
    value_and_gradients(under(CASES[name], weights(60, 60)[None]), x, y, **options)
    value_and_gradients(CASES[name].fused, x, y, **options | dict(padding="normalized"))


@pytest.mark.parametrize("shape", [(1, 1, 50, 1300), (5, 3, 45, 50)], ids=str)
@pytest.mark.parametrize("kind", KINDS)
@every_name
def test_cuts(name: str, kind: str, shape: tuple[int, ...], plain) -> None:
    """Strips and bands of wide images, groups of narrow ones; NaN where nothing is kept."""
    case = CASES[name]
    x, y = pair(*shape)
    mask = mask_of(kind, *shape)
    as_it_lies = dict(xy=mask, x=mask if mask is None else mask.mT.contiguous().mT)
    paddings = dict(none=("normalized",), soft=("valid", "zeros"), bits=("reflect",), hole=("normalized",))
    for padding in paddings[kind]:
        options = options_of(name) | dict(padding=padding)
        expected, expected_grads = plain(case, x, y, mask, **options)
        seen = [x, y] if mask is None else [t.masked_fill(mask == 0, torch.nan) for t in (x, y)]
        for want in ("xy", "x"):
            with threads(2):
                actual, grads = value_and_gradients(under(case, as_it_lies[want]), *seen, want, **options)
            assert relative_error(actual, expected) < 1e-6
            for grad, expected_grad in zip(grads, expected_grads, strict=False):
                assert relative_error(grad, expected_grad) < 3e-6
        assert relative_error(under(case, mask)(*seen, **options), expected) < 1e-6


@every_loss
def test_threads_change_no_bit(case: Case) -> None:
    x, y = pair(1, 1, 150, 70)
    mask = weights(1, 150, 70)
    results = []
    for count in (1, 3):
        with threads(count):
            results.append(value_and_gradients(under(case, mask), x, y, **dict(case.tiny, padding="zeros")))
    (value, grads), (other, other_grads) = results
    assert torch.equal(value, other) and all(map(torch.equal, grads, other_grads))


@pytest.mark.parametrize("factor", [0.3, 1e-9, 1e-35])
@every_name
def test_weights_count_relative_to_each_other(name: str, factor: float) -> None:
    """Also those whose products with squares float32 does not hold."""
    case = CASES[name]
    x, y = pair(2, 2, 60, 64)
    mask = weights(2, 1, 60, 64, dtype=torch.float32)
    for padding in ("valid", "zeros"):
        options = options_of(name) | dict(padding=padding)
        expected, expected_grads = value_and_gradients(under(case, mask), x, y, **options)
        actual, grads = value_and_gradients(under(case, mask * factor), x, y, **options)
        assert relative_error(actual, expected) < 1e-6
        assert all(relative_error(*g) < 5e-6 for g in zip(grads, expected_grads, strict=True))


@pytest.mark.parametrize(("dtype", "sigma"), [(torch.float32, 2.0), (torch.float64, 1.0)], ids=str)
@pytest.mark.parametrize("window", [0.5, 0.8, 1.5])
@every_name
def test_weights_that_fade_to_nothing(
    name: str, window: float, dtype: torch.dtype, sigma: float, plain
) -> None:
    """Down to the last that the dtype holds, under windows whose last taps are tiny, too."""
    case = CASES[name]
    x, y = pair(1, 2, 41, 60, dtype=dtype)
    rows, cols = torch.arange(41)[:, None] - 3, torch.arange(60) - 5
    mask = torch.exp(-(rows**2 + cols**2).to(dtype) / (2 * sigma**2))[None]
    mask[..., 50:] = torch.finfo(dtype).tiny / 1000  # whose inverse no dtype holds
    assert (mask == 0).any()
    options = dict(window_size=17, padding="zeros")
    if name in ("ms_ssim_gaussian", "mix"):
        options["sigmas"] = (window, 2 * window)
    elif name != "l1":
        options |= dict(sigma=window) | (dict(weights=(0.5, 0.5)) if case.levels > 1 else {})
    expected, expected_grads = plain(case, x, y, mask, **options)
    limit = 1e-12 if dtype == torch.float64 else 5e-6
    for want in ("xy", "x"):
        actual, grads = value_and_gradients(under(case, mask), x, y, want, **options)
        assert relative_error(actual, expected) < limit
        assert all(relative_error(*g) < limit for g in zip(grads, expected_grads, strict=False))
    assert relative_error(under(case, mask)(x, y, **options), expected) < limit


@every_name
def test_weights_of_positions_far_below_those_beside_them(name: str, plain) -> None:
    """The windows of such positions see little but pixels that are none, and have the whole gradient."""
    case = CASES[name]
    x, y = pair(1, 2, 40, 41)
    mask = torch.full((1, 40, 41), 1e-30)
    mask[:, :3] = 1
    options = options_of(name) | (dict(window_size=7, sigma=1.5) if case.levels > 1 else {})
    if "sigmas" in case.tiny:  # no taps that windows.h leaves out
        options["sigmas"] = (1.5, 3.0)
    expected, expected_grads = plain(case, x, y, mask, **options)
    actual, grads = value_and_gradients(under(case, mask), x, y, **options)
    assert relative_error(actual, expected) < 5e-6
    assert all(relative_error(*g) < 5e-6 for g in zip(grads, expected_grads, strict=True))


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_weights_that_the_images_dtype_cannot_hold(function: Callable) -> None:
    """They count as 0 in the loss, and in what it is taken off."""
    small = dict(window_size=3) | (dict(weights=(0.5, 0.5)) if function is ms_ssim else {})
    for dtype, weight in ((torch.float32, 1e-50), (torch.float16, 1e-50), (torch.float64, 1e-310)):
        x, y = pair(1, 1, 20, 21, dtype=dtype)
        mask = torch.full((1, 20, 21), weight, dtype=torch.float64)
        assert function(x, y, mask=mask, **small) == 0
        mask[:, :10] = 1
        rest = (mask == 1).to(dtype)
        assert torch.equal(function(x, y, mask=mask, **small), function(x, y, mask=rest, **small))


@every_loss
def test_nan_that_is_kept_reaches_nothing_behind_the_mask(case: Case) -> None:
    """Nor by the mean of a level, which all gradients of the dyadic form are multiplied by."""
    x, y = pair(1, 1, 25, 26)
    x[..., 12, 12] = torch.nan
    mask = weights(1, 25, 26)
    mask[:, 12, 12] = 1
    loss, grads = value_and_gradients(under(case, mask), x, y, **case.tiny)
    assert loss.isnan() and all(grad.isnan().any() for grad in grads)
    assert all(torch.count_nonzero(grad[..., mask[0] == 0]) == 0 for grad in grads)


LONE_PLANE = """
import torch
from ssimloss import SSIMLoss, reference

for width, by_columns in ((24, False), (64, True)):  # read in the ways of short segments and of long ones
    generator = torch.Generator().manual_seed(0)
    y, x = torch.rand(2, 1, 9, 24, width, generator=generator)
    mask = torch.rand(1, 24, width, generator=generator) > 0.3
    mask = mask.mT.contiguous().mT if by_columns else mask
    x = torch.where(mask, x, 10.0).requires_grad_()
    wide = x.detach().double().requires_grad_()
    loss = SSIMLoss()(x, y, mask=mask)
    expected = 1 - reference.ssim(wide, y.double(), mask=mask[None].double())
    loss.backward(), expected.backward()
    assert abs(loss - expected) < 1e-6, (width, loss, expected)
    assert (x.grad - wide.grad).abs().max() < 1e-5 * wide.grad.abs().max(), width
"""


@pytest.mark.parametrize("variant", ["baseline", "x86-64-v3", "x86-64-v4"])
def test_lanes_beside_a_lone_plane(variant: str, python) -> None:
    """Of 9 planes the last lies beside lanes of none, which see what is behind its mask: it is done, too."""
    done = python(LONE_PLANE, SSIMLOSS_CPU=variant)
    if "SSIMLOSS_CPU: expected" in done.stderr:
        pytest.skip(f"this machine runs no {variant}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("target", [torch.uint8, torch.float16], ids=str)
@pytest.mark.parametrize("hidden", [torch.nan, 1e30])
def test_hidden_pixels_beside_a_converted_target(target: torch.dtype, hidden: float) -> None:
    """In float64, in planes cut into strips: what a strip reads beyond its columns has its weights, too."""
    for width in (131, 183, 300, 513):
        x, y = pair(1, 1, 24, width, dtype=torch.float64)
        y = (255 * y).to(target) if target == torch.uint8 else y.to(target)
        mask = torch.rand(1, 1, 24, width, generator=torch.Generator().manual_seed(1)) < 0.2
        results = []
        for behind in (0.5, hidden):
            leaf = torch.where(mask, x, behind).requires_grad_()
            for loss in (SSIMLoss(), L1SSIMLoss()):
                value = loss(leaf, y, mask=mask)
                results.append((value.detach(), *torch.autograd.grad(value, leaf)))
        for expected, found in zip(results[:2], results[2:], strict=True):
            assert all(map(torch.equal, expected, found)), width


@pytest.mark.parametrize("name", ["ssim", "ms_ssim_gaussian", "ms_ssim"])
def test_contrasts_beyond_float32(name: str, plain) -> None:
    """A plane of more than 8 data ranges is computed in double: its gradient is right but for rounding."""
    x, y = pair(1, 2, 70, 64)
    for image in (x, y):
        image[:, 0] = 0.5 + 0.01 * image[:, 0]
        image[:, 0, :, 35:37] += 100.0
    mask = weights(1, 70, 64)
    options = options_of(name)
    expected, expected_grads = plain(CASES[name], x, y, mask, **options)
    actual, grads = value_and_gradients(under(CASES[name], mask), x, y, **options)
    assert relative_error(actual, expected) < 1e-6
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert relative_error(grad[:, 0], expected_grad[:, 0]) < 8e-8
        assert relative_error(grad[:, 1], expected_grad[:, 1]) < 5e-6


@pytest.mark.parametrize(
    "window", [dict(window="uniform"), dict(sigma=0.6), dict(sigma=3.0), dict(window_size=1)], ids=str
)
@every_border
def test_windows(window: dict, padding: str, plain) -> None:
    """One that is none of Wang's: uniform, much narrower, wider, of one pixel."""
    x, y = pair(2, 1, 40, 61)
    mask = weights(2, 1, 40, 61)
    options = window | dict(padding=padding)
    # Where the images are dark, 16 columns from their base, single positions have fewer digits.
    for reduction, limit in (("mean", 2e-6), ("map", 2e-5)):
        options["reduction"] = reduction
        expected, expected_grads = plain(CASES["ssim"], x, y, mask, **options)
        actual, grads = value_and_gradients(under(CASES["ssim"], mask), x, y, **options)
        assert relative_error(actual, expected) < limit
        assert all(relative_error(*g) < limit for g in zip(grads, expected_grads, strict=True))


def test_a_batch_that_sees_whole_rows_alone() -> None:
    """Far from what a mask leaves out, a map keeps its bits."""
    x, y = pair(1, 1, 120, 50)
    mask = torch.ones(1, 120, 50)
    mask[:, 60:, 20] = 0.5
    whole, under_mask = (SSIMLoss(reduction="map")(x, y, mask=m) for m in (None, mask))
    assert torch.equal(whole[..., :40, :], under_mask[..., :40, :])
    assert not torch.equal(whole[..., 50:, :], under_mask[..., 50:, :])


@pytest.mark.parametrize("padding", ["valid", "zeros", "normalized"])
@every_name
def test_bytes_as_they_lie(name: str, padding: str) -> None:
    """The kernels read bool and uint8 themselves: to the bit as the same weights in float32."""
    x, y = pair(2, 3, 61, 300)
    wide = torch.rand(2, 3, 61, 333, generator=torch.Generator().manual_seed(3)) < 0.8
    wide[..., 40:60, :] = True  # rows of ones
    wide[:, 1, :, 150:] = False
    whole = wide[..., :300].contiguous()
    options = options_of(name) | dict(padding=padding)
    for mask in (whole, wide[:, 1:2, :, 17:317], wide[0, :, :, 33:], whole.mT.contiguous().mT):
        seen = [t.masked_fill(~mask, torch.nan) for t in (x, y)]
        expected, expected_grads = value_and_gradients(under(CASES[name], mask.float()), x, y, **options)
        for given in (mask, mask.to(torch.uint8)):
            actual, grads = value_and_gradients(under(CASES[name], given), *seen, **options)
            assert torch.equal(actual, expected)
            assert all(torch.equal(*g) for g in zip(grads, expected_grads, strict=True))


def test_masks_of_operators() -> None:
    """The operators say what they take."""
    x, y = pair(2, 3, 30, 31)
    options = SSIMLoss().options
    for bad in (torch.ones(2, 2, 30, 31), torch.ones(1, 30, 31), torch.ones(1, 1, 30, 31).double()):
        with pytest.raises(ValueError, match="mask: expected the sides of x, in the dtype of the loss"):
            options.op(x, y, 1.0, False, False, *options._replace(mask=bad))
    with pytest.raises(ValueError, match="padding: expected another than normalized for details"):
        normalized = options._replace(padding="normalized")
        normalized.detailed_op(x, y, 1.0, False, False, False, *normalized)


def test_ranges_of_images_under_a_mask(plain) -> None:
    """A range for each image, beside a mask; and l1, which is in units of the images."""
    x, y = pair(2, 2, 30, 31)
    mask, ranges = weights(2, 1, 30, 31), torch.tensor([0.5, 2.0])
    for name in ("ssim", "l1_ssim", "mix", "ms_ssim"):
        loss = CASES[name].make(**dict(CASES[name].tiny, reduction="none"))
        each = [loss(x[i], y[i], mask=mask[i], data_range=ranges[i]) for i in range(2)]
        torch.testing.assert_close(
            loss(x, y, mask=mask, data_range=ranges), torch.stack(each), rtol=1e-6, atol=0
        )
    assert ssim(
        x, y, mask=mask, data_range=torch.tensor([0.5, torch.nan]), reduction="none"
    ).isnan().tolist() == [False, True]


@pytest.mark.parametrize("rows", [slice(1, None, 8), slice(3, None, 4), slice(0, None, 7)], ids=str)
@pytest.mark.parametrize("name", ["ssim", "ms_ssim_gaussian", "ms_ssim"])
def test_few_rows_far_from_zero(name: str, rows: slice, plain) -> None:
    """Rows that the samples of a plane and of a batch may miss, of images whose differences are small."""
    case = CASES[name]
    x, y = (0.9 + 1e-3 * image for image in pair(1, 1, 96, 96))
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., rows, :] = 1
    value, gradients = value_and_gradients(under(case, mask), x, y, **options_of(name))
    expected, exact = plain(case, x, y, mask, **options_of(name))
    assert relative_error(value, expected) < 5e-6
    for gradient, right in zip(gradients, exact, strict=True):
        assert relative_error(gradient, right) < 5e-6


@pytest.mark.parametrize("shape", [(2, 2, 9, 20, 23), (1, 1, 16, 40, 300)], ids=str)
@every_border
@pytest.mark.parametrize("loss", [SSIMLoss, L1SSIMLoss])
def test_volumes(loss: type, padding: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones and one of many items; soft weights, bits, and padding alone; NaN where nothing is kept."""
    soft = weights(shape[0], 1, *shape[2:])
    masks = [soft, soft > 0, torch.ones(shape)] if padding == "normalized" else [soft, soft > 0]
    window = dict(sigma=(0.8, 1.2, 1.0), window_size=(3, 7, 5), padding=padding)

    def value_and_gradient(x: Tensor, y: Tensor, mask: Tensor, want: str, reduction: str) -> tuple:
        return value_and_gradients(
            lambda x, y: loss(reduction=reduction, **window)(x, y, mask=mask), x, y, want
        )

    for mask, reduction in itertools.product(masks, ("mean", "none", "map")):
        x, y = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2))
        seen = [t.masked_fill(mask == 0, torch.nan) for t in (x, y)]
        with monkeypatch.context() as patch:
            patch.setattr(images, "have_kernels", lambda *_: False)
            expected, expected_grads = value_and_gradient(x.double(), y.double(), mask, "xy", reduction)
        for want in ("x", "xy"):
            actual, grads = value_and_gradient(*seen, mask, want, reduction)
            assert relative_error(actual, expected) < 2e-7
            assert all(relative_error(*g) < 2e-7 for g in zip(grads, expected_grads, strict=False))
            assert all(torch.count_nonzero(grad[mask.expand_as(x) == 0]) == 0 for grad in grads)
        wide, grads = value_and_gradient(*(t.double() for t in seen), mask, "y", reduction)
        assert relative_error(wide, expected) < 1e-13
        assert relative_error(grads[0], expected_grads[1]) < 1e-13


def test_a_volume_of_which_a_mask_leaves_nothing() -> None:
    x, y = (torch.rand(2, 1, 5, 6, 7) for _ in range(2))
    mask = torch.ones(2, 1, 5, 6, 7)
    mask[1] = 0
    for loss in (SSIMLoss, L1SSIMLoss):
        make = loss(window_size=3, reduction="none")
        value, grads = value_and_gradients(lambda x, y, make=make: make(x, y, mask=mask), x, y)
        assert value[0] > 0 and value[1] == 0 and torch.count_nonzero(grads[0][1]) == 0


def test_threads_change_no_bit_of_a_volume() -> None:
    x, y = (torch.rand(1, 2, 12, 40, 70) for _ in range(2))
    mask = weights(1, 1, 12, 40, 70)
    results = []
    for count in (1, 3):
        with threads(count):
            loss = L1SSIMLoss(padding="zeros")
            results.append(value_and_gradients(lambda x, y, loss=loss: loss(x, y, mask=mask), x, y))
    (value, grads), (other, other_grads) = results
    assert torch.equal(value, other) and all(map(torch.equal, grads, other_grads))
