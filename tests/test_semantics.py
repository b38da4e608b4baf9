"""What the issue's table fixes: NaN, huge values, empty batches, CPU variants, bits, memory."""

import re
from pathlib import Path

import exact
import pytest
import torch
import torch.nn.functional as F
from cases import (
    CASES,
    PADDINGS,
    Case,
    every_loss,
    every_padding,
    pair,
    relative_error,
    value_and_gradients,
    values_and_gradients,
)
from torch import Tensor

from ssimloss import L1SSIMLoss, MixLoss, MSSSIMLoss, SSIMLoss, options

FULL_RESOLUTION = [CASES[name] for name in ("ssim", "l1_ssim", "ms_ssim_gaussian", "mix")]
ELEVEN_TAPS = [case._replace(tiny=dict(window_size=11)) for case in FULL_RESOLUTION[:2]]


# ---- NaN and Inf


def reach(shape: tuple[int, ...], spots: list[tuple[int, int]], radius: int) -> Tensor:
    """Pixels within radius of a spot, in the square sense."""
    row, col = torch.arange(shape[-2])[:, None], torch.arange(shape[-1])
    return torch.stack([((row - r).abs() <= radius) & ((col - c).abs() <= radius) for r, c in spots]).any(0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", ["x", "y"])
@every_padding
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "case",
    FULL_RESOLUTION + ELEVEN_TAPS,
    ids=["ssim", "l1_ssim", "gaussian", "mix", "ssim-11", "l1_ssim-11"],
)
def test_nan_and_inf_reach_exactly_their_windows(
    case: Case, dtype: torch.dtype, padding: str, which: str, bad: float
) -> None:
    """Positions whose window holds one, pixels that share a window with one, and no others.

    A shift by a local mean or an item's seam (the image is several strips wide) must not spread it.
    """
    options = dict(case.tiny, padding=padding)
    radius = options["window_size"] // 2
    shape, spots = (1, 2, 70, 1200), [(0, 0), (35, 31), (33, 598), (69, 1000), (12, 1199)]
    images = dict(zip("xy", pair(*shape, dtype=dtype), strict=True))
    _, clean_grads = value_and_gradients(case.fused, **images, **options)
    for row, col in spots:
        images[which][0, 1, row, col] = bad

    loss_map = case.fused(**images, reduction="map", **options)
    crop = radius if padding == "valid" else 0
    positions = reach(shape, spots, radius)[crop : 70 - crop, crop : 1200 - crop]
    assert torch.equal(~loss_map[0, 1].isfinite(), positions)
    assert loss_map[0, 0].isfinite().all()

    mean, grads = value_and_gradients(case.fused, **images, **options)
    alone_mean, alone = value_and_gradients(case.fused, **images, want="x", **options)
    assert not mean.isfinite() and not alone_mean.isfinite()
    # Pixels under the windows at those positions; in the crop there are no positions.
    centres = F.pad(positions.double(), [crop] * 4)[None, None]
    touched = F.max_pool2d(centres, 2 * radius + 1, 1, radius)[0, 0].bool()
    if bad != bad and case.make in (L1SSIMLoss, MixLoss):  # sign(NaN): the pixel's own l1
        touched |= reach(shape, spots, 0)
    for grad, clean_grad in zip([*grads, *alone], [*clean_grads, clean_grads[0]], strict=True):
        spread = ~grad[0, 1].isfinite()
        allowed = touched | reach(shape, spots, 0)
        assert not (spread & ~allowed).any() and (spread | ~touched).all()
        # 16 bits keep the unit of the whole mean: the same numbers, within their rounding.
        close = 5e-6 if dtype != torch.bfloat16 else 5e-3
        kept = ~allowed
        assert relative_error(grad[0, 1][kept], clean_grad[0, 1][kept]) < close
        assert relative_error(grad[0, 0], clean_grad[0, 0]) < close


@pytest.mark.parametrize("name", ["ms_ssim", "mix_dyadic"])
def test_nan_in_a_pyramid_reaches_its_plane(name: str) -> None:
    """The levels' means multiply: one NaN is the whole channel, and no other image or channel."""
    case = CASES[name]
    x, y = pair(2, 2, 40, 41)
    x[0, 1, 20, 20] = torch.nan
    for want, taps in (("xy", 3), ("x", 3), ("x", 11)):
        options = dict(case.tiny, reduction="none", window_size=taps)
        loss, (grad, *_) = value_and_gradients(case.fused, x, y, want, **options)
        assert loss.isnan().tolist() == [True, False]
        assert grad.isnan().flatten(2).any(-1).tolist() == [[False, True], [False, False]]
    assert case.fused(x, y, **case.tiny).isnan()


# ---- Huge values


@pytest.mark.parametrize("size", [1e3, 1e6, 1e9])
@pytest.mark.parametrize("name", CASES)
def test_huge_images(name: str, size: float, photo) -> None:
    """Absolute values up to 1e9 times the data range: finite and right."""
    y = photo("chelsea")[..., :161, :161] * size
    x = y + 0.1 * size * pair(*y.shape)[0]
    for actual, expected, grads in values_and_gradients(CASES[name], x, y, exact.LOSSES[name]):
        assert relative_error(actual, expected) < 5e-6
        # c1 and c2 vanish here: where a photograph is flat, cs amplifies every rounding.
        assert all(relative_error(*pair) < 1e-3 for pair in grads)


@pytest.mark.parametrize(("sigma", "taps"), [(14.0, 101), (60.0, 201), (500.0, 511)])
def test_huge_images_under_wide_windows(sigma: float, taps: int) -> None:
    """A window's weights are small there: nothing may be relative to them."""
    generator = torch.Generator().manual_seed(0)
    x, y = (1e9 * torch.rand(1, 1, taps + 9, taps + 11, generator=generator) for _ in range(2))
    options = dict(sigma=sigma, window_size=taps)
    for actual, expected, grads in values_and_gradients(CASES["ssim"], x, y, exact.LOSSES["ssim"], **options):
        assert relative_error(actual, expected) < 5e-6
        assert all(relative_error(*pair) < 1e-5 for pair in grads)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("sigmas", [(1.5,), (0.5, 1.0, 1.5)], ids=str)
def test_one_tap_has_no_variance(sigmas: tuple[float, ...], size: float) -> None:
    """The gradient is l's alone, and small beside what cs's two parts would cancel to with rounding."""
    y = pair(1, 2, 40, 60)[1] * size
    x = y + 0.1 * size * pair(1, 2, 40, 60)[0]
    _, grads = value_and_gradients(MSSSIMLoss(sigmas=sigmas, window_size=1), x, y)
    gain = value_and_gradients(lambda x, y: (x + y).mean(), x.double(), y.double())[1][0]
    # 1 - l = d^2 / a with d = x - y and a = x^2 + y^2 + c1, in closed form: autograd loses digits here.
    x, y = x.double(), y.double()
    d, a = x - y, x**2 + y**2 + 1e-4
    for grad, expected in zip(
        grads, (2 * d / a * (1 - x * d / a), -2 * d / a * (1 + y * d / a)), strict=True
    ):
        assert relative_error(grad, expected * gain) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every_padding
def test_one_huge_pixel_stays_in_its_windows(padding: str, dtype: torch.dtype) -> None:
    """A shift by a mean which the pixel enters would cost all others their digits."""
    for row, col, width in ((0, 0, 64), (20, 24, 64), (32, 40, 64), (11, 19, 40), (7, 368, 369)):
        x, y = pair(1, 1, 60, width, dtype=dtype)
        x[..., row, col] = 1e9
        actual = SSIMLoss(padding=padding, reduction="map")(x, y)
        expected = exact.ssim(x.double(), y.double(), padding=padding, reduction="map")
        assert actual.isfinite().all()
        crop = 5 if padding == "valid" else 0
        near = reach(x.shape, [(row, col)], 5)[crop : 60 - crop, crop : width - crop]
        for region in (near, ~near):
            assert relative_error(actual[0, 0][region], expected[0, 0][region]) < 5e-6


@pytest.mark.parametrize("name", ["ssim", "mix"])
@pytest.mark.parametrize("taps", [5, 11, 17])
@every_padding
def test_a_huge_pixel_that_few_positions_see(padding: str, taps: int, name: str) -> None:
    """Its square is infinite in float32; the rows at the border have the fewest windows."""
    for row in (0, 1, 2, 37, 38, 39):
        x, y = pair(1, 1, 40, 41)
        x[..., row, 20] = 1e20
        options = dict(padding=padding, window_size=taps)
        actual, grads = value_and_gradients(CASES[name].fused, x, y, **options)
        expected, expected_grads = value_and_gradients(CASES[name].fused, x.double(), y.double(), **options)
        assert relative_error(actual, expected) < 1e-6
        assert all(relative_error(*g) < 1e-5 for g in zip(grads, expected_grads, strict=True))


# ---- Empty batches


@pytest.mark.parametrize("shape", [(0, 3, 40, 40), (2, 0, 40, 40)], ids=str)
@every_loss
def test_empty_batches(case: Case, shape: tuple[int, ...]) -> None:
    """As torch's own losses: the mean of nothing is NaN, its gradient empty."""
    x, y = torch.zeros(shape, requires_grad=True), torch.zeros(shape)
    loss = case.fused(x, y, **case.tiny)
    like = F.l1_loss(x, y)
    assert like.isnan() and loss.isnan() and loss.shape == like.shape
    assert torch.autograd.grad(loss, x)[0].shape == torch.autograd.grad(like, x)[0].shape == shape
    assert case.fused(x, y, reduction="none", **case.tiny).shape == shape[:1]
    if "map" in case.reductions():
        assert case.fused(x, y, reduction="map", **case.tiny).shape[:2] == shape[:2]


# ---- CPU variants

CHECK_VARIANT = """
import ssimloss, torch
torch.set_num_threads(1)
from cases import CASES, PADDINGS, assert_same, pair
print(ssimloss.info()["cpu_variant"])
for case in CASES.values():
    for padding in PADDINGS:
        for dtype, value, gradient in (
            (torch.float64, 1e-11, 1e-10),
            (torch.float32, 5e-6, 5e-6),
            (torch.bfloat16, 5e-6, 4e-3),
        ):
            images = pair(1, 2, 47, 90, dtype=dtype)
            for options in (case.tiny, dict(case.tiny, window_size=11)):
                assert_same(case, *images, padding=padding, value=value, gradient=gradient, **options)
"""
FLAGS_OF = {
    "baseline": set(),
    "x86-64-v3": {"avx2", "fma", "bmi1", "bmi2"},
    "x86-64-v4": {"avx2", "fma", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
}


@pytest.mark.parametrize("variant", FLAGS_OF)
def test_cpu_variant(variant: str, python) -> None:
    """Each variant that this machine has computes the same; others are refused with a list."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    done = python(CHECK_VARIANT, SSIMLOSS_CPU=variant)
    if flags >= FLAGS_OF[variant]:
        assert (done.stdout.strip(), done.returncode) == (variant, 0), done.stderr
    else:
        assert "ValueError: SSIMLOSS_CPU: expected one of " in done.stderr
        assert f"on this machine, got {variant}" in done.stderr


UNKNOWN_VARIANT = """
import ssimloss, torch
x, y = torch.zeros(2, 3, 20, 20)
for call in (ssimloss.info, lambda: ssimloss.ssim(x, y), lambda: ssimloss.ms_ssim(x, y, window_size=1)):
    try:
        call()
    except ValueError as error:
        print(error)
"""


def test_unknown_cpu_variant(python) -> None:
    done = python(UNKNOWN_VARIANT, SSIMLOSS_CPU="pentium")
    lines = done.stdout.splitlines()
    assert len(lines) == 3, done.stderr
    for line in lines:
        assert re.fullmatch("SSIMLOSS_CPU: expected one of .*baseline on this machine, got pentium", line)


# ---- Same bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_same_bits_for_any_number_of_threads(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    x, y = pair(1, 2, 190, 530, dtype=dtype)

    def run(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        results = []
        for want in ("xy", "y"):
            for reduction in case.reductions():
                loss, grads = value_and_gradients(case.fused, x, y, want, reduction=reduction)
                results += [loss, *grads]
        return results

    before = torch.get_num_threads()
    try:
        first = run(1)
        for threads in (1, 2, 3):
            assert all(torch.equal(*same) for same in zip(run(threads), first, strict=True))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("contrast", [0, 100])
@pytest.mark.parametrize("height", [300, 301])
@every_padding
@pytest.mark.parametrize(
    "name, taps",
    [("mix", 33), ("ssim", 33), ("ssim", 11), ("ssim", 3), ("mix_dyadic", 17), ("mix_dyadic", 11)],
)
def test_bands_do_not_show(name: str, taps: int, padding: str, height: int, contrast: float) -> None:
    """One plane is cut into as many bands of rows as there are threads. Where one of them meets what float32
    cannot hold all of them are done in double."""
    case, options = CASES[name], dict(padding=padding, window_size=taps)
    if name == "mix_dyadic":
        options |= dict(weights=(0.4, 0.6), halving="zeros" if taps == 11 else "edge")
    x, y = pair(1, 1, height, 70)
    x[..., 250, 30] += contrast

    def run(threads: int) -> list[Tensor]:
        torch.set_num_threads(threads)
        results = []
        for reduction in case.reductions():
            loss, grads = value_and_gradients(case.fused, x, y, reduction=reduction, **options)
            results += [loss, *grads]
        return results

    before = torch.get_num_threads()
    try:
        first = run(1)
        for threads in (2, 3, 5):
            assert all(torch.equal(*same) for same in zip(run(threads), first, strict=True))
    finally:
        torch.set_num_threads(before)


# ---- Memory


MEMORY = """
import gc, torch, ssimloss
torch.set_num_threads(2)
loss = {loss}
def status(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
def step(x, y):
    value = loss(x, y)
    if x.requires_grad:
        value.backward()
def pair(*shape):
    return torch.rand(shape, requires_grad={gradient}), torch.rand(shape)
step(*pair(1, 1, 200, 200))  # lazy imports, code
x, y = pair(1, 3, {height}, {width})
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew from what is resident now
before = status("VmRSS")
for i in range({steps}):
    x.grad = None
    step(x, y)
print((status("VmHWM") - before) / (4 * x.numel()))
"""


def peak_memory(python, loss: str, height: int, width: int, steps: int, gradient: bool = True) -> float:
    """Of a fresh process, in sizes of x: what the loss makes, and the kernels' scratch memory, which torch's
    profiler does not see.
    """
    run = dict(loss=f"ssimloss.{loss}", height=height, width=width, steps=steps, gradient=gradient)
    done = python(MEMORY.format(**run))
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.parametrize(("height", "width", "steps"), [(2160, 3840, 1), (1080, 1920, 20)], ids=str)
@pytest.mark.parametrize("loss", ["SSIMLoss()", "L1SSIMLoss()"])
def test_memory_is_the_gradient(loss: str, height: int, width: int, steps: int, python) -> None:
    """Forward + backward take the gradient and at most 10 % more, and every step takes the same again."""
    assert 0.99 <= peak_memory(python, loss, height, width, steps) < 1.1


GRADIENT_MEMORY = """
import torch, ssimloss
x, y = torch.rand(1, 3, 1999, 2001), torch.rand(1, 3, 1999, 2001)  # 48 MB, more than malloc keeps
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096 / (4 * x.numel())
ssimloss.ssim(x, y)
x.requires_grad_()
before = resident()
addresses = []
for i in range(4):
    ssimloss.SSIMLoss()(x, y).backward()
    addresses.append(x.grad.data_ptr())
    x.grad = None
    if i == 0:
        print(resident() - before)
    others = [torch.zeros(x.shape) for _ in range(i + 1)]  # get what the system got back
print(len(set(addresses[1:])))
del others
for size in (10, 10, 10, 600, 600):  # pixels; small ones do not count, others take its place
    small = torch.rand(1, 1, size, size + 1, requires_grad=True)
    ssimloss.SSIMLoss(window_size=3)(small, torch.rand(small.shape)).backward()
    del small
    print(resident() - before)
"""


def test_gradient_memory_is_kept_from_the_second_step_on(python) -> None:
    """What is computed once is given back to the system; what every step asks for stays where it is, until
    other sizes are asked for."""
    done = python(GRADIENT_MEMORY)
    assert done.returncode == 0, done.stderr
    held, places, *then = map(float, done.stdout.split())
    assert held < 0.1
    assert places == 1
    assert min(then[:-1]) > 0.9 and then[-1] < 0.2


def test_memory_of_a_pyramid(python) -> None:
    """The gradient, and one plane's coarser levels: m and d (in float64), and their gradients."""
    assert 1 + 4 / 3 / 3 <= peak_memory(python, "MSSSIMLoss('dyadic')", 1080, 1920, 20) < 1.6


@pytest.mark.parametrize(
    ("loss", "levels"),
    [
        ("SSIMLoss()", 0),
        ("L1SSIMLoss()", 0),
        ("MSSSIMLoss()", 0),
        ("MixLoss()", 0),
        ("MSSSIMLoss('dyadic')", 1 / 3),
        ("MixLoss(multiscale='dyadic')", 1 / 3),
    ],
)
def test_value_alone_makes_no_gradient(loss: str, levels: float, python) -> None:
    """Without a gradient asked for, nothing at full resolution; of a pyramid, one plane's coarser levels."""
    assert peak_memory(python, loss, 2160, 3840, 1, gradient=False) < levels + 0.1


def test_padding_names_are_all_tested() -> None:
    assert (*PADDINGS, "normalized") == options.PADDINGS  # which test_masks.py tests
