"""Lays out the folder that Hugging Face's kernel-builder builds from: `python csrc/hub/prepare.py FOLDER`.

It holds copies of ssimloss/ (as torch-ext/ssimloss, without _ops.py, which the builder writes) and of csrc/,
and what lies beside this script, build.toml with the sources named. Then, in that folder:
`git init && git add -A` and `kernel-builder build`.
"""

import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CUDA = "csrc/torch/cuda.cpp", "csrc/cuda/"  # all other sources are in every variant


def prepare(out: Path) -> None:
    if out.exists():
        raise SystemExit(f"csrc/hub/prepare.py: {out} exists; expected a folder that is to be made")
    shutil.copytree(ROOT / "csrc" / "hub", out, ignore=shutil.ignore_patterns("prepare.py", "__pycache__"))
    shutil.copytree(ROOT / "csrc", out / "csrc", ignore=shutil.ignore_patterns("*.md", "hub"))
    other = shutil.ignore_patterns("_ops.py", "_C*", "__pycache__", "py.typed")
    shutil.copytree(ROOT / "ssimloss", out / "torch-ext" / "ssimloss", ignore=other)

    sources = sorted(path.relative_to(out).as_posix() for path in (out / "csrc").rglob("*.*"))
    cuda = [source for source in sources if source.startswith(CUDA)]
    common = ["torch-ext/torch_binding.cpp", *(source for source in sources if source not in cuda)]
    head, torch, kernel = (out / "build.toml").read_text().split("\nsrc = []\n")
    lists = (f"\nsrc = {json.dumps(group, indent=4)}\n" for group in (common, cuda))
    (out / "build.toml").write_text(head + next(lists) + torch + next(lists) + kernel)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    prepare(Path(sys.argv[1]))
