"""Books as background text: an archive with its manifest, or a folder of text files."""

from __future__ import annotations

import hashlib
import lzma
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sentencex import segment

from trainer.datasets.files import numbered_lines
from trainer.errors import DataError

Part = Literal["train", "dev"]

ARCHIVE = "books.tar.xz"
MANIFEST = "manifest.tsv"
LONGEST_SENTENCE = 1000
"""Characters; longer ones are split at words."""
SHORTEST_SENTENCE = 3

_WINDOW = 1 << 13
"""Characters cut into sentences at once: sentencex takes time quadratic in a paragraph."""
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")


@dataclass(frozen=True, slots=True)
class Book:
    """A book's name in the archive or folder, and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class _Listed:
    line: int
    part: str
    bytes: int
    sha256: str


def read_books(directory: Path, part: Part) -> Iterator[Book]:
    """The books of one part, one at a time.

    ``directory`` holds either ``books.tar.xz`` with ``manifest.tsv`` (columns ``file``, ``part``, ``bytes``
    and ``sha256`` among others), or folders ``train`` and ``dev`` of ``.txt`` files, or ``.txt`` files:
    of those, the first four fifths of each are for training. Raises :class:`DataError`
    where nothing of this is found, or where a book is not what the manifest says.
    """
    if (directory / ARCHIVE).exists():
        yield from _archived(directory, part)
        return
    divided = (directory / part).is_dir()
    folder = directory / part if divided else directory
    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise DataError(folder, None, f"holds neither {ARCHIVE} nor .txt files: name a folder of books")
    for path in paths:
        text = "\n".join(line for _, line in numbered_lines(path))
        yield Book(path.name, text if divided else _share(text, part))


def book_sentences(text: str) -> list[str]:
    """The sentences of a text in order, on one line each.

    Blanks and line breaks become single blanks; what is shorter than 3 characters is dropped, and what is
    longer than 1,000 is split at words.
    """
    sentences = []
    for paragraph in _BLANK_LINE.split(text):
        words = " ".join(paragraph.split())
        for window in _pieces(words, _WINDOW):
            for sentence in segment("en", window):
                sentences += [
                    piece for piece in _pieces(sentence.strip(), LONGEST_SENTENCE) if len(piece) >= SHORTEST_SENTENCE
                ]
    return sentences


def _pieces(text: str, longest: int) -> Iterator[str]:
    """The text cut at single blanks into pieces of at most ``longest`` characters; a longer word is cut too."""
    while len(text) > longest:
        cut = text.rfind(" ", 1, longest + 1)
        if cut < 0:
            cut = longest
        yield text[:cut]
        text = text[cut:].lstrip(" ")
    if text:
        yield text


def _share(text: str, part: Part) -> str:
    border = text.find("\n", len(text) * 4 // 5)
    border = len(text) if border < 0 else border
    return text[:border] if part == "train" else text[border:]


def _archived(directory: Path, part: Part) -> Iterator[Book]:
    archive = directory / ARCHIVE
    manifest = directory / MANIFEST
    listed = _manifest(manifest)
    missing = {name for name, entry in listed.items() if entry.part == part}
    try:
        with tarfile.open(archive, "r|xz") as tar:
            for member in tar:
                name = member.name.removeprefix("books/")
                if name not in missing:
                    continue
                entry = listed[name]
                file = tar.extractfile(member) if member.isreg() and member.size == entry.bytes else None
                content = b"" if file is None else file.read()
                if hashlib.sha256(content).hexdigest() != entry.sha256:
                    raise DataError(
                        manifest, entry.line, f"{name} in {ARCHIVE} is not the file listed here: fetch both again"
                    )
                try:
                    text = content.decode()
                except UnicodeDecodeError:
                    raise DataError(archive, None, f"{name} is not UTF-8") from None
                missing.remove(name)
                yield Book(name, text.replace("\r\n", "\n"))
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as failure:
        raise DataError(archive, None, f"cannot be read ({failure}): fetch the file again") from None
    if missing:
        name = min(missing, key=lambda name: listed[name].line)
        raise DataError(manifest, listed[name].line, f"{name} is not in {ARCHIVE}: fetch both again")


def _manifest(path: Path) -> dict[str, _Listed]:
    lines = numbered_lines(path)
    columns = next(lines, (1, ""))[1].split("\t")
    needed = ("file", "part", "bytes", "sha256")
    if not set(needed) <= set(columns):
        raise DataError(path, 1, f"the first line must name the columns {', '.join(needed)}, with tabs between")
    listed = {}
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) != len(columns):
            raise DataError(path, number, f"{len(fields)} fields, but the first line names {len(columns)} columns")
        row = dict(zip(columns, fields, strict=True))
        if row["part"] not in ("train", "dev"):
            raise DataError(path, number, f"part must be train or dev, not {row['part']!r}")
        if not (row["bytes"].isascii() and row["bytes"].isdigit()):
            raise DataError(path, number, f"bytes must be a number, not {row['bytes']!r}")
        if row["file"] in listed:
            raise DataError(path, number, f"{row['file']} is listed twice")
        listed[row["file"]] = _Listed(number, row["part"], int(row["bytes"]), row["sha256"])
    return listed
