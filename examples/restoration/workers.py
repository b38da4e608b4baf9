"""Networks trained side by side on a CPU, each in a process with one thread.

A second thread gains nothing on small patches, a second network a whole core: a step of the paper's
network took 58 ms with one thread, and 60 ms with both cores of the machine.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from threading import Thread
from typing import Any

import torch

COUNT = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def at_a_time(networks: int) -> int:
    """How many to train side by side: one for each core, or half as many again where that is all of them,
    as 3 networks on 2 cores would otherwise take as long as 4."""
    return networks if networks <= COUNT + COUNT // 2 else COUNT


# Of this process, once it is a worker: what takes every point of a learning curve, and whether to stop.
watch: Callable[[Any], None]
stopped: Callable[[], bool]


def begin(queue: Any, event: Any, prepare: Callable[..., None] | None, arguments: tuple) -> None:
    """A worker's first act."""
    global watch, stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process, which says when to stop
    Thread(target=end_with_parent, daemon=True).start()
    logging.getLogger("lightning").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    watch, stopped = queue.put, event.is_set
    if prepare is not None:
        prepare(*arguments)


def end_with_parent() -> None:
    """A first process that is killed leaves no workers behind."""
    parent_process().join()
    os._exit(1)


class Workers:
    """A context. When it ends early, by Ctrl-C too, every worker stops at its next checkpoint."""

    def __init__(
        self,
        count: int,
        watch: Callable[[Any], None],
        prepare: Callable[..., None] | None = None,
        *arguments: Any,
    ):
        """watch     called here, in a thread, with what the workers' `watch` is given.
        prepare   called with the arguments in every worker at its start."""
        context = get_context("spawn")
        self.queue, self.stop = context.Queue(), context.Event()
        self.pool = ProcessPoolExecutor(count, context, begin, (self.queue, self.stop, prepare, arguments))
        self.watch, self.error = watch, None
        self.listener = Thread(target=self.listen, daemon=True)

    def listen(self) -> None:
        for point in iter(self.queue.get, None):
            try:
                self.watch(point)
            except OSError as error:  # the disk is full, say
                self.error = self.error or error

    def map(self, function: Callable, items: Iterable) -> Iterator[tuple[Any, Any]]:
        """(item, function(item)) in the order in which they end."""
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the workers inherit
        try:
            futures = {self.pool.submit(function, item): item for item in items}
        finally:
            signal.signal(signal.SIGINT, before)
        for future in as_completed(futures):
            yield futures[future], future.result()

    def __enter__(self) -> "Workers":
        self.listener.start()
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is not None:
            self.stop.set()
            print("stopping at the next checkpoints", file=sys.stderr, flush=True)
        try:
            self.pool.shutdown(cancel_futures=True)
        finally:
            self.queue.put(None)
            self.listener.join(timeout=5)  # a worker that was killed may hold the queue
            self.queue.cancel_join_thread()
        if self.error and kind is None:
            raise self.error
