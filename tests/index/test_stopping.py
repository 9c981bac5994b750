"""Stop rules score what their formulas say, and thresholds follow from curves as a search over them finds."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from index.encoders.checkpoint import CheckpointConfig, read_stopping
from index.encoders.writing import write_stopping
from index.episodes.calibration import INDIFFERENT, Calibration, CurvePoint, for_cost, for_recall
from index.episodes.head import FORMER_SUMMARY, SUMMARY, Moment, features
from index.episodes.rules import STOP_RULES, StopBelow, score_of
from index.episodes.stopping import UNTAUGHT, Stopping
from index.errors import CheckpointError
from index.search.function import QFunction
from index.search.positions import Positions
from index.search.states import State
from tests.index.checkpoints import CONFIG, flip_last_bit
from tests.index.stopping import CALIBRATION, curve, random_stopping

FUNCTION = QFunction(1.5, -0.25, Positions(mode="none"))
seeds = st.integers(0, 2**32 - 1)


def moment(seed: int, best: tuple[float, ...] = (0.9, 0.4), taken: tuple[float, ...] = ()) -> Moment:
    vector = np.random.default_rng(seed).standard_normal(8)
    return Moment(State((vector / np.linalg.norm(vector)).astype(np.float32)), best, taken, covered=0.5, candidates=99)


def test_features_are_the_state_and_what_the_selections_were_worth() -> None:
    state = np.array([0.6, 0.8], dtype=np.float32)

    def summary(
        best: tuple[float, ...], selected: tuple[float, ...], covered: float = 0.0, stop_value: float | None = None
    ) -> list[float]:
        seen: list[float] = features(Moment(State(state), best, selected, covered, 99), stop_value)[2:].tolist()
        return seen

    many = math.log(100) / 8
    told = summary((0.9, 0.4), (0.7, 0.2, 0.6), covered=0.25, stop_value=0.3)
    assert told == pytest.approx([0.9, 0.5, 0.3, 0.6, 0.2, 3 / 8, 0.7, 0.5, 0.25, many])
    assert summary((0.9,), ()) == pytest.approx([0.9, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, many])
    assert summary((), (0.7,)) == pytest.approx([0.0, 0.0, 0.0, 0.7, 0.7, 1 / 8, 0.7, 0.7, 0.0, many])
    assert len(features(moment(0), 0.0)) == 8 + SUMMARY


@settings(deadline=None, max_examples=50)
@given(seeds, st.lists(st.floats(-3, 3), min_size=1, max_size=2), st.lists(st.floats(-3, 3), max_size=4))
def test_sufficiency_is_that_of_the_same_network_in_torch(seed: int, best: list[float], taken: list[float]) -> None:
    stopping = random_stopping(8, seed)
    asked = moment(seed, tuple(sorted(best, reverse=True)), tuple(taken))
    head = stopping.head
    assert head is not None
    first, last = torch.nn.Linear(8 + SUMMARY, len(head.hidden_bias)).double(), torch.nn.Linear(5, 3).double()
    for layer, weight, bias in (
        (first, head.hidden_weight, head.hidden_bias),
        (last, head.output_weight, head.output_bias),
    ):
        layer.load_state_dict({"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)})
    assert stopping.action is not None
    stop = FUNCTION.w * float(np.dot(asked.state.embedding.astype(np.float64), stopping.action)) + FUNCTION.b
    row = torch.from_numpy(features(asked, stop))
    complete, still_open, hopeless = torch.softmax(last(torch.relu(first(row))), dim=0).tolist()
    found = stopping.sufficiency(asked, FUNCTION)
    assert found is not None
    assert (found.complete, found.open, found.hopeless) == pytest.approx((complete, still_open, hopeless), abs=1e-12)
    assert score_of(STOP_RULES["sufficiency"], asked, stopping, FUNCTION) == found.open
    assert score_of(STOP_RULES["threshold"], asked, stopping, FUNCTION) == asked.best[0]
    assert score_of(STOP_RULES["action"], asked, stopping, FUNCTION) == pytest.approx(asked.best[0] - stop)


def test_a_head_that_was_fitted_to_fewer_features_reads_those_alone() -> None:
    former = random_stopping(8, summary=FORMER_SUMMARY)
    few = moment(0, taken=(0.7, 0.2))
    found = former.sufficiency(few, FUNCTION)
    assert former.sufficiency(few._replace(covered=0.9, candidates=5_000), FUNCTION) == found
    now = random_stopping(8)
    assert now.sufficiency(few._replace(covered=0.9), FUNCTION) != now.sufficiency(few, FUNCTION)
    assert now.sufficiency(few._replace(candidates=5_000), FUNCTION) != now.sufficiency(few, FUNCTION)


def test_where_no_chunk_is_left_going_on_is_out_of_the_question() -> None:
    stopping = random_stopping(8)
    found = stopping.sufficiency(moment(0, best=()), FUNCTION)
    assert found is not None
    assert found.complete + found.hopeless == pytest.approx(1)
    assert 0 < found.complete < 1
    assert score_of(STOP_RULES["threshold"], moment(0, best=()), stopping, FUNCTION) == -math.inf


@pytest.mark.parametrize(
    "logits", [(0.0, 800.0, 0.0), (-30.0, 40.0, 5.0), (-900.0, 900.0, 900.0), (700.0, -700.0, 0.0)]
)
@pytest.mark.parametrize("best", [(), (0.9, 0.4)])
def test_a_head_that_is_very_sure_still_gives_probabilities(logits: tuple[float, ...], best: tuple[float, ...]) -> None:
    head = random_stopping(8).head
    assert head is not None
    head = replace(head, output_weight=np.zeros_like(head.output_weight), output_bias=np.array(logits))
    found = Stopping(None, head).sufficiency(moment(0, best), FUNCTION)
    assert found is not None
    assert 0 <= found.complete <= 1
    assert 0 <= found.hopeless <= 1
    assert found.complete + found.hopeless + found.open == pytest.approx(1)
    if not best:
        assert found.complete > found.hopeless or logits[0] <= logits[2]


@pytest.mark.parametrize("rule", ["action", "sufficiency"])
def test_a_rule_that_was_not_learned_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        score_of(STOP_RULES[rule], moment(0), UNTAUGHT, FUNCTION)
    assert score_of(STOP_RULES["threshold"], moment(0), UNTAUGHT, FUNCTION) == 0.9
    assert UNTAUGHT.sufficiency(moment(0), FUNCTION) is None


points = st.builds(CurvePoint, threshold=st.floats(-5, 5), recall=st.floats(0, 1), chunks=st.floats(0, 10))


@given(st.lists(points, min_size=1, max_size=10), st.floats(0, 0.99), st.floats(0.01, 1))
def test_thresholds_are_the_best_of_the_curve(found: list[CurvePoint], cost: float, target: float) -> None:
    chosen = for_cost(tuple(found), cost)
    best = max(other.recall - cost * other.chunks for other in found)
    assert chosen.recall - cost * chosen.chunks >= best - min(INDIFFERENT, cost / 4)
    for other in found:
        if other.chunks < chosen.chunks:
            assert other.recall - cost * other.chunks < best - min(INDIFFERENT, cost / 4)
    enough = for_recall(tuple(found), target)
    most = max(other.recall for other in found)
    assert enough.recall >= target * most
    assert all(enough.chunks <= other.chunks for other in found if other.recall >= target * most)


def test_where_a_curve_is_flat_the_fewest_chunks_are_enough() -> None:
    points = curve((0.0, 0.930, 3.0), (0.1, 0.908, 2.0), (0.2, 0.880, 1.0))
    # At a cost of .02 the utilities are .870, .868 and .860.
    assert for_cost(points, 0.02).threshold == 0.1
    assert for_cost(points, 0.004).threshold == 0.0  # a chunk costs so little that nothing is given up for it
    assert for_cost(points, 0.0).threshold == 0.0


def test_a_wish_becomes_a_threshold() -> None:
    assert CALIBRATION.rule_for() == StopBelow(STOP_RULES["sufficiency"], 0.0)
    assert CALIBRATION.rule_for(step_cost=0.1) == StopBelow(STOP_RULES["sufficiency"], 0.5)
    assert CALIBRATION.rule_for(step_cost=0.9) == StopBelow(STOP_RULES["sufficiency"], 1.0)
    assert CALIBRATION.rule_for("threshold", target_recall=0.85) == StopBelow(STOP_RULES["threshold"], 0.1)
    assert CALIBRATION.rule_for("action", target_recall=0.95) == StopBelow(STOP_RULES["action"], -9.0)
    with pytest.raises(ValueError, match="action"):
        Calibration(curves={"threshold": curve((0.0, 1.0, 1.0))}, budget=6, default_rule="action", step_cost=0.1)


# -- files ------------------------------------------------------------------------------------------------------------


def stored(directory: Path, stopping: Stopping, calibration: Calibration | None = None) -> CheckpointConfig:
    source = write_stopping(directory, stopping, calibration)
    return CONFIG.model_copy(update={"dimension": 8, "stopping": source})


@pytest.mark.parametrize("parts", [("action", "head"), ("action",), ("head",)])
@pytest.mark.parametrize("summary", [SUMMARY, FORMER_SUMMARY])
def test_what_was_learned_survives_the_disk(tmp_path: Path, parts: tuple[str, ...], summary: int) -> None:
    learned = random_stopping(8, summary=summary)
    if "action" not in parts:
        learned = replace(learned, action=None)
    if "head" not in parts:
        learned = replace(learned, head=None)
    read = read_stopping(tmp_path, stored(tmp_path, learned))
    asked = moment(3, taken=(0.4,))
    assert read.sufficiency(asked, FUNCTION) == learned.sufficiency(asked, FUNCTION)
    assert read.stop_value(asked.state, FUNCTION) == learned.stop_value(asked.state, FUNCTION)


def test_a_checkpoint_without_it_knows_nothing(tmp_path: Path) -> None:
    assert read_stopping(tmp_path, CONFIG.model_copy(update={"stopping": None})) is UNTAUGHT


def test_a_damaged_or_foreign_file_is_refused(tmp_path: Path) -> None:
    config = stored(tmp_path, random_stopping(8))
    with pytest.raises(CheckpointError, match="dimension 10"):
        read_stopping(tmp_path, config.model_copy(update={"dimension": 10}))
    head = random_stopping(8).head
    assert head is not None
    for odd in (head.hidden_weight[:, 1:], head.hidden_weight[0]):
        with pytest.raises(CheckpointError, match="dimension 8"):
            read_stopping(tmp_path, stored(tmp_path, Stopping(None, replace(head, hidden_weight=odd))))
    config = stored(tmp_path, random_stopping(8))
    flip_last_bit(tmp_path / "stopping.safetensors")
    with pytest.raises(CheckpointError, match="checksum"):
        read_stopping(tmp_path, config)
    (tmp_path / "stopping.safetensors").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        read_stopping(tmp_path, config)


def test_a_calibrated_rule_needs_what_it_looks_at(tmp_path: Path) -> None:
    without_action = replace(random_stopping(8), action=None)
    with pytest.raises(CheckpointError, match="lacks"):
        read_stopping(tmp_path, stored(tmp_path, without_action, CALIBRATION))
