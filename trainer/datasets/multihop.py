"""HotpotQA, 2WikiMultihopQA and MuSiQue in their official record formats.

Each paragraph is a document: its title on a line of its own, then its text. It is one chunk; where the support is
known by sentence it can also be cut into chunks of whole sentences. A question's budget is the number of its gold
chunks. Files hold one record a line or are one JSON array.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel, Field

from trainer.datasets.files import Entry, entries
from trainer.datasets.question import Question

_HOPS = re.compile(r"(\d)hop")
_EARLIER = re.compile(r"#(\d+)")


class _Wiki(BaseModel):
    """What HotpotQA and 2WikiMultihopQA have in common."""

    id: str | None = Field(None, alias="_id")
    question: str
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


def read_musique(path: Path) -> Iterator[Question]:
    """The questions of a MuSiQue file, task ``musique``; unanswerable ones are left out: their support is not there."""
    for entry in entries(path):
        record = entry.parse(_Musique)
        if record.answerable:
            support = [number for number, paragraph in enumerate(record.paragraphs) if paragraph.is_supporting]
            yield _question(entry, record.id, "musique", record.question, _musique_chunks(record), support)


def read_musique_single_hops(path: Path) -> Iterator[Question]:
    """The single-hop questions that MuSiQue's questions were made of, task ``musique_hops``.

    ``#1`` in a question is replaced by the first one's answer. The candidates are the record's paragraphs,
    the support is the one paragraph that answers.
    """
    for entry in entries(path):
        record = entry.parse(_Musique)
        if not record.answerable:
            continue
        chunks = _musique_chunks(record)
        place = {
            number if paragraph.idx is None else paragraph.idx: number
            for number, paragraph in enumerate(record.paragraphs)
        }
        for number, hop in enumerate(record.question_decomposition):
            if hop.paragraph_support_idx is None:
                continue
            if hop.paragraph_support_idx not in place:
                raise entry.error(f"question_decomposition.{number}: no paragraph has idx {hop.paragraph_support_idx}")
            answers = [earlier.answer for earlier in record.question_decomposition[:number]]
            text = _with_answers(entry, hop.question, answers)
            name = f"{record.id or entry.name()}#{number + 1}"
            yield _question(entry, name, "musique_hops", text, chunks, [place[hop.paragraph_support_idx]])


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
            yield _question(entry, record.id, task, record.question, chunks, [paragraph for paragraph, _ in gold])
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
    question = _question(entry, record.id, task, record.question, texts, support)
    return replace(question, counts=tuple(len(chunks) for chunks, _ in packed))


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


def _musique_chunks(record: _Musique) -> list[str]:
    return [_chunk(paragraph.title, paragraph.paragraph_text) for paragraph in record.paragraphs]


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
    entry: Entry, question_id: str | None, task: str, text: str, chunks: Sequence[str], support: Sequence[int]
) -> Question:
    needed = frozenset(support)
    try:
        return Question(
            id=question_id or entry.name(),
            task=task,
            text=text,
            chunks=chunks,
            counts=(1,) * len(chunks),
            support=needed,
            budget=max(1, len(needed)),
        )
    except ValueError as failure:
        raise entry.error(str(failure)) from None
