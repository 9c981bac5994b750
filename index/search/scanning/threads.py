"""The threads of a search: as many as torch uses, the caller's among them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache

import torch

from index.arrays import Float32Array

SHARED_ROWS = 4096
"""Rows times states from which a step is worth more than one thread."""


def thread_count(values: Float32Array) -> int:
    """How many threads are worth computing these values, shape ``[states, candidates]``."""
    return torch.get_num_threads() if values.size >= SHARED_ROWS else 1


def run_tasks(tasks: Sequence[Callable[[], object]], threads: int) -> None:
    """Run all tasks on ``threads`` threads, this one included; raises what one of them raises."""
    queue = deque(tasks)

    def work() -> None:
        while queue:
            try:
                task = queue.popleft()
            except IndexError:  # another thread took the last one
                return
            task()

    helpers = [_pool().submit(work) for _ in range(min(threads, len(tasks)) - 1)]
    try:
        work()
    finally:  # after a failure the helpers take no more tasks
        queue.clear()
        wait(helpers)
    for helper in helpers:
        helper.result()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="scan")
