"""``qrag index``: send files, and wait until they can be searched."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from pydantic import JsonValue

from qrag import Client, DocumentOut
from qrag.cli.sending import STDIN, STDIN_TITLE, Source, complain_of, files_in, known_endings, send, show_warnings, wait
from qrag.cli.terminal import complain, table
from qrag.client.uploads import readable
from qrag.wire.chunking import Mode

_DERIVED_ID = re.compile(r"doc-[0-9a-f]{24}")
"""Ids that the service has derived from the content."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``qrag index``."""
    parser.add_argument(
        "file",
        nargs="+",
        help="a text, PDF, office file, book, table ...; a folder with --recursive; - is text",
    )
    parser.add_argument("--collection", metavar="C", help="default: default")
    parser.add_argument("--chunking", choices=get_args(Mode), help="how to cut the text (default: sentences)")
    parser.add_argument("--id", help="id of the document, for one file; by default derived from the content")
    parser.add_argument("--title", metavar="T", help="title of the document, for one file; by default its name")
    parser.add_argument("--metadata", type=_metadata, metavar="JSON", help="an object, e.g. '{\"year\": 1916}'")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="take the place of the document with this --id, or else of those with the same title",
    )
    parser.add_argument("--no-wait", action="store_true", help="do not wait until the documents are indexed")
    parser.add_argument("--recursive", action="store_true", help="send the files of folders and their subfolders")
    parser.add_argument("--glob", metavar="PATTERN", help="in folders, send only files whose name matches, e.g. '*.md'")


def _metadata(text: str) -> dict[str, JsonValue]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"this is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError('this is no JSON object, like {"year": 1916}')
    return value


def check(arguments: argparse.Namespace) -> None:
    """Raises :class:`ValueError` for arguments that contradict each other, before anything is sent."""
    folders = [name for name in arguments.file if name != STDIN and Path(name).is_dir()]
    if folders and not arguments.recursive:
        raise ValueError(f"{folders[0]} is a folder: --recursive takes the files in it")
    if arguments.replace and arguments.no_wait and arguments.id is None:
        raise ValueError("--replace without --id waits until the new can be searched: not with --no-wait")
    for option in ("id", "title"):
        if getattr(arguments, option) is not None and (len(arguments.file) > 1 or folders):
            raise ValueError(f"--{option} is for one file")


def run(client: Client, arguments: argparse.Namespace) -> int:
    """Send each file, wait for all, and print the documents as a table; 1 if something failed."""
    unreadable: list[OSError] = []
    sources = list(_sources(arguments, unreadable.append))
    for error in unreadable:
        complain_of(error)
    if not sources:
        complain(f"no file of a known kind in {', '.join(arguments.file)}: the known kinds are {known_endings()}")
        return 1
    sent, errors = send(client, sources, collection=arguments.collection, chunking=arguments.chunking)
    failed = bool(errors or unreadable)
    if not arguments.no_wait:
        sent, not_ready = wait(client, sent)
        failed = failed or bool(not_ready)
    if sent:
        rows = [(document.id, document.title, document.status, document.chunks, document.tokens) for document in sent]
        print(table(("DOCUMENT", "TITLE", "STATUS", "CHUNKS", "TOKENS"), rows))
    show_warnings(sent)
    for document in sent:
        if document.status != "failed":
            # What waits for free space cannot be searched yet: the earlier text stays until it can be.
            delete = arguments.replace and arguments.id is None and document.status == "ready"
            _look_for_earlier(client, document, {entry.id for entry in sent}, delete=delete)
    return int(failed)


def _look_for_earlier(client: Client, document: DocumentOut, sent: set[str], *, delete: bool) -> None:
    """Say which other documents of a collection have the title of this one, or delete those without a given id."""
    if document.title in (None, STDIN_TITLE):
        return
    for earlier in client.documents(collection=document.collection, title=document.title):
        if earlier.id in sent:
            continue
        if delete and _DERIVED_ID.fullmatch(earlier.id):
            client.delete(earlier.id)
            complain(f"{document.title}: took the place of {earlier.id}")
        else:
            complain(
                f"{document.title}: another document of this title, {earlier.id}, stays searchable beside it. "
                "--replace puts a file in the place of what was indexed under its name, `qrag delete ID` removes it, "
                "and `qrag sync FOLDER` keeps a folder in step."
            )


def _sources(arguments: argparse.Namespace, unreadable: Callable[[OSError], object]) -> Iterator[Source]:
    metadata = arguments.metadata or {}
    replaces = arguments.replace and arguments.id is not None
    for name in arguments.file:
        if name == STDIN:
            yield Source(STDIN, arguments.title or STDIN_TITLE, arguments.id, metadata, replaces)
        elif Path(name).is_dir():
            root = Path(name).resolve()
            for path in files_in(root, arguments.glob, unreadable):
                yield Source(str(path), readable(path.relative_to(root).as_posix()), None, metadata)
        else:
            yield Source(name, arguments.title, arguments.id, metadata, replaces)
