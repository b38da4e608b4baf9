"""Every loss beside its specification, and the comparisons that the test files share."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from ssimloss import L1Loss, L1SSIMLoss, MixLoss, MSSSIMLoss, SSIMLoss, reference

# Both gradients, and one alone, for which the kernels take other paths.
WANTS = ("xy", "x")
PADDINGS = ("valid", "zeros", "reflect")
HALF_TYPES = (torch.float16, torch.bfloat16)


class Case(NamedTuple):
    """A loss of this package, the same in plain torch, and where its window fits."""

    make: Callable[..., torch.nn.Module]
    spec: Callable[..., Tensor]
    taps: int  # of the largest window, by default
    levels: int = 1
    tiny: Mapping = MappingProxyType({})  # options that take tiny images, for fast tests

    def fused(self, x: Tensor, y: Tensor, **options) -> Tensor:
        return self.make(**options)(x, y)

    def least(
        self, padding: str, taps: int | None = None, levels: int | None = None, halving: str = "edge"
    ) -> int:
        """The smallest image side: the issue's table, row "borders", at the coarsest level."""
        taps = self.taps if taps is None else taps
        coarsest = {"valid": taps, "zeros": 1, "reflect": taps // 2 + 1}[padding]
        halvings = 2 ** ((self.levels if levels is None else levels) - 1)
        return coarsest * halvings if halving == "drop" else (coarsest - 1) * halvings + 1

    def reductions(self) -> tuple[str, ...]:
        return ("mean", "none") if self.levels > 1 else ("mean", "none", "map")


def one_minus(similarity: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, y, **options: 1 - similarity(x, y, **options)


def dyadic(make: Callable[..., torch.nn.Module]) -> Callable[..., torch.nn.Module]:
    return lambda **options: make(multiscale="dyadic", **options)


def l1(reduction: str = "mean", **of_windows) -> L1Loss:
    """Whatever the others' windows are: it has none."""
    return L1Loss(reduction=reduction)


def l1_spec(
    x: Tensor, y: Tensor, reduction: str = "mean", mask: Tensor | None = None, **of_windows
) -> Tensor:
    return reference.l1_loss(x, y, reduction=reduction, mask=mask)


def ms_ssim_loss(x: Tensor, y: Tensor, negative: str = "continue", **options) -> Tensor:
    """The loss's default is not the similarity's."""
    return 1 - reference.ms_ssim(x, y, negative=negative, **options)


def mix_dyadic(x: Tensor, y: Tensor, **options) -> Tensor:
    return reference.mix_loss(x, y, multiscale="dyadic", **options)


SMALL = dict(window_size=3)
TWO_SCALES = dict(window_size=5, sigmas=(0.8, 1.5))
TWO_LEVELS = dict(window_size=3, weights=(0.4, 0.6))

CASES = {
    "l1": Case(l1, l1_spec, 1, tiny=dict(window_size=1)),
    "ssim": Case(SSIMLoss, one_minus(reference.ssim), 11, tiny=SMALL),
    "l1_ssim": Case(L1SSIMLoss, reference.l1_ssim_loss, 11, tiny=SMALL),
    "ms_ssim_gaussian": Case(MSSSIMLoss, one_minus(reference.ms_ssim_gaussian), 57, tiny=TWO_SCALES),
    "ms_ssim": Case(dyadic(MSSSIMLoss), ms_ssim_loss, 11, 5, TWO_LEVELS),
    "mix": Case(MixLoss, reference.mix_loss, 57, tiny=TWO_SCALES),
    "mix_dyadic": Case(dyadic(MixLoss), mix_dyadic, 11, 5, TWO_LEVELS),
}
HALVINGS = ("edge", "zeros", "drop")
every_halving = pytest.mark.parametrize("halving", HALVINGS)
every_loss = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
WINDOWED = {name: case for name, case in CASES.items() if name != "l1"}
every_windowed_loss = pytest.mark.parametrize("case", WINDOWED.values(), ids=WINDOWED)
every_padding = pytest.mark.parametrize("padding", PADDINGS)
every_reduction = pytest.mark.parametrize(
    ("case", "reduction"),
    [pytest.param(c, r, id=f"{name}-{r}") for name, c in CASES.items() for r in c.reductions()],
)


def pair(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Smooth random images in [0, 1] and a noisy copy, never closer than 0.01: no kink of l1."""
    generator = torch.Generator().manual_seed(seed)

    def uniform() -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    y = (0.5 + 0.4 * torch.sin(torch.arange(shape[-1]) / 7.0)) * uniform()
    sign = torch.where(uniform() < 0.5, -1.0, 1.0)
    return (y + sign * (0.01 + 0.1 * uniform())).to(dtype), y.to(dtype)


def wanted_by(want: str, x: Tensor, y: Tensor) -> list[Tensor]:
    """x, y as new leaves (strides kept), of which those named in `want` ask for a gradient."""
    return [t.detach().requires_grad_(name in want) for name, t in (("x", x), ("y", y))]


def value_and_gradients(
    loss_of: Callable[..., Tensor], x: Tensor, y: Tensor, want: str = "xy", **options
) -> tuple[Tensor, list[Tensor]]:
    """The loss and its gradients under a fixed random incoming gradient, the same for a shape."""
    leaves = wanted_by(want, x, y)
    loss = loss_of(*leaves, **options)
    generator = torch.Generator().manual_seed(loss.dim())
    incoming = torch.randn(loss.shape, generator=generator, dtype=torch.float64) + 0.1
    asked = [leaf for leaf in leaves if leaf.requires_grad]
    return loss.detach(), list(torch.autograd.grad(loss, asked, incoming.to(loss)))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """L2 norm of the error in units of that of the expected tensor; NaN anywhere is infinite."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    error = (actual.double() - expected.double()).norm()
    return (error / expected.double().norm()).nan_to_num(nan=torch.inf).item()


def values_and_gradients(
    case: Case, x: Tensor, y: Tensor, spec: Callable[..., Tensor], wants: Iterable[str] = WANTS, **options
) -> Iterator[tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]]:
    """For each of `wants`: the loss, `spec`'s in float64 of the same numbers, pairs of their gradients."""
    exact = [t.double().contiguous() for t in (x, y)]
    expected, both = value_and_gradients(spec, *exact, **options)
    expected_grads = dict(zip("xy", both, strict=True))
    for want in wants:
        actual, grads = value_and_gradients(case.fused, x, y, want, **options)
        yield actual, expected, list(zip(grads, (expected_grads[name] for name in want), strict=True))


def assert_same(
    case: Case,
    x: Tensor,
    y: Tensor,
    *,
    wants: Iterable[str] = WANTS,
    value: float,
    gradient: float,
    **options,
) -> None:
    """The fused loss of x, y against the specification in float64 of the same numbers."""
    for actual, expected, grads in values_and_gradients(case, x, y, case.spec, wants, **options):
        assert actual.dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
        error = relative_error(actual, expected)
        assert error < value, f"value of {tuple(x.shape)}"
        for grad, expected_grad in grads:
            assert grad.dtype == x.dtype
            error = relative_error(grad, expected_grad)
            assert error < gradient, f"{len(grads)} gradients of {tuple(x.shape)}"


def sizes(case: Case, padding: str) -> Iterator[tuple[int, int]]:
    """The least size, the least height alone, and odd beside even."""
    least = case.least(padding)
    yield least, least
    yield least, least + 24
    yield least + 13, least + 6
