"""HotpotQA, 2WikiMultihopQA and MuSiQue in their official record formats.

Each paragraph is a document: its title on a line of its own, then its text. It is one chunk, or cut into chunks of
whole sentences. A question's budget is the number of its gold chunks. Files hold one record a line or are one JSON
array.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, Field

from trainer.datasets.files import Entry, entries
from trainer.datasets.question import Question, known_answers
from trainer.datasets.squad import passages

_HOPS = re.compile(r"(\d)hop")
_EARLIER = re.compile(r"#(\d+)")


class _Wiki(BaseModel):
    """What HotpotQA and 2WikiMultihopQA have in common."""

    id: str | None = Field(None, alias="_id")
    question: str
    answer: str | None = None
    context: list[tuple[str, list[str]]] = Field(min_length=1)
    supporting_facts: list[tuple[str, int]] = Field(min_length=1)


class _Paragraph(BaseModel):
    idx: int | None = None
    title: str
    paragraph_text: str
    is_supporting: bool


class _SingleHop(BaseModel):
    question: str
    answer: str
    paragraph_support_idx: int | None


class _Musique(BaseModel):
    id: str | None = None
    question: str
    answer: str | None = None
    answer_aliases: list[str] = []
    paragraphs: list[_Paragraph] = Field(min_length=1)
    question_decomposition: list[_SingleHop] = Field(default_factory=list)
    answerable: bool = True


def read_hotpotqa(path: Path, words: int | None = None) -> Iterator[Question]:
    """The questions of a HotpotQA file (distractor setting), task ``hotpotqa``.

    With ``words``, task ``hotpotqa_sentences``: whole sentences packed into chunks of at most so many words.
    """
    return _read_wiki(path, "hotpotqa", words)


def read_2wiki(path: Path, words: int | None = None) -> Iterator[Question]:
    """The questions of a 2WikiMultihopQA file, task ``2wiki``; with ``words`` as for HotpotQA."""
    return _read_wiki(path, "2wiki", words)


def read_musique(path: Path, words: int | None = None) -> Iterator[Question]:
    """The questions of a MuSiQue file, task ``musique``; unanswerable ones are left out: their support is not there.

    With ``words``, task ``musique_sentences``, as for HotpotQA. Support is then, for each single-hop question, the
    chunk in which its answer first stands; where one stands nowhere, the question is left out.
    """
    for entry, record in _answerable(path):
        cut = _cut(record, words)
        if words is None:
            task = "musique"
            support = [number for number, paragraph in enumerate(record.paragraphs) if paragraph.is_supporting]
        else:
            task, support = "musique_sentences", []
            for hop, place in _hops(entry, record):
                support += [] if place is None else cut.with_answer(place, hop.answer)
            if not support or len(support) < len(record.question_decomposition):
                continue
        answers = known_answers(record.answer, *record.answer_aliases)
        yield _question(entry, record.id, task, record.question, cut.chunks, support, cut.counts, answers)


def read_musique_single_hops(path: Path, words: int | None = None) -> Iterator[Question]:
    """The single-hop questions that MuSiQue's questions were made of, task ``musique_hops``.

    ``#1`` in a question is replaced by the first one's answer. The candidates are the record's paragraphs,
    the support is the one paragraph that answers. With ``words``, task ``musique_hops_sentences``: the chunk in which
    the answer first stands.
    """
    task = "musique_hops" if words is None else "musique_hops_sentences"
    for entry, record in _answerable(path):
        cut = _cut(record, words)
        for number, (hop, place) in enumerate(_hops(entry, record)):
            if place is None:
                continue
            support = [place] if words is None else cut.with_answer(place, hop.answer)
            if support:
                earlier = [before.answer for before in record.question_decomposition[:number]]
                text = _with_answers(entry, hop.question, earlier)
                name = f"{record.id or entry.name()}#{number + 1}"
                answers = known_answers(hop.answer)
                yield _question(entry, name, task, text, cut.chunks, support, cut.counts, answers)


def musique_hops(question_id: str) -> int:
    """How many hops a MuSiQue id such as ``3hop1__1_2_3`` names; raises :class:`ValueError` for another id."""
    match = _HOPS.match(question_id)
    if match is None:
        raise ValueError(f"{question_id!r} is no id of MuSiQue: it does not begin with the number of hops")
    return int(match[1])


def _read_wiki(path: Path, task: str, words: int | None) -> Iterator[Question]:
    for entry in entries(path):
        record = entry.parse(_Wiki)
        gold = [(_gold(entry, record, title, sentence), sentence) for title, sentence in record.supporting_facts]
        if words is None:
            chunks = [_chunk(title, _joined(sentences)) for title, sentences in record.context]
            support = [paragraph for paragraph, _ in gold]
            answers = known_answers(record.answer)
            yield _question(entry, record.id, task, record.question, chunks, support, answers=answers)
        else:
            yield _in_sentences(entry, record, f"{task}_sentences", gold, words)


def _in_sentences(entry: Entry, record: _Wiki, task: str, gold: Sequence[tuple[int, int]], words: int) -> Question:
    """``gold`` has the paragraph and the sentence of each supporting fact."""
    packed = [_packed(title, sentences, words) for title, sentences in record.context]
    firsts = [0, *itertools.accumulate(len(chunks) for chunks, _ in packed)]
    # A sentence past the end of the paragraph stands for its last.
    support = [
        firsts[paragraph] + packed[paragraph][1][min(sentence, len(packed[paragraph][1]) - 1)]
        for paragraph, sentence in gold
    ]
    texts = [chunk for chunks, _ in packed for chunk in chunks]
    counts = tuple(len(chunks) for chunks, _ in packed)
    return _question(entry, record.id, task, record.question, texts, support, counts, known_answers(record.answer))


def _packed(title: str, sentences: Sequence[str], words: int) -> tuple[list[str], list[int]]:
    """A paragraph's chunks, and in which of them each sentence is; the title stands before the first."""
    groups: list[list[str]] = [[]]
    place: list[int] = []
    for sentence in sentences or [""]:
        if groups[-1] and len(_joined([*groups[-1], sentence]).split()) > words:
            groups.append([])
        groups[-1].append(sentence)
        place.append(len(groups) - 1)
    chunks = [_joined(group) for group in groups]
    return [_chunk(title, chunks[0]), *chunks[1:]], place


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(filter(None, map(str.strip, sentences)))


def _gold(entry: Entry, record: _Wiki, title: str, sentence: int) -> int:
    """Where the paragraph is that a supporting fact means.

    Of several with that title, the first that has such a sentence; official files also name sentences past the
    end of the paragraph, which is meant all the same.
    """
    titled = [number for number, (other, _) in enumerate(record.context) if other == title]
    if not titled:
        raise entry.error(
            f"supporting_facts names {title!r}, but no paragraph of the context has this title: "
            "use the file of the distractor setting, or leave the record out"
        )
    return next((number for number in titled if 0 <= sentence < len(record.context[number][1])), titled[0])


def _answerable(path: Path) -> Iterator[tuple[Entry, _Musique]]:
    for entry in entries(path):
        record = entry.parse(_Musique)
        if record.answerable:
            yield entry, record


def _hops(entry: Entry, record: _Musique) -> Iterator[tuple[_SingleHop, int | None]]:
    """Each single-hop question with the number of the paragraph that answers it, where one is named."""
    place = {
        number if paragraph.idx is None else paragraph.idx: number for number, paragraph in enumerate(record.paragraphs)
    }
    for number, hop in enumerate(record.question_decomposition):
        if hop.paragraph_support_idx is not None and hop.paragraph_support_idx not in place:
            raise entry.error(f"question_decomposition.{number}: no paragraph has idx {hop.paragraph_support_idx}")
        yield hop, None if hop.paragraph_support_idx is None else place[hop.paragraph_support_idx]


@dataclass(frozen=True, slots=True)
class _Cut:
    """The paragraphs of a record, cut."""

    texts: Sequence[str]
    starts: Sequence[Sequence[int]]
    """Where in the text of each paragraph its chunks begin."""
    chunks: Sequence[str]

    @property
    def counts(self) -> tuple[int, ...]:
        return tuple(map(len, self.starts))

    def with_answer(self, paragraph: int, answer: str) -> list[int]:
        """The position of the chunk of a paragraph in which the answer first stands; none if it is not there."""
        match = re.search(re.escape(answer), self.texts[paragraph], re.IGNORECASE)
        first = sum(self.counts[:paragraph])
        return [] if match is None else [first + max(0, bisect_right(self.starts[paragraph], match.start()) - 1)]


def _cut(record: _Musique, words: int | None) -> _Cut:
    """Whole paragraphs, or sentences packed up to so many words; a title stands before a paragraph's first chunk."""
    texts = [paragraph.paragraph_text for paragraph in record.paragraphs]
    # An empty text is a chunk as well: its title.
    spans = [
        [(0, len(text))]
        if words is None or not text.strip()
        else [(chunk.start, chunk.end) for chunk in passages(text, words)]
        for text in texts
    ]
    chunks = [
        _chunk(paragraph.title if number == 0 else "", text[start:end])
        for paragraph, text, pieces in zip(record.paragraphs, texts, spans, strict=True)
        for number, (start, end) in enumerate(pieces)
    ]
    return _Cut(texts, [[start for start, _ in pieces] for pieces in spans], chunks)


def _with_answers(entry: Entry, question: str, answers: Sequence[str]) -> str:
    def answer(match: re.Match[str]) -> str:
        number = int(match[1])
        if not 1 <= number <= len(answers):
            raise entry.error(f"the sub-question {question!r} refers to {match[0]}, which is not answered before it")
        return answers[number - 1]

    return _EARLIER.sub(answer, question)


def _chunk(title: str, text: str) -> str:
    return f"{title.strip()}\n{text.strip()}".strip()


def _question(
    entry: Entry,
    question_id: str | None,
    task: str,
    text: str,
    chunks: Sequence[str],
    support: Sequence[int],
    counts: tuple[int, ...] | None = None,
    answers: tuple[str, ...] = (),
) -> Question:
    """``counts`` are the chunks of each document; default: each has one."""
    needed = frozenset(support)
    try:
        return Question(
            id=question_id or entry.name(),
            task=task,
            text=text,
            chunks=chunks,
            counts=(1,) * len(chunks) if counts is None else counts,
            support=needed,
            budget=max(1, len(needed)),
            answers=answers,
        )
    except ValueError as failure:
        raise entry.error(str(failure)) from None
