"""Scratch memory of CUDA's kernels: within its bound for every problem, and where a problem goes through it
in portions of planes and rows (csrc/cuda/common/portions.h), the same numbers as at once.

Without a GPU, through the shim; nothing runs where only the memory is asked for.
"""

import platform
import re
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
import torch
from cases import every_padding, relative_error
from torch import Tensor

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the shim's fibers are x86-64")
LEAST = 64 << 20
ZHAO = [0.5, 1.0, 2.0, 4.0, 8.0]
MIX, MIX_33 = (ZHAO, [5, 9, 15, 29, 57]), (ZHAO, [33] * 5)
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture
def bounded(kernels: ModuleType) -> Iterator[Callable[[int], None]]:
    """bounded(bytes): what scratch memory may have, but never less than three gradients."""
    yield kernels.set_scratch_bytes
    kernels.set_scratch_bytes(LEAST)


def cropped(shape: tuple[int, ...], windows: tuple, padding: str) -> tuple[int, ...]:
    crop = windows[1][-1] - 1 if padding == "valid" else 0
    return *shape[:2], shape[2] - crop, shape[3] - crop


# ---- The bound

SHAPES = [
    *[(1, 3, side, side) for side in (31, 58, 101, 256, 512, 1024, 2048, 4096, 8192)],
    *[(n, 3, side, side) for n, side in ((16, 31), (16, 128), (17, 128), (16, 256), (64, 256), (4, 512))],
    *[(1, 3, 1080, 1920), (1, 3, 2160, 3840), (7, 3, 1080, 1920), (1, 4, 5000, 700), (3, 1, 4097, 4099)],
    *[(1, 1, 20000, 58), (1, 1, 58, 20000), (1, 1, 600, 100_000), (2, 65, 200, 200), (1, 1, 65, 10_000_000)],
    *[(1, 200, 300, 300), (1000, 1, 64, 64), (20_000, 3, 31, 31), (100_000, 1, 31, 33), (1, 1, 31, 31)],
]
FORMS = [("mean", ""), ("mean", "x"), ("none", "y"), ("mean", "xy"), ("map", ""), ("map", "x"), ("map", "xy")]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def test_scratch_is_bounded(
    shape: tuple[int, ...],
    dtype: torch.dtype,
    kernels: ModuleType,
    launched: Callable[..., list[str]],
    bounded: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 MiB, or three gradients; and what has room without portions is launched as it would be anyway."""
    monkeypatch.setenv("SHIM_DRY", "1")
    x = torch.empty(shape, dtype=dtype)  # takes no memory where nobody writes
    bound = max(LEAST, 3 * x.numel() * x.element_size())

    def scratch(windows: tuple, padding: str, reduction: str, want: str) -> tuple[int, list[str]]:
        positions = torch.empty(cropped(shape, windows, padding))
        outputs = {f"grad_{name}": x for name in want}
        if reduction == "map":
            outputs["grad_map" if want else "loss_map"] = positions
        else:
            outputs |= dict(loss=torch.empty(shape[0]), per_image=reduction == "none")
        sizes = []
        names = launched(
            lambda: sizes.append(kernels.gaussian(x, x, *windows, padding, l1_weight=0.5, **outputs))
        )
        return sizes[0], names

    for multiprocessors, shared in (("132", "232448"), ("68", "65536")):
        monkeypatch.setenv("SHIM_SMS", multiprocessors)
        monkeypatch.setenv("SHIM_SHARED", shared)
        for windows in (MIX, MIX_33, ([8.0], [57]), ([0.8] * 9, [65] * 9)):
            for padding in ("valid", "zeros", "reflect"):
                if min(shape[2:]) < windows[1][-1]:
                    continue
                for form in FORMS:
                    bounded(LEAST)
                    size, names = scratch(windows, padding, *form)
                    assert size <= bound
                    bounded(1 << 50)
                    whole, at_once = scratch(windows, padding, *form)
                    assert size <= whole
                    if whole < 0.95 * bound:  # nearer: sums of blocks are reserved as for the smallest
                        assert (size, names) == (whole, at_once)
                    elif whole > bound:
                        assert len(names) > len(at_once)


# ---- The numbers


def spoil(x: Tensor, y: Tensor) -> None:
    """NaN, an infinity, and values beyond float32's squares, far from each other."""
    x[..., 20, 20], y[..., -1, -1], x[..., -20, 3], y[..., x.shape[2] // 2, 0] = (
        torch.nan,
        1e30,
        torch.inf,
        3e5,
    )


def images(shape: tuple[int, ...], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(3)
    x, noise = (torch.rand(shape, generator=random, dtype=torch.float64) for _ in range(2))
    return x.to(dtype), (x + 0.2 * noise).clamp(0, 1).to(dtype)


def results(
    kernels: ModuleType, x: Tensor, y: Tensor, windows: tuple, padding: str, want: str, reduction: str
) -> dict[str, Tensor]:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    outputs = {f"grad_{name}": torch.full_like(x, torch.nan) for name in want}
    given = dict(ssim_weight=0.6, l1_weight=0.4, ssim_gain=600.0, l1_gain=400.0)
    random = torch.Generator().manual_seed(4)
    positions = cropped(tuple(x.shape), windows, padding)
    if reduction == "map":
        given["grad_map"] = torch.rand(positions, generator=random).to(wide)
        outputs["loss_map"] = torch.full(positions, torch.nan, dtype=wide)
        kernels.gaussian(
            x, y, *windows, padding, ssim_weight=0.6, l1_weight=0.4, loss_map=outputs["loss_map"]
        )
    else:
        outputs["loss"] = torch.full((x.shape[0],), torch.nan, dtype=wide)
        given |= dict(per_image=True, incoming=torch.rand(x.shape[0], generator=random).to(wide))
        given |= dict(ssim_mean=0.6 / positions[-1], l1_mean=0.4 / positions[-1], loss=outputs["loss"])
    gradients = {name: outputs[name] for name in outputs if name.startswith("grad")}
    kernels.gaussian(x, y, *windows, padding, **gradients, **given)
    return outputs


def same(a: Tensor, b: Tensor, error: float = 0.0) -> bool:
    if not torch.equal(a.isnan(), b.isnan()):
        return False
    a, b = a.nan_to_num(0), b.nan_to_num(0)
    return torch.equal(a, b) if error == 0 else relative_error(a, b) < error


NARROW, ODD = ([0.5, 0.8, 1.0, 1.5, 2.0], [3, 5, 7, 9, 9]), ([0.5, 0.8, 1.0, 1.5, 3.0], [3, 3, 5, 9, 19])
CASES = {  # shape, windows, portions at least: where positions are fewer than pixels, and where they are not
    "images": ((7, 2, 64, 41), NARROW, 7, 7),
    "channels of an image": ((1, 9, 64, 41), NARROW, 9, 9),
    "rows": ((2, 3, 301, 43), NARROW, 12, 12),
    "positions that begin at a cell": ((6, 1, 230, 40), ODD, 6, 12),
    "57 taps": ((1, 6, 331, 61), MIX, 3, 12),
    "33 taps": ((3, 2, 250, 37), MIX_33, 3, 12),
    "one scale": ((1, 6, 133, 79), ([8.0], [57]), 1, 2),
}


@pytest.mark.parametrize(
    ("want", "reduction", "dtype", "spoiled"),
    [
        ("x", "mean", torch.float32, False),
        ("xy", "mean", torch.bfloat16, False),
        ("y", "map", torch.float32, True),
        ("xy", "map", torch.float64, True),
    ],
)
@every_padding
@pytest.mark.parametrize("name", CASES)
def test_portions_give_the_bits_of_the_whole(
    name: str,
    padding: str,
    want: str,
    reduction: str,
    dtype: torch.dtype,
    spoiled: bool,
    kernels: ModuleType,
    launched: Callable[..., list[str]],
    bounded: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Maps and gradients; a value is summed over other blocks. With NaN and huge values, and without."""
    shape, windows, *least = CASES[name]
    if dtype == torch.float64:  # by tiles, which keep less
        shape, least = (1, 3, *shape[2:]), [1, 2]
    monkeypatch.setenv("SHIM_SMS", "1")  # for six planes the whole then has one band of rows
    x, y = images(shape, dtype)
    if spoiled:
        spoil(x, y)
    bounded(1 << 40)
    expected = results(kernels, x, y, windows, padding, want, reduction)
    bounded(1)
    actual: dict[str, Tensor] = {}
    names = launched(lambda: actual.update(results(kernels, x, y, windows, padding, want, reduction)))
    assert max(Counter(names).values()) >= least[padding != "valid"]
    for key, right in expected.items():
        if key == "loss":
            torch.testing.assert_close(actual[key], right, rtol=2e-7, atol=0, equal_nan=True)
        else:
            # An odd radius: where a strip ends, a cell may have its base elsewhere.
            assert same(actual[key], right, 1e-6 if windows == ODD else 0.0), key


@every_padding
@pytest.mark.parametrize("reduction", ["mean", "map"])
@pytest.mark.parametrize("layout", ["plain", "channels_last"])
def test_a_wide_plane_is_turned(
    layout: str,
    reduction: str,
    padding: str,
    kernels: ModuleType,
    launched: Callable[..., list[str]],
    bounded: Callable[[int], None],
) -> None:
    """One that is too wide for a ring of rows: its columns are the rows."""
    x, y = images((1, 2, 60, 900), torch.float32)
    if layout == "channels_last":
        x, y = (t.contiguous(memory_format=torch.channels_last) for t in (x, y))
    bounded(1 << 40)
    expected = results(kernels, x, y, MIX, padding, "xy", reduction)
    bounded(1)
    actual: dict[str, Tensor] = {}
    names = launched(lambda: actual.update(results(kernels, x, y, MIX, padding, "xy", reduction)))
    assert Counter(names)["adjoint"] >= 4
    for key, right in expected.items():
        assert relative_error(actual[key], right) < 1e-6


def test_the_plan_says_its_portions(
    kernels: ModuleType, bounded: Callable[[int], None], monkeypatch: pytest.MonkeyPatch, capfd
) -> None:
    monkeypatch.setenv("SHIM_DRY", "1")
    monkeypatch.setenv("SHIM_SMS", "79")  # nobody else's: nothing is remembered of it
    monkeypatch.setenv("SSIMLOSS_PLAN", "1")
    x = torch.empty(2, 3, 1080, 1920)
    bounded(LEAST)
    size = kernels.gaussian(x, x, *MIX, "zeros", loss=torch.empty(1), grad_x=x)
    lines = capfd.readouterr().err.splitlines()
    said = [
        re.search(r"(\d+) portions of (\d+) planes and (\d+) rows with ([\d.]+) MiB of maps", s)
        for s in lines
    ]
    assert len(said) == 2 and said[0] and said[1] and said[0].groups() == said[1].groups()
    count, planes, rows, mebibytes = (float(text) for text in said[0].groups())
    assert count >= 6 / planes * 1080 / rows > count / 2
    assert mebibytes <= size / (1 << 20) < mebibytes + 1
