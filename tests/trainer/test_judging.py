"""Evidence by what a frozen reader says: values, the search for support, files of judgements, recipes on them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.causal_models import model, tokenizer
from tests.trainer.learners import make_recipe
from tests.trainer.overlap_reader import OverlapReader, nats
from trainer.command_line.main import main
from trainer.datasets.jsonl import read_jsonl
from trainer.datasets.question import Question
from trainer.errors import DataError, ReaderError, RecipeError
from trainer.hyperparameters import Hyperparameters
from trainer.judging.judge import Judge
from trainer.judging.support import CONTENDERS, SINGLE_SHARE, find_support
from trainer.learning.rewards import Step, reward_of
from trainer.readers.cache import CachedReader
from trainer.readers.protocol import Prompt, Request
from trainer.readers.wording import asked_and_answered
from trainer.recipe import DatasetTask
from trainer.tasks.judgements import Judgement, as_judged, read_judgements, write_judgements
from trainer.tasks.mixture import build_mixture

CHUNKS = [
    "The mill was sold to Bosman.",
    "It rained in June.",
    "Bosman lives in Leiden by the water.",
    "The bridge was painted red.",
]
MILL = Question(
    id="mill",
    task="own",
    text="Where does the man live to whom the mill was sold?",
    chunks=CHUNKS,
    counts=(4,),
    support=frozenset({1}),
    budget=1,
    answers=("Leiden",),
)
"""It needs the first and the third chunk; whoever labelled it was wrong."""


def search(
    question: Question, *, form: Any = "joint", gain: float = 1.0, most: int = 4, pools: bool = False
) -> Judgement:
    candidates = {question.id: range(len(question.chunks))}
    judge = Judge(OverlapReader(), form)
    (judgement,) = find_support(judge, [question], candidates, least_gain=gain, most_chunks=most, pools=pools)
    return judgement


# -- values -----------------------------------------------------------------------------------------------------------


def test_the_joint_form_is_the_probability_of_question_and_answer_together() -> None:
    (value,) = Judge(OverlapReader(), "joint").values([(MILL, (0, 2))])
    pair = asked_and_answered(MILL.text, "Leiden")
    assert value == nats(Request(Prompt(None, (CHUNKS[0], CHUNKS[2])), pair))


def test_of_several_answers_the_most_probable_one_counts() -> None:
    question = replace(MILL, answers=("Hamburg", "Leiden"))
    values = Judge(OverlapReader(), "answer").values([(question, (2,)), (question, ())])
    assert values.tolist() == [-0.1, -2.1]


def test_the_group_is_right_answers_against_wrong_ones() -> None:
    question = replace(MILL, chunks=["Leiden lies by the water.", "Hamburg is far."], counts=(2,))
    judge = Judge(OverlapReader(), "group")
    # It writes "leiden" from the first chunk and "hamburg" from the second: right and wrong.
    right, wrong = judge.values([(question, (0,)), (question, (1,))])
    assert (right, wrong) == pytest.approx((-0.1 - -2.1, -2.1 - -0.1))


def test_a_reader_is_asked_for_each_state_once() -> None:
    reader = OverlapReader()
    judge = Judge(reader, "answer")
    first = judge.values([(MILL, (0,)), (MILL, (1,)), (MILL, (0,))])
    assert len(reader.asked) == 2
    np.testing.assert_array_equal(judge.values([(MILL, (1,)), (MILL, (0,))]), first[1:])
    assert len(reader.asked) == 2


def test_a_chunk_is_correct_where_the_written_answer_contains_a_gold_one() -> None:
    question = replace(MILL, chunks=["Leiden, by the water.", "By Leiden."], counts=(2,))
    assert Judge(OverlapReader(), "answer").correct([(question, (0,)), (question, (1,))]) == [True, False]


# -- the search for support -------------------------------------------------------------------------------------------


def test_support_is_what_the_reader_needs_not_what_the_labels_say() -> None:
    judgement = search(MILL)
    assert set(judgement.support) == {0, 2}
    assert judgement.chunks == 4
    assert all(gain >= 1.0 for gain in judgement.gains)


def test_where_nothing_helps_there_is_no_support() -> None:
    assert search(replace(MILL, chunks=["Rain.", "More rain."], counts=(2,))).support == ()


def plain_search(question: Question, gain: float, most: int) -> list[int]:
    """The greedy search as it is described, one request after the other."""

    def value(*positions: int) -> float:
        pair = asked_and_answered(question.text, question.answers[0])
        return nats(Request(Prompt(None, tuple(question.chunks[position] for position in positions)), pair))

    order = sorted(range(len(question.chunks)), key=lambda position: -value(position))
    chosen: list[int] = []
    while len(chosen) < min(most, len(order)):
        left = [position for position in order if position not in chosen][:CONTENDERS]
        best = max(left, key=lambda position: value(*chosen, position) + SINGLE_SHARE * value(position))
        if value(*chosen, best) - value(*chosen) < gain:
            break
        chosen.append(best)
    return chosen


WORDS = st.lists(st.sampled_from("a b c d e f g h i j".split()), min_size=1, max_size=5).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(
    chunks=st.lists(WORDS, min_size=1, max_size=9), asked=WORDS, answer=WORDS, gain=st.sampled_from([0.5, 3.0]),
    most=st.integers(1, 4),
)  # fmt: skip
def test_the_search_is_the_plain_one(chunks: list[str], asked: str, answer: str, gain: float, most: int) -> None:
    question = replace(MILL, text=asked, chunks=chunks, counts=(len(chunks),), support=frozenset(), answers=(answer,))
    assert list(search(question, gain=gain, most=most).support) == plain_search(question, gain, most)


def test_a_reader_that_dies_keeps_what_it_said_and_the_rest_is_asked_later(tmp_path: Path) -> None:
    candidates = {"mill": range(4)}
    options: dict[str, Any] = {"least_gain": 1.0, "most_chunks": 4}
    dying = CachedReader(OverlapReader(lives=6), tmp_path / "kept")
    with pytest.raises(ReaderError, match="died"):
        list(find_support(Judge(dying, "joint"), [MILL], candidates, **options))
    dying.close()
    again = OverlapReader()
    kept = CachedReader(again, tmp_path / "kept")
    (judgement,) = find_support(Judge(kept, "joint"), [MILL], candidates, **options)
    kept.close()
    whole = OverlapReader()
    assert [judgement] == list(find_support(Judge(whole, "joint"), [MILL], candidates, **options))
    assert len(again.asked) == len(whole.asked) - 6


# -- files ------------------------------------------------------------------------------------------------------------


def test_judged_questions_have_the_support_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "judged.jsonl"
    unknown = replace(MILL, id="another")
    assert write_judgements(path, [search(MILL)]) == 1
    assert read_judgements(path) == {"mill": search(MILL)}
    (question,) = as_judged([MILL, unknown], path)
    assert (question.support, question.budget, question.judged) == (frozenset({0, 2}), 2, True)
    assert question.missing([0, 2]) == 0


def test_pools_are_chunks_of_which_one_is_enough_and_wrong_ones(tmp_path: Path) -> None:
    chunks = ["Leiden it is.", "It rained.", "Leiden again."]
    question = replace(MILL, chunks=chunks, counts=(3,))
    write_judgements(tmp_path / "judged", [search(question, form="answer", pools=True)])
    (judged,) = as_judged([question], tmp_path / "judged")
    assert (judged.support, judged.wrong, judged.budget) == (frozenset({0, 2}), (1,), 1)
    assert judged.missing([2]) == 0
    moved = judged.rearranged([2, 1, 0], (3,)).placed(["new", "Leiden again.", "It rained.", "Leiden it is."], 1)
    assert [moved.chunks[position] for position in moved.wrong] == ["It rained."]
    for kept in (chunks[:1], chunks[1:2]):  # a pool that is empty teaches nothing
        one = replace(question, chunks=kept, counts=(1,), support=frozenset())
        write_judgements(tmp_path / "one", [search(one, form="answer", pools=True)])
        assert as_judged([one], tmp_path / "one") == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"chunks": 3}, "4 chunks, not the 3"),
        ({"support": [9]}, "outside the 4 chunks"),
        ({"values": [1.0]}, "entry for each candidate"),
    ],
)
def test_judgements_that_do_not_fit_are_refused(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    record = json.loads(search(MILL).model_dump_json()) | {"support": [0], "candidates": [0, 1], "values": [-1.0, -2.0]}
    (tmp_path / "judged").write_text(json.dumps(record | change) + "\n")
    with pytest.raises(DataError, match=problem):
        as_judged([MILL], tmp_path / "judged")


# -- rewards ----------------------------------------------------------------------------------------------------------


@given(order=st.permutations(range(4)))
def test_an_episode_that_finds_the_judged_support_brings_one_in_all(order: Sequence[int]) -> None:
    question = replace(MILL, support=frozenset({0, 2}), judged=True)
    reward = reward_of("answer", Judge(OverlapReader(), "joint"))
    befores = [tuple(sorted(order[:step])) for step in range(5)]
    rewards = reward.rewards([Step(question, *pair) for pair in itertools.pairwise(befores)])
    assert sum(rewards) == pytest.approx(1.0)
    pair = asked_and_answered(question.text, "Leiden")
    values = [nats(Request(Prompt(None, tuple(CHUNKS[place] for place in read)), pair)) for read in befores]
    for (before, after), reads, brought in zip(
        itertools.pairwise(values), itertools.pairwise(befores), rewards, strict=True
    ):
        assert (brought > 1e-9) == (after > before and question.missing(reads[0]) > 0)


def test_questions_that_people_labelled_are_rewarded_for_their_labels() -> None:
    reader = OverlapReader()
    reward = reward_of("answer", Judge(reader, "joint"))
    assert reward.rewards([Step(MILL, (), (0,)), Step(MILL, (0,), (0, 1)), Step(MILL, (0, 1), (0, 1, 2))]) == [0, 1, 0]
    assert reader.asked == []


def test_chance_is_not_paid_for() -> None:
    """Where a piece was taken away nothing completes, and where the support adds nothing the labels count."""
    reader = OverlapReader()
    reward = reward_of("answer", Judge(reader, "joint"))
    removed = replace(MILL, support=frozenset({0}), removed=1, judged=True)
    assert reward.rewards([Step(removed, (), (0,)), Step(removed, (0,), (0, 2))]) == [0, 0]
    assert reader.asked == []
    useless = replace(MILL, support=frozenset({1}), judged=True)
    steps = [Step(useless, (), (0,)), Step(useless, (0,), (0, 1)), Step(useless, (0, 1), (0, 1, 2))]
    assert reward.rewards(steps) == [0, 1, 0]
    assert reader.asked


def test_without_a_reader_there_is_no_such_reward() -> None:
    with pytest.raises(RecipeError, match="reader"):
        reward_of("answer")


# -- recipes and the command ------------------------------------------------------------------------------------------


def record(number: int, **more: Any) -> dict[str, Any]:
    chunks = [f"{text} {number}" for text in CHUNKS]
    return {"id": f"q{number}", "question": MILL.text, "documents": chunks, "answer": f"Leiden {number}"} | more


def test_an_unlabelled_file_is_trained_on_when_it_is_judged(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(record(number)) + "\n" for number in range(8)))
    task = DatasetTask(kind="jsonl", path="own.jsonl", validation=2)
    with pytest.raises(RecipeError, match="trainer judge"):
        build_mixture(make_recipe(tmp_path, tasks=(task,)), tmp_path)
    questions = list(read_jsonl(tmp_path / "own.jsonl"))
    assert all(question.unlabelled for question in questions)
    candidates = {question.id: range(4) for question in questions}
    judge = Judge(OverlapReader(), "joint")
    judgements = find_support(judge, questions, candidates, least_gain=1.0, most_chunks=4)
    write_judgements(tmp_path / "judged.jsonl", judgements)
    labelled = [record(number, support=[3], task="labelled") for number in range(10, 18)]
    (tmp_path / "labelled.jsonl").write_text("".join(json.dumps(one) + "\n" for one in labelled))
    both = (
        task.model_copy(update={"judgements": "judged.jsonl"}),
        DatasetTask(kind="jsonl", path="labelled.jsonl", validation=2),
    )
    mixture = build_mixture(make_recipe(tmp_path, tasks=both), tmp_path)
    drawn = mixture.draw(40, np.random.default_rng(0))
    found = {(q.judged, tuple(sorted(q.chunks[place][:8] for place in q.support))) for q in drawn}
    assert found == {(True, ("Bosman l", "The mill")), (False, ("The brid",))}


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"hyperparameters": Hyperparameters(reward="answer")}, "`reader`"),
        ({"reader": "smollm2"}, "`reader`"),
        ({"reader": "smollm2", "hyperparameters": Hyperparameters(objective="r3", reward="answer", stop=True)}, "stop"),
        ({"reader": "smollm2", "hyperparameters": Hyperparameters(objective="r3")}, "reward answer"),
    ],
)
def test_recipes_that_ask_nobody_or_for_nothing_are_refused(tmp_path: Path, fields: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make_recipe(tmp_path, **fields)


def test_single_hops_cannot_be_judged(tmp_path: Path) -> None:
    task = DatasetTask(kind="musique", path="m", single_hops=0.5, judgements="j")
    with pytest.raises(ValueError, match="single hops"):
        make_recipe(tmp_path, tasks=(task,))


def test_a_question_needs_support_or_an_answer(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text(json.dumps({"question": "Who?", "chunks": ["a"]}) + "\n")
    with pytest.raises(DataError, match="answer"):
        list(read_jsonl(tmp_path / "own.jsonl"))


def test_the_command_judges_a_file(tmp_path: Path) -> None:
    words = tokenizer()
    words.save_pretrained(tmp_path / "reader")
    model("llama", len(words)).save_pretrained(tmp_path / "reader")
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(record(number)) + "\n" for number in range(4)))
    command = ["judge", "jsonl", str(tmp_path / "own.jsonl"), "--reader", str(tmp_path / "reader"), "--questions", "3"]
    assert main([*command, "--out", str(tmp_path / "judged.jsonl"), "--least-gain", "-1000"]) == 0
    judgements = read_judgements(tmp_path / "judged.jsonl")
    assert len(judgements) == 3
    assert {one.chunks for one in judgements.values()} == {4}
    assert {len(one.support) for one in judgements.values()} == {4}  # any gain is enough
    assert (tmp_path / "judged.jsonl.reader").exists()


def test_a_file_without_answers_or_with_one_id_twice_cannot_be_judged(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"question": "Who?", "chunks": ["a"], "support": [0]}) + "\n")
    assert main(["judge", "jsonl", str(path), "--out", str(tmp_path / "out.jsonl")]) != 0
    path.write_text(2 * (json.dumps(record(1)) + "\n"))
    assert main(["judge", "jsonl", str(path), "--out", str(tmp_path / "out.jsonl")]) != 0
    assert not (tmp_path / "out.jsonl").exists()
