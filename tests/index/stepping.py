"""One episode stepped by states that a test gives."""

from __future__ import annotations

from index.arrays import Float32Array
from index.episodes.episode import Episode
from index.episodes.stepping import step_together
from index.search.function import QFunction
from index.search.states import States


def take_step(episode: Episode, embeddings: Float32Array, function: QFunction) -> None:
    """One step; ``embeddings`` are those of the episode's states, shape ``[paths, d]``."""
    (outcome,) = step_together([episode], [States(embeddings)], function)
    if isinstance(outcome, Exception):
        raise outcome
