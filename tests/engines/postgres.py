"""A PostgreSQL server of the tests' own, on a socket in a folder of its own."""

from __future__ import annotations

import getpass
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from subprocess import DEVNULL
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name))


class PostgresServer:
    """A server that can be killed and started again. Its data is not synced to the disk unless it is ``durable``."""

    def __init__(self, *, durable: bool) -> None:
        if not FOLDERS:
            pytest.skip("NO POSTGRESQL: the distributed storage is not tested. Debian: apt-get install postgresql")
        self._binaries = FOLDERS[-1]
        # PostgreSQL refuses to be run by root.
        self._user = "postgres" if os.getuid() == 0 else getpass.getuser()
        self.folder = Path(tempfile.mkdtemp(prefix="qrag-postgres-"))
        os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        self._schemas = count(1)
        self._durable = durable
        self._run(
            "initdb", "--username=qrag", "--encoding=UTF8", "--locale=C", "--auth=trust", "--no-sync", "-D", "data"
        )
        self.start()

    def start(self) -> None:
        """Start it, after a crash too; returns once it answers."""
        settings = {"listen_addresses": "", "unix_socket_directories": self.folder, "max_connections": 200}
        if not self._durable:
            settings["fsync"] = "off"
        options = [f"-c{name}={value}" for name, value in settings.items()]
        # A child of ours, so that it can be waited for: a server does not start where a dead one is still a process.
        self._server = subprocess.Popen(
            [self._binaries / "postgres", "-D", "data", *options], stdout=DEVNULL, stderr=DEVNULL, **self._as_user
        )
        while self._run("pg_isready", "-h", str(self.folder), "-t", "60"):
            assert self._server.poll() is None, "the server does not start"

    def kill(self) -> None:
        """End the server with all its processes, at once; returns when they are gone."""
        self._server.send_signal(signal.SIGSTOP)  # it starts no more of them
        processes = self.processes()
        for process in processes:
            with suppress(ProcessLookupError):  # the first takes others with it
                os.kill(process, signal.SIGKILL)
        self._server.wait()
        for process in processes:
            while _is_running(process):
                pass

    def processes(self) -> list[int]:
        """Its processes, the first of which has started the others."""
        first = self._server.pid
        return [first, *map(int, Path(f"/proc/{first}/task/{first}/children").read_text().split())]

    def close(self) -> None:
        """Stop it, and remove its folder."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait()
        shutil.rmtree(self.folder)

    def url(self, database: str = "postgres", schema: str | None = None) -> str:
        """The address of a database, with the search path of a schema."""
        url = f"postgresql://qrag@/{database}?host={quote(str(self.folder), safe='')}"
        return url if schema is None else f"{url}&options={quote(f'-csearch_path={schema}')}"

    def new_url(self) -> str:
        """The address of an empty schema."""
        schema = f"test_{next(self._schemas)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {schema}".encode())
        return self.url(schema=schema)

    def _run(self, program: str, *arguments: str) -> int:
        return subprocess.run(
            [self._binaries / program, *arguments], stdout=DEVNULL, stderr=DEVNULL, check=False, **self._as_user
        ).returncode

    @property
    def _as_user(self) -> dict[str, Any]:
        """Whom a program is run by, and where."""
        group = pwd.getpwnam(self._user).pw_gid
        privileged = {"user": self._user, "group": group, "extra_groups": []} if os.getuid() == 0 else {}
        return {"cwd": self.folder, **privileged}


def _is_running(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


@contextmanager
def postgres_server(*, durable: bool) -> Iterator[PostgresServer]:
    """A server for a while."""
    server = PostgresServer(durable=durable)
    try:
        yield server
    finally:
        server.close()
