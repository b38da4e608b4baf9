"""Volumes [N, C, D, H, W]: against ssimloss.reference in float64, and what is promised of any loss."""

import math
from collections.abc import Callable

import pytest
import torch
from cases import (
    HALF_TYPES,
    Case,
    assert_same,
    every_padding,
    pair,
    relative_error,
    value_and_gradients,
)
from test_kernels import F32, TOLERANCE, every_precision
from torch import Tensor, func

from ssimloss import L1SSIMLoss, MixLoss, MSSSIMLoss, SSIMLoss, reference, ssim

TINY = dict(window_size=3)
ANISOTROPIC = dict(sigma=(0.7, 1.5, 2.0), window_size=(3, 7, 5))


def one_minus_ssim(x: Tensor, y: Tensor, **options) -> Tensor:
    return 1 - reference.ssim(x, y, **options)


VOLUMES = {
    "ssim": Case(SSIMLoss, one_minus_ssim, 11, tiny=TINY),
    "l1_ssim": Case(L1SSIMLoss, reference.l1_ssim_loss, 11, tiny=TINY),
}
every_loss = pytest.mark.parametrize("name", VOLUMES)
every_reduction = pytest.mark.parametrize("reduction", ["mean", "none", "map"])


# ---- The kernels against it.


@every_precision
@every_padding
@every_reduction
@every_loss
def test_value_and_gradients(name: str, reduction: str, padding: str, dtype: torch.dtype) -> None:
    case = VOLUMES[name]
    least = case.least(padding)
    for seed, sides in enumerate(
        [(least,) * 3, (least, least + 17, least + 6), (least + 8, least, least + 21)]
    ):
        x, y = pair(1 + seed, 2, *sides, seed=seed, dtype=dtype)
        flat = dict(value=1e-4, gradient=1e-4) if min(sides) == 1 and dtype == torch.float32 else {}
        options = dict(padding=padding, reduction=reduction)
        assert_same(case, x, y, wants=("xy", "x", "y"), **options, **TOLERANCE[dtype] | flat)


@pytest.mark.parametrize(
    "options",
    [
        ANISOTROPIC,
        dict(sigma=(0.5, 1.0, 2.0)),
        dict(sigma=0.8),
        dict(window_size=1),
        dict(window_size=(1, 9, 1)),
        dict(window_size=(3, 1, 11), sigma=2.0),
        dict(window="uniform"),
        dict(window="uniform", window_size=(1, 5, 3), sample_covariance=True),
        dict(window="uniform", window_size=11),
        dict(window="uniform", window_size=(None, 3, 5)),
        dict(data_range=2.5, k1=0.03, k2=0.2, window_size=5),
        dict(sigma=5.0, window_size=(9, 13, 15)),
    ],
    ids=str,
)
@every_padding
@every_loss
def test_windows(name: str, padding: str, options: dict) -> None:
    for reduction in ("none", "map"):
        for dtype, limits in TOLERANCE.items():
            x, y = pair(2, 1, 15, 21, 19, dtype=dtype)
            assert_same(VOLUMES[name], x, y, padding=padding, reduction=reduction, **options, **limits)


@pytest.mark.parametrize("shape", [(1, 1, 70, 33, 40), (1, 2, 21, 90, 34), (1, 1, 24, 25, 150)], ids=str)
@every_padding
def test_seams(padding: str, shape: tuple[int, ...]) -> None:
    """Boxes meet, and hold one voxel more or less than others."""
    x, y = pair(*shape)
    assert_same(VOLUMES["l1_ssim"], x, y, padding=padding, window_size=(5, 7, 3), **F32)
    assert_same(VOLUMES["ssim"], x, y, padding=padding, reduction="map", window_size=5, **F32)


def test_a_window_beyond_the_volume() -> None:
    x, y = pair(1, 1, 5, 9, 6)
    assert_same(VOLUMES["l1_ssim"], x, y, padding="zeros", window_size=(65, 31, 47), sigma=20.0, **F32)


@pytest.mark.parametrize("dtype", HALF_TYPES, ids=str)
@every_padding
@every_reduction
def test_half_types(reduction: str, padding: str, dtype: torch.dtype) -> None:
    check_half_types(reduction, padding, dtype, (2, 1, 20, 50, 60))  # where float16 has no digits for a 1 / N


def check_half_types(reduction: str, padding: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    factor = 1.0 if reduction == "map" else 8192.0  # as under loss scaling
    case = VOLUMES["l1_ssim"]
    scaled = case._replace(
        make=lambda **o: lambda x, y: case.fused(x, y, **o) * factor,
        spec=lambda x, y, **o: case.spec(x, y, **o) * factor,
    )
    x, y = pair(*shape, dtype=dtype)
    limits = dict(value=1e-6, gradient=torch.finfo(dtype).eps / 2)
    assert_same(scaled, x, y, padding=padding, reduction=reduction, **limits)


def layouts(t: Tensor) -> dict[str, Tensor]:
    """The volumes of t [2, 3, 6, 7, 8] laid out otherwise in memory."""
    wide = torch.zeros(3, 5, 9, 10, 12, dtype=t.dtype)
    wide[1:, 1:4, 2:8, 3:10, 2:10] = t
    return {
        "channels_last_3d": t.contiguous(memory_format=torch.channels_last_3d),
        "crop": wide[1:, 1:4, 2:8, 3:10, 2:10],
        "depth last": t.movedim(2, -1).contiguous().movedim(-1, 2),
        "transposed": t.mT.contiguous().mT,
        "every other": t.repeat_interleave(2, -1).repeat_interleave(2, 2)[:, :, ::2, :, ::2],
        "expanded batch": t[:1].expand(2, -1, -1, -1, -1),
        "expanded slices": t[:, :, :1].expand(-1, -1, 6, -1, -1),
    }


@pytest.mark.parametrize("layout", layouts(torch.zeros(2, 3, 6, 7, 8)))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64], ids=str)
@every_loss
def test_any_strides(name: str, dtype: torch.dtype, layout: str) -> None:
    """The same bits as of plain volumes; and the gradient lies as empty_like would."""
    case = VOLUMES[name]
    x, y = (layouts(t)[layout] for t in pair(2, 3, 6, 7, 8, dtype=dtype))
    plain_x, plain_y = x.contiguous(), y.contiguous()
    for reduction in ("mean", "none", "map"):
        options = dict(window_size=3, reduction=reduction)
        expected, expected_grads = value_and_gradients(case.fused, plain_x, plain_y, **options)
        for images in ((x, plain_y), (plain_x, y), (x, y)):
            actual, grads = value_and_gradients(case.fused, *images, **options)
            assert torch.equal(actual, expected)
            assert all(torch.equal(g, e) for g, e in zip(grads, expected_grads, strict=True))
            assert [g.stride() for g in grads] == [torch.empty_like(t).stride() for t in images]


def test_incoming_gradient_of_any_strides() -> None:
    x, y = pair(2, 3, 6, 7, 8)
    x.requires_grad_()
    for reduction, shape in (("map", (2, 3, 4, 5, 6)), ("none", (2,))):
        loss = SSIMLoss(window_size=3, reduction=reduction)(x, y)
        assert loss.shape == shape
        one = torch.tensor(0.7).expand(shape)
        for incoming in (one, torch.full((*shape[:-1], 2 * shape[-1]), 0.7)[..., ::2]):
            actual = torch.autograd.grad(loss, x, incoming, retain_graph=True)
            expected = torch.autograd.grad(loss, x, one.contiguous(), retain_graph=True)
            assert relative_error(actual[0], expected[0]) < 1e-6


@pytest.mark.parametrize("padding", ["valid", "zeros", "reflect", "normalized"])
@every_reduction
@every_loss
def test_a_range_for_each_volume(name: str, reduction: str, padding: str) -> None:
    """As each volume with a number."""
    ranges = torch.tensor([1.0, 255.0, 0.3], dtype=torch.float64)
    x, y = (t * ranges[:, None, None, None, None] for t in pair(3, 2, 6, 7, 8, dtype=torch.float64))
    make = VOLUMES[name].make
    options = dict(padding=padding, window_size=(3, 5, 3), reduction=reduction)
    loss, grads = value_and_gradients(lambda x, y: make(**options)(x, y, data_range=ranges), x, y)

    def one_by_one(x: Tensor, y: Tensor) -> Tensor:
        losses = [
            make(data_range=r, **options)(x[i : i + 1], y[i : i + 1]) for i, r in enumerate(ranges.tolist())
        ]
        return torch.stack(losses).mean() if reduction == "mean" else torch.cat(losses)

    expected, expected_grads = value_and_gradients(one_by_one, x, y)
    assert relative_error(loss, expected) < 1e-10
    for grad, other in zip(grads, expected_grads, strict=True):
        assert relative_error(grad, other) < 1e-10


# ---- Digits.


def well_conditioned(x: Tensor, y: Tensor, window_size: int = 11, sigma: float = 1.5) -> Tensor:
    """1 - SSIM ("valid") without numbers near 1 that are subtracted: as tests/exact.py, for volumes."""
    radius = window_size // 2

    def mean(t: Tensor) -> Tensor:
        return reference.blur(t, sigma, radius, "valid", radius)

    # About the middle of the values, which no variance changes with: E[t^2] - E[t]^2 keeps its digits.
    d, mu_x, mu_y = x - y, mean(x), mean(y)
    centre_x, centre_y, centre_d = (t.detach().mean() for t in (x, y, d))
    s_xx = mean((x - centre_x) ** 2) - mean(x - centre_x) ** 2
    s_yy = mean((y - centre_y) ** 2) - mean(y - centre_y) ** 2
    s_dd = mean((d - centre_d) ** 2) - mean(d - centre_d) ** 2
    e_l, e_cs = mean(d) ** 2 / (mu_x**2 + mu_y**2 + 1e-4), s_dd / (s_xx + s_yy + 9e-4)
    return (e_l + e_cs - e_l * e_cs).mean()


CONDITIONS: dict[str, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "noise": lambda x, y: (x, y),
    "1e-5 apart": lambda x, y: (y + 1e-5 * (x - y).sign(), y),
    "biased": lambda x, y: (y + 0.3, y),
    "flat and bright": lambda x, y: (0.9 + 1e-3 * x, 0.9 + 1e-3 * y),
    "at 100 data ranges": lambda x, y: (100 + x, 100 + y),
    "at 1000 data ranges": lambda x, y: (1000 + x, 1000 + y),
}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_digits(condition: str) -> None:
    x, y = (t.float() for t in CONDITIONS[condition](*pair(1, 1, 17, 20, 19, dtype=torch.float64)))
    assert_same(VOLUMES["ssim"]._replace(spec=well_conditioned), x, y, **F32)


@every_padding
@pytest.mark.parametrize("dtype", [*TOLERANCE, *HALF_TYPES], ids=str)
@every_loss
def test_identical_volumes(name: str, dtype: torch.dtype, padding: str) -> None:
    """Exactly 0, value and gradients, for a contrast of any size."""
    y = pair(1, 2, 12, 13, 14, dtype=dtype)[1]
    for scale in (1.0, 255.0, 0.0):
        volume = y * scale
        loss, grads = value_and_gradients(VOLUMES[name].fused, volume, volume.clone(), padding=padding)
        assert loss == 0 and all(torch.count_nonzero(grad) == 0 for grad in grads)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@every_padding
@every_loss
def test_nan_reaches_exactly_its_windows(name: str, padding: str, bad: float) -> None:
    case = VOLUMES[name]
    for place in ((6, 5, 7), (0, 11, 3), (12, 0, 13)):
        x, y = pair(1, 2, 13, 12, 14)
        x[(0, 1, *place)] = bad
        options = dict(padding=padding, reduction="map", window_size=(3, 5, 3))
        loss, grads = value_and_gradients(case.fused, x, y, **options)
        expected, expected_grads = value_and_gradients(case.spec, x.double(), y.double(), **options)
        assert torch.equal(loss.isnan(), expected.isnan()) and loss.isnan().any()
        for grad, other in zip(grads, expected_grads, strict=True):
            assert torch.equal(grad.isnan(), other.isnan())


# ---- Semantics.


@every_loss
def test_the_same_bits_for_any_number_of_threads(name: str) -> None:
    x, y = pair(1, 2, 40, 45, 70)
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            for _ in range(2):
                loss, grads = value_and_gradients(VOLUMES[name].fused, x, y)
                results.append([loss, *grads])
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(*same) for result in results[1:] for same in zip(result, results[0], strict=True))


def test_empty_batches() -> None:
    for shape in ((0, 3, 12, 12, 12), (2, 0, 12, 12, 12), (2, 0, 12, 24, 24)):
        x = torch.rand(shape, requires_grad=True)
        for reduction, size in (("none", shape[:1]), ("map", (*shape[:2], *(n - 10 for n in shape[2:])))):
            loss = SSIMLoss(reduction=reduction)(x, torch.rand(shape))
            assert loss.shape == size
            loss.sum().backward()
            assert x.grad is not None and x.grad.shape == x.shape


@pytest.mark.parametrize("layout", ["plain", "channels_last_3d", "depth last"])
def test_backward_scales_what_forward_kept(layout: str) -> None:
    """An incoming gradient other than 1, one for each volume, in any layout."""
    plain = pair(2, 3, 6, 7, 8)
    x, y = (t if layout == "plain" else layouts(t)[layout] for t in plain)
    x = x.detach().requires_grad_()
    incoming = torch.tensor([3.0, -0.5])
    SSIMLoss(window_size=3, reduction="none")(x, y).backward(incoming)
    leaf = plain[0].double().requires_grad_()
    expected = (1 - reference.ssim(leaf, plain[1].double(), window_size=3, reduction="none")) * incoming
    expected.sum().backward()
    assert relative_error(x.grad, leaf.grad) < 1e-6


def small() -> tuple[Tensor, Tensor]:
    return pair(2, 2, 4, 5, 3, dtype=torch.float64)


@every_padding
@every_reduction
@every_loss
def test_gradcheck(name: str, reduction: str, padding: str) -> None:
    loss = VOLUMES[name].make(
        padding=padding, reduction=reduction, window_size=(3, 3, 1), sigma=(0.8, 1.2, 1)
    )
    x, y = (t.requires_grad_() for t in small())
    check = dict(fast_mode=True, nondet_tol=1e-12)
    torch.autograd.gradcheck(loss, (x, y), check_forward_ad=True, **check)
    torch.autograd.gradgradcheck(loss, (x, y), check_fwd_over_rev=True, **check)


@every_reduction
@every_loss
def test_recomputed(name: str, reduction: str) -> None:
    """The options of the kernels, back in the arguments of reference.py: a tangent."""
    x, y = pair(1, 2, 8, 9, 10, dtype=torch.float64)
    for options in (ANISOTROPIC, dict(window="uniform", window_size=5, sample_covariance=True)):
        case, given = VOLUMES[name], dict(reduction=reduction, padding="valid", data_range=1.5, **options)
        actual = func.jvp(lambda t: case.fused(t, y, **given), (x,), (y,))  # noqa: B023
        expected = func.jvp(lambda t: case.spec(t, y, **given), (x,), (y,))  # noqa: B023
        torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-13)


@every_reduction
@every_loss
def test_transforms(name: str, reduction: str) -> None:
    """compile, export, vmap, func.grad: each the same as eager."""
    torch.compiler.reset()
    loss = VOLUMES[name].make(reduction=reduction, **TINY)
    x, y = small()
    expected, expected_grads = value_and_gradients(loss, x, y)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    actual, grads = value_and_gradients(compiled, x, y)
    torch.testing.assert_close([actual, *grads], [expected, *expected_grads])
    torch.testing.assert_close(torch.export.export(loss, (x, y)).module()(x, y), expected)
    stacks = [torch.stack([t, t.flip(0) * 0.7, t.flip(-1)]) for t in (x, y)]
    rows = list(zip(*stacks, strict=True))
    torch.testing.assert_close(func.vmap(loss)(*stacks), torch.stack([loss(*row) for row in rows]))
    both = func.grad(lambda x, y: loss(x, y).square().sum(), argnums=(0, 1))
    expected_rows = [torch.stack(g) for g in zip(*(both(*row) for row in rows), strict=True)]
    torch.testing.assert_close(list(func.vmap(both)(*stacks)), expected_rows)


@pytest.mark.parametrize("reduction", ["mean", "none", "map"])
def test_opcheck(reduction: str) -> None:
    options = SSIMLoss(reduction=reduction, sigma=(0.5, 1.0, 1.0), window_size=3).options
    for wants, dtype in (((True, True), torch.float64), ((False, True), torch.float16)):
        images = [t.to(dtype).requires_grad_(want) for t, want in zip(small(), wants, strict=True)]
        torch.library.opcheck(options.op, (*images, 2.0, *wants, *options))
        if reduction != "map":
            torch.library.opcheck(options.detailed_op, (*images, 2.0, *wants, wants[0], *options))
        grad_loss = torch.ones_like(options.op(*images, 1.0, False, False, *options)[0])
        images = [t.detach() for t in images]
        torch.library.opcheck(options.backward_op, (grad_loss, *images, *wants, *options))


def test_a_loss_takes_images_and_volumes() -> None:
    """The rank decides; with a value for each dimension there are volumes alone."""
    x, y = pair(2, 3, 12, 13, 14)
    loss = SSIMLoss(window="uniform", sample_covariance=True, window_size=3)
    assert loss(x, y) != loss(x[:, 0], y[:, 0]) and loss(x[0, 0], y[0, 0]) > 0
    for call in (ssim, lambda x, y, **o: 1 - SSIMLoss(**o)(x, y)):
        torch.testing.assert_close(call(x, y, sigma=1.5), call(x, y, sigma=[1.5, 1.5, 1.5]), rtol=0, atol=0)
        given = dict(window_size=(3, 5, 7))
        torch.testing.assert_close(
            call(x, y, **given).double(), reference.ssim(x.double(), y.double(), **given)
        )
    assert "sigmas=(1.5, 1.5, 1.5), window_sizes=(3, 5, 7)" in repr(L1SSIMLoss(window_size=(3, 5, 7)))


@pytest.mark.parametrize("padding", ["valid", "zeros", "reflect", "normalized"])
@every_loss
def test_masks(name: str, padding: str) -> None:
    """Slice by slice those of images, and NaN behind the mask changes nothing."""
    x, y = pair(2, 3, 4, 12, 13, dtype=torch.float64)
    mask = (torch.rand(2, 1, 4, 12, 13, generator=torch.Generator().manual_seed(2)) < 0.8).float()
    make, given = VOLUMES[name].make, dict(padding=padding, reduction="map")
    slices, truth, kept = (t.movedim(2, 1).flatten(0, 1) for t in (x, y, mask))
    expected = make(window_size=5, **given)(slices, truth, mask=kept)
    for volume in (x, torch.where(mask == 0, torch.nan, x)):
        actual = make(window_size=(1, 5, 5), sigma=1.5, **given)(volume, y, mask=mask)
        torch.testing.assert_close(actual.movedim(2, 1).flatten(0, 1), expected, rtol=1e-9, atol=1e-12)
    loss = make(padding=padding, window_size=3)
    torch.testing.assert_close(loss(x, y, mask=torch.ones(1, 4, 12, 13)), loss(x, y), rtol=1e-12, atol=0)


V = torch.zeros(1, 1, 12, 12, 12)
ERRORS = {
    "a rank with sides": (
        dict(sigma=(1, 1, 1)),
        V[0],
        r"x: expected shape \[N, C, D, H, W\] for a sigma or window_size for each.*got \[1, 12, 12, 12\]",
    ),
    "rank 6": (
        {},
        V[None],
        r"x: expected shape \[N, C, H, W\], \[C, H, W\] or \[N, C, D, H, W\], got \[1, 1",
    ),
    "rank 2": ({}, V[0, 0, 0], r"x: expected shape .*got \[12, 12\]"),
    "two sigmas": (
        dict(sigma=(1, 1)),
        V,
        r"sigma: expected one value, or three along D, H and W, got \(1, 1\)",
    ),
    "four sizes": (
        dict(window_size=[3] * 4),
        V,
        r"window_size: expected one value, or three .*got \[3, 3, 3, 3\]",
    ),
    "an even size": (dict(window_size=(3, 4, 3)), V, r"window_size: expected an odd positive integer.*got 4"),
    "sigma 0": (dict(sigma=(1, 0, 1)), V, r"sigma: expected a finite number > 0, got 0\.0"),
    "one voxel": (
        dict(window="uniform", window_size=(1, 1, 1), sample_covariance=True),
        V,
        r"window_size: expected at least 3 for sample_covariance=True, got 1",
    ),
    "too small": (
        dict(window_size=(3, 13, 5)),
        V,
        r"x: expected depth, height and width of at least 3x13x5 for padding='valid' and a window of 3x13x5 "
        r"taps, got 12x12x12; a smaller window_size",
    ),
    "too small to reflect": (
        dict(padding="reflect", window_size=25),
        V,
        r"x: expected depth, height and width of at least 13 for padding='reflect' and a window of 25 taps",
    ),
}


@pytest.mark.parametrize(("options", "x", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(options: dict, x: Tensor, message: str) -> None:
    for call in (lambda: ssim(x, x, **options), lambda: SSIMLoss(**options)(x, x)):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("loss", [MixLoss(), MSSSIMLoss(), MSSSIMLoss("dyadic")], ids=str)
def test_several_scales_take_images_alone(loss: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \[N, C, H, W\] or \[C, H, W\], got \[1, 1, 12"):
        loss(V, V)


def test_channels_last_by_mistake_warns(recwarn: pytest.WarningsRecorder) -> None:
    from ssimloss import warn

    warn._said.clear()
    x = torch.rand(1, 12, 13, 14, 2)
    ssim(x, x, padding="zeros", window_size=3)
    assert "permute(0, 4, 1, 2, 3)" in str(recwarn.pop(UserWarning).message)


@pytest.mark.parametrize("variant", ["baseline", "x86-64-v3"])
def test_other_instruction_sets(variant: str, python: Callable) -> None:
    code = """
from itertools import product
import ssimloss
from cases import PADDINGS
from test_volumes import *
for name, padding, reduction in product(VOLUMES, PADDINGS, ("mean", "map")):
    for dtype, limits in TOLERANCE.items():
        x, y = pair(1, 2, 13, 19, 23, dtype=dtype)
        for options in (dict(), ANISOTROPIC, dict(window_size=3)):
            assert_same(VOLUMES[name], x, y, padding=padding, reduction=reduction, **options, **limits)
print(ssimloss.info()["cpu_variant"])
"""
    done = python(code, SSIMLOSS_CPU=variant)
    if "SSIMLOSS_CPU: expected one of" in done.stderr:
        pytest.skip(f"{variant}: not this machine's")
    assert done.returncode == 0 and done.stdout.strip() == variant, done.stderr


def test_scratch_memory(python: Callable) -> None:
    """Beside the gradient, less than 4 MB a thread, in a fresh process."""
    code = """
import pathlib, torch
from ssimloss import SSIMLoss
torch.set_num_threads(2)
def kilobytes(key):
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(key))
def step(*shape):
    x, y = torch.rand(shape, requires_grad=True), torch.rand(shape)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = kilobytes("VmRSS")
    SSIMLoss()(x, y).backward()
    return 1024 * (kilobytes("VmHWM") - before) - 4 * x.numel()
step(1, 1, 12, 12, 12)
print(step(1, 1, 96, 128, 128))
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < 2 * (4 << 20)
