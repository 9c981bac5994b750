from __future__ import annotations

from pathlib import Path

import pytest

from index.encoders.checkpoint import read_config
from tests.trainer.results import result, row
from trainer.datasets.question import Question
from trainer.errors import DataError
from trainer.evaluation.reports import Result, joined, markdown, measure, read_report, write_report
from trainer.evaluation.suites import TestSet


def test_results_of_one_name_are_merged_into_mean_and_spread() -> None:
    results = [result("ours", "babilong", row("qa1", recall, "1K", 1000, 2)) for recall in (0.9, 1.0)]
    assert "| qa1 | 2 | 0.950 ± 0.071 |" in markdown(results)


def test_lengths_are_columns_and_tasks_are_averaged() -> None:
    rows = [
        row(task, value, length, tokens)
        for task, value in (("qa1", 1.0), ("qa2", 0.5))
        for length, tokens in reversed(LENGTHS)
    ]
    lines = markdown([result("ours", "babilong", *rows)]).splitlines()
    assert lines[2:] == [
        "| task | budget | retrieval | 1K | 4K |",
        "|---|---|---|---|---|",
        "| qa1 | 2-4 | ours | 1.000 | 1.000 |",
        "| qa2 | 2-4 | ours | 0.500 | 0.500 |",
        "| mean |  | ours | 0.750 | 0.750 |",
    ]


LENGTHS = (("1K", 1000), ("4K", 4000))


def test_ways_of_retrieving_are_columns_where_there_is_one_length() -> None:
    table = markdown([result("bm25", "multihop", row("musique", 0.1)), result("ours", "multihop", row("musique", 0.6))])
    assert "| task | budget | bm25 | ours |" in table
    assert "| musique | 2-4 | 0.100 | 0.600 |" in table
    assert "mean" not in table


def test_no_mean_where_a_run_lacks_a_task() -> None:
    complete = result("ours", "babilong", row("qa1", 1.0, "1K"), row("qa2", 0.5, "1K"))
    table = markdown([complete, result("ours", "babilong", row("qa1", 1.0, "1K"))])
    assert table.splitlines()[-1] == "| mean |  |  |"


def test_each_suite_gets_a_table() -> None:
    table = markdown([result("a", "jsonl", row("own", 1.0)), result("a", "multihop", row("musique", 1.0))])
    assert [line for line in table.splitlines() if line.startswith("**")] == ["**jsonl**", "**multihop**"]


def test_what_was_measured_apart_is_one_result() -> None:
    short = result("ours", "babilong", row("qa1", 1.0, "1K", 1000), row("qa2", 0.9, "1K", 1000))
    long = result("ours", "babilong", row("qa1", 0.8, "4K", 4000), row("qa1", 0.1, "1K", 1000))
    other, seed = result("bm25", "babilong", row("qa1", 0.3, "4K", 4000)), long.model_copy(update={"seed": 1})
    both = result("ours", "babilong", *short.rows, long.rows[0])
    assert joined([short, other, long, seed]) == [both, other, seed]


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    results = (result("ours", "babilong", row("qa1", 0.9, "1K", 1000)),)
    write_report(tmp_path / "new" / "a.json", results)
    assert read_report(tmp_path / "new" / "a.json").results == results


@pytest.mark.parametrize("content", [b"{}", b"not json", b'{"results": [{"name": 1}]}'])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.json: is no result of an evaluation"):
        read_report(tmp_path / "a.json")


class FirstChunks:
    """Selects the first chunks; counts what it is given to read."""

    def __init__(self) -> None:
        self.read_texts: list[str] = []

    def read(self, background: object) -> None:
        assert isinstance(background, list)
        self.read_texts += background

    def select(self, questions: list[Question]) -> list[list[int]]:
        return [list(range(question.budget)) for question in questions]


def test_measuring_counts_every_question_once() -> None:
    def draw() -> list[Question]:
        return [
            Question(str(at), "t", "why", ["a", "b", "c"], (3,), frozenset({at}), budget)
            for at, budget in ((0, 1), (1, 1), (1, 2), (2, 2))
        ]

    retriever = FirstChunks()
    found = measure(retriever, TestSet("t", "1K", 1000, 4, lambda: iter(draw()), ["a", "b"]))  # type: ignore[arg-type]
    assert retriever.read_texts == ["a", "b"]
    assert (found.questions, found.least_budget, found.budget) == (4, 1, 2)
    assert found.recall_by_step == (0.25, 0.5)
    assert found.at_budget == 0.5


def test_a_fingerprint_follows_the_weights_and_not_the_name(tiny_checkpoint: Path) -> None:
    config = read_config(tiny_checkpoint)
    assert config.fingerprint == config.model_copy(update={"name": "other", "training": {"seed": 1}}).fingerprint
    assert config.fingerprint != config.model_copy(update={"w": 2.0}).fingerprint


def test_shares_are_compared_question_by_question_and_over_all_sets() -> None:
    def of(name: str, first: list[float], second: list[float]) -> Result:
        rows = [
            row(task, 0.0).model_copy(update={"shares": tuple(shares), "share_by_step": (sum(shares) / len(shares),)})
            for task, shares in (("a", first), ("b", second))
        ]
        return result(name, "evidence", *rows)

    table = markdown([of("peer", [1.0] * 40, [0.0] * 4), of("ours", [0.5] * 40, [1.0] * 4)])
    assert "| ours, more than | peer |" in table
    assert "| a | **-0.500 (-0.500 to -0.500)** |" in table  # a loss is bold
    assert "| b | +1.000 (+1.000 to +1.000) |" in table
    assert "| mean | +0.250 (+0.250 to +0.250) |" in table
    unlike = markdown([of("peer", [1.0] * 40, [0.0] * 3), of("ours", [0.5] * 40, [1.0] * 4)])
    assert "| b |  |" in unlike  # other questions: nothing to compare
    assert "| mean |  |" in unlike
