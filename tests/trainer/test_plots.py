from __future__ import annotations

import json
from pathlib import Path

import matplotlib.image
import pytest
from matplotlib.axes import Axes

from tests.trainer.results import result, row
from trainer.errors import DataError
from trainer.evaluation.plots import learning_curves, recall_by_budget, recall_by_length

RESULT = result(
    "ours",
    "babilong",
    *(
        row(task, recall, length, tokens)
        for task, recall in (("qa1", 1.0), ("qa2", 0.7))
        for length, tokens in (
            ("1M", 1_000_000),
            ("1K", 1_000),
        )
    ),
)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[float], list[float], str]]:
    """What is drawn: abscissas, ordinates and label of each line."""
    lines: list[tuple[list[float], list[float], str]] = []
    plot = Axes.plot

    def record(self: Axes, x: list[float], y: list[float], **options: object) -> object:
        lines.append((list(x), list(y), str(options.get("label"))))
        return plot(self, x, y, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Axes, "plot", record)
    return lines


def assert_image(path: Path) -> None:
    height, width, _ = matplotlib.image.imread(path).shape
    assert height > 300
    assert width > 600


def test_recall_by_length_has_a_line_a_task_in_order_of_length(
    tmp_path: Path, drawn: list[tuple[list[float], list[float], str]]
) -> None:
    recall_by_length(RESULT, tmp_path / "a.png")
    assert_image(tmp_path / "a.png")
    assert drawn == [
        ([1_000, 1_000_000], [1.0, 1.0], "qa1 (budget 4)"),
        ([1_000, 1_000_000], [0.7, 0.7], "qa2 (budget 4)"),
    ]


def test_recall_by_budget_shows_the_longest_documents(
    tmp_path: Path, drawn: list[tuple[list[float], list[float], str]]
) -> None:
    recall_by_budget(RESULT, tmp_path / "a.png")
    assert_image(tmp_path / "a.png")
    assert drawn == [([1, 2], [0.0, 1.0], "qa1 1M"), ([1, 2], [0.0, 0.7], "qa2 1M")]


def run_with(folder: Path, name: str, *records: object) -> Path:
    (folder / name).mkdir()
    (folder / name / "validation.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder / name


def test_learning_curves_of_one_run_show_its_tasks(
    tmp_path: Path, drawn: list[tuple[list[float], list[float], str]]
) -> None:
    records = [{"transitions": at, "seconds": at, "mean": at / 100, "qa1": at / 50} for at in (10, 20)]
    learning_curves([run_with(tmp_path, "run", *records)], tmp_path / "a.png")
    assert_image(tmp_path / "a.png")
    assert drawn == [([10, 20], [0.2, 0.4], "qa1"), ([10, 20], [0.1, 0.2], "mean")]


def test_learning_curves_of_several_runs_show_their_means(
    tmp_path: Path, drawn: list[tuple[list[float], list[float], str]]
) -> None:
    runs = [run_with(tmp_path, name, {"transitions": 10, "mean": mean}) for name, mean in (("a", 0.1), ("b", 0.2))]
    learning_curves(runs, tmp_path / "a.png")
    assert drawn == [([10], [0.1], "a"), ([10], [0.2], "b")]


def test_a_run_that_was_not_validated_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"validation\.jsonl: is not there"):
        learning_curves([tmp_path], tmp_path / "a.png")
    with pytest.raises(DataError, match=r"validation\.jsonl: is empty"):
        learning_curves([run_with(tmp_path, "empty")], tmp_path / "a.png")
    with pytest.raises(DataError, match=r"validation\.jsonl:2: must be an object with transitions"):
        learning_curves([run_with(tmp_path, "bad", {"transitions": 1, "mean": 1}, [1])], tmp_path / "a.png")
