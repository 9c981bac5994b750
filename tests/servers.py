"""The service as a process of its own on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from tests.forked import ForkedService


class Server:
    """The service as its own process on a free loopback port.

    With a ``prefix``, a command that it is run by, it is ``python -m service`` from its first import on, in the
    environment as it is now; ``env`` is a prefix that does nothing else.
    """

    def __init__(
        self, data_dir: Path, checkpoint: Path | None = None, prefix: Sequence[str] = (), **settings: str | int
    ) -> None:
        environment = {
            name.upper() if name.startswith(("llm_", "forwarded_")) else f"QRAG_{name.upper()}": str(value)
            for name, value in settings.items()
        }
        environment |= {"QRAG_DATA_DIR": str(data_dir), "QRAG_PORT": "0"}
        if checkpoint is not None:
            environment["QRAG_CHECKPOINT"] = str(checkpoint)
        self.process: subprocess.Popen[str] | ForkedService
        if prefix:
            others = {key: value for key, value in os.environ.items() if not key.startswith(("QRAG_", "LLM_"))}
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "service"],
                stderr=subprocess.PIPE,
                text=True,
                env=others | environment | {"PYTHONUNBUFFERED": "1"},
                cwd=Path(__file__).parent.parent,
            )
        else:
            self.process = ForkedService(environment)
        self.log: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put(None)

    def wait_until_listening(self, seconds: float = 60) -> str:
        """The server's address; raises if it ends or says nothing instead."""
        return self.wait_for_log(r"Uvicorn running on (http://\S+)", seconds)

    def wait_for_log(self, pattern: str, seconds: float = 60) -> str:
        """The first group of the first log line from here on that matches."""
        while True:
            line = self._lines.get(timeout=seconds)
            if line is None:
                raise RuntimeError("the server has ended:\n" + "".join(self.log))
            self.log.append(line)
            if found := re.search(pattern, line):
                return found.group(1) if found.groups() else found.group(0)

    def exit(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for the process to end by itself; its exit status and log."""
        status = self.process.wait(seconds)
        self._reader.join(seconds)
        while (line := self._lines.get(timeout=seconds)) is not None:
            self.log.append(line)
        return status, "".join(self.log)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self._finish()

    def stop(self, seconds: float = 30) -> int:
        """SIGTERM; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(seconds)
        self._finish()
        return self.process.returncode

    def _finish(self) -> None:
        self.process.wait(30)
        self._reader.join(30)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def running_server(data_dir: Path, checkpoint: Path | None = None, **settings: str | int) -> Iterator[httpx.Client]:
    """A client of a server that runs for the length of the block; ``settings`` are its variables in lower case."""
    server = Server(data_dir, checkpoint, (), **settings)
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            yield client
    finally:
        if server.process.poll() is None:
            server.stop()


@contextlib.contextmanager
def blameless_server(data_dir: Path, checkpoint: Path, *secrets: str, **settings: str | int) -> Iterator[httpx.Client]:
    """The same; at its end no secret and nothing unexpected may stand in the log."""
    server = Server(data_dir, checkpoint, (), **settings)
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            yield client
        server.process.send_signal(signal.SIGTERM)
        status, log = server.exit()
    finally:
        server.kill()
    assert status == 0
    assert "stopped" in log
    for unexpected in ("unexpected error", "ERROR", "Exception in ASGI", "never retrieved", *secrets):
        assert unexpected not in log, log
