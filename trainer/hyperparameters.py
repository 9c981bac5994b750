"""The hyperparameters of the learning in :mod:`trainer.learning`, as recipes set them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

ActionMode = Literal["frozen", "adapter", "refreshed"]
Behaviour = Literal["policy", "support", "dagger"]
RewardName = Literal["completion", "shaped", "answer"]
ObjectiveName = Literal["q-rag", "r3"]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The settings of a run, and what they do."""

    transitions: int = 40_000
    """Selections to train on in all."""
    environments: int = 64
    """Episodes stepped as one batch."""
    minibatch: int = 96
    """Transitions of one optimiser step under λ-returns; in the warm start an update is one step."""
    frozen_layers: int = 0
    """Layers of a trained tower, from the bottom, that stay the base model's: no backward pass goes through them."""
    batch_tokens: int = 0
    """Tokens of states in one forward and backward pass; changes nothing but speed and memory. 0: 1,024 on a CPU,
    whose caches they then fit (8,192 were measured to halve its speed), 65,536 on a GPU."""
    candidates: int = 128
    """Most candidates of a state that the warm start regresses on: its support, then those with the largest Q."""
    hard_negatives: int = 8
    """For tasks that ``mine``: texts of the pool with the largest Q that the warm start regresses on too, as if they
    stood at a random place of the document."""
    learning_rate: float = 1e-4
    """Peak rate of the towers: warmed up over 5% of the training, then to zero along a cosine."""
    head_learning_rate: float = 1e-3
    """Peak rate of ``w``, ``b`` and the adapter."""
    weight_decay: float = 0.01
    gamma: float = 0.8
    """Discount γ: what one more selection costs."""
    lambda_: float = 0.8
    """λ of the returns; 1 takes what the episode brought, 0 the next state's value."""
    alpha_start: float = 0.1
    """Temperature of the policy and of the soft values at the beginning."""
    alpha_end: float = 0.03
    """The same at the end: annealed along a line, whatever the learning rate does."""
    objective: ObjectiveName = "q-rag"
    """``q-rag``: a warm start, then λ-returns; ``r3``: the reinforced contrast of R3 (arXiv 2510.24652), a single step,
    over pools that a frozen reader made in the warm start, then over what it says of the policy's own list."""
    reward: RewardName = "completion"
    """``completion``: 1 where all support is selected; ``shaped``: more for fewer selections; ``answer``: what a
    selection adds to the answer's probability, by the recipe's ``reader``, for questions that it judged."""
    warm_start: float = 0.7
    """Share of the training that regresses on clairvoyant values; λ-returns follow."""
    squared: float = 1.0
    """Weight of the squared errors in the warm start."""
    contrast: float = 1.0
    """Weight, beside them, of ``-log π(missing support | state)``. Alone, it is supervised imitation."""
    contrast_alpha: float = 0.05
    """Temperature of that term's policy."""
    distillation: float = 0.5
    """For tasks that ``distil``: weight, in the warm start, of the divergence from the reranker's order of the best
    candidates, softmax of its logits, to the policy's at ``contrast_alpha`` (as in Hinton et al. 2015, arXiv
    1503.02531)."""
    distilled: int = 12
    """How many candidates of a state, those with the largest Q, the reranker reads; its support is among them."""
    target_decay: float = 0.98
    """The decay of the target network's moving average, per update; with 0 the target is the network itself."""
    behaviour: Behaviour = "dagger"
    """Whose selections are learned from: the ``policy``'s own; ``support`` in random order, as in imitation; or, as in
    ``dagger``, the support's with a probability that falls from 1 to 0 over the warm start, else the policy's."""
    stop: bool = False
    """Whether STOP is learned, an action without position that is worth 1 where all support is found and 0 elsewhere,
    and with it that no chunk is worth anything there: episodes then go on past their end now and then."""
    action_mode: ActionMode = "adapter"
    """``frozen``: the action tower is the base model; ``adapter``: behind it a trained linear map; ``refreshed``: it is
    trained, its stored embeddings renewed on a schedule."""
    refresh_updates: int = 20
    """``refreshed`` only: updates between two renewals of all stored chunk embeddings."""
    live_chunks: int = 8
    """``refreshed`` only: best candidates of a state, beside its support, embedded with gradients."""

    def __post_init__(self) -> None:
        """Raises :class:`ValueError` for a value out of range."""
        counts = ("transitions", "environments", "minibatch", "candidates", "refresh_updates", "distilled")
        for name in (*counts, "alpha_start", "alpha_end", "contrast_alpha"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0")
        rates = ("learning_rate", "head_learning_rate", "weight_decay")
        weights = ("squared", "contrast", "distillation")
        for name in (*rates, *weights, "live_chunks", "batch_tokens", "hard_negatives", "frozen_layers"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or above")
        for name in ("gamma", "lambda_", "warm_start", "target_decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1")
