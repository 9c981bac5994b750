"""A recipe that cannot be meant is refused before anything is loaded, with the field that is wrong."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from index.search.positions import Positions
from trainer.errors import RecipeError
from trainer.hyperparameters import Hyperparameters
from trainer.recipe import BabiTask, DatasetTask, Recipe, RulerTask, read_recipe

RECIPES = Path(__file__).parents[2] / "trainer" / "recipes"

OWN = {"kind": "jsonl", "path": "own.jsonl"}
BABI = {"kind": "babi", "task": "qa1", "path": "qa1.txt"}
RULER = {"kind": "ruler", "variants": ["single_1"]}
PLAIN: dict[str, Any] = {"name": "plain", "tasks": [OWN]}
BOOKS = PLAIN | {"books": "books"}


def read(directory: Path, content: Any, overrides: dict[str, Any] | None = None) -> Recipe:
    path = directory / "recipe.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return read_recipe(path, overrides)


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_recipes_that_come_along_are_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.tasks
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_recipe_says_what_it_says(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        """
        name: mine
        base: models/e5
        books: texts
        positions: {mode: relative, delta: 20, ell: 18, levels: 18}
        tasks:
          - {kind: babi, task: qa2, path: qa2.txt, weight: 2, sentences: [5, 60], stories: [a.txt, b.txt], re_ask: 0.5}
          - {kind: ruler, variants: [single_1, multiquery], tokens: 1000}
          - {kind: musique, path: musique.jsonl, single_hops: 0.4, budget: 3, validation: 7}
        hyperparameters: {learning_rate: 1e-5, action_mode: frozen, transitions: 100}
        """,
    )
    assert recipe.positions == Positions(delta=20, ell=18, levels=18)
    babi, ruler, musique = recipe.tasks
    assert isinstance(babi, BabiTask)
    assert (babi.sentences, babi.stories, babi.weight) == ((5, 60), ("a.txt", "b.txt"), 2)
    assert isinstance(ruler, RulerTask)
    assert ruler.variants == ("single_1", "multiquery")
    assert isinstance(musique, DatasetTask)
    assert (musique.budget, musique.validation) == (3, 7)
    assert recipe.hyperparameters == Hyperparameters(learning_rate=1e-5, action_mode="frozen", transitions=100)


def test_fields_can_be_replaced_by_dotted_name(tmp_path: Path) -> None:
    recipe = read(
        tmp_path,
        PLAIN | {"hyperparameters": {"gamma": 0.5, "minibatch": 7}},
        {"seed": 3, "hyperparameters.gamma": 0.9, "positions.levels": 5, "hyperparameters.reward": "shaped"},
    )
    assert recipe.seed == 3
    assert recipe.positions.levels == 5
    assert recipe.hyperparameters == Hyperparameters(gamma=0.9, minibatch=7, reward="shaped")


def test_a_field_inside_something_else_than_fields_cannot_be_replaced(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"seed\.x cannot be set: seed holds no fields"):
        read(tmp_path, PLAIN | {"seed": 3}, {"seed.x": 1})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"tasks": [OWN]}, "name: Field required"),
        ({"name": "a/b", "tasks": [OWN]}, "name: String should match"),
        ({"name": "a"}, "tasks: Field required"),
        (PLAIN | {"tasks": []}, "tasks: Tuple should have at least 1 item"),
        (PLAIN | {"sead": 1}, "sead: Extra inputs are not permitted"),
        (PLAIN | {"seed": -1}, "seed: Input should be greater than or equal to 0"),
        (PLAIN | {"pooling": "max"}, "pooling: Input should be 'mean', 'cls' or 'last'"),
        (PLAIN | {"state_tokens": 8}, "state_tokens: Input should be greater than 8"),
        (PLAIN | {"action_tokens": 8}, "action_tokens: Input should be greater than 8"),
        (PLAIN | {"validate_every": 0}, "validate_every: Input should be greater than or equal to 1"),
        (PLAIN | {"positions": {"mode": "sinus"}}, "positions.mode: Input should be"),
        (PLAIN | {"positions": {"levels": 0}}, "positions.levels: Input should be greater than or equal to 1"),
        (PLAIN | {"positions": {"theta": 1}}, "positions.theta: Extra inputs are not permitted"),
        (
            PLAIN | {"tasks": [OWN | {"kind": "trivia"}]},
            "tasks.0: Input tag 'trivia' found using 'kind' does not match",
        ),
        (PLAIN | {"tasks": [OWN | {"weight": 0}]}, "tasks.0.jsonl.weight: Input should be greater than 0"),
        (PLAIN | {"tasks": [OWN, OWN | {"budget": 0}]}, "tasks.1.jsonl.budget: Input should be greater than or equal"),
        (PLAIN | {"tasks": [OWN | {"validation": -1}]}, "tasks.0.jsonl.validation: Input should be greater than or"),
        (PLAIN | {"tasks": [OWN | {"sentences": [1, 2]}]}, "tasks.0.jsonl.sentences: Extra inputs are not permitted"),
        (BOOKS | {"tasks": [BABI | {"task": "qa6"}]}, "tasks.0.babi.task: Input should be 'qa1', 'qa2', 'qa3', 'qa4'"),
        (BOOKS | {"tasks": [BABI | {"rename": 1.5}]}, "tasks.0.babi.rename: Input should be less than or equal to 1"),
        (BOOKS | {"tasks": [BABI | {"sentences": [0, 9]}]}, "tasks.0.babi.sentences.0: Input should be greater than 0"),
        (BOOKS | {"tasks": [RULER | {"variants": []}]}, "tasks.0.ruler.variants: Tuple should have at least 1 item"),
        (BOOKS | {"tasks": [RULER | {"tokens": 9}]}, "tasks.0.ruler.tokens: Input should be greater than or equal"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, content: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=rf"recipe\.yaml: {re.escape(problem)}"):
        read(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (PLAIN | {"tasks": [BABI]}, "babi and ruler tasks hide facts in books: set `books`"),
        (PLAIN | {"tasks": [RULER]}, "babi and ruler tasks hide facts in books: set `books`"),
        (PLAIN | {"hyperparameters": {"alpha_start": 0.01}}, "alpha_end must not exceed alpha_start"),
        (
            PLAIN | {"hyperparameters": {"behaviour": "support", "warm_start": 0.9}},
            "behaviour support needs warm_start 1",
        ),
        (PLAIN | {"hyperparameters": {"squared": 0, "contrast": 0}}, "the warm start has nothing to learn from"),
        (BOOKS | {"tasks": [BABI | {"re_ask": 0.1}]}, "qa1: re_ask needs `stories` to ask about"),
        (
            BOOKS | {"tasks": [BABI | {"task": "qa4", "re_ask": 0.1, "stories": ["a.txt"]}]},
            "qa4: further questions can be asked for qa1, qa2 and qa3 only",
        ),
        (
            PLAIN | {"tasks": [OWN | {"words": 45}]},
            "jsonl: its chunks are its own",
        ),
        (
            PLAIN | {"tasks": [OWN | {"mine": True}], "hyperparameters": {"warm_start": 0}},
            "hard negatives are learned from in the warm start",
        ),
        (
            BOOKS | {"tasks": [BABI], "book_negatives": 10},
            "book_negatives are for babi tasks that mine: there are none",
        ),
        (PLAIN | {"tasks": [OWN | {"distil": True}]}, "a task distils, which the warm start does: set `reranker`"),
        (
            PLAIN | {"tasks": [OWN | {"distil": True}], "reranker": "ms-marco", "hyperparameters": {"warm_start": 0}},
            "a task distils, which the warm start does: set `reranker`, and a warm_start above 0",
        ),
        (PLAIN | {"reranker": "ms-marco"}, "no task distils what the reranker knows"),
        (PLAIN | {"tasks": [OWN | {"single_hops": 0.1}]}, "jsonl: only musique has single hops"),
        (PLAIN | {"tasks": [OWN | {"unanswerable": 0.1}]}, "jsonl: unanswerable questions teach when to stop: set"),
        (BOOKS | {"tasks": [BABI | {"sentences": [9, 8]}]}, "qa1: sentences must be the fewest and the most"),
        (PLAIN | {"tasks": [OWN | {"stretch": [9, 8]}]}, "jsonl: stretch must be the fewest and the most"),
        (BOOKS | {"tasks": [RULER | {"variants": ["single_1", "niah_single_2"]}]}, "no variant niah_single_2"),
        (PLAIN | {"tasks": [OWN | {"validation": 0}] * 2}, "no task holds out questions"),
        (
            PLAIN | {"positions": {"levels": 1}, "hyperparameters": {"action_mode": "frozen"}},
            "relative positions with one level",
        ),
    ],
)
def test_an_impossible_combination_is_refused(tmp_path: Path, content: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=rf"recipe\.yaml: recipe: .*{re.escape(problem)}"):
        read(tmp_path, content)


def test_a_task_made_without_a_recipe_is_of_a_known_kind_too() -> None:
    with pytest.raises(ValueError, match="there is no data set trivia, but hotpotqa"):
        DatasetTask(kind="trivia", path="own.jsonl")


def test_one_task_that_holds_out_questions_is_enough(tmp_path: Path) -> None:
    read(tmp_path, PLAIN | {"tasks": [OWN | {"validation": 0}, OWN | {"validation": 1}]})


FIELDS = [field.name for field in dataclasses.fields(Hyperparameters)]
BEYOND: dict[str, list[Any]] = {
    "transitions": [0, -1],
    "environments": [0],
    "minibatch": [0],
    "batch_tokens": [-1],
    "candidates": [0],
    "hard_negatives": [-1],
    "learning_rate": [-1e-9, float("inf"), float("nan")],
    "head_learning_rate": [-1e-9],
    "weight_decay": [-0.1],
    "gamma": [-0.1, 1.1, float("nan")],
    "lambda_": [-0.1, 1.1],
    "alpha_start": [0.0, float("inf")],
    "alpha_end": [0.0, -1.0],
    "warm_start": [-0.1, 1.1],
    "squared": [-0.1, float("nan")],
    "contrast": [-0.1],
    "contrast_alpha": [0.0],
    "distillation": [-0.1],
    "distilled": [0],
    "target_decay": [-0.1, 1.1],
    "refresh_updates": [0],
    "live_chunks": [-1],
    "objective": ["imitation"],
    "reward": ["sparse"],
    "behaviour": ["greedy"],
    "stop": ["maybe"],
    "frozen_layers": [-1],
    "action_mode": ["trained"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in BEYOND for value in BEYOND[name]])
def test_a_hyperparameter_out_of_range_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=rf"recipe\.yaml: hyperparameters.*{name}"):
        read(tmp_path, PLAIN | {"hyperparameters": {name: value}})


def test_every_hyperparameter_has_a_range() -> None:
    assert set(FIELDS) == set(BEYOND)


def test_an_unknown_hyperparameter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"hyperparameters\.gama: Unexpected keyword argument"):
        read(tmp_path, PLAIN | {"hyperparameters": {"gama": 0.9}})


def test_hyperparameters_are_checked_without_a_recipe_too() -> None:
    with pytest.raises(ValueError, match="gamma must lie between 0 and 1"):
        Hyperparameters(gamma=2)


@pytest.mark.parametrize("content", ["- a list", "just text", "", "3"])
def test_what_holds_no_fields_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml must hold fields"):
        read(tmp_path, content)


def test_what_is_no_yaml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)recipe\.yaml cannot be read: .*line 1"):
        read(tmp_path, "name: [unclosed")
    (tmp_path / "recipe.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match=r"recipe\.yaml cannot be read"):
        read_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(RecipeError, match=f"{re.escape(str(tmp_path))} cannot be read"):
        read_recipe(tmp_path)


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing\.yaml does not exist\. Recipes are in trainer/recipes\."):
        read_recipe(tmp_path / "nothing.yaml")


def test_no_yaml_can_run_code(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        read(tmp_path, 'name: !!python/object/apply:os.system ["touch ran"]')


def test_a_recipe_survives_as_json(tmp_path: Path) -> None:
    recipe = read(tmp_path, BOOKS | {"tasks": [BABI, RULER, OWN]})
    assert Recipe.model_validate(json.loads(recipe.model_dump_json())) == recipe
