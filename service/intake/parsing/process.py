"""A process that turns one document into plain text.

Documents come from outside, and their parsers include C++ and unbounded recursion. So each is read by a process of its
own (:mod:`service.intake.parsing.worker`) whose time, memory and output are limited. This module is cheap to import:
that process imports it too.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final, Never, TypedDict

import service
from qrag.wire.media_types import MediaType
from service.errors import (
    DocumentTooComplex,
    EncryptedDocument,
    InvalidEncoding,
    Overloaded,
    ServiceError,
    UnreadableDocument,
)
from service.intake.parsing.reading import ROW_CHARACTERS, Value

log = logging.getLogger(__name__)

REFUSED: Final = 3
"""Exit status of a worker that refused its document: its standard output is a :class:`WorkerRefusal` in JSON.

Python itself exits with 1 or 2.
"""

FILE_FAILED: Final = 4
"""Exit status of a worker that could not read or write a file: its standard output is the ``errno``."""

_WORKER_MODULE: Final = "service.intake.parsing.worker"

_IMPORT_ROOT: Final = Path(service.__file__).resolve().parent.parent
"""The folder that the worker finds the package ``service`` in."""

_LOGGED_DIAGNOSTICS_BYTES: Final = 4096
_LOOK_EVERY_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What reading one document may cost.

    The defaults leave a wide margin to a 2,000-page book: as a PDF it takes seconds and little memory, as a DOCX a good
    ten seconds and about 700 MiB.
    """

    seconds: float = 60.0
    """Wall-clock time.

    The worker's processor time is limited to the same, so that it also ends when the service dies and nobody watches
    the clock.
    """
    memory_bytes: int = 1 << 30
    """Address space of the worker."""
    output_bytes: int = 256 << 20
    """UTF-8 bytes of text, and of where it stands in the file."""


class WorkerRequest(TypedDict):
    """What the worker reads as JSON from its standard input."""

    source: str
    target: str
    media_type: str
    charset: str | None
    row_characters: int
    processor_seconds: int
    memory_bytes: int
    output_bytes: int


Placed = tuple[int, dict[str, Any]]
"""A character, and where the text from it on stands in the file."""


class WorkerReport(TypedDict):
    """What the worker found out besides the text, see :class:`~service.intake.parsing.reading.Reading`.

    It is the first line, in JSON, of what the worker writes to its standard output. Places follow, a line of JSON each.
    """

    title: str | None
    metadata: dict[str, Value]
    warnings: list[str]


class WorkerFindings(WorkerReport):
    """What the worker found out, with where the text stands in the file."""

    places: bytes
    """The lines that the worker wrote: a table has as many as rows, and parsed they take twenty times the memory."""


class WorkerRefusal(TypedDict):
    """Which exception the document deserves."""

    error: str
    detail: str


_REFUSALS: Final[dict[str, type[ServiceError]]] = {
    refusal.__name__: refusal
    for refusal in (UnreadableDocument, EncryptedDocument, DocumentTooComplex, InvalidEncoding)
}


def extract_text(
    source: Path,
    target: Path,
    media_type: MediaType,
    *,
    charset: str | None = None,
    row_characters: int = ROW_CHARACTERS,
    limits: ParseLimits,
    abandoned: threading.Event | None = None,
) -> WorkerFindings:
    """Write the text of the document in ``source`` to ``target``, as UTF-8; returns what it says of itself.

    Blocks until a worker process has read the document; call it in a thread. ``charset`` is the one that the sender
    declared (:mod:`service.intake.encodings`); rows of tables longer than ``row_characters`` are split. Where anything
    is raised, ``target`` does not exist. Setting ``abandoned`` ends the work within half a second.

    Raises :class:`~service.errors.UnreadableDocument` where the document is damaged, not of its media type, or a scan
    without text, :class:`~service.errors.EncryptedDocument` where it needs a password,
    :class:`~service.errors.DocumentTooComplex` where reading it exceeds ``limits`` or its structure is hostile,
    :class:`~service.errors.InvalidEncoding` where HTML or Markdown is not valid in its encoding, or that is unknown,
    :class:`OSError` where ``source`` cannot be read or ``target`` not written (``ENOSPC``: a full disk),
    :class:`~service.errors.Overloaded` where it was abandoned, :class:`~service.errors.ServiceError` where the worker
    fails for a reason that is not the document's, which is logged, and :class:`ValueError` for plain text, which needs
    no parser.
    """
    if media_type is MediaType.PLAIN_TEXT:
        raise ValueError("plain text needs no parser")
    request: WorkerRequest = {
        # Absolute, since the worker has a working directory of its own.
        "source": str(source.absolute()),
        "target": str(target.absolute()),
        "media_type": media_type.value,
        "charset": charset,
        "row_characters": row_characters,
        "processor_seconds": ceil(limits.seconds),
        "memory_bytes": limits.memory_bytes,
        "output_bytes": limits.output_bytes,
    }
    try:
        status, answer, diagnostics = _run_worker(request, limits.seconds, abandoned or threading.Event())
        if status != 0:
            _raise_failure(status, answer, diagnostics, limits)
        first, _, places = answer.partition(b"\n")
        report: WorkerReport = json.loads(first)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return {**report, "places": places}


def _run_worker(request: WorkerRequest, seconds: float, abandoned: threading.Event) -> tuple[int, bytes, bytes]:
    """The worker's exit status, standard output and standard error."""
    with subprocess.Popen(
        [sys.executable, "-m", _WORKER_MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=_IMPORT_ROOT,
        # openpyxl imports NumPy, which would reserve 40 MiB for each core: on a large host, all that a worker may have.
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        process_group=0,
    ) as worker:
        try:
            answer, diagnostics = _communicate(worker, json.dumps(request).encode(), seconds, abandoned)
        except BaseException as reason:
            with suppress(ProcessLookupError):
                os.killpg(worker.pid, signal.SIGKILL)
            if isinstance(reason, subprocess.TimeoutExpired):
                raise _too_slow(seconds) from None
            raise
    return worker.returncode, answer, diagnostics


def _communicate(
    worker: subprocess.Popen[bytes], request: bytes, seconds: float, abandoned: threading.Event
) -> tuple[bytes, bytes]:
    deadline = time.monotonic() + seconds
    unsent: bytes | None = request
    while not abandoned.is_set():
        left = deadline - time.monotonic()
        try:
            return worker.communicate(unsent, timeout=min(_LOOK_EVERY_SECONDS, max(left, 0)))
        except subprocess.TimeoutExpired:
            unsent = None  # a second call goes on with what the first was given
            if left <= 0:
                raise
    raise Overloaded("The service is shutting down. Try again shortly.", retry_after=5)


def _raise_failure(status: int, answer: bytes, diagnostics: bytes, limits: ParseLimits) -> Never:
    if diagnostics or status not in {REFUSED, FILE_FAILED}:
        log.log(
            logging.INFO if status == REFUSED else logging.ERROR,
            "parsing worker ended with status %d: %s",
            status,
            diagnostics[-_LOGGED_DIAGNOSTICS_BYTES:].decode("utf-8", "replace"),
        )
    if status == REFUSED:
        refusal: WorkerRefusal = json.loads(answer)
        raise _REFUSALS[refusal["error"]](refusal["detail"])
    if status == FILE_FAILED:
        raise OSError(int(answer), os.strerror(int(answer)))
    if status == -signal.SIGXCPU:
        raise _too_slow(limits.seconds)
    if status == -signal.SIGKILL:
        # Nobody here kills a worker that has ended by itself: the kernel did, for want of memory.
        raise DocumentTooComplex("Reading the document needs more memory than there is; split it up.")
    if status < 0:
        # C++ code ends like this both on memory it cannot have and on input it cannot handle.
        raise DocumentTooComplex(
            f"The document made its parser crash: it is damaged, or it needs more than "
            f"{limits.memory_bytes >> 20} MiB of memory. Open it and save it anew, or split it."
        )
    raise ServiceError("The document parser could not run. Ask the operator of the service to read its log.")


def _too_slow(seconds: float) -> DocumentTooComplex:
    return DocumentTooComplex(f"Reading the document takes longer than {seconds:g} s; split it up.")
