"""What is learned from a cross-encoder: the order of a question's best candidates, where a task asks for it."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from index.arrays import Float32Array, IntArray
from index.encoders.cross_encoder import CrossEncoder
from tests.trainer.learners import make_network, make_recipe, random_question, random_questions, words
from tests.trainer.mixtures import drawn, write_multihop
from tests.trainer.mixtures import make_recipe as make_mixture_recipe
from trainer.datasets.question import Question
from trainer.hyperparameters import Hyperparameters
from trainer.learning.learner import Learner
from trainer.learning.objectives.warm_start import order_divergence
from trainer.learning.teachers import Reranker
from trainer.learning.training import build_learner
from trainer.tasks.mixture import build_mixture

POOL = ("a text of the pool", "another text of the pool, and a long one at that", "third")


def distilled(seed: int, count: int) -> list[Question]:
    return [replace(question, distil=True, pool=POOL) for question in random_questions(seed, count)]


@dataclass
class Longest:
    """Finds that the longest candidate answers best."""

    asked: list[tuple[Question, IntArray]] = field(default_factory=list)

    def score(self, question: Question, evidence: Collection[int], candidates: IntArray) -> Float32Array:
        del evidence
        self.asked.append((question, candidates))
        texts = [*question.chunks, *question.pool]
        return np.array([len(texts[candidate]) / 10 for candidate in candidates.tolist()], dtype=np.float32)


def test_the_divergence_is_none_from_the_same_order_and_grows_with_the_difference() -> None:
    generator = np.random.default_rng(1)
    teacher, student = generator.normal(size=(2, 7))
    p, q = (np.exp(logits) / np.exp(logits).sum() for logits in (teacher, student))
    divergence = order_divergence(torch.tensor(student), torch.tensor(teacher))
    assert divergence.item() == pytest.approx((p * np.log(p / q)).sum())
    # Only differences count, on both sides.
    assert order_divergence(torch.tensor(student) + 3, torch.tensor(student) - 2).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("stop", [False, True])
def test_the_order_of_a_reranker_is_learned_whatever_the_labels_say(tiny_base: Path, stop: bool) -> None:
    settings = Hyperparameters(
        transitions=6000,
        warm_start=1.0,
        squared=0.0,
        contrast=0.0,
        distillation=1.0,
        distilled=5,
        behaviour="policy",
        learning_rate=3e-3,
        head_learning_rate=1e-2,
        hard_negatives=2,
        stop=stop,
    )
    recipe = make_recipe(tiny_base, hyperparameters=Hyperparameters(stop=stop))
    reranker = Longest()
    learner = Learner(make_network(recipe), make_network(recipe), settings, seed=0, reranker=reranker)
    questions = distilled(1, 4)

    def divergence() -> float:
        values = []
        for played in learner.rollout(questions * 4):
            first = played.transitions[0]
            logits = Longest().score(first.question, (), first.candidates)
            q = torch.from_numpy(first.q) / settings.contrast_alpha
            values.append(order_divergence(q, torch.from_numpy(logits)).item())
        return float(np.mean(values))

    learner.seen = 300  # past the warm-up of the learning rate
    before = divergence()
    for _ in range(30):
        learner.update(questions * 4)
    assert divergence() < before / 2
    assert {len(candidates) for _, candidates in reranker.asked} == {5}
    assert any((candidates >= len(question.chunks)).any() for question, candidates in reranker.asked)


def test_it_reads_the_best_available_candidates_with_the_support_and_no_complete_states(tiny_base: Path) -> None:
    settings = Hyperparameters(warm_start=1.0, distilled=4, behaviour="policy", stop=True, hard_negatives=0)
    recipe = make_recipe(tiny_base, hyperparameters=settings)
    reranker = Longest()
    learner = Learner(make_network(recipe), make_network(recipe), settings, seed=0, reranker=reranker)
    trajectories = [played for _ in range(4) for played in learner.learn_on_the_way(distilled(2, 6))[0]]
    transitions = [transition for played in trajectories for transition in played.transitions]
    assert any(transition.observation.complete for transition in transitions)
    incomplete = [transition for transition in transitions if not transition.observation.complete]
    assert len(reranker.asked) == len(incomplete)
    for transition in incomplete:
        observation = transition.observation
        worth = np.where(observation.support, np.inf, np.where(observation.available, transition.q, -np.inf))
        count = min(4, int(observation.available.sum()))
        expected = set(np.argsort(-worth)[:count].tolist())
        assert any(
            question is transition.question and set(candidates.tolist()) == expected
            for question, candidates in reranker.asked
        )


def test_questions_that_do_not_distil_are_not_read(tiny_base: Path) -> None:
    settings = Hyperparameters(warm_start=1.0)
    recipe = make_recipe(tiny_base, hyperparameters=settings)
    reranker = Longest()
    learner = Learner(make_network(recipe), make_network(recipe), settings, seed=0, reranker=reranker)
    learner.update(random_questions(1, 4))
    assert reranker.asked == []


def test_a_cross_encoder_reads_each_pair_of_question_and_chunk_once(
    reranker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = CrossEncoder(reranker, torch.device("cpu"), torch.float32)
    (question,) = distilled(3, 1)
    texts = [*question.chunks, *question.pool]
    expected = encoder.score(question.text, texts)
    score = encoder.score
    read: list[str] = []

    def noted(question: str, texts: Sequence[str], evidence: Sequence[str] = ()) -> Float32Array:
        read.extend(texts)
        return score(question, texts, evidence)

    monkeypatch.setattr(encoder, "score", noted)
    teacher = Reranker(encoder)
    for candidates in ([0, 2, len(texts) - 1], [2, 1, 0], list(range(len(texts)))):
        scores = teacher.score(question, (), np.array(candidates))
        np.testing.assert_allclose(scores, expected[candidates], atol=1e-5)
    assert sorted(read) == sorted(texts)


def test_a_pair_by_itself_has_the_same_score_whatever_was_read_before(reranker: Path) -> None:
    """A resumed run reads pairs anew, beside others, and has to go on to the last bit."""
    encoder, generator = CrossEncoder(reranker, torch.device("cpu"), torch.float32), np.random.default_rng(3)
    question = random_question(generator, (30,))
    question = replace(question, chunks=[words(generator, 1 + place) for place in range(30)])
    every = np.arange(30)
    at_once, later = (Reranker(encoder, together=False) for _ in range(2))
    for part in np.array_split(every[::-1], 7):
        later.score(question, (), part)
    np.testing.assert_array_equal(at_once.score(question, (), every), later.score(question, (), every))


def test_a_recipe_names_the_cross_encoder_and_the_tasks_that_learn_from_it(
    tmp_path: Path, tiny_base: Path, reranker: Path
) -> None:
    write_multihop(tmp_path)
    records = [
        {"id": str(number), "question": "Who?", "chunks": ["a", "b", "c"], "support": [0, 1][: 1 + number % 2]}
        for number in range(20)
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = make_mixture_recipe(
        [
            {"kind": "jsonl", "path": "own.jsonl", "validation": 1, "distil": True},
            {"kind": "2wiki", "path": "multihop/2wiki_dev.jsonl.gz", "validation": 1},
        ],
        base=str(tiny_base),
        books=None,
        reranker=str(reranker),
        hyperparameters={"distilled": 2},
    )
    mixture = build_mixture(recipe, tmp_path)
    questions = drawn(mixture, 40)
    own = [question for question in questions if question.task != "2wiki"]
    assert {question.needed for question in own} == {1, 2}
    # It does not read what is found already: the second fact of two it would not know.
    assert all(question.distil == (question.needed == 1) for question in own)
    assert not any(question.distil for question in questions if question.task == "2wiki")
    learner = build_learner(recipe, torch.device("cpu"), seed=0)
    learner.update([question for question in drawn(mixture, 20) if question.distil][:2])
    assert learner.seen > 0
