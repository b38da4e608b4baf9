"""Gradients on the CPU lie in memory of torch, held from step to step, and never two in the same."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from cases import CASES, Case, every_loss, pair, relative_error
from torch import Tensor

from ssimloss import SSIMLoss, memory

SIDES = (20, 300)  # less than what is held, and more


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_held", [])
    monkeypatch.setattr(memory, "_layouts", (None, None))


def gradients(case: Case, x: Tensor, y: Tensor, reduction: str) -> list[Tensor]:
    """As they come out of backward, autograd.grad, a hook, and the operator."""
    leaf, seen = x.clone().requires_grad_(), []
    leaf.register_hook(lambda grad: seen.append(grad))
    loss = case.fused(leaf, y, reduction=reduction, **case.tiny).sum()
    result = list(torch.autograd.grad(loss, leaf, retain_graph=True))
    loss.backward()
    other = y.clone().requires_grad_()
    case.fused(x, other, reduction=reduction, **case.tiny).sum().backward()
    options = case.make(reduction=reduction, **case.tiny).options
    raw = options.op(x, y, 1.0, True, True, *options)[1:] if reduction != "map" else ()
    assert leaf.grad is not None and other.grad is not None
    return [*result, leaf.grad, other.grad, *raw]


def larger(grad: Tensor) -> Tensor:
    return grad.resize_(3, 5, 400, 400)


def out(grad: Tensor) -> Tensor:
    return torch.add(torch.zeros(3, 5, 400, 400), 1, out=grad.resize_(0))


def storage(grad: Tensor) -> Tensor:
    grad.untyped_storage().resize_(4 * 3 * 5 * 400 * 400)
    return grad


@pytest.mark.parametrize("resize", [larger, out, storage])
@pytest.mark.parametrize("side", SIDES)
@every_loss
def test_gradients_can_be_resized(case: Case, side: int, resize: Callable[[Tensor], Tensor]) -> None:
    """As every gradient of torch; with memory that it could not resize, false sizes stayed behind."""
    x, y = pair(1, 2, side, side + 1)
    for reduction in case.reductions():
        for grad in gradients(case, x, y, reduction):
            values = grad.flatten()[:100].clone()
            resized = resize(grad)
            assert resized.untyped_storage().nbytes() >= 4 * 3 * 5 * 400 * 400
            if resize is not out:
                assert torch.equal(resized.flatten()[:100], values)
            resized.fill_(7)  # all of it is there
        expected = gradients(case, x, y, reduction)
        assert all(
            torch.equal(*same) for same in zip(expected, gradients(case, x, y, reduction), strict=True)
        )


FORMS: dict[str, Callable[[Tensor], object]] = {
    "itself": lambda g: g,
    "numpy": lambda g: g.numpy(),
    "part": lambda g: g[:, 1:, 3:5, 7:],
    "storage": lambda g: g.untyped_storage(),
    "view": lambda g: g.view(torch.uint8),
    "dlpack": lambda g: torch.utils.dlpack.to_dlpack(g),
    "shared": lambda g: g.share_memory_().untyped_storage(),
    "detached": lambda g: g.detach(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_no_two_gradients_in_the_same_memory(name: str, dtype: torch.dtype, form: str) -> None:
    """A gradient that was held is not handed out again while anybody has it, in whatever form."""
    case = CASES[name]
    x, y = pair(1, 2, 200, 180, dtype=dtype)

    def gradient(target: Tensor = y) -> Tensor:
        leaf = x.clone().requires_grad_()
        case.fused(leaf, target, **case.tiny).backward()
        assert leaf.grad is not None
        return leaf.grad

    steps = [gradient().data_ptr() for _ in range(4)]
    assert len(set(steps[2:])) == 1  # held
    grad = gradient()
    values, address = grad.clone(), grad.data_ptr()
    assert address == steps[-1]
    kept = FORMS[form](grad)
    storage = torch.utils.dlpack.from_dlpack(kept).untyped_storage() if form == "dlpack" else None
    del grad
    if form == "shared":  # it has moved, and what it left is anybody's
        address = kept.data_ptr()
    for _ in range(3):
        assert gradient(0.5 * y).data_ptr() != address
    if isinstance(kept, torch.UntypedStorage):
        kept = torch.empty(0, dtype=dtype).set_(kept, 0, values.shape)
    if isinstance(kept, Tensor) and form not in ("part", "view"):
        assert torch.equal(kept, values)
    del storage


def test_what_was_freed_is_not_handed_out_again() -> None:
    """Frameworks free a gradient so, to have its memory before the tensor goes."""
    x, y = pair(1, 1, 200, 200)
    for _ in range(6):
        leaf = x.clone().requires_grad_()
        SSIMLoss()(leaf, y).backward()
        assert leaf.grad is not None and leaf.grad.untyped_storage().nbytes() == 4 * 200 * 200
        assert leaf.grad.isfinite().all()
        leaf.grad.untyped_storage().resize_(0)


def test_what_another_process_may_see_is_not_handed_out_again() -> None:
    """Sent through a queue, a gradient is shared memory; it is overwritten by nobody here."""
    x, y = pair(1, 1, 200, 200)
    x.requires_grad_()

    def gradient() -> Tensor:
        x.grad = None
        SSIMLoss()(x, y).backward()
        assert x.grad is not None
        return x.grad

    for _ in range(3):
        address = gradient().data_ptr()
    sent = gradient()
    assert sent.data_ptr() == address  # held
    handle, size = sent.untyped_storage()._share_fd_cpu_()
    del sent
    received = torch.UntypedStorage._new_shared_fd_cpu(handle, size)
    before = received.tolist()
    y.mul_(0.5)
    for _ in range(3):
        gradient()
    assert received.tolist() == before


def test_threads_have_gradients_of_their_own() -> None:
    images = [pair(1, 1, 150, 150, seed=seed) for seed in range(4)]

    def run(seed: int) -> list[Tensor]:
        x, y = images[seed]
        results = []
        for _ in range(30):
            leaf = x.clone().requires_grad_()
            results += torch.autograd.grad(SSIMLoss()(leaf, y), leaf)
            if len(results) > 3:
                results.pop(1)
        return results

    expected = [run(seed)[0].clone() for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        for seed, results in enumerate(threads.map(run, range(4))):
            assert all(torch.equal(grad, expected[seed]) for grad in results)


@every_loss
def test_renders_are_not_copied(case: Case) -> None:
    """[N, H, W, C] permuted: the loss of the planes, and the gradient lies as the render does, all of it."""
    x, y = pair(2, 3, 64, 66)
    render, truth = (t.permute(0, 2, 3, 1).contiguous() for t in (x, y))
    views = []
    planes = render.requires_grad_().permute(0, 3, 1, 2)
    planes.register_hook(views.append)
    loss = case.fused(planes, truth.permute(0, 3, 1, 2), **case.tiny)
    loss.backward()
    leaf = x.requires_grad_()
    expected = case.fused(leaf, y, **case.tiny)
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    assert render.grad is not None and render.grad.is_contiguous()
    assert relative_error(render.grad.permute(0, 3, 1, 2), leaf.grad) < 1e-5
    assert render.grad.data_ptr() == views[0].data_ptr()  # the op's own, not a copy in another layout
