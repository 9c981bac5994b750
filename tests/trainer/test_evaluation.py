from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.encoders.encoder import Encoder
from index.encoders.loading import load_encoder
from index.search.matrix_scope import MatrixScope
from index.search.positions import level_indices, rotate
from trainer.datasets.question import Question
from trainer.evaluation.counting import Outcome, Recall, found_after, outcome, recall, summary
from trainer.evaluation.playing import Player, play, together
from trainer.evaluation.vectors import ChunkVectors, embed_in_order, embed_texts

WORDS = "mary john went took left the kitchen garden milk book river night lamp bread stone winter".split()


@pytest.fixture(scope="module")
def encoder(tiny_checkpoint: Path) -> Encoder:
    return load_encoder(tiny_checkpoint, device="cpu")


def question_of(
    chunks: Sequence[str], support: Sequence[int] = (0,), budget: int = 3, counts: tuple[int, ...] = ()
) -> Question:
    counts = counts or (len(chunks),)
    return Question("id", "task", "where is the milk", chunks, counts, frozenset(support), budget)


def random_questions(count: int, seed: int = 0) -> list[Question]:
    generator = np.random.default_rng(seed)
    questions = []
    for _ in range(count):
        counts = tuple(generator.integers(1, 12, size=generator.integers(1, 5)).tolist())
        chunks = [" ".join(generator.choice(WORDS, 4)) for _ in range(sum(counts))]
        text = " ".join(generator.choice(WORDS, 5))
        budget = int(generator.integers(1, 6))
        questions.append(Question("id", "task", text, chunks, counts, frozenset({0}), budget))
    return questions


def slow_episode(encoder: Encoder, question: Question, vectors: dict[str, np.ndarray]) -> list[int]:
    """The definition: at each step every chunk's Q in float64, chunk by chunk."""
    function = encoder.function
    selected: list[int] = []
    for _ in range(min(question.budget, len(question.chunks))):
        chosen = sorted(selected)
        tokens = encoder.state_tokens([question.chunks[position] for position in chosen])
        state = encoder.embed_states([encoder.compose_state(encoder.question_tokens(question.text), tokens)])[
            0
        ].embedding
        values = np.full(len(question.chunks), -np.inf)
        first = 0
        for count in question.counts:
            inside = [position - first for position in chosen if first <= position < first + count]
            for index in range(count):
                if first + index in selected:
                    continue
                level = level_indices(np.array([index]), np.array([0, count]), inside, function.positions)
                rho = function.positions.rho(level)
                turned = rotate(vectors[question.chunks[first + index]].astype(np.float64), rho, 10000.0)[0]
                values[first + index] = function.w * (state.astype(np.float64) @ turned) + function.b
            first += count
        selected.append(int(values.argmax()))
    return selected


def test_play_is_the_argmax_of_the_definition(encoder: Encoder) -> None:
    questions = random_questions(12)
    texts = sorted({chunk for question in questions for chunk in question.chunks})
    matrix = embed_in_order(encoder, texts)
    vectors = dict(zip(texts, matrix, strict=True))
    found = play(encoder, questions, ChunkVectors(texts, matrix))
    assert found == [slow_episode(encoder, question, vectors) for question in questions]


def test_a_given_budget_replaces_the_questions(encoder: Encoder) -> None:
    questions = random_questions(3)
    vectors = embed_texts(encoder, sorted({chunk for question in questions for chunk in question.chunks}))
    assert [len(found) for found in play(encoder, questions, vectors, 2)] == [
        min(2, len(question.chunks)) for question in questions
    ]


def test_a_player_embeds_what_it_meets_and_answers_as_play_does(encoder: Encoder) -> None:
    questions = random_questions(6)
    background = questions[0].chunks
    player = Player(encoder)
    player.read(background)
    texts = sorted({chunk for question in questions for chunk in question.chunks})
    expected = play(encoder, questions, embed_texts(encoder, texts))
    assert [player.select([question])[0] for question in questions] == expected


def test_questions_are_taken_together_as_far_as_memory_allows() -> None:
    sizes = [4, 4, 4, 20, 1, 1, 1, 1]
    groups = together((question_of(["a"] * size) for size in sizes), episodes=3, most_chunks=10)
    assert [[len(question.chunks) for question in group] for group in groups] == [[4, 4], [4], [20], [1, 1, 1], [1]]


# -- chunk vectors ----------------------------------------------------------------------------------------------------


def covered(scope: MatrixScope) -> np.ndarray:
    """Every row in order; the parts must join without gaps."""
    position = 0
    rows = []
    for part in scope.matrices.parts:
        assert part.start == position
        position += len(part.matrix)
        rows.append(np.asarray(part.matrix))
    assert position == scope.size
    return np.concatenate(rows)


letters = st.sampled_from("abcdefg")


@given(background=st.lists(letters, min_size=1, max_size=30), chunks=st.lists(letters, min_size=1, max_size=40))
def test_a_scope_covers_every_chunk_in_order(background: list[str], chunks: list[str]) -> None:
    def matrix(texts: Sequence[str]) -> np.ndarray:
        return np.array([[ord(text)] * 2 for text in texts], dtype=np.float32)

    vectors = ChunkVectors(background, matrix(background))
    missing = vectors.missing(chunks)
    assert missing == list(dict.fromkeys(chunk for chunk in chunks if chunk not in background))
    vectors.add(missing, matrix(missing))
    assert vectors.missing(chunks) == []
    scope = vectors.scope(question_of(chunks))
    assert covered(scope)[:, 0].tolist() == [ord(chunk) for chunk in chunks]
    assert scope.matrices.norm_bound >= max(ord(chunk) for chunk in chunks) * 2**0.5


def test_a_stretch_of_the_background_is_one_slice_though_its_sentences_repeat() -> None:
    background = [f"sentence {number}" if number % 3 else "Yes." for number in range(600)]
    vectors = ChunkVectors(background, np.arange(600, dtype=np.float32)[:, None].repeat(2, axis=1))
    vectors.add(["fact one", "fact two"], np.full((2, 2), -1, dtype=np.float32))
    chunks = [*background[100:200], "fact one", "fact two", *background[200:400], "fact one", *background[400:500]]
    scope = vectors.scope(question_of(chunks))
    assert [len(part.matrix) for part in scope.matrices.parts] == [100, 2, 200, 1, 100]
    assert np.shares_memory(
        np.asarray(scope.matrices.parts[2].matrix), vectors.scope(question_of(background)).matrices.parts[0].matrix
    )


def test_an_unknown_text_is_an_error(encoder: Encoder) -> None:
    with pytest.raises(KeyError):
        embed_texts(encoder, ["known"]).scope(question_of(["unknown"]))


def test_repeated_texts_get_a_row_each_time(encoder: Encoder) -> None:
    matrix = embed_in_order(encoder, ["a lamp", "a stone", "a lamp"])
    assert np.array_equal(matrix[0], matrix[2])
    assert not np.array_equal(matrix[0], matrix[1])


def test_embeddings_are_kept_and_found_again(encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["a lamp", "a stone", "bread", "a lamp"]
    first = embed_in_order(encoder, texts, tmp_path, cache_from=3)
    monkeypatch.setattr("trainer.evaluation.vectors._embed", lambda *_: pytest.fail("embedded again"))
    assert np.array_equal(embed_in_order(encoder, texts, tmp_path, cache_from=3), first)
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(pytest.fail.Exception):
        embed_in_order(encoder, [*texts, "another"], tmp_path, cache_from=3)


# -- counting ---------------------------------------------------------------------------------------------------------

selections = st.lists(st.integers(0, 19), max_size=8, unique=True)
supports = st.sets(st.integers(0, 19), min_size=1, max_size=4)


@given(support=supports, selected=selections)
def test_found_after_is_the_first_prefix_with_all_support(support: set[int], selected: list[int]) -> None:
    found = found_after(question_of(["x"] * 20, sorted(support)), selected)
    complete = [step for step in range(1, len(selected) + 1) if support <= set(selected[:step])]
    assert found == (complete[0] if complete else None)


@given(cases=st.lists(st.tuples(supports, selections.filter(len)), min_size=1, max_size=8))
def test_recall_rises_with_the_selections_up_to_the_recall_at_budget(cases: list[tuple[set[int], list[int]]]) -> None:
    questions = [question_of(["x"] * 20, sorted(support)) for support, _ in cases]
    counted = recall(questions, [selected for _, selected in cases])
    assert list(counted.by_step) == sorted(counted.by_step)
    assert counted.by_step[-1] == counted.at_budget == sum(support <= set(s) for support, s in cases) / len(cases)
    assert len(counted.by_step) == max(len(selected) for _, selected in cases)
    assert 0 <= counted.support_f1 <= 1
    assert 0 < counted.standard_error < 0.5


def test_f1_counts_what_was_not_needed() -> None:
    question = question_of(["x"] * 10, [2, 3])
    assert outcome(question, [2, 7, 3, 8]) == Outcome(3, 4, f1=2 * 2 / (2 + 4), shares=(1.0, 0.5, 1.0, 1.0))


def test_the_standard_error_falls_with_the_questions() -> None:
    few, many = (Recall(count, 1.0, (1.0,), 1.0).standard_error for count in (10, 1000))
    assert many < 0.002 < 0.05 < few


def test_nothing_to_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="no questions"):
        summary([])
