"""``python -m service`` without importing torch anew for every process: a fork server has it already."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

# What `main` imports only when it serves is what takes the time.
import service.app
import service.observing
import service.services  # noqa: F401
from service.__main__ import main


def start(directory: Path, environment: dict[str, str], arguments: Sequence[str]) -> BaseProcess:
    """A process that runs the service; it writes to the files ``output`` and ``errors`` of the directory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=(directory, environment, arguments), daemon=True)
    process.start()
    return process


def _run(directory: Path, environment: dict[str, str], arguments: Sequence[str]) -> None:
    for descriptor, name in ((1, "output"), (2, "errors")):
        file = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    for name in [name for name in os.environ if name.startswith(("QRAG_", "LLM_"))]:
        del os.environ[name]
    os.environ.update(environment)
    sys.argv = ["service", *arguments]
    main()
