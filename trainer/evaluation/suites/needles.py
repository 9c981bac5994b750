"""The suites ``ruler`` and ``ruler-files``: RULER's needle tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from trainer.datasets.question import Question
from trainer.datasets.ruler import VARIANTS, generate_ruler, read_ruler
from trainer.errors import DataError
from trainer.evaluation.suites.test_sets import Length, TestSet, chosen_lengths, generator_of, listed
from trainer.tasks.background import evaluation_sentences

LENGTHS = (
    Length("4K", 4_096, 160, 100),
    Length("16K", 16_384, 600, 100),
    Length("128K", 131_072, 4_600, 50),
    Length("1M", 1_048_576, 40_000, 20),
)
"""Here ``sentences`` are about as many as an essay of this length has."""

ONE_CONTEXT = 10
"""Questions about one context, where it consists of nothing but needles: each is a distractor to the others."""

_NEEDLE = re.compile(r"One of the special magic \w+ for (.+) is: \S+\.")


def ruler(data: Path, lengths: Sequence[str] | None, questions: int | None, seed: int) -> Iterator[TestSet]:
    """RULER's eight needle tasks, generated."""
    for length in chosen_lengths(LENGTHS, lengths):
        essay = evaluation_sentences(data / "books", length.sentences)
        count = questions or length.questions
        for variant in VARIANTS:
            draw = partial(_generated, variant, count, length, essay, seed)
            # The same background also where there is no essay: it would be embedded again for the next variant.
            yield TestSet(f"niah_{variant}", length.label, length.tokens, count, draw, essay)


def _generated(variant: str, count: int, length: Length, essay: Sequence[str], seed: int) -> Iterator[Question]:
    for number in range(count):
        generator = generator_of(seed, variant, length.label, number)
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
    first = keys[min(context.support)]
    others = [key for key, needles in places.items() if len(needles) == 1 and key not in ("", first)]
    yield context
    for key in generator.permutation(others)[: count - 1].tolist():
        yield replace(
            context,
            id=context.id.replace(first, key),
            text=context.text.replace(first, key),
            support=frozenset(places[key]),
        )


def ruler_files(data: Path, lengths: Sequence[str] | None, questions: int | None, _seed: int) -> Iterator[TestSet]:
    """RULER's needle tasks as its own generator wrote them: ``ruler/niah_*_<tokens>.jsonl`` or ``.jsonl.xz``."""
    labels = {length.tokens: length.label for length in LENGTHS}
    files = [(_tokens_of(path), path) for path in (data / "ruler").glob("niah_*.jsonl*")]
    for tokens, path in sorted(files):
        label = labels.get(tokens, str(tokens))
        if not lengths or label in lengths:
            yield listed(list(islice(read_ruler(path), questions)), length=label, tokens=tokens)


def _tokens_of(path: Path) -> int:
    match = re.search(r"_(\d{3,})\.jsonl", path.name)
    if match is None:
        raise DataError(path, None, "the name does not end in the length, as in niah_single_1_4096.jsonl")
    return int(match[1])
