"""``qrag sync``: keep the documents of a folder in step with its files.

Nothing is remembered here: each document's metadata says which folder and file it is of, the file's checksum, and what
the file said of itself. So a run that was interrupted is simply repeated, from any machine.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import time
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePath
from typing import get_args

from pydantic import JsonValue

from qrag import ApiError, Client, DocumentOut, NotFound, QRagClientError, Unreachable
from qrag.cli.sending import Source, complain_of, files_in, known_endings, send, show_warnings, wait
from qrag.cli.terminal import complain, shown, table
from qrag.client.uploads import readable
from qrag.wire.chunking import Mode
from qrag.wire.documents import FILE_FIELDS

WATCH_SECONDS = 2.0
"""Seconds between two looks at a folder that is watched."""

RETRY_SECONDS = 30.0
"""Seconds until files are sent again that the service could not take."""

LONGEST_ID = 200
"""Characters of the id of a document."""

_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9._@-]+")

Sleep = Callable[[float], object]
"""A function that waits for so many seconds."""

Stamp = tuple[int, int]
"""What changes with a file: the time of its last change in nanoseconds, and its length."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``qrag sync``."""
    parser.add_argument("folder", help="its files and those of its subfolders, without hidden ones")
    parser.add_argument("--collection", metavar="C", default="default", help="default: default")
    parser.add_argument(
        "--name", metavar="N", help="what the folder is called in ids and metadata; default: its own name"
    )
    parser.add_argument("--glob", metavar="PATTERN", help="only files whose name matches, e.g. '*.md'")
    parser.add_argument("--chunking", choices=get_args(Mode), help="how to cut the text (default: sentences)")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--watch", action="store_true", help="go on, whenever a file has changed, until interrupted")
    parser.add_argument(
        "--delete-all", action="store_true", help="delete the documents of a folder even where no file of it is left"
    )


def check(arguments: argparse.Namespace) -> None:
    """Raises :class:`ValueError` for arguments that make no sense, before anything is sent."""
    if not Path(arguments.folder).is_dir():
        raise ValueError(f"{arguments.folder} is no folder")
    if arguments.watch and arguments.dry_run:
        raise ValueError("--watch and --dry-run exclude each other")


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run has to do: files to send, by what is new about them, and documents whose files are gone."""

    new: list[Source]
    changed: list[Source]
    unchanged: int
    gone: list[DocumentOut]

    def summary(self, failed: int = 0) -> str:
        """What changed, in words."""
        counts = {"new": len(self.new), "changed": len(self.changed), "deleted": len(self.gone)}
        counts |= {"unchanged": self.unchanged} | ({"failed": failed} if failed else {})
        return ", ".join(f"{count} {word}" for word, count in counts.items())


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run did not achieve."""

    failed: int = 0
    """Files and folders that failed; also 1 where nothing was done because every file is gone."""
    may_pass: bool = False
    """Whether the service could not take a file for now."""


class Checksums:
    """SHA-256 of files; one that looks unchanged since it was read is not read again."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[Stamp, str]] = {}

    def of(self, path: Path) -> str:
        """The checksum of a file, hexadecimal. Raises :class:`OSError`."""
        stamp = _stamp(path)
        known = self._known.get(path)
        if known is None or known[0] != stamp:
            with path.open("rb") as file:
                known = (stamp, hashlib.file_digest(file, "sha256").hexdigest())
            self._known[path] = known
        return known[1]


def run(client: Client, arguments: argparse.Namespace, sleep: Sleep = time.sleep) -> int:
    """Bring the documents in step with the files, once or until interrupted; 1 if something failed."""
    folder, checksums = Path(arguments.folder).resolve(), Checksums()
    if not arguments.watch:
        return int(_sync(client, folder, arguments, checksums).failed > 0)
    while True:
        seen = _stamps(folder, arguments.glob)
        try:
            outcome = _sync(client, folder, arguments, checksums)
        except QRagClientError as error:
            if not _may_pass(error):
                raise
            complain(f"{error} Trying again.")
            sleep(WATCH_SECONDS)
        else:
            if outcome.may_pass:  # no file has to change for it
                complain(f"Trying again in {RETRY_SECONDS:.0f} seconds.")
                sleep(RETRY_SECONDS)
            else:
                _wait_for_change(folder, arguments.glob, seen, sleep)


def _may_pass(error: QRagClientError | OSError) -> bool:
    """Whether the same may succeed later: the error says nothing about the request, or about what is there by then."""
    return isinstance(error, Unreachable) or (
        isinstance(error, ApiError)
        and (error.status == 429 or error.status >= 500 or error.code == "unknown_document")  # deleted by somebody
    )


def _wait_for_change(folder: Path, glob: str | None, seen: Mapping[Path, Stamp], sleep: Sleep) -> None:
    """Return once the files differ from those that were seen, and did not change between two looks."""
    before = seen
    while True:
        sleep(WATCH_SECONDS)
        now = _stamps(folder, glob)
        if now != seen and now == before:  # half-written files are left alone
            return
        before = now


def _stamps(folder: Path, glob: str | None) -> dict[Path, Stamp]:
    stamps: dict[Path, Stamp] = {}
    for path in files_in(folder, glob, lambda _error: None):  # the pass that follows says it
        try:
            stamps[path] = _stamp(path)
        except OSError:
            continue  # removed meanwhile
    return stamps


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _sync(client: Client, folder: Path, arguments: argparse.Namespace, checksums: Checksums) -> Outcome:
    name = arguments.name or folder.name or "root"
    documents = {
        document.id: document
        for document in client.documents(collection=arguments.collection)
        if document.metadata.get("sync") == name
    }
    plan, failed = _plan(folder, name, documents, arguments, checksums)
    if plan.gone and not (plan.new or plan.changed or plan.unchanged or failed or arguments.delete_all):
        complain(
            f"no file of a known kind ({known_endings()}) is in {folder}, but {len(plan.gone)} documents are of it. Is "
            "it mounted? Nothing was deleted; --delete-all deletes them."
        )
        return Outcome(failed=1)
    if arguments.dry_run:
        for word, titles in _entries(plan).items():
            for title in titles:
                print(f"{word}  {shown(title)}")
        print(f"would be: {plan.summary(failed)}")
        return Outcome(failed)
    sources = [*plan.new, *plan.changed]
    sent, errors = send(
        client,
        sources,
        collection=arguments.collection,
        chunking=arguments.chunking,
        file_fields=True,
    )
    if any(isinstance(error, ApiError) and error.code == "document_conflict" for error in errors):
        complain("no document of another folder, or of your own, is replaced: --name gives this folder other ids")
    ready, not_ready = wait(client, sent)
    failed += len(sources) - len(sent) + len(not_ready)
    for document in plan.gone:  # after the others: a file that was moved stays searchable
        with suppress(NotFound):  # somebody else has deleted it meanwhile
            client.delete(document.id)
    rows = [(word, title) for word, titles in _entries(plan).items() for title in titles]
    if rows:
        print(table(("CHANGE", "FILE"), rows))
    show_warnings(ready)
    print(f"{shown(name)}: {plan.summary(failed)}", flush=True)
    return Outcome(failed, may_pass=any(map(_may_pass, errors)))


def _entries(plan: Plan) -> dict[str, list[str]]:
    return {
        "new": [source.title or source.path for source in plan.new],
        "changed": [source.title or source.path for source in plan.changed],
        "deleted": [document.title or document.id for document in plan.gone],
    }


def _plan(
    folder: Path,
    name: str,
    documents: Mapping[str, DocumentOut],
    arguments: argparse.Namespace,
    checksums: Checksums,
) -> tuple[Plan, int]:
    """What is to be done, and how many files and folders could not be read."""
    new: list[Source] = []
    changed: list[Source] = []
    unchanged, failed, files = 0, 0, set()
    unreadable: list[OSError] = []
    prefix = name if arguments.collection == "default" else f"{arguments.collection}:{name}"
    for file in files_in(folder, arguments.glob, unreadable.append):
        relative = file.relative_to(folder)
        id = document_id(prefix, relative)
        files.add(id)
        document = documents.get(id)
        try:
            checksum = checksums.of(file)
        except OSError as error:
            complain(f"{file}: {error.strerror or error}")
            failed += 1
            continue
        if document is not None and _in_step(document, checksum, arguments.chunking):
            unchanged += 1
            continue
        title = _title(relative)
        kept = {} if document is None else _not_of_the_file(document.metadata)
        metadata = {**kept, "sync": name, "path": title, "file_sha256": checksum}
        # A new file takes the place of no document: one that has its id is of another folder, or of somebody's own.
        source = Source(str(file), title, id, metadata, replaces=document is not None)
        (new if document is None else changed).append(source)
    for unlisted in unreadable:
        complain_of(unlisted)
    # What is in a folder that cannot be listed is unknown, not gone.
    unknown = [PurePath(_title(Path(os.fsdecode(each.filename)).relative_to(folder))) for each in unreadable]
    gone = [
        document
        for id, document in documents.items()
        if id not in files
        and fnmatch((path := PurePath(str(document.metadata.get("path")))).name, arguments.glob or "*")
        and not any(path.is_relative_to(each) for each in unknown)
    ]
    return Plan(new, changed, unchanged, gone), failed + len(unreadable)


def _not_of_the_file(metadata: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The metadata that stays when the file changes: all but what the file says of itself and nobody has changed."""
    said = metadata.get(FILE_FIELDS)
    if not isinstance(said, dict):  # the file says nothing, or was sent before this was noted
        return dict(metadata)
    return {
        name: value
        for name, value in metadata.items()
        if name != FILE_FIELDS and not (name in said and said[name] == value)
    }


def _title(relative: PurePath) -> str:
    """A path within the folder as it is shown, the same on every system."""
    return unicodedata.normalize("NFC", readable(relative.as_posix()))


def _in_step(document: DocumentOut, checksum: str, chunking: Mode | None) -> bool:
    """Whether a document is of this content, and nothing about it has failed or waits."""
    failed = document.status == "failed" or document.replacement is not None
    same_chunking = chunking in (None, document.chunking.mode)
    return document.metadata.get("file_sha256") == checksum and same_chunking and not failed


def document_id(prefix: str, path: PurePath) -> str:
    """The id of the document of a file: its path where that can be an id, else what can be read of it and a digest."""
    plain = ":".join([prefix, *path.parts])
    clean = ":".join(filter(None, (_NOT_IN_IDS.sub("_", part) for part in (*prefix.split(":"), *path.parts))))
    clean = clean.lstrip("._@-:") or "file"
    if clean == plain and len(clean) <= LONGEST_ID and not clean.endswith("."):
        return clean
    digest = hashlib.sha256(os.fsencode("/".join([prefix, *path.parts]))).hexdigest()[:16]
    return f"{clean[: LONGEST_ID - len(digest) - 1]}-{digest}"
