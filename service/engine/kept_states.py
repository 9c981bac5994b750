"""Embedded states that episodes come to again: a continuation's first one, and all those of a question asked again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np

from index.arrays import TokenIds
from index.encoders.encoder import Encoder, StateInput
from index.search.states import States, concatenate

STATES_KEPT = 4096
"""Most states that are kept of a checkpoint: some 20 MB for 384 dimensions."""

Key = tuple[int, bytes]


class KeptStates:
    """Embedded states by their tokens, of each checkpoint the ``most`` that were used latest, as long as it is loaded.

    For one thread; the counts can be read from any.
    """

    def __init__(self, most: int = STATES_KEPT) -> None:
        self.hits = 0
        """States that were here when an episode came to them."""
        self.misses = 0
        """States that took a forward pass."""
        self._most = most
        self._states: WeakKeyDictionary[Encoder, OrderedDict[Key, States]] = WeakKeyDictionary()

    def __len__(self) -> int:
        return sum(map(len, self._states.values()))

    def read_by(self, encoder: Encoder) -> KeepingReader:
        """The encoder, as one that reads no state again."""
        return KeepingReader(encoder, self)

    def embedded(self, states: Sequence[StateInput], encoder: Encoder) -> States:
        """The states, those that are not kept embedded in one forward pass."""
        kept = self._states.setdefault(encoder, OrderedDict())
        keys = [_key(state) for state in states]
        known = {key: kept[key] for key in keys if key in kept}
        unknown = {key: state for key, state in zip(keys, states, strict=True) if key not in known}
        if unknown:
            fresh = encoder.embed_states([*unknown.values()])
            # Copies: a slice would keep the whole batch in memory.
            known |= {key: concatenate([fresh.between(n, n + 1)]) for n, key in enumerate(unknown)}
        self.hits += len(states) - len(unknown)
        self.misses += len(unknown)
        for key in keys:
            kept[key] = known[key]
            kept.move_to_end(key)
        while len(kept) > self._most:
            kept.popitem(last=False)
        return concatenate([known[key] for key in keys])


@dataclass(frozen=True, slots=True)
class KeepingReader:
    """A checkpoint as a :class:`~index.episodes.stepping.StateEncoder` that reads no state again."""

    encoder: Encoder
    kept: KeptStates

    def compose_state(self, question: TokenIds, chunks: Sequence[TokenIds]) -> StateInput:
        """The state as the checkpoint writes it."""
        return self.encoder.compose_state(question, chunks)

    def embed_states(self, states: Sequence[StateInput]) -> States:
        """The states, as :meth:`KeptStates.embedded` has them."""
        return self.kept.embedded(states, self.encoder)


def _key(state: StateInput) -> Key:
    """The tokens, and how many of them are the question: the same tokens are weighed otherwise where that differs."""
    return state.asked, np.array(state.ids, dtype=np.int32).tobytes()
