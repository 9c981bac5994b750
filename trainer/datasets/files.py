"""Reading text files line by line: plain, ``.gz`` or ``.xz``, told apart by the suffix.

What cannot be read (missing, damaged, not UTF-8) is a :class:`~trainer.errors.DataError` with the line.
"""

from __future__ import annotations

import codecs
import gzip
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeVar, cast

from pydantic import BaseModel, ValidationError

from trainer.errors import DataError

_BLOCK = 1 << 20
"""Characters read at once from a file that is one JSON array."""

_NOT_BLANK = re.compile(r"\S")
_DECODER = json.JSONDecoder()

Record = TypeVar("Record", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of a file, not parsed yet."""

    path: Path
    line: int
    """Where it begins, from 1."""
    number: int
    """Which record of the file it is, from 1."""
    text: str
    in_array: bool = False
    """Whether the file is one JSON array: it may be a single long line, so messages count records."""

    def error(self, problem: str) -> DataError:
        """The error to raise for this record."""
        return DataError(self.path, self.line, f"record {self.number}: {problem}" if self.in_array else problem)

    def parse(self, model: type[Record]) -> Record:
        """The record; raises :class:`DataError` with the first field that is missing or of the wrong type."""
        try:
            return model.model_validate_json(self.text, strict=True)
        except ValidationError as failure:
            problem = failure.errors(include_url=False, include_context=False, include_input=False)[0]
            field = ".".join(map(str, problem["loc"]))
            # pydantic counts the record's lines, which is 1 where the file holds one a line
            message = problem["msg"].removeprefix("Value error, ").replace(" at line 1 column", " at column")
            raise self.error(f"{field}: {message}" if field else message) from None

    def name(self) -> str:
        """An id for a record that brings none."""
        return f"{self.path.name}:{self.number}"


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Each line with its number from 1, without its line end; a byte order mark is dropped."""
    number = 0
    with _opened(path) as file:
        while True:
            number += 1
            raw = _read(path, number, file.readline)
            if not raw:
                return
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as failure:
                raise _not_utf8(path, number, failure) from None
            yield number, line.removesuffix("\n").removesuffix("\r")


def entries(path: Path) -> Iterator[Entry]:
    """The JSON records of a file: one a line (empty lines are skipped), or the elements of one array.

    Raises :class:`DataError` where the file cannot be read, holds no record, or is no proper array.
    """
    if _begins_array(path):
        yield from _elements(path)
        return
    count = 0
    for number, line in numbered_lines(path):
        if line.strip():
            count += 1
            yield Entry(path, number, count, line)
    if not count:
        raise DataError(path, None, "the file holds no records")


def _opened(path: Path) -> IO[bytes]:
    try:
        if path.suffix == ".gz":
            return cast(IO[bytes], gzip.open(path, "rb"))
        if path.suffix == ".xz":
            return cast(IO[bytes], lzma.open(path, "rb"))
        return path.open("rb")
    except OSError as failure:
        raise DataError(path, None, f"cannot be opened: {failure.strerror or failure}") from None


def _read(path: Path, line: int, read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as failure:
        raise DataError(path, line, f"cannot be read from here on ({failure}): fetch the file again") from None


def _not_utf8(path: Path, line: int, failure: UnicodeDecodeError) -> DataError:
    return DataError(path, line, f"not UTF-8 ({failure.reason}): convert the file to UTF-8")


def _begins_array(path: Path) -> bool:
    with _opened(path) as file:
        head = _read(path, 1, lambda: file.read(4096))
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def _elements(path: Path) -> Iterator[Entry]:
    """The elements of a file that is one JSON array, however large, a block at a time."""
    array = _Array(path)
    with _opened(path) as array.file:
        array.take("[")
        if array.peek() == "]":
            raise DataError(path, None, "the file holds no records")
        number = 0
        while True:
            number += 1
            yield array.element(number)
            if array.peek() == "]":
                break
            array.take(",")
        array.take("]")
        if array.peek():
            raise array.error("something follows the array's closing bracket")


class _Array:
    """A cursor in the text of an array: ``text[at:]`` is not consumed yet, ``line`` is where it begins."""

    file: IO[bytes]

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = ""
        self.at = 0
        self.line = 1
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.ended = False

    def error(self, problem: str) -> DataError:
        return DataError(self.path, self.line, problem)

    def read(self, size: int) -> None:
        """Append about ``size`` more characters."""
        block = _read(self.path, self.line, lambda: self.file.read(size))
        self.ended = not block
        self.text = self.text[self.at :]
        self.at = 0
        try:
            self.text += self.decoder.decode(block, final=self.ended)
        except UnicodeDecodeError as failure:
            raise _not_utf8(self.path, self.line, failure) from None

    def move(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def peek(self) -> str:
        """The next sign that is not blank; empty at the end of the file."""
        while True:
            match = _NOT_BLANK.search(self.text, self.at)
            if match is not None:
                self.move(match.start())
                return match.group()
            self.move(len(self.text))
            if self.ended:
                return ""
            self.read(_BLOCK)

    def take(self, sign: str) -> None:
        actual = self.peek()
        if actual != sign:
            raise self.error(f"expected {sign!r}, found {actual!r}: the file must be one JSON array of objects")
        self.move(self.at + 1)

    def element(self, number: int) -> Entry:
        self.peek()
        size = _BLOCK
        while True:
            try:
                _, end = _DECODER.raw_decode(self.text, self.at)
                if end < len(self.text) or self.ended:  # else a number may go on
                    break
            except (ValueError, RecursionError) as failure:
                if self.ended or isinstance(failure, RecursionError):
                    raise self.error(f"record {number} is not JSON ({failure}): fetch the file again") from None
            self.read(size)
            size *= 2  # so that a damaged file is not parsed anew for each of its blocks
        entry = Entry(self.path, self.line, number, self.text[self.at : end], in_array=True)
        self.move(end)
        return entry
