"""A service of its own for a benchmark."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent


@contextmanager
def served(**settings: str) -> Iterator[tuple[httpx.Client, int]]:
    """A client of ``python -m service`` on loopback and the number of its process; its data is gone at the end.

    ``settings`` are those of the service, by their names without ``QRAG_``.
    """
    with tempfile.TemporaryDirectory() as data:
        environment = {f"QRAG_{name.upper()}": value for name, value in settings.items()}
        environment = os.environ | environment | {"QRAG_DATA_DIR": data, "QRAG_PORT": "0"}
        server = subprocess.Popen(
            [sys.executable, "-m", "service"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        try:
            with httpx.Client(base_url=_address(server), timeout=None) as client:
                yield client, server.pid
        finally:
            server.terminate()
            server.wait()


def _address(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"running on (http://\S+)", line):
            threading.Thread(target=server.stderr.read, daemon=True).start()  # or the pipe would be full some day
            return found[1]
    raise SystemExit("the service ended before it listened")
