"""Targets of uint8, or of 16 bits beside float32 and float64: read as they are, equal to converted ones."""

from collections.abc import Callable

import pytest
import torch
from cases import (
    CASES,
    Case,
    every_halving,
    every_loss,
    every_padding,
    every_reduction,
    every_windowed_loss,
    pair,
    relative_error,
    value_and_gradients,
)
from test_second_order import CHECK
from torch import Tensor, func
from torch.utils._python_dispatch import TorchDispatchMode

import ssimloss
from ssimloss import L1Loss, L1SSIMLoss, MixLoss, SSIMLoss, images

WIDE = (torch.float32, torch.float64)
NARROW = (torch.uint8, torch.float16, torch.bfloat16)
every_target = pytest.mark.parametrize("of_y", NARROW, ids=str)


def make(case: Case, **options) -> torch.nn.Module:
    """l1 takes no other options of windows, but the range that bytes need."""
    if case is CASES["l1"]:
        return L1Loss(reduction=options.get("reduction", "mean"), data_range=options.get("data_range", 1.0))
    return case.make(**options)


def bytes_beside(x: Tensor, y: Tensor, data_range: float = 1.0) -> tuple[Tensor, Tensor]:
    """x in this range, and the bytes nearest to y."""
    return x * data_range, (y * 255).round().to(torch.uint8)


def of_dtypes(case: Case, of_x: torch.dtype, of_y: torch.dtype, data_range: float, grow: int = 14):
    levels = len(case.tiny.get("weights", "1"))
    side = case.least("valid", case.tiny["window_size"], levels) + grow
    x, y = pair(2, 3, side, side + 3, dtype=torch.float64)
    if of_y == torch.uint8:
        x, y = bytes_beside(x, y, data_range)
    else:
        x, y = x * data_range, (y * data_range).to(of_y)
    return x.to(of_x), y


def converted(y: Tensor, dtype: torch.dtype, data_range: float | Tensor) -> Tensor:
    """As the documentation says, in torch's arithmetic."""
    return y.to(dtype) * data_range / 255 if y.dtype == torch.uint8 else y.to(dtype)


@every_target
@pytest.mark.parametrize("of_x", WIDE, ids=str)
@every_padding
@every_reduction
def test_equal_to_converting_first(
    case: Case, reduction: str, padding: str, of_x: torch.dtype, of_y: torch.dtype
) -> None:
    """To the bit, in whatever order the pixels lie in memory."""
    for data_range in (1.0, 255.0, 0.3):
        x, y = of_dtypes(case, of_x, of_y, data_range)
        loss = make(case, **case.tiny, padding=padding, reduction=reduction, data_range=data_range)
        for layout in (torch.contiguous_format, torch.channels_last):
            given = y.contiguous(memory_format=layout)
            expected = value_and_gradients(loss, x, converted(y, of_x, data_range), "x")
            actual = value_and_gradients(loss, x, given, "x")
            assert torch.equal(actual[0], expected[0])
            assert actual[1][0].dtype == of_x and torch.equal(actual[1][0], expected[1][0])


WINDOWS: dict[str, Callable[..., torch.nn.Module]] = {
    "wide": lambda **o: SSIMLoss(window_size=31, sigma=4.0, **o),
    "scales": lambda **o: MixLoss(sigmas=(0.5, 2.0, 4.0), **o),
    "strips": lambda **o: L1SSIMLoss(**o),
    "uniform": lambda **o: SSIMLoss(window="uniform", **o),
}


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("contrast", [1.0, 50.0], ids=["in range", "far out of it"])
def test_larger_images(name: str, contrast: float) -> None:
    """Strips, planes side by side, and planes that the CPU does once more in double."""
    for shape in ((1, 1, 40, 1500), (3, 2, 45, 47)):
        x, y = bytes_beside(*pair(*shape))
        loss = WINDOWS[name]()
        expected = value_and_gradients(loss, x * contrast, converted(y, torch.float32, 1.0), "x")
        actual = value_and_gradients(loss, x * contrast, y, "x")
        assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1][0], expected[1][0])


@every_target
@pytest.mark.parametrize("of_x", WIDE, ids=str)
@pytest.mark.parametrize("reduction", ["mean", "map"])
@every_padding
def test_volumes(padding: str, reduction: str, of_x: torch.dtype, of_y: torch.dtype) -> None:
    x, y = pair(2, 2, 9, 10, 40, dtype=torch.float64)
    x, y = bytes_beside(x, y) if of_y == torch.uint8 else (x, y.to(of_y))
    loss = L1SSIMLoss(window_size=(3, 5, 7), padding=padding, reduction=reduction)
    expected = value_and_gradients(loss, x.to(of_x), converted(y, of_x, 1.0), "x")
    actual = value_and_gradients(loss, x.to(of_x), y, "x")
    assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1][0], expected[1][0])


@pytest.mark.parametrize("of_x", [torch.float16, torch.bfloat16], ids=str)
@every_reduction
def test_bytes_beside_16_bits(case: Case, reduction: str, of_x: torch.dtype) -> None:
    """The value is that of float32 images to the bit, as bytes are not rounded; the gradient is rounded."""
    x, y = of_dtypes(case, of_x, torch.uint8, 1.0)
    loss = make(case, **case.tiny, reduction=reduction)
    expected = value_and_gradients(loss, x.float(), converted(y, torch.float32, 1.0), "x")
    actual = value_and_gradients(loss, x, y, "x")
    assert actual[0].dtype == torch.float32 and torch.equal(actual[0], expected[0])
    assert actual[1][0].dtype == of_x
    assert relative_error(actual[1][0], expected[1][0]) < (5e-4 if of_x == torch.float16 else 4e-3)


@every_target
@pytest.mark.parametrize("of_x", [*WIDE, torch.float16], ids=str)
def test_as_cuda_takes_them(of_x: torch.dtype, of_y: torch.dtype) -> None:
    """images.one_dtype, which a test without a GPU can only look at: one dtype, and the same loss."""
    if of_y.itemsize >= of_x.itemsize:
        pytest.skip("no such pair")
    x, y = bytes_beside(*pair(2, 3, 20, 21, dtype=torch.float64), 9.0)
    x, y = x.to(of_x), y if of_y == torch.uint8 else (y / 30).to(of_y)
    loss = SSIMLoss(data_range=9.0)
    alike = images.one_dtype(x, y, loss.options)
    assert alike[0].dtype == alike[1].dtype == torch.promote_types(of_x, torch.float32)
    assert torch.equal(loss(*alike), loss(x, y))


@every_halving
def test_as_the_specification(halving: str) -> None:
    """In float64; of odd sides, too."""
    for name, case in CASES.items():
        options = dict(case.tiny, data_range=3.0) | (dict(halving=halving) if "weights" in case.tiny else {})
        x, y = of_dtypes(case, torch.float64, torch.uint8, 3.0)
        right = value_and_gradients(case.spec, x, y.double() * 3 / 255, "x", **options)
        if name == "l1":
            right = value_and_gradients(case.spec, x, y.double() * 3 / 255, "x")
        actual = value_and_gradients(make(case, **options), x, y, "x")
        assert relative_error(actual[0], right[0]) < 1e-9
        assert relative_error(actual[1][0], right[1][0]) < 1e-9


@pytest.mark.parametrize("reduction", ["mean", "none"])
@every_windowed_loss
def test_a_range_for_each_image(case: Case, reduction: str) -> None:
    ranges = torch.tensor([1.0, 255.0])
    x, y = of_dtypes(case, torch.float32, torch.uint8, 1.0)
    scale = ranges[:, None, None, None]
    loss = case.make(**case.tiny, reduction=reduction)
    right = value_and_gradients(loss, x * scale, converted(y, torch.float32, scale), "x", data_range=ranges)
    actual = value_and_gradients(loss, x * scale, y, "x", data_range=ranges)
    assert torch.equal(actual[0], right[0]) and torch.equal(actual[1][0], right[1][0])


@pytest.mark.parametrize("options", [dict(padding="normalized"), {}], ids=["normalized", "mask"])
def test_in_plain_torch(options: dict) -> None:
    x, y = bytes_beside(*pair(2, 3, 20, 24), 9.0)
    mask = None if options else (torch.rand(2, 1, 20, 24) > 0.3)
    for ranges in (None, torch.tensor([9.0, 2.0])):
        loss = L1SSIMLoss(window_size=5, data_range=9.0, **options)
        scale = torch.tensor(9.0) if ranges is None else ranges[:, None, None, None]
        right = value_and_gradients(
            loss, x, converted(y, torch.float64, scale).float(), "x", mask=mask, data_range=ranges
        )
        actual = value_and_gradients(loss, x, y, "x", mask=mask, data_range=ranges)
        assert relative_error(actual[0], right[0]) < 1e-6
        assert relative_error(actual[1][0], right[1][0]) < 1e-5


class Calls(TorchDispatchMode):
    """The names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


@every_target
@every_loss
def test_nothing_is_converted(case: Case, of_y: torch.dtype) -> None:
    """One operator, which is given the target itself, and in the backward pass one that scales."""
    x, y = of_dtypes(case, torch.float32, of_y, 1.0)
    loss = make(case, **case.tiny)
    x.requires_grad_()
    with Calls() as calls:
        loss(x, y)
    ours = [name for name in calls.names if name.startswith("ssimloss::")]
    assert len(ours) == 1 and not [
        name for name in calls.names if "copy" in name or name.startswith("aten::to")
    ]


# ---- What differentiates, traces and batches


@every_loss
def test_derivatives(case: Case) -> None:
    x, y = of_dtypes(case, torch.float64, torch.uint8, 1.0, grow=1)
    x = x[:1, :1].clone().requires_grad_()
    y = y[:1, :1]
    loss = make(case, **case.tiny)

    def of_x(x: Tensor) -> Tensor:
        return loss(x, y)

    torch.autograd.gradcheck(of_x, x, check_forward_ad=True, **CHECK)
    torch.autograd.gradgradcheck(of_x, x, **CHECK)


@pytest.mark.parametrize("of_y", [torch.uint8, torch.float16], ids=str)
@every_loss
def test_transforms(case: Case, of_y: torch.dtype) -> None:
    x, y = of_dtypes(case, torch.float32, of_y, 1.0)
    loss = make(case, **case.tiny)
    expected, (gradient,) = value_and_gradients(loss, x, converted(y, torch.float32, 1.0), "x")
    of_converted = func.grad(loss)(x, converted(y, torch.float32, 1.0))
    assert torch.equal(func.grad(loss)(x, y), of_converted)
    each = func.vmap(loss)(x, y)
    torch.testing.assert_close(each, torch.stack([loss(*images) for images in zip(x, y, strict=True)]))
    torch.compiler.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    actual, (of_compiled,) = value_and_gradients(compiled, x, y, "x")
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(of_compiled, gradient)
    exported = torch.export.export(loss, (x, y)).module()
    assert torch.equal(exported(x, y), expected)


def test_autocast() -> None:
    """Bytes are read as they are; a 16-bit y that asks for a gradient is converted, and gets one."""
    x, y = bytes_beside(*pair(1, 3, 20, 20))
    with torch.autocast("cpu"):
        assert torch.equal(SSIMLoss()(x, y), SSIMLoss()(x, converted(y, torch.float32, 1.0)))
        half = x.half().requires_grad_()
        SSIMLoss()(x, half).backward()
    assert half.grad is not None and half.grad.norm() > 0


A = torch.rand(1, 3, 64, 64)
ERRORS = {
    "gradient": (
        lambda: SSIMLoss()(A, A.half().requires_grad_()),
        ValueError,
        r"y: expected one that requires no gradient, as torch\.float16 beside torch\.float32 has none",
    ),
    "tangent": (
        lambda: func.jvp(lambda y: SSIMLoss()(A, y), (A.half(),), (A.half(),)),
        ValueError,
        "y: expected one that requires no gradient",
    ),
    "prediction": (
        lambda: SSIMLoss()(A.byte(), A),
        TypeError,
        r"x: expected dtype .*got torch\.uint8 \(x\.float",
    ),
    "wider": (lambda: SSIMLoss()(A, A.double()), TypeError, "y: expected the dtype of x"),
    "float32": (
        lambda: SSIMLoss()(A.double(), A),
        TypeError,
        r"the dtype of x, torch\.float64, got torch\.f",
    ),
    "16 bits": (lambda: SSIMLoss()(A.half(), A.bfloat16()), TypeError, "y: expected the dtype of x"),
    "int8": (lambda: SSIMLoss()(A, A.to(torch.int8)), TypeError, "y: expected dtype .*uint8, got torch.int8"),
    "l1": (
        lambda: L1Loss()(A, A.byte()),
        TypeError,
        r"y: .*got torch\.uint8, which takes L1Loss\(data_range=",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_errors(call: Callable, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_no_gradient_is_asked_for_without_grad() -> None:
    y = A.half().requires_grad_()
    with torch.no_grad():
        assert torch.equal(SSIMLoss()(A, y), SSIMLoss()(A, y.float()))


def test_raw_ops_check_too() -> None:
    options = SSIMLoss().options
    for x, y, want_y in ((A, A.half(), True), (A.byte(), A.byte(), False), (A.half(), A.bfloat16(), False)):
        with pytest.raises((ValueError, RuntimeError), match=r"ssimloss: .*expected"):
            ssimloss.ops.ops.gaussian(x, y, 1.0, False, want_y, *options)
