"""Service processes over real engines: a PostgreSQL server, and the vector process of :mod:`tests.engines.server`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Literal

import httpx
import psycopg

from tests.engines.postgres import PostgresServer, postgres_server
from tests.engines.processes import VectorProcess, vector_process
from tests.servers import Server
from tests.service.helpers import Json
from tests.service.helpers import until as until_it_holds


@dataclass
class Replica:
    """One process of the service, and a client of it."""

    server: Server
    client: httpx.Client

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self.client.close()
        self.server.kill()


@dataclass
class Site:
    """Engines that replicas share, with nothing in them at first."""

    postgres: PostgresServer
    vectors: VectorProcess
    url: str
    folder: Path
    checkpoint: Path
    running: list[Replica] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)

    def engine(self, name: Literal["postgres", "vectors"]) -> PostgresServer | VectorProcess:
        """One of the engines."""
        return self.postgres if name == "postgres" else self.vectors

    @property
    def settings(self) -> dict[str, str]:
        """What makes a service use these engines."""
        return {"database_url": self.url, "qdrant_url": self.vectors.url}

    def replica(self, **settings: str | int) -> Replica:
        """One more process, which answers; its folder is its own."""
        folder = self.folder / f"replica-{next(self.numbers)}"
        folder.mkdir()
        server = Server(folder, self.checkpoint, (), **(self.settings | settings))
        replica = Replica(server, httpx.Client(timeout=60))
        self.running.append(replica)
        replica.client.base_url = httpx.URL(server.wait_until_listening())
        return replica

    def execute(self, statement: str) -> None:
        """Run SQL behind everybody's back."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def expire(self) -> None:
        """Let the leases of all replicas run out; the living renew theirs."""
        self.execute("UPDATE replicas SET alive_until = now() - interval '1 second'")


@contextmanager
def site_in(folder: Path, checkpoint: Path) -> Iterator[Site]:
    (folder / "vectors").mkdir()
    with ExitStack() as opened:
        postgres = opened.enter_context(postgres_server(durable=True))
        vectors = opened.enter_context(vector_process(folder / "vectors"))
        site = Site(postgres, vectors, postgres.new_url(), folder, checkpoint)
        try:
            yield site
        finally:
            for replica in site.running:
                if replica.server.process.poll() is None:
                    replica.kill()


def until(client: httpx.Client, path: str, true: Callable[[httpx.Response], bool]) -> Json:
    """Ask again until the answer is as wanted; it is JSON."""
    answers: list[httpx.Response] = []

    def holds() -> bool:
        answers[:] = [client.get(path)]
        return true(answers[0])

    until_it_holds(holds, 120)
    body: Json = answers[0].json()
    return body


def ready(answer: httpx.Response) -> bool:
    return answer.status_code == 200 and answer.json()["status"] == "ready"
