"""What seldom happens: each of these is a line of ssimloss that no other test runs."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from cases import pair
from torch import Tensor
from torch._subclasses import FakeTensorMode

import ssimloss
from ssimloss import images
from ssimloss.compat import _glue, kornia, piqa, skimage, torchmetrics

A, B = pair(1, 3, 24, 24)
NOTHING = torch.rand(0, 1, 3, 24, 24)

ERRORS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "kornia, no tensor": (
        lambda: kornia.MS_SSIMLoss()(A, [0.0]),
        TypeError,
        "Output type is not a torch.Tensor. Got list",
    ),
    "kornia, no batch": (
        lambda: kornia.MS_SSIMLoss()(A[0], B[0]),
        ValueError,
        r"Invalid img1 shape: .*\[3, 24",
    ),
    "piqa, another device": (
        lambda: piqa.SSIM()(A.to("meta"), B),
        AssertionError,
        "x: expected the module's device, cpu, got meta",
    ),
    "skimage, too small": (
        lambda: skimage.structural_similarity(
            *np.zeros((2, 9, 9)), gaussian_weights=True, sigma=3.0, win_size=7, data_range=1
        ),
        NotImplementedError,
        r"images of \[9, 9\] under a window of",
    ),
    "torchmetrics, both": (
        lambda: torchmetrics.structural_similarity_index_measure(
            A, B, return_full_image=True, return_contrast_sensitivity=True
        ),
        ValueError,
        "return_full_image, return_contrast_sensitivity: expected one of them, got both",
    ),
    "a kernel of even size": (
        lambda: _glue.window_of(torch.full((1, 4), 0.25)),
        ValueError,
        "window: expected an odd number of weights, got 4",
    ),
    "a constant too small": (lambda: ssimloss.SSIMLoss(k1=1e-30), ValueError, "k1: expected at least 1e-"),
    "no sequence": (
        lambda: ssimloss.MSSSIMLoss("dyadic", weights=0.5),
        TypeError,
        "weights: expected a list or tuple of numbers, got 0.5",
    ),
    "vmap over nothing": (
        lambda: torch.vmap(lambda x: ssimloss.SSIMLoss()(x, x, mask=x))(NOTHING),
        ValueError,
        "mask: expected a dimension of vmap that is not empty, got one of size 0",
    ),
}


@pytest.mark.parametrize(("call", "error", "says"), ERRORS.values(), ids=ERRORS)
def test_errors(call: Callable[[], object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()


def test_skimage_knows_the_range_of_booleans() -> None:
    one, other = np.zeros((2, 16, 16), bool)
    one[3:9, 4:12] = other[4:9, 4:12] = True
    given = skimage.structural_similarity(one, other, data_range=1.0)
    assert skimage.structural_similarity(one, other) == given < 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_peers_are_not_scripted() -> None:
    with pytest.raises(RuntimeError, match=r"torch\.jit\.script is not supported"):
        torch.jit.script(piqa.SSIM())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16])
def test_cuda_gets_images_of_one_dtype(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without memory, as tests/test_gpu.py does it on real ones."""
    seen = []
    for name in ("fused_loss", "detailed_loss"):
        monkeypatch.setattr(images, name, lambda x, y, *_: seen.append((x.dtype, y.dtype)) or (x, x, x))
    monkeypatch.setattr(images, "CUDA_INSIDE", True)
    options = ssimloss.SSIMLoss().options
    with FakeTensorMode():
        x, y = torch.empty(1, 3, 24, 24, device="cuda"), torch.empty(1, 3, 24, 24, device="cuda", dtype=dtype)
        images.loss_of(x, y, options, None, None)
        images.in_one_launch(x, y, options, None, None, False)
    assert seen == [(torch.float32, torch.float32)] * 2


def test_masks_of_booleans_that_cannot_be_looked_at() -> None:
    with FakeTensorMode():
        x, mask = torch.empty(1, 3, 24, 24), torch.empty(1, 1, 24, 24, dtype=torch.bool)
        assert ssimloss.SSIMLoss()(x, x, mask=mask).shape == ()


def test_forward_mode_of_a_graph_is_that_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch.compile traces here is run as it is."""

    def derivative() -> Tensor:
        return torch.func.jvp(lambda x: ssimloss.SSIMLoss()(x, B), (A,), (B - 0.3,))[1]

    expected = derivative()
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(derivative(), expected)


class Stop(torch.autograd.Function):
    """Gives its argument, and its argument no gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> None:
        return None


def test_loss_without_a_gradient_has_none_for_the_images() -> None:
    x = A.clone().requires_grad_()
    given = ssimloss.SSIMLoss().options
    loss = given.op(x, B, 1.0, True, False, *given)[0]
    Stop.apply(loss).backward()
    assert x.grad is None
