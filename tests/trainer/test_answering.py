"""End to end: how answers are matched, what a reader is asked, and what the report says."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from index.encoders.loading import load_encoder
from index.episodes.rules import STOP_RULES, StopBelow
from tests.trainer.overlap_reader import OverlapReader
from trainer.answering.asking import Asked, answer
from trainer.answering.comparing import Gold, Nothing, compare_answers, default_stop, find
from trainer.answering.reports import (
    AnswerReport,
    AnswerResult,
    answer_table,
    read_answer_report,
    token_share,
    write_answer_report,
)
from trainer.answering.sets import answerable
from trainer.datasets.question import Question
from trainer.errors import DataError, ReaderError, ResumeError
from trainer.evaluation.baselines import BM25
from trainer.evaluation.playing import Player
from trainer.evaluation.suites.test_sets import TestSet, listed
from trainer.readers.matching import contains, exact_match, f1, normalized

QUESTION = Question(
    id="1",
    task="own",
    text="Where does Bosman live?",
    chunks=["Leiden is where Bosman lives.", "It rained.", "Bosman sold the mill.", "Rain again."],
    counts=(4,),
    support=frozenset({0, 2}),
    budget=2,
    answers=("Leiden", "the city of Leiden"),
)

TEXTS = st.text("abc the.,!  \n", max_size=30)

# -- matching ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "gold", "exact", "harmonic"),
    [
        ("The Leiden.", ["leiden"], 1.0, 1.0),
        ("in Leiden", ["Leiden"], 0.0, 2 / 3),
        ("Leiden or Delft", ["Amsterdam", "Delft, or Leiden"], 0.0, 1.0),
        ("", ["Leiden"], 0.0, 0.0),
        ("the", ["a"], 1.0, 1.0),
        ("new new york", ["new york york"], 0.0, 2 / 3),
    ],
)
def test_answers_match_as_squad_has_it(written: str, gold: list[str], exact: float, harmonic: float) -> None:
    assert exact_match(written, gold) == exact
    assert f1(written, gold) == pytest.approx(harmonic)


@given(written=TEXTS, gold=TEXTS)
def test_f1_is_symmetric_and_1_for_the_same_words(written: str, gold: str) -> None:
    assert f1(written, [gold]) == pytest.approx(f1(gold, [written]))
    assert 0 <= f1(written, [gold]) <= 1
    assert exact_match(written, [gold]) <= f1(written, [gold])
    assert normalized(normalized(written)) == normalized(written)


def test_an_answer_is_contained_as_whole_words() -> None:
    assert contains("It is in Leiden, I think", ["leiden"])
    assert not contains("It is in Leidenberg", ["leiden"])
    assert not contains("anything", ["the"])  # nothing is left of it


# -- asking -----------------------------------------------------------------------------------------------------------


def test_a_row_says_what_was_written_read_and_probable() -> None:
    row = answer(OverlapReader(), Asked("own", [QUESTION, QUESTION], [[0, 2], []]))
    assert (row.exact_match, row.f1) == ((1.0, 0.0), (1.0, 0.0))
    assert row.chunks == (2, 0)
    assert row.tokens == (1 + 9, 1)
    assert row.log_probability == (-0.1, -2.1)  # the more probable of both gold answers
    assert row.cut == 0


def test_every_way_gets_the_same_questions() -> None:
    sets = [listed([QUESTION, replace(QUESTION, id="2", facts=(frozenset({0, 2}),))])]
    (gold,), (nothing,), (bm25,) = (list(find(way, sets)) for way in (Gold(), Nothing(), BM25()))
    assert gold.selections == [[0, 2], [0]]  # one of the chunks that hold a fact is enough
    assert nothing.selections == [[], []]
    assert all(len(selected) == 2 for selected in bm25.selections)
    assert [q.id for q in gold.questions] == [q.id for q in nothing.questions] == ["1", "2"]


def test_questions_without_an_answer_are_not_asked(tmp_path: Path) -> None:
    documents = [["Mill", ["The mill."]], ["Rain", ["It rained."]]]
    records = [
        {"_id": str(number), "question": "Where?", "answer": text, "supporting_facts": [["Mill", 0]]}
        | {"context": documents, "type": "bridge", "level": "easy"}
        for number, text in enumerate(["Leiden", " ", "Delft"])
    ]
    (tmp_path / "multihop").mkdir()
    content = "".join(json.dumps(one) + "\n" for one in records)
    (tmp_path / "multihop" / "hotpotqa_dev.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    (test_set,) = answerable(tmp_path, ["hotpotqa"], 5, 0, budget=7)
    questions = list(test_set.draw())
    assert [question.id for question in questions] == ["0", "2"]
    assert {question.budget for question in questions} == {7}


# -- the report -------------------------------------------------------------------------------------------------------


def test_the_table_compares_one_way_with_the_others(tmp_path: Path) -> None:
    asked = Asked("own", [QUESTION] * 4, [[0]] * 4)
    rows = [answer(OverlapReader(), asked), answer(OverlapReader(), asked._replace(selections=[[1, 2]] * 4))]
    results = tuple(AnswerResult(name=name, rows=(row,)) for name, row in zip(("ours", "theirs"), rows, strict=True))
    report = AnswerReport(
        machine={}, reader="overlap", checkpoint="c", reranker=None, seed=0, compared="ours", results=results
    )  # fmt: skip
    write_answer_report(tmp_path / "new" / "answers.json", report)
    assert AnswerReport.model_validate_json((tmp_path / "new" / "answers.json").read_bytes()) == report
    table = (tmp_path / "new" / "answers.md").read_text()
    assert table == answer_table(report)
    assert "| own (4) | 1.000 | 0.000 |" in table
    assert "| F1 of ours, more than |  | +1.000 (+1.000 to +1.000) |" in table
    share = token_share(results[0], results[1])
    assert share.mean == share.low == share.high == pytest.approx(6 / 7)


def test_a_report_goes_on_where_it_was(calibrated_checkpoint: Path, tmp_path: Path) -> None:
    """What a dying reader had said is kept by rows, other questions and other ways are asked for."""
    sets = [listed([replace(QUESTION, task=task, id=task)]) for task in ("one", "two")]
    file = tmp_path / "answers.json"

    def asked(reader: OverlapReader, *, peers: Sequence[str], of: Sequence[TestSet] = sets) -> AnswerReport:
        for report in compare_answers(
            reader, of, "own", calibrated_checkpoint, seed=0, device=torch.device("cpu"), peers=peers,
            known=read_answer_report(file),
        ):  # fmt: skip
            write_answer_report(file, report)
        return AnswerReport.model_validate_json(file.read_bytes())

    # Each row is a question with two gold answers.
    with pytest.raises(ReaderError, match="died"):
        asked(OverlapReader(lives=6), peers=["nothing", "gold"])
    assert [(r.name, len(r.rows)) for r in asked(OverlapReader(lives=0), peers=["nothing", "gold"], of=[]).results] == [
        ("nothing", 2), ("gold", 1),
    ]  # fmt: skip
    assert answer_table(AnswerReport.model_validate_json(file.read_bytes())).count("one (1)") == 1
    second = OverlapReader()
    report = asked(second, peers=["nothing", "gold"])
    assert len(second.asked) == 6
    assert [result.name for result in report.results] == ["nothing", "own", "gold"]
    whole = asked(OverlapReader(), peers=["bm25"])
    assert [result.name for result in whole.results] == ["nothing", "bm25", "own", "gold"]
    assert all(result in whole.results for result in report.results)
    # Rows of something else are neither taken for those that are asked for, nor overwritten.
    more = [replace(listed([QUESTION, replace(QUESTION, id="2")]), task="one")]
    with pytest.raises(ResumeError, match="questions of one 1 instead of 2"):
        asked(OverlapReader(), peers=["gold"], of=more)
    other = OverlapReader()
    other.identity = "other weights"
    with pytest.raises(ResumeError, match="another --out"):
        asked(other, peers=["gold"])
    assert AnswerReport.model_validate_json(file.read_bytes()) == whole


def test_a_file_that_is_no_report_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text('{"results": []}')
    with pytest.raises(DataError, match="no report on answers"):
        read_answer_report(tmp_path / "answers.json")
    assert read_answer_report(tmp_path / "other.json") is None


def test_a_player_ends_by_its_rule_and_its_own_budget(calibrated_checkpoint: Path) -> None:
    encoder = load_encoder(calibrated_checkpoint, device="cpu")

    def selected(threshold: float) -> int:
        rule = StopBelow(STOP_RULES["threshold"], threshold)
        ((*chunks,),) = Player(encoder, stop=rule, budget=3).select([QUESTION])
        return len(chunks)

    assert (selected(1e9), selected(-1e9)) == (0, 3)
    assert default_stop(encoder) is not None
