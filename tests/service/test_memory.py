"""Free memory goes back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

MEASURE = """
import re
from pathlib import Path
from service.memory import trim_heap

def held():
    return int(re.search(r"^RssAnon:\\s+(\\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)[1])

before = held()
blocks = [bytes(4096) for _ in range(50_000)]
full = held()
last = blocks[-1]  # it keeps the heap from shrinking by itself
del blocks
freed = held()
trim_heap()
print(before, full, freed, held())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library has no malloc_trim")
def test_the_heap_is_trimmed_below_what_is_in_use() -> None:
    shown = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True).stdout
    before, full, freed, trimmed = map(int, shown.split())
    assert full - before > 190_000
    assert freed - before > 150_000, "nothing would have to be trimmed"
    assert trimmed - before < 20_000
