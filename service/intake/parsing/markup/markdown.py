"""Markdown, read as the HTML that it stands for, in which nothing of what was written is lost.

CommonMark drops what only looks like syntax: words in angle brackets, ``[Name]: word`` lines, cells beyond a table's
head, the stars of ``2*3*4``. Those stay text here.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from service.intake.encodings import decoded
from service.intake.parsing.cleaning import too_deep
from service.intake.parsing.markup.front_matter import without_front_matter
from service.intake.parsing.markup.html import html_passages
from service.intake.parsing.reading import Passages, Reading

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_core import StateCore
    from markdown_it.token import Token

_MOST_NESTED: Final = 100
"""Levels of quotes and lists, where a list and its item are one each."""

_TAG: Final = re.compile(r"<(/?)([A-Za-z][\w.:-]*)([^<>]*)>")
_VOID: Final = frozenset({"br", "hr", "img", "wbr"})
_ENDS: Final = {"<!--": "-->", "<![CDATA[": "]]>", "<!": ">", "<?": "?>"}
"""What ends the markup that browsers do not show, by what begins it."""

_DEFINED: Final = "defined_reference"


def read(source: Path, reading: Reading) -> Passages:
    """The text of a Markdown file. Its front matter becomes its title and metadata."""
    text = without_front_matter(decoded(source.read_bytes(), reading.charset), reading)
    yield from html_passages(markdown_html(text), reading)


def markdown_html(text: str) -> str:
    """The HTML that Markdown stands for.

    Raises :class:`~service.errors.DocumentTooComplex` where it is nested too deeply.
    """
    from markdown_it import MarkdownIt
    from mdit_py_plugins.footnote import footnote_plugin

    parser = MarkdownIt("commonmark", {"maxNesting": _MOST_NESTED})
    parser.enable(["table", "strikethrough"]).use(footnote_plugin)
    parser.block.ruler.before("code", "depth", _refuse_depth)
    _keep_definitions(parser)
    parser.core.ruler.before("footnote_tail", "notes", _keep_notes)
    parser.core.ruler.after("block", "extra_cells", _add_extra_cells)
    parser.core.ruler.push("words", _keep_words)
    parser.add_render_rule("footnote_anchor", lambda *_: "")
    parser.add_render_rule("footnote_ref", _footnote_mark)
    parser.add_render_rule("footnote_block_open", lambda *_: "<ol>")
    parser.add_render_rule("footnote_block_close", lambda *_: "</ol>")
    rendered: str = parser.render(text)
    return rendered


def _refuse_depth(state: StateBlock, _first: int, _last: int, _silent: bool) -> bool:
    """Refuse quotes and lists at a depth below which the parser would leave out the next: a list adds two levels."""
    if state.level > _MOST_NESTED - 3:
        raise too_deep()
    return False


# -- notes ------------------------------------------------------------------------------------------------------------


def _keep_notes(state: StateCore) -> None:
    """Number the notes that nothing refers to, and bring out those inside others: the plugin would drop both."""
    notes: MutableMapping[str, Any] = state.env.get("footnotes", {"refs": {}, "list": {}})
    tokens: list[Token] = []
    open_notes: list[list[Token]] = []
    known: set[str] = set()
    for token in state.tokens:
        if token.type == "footnote_reference_open":
            label, number = token.meta["label"], len(notes["list"])
            if label in known or notes["refs"][f":{label}"] < 0:
                token.meta["label"] = f"{label} {number}"  # no other label has a blank
                notes["list"][number] = {"label": token.meta["label"], "count": 0}
            known.add(label)
            open_notes.append([])
        (open_notes[-1] if open_notes else tokens).append(token)
        if token.type == "footnote_reference_close":
            tokens += open_notes.pop()
    state.tokens = tokens


def _footnote_mark(_renderer: Any, tokens: Sequence[Token], number: int, *_: Any) -> str:
    return f"[{tokens[number].meta['id'] + 1}]"


# -- lines that look like the definition of a link --------------------------------------------------------------------


def _keep_definitions(parser: MarkdownIt) -> None:
    """Let definitions that no link uses stay paragraphs, together with the titles of those that are used."""
    from markdown_it.rules_block import reference

    def kept(state: StateBlock, first: int, last: int, silent: bool) -> bool:
        known = len(state.env.get("references", ()))
        if not reference(state, first, last, silent):
            return False
        if not silent:
            lines = state.getLines(first, state.line, state.blkIndent, False).strip()
            references = state.env["references"]
            label = next(reversed(references)) if len(references) > known else ""
            tokens = [state.push("paragraph_open", "p", 1), state.push("inline", "", 0)]
            for token in (*tokens, state.push("paragraph_close", "p", -1)):
                token.meta[_DEFINED] = label
            tokens[1].content, tokens[1].map, tokens[1].children = lines, [first, state.line], []
        return True

    parser.block.ruler.at("reference", kept)
    parser.core.ruler.before("inline", "definitions", _drop_used_definitions)


_LABEL: Final = re.compile(r"\[((?:[^\[\]\\]|\\.)+)\]")


def _drop_used_definitions(state: StateCore) -> None:
    """Leave out the definitions whose links say what they are; the others are read as text, in square brackets."""
    from markdown_it.common.utils import normalizeReference

    used = {
        normalizeReference(label)
        for token in state.tokens
        if token.type == "inline" and _DEFINED not in token.meta
        for label in _LABEL.findall(token.content)
    }
    references: MutableMapping[str, Any] = state.env.get("references", {})
    dropped = {label for label in references if label in used}
    for label in set(references) - dropped:
        del references[label]
    state.tokens = [token for token in state.tokens if token.meta.get(_DEFINED, None) not in dropped]


# -- cells beyond the head of a table ---------------------------------------------------------------------------------


_QUOTED: Final = re.compile(r"(?:\s*>)+")
"""What a line of quotes begins with."""


def _add_extra_cells(state: StateCore) -> None:
    """Give rows of tables the cells that stand behind the last column of the head."""
    from markdown_it.rules_block.table import escapedSplit
    from markdown_it.token import Token

    lines = state.src.split("\n")
    tokens: list[Token] = []
    cells = 0
    row: Token | None = None
    for token in state.tokens:
        if token.type == "tr_open":
            row, cells = token, 0
        elif token.type == "td_open":
            cells += 1
        elif token.type == "tr_close" and row is not None and row.map and cells:
            line = _QUOTED.sub("", lines[row.map[0]]).strip()
            written = escapedSplit(line.removeprefix("|").removesuffix("|"))
            for content in written[cells:]:
                inline = Token("inline", "", 0, content=content.strip(), children=[], map=row.map)
                tokens += [Token("td_open", "td", 1), inline, Token("td_close", "td", -1)]
        tokens.append(token)
    state.tokens = tokens


# -- words that look like tags or emphasis ----------------------------------------------------------------------------


def _keep_words(state: StateCore) -> None:
    """Turn back into text what is no element of HTML and no emphasis, and show the titles of links and pictures."""
    closed = {
        name
        for token in _all(state.tokens)
        if token.type in {"html_inline", "html_block"}
        for slash, name, _ in _TAG.findall(token.content)
        if slash
    }
    for token in _all(state.tokens):
        if token.type in {"html_inline", "html_block"}:
            token.content = (
                html.escape(token.content)
                if _is_cut_off(token.content)
                else _TAG.sub(lambda tag: tag[0] if _is_element(tag, closed) else html.escape(tag[0]), token.content)
            )
    for token in state.tokens:
        if token.children:
            _keep_stars(token.children)
            token.children = list(_with_titles(token.children))


def _all(tokens: Sequence[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from token.children or ()


def _is_cut_off(content: str) -> bool:
    """Whether a comment or a declaration has no end: it would hide all that follows."""
    end = next((end for begin, end in _ENDS.items() if content.lstrip().startswith(begin)), "")
    return end not in content


def _is_element(tag: re.Match[str], closed: set[str]) -> bool:
    """Whether a tag is one: it is closed somewhere, closes itself, or never holds anything."""
    slash, name, attributes = tag.groups()
    return (
        bool(slash) or name in closed or name.lower() in _VOID or attributes.rstrip().endswith("/") or "=" in attributes
    )


def _keep_stars(tokens: Sequence[Token]) -> None:
    """Turn ``*`` back into text where both ends of an emphasis stand inside words or numbers, as in ``2*3*4``."""
    open_at: list[int] = []
    for number, token in enumerate(tokens):
        if token.type in {"em_open", "strong_open"} and token.markup.startswith("*"):
            open_at.append(number)
        elif token.type in {"em_close", "strong_close"} and token.markup.startswith("*") and open_at:
            first = open_at.pop()
            if all(_is_inside(tokens, end, len(token.markup)) for end in (first, number)):
                for end in (first, number):
                    tokens[end].type, tokens[end].tag, tokens[end].nesting = "text", "", 0
                    tokens[end].content = tokens[end].markup


def _is_inside(tokens: Sequence[Token], number: int, stars: int) -> bool:
    before = tokens[number - 1].content[-1:] if number > 0 else ""
    after = tokens[number + 1].content[:1] if number + 1 < len(tokens) else ""
    if stars > 1:
        return before.isdigit() and after.isdigit()
    return (before.isalnum() or before in ")]") and (after.isalnum() or after in "([") and bool(before and after)


def _with_titles(tokens: Sequence[Token]) -> Iterator[Token]:
    """The tokens, with the titles of links and pictures behind them."""
    from markdown_it.token import Token

    yield from tokens
    for token in tokens:
        title = str((token.attrs or {}).get("title", ""))
        if title and token.type in {"link_open", "image"}:
            yield Token("text", "", 0, content=f" ({title})")
