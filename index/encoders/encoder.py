"""The two encoders of a checkpoint: texts to tokens, tokens to embeddings.

The *state tower* reads ``question [SEP] chunk [SEP] chunk ...``, the *action tower* one chunk.
Both run in inference mode, in bfloat16 where that is the faster on this machine, and return
float32 embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch

from index.arrays import Float32Array, TokenIds
from index.encoders.checkpoint import CheckpointConfig
from index.encoders.heads import Heads, WeighedTerms
from index.encoders.tokenizer import TextTokenizer
from index.encoders.tower import Tower
from index.episodes.stopping import UNTAUGHT, Stopping
from index.search.function import QFunction
from index.search.states import States, TermWeights, concatenate

HEADING_TOKENS = 32
"""Most tokens of a chunk's heading that are read."""

QUESTIONS_KEPT = 4096
"""Most embeddings of questions cached for the next steps of their episodes: 6 MB for 384 dimensions."""


@dataclass(frozen=True, slots=True)
class StateInput:
    """A tokenised state; ``dropped`` tokens of its chunks did not fit the state tower."""

    ids: list[int]
    dropped: int
    question: tuple[int, ...]
    """Its question alone, as the action tower reads it."""
    first: tuple[int, ...]
    """The state of its question before anything is selected, as the state tower reads it."""
    asked: int
    """How many of the ``ids``, from the first on, are not of its chunks."""


class ReadStates(NamedTuple):
    """States as tensors; gradients can flow through them."""

    embeddings: torch.Tensor
    """Shape ``[states, d]``."""
    order: torch.Tensor | None
    """What each asks of order, shape ``[states, k]``; none where positions have no space of their own."""
    terms: list[WeighedTerms] | None
    """None where no tokens are weighed."""
    surroundings: torch.Tensor | None = None
    """How much the chunks beside a candidate count, shape ``[states]``; none where each stands for itself."""


def read_states(tower: Tower, heads: Heads, states: Sequence[StateInput]) -> ReadStates:
    """One batch of states, read by the state tower and the heads on it."""
    embeddings, hidden = tower.read([state.ids for state in states])
    return ReadStates(
        embeddings,
        None if heads.order is None else heads.order(embeddings),
        None
        if heads.terms is None
        else heads.terms(hidden, [state.ids for state in states], [state.asked for state in states]),
        None if heads.surroundings is None else heads.surroundings(embeddings),
    )


def is_first(state: StateInput) -> bool:
    """Whether nothing is selected in a state."""
    return len(state.ids) == len(state.first)


class _Remembered:
    """Embeddings of questions: each is embedded once, however many steps its episode takes."""

    def __init__(self) -> None:
        self._embeddings: dict[tuple[int, ...], Float32Array] = {}

    def embed(
        self,
        questions: Sequence[tuple[int, ...]],
        tower: Tower,
        embedded: Mapping[tuple[int, ...], Float32Array] = MappingProxyType({}),
    ) -> Float32Array:
        """The embedding of each of the tokenised questions, shape ``[questions, d]``; some are ``embedded`` already."""
        known = self._embeddings
        known.update(embedded)
        if unknown := [question for question in dict.fromkeys(questions) if question not in known]:
            known.update(zip(unknown, tower.embed(unknown), strict=True))
        self._embeddings = (
            known if len(known) <= QUESTIONS_KEPT else {question: known[question] for question in set(questions)}
        )
        return np.stack([known[question] for question in questions])


class Encoder:
    """A loaded checkpoint: both towers, the heads on the state tower, and the Q-function around them."""

    def __init__(
        self,
        config: CheckpointConfig,
        state: Tower,
        action: Tower,
        stopping: Stopping = UNTAUGHT,
        heads: Heads | None = None,
    ) -> None:
        self.config = config
        self.stopping = stopping
        self.heads = heads or Heads()
        self.function: QFunction = config.function(self.heads)
        self.state_tower = state
        self.action_tower = action
        self._separator = state.tokenizer.separator(config.separator)
        self._questions, self._firsts = _Remembered(), _Remembered()
        self.action_batch_tokens = action.batch_tokens

    @property
    def device(self) -> torch.device:
        """The device of both towers."""
        return self.state_tower._device

    @property
    def dtype(self) -> torch.dtype:
        """What both towers compute in."""
        return self.state_tower.model.dtype

    @property
    def chunk_tokenizer(self) -> TextTokenizer:
        """Counts tokens the way the action tower does."""
        return self.action_tower.tokenizer

    @property
    def chunk_limit(self) -> int:
        """Most tokens of a chunk that the action tower reads whole."""
        tokenizer = self.action_tower.tokenizer
        prefix = len(tokenizer.tokenize([self.config.action_prefix])[0])
        heading = HEADING_TOKENS if self.config.headings else 0
        return self.config.action_tokens - len(tokenizer.before) - len(tokenizer.after) - prefix - heading

    @property
    def input_limit(self) -> int:
        """Most tokens of a complete input of the action tower."""
        return self.config.action_tokens

    @property
    def question_limit(self) -> int:
        """Most tokens of a question: half of what the state tower reads, so that evidence finds room."""
        return self.config.state_tokens // 2

    def question_tokens(self, question: str) -> list[int]:
        """The question's tokens, with the checkpoint's prefix."""
        return self.state_tower.tokenizer.tokenize([self.config.state_prefix + question])[0]

    def state_tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of chunks the way the state tower reads them."""
        return self.state_tower.tokenizer.tokenize(texts)

    def compose_state(self, question: TokenIds, chunks: Sequence[TokenIds]) -> StateInput:
        """``question [SEP] chunk [SEP] chunk ...`` with special tokens, within the tower's limit.

        Where it does not fit, the longest chunks are shortened first; nothing is taken from the
        question.
        """
        tokenizer = self.state_tower.tokenizer
        room = self.config.state_tokens - len(tokenizer.before) - len(tokenizer.after) - len(question)
        kept = _shortened([len(ids) for ids in chunks], room - len(chunks) * len(self._separator))
        body = list(question)
        for ids, length in zip(chunks, kept, strict=True):
            if length:
                body += [*self._separator, *ids[:length]]
        dropped = sum(map(len, chunks)) - sum(kept)
        question_alone = question[: self.config.action_tokens - len(tokenizer.before) - len(tokenizer.after)]
        return StateInput(
            ids=[*tokenizer.before, *body, *tokenizer.after],
            dropped=dropped,
            question=(*tokenizer.before, *question_alone, *tokenizer.after),
            first=(*tokenizer.before, *question, *tokenizer.after),
            asked=len(tokenizer.before) + len(question),
        )

    def embed_states(self, states: Sequence[StateInput]) -> States:
        """Embedded states: ``(E_s(s) + first_share · E_s(s_0)) / (1 + first_share) + question_share · E_a(question)``.

        The further terms are not in the paper. ``s_0`` is the question before anything is selected: what was asked
        stays in the query, whatever the selected chunks are about. The last one training cannot unlearn, so a chunk's
        similarity to the question counts.
        """
        read = [
            (batch, self._read_batch([states[number] for number in batch]))
            for batch in self.state_tower.batches([state.ids for state in states])
        ]
        order = np.argsort([number for batch, _ in read for number in batch])
        together = concatenate([part for _, part in read])
        embeddings = together.embeddings[order]
        if share := self.config.first_share:
            embedded = {
                state.first: embedding.copy()
                for state, embedding in zip(states, embeddings, strict=True)
                if is_first(state)
            }
            firsts = self._firsts.embed([state.first for state in states], self.state_tower, embedded)
            embeddings += np.float32(share) * firsts
            embeddings /= np.float32(1 + share)
        if share := self.config.question_share:
            questions = self._questions.embed([state.question for state in states], self.action_tower)
            embeddings += np.float32(share) * questions
        return States(
            embeddings,
            None if together.terms is None else tuple(together.terms[number] for number in order.tolist()),
            None if together.order is None else together.order[order],
            None if together.surroundings is None else together.surroundings[order],
        )

    @torch.inference_mode()
    def _read_batch(self, states: Sequence[StateInput]) -> States:
        read = read_states(self.state_tower, self.heads, states)
        terms = None
        if read.terms is not None:
            terms = tuple(TermWeights(tokens, weights.float().cpu().numpy()) for tokens, weights in read.terms)
        order, surroundings = (
            None if read_of_all is None else read_of_all.float().cpu().numpy()
            for read_of_all in (read.order, read.surroundings)
        )
        return States(read.embeddings.cpu().numpy(), terms, order, surroundings)

    def action_inputs(self, texts: Sequence[str]) -> list[list[int]]:
        """Complete inputs of the action tower for chunks within :attr:`chunk_limit`."""
        tokenizer = self.action_tower.tokenizer
        prefixed = [self.config.action_prefix + text for text in texts]
        return [[*tokenizer.before, *ids, *tokenizer.after] for ids in tokenizer.tokenize(prefixed)]

    def cut_action_inputs(self, texts: Sequence[str]) -> list[TokenIds]:
        """Complete inputs for texts of any length, truncated to what the action tower reads."""
        limit, end = self.config.action_tokens, self.action_tower.tokenizer.after
        return [ids if len(ids) <= limit else [*ids[: limit - len(end)], *end] for ids in self.action_inputs(texts)]

    def chunk_text(self, heading: str, text: str) -> str:
        """What both towers read of a chunk: its text, below its heading where the checkpoint was trained so.

        Of a long heading only the first :data:`HEADING_TOKENS` tokens are read.
        """
        if not (self.config.headings and heading):
            return text
        ends = self.action_tower.tokenizer.token_ends(heading)
        return f"{heading[: ends[HEADING_TOKENS - 1]] if len(ends) > HEADING_TOKENS else heading}\n{text}"

    def terms(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of chunks for the lexical signal: all of them, without prefix and special tokens."""
        return self.action_tower.tokenizer.tokenize(texts)

    def embed_actions(self, inputs: Sequence[TokenIds]) -> Float32Array:
        """Chunk embeddings, shape ``[len(inputs), d]``."""
        return self.action_tower.embed(inputs)

    def warm_up(self) -> None:
        """Run a first forward pass, so that no request waits for what it loads; on a GPU, the largest batches too."""
        self.embed_states([self.compose_state(self.question_tokens("warm up"), [])])
        if self.device.type == "cuda":
            self.run_largest_batches()

    def run_largest_batches(self) -> None:
        """Run each tower over its largest batch: if memory does not run out here, it never does."""
        for tower, longest in (
            (self.state_tower, self.config.state_tokens),
            (self.action_tower, self.config.action_tokens),
        ):
            tower.embed([[tower.tokenizer.padding] * longest] * max(1, tower.batch_tokens // longest))


def _shortened(lengths: Sequence[int], room: int) -> list[int]:
    """Lengths cut to one common maximum, the largest with which they fit into ``room`` together."""
    remaining = room
    cap = max(lengths, default=0)
    for number, length in enumerate(sorted(lengths)):
        share = max(remaining, 0) // (len(lengths) - number)
        if length > share:
            cap = share
            break
        remaining -= length
    return [min(length, cap) for length in lengths]
