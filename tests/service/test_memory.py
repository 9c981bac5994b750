"""Free memory goes back to the system."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from service.engine import workers as jobs
from service.services import open_services
from service.settings import Settings

MEASURE = """
import re
from pathlib import Path
from service.engine.memory import trim_heap

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


def test_the_service_trims_its_heap(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trimmed = threading.Event()
    monkeypatch.setattr(jobs, "trim_heap", trimmed.set)
    monkeypatch.setattr(jobs, "TRIM_SECONDS", -1.0)  # it is always time
    monkeypatch.setattr(tempfile, "tempdir", None)  # opening the services sets it
    with closing(open_services(Settings(data_dir=tmp_path, checkpoint=tiny_checkpoint, device="cpu"))) as services:
        services.start()
        assert trimmed.wait(60)
