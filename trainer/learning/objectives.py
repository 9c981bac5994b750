"""The two objectives: a clairvoyant warm start, then λ-returns.

An objective says whose selections a rollout plays, what their returns are, and what the loss of a transition is. The
learner plays the episodes and takes the optimiser's steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import ReadStates
from trainer.hyperparameters import Hyperparameters
from trainer.learning.environment import Observation
from trainer.learning.networks import QNetwork
from trainer.learning.scoring import Scorer, padded
from trainer.learning.teachers import Teacher
from trainer.learning.transitions import Trajectory, Transition


class Objective(Protocol):
    """What the networks learn from episodes."""

    @property
    def looks_ahead(self) -> bool:
        """Whether a return depends on what follows in the episode."""

    @property
    def reads_negatives(self) -> bool:
        """Whether hard negatives are further candidates of the transitions."""

    def shows_support(self, progress: float, generator: np.random.Generator) -> bool:
        """Whether the next selection is one of the missing support, not the policy's.

        ``progress`` is the share of the training that is done.
        """

    def returns(self, trajectories: Sequence[Trajectory], alpha: float) -> Float32Array:
        """The return of every transition, one trajectory after the other; zeros where the losses do not read them.

        ``alpha`` is the temperature of the soft values.
        """

    def losses(self, states: ReadStates, transitions: Sequence[Transition], returns: torch.Tensor) -> torch.Tensor:
        """The loss of each transition, whose ``states`` were read with gradients, shape ``[transitions]``."""


# -- the warm start ---------------------------------------------------------------------------------------------------


class WarmStart:
    """Regression on a teacher's values of all candidates of a state, and a contrast between them.

    The states are those of DAgger (Ross et al. 2011, arXiv 1011.0686): at first the support leads through an episode,
    later more and more the policy itself, with its mistakes.
    """

    def __init__(
        self,
        network: QNetwork,
        scorer: Scorer,
        teacher: Teacher,
        settings: Hyperparameters,
        reranker: Teacher | None = None,
    ) -> None:
        """The order that the ``reranker`` gives the candidates is learned, too, of questions which ``distil``."""
        self._network, self._scorer, self._teacher, self._settings = network, scorer, teacher, settings
        self._reranker = reranker

    @property
    def looks_ahead(self) -> bool:
        """False: a teacher knows what a candidate is worth."""
        return False

    @property
    def reads_negatives(self) -> bool:
        """True where there are any."""
        return self._settings.hard_negatives > 0

    def shows_support(self, progress: float, generator: np.random.Generator) -> bool:
        """With a probability that falls from 1 to 0 (``dagger``), always (``support``) or never (``policy``)."""
        if self._settings.behaviour == "dagger":
            return bool(generator.random() >= progress / self._settings.warm_start)
        return self._settings.behaviour == "support"

    def returns(self, trajectories: Sequence[Trajectory], alpha: float) -> Float32Array:  # noqa: ARG002
        """Zeros: the teacher's values do not depend on what followed."""
        return np.zeros(sum(len(played.transitions) for played in trajectories), dtype=np.float32)

    def losses(
        self,
        states: ReadStates,
        transitions: Sequence[Transition],
        returns: torch.Tensor,  # noqa: ARG002
    ) -> torch.Tensor:
        """:func:`clairvoyant_loss` over the support and the best other candidates, and :func:`order_divergence`."""
        observations = [transition.observation for transition in transitions]
        chosen = [self._contenders(transition) for transition in transitions]
        both = list(zip(transitions, chosen, strict=True))
        q, padding = self._scorer.chosen_q(states, transitions, chosen)
        available = self._matrix([t.observation.available[some] for t, some in both]) & ~padding
        support = self._matrix([t.observation.support[some] for t, some in both])
        optimal = self._matrix(
            [self._teacher.score(t.question, t.observation.selected, t.candidates[some]) for t, some in both]
        )
        besides = self._settings.distillation * self._divergences(transitions, chosen, q)
        if self._settings.stop:
            # STOP is one candidate more: the one to take where no support is left, be it found or not there.
            complete = completeness(observations, self._scorer.device)
            stop = self._network.stop_values(states.embeddings)
            q = torch.cat((q, stop[:, None]), dim=1)
            available = torch.cat((available, torch.ones_like(complete)[:, None]), dim=1)
            support = torch.cat((support, ~support.any(dim=1, keepdim=True)), dim=1)
            optimal = torch.cat((optimal, complete[:, None].float()), dim=1)
            # Among many other candidates its error would hardly weigh.
            error = torch.where(support[:, -1], 0.0, stop_errors(self._network, states.embeddings, complete))
            besides = besides + self._settings.squared * error
        return clairvoyant_loss(q, optimal, available, support, self._settings) + besides

    def _divergences(
        self, transitions: Sequence[Transition], chosen: Sequence[IntArray], q: torch.Tensor
    ) -> torch.Tensor:
        """:func:`order_divergence` of each transition over its best candidates, 0 where no order is learned."""
        divergences = torch.zeros(len(transitions), device=self._scorer.device)
        for row, (transition, some) in enumerate(zip(transitions, chosen, strict=True)):
            observation = transition.observation
            if self._reranker is None or not transition.question.distil or observation.complete:
                continue
            worth = np.where(observation.support, np.inf, transition.q)[some]
            worth[~observation.available[some]] = -np.inf
            best = np.argsort(-worth)[: min(self._settings.distilled, int(observation.available[some].sum()))]
            logits = self._reranker.score(transition.question, observation.selected, transition.candidates[some[best]])
            places = torch.from_numpy(best).to(q.device)
            divergences[row] = order_divergence(
                q[row, places] / self._settings.contrast_alpha, torch.from_numpy(logits).to(q.device)
            )
        return divergences

    def _contenders(self, transition: Transition) -> IntArray:
        """The candidates to regress on, in document order."""
        support, count = transition.observation.support, self._settings.candidates
        if len(support) <= count:
            return np.arange(len(support))
        worth = np.where(support, np.inf, np.where(transition.observation.available, transition.q, -np.inf))
        return np.sort(np.argpartition(-worth, count)[:count])

    def _matrix(self, arrays: Sequence[np.ndarray[tuple[int], np.dtype[np.generic]]]) -> torch.Tensor:
        return torch.from_numpy(padded(arrays)).to(self._scorer.device)


def clairvoyant_loss(
    q: torch.Tensor, optimal: torch.Tensor, available: torch.Tensor, support: torch.Tensor, settings: Hyperparameters
) -> torch.Tensor:
    """Squared errors of each state against the optimal Q, and ``-log π(missing support | state)``, shape ``[states]``.

    All arguments have shape ``[states, candidates]``. Missing support and other chunks weigh the same, however many
    there are of each.
    """
    squared = (q - optimal).square()
    others = available & ~support
    error = sum((squared * group).sum(1) / group.sum(1).clamp(min=1) for group in (support, others))
    logits = (q / settings.contrast_alpha).masked_fill(~available, -torch.inf)
    of_support = torch.logsumexp(logits.masked_fill(~support, -torch.inf), dim=1)
    return settings.squared * error + settings.contrast * (torch.logsumexp(logits, dim=1) - of_support)


def order_divergence(logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
    """``KL(softmax(teacher_logits) || softmax(logits))`` of one state, a scalar; both have shape ``[candidates]``."""
    return torch.nn.functional.kl_div(
        logits.log_softmax(0), teacher_logits.log_softmax(0), reduction="sum", log_target=True
    )


# -- λ-returns --------------------------------------------------------------------------------------------------------


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
        observations, rows, counts = zip(*states, strict=True) if states else ((), (), ())
        embeddings = self._scorer.embed_states(self._target, observations)
        every_q = self._scorer.all_q(self._target, embeddings, observations, rows, counts)
        return [
            float(soft_value(torch.from_numpy(q)[None], torch.from_numpy(observation.available)[None], alpha))
            for observation, q in zip(observations, every_q, strict=True)
        ]


def soft_value(q: torch.Tensor, available: torch.Tensor, alpha: float) -> torch.Tensor:
    """``V(s) = α · logsumexp(Q/α)`` over the available candidates alone, shape ``[states]``.

    ``q`` and ``available`` have shape ``[states, candidates]``. Masked before the sum: a selected chunk has no value.
    """
    return alpha * torch.logsumexp((q / alpha).masked_fill(~available, -torch.inf), dim=1)


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


# -- STOP -------------------------------------------------------------------------------------------------------------


def completeness(observations: Sequence[Observation], device: torch.device) -> torch.Tensor:
    """Whether nothing is missing, shape ``[observations]``."""
    return torch.tensor([observation.complete for observation in observations], device=device)


def stop_errors(network: QNetwork, states: torch.Tensor, complete: torch.Tensor) -> torch.Tensor:
    """Squared errors of ``Q(s, STOP)`` against 1 in complete states and 0 elsewhere, shape ``[states]``."""
    return (network.stop_values(states) - complete.float()).square()
