"""Every refusal names the argument, what was expected and what came; what is legal passes."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import every_windowed_loss

import ssimloss
from ssimloss import (
    L1Loss,
    L1SSIMLoss,
    MixLoss,
    MSSSIMLoss,
    SSIMLoss,
    ms_ssim,
    ms_ssim_gaussian,
    ssim,
)
from ssimloss.images import check_cuda_limits

A = torch.zeros(1, 3, 64, 64)
FUNCTIONS = [ssim, ms_ssim, ms_ssim_gaussian]


# call -> the error and its message, a regular expression: argument, expectation, actual
IMAGES = {
    "list": ([0.0], A, TypeError, r"x: expected a torch\.Tensor, got list"),
    "array": (A, np.zeros(3), TypeError, r"y: expected a torch\.Tensor, got ndarray"),
    "2-D": (A[0, 0], A[0, 0], ValueError, r"x: expected shape \[N, C, H, W\].*got \[64, 64\]"),
    "6-D": (
        A[None, None],
        A[None, None],
        ValueError,
        r"x: expected .*\[C, H, W\].*, got \[1, 1, 1, 3, 64, 64\]",
    ),
    "ranks": (A, A[0], ValueError, r"y: expected the shape of x, \[1, 3, 64, 64\], got \[3, 64"),
    "shapes": (A, A[..., 1:], ValueError, r"y: .*shape of x, \[1, 3, 64, 64\], got \[1, 3, 64, 63"),
    "broadcast": (A, A[:, :1], ValueError, r"y: expected the shape of x.*got \[1, 1, 64, 64\]"),
    "integers": (A.int(), A.int(), TypeError, r"x: expected dtype float16,.* got torch\.int32"),
    "bytes": (A.byte(), A.byte(), TypeError, r"got torch\.uint8 \(x\.float\(\) with data_range=255 takes it"),
    "complex": (A * 1j, A * 1j, TypeError, r"x: expected dtype .*got torch\.complex64"),
    "dtypes": (
        A,
        A.double(),
        TypeError,
        r"y: expected the dtype of x, torch\.float32, got torch\.f",
    ),
    "half": (
        A.half(),
        A,
        TypeError,
        r"y: expected the dtype of x, torch\.float16, got torch\.float",
    ),
    "devices": (A, A.to("meta"), ValueError, r"y: expected the device of x, cpu, got meta"),
}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(("x", "y", "error", "message"), IMAGES.values(), ids=IMAGES)
def test_images(function: Callable, x, y, error: type, message: str) -> None:
    options = {} if function is not ms_ssim else dict(weights=(1.0,))
    with pytest.raises(error, match=message):
        function(x, y, **options)


@pytest.mark.parametrize("loss", [ms_ssim, ms_ssim_gaussian, MixLoss(), MSSSIMLoss(), L1Loss()])
def test_who_takes_volumes(loss: Callable) -> None:
    with pytest.raises(ValueError, match=r"64\]; ssim, SSIMLoss and L1SSIMLoss alone take volumes"):
        loss(A[None], A[None])


PADDING = r"padding: expected one of 'valid', 'zeros', 'reflect', 'normalized', got 'same'"
REDUCTION = r"reduction: expected one of 'mean', 'none', 'map', got 'sum'"
ODD = r"window_size: expected an odd positive integer or None, got "
NO_MAP = r"reduction: expected 'mean' or 'none' for the dyadic form, got 'map'"
OPTIONS = {
    "padding": (dict(padding="same"), ValueError, PADDING),
    "reduction": (dict(reduction="sum"), ValueError, REDUCTION),
    "even window": (dict(window_size=10), ValueError, ODD + "10"),
    "no window": (dict(window_size=0), ValueError, ODD + "0"),
    "negative window": (dict(window_size=-3), ValueError, ODD + "-3"),
    "broken window": (dict(window_size=11.0), ValueError, ODD + r"11\.0"),
    "true window": (dict(window_size=True), ValueError, ODD + "True"),
    "data_range 0": (dict(data_range=0), ValueError, r"data_range: expected a .*> 0, got 0\.0"),
    "data_range < 0": (dict(data_range=-1), ValueError, r"data_range: .*> 0, got -1\.0"),
    "data_range inf": (dict(data_range=math.inf), ValueError, r"data_range: .*finite.*got inf"),
    "data_range nan": (dict(data_range=math.nan), ValueError, r"data_range: .*finite.*got nan"),
    "data_range text": (dict(data_range="1"), TypeError, r"data_range: expected .*got '1'"),
    "data_range tensor": (dict(data_range=A.max()), TypeError, "data_range: .*Tensor; a tensor is given at"),
    "k1": (dict(k1=0.0), ValueError, r"k1: expected a finite number > 0, got 0\.0"),
    "k1 too large": (dict(k1=2e19), ValueError, r"k1: expected at most 5e\+18, got 2e\+19"),
    "k2": (dict(k2=-0.03), ValueError, r"k2: expected a finite number > 0, got -0\.03"),
}


# Functions take one, and a range that is none gives NaN: test_ranges.py.
OF_FUNCTIONS = {name: case for name, case in OPTIONS.items() if name != "data_range tensor"}


@pytest.mark.parametrize(("options", "error", "message"), OF_FUNCTIONS.values(), ids=OF_FUNCTIONS)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_options_of_functions(function: Callable, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        function(A, A, **options)


@pytest.mark.parametrize(("options", "error", "message"), OPTIONS.values(), ids=OPTIONS)
@every_windowed_loss
def test_options_of_modules(case, options: dict, error: type, message: str) -> None:
    """Already where the module is made, not in the first step of training."""
    with pytest.raises(error, match=message):
        case.make(**options)


FRACTION = r": expected a number in \[0, 1\], got "
SPECIAL = {
    "sigma 0": (SSIMLoss, dict(sigma=0), r"sigma: expected a finite number > 0, got 0\.0"),
    "sigma < 0": (L1SSIMLoss, dict(sigma=-1.5), r"sigma: expected .*> 0, got -1\.5"),
    "sigma beyond": (
        SSIMLoss,
        dict(sigma=1e308),
        r"sigma: expected a window of at most 1023 taps, got 1e\+308",
    ),
    "sigmas beyond": (MixLoss, dict(sigmas=(1.0, 1e308)), r"sigma: .* at most 1023 taps, got 1e\+308"),
    "dyadic sigma": (MSSSIMLoss, dict(multiscale="dyadic", sigma=0), r"sigma: .*> 0, got 0\.0"),
    "a sigma 0": (MSSSIMLoss, dict(sigmas=(1, 0)), r"sigmas: expected .*> 0, got 0\.0"),
    "no sigmas": (MixLoss, dict(sigmas=()), r"sigmas: expected 1 to 16 values, got 0"),
    "17 sigmas": (MixLoss, dict(sigmas=[1.0] * 17), r"sigmas: expected 1 to 16 values, got 17"),
    "no weights": (MSSSIMLoss, dict(multiscale="dyadic", weights=()), r"weights: .*got none"),
    "weight < 0": (
        MixLoss,
        dict(multiscale="dyadic", weights=(1, -1)),
        r"weights: expected a finite number >= 0, got -1\.0",
    ),
    "alpha > 1": (MixLoss, dict(alpha=1.5), "alpha" + FRACTION + r"1\.5"),
    "alpha < 0": (MixLoss, dict(alpha=-0.1), "alpha" + FRACTION + r"-0\.1"),
    "alpha nan": (MixLoss, dict(alpha=math.nan), "alpha" + FRACTION + "nan"),
    "ssim_weight": (L1SSIMLoss, dict(ssim_weight=2), "ssim_weight" + FRACTION + "2"),
    "l1_range": (MixLoss, dict(l1_range=0), r"l1_range: expected a finite number > 0, got 0\.0"),
    "form": (
        MixLoss,
        dict(multiscale="laplacian"),
        r"multiscale: expected one of 'gaussian', 'dyadic', got 'laplacian'",
    ),
    "halving": (
        MSSSIMLoss,
        dict(multiscale="dyadic", halving="floor"),
        r"halving: expected one of 'edge', 'zeros', 'drop', got 'floor'",
    ),
    "negative": (
        MixLoss,
        dict(multiscale="dyadic", negative="relu"),
        r"negative: expected one of 'continue', 'clamp', got 'relu'",
    ),
    "halving of the other form": (
        MSSSIMLoss,
        dict(halving="edge"),
        r"halving: expected None for multiscale='gaussian', got 'edge'",
    ),
    "negative of the other form": (MixLoss, dict(negative="clamp"), r"negative: .*'gaussian', got 'clamp'"),
    "dyadic map": (MSSSIMLoss, dict(multiscale="dyadic", reduction="map"), NO_MAP),
    "dyadic Mix map": (MixLoss, dict(multiscale="dyadic", reduction="map"), NO_MAP),
    "sigmas of the other form": (
        MixLoss,
        dict(multiscale="dyadic", sigmas=(1.0,)),
        r"sigmas: expected None for multiscale='dyadic', got \(1\.0,\)",
    ),
    "weights of the other form": (
        MSSSIMLoss,
        dict(weights=(1.0,)),
        r"weights: expected None for multiscale='gaussian', got \(1\.0,\)",
    ),
    "sigma of the other form": (MixLoss, dict(sigma=2.0), r"sigma: .*'gaussian', got 2\.0"),
    "window": (SSIMLoss, dict(window="box"), r"window: expected one of 'gaussian', 'uniform', got 'box'"),
    "sigma of a uniform window": (
        L1SSIMLoss,
        dict(window="uniform", sigma=1.5),
        r"sigma: expected None for window='uniform', got 1\.5",
    ),
    "Gaussian samples": (
        SSIMLoss,
        dict(sample_covariance=True),
        r"sample_covariance: expected False for window='gaussian', got True",
    ),
    "a sample of one": (
        SSIMLoss,
        dict(window="uniform", window_size=1, sample_covariance=True),
        r"window_size: expected at least 3 for sample_covariance=True, got 1",
    ),
    "even uniform window": (SSIMLoss, dict(window="uniform", window_size=8), ODD + "8"),
}


@pytest.mark.parametrize(("module", "options", "message"), SPECIAL.values(), ids=SPECIAL)
def test_options_of_single_modules(module: type, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(**options)


def test_sample_covariance_is_true_or_false() -> None:
    with pytest.raises(TypeError, match=r"sample_covariance: expected True or False, got 1$"):
        ssim(A, A, window="uniform", sample_covariance=1)


@pytest.mark.parametrize("name", ["halving", "negative"])
def test_names_of_the_dyadic_function(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected one of '.*', got None$"):
        ms_ssim(A, A, **{name: None})


def test_map_of_the_dyadic_function() -> None:
    with pytest.raises(ValueError, match=NO_MAP):
        ms_ssim(A, A, reduction="map")


# The window against the image: (least side, options).
FITS = {
    "valid": (11, dict(padding="valid")),
    "reflect": (6, dict(padding="reflect")),
    "zeros": (1, dict(padding="zeros")),
    "seven taps": (7, dict(window_size=7)),
    "two sigmas": (29, dict(sigmas=(0.5, 4.0))),
    "five levels": (161, dict(weights=(0.2,) * 5)),
    "five levels, reflect": (81, dict(weights=(0.2,) * 5, padding="reflect")),
    "five levels, zeros": (1, dict(weights=(0.2,) * 5, padding="zeros")),
    "three levels": (41, dict(weights=(0.2,) * 3)),
    "five levels, drop": (176, dict(weights=(0.2,) * 5, halving="drop")),
    "three levels, reflect and drop": (24, dict(weights=(0.2,) * 3, padding="reflect", halving="drop")),
    "three levels, zeros and drop": (4, dict(weights=(0.2,) * 3, padding="zeros", halving="drop")),
}


@pytest.mark.parametrize(("least", "options"), FITS.values(), ids=FITS)
def test_window_larger_than_the_image(least: int, options: dict) -> None:
    function = ms_ssim if "weights" in options else ms_ssim_gaussian if "sigmas" in options else ssim
    for height, width in ((least, least), (least + 3, least)):
        fits = torch.rand(1, 1, height, width)
        assert function(fits, fits, **options) == 1
    for height, width in ((least - 1, least + 20), (least + 20, least - 1)):
        tight = torch.rand(1, 1, height, width)
        with pytest.raises(
            ValueError, match=f"x: expected height and width of at least {least} .*got {height}x{width}"
        ):
            function(tight, tight, **options)


def test_arguments_are_keywords() -> None:
    """So that data_range can never be taken for a window size."""
    for function in FUNCTIONS:
        with pytest.raises(TypeError, match="positional"):
            function(A, A, 1.0)


# Images laid out as [N, H, W, C], or [H, W, C], of sides too small for the window.
CHANNELS_LAST = {
    "rgb": ((1, 64, 96, 3), r"permute\(0, 3, 1, 2\)"),
    "grey": ((2, 64, 64, 1), r"permute\(0, 3, 1, 2\)"),
    "rgba": ((1, 5, 200, 4), r"permute\(0, 3, 1, 2\)"),
    "one image": ((64, 96, 3), r"permute\(2, 0, 1\)"),
}


@pytest.mark.parametrize(("shape", "order"), CHANNELS_LAST.values(), ids=CHANNELS_LAST)
@pytest.mark.parametrize("padding", ["valid", "reflect"])
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda f: f.__name__)
def test_channels_last_is_asked_about(function: Callable, padding: str, shape: tuple, order: str) -> None:
    """And padding='zeros' is not advised, which would compute something else."""
    image = torch.rand(shape)
    with pytest.raises(ValueError, match=rf"x: expected height .*; channels last\? {order}.* here$") as error:
        function(image, image, padding=padding)
    assert "zeros" not in str(error.value)


@pytest.mark.parametrize("shape", [(1, 3, 64, 4), (1, 4, 3, 3), (64, 5, 5)], ids=str)
def test_small_images_are_not_asked_about(shape: tuple) -> None:
    image = torch.rand(shape)
    with pytest.raises(ValueError, match="padding='zeros' takes smaller images"):
        ssim(image, image)


@pytest.mark.skipif(bool(ssimloss.info()["cuda_architectures"]), reason="the build has CUDA")
def test_no_kernels_for_a_device() -> None:
    """A fake CUDA tensor: refused with the way out, never copied to the CPU in silence."""
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.empty(1, 3, 64, 64, device="cuda")
        with pytest.raises(RuntimeError, match="no CUDA kernels; rebuild from source where nvcc"):
            ssim(image, image)


@pytest.mark.parametrize("name", ["gaussian", "dyadic"])
def test_raw_ops_check_their_arguments_too(name: str) -> None:
    """A raw call may break what the Python layer has made true: an error, not a crash."""
    loss = SSIMLoss() if name == "gaussian" else MSSSIMLoss("dyadic", weights=(1.0,))
    options = loss.options
    also = () if name == "gaussian" else (dict(halving="half"), dict(negative="no"))
    for images, wrong, message in (
        ((A, A[..., 1:]), {}, "same shape"),
        ((A, A.double()), {}, "same dtype"),
        ((A[0], A[0]), {}, "four dimensions"),
        ((A[..., :5], A[..., :5]), {}, "window does not fit"),
        ((A[..., :0], A[..., :0]), {}, "window does not fit"),
        ((A, A), dict(padding="same"), "got same"),
        ((A, A), dict(reduction="sum"), "got sum"),
        ((A, A), dict(data_range=-1.0), "data_range"),
        *(((A, A), one, ": expected .*, got ") for one in also),
    ):
        with pytest.raises(ValueError, match=message):
            options.op(*images, 1.0, False, False, *options._replace(**wrong))


def test_images_instead_of_options() -> None:
    """MixLoss(x, y) in the place of MixLoss()(x, y): no images in the message."""
    with pytest.raises(TypeError, match=r"^alpha: expected a number in \[0, 1\], got a torch\.Tensor$"):
        MixLoss(A, A)


@pytest.mark.parametrize("library", [None, b"not a library"], ids=["none", "broken"])
def test_not_built(library: bytes | None, tmp_path, python) -> None:
    """In a clone that is not built, which hides an installed package; a broken library says so itself."""
    package = Path(ssimloss.__file__).parent
    ignore = shutil.ignore_patterns("_C*.so", "__pycache__")
    shutil.copytree(package, tmp_path / "ssimloss", ignore=ignore)
    if library is not None:
        (tmp_path / "ssimloss" / "_C.abi3.so").write_bytes(library)
    done = python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import ssimloss")
    assert done.returncode == 1
    says = f"ssimloss is not built in {tmp_path / 'ssimloss'}: run `pip install"
    assert (says in done.stderr) == (library is None) and (library is None or "_C.abi3.so" in done.stderr)


def test_info() -> None:
    info = ssimloss.info()
    assert info["torch"] == torch.__version__ and info["version"] == ssimloss.__version__
    assert info["cpu_variant"] in ("baseline", "x86-64-v3", "x86-64-v4")
    assert isinstance(info["cuda_architectures"], list)


def test_limits_of_the_cuda_kernels() -> None:
    """Checked before the operator is called, so no device is needed to ask."""
    check_cuda_limits(SSIMLoss(window_size=65).options)
    check_cuda_limits(MSSSIMLoss("dyadic", weights=(0.1,) * 16).options)
    with pytest.raises(ValueError, match="window_size: expected at most 65 taps on CUDA, got 67"):
        check_cuda_limits(SSIMLoss(window_size=67).options)
    with pytest.raises(ValueError, match="weights: expected at most 16 on CUDA, got 17"):
        check_cuda_limits(MSSSIMLoss("dyadic", weights=(0.1,) * 17).options)
