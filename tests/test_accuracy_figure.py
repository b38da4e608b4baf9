"""benchmarks/accuracy.py: what docs/accuracy.md says of its figure."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_errors_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    import accuracy

    monkeypatch.setattr(accuracy, "DISTANCES", [1e-3, 1e-5])
    losses = accuracy.installed()
    errors = accuracy.errors(losses)
    (ours,) = (values for name, values in errors.items() if name.startswith("ssimloss"))
    theirs = [values for values in errors.values() if values is not ours]
    assert len(theirs) >= 3  # those of pyproject's test
    assert max(ours) < 1e-6
    assert all(near > 1e-5 and nearer > 1e-3 for near, nearer in theirs)
    table = accuracy.table(errors).splitlines()
    assert len(table) == 4 and table[-1].startswith("| 1.0e-05 | ") and f" {ours[1]:.1e} " in table[-1]
    del sys.modules["accuracy"]
