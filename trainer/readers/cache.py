"""Results of a reader on disk, by the content of the request."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from trainer.errors import ReaderError
from trainer.readers.protocol import Generation, Prompt, Reader, Reply, Request, Score

Asked = TypeVar("Asked", bound=Hashable)
Result = TypeVar("Result", Score, Generation)
Counted = TypeVar("Counted")

TABLE = "CREATE TABLE IF NOT EXISTS results (key BLOB PRIMARY KEY, result TEXT NOT NULL) WITHOUT ROWID"

BUSY_SECONDS = 60.0
"""How long another process that writes is waited for."""


class CachedReader:
    """A reader that asks another one only what it has never asked, and keeps what that says.

    Every result is written as soon as it is known, in a transaction of its own of an SQLite file (write-ahead log): a
    process that is killed, or a reader that fails, loses nothing that was said. A record that was torn is dropped by
    SQLite. The key is the SHA-256 of the reader's identity and the request, so readers can share a file, and so can
    processes.
    """

    def __init__(self, reader: Reader, path: Path) -> None:
        """Raises :class:`~trainer.errors.ReaderError` where the file is none of these."""
        self._reader, self._path = reader, path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            with self._translated_errors():
                self._file.execute("PRAGMA journal_mode = WAL")
                self._file.execute("PRAGMA synchronous = NORMAL")
                self._file.execute(TABLE)
        except ReaderError:
            self.close()
            raise

    @property
    def identity(self) -> str:
        """That of the reader that is asked."""
        return self._reader.identity

    def log_probability(self, requests: Sequence[Request]) -> Iterator[tuple[int, Score]]:
        """Each request's place and score, first those that are known."""
        return self._results(Score, requests, self._reader.log_probability)

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> Iterator[tuple[int, Generation]]:
        """Each prompt's place and what the reader wrote, first those that are known."""
        return self._results(Generation, prompts, lambda some: self._reader.generate(some, most_tokens), most_tokens)

    def reply(self, requests: Sequence[Request], most_tokens: int) -> Iterator[tuple[int, Reply]]:
        """Each request's place and reply, first those of which both parts are known."""
        unknown: list[int] = []
        for place, request in enumerate(requests):
            score = self._stored(Score, self._key(request))
            generation = self._stored(Generation, self._key(request.prompt, most_tokens))
            if score is None or generation is None:
                unknown.append(place)
            else:
                yield place, Reply(score, generation)
        asked = [requests[place] for place in unknown]
        for number, reply in _counted(self._reader.reply(asked, most_tokens), len(asked)) if asked else ():
            self._store(self._key(asked[number]), reply.score)
            self._store(self._key(asked[number].prompt, most_tokens), reply.generation)
            yield unknown[number], reply

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _results(
        self,
        kind: type[Result],
        asked: Sequence[Asked],
        ask: Callable[[Sequence[Asked]], Iterator[tuple[int, Result]]],
        *options: int,
    ) -> Iterator[tuple[int, Result]]:
        unknown: dict[Asked, list[int]] = {}
        for place, item in enumerate(asked):
            if item in unknown:
                unknown[item].append(place)
            elif (known := self._stored(kind, self._key(item, *options))) is not None:
                yield place, known
            else:
                unknown[item] = [place]
        items = list(unknown)
        for number, result in _counted(ask(items), len(items)) if items else ():
            self._store(self._key(items[number], *options), result)
            for place in unknown[items[number]]:
                yield place, result

    def _key(self, item: Any, *options: int) -> bytes:
        # A prompt without it has the key that it had before there was such a field.
        fields = asdict(item, dict_factory=lambda pairs: {k: v for k, v in pairs if (k, v) != ("answer", None)})
        content = json.dumps([self._reader.identity, type(item).__name__, fields, *options], sort_keys=True)
        return hashlib.sha256(content.encode()).digest()

    def _stored(self, kind: type[Result], key: bytes) -> Result | None:
        with (
            self._translated_errors(),
            closing(self._file.execute("SELECT result FROM results WHERE key = ?", (key,))) as rows,
        ):
            row = rows.fetchone()
        return None if row is None else kind(**json.loads(row[0]))

    def _store(self, key: bytes, result: Result) -> None:
        with self._translated_errors():
            self._file.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (key, json.dumps(asdict(result))))

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise ReaderError(
                f"{self._path} cannot be used to keep what a reader says ({error}). Name another file, or delete it."
            ) from error


def _counted(results: Iterator[Counted], total: int) -> Iterator[Counted]:
    """The results, with a progress bar on a terminal."""
    return iter(tqdm(results, total=total, desc="read", unit="prompt", disable=None, leave=False))
