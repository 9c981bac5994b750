"""``qrag index``: send files, and wait until they can be searched."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import get_args

from pydantic import JsonValue
from tqdm import tqdm

from qrag import (
    Client,
    DocumentOptions,
    DocumentOut,
    IndexingFailed,
    QRagClientError,
    Unauthorized,
    UnknownFileType,
    Unreachable,
)
from qrag.cli.terminal import complain, table
from qrag.client.uploads import File, readable
from qrag.wire.chunking import Mode
from qrag.wire.media_types import MEDIA_TYPE_OF_EXTENSION

STDIN = "-"
"""The file name that means standard input."""


@dataclass(frozen=True, slots=True)
class _Source:
    """A file to send."""

    path: str
    title: str | None
    """None: the file's name."""

    @property
    def bytes(self) -> int:
        """The file's length, 0 where it is unknown or the file does not exist."""
        try:
            return 0 if self.path == STDIN else os.stat(self.path).st_size
        except OSError:
            return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``qrag index``."""
    parser.add_argument("file", nargs="+", help="txt, md, html, pdf or docx; a folder with --recursive; - is text")
    parser.add_argument("--collection", metavar="C", help="default: default")
    parser.add_argument("--chunking", choices=get_args(Mode), help="how to cut the text (default: sentences)")
    parser.add_argument("--id", help="id of the document, for one file; by default derived from the content")
    parser.add_argument("--title", metavar="T", help="title of the document, for one file; by default its name")
    parser.add_argument("--metadata", type=_metadata, metavar="JSON", help="an object, e.g. '{\"year\": 1916}'")
    parser.add_argument("--replace", action="store_true", help="replace the document that has the same id")
    parser.add_argument("--no-wait", action="store_true", help="do not wait until the documents are indexed")
    parser.add_argument("--recursive", action="store_true", help="send the files of folders and their subfolders")
    parser.add_argument("--glob", metavar="PATTERN", help="in folders, send only files whose name matches, e.g. '*.md'")


def _metadata(text: str) -> dict[str, JsonValue]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def check(arguments: argparse.Namespace) -> None:
    """Raises :class:`ValueError` for arguments that contradict each other, before anything is sent."""
    folders = [name for name in arguments.file if name != STDIN and Path(name).is_dir()]
    if folders and not arguments.recursive:
        raise ValueError(f"{folders[0]} is a folder: --recursive takes the files in it")
    for option in ("id", "title"):
        if getattr(arguments, option) is not None and (len(arguments.file) > 1 or folders):
            raise ValueError(f"--{option} is for one file")


def run(client: Client, arguments: argparse.Namespace) -> int:
    """Send each file, wait for all, and print the documents as a table; 1 if something failed."""
    sources = list(_sources(arguments))
    if not sources:
        known = ", ".join(MEDIA_TYPE_OF_EXTENSION)
        complain(f"no file of a known kind in {', '.join(arguments.file)}: the known kinds are {known}")
        return 1
    sent, failed = _send(client, sources, arguments)
    if not arguments.no_wait:
        sent, not_ready = _wait(client, sent)
        failed = failed or not_ready
    if sent:
        rows = [(document.id, document.title, document.status, document.chunks, document.tokens) for document in sent]
        print(table(("DOCUMENT", "TITLE", "STATUS", "CHUNKS", "TOKENS"), rows))
    for document in sent:
        for warning in document.warnings:
            complain(f"{document.title or document.id}: {warning}")
    return int(failed)


def _sources(arguments: argparse.Namespace) -> Iterator[_Source]:
    for name in arguments.file:
        if name == STDIN:
            yield _Source(STDIN, arguments.title or "standard input")
        elif Path(name).is_dir():
            root = Path(name).resolve()
            for path in sorted(path for path in root.rglob("*") if path.is_file() and _matches(path, root, arguments)):
                yield _Source(str(path), readable(str(path.relative_to(root))))
        else:
            yield _Source(name, arguments.title)


def _matches(path: Path, root: Path, arguments: argparse.Namespace) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
    known = path.suffix.lower() in MEDIA_TYPE_OF_EXTENSION
    return known and not hidden and (arguments.glob is None or fnmatch(path.name, arguments.glob))


def _send(client: Client, sources: list[_Source], arguments: argparse.Namespace) -> tuple[list[DocumentOut], bool]:
    """Send the files; returns the documents that were stored, and whether a file failed."""
    sent: dict[str, DocumentOut] = {}
    failed = False
    total = sum(source.bytes for source in sources)
    with tqdm(total=total, desc="sending", unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for source in sources:
            before = bar.n

            def progress(count: int, _length: int | None, before: float = before) -> None:
                bar.update(before + count - bar.n)

            options = DocumentOptions(
                id=arguments.id,
                title=source.title,
                collection=arguments.collection,
                metadata=arguments.metadata,
                chunking=arguments.chunking,
            )
            file: File = sys.stdin.buffer if source.path == STDIN else source.path
            media_type = "text/plain" if source.path == STDIN else None
            try:
                document = client.index_file(
                    file, media_type=media_type, progress=progress, replace=arguments.replace, **options
                )
            except (Unreachable, Unauthorized):
                raise  # every other file would fail alike
            except (QRagClientError, OSError) as error:
                failed = True
                with bar.external_write_mode(file=sys.stderr):
                    complain(f"{source.path}: {_reason(error)}")
            else:
                sent[document.id] = document
    return list(sent.values()), failed


def _reason(error: QRagClientError | OSError) -> str:
    if isinstance(error, UnknownFileType):
        known = ", ".join(MEDIA_TYPE_OF_EXTENSION)
        return f"its name ends in none of {known}. If it is text: qrag index - < FILE"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _wait(client: Client, sent: list[DocumentOut]) -> tuple[list[DocumentOut], bool]:
    """Wait for documents; returns their last state, and whether some cannot be searched."""
    seen = {document.id: document for document in sent}
    counted = dict.fromkeys(seen, 0.0)
    total = sum(document.characters for document in sent)
    bar_format = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
    # mininterval=0: updates are rare, and tqdm would drop the last if it came soon after the one before.
    with tqdm(total=total, desc="indexing", bar_format=bar_format, leave=False, disable=None, mininterval=0) as bar:

        def progress(document: DocumentOut) -> None:
            seen[document.id] = document
            done = document.progress * document.characters
            bar.update(done - counted[document.id])
            counted[document.id] = done

        try:
            client.wait_until_ready(seen, progress)
        except IndexingFailed as error:
            failed = error.documents
        else:
            failed = []
    for document in failed:
        complain(f"{document.title}: stored, but not searchable. {document.error}")
    return list(seen.values()), bool(failed)
