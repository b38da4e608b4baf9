"""ssimloss.compat in use: dtypes, checkpoints, torch.compile, and what is refused."""

import math
from collections.abc import Callable

import conventions
import numpy as np
import pytest
import torch
from cases import relative_error, value_and_gradients
from test_compat import images, shown, ssim_map

from ssimloss import reference
from ssimloss.compat import (
    fused_ssim,
    gaussian_splatting,
    kornia,
    piq,
    piqa,
    pytorch_msssim,
    skimage,
    torchmetrics,
)

# ---- Half precision, integers


def test_types() -> None:
    """The result has the images' dtype, as theirs; the arithmetic is float32."""
    x, y = (t.half() for t in images(1, 3, 40, 40))
    exact = ssim_map(x.double(), y.double())
    mirrored = ssim_map(x.double(), y.double(), "reflect")
    values = {
        pytorch_msssim.ssim(x, y, 1): exact.mean(),
        piq.ssim(x, y): exact.mean(),
        piqa.SSIM()(x, y): exact.mean(),
        kornia.ssim(x, y, 11).mean(): mirrored.mean(),
        torchmetrics.structural_similarity_index_measure(x, y, data_range=1.0): mirrored.mean(),
        gaussian_splatting.ssim(x, y): ssim_map(x.double(), y.double(), "zeros").mean(),
    }
    for actual, expected in values.items():
        assert actual.dtype == torch.float16
        torch.testing.assert_close(actual.double(), expected, rtol=2e-3, atol=0)
    assert kornia.ssim(x, y.double(), 11).dtype == torch.float64
    whole = (x * 255).byte(), (y * 255).byte()
    expected = ssim_map(*(t.double() for t in whole), "reflect", data_range=255.0)
    actual = kornia.ssim(*whole, 11, 255.0)
    torch.testing.assert_close(actual, expected.float(), rtol=2e-5, atol=2e-5)
    bytes_ = [shown(t[0]) for t in whole]
    value = conventions.maps(*(t.double() for t in whole), math.inf, 3, "valid", **RANGE_OF_BYTES)[0].mean()
    np.testing.assert_allclose(skimage.structural_similarity(*bytes_, channel_axis=2), value, rtol=1e-11)


RANGE_OF_BYTES = dict(data_range=255.0, sample_covariance=True)


# ---- Checkpoints


class Net(torch.nn.Module):
    def __init__(self, loss: torch.nn.Module):
        super().__init__()
        self.body, self.loss = torch.nn.Conv2d(1, 1, 1), loss


def test_checkpoints_with_buffers_load_strictly() -> None:
    conv = Net(torch.nn.Identity()).state_dict()
    masks = torch.rand(15, 1, 33, 33)
    net = Net(kornia.MS_SSIMLoss())
    saved = conv | {"loss._g_masks": masks}
    net.load_state_dict(saved)
    assert "loss._g_masks" in saved  # what the user holds is left as it is
    assert not [key for key in net.state_dict() if key.startswith("loss")]
    with pytest.raises(RuntimeError, match=r"loss\.other"):
        net.load_state_dict(saved | {"loss.other": masks})

    weights = torch.tensor([0.3, 0.7])
    net = Net(piq.MultiScaleSSIMLoss(scale_weights=torch.ones(2)))
    net.load_state_dict(conv | {"loss.scale_weights": weights})
    assert net.loss.scale_weights.equal(weights)

    x, y = images(1, 2, 40, 40)
    kernel = reference.gaussian(0.8, 3).float().repeat(2, 1, 1)
    net = Net(piqa.MS_SSIM(7, 1.5, 2, weights=torch.ones(2)))
    net.load_state_dict(conv | {"loss.kernel": kernel, "loss.weights": weights})
    expected = piqa.ms_ssim(x, y, kernel, weights).mean()
    torch.testing.assert_close(net.loss(x, y), expected, rtol=1e-12, atol=0)
    assert abs(expected - piqa.MS_SSIM(7, 1.5, 2, weights=weights)(x, y)) > 1e-4
    assert net.state_dict().keys() == piqa_keys()


def piqa_keys() -> set[str]:
    return {"body.weight", "body.bias", "loss.kernel", "loss.weights"}


# ---- Errors

A, B = images(2, 3, 30, 30)
VOLUME = torch.rand(1, 1, 16, 16, 16)
KERNEL = torch.softmax(torch.rand(3, 1, 11), -1)

ERRORS: list[tuple[Callable[[], object], type[Exception], str]] = [
    # What no kernel computes
    (lambda: pytorch_msssim.ssim(VOLUME[:, :, :9], VOLUME[:, :, :9]), NotImplementedError, "9x16x16 under"),
    (lambda: pytorch_msssim.ms_ssim(VOLUME, VOLUME), NotImplementedError, "MS-SSIM of volumes"),
    (lambda: pytorch_msssim.ssim(A[..., :8], B[..., :8]), NotImplementedError, "30x8 under a window of 11"),
    (lambda: pytorch_msssim.ssim(A, B, win=KERNEL), NotImplementedError, "neither Gaussian nor uniform"),
    (lambda: kornia.ssim3d(A, B, 11), ValueError, r"img1 shape: expected \[B, C, D, H, W\], got \[2, 3"),
    (lambda: kornia.MS_SSIMLoss((2.0, 1.0)), NotImplementedError, "last is not the largest"),
    (lambda: kornia.MS_SSIMLoss(before_0_9=True)(A[:, :2], B[:, :2]), NotImplementedError, "2 channels"),
    (lambda: kornia.ssim(A, B, 11, 0.1), NotImplementedError, "eps=1e-12 at max_val=0.1"),
    (
        lambda: skimage.structural_similarity(VOLUME[0].numpy(), VOLUME[0].numpy(), win_size=1, data_range=1),
        NotImplementedError,
        "4 spatial dimensions",
    ),
    # What they refuse, by the same kind of error
    (lambda: pytorch_msssim.ssim(A, B[:1]), ValueError, "dimensions of X"),
    (lambda: pytorch_msssim.ssim(A, B, torch.ones(2)), ValueError, r"shape \[2, 1, 1, 1\], got \[2\]"),
    (lambda: pytorch_msssim.ssim(A[0], B[0]), ValueError, r"\[N, C, H, W\]"),
    (lambda: pytorch_msssim.ssim(A, B, win_size=10), ValueError, "odd"),
    (lambda: pytorch_msssim.ms_ssim(A, B), AssertionError, "more than 160"),
    (lambda: kornia.ssim(1, B, 11), TypeError, "img1 type is not a torch.Tensor"),
    (lambda: kornia.ssim(A, 1, 11), TypeError, "img2 type is not a torch.Tensor"),
    (lambda: kornia.ssim(A, B, 11, 1), TypeError, "max_val type is not a float"),
    (lambda: kornia.ssim(A[0], B, 11), ValueError, "Invalid img1 shape"),
    (lambda: kornia.ssim(A, B[:1], 11), ValueError, "shapes must be the same"),
    (lambda: kornia.ssim(A, B, 11, padding="zeros"), ValueError, "padding"),
    (lambda: kornia.ssim_loss(A, B, 11, reduction="max"), NotImplementedError, "reduction"),
    (lambda: kornia.MS_SSIMLoss(reduction="max")(A, B), NotImplementedError, "reduction"),
    (lambda: kornia.MS_SSIMLoss()(A, B[:, :1]), ValueError, "same shape"),
    (lambda: fused_ssim.fused_ssim(A, B, "zeros"), AssertionError, "'same' or 'valid'"),
    (lambda: fused_ssim.fused_ssim(A[0], B[0]), ValueError, r"\[N, C, H, W\], got \[3, 30, 30\]"),
    (lambda: fused_ssim.fused_ssim(VOLUME, VOLUME), ValueError, r"img1: expected shape \[N, C, H, W\]"),
    (lambda: fused_ssim.fused_l1_ssim_loss(A[0], B[0]), ValueError, r"img1: expected shape \[N, C, H, W\]"),
    (lambda: fused_ssim.fused_ssim3d(A, B), ValueError, r"\[N, C, D, H, W\], got \[2, 3, 30, 30\]"),
    # Windows that no image is as large as
    (lambda: kornia.MS_SSIMLoss((1.0, 1e308)), ValueError, "sigmas: .* at most 1023 taps"),
    (lambda: kornia.MS_SSIMLoss((1.0, math.inf)), ValueError, "sigmas: .* at most 1023 taps"),
    (lambda: kornia.ssim(A, B, 5001), ValueError, "at most 1023 taps, got 5001"),
    (lambda: piqa.SSIM(5001)(A, B), ValueError, "at most 1023 taps, got 5001"),
    (
        lambda: torchmetrics.structural_similarity_index_measure(A, B, sigma=1e308, data_range=1.0),
        ValueError,
        "sigma: .* at most 1023 taps",
    ),
    (
        lambda: skimage.structural_similarity(
            *(t[0, 0].numpy() for t in (A, B)), data_range=1, gaussian_weights=True, sigma=1e308
        ),
        ValueError,
        "sigma: .* at most 1023 taps",
    ),
    (lambda: torchmetrics.structural_similarity_index_measure(A, B[:1]), RuntimeError, "same shape"),
    (lambda: torchmetrics.structural_similarity_index_measure(A[0], B[0]), ValueError, "BxCxHxW"),
    (lambda: torchmetrics.structural_similarity_index_measure(A, B, sigma=(1.0,)), ValueError, "sigma"),
    (lambda: torchmetrics.structural_similarity_index_measure(A, B, sigma=0), ValueError, "positive"),
    (lambda: torchmetrics.structural_similarity_index_measure(A, B, kernel_size=4), ValueError, "odd"),
    (
        lambda: torchmetrics.structural_similarity_index_measure(A, B, reduction="max", data_range=1.0),
        ValueError,
        "reduction",
    ),
    (
        lambda: torchmetrics.multiscale_structural_similarity_index_measure(A, B),
        ValueError,
        "at least 176",
    ),
    (
        lambda: torchmetrics.multiscale_structural_similarity_index_measure(A, B, betas=[1.0]),
        ValueError,
        "betas",
    ),
    (
        lambda: torchmetrics.multiscale_structural_similarity_index_measure(A, B, normalize="max"),
        ValueError,
        "normalize",
    ),
    (lambda: piq.ssim(A, B[:1]), AssertionError, "y: expected"),
    (lambda: piq.ssim(A, B + 1), AssertionError, r"values in \[0, 1.0\]"),
    (lambda: piq.ssim(A, 1), AssertionError, "torch.Tensor"),
    (lambda: piq.ssim(VOLUME, VOLUME), AssertionError, r"\[N, C, H, W, 2\], got \[1, 1, 16, 16, 16\]"),
    (lambda: piq.SSIMLoss(10), AssertionError, "odd"),
    (lambda: piq.ssim(A, B, reduction="max"), ValueError, "reduction"),
    (lambda: piq.ssim(A, B, kernel_size=31), ValueError, "at least 31"),
    (lambda: piq.multi_scale_ssim(A, B), ValueError, "at least 161"),
    (lambda: piq.multi_scale_ssim(A, B, scale_weights=torch.ones(1, 2)), ValueError, "a vector"),
    (lambda: piqa.SSIM()(A[:, :2], B[:, :2]), AssertionError, r"\[N, 3, H, W\]"),
    (lambda: piqa.SSIM()(A - 1, B), AssertionError, r"values in \[0, 1.0\]"),
    (lambda: skimage.structural_similarity(*(t[0, 0].numpy() for t in (A, B))), ValueError, "data_range"),
    (
        lambda: skimage.structural_similarity(shown(A[0]), shown(B[0]), data_range=1),
        ValueError,
        "win_size exceeds image extent",
    ),
    (
        lambda: skimage.structural_similarity(*(t[0, 0].numpy() for t in (A, B)), win_size=8, data_range=1),
        ValueError,
        "odd",
    ),
    (
        lambda: skimage.structural_similarity(*(t[0, 0].numpy() for t in (A, B)), K1=-1, data_range=1),
        ValueError,
        "K1",
    ),
    (lambda: skimage.structural_similarity(np.zeros((8, 8)), np.zeros((9, 8))), ValueError, "im2"),
]


@pytest.mark.parametrize(("call", "error", "says"), ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()


def test_skimage_warns_of_guessed_ranges() -> None:
    x, y = (np.arange(100, dtype=t).reshape(10, 10) for t in (np.int16, np.uint8))
    with pytest.warns(UserWarning, match=r"data_range based on im1.dtype: 65535"):
        skimage.structural_similarity(x, x)
    with pytest.warns(UserWarning, match="mismatched dtypes"):
        skimage.structural_similarity(y, x)


COMPILED = {
    "pytorch_msssim": pytorch_msssim.MS_SSIM(1.0),
    "kornia": kornia.SSIMLoss(11),
    "Mix of kornia": kornia.MS_SSIMLoss(),
    "fused_ssim": fused_ssim.fused_ssim,
    "torchmetrics": lambda x, y: torchmetrics.structural_similarity_index_measure(x, y, data_range=1.0),
}


@pytest.mark.parametrize("loss", COMPILED.values(), ids=COMPILED)
def test_compile(loss: Callable) -> None:
    """In one graph, where theirs does not look at the images' values."""
    x, y = (t.float() for t in images(1, 3, 170, 164))
    whole = torch.compile(loss, fullgraph=True, backend="aot_eager")
    actual, grads = value_and_gradients(whole, x, y, "x")
    expected, expected_grads = value_and_gradients(loss, x, y, "x")
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    assert relative_error(grads[0], expected_grads[0]) < 1e-6
