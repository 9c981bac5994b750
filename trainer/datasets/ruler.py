"""RULER's eight needle tasks (NVIDIA/RULER, arXiv 2404.06654): made anew at any length, or read from its files.

A question's one document is the prompt's context, cut into sentences; each needle is a chunk of its own. Support
is every needle with an asked key. Settings and sentences are RULER's; the length is an estimate (:func:`count_tokens`).
"""

from __future__ import annotations

import functools
import importlib.resources
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from trainer.datasets.books import book_sentences
from trainer.datasets.files import Entry, entries
from trainer.datasets.question import Question
from trainer.errors import DataError

BUDGET = 4
NOISE = ("The grass is green.", "The sky is blue.", "The sun is yellow.", "Here we go.", "There and back again.")
DEPTHS = np.linspace(0, 100, num=40).round().astype(int)
"""Where needles can stand in an essay, in hundredths of its sentences."""

_PIECE = re.compile(r"[^\W_]{1,6}|[^\w\s]|_")
_NEEDLE = re.compile(r"One of the special magic (\w+) for (.+?) is: (\S+?)\.(?=\s|$)")
_PROMPT = re.compile(
    r"afterwards\.\n(?P<context>.*)\n"
    r"(?P<question>What (?:is|are all) the special magic \w+ for (?P<keys>[^\n]+?) mentioned in the provided text\?)",
    re.DOTALL,
)

Kind = Literal["words", "numbers", "uuids"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One of RULER's settings."""

    haystack: Literal["noise", "essay", "needles"]
    key: Kind = "words"
    value: Kind = "numbers"
    keys: int = 1
    values: int = 1
    """Needles for each key."""
    asked: int = 1
    """How many of the keys the question names."""


VARIANTS = {  # RULER's names begin with `niah_`
    "single_1": Variant("noise"),
    "single_2": Variant("essay"),
    "single_3": Variant("essay", value="uuids"),
    "multikey_1": Variant("essay", keys=4),
    "multikey_2": Variant("needles"),
    "multikey_3": Variant("needles", key="uuids", value="uuids"),
    "multivalue": Variant("essay", values=4),
    "multiquery": Variant("essay", keys=4, asked=4),
}


@dataclass(frozen=True, slots=True)
class Words:
    """What keys such as ``lively-river`` are made of."""

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]


@functools.cache
def wonderwords() -> Words:
    """RULER's own lists, from the package ``wonderwords``; raises :class:`ImportError` where it is not installed."""
    try:
        folder = importlib.resources.files("wonderwords.assets")
    except ModuleNotFoundError:
        raise ImportError("RULER's keys are made of the words of a package: pip install wonderwords") from None

    def words(name: str) -> tuple[str, ...]:
        text = (folder / name).read_text(encoding="utf-8")
        return tuple(line.strip() for line in text.splitlines() if line.strip())

    return Words(words("adjectivelist.txt"), words("nounlist.txt"))


def count_tokens(text: str) -> int:
    """About how many tokens a text has: pieces of up to six letters and digits, and single other signs."""
    return len(_PIECE.findall(text))


def generate_ruler(
    variant: str,
    tokens: int,
    sentences: Sequence[str],
    generator: np.random.Generator,
    budget: int = BUDGET,
    words: Words | None = None,
) -> Question:
    """A new question of one of ``VARIANTS`` over a context of about ``tokens`` tokens, task ``niah_...``.

    ``sentences`` are for the variants with an essay: consecutive ones from a random one on, and from the
    first after the last. ``words`` are :func:`wonderwords` by default. Raises :class:`ValueError` for another
    variant, or where an essay is wanted and there are no sentences.
    """
    if variant not in VARIANTS:
        raise ValueError(f"{variant!r} is none of RULER's needle tasks: {', '.join(VARIANTS)}")
    words = words or wonderwords()
    setting = VARIANTS[variant]
    keys = _distinct(setting.key, setting.keys, words, generator)
    values = _random(setting.value, setting.keys * setting.values, words, generator)
    needles = [_needle(setting, keys[index // setting.values], value) for index, value in enumerate(values)]
    room = max(0, tokens - sum(map(count_tokens, needles)))
    if setting.haystack == "essay":
        haystack = _essay(sentences, room, generator)
        depths = generator.choice(DEPTHS, size=len(needles), replace=False)
        gaps = np.sort(len(haystack) * depths // 100)
    else:
        haystack = _noise(room) if setting.haystack == "noise" else _needles(setting, room, set(keys), words, generator)
        gaps = np.sort(generator.integers(len(haystack) + 1, size=len(needles)))
    order = generator.permutation(len(needles))
    chunks: list[str] = []
    places: dict[str, list[int]] = {key: [] for key in keys}
    before = 0
    for index, gap in zip(order.tolist(), gaps.tolist(), strict=True):
        chunks += haystack[before:gap]
        before = gap
        places[keys[index // setting.values]].append(len(chunks))
        chunks.append(needles[index])
    chunks += haystack[before:]
    asked = [keys[index] for index in generator.permutation(len(keys))[: setting.asked].tolist()]
    return Question(
        id=f"niah_{variant}/{tokens}/{asked[0]}",
        task=f"niah_{variant}",
        text=_query(setting, asked),
        chunks=chunks,
        counts=(len(chunks),),
        support=frozenset(place for key in asked for place in places[key]),
        budget=budget,
    )


def read_ruler(path: Path, task: str | None = None, budget: int = BUDGET) -> Iterator[Question]:
    """The questions of a file that RULER's generator wrote for a needle task.

    The task is found in the file's name or its folder's (``niah_single_1/validation.jsonl``) if it is not
    given. Raises :class:`DataError` where a prompt is no needle task's, or its context lacks an answer.
    """
    task = task or _task_of(path)
    for entry in entries(path):
        yield _read(entry, task, budget)


class _Prompt(BaseModel):
    input: str
    outputs: list[str] = Field(min_length=1)


def _read(entry: Entry, task: str, budget: int) -> Question:
    prompt = entry.parse(_Prompt)
    match = _PROMPT.search(prompt.input)
    if match is None:
        raise entry.error("input is no prompt of RULER's needle tasks: only the niah files can be read")
    asked = set(re.split(r", and |, ", match["keys"]))
    chunks: list[str] = []
    values: dict[int, str] = {}
    for line in match["context"].split("\n"):
        before = 0
        for needle in _NEEDLE.finditer(line):
            chunks += book_sentences(line[before : needle.start()])
            before = needle.end()
            if needle[2] in asked:
                values[len(chunks)] = needle[3]
            chunks.append(needle.group())
        chunks += book_sentences(line[before:])
    if sorted(values.values()) != sorted(prompt.outputs):
        raise entry.error(
            f"the needles of the asked keys say {sorted(values.values())}, outputs {sorted(prompt.outputs)}"
        )
    return Question(
        id=entry.name(),
        task=task,
        text=match["question"],
        chunks=chunks,
        counts=(len(chunks),),
        support=frozenset(values),
        budget=budget,
    )


def _task_of(path: Path) -> str:
    for name in (path.name, path.parent.name):
        for variant in VARIANTS:
            if name.startswith(f"niah_{variant}"):
                return f"niah_{variant}"
    raise DataError(path, None, "neither the file nor its folder is named after a needle task, as in niah_single_1")


def _needle(variant: Variant, key: str, value: str) -> str:
    return f"One of the special magic {variant.value} for {key} is: {value}."


def _query(variant: Variant, keys: Sequence[str]) -> str:
    if variant.asked * variant.values == 1:
        return f"What is the special magic {variant.value[:-1]} for {keys[0]} mentioned in the provided text?"
    listed = keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])}, and {keys[-1]}"
    return f"What are all the special magic {variant.value} for {listed} mentioned in the provided text?"


def _essay(sentences: Sequence[str], tokens: int, generator: np.random.Generator) -> list[str]:
    if not sentences:
        raise ValueError("no sentences to hide the needles among")
    place = int(generator.integers(len(sentences)))
    essay: list[str] = []
    while tokens > 0:
        sentence = sentences[place]
        tokens -= max(1, count_tokens(sentence))  # max: or sentences without a token would never end it
        essay.append(sentence)
        place = (place + 1) % len(sentences)
    return essay


def _noise(tokens: int) -> list[str]:
    return list(NOISE) * round(tokens / sum(map(count_tokens, NOISE)))


def _needles(
    variant: Variant, tokens: int, excluded: set[str], words: Words, generator: np.random.Generator
) -> list[str]:
    """As many other needles as fit, none with a key of ``excluded``."""
    made: list[str] = []
    while tokens > 0:
        count = min(4096, max(1, tokens // 32))
        keys = _random(variant.key, count, words, generator)
        for key, value in zip(keys, _random(variant.value, count, words, generator), strict=True):
            if tokens > 0 and key not in excluded:
                made.append(_needle(variant, key, value))
                tokens -= count_tokens(made[-1])
    return made


def _distinct(kind: Kind, count: int, words: Words, generator: np.random.Generator) -> list[str]:
    if kind == "words" and len(words.adjectives) * len(words.nouns) <= count:
        raise ValueError("too few words to make different keys of")
    made: dict[str, None] = {}
    while len(made) < count:
        made |= dict.fromkeys(_random(kind, count - len(made), words, generator))
    return list(made)


def _random(kind: Kind, count: int, words: Words, generator: np.random.Generator) -> list[str]:
    if kind == "numbers":
        return [str(number) for number in generator.integers(10**6, 10**7, size=count).tolist()]
    if kind == "uuids":
        data = generator.bytes(16 * count)
        return [str(uuid.UUID(bytes=data[start : start + 16], version=4)) for start in range(0, len(data), 16)]
    firsts = generator.integers(len(words.adjectives), size=count).tolist()
    seconds = generator.integers(len(words.nouns), size=count).tolist()
    return [f"{words.adjectives[first]}-{words.nouns[second]}" for first, second in zip(firsts, seconds, strict=True)]
