from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from index.arrays import Float32Array
from index.encoders.cross_encoder import CrossEncoder
from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.errors import CheckpointError
from index.search.positions import Positions
from trainer.datasets.question import Question
from trainer.evaluation.baselines import BM25, Hybrid, OneStep, Reranked, untrained_encoder
from trainer.evaluation.playing import Player, SecondLook
from trainer.evaluation.vectors import embed_in_order

CHUNKS = [
    "The river froze over in December.",
    "Ada keeps the silver compass in a drawer.",
    "Nobody had opened the drawer for years.",
    "The compass needle points north.",
    "Bread is baked on Fridays.",
]


def question_of(text: str, budget: int = 3, chunks: list[str] | None = None) -> Question:
    chunks = chunks or CHUNKS
    return Question("id", "task", text, chunks, (len(chunks),), frozenset({0}), budget)


@pytest.fixture(scope="module")
def untrained(tiny_checkpoint: Path) -> Encoder:
    """A tiny encoder in the place of the base model: the same states, without positions."""
    encoder = load_encoder(tiny_checkpoint, device="cpu")
    encoder.function = Encoder(
        encoder.config.model_copy(update={"positions": Positions(mode="none"), "w": 1.0, "b": 0.0}),
        encoder.state_tower,
        encoder.action_tower,
    ).function
    return encoder


def test_bm25_finds_the_words_of_the_question() -> None:
    first, second = BM25().select([question_of("Where is the silver compass?"), question_of("When is bread baked?", 1)])
    assert first[:2] == [1, 3]
    assert len(first) == 3
    assert second == [4]


def test_bm25_takes_the_document_order_where_nothing_tells_chunks_apart() -> None:
    (of_stop_words,) = BM25().select([question_of("is it the")])
    (of_unknown_words,) = BM25().select([question_of("zebra xylophone")])
    assert of_stop_words == of_unknown_words == [0, 1, 2]


def test_bm25_selects_no_more_than_there_is() -> None:
    ways = BM25()
    assert ways.select([question_of("bread", 9)])[0][0] == 4
    assert len(ways.select([question_of("bread", 9)])[0]) == len(CHUNKS)
    assert len(ways.select([question_of("it is", 9, ["one"])])[0]) == 1


def test_one_step_is_the_order_of_the_inner_products(untrained: Encoder) -> None:
    questions = [question_of(text, budget) for text, budget in (("silver compass", 3), ("frozen rivers", 9))]
    chunks = embed_in_order(untrained, CHUNKS).astype(np.float64)
    for question, found in zip(questions, OneStep(untrained).select(questions), strict=True):
        inputs = [untrained.compose_state(untrained.question_tokens(question.text), [])]
        order = np.argsort(-(chunks @ untrained.embed_states(inputs)[0].embedding.astype(np.float64)), kind="stable")
        assert found == order[: question.budget].tolist()


def test_one_step_begins_as_several_steps_do(untrained: Encoder) -> None:
    questions = [question_of(text) for text in ("silver compass", "frozen rivers", "baked bread")]
    several = Player(untrained).select(questions)
    assert [found[0] for found in OneStep(untrained).select(questions)] == [found[0] for found in several]


def test_the_untrained_encoder_is_one_tower_without_positions() -> None:
    encoder = untrained_encoder(None, torch.device("cpu"))
    assert encoder.state_tower is encoder.action_tower
    assert encoder.function.positions.mode == "none"
    assert (encoder.function.w, encoder.function.b) == (1.0, 0.0)
    # The real base model: it must tell the chunks about bread and about ice from the others.
    bread, ice = OneStep(encoder).select([question_of("When is bread baked?"), question_of("What froze in winter?")])
    assert (bread[0], ice[0]) == (4, 0)


class Listed:
    """Ranks the chunks as it is told."""

    def __init__(self, *orders: list[int]) -> None:
        self._orders = orders

    def read(self, background: Sequence[str]) -> None:
        del background

    def rank(self, questions: Sequence[Question], count: int) -> list[list[int]]:
        return [order[:count] for order in self._orders[: len(questions)]]


def test_ranks_of_two_lists_are_fused() -> None:
    hybrid = Hybrid(Listed([0, 1, 2]), Listed([2, 1, 4]))
    # 2: 1/63 + 1/61; 1: 2/62, a little less; 0: 1/61; 4: 1/63.
    assert hybrid.select([question_of("which?", 4)]) == [[2, 1, 0, 4]]


def test_a_cross_encoder_puts_the_head_of_a_list_in_order(tmp_path: Path, tiny_base: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_base, num_labels=1)
    torch.manual_seed(1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path)
    encoder = CrossEncoder(tmp_path, torch.device("cpu"), torch.float32)
    question = question_of("Where is the silver compass?", 3)
    scores = encoder.score(question.text, CHUNKS)
    alone = [float(encoder.score(question.text, [chunk])[0]) for chunk in CHUNKS]
    np.testing.assert_allclose(scores, alone, atol=1e-5)
    assert len(set(alone)) == len(alone)
    listed = [4, 2, 0, 3]
    expected = sorted(listed, key=lambda position: -alone[position])[:3]
    assert Reranked(Listed(listed), encoder).select([question]) == [expected]


def test_a_second_look_chooses_among_the_best_of_each_step(
    untrained: Encoder, reranker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cross_encoder = CrossEncoder(reranker, torch.device("cpu"), torch.float32)
    question = question_of("Where is the silver compass?")
    (of_one,) = Player(untrained, second_look=SecondLook(cross_encoder, 1)).select([question])
    assert [of_one] == Player(untrained).select([question])
    score, read = cross_encoder.score, []

    def noted(question: str, texts: Sequence[str], evidence: Sequence[str] = ()) -> Float32Array:
        read.append(list(evidence))
        return score(question, texts, evidence)

    monkeypatch.setattr(cross_encoder, "score", noted)
    (selected,) = Player(untrained, second_look=SecondLook(cross_encoder, len(CHUNKS))).select([question])
    assert read == [[CHUNKS[place] for place in sorted(selected[:step])] for step in range(3)]
    for step, position in enumerate(selected):
        evidence = [CHUNKS[place] for place in sorted(selected[:step])]
        scores = score(question.text, CHUNKS, evidence)
        scores[selected[:step]] = -np.inf
        assert position == int(scores.argmax())
    assert len(selected) == 3


def test_a_folder_without_a_cross_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="reranker"):
        CrossEncoder(tmp_path, torch.device("cpu"))
