"""Retrieval over HTTP: its Q-values are those of the checkpoint, written down once more from the paper."""

from __future__ import annotations

import math
from collections import defaultdict

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from index.encoders.encoder import Encoder
from tests.service.helpers import ask, problem, stream
from tests.service.library import QUESTION, SENTENCES, add_library, add_lines

TOLERANCE = 0.005
"""How far a Q-value may be off: bfloat16 rounds a state's embedding differently in another batch."""

Vector = NDArray[np.float64]


def rotated(vector: Vector, rho: float) -> Vector:
    """RoPE, written down once more: each pair of coordinates is a complex number."""
    dimension = len(vector)
    pairs = vector[0::2] + 1j * vector[1::2]
    turned = pairs * np.exp(1j * rho * 10000.0 ** (-np.arange(0, dimension, 2) / dimension))
    return np.stack([turned.real, turned.imag], axis=1).ravel()


def expected_q(encoder: Encoder, texts: list[str], selected: list[int]) -> dict[int, float]:
    """Q of every chunk of one document by the formula of the paper, from the checkpoint's towers alone."""
    state = encoder.compose_state(
        encoder.question_tokens(QUESTION), encoder.state_tokens([texts[i] for i in sorted(selected)])
    )
    s = encoder.embed_states([state])[0].embedding.astype(np.float64)
    actions = encoder.embed_actions(encoder.action_inputs(texts)).astype(np.float64)
    borders = [0, *sorted(selected), len(texts)]
    values = {}
    for i in range(len(texts)):
        if i in selected:
            continue
        j = max(k for k in range(len(borders) - 1) if borders[k] <= i)
        level = 18 * (i - borders[j]) // (borders[j + 1] - borders[j])
        values[i] = 1.5 * float(s @ rotated(actions[i], 10.0 * j + 9.0 * level / 18)) - 0.25
    return values


def test_q_values_are_those_of_the_checkpoint(client: httpx.Client, collection: str, encoder: Encoder) -> None:
    add_lines(client, collection, SENTENCES)
    result = ask(client, QUESTION, collection=collection, max_steps=3, trace=True)
    selected: list[int] = []
    spread = []
    for step in result["steps"]:
        values = expected_q(encoder, SENTENCES, selected)
        shown = {each["index"]: each["q"] for each in step["candidates"]}
        assert shown == pytest.approx({index: values[index] for index in shown}, abs=TOLERANCE)
        left_out = max((q for index, q in values.items() if index not in shown), default=-np.inf)
        assert left_out <= min(shown.values()) + TOLERANCE
        assert max(values.values()) == pytest.approx(step["q"], abs=TOLERANCE)
        spread.append(max(values.values()) - min(values.values()))
        selected.append(step["index"])
    assert min(spread) > 5 * TOLERANCE, "values that are all alike would show nothing"


@pytest.mark.parametrize("stretches", [1, 5, 512])
def test_heat_maps_hold_the_largest_q_of_each_stretch(
    client: httpx.Client, collection: str, encoder: Encoder, stretches: int
) -> None:
    document = add_lines(client, collection, SENTENCES)
    result = ask(client, QUESTION, collection=collection, max_steps=4, heatmap=stretches)
    assert [step["candidates"] for step in result["steps"]] == [None] * 4
    selected: list[int] = []
    for step in result["steps"]:
        (heat,) = step["heatmap"]
        assert (heat["document_id"], heat["chunks"]) == (document["id"], 12)
        assert heat["borders"] == sorted(selected)
        count = min(stretches, 12)
        assert len(heat["q"]) == count
        largest: dict[int, float] = {}
        for index, q in expected_q(encoder, SENTENCES, selected).items():
            largest[index * count // 12] = max(q, largest.get(index * count // 12, q))
        shown = {stretch: q for stretch, q in enumerate(heat["q"]) if q is not None}
        assert shown == pytest.approx(largest, abs=2 * TOLERANCE)
        selected.append(step["index"])


def test_heat_maps_are_of_the_documents_that_matter_and_change_nothing_else(
    client: httpx.Client, collection: str
) -> None:
    add_library(client, collection)
    fields = {"collection": collection, "max_steps": 5}
    plain = ask(client, QUESTION, **fields)
    assert all(step["heatmap"] is None for step in plain["steps"])
    mapped = ask(client, QUESTION, **fields, heatmap=4)
    for step in mapped["steps"]:
        assert step["heatmap"][0]["document_id"] == step["document_id"]
        assert {heat["document_id"] for heat in step["heatmap"]} >= {
            other["document_id"] for other in mapped["steps"][: step["step"]]
        }
        step["heatmap"] = None
    assert {**mapped, "timings": None} == {**plain, "timings": None}


@pytest.mark.parametrize("beam_width", [1, 3])
def test_heat_maps_are_streamed_as_they_are_answered(client: httpx.Client, collection: str, beam_width: int) -> None:
    add_library(client, collection)
    *steps, (_, result) = stream(client, QUESTION, collection=collection, beam_width=beam_width, heatmap=3)
    assert len(steps) == 6
    assert [step["heatmap"] for _, step in steps] == [step["heatmap"] for step in result["steps"]]


def test_heat_maps_of_too_many_stretches_are_refused(client: httpx.Client) -> None:
    for stretches in (0, 513, 2.5, "4"):
        answer = client.post("/retrieve", json={"question": "?", "heatmap": stretches})
        assert "heatmap" in problem(answer, 422, "validation_error")["detail"]


def test_one_step_is_the_plain_inner_product(client: httpx.Client, collection: str, encoder: Encoder) -> None:
    add_lines(client, collection, SENTENCES)
    result = ask(client, QUESTION, collection=collection, max_steps=12, trace=True)
    state = encoder.embed_states([encoder.compose_state(encoder.question_tokens(QUESTION), [])])[0].embedding
    products = encoder.embed_actions(encoder.action_inputs(SENTENCES)) @ state
    found = {each["index"]: each["q"] for each in result["one_step"]}
    assert found == pytest.approx(dict(enumerate(products.tolist())), abs=TOLERANCE)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_a_wide_beam_finds_the_likeliest_set(client: httpx.Client, collection: str, encoder: Encoder) -> None:
    texts = SENTENCES[:8]
    add_lines(client, collection, texts)

    def chances(selected: list[int]) -> dict[int, float]:
        values = expected_q(encoder, texts, selected)
        odds = {at: math.exp(q / encoder.function.temperature) for at, q in values.items()}
        return {at: share / sum(odds.values()) for at, share in odds.items()}

    firsts = chances([])
    pairs: dict[frozenset[int], float] = defaultdict(float)
    for first, chance in firsts.items():
        if chance > max(firsts.values()) / 20:
            for second, then in chances([first]).items():
                pairs[frozenset((first, second))] += chance * then
    result = ask(client, QUESTION, collection=collection, max_steps=2, beam_width=16, stop={"rule": "budget"})
    found = frozenset(chunk["index"] for chunk in result["chunks"])
    assert pairs[found] > 0.8 * max(pairs.values())  # the tolerance of Q leaves so much
    assert np.median(list(pairs.values())) < 0.5 * max(pairs.values())
