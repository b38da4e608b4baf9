"""Masks and padding "normalized" in the CUDA kernels without a GPU: with the fixtures of test_cuda_shim.py,
against what test_masks.py and test_masked_kernels.py hold the CPU's to."""

import platform
from collections.abc import Callable
from types import ModuleType, SimpleNamespace

import masked
import pytest
import test_masked_kernels
import test_masks
import torch
from cases import CASES, pair, relative_error, value_and_gradients
from test_cuda_shim import cuda_operators, library  # noqa: F401  (fixtures)
from test_masked_kernels import mask_of, options_of, plain  # noqa: F401  (plain is a fixture)
from test_masks import every_border, every_name, under, weights

from ssimloss import L1Loss, MixLoss, SSIMLoss, images, masks

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the shim's fibers are x86-64")

test_against_the_windows_own_pixels = test_masks.test_against_the_windows_own_pixels
test_pyramids = test_masks.test_pyramids
test_specification = test_masks.test_specification
test_normalized_padding = test_masks.test_normalized_padding
test_rectangle_is_the_crop = test_masks.test_rectangle_is_the_crop
test_float32_on_photographs = test_masks.test_float32_on_photographs
test_identical_images = test_masks.test_identical_images
test_nothing_behind_the_mask_is_seen = test_masks.test_nothing_behind_the_mask_is_seen
test_nan_that_is_kept_reaches_its_windows_alone = test_masks.test_nan_that_is_kept_reaches_its_windows_alone
test_no_weight_at_all = test_masks.test_no_weight_at_all
test_similarity_of_nothing_is_zero = test_masks.test_similarity_of_nothing_is_zero
test_levels_and_channels_without_weight = test_masks.test_levels_and_channels_without_weight
test_ones_that_are_not_looked_at = test_masks.test_ones_that_are_not_looked_at
test_kinds_of_masks = test_masks.test_kinds_of_masks
test_half_types = test_masks.test_half_types
test_vmap = test_masks.test_vmap
test_weights_that_cannot_be_looked_at = test_masks.test_weights_that_cannot_be_looked_at
test_the_smallest_images = test_masks.test_the_smallest_images_under_normalized_padding
test_memory_formats = test_masks.test_memory_formats
test_cuts = test_masked_kernels.test_cuts
test_weights_count_relative_to_each_other = test_masked_kernels.test_weights_count_relative_to_each_other
test_weights_that_fade_to_nothing = test_masked_kernels.test_weights_that_fade_to_nothing
test_weights_far_below = test_masked_kernels.test_weights_of_positions_far_below_those_beside_them
test_weights_that_cannot_be_held = test_masked_kernels.test_weights_that_the_images_dtype_cannot_hold
test_nan_that_is_kept = test_masked_kernels.test_nan_that_is_kept_reaches_nothing_behind_the_mask
test_windows = test_masked_kernels.test_windows
test_ranges_of_images_under_a_mask = test_masked_kernels.test_ranges_of_images_under_a_mask
test_few_rows_far_from_zero = test_masked_kernels.test_few_rows_far_from_zero


def on_cuda(x: torch.Tensor, options: object) -> bool:
    return masks.have_kernels(SimpleNamespace(device=torch.device("cuda"), dtype=x.dtype), options)


@pytest.fixture(autouse=True)
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "have_kernels", on_cuda)
    # Bytes stay bytes on the CPU alone.
    monkeypatch.setattr(images, "as_weights", lambda mask, dtype: masks.as_weights(mask, dtype).to(dtype))


def test_have_kernels() -> None:
    """CUDA's take masks, but for volumes, and in float64 where each level has a mean, or there is none."""
    for name, case in CASES.items():
        options = case.make(padding="normalized").options if name != "l1" else case.make().options
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
            whole = dtype != torch.float64 or name not in ("l1", "ms_ssim", "mix_dyadic")
            assert on_cuda(torch.empty(0, dtype=dtype), options) == whole
    assert not on_cuda(torch.empty(0), SSIMLoss()._of_any_rank.volumes)


@pytest.mark.parametrize("name", ["ssim", "l1_ssim", "mix"])
def test_pixel_by_pixel(name: str) -> None:
    """Where finite differences try the CPU's."""
    x, y, mask = test_masks.holed()
    options = dict(window_size=5) | (dict(sigmas=(0.8, 1.5)) if name == "mix" else {})
    expected = value_and_gradients(lambda x, y: masked.LOSSES[name](x, y, mask[None], **options), x, y)
    actual = value_and_gradients(under(CASES[name], mask), x, y, **options)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-12)


BEFORE = ["weights", "planes", "means"]
LAUNCHES = {
    ("l1", "xy"): [*BEFORE, "l1", "finish"],
    ("ssim", "x"): [*BEFORE, "ring", "finish"],
    ("ssim", "xy"): [*BEFORE, "ring", "finish", *BEFORE, "ring"],
    ("ssim", ""): [*BEFORE, "scales", "finish"],
    ("mix", "y"): [*BEFORE, "scales", "adjoint", "gather", "finish"],
    ("ms_ssim", "x"): [*BEFORE, "ring", "pool", *BEFORE, "ring", "combine"],
    ("mix_dyadic", "x"): [
        *BEFORE,
        *2 * ["scales", "adjoint", "gather"],  # the second for l1
        "pool",
        *BEFORE,
        "ring",
        "combine",
    ],
}


@pytest.mark.parametrize(("name", "want"), LAUNCHES)
def test_launches(name: str, want: str, launched: Callable[..., list[str]]) -> None:
    case = CASES[name]
    options = dict(weights=(0.5, 0.5)) if case.levels > 1 else {}
    x, y = pair(1, 2, 70, 80)
    leaves = [t.requires_grad_(name in want) for name, t in (("x", x), ("y", y))]
    mask = weights(1, 70, 80)
    assert launched(lambda: under(case, mask)(*leaves, **options)) == LAUNCHES[name, want]
    if name == "l1":  # a map has no mean
        assert launched(lambda: under(case, mask)(x, y, reduction="map")) == ["weights", "planes", "l1"]
    without = launched(lambda: SSIMLoss(padding="normalized")(*leaves))
    assert "weights" not in without and "strip" not in without


@pytest.mark.parametrize("multiprocessors", ["1", "132"])
@pytest.mark.parametrize("kind", ["soft", "none"])
@every_name
def test_seams(
    name: str,
    kind: str,
    multiprocessors: str,
    plain: Callable,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Few blocks and many; and a device with little shared memory, where tiles take what does not fit."""
    monkeypatch.setenv("SHIM_SMS", multiprocessors)
    for shared in ("232448", "65536"):
        monkeypatch.setenv("SHIM_SHARED", shared)
        test_masked_kernels.test_cuts(name, kind, (1, 2, 83, 140), plain)


@every_border
def test_default_windows(padding: str, plain: Callable, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The largest reaches 28 pixels; 16 bits too."""
    x, y = pair(1, 2, 62, 71, dtype=torch.bfloat16)
    mask = mask_of("hole", 1, 2, 62, 71)
    assert mask is not None
    for shared in ("232448", "65536"):
        monkeypatch.setenv("SHIM_SHARED", shared)
        case = CASES["mix"]._replace(make=lambda **o: MixLoss(l1_range=1.0, **o))
        expected, (right, _) = plain(case, x, y, mask, padding=padding)
        actual, (grad,) = value_and_gradients(under(case, mask), x, y, "x", padding=padding)
        assert relative_error(actual, expected) < 1e-6 and relative_error(grad, right) < 4e-3


@every_border
@every_name
def test_ones_are_as_no_mask(name: str, padding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels do not look: the same numbers but for rounding, as on the CPU where it does not look."""
    monkeypatch.setattr(masks, "_can_look_at", lambda _: False)
    x, y = pair(2, 2, 60, 64)
    options = options_of(name) | dict(padding=padding)
    expected, expected_grads = value_and_gradients(CASES[name].fused, x, y, **options)
    for ones in (torch.ones(1, 60, 64, dtype=torch.bool), torch.ones(2, 2, 60, 64)):
        actual, grads = value_and_gradients(under(CASES[name], ones), x, y, **options)
        assert relative_error(actual, expected) < 1e-6
        assert all(relative_error(*g) < 1e-5 for g in zip(grads, expected_grads, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["mix", "ms_ssim_gaussian"])
def test_portions(
    name: str,
    dtype: torch.dtype,
    kernels: ModuleType,
    launched: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Maps in little memory: a gradient keeps its bits, whichever rows and planes are there at a time."""
    monkeypatch.setenv("SHIM_SMS", "1")  # for six planes the whole then has one band of rows
    x, y = pair(3, 2, 150, 37, dtype=dtype)
    mask, options = weights(3, 1, 150, 37), dict(padding="zeros", sigmas=(0.8, 1.5, 3.0), window_size=17)
    results, counts = [], []
    for scratch in (1 << 26, 1):
        before = kernels.set_scratch_bytes(scratch)
        try:
            names = launched(
                lambda: results.append(value_and_gradients(under(CASES[name], mask), x, y, **options))
            )
        finally:
            kernels.set_scratch_bytes(before)
        counts.append(len(names))
    (value, grads), (other, other_grads) = results
    assert counts[1] > counts[0] and relative_error(other, value) < 1e-6
    assert all(map(torch.equal, grads, other_grads))


def test_as_many_planes_as_an_int_holds() -> None:
    x = torch.zeros(1, 1, 1, 1).expand(1 << 31, 1, 1, 1)
    with pytest.raises(ValueError, match=r"mask: expected fewer than 2\^31 channels of all images on CUDA"):
        L1Loss()(x, x, mask=torch.full((1, 1, 1), 0.5))
