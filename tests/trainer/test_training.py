"""Whole runs: what they leave behind, that they can be interrupted anywhere, and that they learn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from index.encoders.checkpoint import read_config
from index.encoders.loading import load_encoder
from tests.trainer.learners import CPU, make_recipe, random_questions, recall_of
from trainer.datasets.question import Question
from trainer.errors import DataError, ResumeError
from trainer.evaluation.counting import by_task, recall
from trainer.evaluation.playing import play
from trainer.evaluation.vectors import embed_texts
from trainer.hyperparameters import ActionMode, Hyperparameters
from trainer.learning import training
from trainer.learning.checkpoints import write_checkpoint
from trainer.learning.learner import Learner
from trainer.learning.state import save_state
from trainer.learning.training import Validation, build_learner, train
from trainer.recipe import Recipe
from trainer.tasks.mixture import Mixture, build_mixture
from trainer.tasks.source import Source

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "training"

TASKS: list[dict[str, Any]] = [
    {
        "kind": "babi",
        "task": "qa1",
        "path": "qa1.txt",
        "sentences": [12, 16],
        "validation": 5,
        "rename": 0.5,
        "re_ask": 0.5,
        "stories": ["qa1.txt"],
    },
    {"kind": "jsonl", "path": "own.jsonl", "validation": 2},
    {"kind": "ruler", "variants": ["single_2"], "tokens": 256, "questions": 4, "validation": 1, "weight": 0.5},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The samples that come along, and a book."""
    folder = tmp_path / "data"
    (folder / "books").mkdir(parents=True)
    shutil.copy(EXAMPLES / "babi" / "qa1.txt", folder)
    shutil.copy(EXAMPLES / "own.jsonl", folder)
    sentences = (f"The night was dark, and number {number} was the darkest of all." for number in range(60))
    (folder / "books" / "book.txt").write_text("\n\n".join(sentences))
    return folder


def recipe_for(base: Path, *, tasks: Sequence[dict[str, Any]] = TASKS, seed: int = 0, **settings: Any) -> Recipe:
    hyperparameters = {"transitions": 60, "environments": 4, "minibatch": 6, "learning_rate": 1e-3} | settings
    return make_recipe(
        base,
        books="books",
        seed=seed,
        tasks=tuple(tasks),
        validate_every=24,
        hyperparameters=Hyperparameters(**hyperparameters),
    )


# -- what a run leaves behind -----------------------------------------------------------------------------------------


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "validation.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_recipe_its_figures_and_the_best_checkpoint(
    tiny_base: Path, data: Path, tmp_path: Path
) -> None:
    recipe, run = recipe_for(tiny_base), tmp_path / "run"
    best = train(recipe, data, run, device=CPU)
    assert Recipe.model_validate(yaml.safe_load((run / "recipe.yaml").read_text())) == recipe
    figures = lines(run)
    assert [record["transitions"] // 24 for record in figures[:2]] == [1, 2]
    assert figures[-1]["transitions"] >= 60 > figures[-2]["transitions"]
    for record in figures:
        tasks = {name: record[name] for name in ("qa1", "own", "niah_single_2", "novels") if name in record}
        assert len(tasks) >= 3
        assert record.keys() == {"transitions", "seconds", "mean", *tasks}
        assert record["mean"] == pytest.approx(np.mean(list(tasks.values())))
        assert all(0 <= value <= 1 for value in tasks.values())
    encoder = load_encoder(best, device="cpu")
    assert encoder.config.training is not None
    stored = encoder.config.training["validation"]
    assert stored == next(record for record in figures if record["mean"] == max(one["mean"] for one in figures))
    assert any(path.name.startswith("events.out") for path in (run / "events").iterdir())


@pytest.mark.parametrize("stop", [False, True])
def test_where_stop_is_learned_the_last_weights_are_kept(
    tiny_base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: bool
) -> None:
    monkeypatch.setattr(Validation, "measure", lambda _, learner: {"own": 1 / learner.seen})  # worse and worse
    run = tmp_path / "run"
    best = train(recipe_for(tiny_base, stop=stop), data, run, device=CPU)
    validated = [record["transitions"] for record in lines(run)]
    assert len(validated) > 1
    training = read_config(best).training
    assert training is not None
    assert training["validation"]["transitions"] == validated[-1 if stop else 0]
    assert (load_encoder(best).stopping.action is not None) == stop


def test_the_recall_of_the_best_checkpoint_is_the_recorded_one(tiny_base: Path, data: Path, tmp_path: Path) -> None:
    recipe = recipe_for(tiny_base)
    best = train(recipe, data, tmp_path / "run", device=CPU)
    encoder = load_encoder(best, device="cpu")
    assert encoder.config.training is not None
    for task, questions in by_task(build_mixture(recipe, data).validation).items():
        vectors = embed_texts(encoder, [chunk for question in questions for chunk in question.chunks])
        found = recall(questions, play(encoder, questions, vectors)).at_budget
        assert found == pytest.approx(encoder.config.training["validation"][task], abs=1 / len(questions))


@pytest.mark.parametrize("question_share", [0.0, 2.0])
@pytest.mark.parametrize("mode", ["frozen", "adapter"])
def test_validation_measures_what_a_checkpoint_would_serve(
    tiny_base: Path, tmp_path: Path, mode: ActionMode, question_share: float
) -> None:
    settings = Hyperparameters(action_mode=mode, learning_rate=0.5, head_learning_rate=5.0)
    recipe = make_recipe(tiny_base, hyperparameters=settings, question_share=question_share)
    learner = build_learner(recipe, CPU, seed=0)
    questions = random_questions(0, 40)
    learner.update(questions[:5])
    with torch.no_grad():  # the worst chunk is now the best
        learner.masters.values["w"].neg_()
        learner.masters.publish()
    validation = Validation(Mixture((Source(1.0, lambda _: questions[0], tuple(questions), ()),)))
    write_checkpoint(tmp_path, recipe, learner, {})
    expected = recall_of(load_encoder(tmp_path, device="cpu"), questions)
    assert 0 < expected < 1
    assert validation.measure(learner) == {"random": pytest.approx(expected, abs=0.03)}


def test_validation_reads_chunks_with_the_tower_that_would_be_kept(tiny_base: Path, tmp_path: Path) -> None:
    """What is stored of a tower that is trained is older."""
    settings = Hyperparameters(action_mode="refreshed", learning_rate=0.05, transitions=400)
    recipe = make_recipe(tiny_base, hyperparameters=settings)
    learner, questions = build_learner(recipe, CPU, seed=0), random_questions(0, 60)
    validation = Validation(Mixture((Source(1.0, lambda _: questions[0], tuple(questions), ()),)))
    before = validation.measure(learner)["random"]
    for _ in range(12):
        learner.update(questions[:16])
    write_checkpoint(tmp_path, recipe, learner, {})
    expected = recall_of(load_encoder(tmp_path, device="cpu"), questions)
    assert expected != pytest.approx(before, abs=0.03)
    assert validation.measure(learner) == {"random": pytest.approx(expected, abs=0.03)}


# -- interruptions ----------------------------------------------------------------------------------------------------


def test_a_cache_changes_nothing_but_when_chunks_are_embedded(tiny_base: Path, data: Path, tmp_path: Path) -> None:
    tasks = [TASKS[0] | {"mine": True}, TASKS[1] | {"mine": True}]
    recipe = recipe_for(tiny_base, tasks=tasks, hard_negatives=3)
    weights = []
    for name, cache in (("without", None), ("first", tmp_path / "cache"), ("second", tmp_path / "cache")):
        best = train(recipe, data, tmp_path / name, device=CPU, cache=cache, cache_from=1)
        weights.append(load_file(best / "state" / "model.safetensors"))
        if cache is not None:
            assert len(list(cache.iterdir())) == len(tasks)
    for other in weights[1:]:
        for key, value in weights[0].items():
            torch.testing.assert_close(other[key], value, atol=1e-4, rtol=0)


def interrupted_after(updates: int, monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Run until just before an update of the learner."""
    real = Learner.update
    count = 0

    def update(self: Learner, questions: Sequence[Question]) -> dict[str, float]:
        nonlocal count
        if count == updates:
            raise KeyboardInterrupt
        count += 1
        return real(self, questions)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", update)
        with pytest.raises(KeyboardInterrupt):
            action()


def left_behind(run: Path) -> dict[str, Any]:
    """Everything of a run but its clock and its logs."""
    found: dict[str, Any] = {}
    for path in sorted([*(run / "state").rglob("*"), *(run / "best").rglob("*")]):
        if path.is_file():
            found[str(path.relative_to(run))] = path.read_bytes()
    state = json.loads(found.pop("state/state.json"))
    config = json.loads(found.pop("best/qrag.json"))
    del state["extra"]["seconds"], config["training"]["validation"]["seconds"]
    figures = [{name: value for name, value in record.items() if name != "seconds"} for record in lines(run)]
    return found | {"state": state, "config": config, "figures": figures}


@pytest.mark.parametrize(
    ("mode", "updates", "save_seconds"), [("adapter", 4, 300.0), ("refreshed", 4, 300.0), ("frozen", 1, -1.0)]
)
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    tiny_base: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: ActionMode,
    updates: int,
    save_seconds: float,
) -> None:
    run = partial(train, save_seconds=save_seconds)  # negative: a state after each update
    recipe = recipe_for(tiny_base, action_mode=mode, warm_start=0.5, refresh_updates=3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(recipe, data, whole, device=CPU)
    interrupted_after(updates, monkeypatch, lambda: run(recipe, data, parts, device=CPU))
    seen = json.loads((parts / "state" / "state.json").read_text())["seen"]
    assert 0 < seen < 60
    interrupted_after(0, monkeypatch, lambda: run(recipe, data, parts, device=CPU, resume=True))
    run(recipe, data, parts, device=CPU, resume=True)
    expected, found = left_behind(whole), left_behind(parts)
    assert "state/state.safetensors" in found
    assert found == expected
    other = recipe_for(tiny_base, action_mode=mode, warm_start=0.5, refresh_updates=3, seed=1)
    run(other, data, tmp_path / "other", device=CPU)
    assert left_behind(tmp_path / "other")["state/state.safetensors"] != found["state/state.safetensors"]


def test_what_an_interruption_undid_is_not_recorded_twice(
    tiny_base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = recipe_for(tiny_base), tmp_path / "run"
    with monkeypatch.context() as patch:  # dies between a validation's record and its state, once there is a state
        saves = iter([True, False])

        def save_or_die(*arguments: Any) -> None:
            if not next(saves):
                raise KeyboardInterrupt
            save_state(*arguments)

        patch.setattr(training, "save_state", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, data, run, device=CPU)
    assert len(lines(run)) == 2
    (run / "best").rename(run / "best.old")  # it was being replaced
    train(recipe, data, run, device=CPU, resume=True)
    transitions = [record["transitions"] for record in lines(run)]
    assert transitions == sorted(set(transitions))
    assert not list(run.glob("best.*"))
    load_encoder(run / "best", device="cpu")


def test_a_finished_run_can_be_resumed_and_stays_as_it_is(tiny_base: Path, data: Path, tmp_path: Path) -> None:
    recipe, run = recipe_for(tiny_base, transitions=8), tmp_path / "run"
    train(recipe, data, run, device=CPU)
    before = left_behind(run)
    assert train(recipe, data, run, device=CPU, resume=True) == run / "best"
    assert left_behind(run) == before


def test_a_run_is_not_begun_over_another_nor_gone_on_with_by_another_recipe(
    tiny_base: Path, data: Path, tmp_path: Path
) -> None:
    recipe, run = recipe_for(tiny_base, transitions=8), tmp_path / "run"
    with pytest.raises(ResumeError, match="holds no run to go on with"):
        train(recipe_for(tiny_base), data, tmp_path / "nowhere", device=CPU, resume=True)
    train(recipe, data, run, device=CPU)
    before = left_behind(run)
    with pytest.raises(ResumeError, match=r"holds a run already\. Use --resume to go on with it, or another folder"):
        train(recipe, data, run, device=CPU)
    for other in (recipe_for(tiny_base, transitions=9), recipe_for(tiny_base, transitions=8, seed=1)):
        with pytest.raises(ResumeError, match="Resume with the recipe and overrides it began with"):
            train(other, data, run, device=CPU, resume=True)
    assert left_behind(run) == before


def test_a_run_that_did_not_get_going_is_begun_again(
    tiny_base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, run = recipe_for(tiny_base, transitions=20), tmp_path / "run"
    (data / "own.jsonl").rename(data / "elsewhere.jsonl")
    with pytest.raises(DataError, match=r"own\.jsonl"):
        train(recipe, data, run, device=CPU)
    (data / "elsewhere.jsonl").rename(data / "own.jsonl")
    interrupted_after(1, monkeypatch, lambda: train(recipe, data, run, device=CPU))
    (run / "validation.jsonl").write_text(json.dumps({"transitions": 7, "mean": 0.5}) + "\n")  # before its state
    train(recipe, data, run, device=CPU)
    assert (run / "best").exists()
    assert 7 not in [record["transitions"] for record in lines(run)]


def test_the_seed_decides_the_run(tiny_base: Path) -> None:
    first, same, other = (build_learner(recipe_for(tiny_base, seed=seed), CPU, seed=seed) for seed in (3, 3, 4))
    assert first.generator.bit_generator.state == same.generator.bit_generator.state
    assert first.generator.bit_generator.state != other.generator.bit_generator.state


# -- several processes ------------------------------------------------------------------------------------------------


def test_processes_train_one_model_together(tiny_base: Path, data: Path) -> None:
    recipe = recipe_for(tiny_base, transitions=120, warm_start=0.5, environments=5)
    (data / "recipe.yaml").write_text(yaml.safe_dump(json.loads(recipe.model_dump_json())))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = ROOT / "tests" / "trainer" / "torchrun_train.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        [*command, str(script), str(data)], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    first, second = (json.loads((data / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first["weights"] == second["weights"]
    assert first["updates"] == second["updates"] > 2
    assert first["seen"] == second["seen"] == first["played"] + second["played"] >= 120
    assert first["drawn"] != second["drawn"]
    # A state is stored once and gone on with by both, each with random numbers of its own.
    assert first["seen_again"] == second["seen_again"] == first["seen"]
    assert first["next_random"] != second["next_random"]
    encoder = load_encoder(data / "run" / "best", device="cpu")
    assert encoder.config.name == "tiny"
    masters = load_file(data / "run" / "state" / "state.safetensors")
    assert torch.isfinite(masters["master.w"])
    # Each list of chunks was embedded by one of them, for both.
    assert (first["share"], second["share"]) == ([0, 2, 4], [1, 3])
    assert ended.stderr.count("embedding chunks=") == len(list((data / "cache").iterdir())) == len(recipe.tasks)
