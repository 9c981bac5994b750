"""What an agent finds that asks sub-questions one by one, each as a focus, beside one call with as many chunks.

    python -m benchmarks.agents --data DIR [--spare N ...] [--states NAME ...] [--cache FOLDER]
    python -m benchmarks.agents --data DIR --suite reader [--questions N] [--cache FOLDER]

`musique`: the dev questions of MuSiQue with the sub-questions that they were made of. One call a sub-question, a chunk
each; with one to spare, the last call selects a second; nothing that was found is found again. What stands for `#1` in
a sub-question is the gold answer to the first, or what a frozen reader answers from the chunks found so far: of what it
writes the first name or number that the sub-question does not have, if there is one. Compared are ways to write a state
that has a question, a focus and chunks; what measures best with gold answers is what the service does. Each selection
is the largest exact Q of all chunks that are left, as an episode takes it. The plain episode selects as many chunks for
the whole question in one call. Differences have bootstrap intervals over the questions. Result:
``benchmarks/results/agents.json``.

`reader`: a scripted agent asks a real service over MCP the two-fact questions of books: two passages, and two more with
the continuation until the evidence is likely complete or three calls are made; a frozen reader answers from all.
Result: ``benchmarks/results/agents-reader.json``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel

from benchmarks.agents_over_mcp import answer_over_mcp
from index.arrays import Float64Array, TokenIds
from index.encoders.encoder import Encoder, StateInput
from index.encoders.loading import load_encoder
from index.search.matrix_scope import MatrixScope
from index.search.scoring import best
from index.search.states import States
from service.settings import DEFAULT_CHECKPOINT
from trainer.datasets.evidence import read_evidence
from trainer.datasets.files import entries
from trainer.datasets.multihop import read_musique
from trainer.datasets.question import Question
from trainer.evaluation.machine import describe_machine
from trainer.evaluation.paired import paired_difference
from trainer.evaluation.playing import Player
from trainer.readers.opening import NAME, open_reader
from trainer.readers.protocol import Prompt, Reader, generated

RESULTS = Path(__file__).parent / "results"

SETS = {
    "evidence": ("evidence/musique_dev.jsonl.gz", read_evidence),
    "multihop": ("multihop/musique_dev.jsonl.gz", read_musique),
}
"""The files with questions that no checkpoint was trained on."""

TOGETHER = 16
"""States embedded in one forward pass."""

ANSWER_TOKENS = 16
"""Most tokens of the reader's answer to a sub-question."""

_EARLIER = re.compile(r"#(\d+)")
_WORD = re.compile(r"\w+")
_NAME = re.compile(
    r"[A-Z0-9][\w'’.&-]*(?:(?:\s+(?:of|the|de|da|di|du|del|la|le|von|van|and|in|for|to|at|on|y|&))*\s+[A-Z0-9][\w'’.&-]*)*"
)
_NO_NAMES = frozenset({"the", "a", "an", "of", "in", "it", "he", "she", "they", "yes", "no"})


class Hop(BaseModel):
    """A sub-question; ``#1`` in it stands for the answer to the first."""

    question: str
    answer: str


class _Record(BaseModel):
    id: str
    steps: list[Hop] = []
    question_decomposition: list[Hop] = []


@dataclass(slots=True)
class Chain:
    """A question that an agent is on its way through."""

    question: Question
    hops: Sequence[Hop]
    scope: MatrixScope
    asked: TokenIds
    chunks: Sequence[TokenIds]
    """All chunks as the state tower reads them."""


class Seen(NamedTuple):
    """What a state is written of."""

    question: TokenIds
    focus: TokenIds
    held: tuple[int, ...]
    """Positions of the chunks that earlier calls have found, in increasing order."""
    new: tuple[int, ...]
    """Those of this call."""

    @property
    def all(self) -> tuple[int, ...]:
        """All of them."""
        return tuple(sorted((*self.held, *self.new)))


class Written(NamedTuple):
    """The tokens in the question's place, the chunks in the state, and further tokens behind them."""

    question: TokenIds
    chunks: tuple[int, ...]
    last: TokenIds = ()


WAYS: dict[str, Callable[[Seen], list[Written]]] = {
    "question alone": lambda seen: [Written(seen.question, seen.all)],
    "focus, new chunks": lambda seen: [Written(seen.focus, seen.new)],
    "focus, chunks": lambda seen: [Written(seen.focus, seen.all)],
    "question focus, chunks": lambda seen: [Written([*seen.question, *seen.focus], seen.all)],
    "focus question, chunks": lambda seen: [Written([*seen.focus, *seen.question], seen.all)],
    "question, chunks, focus": lambda seen: [Written(seen.question, seen.all, seen.focus)],
    "mean Q of focus and question": lambda seen: [Written(seen.focus, seen.all), Written(seen.question, seen.all)],
}
"""The ways to write a state; of several states Q is averaged."""

SERVED = "focus, new chunks"
"""What the service does with a focus."""

READ = (SERVED, "focus, chunks", "mean Q of focus and question")
"""The ways that are tried with the reader's answers, too: with gold ones they find more than the question alone."""


def chains(path: Path, read: Callable[[Path], Iterator[Question]], player: Player) -> list[Chain]:
    """The questions of a file with their sub-questions."""
    records = {record.id: record for record in (entry.parse(_Record) for entry in entries(path))}
    questions = list(read(path))
    vectors, encoder = player.vectors(questions), player.encoder
    return [
        Chain(
            question,
            records[question.id].steps or records[question.id].question_decomposition,
            vectors.scope(question),
            encoder.question_tokens(question.text)[: encoder.question_limit],
            encoder.state_tokens(question.chunks),
        )
        for question in questions
    ]


class Embedder:
    """The states of a checkpoint, each embedded once."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._states: dict[tuple[int, tuple[int, ...]], States] = {}

    def states(self, inputs: Sequence[StateInput]) -> list[States]:
        """Each state, embedded."""
        keys = [(state.asked, tuple(state.ids)) for state in inputs]
        unknown = {key: state for key, state in zip(keys, inputs, strict=True) if key not in self._states}
        missing = sorted(unknown.items(), key=lambda entry: len(entry[1].ids))
        for low in range(0, len(missing), TOGETHER):
            batch = missing[low : low + TOGETHER]
            embedded = self.encoder.embed_states([state for _, state in batch])
            self._states |= {key: embedded.between(number, number + 1) for number, (key, _) in enumerate(batch)}
        return [self._states[key] for key in keys]


def select(embedder: Embedder, asked: Sequence[Chain], seen: Sequence[Seen], way: str) -> list[int]:
    """The position that each chain selects next."""
    written = [WAYS[way](each) for each in seen]
    encoder = embedder.encoder
    inputs = [
        encoder.compose_state(
            state.question[: encoder.question_limit],
            [*(chain.chunks[position] for position in state.chunks), *([state.last] if state.last else [])],
        )
        for chain, states in zip(asked, written, strict=True)
        for state in states
    ]
    embedded = iter(embedder.states(inputs))
    selected = []
    for chain, each, states in zip(asked, seen, written, strict=True):
        q = np.mean([_q(encoder, chain, state.chunks, next(embedded)) for state in states], axis=0)
        q[list(each.all)] = -np.inf
        selected.append(int(np.argmax(q)))
    return selected


def _q(encoder: Encoder, chain: Chain, selected: Sequence[int], state: States) -> Float64Array:
    """The Q-value of every chunk that is not ``selected``, shape ``[chunks]``."""
    (estimate,) = chain.scope.estimate(state, [selected], encoder.function)
    q = np.full(len(chain.chunks), -np.inf)
    for candidate in best(estimate, len(q), state[0], chain.scope, selected, encoder.function):
        q[candidate.position] = candidate.q
    return q


def plain(embedder: Embedder, asked: Sequence[Chain], spare: int) -> list[list[int]]:
    """What one episode selects for each whole question: a chunk for each sub-question and ``spare`` more."""
    found: list[list[int]] = [[] for _ in asked]
    for number in range(spare + max(len(chain.hops) for chain in asked)):
        open_ = [place for place, chain in enumerate(asked) if number < len(chain.hops) + spare]
        seen = [Seen(asked[place].asked, (), (), tuple(sorted(found[place]))) for place in open_]
        for place, position in zip(
            open_, select(embedder, [asked[place] for place in open_], seen, "question alone"), strict=True
        ):
            found[place].append(position)
    return found


def agent(embedder: Embedder, asked: Sequence[Chain], way: str, spare: int, reader: Reader | None) -> list[list[int]]:
    """What one call a sub-question selects, in order; the last call selects ``spare`` chunks more.

    Without a reader the gold answers are filled in.
    """
    found: list[list[int]] = [[] for _ in asked]
    answers: list[list[str]] = [[] for _ in asked]
    for hop in range(max(len(chain.hops) for chain in asked)):
        open_ = [place for place, chain in enumerate(asked) if hop < len(chain.hops)]
        foci = {place: filled(asked[place].hops[hop].question, answers[place]) for place in open_}
        tokens = {place: embedder.encoder.question_tokens(foci[place]) for place in open_}
        held = {place: tuple(sorted(found[place])) for place in open_}
        for number in range(1 + spare):
            now = [place for place in open_ if number == 0 or hop == len(asked[place].hops) - 1]
            seen = [
                Seen(asked[place].asked, tokens[place], held[place], tuple(sorted(set(found[place]) - {*held[place]})))
                for place in now
            ]
            for place, position in zip(now, select(embedder, [asked[place] for place in now], seen, way), strict=True):
                found[place].append(position)
        going_on = [place for place in open_ if hop < len(asked[place].hops) - 1]
        texts = [asked[place].hops[hop].answer for place in going_on]
        if reader is not None:
            texts = read(reader, [(foci[place], asked[place].question, found[place]) for place in going_on])
        for place, text in zip(going_on, texts, strict=True):
            answers[place].append(text)
    return found


def filled(text: str, answers: Sequence[str]) -> str:
    """The sub-question with the answers to those before it."""
    return _EARLIER.sub(lambda match: answers[int(match[1]) - 1], text)


def read(reader: Reader, asked: Sequence[tuple[str, Question, Sequence[int]]]) -> list[str]:
    """What the reader answers to each sub-question from the chunks found so far, the latest first."""
    prompts = [
        Prompt(focus, tuple(question.chunks[position] for position in reversed(found)))
        for focus, question, found in asked
    ]
    written = [each.text.strip().partition("\n")[0].rstrip(".") for each in generated(reader, prompts, ANSWER_TOKENS)]
    return [first_name(text, focus) for text, (focus, _, _) in zip(written, asked, strict=True)]


def first_name(text: str, focus: str) -> str:
    """The first name or number in an answer that the sub-question does not have; without one, the whole answer."""
    known = _NO_NAMES.union(_WORD.findall(focus.casefold()))
    names = (found[0].strip(" .,") for found in _NAME.finditer(text))
    return next((name for name in names if not known.issuperset(_WORD.findall(name.casefold()))), text)


class Outcome(NamedTuple):
    """What a way of asking brings for each question."""

    complete: list[float]
    shares: list[float]
    repeated: int


def outcome(asked: Sequence[Chain], found: Sequence[Sequence[int]]) -> Outcome:
    """What these selections bring."""
    support = [chain.question.support for chain in asked]
    shares = [len(gold.intersection(some)) / len(gold) for gold, some in zip(support, found, strict=True)]
    return Outcome([float(share == 1) for share in shares], shares, sum(len(some) - len({*some}) for some in found))


def row(asked: dict[str, list[Chain]], found: Outcome, base: Outcome) -> dict[str, Any]:
    """The figures of one way of asking, over all questions and each set."""

    def figures(values: Sequence[float], others: Sequence[float]) -> dict[str, Any]:
        ends = np.cumsum([0, *map(len, asked.values())])
        by_set = {
            name: round(float(np.mean(values[low:high])), 4)
            for name, low, high in zip(asked, ends[:-1], ends[1:], strict=True)
        }
        above = [round(value, 4) for value in paired_difference(values, others)]
        return {"mean": round(float(np.mean(values)), 4), **by_set, "above_plain": above}

    return {
        "recall": figures(found.complete, base.complete),
        "share": figures(found.shares, base.shares),
        "repeated_chunks": found.repeated,
    }


def musique(
    data: Path, checkpoint: Path, spares: Sequence[int], ways: Sequence[str], reader: str, cache: Path | None
) -> Iterator[dict[str, Any]]:
    """The comparison on MuSiQue, as far as it is each time."""
    player = Player(load_encoder(checkpoint), cache=cache)
    asked = {name: chains(data / path, load, player) for name, (path, load) in SETS.items()}
    every = [chain for some in asked.values() for chain in some]
    embedder = Embedder(player.encoder)
    rows: dict[str, Any] = {}
    with open_reader(reader, torch.device("cpu"), None if cache is None else cache / "agents.sqlite") as opened:
        for spare in spares:
            base = outcome(every, plain(embedder, every, spare))
            of_spare = rows[f"{spare} spare"] = {"plain": row(asked, base, base)}
            for way in ways:
                for filler, by in (("gold answers", None), ("reader", opened))[: 2 if way in READ else 1]:
                    found = outcome(every, agent(embedder, every, way, spare, by))
                    of_spare[f"{way}; {filler}"] = row(asked, found, base)
                    print(spare, way, filler, json.dumps(of_spare[f"{way}; {filler}"]), flush=True)
                yield {
                    "checkpoint": player.encoder.config.fingerprint,
                    "reader": opened.identity.partition(" ")[0],
                    "questions": {name: len(some) for name, some in asked.items()},
                    "sub_questions": sum(len(chain.hops) for chain in every),
                    "served": SERVED,
                    "rows": rows,
                }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the data")
    parser.add_argument("--suite", choices=("musique", "reader"), default="musique")
    parser.add_argument("--spare", type=int, nargs="+", default=[0, 1], metavar="N", help="default: 0 1")
    parser.add_argument("--states", nargs="+", choices=WAYS, default=[*WAYS][1:], metavar="NAME", help="only these")
    parser.add_argument("--questions", type=int, default=7, metavar="N", help="of suite reader; default: 7")
    parser.add_argument("--reader", default=NAME, help=f"see docs/training.md; default: {NAME}")
    parser.add_argument("--checkpoint", type=Path, default=DEFAULT_CHECKPOINT)
    parser.add_argument(
        "--cache", type=Path, metavar="FOLDER", help="embeddings and what the reader says are kept here"
    )
    arguments = parser.parse_args()
    if arguments.suite == "musique":
        for result in musique(
            arguments.data, arguments.checkpoint, arguments.spare, arguments.states, arguments.reader, arguments.cache
        ):
            write("agents.json", result)
    else:
        with open_reader(arguments.reader, torch.device("cpu")) as reader:
            write("agents-reader.json", asyncio.run(answer_over_mcp(arguments.data, reader, arguments.questions)))


def write(file: str, result: dict[str, Any]) -> None:
    """Leave a result behind."""
    (RESULTS / file).write_text(json.dumps({"machine": describe_machine(), **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
