"""On a CUDA device: the same answers as on the CPU, and what only a device can show.

`pytest -m gpu tests/test_gpu.py`; benchmarks/gpu.py runs it, and compute-sanitizer besides. The kernels'
logic is tested without a device in test_cuda_shim.py.
"""

import pytest
import test_volumes
import torch
from cases import (
    CASES,
    HALF_TYPES,
    Case,
    every_halving,
    every_loss,
    every_padding,
    every_windowed_loss,
    pair,
    relative_error,
    value_and_gradients,
)
from torch import Tensor

import ssimloss
from ssimloss import SSIMLoss
from ssimloss.options import PADDINGS

EVERY_CASE = [pytest.param(c, r, id=f"{name}-{r}") for name, c in CASES.items() for r in c.reductions()]
# Half types are rounded once, at the end, on both devices: to the same or to neighbouring numbers.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def why_not() -> str:
    if not torch.cuda.is_available():
        return "no CUDA device"
    return "" if ssimloss.info()["cuda_architectures"] else "this build has no CUDA kernels"


gpu = [pytest.mark.gpu, pytest.mark.skipif(bool(why_not()), reason=why_not() or "there is one")]


def on_gpu(function):
    for mark in gpu:
        function = mark(function)
    return function


def cuda_pair(*shape: int, **options) -> tuple[Tensor, Tensor]:
    x, y = pair(*shape, **options)
    return x.cuda(), y.cuda()


def scaled(case: Case, factor: float):
    """As under loss scaling: gradients of a mean stay clear of float16's subnormal numbers."""
    return lambda x, y, **options: case.fused(x, y, **options) * factor


@on_gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@every_padding
@pytest.mark.parametrize(("case", "reduction"), EVERY_CASE)
def test_equal_to_the_cpu(case: Case, reduction: str, padding: str, dtype: torch.dtype) -> None:
    loss = scaled(case, 8192.0 if dtype in HALF_TYPES and reduction != "map" else 1.0)
    least = case.least(padding)
    for height, width in ((least, least + 24), (least + 45, least + 300)):
        x, y = pair(2, 3, height, width, dtype=dtype)
        for want in ("xy", "x", "y"):
            options = dict(padding=padding, reduction=reduction)
            expected, expected_grads = value_and_gradients(loss, x, y, want, **options)
            actual, grads = value_and_gradients(
                lambda *images, **o: loss(*(t.cuda() for t in images), **o).cpu(), x, y, want, **options
            )
            assert actual.dtype == expected.dtype
            flat = 1e-4 if height == 1 and dtype != torch.float64 else 0.0  # as on the CPU
            close = 1e-10 if dtype == torch.float64 else 1e-5
            assert relative_error(actual, expected) < max(close, flat)
            for grad, expected_grad in zip(grads, expected_grads, strict=True):
                assert relative_error(grad, expected_grad) < max(TOLERANCE[dtype], flat)


@on_gpu
@pytest.mark.parametrize("taps", [9, 11])
@pytest.mark.parametrize("negative", ["continue", "clamp"])
@every_halving
def test_odd_sides_and_negative_means(halving: str, negative: str, taps: int) -> None:
    """One channel is inverted; the levels by strips, and by the pool kernel."""
    options = dict(halving=halving, negative=negative, window_size=taps, padding="zeros")
    for sides in ((177, 351), (135, 240), (1080, 1919)):
        x, y = pair(1, 2, *sides)
        x[:, 1] = 1 - y[:, 1]
        loss = CASES["ms_ssim"].make(**options)
        expected, expected_grads = value_and_gradients(loss, x, y)
        actual, grads = value_and_gradients(loss, x.cuda(), y.cuda())
        assert relative_error(actual.cpu(), expected) < 1e-5
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            assert relative_error(grad.cpu(), expected_grad) < 1e-5


@on_gpu
@pytest.mark.parametrize("of_y", [torch.uint8, torch.bfloat16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@every_windowed_loss
def test_targets(case: Case, dtype: torch.dtype, of_y: torch.dtype) -> None:
    """Bytes beside any dtype; 16 bits beside more of them."""
    if dtype.itemsize <= of_y.itemsize:
        pytest.skip("y is as wide as x")
    x, y = pair(2, 3, 40, 41, dtype=dtype)
    y = (y * 255).byte() if of_y == torch.uint8 else y.to(of_y)
    loss = scaled(case, 64.0)
    expected, (expected_grad,) = value_and_gradients(loss, x, y, "x", **case.tiny)
    actual, (grad,) = value_and_gradients(loss, x.cuda(), y.cuda(), "x", **case.tiny)
    assert relative_error(actual.cpu(), expected) < (1e-10 if dtype == torch.float64 else 1e-6)
    assert grad.dtype == dtype and relative_error(grad.cpu(), expected_grad) < TOLERANCE[dtype]


@on_gpu
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
@every_windowed_loss
def test_parts_and_maps(case: Case, dtype: torch.dtype, reduction: str) -> None:
    x, y = pair(2, 3, 40, 41, dtype=dtype)
    loss = case.make(**case.tiny, reduction=reduction)
    asked = dict(return_parts=True, return_map=case.levels == 1)
    expected, actual = loss(x, y, **asked), loss(x.cuda(), y.cuda(), **asked)
    assert torch.equal(actual[0], loss(x.cuda(), y.cuda()))
    assert actual[1].keys() == expected[1].keys()
    for one, other in zip(
        [*actual[1].values(), *actual[2:]], [*expected[1].values(), *expected[2:]], strict=True
    ):
        assert relative_error(one.cpu(), other) < (1e-10 if dtype == torch.float64 else 1e-5)


@on_gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("padding", ["valid", "normalized"])
@pytest.mark.parametrize(("case", "reduction"), EVERY_CASE)
def test_masks(case: Case, reduction: str, padding: str, dtype: torch.dtype) -> None:
    """Weights are not looked at on CUDA, so one beyond [0, 1] makes the loss NaN."""
    x, y = pair(2, 3, 40, 41, dtype=dtype)
    mask = pair(2, 1, 40, 41)[0].mul(2).sub(0.3).clamp(0, 1)
    loss = case.make(padding=padding, reduction=reduction, **case.tiny)
    expected, expected_grads = value_and_gradients(lambda x, y: loss(x, y, mask=mask), x, y)
    actual, grads = value_and_gradients(lambda x, y: loss(x, y, mask=mask.cuda()), x.cuda(), y.cuda())
    assert relative_error(actual.cpu(), expected) < (1e-10 if dtype == torch.float64 else 1e-6)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert relative_error(grad.cpu(), expected_grad) < TOLERANCE[dtype]
    assert loss(x.cuda(), y.cuda(), mask=2 * mask.cuda()).isnan().any()


@on_gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("padding", PADDINGS)
@every_loss
def test_masks_by_every_family(case: Case, padding: str, dtype: torch.dtype) -> None:
    """Default windows, of images in several strips and bands; NaN behind the mask; twice the same bits."""
    x, y = pair(2, 3, 190, 303, dtype=dtype)
    mask = pair(2, 1, 190, 303)[0].sub(0.2).mul(3).clamp(0, 1)
    mask[..., 40:90, 100:200] = 0
    loss, factor = case.make(padding=padding), 8192.0 if dtype in HALF_TYPES else 1.0

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        return value_and_gradients(lambda *xy: factor * loss(*xy, mask=mask.to(x.device)), x, y)

    expected, expected_grads = step(x, y)
    hidden = [t.masked_fill(mask == 0, torch.nan).cuda() for t in (x, y)]
    (actual, grads), (again, same) = step(*hidden), step(*hidden)
    assert torch.equal(again, actual) and all(map(torch.equal, same, grads))
    assert relative_error(actual.cpu(), expected) < (1e-10 if dtype == torch.float64 else 1e-5)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert relative_error(grad.cpu(), expected_grad) < TOLERANCE[dtype]


@on_gpu
def test_a_mask_does_not_wait_for_the_device() -> None:
    """A step under a mask is captured in a graph, and follows a mask that changes."""
    x, y = cuda_pair(1, 3, 100, 120)
    mask, loss = torch.ones(1, 100, 120, device="cuda"), SSIMLoss()
    value_and_gradients(lambda x, y: loss(x, y, mask=mask), x, y)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = loss(x, y, mask=mask)
    for rows in (slice(0, 50), slice(60, 100)):
        mask.zero_()[:, rows] = 1
        graph.replay()
        assert torch.equal(value, loss(x, y, mask=mask)) and value > 0


@on_gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@every_padding
@test_volumes.every_reduction
@test_volumes.every_loss
def test_volumes_equal_to_the_cpu(name: str, reduction: str, padding: str, dtype: torch.dtype) -> None:
    case = test_volumes.VOLUMES[name]
    loss = scaled(case, 8192.0 if dtype in HALF_TYPES and reduction != "map" else 1.0)
    for options in ({}, test_volumes.ANISOTROPIC, dict(window="uniform", window_size=5)):
        x, y = pair(2, 3, 12, 70, 45, dtype=dtype)
        if padding == "zeros":
            x, y = (t.contiguous(memory_format=torch.channels_last_3d) for t in (x, y))
        given = dict(padding=padding, reduction=reduction, **options)
        for want in ("xy", "x", "y"):
            expected, expected_grads = value_and_gradients(loss, x, y, want, **given)
            actual, grads = value_and_gradients(
                lambda *images, **o: loss(*(t.cuda() for t in images), **o).cpu(), x, y, want, **given
            )
            assert relative_error(actual, expected) < (1e-10 if dtype == torch.float64 else 1e-5)
            for grad, expected_grad in zip(grads, expected_grads, strict=True):
                assert relative_error(grad, expected_grad) < TOLERANCE[dtype]


@on_gpu
@pytest.mark.parametrize("taps", [1, 3, 5, 7, 9, 13, 29, 31, 33, 35, 57, 65])
@every_padding
def test_any_window(padding: str, taps: int) -> None:
    for name in ("ssim", "mix"):
        x, y = pair(1, 2, taps + 40, taps + 71)
        options = dict(window_size=taps, padding=padding)
        expected, expected_grads = value_and_gradients(CASES[name].fused, x, y, **options)
        actual, grads = value_and_gradients(CASES[name].fused, x.cuda(), y.cuda(), **options)
        assert relative_error(actual.cpu(), expected) < 1e-5
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            assert relative_error(grad.cpu(), expected_grad) < 1e-5


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_loss
def test_channels_last_and_other_strides(case: Case, dtype: torch.dtype) -> None:
    x, y = cuda_pair(2, 3, 60, 64, dtype=dtype)
    expected, expected_grads = value_and_gradients(case.fused, x, y, **case.tiny)
    channels_last = [t.contiguous(memory_format=torch.channels_last) for t in (x, y)]
    transposed = [t.mT.contiguous().mT for t in (x, y)]
    every_other = [t.repeat_interleave(2, -1)[..., ::2] for t in (x, y)]
    for images in (channels_last, transposed, every_other, (x, channels_last[1])):
        actual, grads = value_and_gradients(case.fused, *images, **case.tiny)
        assert relative_error(actual, expected) < 1e-6
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            assert relative_error(grad, expected_grad) < (1e-6 if dtype == torch.float32 else 8e-3)
    leaf = channels_last[0].requires_grad_()
    case.fused(leaf, channels_last[1], **case.tiny).backward()
    assert leaf.grad.is_contiguous(memory_format=torch.channels_last)


@on_gpu
@every_loss
def test_bit_equal_reruns(case: Case) -> None:
    side = case.least("valid") + 301
    x, y = cuda_pair(3, 3, side, side + 77)
    runs = [value_and_gradients(case.fused, x, y) for _ in range(5)]
    for loss, grads in runs[1:]:
        assert torch.equal(loss, runs[0][0])
        assert all(torch.equal(*same) for same in zip(grads, runs[0][1], strict=True))


@on_gpu
@every_loss
def test_no_synchronisation(case: Case) -> None:
    """Forward, backward, a second backward, a map with an incoming gradient: torch raises where it would wait
    for the device; our library's own calls are seen by the captures."""
    x, y = cuda_pair(2, 3, 200, 210)
    leaf = x.requires_grad_()
    incoming = torch.full((), 0.5, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for reduction in case.reductions():
            loss = case.fused(leaf, y, reduction=reduction)
            torch.autograd.grad(loss, leaf, incoming.expand(loss.shape), retain_graph=True)
            torch.autograd.grad(loss, leaf, incoming.expand(loss.shape))
        with torch.no_grad():
            case.fused(leaf, y)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@on_gpu
@every_loss
def test_current_stream(case: Case) -> None:
    """The images are made late on a stream of their own; the kernels must wait for that stream."""
    x, y = cuda_pair(2, 3, 170, 180)
    expected, expected_grads = value_and_gradients(case.fused, x, y)
    late_x, late_y = torch.zeros_like(x), torch.zeros_like(y)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(200_000_000)  # 0.1 s
        late_x.copy_(x), late_y.copy_(y)
        actual, grads = value_and_gradients(case.fused, late_x, late_y)
        late_x.zero_(), late_y.zero_()  # after the kernels, had they run on this stream
    stream.synchronize()
    assert torch.equal(actual, expected)
    assert all(torch.equal(*same) for same in zip(grads, expected_grads, strict=True))


@on_gpu
@every_loss
def test_two_streams(case: Case) -> None:
    """Side by side, in whatever order: neither stream has the other's working memory."""
    images = [cuda_pair(2, 3, 170, 180, seed=seed) for seed in range(2)]
    expected = [value_and_gradients(case.fused, *both) for both in images]
    streams = [torch.cuda.Stream() for _ in images]
    torch.cuda.synchronize()
    results = []
    for i in [0, 1] * 10:
        with torch.cuda.stream(streams[i]):
            results.append((i, *value_and_gradients(case.fused, *images[i])))
    torch.cuda.synchronize()
    for i, value, grads in results:
        assert torch.equal(value, expected[i][0])
        assert all(torch.equal(*same) for same in zip(grads, expected[i][1], strict=True))


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("case", "reduction"), EVERY_CASE)
def test_captured_graph(case: Case, reduction: str, dtype: torch.dtype) -> None:
    """Forward and backward in one CUDA graph; replayed on other images it gives their loss and gradient."""
    x, y = cuda_pair(2, 3, 170, 175, dtype=dtype)
    other_x, other_y = cuda_pair(2, 3, 170, 175, dtype=dtype, seed=1)
    incoming_of = {}

    def step(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        loss = case.fused(x, y, reduction=reduction)
        incoming = incoming_of.setdefault(reduction, torch.full_like(loss, 3.0))
        return loss.detach(), torch.autograd.grad(loss, x, incoming)[0]

    expected_loss, expected_grad = step(other_x.clone().requires_grad_(), other_y)
    static_x, static_y = x.clone().requires_grad_(), y.clone()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step(static_x, static_y)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss, grad = step(static_x, static_y)
    for _ in range(2):
        with torch.no_grad():
            static_x.copy_(other_x), static_y.copy_(other_y)
        graph.replay()
        assert torch.equal(loss, expected_loss) and torch.equal(grad, expected_grad)


@on_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one CUDA device")
@every_loss
def test_second_device(case: Case) -> None:
    """Tensors elsewhere than on the current device, which stays as it was."""
    x, y = cuda_pair(2, 3, 170, 180)
    expected, expected_grads = value_and_gradients(case.fused, x, y)
    actual, grads = value_and_gradients(case.fused, x.to("cuda:1"), y.to("cuda:1"))
    assert torch.cuda.current_device() == 0 and actual.device.index == 1
    assert relative_error(actual.cpu(), expected.cpu()) < 1e-6
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert relative_error(grad.cpu(), expected_grad.cpu()) < 1e-6


@on_gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@every_loss
def test_identical_images_and_retained_graphs(case: Case, dtype: torch.dtype) -> None:
    x, _ = cuda_pair(2, 3, 170, 171, dtype=dtype)
    loss, grads = value_and_gradients(case.fused, x, x.clone())
    assert loss == 0 and all(torch.count_nonzero(grad) == 0 for grad in grads)

    leaf, y = x.clone().requires_grad_(), x.flip(-1)
    loss = case.fused(leaf, y) * 64
    (first,) = torch.autograd.grad(loss, leaf, retain_graph=True)
    kept = first.clone()
    first.fill_(torch.nan)  # the buffer is handed out once: asked again, it is computed anew
    (second,) = torch.autograd.grad(loss, leaf)
    assert relative_error(second, kept) < (1e-6 if dtype in (torch.float32, torch.float64) else 8e-3)


@on_gpu
def test_more_planes_than_a_grid_dimension() -> None:
    """65535 is the limit of a grid's second and third dimension."""
    x, y = cuda_pair(3, 32768, 12, 12)
    loss, (grad, _) = value_and_gradients(SSIMLoss(reduction="none"), x, y)
    for n, first in ((0, 0), (2, 32760)):
        some = slice(first, first + 8)
        few_x, few_y = (t[n : n + 1, some].cpu() for t in (x, y))
        expected = SSIMLoss(reduction="map")(few_x, few_y)
        actual = SSIMLoss(reduction="map")(x[n : n + 1], y[n : n + 1])[:, some]
        assert relative_error(actual.cpu(), expected) < 1e-5
    assert loss.isfinite().all() and grad.isfinite().all()
    assert (grad.abs().amax((-2, -1)) > 0).all()


@on_gpu
def test_more_elements_than_32_bits_count() -> None:
    """2^31 and some elements: the far corner of value and gradient is that of the corner alone."""
    height, width = 46400, 46336
    needed = 5 * 2 * height * width
    if torch.cuda.mem_get_info()[0] < 1.2 * needed:
        pytest.skip(f"{needed >> 30} GiB of free device memory needed")
    x = torch.rand(1, 1, height, width, dtype=torch.float16, device="cuda")
    y = torch.zeros_like(x)
    y[..., -300:, -300:] = torch.rand(300, 300, dtype=torch.float16, device="cuda")
    leaf = x.requires_grad_()
    scale = float(height * width)
    (grad,) = torch.autograd.grad(SSIMLoss(padding="zeros")(leaf, y) * scale, leaf)
    corner_x = x.detach()[..., -300:, -300:].clone().requires_grad_()
    corner = SSIMLoss(padding="zeros")(corner_x, y[..., -300:, -300:]) * 300.0**2
    (expected,) = torch.autograd.grad(corner, corner_x)
    inner = slice(11, 300)  # away from the crop's own borders
    assert relative_error(grad[..., -300:, -300:][..., inner, inner], expected[..., inner, inner]) < 2e-3


@on_gpu
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@every_padding
def test_nan_reaches_exactly_its_windows(padding: str, bad: float) -> None:
    x, y = cuda_pair(1, 2, 300, 700)
    spots = [(0, 0), (150, 240), (299, 699), (100, 479)]
    reached = torch.zeros(300, 700, dtype=torch.bool, device="cuda")
    for row, col in spots:
        x[0, 1, row, col] = bad
        reached[max(row - 5, 0) : row + 6, max(col - 5, 0) : col + 6] = True
    crop = 5 if padding == "valid" else 0
    loss_map = SSIMLoss(padding=padding, reduction="map")(x, y)
    assert torch.equal(~loss_map[0, 1].isfinite(), reached[crop : 300 - crop, crop : 700 - crop])
    assert loss_map[0, 0].isfinite().all()


@on_gpu
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@every_windowed_loss
def test_a_range_for_each_image(case: Case, dtype: torch.dtype) -> None:
    """The same as on the CPU; and nothing waits for the device, not even for a range that is none."""
    ranges = torch.tensor([1.0, 255.0, 0.0])
    x, y = (t * ranges[:, None, None, None].to(t) for t in pair(3, 2, 40, 41, dtype=dtype))
    loss = case.make(**case.tiny, reduction="none")
    expected, expected_grads = value_and_gradients(lambda x, y: 64 * loss(x, y, data_range=ranges), x, y)
    on_device = [t.cuda().requires_grad_() for t in (x, y)]
    ranges, incoming = ranges.cuda(), torch.ones(3, device="cuda", dtype=expected.dtype)
    torch.cuda.set_sync_debug_mode("error")
    try:
        (64 * loss(*on_device, data_range=ranges)).backward(incoming)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    actual, grads = value_and_gradients(lambda x, y: 64 * loss(x, y, data_range=ranges).cpu(), *on_device)
    assert actual[2].isnan() and expected[2].isnan()
    assert relative_error(actual[:2], expected[:2]) < (1e-10 if dtype == torch.float64 else 1e-5)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert grad[2].isnan().all()
        assert all(
            relative_error(*pair) < TOLERANCE[dtype]
            for pair in zip(grad[:2].cpu(), expected_grad[:2], strict=True)
        )


@on_gpu
def test_memory_is_the_gradient() -> None:
    x, y = cuda_pair(1, 3, 1080, 1920)
    leaf = x.requires_grad_()
    for loss in (SSIMLoss(), ssimloss.L1SSIMLoss()):
        loss(leaf, y).backward()
        leaf.grad = None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss(leaf, y).backward()
        peak = (torch.cuda.max_memory_allocated() - before) / (4 * x.numel())
        assert 1.0 <= peak < 1.1
        leaf.grad = None


@on_gpu
def test_several_scales_in_bounded_memory() -> None:
    """64 MiB or three gradients beside the gradient; value and gradient as on the CPU; in a graph, too."""
    loss = ssimloss.MixLoss()
    for shape in ((1, 3, 1080, 1920), (16, 3, 256, 256)):
        x, y = cuda_pair(*shape)
        leaf = x.requires_grad_()
        loss(leaf, y).backward()
        leaf.grad = None
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        loss(leaf, y).backward()
        gradient = 4 * x.numel()
        assert torch.cuda.max_memory_allocated() - before <= gradient + max(64 << 20, 3 * gradient) + (
            1 << 20
        )
        on_cpu = x.detach().cpu().requires_grad_()
        loss(on_cpu, y.cpu()).backward()
        assert relative_error(leaf.grad.cpu(), on_cpu.grad) < TOLERANCE[torch.float32]

        expected, leaf.grad = leaf.grad, None
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            torch.autograd.grad(loss(leaf, y), leaf)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            (grad,) = torch.autograd.grad(loss(leaf, y), leaf)
        graph.replay()
        assert torch.equal(grad, expected)


@on_gpu
def test_compiled() -> None:
    x, y = cuda_pair(2, 3, 80, 90)
    for case in CASES.values():
        expected, expected_grads = value_and_gradients(case.fused, x, y, **case.tiny)
        compiled = torch.compile(case.make(**case.tiny), fullgraph=True, backend="aot_eager")
        actual, grads = value_and_gradients(compiled, x, y)
        assert torch.equal(actual, expected)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            assert relative_error(grad, expected_grad) < 1e-6


@on_gpu
def test_too_wide_a_window_is_refused() -> None:
    """The device has shared memory for 65 taps; more is an error that says so, not a wrong answer."""
    x, y = cuda_pair(1, 1, 80, 80)
    with pytest.raises(ValueError, match="65"):
        SSIMLoss(window_size=67)(x, y)
