"""Whatever tensors and arguments: no crash, no wrong value, against ssimloss.reference in float64.

300 cases here, always the same. SSIMLOSS_FUZZ=20000 python -m pytest tests/test_fuzz.py runs as many others.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from unittest import mock

import exact
import pytest
import torch
import torch.nn.functional as F
from cases import (
    CASES,
    HALVINGS,
    PADDINGS,
    WINDOWED,
    Case,
    every_padding,
    relative_error,
    value_and_gradients,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssimloss import SSIMLoss, reference

ASKED = os.environ.get("SSIMLOSS_FUZZ")
CASES_ASKED = int(ASKED or 300)
SETTINGS = settings(
    max_examples=CASES_ASKED,
    derandomize=not ASKED,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SPECIAL = (math.nan, math.inf, -math.inf, 0.0, 1e-40, 5e-324)


# ---- The specification, with variances that lose nothing where values are large


def luminance_and_contrast_structure(
    x: Tensor,
    y: Tensor,
    sigma: tuple[float, float] | float,
    radius: tuple[int, int] | int,
    c1: float,
    c2: float,
    padding: str,
    largest: tuple[int, int] | int,
    sample_covariance: bool = False,
    mask: None = None,
) -> tuple[Tensor, Tensor]:
    """As reference's, from differences: E[x^2] - E[x]^2 of an image around 1e9 is noise even in float64."""
    sigma, radius, largest = (
        v[0] if isinstance(v, tuple) else v for v in (sigma, radius, largest)
    )  # the same for both
    if padding == "valid":
        crop = largest - radius
        x, y = (t[..., crop : t.shape[-2] - crop, crop : t.shape[-1] - crop] for t in (x, y))
    elif radius > 0:
        mode = "reflect" if padding == "reflect" else "constant"
        x, y = (F.pad(t, [radius] * 4, mode=mode) for t in (x, y))
    window = reference.gaussian(sigma, radius)
    # Means and (co)variances along the rows, then along the columns: the law of total variance.
    means: list[Tensor] = [x, y, x - y]
    variances: list[Tensor | float] = [0.0, 0.0, 0.0]
    for axis in (-1, -2):
        under = [t.unfold(axis, window.numel(), 1) for t in means]
        inner = [v.unfold(axis, window.numel(), 1) @ window if torch.is_tensor(v) else v for v in variances]
        means = [t @ window for t in under]
        around = [(t - mean[..., None]) ** 2 @ window for t, mean in zip(under, means, strict=True)]
        variances = [a + v for a, v in zip(around, inner, strict=True)]
    if sample_covariance:
        n = window.numel() ** 2
        variances = [v * n / (n - 1) for v in variances]
    (mu_x, mu_y, mu_d), (s_xx, s_yy, s_dd) = means, variances
    return 1 - mu_d**2 / (mu_x**2 + mu_y**2 + c1), 1 - s_dd / (s_xx + s_yy + c2)


# ---- Cases


class Drawn(NamedTuple):
    name: str
    options: dict[str, Any]
    shape: tuple[int, ...]
    dtype: torch.dtype
    seed: int
    images: str  # how y is made, and x from it
    scale: float  # of the values, in data ranges
    layouts: tuple[str, str]
    special: tuple[float, str] | None  # a value, and the image it is in
    want: str

    @property
    def case(self) -> Case:
        return CASES[self.name]

    @property
    def outlier(self) -> bool:
        """Whether a finite pixel lies a data range or more from others, as far as is known."""
        if self.special is None or not math.isfinite(self.special[0]):
            return False
        return self.scale > 1 or abs(self.special[0]) >= 0.9 * self.options["data_range"]


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    name = draw(st.sampled_from(sorted(CASES)))
    case, padding = CASES[name], draw(st.sampled_from(PADDINGS))
    options: dict[str, Any] = dict(padding=padding, reduction=draw(st.sampled_from(case.reductions())))
    levels, sigmas = 1, [1.5]
    if name in ("ms_ssim_gaussian", "mix"):
        sigmas = options["sigmas"] = draw(st.lists(st.floats(0.3, 2.0), min_size=1, max_size=5))
    elif name in ("ssim", "l1_ssim") and draw(st.integers(0, 2)) == 0:
        options["window"] = "uniform"
    else:
        sigmas = [options.setdefault("sigma", draw(st.floats(0.3, 2.0)))]
    if case.levels > 1:
        options["weights"] = draw(st.lists(st.floats(0, 1), min_size=1, max_size=4))
        levels = len(options["weights"])
        options |= dict(
            halving=draw(st.sampled_from(HALVINGS)), negative=draw(st.sampled_from(("continue", "clamp")))
        )
    options["window_size"] = draw(st.sampled_from((None, 1, 3, 5, 7, 9, 11, 13, 17)))
    options["data_range"] = draw(st.sampled_from((1.0, 255.0, 0.7, 1e-3, 65535.0, 1e6)))
    if draw(st.booleans()):
        options |= dict(k1=draw(st.floats(1e-3, 1)), k2=draw(st.floats(1e-3, 1)))
    if name.startswith("mix"):
        options |= dict(alpha=draw(st.floats(0, 1)), l1_range=draw(st.sampled_from((255.0, 1.0, 1e4))))
    if name == "l1_ssim":
        options["ssim_weight"] = draw(st.floats(0, 1))
    if "window" in options:
        taps = options["window_size"] or 7
        options["sample_covariance"] = taps > 1 and draw(st.booleans())
    else:
        taps = max(2 * reference.radius_of(sigma, options["window_size"]) + 1 for sigma in sigmas)
    least = case.least(padding, taps, levels, options.get("halving", "edge"))
    sides = [least + draw(st.integers(0, 24)) for _ in "hw"]
    batch = draw(st.sampled_from(((1, 1), (2, 3), (1, 3), (3, 1), (1, 5), (0, 3), (2, 0))))
    shape = (*batch, *sides) if draw(st.integers(0, 3)) else (batch[1], *sides)
    special = None
    scale = draw(st.sampled_from((1.0, 1.0, 1.0, 1e-3, 1e3, 1e6, 1e9, 1e-9, 1e-37)))
    if draw(st.integers(0, 2)) == 0:
        # A difference that is no number in units of the data range has no sign.
        possible = 4 if options["data_range"] > 1 or scale > 1 else 6
        outlier = draw(st.sampled_from((-1, 1))) * 10 ** draw(st.floats(0, 9)) * options["data_range"]
        value = outlier if draw(st.booleans()) else draw(st.sampled_from(SPECIAL[:possible]))
        special = (value, draw(st.sampled_from("xy")))
    return Drawn(
        name,
        options,
        shape,
        draw(st.sampled_from(DTYPES)),
        draw(st.integers(0, 2**32)),
        draw(
            st.sampled_from(
                ("apart", "near", "negative", "constant", "equal", "flat", "step", "ramp", "half black")
            )
        ),
        scale,
        (draw(st.sampled_from(sorted(LAYOUTS))), draw(st.sampled_from(sorted(LAYOUTS)))),
        special,
        draw(st.sampled_from(("", "x", "y", "xy"))),
    )


def larger(t: Tensor) -> Tensor:
    wide = torch.full([side + 3 for side in t.shape], 7.0, dtype=t.dtype)
    within = wide[tuple(slice(1, 1 + side) for side in t.shape)]
    return within.copy_(t)


def negative_view(t: Tensor) -> Tensor:
    """What conj().imag gives: the numbers are negated where they are read."""
    return torch.complex(torch.zeros_like(t), -t).conj().imag if t.dtype in DTYPES[:2] else t


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda t: t.contiguous(),
    "columns first": lambda t: t.mT.contiguous().mT,
    "channels last": lambda t: t.movedim(-3, -1).contiguous().movedim(-1, -3),
    "in a larger one": larger,
    "every other": lambda t: t.repeat_interleave(2, -1).repeat_interleave(3, -2)[..., ::3, ::2],
    "expanded rows": lambda t: t[..., :1, :].expand(t.shape),
    "expanded channels": lambda t: t[..., :1, :, :].expand(t.shape) if t.shape[-3] else t,
    "reversed": lambda t: t.transpose(0, -1).contiguous().transpose(0, -1),
    "negative view": negative_view,
}


def images_of(d: Drawn) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(d.seed)

    def uniform() -> Tensor:
        return torch.rand(d.shape, generator=generator, dtype=torch.float64)

    y = (0.5 + 0.4 * torch.sin(torch.arange(d.shape[-1]) / 7.0)) * uniform()
    if d.images in ("constant", "flat"):
        y = torch.full_like(y, 0.6)
    elif d.images == "step":
        y = 0.6 * (torch.arange(d.shape[-1]) > d.shape[-1] // 2).expand(d.shape).to(y)
    elif d.images == "ramp":
        y = torch.linspace(0, 1, max(y.numel(), 1), dtype=y.dtype)[: y.numel()].reshape(y.shape)
    elif d.images == "half black":
        y = y * (torch.arange(d.shape[-1]) > d.shape[-1] // 2)
    noise = torch.where(uniform() < 0.5, -1.0, 1.0) * (0.01 + 0.1 * uniform())
    plain = {"near": y + 1e-3 * noise, "negative": 1 - y, "equal": y, "flat": y, "step": 1.01 * y}
    x = plain.get(d.images, y + noise)
    size = min(d.scale * d.options["data_range"], torch.finfo(d.dtype).max / 4)
    x, y = ((t * size).to(d.dtype) for t in (x, y))
    if d.special:
        value, image = d.special
        if math.isfinite(value):
            most = torch.finfo(d.dtype).max / 4
            value = min(max(value, -most), most)
        target = (x if image == "x" else y).view(-1)
        if target.numel():
            target[:: max(1, target.numel() // 2)] = value
    return LAYOUTS[d.layouts[0]](x), LAYOUTS[d.layouts[1]](y)


def run(loss_of: Callable[..., Tensor], x: Tensor, y: Tensor, d: Drawn) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and its gradients, under a random incoming gradient that is the same for a shape."""
    leaves = {n: t.detach().requires_grad_(n in d.want) for n, t in (("x", x), ("y", y))}
    loss = loss_of(leaves["x"], leaves["y"])
    if not d.want:
        return loss.detach(), {}
    incoming = torch.rand(loss.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    grads = torch.autograd.grad(loss, [leaves[n] for n in d.want], incoming.to(loss))
    return loss.detach(), dict(zip(d.want, grads, strict=True))


def expected_of(d: Drawn, x: Tensor, y: Tensor, sound: bool) -> tuple[Tensor, dict[str, Tensor]]:
    def loss_of(x: Tensor, y: Tensor) -> Tensor:
        if x.dim() == 4:
            return d.case.spec(x, y, **d.options)
        loss = d.case.spec(x[None], y[None], **d.options)
        return loss if d.options["reduction"] == "mean" else loss[0]

    name = "luminance_and_contrast_structure"
    patched = luminance_and_contrast_structure if sound else getattr(reference, name)
    with mock.patch.object(reference, name, patched):
        return run(loss_of, x.double().contiguous(), y.double().contiguous(), d)


def gradient_of_factors(d: Drawn, x: Tensor, y: Tensor) -> float:
    """The L2 norm, over both images, of the gradients that l and each cs have alone.

    Where the others vanish that of their product does, too; and so does one of an image that has no
    contrast beside one that has.
    """
    factors: list[Tensor] = []

    def watched(*args: Any, **mask: None) -> tuple[Tensor, Tensor]:
        factors.extend(luminance_and_contrast_structure(*args, **mask))
        return factors[-2], factors[-1]

    leaves = [t.detach().double().contiguous().requires_grad_() for t in (x, y)]
    with mock.patch.object(reference, "luminance_and_contrast_structure", watched):
        d.case.spec(*(t if t.dim() == 4 else t[None] for t in leaves), **d.options)
    if not factors:  # l1 alone
        return 0.0
    count = {"mean": lambda f: f.numel(), "none": lambda f: f[0].numel(), "map": lambda f: 1}
    total = sum(f.sum() / count[d.options["reduction"]](f) for f in factors)
    assert isinstance(total, Tensor)
    return sum(g.nan_to_num(0, 0, 0).norm() ** 2 for g in torch.autograd.grad(total, leaves)) ** 0.5


def slope_of_clamped(d: Drawn, x: Tensor, y: Tensor) -> float:
    """How many times steeper than at 0.05, where "continue" leaves it, log m is at the least abs(m)."""
    if d.options.get("negative") != "clamp":
        return 1.0
    slopes = [1.0]
    log_power = reference.log_power

    def watched(m: Tensor, *args: Any) -> Tensor:
        slopes.append(reference.KNEE / max(m.nan_to_num(1).abs().min().item(), 1e-300))
        return log_power(m, *args)

    with mock.patch.object(reference, "log_power", watched):
        expected_of(d._replace(want=""), x, y, sound=True)
    return max(slopes)


# ---- What must hold


def error_of(actual: Tensor, expected: Tensor) -> tuple[float, float]:
    """(L2 norm of the error, of the expected), where the expected is finite and within the dtype."""
    there = expected.isfinite() & (expected.abs() < torch.finfo(actual.dtype).max / 4)
    actual, expected = actual.double()[there], expected[there]
    assert actual.isfinite().all()
    return (actual - expected).norm().item(), expected.norm().item()


class Limits(NamedTuple):
    """Of values in their own size, and of what a loss of 0.001 is; of gradients in their own size."""

    value: float
    gradient: float
    factors: float = 0  # and in that of gradient_of_factors
    cells: float = 0  # and in a contrast's, over the smaller one of c1 and c2


def limits_of(d: Drawn, cuda: bool) -> Limits:
    huge = d.scale > 1 or d.outlier
    if d.dtype == torch.float64:
        return Limits(1e-11, 1e-9, 1e-11 if huge else 0)
    # One row of padding on all sides costs digits (test_kernels.py); c1 and c2 vanish beside huge values.
    one_row = d.options["padding"] == "zeros" and min(d.shape[-2:]) <= 2
    value, gradient = (1e-4, 1e-3) if one_row else (5e-6, 1e-5)
    rounding = 0 if d.dtype == torch.float32 else torch.finfo(d.dtype).eps
    if not cuda:  # in double where it is needed; the halved images are float32
        return Limits(value, gradient + rounding, 2e-6)
    if huge:
        value, gradient = max(value, 2e-5), 1e-3
    # CUDA keeps m and d relative to one value of each 4x4 or 8x8 pixels: 1e-7 of a contrast there is lost.
    return Limits(value, gradient + rounding, 1e-4 if huge else 2e-6, 1e-7 if d.outlier else 0)


def check(d: Drawn, cuda: bool = False) -> None:
    x, y = images_of(d)
    loss, grads = run(d.case.make(**d.options), x, y, d)
    reduction, limits = d.options["reduction"], limits_of(d, cuda)
    assert loss.dtype == (torch.float64 if d.dtype == torch.float64 else torch.float32)
    for n, grad in grads.items():
        assert grad.shape == (x if n == "x" else y).shape and grad.dtype == d.dtype
    if x.numel() == 0:  # the convolutions of torch take none; the mean of nothing is NaN
        single = reduction == "mean" or x.dim() == 3
        assert reduction == "map" or (loss.isnan().all() and loss.dim() == 1 - single)
        return
    expected, expected_grads = expected_of(d, x, y, sound=True)
    if d.scale <= 1 and d.images != "near" and not d.special:
        plain, _ = expected_of(d, x, y, sound=False)
        torch.testing.assert_close(expected, plain, rtol=1e-9, atol=1e-9)
    assert loss.shape == expected.shape
    assert torch.equal(loss.isfinite(), expected.isfinite())
    error, size = error_of(loss, expected)
    contrast = torch.stack((x, y)).double().nan_to_num(0, 0, 0).abs().max().item() / d.options["data_range"]
    c = min(d.options.get("k1", 0.01), d.options.get("k2", 0.03)) ** 2
    lost = limits.cells * contrast
    # A window in a flat region, whose base is beyond it: the variance is the rest of squares, of m = x + y.
    variance = 0.0
    if d.images in ("flat", "step"):
        eps = 1e-6 if cuda or contrast < 8 else 1e-14
        variance = eps * contrast**2 / d.options.get("k2", 0.03) ** 2
    steep = slope_of_clamped(d, x, y)
    within = steep * (limits.value + lost / c**0.5 + variance)
    assert error <= within * (size + 1e-3 * math.sqrt(loss.numel()))
    count = {"mean": x.numel(), "none": x[0].numel() if x.dim() == 4 else x.numel(), "map": 1}[reduction]
    unit = gradient_of_factors(d, x, y) if limits.factors else 0
    for n, grad in grads.items():
        error, size = error_of(grad, expected_grads[n])
        # Below the smallest numbers of the images' dtype, in which 16 bits keep the gradient of the sum in
        # units of the data range, and of what is computed in, there are none.
        least = torch.finfo(d.dtype)
        nothing = 2 * least.smallest_normal * least.eps / min(1.0, d.options["data_range"])
        nothing += 0 if d.dtype == torch.float64 else 1e-30
        nothing += lost / c / count / d.options["data_range"]
        within = (limits.gradient + variance) * size + (limits.factors + variance) * unit
        assert error <= steep * (within + nothing * math.sqrt(grad.numel()))


@pytest.mark.filterwarnings("ignore:ssimloss:UserWarning")
@SETTINGS
@given(drawn())
def test_any_tensors_and_arguments(d: Drawn) -> None:
    check(d)


def contrasts(name: str, padding: str, contrast: float) -> Iterator[Drawn]:
    """Flat regions beside pixels, lines or halves that lie so many data ranges away."""
    case = CASES[name]
    options: dict[str, Any] = dict(padding=padding, data_range=0.7)
    if case.levels > 1:
        options["weights"] = (0.4, 0.6)
    windows = [dict(window_size=7), dict(window_size=11)]
    if name in ("ssim", "l1_ssim"):
        windows.append(dict(window="uniform"))
    reductions, wants = itertools.cycle(case.reductions()), itertools.cycle(("xy", "x", "y"))
    for images, scale, special, layout in (
        ("flat", contrast, (0.0, "x"), "plain"),
        ("flat", 1.0, (contrast * 0.7, "y"), "plain"),
        ("flat", 1.0, (-contrast * 0.7, "x"), "expanded rows"),
        ("step", contrast, None, "plain"),
    ):
        for window, reduction in zip(windows, reductions, strict=False):
            drawing = (name, options | window | dict(reduction=reduction), (1, 1, 35, 41), torch.float32)
            yield Drawn(*drawing, 0, images, scale, (layout, layout), special, next(wants))


every_contrast = pytest.mark.parametrize("contrast", [10.0**k for k in range(10)])


@pytest.mark.filterwarnings("ignore:ssimloss:UserWarning")
@every_contrast
@every_padding
@pytest.mark.parametrize("name", WINDOWED)
def test_contrasts(name: str, padding: str, contrast: float, cuda: bool = False) -> None:
    for d in contrasts(name, padding, contrast):
        check(d, cuda)


def test_an_outlier_among_huge_values(gradient: float = 1e-5) -> None:
    """One black pixel in white, 1000 data ranges apart."""
    y = torch.full((1, 1, 40, 60), 1000.0)
    x = y.clone()
    x[..., 20, 20] = 0
    (actual, grads), (expected, expected_grads) = (
        value_and_gradients(loss, *pair, "x")
        for loss, pair in ((SSIMLoss(), (x, y)), (exact.ssim, (x.double(), y.double())))
    )
    assert relative_error(actual, expected) < 5e-6
    assert relative_error(grads[0], expected_grads[0]) < gradient
