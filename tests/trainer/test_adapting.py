"""Adapting to a service's own documents: drafts, the round trip, users' questions, and a whole run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from index.errors import CheckpointError
from qrag.client.blocking import Client
from qrag.client.errors import Unreachable
from qrag.wire.feedback import FeedbackCheckpoint, FeedbackOut, JudgedChunkOut
from tests.servers import running_server
from tests.trainer.learners import make_recipe
from tests.trainer.overlap_reader import OverlapReader, words_of
from trainer.adapting.adapt import Outcome, adapt
from trainer.adapting.collection import Collection, StoredDocument
from trainer.adapting.confirming import confirmed
from trainer.adapting.drafts import Draft, draft, parsed
from trainer.adapting.files import HELD_OUT, split, write_set
from trainer.adapting.own import from_feedback, judged_pairs, read_pairs
from trainer.adapting.plan import Plan, held
from trainer.adapting.service import handed_over, install, present_checkpoint
from trainer.command_line.main import main
from trainer.datasets.evidence import read_evidence
from trainer.errors import DataError, ReaderError, RecipeError
from trainer.evaluation.paired import Difference
from trainer.hyperparameters import Hyperparameters
from trainer.judging.judge import Judge
from trainer.learning.training import train
from trainer.readers.matching import contains
from trainer.readers.protocol import Generation, Prompt
from trainer.recipe import read_recipe

CPU = torch.device("cpu")

MILL = "The mill was sold to Pieter Bosman, who paid nine hundred guilders in the spring of that year."
LEIDEN = "In Leiden there lived Pieter Bosman, by the water behind the old weigh house, with two sisters."
RAIN = "It rained for most of June, and the bridges stood under water until the middle of July."
COLLECTION = Collection(
    [StoredDocument(id="a", chunks=(MILL, RAIN)), StoredDocument(id="b", chunks=("Short.", LEIDEN))]
)


class Curious(OverlapReader):
    """Asks by all the words of the contexts but the answer's, and answers with nothing."""

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> Iterator[tuple[int, Generation]]:
        for place, prompt in enumerate(prompts):
            left_out = words_of(prompt.answer or "")
            words = [word for word in words_of(" ".join(prompt.contexts)) if word not in left_out][-most_tokens:]
            question = f" what is told of {' '.join(words)}?\n\nAnd so on"
            yield place, Generation("" if prompt.answer is None else question, len(words), 1)


class Knowing(OverlapReader):
    """Asks one question whatever it reads, and answers with what it is told to."""

    def __init__(self, answer: str) -> None:
        super().__init__()
        self._answer = answer

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> Iterator[tuple[int, Generation]]:
        for place, prompt in enumerate(prompts):
            yield place, Generation(self._answer if prompt.answer is None else " Who told us?", most_tokens, 1)


# -- drafts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "question"),
    [
        (" Where is it?\n\nAnswer: In Leiden.", "Where is it?"),
        ("**Question:** Where  is it?", "Where is it?"),
        (" Name it.", None),
        (" Where\nis it?", None),
        ("", None),
        (" What is the answer to the question: Where is it?", None),
        (" Which sentence did the judge pass?", "Which sentence did the judge pass?"),
    ],
)
def test_a_draft_is_a_question_about_something(text: str, question: str | None) -> None:
    assert parsed(text, ["In Leiden the judge passed sentence."]) == question


def test_drafts_are_about_chunks_and_about_pairs_that_share_a_rare_name() -> None:
    drafts = list(draft(Curious(), COLLECTION.chunks, 10, 10, seed=0))
    assert {one.chunks for one in drafts} == {(0,), (1,), (3,), (0, 3)}  # nobody asks about "Short."
    for one in drafts:
        holders = [position for position in one.chunks if contains(COLLECTION.chunks[position], [one.answer])]
        assert len(holders) == 1, "of two chunks one alone has the answer"
        assert not contains(one.question, [one.answer])
    assert len(list(draft(Curious(), COLLECTION.chunks, 2, 0, seed=0))) == 2


@pytest.mark.parametrize(
    ("chunk", "answers"),
    [
        ("on monday it rained and then Maybe and And came with Pieter Bosman and maybe and so on", {"Pieter Bosman"}),
        ("so it was then that in the end Élodie Žižek came to them and went with it", {"Élodie Žižek"}),
        ("in the end they all of them paid him 900 and then 1,250 guilders in 1821 or so", {"900", "1,250", "1821"}),
        ("so he went there and put it all under the old stairs, and then he went to a place", {"the old stairs"}),
        ("so he went there and then he came back again and went and came and nobody said so", set()),
    ],
)
def test_answers_are_names_numbers_and_phrases(chunk: str, answers: set[str]) -> None:
    drafts = [one for seed in range(20) for one in draft(Curious(), [chunk], 1, 0, seed)]
    assert {one.answer.removesuffix(" guilders").removesuffix(" and") for one in drafts} == answers


@pytest.mark.parametrize(
    ("reply", "answers"),
    [
        ("Sold.\nTo him", {"Sold"}),
        ("It was Bosman who did, on the day.", {"the day"}),  # the longest of what it repeats
        ("bought", {"Bosman", "the day"}),  # the chunk does not say so
        ("told", {"Bosman", "the day"}),  # the question does
        ("", {"Bosman", "the day"}),
    ],
)
def test_what_the_reader_answers_is_the_answer_where_it_can_be(reply: str, answers: set[str]) -> None:
    chunk = "so there it was sold to him, Bosman told us so on the day, and he went on and on"
    assert {one.answer for seed in range(9) for one in draft(Knowing(reply), [chunk], 1, 0, seed)} == answers


def test_the_round_trip_keeps_what_needs_its_own_chunks(tmp_path: Path) -> None:
    right = Draft("What was sold to Pieter Bosman in the spring?", "The mill", (0,))
    wrong = Draft("How many guilders did Pieter Bosman pay in the spring?", "nine hundred guilders", (1,))
    both = Draft("Where lived who paid nine hundred guilders and sold the mill?", "In Leiden by the water", (0, 3))
    reader = OverlapReader()
    kept = list(confirmed(Judge(reader, "joint"), [right, wrong, both], COLLECTION, CPU, tmp_path))
    assert [(one.text, one.support) for one in kept] == [
        (right.question, frozenset({0})),
        (both.question, frozenset({0, 3})),
    ]
    assert all(one.chunks is COLLECTION.chunks and one.counts == (2, 2) for one in kept)
    tried = {one.answer for one in reader.asked if len(one.prompt.contexts) == 2}
    assert not any(wrong.question in answer for answer in tried)  # its best chunk by itself is another one
    assert any(both.question in answer for answer in tried)


# -- users' own -------------------------------------------------------------------------------------------------------


def test_pairs_are_read_from_csv_and_json_lines(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text('﻿id,question,answer\n1,"Where, and when?",Leiden\n', encoding="utf-8")
    (tmp_path / "own.jsonl").write_text('{"question": "Where, and when?", "answer": "Leiden"}\n')
    assert read_pairs(tmp_path / "own.csv") == read_pairs(tmp_path / "own.jsonl")
    for name, content, problem in (
        ("empty.csv", "question,answer\nWhere?,\n", ":2: needs"),
        ("lines.csv", 'question,answer\n"Where,\nand when?",Leiden\n\nWho?,\n', ":5: needs"),
        ("columns.csv", "q,a\nWhere?,x\n", "columns"),
        ("bad.jsonl", '{"question": "Where?"}\n', "answer"),
        ("blank.jsonl", '{"question": "Where?", "answer": " "}\n', "answer"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(DataError, match=problem):
            read_pairs(tmp_path / name)
    with pytest.raises(DataError, match="cannot be read"):
        read_pairs(tmp_path / "none.csv")


def test_pairs_are_judged_and_those_that_nothing_answers_left_out(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("question,answer\nWhere lived Pieter Bosman?,Leiden\nAny queens?,Wilhelmina\n")
    judge = Judge(OverlapReader(), "joint")
    (question,) = judged_pairs(judge, read_pairs(tmp_path / "own.csv"), COLLECTION, CPU, tmp_path)
    assert (question.text, question.support, question.judged) == ("Where lived Pieter Bosman?", frozenset({3}), True)


def feedback(*chunks: tuple[str, int, str, bool]) -> FeedbackOut:
    judged = [
        JudgedChunkOut(document_id=document, index=index, text=text, helpful=helpful)
        for document, index, text, helpful in chunks
    ]
    checkpoint = FeedbackCheckpoint(name="c", fingerprint="0" * 64)
    return FeedbackOut(
        id="fb-0",
        created_at=datetime.now(UTC),
        collection="default",
        question="Where?",
        checkpoint=checkpoint,
        chunks=judged,
        answer=None,
        comment=None,
    )


def test_feedback_teaches_what_helped_where_it_still_stands() -> None:
    helped = feedback(
        ("b", 1, LEIDEN, True), ("a", 1, RAIN, False), ("a", 0, "Another text.", True), ("c", 0, "", True)
    )
    (question,) = from_feedback([helped, feedback(("a", 1, RAIN, False))], COLLECTION)
    assert (question.text, question.support, question.judged) == ("Where?", frozenset({3}), False)
    taken_back = feedback(("b", 1, LEIDEN, False), ("a", 1, RAIN, True))
    (question,) = from_feedback([helped, taken_back], COLLECTION)
    assert question.support == {1}
    assert list(from_feedback([taken_back, feedback(("a", 1, RAIN, False))], COLLECTION)) == []


def test_what_is_measured_needs_nothing_that_is_trained_on(tmp_path: Path) -> None:
    supports = [{0}, {0}, {1}, {1, 3}, {3}, {3}, {0, 3}, {1}]
    (question,) = from_feedback([feedback(("b", 1, LEIDEN, True))], COLLECTION)
    questions = [replace(question, id=str(n), support=frozenset(some)) for n, some in enumerate(supports)]
    training, held_out = split(questions, 0.25, seed=3)
    assert len(held_out) == 2
    assert not any(one.support & other.support for one in training for other in held_out)
    write_set(tmp_path / "data", COLLECTION, training, held_out)
    again = list(read_evidence(tmp_path / "data" / HELD_OUT))
    assert [(one.id, one.support, one.counts) for one in again] == [(o.id, o.support, o.counts) for o in held_out]
    assert list(again[0].chunks) == COLLECTION.chunks


# -- a whole run ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def start(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that was trained for a moment, as one to go on from."""
    folder = tmp_path_factory.mktemp("start")
    record = {"question": "Where?", "chunks": ["a", "b", "c"], "support": [1]}
    (folder / "own.jsonl").write_text("".join(json.dumps({"id": str(n)} | record) + "\n" for n in range(200)))
    settings = Hyperparameters(transitions=8, environments=8, warm_start=1.0, stop=True)
    recipe = make_recipe(tiny_base, hyperparameters=settings, state_tokens=192, action_tokens=96)
    return train(recipe, folder, folder / "run", device=CPU)


def story(number: int) -> str:
    return " ".join(
        f"Farmer number {number * 75 + line} owned {line + 2} grey horses and a cart, and lived in the village of "
        f"Place{number * 75 + line}.\n\n"
        for line in range(75)
    )


def test_a_run_goes_on_where_it_died_and_activates_nothing_that_does_not_win(
    start: Path,
    reranker: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checkpoints, run = tmp_path / "checkpoints", tmp_path / "run"
    plan = Plan("adapted", start, singles=75, pairs=0, transitions=24, episodes=10, reranker=str(reranker))
    with (
        running_server(tmp_path / "data", start, checkpoints_dir=str(checkpoints)) as server,
        Client(str(server.base_url)) as client,
    ):
        for number in range(2):
            client.index(story(number), title=f"Story {number}", wait=True)
        with pytest.raises(ReaderError, match="died"):
            adapt(client, None, Curious(lives=50), plan, run, CPU)
        outcome = adapt(client, None, Curious(), plan, run, CPU)
        assert outcome.checkpoint.is_dir()
        report = (run / "report.md").read_text()
        assert "present" in report
        assert "hybrid" in report
        assert (run / "learning-curves.png").exists()
        # All is there: nothing is asked, trained or calibrated a second time.
        before = (outcome.checkpoint / "qrag.json").read_bytes()
        recipe = read_recipe(run / "training" / "recipe.yaml")
        assert recipe.reranker == str(reranker)  # which no recipe names of which no task distils
        assert adapt(client, None, Curious(lives=0), plan, run, CPU) == outcome
        assert (outcome.checkpoint / "qrag.json").read_bytes() == before
        # Another plan is not answered with the questions and weights of this one.
        (tmp_path / "own.csv").write_text("question,answer\nWhere?,Leiden\n")
        changes: list[dict[str, Any]] = [
            {"singles": 74},
            {"seed": 1},
            {"questions": tmp_path / "own.csv"},
            {"reranker": None},
        ]
        for other in (replace(plan, **change) for change in changes):
            with pytest.raises(RecipeError, match="name another folder"):
                adapt(client, None, Curious(lives=0), other, run, CPU)
        with pytest.raises(RecipeError, match="collection None instead of 'default'"):
            adapt(client, "default", Curious(lives=0), plan, run, CPU)
        # The command hands over what wins alone. This one is random, and does not.
        assert not outcome.wins
        arguments = ["adapt", "--url", str(server.base_url), "--checkpoints-dir", str(checkpoints), "--out", str(run)]
        arguments += ["--start", str(start), "--transitions", "24", "--singles", "75"]
        arguments += ["--reranker", str(reranker)]
        with monkeypatch.context() as patch:
            patch.setattr(
                "trainer.command_line.commands.Plan", lambda **named: replace(Plan(**named), pairs=0, episodes=10)
            )
            patch.setattr("trainer.command_line.commands.open_reader", lambda *_: nullcontext(Curious(lives=0)))
            assert main(arguments) == 0
        assert "Nothing was activated" in capsys.readouterr().out
        assert not (checkpoints / "adapted").exists()
        assert server.get("/admin/checkpoints").json()["served"] == "configured"
        # What has won is installed and served.
        said = handed_over(outcome.checkpoint, checkpoints, "winner", str(server.base_url), None)
        assert "winner" in said
        status = server.get("/admin/checkpoints").json()
        assert "winner" in (status["served"], (status["change"] or {}).get("checkpoint"))
        assert present_checkpoint(client, checkpoints, start) == start
        # A service that does not see the folder: what to do is said.
        said = handed_over(outcome.checkpoint, tmp_path / "elsewhere", "other", str(server.base_url), None)
        assert "copy" in said
        assert "curl -X POST" in said
        assert (tmp_path / "elsewhere" / "other" / "qrag.json").exists()
        with pytest.raises(RecipeError, match="--name"):
            install(outcome.checkpoint, checkpoints, "winner")


@pytest.mark.parametrize(
    ("own", "peer", "wins"),
    [
        (Difference(0.1, 0.01, 0.2), Difference(0.0, -0.1, 0.1), True),
        (Difference(0.1, 0.0, 0.2), Difference(0.1, 0.05, 0.2), False),
        (Difference(0.1, 0.01, 0.2), Difference(-0.2, -0.3, -0.1), False),
    ],
)
def test_only_more_than_chance_and_no_loss_against_a_peer_wins(own: Any, peer: Any, wins: bool) -> None:
    assert Outcome(Path("c"), own, peer).wins == wins


def test_a_reranker_that_is_none_is_said_before_anything_is_read(start: Path, tmp_path: Path) -> None:
    plan = Plan("a", start, reranker=str(start))
    with Client("http://127.0.0.1:9") as client, pytest.raises(CheckpointError, match="reranker"):
        adapt(client, None, Curious(), plan, tmp_path / "run", CPU)


def test_too_few_questions_are_said(start: Path, tmp_path: Path) -> None:
    with (
        running_server(tmp_path / "data", start) as server,
        Client(str(server.base_url)) as client,
    ):
        with pytest.raises(RecipeError, match="no document"):
            adapt(client, None, Curious(), Plan("a", start), tmp_path / "run", CPU)
        client.index(MILL, wait=True)
        with pytest.raises(RecipeError, match="40 are needed"):
            adapt(client, None, Curious(), Plan("a", start), tmp_path / "run", CPU)
        with pytest.raises(RecipeError, match="--start"):
            present_checkpoint(client, tmp_path, None)
        # All ask about one chunk: what is measured leaves none to train on. Nothing is written that a later try finds.
        client.index(LEIDEN, wait=True)
        rows = "".join(f"Where lived Pieter Bosman {number}?,Leiden\n" for number in range(44))
        (tmp_path / "own.csv").write_text(f"question,answer\n{rows}")
        own = Plan("a", start, questions=tmp_path / "own.csv")
        with pytest.raises(RecipeError, match="0 need other chunks"):
            adapt(client, None, OverlapReader(), own, tmp_path / "own", CPU)
        assert not (tmp_path / "own" / "data").exists()


def test_a_folder_is_one_process_s(tmp_path: Path) -> None:
    with held(tmp_path / "run"), pytest.raises(RecipeError, match="Another process"), held(tmp_path / "run"):
        pass
    with held(tmp_path / "run"):
        pass


def test_a_name_that_cannot_be_a_folder_s_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecipeError, match="--name"):
        Plan("office 2025", tmp_path)
    (tmp_path / "adapted").mkdir()
    arguments = ["adapt", "--url", "http://127.0.0.1:9", "--checkpoints-dir", str(tmp_path), "--out", str(tmp_path)]
    assert main(arguments) == 1
    assert "exists already" in capsys.readouterr().err


def test_a_service_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["adapt", "--url", "http://127.0.0.1:9", "--checkpoints-dir", str(tmp_path), "--out", str(tmp_path)]
    assert main(arguments) == 1
    assert "127.0.0.1:9" in capsys.readouterr().err
    with pytest.raises(Unreachable), Client("http://127.0.0.1:9", sleep=lambda _: None) as client:
        present_checkpoint(client, tmp_path, None)
