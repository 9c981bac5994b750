"""The README stays short, and its table has the figures of the committed results."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.docs.pages import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"

MOST_WORDS = 800
"""Most words of the whole page, blocks of code and tables included."""

ROWS = {
    "HotpotQA (241 questions)": ("multihop", "hotpotqa", ""),
    "2WikiMultihopQA (124)": ("multihop", "2wiki", ""),
    "MuSiQue (46)": ("multihop", "musique", ""),
    "BabiLong QA2, two facts in 128K tokens": ("babilong", "qa2", "128K"),
    "BabiLong QA3, three facts in 128K tokens": ("babilong", "qa3", "128K"),
    "SQuAD, one plain fact of prose in 128K tokens (126)": ("squad", "squad", "128K"),
}
"""Suite, task and length of each row of the table."""

CHECKPOINT_FILES = {"babilong": "babilong-128K.json"}


def recall(file: str, task: str, length: str) -> dict[str, float]:
    """All-support recall at the budget, by what retrieved."""
    document = json.loads((RESULTS / file).read_text(encoding="utf-8"))
    results: list[dict[str, Any]] = document.get("results", [document])
    return {
        result["name"]: row["at_budget"]
        for result in results
        for row in result["rows"]
        if (row["task"], row["length"]) == (task, length)
    }


def test_it_is_short() -> None:
    assert len([word for word in README.split() if re.search(r"\w", word)]) <= MOST_WORDS


@pytest.mark.parametrize("label", ROWS)
def test_a_row_of_the_table_is_that_of_the_results(label: str) -> None:
    suite, task, length = ROWS[label]
    baselines = recall(f"{suite}-baselines.json", task, length)
    (checkpoint,) = recall(CHECKPOINT_FILES.get(suite, f"{suite}.json"), task, length).values()
    figures = (baselines["bm25"], baselines["one-step"], baselines["untrained"], checkpoint)
    (row,) = re.findall(rf"^\| {re.escape(label)} \|(.*)\|$", README, re.M)
    shown = [cell.strip(" *") for cell in row.split("|")]
    assert shown == [f"{figure:.3f}".removeprefix("0") for figure in figures]
