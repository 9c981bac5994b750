"""The SQLite file of a data directory: schema, connections, transactions.

Write-ahead logging with ``synchronous=FULL``: a transaction that has returned survives ``kill -9`` and power loss. One
connection writes, behind a lock; reading connections are kept in a pool.
"""

from __future__ import annotations

import errno
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from index.errors import DamagedStore, DiskFull, FormatError

FORMAT_VERSION = 6
"""Format of the data. Version 2 has spaces: vectors of several action towers (:mod:`index.storage.local.spaces`).
Version 3 has what was left out of a document, and where its parts stand in the file that it was read from. Version 4
has replacements: a new version of a document beside the one that is searched until the new one is ready. Version 5 has
feedback: which chunks helped with a question. Version 6 has the questions that were asked."""

READABLE_VERSIONS = (1, 2, 3, 4, 5, FORMAT_VERSION)
"""Formats that can be opened; :func:`upgrade` brings them to the current one."""

LOG_BYTES = 4 << 20
"""Size of the write-ahead log after a checkpoint."""

RELEASE_PAGES = 2048
"""Free pages of 4 KiB given back at once: few enough not to keep writers waiting."""

DISK_FULL = "The disk with the data directory is full. Free some space, then try again."
"""The message of :class:`DiskFull`."""

_SCHEMA = """
CREATE TABLE properties (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- Texts being received; the row goes when the document is published or the upload is given up.
CREATE TABLE uploads (uid INTEGER PRIMARY KEY AUTOINCREMENT);

-- Documents that are gone, but whose texts and chunks are still to be removed.
CREATE TABLE deleted (uid INTEGER PRIMARY KEY);

CREATE TABLE texts (
    uid    INTEGER NOT NULL,
    start  INTEGER NOT NULL,           -- character offset of the block
    text   TEXT NOT NULL,
    PRIMARY KEY (uid, start)
);

CREATE TABLE chunks (
    uid     INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    start   INTEGER NOT NULL,
    end     INTEGER NOT NULL,
    tokens  INTEGER NOT NULL,
    PRIMARY KEY (uid, number)
) WITHOUT ROWID;

CREATE TABLE segments (
    segment   INTEGER PRIMARY KEY AUTOINCREMENT,
    rows      INTEGER NOT NULL,
    bytes     INTEGER NOT NULL,
    max_norm  REAL NOT NULL,           -- largest Euclidean norm of its vectors
    space     INTEGER NOT NULL DEFAULT 1
);
"""
"""The tables but those of :data:`_DOCUMENTS`, :data:`_SPACES`, :data:`_PLACES`, :data:`_FEEDBACK` and
:data:`_QUESTIONS`."""

_DOCUMENTS = """
CREATE TABLE documents (
    uid         INTEGER PRIMARY KEY,   -- never used again, so late work on a deleted document finds nothing
    id          TEXT NOT NULL,
    collection  TEXT NOT NULL,
    title       TEXT,
    metadata    TEXT NOT NULL,         -- JSON object
    mode        TEXT NOT NULL,         -- chunking
    max_tokens  INTEGER,
    sha256      TEXT NOT NULL,         -- of the text in UTF-8
    characters  INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    status      TEXT NOT NULL CHECK (status IN ('queued', 'indexing', 'ready', 'failed')),
    error       TEXT,
    chunks      INTEGER,               -- null until the document is cut
    tokens      INTEGER,
    created_at  TEXT NOT NULL,
    updated_at  TEXT NOT NULL,
    warnings    TEXT NOT NULL,         -- JSON list of what was left out
    replaces    INTEGER                -- the version that is searched until this one is ready, null for most
);
CREATE UNIQUE INDEX documents_by_id ON documents (id) WHERE replaces IS NULL;
CREATE UNIQUE INDEX documents_by_replaced ON documents (replaces) WHERE replaces IS NOT NULL;
CREATE INDEX documents_by_collection ON documents (collection, uid);
CREATE INDEX documents_by_status ON documents (status, uid);
"""
"""The table of documents, as it is since format 4."""

_SPACES = """
-- The action towers whose vectors are here, one of which is searched.
CREATE TABLE spaces (
    space        INTEGER PRIMARY KEY,
    fingerprint  TEXT NOT NULL UNIQUE,
    dimension    INTEGER NOT NULL
);

-- Where a document's vectors are: chunks first_chunk.. of it are rows first_row.. of the segment.
CREATE TABLE pieces (
    uid          INTEGER NOT NULL,
    space        INTEGER NOT NULL REFERENCES spaces (space),
    first_chunk  INTEGER NOT NULL,
    segment      INTEGER NOT NULL REFERENCES segments (segment),
    first_row    INTEGER NOT NULL,
    rows         INTEGER NOT NULL,
    PRIMARY KEY (uid, space, first_chunk)
) WITHOUT ROWID;
CREATE INDEX pieces_by_segment ON pieces (segment);
"""
"""The tables of spaces, new in format 2."""

_PLACES = """
-- Where the text from a character on stands in the file that it was read from.
CREATE TABLE places (
    uid       INTEGER NOT NULL,
    start     INTEGER NOT NULL,
    location  TEXT NOT NULL,           -- JSON object: page, label, headings, sheet, row
    PRIMARY KEY (uid, start)
) WITHOUT ROWID;
"""
"""The table of places, new in format 3."""

_FEEDBACK = """
CREATE TABLE feedback (
    number       INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT NOT NULL UNIQUE,
    collection   TEXT NOT NULL,
    question     TEXT NOT NULL,
    answer       TEXT,
    comment      TEXT,
    checkpoint   TEXT NOT NULL,        -- name of the one that was served
    fingerprint  TEXT NOT NULL,
    created_at   TEXT NOT NULL
);
CREATE INDEX feedback_by_collection ON feedback (collection, number);

-- The chunks of a record, as they were when it was given.
CREATE TABLE judgements (
    feedback     INTEGER NOT NULL REFERENCES feedback (number) ON DELETE CASCADE,
    document_id  TEXT NOT NULL,
    chunk        INTEGER NOT NULL,
    text         TEXT NOT NULL,
    helpful      INTEGER NOT NULL,
    PRIMARY KEY (feedback, document_id, chunk)
);
CREATE INDEX judgements_by_document ON judgements (document_id, feedback);
"""
"""The tables of feedback, new in format 5."""

_QUESTIONS = """
CREATE TABLE questions (
    number         INTEGER PRIMARY KEY AUTOINCREMENT,
    id             TEXT NOT NULL UNIQUE,
    collection     TEXT NOT NULL,
    question       TEXT NOT NULL,
    asked_at       TEXT NOT NULL,
    checkpoint     TEXT NOT NULL,      -- name of the one that answered
    fingerprint    TEXT NOT NULL,
    chunks         TEXT NOT NULL,      -- JSON list of those returned: [id of the document, number]
    found_nothing  INTEGER NOT NULL,
    stopped_by     TEXT NOT NULL,
    complete       REAL,
    hopeless       REAL,
    seconds        REAL NOT NULL,
    request_id     TEXT NOT NULL
);
CREATE INDEX questions_by_collection ON questions (collection, number);
CREATE INDEX questions_by_time ON questions (asked_at);
CREATE INDEX feedback_by_question ON feedback (question, collection);
"""
"""The table of questions, new in format 6, and an index of feedback by which the two are joined."""

_FROM_1_TO_2 = f"""
ALTER TABLE pieces RENAME TO former_pieces;
DROP INDEX pieces_by_segment;
{_SPACES}
INSERT INTO spaces SELECT 1, fingerprint.value, dimension.value FROM properties fingerprint, properties dimension
    WHERE fingerprint.name = 'fingerprint' AND dimension.name = 'dimension';
INSERT INTO properties SELECT 'space', '1' FROM spaces;
DELETE FROM properties WHERE name IN ('fingerprint', 'dimension');
ALTER TABLE segments ADD COLUMN space INTEGER NOT NULL DEFAULT 1;
INSERT INTO pieces SELECT uid, 1, first_chunk, segment, first_row, rows FROM former_pieces;
DROP TABLE former_pieces;
PRAGMA user_version = 2;
"""
"""The steps from format 1 to format 2."""

_FROM_2_TO_3 = f"""
ALTER TABLE documents ADD COLUMN warnings TEXT NOT NULL DEFAULT '[]';
{_PLACES}
PRAGMA user_version = 3;
"""
"""The steps from format 2 to format 3."""

_FROM_3_TO_4 = f"""
ALTER TABLE documents RENAME TO former_documents;
DROP INDEX documents_by_collection;
DROP INDEX documents_by_status;
{_DOCUMENTS}
INSERT INTO documents SELECT uid, id, collection, title, metadata, mode, max_tokens, sha256, characters, bytes, status,
    error, chunks, tokens, created_at, updated_at, warnings, NULL FROM former_documents;
DROP TABLE former_documents;
PRAGMA user_version = 4;
"""
"""The steps from format 3 to format 4."""

_FROM_4_TO_5 = f"""
{_FEEDBACK}
PRAGMA user_version = 5;
"""
"""The steps from format 4 to format 5."""

_FROM_5_TO_6 = f"""
{_QUESTIONS}
PRAGMA user_version = 6;
"""
"""The steps from format 5 to format 6."""


class Database:
    """One SQLite file, safe to use from many threads.

    Raises :class:`FormatError` for a file of another format version and :class:`DamagedStore` for
    one that is no SQLite database. Every operation raises :class:`DiskFull` when space runs out.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = threading.RLock()
        self._readers: list[sqlite3.Connection] = []
        self._idle_readers: list[sqlite3.Connection] = []
        with self._translated():
            self._writer = self._connect()
        try:
            self._require_format()
        except BaseException:
            self._writer.close()
            raise

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: committed and durable when the block ends, rolled back if it raises."""
        with self._write_lock, self._translated():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection for this block alone, with one consistent view of the data."""
        with self._translated():
            try:
                connection = self._idle_readers.pop()
            except IndexError:
                connection = self._connect()
                self._readers.append(connection)
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")
                self._idle_readers.append(connection)

    def release_space(self) -> bool:
        """Give some of the space of deleted rows back to the file system; returns whether there was any."""
        with self._write_lock, self._translated():
            if self._writer.execute("PRAGMA freelist_count").fetchone()[0] < RELEASE_PAGES:
                return False
            self._writer.execute(f"PRAGMA incremental_vacuum({RELEASE_PAGES})").fetchall()
            self.merge_log()
            return True

    def merge_log(self) -> None:
        """Move the write-ahead log into the file, and its space back to the file system."""
        with self._write_lock, self._translated():
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close every connection; the write-ahead log is merged into the file."""
        with self._write_lock:
            for connection in [*self._readers, self._writer]:
                connection.close()

    def _require_format(self) -> None:
        """Make the schema in a new file; raises :class:`FormatError` for a file that this version cannot read."""
        with self._translated():
            if self._writer.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone()[0] == 0:
                schema = f"{_SCHEMA} {_DOCUMENTS} {_SPACES} {_PLACES} {_FEEDBACK} {_QUESTIONS}"
                self._writer.executescript(f"BEGIN; {schema} PRAGMA user_version={FORMAT_VERSION}; COMMIT;")
            version = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if version not in READABLE_VERSIONS:
            raise FormatError(
                f"{self._path} has data format {version}; this version reads up to {FORMAT_VERSION}. Start the version "
                "that wrote it, or give another QRAG_DATA_DIR and index the documents again. Nothing was changed."
            )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=30)
        try:
            connection.row_factory = sqlite3.Row
            if connection.execute("PRAGMA page_count").fetchone()[0] == 0:  # on an old file this would write to it
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # before WAL, which makes the first page
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(f"PRAGMA journal_size_limit={LOG_BYTES}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA secure_delete=OFF")  # overwriting what is deleted would go through the log
            connection.execute("PRAGMA foreign_keys=ON")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise DiskFull(DISK_FULL) from error
        except sqlite3.DatabaseError as error:
            name = getattr(error, "sqlite_errorname", "")
            no_space = shutil.disk_usage(self._path.parent).free < 1 << 20
            if name == "SQLITE_FULL" or (name.startswith("SQLITE_IOERR") and no_space):
                raise DiskFull(DISK_FULL) from error
            if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
                raise DamagedStore(f"{self._path} is damaged ({error}). Restore it from a backup.") from error
            raise


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring the file to the current format, inside a transaction that can still be rolled back."""
    upgrades = (_FROM_1_TO_2, _FROM_2_TO_3, _FROM_3_TO_4, _FROM_4_TO_5, _FROM_5_TO_6)
    for version, steps in enumerate(upgrades, 1):
        if connection.execute("PRAGMA user_version").fetchone()[0] == version:
            for statement in steps.split(";"):
                connection.execute(statement)
