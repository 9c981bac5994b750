"""The shares of the question alone in the embeddings of its states."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from index.arrays import Float32Array
from index.encoders.checkpoint import CheckpointConfig, read_config
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder, load_model
from index.encoders.tokenizer import TextTokenizer
from index.encoders.tower import Tower
from index.encoders.writing import write_config, write_tower
from index.errors import CheckpointError
from tests.architectures import ARCHITECTURES

CLS, SEP = 101, 102

TEXTS = ["Ann took the red ball.", "Where?", "", "so many words " * 30, "天地玄黄 😀", "Ann took the red ball."]


@pytest.fixture(scope="module")
def tower(tiny_checkpoint: Path) -> Tower:
    model = load_model(tiny_checkpoint / "action", torch.device("cpu"), torch.float32)
    return Tower(model, TextTokenizer(tiny_checkpoint / "action"), pooling="mean", normalize=True)


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path, tower: Tower) -> Encoder:
    return Encoder(read_config(tiny_checkpoint), tower, tower)


def with_share(encoder: Encoder, share: float, state: Tower | None = None, action: Tower | None = None) -> Encoder:
    config = encoder.config.model_copy(update={"question_share": share})
    return Encoder(config, state or encoder.state_tower, action or encoder.action_tower)


def test_a_share_of_the_questions_own_embedding_is_added_to_every_state_of_it(encoder: Encoder) -> None:
    asked = [encoder.question_tokens(text) for text in ("Who kept bees?", "Where is the lamp?")]
    chunks = encoder.state_tokens(TEXTS[:2])
    states = [encoder.compose_state(question, read) for read in (chunks[:0], chunks) for question in asked]
    questions = encoder.embed_actions(encoder.action_inputs(["Who kept bees?", "Where is the lamp?"] * 2))
    expected = encoder.embed_states(states).embeddings + 0.25 * questions
    mixed = with_share(encoder, 0.25)
    np.testing.assert_allclose(mixed.embed_states(states).embeddings, expected, atol=1e-6)
    # Again, the questions being known, in another order and alone.
    np.testing.assert_allclose(mixed.embed_states(states[::-1]).embeddings, expected[::-1], atol=1e-6)
    np.testing.assert_allclose(mixed.embed_states(states[3:]).embeddings, expected[3:], atol=1e-6)


def test_every_later_state_has_a_share_of_the_first_one(encoder: Encoder) -> None:
    asked = [encoder.question_tokens(text) for text in ("Who kept bees?", "Where is the lamp?")]
    chunks = encoder.state_tokens(TEXTS[:2])
    states = [encoder.compose_state(question, read) for read in (chunks[:0], chunks) for question in asked]
    alone = encoder.embed_states(states).embeddings
    expected: Float32Array = np.concatenate((alone[:2], (alone[2:] + 0.5 * alone[:2]) / 1.5))
    config = encoder.config.model_copy(update={"first_share": 0.5})
    for order in ([0, 1, 2, 3], [3, 1, 0, 2], [3, 2], [2], [0]):  # with the first states, and without
        mixed = Encoder(config, encoder.state_tower, encoder.action_tower)
        found = mixed.embed_states([states[number] for number in order]).embeddings
        np.testing.assert_allclose(found, expected[order], atol=1e-6)
        again = mixed.embed_states([states[number] for number in order]).embeddings
        np.testing.assert_allclose(again, expected[order], atol=1e-6)


def test_a_question_is_embedded_once_and_not_kept_for_ever(
    encoder: Encoder, tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[Sequence[int]]] = []
    action = copy.copy(tower)

    def noted(inputs: Sequence[Sequence[int]]) -> Float32Array:
        asked.append(inputs)
        return tower.embed(inputs)

    monkeypatch.setattr(action, "embed", noted)
    monkeypatch.setattr("index.encoders.encoder.QUESTIONS_KEPT", 3)
    mixed = with_share(encoder, 0.25, action=action)
    one, two, three, four = (mixed.compose_state([1000 + number], []) for number in range(4))
    for states in ([one, two, one], [two, one], [three, one], [four, one], [one], [two]):
        mixed.embed_states(states)
    assert [[inputs[1] for inputs in each] for each in asked] == [[1000, 1001], [1002], [1003], [1001]]


def test_a_long_question_is_cut_to_what_the_action_tower_reads(encoder: Encoder) -> None:
    config = encoder.config.model_copy(update={"action_tokens": 12, "question_share": 0.5})
    state = Encoder(config, encoder.state_tower, encoder.action_tower).compose_state([7] * 100, [])
    assert state.question == (CLS, *[7] * 10, SEP)
    assert len(state.ids) == 102


def test_towers_that_read_a_question_differently_cannot_share_it(tmp_path: Path) -> None:
    towers = {}
    for name, architecture in (("state", "bert-mean"), ("action", "xlm-roberta-mean")):
        model, tokenizer = ARCHITECTURES[architecture].make()
        towers[name] = write_tower(tmp_path, name, model, tokenizer, pooling="mean", normalize=True, max_tokens=60)
    config = CheckpointConfig(
        name="two", base_model="random", dimension=32, separator=" ", state_tokens=60, action_tokens=60, **towers
    )
    write_config(tmp_path, config)
    load_encoder(tmp_path, device="cpu")
    write_config(tmp_path, config.model_copy(update={"question_share": 0.2}))
    with pytest.raises(CheckpointError, match=r"tokenizers differ\. Export"):
        load_encoder(tmp_path, device="cpu")
