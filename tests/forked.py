"""``python -m service`` without importing torch anew for every process: a fork server has it already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import TextIO

import torch

# What `main` imports only when it serves is what takes the time.
import service.app
import service.observing.observer
import service.services  # noqa: F401
from index.encoders.loading import compute_dtype
from index.search.scanning.kernels import compile_loops
from service.__main__ import main

compile_loops()  # loads them: a second of every start
compute_dtype(torch.device("cpu"))  # measures, once: a fifth of the rest


class ForkedService:
    """A process that runs the service; like a :class:`subprocess.Popen` with pipes for its output."""

    def __init__(self, environment: dict[str, str], arguments: Sequence[str] = ()) -> None:
        """``environment`` replaces all ``QRAG_*`` and ``LLM_*`` variables."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        output, child_output = context.Pipe(duplex=False)
        errors, child_errors = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_run, args=(child_output, child_errors, environment, arguments), daemon=True
        )
        self._process.start()
        for connection in (child_output, child_errors):
            connection.close()
        self.stdout, self.stderr = _as_file(output), _as_file(errors)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int:
        assert self._process.exitcode is not None
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, seconds: float) -> int:
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise TimeoutError(f"the service still runs after {seconds} seconds")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _as_file(connection: Connection) -> TextIO:
    file = os.fdopen(os.dup(connection.fileno()), encoding="utf-8")
    connection.close()
    return file


def _run(output: Connection, errors: Connection, environment: dict[str, str], arguments: Sequence[str]) -> None:
    for descriptor, connection in ((1, output), (2, errors)):
        os.dup2(connection.fileno(), descriptor)
        connection.close()
    sys.stdout, sys.stderr = (os.fdopen(os.dup(at), "w", encoding="utf-8", buffering=1) for at in (1, 2))
    for name in [name for name in os.environ if name.startswith(("QRAG_", "LLM_"))]:
        del os.environ[name]
    os.environ.update(environment)
    sys.argv = ["service", *arguments]
    main()
