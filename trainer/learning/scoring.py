"""Q as differentiable tensors: :mod:`index.search.scoring` for batches of states with few candidates."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import ReadStates
from index.encoders.heads import WeighedTerms
from index.encoders.tower import token_batches
from index.search.positions import Positions, cosine_and_sine, rotate_pairs
from index.search.surroundings import beside
from trainer.hyperparameters import Hyperparameters
from trainer.learning.environment import Observation
from trainer.learning.heads.bags import frequencies_among, term_shares
from trainer.learning.networks import ChunkTable, QNetwork, gathered
from trainer.learning.transitions import Transition

Element = TypeVar("Element", bound=np.generic)

SCORED_CANDIDATES = 16_384
"""Candidates, padding included, scored at once: their rotations fit the cache of a CPU."""


class _Scored(NamedTuple):
    """The candidates of one state: the chunks of its question, hard negatives behind them.

    Arrays have shape ``[candidates]``.
    """

    rows: IntArray
    """Rows in the chunk table."""
    levels: IntArray
    counts: Sequence[int]
    """The chunks of each document of the question."""
    selected: Sequence[int]

    @property
    def chunks(self) -> IntArray:
        """The rows of the question's own chunks: tokens are counted in these."""
        return self.rows[: sum(self.counts)]

    @property
    def beside(self) -> IntArray:
        """The candidates right before and after each, shape ``[2, candidates]``; -1 for none.

        Hard negatives stand alone.
        """
        offsets = np.cumsum([0, *self.counts], dtype=np.int64)
        around = np.full((2, len(self.rows)), -1, dtype=np.int64)
        around[:, : offsets[-1]] = beside(np.arange(offsets[-1]), offsets, self.selected)
        return around


class Rotation(NamedTuple):
    """Cosine and sine of ``ρθ`` for each candidate and coordinate pair, each ``[states, candidates, d/2]`` float32."""

    cosine: torch.Tensor
    sine: torch.Tensor


def rotation(level_indices: IntArray, positions: Positions, dimension: int, device: torch.device) -> Rotation:
    """The rotation at each level index; ``level_indices`` has shape ``[states, candidates]``."""
    distinct, inverse = np.unique(level_indices, return_inverse=True)
    rho = positions.rho(distinct)
    place = torch.from_numpy(inverse.reshape(level_indices.shape)).to(device)
    tables = (
        torch.from_numpy(table).float().to(device) for table in cosine_and_sine(rho, dimension, positions.rope_base)
    )
    return Rotation(*(table[place] for table in tables))


def queries_at(network: QNetwork, states: ReadStates, levels: Sequence[int]) -> torch.Tensor:
    """The query of each state at one level each, shape ``[states, d]``; see :mod:`index.search.turning`."""
    asks = states.embeddings if states.order is None else states.order
    turn = rotation(np.array(levels)[:, None], network.encoder.function.positions, asks.shape[1], asks.device)
    cosine, sine = turn.cosine[:, 0], turn.sine[:, 0]
    turned = torch.stack(rotate_pairs(asks[:, 0::2], asks[:, 1::2], cosine, -sine), dim=-1).flatten(1)
    if states.order is None:
        return turned
    assert network.heads.order is not None
    return states.embeddings + turned @ network.heads.order.map


def turned_products(states: torch.Tensor, chunks: torch.Tensor, rows: torch.Tensor, turn: Rotation) -> torch.Tensor:
    """``<s, R(ρ) a>``, shape ``[states, candidates]``.

    ``states`` has shape ``[states, d]``; the candidates are the rows of ``chunks``, shape ``[m, d]``, that ``rows``
    names, shape ``[states, candidates]``.
    """
    # The halves of the pairs apart: contiguous memory, several times the speed of strided pairs on a CPU.
    even, odd = (chunks[:, half::2].contiguous()[rows] for half in (0, 1))
    turned_even, turned_odd = rotate_pairs(even, odd, turn.cosine, turn.sine)
    return (turned_even @ states[:, 0::2, None] + turned_odd @ states[:, 1::2, None]).squeeze(-1)


def padded(arrays: Sequence[NDArray[Element]]) -> NDArray[Element]:
    """Arrays of various lengths as rows of a matrix, with zeros behind the shorter ones."""
    matrix = np.zeros((len(arrays), max(map(len, arrays))), dtype=arrays[0].dtype)
    for row, array in zip(matrix, arrays, strict=True):
        row[: len(array)] = array
    return matrix


class Scorer:
    """Q of candidates that stand in a chunk table."""

    def __init__(self, network: QNetwork, table: ChunkTable, settings: Hyperparameters) -> None:
        self._network, self._table, self._settings = network, table, settings
        self.device = network.w.device
        self.batch_tokens = settings.batch_tokens or (65_536 if self.device.type == "cuda" else 1024)

    def embed_states(self, network: QNetwork, observations: Sequence[Observation]) -> ReadStates:
        """The observed states without gradients."""
        return network.embed_states([observation.state for observation in observations], self.batch_tokens)

    @torch.no_grad()
    def all_q(
        self,
        network: QNetwork,
        states: ReadStates,
        observations: Sequence[Observation],
        rows: Sequence[IntArray],
        counts: Sequence[Sequence[int]],
    ) -> list[Float32Array]:
        """Q of all candidates of each state, without gradients.

        ``rows`` are those of the candidates in the table, ``counts`` those of the chunks of each document.
        """
        q: dict[int, Float32Array] = {}
        for batch in token_batches([len(candidates) for candidates in rows], SCORED_CANDIDATES):
            scored = [_Scored(rows[i], observations[i].levels, counts[i], observations[i].selected) for i in batch]
            everything = [np.arange(len(rows[i])) for i in batch]
            scores, _ = self._q(network, gathered(states, batch), scored, everything)
            q |= {i: values[: len(rows[i])] for i, values in zip(batch, scores.cpu().numpy(), strict=True)}
        return [q[i] for i in range(len(rows))]

    def chosen_q(
        self, states: ReadStates, transitions: Sequence[Transition], chosen: Sequence[IntArray]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Q of the ``chosen`` candidates of each transition, with gradients, and whether an entry is padding.

        Both have shape ``[transitions, candidates]``; ``states`` are those of the transitions.
        """
        live = self._live_rows(transitions) if self._settings.action_mode == "refreshed" else ()
        scored = [
            _Scored(
                transition.rows,
                transition.observation.levels,
                transition.question.counts,
                transition.observation.selected,
            )
            for transition in transitions
        ]
        return self._q(self._network, states, scored, chosen, live)

    def lexical(
        self, terms: Sequence[WeighedTerms], transitions: Sequence[Transition], chosen: Sequence[IntArray]
    ) -> torch.Tensor:
        """The lexical part of Q, without its factor, of the ``chosen`` candidates, shape ``[transitions, candidates]``.

        There is a lexical signal.
        """
        scored = [_Scored(t.rows, t.observation.levels, t.question.counts, t.observation.selected) for t in transitions]
        return self._lexical(self._network, terms, scored, chosen, max(map(len, chosen)))

    def lexical_among(self, terms: Sequence[WeighedTerms], rows: IntArray) -> torch.Tensor:
        """The same of the texts in these ``rows`` of the table, as one collection, shape ``[terms, rows]``."""
        scored = _Scored(rows, np.zeros_like(rows), [len(rows)], ())
        count = len(terms)
        return self._lexical(self._network, terms, [scored] * count, [np.arange(len(rows))] * count, len(rows))

    def _q(
        self,
        network: QNetwork,
        states: ReadStates,
        scored: Sequence[_Scored],
        chosen: Sequence[IntArray],
        live: Collection[int] = (),
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Q of the ``chosen`` candidates of each state, and whether an entry is padding."""
        q = self._averaged(network, states, scored, chosen, live)
        if states.terms is not None and network.heads.terms is not None:
            lexical = self._lexical(network, states.terms, scored, chosen, q.shape[1])
            q = q + network.heads.terms.factor * lexical
        return q, ~self._tensor([np.ones(len(some), dtype=np.bool_) for some in chosen])

    def _averaged(
        self,
        network: QNetwork,
        states: ReadStates,
        scored: Sequence[_Scored],
        chosen: Sequence[IntArray],
        live: Collection[int] = (),
    ) -> torch.Tensor:
        """The :func:`index.search.surroundings.averaged` inner products of the ``chosen`` candidates of each state."""
        if states.surroundings is None:
            return self._inner_products(network, states, scored, chosen, live)
        around = [of.beside[:, some] for of, some in zip(scored, chosen, strict=True)]
        needed = [
            np.union1d(some, beside_some[beside_some >= 0]) for some, beside_some in zip(chosen, around, strict=True)
        ]
        products = self._inner_products(network, states, scored, needed, live)
        own = self._places(needed, chosen)
        counted = [self._tensor([beside_some[side] >= 0 for beside_some in around]) for side in range(2)]
        others = [
            products.gather(1, self._places(needed, [np.maximum(beside_some[side], 0) for beside_some in around]))
            for side in range(2)
        ]
        share = states.surroundings[:, None]
        sums = products.gather(1, own) + share * sum(
            value * there for value, there in zip(others, counted, strict=True)
        )
        return sums / (1 + share * sum(counted))

    def _places(self, needed: Sequence[IntArray], some: Sequence[IntArray]) -> torch.Tensor:
        """Where among the ``needed`` candidates of each state ``some`` of them stand, shape ``[states, some]``."""
        return self._tensor(
            [np.minimum(np.searchsorted(all_of, of), len(all_of) - 1) for all_of, of in zip(needed, some, strict=True)]
        )

    def _tensor(self, arrays: Sequence[NDArray[Element]]) -> torch.Tensor:
        return torch.from_numpy(padded(arrays)).to(self.device)

    def _inner_products(
        self,
        network: QNetwork,
        states: ReadStates,
        scored: Sequence[_Scored],
        chosen: Sequence[IntArray],
        live: Collection[int] = (),
    ) -> torch.Tensor:
        """``w · <q, a> + b`` of the ``chosen`` candidates of each state, shape ``[states, candidates]``."""
        matrix = padded([of.rows[some] for of, some in zip(scored, chosen, strict=True)])
        levels = padded([of.levels[some] for of, some in zip(scored, chosen, strict=True)])
        distinct, inverse = np.unique(matrix, return_inverse=True)
        base = self._table[torch.from_numpy(distinct)]
        if live:
            base = self._with_live(base, distinct, live)
        chunks = network.chunks(base)
        row_of = torch.from_numpy(inverse.reshape(matrix.shape)).to(self.device)
        return network.w * self._products(network, states, chunks, row_of, levels) + network.b

    def _products(
        self, network: QNetwork, states: ReadStates, chunks: torch.Tensor, row_of: torch.Tensor, levels: IntArray
    ) -> torch.Tensor:
        """``<q, a>`` with each state's query at each candidate's level, shape ``[states, candidates]``."""
        positions = network.encoder.function.positions
        if states.order is None:
            turn = rotation(levels, positions, chunks.shape[1], self.device)
            return turned_products(states.embeddings, chunks, row_of, turn)
        assert network.heads.order is not None
        turn = rotation(levels, positions, states.order.shape[1], self.device)
        in_order = turned_products(states.order, chunks @ network.heads.order.map.T, row_of, turn)
        return (states.embeddings @ chunks.T).gather(1, row_of) + in_order

    def _lexical(
        self,
        network: QNetwork,
        terms: Sequence[WeighedTerms],
        scored: Sequence[_Scored],
        chosen: Sequence[IntArray],
        width: int,
    ) -> torch.Tensor:
        """``Σ θ β`` of the ``chosen`` candidates of each state, zeros where padded, shape ``[states, width]``."""
        bags, lexical = self._table.bags, network.encoder.function.lexical
        assert bags is not None
        assert lexical is not None
        sums = []
        for (tokens, weights), of, some in zip(terms, scored, chosen, strict=True):
            rows = of.rows[some]
            frequencies = frequencies_among(bags, of.chunks, tokens)
            counts = bags.counts[rows][:, tokens].tocsc()
            shares = term_shares(counts, bags.lengths[rows], tokens, frequencies, lexical).toarray()
            sums.append(
                torch.nn.functional.pad(torch.from_numpy(shares).to(self.device) @ weights, (0, width - len(rows)))
            )
        return torch.stack(sums)

    def _live_rows(self, transitions: Sequence[Transition]) -> set[int]:
        """Rows to embed with gradients: support, the best candidates and the selected ones."""
        live: set[int] = set()
        for transition in transitions:
            best = np.argsort(-transition.q)[: self._settings.live_chunks]
            live.update(transition.rows[best].tolist(), transition.rows[transition.observation.support].tolist())
            live.add(int(transition.rows[transition.action]))
        return live

    def _with_live(self, base: torch.Tensor, distinct: IntArray, live: Collection[int]) -> torch.Tensor:
        """The stored embeddings of the ``distinct`` rows, the ``live`` ones computed again with gradients."""
        renewed = np.array(sorted(set(live).intersection(distinct.tolist())), dtype=np.int64)
        inputs = self._network.encoder.cut_action_inputs(self._table.texts(renewed))
        place = torch.from_numpy(np.searchsorted(distinct, renewed)).to(self.device)
        return base.index_copy(0, place, self._network.chunk_embeddings(inputs))
