"""What is read of a state beside its embedding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from index.encoders.heads import Heads, OrderHead, TermHead, heads_from, q_function
from index.search.positions import Positions
from index.search.signals.lexical import KEPT_TERMS, Saturation


def terms_head(rarity: list[float]) -> TermHead:
    return TermHead(4, torch.tensor(rarity), Saturation(mean_length=9.0))


def hidden(inputs: list[list[int]]) -> list[torch.Tensor]:
    return [torch.randn(len(ids), 4, generator=torch.Generator().manual_seed(len(ids))) for ids in inputs]


def test_at_first_nothing_is_asked_of_order() -> None:
    head = OrderHead(6, 4)
    assert not head(torch.randn(3, 6)).any()
    products = head.map @ head.map.T
    torch.testing.assert_close(products, torch.eye(4))  # the map keeps lengths of what it keeps


def test_a_shut_gate_asks_exactly_nothing() -> None:
    head = OrderHead(2, 2)
    with torch.no_grad():
        head.query.copy_(torch.eye(2))
        head.gate.copy_(torch.tensor([5.0, 0.0]))
    asked = head(torch.tensor([[1.0, 0.0], [-1.0, 0.5]]))
    assert asked[0].any()
    assert not asked[1].any()


def test_at_first_the_questions_tokens_weigh_one_and_those_of_chunks_little() -> None:
    inputs = [[1, 2, 3, 4]]
    ((tokens, weights),) = terms_head([0.0, 1.0, 0.5, 0.2, 0.9])(hidden(inputs), inputs, [2])
    assert tokens.tolist() == [1, 2, 3, 4]
    torch.testing.assert_close(weights[:2], torch.ones(2))
    assert (weights[2:] < 0.06).all()


def test_a_token_in_several_places_has_its_largest_weight() -> None:
    inputs = [[1, 2, 1]]
    ((tokens, weights),) = terms_head([0.0, 1.0, 1.0])(hidden(inputs), inputs, [1])
    assert tokens.tolist() == [1, 2]
    assert weights[0].item() == pytest.approx(1.0)


def test_tokens_without_rarity_are_not_searched_and_the_worthiest_are_kept() -> None:
    rarity = [0.0] + [1 + number / 100 for number in range(60)]
    inputs = [list(range(61))]
    ((tokens, _),) = terms_head(rarity)(hidden(inputs), inputs, [61])
    assert tokens.tolist() == list(range(61 - KEPT_TERMS, 61))


def test_gradients_flow_into_the_weights_of_tokens() -> None:
    head = terms_head([0.0, 1.0, 1.0])
    inputs = [[1, 2], [2, 2, 1]]
    states = hidden(inputs)
    sum(weights.sum() for _, weights in head(states, inputs, [1, 1])).backward()
    assert head.weight.grad is not None
    assert head.weight.grad.abs().sum() > 0


def test_heads_are_what_their_parameters_were() -> None:
    heads = Heads(OrderHead(4, 2), terms_head([0.0, 1.0]))
    again = heads_from(heads.state_dict(), Saturation(mean_length=9.0))
    for name, value in heads.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value)
    function = q_function(1.5, -0.5, Positions(dimension=2), 0.1, again)
    assert function.order_map is not None
    np.testing.assert_array_equal(function.order_map, heads.order.map.detach().double().numpy())  # type: ignore[union-attr]
    assert function.lexical is not None
    assert function.lexical.saturation.mean_length == 9.0
