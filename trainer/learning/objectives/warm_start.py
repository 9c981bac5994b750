"""The clairvoyant warm start: regression on a teacher's values of all candidates of a state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import ReadStates
from trainer.hyperparameters import Hyperparameters
from trainer.learning.networks import QNetwork
from trainer.learning.objectives.stop import completeness, stop_errors
from trainer.learning.scoring import Scorer, padded
from trainer.learning.teachers import Teacher
from trainer.learning.transitions import Trajectory, Transition


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

    @property
    def contrasts(self) -> bool:
        """False: each state has its own loss."""
        return False

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
