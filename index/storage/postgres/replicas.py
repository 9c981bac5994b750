"""This process among those that work on one database: its lease on what it indexes, and the news of the others.

A document is claimed in the name of a *replica*, and every replica renews its lease while its process lives. Where a
lease has run out, others claim what the replica was working on; what it still brings then counts for nothing.
"""

from __future__ import annotations

import logging
import threading

from index.errors import StorageUnavailable
from index.storage.postgres.database import CHANNEL, Connection, Database, connect, translated

log = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
"""How long a replica that is not heard of counts as alive. It renews that four times as often."""

RECONNECT_SECONDS = 1.0
"""Pause before the next attempt to reach a lost database."""


class Replica:
    """A thread that renews the lease of this process, and announces what other processes have changed.

    After the database was lost, it announces a change of everything, because it has missed what was said meanwhile.
    """

    def __init__(self, database: Database, *, lease_seconds: float = LEASE_SECONDS) -> None:
        self._database = database
        self._lease_seconds = lease_seconds
        self._closing = threading.Event()
        with database.write() as connection:
            # Its row may be removed by others when it is long dead, and its number is never used again.
            connection.execute("DELETE FROM replicas WHERE alive_until < now() - interval '1 hour'")
            row = connection.execute(
                "INSERT INTO replicas (alive_until) VALUES (now() + make_interval(secs => %s)) RETURNING replica",
                (lease_seconds,),
            ).fetchone()
        assert row is not None
        self.number = database.replica = int(row["replica"])
        self._listening = self._listen()
        self._thread = threading.Thread(target=self._loop, name="replica", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give back what is claimed, and listen no more. Raises nothing."""
        self._closing.set()
        try:
            with self._database.write() as connection:
                connection.execute("UPDATE documents SET owner = NULL WHERE owner = %s", (self.number,))
                connection.execute("DELETE FROM replicas WHERE replica = %s", (self.number,))
                connection.execute("SELECT pg_notify(%s || hashtext(current_schema()), '')", (CHANNEL,))
        except StorageUnavailable:
            log.warning("the database is lost: what this process has claimed is free when its lease has run out")
        self._thread.join()

    def _listen(self) -> Connection:
        connection = connect(self._database.url)
        with translated():
            row = connection.execute("SELECT hashtext(current_schema()) AS schema").fetchone()
            assert row is not None
            connection.execute(f'LISTEN "{CHANNEL}{row["schema"]}"')
        return connection

    def _loop(self) -> None:
        while not self._closing.is_set():
            try:
                with self._listening as connection, translated():
                    while not self._closing.is_set():
                        self._renew(connection)
                        self._hear(connection)
            except StorageUnavailable as error:
                log.warning("the database is lost: %s", error.__cause__)
                self._reconnect()
            except Exception:
                log.exception("listening for news failed")
                self._reconnect()
        self._listening.close()

    def _renew(self, connection: Connection) -> None:
        connection.execute(
            "INSERT INTO replicas (replica, alive_until) OVERRIDING SYSTEM VALUE "
            "VALUES (%s, clock_timestamp() + make_interval(secs => %s)) "
            "ON CONFLICT (replica) DO UPDATE SET alive_until = EXCLUDED.alive_until",
            (self.number, self._lease_seconds),
        )

    def _hear(self, connection: Connection) -> None:
        """Announce what others say, until the lease has to be renewed."""
        for notification in connection.notifies(timeout=self._lease_seconds / 4, stop_after=1):
            replica, _, searchable = notification.payload.partition(" ")
            if searchable and replica != str(self.number):
                self._database.news.announce(searchable=searchable == "1")

    def _reconnect(self) -> None:
        while not self._closing.wait(RECONNECT_SECONDS):
            try:
                self._listening = self._listen()
            except StorageUnavailable:
                continue
            self._database.news.announce(searchable=True)
            return
