"""Builds ssimloss._C: one library for every Python >= 3.10 (abi3) and torch >= 2.11 (stable ABI)."""

from pathlib import Path

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension, include_paths

sources = sorted(str(path) for path in Path("csrc").glob("*.cpp"))
sources += sorted(str(path) for path in Path("csrc/cpu").glob("*.cpp"))
headers = sorted(str(path) for path in Path("csrc").rglob("*.h"))

extension = CppExtension(
    "ssimloss._C",
    sources,
    depends=headers,
    define_macros=[
        ("TORCH_TARGET_VERSION", "0x020b000000000000"),
        ("SSIMLOSS_CUDA_ARCHITECTURES", '""'),
    ],
    extra_compile_args=["-O3", "-g0", "-std=c++17", "-fvisibility=hidden", "-Wall", "-Wextra"]
    + [f"-isystem{path}" for path in include_paths()],  # torch's headers warn under -Wextra
    py_limited_api=True,
)
extension.include_dirs = []

setup(
    ext_modules=[extension],
    cmdclass={"build_ext": BuildExtension},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
