"""The report on the stop rules of a checkpoint: its models and its file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qrag.wire.models import FrozenModel
from qrag.wire.rules import Rule
from trainer.errors import DataError
from trainer.stopping.stops import Calibrated, Difference, Point, Stops


class Target(FrozenModel):
    """What asking for a completeness brought."""

    wanted: float
    """The completeness asked for."""
    reached: float
    """Recall, as a share of the whole budget's."""
    chunks: float


class StopSet(FrozenModel):
    """One test set."""

    task: str
    length: str
    tokens: int | None
    questions: int
    budgets: tuple[Stops, ...]
    """What fixed budgets bring, from one selection on."""
    rules: Mapping[Rule, tuple[Stops, ...]]
    """What each rule brings, calibrated for each of :data:`~trainer.stopping.stops.COSTS`."""
    oracle: Stops
    targets: tuple[Target, ...]
    """What the default rule reaches."""
    complete: Calibrated
    """The estimate of p(complete) in all states, each episode weighing the same."""
    complete_at_stop: Calibrated
    """The same where the default rule stops."""
    hopeless: Calibrated
    """The estimate of p(hopeless) in all states."""
    hopeless_at_stop: float
    """Its mean where the default rule stops."""
    told_apart: Difference | None = None
    """For questions without an answer: the area under the curve of p(complete) where the default rule stops, of those
    whose evidence was found against these; none where they have an answer, or nothing was found."""


class Mixed(FrozenModel):
    """All answerable test sets together, each task weighing the same."""

    questions: int
    curves: Mapping[str, tuple[Point, ...]]
    """The curves of fixed budgets (``budget``), of the ``oracle``, and of each rule."""
    chosen: Mapping[Rule, Point]
    """Each rule at the default cost."""
    budget_chunks: Mapping[Rule, float]
    """Mean chunks that a fixed budget needs for that recall."""
    fewer: Difference
    """Share of those chunks that the default rule saves."""
    best_budget: int
    """The fixed budget with the most utility at the default cost."""
    gain: Difference
    """Utility of the default rule above that."""


class StopReport(FrozenModel):
    """The content of a file."""

    name: str
    fingerprint: str
    seed: int
    budget: int
    default_rule: Rule
    step_cost: float
    machine: dict[str, Any]
    sets: tuple[StopSet, ...]
    mixed: Mixed


def write_stop_report(path: Path, report: StopReport) -> None:
    """Write a file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = _rounded(report.model_dump(mode="json"))
    path.write_text(StopReport.model_validate(rounded).model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_stop_report(path: Path) -> StopReport:
    """Read what :func:`write_stop_report` wrote; raises :class:`~trainer.errors.DataError` for another file."""
    try:
        return StopReport.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(path, None, f"cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        raise DataError(path, None, f"is no report on stop rules ({error.errors()[0]['msg']})") from None


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {name: _rounded(member) for name, member in value.items()}
    return [_rounded(member) for member in value] if isinstance(value, list) else value
