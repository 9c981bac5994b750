"""λ-returns: regression of what the policy selected on what followed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import ReadStates
from trainer.hyperparameters import Hyperparameters
from trainer.learning.environment import Observation
from trainer.learning.networks import QNetwork
from trainer.learning.objectives.stop import completeness, stop_errors
from trainer.learning.scoring import Scorer
from trainer.learning.transitions import Trajectory, Transition


class LambdaReturns:
    """Regression of the selected candidate's Q on its λ-return, with soft values of the target network.

    PQN (Gallici et al. 2024, arXiv 2407.04811) without a replay buffer, with the soft values of Q-RAG (arXiv
    2511.07328). The episodes are the policy's own.
    """

    def __init__(self, network: QNetwork, target: QNetwork, scorer: Scorer, settings: Hyperparameters) -> None:
        self._network, self._scorer, self._settings = network, scorer, settings
        self._target = target if settings.target_decay > 0 else network

    @property
    def looks_ahead(self) -> bool:
        """True."""
        return True

    @property
    def reads_negatives(self) -> bool:
        """False: nobody selected them."""
        return False

    @property
    def contrasts(self) -> bool:
        """False: each state has its own loss."""
        return False

    def shows_support(self, progress: float, generator: np.random.Generator) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def returns(self, trajectories: Sequence[Trajectory], alpha: float) -> Float32Array:
        """The λ-returns; what comes after the completion, if anything, is worth nothing."""
        lengths = [sum(not t.observation.complete for t in played.transitions) for played in trajectories]
        inner = [played.transitions[1:length] for played, length in zip(trajectories, lengths, strict=True)]
        states = [(t.observation, t.rows, t.question.counts) for transitions in inner for t in transitions]
        ends = [
            (*played.final, played.transitions[0].question.counts)
            for played in trajectories
            if played.final is not None
        ]
        values = iter(self._soft_values(states + ends, alpha))
        following = [[next(values) for _ in transitions] for transitions in inner]
        returns: list[float] = []
        for played, length, next_values in zip(trajectories, lengths, following, strict=True):
            # Completed: nothing can be gained any more. Cut off: more could have been.
            last = 0.0 if played.final is None else next(values)
            rewards = played.rewards[:length]
            returns += lambda_returns(rewards, [*next_values, last], self._settings.gamma, self._settings.lambda_)
            returns += [0.0] * (len(played.transitions) - length)
        return np.array(returns, dtype=np.float32)

    def losses(self, states: ReadStates, transitions: Sequence[Transition], returns: torch.Tensor) -> torch.Tensor:
        """Squared errors of the selected candidates, and of STOP where it is learned."""
        observations = [transition.observation for transition in transitions]
        actions = [np.array([transition.action]) for transition in transitions]
        q, _ = self._scorer.chosen_q(states, transitions, actions)
        errors = (q[:, 0] - returns).square()
        if not self._settings.stop:
            return errors
        return errors + stop_errors(self._network, states.embeddings, completeness(observations, self._scorer.device))

    def _soft_values(self, states: Sequence[tuple[Observation, IntArray, Sequence[int]]], alpha: float) -> list[float]:
        """The soft value of each state, from its observation, its candidates' rows and its documents' counts."""
        if not states:  # every episode was completed by its first selection
            return []
        observations, rows, counts = zip(*states, strict=True)
        embeddings = self._scorer.embed_states(self._target, observations)
        every_q = self._scorer.all_q(self._target, embeddings, observations, rows, counts)
        return [
            float(soft_value(torch.from_numpy(q)[None], torch.from_numpy(observation.available)[None], alpha))
            for observation, q in zip(observations, every_q, strict=True)
        ]


def soft_value(q: torch.Tensor, available: torch.Tensor, alpha: float) -> torch.Tensor:
    """``V(s) = α · logsumexp(Q/α)`` over the available candidates alone, shape ``[states]``.

    ``q`` and ``available`` have shape ``[states, candidates]``. Masked before the sum: a selected chunk has no value.
    A state in which nothing is left to select is worth nothing.
    """
    values = alpha * torch.logsumexp((q / alpha).masked_fill(~available, -torch.inf), dim=1)
    return values.where(available.any(dim=1), 0.0)


def lambda_returns(rewards: Sequence[float], next_values: Sequence[float], gamma: float, lambda_: float) -> list[float]:
    """``G_t = r_t + γ[(1-λ) V(s_{t+1}) + λ G_{t+1}]`` of one episode, from the last to the first.

    ``next_values[t]`` is ``V(s_{t+1})``: 0 after completion, and the last state's own value where the budget cut the
    episode off, which then also stands for the return that was not seen.
    """
    following = next_values[-1]
    returns = []
    for reward, value in zip(reversed(rewards), reversed(next_values), strict=True):
        following = reward + gamma * ((1 - lambda_) * value + lambda_ * following)
        returns.append(following)
    return returns[::-1]
