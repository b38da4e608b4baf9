"""We beside our peers: answers, speed, memory, digits, at the shapes that people train at.

    python benchmarks/compare.py --install --page runs/compare.html

Each peer's value and gradient are first held against the loss's definition in float64
(ssimloss/reference.py): who computes something else is named, not timed. The others take turns, round after
round, in two processes one after the other; a figure is the median of both processes' rounds with its
quartiles, a ratio the median of the ratios within rounds, which hold where milliseconds do not. What the
machine does at best is measured in the same run. Every record is written as it comes, a line of JSON: what
was stopped keeps what it has.
"""

import argparse
import datetime
import json
import multiprocessing
import os
import platform
import re
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import compare_page as page
import torch
from compare_measure import SLOW, Rounds, check, digits, launches, memory, peaks, times
from compare_rows import CLAIM_NOTHING, COPY, DTYPES, FASTMRI, L1, OURS, PEERS, ROWS, Row, installed
from gpu_setup import ROOT, ask

import ssimloss

# Of their dependencies nothing is needed here, and torchvision among them would bring another torch.
ALONE = ("fastmri==0.3.0", "piq==0.8.0", "piqa==1.3.2")
Record = dict[str, Any]
Write = Callable[[Record], None]


def progress(what: str) -> None:
    print(f"... {what}", file=sys.stderr, flush=True)


# ---- A throw-away environment


def pins() -> list[str]:
    """The extra "bench" of pyproject.toml."""
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        from pip._vendor import tomli as tomllib  # type: ignore[no-redef]
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["project"]["optional-dependencies"]["bench"]


def run_installed(arguments: list[str]) -> int:
    """This command in a virtual environment with the peers, removed afterwards. What is installed here, torch
    above all, is seen from it, and not downloaded again."""
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        progress(f"installing {', '.join([*pins(), *ALONE])} into a throw-away environment")
        venv.create(folder, with_pip=True, system_site_packages=True)
        python = Path(folder, "Scripts" if os.name == "nt" else "bin", "python")
        where = ask(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
        here = sysconfig.get_path("purelib")  # of a virtual environment, maybe, which a new one would not see
        Path(where, "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *pins()], check=True, stdout=sys.stderr)
        subprocess.run([*pip, "--no-deps", *ALONE], check=True, stdout=sys.stderr)
        return subprocess.run([str(python), __file__, *arguments]).returncode


# ---- What is written


def machine(devices: list[str]) -> Record:
    """What a figure's reader must know; neither the machine's name nor a path."""
    commit = ask("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    return {
        "what": "machine",
        "date": str(datetime.date.today()),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name(0) if "cuda" in devices else None,
        "python": platform.python_version(),
        "ssimloss": ssimloss.info(),
        "commit": commit or "unknown",
        "peers": installed(),
    }


def processor() -> str:
    try:
        from cpuinfo import get_cpu_info
    except ImportError:
        return platform.processor() or "unknown"
    return get_cpu_info().get("brand_raw", "unknown")


def quartiles(values: list[float]) -> list[float]:
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def summary(processes: list[Rounds], name: str) -> Record:
    """Of all rounds of all processes. Lower quartile, median, upper quartile; each process's median."""
    each = [[one[name] for one in rounds if name in one] for rounds in processes]
    ratios = [one[name] / one[OURS] for rounds in processes for one in rounds if name in one]
    return {
        "ms": quartiles([ms for rounds in each for ms in rounds]),
        "ratio": quartiles(ratios),
        "processes": [statistics.median(rounds) for rounds in each],
        "rounds": sum(map(len, each)),
    }


def contributed(records: Iterable[Record]) -> list[Record]:
    """Without what says whose machine it is: paths and names, which may stand in errors alone."""
    paths = r"(['\"])[^'\"]*[/\\][^'\"]*\1|(?:[A-Za-z]:)?(?:[/\\][\w.+@~-]+){2,}[/\\]?"
    names = "|".join(re.escape(name) for name in (socket.gethostname(), Path.home().name) if name)

    def without(said: str) -> str:
        said = re.sub(paths, "PATH", said)
        return re.sub(rf"\b(?:{names})\b", "NAME", said) if names else said

    return [r | {"raised": without(r["raised"])} if "raised" in r else r for r in records]


def as_lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


# ---- The run


class Processes:
    """Two for times, which take turns; for each memory a fresh one that has imported the packages already."""

    def __init__(self) -> None:
        above = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *([above] if above else [])])
        spawn, fork = (multiprocessing.get_context(kind) for kind in ("spawn", "forkserver"))
        fork.set_forkserver_preload(
            ["compare_measure", *(PEERS[name][0] for name in installed() if name != FASTMRI)]
        )
        self.timed = [ProcessPoolExecutor(1, spawn, ignore_interrupts) for _ in "ab"]
        self.fresh = ProcessPoolExecutor(1, fork, ignore_interrupts, max_tasks_per_child=1)
        # An interrupt waits until they are there: a process whose parent leaves it half begun complains.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        for begun in [pool.submit(int) for pool in self.timed]:
            begun.result()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error:
            for child in multiprocessing.active_children():
                child.terminate()
        for pool in (*self.timed, self.fresh):
            pool.shutdown()

    def first(self, function: Callable, *arguments: object) -> Any:
        return self.timed[0].submit(function, *arguments).result()

    def in_turn(self, function: Callable, *arguments: object) -> list:
        """The last argument is the process's number."""
        return [p.submit(function, *arguments, n).result() for n, p in enumerate(self.timed)]

    def alone(self, function: Callable, *arguments: object) -> Any:
        return self.fresh.submit(function, *arguments).result()


def ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when it is over


def measure(
    row: Row, device: str, all_threads: list[int], seconds: float, processes: Any, write: Write
) -> None:
    """The records of a row on a device: answers, digits, times, memory, launches."""
    where = {"row": row.name, "kind": row.kind, "shape": row.shape, "device": device}
    progress(f"{row.name}, {device}: answers")
    answers = processes.first(check, row, device)
    for name, answer in answers.items():
        write({"what": "answer", **where, "contender": name, **answer})
        if not answer["same"]:
            why = answer.get("raised") or f"computes something else, {answer['value']:.6g}"
            progress(f"{name} left out: {why}")
    names = [name for name, answer in answers.items() if answer["same"]]
    if OURS not in names:
        return
    names += CLAIM_NOTHING.get(row.kind, [L1])
    for name, errors in processes.first(digits, row, names, device).items():
        write({"what": "digits", **where, "contender": name, "errors": errors})
    timed = names
    for threads in all_threads[::-1] if device == "cpu" else all_threads[-1:]:
        progress(f"{row.name}, {page.where(device, threads)}: {', '.join(timed)}")
        found = processes.in_turn(times, row, timed, device, threads, seconds)
        for name in timed:
            both, forward = ([one[key] for one in found] for key in ("both", "forward"))
            record = {"what": "time", **where, "threads": threads, "contender": name}
            write(record | {"both": summary(both, name), "forward": summary(forward, name)})
        timed = [name for name in timed if summary([one["both"] for one in found], name)["ms"][1] < SLOW]
    run = processes.alone if device == "cpu" else processes.first
    for name in names if row.kind != DTYPES else ():
        if name != COPY:
            peak = run(memory, row, name, device, all_threads[-1])
            write({"what": "memory", **where, "contender": name, "gradients": peak})
    if device == "cuda":
        for name, count in processes.first(launches, row, names).items():
            write({"what": "launches", **where, "contender": name, "launches": count})


def everything(options: argparse.Namespace, rows: list[Row], write: Write) -> Iterator[tuple[str, str]]:
    """The row and the device that was measured."""
    found = machine(options.devices)
    write(found)
    if (found["load"] or 0) > 0.5:
        progress(f"the machine is busy, its load is {found['load']}: ratios may hold, milliseconds will not")
    for name in PEERS:
        if name not in found["peers"]:
            progress(f"{name} cannot be imported: left out (--install brings those that pip can)")
    with Processes() as processes:
        for device in options.devices:
            for threads in options.threads if device == "cpu" else options.threads[-1:]:
                progress(f"{page.where(device, threads)}: the machine's best")
                best = processes.in_turn(peaks, device, threads)
                write({"what": "peaks", "device": device, "threads": threads, "processes": best})
        for row in rows:
            for device in options.devices:
                try:
                    measure(row, device, options.threads, options.seconds, processes, write)
                except (RuntimeError, MemoryError) as error:  # of the device, or a process that was killed
                    progress(f"{row.name}, {device}: {type(error).__name__}: {error}")
                    write({"what": "failed", "row": row.name, "device": device, "raised": repr(error)})
                yield row.name, device


def main(arguments: list[str] | None = None) -> int:
    cores = os.cpu_count() or 1
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--install", action="store_true", help="the peers into a throw-away environment, and run in it")
    add("--out", type=Path, default=Path("runs/compare.jsonl"), help="default: %(default)s")
    add("--page", type=Path, metavar="FILE.html", help="a page with plots, and its tables as FILE.md")
    add("--read", type=Path, nargs="+", metavar="FILE", help="make the page of these; measure nothing")
    add(
        "--contribute",
        type=Path,
        metavar="FILE",
        help="a copy to send: no name of machine or user, no path",
    )
    add("--only", action="append", metavar="TEXT", help="rows whose name has this in it; may be repeated")
    add("--devices", nargs="+", choices=devices, default=devices)
    add("--threads", nargs="+", type=int, default=sorted({1, min(2, cores), cores}))
    add(
        "--seconds",
        type=float,
        default=0.4,
        help="of a contender in a process (default: %(default)s)",
    )
    options = parser.parse_args(arguments)
    rows = [row for row in ROWS if any(text.lower() in row.name.lower() for text in options.only or [""])]
    if not rows:
        parser.error(f"--only: no row has that in its name; there are\n  {names_of(ROWS)}")
    if options.install:
        rest = sys.argv[1:] if arguments is None else arguments
        return run_installed([argument for argument in rest if argument != "--install"])
    if options.read:
        records = [json.loads(line) for file in options.read for line in file.read_text().splitlines()]
    else:
        records = []
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", encoding="utf-8") as file:

            def write(record: Record) -> None:
                records.append(record)
                print(json.dumps(record), file=file, flush=True)

            for row, device in everything(options, rows, write):
                print("\n".join(page.table_of_row(page.runs_of(records)[0], row, device)), flush=True)
    if options.contribute:
        options.contribute.write_text(as_lines(contributed(records)), encoding="utf-8")
    if options.page:
        page.write(records, options.page)
    return 0


def names_of(rows: list[Row]) -> str:
    return "\n  ".join(row.name for row in rows)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
