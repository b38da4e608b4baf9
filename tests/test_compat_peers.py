"""ssimloss.compat beside the packages themselves: the same signatures, values and gradients.

In float64; where a package makes its window in float32 it is given one in float64.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from cases import pair, relative_error, value_and_gradients
from torch import Tensor

from ssimloss import reference
from ssimloss.compat import kornia, piq, piqa, pytorch_msssim, skimage, torchmetrics

ODD = (2, 3, 183, 201)
EVEN = (2, 3, 192, 176)


def installed(name: str) -> ModuleType:
    """The package's module; the test is skipped, by the package's name, where it is not installed."""
    package = name.partition(".")[0]
    if package not in sys.modules:
        spec = importlib.util.find_spec(package)
        if spec is None:
            pytest.skip(f"{package} is not installed")
        if package in ("piq", "piqa", "fastmri"):  # their other files need more, torchvision among it
            sys.modules[package] = stub = ModuleType(package)
            stub.__path__, stub.__spec__ = list(spec.submodule_search_locations), spec
    return importlib.import_module(name)


@pytest.fixture
def float64_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def images(*shape: int, data_range: float = 1.0) -> tuple[Tensor, Tensor]:
    return tuple((t / 1.2 + 0.1) * data_range for t in pair(*shape, dtype=torch.float64))


def unlike(*shape: int, data_range: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    x, y = (data_range * torch.rand(shape, generator=generator, dtype=torch.float64) for _ in "xy")
    y[-1, 0] = 0.9 * data_range - 0.8 * x[-1, 0]  # a negative: what a clamp is for
    return x, y


def assert_peer(ours: Callable, theirs: Callable, x: Tensor, y: Tensor, near: float = 1e-11) -> None:
    value, grads = value_and_gradients(ours, x, y)
    expected, expected_grads = value_and_gradients(theirs, x, y)
    assert value.dtype == expected.dtype
    torch.testing.assert_close(value, expected, rtol=near, atol=near / 10)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        if not expected_grad.any():  # where a mean is clamped
            assert not grad.any()
        else:
            assert relative_error(grad, expected_grad) < 100 * near


SIGNATURES = [
    (pytorch_msssim, "pytorch_msssim", ("ssim", "ms_ssim", "SSIM", "MS_SSIM")),
    (kornia, "kornia.losses", ("ssim_loss", "SSIMLoss", "MS_SSIMLoss", "ssim3d_loss", "SSIM3DLoss")),
    (kornia, "kornia.metrics", ("ssim", "SSIM", "ssim3d", "SSIM3D")),
    (torchmetrics, "torchmetrics.functional.image", torchmetrics.__all__),
    (piq, "piq.ssim", ("ssim", "SSIMLoss")),
    (piq, "piq.ms_ssim", ("multi_scale_ssim", "MultiScaleSSIMLoss")),
    (piqa, "piqa.ssim", ("ssim", "ms_ssim", "SSIM", "MS_SSIM")),
    (skimage, "skimage.metrics", ("structural_similarity",)),
]


@pytest.mark.parametrize(("ours", "theirs", "names"), SIGNATURES, ids=[theirs for _, theirs, _ in SIGNATURES])
def test_signatures(ours: ModuleType, theirs: str, names: tuple[str, ...]) -> None:
    """Names, order, kinds and defaults; ours may have more at the end."""
    peer = installed(theirs)
    for name in names:
        kept = list(inspect.signature(getattr(peer, name)).parameters.values())
        given = list(inspect.signature(getattr(ours, name)).parameters.values())
        more = given[len(kept) :]
        assert [(p.name, p.kind, str(p.default)) for p in given[: len(kept)]] == [
            (p.name, p.kind, str(p.default)) for p in kept
        ]
        changed = ours is kornia and ("MS_" in name or "3" in name)
        assert [p.name for p in more] == (["before_0_9"] if changed else [])


@pytest.mark.parametrize("make", [images, unlike])
@pytest.mark.parametrize("shape", [ODD, EVEN], ids=str)
def test_pytorch_msssim(shape: tuple[int, ...], make: Callable, monkeypatch) -> None:
    peer = installed("pytorch_msssim")

    def window(size: int, sigma: float) -> Tensor:
        return reference.gaussian(sigma, size // 2)[None, None]

    monkeypatch.setitem(peer.ssim.__globals__, "_fspecial_gauss_1d", window)
    x, y = make(*shape, data_range=255)
    for name, arguments in [
        ("ssim", ()),
        ("ssim", (255, False, 7, 1.2)),
        ("ssim", (torch.tensor(200.0), False, 11, 1.5, None, (0.02, 0.05), True)),
        ("ms_ssim", ()),
        ("ms_ssim", (255, False, 7, 1.2, None, [0.5, 1, 2])),
    ]:
        ours, theirs = (
            lambda x, y, m=m, n=name, a=arguments: getattr(m, n)(x, y, *a) for m in (pytorch_msssim, peer)
        )
        assert_peer(ours, theirs, x, y)
    assert_peer(pytorch_msssim.SSIM(255.0), peer.SSIM(255.0), x, y)
    assert_peer(
        pytorch_msssim.MS_SSIM(200.0, size_average=False),
        peer.MS_SSIM(200.0, size_average=False),
        x,
        y,
    )
    given = window(9, 2.0).repeat(3, 1, 1, 1)
    ours, theirs = (lambda x, y, m=m: m.ms_ssim(x, y, 255, win=given) for m in (pytorch_msssim, peer))
    assert_peer(ours, theirs, x, y)


@pytest.mark.parametrize("make", [images, unlike])
def test_kornia(make: Callable, float64_by_default) -> None:
    losses, metrics = installed("kornia.losses"), installed("kornia.metrics")
    x, y = make(2, 3, 33, 40)
    for padding in ("same", "valid"):
        for size in (5, 11):
            theirs = metrics.SSIM(size, eps=0.0, padding=padding)
            assert_peer(kornia.SSIM(size, padding=padding), theirs, x, y)
            for reduction in ("mean", "sum", "none"):
                arguments = dict(reduction=reduction, padding=padding)
                theirs = losses.SSIMLoss(size, eps=0.0, **arguments)
                ours = kornia.SSIMLoss(size, eps=0.0, **arguments)
                assert_peer(ours, theirs, x, y)
        torch.testing.assert_close(kornia.ssim(x, y, 11), metrics.ssim(x, y, 11), rtol=0, atol=1e-7)
    for given in ({}, dict(sigmas=(0.8, 1.5), data_range=2.0, alpha=0.5, compensation=1.0)):
        for reduction in ("mean", "sum", "none"):
            ours = kornia.MS_SSIMLoss(reduction=reduction, **given)
            theirs = losses.MS_SSIMLoss(reduction=reduction, **given)
            assert_peer(ours, theirs, x, y)
    black = torch.zeros(1, 1, 20, 20)
    assert 1e-5 < 1 - metrics.ssim(black, black, 11).mean() < 1.2e-5  # its eps, which is left out here


@pytest.mark.parametrize("make", [images, unlike])
def test_volumes(make: Callable, float64_by_default, monkeypatch) -> None:
    losses, metrics, peer = (installed(n) for n in ("kornia.losses", "kornia.metrics", "pytorch_msssim"))

    def window(size: int, sigma: float) -> Tensor:
        return reference.gaussian(sigma, size // 2)[None, None]

    monkeypatch.setitem(peer.ssim.__globals__, "_fspecial_gauss_1d", window)
    x, y = make(2, 3, 12, 15, 13)
    for arguments in ((1.0,), (2.0, False, 7, 1.2), (1.0, False, 11, 1.5, None, (0.02, 0.05), True)):
        assert_peer(
            lambda x, y, a=arguments: pytorch_msssim.ssim(x, y, *a),
            lambda x, y, a=arguments: peer.ssim(x, y, *a),
            x,
            y,
        )
    modules = (m.SSIM(1.0, spatial_dims=3) for m in (pytorch_msssim, peer))
    assert_peer(*modules, x, y)
    for padding in ("same", "valid"):
        assert_peer(kornia.SSIM3D(7, padding=padding), metrics.SSIM3D(7, eps=0.0, padding=padding), x, y)
        for reduction in ("mean", "sum", "none"):
            arguments = dict(reduction=reduction, padding=padding)
            theirs = losses.SSIM3DLoss(5, eps=0.0, **arguments)
            assert_peer(kornia.SSIM3DLoss(5, **arguments), theirs, x, y)


@pytest.mark.parametrize("make", [images, unlike])
def test_torchmetrics(make: Callable) -> None:
    peer = installed("torchmetrics.functional.image")
    name = "structural_similarity_index_measure"
    for arguments in [
        {},
        dict(data_range=1.0, sigma=0.8, reduction="sum"),
        dict(data_range=(0.2, 0.7), gaussian_kernel=False, kernel_size=(7, 7), reduction="none", k1=0.02),
    ]:
        ours, theirs = (
            lambda x, y, m=m, a=arguments: getattr(m, name)(x, y, **a) for m in (torchmetrics, peer)
        )
        x, y = make(2, 3, 33, 40)
        if arguments:
            assert_peer(ours, theirs, x, y)
        else:  # theirs has a gradient through the data range
            torch.testing.assert_close(ours(x, y), theirs(x, y), rtol=1e-12, atol=0)
    for what in ("return_full_image", "return_contrast_sensitivity"):
        for i in range(2):
            ours, theirs = (
                lambda x, y, m=m, w=what, i=i: getattr(m, name)(x, y, data_range=1.0, **{w: True})[i]
                for m in (torchmetrics, peer)
            )
            assert_peer(ours, theirs, *make(2, 3, 33, 40))
    for normalize in ("relu", "simple"):
        ours, theirs = (
            lambda x, y, m=m, n=normalize: getattr(m, "multiscale_" + name)(x, y, data_range=1.0, normalize=n)
            for m in (torchmetrics, peer)
        )
        assert_peer(ours, theirs, *make(*ODD), 1e-7)  # its betas are in float32


@pytest.mark.parametrize("make", [images, unlike])
@pytest.mark.parametrize("shape", [ODD, (1, 1, 385, 391)], ids=str)
def test_piq(shape: tuple[int, ...], make: Callable) -> None:
    ssim, ms_ssim = installed("piq.ssim"), installed("piq.ms_ssim")
    x, y = make(*shape, data_range=255)
    for arguments in [
        dict(data_range=255),
        dict(data_range=300, reduction="sum", downsample=False, kernel_size=7, kernel_sigma=1.1),
        dict(data_range=255, reduction="none", k2=0.05),
    ]:
        ours, theirs = (lambda x, y, m=m, a=arguments: m.ssim(x, y, **a) for m in (piq, ssim))
        assert_peer(ours, theirs, x, y)
        assert_peer(piq.SSIMLoss(**arguments), ssim.SSIMLoss(**arguments), x, y)
        ours, theirs = (lambda x, y, m=m, a=arguments: m.ssim(x, y, full=True, **a)[1] for m in (piq, ssim))
        assert_peer(ours, theirs, x, y)
    for arguments in [
        dict(data_range=255),
        dict(data_range=255, reduction="sum", scale_weights=torch.tensor([1.0, 2.0]).double()),
    ]:
        ours, theirs = (
            lambda x, y, f=f, a=arguments: f(x, y, **a)
            for f in (piq.multi_scale_ssim, ms_ssim.multi_scale_ssim)
        )
        assert_peer(ours, theirs, x, y)
        ours, theirs = piq.MultiScaleSSIMLoss(**arguments), ms_ssim.MultiScaleSSIMLoss(**arguments)
        assert_peer(ours, theirs, x, y, near=1e-9)  # its weights are in float32
        ours.load_state_dict(theirs.state_dict())
        assert ours.state_dict().keys() == theirs.state_dict().keys()


@pytest.mark.parametrize("make", [images, unlike])
@pytest.mark.parametrize("padding", [False, True])
def test_piqa(padding: bool, make: Callable) -> None:
    peer = installed("piqa.ssim")
    x, y = make(*ODD, data_range=2.0)
    for arguments in [
        dict(value_range=2.0),
        dict(value_range=3.0, window_size=7, sigma=1.1, reduction="sum", k1=0.02),
        dict(value_range=2.0, reduction="none"),
    ]:
        for name in ("SSIM", "MS_SSIM"):
            ours, theirs = (getattr(m, name)(padding=padding, **arguments).double() for m in (piqa, peer))
            size, sigma = arguments.get("window_size", 11), arguments.get("sigma", 1.5)
            theirs.kernel = reference.gaussian(sigma, size // 2).repeat(3, 1, 1)
            assert_peer(ours, theirs, x, y)
            other = getattr(peer, name)(11)
            other.kernel = reference.gaussian(2.0, 5).repeat(3, 1, 1)
            ours = getattr(piqa, name)(11, 1.5, value_range=2.0)
            ours.load_state_dict(other.state_dict())
            other.value_range = other.kwargs["value_range"] = 2.0
            assert_peer(ours, other.double(), x, y)
            assert ours.state_dict().keys() == other.state_dict().keys()
    kernel = reference.gaussian(1.1, 3).repeat(3, 1, 1)
    for i in range(2):
        ours, theirs = (
            lambda x, y, m=m, i=i: m.ssim(x, y, kernel, channel_avg=False, padding=padding)[i]
            for m in (piqa, peer)
        )
        assert_peer(ours, theirs, x, y)


SKIMAGE = [
    {},
    dict(win_size=5, use_sample_covariance=False, K1=0.02),
    dict(gaussian_weights=True, sigma=1.2),
    dict(gaussian_weights=True, use_sample_covariance=False, K2=0.05),
    dict(gaussian_weights=True, win_size=7),
]


@pytest.mark.parametrize("given", SKIMAGE, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_skimage(dtype: type, given: dict) -> None:
    peer = installed("skimage.metrics").structural_similarity
    ours = skimage.structural_similarity
    x, y = ((t[0].permute(1, 2, 0) * 255).numpy().astype(dtype) for t in images(1, 3, 26, 37))
    near = dict(rtol=1e-5, atol=1e-5) if dtype == np.float32 else dict(rtol=1e-10, atol=1e-12)
    for channel_axis, crop in ((None, np.s_[..., 0]), (-1, np.s_[:]), (0, None)):
        a, b = (t.transpose(2, 0, 1) if crop is None else t[crop] for t in (x, y))
        options = dict(data_range=255, channel_axis=channel_axis, **given)
        assert type(ours(a, b, **options)) is type(peer(a, b, **options))
        np.testing.assert_allclose(ours(a, b, **options), peer(a, b, **options), **near)
        wanted, actual = (f(a, b, gradient=True, full=True, **options) for f in (peer, ours))
        for one, other in zip(actual, wanted, strict=True):
            assert one.dtype == other.dtype
            scale = np.abs(other).max()
            np.testing.assert_allclose(one / scale, other / scale, **near)
        assert len(ours(a, b, gradient=True, **options)) == 2


def test_skimage_on_photographs(photo) -> None:
    """Bytes, as read from a file: no options."""
    peer = installed("skimage.metrics").structural_similarity
    y = (photo("chelsea")[0].permute(1, 2, 0) * 255).byte().numpy()
    x = y[::-1].copy()
    np.testing.assert_allclose(
        skimage.structural_similarity(x, y, channel_axis=2), peer(x, y, channel_axis=2), rtol=1e-11
    )
