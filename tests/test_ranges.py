"""data_range as a tensor: a range for each image."""

from collections.abc import Callable

import pytest
import torch
from cases import (
    WINDOWED,
    Case,
    every_padding,
    every_windowed_loss,
    pair,
    relative_error,
    value_and_gradients,
)
from test_second_order import CHECK
from torch import Tensor

import ssimloss
from ssimloss import L1SSIMLoss, MixLoss, SSIMLoss, images

RANGES = torch.tensor([1.0, 255.0, 0.3], dtype=torch.float64)
LIMITS = {torch.float64: 1e-10, torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 5e-3}


def many(case: Case, dtype: torch.dtype = torch.float64, grow: int = 5) -> tuple[Tensor, Tensor]:
    """Three images that fill their ranges."""
    side = case.least("valid", case.tiny.get("window_size"), len(case.tiny.get("weights", "1"))) + grow
    x, y = pair(3, 2, side, side + 3, dtype=torch.float64)
    scale = RANGES[:, None, None, None]
    return (x * scale).to(dtype), (y * scale).to(dtype)


def scaled(case: Case, factor: float, ranges: Tensor | None = None, **options) -> Callable[..., Tensor]:
    loss = case.make(**options)
    return lambda x, y: factor * loss(x, y, data_range=ranges)


def with_ranges(case: Case, ranges: Tensor, **options) -> Callable[..., Tensor]:
    return scaled(case, 1.0, ranges, **case.tiny, **options)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@every_padding
@every_windowed_loss
def test_equal_to_a_loop(case: Case, padding: str, dtype: torch.dtype, layout: torch.memory_format) -> None:
    """Of the images with a number each: values and gradients, both and one alone."""
    x, y = (t.contiguous(memory_format=layout) for t in many(case, dtype))
    for reduction in case.reductions():
        options = dict(case.tiny, padding=padding, reduction=reduction)
        factor = 1.0 if reduction == "map" else 64.0  # of float16's small numbers
        for want in ("xy", "y"):
            value, grads = value_and_gradients(scaled(case, factor, RANGES, **options), x, y, want)
            numbers = [
                value_and_gradients(scaled(case, factor, data_range=r, **options), x, y, want)
                for r in RANGES.tolist()
            ]
            if reduction == "mean":
                pairs = zip(RANGES.tolist(), x[:, None], y[:, None], strict=True)
                alone = [factor * case.make(**options, data_range=r)(*pair) for r, *pair in pairs]
                assert relative_error(value, torch.stack(alone).mean()) < 1e-6
            else:
                expected = torch.stack([numbers[i][0][i] for i in range(3)])
                assert relative_error(value, expected) < (1e-12 if dtype == torch.float64 else 1e-6)
                # L1SSIMLoss adds two losses up; of float16 the value comes without the gradient.
                if case.make is not L1SSIMLoss and dtype != torch.float16:
                    assert torch.equal(value, expected)
            for k, grad in enumerate(grads):
                assert grad.dtype == dtype and grad.stride() == torch.empty_like(x).stride()
                for i in range(3):
                    assert relative_error(grad[i], numbers[i][1][k][i]) < LIMITS[dtype]


@pytest.mark.parametrize("taps", [3, 11, 35])
@every_padding
@pytest.mark.parametrize("name", ["ssim", "l1_ssim", "mix"])
def test_as_the_specification(name: str, padding: str, taps: int) -> None:
    """Planes side by side, and each alone; narrow and wide windows."""
    case = WINDOWED[name]
    options = dict(window_size=taps, padding=padding) | (dict(sigmas=(1.0, 2.0)) if name == "mix" else {})
    for channels, width in ((1, 300), (4, taps + 9)):
        ranges = torch.tensor([1.0, 255.0, 0.3, 7.0])
        x, y = (t * ranges[:, None, None, None] for t in pair(4, channels, taps + 4, width))
        for reduction in ("none", "map"):
            leaves = [t.requires_grad_() for t in (x, y)]
            loss = scaled(case, 1.0, ranges, **options, reduction=reduction)(*leaves)
            incoming = torch.rand(loss.shape, dtype=torch.float64)
            actual, grads = loss.detach(), torch.autograd.grad(loss, leaves, incoming.float())
            for i, data_range in enumerate(ranges.tolist()):
                given = dict(options, reduction=reduction, data_range=data_range)
                leaves = [t.detach()[i : i + 1].double().requires_grad_() for t in (x, y)]
                expected = case.spec(*leaves, **given)
                assert relative_error(actual[i], expected[0]) < 5e-6
                for grad, right in zip(
                    grads, torch.autograd.grad(expected, leaves, incoming[i : i + 1]), strict=True
                ):
                    assert relative_error(grad[i], right[0]) < 5e-6


@pytest.mark.parametrize("shape", [(3, 3, 730, 725), (5, 3, 40, 41)], ids=str)
@pytest.mark.parametrize("name", ["ms_ssim", "mix_dyadic"])
def test_pyramids(name: str, shape: tuple[int, ...], taps: int = 11) -> None:
    """Plane by plane and all at once."""
    ranges = torch.arange(1, 1 + shape[0]) * 50
    x, y = (t * ranges[:, None, None, None] for t in pair(*shape))
    case, options = WINDOWED[name], dict(weights=(0.4, 0.6), window_size=taps)
    actual, grads = value_and_gradients(scaled(case, 1.0, ranges, reduction="none", **options), x, y, "x")
    incoming = value_and_gradients(lambda x, y: (x + 0 * y).flatten(1).sum(1), x, y, "x")[1][0][:, :1, :1, :1]
    for i, data_range in enumerate(ranges):
        loss = case.make(**options, data_range=float(data_range))
        leaf = x[i : i + 1].clone().requires_grad_()
        expected = loss(leaf, y[i : i + 1])
        (grad,) = torch.autograd.grad(expected, leaf, incoming[i, 0, 0, 0])
        assert relative_error(actual[i], expected) < 1e-6
        assert relative_error(grads[0][i : i + 1], grad) < 5e-6


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@every_windowed_loss
def test_one_for_all(case: Case, dtype: torch.dtype) -> None:
    """[]: the number, to the last bit of the value; also of images without a batch."""
    x, y = (t[0] for t in many(case, dtype))
    for given in ((x, y), (x[None], y[None])):
        for ranges in (torch.tensor(3.0), torch.tensor(3), torch.tensor(3, dtype=torch.uint8)):
            value, grads = value_and_gradients(with_ranges(case, ranges), *given)
            expected, expected_grads = value_and_gradients(case.make(**case.tiny, data_range=3), *given)
            assert relative_error(value, expected) < 1e-6
            assert case.make is L1SSIMLoss or dtype == torch.float16 or torch.equal(value, expected)
            for grad, expected_grad in zip(grads, expected_grads, strict=True):
                assert relative_error(grad, expected_grad) < LIMITS[dtype]


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
@every_windowed_loss
def test_no_range_is_nan(case: Case, dtype: torch.dtype) -> None:
    """Of that image alone: the others keep their bits."""
    x, y = (torch.cat([t, t]) for t in many(case, dtype))
    good = torch.cat([RANGES, RANGES])
    bad = torch.tensor([0.0, -1.0, torch.nan, torch.inf, -torch.inf])
    expected, expected_grads = value_and_gradients(with_ranges(case, good, reduction="none"), x, y)
    for value in bad:
        ranges = good.clone()
        ranges[4] = value
        actual, grads = value_and_gradients(with_ranges(case, ranges, reduction="none"), x, y)
        others = torch.arange(6) != 4
        assert actual[4].isnan() and torch.equal(actual[others], expected[others])
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            assert grad[4].isnan().all() and torch.equal(grad[others], expected_grad[others])
        assert with_ranges(case, ranges)(x, y).isnan()


@every_windowed_loss
def test_float16_gradients_under_a_large_range(case: Case) -> None:
    """They were below its smallest number, had they been kept before they are multiplied."""
    x, y = many(case)
    x, y = ((t / RANGES[:, None, None, None] * 60000).clamp(max=65000).half() for t in (x, y))
    options = dict(case.tiny) | (dict(l1_range=1.0) if "mix" in case.spec.__name__ else {})
    factor = 60000.0 * x[0].numel()
    _, grads = value_and_gradients(scaled(case, factor, torch.full((3,), 60000.0), **options), x, y)
    wide = x.double(), y.double()
    _, expected = value_and_gradients(scaled(case, factor, data_range=60000.0, **options), *wide)
    for grad, expected_grad in zip(grads, expected, strict=True):
        assert relative_error(grad, expected_grad) < 6e-4


@pytest.mark.parametrize("function", [ssimloss.ssim, ssimloss.ms_ssim, ssimloss.ms_ssim_gaussian])
def test_functions(function: Callable[..., Tensor]) -> None:
    x, y = (t * RANGES[:, None, None, None] for t in pair(3, 1, 165, 166, dtype=torch.float64))
    actual = function(x, y, data_range=RANGES, reduction="none")
    for i, value in enumerate(RANGES):
        expected = function(x[i : i + 1], y[i : i + 1], data_range=value.item())
        torch.testing.assert_close(actual[i], expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("padding", ["valid", "zeros", "normalized"])
@every_windowed_loss
def test_under_a_mask(case: Case, padding: str) -> None:
    """Equal to a loop, too; NaN behind the mask changes nothing, and nor does a range for nothing."""
    x, y = many(case)
    mask = torch.rand(3, 1, *x.shape[2:], generator=torch.Generator().manual_seed(0), dtype=x.dtype).round()
    mask[..., :4] = 1
    for reduction in case.reductions()[1:]:
        options = dict(case.tiny, padding=padding, reduction=reduction)
        loss = case.make(**options)
        actual, grads = value_and_gradients(lambda *i: loss(*i, mask=mask, data_range=RANGES), x, y)  # noqa: B023
        for i, data_range in enumerate(RANGES.tolist()):
            one = case.make(**options, data_range=data_range)
            expected, by_number = value_and_gradients(lambda *i: one(*i, mask=mask), x, y)  # noqa: B023
            assert relative_error(actual[i], expected[i]) < 1e-12
            assert all(relative_error(g[i], e[i]) < 1e-10 for g, e in zip(grads, by_number, strict=True))
        spoiled = x.masked_fill(mask == 0, torch.nan)
        assert torch.equal(loss(spoiled, y, mask=mask, data_range=RANGES), actual)


# ---- What torch does with it


@every_windowed_loss
def test_derivatives(case: Case) -> None:
    x, y = (t.requires_grad_() for t in many(case, grow=0))
    for reduction in case.reductions()[:2]:
        loss = with_ranges(case, RANGES, reduction=reduction)
        torch.autograd.gradcheck(loss, (x, y), check_forward_ad=True, **CHECK)
        torch.autograd.gradgradcheck(loss, (x, y), **CHECK)


@every_windowed_loss
def test_vmap(case: Case) -> None:
    """Over ranges alone, and with the images; values and gradients."""
    x, y = many(case)
    ranges = torch.stack([RANGES, 2 * RANGES, 5 * RANGES])
    loss = case.make(**case.tiny)
    grad = torch.func.grad_and_value(lambda x, r: loss(x, y, data_range=r))
    for batch in (x.expand(3, *x.shape), torch.stack([x, x + 0.1, x - 0.1])):
        for in_dims in ((0, 0), (None, 0)):
            given = batch if in_dims[0] == 0 else x
            grads, values = torch.func.vmap(grad, in_dims)(given, ranges)
            for i in range(3):
                one, value = grad(given[i] if in_dims[0] == 0 else x, ranges[i])
                assert relative_error(values[i], value) < 1e-12
                assert relative_error(grads[i], one) < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@every_windowed_loss
def test_compile_and_export(case: Case, dtype: torch.dtype) -> None:
    x, y = many(case, dtype)
    loss = case.make(**case.tiny)

    def step(x: Tensor, y: Tensor, ranges: Tensor) -> Tensor:
        return loss(x, y, data_range=ranges) * 64

    expected, (expected_grad,) = value_and_gradients(lambda x, y: step(x, y, RANGES), x, y, "x")
    torch.compiler.reset()  # or the functions of all these losses would be one that is compiled too often
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    actual, (grad,) = value_and_gradients(lambda x, y: compiled(x, y, RANGES), x, y, "x")
    assert relative_error(actual, expected) < 1e-6
    assert relative_error(grad, expected_grad) < LIMITS[dtype]
    exported = torch.export.export(loss, (x, y), dict(data_range=RANGES)).module()
    assert relative_error(64 * exported(x, y, data_range=RANGES), expected) < 1e-6


def test_other_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for case in WINDOWED.values():
        x, y = many(case)
        expected = value_and_gradients(with_ranges(case, RANGES), x, y)
        with monkeypatch.context() as patch:
            patch.setattr(images, "has_kernels", lambda device: False)
            actual = value_and_gradients(with_ranges(case, RANGES), x, y)
        assert relative_error(actual[0], expected[0]) < 1e-6  # the ranges' inverses are float32 there
        assert all(relative_error(*pair) < 1e-5 for pair in zip(actual[1], expected[1], strict=True))


def test_no_gradient_no_graph() -> None:
    x, y = pair(2, 1, 20, 20)
    assert not SSIMLoss()(x, y, data_range=torch.ones(2)).requires_grad


# ---- Errors

IMAGE = torch.rand(3, 2, 20, 20)
ERRORS = {
    "shape": (torch.ones(2), ValueError, r"data_range: expected shape \[\] or \[3\], got \[2\]"),
    "two dimensions": (
        torch.ones(3, 1),
        ValueError,
        r"data_range: expected shape \[\] or \[3\], got \[3, 1\]",
    ),
    "gradient": (
        torch.ones(3, requires_grad=True),
        ValueError,
        r"data_range: takes no gradient, .*detach\(\)",
    ),
    "sparse": (torch.ones(3).to_sparse(), TypeError, "data_range: expected layout torch.strided"),
    "complex": (torch.ones(3) * 1j, TypeError, "data_range: expected real numbers, got torch.complex64"),
    "bool": (torch.ones(3) > 0, TypeError, "data_range: expected real numbers, got torch.bool"),
    "device": (
        torch.ones(3, device="meta"),
        ValueError,
        "data_range: expected the device of x, cpu, got meta",
    ),
}


@pytest.mark.parametrize(("ranges", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(ranges: Tensor, error: type, message: str) -> None:
    for loss in (
        lambda: ssimloss.ssim(IMAGE, IMAGE, data_range=ranges),
        lambda: SSIMLoss()(IMAGE, IMAGE, data_range=ranges),
    ):
        with pytest.raises(error, match=message):
            loss()


def test_a_tangent_is_refused() -> None:
    with pytest.raises(ValueError, match="data_range: takes no gradient"):
        torch.func.jvp(
            lambda r: ssimloss.ssim(IMAGE, IMAGE, data_range=r), (torch.ones(3),), (torch.ones(3),)
        )


def test_where_it_belongs() -> None:
    with pytest.raises(ValueError, match=r"data_range: expected shape \[\], got \[2\]"):
        ssimloss.ssim(IMAGE[0], IMAGE[0], data_range=torch.ones(2))
    for make in (SSIMLoss, L1SSIMLoss, MixLoss):
        with pytest.raises(TypeError, match=r"range: expected .* > 0, got .*; a tensor is given at the"):
            make(data_range=torch.ones(3))
    with pytest.raises(TypeError, match=r"range: expected a .* or None, got 255; a number is .* SSIMLoss\("):
        SSIMLoss()(IMAGE, IMAGE, data_range=255)


def test_raw_op() -> None:
    loss = SSIMLoss()
    options = loss.options._replace(inverse_ranges=torch.ones(2, dtype=torch.float64))
    with pytest.raises(ValueError, match="inverse_ranges: expected one float64 an image"):
        options.op(IMAGE, IMAGE, 1.0, False, False, *options)
    options = loss.options._replace(inverse_ranges=RANGES)
    for wants in ((True, True), (False, True)):
        x, y = (t.double().requires_grad_(want) for t, want in zip((IMAGE, IMAGE + 0.1), wants, strict=True))
        torch.library.opcheck(options.op, (x, y, 2.0, *wants, *options))
        grad_loss = torch.ones((), dtype=torch.float64)
        torch.library.opcheck(options.backward_op, (grad_loss, x.detach(), y.detach(), *wants, *options))
