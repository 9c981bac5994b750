"""Requests that are under way at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TypeVar

T = TypeVar("T")


def together(jobs: Sequence[Callable[[], T]], parallel: int, progress: Callable[[], object]) -> list[T]:
    """The results of jobs in their order, ``parallel`` at a time; ``progress`` is called after each.

    Raises the first exception of a job; those that wait are given up.
    """
    with ThreadPoolExecutor(parallel) as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in as_completed(futures):
                future.result()
                progress()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]
