"""The CUDA kernels and their operators without a GPU: csrc/cuda and csrc/torch/cuda.cpp, unchanged, under
tests/cuda_shim, against the same specifications as the CPU's.

The operators of ssimloss are replaced by those of the shim in this whole file, so that the losses, their
autograd and the tests of the CPU back end run on them as they are.
"""

import itertools
import platform
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import exact
import pytest
import test_accuracy
import test_fuzz
import test_halving
import test_inverted
import test_kernels
import test_ranges
import test_semantics
import torch
from cases import (
    CASES,
    HALF_TYPES,
    WINDOWED,
    Case,
    assert_same,
    every_halving,
    every_loss,
    every_padding,
    pair,
    relative_error,
    value_and_gradients,
    wanted_by,
)
from hypothesis import given, settings

from ssimloss import SSIMLoss, autograd, ops

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the shim's fibers are x86-64")
F32, F64 = test_kernels.F32, test_kernels.F64
SCHEDULES = ("forward", "reverse", "1", "2")


@pytest.fixture(scope="session")
def library(shim_build: Callable[[str, str], Path]) -> Path:
    path = shim_build("plain", "ops.cpp")
    torch.ops.load_library(path)
    return path


@pytest.fixture(autouse=True)
def cuda_operators(library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shimmed = torch.ops.ssimloss_shim
    for form, name in ((ops.Gaussian, "gaussian"), (ops.Dyadic, "dyadic"), (ops.Volume, "volume")):
        one, two = (getattr(shimmed, n).default for n in (name, f"{name}_backward"))
        monkeypatch.setattr(form, "op", property(lambda _, op=one: op))
        monkeypatch.setattr(form, "backward_op", property(lambda _, op=two: op))
        if form is not ops.Dyadic:
            detailed = getattr(shimmed, f"{name}_detailed").default
            monkeypatch.setattr(form, "detailed_op", property(lambda _, op=detailed: op))
    monkeypatch.setattr(autograd, "scale_", shimmed.scale_.default)


def exactly(name: str) -> Case:
    """The case against exact.py, which is faster than the reference."""
    return CASES[name]._replace(spec=exact.LOSSES[name])


# ---- Against the specification


@test_kernels.every_precision
@every_padding
@test_kernels.every_reduction
def test_value_and_both_gradients(case: Case, reduction: str, padding: str, dtype: torch.dtype) -> None:
    test_kernels.test_value_and_both_gradients(case, reduction, padding, dtype)


test_one_gradient_alone = test_kernels.test_one_gradient_alone
test_options_change_what_they_say = test_kernels.test_options_change_what_they_say
test_any_sigmas_in_any_order = test_kernels.test_any_sigmas_in_any_order
test_uniform_windows = test_kernels.test_uniform_windows
test_any_levels = test_kernels.test_any_levels
test_weights_of_the_two_terms = test_kernels.test_weights_of_the_two_terms
test_half_types = test_kernels.test_half_types
test_incoming_gradient_of_any_strides = test_kernels.test_incoming_gradient_of_any_strides
test_window_size_down_to_the_window = test_kernels.test_window_size_down_to_the_window


@pytest.mark.parametrize("taps", [5, 9, 13, 33, 35, 65])
@every_padding
@pytest.mark.parametrize("name", ["ssim", "mix"])
def test_windows_up_to_65_taps(name: str, padding: str, taps: int) -> None:
    x, y = pair(1, 2, taps + 9, taps + 34)
    assert_same(exactly(name), x, y, window_size=taps, padding=padding, **F32)


def launches(trace: Path) -> list[str]:
    """The similarity kernels that were started since, of those in SHIM_TRACE's file."""
    names = re.findall(r"(strip|ring|scales|adjoint|gather|positions|gradient)_kernel", trace.read_text())
    trace.write_text("")
    return names


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("taps", [*range(1, 35, 2), 65])
def test_one_launch_up_to_33_taps(
    taps: int, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Value and gradients together; a map, and its gradients; at most two for wider windows. float64 has the
    tiles alone: positions, then the gradient."""
    trace = tmp_path / "launches.txt"
    monkeypatch.setenv("SHIM_TRACE", str(trace))
    x, y = pair(1, 1, taps + 6, taps + 9, dtype=dtype)
    for name, options in (("l1_ssim", {}), ("mix", dict(sigmas=(1.5,)))):
        for want in ("x", "xy"):
            for reduction, calls in (("mean", 1), ("map", 2)):
                case = CASES[name]
                value_and_gradients(case.fused, x, y, want, window_size=taps, reduction=reduction, **options)
                count = len(launches(trace))
                if dtype == torch.float64:
                    assert count == calls + 1
                else:
                    assert calls <= count <= calls + (taps > 33)


@pytest.mark.parametrize("window", [(1, 1.5), (3, 0.5), (5, 1.0), (7, 1.5), (9, 1.5), (17, 3.0), (33, 6.0)])
@pytest.mark.parametrize("condition", test_accuracy.CONDITIONS)
def test_photograph_under_other_windows(condition: str, window: tuple[int, float], photo: Callable) -> None:
    taps, sigma = window
    y = photo("astronaut")[..., :97, 20:131]
    similarity, loss, gradient = test_accuracy.measure("ssim", condition, y, window_size=taps, sigma=sigma)
    assert similarity < 2e-7 and loss < 5e-6
    assert gradient < (5e-6 if taps <= 31 else 1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 37, 700), (1, 2, 260, 17), (2, 1, 83, 233)], ids=str)
@pytest.mark.parametrize("taps", [3, 5, 9, 15, 17])
@every_padding
def test_seams_under_other_windows(
    taps: int, padding: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for multiprocessors in ("1", "132"):
        monkeypatch.setenv("SHIM_SMS", multiprocessors)
        for reduction in ("mean", "map"):
            options = dict(window_size=taps, padding=padding, reduction=reduction)
            assert_same(exactly("ssim"), *pair(*shape), **options, **F32)
        assert_same(exactly("mix"), *pair(*shape), sigmas=(2.0,), window_size=taps, padding=padding, **F32)
        x, y = pair(*shape, dtype=torch.float64)
        assert_same(exactly("l1_ssim"), x, y, window_size=taps, padding=padding, **F64)


@pytest.mark.parametrize("taps", [1, 11, 15])
def test_too_wide_a_window_is_refused(taps: int) -> None:
    with pytest.raises(ValueError, match="65"):
        SSIMLoss(window_size=65 + 2 * taps)(*pair(1, 1, 100, 100))


@pytest.mark.parametrize(
    "shape", [(1, 1, 21, 700), (1, 2, 260, 13), (2, 1, 83, 233), (1, 1, 112, 241)], ids=str
)
@every_padding
@pytest.mark.parametrize("name", CASES)
def test_seams(name: str, padding: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Strips of columns and bands of rows meet, or hold one column or row alone; few blocks and many."""
    case = exactly(name)
    options = dict(weights=(0.5, 0.5), window_size=5) if case.levels > 1 else {}
    if case.taps > 11:
        options = dict(window_size=13)
    for multiprocessors in ("1", "132"):
        monkeypatch.setenv("SHIM_SMS", multiprocessors)
        assert_same(case, *pair(*shape), padding=padding, **options, **F32)


@every_padding
@pytest.mark.parametrize("name", ["ssim", "l1_ssim", "ms_ssim"])
def test_blocks_of_every_width(
    name: str, padding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An 11-tap window's blocks have 1 to 6 warps, whichever fits the strips; 32 columns each."""
    case, trace = exactly(name), tmp_path / "launches.txt"
    options = dict(weights=(0.5, 0.5)) if case.levels > 1 else {}
    threads: dict[bool, set[str]] = {False: set(), True: set()}
    monkeypatch.setenv("SHIM_TRACE", str(trace))
    widths = (16, 22, 32, 33, 48, 80, 81, 112, 120, 144, 161, 176, 192, 270)
    if padding == "valid" and case.levels > 1:
        widths = widths[1:]  # 16 is too small, and the only one for a single warp
    for width, multiprocessors in itertools.product(widths, ("1", "132")):
        monkeypatch.setenv("SHIM_SMS", multiprocessors)
        x, y = pair(1, 1, 24 + width % 5, width)
        for gradient in threads:
            if gradient:
                assert_same(case, x, y, wants=["x", "xy"], padding=padding, **options, **F32)
            else:
                given = dict(padding=padding, **options)
                error = relative_error(case.fused(x, y, **given), case.spec(x.double(), y.double(), **given))
                assert error < F32["value"]
            threads[gradient] |= set(re.findall(r"strip_kernel.* (\d+) \d+ \d+$", trace.read_text(), re.M))
            trace.unlink()
    assert threads[False] == threads[True] == {str(32 * warps) for warps in range(2 - (16 in widths), 7)}


@pytest.mark.parametrize("shared", [65536, 101376, 166912])
@pytest.mark.parametrize("name", CASES)
def test_devices_with_less_shared_memory(name: str, shared: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Turing (64 KiB a block), 8.6, 8.9 and 12.0 (99 KiB), Ampere's 8.0 (163 KiB)."""
    monkeypatch.setenv("SHIM_SHARED", str(shared))
    for dtype, limits in ((torch.float32, F32), (torch.float64, F64)):
        side = CASES[name].least("valid") + 4
        assert_same(exactly(name), *pair(1, 1, side, side + 3, dtype=dtype), **limits)
    if CASES[name].levels == 1:
        assert_same(exactly(name), *pair(1, 1, 70, 66, dtype=torch.float64), window_size=65, **F64)


def test_a_plan_is_that_of_its_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    """One problem in two dtypes, where tiles take both: those of float64 are narrower."""
    monkeypatch.setenv("SHIM_SHARED", "65536")
    for dtype, limits in ((torch.float32, F32), (torch.float64, F64), (torch.float32, F32)):
        assert_same(exactly("mix"), *pair(1, 1, 60, 67, dtype=dtype), padding="zeros", **limits)


@pytest.mark.parametrize("channels", [1, 7, 130])
@pytest.mark.parametrize("layout", ["plain", "channels_last"])
@every_loss
def test_channels(case: Case, layout: str, channels: int) -> None:
    x, y = pair(2, channels, 13, 14)
    if layout == "channels_last":
        x, y = (t.contiguous(memory_format=torch.channels_last) for t in (x, y))
    for reduction in ("mean", "none"):
        assert_same(case, x, y, reduction=reduction, **case.tiny, **F32)


@pytest.mark.parametrize("layout", test_kernels.layouts(torch.zeros(2, 3, 40, 44)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize("window_size", [5, 11])
@pytest.mark.parametrize("name", ["ssim", "mix", "ms_ssim"])
def test_any_strides(name: str, window_size: int, dtype: torch.dtype, layout: str) -> None:
    """Either image laid out so, or both; the gradient as the image."""
    plain = pair(2, 3, 40, 44, dtype=dtype)
    x, y = (test_kernels.layouts(t)[layout] for t in plain)
    limits = dict(value=1e-6, gradient=torch.finfo(dtype).eps) if dtype in HALF_TYPES else F32
    case = exactly(name)
    options = dict(CASES[name].tiny, window_size=window_size)
    if CASES[name].levels > 1:
        options["weights"] = (0.4, 0.6)
    if dtype in HALF_TYPES:
        case = as_under_loss_scaling(case)
    for images in ((x, y.contiguous()), (x, y)):
        assert_same(case, *images, **options, **limits)


def as_under_loss_scaling(case: Case) -> Case:
    return case._replace(
        make=lambda **o: lambda x, y: case.fused(x, y, **o) * 8192,
        spec=lambda x, y, **o: case.spec(x, y, **o) * 8192,
    )


# ---- Digits: the bars, on photographs


@pytest.fixture
def crop(photo: Callable) -> Callable[[Case], Callable]:
    """crop(case)(picture) -> its middle, little more than the window needs."""

    def of(case: Case) -> Callable:
        side = max(case.least("valid") + 8, 64)
        return lambda name: photo(name)[..., :side, 20 : 20 + side + 7]

    return of


@pytest.mark.parametrize("condition", test_accuracy.CONDITIONS)
@pytest.mark.parametrize("name", CASES)
def test_photograph(name: str, condition: str, crop: Callable) -> None:
    """The accuracy that the CPU back end is held to, in float32."""
    test_accuracy.test_photographs(name, condition, "astronaut", crop(CASES[name]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@every_loss
def test_identical_and_negative_images(case: Case, dtype: torch.dtype, crop: Callable) -> None:
    test_accuracy.test_identical_images(case, "chelsea", dtype, crop(case))
    test_accuracy.test_negative_images(case, dtype, crop(case))


@pytest.mark.parametrize("condition", ["noise", "biased", "1e-5 apart"])
@pytest.mark.parametrize("name", ["ssim", "ms_ssim", "ms_ssim_gaussian"])
def test_never_above_one(name: str, condition: str, crop: Callable) -> None:
    test_accuracy.test_never_above_one(name, condition, crop(CASES[name]))


test_digits_of_a_small_similarity = test_inverted.test_digits_of_a_small_similarity
test_negative_means = test_inverted.test_negative_means
test_a_weight_of_zero_clamps_nothing = test_inverted.test_a_weight_of_zero_clamps_nothing
test_published_values = test_halving.test_published_values
test_levels_of_every_parity = test_halving.test_levels_of_every_parity
test_halvings_of_layouts_and_types = test_halving.test_layouts_and_types
test_what_the_coarser_level_takes_of_an_odd_side = (
    test_halving.test_what_the_coarser_level_takes_of_an_odd_side
)
test_even_sides_are_halved_alike = test_halving.test_even_sides_are_halved_alike
test_a_nan_that_the_coarser_level_drops = test_halving.test_a_nan_that_the_coarser_level_drops
test_beside_odd_edges = test_halving.test_beside_odd_edges
test_adam_recovers = test_inverted.test_adam_recovers
test_huge_images = test_semantics.test_huge_images
test_one_huge_pixel_stays_in_its_windows = test_semantics.test_one_huge_pixel_stays_in_its_windows
test_nan_in_a_pyramid_reaches_its_plane = test_semantics.test_nan_in_a_pyramid_reaches_its_plane
test_empty_batches = test_semantics.test_empty_batches


@pytest.mark.parametrize(("padding", "which"), [("valid", "x"), ("zeros", "y"), ("reflect", "x")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", test_semantics.FULL_RESOLUTION, ids=["ssim", "l1_ssim", "gaussian", "mix"])
def test_nan_reaches_exactly_its_windows(case: Case, dtype: torch.dtype, padding: str, which: str) -> None:
    test_semantics.test_nan_and_inf_reach_exactly_their_windows(case, dtype, padding, which, torch.nan)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@every_padding
def test_nan_and_inf_among_11_taps(padding: str, bad: float) -> None:
    """The window that the strips' kernels are for."""
    case = CASES["l1_ssim"]._replace(tiny=dict(window_size=11))
    test_semantics.test_nan_and_inf_reach_exactly_their_windows(case, torch.float32, padding, "x", bad)


@pytest.mark.filterwarnings("ignore:ssimloss:UserWarning")
@settings(test_fuzz.SETTINGS, max_examples=test_fuzz.CASES_ASKED // 3)
@given(test_fuzz.drawn())
def test_any_tensors_and_arguments(d: test_fuzz.Drawn) -> None:
    test_fuzz.check(d, cuda=True)


@pytest.mark.filterwarnings("ignore:ssimloss:UserWarning")
@test_fuzz.every_contrast
@every_padding
@pytest.mark.parametrize("name", WINDOWED)
def test_contrasts(name: str, padding: str, contrast: float) -> None:
    test_fuzz.test_contrasts(name, padding, contrast, cuda=True)


def test_an_outlier_among_huge_values() -> None:
    test_fuzz.test_an_outlier_among_huge_values(gradient=1e-3)


# ---- A range for each image

test_ranges_as_the_specification = test_ranges.test_as_the_specification
test_no_range_is_nan = test_ranges.test_no_range_is_nan
test_one_range_for_all = test_ranges.test_one_for_all


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@every_padding
@pytest.mark.parametrize("name", WINDOWED)
def test_ranges_equal_to_a_loop(name: str, padding: str, dtype: torch.dtype) -> None:
    test_ranges.test_equal_to_a_loop(WINDOWED[name], padding, dtype, torch.channels_last)


@every_padding
@pytest.mark.parametrize("name", ["mix", "ms_ssim_gaussian"])
def test_ranges_in_portions(
    name: str, padding: str, kernels: ModuleType, launched: Callable[..., list[str]]
) -> None:
    """Each image's range, incoming gradient and channels, where an image goes through the maps alone."""
    before = kernels.set_scratch_bytes(1)
    layout = torch.channels_last
    try:
        names = launched(
            lambda: test_ranges.test_equal_to_a_loop(WINDOWED[name], padding, torch.float32, layout)
        )
    finally:
        kernels.set_scratch_bytes(before)
    assert names[:6] == 2 * ["scales", "adjoint", "gather"]


@pytest.mark.parametrize("name", ["ms_ssim", "mix_dyadic"])
@pytest.mark.parametrize("taps", [5, 11])
def test_ranges_in_pyramids(name: str, taps: int) -> None:
    test_ranges.test_pyramids(name, (5, 3, 40, 41), taps)


# ---- What is CUDA's own


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_every_schedule_gives_the_same_bits(
    name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads and blocks in any order, the order changing at every barrier: nothing hangs on it."""
    case = CASES[name]
    side = case.least("zeros", levels=min(case.levels, 2)) + 40
    levels = dict(weights=(0.4, 0.6)) if case.levels > 1 else {}
    x, y = pair(1, 2, side, side + 95, dtype=dtype)
    results = []
    for schedule in SCHEDULES:
        monkeypatch.setenv("SHIM_SCHEDULE", schedule)
        results.append([])
        for reduction in case.reductions():
            loss, grads = value_and_gradients(
                case.fused, x, y, padding="zeros", reduction=reduction, **levels
            )
            results[-1] += [loss, *grads]
    for result in results[1:]:
        assert all(torch.equal(*same) for same in zip(result, results[0], strict=True))


@pytest.mark.parametrize("want", ["", "x", "y", "xy"])
def test_ssim_is_one_launch_and_its_mean(want: str, launched: Callable) -> None:
    leaves = wanted_by(want, *pair(2, 3, 40, 400))
    assert launched(lambda: CASES["l1_ssim"].fused(*leaves)) == ["strip", "finish"]


@pytest.mark.parametrize("want", ["", "x", "y", "xy"])
@pytest.mark.parametrize("name", ["ms_ssim", "mix_dyadic"])
@pytest.mark.parametrize(
    ("levels", "shape", "expected"),
    [
        (1, (2, 3, 40, 400), ["strip", "combine"]),
        (5, (2, 3, 165, 198), ["strip", "levels", "combine"]),
        (5, (1, 65, 17, 17), ["strip", "levels", "combine", "finish"]),  # the mean of many planes
        (7, (1, 1, 65, 70), ["strip", "pool", "pool", "levels", "levels", "combine"]),
    ],
    ids=str,
)
def test_launches_of_the_dyadic_form(
    levels: int, shape: tuple[int, ...], expected: list[str], name: str, want: str, launched: Callable
) -> None:
    """The levels come out of the launch that reads the finest one; value and gradients of all in three."""
    leaves = wanted_by(want, *pair(*shape))
    loss: list[torch.Tensor] = []

    def forward() -> None:
        loss.append(CASES[name].fused(*leaves, weights=(1 / levels,) * levels, padding="zeros"))

    assert launched(forward) == expected
    if want:  # the gradients came with the value
        assert launched(loss[0].backward) == ["scale"] * len(want)


@every_halving
@pytest.mark.parametrize("remainder", range(16))
@pytest.mark.parametrize(("padding", "want"), [("zeros", ""), ("zeros", "xy"), ("reflect", "y")])
def test_every_pattern_of_odd_sides(
    padding: str, want: str, remainder: int, halving: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What four halvings do with the last pixels depends on the sides modulo 16; with seams."""
    height = 48 if padding == "zeros" else 96
    x, y = pair(1, 2, height + remainder, 352 + (11 * remainder + 3) % 16)
    case = exactly("mix_dyadic")
    options = dict(padding=padding, halving=halving, weights=(0.1, 0.2, 0.3, 0.2, 0.2))
    for multiprocessors in ("1", "132"):
        monkeypatch.setenv("SHIM_SMS", multiprocessors)
        if want:
            assert_same(case, x, y, wants=[want], **options, **F32)
        else:
            error = relative_error(case.fused(x, y, **options), case.spec(x.double(), y.double(), **options))
            assert error < F32["value"]


@pytest.mark.parametrize("name", WINDOWED)
def test_launch_errors_name_the_kernel(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without any shared memory to speak of: no kernel starts, and no answer comes."""
    monkeypatch.setenv("SHIM_SHARED", "512")
    side = CASES[name].least("valid")
    with pytest.raises(RuntimeError, match=r"ssimloss: \w+: invalid"):
        CASES[name].fused(*pair(1, 1, side, side))


def test_the_gradient_is_handed_out_once() -> None:
    """The kept buffer is scaled in place; asked again, the gradient is computed anew."""
    for case in CASES.values():
        x, y = pair(2, 3, 40, 41)
        leaf = x.requires_grad_()
        loss = case.fused(leaf, y, **case.tiny) * 3
        (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        kept = first.clone()
        first.fill_(torch.nan)
        (second,) = torch.autograd.grad(loss, leaf)
        assert relative_error(second, kept) < 1e-6
