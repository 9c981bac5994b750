"""What stands in a page of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token


class Block(NamedTuple):
    """A block of code: fenced, or indented and then without a language."""

    page: str
    line: int
    language: str
    code: str

    @property
    def first_line(self) -> str:
        return self.code.strip().splitlines()[0]


def code_blocks(page: Path) -> list[Block]:
    """All blocks of code, in order."""
    return [
        Block(page.name, token.map[0] + 1, token.info.strip(), token.content)
        for token in _parsed(page)
        if token.type in ("fence", "code_block") and token.map
    ]


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of one language, in order."""
    return [block.code for block in code_blocks(page) if block.language == language]


def links(page: Path) -> list[str]:
    """Where links and pictures lead, in order."""
    inline = [child for token in _parsed(page) for child in token.children or ()]
    targets = [token.attrGet({"link_open": "href", "image": "src"}.get(token.type, "")) for token in inline]
    return [target for target in targets if isinstance(target, str)]


def anchors(page: Path) -> set[str]:
    """What a link can name behind `#`: the headings, as GitHub names them."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in _headings(_parsed(page)):
        anchor = "".join(sign for sign in heading.lower() if sign.isalnum() or sign in " -_").replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return found


def _headings(tokens: list[Token]) -> Iterator[str]:
    for before, token in pairwise(tokens):
        if before.type == "heading_open":
            yield "".join(child.content for child in token.children or () if child.type in ("text", "code_inline"))


def _parsed(page: Path) -> list[Token]:
    return MarkdownIt().enable("table").parse(page.read_text(encoding="utf-8"))
