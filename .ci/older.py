"""Lets what is linked on a new Linux run on an older one.

`LDFLAGS=$(python .ci/older.py options FOLDER)` before a build gives it the linker's options, and afterwards
`python .ci/older.py check LIBRARY` proves that it needs no more than glibc 2.28 and libstdc++ 3.4.24.

Of each function of glibc a linker takes the newest version, dlopen of 2.34 say, and where glibc is older the
library cannot be loaded. But glibc keeps the older versions for programs that were linked long ago, and they
run the same code. FOLDER gets stubs of libc and libm that have the versions of glibc 2.28 alone, and the
linker takes those. What glibc 2.28 and its libstdc++ do not have at all is in older.cpp.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

NEWEST = {"GLIBC": "2.28", "GLIBCXX": "3.4.24", "CXXABI": "1.3.11", "GCC": "7.0.0"}  # of manylinux_2_28
# Libraries of their own before glibc 2.34, with functions that are in libc now.
THREADS_AND_SO_ON = ("libpthread.so.0", "libdl.so.2", "librt.so.1")


def run(*command: str | Path) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def is_newer(version: str) -> bool:
    """Of a version like GLIBC_2.29."""
    name, _, number = version.partition("_")
    known = re.fullmatch(r"[\d.]+", number) and name in NEWEST
    return not known or [*map(int, number.split("."))] > [*map(int, NEWEST[name].split("."))]


def versions_in(library: Path) -> dict[str, str]:
    """By name the last version of each symbol that is not too new; that of today if there is none."""
    today, kept = {}, {}
    for name, at, version in re.findall(
        r" (?:GLOBAL|WEAK) .* (\w+)(@@?)(GLIBC_[\d.]+)", run("readelf", "--wide", "--dyn-syms", library)
    ):
        if at == "@@":
            today[name] = version
        if not is_newer(version):
            kept[name] = max(kept.get(name, version), version, key=lambda v: [*map(int, v[6:].split("."))])
    return {name: kept.get(name, version) for name, version in today.items()}


def make_stub(library: Path, output: Path) -> None:
    """A shared library that calls itself like `library`, of empty functions of those versions."""
    versions = versions_in(library)
    source, script = output.with_suffix(".s"), output.with_suffix(".map")
    lines = (
        f".globl {name}_\n.type {name}_, @function\n{name}_: .symver {name}_, {name}@@{version}\n"
        for name, version in versions.items()
    )
    source.write_text("".join([".text\n", *lines]))
    script.write_text("".join(f"{version} {{}};\n" for version in sorted(set(versions.values()))))
    options = ["-nostdlib", f"-Wl,--soname={library.name},--version-script={script}"]
    run("gcc", "-shared", *options, source, "-o", output)


def options(folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    missing = folder / "older.o"
    run("g++", "-O2", "-std=c++17", "-fPIC", "-c", Path(__file__).with_suffix(".cpp"), "-o", missing)
    stubs = []
    for name in ("libc", "libm"):
        stubs.append(folder / f"{name}.so")
        make_stub(Path(run("gcc", f"-print-file-name={name}.so.6").strip()), stubs[-1])
    taken = [*map(str, stubs), *(f"-l:{name}" for name in THREADS_AND_SO_ON)]
    return [str(missing), "-Wl,--push-state,--no-as-needed", *taken, "-Wl,--pop-state"]


def too_new(library: Path) -> list[str]:
    """The symbols that it needs of a later version; those of libstdc++ also without a version, which the
    linker gives to what it found in another library, such as torch's."""
    needed = re.findall(r" UND (\w+)(?:@(\S+))?", run("readelf", "--wide", "--dyn-syms", library))
    return [
        f"{name} {version}".strip()
        for name, version in needed
        if (is_newer(version) if version else re.match(r"_Z(St|N[KVR]*St|T[ISTV]N?St|[nd][wla])", name))
    ]


if __name__ == "__main__":
    what, path = sys.argv[1], Path(sys.argv[2]).resolve()
    if what == "options":
        print(shlex.join(options(path)))
    else:
        sys.exit("\n".join(too_new(path)) or None)
