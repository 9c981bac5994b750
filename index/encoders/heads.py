"""What is read of a state beside its embedding: what it asks of order, how much each of its tokens matters, and how
much what stands beside a chunk.

All heads sit on the state tower's last layer. The same modules are trained and served.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from index.arrays import IntArray, TokenIds
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.signals.lexical import KEPT_TERMS, Lexical, Saturation

ASKED = math.log(math.e - 1)
"""Softplus of it is 1: what a question's tokens weigh before anything is learned."""

SELECTED = -3.0
"""Softplus of it is .05: the same for the tokens of selected chunks."""

FACTOR = 0.1
"""The lexical signal's factor before anything is learned."""


BESIDE = -1.26
"""Softplus of it is .25: how much the chunks beside a candidate count before anything is learned."""


class OrderHead(torch.nn.Module):
    """What a state asks of order, ``u(s)``, and the map ``P`` of chunks into that space.

    ``u(s) = max(0, <g, s> + g_0) · U s``: zero at first, and exactly zero wherever the gate is shut.
    """

    def __init__(self, dimension: int, size: int) -> None:
        super().__init__()
        self.map = torch.nn.Parameter(torch.empty(size, dimension))
        """``P``, shape ``[k, d]``."""
        torch.nn.init.orthogonal_(self.map)
        self.query = torch.nn.Parameter(torch.zeros(size, dimension))
        """``U``, shape ``[k, d]``."""
        self.gate = torch.nn.Parameter(torch.zeros(dimension))
        self.gate_bias = torch.nn.Parameter(torch.ones(()))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """``u(s)`` of state embeddings, shape ``[states, k]``."""
        opened = torch.relu(embeddings @ self.gate + self.gate_bias)
        return opened[:, None] * (embeddings @ self.query.T)


class SurroundingsHead(torch.nn.Module):
    """How much the chunks beside a candidate count: ``κ(s) = softplus(<g, s> + g_0)`` of the state's embedding."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.gate = torch.nn.Parameter(torch.zeros(dimension))
        self.bias = torch.nn.Parameter(torch.tensor(BESIDE))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """``κ(s)`` of state embeddings, shape ``[states]``."""
        return torch.nn.functional.softplus(embeddings @ self.gate + self.bias)


class WeighedTerms(NamedTuple):
    """The weights of a state's tokens, with gradients."""

    tokens: IntArray
    """Each once, shape ``[n]``."""
    weights: torch.Tensor
    """Non-negative, shape ``[n]``."""


class TermHead(torch.nn.Module):
    """How much each token of a state matters: ``softplus(<a, h> + a_0)`` of its last hidden state ``h``.

    Tokens of the question and of the selected chunks have an ``a`` and ``a_0`` each.
    """

    def __init__(self, dimension: int, rarity: torch.Tensor, saturation: Saturation) -> None:
        super().__init__()
        self.saturation = saturation
        self.weight = torch.nn.Parameter(torch.zeros(2, dimension))
        self.bias = torch.nn.Parameter(torch.tensor([ASKED, SELECTED]))
        self.factor = torch.nn.Parameter(torch.tensor(FACTOR))
        self.register_buffer("rarity", rarity)
        self.rarity: torch.Tensor
        """How rare each token is, shape ``[vocabulary]``; a token of rarity 0 is never searched."""

    def forward(
        self, hidden: Sequence[torch.Tensor], inputs: Sequence[TokenIds], asked: Sequence[int]
    ) -> list[WeighedTerms]:
        """The :data:`~index.search.signals.lexical.KEPT_TERMS` that matter most in each state.

        ``hidden`` has a ``[tokens, d]`` tensor for each state, whose first ``asked`` tokens are the question. A token
        that stands in several places has its largest weight.
        """
        device = hidden[0].device
        lengths = [len(ids) for ids in inputs]
        kind = torch.from_numpy(
            np.concatenate([np.arange(length) >= first for length, first in zip(lengths, asked, strict=True)]).astype(
                int
            )
        ).to(device)
        both = torch.cat(list(hidden)).float() @ self.weight.T + self.bias
        weights = torch.nn.functional.softplus(both.gather(1, kind[:, None])[:, 0])
        terms = []
        for ids, of_state in zip(inputs, torch.split(weights, lengths), strict=True):
            tokens, place = np.unique(np.asarray(ids), return_inverse=True)
            largest = of_state.new_zeros(len(tokens)).scatter_reduce(
                0, torch.from_numpy(place).to(device), of_state, "amax", include_self=False
            )
            worth = (largest.detach() * self.rarity[torch.from_numpy(tokens).to(device)]).cpu().numpy()
            kept = np.sort(np.argsort(-worth, kind="stable")[:KEPT_TERMS])
            kept = kept[worth[kept] > 0]
            terms.append(WeighedTerms(tokens[kept].astype(np.int64), largest[torch.from_numpy(kept).to(device)]))
        return terms


class Heads(torch.nn.Module):
    """The heads that a checkpoint has."""

    def __init__(
        self,
        order: OrderHead | None = None,
        terms: TermHead | None = None,
        surroundings: SurroundingsHead | None = None,
    ) -> None:
        super().__init__()
        self.order = order
        self.terms = terms
        self.surroundings = surroundings


def q_function(w: float, b: float, positions: Positions, temperature: float, heads: Heads) -> QFunction:
    """The Q-function with these heads."""
    lexical: tuple[Lexical, ...] = ()
    if heads.terms is not None:
        rarity = heads.terms.rarity.float().cpu().numpy()
        lexical = (Lexical(heads.terms.factor.item(), rarity, heads.terms.saturation),)
    order_map = None if heads.order is None else heads.order.map.detach().double().cpu().numpy()
    return QFunction(w, b, positions, temperature, lexical, order_map)


def heads_from(tensors: Mapping[str, torch.Tensor], saturation: Saturation) -> Heads:
    """The heads whose parameters these are, as :meth:`torch.nn.Module.state_dict` of :class:`Heads` names them.

    Raises :class:`KeyError` or :class:`RuntimeError` where some are missing or do not fit together.
    """
    order = terms = surroundings = None
    if "order.map" in tensors:
        size, dimension = tensors["order.map"].shape
        order = OrderHead(dimension, size)
    if "terms.weight" in tensors:
        terms = TermHead(tensors["terms.weight"].shape[1], tensors["terms.rarity"], saturation)
    if "surroundings.gate" in tensors:
        surroundings = SurroundingsHead(len(tensors["surroundings.gate"]))
    heads = Heads(order, terms, surroundings)
    heads.load_state_dict(dict(tensors))
    return heads.requires_grad_(False)
