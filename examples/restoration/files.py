"""Files that are never seen half-written, whenever the run is stopped."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    yield part
    os.replace(part, path)


def write_text(path: Path, text: str) -> None:
    """UTF-8; "?" for a file name that is none."""
    with replacing(path) as part:
        part.write_bytes(text.encode("utf-8", errors="replace"))
