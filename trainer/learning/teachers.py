"""Teachers: what each candidate of a state is worth, known without the networks that are trained.

One visited state so supervises all of its candidates. A reranker is another teacher: one class that scores candidates
beside the evidence that is selected already.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

from index.arrays import Float32Array, IntArray
from index.encoders.cross_encoder import CrossEncoder
from trainer.datasets.question import Question
from trainer.learning.rewards import Reward


class Teacher(Protocol):
    """Values of candidates for the warm start to regress on."""

    def score(self, question: Question, evidence: Collection[int], candidates: IntArray) -> Float32Array:
        """The value of selecting each candidate next, shape ``[candidates]``.

        ``evidence`` are the positions of the chunks selected so far. A candidate is a position among the question's
        chunks followed by its pool: ``len(chunks) + i`` is ``pool[i]``. What is selected already may get any value.
        """


class Clairvoyant:
    """The optimal Q in closed form, from the support labels.

    With ``m`` support chunks missing after a selection, the best that can follow takes ``m`` more selections, so the
    selection is worth ``γ^m`` times the reward at completion. Where nothing is missing, or something can never be
    found, no chunk adds anything: all are worth 0. The reward must not depend on which other chunks are selected.
    """

    def __init__(self, reward: Reward, gamma: float) -> None:
        self._reward, self._gamma = reward, gamma

    def score(self, question: Question, evidence: Collection[int], candidates: IntArray) -> Float32Array:
        """The optimal Q: one value for missing support, a lower one for everything else."""
        values = np.zeros(len(candidates), dtype=np.float32)
        missing = question.missing(evidence)
        if missing == 0 or question.removed:
            return values
        completed = question.completed(evidence)
        needed = np.isin(candidates, list(question.open_support(evidence)))
        values[needed] = self._gamma ** (missing - 1) * self._reward.worth(question, completed)
        others = candidates[~needed & ~np.isin(candidates, list(evidence))]
        if len(others):
            longer = completed.union([int(others[0])])
            values[~needed] = self._gamma**missing * self._reward.worth(question, longer)
        return values


class Reranker:
    """A cross-encoder, which reads a question and a chunk together. Its scores are logits, not values.

    What is selected already is not read: this is a teacher for questions of one fact, whose answer stays where it is.
    Each pair is read once in a training, however often a state meets it.
    """

    def __init__(self, encoder: CrossEncoder, *, together: bool = True) -> None:
        """``together`` reads the pairs of a call as one batch.

        By itself a pair has the same score to the last bit whatever was read before: a resumed run reads it anew.
        """
        self._encoder, self._together = encoder, together
        self._scores: dict[tuple[str, str], float] = {}

    def score(self, question: Question, evidence: Collection[int], candidates: IntArray) -> Float32Array:  # noqa: ARG002
        """How well each candidate answers the question, larger is better."""
        chunks = len(question.chunks)
        texts = [question.chunks[i] if i < chunks else question.pool[i - chunks] for i in candidates.tolist()]
        unread = [text for text in dict.fromkeys(texts) if (question.text, text) not in self._scores]
        for batch in [unread] if self._together and unread else [[text] for text in unread]:
            scores = self._encoder.score(question.text, batch).tolist()
            self._scores.update(((question.text, text), score) for text, score in zip(batch, scores, strict=True))
        return np.array([self._scores[question.text, text] for text in texts], dtype=np.float32)
