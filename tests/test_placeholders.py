"""What is written for readers has no gaps."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_no_placeholder_is_left() -> None:
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.split()] or sorted(ROOT.rglob("*.md"))
    assert len(files) > 5
    assert not [path for path in files if re.search(r"@[A-Z0-9]+@", path.read_text(encoding="utf-8"))]
