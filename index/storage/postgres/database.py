"""One PostgreSQL database: connections, transactions, and the news of them.

Writers take turns behind one advisory lock, which is given back only after their commit is visible: what a transaction
has read is still so when it commits, and numbers drawn in it grow in the order in which rows appear. A server that is
lost, or does not answer in time, raises :class:`~index.errors.StorageUnavailable`; where that happens in a commit,
nobody knows whether it took place.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from psycopg.rows import DictRow, dict_row

from index.errors import DiskFull, FormatError, StorageUnavailable
from index.storage.news import News
from index.storage.postgres.migrations import migrate

Answer = TypeVar("Answer")
Connection = psycopg.Connection[DictRow]

CONNECT_SECONDS = 5
"""Longest wait for a connection, be it a new one or one that is in use."""

ANSWER_SECONDS = 60.0
"""Longest wait for the answer to one statement."""

MOST_CONNECTIONS = 16
"""Connections of one process, besides the one that listens."""

CHANNEL = "qrag_news"
"""The channel of news, in front of the schema's number."""

IDLE_SECONDS = 30
"""How long the server waits for the next statement of a transaction: a process that stands still keeps no lock."""

_READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_WRITE = (
    f"BEGIN; SET LOCAL idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'; "
    "SELECT pg_advisory_xact_lock(hashtext('qrag'), hashtext(current_schema()))"
).encode()
_SMALL_WRITE = b"BEGIN; SET LOCAL synchronous_commit TO off"
_UNAVAILABLE = "The database cannot be reached or answers too slowly. Try again in a moment."


class _Connection(psycopg.Connection[DictRow]):
    """A connection that does not wait for ever."""

    def wait(self, gen: PQGen[Answer], interval: float = 0.1, timeout: float | None = None) -> Answer:
        """Wait for an answer, at most :data:`ANSWER_SECONDS` unless a ``timeout`` is given."""
        return super().wait(gen, interval, ANSWER_SECONDS if timeout is None else timeout)


def connect(url: str) -> Connection:
    """A new connection, on which each statement is a transaction unless one is begun.

    Raises :class:`~index.errors.StorageUnavailable`, and :class:`~index.errors.FormatError` for an address that cannot
    be read.
    """
    try:
        with translated():
            return _Connection.connect(url, row_factory=dict_row, autocommit=True, connect_timeout=CONNECT_SECONDS)
    except psycopg.ProgrammingError:  # its message would repeat the password
        raise FormatError(
            "The address of the database cannot be read. Write it as postgresql://USER:PASSWORD@HOST:5432/DATABASE, "
            "with %-encoding where a password has other characters than letters and digits."
        ) from None


class Database:
    """A database at a ``postgresql://`` address, brought to the current version. Safe to use from many threads.

    Raises :class:`~index.errors.StorageUnavailable` or :class:`~index.errors.FormatError`, and holds no connection
    then.
    """

    def __init__(self, url: str, news: News) -> None:
        self.url, self.news = url, news
        self._writing = threading.Lock()  # those of this process wait for their turn without a connection
        self.replica = 0
        """The number under which this process works (:class:`~index.storage.postgres.replicas.Replica`); 0 for none."""
        self.space = 0
        """The number of the space that this process searches and fills; 0 for none."""
        with connect(url) as connection, translated():  # fails at once where there is no server
            connection.execute(_WRITE)
            migrate(connection)
            connection.execute("COMMIT")
        self._places = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._idle: list[Connection] = []
        self._closed = False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for this block alone, with one consistent view of the data."""
        with translated(), self._begun(_READ) as connection:
            yield connection
            connection.execute("ROLLBACK")

    @contextmanager
    def write(self, *, searchable: bool | None = None) -> Iterator[Connection]:
        """A transaction that no other of this kind runs beside: durable when the block ends, undone if it raises.

        Where ``searchable`` is given, every process hears of it afterwards (:meth:`~index.storage.news.News.announce`).
        """
        with self._turn(), translated(), self._begun(_WRITE) as connection:
            yield connection
            if searchable is not None:
                self._tell(connection, searchable=searchable)
            connection.execute("COMMIT")
        if searchable is not None:
            self.news.announce(searchable=searchable)

    @contextmanager
    def write_lightly(self) -> Iterator[Connection]:
        """A transaction beside all others that the death of the server may undo."""
        with translated(), self._begun(_SMALL_WRITE) as connection:
            yield connection
            connection.execute("COMMIT")

    def close(self) -> None:
        """Close every connection, those in use when they are given back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()

    def _tell(self, connection: Connection, *, searchable: bool) -> None:
        if searchable:
            connection.execute("UPDATE changes SET searchable = searchable + 1")
        connection.execute(
            "SELECT pg_notify(%s || hashtext(current_schema()), %s)",
            (CHANNEL, f"{self.replica} {int(searchable)}"),
        )

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._writing.acquire(timeout=ANSWER_SECONDS):
            raise StorageUnavailable(_UNAVAILABLE)
        try:
            yield
        finally:
            self._writing.release()

    @contextmanager
    def _begun(self, begin: bytes) -> Iterator[Connection]:
        """A connection on which a transaction has begun; it is rolled back where the block raises."""
        if not self._places.acquire(timeout=CONNECT_SECONDS):
            raise StorageUnavailable(_UNAVAILABLE)
        try:
            connection = self._begin(begin)
            try:
                yield connection
            except BaseException:
                with suppress(psycopg.Error):
                    connection.rollback()
                raise
            finally:
                # One that is broken, or waits for an answer that may never come, is of no use any more.
                if self._closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
                    connection.close()
                else:
                    self._idle.append(connection)
        finally:
            self._places.release()

    def _begin(self, begin: bytes) -> Connection:
        while True:
            try:
                connection, is_new = self._idle.pop(), False
            except IndexError:
                connection, is_new = connect(self.url), True
            try:
                connection.execute(begin)
                return connection
            except BaseException as error:
                died = connection.broken and isinstance(error, psycopg.OperationalError)
                connection.close()
                if is_new or not died:
                    raise
                # It died with a former server, before anything was done on it: another one will do.


@contextmanager
def translated() -> Iterator[None]:
    """The block's errors of the database as those that callers know."""
    try:
        yield
    except psycopg.errors.DiskFull as error:
        raise DiskFull("The disk of the database is full. Free some space there, then try again.") from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise StorageUnavailable(_UNAVAILABLE) from error
    except psycopg.errors.ReadOnlySqlTransaction as error:
        raise StorageUnavailable("The database is read-only, as one that has lost its role is.") from error
