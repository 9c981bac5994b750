"""Markdown (CommonMark with tables), read as the HTML that it stands for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.intake.parsing.encodings import decoded, marked_encoding
from service.intake.parsing.html import html_text


def read(source: Path, encoding: str | None) -> Iterator[str]:
    """The text of a Markdown file. A byte order mark decides where no encoding is given."""
    content = source.read_bytes()
    yield html_text(_markdown_html(decoded(content, encoding or marked_encoding(content))))


def _markdown_html(markdown: str) -> str:
    from markdown_it import MarkdownIt

    html: str = MarkdownIt("commonmark").enable("table").render(markdown)
    return html
