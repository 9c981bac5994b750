"""Cutting a document into chunks that quote it exactly.

Chunks are half-open character ranges in document order: they do not overlap, begin and end with
a character that is not blank, and together hold every character that is not blank, so
``document[start:end]`` is always the chunk's text. A chunk has at most ``max_tokens`` tokens, and
at most ``16 * max_tokens`` characters (a tokenizer may turn a word of any length into one
unknown token, but the reader's prompt has to hold the text).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple, Protocol

import regex
from sentencex import get_sentence_boundaries

from qrag.wire.chunking import Mode

Span = tuple[int, int]
"""Characters ``start <= i < end`` of a text."""

SentenceSplitter = Callable[[str, str], list[dict[str, int]]]
"""Maps a language and a text to the boundaries of its sentences; only ``end_index`` is read."""

CHARACTERS_PER_TOKEN = 16
"""Most characters of a chunk for each of its tokens."""

WINDOW = 1 << 20
"""Characters tokenised at a time: bounds the memory that a long document needs."""

SENTENCE_WINDOW = 1 << 14
"""Characters cut into sentences at a time: sentencex takes time quadratic in a paragraph, and holds the GIL."""

_NOT_BLANK = re.compile(r"\S")
_WIDE_BLANK = re.compile(r"[^\S\x00-\x7f]")
"""A blank of several bytes in UTF-8."""

_LINE = re.compile(r"[^\r\n]+")
_BLANK_LINE = re.compile(r"(?:\r\n|\r(?!\n)|\n)[^\S\r\n]*(?:\r\n|\r|\n)\s*")
"""The end of a line, and all blank lines behind it."""

_GRAPHEME = regex.compile(r"\X")
"""What a reader sees as one character; the standard library has no such class."""


class Chunk(NamedTuple):
    """Characters ``start <= i < end`` of a document, and how many tokens they make."""

    start: int
    end: int
    tokens: int


class Tokenizer(Protocol):
    """The part of the model's tokenizer that chunking needs; special tokens are not counted."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text."""

    def token_ends(self, text: str) -> list[int]:
        """The character offset at which each token of the text ends, in order."""


def chunk_document(
    text: str,
    mode: Mode,
    max_tokens: int,
    tokenizer: Tokenizer,
    *,
    window_characters: int = WINDOW,
    split_sentences: SentenceSplitter = get_sentence_boundaries,
) -> Iterator[Chunk]:
    """The chunks of ``text`` in document order; none if it holds only blanks.

    ``window_characters`` is the number of characters that are tokenised at a time.
    """
    if mode == "sentences":
        spans = _packed(
            text, _trimmed(text, _sentences(text, split_sentences)), max_tokens, tokenizer, window_characters
        )
    else:
        spans = _trimmed(text, _PIECES[mode](text))
    for (start, end), tokens in _counted(text, spans, max_tokens, tokenizer, window_characters):
        if tokens <= max_tokens:
            yield Chunk(start, end, tokens)
        else:
            yield from _split(text, start, end, max_tokens, tokenizer)


def _sentences(text: str, split_sentences: SentenceSplitter) -> Iterator[Span]:
    start = 0
    while start < len(text):
        window = text[start : start + SENTENCE_WINDOW]
        ends = _sentence_ends(window, split_sentences)
        if start + len(window) == len(text):
            ends.append(len(window))
        elif not ends:
            ends = [_cut_before(window, text[start + len(window)], len(window))]
        # The window may have cut what follows the last end: it opens the next window.
        begin = 0
        for end in ends:
            yield start + begin, start + end
            begin = end
        start += begin


def _sentence_ends(window: str, split_sentences: SentenceSplitter) -> list[int]:
    """The ends of sentences inside the window, its own end excluded; never inside a grapheme."""
    try:
        # sentencex 1.0 panics on some blanks of several bytes, as in "A\u3000."
        boundaries = split_sentences("en", _WIDE_BLANK.sub(" ", window))
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # Rust's, not an Exception: it would end the thread
            raise
        return []
    ends = (boundary["end_index"] for boundary in boundaries)
    return [end for end in ends if end < len(window) and _GRAPHEME.match(window, end - 1).end() == end]


def _lines(text: str) -> Iterator[Span]:
    return (match.span() for match in _LINE.finditer(text))


def _paragraphs(text: str) -> Iterator[Span]:
    start = 0
    for blank_line in _BLANK_LINE.finditer(text):
        yield start, blank_line.start()
        start = blank_line.end()
    yield start, len(text)


def _whole(text: str) -> Iterator[Span]:
    yield 0, len(text)


_PIECES: dict[Literal["lines", "paragraphs", "whole"], Callable[[str], Iterator[Span]]] = {
    "lines": _lines,
    "paragraphs": _paragraphs,
    "whole": _whole,
}
"""The function that cuts a text, for each mode but ``sentences``."""


def _trimmed(text: str, spans: Iterable[Span]) -> Iterator[Span]:
    """The spans without the blanks at their ends; spans of blanks alone are dropped."""
    for start, end in spans:
        first = _NOT_BLANK.search(text, start, end)
        if first is not None:
            while text[end - 1].isspace():
                end -= 1
            yield first.start(), end


def _counted(
    text: str, spans: Iterable[Span], max_tokens: int, tokenizer: Tokenizer, window_characters: int
) -> Iterator[tuple[Span, int]]:
    """Each span with its number of tokens, or ``max_tokens + 1`` where it has too many characters."""
    longest = CHARACTERS_PER_TOKEN * max_tokens
    for batch in _batches(spans, window_characters):
        short = [span for span in batch if span[1] - span[0] <= longest]
        counts = dict(zip(short, tokenizer.count([text[start:end] for start, end in short]), strict=True))
        for span in batch:
            yield span, counts.get(span, max_tokens + 1)


def _batches(spans: Iterable[Span], window_characters: int) -> Iterator[list[Span]]:
    batch: list[Span] = []
    characters = 0
    for span in spans:
        batch.append(span)
        characters += span[1] - span[0]
        if characters >= window_characters:
            yield batch
            batch, characters = [], 0
    yield batch


def _packed(
    text: str, spans: Iterable[Span], max_tokens: int, tokenizer: Tokenizer, window_characters: int
) -> Iterator[Span]:
    """Neighbouring spans, joined as long as they fit into a chunk together."""
    longest = CHARACTERS_PER_TOKEN * max_tokens
    pack: tuple[int, int, int] | None = None
    for (start, end), tokens in _counted(text, spans, max_tokens, tokenizer, window_characters):
        if pack is not None and pack[2] + tokens <= max_tokens and end - pack[0] <= longest:
            pack = (pack[0], end, pack[2] + tokens)
        else:
            if pack is not None:
                yield pack[:2]
            pack = (start, end, tokens)
    if pack is not None:
        yield pack[:2]


def _split(text: str, start: int, end: int, max_tokens: int, tokenizer: Tokenizer) -> Iterator[Chunk]:
    """Cut a span that is too long: at blanks where possible, else between graphemes."""
    longest = CHARACTERS_PER_TOKEN * max_tokens
    while start < end:
        window = text[start : min(end, start + longest)]
        while True:
            token_ends = tokenizer.token_ends(window)
            limit = len(window) if len(token_ends) <= max_tokens else max(token_ends[max_tokens - 1], 1)
            cut = limit if start + limit == end else _cut_before(window, text[start + limit], limit)
            grapheme = _GRAPHEME.match(window).end()
            # A grapheme may be fewer tokens by itself than its beginning is inside the whole.
            if cut < grapheme < len(window) and tokenizer.count([window[:grapheme]])[0] <= max_tokens:
                cut = grapheme
            ((first, last),) = _trimmed(text, [(start, start + cut)])
            (tokens,) = tokenizer.count([text[first:last]])
            if tokens <= max_tokens or cut == 1:
                break
            # Some tokenizers make more tokens of a part than they made of it inside the whole.
            shorter = cut - max(1, cut // 8)
            window = window[: max(shorter, grapheme) if grapheme < cut else shorter]
        yield Chunk(first, last, tokens)
        following = _NOT_BLANK.search(text, start + cut, end)
        start = following.start() if following else end


def _cut_before(window: str, next_character: str, limit: int) -> int:
    """The best place to cut ``window`` at or before ``limit``; ``next_character`` stands at ``limit``."""
    if next_character.isspace():
        return limit
    for position in range(limit - 1, 0, -1):
        if window[position].isspace():
            return position
    ends = [match.end() for match in _GRAPHEME.finditer(window)]
    # The window's last grapheme may go on behind it, so only inner borders count.
    return max((end for end in ends if end <= limit and end < len(window)), default=limit)
