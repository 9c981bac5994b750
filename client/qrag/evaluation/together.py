"""Requests that are under way at the same time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def together(jobs: Sequence[Callable[[], T]], parallel: int, progress: Callable[[], object]) -> list[T]:
    """The results of jobs in their order, ``parallel`` at a time; ``progress`` is called after each.

    Raises the first exception of a job, or what interrupts the waiting. Jobs that wait are given up then, and those
    under way are not waited for.
    """
    futures = [Future[T]() for _ in jobs]
    waiting = deque(zip(jobs, futures, strict=True))
    # In the order of their ends: `as_completed` may show one that failed before others that had ended earlier.
    ended = SimpleQueue[Future[T]]()

    def work() -> None:
        while waiting:
            try:
                job, future = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                result = job()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            ended.put(future)

    # No pool: Python waits for its threads at exit, and a request to a language model takes minutes.
    for _ in range(min(parallel, len(jobs))):
        Thread(target=work, daemon=True).start()
    try:
        for _ in jobs:
            ended.get().result()
            progress()
    finally:
        waiting.clear()
    return [future.result() for future in futures]
