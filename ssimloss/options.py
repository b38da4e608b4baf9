"""The options of a loss: their forms, their limits, and what is checked of them when a loss is made."""

import math
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from typing import Any, NamedTuple

from torch import Tensor

from ._ops import ops
from .reference import WANG_WEIGHTS, ZHAO_SIGMAS, radius_of

WINDOWS = ("gaussian", "uniform")
PADDINGS = ("valid", "zeros", "reflect", "normalized")
REDUCTIONS = ("mean", "none", "map")
MULTISCALES = ("gaussian", "dyadic")
HALVINGS = ("edge", "zeros", "drop")
NEGATIVES = ("continue", "clamp")
MAX_SCALES = 16
MAX_TAPS = 1023  # of a window
LEAST_K, MOST_K = 1e-9, 5e18  # their squares must not leave float32, nor twice these

Op = Callable[..., Any]


class Gaussian(NamedTuple):
    """All scales at full resolution; one scale is SSIM, none is l1 alone. sigmas and window_sizes ascend.

    An infinite sigma is a uniform window.
    """

    sigmas: tuple[float, ...]
    window_sizes: tuple[int, ...]
    padding: str
    data_range: float
    k1: float
    k2: float
    ssim_weight: float
    l1_weight: float  # of l1 in units of the data range
    l1_windowed: bool
    reduction: str
    inverse_ranges: Tensor | None = None  # float64 [N]: in the place of 1 / data_range, for each image
    mask: Tensor | None = None  # [N or 1, C or 1, H, W]: see masks.py

    @property
    def op(self) -> Op:
        return ops.gaussian.default

    @property
    def detailed_op(self) -> Op:
        return ops.gaussian_detailed.default

    @property
    def backward_op(self) -> Op:
        return ops.gaussian_backward.default

    @property
    def windows(self) -> tuple[int, ...]:
        """Taps of the largest window along H and W."""
        return (self.window_sizes[-1] if self.window_sizes else 1,) * 2


class Dyadic(NamedTuple):
    """A pyramid of halved images, one weight a level."""

    weights: tuple[float, ...]
    sigma: float
    window_size: int
    padding: str
    data_range: float
    k1: float
    k2: float
    ssim_weight: float
    l1_weight: float
    halving: str
    negative: str
    reduction: str
    inverse_ranges: Tensor | None = None
    mask: Tensor | None = None

    @property
    def op(self) -> Op:
        return ops.dyadic.default

    @property
    def backward_op(self) -> Op:
        return ops.dyadic_backward.default

    @property
    def windows(self) -> tuple[int, ...]:
        return (self.window_size,) * 2


class Volume(NamedTuple):
    """SSIM of volumes: one sigma and one window_size along each of D, H and W."""

    sigmas: tuple[float, ...]
    window_sizes: tuple[int, ...]
    padding: str
    data_range: float
    k1: float
    k2: float
    ssim_weight: float
    l1_weight: float  # of l1 in units of the data range, never blurred
    reduction: str
    inverse_ranges: Tensor | None = None
    mask: Tensor | None = None

    @property
    def op(self) -> Op:
        return ops.volume.default

    @property
    def detailed_op(self) -> Op:
        return ops.volume_detailed.default

    @property
    def backward_op(self) -> Op:
        return ops.volume_backward.default

    @property
    def windows(self) -> tuple[int, ...]:
        return self.window_sizes


Options = Gaussian | Dyadic | Volume
Tensors = tuple[Tensor | None, ...]


def tensors_of(options: Options) -> Tensors:
    """Those of its options that belong to a call: they come last, in every form."""
    return options.inverse_ranges, options.mask


def with_tensors(options: Options, tensors: Tensors) -> Options:
    return options._replace(inverse_ranges=tensors[0], mask=tensors[1])


class OneWindow(NamedTuple):
    """The options of SSIM, whose rank the images decide."""

    images: Gaussian | None  # None: sigma or window_size are given for each dimension of volumes
    volumes: Volume

    @property
    def shown(self) -> Options:
        return self.images or self.volumes


def gaussian_options(
    sigmas: Sequence[float],
    window_size: int | None,
    padding: str,
    data_range: float,
    k1: float,
    k2: float,
    *,
    reduction: str,
    ssim_weight: float = 1.0,
    l1_weight: float = 0.0,
    l1_windowed: bool = True,
    sigma_name: str = "sigmas",
) -> Gaussian:
    """Checked options of the Gaussian form; l1_weight weighs l1 in units of the data range."""
    if not 1 <= len(sequence(sigma_name, sigmas)) <= MAX_SCALES:
        raise ValueError(f"{sigma_name}: expected 1 to {MAX_SCALES} values, got {len(sigmas)}")
    ascending = tuple(sorted(positive(sigma_name, sigma) for sigma in sigmas))
    return Gaussian(
        ascending,
        tuple(window_of(sigma, window_size) for sigma in ascending),
        one_of("padding", padding, PADDINGS),
        positive("data_range", data_range),
        positive("k1", k1, LEAST_K, MOST_K),
        positive("k2", k2, LEAST_K, MOST_K),
        ssim_weight,
        l1_weight,
        l1_windowed,
        one_of("reduction", reduction, REDUCTIONS),
    )


def ssim_options(
    *,
    window: str,
    sigma: float | Sequence[float] | None,
    window_size: int | Sequence[int] | None,
    sample_covariance: bool,
    data_range: float,
    k1: float,
    k2: float,
    padding: str,
    reduction: str,
    **terms: Any,
) -> OneWindow:
    """Checked options of SSIM, under one window; terms: the weights of gaussian_options."""
    if not isinstance(sample_covariance, bool):
        raise TypeError(f"sample_covariance: expected True or False, got {sample_covariance!r}")
    uniform = one_of("window", window, WINDOWS) == "uniform"
    if uniform and sigma is not None:
        raise ValueError(f"sigma: expected None for window='uniform', got {sigma!r}")
    if not uniform and sample_covariance:
        raise ValueError("sample_covariance: expected False for window='gaussian', got True")
    sigmas = for_each_side("sigma", (1.0 if uniform else 1.5) if sigma is None else sigma)
    sizes = for_each_side("window_size", window_size)
    if uniform:
        sizes = tuple(7 if size is None else size for size in sizes)
    options = gaussian_options(
        sigmas[:1],
        sizes[0],
        padding,
        data_range,
        k1,
        k2,
        reduction=reduction,
        sigma_name="sigma",
        **terms,
    )
    sizes = tuple(window_of(positive("sigma", s), size) for s, size in zip(sigmas, sizes, strict=True))
    if uniform:
        sigmas = (math.inf,) * 3
        options = options._replace(sigmas=sigmas[:1])

    def k2_of(taps: int) -> float:
        if not sample_covariance:
            return options.k2
        if taps == 1:
            raise ValueError("window_size: expected at least 3 for sample_covariance=True, got 1")
        # Variances times f in (2 s_xy + c2) / (s_xx + s_yy + c2) are the same as c2 divided by f.
        return options.k2 * math.sqrt((taps - 1) / taps)

    values = options._replace(k2=k2_of(math.prod(sizes)))
    volumes = Volume(sigmas, sizes, *values[2:8], reduction)
    if isinstance(sigma, Sequence) or isinstance(window_size, Sequence):
        return OneWindow(None, volumes)
    return OneWindow(options._replace(k2=k2_of(sizes[0] ** 2)) if sample_covariance else options, volumes)


def for_each_side(name: str, value: Any) -> tuple:
    """One value along each of D, H and W; the same three times where there is one for all."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return (value,) * 3
    if len(value) != 3:
        raise ValueError(f"{name}: expected one value, or three along D, H and W, got {value!r}")
    return tuple(value)


def l1_options(reduction: str, data_range: float = 1.0) -> Gaussian:
    """Checked options of l1 alone, in the images' own units: without windows and what belongs to them."""
    k1, k2 = 0.01, 0.03
    if isinstance(data_range, Tensor):
        raise TypeError("data_range: expected a finite number > 0 or None, got a torch.Tensor")
    reduction, data_range = one_of("reduction", reduction, REDUCTIONS), positive("data_range", data_range)
    return Gaussian((), (), "zeros", data_range, k1, k2, 0.0, data_range, False, reduction)


def dyadic_options(
    weights: Sequence[float],
    sigma: float,
    window_size: int | None,
    padding: str,
    data_range: float,
    k1: float,
    k2: float,
    *,
    halving: str,
    negative: str,
    reduction: str,
    ssim_weight: float = 1.0,
    l1_weight: float = 0.0,
) -> Dyadic:
    """Checked options of the dyadic form."""
    if len(sequence("weights", weights)) == 0:
        raise ValueError("weights: expected one weight for each level, got none")
    if one_of("reduction", reduction, REDUCTIONS) == "map":
        raise ValueError(
            "reduction: expected 'mean' or 'none' for the dyadic form, got 'map': its levels have "
            "different sizes (multiscale='gaussian' has maps)"
        )
    return Dyadic(
        tuple(positive("weights", weight, or_zero=True) for weight in weights),
        positive("sigma", sigma),
        window_of(sigma, window_size),
        one_of("padding", padding, PADDINGS),
        positive("data_range", data_range),
        positive("k1", k1, LEAST_K, MOST_K),
        positive("k2", k2, LEAST_K, MOST_K),
        ssim_weight,
        l1_weight,
        one_of("halving", halving, HALVINGS),
        one_of("negative", negative, NEGATIVES),
        reduction,
    )


def multiscale_options(
    multiscale: str,
    sigmas: Sequence[float] | None,
    sigma: float | None,
    weights: Sequence[float] | None,
    halving: str | None,
    negative: str | None,
    window_size: int | None,
    padding: str,
    data_range: float,
    k1: float,
    k2: float,
    reduction: str,
    ssim_weight: float = 1.0,
    l1_weight: float = 0.0,
) -> Options:
    common = (window_size, padding, data_range, k1, k2)
    foreign: dict[str, dict[str, object]] = {"dyadic": {"sigmas": sigmas}}
    foreign["gaussian"] = dict(sigma=sigma, weights=weights, halving=halving, negative=negative)
    for name, value in foreign[one_of("multiscale", multiscale, MULTISCALES)].items():
        if value is not None:
            raise ValueError(f"{name}: expected None for multiscale={multiscale!r}, got {value!r}")
    if multiscale == "gaussian":
        return gaussian_options(
            ZHAO_SIGMAS if sigmas is None else sigmas,
            *common,
            reduction=reduction,
            ssim_weight=ssim_weight,
            l1_weight=l1_weight,
        )
    return dyadic_options(
        WANG_WEIGHTS if weights is None else weights,
        1.5 if sigma is None else sigma,
        *common,
        halving="edge" if halving is None else halving,
        negative="continue" if negative is None else negative,
        reduction=reduction,
        ssim_weight=ssim_weight,
        l1_weight=l1_weight,
    )


def window_of(sigma: float, window_size: int | None) -> int:
    if window_size is None and sigma <= MAX_TAPS:
        window_size = 2 * radius_of(sigma, None) + 1
    elif window_size is None:
        raise ValueError(f"sigma: expected a window of at most {MAX_TAPS} taps, got {sigma:g}")
    integral = isinstance(window_size, Integral) and not isinstance(window_size, bool)
    if not integral or window_size < 1 or window_size % 2 == 0:
        raise ValueError(f"window_size: expected an odd positive integer or None, got {window_size!r}")
    if window_size > MAX_TAPS:
        raise ValueError(
            f"window_size: expected at most {MAX_TAPS} taps, got {window_size} (sigma {sigma:g})"
        )
    return int(window_size)


def sequence(name: str, values: Sequence[float]) -> Sequence[float]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise TypeError(f"{name}: expected a list or tuple of numbers, got {values!r}")
    return values


def number(name: str, value: float, expected: str) -> float:
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value)
    got = "a torch.Tensor" if isinstance(value, Tensor) else repr(value)
    if name == "data_range" and isinstance(value, Tensor):
        got += "; a tensor is given at the call, loss(x, y, data_range=...)"
    raise TypeError(f"{name}: expected {expected}, got {got}")


def positive(
    name: str, value: float, least: float = 0.0, most: float = math.inf, *, or_zero: bool = False
) -> float:
    expected = "a finite number >= 0" if or_zero else "a finite number > 0"
    value = number(name, value, expected)
    if not math.isfinite(value) or value < 0 or (value == 0 and not or_zero):
        raise ValueError(f"{name}: expected {expected}, got {value!r}")
    if value < least:
        raise ValueError(f"{name}: expected at least {least:g}, got {value!r}")
    if value > most:
        raise ValueError(f"{name}: expected at most {most:g}, got {value!r}")
    return value


def number_of(data_range: float | Tensor) -> float:
    """For the options, where a range for each image comes beside them (images.py)."""
    return 1.0 if isinstance(data_range, Tensor) else data_range


def fraction(name: str, value: float) -> float:
    value = number(name, value, "a number in [0, 1]")
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number in [0, 1], got {value!r}")
    return value


def one_of(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value
