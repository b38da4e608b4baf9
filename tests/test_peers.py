"""benchmarks/peers.py keeps what it has measured, and measures what it is asked for."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import peers

    monkeypatch.setattr(
        peers, "SHAPES", [(1, 1, 20, 20), (1, 3, 200, 24), (2, 1, 170, 170), (1, 1, 11, 12, 13)]
    )
    monkeypatch.setattr(peers, "peers", lambda: {})
    monkeypatch.setattr(peers, "peak_memory", lambda *_: (1.0, 2.0))
    monkeypatch.setattr(peers, "ProcessPoolExecutor", Inline)
    yield peers
    del sys.modules["peers"]


class Inline:
    """A pool of processes that is none."""

    def __init__(self, *_: object, **__: object):
        pass

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, function, *args):
        return type("Future", (), {"result": lambda _: function(*args)})()


@pytest.mark.parametrize("rows", [["L1"], ["L1 + SSIM"], ["MS-SSIM, dyadic", "SSIM"], ["SSIM of volumes"]])
def test_only(rows: list[str], peers, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out.md"
    peers.main(["--seconds", "0", "--out", str(out), *(a for row in rows for a in ("--only", row))])
    printed = capsys.readouterr()
    assert printed.out == out.read_text()
    row = r"^\| (?:\d\S* \| )?(\S.*?) \| (?:ssimloss|our SSIM|F\.l1_loss) \|"
    measured = set(re.findall(row, printed.out, re.M))
    assert measured == set(rows)
    assert "dtypes" not in printed.err and all(f"... {row}, " in printed.err for row in rows)


def test_unknown_row(peers, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        peers.main(["--only", "PSNR"])
    assert stopped.value.code == 2
    assert "'MS-SSIM, dyadic'" in capsys.readouterr().err


@pytest.mark.parametrize("done", [1, 3, 5])
def test_what_was_stopped_keeps_its_rows(
    done: int, peers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out, calls, medians = tmp_path / "out.md", [], peers.medians

    def stopped(*args):
        calls.append(out.read_text())
        if len(calls) > 2 * done:
            raise KeyboardInterrupt
        return medians(*args)

    monkeypatch.setattr(peers, "medians", stopped)
    with pytest.raises(KeyboardInterrupt):
        peers.main(["--seconds", "0", "--out", str(out)])
    kept = out.read_text()
    assert kept == capsys.readouterr().out
    assert kept.count("| ssimloss |") == done
    # Each was there before the next was begun.
    assert [text.count("| ssimloss |") for text in calls[::2]] == list(range(done + 1))


def test_interrupted_from_outside(tmp_path: Path) -> None:
    """The command itself: no traceback, and what it had is in the file."""
    out = tmp_path / "out.md"
    options = ["--only", "L1 + SSIM", "--seconds", "0.01", "--out", out]
    command = [sys.executable, BENCHMARKS / "peers.py", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stderr is not None
        for line in run.stdout:
            if line.startswith("| L1 + SSIM | ssimloss |"):
                run.send_signal(signal.SIGINT)
                break
        run.stdout.read()
        errors = run.stderr.read()
    assert run.returncode == 130 and "Traceback" not in errors
    assert "| L1 + SSIM | ssimloss |" in out.read_text()
