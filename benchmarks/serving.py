"""A service of its own for a benchmark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

ROOT = Path(__file__).parent.parent


class Service(NamedTuple):
    """A service that is ready."""

    address: str
    client: httpx.Client
    """A client without time limits."""
    process: int
    seconds_to_start: float


@contextmanager
def running_service(
    data: str | None = None, settings: Mapping[str, str] = {}, core: int | None = None
) -> Iterator[Service]:
    """``python -m service`` on loopback over a data directory; without one its data is gone at the end.

    With a ``core`` it runs on that one alone.
    """
    pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]
    with tempfile.TemporaryDirectory() as temporary:
        environment = os.environ | {"QRAG_DATA_DIR": data or temporary, "QRAG_PORT": "0", **settings}
        began = time.perf_counter()
        server = subprocess.Popen(
            [*pinned, sys.executable, "-m", "service"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            address = _address(server)
            # What it says from here on is nobody's concern, but must go somewhere.
            threading.Thread(target=deque, args=(server.stderr, 0), daemon=True).start()
            with httpx.Client(base_url=address, timeout=None) as client:
                client.get("/readyz").raise_for_status()
                yield Service(address, client, server.pid, time.perf_counter() - began)
        finally:
            server.terminate()
            server.wait()


def _address(server: subprocess.Popen[str]) -> str:
    """Where the service listens, once it says so."""
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"running on (http://\S+)", line):
            return found[1]
    raise SystemExit("the service ended before it listened")
