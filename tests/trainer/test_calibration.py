"""A calibrated checkpoint says of its states what they are, as far as that can be told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from index.arrays import Float32Array, Float64Array
from index.encoders.checkpoint import read_config
from index.encoders.loading import load_encoder
from index.encoders.writing import write_config, write_stopping
from index.episodes.calibration import for_cost
from index.episodes.head import SUMMARY, Head
from index.episodes.stopping import UNTAUGHT, Stopping
from index.search.function import QFunction
from index.search.positions import Positions
from qrag.wire.rules import RULES
from tests.index.stopping import random_stopping
from tests.random_checkpoints import write_random_checkpoint
from tests.trainer.mixtures import BOOK, make_recipe, write_stories
from trainer.command_line.main import main
from trainer.datasets.question import Question
from trainer.hyperparameters import Hyperparameters
from trainer.recipe import BabiTask
from trainer.stopping.calibration import (
    HARDLY_ANY,
    HELD_OUT,
    LONGEST,
    MISSING,
    Rows,
    curve,
    deprived,
    fit,
    fit_action,
    fit_head,
    for_calibration,
    joined,
    weights,
)
from trainer.stopping.stop_reports import read_stop_report
from trainer.stopping.stops import calibration, stop_at
from trainer.stopping.traces import Trace
from trainer.tasks.mixture import build_mixture

LAYOUT = SUMMARY + 6
"""Features of the rows made here."""


def labelled(seed: int, count: int = 1500, noise: float = 0.3) -> Rows:
    """Rows whose first features say what they are, on another scale than the rest."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(3, size=count)
    features = generator.standard_normal((count, LAYOUT)) * 10 + 5
    features[:, :3] = 0.01 * (np.eye(3)[labels] + noise * generator.standard_normal((count, 3)))
    return Rows(torch.from_numpy(features).float(), torch.from_numpy(labels), torch.ones(count))


def probabilities(head: Head, rows: Rows) -> Float64Array:
    found: Float64Array = head.probabilities(rows.features.double().numpy())
    return found


def test_a_head_learns_what_can_be_told() -> None:
    head = fit_head(labelled(0))
    unseen = labelled(1)
    assert (probabilities(head, unseen).argmax(1) == unseen.labels.numpy()).mean() > 0.9


def test_rows_without_weight_are_not_learned_from() -> None:
    rows = labelled(0)
    wrong = Rows(rows.features, (rows.labels + 1) % 3, torch.zeros(len(rows.labels)))
    both = Rows(*(torch.cat(pair) for pair in zip(vars_of(rows), vars_of(wrong), strict=True)))
    assert (probabilities(fit_head(both), rows).argmax(1) == rows.labels.numpy()).mean() > 0.9


def vars_of(rows: Rows) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return rows.features, rows.labels, rows.weights


def test_a_head_is_no_surer_than_it_may_be() -> None:
    head, unseen = fit_head(labelled(0, noise=0.6)), labelled(2, noise=0.6)
    found = probabilities(head, unseen)
    assert (found.argmax(1) == unseen.labels.numpy()).mean() < 0.9  # it cannot know
    for label in range(3):
        assert calibration(found[:, label], (unseen.labels == label).numpy()).ece < 0.07


def test_the_fitted_action_is_worth_1_where_the_evidence_is_complete() -> None:
    generator = np.random.default_rng(0)
    states = generator.standard_normal((3000, 16))
    states /= np.linalg.norm(states, axis=1, keepdims=True)
    direction = generator.standard_normal(16)
    complete = states @ direction > 0
    features = np.concatenate((states, np.zeros((3000, SUMMARY))), axis=1)
    weights = np.where(np.arange(3000) < 2000, 1.0, 0.0)  # what has no weight says nothing
    labels = np.where(np.arange(3000) < 2000, np.where(complete, 0, 1), 2)
    rows = Rows(torch.from_numpy(features).float(), torch.from_numpy(labels), torch.from_numpy(weights).float())
    function = QFunction(1.3, 0.5, Positions())
    values = function.w * (states @ fit_action(rows, function)) + function.b
    assert values[complete].mean() > values[~complete].mean() + 0.5
    assert ((values > 0.5) == complete).mean() > 0.95


def test_held_out_questions_weigh_more() -> None:
    known, unknown = labelled(0, count=100), labelled(1, count=50)
    both = joined(known, unknown)
    assert len(both.labels) == 150
    assert both.weights.tolist() == [1.0] * 100 + [HELD_OUT] * 50


def test_documents_have_all_lengths() -> None:
    tasks = [TASKS[0], TASKS[1] | {"unanswerable": 0.5}]
    story, own = for_calibration(make_recipe(tasks, hyperparameters=Hyperparameters(stop=True))).tasks
    assert isinstance(story, BabiTask)
    assert (story.sentences, story.spread) == ((4, LONGEST), "log")
    # What is taken out is decided by the calibration.
    longer = make_recipe(TASKS).tasks[1].model_copy(update={"stretch": (20, LONGEST)})
    assert own == longer.model_copy(update={"unanswerable": HARDLY_ANY})
    kept, answerable = for_calibration(make_recipe(TASKS)).tasks
    assert answerable == longer
    assert kept == story


def test_of_a_question_that_has_no_answer_by_itself_nothing_is_taken(data: Path) -> None:
    mixture = build_mixture(make_recipe(TASKS), data)
    question = Question("u", "own", "Why?", ["It rained.", "It snowed."], (2,), frozenset(), 2, removed=1)
    assert deprived(mixture, question, [question], np.random.default_rng(0)) is question


def test_every_task_and_every_episode_weighs_the_same() -> None:
    def of(task: str, moments: int) -> Trace:
        return Trace(task, (None,) * moments, (0,) * moments, 1, None, 8, "q")  # type: ignore[arg-type]

    traces = [of("a", 2), of("a", 4), of("niah_single_1", 2), of("niah_multiquery", 4)]
    found = weights(traces)
    assert found.mean() == pytest.approx(1)
    parts = np.split(found, [2, 6, 8])
    assert [part.sum() for part in parts] == pytest.approx([3.0, 3.0, 3.0, 3.0])  # RULER's variants are one kind
    assert all(np.allclose(part, part[0]) for part in parts)


def test_questions_that_lack_evidence_weigh_as_much_as_they_are_expected_to_be_asked() -> None:
    def of(task: str, removed: int) -> Trace:
        return Trace(task, (None,) * 2, (0, 0), 1, None, 8, "q", removed)  # type: ignore[arg-type]

    for lacking in (1, 6):  # however many of them were played
        found = weights([*(of("a", 0) for _ in range(3)), *(of("a", 1) for _ in range(lacking)), of("b", 0)])
        whole, deprived, other = (part.sum() for part in np.split(found, [6, 6 + 2 * lacking]))
        assert deprived / (whole + deprived) == pytest.approx(MISSING)
        assert whole == pytest.approx(other)


def test_a_curve_says_what_its_thresholds_bring() -> None:
    generator = np.random.default_rng(0)
    traces, scores = [], []
    for number in range(60):
        found = None if number % 4 == 0 else number % 3 + 1
        hits = (0, *(int(found is not None and at >= found) for at in range(1, 7)))
        traces.append(Trace("a" if number < 50 else "b", (), hits, 1, found, 6, "q"))
        scores.append(generator.random(7).astype(np.float32))
    points = curve(traces, scores)
    assert len(points) > 50
    for point in points:
        taken = stop_at(traces, scores, point.threshold)
        complete = [
            one.found_after is not None and at >= one.found_after for one, at in zip(traces, taken, strict=True)
        ]
        assert point.recall == pytest.approx((np.mean(complete[:50]) + np.mean(complete[50:])) / 2)
        assert point.chunks == pytest.approx((taken[:50].mean() + taken[50:].mean()) / 2)
    assert for_cost(points, 0.0).recall == max(point.recall for point in points)


def test_what_scores_a_held_out_question_was_fitted_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(number: int) -> Trace:
        hits, found = ((0, 1, 1), 1) if number >= 5 else ((0, 0, 0), None)
        return Trace("a", (None,) * 3, hits, 1, found, 2, str(number))  # type: ignore[arg-type]

    held_out, removed, training = [of(at) for at in range(10)], [of(10)], [of(11)]
    fitted: list[tuple[set[str], set[str]]] = []
    scored: dict[tuple[str, str], set[str]] = {}

    def fit_stopping(_function: QFunction, action: None, known: list[Trace], unknown: list[Trace]) -> Stopping:
        assert action is None
        fitted.append(({one.question for one in known}, {one.question for one in unknown}))
        return UNTAUGHT

    def scores(own: list[Trace], _stopping: Stopping, rule: str, _function: QFunction) -> list[Float32Array]:
        scored.update({(rule, one.question): fitted[-1][1] for one in own})
        return [np.full(3, int(one.question), dtype=np.float32) for one in own]

    monkeypatch.setattr("trainer.stopping.calibration.fit_stopping", fit_stopping)
    monkeypatch.setattr("trainer.stopping.calibration.scores", scores)
    _, found = fit(QFunction(1.0, 0.0, Positions()), None, training, held_out, removed)
    everything = {str(at) for at in range(11)}
    assert set(scored) == {(rule, one.question) for rule in RULES for one in held_out}
    for (_, question), others in scored.items():
        assert question not in others
        assert len(others) >= 8  # three quarters of them, and the one whose evidence was removed
        assert others < everything
    assert fitted[-1] == ({"11"}, everything)  # what ships has seen all
    # The scores are where they belong: those that go on at such a threshold are the ones that find everything.
    middle = min(found.curves["action"], key=lambda point: abs(point.threshold - 4.5))
    assert 4 < middle.threshold < 5
    assert (middle.chunks, middle.recall) == pytest.approx((1, 0.5))


# -- questions without their evidence ---------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A book, bAbI stories, and paragraphs of one's own."""
    books = tmp_path / "books"
    books.mkdir()
    (books / "night.txt").write_text(BOOK)
    (tmp_path / "qa2.txt").touch()
    write_stories(tmp_path / "qa2.txt", 0, [2] * 12)
    records = [
        {"question": f"Who has the {thing}?", "chunks": [f"Mary has the {thing}.", "It rained.", "The end."]}
        | {"support": [0], "budget": 2}
        for thing in ("milk", "book", "lamp", "boat", "coat", "pear")
    ]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return tmp_path


TASKS = [
    {"kind": "babi", "task": "qa2", "path": "qa2.txt", "validation": 6, "sentences": (4, 9)},
    {"kind": "jsonl", "path": "own.jsonl", "validation": 2},
]


def test_of_a_story_nothing_is_left_and_of_other_evidence_one_chunk_less(data: Path) -> None:
    mixture = build_mixture(make_recipe(TASKS), data)
    generator = np.random.default_rng(0)
    kinds = set()
    for question in mixture.draw(30, generator):
        poorer = deprived(mixture, question, [question], generator)
        kinds.add(question.task)
        assert poorer.removed >= 1
        if question.task == "qa2":
            assert set(poorer.chunks) <= set(mixture.background)
            assert poorer.support == frozenset()
        else:
            assert list(poorer.chunks) == ["It rained.", "The end."]
    assert kinds == {"qa2", "own"}


def test_half_of_the_others_are_asked_of_another_document(data: Path) -> None:
    mixture = build_mixture(make_recipe(TASKS), data)
    generator = np.random.default_rng(0)
    drawn = [question for question in mixture.draw(200, generator) if question.task == "own"]
    elsewhere = 0
    for question in drawn:
        poorer = deprived(mixture, question, drawn, generator)
        assert poorer.text == question.text
        assert poorer.removed >= 1
        assert not any(question.chunks[place] in poorer.chunks for place in question.support)
        elsewhere += len(poorer.chunks) == 3
    assert 0.25 * len(drawn) < elsewhere < 0.75 * len(drawn)


# -- commands ---------------------------------------------------------------------------------------------------------


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    directory = tmp_path / "checkpoint"
    config = write_random_checkpoint(directory, seed=4)
    source = write_stopping(directory, replace(random_stopping(config.dimension), head=None))
    write_config(directory, config.model_copy(update={"stopping": source}))
    return directory


def test_a_checkpoint_is_calibrated_in_its_folder_and_judged(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"name": "x", "books": "books", "tasks": TASKS}))
    before = read_config(checkpoint)
    asked = ("--data", data, "--episodes", "40", "--device", "cpu", "--out", tmp_path / "new" / "calibrated")
    assert run("calibrate", checkpoint, recipe, *asked) == 0
    assert read_config(checkpoint) == before  # untouched
    checkpoint = tmp_path / "new" / "calibrated"
    config = read_config(checkpoint)
    assert config.stopping is not None
    assert config.stopping.calibration is not None
    assert set(config.stopping.calibration.curves) == {"threshold", "action", "sufficiency"}
    assert config.model_copy(update={"stopping": None}) == before.model_copy(update={"stopping": None})
    assert not config.stopping.fitted_action
    assert load_encoder(checkpoint).stopping.head is not None
    assert run("calibrate", checkpoint, recipe, *asked) == 1
    assert "exists already" in capsys.readouterr().err
    few = [task | {"validation": number} for number, task in enumerate(TASKS)]
    recipe.write_text(json.dumps({"name": "x", "books": "books", "tasks": few}))
    assert run("calibrate", checkpoint, recipe, *asked[:-1], tmp_path / "few") == 1
    assert "takes 2 held-out questions" in capsys.readouterr().err
    assert not (tmp_path / "few").exists()

    out = tmp_path / "stops.json"
    judged = ("--suite", "jsonl", "--data", data / "own.jsonl", "--out", out, "--seed", "3")
    assert run("stops", checkpoint, *judged, "--name", "mine", "--device", "cpu") == 0
    report = read_stop_report(out)
    assert [(one.task, one.questions) for one in report.sets] == [("own", 6), ("own_removed", 6)]
    assert (report.name, report.seed, report.mixed.questions) == ("mine", 3, 6)
    whole, removed = report.sets
    assert whole.oracle.recall == 1
    assert (removed.oracle.recall, removed.oracle.chunks) == (0, 0)
    assert all(stops.not_found == 1 for by_cost in removed.rules.values() for stops in by_cost)
    assert removed.told_apart is not None
    assert 0 <= removed.told_apart.low <= removed.told_apart.mean <= removed.told_apart.high <= 1
    assert whole.told_apart is None
    table = out.with_suffix(".md").read_text()
    assert "mine, seed 3, paired bootstrap" in table
    lines = table.splitlines()
    header, own = (next(line for line in lines if line.startswith(start)) for start in ("| task |", "| own |"))
    shown = dict(zip(header.split(" | "), own.split(" | "), strict=True))
    assert shown["ECE at stop by chance"] == f"{whole.complete_at_stop.ece_by_chance:.3f}"
    assert shown["ECE at stop"] == f"{whole.complete_at_stop.ece:.3f}"
    assert table in capsys.readouterr().out
    assert out.with_suffix(".png").stat().st_size > 1000
    capsys.readouterr()
    assert run("report", "--stops", out, out) == 0
    assert "± 0.000" in capsys.readouterr().out
    assert run("report", "--stops", data / "own.jsonl") == 1
    assert "is no report on stop rules" in capsys.readouterr().err


def test_towers_that_were_trained_without_stop_get_one(data: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    write_random_checkpoint(bare, seed=4)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"name": "x", "books": "books", "tasks": TASKS}))
    first, second = tmp_path / "first", tmp_path / "second"
    asked = ("--data", data, "--episodes", "10", "--device", "cpu")
    assert run("calibrate", bare, recipe, *asked, "--out", first) == 0
    config = read_config(first)
    assert config.stopping is not None
    assert config.stopping.calibration is not None
    assert set(config.stopping.calibration.curves) == {"threshold", "action", "sufficiency"}
    assert config.stopping.fitted_action
    action = load_encoder(first).stopping.action
    assert action is not None
    # What was fitted once is fitted again.
    assert run("calibrate", first, recipe, *asked, "--set", "seed=5", "--out", second) == 0
    again = load_encoder(second).stopping.action
    assert again is not None
    assert not np.allclose(action, again)


def test_what_is_not_calibrated_cannot_be_judged(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = ("--suite", "jsonl", "--data", data / "own.jsonl", "--out", tmp_path / "a.json")
    assert run("stops", checkpoint, *suite) == 1
    assert "trainer calibrate" in capsys.readouterr().err
