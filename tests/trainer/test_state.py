"""A state on disk is what the learner was, to the last bit, and survives a crash at any moment of its writing."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.learners import make_learner, random_questions
from trainer.errors import ResumeError
from trainer.hyperparameters import ActionMode, Hyperparameters
from trainer.learning.learner import Learner
from trainer.learning.state import load_state, save_state, stored_state


def everything(learner: Learner) -> dict[str, Any]:
    """All that decides how a learner goes on."""
    content: dict[str, Any] = {
        "seen": learner.seen,
        "updates": learner.updates,
        "generator": learner.generator.bit_generator.state,
        "chunks": list(learner.table.row),
        "vectors": learner.table.vectors,
    }
    for name, master in learner.masters.values.items():
        content |= {f"master {name}": master.detach(), f"average {name}": learner.average[name]}
        content |= {f"optimizer {key} {name}": value for key, value in learner.optimizer.state.get(master, {}).items()}
    for network in ("network", "target"):
        for name, parameter in getattr(learner, network).named_parameters():
            content[f"{network} {name}"] = parameter.detach()
    return content


def assert_same(one: Learner, other: Learner) -> None:
    left, right = everything(one), everything(other)
    assert left.keys() == right.keys()
    for name, value in left.items():
        equal = torch.equal(value, right[name]) if isinstance(value, torch.Tensor) else value == right[name]
        assert equal, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", ["frozen", "adapter", "refreshed"])
@pytest.mark.parametrize("warm_start", [1.0, 0.0])
def test_a_loaded_learner_goes_on_to_the_last_bit(
    tiny_base: Path, tmp_path: Path, mode: ActionMode, dtype: torch.dtype, warm_start: float
) -> None:
    s = Hyperparameters(
        action_mode=mode,
        warm_start=warm_start,
        transitions=200,
        learning_rate=0.01,
        target_decay=0.9,
        refresh_updates=3,
    )
    first = make_learner(tiny_base, s, dtype=dtype)
    for update in range(2):
        first.update(random_questions(update, 4))
    save_state(tmp_path, first, {"best": 0.25, "note": "ünï"})
    second = make_learner(tiny_base, s, dtype=dtype, seed=99)
    assert load_state(tmp_path, second) == {"best": 0.25, "note": "ünï"}
    if warm_start == 0:  # before, nobody reads the target network
        assert_same(first, second)
    for update in range(2, 4):
        for learner in (first, second):
            learner.update(random_questions(update, 4))
    first.publish_target()
    second.publish_target()
    assert_same(first, second)
    assert first.updates == 4


def test_a_state_before_the_first_update_can_be_loaded(tiny_base: Path, tmp_path: Path) -> None:
    first, second = (make_learner(tiny_base, Hyperparameters(), seed=seed) for seed in (1, 2))
    save_state(tmp_path, first, {})
    load_state(tmp_path, second)
    assert_same(first, second)
    for learner in (first, second):
        learner.update(random_questions(0))
    first.publish_target()
    second.publish_target()
    assert_same(first, second)


def test_any_text_can_be_a_chunk(tiny_base: Path, tmp_path: Path) -> None:
    texts = ["\ud800 half a character", "\x00", '"quoted"\n', "天地", "é"]
    first, second = (make_learner(tiny_base, Hyperparameters()) for _ in range(2))
    first.table.row = {text: at for at, text in enumerate(texts)}
    first.table.restore(texts, torch.randn(5, 32))
    save_state(tmp_path, first, {})
    load_state(tmp_path, second)
    assert list(second.table.row) == texts
    assert torch.equal(second.table.vectors, first.table.vectors)


def test_without_a_state_there_is_nothing_to_resume(tiny_base: Path, tmp_path: Path) -> None:
    assert stored_state(tmp_path) is None
    with pytest.raises(ResumeError, match=r"has no state to resume from\. Start it without --resume\."):
        load_state(tmp_path, make_learner(tiny_base, Hyperparameters()))


def test_a_state_of_other_parameters_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    save_state(tmp_path, make_learner(tiny_base, Hyperparameters(action_mode="frozen")), {})
    learner = make_learner(tiny_base, Hyperparameters(action_mode="adapter"))
    with pytest.raises(ResumeError, match="trained with other parameters than the recipe names"):
        load_state(tmp_path, learner)


# -- crashes ----------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process ends here."""


def crash_at(operation: int, monkeypatch: pytest.MonkeyPatch, action: Callable[[], None]) -> bool:
    """Run until just before the given change of the file system, counted from 0; whether it got that far."""
    count = 0

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            if count == operation:
                raise Crash
            count += 1
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("rename", "replace", "mkdir", "unlink", "rmdir", "fsync"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            action()
        except Crash:
            return True
    return False


def test_a_crash_while_saving_loses_nothing(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = make_learner(tiny_base, Hyperparameters())

    def save(seen: int) -> None:
        learner.seen = seen
        save_state(tmp_path, learner, {"seen": seen})

    def stored() -> int:
        extra = load_state(tmp_path, learner)
        assert learner.seen == extra["seen"]
        return learner.seen

    found = set()
    for first in itertools.count():
        for second in itertools.count():  # a crash in the attempt after a crash, with no whole one between
            save(0)
            crashed = crash_at(first, monkeypatch, lambda: save(1))
            before = stored()
            again = crash_at(second, monkeypatch, lambda: save(2))
            found.add((before, stored()))
            assert stored() in (before, 2) if again else stored() == 2
            if not again:
                assert second > 4
                break
        if not crashed:
            assert first > 4
            break
    assert found == {(0, 0), (0, 2), (1, 1), (1, 2)}
