"""Backup of the distributed engines by their own means, as docs/operating.md says: the real pg_dump and pg_restore, and
a copy of the points."""

from __future__ import annotations

import copy
import re
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg
import pytest

from tests.engines.memory_points import MemoryPoints
from tests.engines.postgres import FOLDERS, PostgresServer
from tests.engines.storages import open_distributed
from tests.index.moves import answers, contents, put, tell_story
from tests.index.storages import index_all

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


class Snapshot(MemoryPoints):
    """What an engine had at a moment."""

    def __init__(self, points: MemoryPoints) -> None:
        super().__init__()
        self._spaces, self._documents = copy.deepcopy(points._spaces), copy.deepcopy(points._documents)


def dump(url: str, file: Path) -> None:
    subprocess.run([FOLDERS[-1] / "pg_dump", "--format=custom", f"--file={file}", url], check=True)


def restored(server: PostgresServer, file: Path, name: str, schema: str) -> str:
    """The address of a new database with what was dumped."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode())
    subprocess.run([FOLDERS[-1] / "pg_restore", f"--dbname={server.url(name)}", file], check=True)
    return server.url(name, schema)


@pytest.fixture
def database(postgres: PostgresServer) -> tuple[str, str]:
    """The address of a database of its own, which can be dumped whole, and its schema."""
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS backed_up")
        connection.execute("CREATE DATABASE backed_up TEMPLATE template0 ENCODING 'UTF8'")
    return postgres.url("backed_up"), "public"


def test_a_dump_and_then_a_snapshot_are_the_moment_of_the_dump(
    postgres: PostgresServer, database: tuple[str, str], tmp_path: Path
) -> None:
    (url, schema), points = database, MemoryPoints()
    with closing(open_distributed(url, points, tmp_path / "old")) as old:
        tell_story(old)
        before = contents(old), answers(old)
        early = Snapshot(points)
        put(old, "between", "indexed between an early snapshot and the dump")
        index_all(old)
        put(old, "between", "so that it waits no longer", replace=True)
        index_all(old)
        moment = contents(old), answers(old)
        dump(url, tmp_path / "dump")
        put(old, "after", "indexed behind the dump: points without rows")
        index_all(old)
        late = Snapshot(points)
    assert before[1] != moment[1]
    copy_of_it = restored(postgres, tmp_path / "dump", "restored_late", schema)
    with closing(open_distributed(copy_of_it, late, tmp_path / "late")) as new:
        assert (contents(new), answers(new)) == moment
    # The other way round, rows have no points, and what a search needs is not there.
    copy_of_it = restored(postgres, tmp_path / "dump", "restored_early", schema)
    with closing(open_distributed(copy_of_it, early, tmp_path / "early")) as new:
        between = new.catalogue.document("between")
        assert (between.status, new.vectors.stored(between.uid, new.vectors.space)) == ("ready", 1)
        assert new.vectors.rows(between.uid, np.array([0]), new.vectors.space) is None


def test_a_dump_alone_is_enough_to_embed_everything_again(
    postgres: PostgresServer, database: tuple[str, str], tmp_path: Path
) -> None:
    url, schema = database
    with closing(open_distributed(url, MemoryPoints(), tmp_path / "old")) as old:
        put(old, "letter", "Ana signed it.\nBruno kept bees.")
        put(old, "note", "Clara sold apples.")
        index_all(old)
        moment = answers(old)
        dump(url, tmp_path / "dump")
    copy_of_it = restored(postgres, tmp_path / "dump", "restored_alone", schema)
    (statements,) = re.findall(r"```sql\n(.*?)```", OPERATING.read_text(), re.DOTALL)
    with psycopg.connect(copy_of_it, autocommit=True) as connection:
        connection.execute(statements.encode())
    with closing(open_distributed(copy_of_it, MemoryPoints(), tmp_path / "new")) as new:
        assert {document.status for document in new.catalogue.documents()} == {"queued"}
        index_all(new)
        assert answers(new) == moment
