"""examples/integrations: short, and used as their packages use them; those not installed are skipped."""

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
from cases import pair, relative_error, value_and_gradients
from torch import Tensor

import ssimloss
from ssimloss import reference

FOLDER = Path(__file__).parent.parent / "examples" / "integrations"


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Our files, and what stands for a package, are gone when the next test begins."""
    monkeypatch.syspath_prepend(FOLDER)
    before = set(sys.modules)
    yield
    ours = {file.stem for file in FOLDER.glob("*.py")} | {"fused_ssim"}
    tops = {name: name.partition(".")[0] for name in set(sys.modules) - before}
    for name in [n for n, top in tops.items() if top in ours or sys.modules[top].__spec__ is None]:
        del sys.modules[name]


def without_init(package: str, *folders: str) -> None:
    """The package's files can be imported, but what its __init__.py files need, as torchvision, is not."""
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(f"{package} is not installed")
    (root,) = spec.submodule_search_locations
    for name in ("", *folders):
        module = ModuleType(f"{package}.{name}" if name else package)
        module.__path__ = [str(Path(root, name))]
        sys.modules[module.__name__] = module


def images(*shape: int) -> tuple[Tensor, Tensor]:
    return tuple(t / 1.2 + 0.1 for t in pair(*shape))


def assert_peer(ours, theirs, x: Tensor, y: Tensor) -> None:
    value, (grad, _) = value_and_gradients(ours, x, y)
    expected, (expected_grad, _) = value_and_gradients(theirs, x, y)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
    assert relative_error(grad, expected_grad) < 1e-3


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_short(file: Path) -> None:
    assert len(file.read_text().splitlines()) < 40


# ---- BasicSR, traiNNer-redux, neosr


REGISTRY = """
class Registry:
    def __init__(self):
        self.classes = {}
    def register(self):
        return lambda cls: self.classes.setdefault(cls.__name__, cls)
    get = lambda self, name: self.classes[name]
LOSS_REGISTRY = Registry()
"""


def losses_of(package: str, root: Path) -> object:
    """The registry of a package with these folders, after our file was imported as one of its losses."""
    (root / package / "losses").mkdir(parents=True, exist_ok=True)
    shutil.copy(FOLDER / "fused_loss.py", root / package / "losses")
    losses = ModuleType(f"{package}.losses")
    losses.__path__ = [str(root / package / "losses")]
    sys.modules[losses.__name__] = losses
    importlib.import_module(f"{package}.losses.fused_loss")
    return importlib.import_module(f"{package}.utils.registry").LOSS_REGISTRY


def check_registry(registry, weighs: bool) -> None:
    x, y = images(2, 3, 64, 64)
    for name, options, expected in [
        ("FusedMSSSIMLoss", {}, ssimloss.MSSSIMLoss("dyadic", padding="zeros")(x, y)),
        ("FusedMixLoss", dict(alpha=0.5), ssimloss.MixLoss(0.5, padding="zeros")(x, y)),
    ]:
        loss = registry.get(name)(loss_weight=0.25, **options)
        assert loss.loss_weight == 0.25
        torch.testing.assert_close(loss(x, y), expected * (0.25 if weighs else 1))
        torch.testing.assert_close(loss(x, y, weight=None, other=1), loss(x, y))
        with pytest.raises(NotImplementedError, match="weight: expected None"):
            loss(x, y, x)


@pytest.mark.parametrize(("package", "weighs"), [("basicsr", True), ("traiNNer", False), ("neosr", True)])
def test_registries(package: str, weighs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package: our file in its folder, and a registry."""
    (tmp_path / package / "utils").mkdir(parents=True)
    (tmp_path / package / "utils" / "registry.py").write_text(REGISTRY)
    package_module = ModuleType(package)
    package_module.__path__ = [str(tmp_path / package)]
    sys.modules[package] = package_module
    check_registry(losses_of(package, tmp_path), weighs)


def test_basicsr(tmp_path: Path) -> None:
    """The registry of the package itself."""
    without_init("basicsr", "utils")
    check_registry(losses_of("basicsr", tmp_path), weighs=True)


# ---- Losses with the arguments of theirs


def test_compressai() -> None:
    without_init("compressai", "losses")
    for name in ("torchvision", "torchvision.transforms"):  # its registry imports them
        sys.modules.setdefault(name, ModuleType(name))
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
    rate_distortion = importlib.import_module("compressai.losses.rate_distortion")
    x, y = images(1, 3, 176, 192)
    criterion = rate_distortion.RateDistortionLoss(metric="ms-ssim")
    output = {"x_hat": x, "likelihoods": {"y": torch.full((1, 8, 2, 2), 0.5)}}
    expected = criterion(output, y)
    importlib.import_module("compressai_ms_ssim")
    criterion = rate_distortion.RateDistortionLoss(metric="ms-ssim")
    assert criterion.metric.__module__ == "ssimloss.compat.pytorch_msssim"
    actual = criterion(output, y)
    assert actual.keys() == expected.keys()
    for key in expected:
        torch.testing.assert_close(actual[key], expected[key], rtol=1e-4, atol=1e-6)


MONAI = [
    {},
    dict(kernel_type="uniform", win_size=7),
    dict(reduction="none", data_range=2.0),
    dict(reduction="sum"),
]


@pytest.mark.parametrize("shape", [(2, 3, 40, 33), (2, 3, 12, 17, 13)], ids=str)
@pytest.mark.parametrize("options", MONAI, ids=str)
def test_monai(options: dict, shape: tuple[int, ...]) -> None:
    ours = importlib.import_module("monai_ssim_loss").SSIMLoss(len(shape) - 2, **options)
    x, y = images(*shape)
    similarity = ssimloss.ssim(
        x,
        y,
        data_range=options.get("data_range", 1.0),
        reduction="none",
        **(dict(window="uniform") if "kernel_type" in options else {}),
    )[:, None]
    reduction = options.get("reduction", "mean")
    expected = 1 - similarity if reduction == "none" else getattr(1 - similarity, reduction)()
    torch.testing.assert_close(ours(x, y), expected)
    with pytest.raises(NotImplementedError, match="expected 2 or 3, got 1"):
        importlib.import_module("monai_ssim_loss").SSIMLoss(1)
    theirs = pytest.importorskip("monai.losses", reason="monai is not installed")
    assert_peer(ours, theirs.SSIMLoss(len(shape) - 2, **options), x, y)


def test_fastmri() -> None:
    """A range for each image; by the definition, and beside the package's own loss."""
    ours = importlib.import_module("fastmri_ssim_loss").SSIMLoss()
    x, y = images(3, 1, 40, 33)
    ranges = torch.tensor([0.5, 1.0, 3.0])
    options = dict(window="uniform", sample_covariance=True)
    each = [
        reference.ssim(x[i : i + 1], y[i : i + 1], data_range=ranges[i].item(), reduction="map", **options)
        for i in range(3)
    ]
    torch.testing.assert_close(ours(x, y, ranges, reduced=False), 1 - torch.cat(each), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours(x, y, ranges), 1 - torch.cat(each).mean(), rtol=1e-4, atol=1e-5)
    without_init("fastmri")
    theirs = importlib.import_module("fastmri.losses").SSIMLoss()
    assert_peer(lambda x, y: ours(x, y, ranges), lambda x, y: theirs(x, y, ranges), x, y)


def test_gsplat() -> None:
    lines = importlib.import_module("gsplat_lines")
    colors, pixels = (t.permute(0, 2, 3, 1).contiguous() for t in images(2, 3, 40, 33))
    colors.requires_grad_()
    x, y = (t.permute(0, 3, 1, 2) for t in (colors, pixels))
    expected = torch.lerp((x - y).abs().mean(), 1 - reference.ssim(x, y), 0.3)
    loss = lines.photometric_loss(colors, pixels, 0.3)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    (grad,) = torch.autograd.grad(loss, colors)
    assert grad.is_contiguous()  # [N, H, W, 3], as the renderer has it
    lines.take_the_place_of_fused_ssim()
    namespace: dict = {}
    exec("from fused_ssim import fused_ssim", namespace)  # what gsplat and forks of 3DGS do
    value = namespace["fused_ssim"](x, y, padding="valid")
    torch.testing.assert_close(value, reference.ssim(x, y), rtol=1e-4, atol=0)


def test_nerfstudio() -> None:
    """A stand-in for splatfacto.py: it cannot be imported without a GPU."""
    for name in ("nerfstudio", "nerfstudio.models", "nerfstudio.models.splatfacto"):
        sys.modules[name] = ModuleType(name)
    sys.modules["nerfstudio.models"].splatfacto = sys.modules["nerfstudio.models.splatfacto"]
    importlib.import_module("nerfstudio_splatfacto")
    loss = sys.modules["nerfstudio.models.splatfacto"].SSIM(data_range=1.0, size_average=True, channel=3)
    x, y = images(1, 3, 40, 33)
    torch.testing.assert_close(loss(x, y), reference.ssim(x, y), rtol=1e-4, atol=0)


def test_fireants_interface() -> None:
    loss = importlib.import_module("fireants_loss").FusedSSIMLoss()
    for shape in ((1, 1, 40, 33), (1, 1, 12, 13, 15)):
        x, y = images(*shape)
        torch.testing.assert_close(
            loss(x, y, 1, other=2), 1 - reference.ssim(x, y, padding="zeros"), rtol=1e-4, atol=0
        )
    assert loss.get_image_padding() == 5


def test_fireants() -> None:
    """An affine registration of two discs, apart by a few pixels."""
    reason = "fireants is not installed"
    registration = pytest.importorskip("fireants.registration.affine", reason=reason)
    io = importlib.import_module("fireants.io")
    sitk = importlib.import_module("SimpleITK")
    loss = importlib.import_module("fireants_loss").FusedSSIMLoss()
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    discs = [torch.sigmoid(14 - ((rows - 32) ** 2 + (columns - c) ** 2).sqrt()) for c in (30, 35)]
    batches = [
        io.BatchedImages([io.Image(sitk.GetImageFromArray(disc.numpy()), device="cpu")]) for disc in discs
    ]
    options = dict(loss_type="custom", custom_loss=loss, optimizer_lr=0.1, progress_bar=False)
    affine = registration.AffineRegistration([2, 1], [100, 100], *batches, **options)
    affine.optimize()
    moved = affine.evaluate(*batches)

    def centre(image: Tensor) -> float:
        return ((image[0, 0] * columns).sum() / image[0, 0].sum()).item()

    fixed, moving = (centre(batch()) for batch in batches)
    assert abs(moving - fixed - 5) < 0.1
    assert abs(centre(moved) - fixed) < 0.5
