"""csrc/hub/: a build as Hugging Face's kernel-builder makes it, loaded as they load it, beside the package.

Their tools are not here: the sources and flags are those of the build.toml that prepare.py writes. The
kernels of the CPU, which see neither torch nor the operators' namespace, are linked from this clone's build.
"""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from test_cuda_build import setup_py
from torch.utils.cpp_extension import include_paths

tomllib = pytest.importorskip("tomllib")  # of Python 3.11
ROOT = Path(__file__).parent.parent
NAME = "_ssimloss_cpu_0123abc"  # unique to each build
OBJECTS = sorted((ROOT / "build" / "cpu" / "csrc" / "cpu").glob("*.o"))
OPS = f"""import torch
from . import {NAME}
ops = torch.ops.{NAME}

def add_op_namespace_prefix(op_name: str):
    return f"{NAME}::{{op_name}}"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "ssimloss"
    subprocess.run([sys.executable, ROOT / "csrc" / "hub" / "prepare.py", folder], check=True)
    return folder


def test_the_project_names_every_source(project: Path) -> None:
    build = tomllib.loads((project / "build.toml").read_text())
    listed = [*build["torch"]["src"], *build["kernel"]["ssimloss_cuda"]["src"]]
    there = {path.relative_to(project).as_posix() for path in (project / "csrc").rglob("*.*")}
    assert sorted(listed) == sorted(there | {"torch-ext/torch_binding.cpp"})
    assert {"csrc/torch/cpu.cpp", "csrc/cpu/variant_v4.cpp"} <= set(build["torch"]["src"])
    assert {"csrc/torch/cuda.cpp", "csrc/cuda/route.cu"} <= set(build["kernel"]["ssimloss_cuda"]["src"])
    assert f"{build['general']['name']}/__init__.py" in {
        path.relative_to(project / "torch-ext").as_posix() for path in (project / "torch-ext").rglob("*.py")
    }


def test_operators_are_named_by_the_builder_alone(project: Path) -> None:
    for path in (project / "torch-ext").rglob("*.py"):
        text = path.read_text()
        assert "ssimloss::" not in text and "ops.ssimloss" not in text, path
        assert not re.search(r"^(from|import) ssimloss", text, re.M), path


def test_flags_are_those_of_setup_py(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GCC's, but for -fno-wrapv: nothing brings -fwrapv there."""
    monkeypatch.setenv("CXX", "g++")
    *expected, last = setup_py().optimisation()
    assert last == "-fno-wrapv"
    parts = tomllib.loads((project / "build.toml").read_text())
    for flags in (parts["torch"]["cxx-flags"], parts["kernel"]["ssimloss_cuda"]["cxx-flags"]):
        assert flags[: len(expected)] == expected


@pytest.fixture(scope="module")
def variant(project: Path) -> Path:
    """The folder of the build for CPUs."""
    if not OBJECTS:
        pytest.skip("no kernels of the CPU are compiled in build/")
    torch_part = tomllib.loads((project / "build.toml").read_text())["torch"]
    folder = project / "build" / "torch-stable-abi211-cpu-x86_64-linux"
    shutil.copytree(project / "torch-ext" / "ssimloss", folder)
    (folder / "_ops.py").write_text(OPS)
    metadata = {"id": NAME, "name": "ssimloss", "version": 0, "license": "Apache-2.0", "python-depends": []}
    metadata |= {"backend": {"type": "cpu"}}
    (folder / "metadata.json").write_text(json.dumps(metadata))
    sources = [s for s in torch_part["src"] if s.endswith(".cpp") and not s.startswith("csrc/cpu/")]
    flags = [f"-DTORCH_EXTENSION_NAME={NAME}", "-DCPU_KERNEL", "-DTORCH_TARGET_VERSION=0x020b000000000000"]
    flags += [flag for flag in torch_part["cxx-flags"] if flag != "-O2"]
    flags += ["-DPy_LIMITED_API=0x03090000", f"-isystem{sysconfig.get_path('include')}"]
    flags += [f"-isystem{path}" for path in include_paths()]
    library = Path(torch.__file__).parent / "lib"
    link = ["-shared", f"-L{library}", "-ltorch_cpu", "-ltorch", "-lc10", *map(str, OBJECTS)]
    output = ["-o", str(folder / f"{NAME}.abi3.so")]
    subprocess.run(
        ["g++", "-std=c++17", "-O0", "-fPIC", *flags, *sources, *link, *output], cwd=project, check=True
    )
    return folder


LOADED = f"""
import importlib.util, sys, torch, warnings
spec = importlib.util.spec_from_file_location("{NAME}", sys.argv[1] + "/__init__.py")
hub = importlib.util.module_from_spec(spec)
sys.modules["{NAME}"] = hub
spec.loader.exec_module(hub)
assert hub.info()["cuda_architectures"] == [] and hub.info()["cpu_variant"]

# The operators that C++ calls: of a warning, of the memory of a large gradient.
x, y = torch.rand(2, 2, 3, 420, 430, generator=torch.Generator().manual_seed(0))
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    hub.ssim(255 * x, 255 * y)
assert said[0].filename == "<string>" and "data_range" in str(said[0].message), said
hub.SSIMLoss()(x.clone().requires_grad_(), y)
assert not [name for name in sys.modules if name.partition(".")[0] == "ssimloss"]

import ssimloss
for make in ("L1Loss()", "SSIMLoss()", "MixLoss()", "MSSSIMLoss('dyadic')", "L1SSIMLoss()"):
    results = []
    for package in (hub, ssimloss):
        leaf = x.clone().requires_grad_()
        loss = eval("package." + make)(leaf, y)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    assert all(map(torch.equal, *results)), make
compiled = torch.compile(hub.SSIMLoss(), backend="aot_eager", fullgraph=True)
torch.testing.assert_close(compiled(x, y), ssimloss.SSIMLoss()(x, y))
names = {{}}
for name in torch._C._dispatch_get_all_op_names():
    names.setdefault(name.partition("::")[0], set()).add(name.partition("::")[2])
assert names["{NAME}"] == names["ssimloss"], names["{NAME}"]
print("loaded")
"""


def test_it_is_loaded_beside_the_package(variant: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, variant], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "loaded\n", done.stderr


def test_by_their_loader(variant: Path) -> None:
    if importlib.util.find_spec("kernels") is None:
        pytest.skip("kernels is not installed")
    code = "import sys, pathlib, kernels; print(kernels.get_local_kernel(pathlib.Path(sys.argv[1])).info())"
    done = subprocess.run([sys.executable, "-c", code, variant.parent.parent], capture_output=True, text=True)
    assert done.returncode == 0 and "cpu_variant" in done.stdout, done.stderr
