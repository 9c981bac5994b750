"""The test questions of the evaluation protocol.

They depend on the data, the suite's seed, and the numbers asked for; never on a checkpoint. Questions of one test set
are made one after the other: at ten million tokens each has 400,000 chunks.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby, islice
from pathlib import Path

import numpy as np

from trainer.datasets.babi import BabiQuestion, hide, read_babi
from trainer.datasets.books import book_sentences, read_books
from trainer.datasets.jsonl import read_jsonl
from trainer.datasets.multihop import musique_hops, read_2wiki, read_hotpotqa, read_musique
from trainer.datasets.question import Question
from trainer.datasets.ruler import VARIANTS, generate_ruler, read_ruler
from trainer.datasets.squad import passages, read_squad
from trainer.errors import DataError, RecipeError
from trainer.tasks.mixture import BOOK_SHARE, BUDGETS, KEPT_BOOKS, SENTENCE_READERS, as_one_document, middle_sentences

EVERY = 1_000_000
"""More questions than there are: all of them."""

SHORT = 20_000
"""Sentences up to which a document is hidden in a share of each book."""

ONE_CONTEXT = 10
"""Questions about one context, where it consists of nothing but needles: each is a distractor to the others."""

_MULTIHOP = {"hotpotqa": read_hotpotqa, "2wiki": read_2wiki, "musique": read_musique}
SENTENCE_WORDS = 45
"""Of a chunk of packed sentences: about the 64 tokens that the service packs by default."""

_NEEDLE = re.compile(r"One of the special magic \w+ for (.+) is: \S+\.")


@dataclass(frozen=True, slots=True)
class TestSet:
    """Questions that are reported as one row."""

    __test__ = False  # pytest: not a test case

    task: str
    length: str
    """Label of the documents' length; empty where it is as it comes."""
    tokens: int | None
    """The same as a number, for plots."""
    count: int
    draw: Callable[[], Iterator[Question]]
    """Makes the questions: the same ones each time."""
    background: Sequence[str] = ()
    """The text that most chunks come from, in order; the same object where it is shared between sets."""
    part: bool = False
    """Whether its questions are also in another set."""


@dataclass(frozen=True, slots=True)
class Length:
    """A length of the protocol."""

    label: str
    tokens: int
    sentences: int
    """Chunks of a BabiLong document."""
    questions: int
    """Asked of each task unless told otherwise."""


BABILONG_LENGTHS = (
    Length("1K", 1_000, 50, EVERY),
    Length("4K", 4_000, 160, EVERY),
    Length("32K", 32_000, 1_200, EVERY),
    Length("128K", 128_000, 4_600, EVERY),
    Length("1M", 1_000_000, 40_000, 200),
    Length("10M", 10_000_000, 400_000, 100),
)
RULER_LENGTHS = (
    Length("4K", 4_096, 160, 100),
    Length("16K", 16_384, 600, 100),
    Length("128K", 131_072, 4_600, 50),
    Length("1M", 1_048_576, 40_000, 20),
)
"""Here ``sentences`` are about as many as an essay of this length has."""

SQUAD_LENGTHS = (
    Length("32K", 32_000, 650, EVERY),
    Length("128K", 128_000, 2_600, EVERY),
    Length("1M", 1_000_000, 20_000, EVERY),
)
"""Here ``sentences`` are packed ones, of some fifty tokens."""

SQUAD_BUDGET = 4
"""Selections for one fact, as BabiLong allows."""


def babilong(data: Path, lengths: Sequence[str] | None, questions: int | None, seed: int) -> Iterator[TestSet]:
    """bAbI QA1 to QA5, published dev part, hidden among sentences of books that no training reads.

    A document of each length has the questions' facts in order at random places; questions, places and background
    differ with the seed.
    """
    items = {task: read_babi(data / "babi" / "published" / f"{task}_dev.txt", task) for task in BUDGETS}
    for length in _chosen(BABILONG_LENGTHS, lengths):
        background = evaluation_sentences(data / "books", length.sentences)
        for task, all_items in items.items():
            # Not the first ones: they would be those of a few stories.
            order = _generator(seed, task, length.label).permutation(len(all_items)).tolist()
            chosen = [all_items[at] for at in order[: questions or length.questions]]
            draw = partial(_hidden, chosen, background, length, BUDGETS[task], seed)
            yield TestSet(task, length.label, length.tokens, len(chosen), draw, background)


def _hidden(
    items: Sequence[BabiQuestion], background: Sequence[str], length: Length, budget: int, seed: int
) -> Iterator[Question]:
    for item in items:
        # Of its own, so that a question stays the same however many are asked.
        generator = _generator(seed, item.id, length.label)
        yield hide(item, background, length.sentences, generator, budget)


def evaluation_sentences(books: Path, length: int) -> Sequence[str]:
    """Background for documents of ``length`` sentences: of the books' dev part as far as it suffices.

    For short documents a share of each book, for long ones whole books, and after those of the dev part the books of
    the training part that no training reads.
    """
    # One in twenty more, so that not all documents begin at the same sentence.
    return _background(books, length + length // 20 if length > SHORT else None)


@functools.lru_cache(maxsize=1)  # the same object for lengths in a row; one more than the longest would be too much
def _background(books: Path, count: int | None) -> tuple[str, ...]:
    if count is None:
        return tuple(
            sentence for book in read_books(books, "dev") for sentence in middle_sentences(book.text, BOOK_SHARE)
        )
    found: list[str] = []
    later = islice(read_books(books, "train"), KEPT_BOOKS.start, KEPT_BOOKS.stop)
    for book in chain(read_books(books, "dev"), later):
        found += book_sentences(book.text)
        if len(found) >= count:
            break
    return tuple(found[:count])


def ruler(data: Path, lengths: Sequence[str] | None, questions: int | None, seed: int) -> Iterator[TestSet]:
    """RULER's eight needle tasks, generated."""
    for length in _chosen(RULER_LENGTHS, lengths):
        essay = evaluation_sentences(data / "books", length.sentences)
        count = questions or length.questions
        for variant in VARIANTS:
            draw = partial(_needles, variant, count, length, essay, seed)
            # The same background also where there is no essay: it would be embedded again for the next variant.
            yield TestSet(f"niah_{variant}", length.label, length.tokens, count, draw, essay)


def _needles(variant: str, count: int, length: Length, essay: Sequence[str], seed: int) -> Iterator[Question]:
    for number in range(count):
        generator = _generator(seed, variant, length.label, number)
        if VARIANTS[variant].haystack != "needles":
            yield generate_ruler(variant, length.tokens, essay, generator)
        elif number % ONE_CONTEXT == 0:
            context = generate_ruler(variant, length.tokens, essay, generator)
            yield from _asked_of(context, min(ONE_CONTEXT, count - number), generator)


def _asked_of(context: Question, count: int, generator: np.random.Generator) -> Iterator[Question]:
    """``count`` questions about a context of needles, the first as it comes; each asks for a key that is there once."""
    keys = [match[1] if (match := _NEEDLE.fullmatch(chunk)) else "" for chunk in context.chunks]
    places: dict[str, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(key, []).append(place)
    own = keys[min(context.support)]
    others = [key for key, found in places.items() if len(found) == 1 and key not in ("", own)]
    yield context
    for key in generator.permutation(others)[: count - 1].tolist():
        yield replace(
            context,
            id=context.id.replace(own, key),
            text=context.text.replace(own, key),
            support=frozenset(places[key]),
        )


def ruler_files(data: Path, lengths: Sequence[str] | None, questions: int | None, _seed: int) -> Iterator[TestSet]:
    """RULER's needle tasks as its own generator wrote them: ``ruler/niah_*_<tokens>.jsonl`` or ``.jsonl.xz``."""
    labels = {length.tokens: length.label for length in RULER_LENGTHS}
    found = [(_tokens_of(path), path) for path in (data / "ruler").glob("niah_*.jsonl*")]
    for tokens, path in sorted(found):
        label = labels.get(tokens, str(tokens))
        if not lengths or label in lengths:
            yield _listed(list(islice(read_ruler(path), questions)), length=label, tokens=tokens)


def _tokens_of(path: Path) -> int:
    match = re.search(r"_(\d{3,})\.jsonl", path.name)
    if match is None:
        raise DataError(path, None, "the name does not end in the length, as in niah_single_1_4096.jsonl")
    return int(match[1])


def multihop(data: Path, _lengths: Sequence[str] | None, questions: int | None, _seed: int) -> Iterator[TestSet]:
    """HotpotQA, 2WikiMultihopQA and MuSiQue, dev parts: as many selections as there are gold chunks.

    Chunks are paragraphs, and in ``hotpotqa_sentences`` and ``2wiki_sentences`` packed sentences.
    """
    for task, read in _MULTIHOP.items():
        path = data / "multihop" / f"{task}_dev.jsonl.gz"
        found = list(islice(read(path), questions))
        yield _listed(found)
        if task != "musique":  # which does not say itself which sentences are support
            yield _listed(list(islice(SENTENCE_READERS[task](path, SENTENCE_WORDS), questions)))
            continue
        for hops in (2, 3, 4):
            part = [replace(one, task=f"musique_{hops}hop") for one in found if musique_hops(one.id) == hops]
            if part:
                yield replace(_listed(part), part=True)


def multihop_joined(data: Path, lengths: Sequence[str] | None, questions: int | None, seed: int) -> Iterator[TestSet]:
    """The same, the chunks of a question being one document in the order of the file, as they would stand in a book."""
    for apart in multihop(data, lengths, questions, seed):
        found = [as_one_document(question) for question in apart.draw()]
        yield replace(apart, draw=partial(iter, found))


def squad(data: Path, lengths: Sequence[str] | None, questions: int | None, seed: int) -> Iterator[TestSet]:
    """SQuAD's questions, dev part: each asks for one fact of running prose.

    All articles, one after the other, are the middle of one document; before and after them are books. It is cut into
    packed sentences.
    """
    found = list(read_squad(data / "squad" / "xquad_en_dev.json", SENTENCE_WORDS))
    articles = [list(group) for _, group in groupby(found, key=lambda question: question.chunks)]
    texts = [chunk for article in articles for chunk in article[0].chunks]
    for length in _chosen(SQUAD_LENGTHS, lengths):
        around = _passages(data / "books", max(0, length.sentences - len(texts)))
        first = len(around) // 2
        document = [*around[:first], *texts, *around[first:]]
        asked = []
        for article in articles:
            for question in article:
                place = frozenset(first + position for position in question.support)
                asked.append(
                    replace(question, chunks=document, counts=(len(document),), support=place, budget=SQUAD_BUDGET)
                )
            first += len(article[0].chunks)
        order = _generator(seed, "squad").permutation(len(asked)).tolist()
        chosen = [asked[at] for at in order[: questions or length.questions]]
        yield replace(_listed(chosen, length.label, length.tokens), background=document)


def _passages(books: Path, count: int) -> list[str]:
    """Packed sentences of the books' dev part."""
    found = (
        book.text[chunk.start : chunk.end]
        for book in read_books(books, "dev")
        for chunk in passages(book.text, SENTENCE_WORDS)
    )
    return list(islice(found, count))


def own(data: Path, _lengths: Sequence[str] | None, questions: int | None, _seed: int) -> Iterator[TestSet]:
    """One's own file in the plain format, see ``docs/data.md``; ``data`` is the file. A row for each of its tasks."""
    tasks: dict[str, list[Question]] = {}
    for question in read_jsonl(data):
        tasks.setdefault(question.task, []).append(question)
    for found in tasks.values():
        yield _listed(found[:questions])


SUITES: dict[str, Callable[[Path, Sequence[str] | None, int | None, int], Iterator[TestSet]]] = {
    "babilong": babilong,
    "ruler": ruler,
    "ruler-files": ruler_files,
    "multihop": multihop,
    "multihop-joined": multihop_joined,
    "squad": squad,
    "jsonl": own,
}
"""By name: called with the data, labels of lengths (none: all), questions a row (none: as many as usual), the seed."""


def _listed(questions: Sequence[Question], length: str = "", tokens: int | None = None) -> TestSet:
    return TestSet(questions[0].task, length, tokens, len(questions), lambda: iter(questions))


def _chosen(known: Iterable[Length], labels: Sequence[str] | None) -> list[Length]:
    lengths = {length.label: length for length in known}
    if unknown := [label for label in labels or () if label not in lengths]:
        raise RecipeError(f"There is no length {unknown[0]} in this suite, but {', '.join(lengths)}.")
    return [length for label, length in lengths.items() if not labels or label in labels]


def _generator(*names: str | int) -> np.random.Generator:
    """Random numbers that depend on the names alone, in every process."""
    return np.random.default_rng(list(hashlib.sha256("/".join(map(str, names)).encode()).digest()))
