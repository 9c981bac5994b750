"""R3's objective (arXiv 2510.24652): a chunk from which a frozen reader answers against one that misleads it.

R3 has no public code; what is not in its text follows OpenRAG (arXiv 2503.08398) and SiDR (arXiv 2405.01924).

- *Offline*, a pair is drawn from a question's pools: chunks that the reader answers right from, and others.
- *On the policy*, the network's own first 20 are read from the top. A chunk is positive where it makes the answer more
  probable than every chunk of the negative pool, negative where less than every one of the positive pool, and left out
  between. The first negative and a positive before it are the pair; where none is before it, one of the positive pool.
- The *loss* is a symmetric InfoNCE of the pair in its batch, of Q and, halved, of its lexical part from either side:
  the weights of the question's tokens against the bags of the chunks, those of the positive chunk's tokens against the
  bags of the questions.
- The *search* is late parametric: bags are never stale, so where the action tower is trained they choose the 20, which
  alone are embedded with the tower of the moment. Where it is not, no embedding is stale, and Q chooses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import ReadStates
from trainer.errors import RecipeError
from trainer.hyperparameters import Hyperparameters
from trainer.judging.judge import Judge, State
from trainer.learning.networks import ChunkTable, QNetwork
from trainer.learning.scoring import Scorer
from trainer.learning.transitions import HardNegatives, Trajectory, Transition, with_negatives

LISTED = 20
"""Chunks of the policy's own list that are read, at most."""

READ_TOGETHER = 4
"""Chunks of each list that the reader gets at once: most lists have a negative among the first."""

SEMI_PARAMETRIC = 0.5
"""Weight of each of the two lexical contrasts."""


class Pair(NamedTuple):
    """The positions of a positive and a negative chunk of a question."""

    positive: int
    negative: int


class ReinforcedContrast:
    """R3's objective, offline or on the policy."""

    def __init__(
        self,
        network: QNetwork,
        scorer: Scorer,
        table: ChunkTable,
        judge: Judge | None,
        settings: Hyperparameters,
        generator: np.random.Generator,
        *,
        on_policy: bool,
    ) -> None:
        """Raises :class:`~trainer.errors.RecipeError` where there is no judge, or one whose form is not ``answer``."""
        if judge is None or judge.form != "answer":
            raise RecipeError("The objective r3 needs a `reader` and reader_form answer: it asks for R3's S(q, d).")
        self._network, self._scorer, self._table, self._settings = network, scorer, table, settings
        self._judge, self._generator, self._on_policy = judge, generator, on_policy

    @property
    def looks_ahead(self) -> bool:
        """False: there is one step."""
        return False

    @property
    def reads_negatives(self) -> bool:
        """False: the batch brings them."""
        return False

    @property
    def contrasts(self) -> bool:
        """True: the pairs of a batch are each other's negatives."""
        return True

    def shows_support(self, progress: float, generator: np.random.Generator) -> bool:  # noqa: ARG002
        """Never: the selection itself teaches nothing."""
        return False

    def returns(self, trajectories: Sequence[Trajectory], alpha: float) -> Float32Array:  # noqa: ARG002
        """Zeros: they are not read."""
        return np.zeros(sum(len(played.transitions) for played in trajectories), dtype=np.float32)

    def losses(
        self,
        states: ReadStates,
        transitions: Sequence[Transition],
        returns: torch.Tensor,  # noqa: ARG002
    ) -> torch.Tensor:
        """The contrast of each transition in the batch that these are, shape ``[transitions]``.

        Raises :class:`~trainer.errors.RecipeError` for a question without pools, and as
        :class:`~trainer.readers.protocol.Reader` says.
        """
        if bare := next((t.question for t in transitions if not (t.question.support and t.question.wrong)), None):
            raise RecipeError(
                f"The objective r3 needs chunks that the reader answers right from, and others; question {bare.id} has "
                "none of one kind. Make its judgements with `judge --form answer --pools`."
            )
        pairs = self._walked(transitions) if self._on_policy else [self._drawn(t) for t in transitions]
        extended, columns = self._in_batch(transitions, pairs)
        q, _ = self._scorer.chosen_q(states, extended, columns)
        alpha = self._settings.contrast_alpha
        losses = contrast(q / alpha)
        head = self._network.heads.terms
        if states.terms is None or head is None:
            return losses
        lexical = self._scorer.lexical(states.terms, extended, columns)
        reverse = self._from_the_chunks(transitions, pairs)
        return losses + SEMI_PARAMETRIC * sum(contrast(head.factor * part / alpha) for part in (lexical, reverse))

    def _drawn(self, transition: Transition) -> Pair:
        """A pair of the question's pools."""
        question = transition.question
        return Pair(self._one_of(sorted(question.support)), self._one_of(question.wrong))

    def _one_of(self, positions: Sequence[int]) -> int:
        return positions[int(self._generator.integers(len(positions)))]

    def _walked(self, transitions: Sequence[Transition]) -> list[Pair]:
        """The pair of each question from the network's own list."""
        lists = [self._listed(transition) for transition in transitions]
        above, below = self._thresholds(transitions)
        positives: list[list[int]] = [[] for _ in transitions]
        negatives: list[int | None] = [None] * len(transitions)
        for first in range(0, LISTED, READ_TOGETHER):
            walking = [i for i, negative in enumerate(negatives) if negative is None and first < len(lists[i])]
            read = {i: lists[i][first : first + READ_TOGETHER] for i in walking}
            states: list[State] = [
                (transitions[i].question, (chunk,)) for i, chunks in read.items() for chunk in chunks
            ]
            values = iter(self._judge.values(states).tolist())
            for i, chunks in read.items():
                for chunk, value in [(chunk, next(values)) for chunk in chunks]:
                    if value < below[i]:
                        negatives[i] = chunk
                        break
                    if value > above[i]:
                        positives[i].append(chunk)
        return [
            Pair(
                self._one_of(positive or sorted(transition.question.support)),
                self._one_of(transition.question.wrong) if negative is None else negative,
            )
            for transition, positive, negative in zip(transitions, positives, negatives, strict=True)
        ]

    def _listed(self, transition: Transition) -> list[int]:
        """The first chunks of the policy's list."""
        count = len(transition.question.chunks)
        q = np.where(transition.observation.available, transition.q, -np.inf)[:count]
        return [int(position) for position in np.argsort(-q, kind="stable")[: min(LISTED, count)]]

    def _thresholds(self, transitions: Sequence[Transition]) -> tuple[list[float], list[float]]:
        """What a positive is above, and what a negative is below, of each question: the extremes of its pools."""
        pools = [(sorted(t.question.support), t.question.wrong) for t in transitions]
        states: list[State] = [
            (transition.question, (chunk,))
            for transition, pool in zip(transitions, pools, strict=True)
            for chunks in pool
            for chunk in chunks
        ]
        values = iter(self._judge.values(states).tolist())
        above, below = [], []
        for right, wrong in pools:
            below.append(min(next(values) for _ in right))
            above.append(max(next(values) for _ in wrong))
        return above, below

    def _in_batch(
        self, transitions: Sequence[Transition], pairs: Sequence[Pair]
    ) -> tuple[list[Transition], list[IntArray]]:
        """The transitions with all pairs of the batch as candidates, and which these are: positives, then negatives.

        All stand alone at the first level, a question's own pair too: where a chunk stands must not tell whose it is.
        """
        rows = [
            transition.rows[position]
            for positions in zip(*pairs, strict=True)
            for transition, position in zip(transitions, positions, strict=True)
        ]
        count = len(rows)
        batch = HardNegatives(np.zeros(count, dtype=np.int64), np.array(rows), np.zeros(count, dtype=np.float32))
        extended = [with_negatives(transition, 0, batch) for transition in transitions]
        return extended, [len(transition.rows) + np.arange(count) for transition in transitions]

    def _from_the_chunks(self, transitions: Sequence[Transition], pairs: Sequence[Pair]) -> torch.Tensor:
        """The weights of each positive chunk's tokens against the bags of all questions, shape ``[chunks, questions]``.

        The chunk is read as a question would be.
        """
        encoder = self._network.encoder
        texts = [t.question.chunks[pair.positive] for t, pair in zip(transitions, pairs, strict=True)]
        inputs = [encoder.compose_state(encoder.question_tokens(text)[: encoder.question_limit], []) for text in texts]
        terms = self._network.read_states(inputs).terms
        assert terms is not None
        rows = self._table.rows([transition.question.text for transition in transitions])
        return self._scorer.lexical_among(terms, rows)


def contrast(logits: torch.Tensor) -> torch.Tensor:
    """The symmetric InfoNCE of a batch, shape ``[n]``.

    ``logits`` has shape ``[n, n]`` or ``[n, 2 n]``: column ``i`` belongs to row ``i``, those behind ``n`` to none.
    """
    rows = torch.arange(len(logits), device=logits.device)
    own = logits[rows, rows]
    of_rows = torch.logsumexp(logits, dim=1) - own
    of_columns = torch.logsumexp(logits[:, : len(logits)], dim=0) - own
    return (of_rows + of_columns) / 2
