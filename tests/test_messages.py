"""What is refused, on every device, in every dtype and mode: in our words. And what warns."""

import contextlib
import subprocess
import warnings
from collections.abc import Callable, Iterator

import pytest
import torch
from cases import WINDOWED, Case, every_loss, pair
from torch import Tensor, func

import ssimloss
from ssimloss import images, warn

DTYPES = sorted({t for t in vars(torch).values() if isinstance(t, torch.dtype)}, key=str)
DTYPES = [t for t in DTYPES if not str(t).startswith(("torch.qint", "torch.quint"))]  # torch traces none
# Of fake tensors: shapes, dtypes and devices without the device.
DEVICES = ("cpu", "meta", "cuda", "mps", "xpu", "xla", "mtia", "vulkan")


@pytest.fixture
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warn, "_said", set())


@contextlib.contextmanager
def images_on(device: str) -> Iterator[Callable[[torch.dtype], Tensor]]:
    """make(dtype) -> an image there, or what stands for it."""
    fakes = torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True)
    with fakes if device not in ("cpu", "meta") else contextlib.nullcontext():
        yield lambda dtype: torch.empty(1, 3, 16, 16, dtype=dtype, device=device)


MODES = {
    "eager": lambda loss: loss,
    "no_grad": torch.no_grad(),
    "inference": torch.inference_mode(),
    "autocast": torch.autocast("cpu", torch.bfloat16),
    "compile": lambda loss: torch.compile(loss, backend="eager"),
    "export": lambda loss: lambda x, y: torch.export.export(loss, (x, y), strict=False),
    "grad": lambda loss: func.grad(lambda x, y: loss(x, y).sum()),
    "vmap": lambda loss: lambda x, y: func.vmap(loss)(x[None], y[None]),
}


def message_of(call: Callable[[], object]) -> tuple[type, str]:
    torch.compiler.reset()
    try:
        call()
    except Exception as error:  # dynamo and export put their own around it
        return type(error), str(error)
    return type(None), ""


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("device", DEVICES)
def test_every_dtype(device: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours takes or refuses every dtype beside float32, on every device, in every mode, and says why."""
    if device not in ("cpu", "meta") and mode in ("compile", "export", "vmap"):
        pytest.skip("torch itself refuses fake tensors there")
    loss = ssimloss.SSIMLoss()
    how = MODES[mode]
    run = how(loss) if not isinstance(how, contextlib.ContextDecorator) else how(lambda x, y: loss(x, y))
    built = device != "cuda" or images.CUDA_INSIDE
    elsewhere = device not in ("cpu", "meta", "cuda")

    def plain_loss(*_) -> None:  # torch cannot compute it with fakes of all these devices
        raise NotImplementedError("in plain torch")

    monkeypatch.setattr(images, "plain_loss", plain_loss)
    seen = 0
    with images_on(device) as image:
        for dtype in DTYPES:
            try:
                x, y = image(torch.float32), image(dtype)
            except Exception:  # not a dtype of this device
                continue
            seen += 1
            _, said = message_of(lambda x=x, y=y: run(x, y))
            if dtype not in (*images.DTYPES, torch.uint8):
                assert f"y: expected dtype float16, bfloat16, float32, float64, uint8, got {dtype}" in said
            elif not built:
                assert f"x: no ssimloss kernels for a tensor on {x.device}: this build has no CUDA" in said
            elif dtype != torch.float64 or (mode == "autocast" and device == "cpu"):
                assert said == ("in plain torch" if elsewhere else "")
            else:
                assert f"y: expected the dtype of x, torch.float32, got {dtype}" in said
    assert seen >= 10


LAYOUTS = {
    "sparse": (Tensor.to_sparse, "torch.sparse_coo"),
    "mkldnn": (Tensor.to_mkldnn, "torch._mkldnn"),
    "nested": (lambda t: torch.nested.nested_tensor(list(t), layout=torch.jagged), "torch.jagged"),
}


@pytest.mark.parametrize(("make", "layout"), LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of nested tensors
def test_layouts(make: Callable, layout: str) -> None:
    x = torch.rand(2, 3, 16, 16)
    with pytest.raises(TypeError, match=f"y: expected layout torch.strided, got {layout}"):
        ssimloss.ssim(x, make(x))


SCRIPT = r"ssimloss: torch\.jit\.script is not supported; torch\.compile and torch\.export are"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@every_loss
def test_script_of_a_module(case: Case) -> None:
    loss = case.make(**case.tiny)
    for module in (loss, torch.nn.Sequential(torch.nn.Identity(), loss)):
        with pytest.raises(RuntimeError, match=SCRIPT):
            torch.jit.script(module)


def calls_ssim(x: Tensor, y: Tensor) -> Tensor:
    return ssimloss.ssim(x, y)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("function", [ssimloss.ssim, ssimloss.ms_ssim, ssimloss.ms_ssim_gaussian, calls_ssim])
def test_script_of_a_function(function: Callable) -> None:
    with pytest.raises(RuntimeError, match=SCRIPT):
        torch.jit.script(function)


DTENSOR = """
import os, torch, ssimloss
import torch.distributed as dist
from torch.distributed.tensor import distribute_tensor, Replicate, Shard
from torch.distributed.device_mesh import init_device_mesh
os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0", RANK="0", WORLD_SIZE="1")
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
image = torch.rand(2, 3, 40, 40)
for placement in (Replicate(), Shard(0)):
    there = distribute_tensor(image, mesh, [placement])
    for both, name in (((there, there), "x"), ((image, there), "y")):
        try:
            ssimloss.SSIMLoss()(*both)
        except TypeError as error:
            assert str(error) == (f"{name}: expected a tensor of this process, got a DTensor; "
                                  f"{name}.to_local() is its part here"), error
        else:
            raise SystemExit("computed")
    assert ssimloss.ssim(there.to_local(), there.to_local()) == 1
dist.destroy_process_group()
print("refused")
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without")
def test_dtensors_are_refused(python: Callable[..., subprocess.CompletedProcess]) -> None:
    done = python(DTENSOR)
    assert done.stdout == "refused\n", done.stderr


# ---- Warnings


@pytest.mark.parametrize("shape", [(1, 64, 96, 3), (2, 64, 64, 1), (1, 6, 7, 4), (64, 96, 3)], ids=str)
@every_loss
def test_channels_last_warns_once(case: Case, shape: tuple, nothing_said: None) -> None:
    image = torch.rand(shape)
    order = r"0, 3, 1, 2" if len(shape) == 4 else "2, 0, 1"
    with pytest.warns(UserWarning, match=rf"channels last\? permute\({order}\) costs nothing here") as seen:
        case.fused(image, image, padding="zeros", **case.tiny)
    assert seen[0].filename.endswith("cases.py")  # the line of the caller, not one of ours or torch's
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        case.fused(image, image, padding="zeros", **case.tiny)


@pytest.mark.parametrize("shape", [(1, 3, 64, 4), (1, 4, 64, 96), (2, 64, 64, 5), (1, 3, 4, 4)], ids=str)
def test_other_shapes_do_not_warn(shape: tuple, nothing_said: None) -> None:
    image = torch.rand(shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ssimloss.L1SSIMLoss()(image, image)


RANGE = """
import warnings, torch, ssimloss
from cases import CASES
seen = []
{before}
warnings.showwarning = lambda message, category, file, *_: seen.append((str(message), category, file))
torch.manual_seed(0)
x, y = (torch.rand({shape}) for _ in range(2))
x, y = (({values}).to(torch.{dtype}) for t in (x, y))
case = CASES["{name}"]
run = {run}
for _ in range(3):
    run(x, y)
for message, category, file in seen:
    assert category is UserWarning and "/torch/" not in file and "/ssimloss/" not in file, (category, file)
    assert message.startswith("ssimloss: data_range: expected the difference between"), message
    assert "got {range:g}, and most values" in message, message
print(len(seen))
"""


def warnings_of(python: Callable, **given: object) -> int:
    options = dict(before="", shape="1, 3, 40, 41", values="t * 255", dtype="float32", name="ssim", range=1.0)
    options["run"] = "lambda x, y: case.fused(x, y, **dict(case.tiny, data_range={range}))"
    options |= given
    options["run"] = str(options["run"]).replace("{range}", str(options["range"]))
    done = python(RANGE.format(**options))
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


FITS_NOT = {
    **{name: dict(name=name) for name in WINDOWED},
    **{dtype: dict(dtype=dtype) for dtype in ("float16", "bfloat16", "float64")},
    "16 bits": dict(values="t * 65535", range=255),
    "around 0": dict(values="t * 510 - 255", range=2),
    "black ground": dict(values="t * 255 * (torch.arange(41) > 16)"),
    "channels last": dict(values="(t * 255).contiguous(memory_format=torch.channels_last)"),
    "gradient": dict(run="lambda x, y: case.fused(x.requires_grad_(), y).backward()"),
    "volumes": dict(shape="2, 1, 12, 13, 14"),
    "bytes": dict(run="lambda x, y: case.fused(x, y.byte())"),
    "compiled": dict(run="torch.compile(lambda x, y: case.fused(x, y), backend='aot_eager', fullgraph=True)"),
    "vmap": dict(run="lambda x, y: torch.func.vmap(case.fused)(x[None], y[None])"),
}


@pytest.mark.parametrize("given", FITS_NOT.values(), ids=FITS_NOT)
def test_values_that_do_not_fit_the_range_warn_once(given: dict, python: Callable) -> None:
    assert warnings_of(python, **given) == 1


FITS = {
    "in the range": dict(values="t"),
    "0..255": dict(values="t * 255", range=255),
    "bytes": dict(values="t", run="lambda x, y: case.fused(x, (y * 255).byte())"),
    "l1 alone": dict(name="l1"),  # which has no range
    "noisy": dict(values="t + 0.5 * torch.randn(t.shape)"),
    "normalised": dict(values="(t - 0.45) / 0.22"),
    "highlights": dict(values="t + 100 * (torch.rand(t.shape) < 0.1)"),
    "x alone": dict(values="t * (200 if t is x else 1)"),
    "nan": dict(values="t * float('nan')"),
    "empty": dict(shape="0, 3, 40, 41"),
    "no channel": dict(shape="2, 0, 40, 41"),
    "ignored": dict(before="warnings.simplefilter('ignore')"),
}


@pytest.mark.parametrize("given", FITS.values(), ids=FITS)
def test_values_that_fit_do_not(given: dict, python: Callable) -> None:
    assert warnings_of(python, **given) == 0


def test_warnings_as_errors(python: Callable) -> None:
    """In the words of the warning, as C++ hands on no Python exception but its text."""
    code = "import torch, ssimloss; x = torch.rand(1, 1, 30, 30) * 255; ssimloss.ssim(x, x)"
    done = python(code, PYTHONWARNINGS="error::UserWarning")
    assert done.stderr.strip().splitlines()[-1].startswith("ValueError: ssimloss: data_range: expected the")


def test_images_around_zero_are_another_pair() -> None:
    """What ssimloss.functional says of [-1, 1]."""
    x, y = pair(1, 1, 40, 40)
    moved = ssimloss.ssim(2 * x, 2 * y, data_range=2.0)
    torch.testing.assert_close(moved, ssimloss.ssim(x, y))
    assert (ssimloss.ssim(2 * x - 1, 2 * y - 1, data_range=2.0) - moved).abs() > 0.001
