"""Files that are never seen half-written, whenever the run is stopped."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def part_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends without error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(path)
    part.unlink(missing_ok=True)  # left by a run that was killed, of whatever mode
    part.touch()
    mode = stat.S_IMODE(part.stat().st_mode)
    try:
        yield part
        if stat.S_IMODE(part.stat().st_mode) != mode:  # safetensors makes its files for their owner alone
            part.chmod(mode)
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """OSError where `replacing` would fail before it wrote anything. Makes nothing."""
    part = part_of(path)
    for there in (part, *part.parents):
        try:
            found = there.stat()  # OSError, too, for a name too long and for a folder one may not enter
        except (FileNotFoundError, NotADirectoryError):
            continue
        if there == part:
            continue
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))
        return


def write_text(path: Path, text: str) -> None:
    """UTF-8; "?" for a file name that is none."""
    with replacing(path) as part:
        part.write_bytes(text.encode("utf-8", errors="replace"))
