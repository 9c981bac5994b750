"""What can be added through one place alone: a reward, a teacher, an objective, a data set."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from index.arrays import Float32Array, IntArray
from index.encoders.encoder import ReadStates
from tests.trainer.learners import make_learner, make_network, random_questions
from tests.trainer.learners import make_recipe as make_tiny_recipe
from tests.trainer.mixtures import drawn, make_recipe, write_multihop
from trainer.datasets.question import Question
from trainer.datasets.registry import DATASETS, Dataset
from trainer.errors import RecipeError
from trainer.evaluation.suites import SUITES
from trainer.hyperparameters import Hyperparameters
from trainer.learning.learner import Learner
from trainer.learning.rewards import Step
from trainer.learning.transitions import Trajectory, Transition
from trainer.recipe import DatasetTask, read_recipe
from trainer.tasks.mixture import build_mixture

# -- a reward ---------------------------------------------------------------------------------------------------------


class Halves:
    """Half of the reward for the first piece of support, unlike those of the recipes: something before the end."""

    def worth(self, question: Question, selected: Collection[int]) -> float:
        return 0.5 * len(question.support.intersection(selected))

    def rewards(self, steps: Sequence[Step]) -> list[float]:
        return [self.worth(step.question, step.after) for step in steps]


def test_another_reward_is_what_episodes_bring_and_returns_are_made_of(tiny_base: Path) -> None:
    settings = Hyperparameters(warm_start=0.0, lambda_=1.0, gamma=0.5)
    recipe = make_tiny_recipe(tiny_base, hyperparameters=settings)
    learner = Learner(make_network(recipe), make_network(recipe), settings, seed=0, reward=Halves())
    trajectories = learner.rollout(random_questions(3, 12))
    returns = iter(learner.targets(trajectories).returns.tolist())
    rewarded = 0
    for played in trajectories:
        support = played.transitions[0].question.support
        actions = [transition.action for transition in played.transitions]
        hits = np.cumsum([action in support for action in actions])
        assert played.rewards == (0.5 * hits).tolist()
        rewarded += sum(0 < hit < len(support) for hit in hits)
        if played.final is None:
            expected = sum(0.5**step * reward for step, reward in enumerate(played.rewards))
            assert next(returns) == pytest.approx(expected)
            list(zip(actions[1:], returns, strict=False))
        else:
            list(zip(actions, returns, strict=False))
    assert rewarded > 0


# -- a teacher --------------------------------------------------------------------------------------------------------


@dataclass
class Longest:
    """Thinks that the longest candidate is the best, whatever the labels say."""

    asked: list[tuple[tuple[int, ...], int]] = field(default_factory=list)

    def score(self, question: Question, evidence: Collection[int], candidates: IntArray) -> Float32Array:
        self.asked.append((tuple(evidence), len(candidates)))
        texts = [*question.chunks, *question.pool]
        return np.array([len(texts[candidate]) / 100 for candidate in candidates], dtype=np.float32)


def test_another_teacher_is_believed_in_the_warm_start(tiny_base: Path) -> None:
    settings = Hyperparameters(
        transitions=6000,
        warm_start=1.0,
        contrast=0.0,
        behaviour="policy",
        learning_rate=3e-3,
        head_learning_rate=1e-2,
        hard_negatives=2,
        minibatch=16,
    )
    recipe = make_tiny_recipe(tiny_base, hyperparameters=settings)
    teacher = Longest()
    learner = Learner(make_network(recipe), make_network(recipe), settings, seed=0, teacher=teacher)
    questions = random_questions(1, 4)
    pool = ["a text of the pool", "another text of the pool, and a long one", "third"]
    questions = [Question(q.id, q.task, q.text, q.chunks, q.counts, q.support, q.budget, pool) for q in questions]

    def error() -> float:
        differences = []
        for played in learner.rollout(questions * 4):
            first = played.transitions[0]
            differences.append(first.q - teacher.score(first.question, (), first.candidates))
        return float(np.mean(np.square(np.concatenate(differences))))

    learner.seen = 300  # past the warm-up of the learning rate
    before = error()
    for _ in range(30):
        learner.update(questions * 4)
    assert error() < before / 2
    assert any(evidence for evidence, _ in teacher.asked)
    assert all(count == len(q.chunks) + 2 for q in questions[:1] for _, count in teacher.asked[:1])


# -- an objective -----------------------------------------------------------------------------------------------------


@dataclass
class First:
    """Wants the first candidate of every state to be worth 1, and reads nothing else."""

    learner: Learner
    looks_ahead: bool = True
    reads_negatives: bool = False
    contrasts: bool = False

    def shows_support(self, progress: float, generator: np.random.Generator) -> bool:  # noqa: ARG002
        return False

    def returns(self, trajectories: Sequence[Trajectory], alpha: float) -> Float32Array:  # noqa: ARG002
        return np.ones(sum(len(played.transitions) for played in trajectories), dtype=np.float32)

    def losses(self, states: ReadStates, transitions: Sequence[Transition], returns: torch.Tensor) -> torch.Tensor:
        scorer = self.learner.scorer
        q, _ = scorer.chosen_q(states, transitions, [np.array([0])] * len(transitions))
        return (q[:, 0] - returns).square()


def test_another_objective_is_minimised_by_the_same_updates(tiny_base: Path) -> None:
    settings = Hyperparameters(transitions=6000, learning_rate=3e-3, head_learning_rate=1e-2, behaviour="policy")
    learner = make_learner(tiny_base, settings)
    learner.beginning = First(learner)
    learner.seen = 300
    questions = random_questions(2, 8)

    def loss() -> float:
        transitions = [t for played in learner.rollout(questions) for t in played.transitions]
        with torch.no_grad():
            states = learner.network.read_states([transition.observation.state for transition in transitions])
            return float(learner.objective.losses(states, transitions, torch.ones(len(transitions))).mean())

    before = loss()
    for _ in range(10):
        learner.update(questions)
    assert loss() < before / 2


# -- a data set -------------------------------------------------------------------------------------------------------


def read_toy(path: Path) -> Iterator[Question]:
    """A question a line: the letters are chunks, the capital ones support."""
    for number, line in enumerate(path.read_text().split()):
        chunks = [f"{letter} {number}" for letter in line]
        support = frozenset(place for place, letter in enumerate(line) if letter.isupper())
        yield Question(f"{number}", "toy", f"Which of {line.lower()}?", chunks, (1,) * len(line), support, len(support))


def test_a_data_set_of_the_registry_is_named_in_recipes_drawn_from_and_tested_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toy.txt").write_text("aBc dEF Ghi jKl mNo\n")
    write_multihop(tmp_path)
    task = {"kind": "toy", "path": "toy.txt", "validation": 2, "distractors": 1}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"{{name: toy, tasks: [{task}]}}")
    with pytest.raises(RecipeError, match=r"Input tag 'toy' found using 'kind' does not match .* 'hotpotqa', "):
        read_recipe(recipe)

    monkeypatch.setitem(DATASETS, "toy", Dataset("toy", read_toy, test_files={"multihop": "toy.txt"}))
    (read,) = read_recipe(recipe).tasks
    assert isinstance(read, DatasetTask)
    mixture = build_mixture(make_recipe([task], books=None), tmp_path)
    assert {question.task for question in drawn(mixture, 20)} == {"toy"}
    assert {len(question.chunks) for question in drawn(mixture, 20)} <= {3, 4}
    assert len(mixture.validation) == 2
    for suite, counts in (("multihop", (1, 1, 1)), ("multihop-joined", (3,))):
        *_, test_set = SUITES[suite](tmp_path, None, 4, 0)
        assert (test_set.task, test_set.count) == ("toy", 4)
        assert [question.counts for question in test_set.draw()] == [counts] * 4
    with pytest.raises(RecipeError, match="toy: its chunks are its own"):
        read_recipe(recipe, {"tasks": [task | {"words": 9}]})
