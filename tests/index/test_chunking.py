"""Chunks quote the document exactly, whatever it holds and however it is cut."""

from __future__ import annotations

import itertools
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cache
from unittest.mock import patch

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sentencex import get_sentence_boundaries

from index import chunking
from index.chunking import CHARACTERS_PER_TOKEN, Chunk, SentenceSplitter, Tokenizer, chunk_document
from index.encoders.tokenizer import TextTokenizer
from qrag.wire.chunking import Chunking, Mode
from tests.random_checkpoints import BASE_MODEL

MODES: list[Mode] = ["sentences", "lines", "paragraphs", "whole"]
LIMITS = [8, 16, 64]

modes = st.sampled_from(MODES)
limits = st.sampled_from(LIMITS)


@cache
def base_tokenizer() -> TextTokenizer:
    return TextTokenizer(BASE_MODEL)


class FickleTokenizer:
    """Tokens of one to three characters whose borders depend on the whole text.

    A part of a text may have more tokens than the text, and two texts together more than their sum.
    """

    def token_ends(self, text: str) -> list[int]:
        ends = []
        at, seed = 0, zlib.crc32(text.encode())
        while at < len(text):
            seed = zlib.crc32(b"next", seed)
            at = min(at + 1 + seed % 3, len(text))
            ends.append(at)
        return ends

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(self.token_ends(text)) for text in texts]


class BlankCountingTokenizer:
    """Every character is a token, blanks too: sentences together have more tokens than each for itself."""

    def token_ends(self, text: str) -> list[int]:
        return list(range(1, len(text) + 1))

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text) for text in texts]


class ByteTokenizer:
    """UTF-8 bytes, several of which may end at one character; like byte-level BPE without merges."""

    def token_ends(self, text: str) -> list[int]:
        return [at for at, character in enumerate(text, 1) for _ in character.encode()]

    def count(self, texts: Sequence[str]) -> list[int]:
        return [len(text.encode()) for text in texts]


AWKWARD: list[Tokenizer] = [FickleTokenizer(), BlankCountingTokenizer(), ByteTokenizer()]

PIECES = [
    # blanks of all kinds
    *[" ", "  ", "\n", "\n\n", "\r\n", "\r\n\r\n", "\r", "\t", "\x0b", "\x0c", "\x1c", "\x1f", "\x85", "\xa0"],
    *["\u1680", "\u2003", "\u2028", "\u2029", "\u202f", "\u3000", "\n \n", "\r\n\t\r\n"],
    # no blanks, though hardly visible
    *["\x00", "\u200b", "\u200d", "\ufeff", "\u2060", "\x7f", "\xad"],
    # graphemes of several characters
    *[
        "e\u0301",
        "\u0308",
        "n\u0303\u0330",
        "👨\u200d👩\u200d👧\u200d👦",
        "👍🏽",
        "🇩🇪",
        "🇫",
        "1\ufe0f\u20e3",
        "❤\ufe0f",
        "각",
    ],
    *["क्षि", "\u0600", "नि", "‼\ufe0f", "。\u0301", "A\u0301." + " "],
    # sentences and what only looks like their ends
    *[". ", "! ", "? ", "。", "！", "…", "Dr. ", "e.g. ", "A. ", "3.14", "“Go.” ", "(x. y.) ", "www.a.org "],
    *["世界", "你好吗", "the cat sat ", "Katze", "supercalifragilisticexpialidocious", "ﷺ", "ΣΊΣΥΦΟΣ ", "𝔘𝔫𝔦 "],
]

texts = st.lists(
    st.one_of(
        st.sampled_from(PIECES),
        st.sampled_from(PIECES),
        st.text(max_size=6),
        st.builds(lambda piece, times: piece * times, st.sampled_from(PIECES), st.integers(2, 40)),
    ),
    max_size=40,
).map("".join)

short_windows = st.sampled_from([1, 2, 7, 40, 1 << 20])


def borders_of_graphemes(text: str) -> set[int]:
    return {0, *(match.end() for match in regex.finditer(r"\X", text))}


def check_chunks(
    text: str,
    mode: Mode,
    limit: int,
    tokenizer: Tokenizer,
    split_sentences: SentenceSplitter = get_sentence_boundaries,
) -> list[Chunk]:
    """What holds of the chunks of any text with any tokenizer."""
    chunks = list(chunk_document(text, mode, limit, tokenizer, split_sentences=split_sentences))
    held = [i for chunk in chunks for i in range(chunk.start, chunk.end)]
    assert held == sorted(set(held))
    missed = set(range(len(text))) - set(held)
    assert all(text[i].isspace() for i in missed)
    for start, end, tokens in chunks:
        quote = text[start:end]
        assert quote
        assert not quote[0].isspace()
        assert not quote[-1].isspace()
        assert tokens == tokenizer.count([quote])[0]
        # One character may be more tokens than any limit; nothing else may.
        assert tokens <= limit or end - start == 1
        assert end - start <= CHARACTERS_PER_TOKEN * limit
    check_graphemes(text, chunks, limit, tokenizer)
    return chunks


def check_graphemes(text: str, chunks: Sequence[Chunk], limit: int, tokenizer: Tokenizer) -> None:
    """A grapheme is in two chunks only where it does not fit one."""
    borders = sorted(borders_of_graphemes(text))
    for chunk, following in itertools.pairwise(chunks):
        cut = chunk.end
        at = bisect_right(borders, cut)
        if cut == following.start and borders[at - 1] != cut:
            start, end = borders[at - 1], borders[at]
            # Its beginning is in this chunk alone, so there was nothing before it to cut behind.
            assert chunk.start >= start
            long = any(tokenizer.count([text[start:to]])[0] > limit for to in range(start + 1, end + 1))
            assert long or end - start > CHARACTERS_PER_TOKEN * limit


@settings(deadline=None, max_examples=500)
@given(texts, modes, limits)
@example("A\u3000. B", "sentences", 8)
@example("x. " * 5 + "Nein‼\ufe0f Doch. " * 3, "sentences", 8)
@example("👨\u200d👩\u200d👧\u200d👦" * 50, "whole", 8)
@example("\u0600" * 21 + "각각각", "whole", 8)
def test_chunks_quote_any_text_exactly(text: str, mode: Mode, limit: int) -> None:
    check_chunks(text, mode, limit, base_tokenizer())


@settings(deadline=None, max_examples=300)
@given(texts, modes, limits, short_windows, st.sampled_from([2, 7, 40, 200]))
def test_the_borders_of_windows_leave_no_trace(
    text: str, mode: Mode, limit: int, window: int, sentence_window: int
) -> None:
    borders = sorted(borders_of_graphemes(text))
    longest = max((end - start for start, end in itertools.pairwise(borders)), default=0)
    sentence_window = max(sentence_window, longest + 1)  # the true one is longer than any grapheme that fits a chunk
    with patch.object(chunking, "WINDOW", window), patch.object(chunking, "SENTENCE_WINDOW", sentence_window):
        chunks = check_chunks(text, mode, limit, base_tokenizer())
    if mode != "sentences":
        assert chunks == list(chunk_document(text, mode, limit, base_tokenizer()))


@settings(deadline=None, max_examples=300)
@given(texts, modes, limits, st.sampled_from(AWKWARD))
@example("ab" * 200, "whole", 8, AWKWARD[0])
@example("One. Two. Three. Four. " * 4, "sentences", 8, AWKWARD[1])
@example("👨\u200d👩\u200d👧\u200d👦", "whole", 8, AWKWARD[2])
@example(
    "a" + "\u200d" * 13 + "\ufeff", "whole", 8, AWKWARD[0]
)  # fewer tokens by itself than its beginning in the whole
def test_the_limit_holds_for_awkward_tokenizers(text: str, mode: Mode, limit: int, tokenizer: Tokenizer) -> None:
    check_chunks(text, mode, limit, tokenizer)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("text", ["", " ", "\n\r\n\t \u2028\x1c\u3000", " " * 5000])
def test_no_text_makes_no_chunks(text: str, mode: Mode) -> None:
    assert list(chunk_document(text, mode, 8, base_tokenizer())) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_megabyte_without_a_blank(mode: Mode) -> None:
    text = "x" * (1 << 20)
    chunks = list(chunk_document(text, mode, 64, base_tokenizer()))
    assert "".join(text[chunk.start : chunk.end] for chunk in chunks) == text
    assert max(chunk.end - chunk.start for chunk in chunks) <= 64 * CHARACTERS_PER_TOKEN
    # Characters are the limit here, not tokens: hardly more chunks than need be.
    assert len(chunks) <= 1.1 * len(text) / (64 * CHARACTERS_PER_TOKEN)


@pytest.mark.parametrize("mode", MODES)
def test_chinese_without_blanks(mode: Mode) -> None:
    sentence = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏。"
    text = sentence * 2000
    chunks = check_chunks(text, mode, 64, base_tokenizer())
    assert "".join(text[chunk.start : chunk.end] for chunk in chunks) == text
    if mode == "sentences":
        assert {text[chunk.start : chunk.end] for chunk in chunks} == {sentence * 2}


@pytest.mark.parametrize("mode", ["sentences", "paragraphs", "lines"])
def test_a_text_longer_than_the_windows(mode: Mode) -> None:
    block = "Ann took the red ball. Then she went to the hall.\n\nBob stayed at home. He was ill.\n\n"
    text = block * (chunking.WINDOW // len(block) + 10)
    chunks = list(chunk_document(text, mode, 64, base_tokenizer()))
    pattern = r"[^\n]+" if mode != "sentences" else r"\S(?:.|\n)*?\.(?=\s)"
    pieces = [match.span() for match in re.finditer(pattern, text)]
    starts = {start for start, _ in pieces}
    ends = {end for _, end in pieces}
    assert len(text) > chunking.WINDOW
    assert {chunk.start for chunk in chunks} <= starts
    assert {chunk.end for chunk in chunks} <= ends
    if mode != "sentences":
        assert [(chunk.start, chunk.end) for chunk in chunks] == pieces


def test_a_long_paragraph_reaches_the_sentence_splitter_in_parts() -> None:
    # Its time is quadratic in a paragraph: a megabyte of Chinese at once would hold the GIL for half a minute.
    lengths: list[int] = []

    def watched(language: str, text: str) -> list[dict[str, int]]:
        lengths.append(len(text))
        found: list[dict[str, int]] = get_sentence_boundaries(language, text)
        return found

    sentence = "天地玄黄宇宙洪荒。"
    chunks = list(chunk_document(sentence * 10_000, "sentences", 64, base_tokenizer(), split_sentences=watched))
    assert max(lengths) <= 1 << 14
    assert sum(lengths) < 1.1 * 10_000 * len(sentence)
    assert {chunk.tokens for chunk in chunks[:-1]} == {63}


class WatchedTokenizer:
    """The base model's, noting how many characters it is given at once."""

    def __init__(self) -> None:
        self.most = 0

    def count(self, texts: Sequence[str]) -> list[int]:
        self.most = max(self.most, sum(map(len, texts)))
        return base_tokenizer().count(texts)

    def token_ends(self, text: str) -> list[int]:
        self.most = max(self.most, len(text))
        return base_tokenizer().token_ends(text)


@pytest.mark.parametrize("mode", MODES)
def test_a_long_document_is_tokenised_in_parts(mode: Mode) -> None:
    tokenizer = WatchedTokenizer()
    list(chunk_document("Ann took the ball.\n\n" * 1000, mode, 64, tokenizer, window_characters=1000))
    assert 0 < tokenizer.most <= 1000 + 64 * CHARACTERS_PER_TOKEN


@pytest.mark.parametrize("blank", ["\u3000", "\u2028", "\x85", "\xa0", "\u2003"])
def test_wide_blanks_do_not_hide_the_sentences(blank: str) -> None:
    # sentencex alone panics on "A\u3000." and its like.
    sentences = [f"See plan A{blank}. It is.", "Ann took the red ball home.", f"Bob{blank}stayed all day."]
    text = blank * 3 + blank.join(sentences)
    chunks = check_chunks(text, "sentences", 8, base_tokenizer())
    assert [text[chunk.start : chunk.end] for chunk in chunks] == sentences


def test_a_panic_of_the_sentence_splitter_costs_sentences_only() -> None:
    class PanicException(BaseException):
        pass

    def panic(language: str, text: str) -> list[dict[str, int]]:
        raise PanicException(language, text)

    text = "One two three. Four five six. Seven eight nine."
    chunks = check_chunks(text, "sentences", 8, base_tokenizer(), split_sentences=panic)
    assert [text[chunk.start : chunk.end] for chunk in chunks] == [
        "One two three. Four five six.",
        "Seven eight nine.",
    ]


def test_an_interrupt_in_the_sentence_splitter_is_passed_on() -> None:
    def interrupt(language: str, text: str) -> list[dict[str, int]]:
        raise KeyboardInterrupt(language, text)

    with pytest.raises(KeyboardInterrupt):
        list(chunk_document("One.", "sentences", 8, base_tokenizer(), split_sentences=interrupt))


# -- what the modes mean ----------------------------------------------------------------------------------------------


def lines_of(text: str) -> Iterator[tuple[int, int]]:
    """The lines as character ranges, without their ends."""
    start = 0
    for end in re.finditer(r"\r\n|\r|\n", text):
        yield start, end.start()
        start = end.end()
    yield start, len(text)


def stripped(text: str, start: int, end: int) -> tuple[int, int]:
    quote = text[start:end]
    return start + len(quote) - len(quote.lstrip()), end - (len(quote) - len(quote.rstrip()))


def expected_pieces(text: str, mode: Mode) -> list[tuple[int, int]]:
    """Lines, blocks of lines between blank lines, or the document; without blanks around them."""
    lines = [(start, end) for start, end in lines_of(text)]
    if mode == "lines":
        groups = [[line] for line in lines]
    elif mode == "paragraphs":
        by_blank = itertools.groupby(lines, key=lambda line: not text[slice(*line)].strip())
        groups = [list(group) for blank, group in by_blank if not blank]
    else:
        groups = [lines]
    pieces = [stripped(text, group[0][0], group[-1][1]) for group in groups]
    return [(start, end) for start, end in pieces if start < end]


@settings(deadline=None, max_examples=600)
@given(texts | st.text("ab.\n\r \x85\u2028\x1c"), st.sampled_from(["lines", "paragraphs", "whole"]), limits)
@example("a\r\n\r\nb\rc\n\x85\nd\r\ne\r\rf\n\rg", "paragraphs", 8)
@example("a\u2028b\x85c\x1cd", "lines", 8)
def test_lines_paragraphs_and_whole_are_what_they_say(text: str, mode: Mode, limit: int) -> None:
    tokenizer = base_tokenizer()
    chunks = [(chunk.start, chunk.end) for chunk in chunk_document(text, mode, limit, tokenizer)]
    for start, end in expected_pieces(text, mode):
        inside = [chunk for chunk in chunks if start <= chunk[0] and chunk[1] <= end]
        fits = tokenizer.count([text[start:end]])[0] <= limit and end - start <= CHARACTERS_PER_TOKEN * limit
        if fits:
            assert inside == [(start, end)]
        else:
            assert len(inside) > 1 or end - start == 1
            assert (inside[0][0], inside[-1][1]) == (start, end)
        chunks = chunks[len(inside) :]
    assert chunks == []


POEM = "Roses are red,\r\n\tviolets are blue.\r\n\r\nSugar\ris sweet.\n \n\nAnd\n"


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("lines", ["Roses are red,", "violets are blue.", "Sugar", "is sweet.", "And"]),
        ("paragraphs", ["Roses are red,\r\n\tviolets are blue.", "Sugar\ris sweet.", "And"]),
        ("whole", [POEM.strip()]),
        ("sentences", [POEM.strip()]),
    ],
)
def test_the_modes_by_example(mode: Mode, expected: list[str]) -> None:
    chunks = chunk_document(POEM, mode, 64, base_tokenizer())
    assert [POEM[chunk.start : chunk.end] for chunk in chunks] == expected


WORDS = ["ball", "hall", "red", "took", "went", "the", "garden", "quickly"]
plain_sentences = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(lambda words: "So " + " ".join(words) + "."),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=200)
@given(plain_sentences, st.sampled_from([" ", "\n", "  ", "\r\n", "\n\n"]), st.sampled_from([16, 64]))
def test_whole_sentences_are_packed_greedily(sentences: list[str], between: str, limit: int) -> None:
    tokenizer = base_tokenizer()
    text = between.join(sentences)
    packs: list[list[str]] = [[]]
    for sentence in sentences:
        if packs[-1] and tokenizer.count([between.join([*packs[-1], sentence])])[0] > limit:
            packs.append([])
        packs[-1].append(sentence)
    chunks = chunk_document(text, "sentences", limit, tokenizer)
    assert [text[chunk.start : chunk.end] for chunk in chunks] == [between.join(pack) for pack in packs]


def test_sentences_of_few_tokens_but_many_characters_stay_whole() -> None:
    # To the tokenizer a word of a hundred characters is one unknown token.
    sentence = "So " + "x" * 110 + "."
    assert base_tokenizer().count([sentence]) == [3]
    text = " ".join([sentence] * 4)
    chunks = chunk_document(text, "sentences", 8, base_tokenizer())
    assert [text[chunk.start : chunk.end] for chunk in chunks] == [sentence] * 4


def test_a_sentence_that_does_not_fit_is_split_between_words() -> None:
    long = " ".join(["the red ball"] * 10) + "."
    text = f"Ann went. {long} Bob came."
    chunks = [text[c.start : c.end] for c in chunk_document(text, "sentences", 8, base_tokenizer())]
    assert chunks[0] == "Ann went."
    assert chunks[-1] == "Bob came."
    assert " ".join(chunks[1:-1]) == long
    assert [chunk.count(" ") + 1 for chunk in chunks[1:-2]] == [8] * 3


def test_a_blank_run_inside_a_piece_is_never_a_chunk() -> None:
    text = "a" + " " * 100_000 + "b"
    assert list(chunk_document(text, "whole", 8, base_tokenizer())) == [Chunk(0, 1, 1), Chunk(100_001, 100_002, 1)]


# -- the request's settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings_", "model_limit", "expected"),
    [
        ({}, 510, 64),
        ({}, 32, 32),
        ({"mode": "whole"}, 510, 510),
        ({"mode": "lines", "max_tokens": 100}, 510, 100),
        ({"mode": "sentences", "max_tokens": 9999}, 510, 510),
    ],
)
def test_the_token_limit_is_asked_for_or_the_models(
    settings_: dict[str, object], model_limit: int, expected: int
) -> None:
    assert Chunking.model_validate(settings_).token_limit(model_limit) == expected


@pytest.mark.parametrize("wrong", [{"mode": "words"}, {"max_tokens": 7}, {"max_tokens": 65537}, {"overlap": 3}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Chunking.model_validate(wrong)
