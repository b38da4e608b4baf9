"""return_parts and return_map of the losses: the terms and the map beside the loss, without gradients."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from cases import every_padding, pair, relative_error, value_and_gradients
from test_targets import Calls
from torch import Tensor, func

from ssimloss import L1SSIMLoss, MixLoss, MSSSIMLoss, SSIMLoss, reference


def luminance_free(x: Tensor, y: Tensor, window_size: int, padding: str, data_range: float) -> Tensor:
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    r = window_size // 2
    return reference.luminance_and_contrast_structure(x, y, 1.5, r, c1, c2, padding, r)[1]


def ssim_parts(x: Tensor, y: Tensor, reduction: str = "mean", **options) -> dict[str, Tensor]:
    cs = luminance_free(x, y, **options)
    return {
        "ssim": reference.ssim(x, y, **options, reduction=reduction),
        "cs": reference.reduce(cs, reduction),
    }


def l1_ssim_parts(x: Tensor, y: Tensor, reduction: str = "mean", **options) -> dict[str, Tensor]:
    return {
        "ssim": reference.ssim(x, y, **options, reduction=reduction),
        "l1": reference.reduce((x - y).abs(), reduction),
    }


def mix_parts(x: Tensor, y: Tensor, multiscale: str = "gaussian", **options) -> dict[str, Tensor]:
    """The terms of equation 14, each with the other's weight at 0."""
    similarity = reference.mix_loss(x, y, alpha=1.0, multiscale=multiscale, **options)
    l1 = reference.mix_loss(x, y, alpha=0.0, multiscale=multiscale, **options)
    return {"ms_ssim": 1 - similarity, "l1": l1}


class Case(NamedTuple):
    make: Callable[..., torch.nn.Module]
    parts: Callable[..., dict[str, Tensor]]
    options: dict
    map: bool = True


SCALES, LEVELS = dict(window_size=5, sigmas=(0.8, 1.5)), dict(window_size=3, weights=(0.4, 0.6))
CASES = {
    "ssim": Case(SSIMLoss, ssim_parts, dict(window_size=5)),
    "ssim_wide": Case(SSIMLoss, ssim_parts, dict(window_size=19)),
    "l1_ssim": Case(L1SSIMLoss, l1_ssim_parts, dict(window_size=5)),
    "l1_ssim_wide": Case(L1SSIMLoss, l1_ssim_parts, dict(window_size=19)),
    "ms_ssim": Case(MSSSIMLoss, lambda x, y, **o: {"ms_ssim": mix_parts(x, y, **o)["ms_ssim"]}, SCALES),
    "mix": Case(MixLoss, mix_parts, SCALES),
    "mix_dyadic": Case(
        lambda **options: MixLoss(multiscale="dyadic", **options),
        lambda x, y, **options: mix_parts(x, y, "dyadic", **options),
        LEVELS,
        False,
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_map = pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in CASES.items() if case.map]
)


@pytest.mark.parametrize("data_range", [1.0, 7.0])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@every_padding
@every_case
def test_parts_are_the_specifications(case: Case, padding: str, reduction: str, data_range: float) -> None:
    x, y = (data_range * t for t in pair(2, 3, 41, 44, dtype=torch.float64))
    options = dict(case.options, padding=padding, data_range=data_range)
    loss, parts = case.make(**options, reduction=reduction)(x.requires_grad_(), y, return_parts=True)
    expected = case.parts(x.detach(), y, reduction=reduction, **options)
    assert parts.keys() == expected.keys() and loss.requires_grad
    for name, part in parts.items():
        assert not part.requires_grad and part.shape == loss.shape
        assert relative_error(part, expected[name]) < 1e-9, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16], ids=str)
@every_case
def test_the_formulas(case: Case, dtype: torch.dtype) -> None:
    """As the docstrings write them; weights of 0 and 1 hide no part."""
    x, y = pair(1, 3, 41, 44, dtype=dtype)
    for weight in (0.3, 0.0, 1.0):
        options = dict(case.options)
        if case.make is L1SSIMLoss:
            options |= dict(ssim_weight=weight)
        if case.make not in (SSIMLoss, L1SSIMLoss, MSSSIMLoss):
            options |= dict(alpha=weight, l1_range=4.0)
        loss, parts = case.make(**options)(x, y, return_parts=True)
        similarity = parts["ssim" if "ssim" in parts else "ms_ssim"]
        expected = 1 - similarity
        if "l1" in parts:
            assert parts["l1"] > 0.01
            expected = weight * expected + (1 - weight) * parts["l1"]
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
@every_padding
@every_map
def test_loss_and_gradient_do_not_change(
    case: Case, padding: str, reduction: str, dtype: torch.dtype
) -> None:
    x, y = pair(2, 3, 41, 44, dtype=dtype)
    loss = case.make(**case.options, padding=padding, reduction=reduction)
    expected, right = value_and_gradients(loss, x, y)
    asked = dict(return_parts=True, return_map=True)
    actual, grads = value_and_gradients(lambda x, y: loss(x, y, **asked)[0], x, y)
    assert torch.equal(actual, expected) and all(map(torch.equal, grads, right))
    given, parts, loss_map = loss(x.requires_grad_(), y, **asked)
    assert given.requires_grad and not loss_map.requires_grad
    assert not any(part.requires_grad for part in parts.values())
    whole = case.make(**case.options, padding=padding, reduction="map")(x, y)
    assert loss_map.dtype == whole.dtype  # strips have other bases beside a gradient: rounded otherwise
    assert relative_error(loss_map, whole) < (1e-12 if dtype == torch.float64 else 1e-6)


@every_map
def test_out_of_one_launch(case: Case) -> None:
    """But for cs, which takes one of its own, and an l1 without a weight."""
    x, y = pair(1, 3, 41, 44)
    asked = dict(return_parts=True, return_map=True)
    with Calls() as calls:
        case.make(**case.options)(x.requires_grad_(), y, **asked)
    names = [name.removeprefix("ssimloss::") for name in calls.names if name.startswith("ssimloss::")]
    of_cs = ["gaussian"] if case.parts is ssim_parts else []
    assert [name for name in names if name != "gradient_like"] == ["gaussian_detailed", *of_cs]
    if case.make is L1SSIMLoss:
        with Calls() as calls:
            L1SSIMLoss(1.0)(x, y, **asked)
        assert len([name for name in calls.names if name.startswith("ssimloss::")]) == 2


@every_map
def test_the_mean_of_the_map(case: Case) -> None:
    x, y = pair(2, 3, 41, 44, dtype=torch.float64)
    loss, loss_map = case.make(**case.options, padding="zeros")(x, y, return_map=True)
    assert relative_error(loss_map.mean(), loss) < 1e-12


def test_the_mean_of_cs_and_l() -> None:
    """Far from the same luminance they differ: SSIM is less."""
    x, y = pair(1, 1, 40, 40, dtype=torch.float64)
    parts = SSIMLoss()(x, 0.5 * y, return_parts=True)[1]
    assert parts["ssim"] < 0.95 * parts["cs"]
    constant = torch.full((1, 1, 20, 20), 0.25)
    parts = SSIMLoss()(constant, 3 * constant, return_parts=True)[1]
    assert parts["cs"] == 1 and parts["ssim"] < 0.7


def test_volumes() -> None:
    x, y = pair(1, 2, 9, 12, 14, dtype=torch.float64)
    options = dict(window_size=(3, 5, 7), padding="valid")
    _, parts, loss_map = L1SSIMLoss(**options)(x, y, return_parts=True, return_map=True)
    assert relative_error(parts["ssim"], reference.ssim(x, y, **options)) < 1e-9
    assert relative_error(parts["l1"], (x - y).abs().mean()) < 1e-9
    assert loss_map.shape == (1, 2, 7, 8, 8)
    assert relative_error(loss_map, L1SSIMLoss(**options, reduction="map")(x, y)) < 1e-12
    parts = SSIMLoss(**options)(x, y, return_parts=True)[1]
    assert parts["ssim"] < parts["cs"] < 1


@pytest.mark.parametrize("given", ["mask", "range", "bytes", "normalized", "one image"])
@pytest.mark.parametrize("name", ["ssim", "l1_ssim", "mix"])
def test_with_other_options(name: str, given: str) -> None:
    """The parts make up the loss, and the map is that of the reduction."""
    case = CASES[name]
    x, y = pair(2, 3, 41, 44)
    options, call = dict(case.options), {}
    if given == "mask":
        call = dict(mask=torch.rand(2, 1, 41, 44) > 0.4)
    elif given == "range":
        call = dict(data_range=torch.tensor([1.0, 3.0]))
    elif given == "bytes":
        y = (255 * y).byte()
    elif given == "normalized":
        options |= dict(padding="normalized")
    else:
        x, y = x[0], y[0]
    for reduction in ("mean", "none"):
        module = case.make(**options, reduction=reduction)
        loss, parts, loss_map = module(x, y, **call, return_parts=True, return_map=True)
        assert torch.equal(loss, module(x, y, **call))
        whole = case.make(**options, reduction="map")(x, y, **call)
        assert loss_map.shape == whole.shape and relative_error(loss_map, whole) < 1e-6
        similarity = parts["ms_ssim" if name == "mix" else "ssim"]
        weight = {"ssim": 1.0, "l1_ssim": 0.2, "mix": 0.84}[name]
        expected = weight * (1 - similarity) + (1 - weight) * parts.get("l1", 0.0)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-6)


def with_all(module: torch.nn.Module, **more: bool) -> Callable[[Tensor, Tensor], tuple]:
    return lambda x, y: module(x, y, return_parts=True, **more)


@every_case
def test_traced_and_batched(case: Case) -> None:
    x, y = pair(2, 3, 41, 44, dtype=torch.float64)
    module = case.make(**case.options)
    asked = dict(return_map=True) if case.map else {}
    expected = with_all(module, **asked)(x, y)
    torch.compiler.reset()
    compiled = torch.compile(with_all(module, **asked), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y), expected)
    leaf = x.clone().requires_grad_()
    loss = compiled(leaf, y)[0]
    (gradient,) = torch.autograd.grad(loss, leaf)
    leaf = x.clone().requires_grad_()
    (right,) = torch.autograd.grad(module(leaf, y), leaf)
    torch.testing.assert_close(gradient, right)
    exported = torch.export.export(module, (x, y), dict(return_parts=True, **asked)).module()
    torch.testing.assert_close(exported(x, y, return_parts=True, **asked), expected)
    each = func.vmap(with_all(module, **asked))(x[:, None], y[:, None])
    for i in range(2):
        alone = with_all(module, **asked)(x[i : i + 1], y[i : i + 1])
        torch.testing.assert_close(each[0][i], alone[0])
        torch.testing.assert_close({k: v[i] for k, v in each[1].items()}, alone[1])

    def loss_and_aux(x: Tensor) -> tuple[Tensor, list]:
        loss, *rest = with_all(module, **asked)(x, y)
        return loss, rest

    gradient, aux = func.grad(loss_and_aux, has_aux=True)(x)
    torch.testing.assert_close(gradient, right)
    torch.testing.assert_close(aux, list(expected[1:]))
    tangents = func.jvp(lambda x: with_all(module, **asked)(x, y)[1], (x,), (x,))[1]
    assert all(tangent.count_nonzero() == 0 for tangent in tangents.values())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (MSSSIMLoss("dyadic", **LEVELS), "return_map: expected False for the dyadic form"),
        (SSIMLoss(reduction="map"), "return_map: expected False for reduction='map'"),
    ],
)
def test_errors(module: torch.nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(*pair(1, 1, 20, 20), return_map=True)


@pytest.mark.parametrize("map_too", [False, True])
@pytest.mark.parametrize("loss", [SSIMLoss(window_size=3), L1SSIMLoss(window_size=3)], ids=repr)
def test_hessian_of_a_loss_with_details(loss, map_too: bool) -> None:
    x, y = (
        torch.rand(1, 1, 4, 5, generator=torch.Generator().manual_seed(s), dtype=torch.float64)
        for s in (0, 1)
    )
    with_details = func.hessian(lambda x: loss(x, y, return_parts=True, return_map=map_too)[0])(x)
    assert torch.equal(with_details, func.hessian(lambda x: loss(x, y))(x))
