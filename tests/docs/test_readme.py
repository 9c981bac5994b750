"""The README stays short, and its table has the figures of the committed results."""

from __future__ import annotations

import json
import re
import statistics

import pytest

from tests.docs.pages import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"

MOST_WORDS = 800
"""Most words of the whole page, blocks of code and tables included."""

WAYS = ("bm25", "one-step", "hybrid", "reranked", "q-rag")
"""The columns of the table."""

ROWS = {
    "a reader's single facts in whole books (60)": ("reader.json", ("reader_single",), ""),
    "a reader's two facts in whole books (42)": ("reader.json", ("reader_two",), ""),
    "five sets of real documents, mean (500)": (
        "evidence.json",
        ("clapnq", "conditionalqa", "qasper_small", "ramdocs", "strategyqa"),
        "",
    ),
    "HotpotQA (241)": ("multihop.json", ("hotpotqa",), ""),
    "2WikiMultihopQA (124)": ("multihop.json", ("2wiki",), ""),
    "MuSiQue (46)": ("multihop.json", ("musique",), ""),
    "BabiLong QA2, two facts in 128K tokens": ("babilong-baselines.json", ("qa2",), "128K"),
    "BabiLong QA3, three facts in 128K tokens": ("babilong-baselines.json", ("qa3",), "128K"),
    "SQuAD, one plain fact of prose in 128K tokens (126)": ("squad.json", ("squad",), "128K"),
}
"""File, tasks and length of each row of the table."""

SHARED = {"reader.json", "evidence.json"}
"""The files whose mean share of the evidence is shown; the others' figures are how often all of it was found."""


def figures(file: str, tasks: tuple[str, ...], length: str) -> list[float | None]:
    """What each of the :data:`WAYS` finds, the mean over the tasks; none where it was not measured."""
    results = json.loads((RESULTS / file).read_text(encoding="utf-8"))["results"]
    by_way = {one["name"]: {(row["task"], row["length"]): row for row in one["rows"]} for one in results}
    found: list[float | None] = []
    for way in WAYS:
        if way not in by_way:
            found.append(None)
            continue
        rows = by_way[way]
        chosen = [rows[task, length] for task in tasks]
        found.append(
            statistics.fmean(row["share_by_step"][-1] if file in SHARED else row["at_budget"] for row in chosen)
        )
    return found


def test_it_is_short() -> None:
    assert len([word for word in README.split() if re.search(r"\w", word)]) <= MOST_WORDS


@pytest.mark.parametrize("label", ROWS)
def test_a_row_of_the_table_is_that_of_the_results(label: str) -> None:
    (row,) = re.findall(rf"^\| {re.escape(label)} \|(.*)\|$", README, re.M)
    shown = [cell.strip(" *") for cell in row.split("|")]
    found = figures(*ROWS[label])
    assert shown == ["" if figure is None else f"{figure:.3f}".removeprefix("0") for figure in found]
