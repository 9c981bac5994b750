"""The one stepping function: for the service, training, evaluation, benchmarks and the property tests.

A step of many episodes is :func:`embed_together`, one forward pass for all of their states, and :func:`step_together`,
one read of each scope for all episodes over it. An episode that fails is left out, and the others go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from index.arrays import TokenIds
from index.episodes.episode import Episode
from index.search.function import QFunction
from index.search.states import States, concatenate

log = logging.getLogger(__name__)

MOST_VALUES = 1 << 25
"""Most Q-values held at once: 128 MB."""

Composed = TypeVar("Composed")


class StateEncoder(Protocol[Composed]):
    """What stepping needs of :class:`index.encoders.encoder.Encoder`."""

    def compose_state(self, question: TokenIds, chunks: Sequence[TokenIds], /) -> Composed:
        """A tokenised state."""

    def embed_states(self, states: Sequence[Composed], /) -> States:
        """The states, embedded in one forward pass."""


class Stepped(NamedTuple):
    """An episode that has taken its step."""

    new_steps: int
    """The change in the number of steps; a beam may fall back on a shorter path."""
    ended_at: float
    """When the step was done, by :func:`time.perf_counter`."""


def embed_together(encoder: StateEncoder[Composed], episodes: Sequence[Episode]) -> list[States | Exception]:
    """The embedded states of each episode, or the error for which it has none."""
    composed: list[list[Composed] | Exception] = []
    for episode in episodes:
        try:
            composed.append([encoder.compose_state(episode.question, chunks) for chunks in episode.states()])
        except Exception as error:
            composed.append(error)
    inputs = [state for states in composed if not isinstance(states, Exception) for state in states]
    if not inputs:
        return [error for error in composed if isinstance(error, Exception)]
    try:
        embedded = encoder.embed_states(inputs)
    except Exception as error:
        log.exception("state encoding failed")
        return [states if isinstance(states, Exception) else error for states in composed]
    outcomes: list[States | Exception] = []
    low = 0
    for states in composed:
        if isinstance(states, Exception):
            outcomes.append(states)
        else:
            outcomes.append(embedded.between(low, low + len(states)))
            low += len(states)
    return outcomes


def step_together(
    episodes: Sequence[Episode], states: Sequence[States], function: QFunction
) -> list[Stepped | Exception]:
    """One step of each episode, or the error for which it took none; ``states`` are each episode's, embedded."""
    outcomes: dict[int, Stepped | Exception] = {}
    for group in _over_one_scope(episodes):
        scope = episodes[group[0]].scope
        selections = [selected for number in group for selected in episodes[number].selections]
        together = concatenate([states[number] for number in group])
        ranked = max(episodes[number].ranked for number in group)
        try:
            estimates = iter(scope.estimate(together, selections, function, ranked))
        except Exception as error:
            log.exception("search failed")
            outcomes |= dict.fromkeys(group, error)
            continue
        for number in group:
            episode = episodes[number]
            before = len(episode.steps)
            episode_estimates = list(islice(estimates, episode.width))
            try:
                episode.advance(states[number], episode_estimates, function)
            except Exception as error:
                outcomes[number] = error
            else:
                outcomes[number] = Stepped(len(episode.steps) - before, time.perf_counter())
    return [outcomes[number] for number in range(len(episodes))]


def step_once(encoder: StateEncoder[Composed], episodes: Sequence[Episode], function: QFunction) -> None:
    """Embed the states of episodes and let each take one step; raises what one of them raises."""
    _raising(step_together(episodes, _raising(embed_together(encoder, episodes)), function))


Outcome = TypeVar("Outcome")


def _raising(outcomes: Sequence[Outcome | Exception]) -> list[Outcome]:
    results: list[Outcome] = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        results.append(outcome)
    return results


def _over_one_scope(episodes: Sequence[Episode]) -> Iterator[list[int]]:
    """Numbers of episodes over one scope, in groups with at most :data:`MOST_VALUES` Q-values."""
    groups: dict[int, list[int]] = {}
    for number, episode in enumerate(episodes):
        groups.setdefault(id(episode.scope), []).append(number)
    for group in groups.values():
        fitting: list[int] = []
        values = 0
        for number in group:
            episode_values = episodes[number].width * episodes[number].scope.read_size
            if fitting and values + episode_values > MOST_VALUES:
                yield fitting
                fitting, values = [], 0
            fitting.append(number)
            values += episode_values
        yield fitting
