"""Parsing is contained: a worker process keeps to its limits, and any bytes give text or a refusal."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qrag.wire.media_types import MediaType
from service.errors import DocumentTooComplex, InvalidEncoding, ServiceError, UnreadableDocument
from service.intake.parsing.process import ParseLimits, extract_text
from tests.service.files import MEBIBYTE, SCANT_MEMORY, WORD, Extract, docx, paragraph, pdf, relationships, shown
from tests.service.packages import epub, odt, pptx, shape, slide_table, xlsx

PARSED_TYPES = [media_type for media_type in MediaType if media_type is not MediaType.PLAIN_TEXT]

# --- Limits and the worker process ------------------------------------------------------------------


def test_time_limit_ends_the_worker(extract: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class RememberedProcess(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", RememberedProcess)
    with pytest.raises(DocumentTooComplex, match=r"longer than 0\.001 s"):
        extract(b"<p>text", MediaType.HTML, limits=ParseLimits(seconds=0.001))
    assert [worker.returncode for worker in started] == [-signal.SIGKILL]


@pytest.mark.parametrize(
    ("media_type", "content"),
    [(MediaType.HTML, b"<p>" + b"x" * 1_001), (MediaType.PDF, pdf([shown(b"x" * 60)] * 20))],
)
def test_output_limit(extract: Extract, media_type: MediaType, content: bytes) -> None:
    with pytest.raises(DocumentTooComplex, match="1,000 bytes"):
        extract(content, media_type, limits=ParseLimits(output_bytes=1_000))


def test_output_of_exactly_the_limit_is_kept(extract: Extract) -> None:
    text = "é" * 500
    assert extract(f"<p>{text}".encode(), MediaType.HTML, limits=ParseLimits(output_bytes=1_000)) == text


def test_memory_limit_for_html(extract: Extract) -> None:
    with pytest.raises(DocumentTooComplex, match="memory"):
        extract(b"<p>word" * 600_000, MediaType.HTML, limits=SCANT_MEMORY)


def test_full_disk(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"<p>text")
    target.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as full:
        extract_text(source, target, MediaType.HTML, limits=ParseLimits())
    assert full.value.errno == errno.ENOSPC
    assert not target.is_symlink()


def test_worker_stops_itself_when_nobody_watches_the_clock(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"<pre>" + b"<b>x</b>" * 1_000_000)
    request = {
        "source": str(source),
        "target": str(tmp_path / "target"),
        "media_type": MediaType.HTML,
        "charset": None,
        "row_characters": 200,
        "processor_seconds": 1,
        "memory_bytes": 1 << 30,
        "output_bytes": MEBIBYTE,
    }
    worker = [sys.executable, "-m", "service.intake.parsing.worker"]
    ended = subprocess.run(worker, input=json.dumps(request).encode())
    assert ended.returncode == -signal.SIGXCPU


@pytest.mark.parametrize(
    ("death", "error", "message"),
    [
        ("kill -SEGV $$", DocumentTooComplex, "crash"),
        ("kill -ABRT $$", DocumentTooComplex, "crash"),
        ("kill -KILL $$", DocumentTooComplex, "memory"),
        ("kill -XCPU $$", DocumentTooComplex, "longer than 60 s"),
        ("exit 1", ServiceError, "operator"),
    ],
)
def test_worker_that_dies_is_reported(
    extract: Extract,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    death: str,
    error: type[ServiceError],
    message: str,
) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{death}\n")
    interpreter.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(ServiceError, match=message) as raised:
        extract(b"<p>text", MediaType.HTML)
    assert type(raised.value) is error


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("source").write_bytes(b"<p>text")
    extract_text(Path("source"), Path("target"), MediaType.HTML, limits=ParseLimits())
    assert (tmp_path / "target").read_text() == "text"


@pytest.mark.parametrize("media_type", PARSED_TYPES)
def test_missing_source_is_not_blamed_on_the_document(tmp_path: Path, media_type: MediaType) -> None:
    with pytest.raises(FileNotFoundError):
        extract_text(tmp_path / "missing", tmp_path / "target", media_type, limits=ParseLimits())


def test_worker_starts_without_the_rest_of_the_service() -> None:
    probe = "import sys, service.intake.parsing.worker; print(*{name.partition('.')[0] for name in sys.modules})"
    found = set(subprocess.check_output([sys.executable, "-c", probe], text=True).split())
    assert "service" in found
    assert not {"torch", "numpy", "fastapi", "pydantic", "lxml", "mammoth", "pypdfium2"} & found


# --- Anything at all --------------------------------------------------------------------------------

VALID: dict[MediaType, bytes] = {
    MediaType.HTML: b"<table><tr><td>a<ul><li value=3>b</ul></table><pre style='padding:2em'>c &amp; d</pre>",
    MediaType.MARKDOWN: b"# a\n\n| a | b |\n|---|---|\n| c | d |\n\n> - `e` [f](g)\n",
    MediaType.PDF: pdf([shown(b"some text-", b"ual content"), shown(b"more")]),
    MediaType.DOCX: docx(paragraph("some text") + "<w:tbl><w:tr><w:tc/></w:tr></w:tbl>"),
    MediaType.DOCM: docx(paragraph("some text")),
    MediaType.XHTML: b"<?xml version='1.0'?><html><body><p>some words&nbsp;and more<br/>c</p><title/></body></html>",
    MediaType.PPTX: pptx([shape("title", placeholder="title") + slide_table(["a", "b"], ["c", "1"])]),
    MediaType.XLSX: xlsx({"one": [["a", "b"], ["c", 1.5]], "two": [["d"]]}),
    MediaType.ODT: odt(
        "<text:h>a</text:h><text:p>b<text:s/>c</text:p><text:list><text:list-item><text:p>d</text:p>"
        "</text:list-item></text:list>"
    ),
    MediaType.RTF: b"{\\rtf1\\ansi some {\\b text} caf\\'e9 \\u8364?\\par}",
    MediaType.EPUB: epub(["<h1>a</h1><p>b</p>", "<p>c</p>"]),
    MediaType.CSV: b'a;b\n1;2\n"3;\n4";5\n',
    MediaType.TSV: b"a\tb\n1\t2\n",
    MediaType.JSON: b'{"a": [{"b": 1}, {"b": "c"}], "d": {"e": [1, 2]}}',
    MediaType.JSON_LINES: b'{"a": 1}\n{"a": "b"}\nno\n',
    MediaType.MAIL: b"From: a@b\nSubject: =?utf-8?q?c=C3=A9?=\nContent-Type: text/html\n\n<p>d</p>\n",
}


WORD_DOCUMENT = f'<w:document xmlns:w="{WORD}"><w:body>{paragraph("text")}</w:body></w:document>'.encode()


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    content = bytearray(valid)
    for _ in range(draw(st.integers(1, 8))):
        start = draw(st.integers(0, len(content)))
        end = start + draw(st.integers(0, 12))
        content[start:end] = draw(st.binary(max_size=12))
    return bytes(content)


def uploads(media_type: MediaType) -> st.SearchStrategy[bytes]:
    return st.binary() | damaged(VALID[media_type])


@pytest.mark.parametrize("media_type", PARSED_TYPES)
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_bytes_give_text_or_a_refusal(
    convert_here: Extract,
    media_type: MediaType,
    data: st.DataObject,
) -> None:
    with suppress(UnreadableDocument, InvalidEncoding):
        text = convert_here(data.draw(uploads(media_type)), media_type)
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", text)


@settings(deadline=None, max_examples=150)
@given(content=damaged(VALID[MediaType.HTML]))
def test_no_html_is_unreadable(convert_here: Extract, content: bytes) -> None:
    convert_here(content.decode("utf-8", "replace").encode(), MediaType.HTML, charset="utf-8")


@settings(deadline=None, max_examples=150)
@given(document=damaged(WORD_DOCUMENT))
def test_any_word_document_part_gives_text_or_a_refusal(convert_here: Extract, document: bytes) -> None:
    with suppress(UnreadableDocument):
        text = convert_here(docx("", {"word/document.xml": document}), MediaType.DOCX)
        assert len(text) < 200


@pytest.mark.parametrize("media_type", PARSED_TYPES)
@pytest.mark.parametrize("encoding", [None, "utf-8"])
@pytest.mark.parametrize("cut", [0, 3])
def test_uploads_survive_the_worker_process(
    extract: Extract, media_type: MediaType, encoding: str | None, cut: int
) -> None:
    content = VALID[media_type]
    try:
        text = extract(content[: len(content) // cut] if cut else content, media_type, charset=encoding)
    except UnreadableDocument:
        assert cut
        assert media_type not in {MediaType.HTML, MediaType.MARKDOWN, MediaType.CSV, MediaType.TSV}
    else:
        assert text or (cut and media_type is MediaType.XHTML)  # its first third is its head


def test_what_a_broken_archive_makes_of_its_unpacking_is_damage(extract: Extract) -> None:
    package = BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("_rels/.rels", relationships(("r1", "officeDocument", "word/document.xml")))
    with pytest.raises(UnreadableDocument, match="damaged"):
        extract(package.getvalue().replace(b"BZh", b"xxx"), MediaType.DOCX)


def test_threads_of_libraries_take_no_memory_of_a_worker(extract: Extract, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", str(os.cpu_count()))
    content = xlsx({"S": [["name", "price"], ["bread", 1.5]]})
    limits = ParseLimits(memory_bytes=140 * MEBIBYTE)
    assert extract(content, MediaType.XLSX, limits=limits) == "S\n\nname: bread; price: 1.5"


def test_places_count_as_output(extract: Extract) -> None:
    with pytest.raises(DocumentTooComplex, match="10,000 bytes"):
        extract(b"1\n" * 1_000, MediaType.CSV, limits=ParseLimits(output_bytes=10_000))


def test_a_long_heading_is_not_repeated_in_every_place_below_it(tmp_path: Path) -> None:
    heading = "word " * 1_000
    below = "".join(f"<h2>{number}</h2>" for number in range(1_000))
    source = tmp_path / "source"
    source.write_text(f"<h1>{heading}</h1>{below}")
    findings = extract_text(source, tmp_path / "target", MediaType.HTML, limits=ParseLimits())
    places = [json.loads(line) for line in findings["places"].splitlines()]
    assert len(places) == 1_001
    assert places[-1][1] == {"headings": [heading[:300], "999"]}
    assert heading.strip() in (tmp_path / "target").read_text()


def test_a_name_that_stands_twice_takes_no_longer_for_many_names(extract: Extract) -> None:
    names = ",".join(f'"{number}":1' for number in range(50_000))
    text = extract(f'{{{names},"0":2}}'.encode(), MediaType.JSON, limits=ParseLimits(seconds=30))
    assert text.startswith("0: 1, 2\n1: 1\n")
