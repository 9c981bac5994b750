"""A PDF of 500 pages and a book of 600,000 words: how long they are read, in how much memory, and until when searched.

    python -m benchmarks.large_files [--pages 500] [--words 600000] [--data folder]

The files are made of the bundled book, repeated, or of the text files in ``--data``. Each is read by the parser process
alone, whose memory is watched, then uploaded and indexed by the service. Result: ``results/large_files.json``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from html import escape
from pathlib import Path

import httpx
import psutil
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from tqdm import tqdm

from benchmarks.serving import ROOT, running_service
from qrag.wire.media_types import MediaType
from service.intake.parsing.process import ParseLimits, extract_text
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "large_files.json"
BOOK = ROOT / "examples" / "franklin-autobiography.txt"
LINES_OF_A_PAGE = 46
WORDS_OF_A_CHAPTER = 5_000


def paragraphs(data: Path | None) -> Iterator[str]:
    """Paragraphs without end: those of the books, then again."""
    books = sorted(data.rglob("*.txt")) if data else [BOOK]
    for book in itertools.cycle(books):
        for paragraph in book.read_text(encoding="utf-8", errors="replace").split("\n\n"):
            if text := " ".join(paragraph.split()):
                yield text


def make_pdf(path: Path, texts: Iterator[str], pages: int) -> None:
    """Write so many pages of prose."""
    lines = (line for text in texts for line in [*textwrap.wrap(text, 90), ""])
    with PdfPages(path) as file:
        for _ in tqdm(range(pages), desc="pages"):
            figure = Figure(figsize=(8.3, 11.7))
            figure.text(0.1, 0.95, "\n".join(itertools.islice(lines, LINES_OF_A_PAGE)), va="top", parse_math=False)
            file.savefig(figure)


def make_epub(path: Path, texts: Iterator[str], words: int) -> None:
    """Write a book of so many words, in chapters."""
    chapters = [list(chapter_of(texts)) for _ in range(max(1, words // WORDS_OF_A_CHAPTER))]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mimetype", MediaType.EPUB.value, zipfile.ZIP_STORED)
        archive.writestr(
            "META-INF/container.xml", '<container><rootfiles><rootfile full-path="book.opf"/></rootfiles></container>'
        )
        items = [f'<item id="c{n}" href="{n}.xhtml" media-type="application/xhtml+xml"/>' for n in range(len(chapters))]
        spine = [f'<itemref idref="c{number}"/>' for number in range(len(chapters))]
        archive.writestr(
            "book.opf", f"<package><manifest>{''.join(items)}</manifest><spine>{''.join(spine)}</spine></package>"
        )
        for number, chapter in enumerate(chapters):
            body = "".join(f"<p>{escape(text)}</p>" for text in chapter)
            archive.writestr(f"{number}.xhtml", f"<html><body><h1>Chapter {number + 1}</h1>{body}</body></html>")


def chapter_of(texts: Iterator[str]) -> Iterator[str]:
    """The next paragraphs, of about as many words as a chapter has."""
    words = 0
    while words < WORDS_OF_A_CHAPTER:
        text = next(texts)
        words += len(text.split())
        yield text


def read_alone(path: Path, media_type: MediaType) -> dict[str, object]:
    """Seconds and peak memory of the parser process, and the words that it finds."""
    peak = 0
    stopped = threading.Event()

    def watch() -> None:
        nonlocal peak
        own = psutil.Process()
        while not stopped.wait(0.02):
            for child in own.children():
                try:
                    peak = max(peak, child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    target = path.with_suffix(".text")
    began = time.perf_counter()
    findings = extract_text(path, target, media_type, limits=ParseLimits(seconds=600))
    seconds = time.perf_counter() - began
    stopped.set()
    watcher.join()
    return {
        "file_bytes": path.stat().st_size,
        "words": len(target.read_text(encoding="utf-8").split()),
        "warnings": findings["warnings"],
        "read_seconds": round(seconds, 2),
        "parser_peak_resident_bytes": peak,
    }


def index(client: httpx.Client, path: Path, media_type: MediaType) -> dict[str, object]:
    """Seconds until the upload is answered and until the file is searchable, and how often its progress had changed."""
    began = time.perf_counter()
    answer = client.post(
        "/documents", params={"id": path.stem}, content=path.read_bytes(), headers={"Content-Type": media_type.value}
    )
    answer.raise_for_status()
    answered = time.perf_counter() - began
    seen: list[float] = []
    while (document := client.get(f"/documents/{path.stem}").json())["status"] != "ready":
        if document["status"] == "failed":
            raise SystemExit(document["error"])
        if not seen or document["progress"] > seen[-1]:
            seen.append(document["progress"])
            print(f"{path.name}: {document['progress']:.1%}", flush=True)
        time.sleep(0.5)
    return {
        "tokens": document["tokens"],
        "chunks": document["chunks"],
        "answered_seconds": round(answered, 2),
        "searchable_seconds": round(time.perf_counter() - began, 1),
        "progress_changes_seen": len(seen),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Large files: reading and indexing.")
    parser.add_argument("--pages", type=int, default=500)
    parser.add_argument("--words", type=int, default=600_000)
    parser.add_argument("--data", type=Path, help="a folder of text files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pages, book = Path(folder, "pages.pdf"), Path(folder, "book.epub")
        make_pdf(pages, paragraphs(arguments.data), arguments.pages)
        make_epub(book, paragraphs(arguments.data), arguments.words)
        files = {"pdf": (pages, MediaType.PDF), "epub": (book, MediaType.EPUB)}
        result: dict[str, object] = {"machine": describe_machine(), "pages_of_pdf": arguments.pages}
        found = {name: read_alone(*file) for name, file in files.items()}
        print(json.dumps(found, indent=2))
        with running_service() as service:
            for name, file in files.items():
                result[name] = found[name] | index(service.client, *file)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
