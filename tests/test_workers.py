"""Processes side by side: what they give, say and hear."""

import os
import signal
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))

from restoration import workers


def square(number: int) -> tuple[int, int]:
    workers.watch(number)
    return number * number, os.getpid()


def until_stopped(number: int) -> bool:
    workers.watch(number)
    limit = time.monotonic() + 60
    while not workers.stopped() and time.monotonic() < limit:
        time.sleep(0.01)
    return workers.stopped()


def die(number: int) -> None:
    os._exit(1)


def test_results_and_points_arrive() -> None:
    points: list[int] = []
    with workers.Workers(2, points.append) as pool:
        results = dict(pool.map(square, range(6)))
    assert {number: value for number, (value, _) in results.items()} == {n: n * n for n in range(6)}
    assert sorted(points) == list(range(6))
    assert os.getpid() not in {process for _, process in results.values()}


def test_as_many_as_cores_or_all_of_half_as_many_again(monkeypatch) -> None:
    for cores, expected in ((1, [1, 1, 1, 1]), (2, [1, 2, 3, 2]), (8, [1, 2, 3, 4])):
        monkeypatch.setattr(workers, "COUNT", cores)
        assert [workers.at_a_time(networks) for networks in (1, 2, 3, 4)] == expected
    assert [workers.at_a_time(networks) for networks in (12, 13)] == [12, 8]


def test_ctrl_c_stops_the_workers() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    points: list[int] = []

    def watch(point: int) -> None:
        points.append(point)
        if len(points) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    clock = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt), workers.Workers(2, watch) as pool:
            list(pool.map(until_stopped, range(20)))
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(points) <= 6 and time.monotonic() < clock + 55  # those under way and those handed out


def test_a_point_that_cannot_be_kept_is_an_error() -> None:
    def full(point: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"), workers.Workers(2, full) as pool:
        assert len(list(pool.map(square, range(3)))) == 3


def test_a_worker_that_dies_is_an_error() -> None:
    with pytest.raises(BrokenExecutor), workers.Workers(2, print) as pool:
        list(pool.map(die, range(3)))
