"""What stands in a page of Markdown."""

from __future__ import annotations

from pathlib import Path

from markdown_it import MarkdownIt


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of one language, in order."""
    return [
        token.content
        for token in MarkdownIt().parse(page.read_text(encoding="utf-8"))
        if token.type == "fence" and token.info == language
    ]
