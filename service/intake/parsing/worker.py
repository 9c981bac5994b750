"""The process that reads one uploaded document: ``python -m service.intake.parsing.worker``.

It takes a :class:`~service.intake.parsing.process.WorkerRequest` from standard input, limits itself, and writes the
text that the reader of the document's media type yields.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path

from qrag.wire.media_types import MediaType
from service.errors import DocumentTooComplex, ServiceError, UnreadableDocument
from service.intake.parsing.cleaning import too_deep
from service.intake.parsing.formats import READERS, Reader
from service.intake.parsing.process import FILE_FAILED, REFUSED, Placed, WorkerRefusal, WorkerReport, WorkerRequest
from service.intake.parsing.reading import Location, Passages, Reading


def convert(
    source: Path,
    target: Path,
    media_type: MediaType,
    *,
    reading: Reading,
    output_bytes: int,
    readers: Mapping[MediaType, Reader] = READERS,
) -> list[Placed]:
    """Write the text of ``source`` to ``target`` in this process, limited in output only; ``reading`` is filled in.

    Returns where the text stands in the file.

    Raises :class:`~service.errors.ServiceError` as :func:`~service.intake.parsing.process.extract_text` does,
    :class:`OSError` where a file cannot be read or written, :class:`ImportError` where a parser is not installed, and
    :class:`ValueError` for a media type without a reader.
    """
    reader = readers.get(media_type)
    if reader is None:
        raise ValueError(f"no parser for {media_type.value}")
    try:
        places = _write(reader(source, reading), target, output_bytes)
        reading.conclude()
        return places
    except (ServiceError, ImportError):
        raise
    except MemoryError:
        raise DocumentTooComplex(
            "Reading the document needs more memory than its parser may use; split it up."
        ) from None
    except RecursionError:
        raise too_deep() from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the system's
        # Parsers signal damage by whatever they stumble over: KeyError, zlib.error, OSError without a number, ...
        raise UnreadableDocument(
            f"The document cannot be read as {media_type.value}: it is damaged, or of another type. "
            "Open it and save it anew in that type, then send it again."
        ) from error


def _write(pieces: Passages, target: Path, output_bytes: int) -> list[Placed]:
    written = characters = 0
    places: list[Placed] = []
    with target.open("wb") as output:
        for piece in pieces:
            encoded = b""
            if isinstance(piece, Location):
                fields = piece.fields()
                if places and places[-1][0] == characters:
                    places.pop()
                if (fields or places) and (not places or places[-1][1] != fields):
                    places.append((characters, fields))
                    written += len(json.dumps(fields))
            else:
                # "replace", since some decoders let lone surrogates through.
                encoded = piece.encode("utf-8", "replace")
                written += len(encoded)
                characters += len(piece)
            if written > output_bytes:
                raise DocumentTooComplex(
                    f"The document holds more text, rows or headings than the limit of {output_bytes:,} bytes; "
                    "split it up."
                )
            output.write(encoded)
    return places


def _limit(kind: int, value: int, grace: int = 0) -> None:
    """Lower a resource limit of this process; it never rises."""
    _, ceiling = resource.getrlimit(kind)
    if ceiling == resource.RLIM_INFINITY:
        ceiling = value + grace
    resource.setrlimit(kind, (min(value, ceiling), min(value + grace, ceiling)))


def main() -> int:
    """Serve one request.

    Returns 0, or ``REFUSED`` or ``FILE_FAILED`` with the answer that goes with it on standard output.
    """
    request: WorkerRequest = json.load(sys.stdin)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, request["memory_bytes"])
    # At the lower limit the kernel sends SIGXCPU, by which the parent knows; at the upper, SIGKILL.
    _limit(resource.RLIMIT_CPU, request["processor_seconds"], grace=1)
    reading = Reading(request["charset"], request["row_characters"])
    try:
        places = convert(
            Path(request["source"]),
            Path(request["target"]),
            MediaType(request["media_type"]),
            reading=reading,
            output_bytes=request["output_bytes"],
        )
    except ServiceError as error:
        refusal: WorkerRefusal = {"error": type(error).__name__, "detail": error.detail}
        print(json.dumps(refusal))
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        return REFUSED
    except OSError as error:
        print(error.errno)
        return FILE_FAILED
    report: WorkerReport = {"title": reading.title, "metadata": reading.metadata, "warnings": reading.warnings}
    print(json.dumps(report))
    for place in places:
        print(json.dumps(place))
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # The text is complete: tearing down large trees, or a C++ library short of memory, adds nothing.
    os._exit(status)
