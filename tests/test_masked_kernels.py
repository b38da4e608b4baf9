"""The kernels under masks and padding "normalized", against plain torch in float64: larger images than
test_masks.py's, cut into strips, bands and groups; and what float32 could not hold."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from cases import CASES, Case, every_loss, pair, relative_error, value_and_gradients
from test_masks import every_border, every_name, under, weights
from torch import Tensor

from ssimloss import SSIMLoss, images, ssim

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


def test_masks_of_operators() -> None:
    """The operators say what they take."""
    x, y = pair(2, 3, 30, 31)
    options = SSIMLoss().options
    for bad in (torch.ones(2, 2, 30, 31), torch.ones(1, 30, 31), torch.ones(1, 1, 30, 31).double()):
        with pytest.raises(ValueError, match="mask: expected the sides of x, in the dtype of the loss"):
            options.op(x, y, 1.0, False, False, *options._replace(mask=bad))
    volume = SSIMLoss()._of_any_rank.volumes
    with pytest.raises(ValueError, match="padding: expected another than normalized for volumes"):
        volume.op(
            x[None],
            y[None],
            1.0,
            False,
            False,
            *volume._replace(padding="normalized", window_sizes=(1, 1, 1)),
        )


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
