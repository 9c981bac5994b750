"""``qrag eval`` against running servers: what it resolves, asks, prints and refuses."""

from __future__ import annotations

import signal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Barrier, Event

import httpx
import pytest

from qrag import Client, NotFound, ServerError, Unreachable
from qrag.cli.evaluating import run
from qrag.cli.main import main, parser
from qrag.evaluation.library import fetch, fold
from qrag.evaluation.questions import read_questions
from qrag.evaluation.report import QuestionResult, Report, read_report
from qrag.evaluation.resolving import resolve
from qrag.wire import examples
from qrag.wire.checks.questions import Question
from tests.client.command import ROOT, rows, started
from tests.client.evaluations import expecting, written
from tests.markdown import blocks
from tests.service.files import pdf, shown
from tests.service.helpers import Json, add, ask, post
from tests.service.library import QUESTION, SENTENCES, add_lines
from tests.service.scripted import Action, answer, drop, refusal, scripted

pytestmark = pytest.mark.usefixtures("surroundings")

METHODS = ["default", "one-step", "bm25", "hybrid"]
"""Those that are always measured."""


@pytest.fixture
def minutes(shared_client: httpx.Client, collection: str) -> str:
    """The id of a document of twelve chunks, a line each."""
    return str(add_lines(shared_client, collection, SENTENCES, title="Minutes")["id"])


def evaluated(tmp_path: Path, collection: str, *questions: Json, options: list[str] | None = None) -> Report:
    """The report about questions, each with at most twelve chunks."""
    file = written(tmp_path / "questions.jsonl", *questions)
    out = ["--out", str(tmp_path / "report"), "--collection", collection, "--max-steps", "12"]
    assert main(["eval", file, *out, *(options or [])]) == 0
    return read_report(tmp_path / "report" / "report.json")


def found(result: QuestionResult, method: str = "default") -> list[bool]:
    return [rank is not None for rank in result.scores[method].found_at]


# --- What is expected ----------------------------------------------------------------------------------------


def spot(sentence: int) -> tuple[int, int]:
    start = len("".join(line + "\n" for line in SENTENCES[:sentence]))
    return start, start + len(SENTENCES[sentence])


@pytest.mark.parametrize(
    ("piece", "indices"),
    [
        ({"text": "Ana signed the lease on Monday."}, [0]),
        ({"text": "  Ana  signed\tthe\nlease"}, [0]),
        ({"text": "👀 as usual"}, [2]),
        ({"text": "the harvest good. Nobody read the minutes, 👀"}, [2]),  # cut in two: the larger half
        ({"text": "Monday. The weather was fine and the harvest good. Nobody"}, [1]),
        ({"text": "Lisbon", "title": "Minutes"}, [4, 9]),
        ([{"text": "Lisbon"}, {"text": "Porto"}], [4, 6, 9]),
        ({"title": "Minutes", "start": spot(3)[0], "end": spot(3)[1]}, [3]),
        ({"title": "Minutes", "start": spot(3)[0] + 10, "end": spot(5)[1]}, [3, 4, 5]),
        ({"title": "Minutes", "start": 0, "end": 1}, [0]),
        ({"title": "Minutes"}, list(range(12))),
    ],
)
def test_a_piece_is_found_by_the_chunks_that_hold_it(
    shared_client: httpx.Client, collection: str, minutes: str, piece: object, indices: list[int]
) -> None:
    with Client(str(shared_client.base_url)) as client:
        library = fetch(client, collection)
    resolved = resolve(Question.model_validate(expecting(piece)), library)
    assert resolved.unresolved == []
    assert resolved.targets == [frozenset((minutes, index) for index in indices)]
    assert resolved.found_at([(minutes, 11), (minutes, indices[0])]) == [1 if 11 in indices else 2]


def test_pages_are_found_by_number_and_by_label(shared_client: httpx.Client, collection: str) -> None:
    content = pdf([shown(b"A preface."), shown(b"The lease ran for seven years."), shown(b"The end.")])
    content = content.replace(b"/Type/Catalog", b"/PageLabels<</Nums[0<</S/r>>1<</S/D>>]>>/Type/Catalog")
    described = {"collection": collection, "title": "Book", "chunking": "lines", "wait": "true"}
    posted = post(shared_client, content, "application/pdf", **described)
    assert posted.status_code == 201
    id = posted.json()["id"]
    with Client(str(shared_client.base_url)) as client:
        library = fetch(client, collection)
    pieces = [{"document_id": id, "page": page} for page in (2, "1", "i", 4, "2", "9")]
    resolved = resolve(Question.model_validate(expecting(*pieces)), library)
    assert [sorted(index for _, index in target) for target in resolved.targets] == [[1], [1], [0], [], [2], []]
    assert [reason.split(": ")[1] for reason in resolved.unresolved] == 2 * ["no chunk begins on such a page"]


def test_the_examples_are_in_the_book() -> None:
    questions = read_questions(ROOT / "examples" / "questions.jsonl")
    book = fold((ROOT / "examples" / "franklin-autobiography.txt").read_text(encoding="utf-8"))
    pieces = [piece for question in questions for pieces in question.expected or () for piece in pieces]
    assert len(questions) == 8
    for piece in pieces:
        assert piece.text is not None
        assert book.count(fold(piece.text)) == 1, piece.text
    shown_question, _ = blocks(ROOT / "docs" / "evaluating.md", "json")
    assert Question.model_validate_json(shown_question).id == "stove"


# --- What is measured ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("minutes")
def test_the_figures_are_those_of_the_services_answers(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    asked = [f"{line} {word}?" for line in SENTENCES for word in ("Who", "Where")]
    questions = [
        {"id": f"q{number}", "question": text, "expected": [{"text": SENTENCES[number % 5]}, {"text": SENTENCES[7]}]}
        for number, text in enumerate(asked)
    ]
    file = written(tmp_path / "questions.jsonl", *questions)
    arguments = ["--collection", collection, "--max-steps", "4", "--budget", "--rerank", "3", "--parallel", "3"]
    assert main(["eval", file, "--out", str(tmp_path / "deep" / "report"), *arguments]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    report = read_report(tmp_path / "deep" / "report" / "report.json")
    assert [method.name for method in report.methods] == ["default", "budget", "reranked", "one-step", "bm25", "hybrid"]
    options: dict[str, Json] = {
        "default": {},
        "budget": {"stop": {"rule": "budget"}},
        "reranked": {"stop": {"rule": "budget"}, "rerank": 3},
        "one-step": {"trace": True},
    }
    for method, fields in options.items():
        recall: list[list[bool]] = []
        for number, text in enumerate(asked):
            answered = ask(shared_client, text, collection=collection, max_steps=4, order="selection", **fields)
            chunks = answered["one_step"][:4] if method == "one-step" else answered["chunks"]
            indices = [chunk["index"] for chunk in chunks]
            score = report.questions[number].scores[method]
            assert [chunk.index for chunk in score.answer.chunks] == indices
            assert [chunk.text for chunk in score.answer.chunks] == [SENTENCES[index] for index in indices]
            assert score.found_at == [
                indices.index(index) + 1 if index in indices else None for index in (number % 5, 7)
            ]
            recall.append([{number % 5, 7} <= set(indices[:count]) for count in range(1, 5)])
            if method != "one-step":
                assert score.answer.stopped_by == answered["stopped_by"]
                assert score.answer.complete == pytest.approx(answered["sufficiency"]["complete"], abs=1e-6)
        (figures,) = (each for each in report.methods if each.name == method)
        means = [sum(column) / len(asked) for column in zip(*recall, strict=True)]
        assert figures.recall_at == pytest.approx(means)
        assert figures.recall.mean == pytest.approx(means[-1])
        assert figures.recall.low <= figures.recall.mean <= figures.recall.high
        assert sum(figures.stopped_by.values()) == (0 if method == "one-step" else len(asked))
    table = rows(shown.out.partition("\n\n")[0])
    assert [row[0] for row in table] == ["METHOD", *(method.name for method in report.methods)]
    assert table[1][1].startswith(f"{report.methods[0].recall.mean:.3f} [")
    assert {path.name for path in (tmp_path / "deep" / "report").iterdir()} == {
        "report.json",
        "report.md",
        "report.html",
    }


@pytest.mark.usefixtures("minutes")
def test_hybrid_is_both_lists_fused_by_their_ranks_also_below_what_is_shown(
    shared_client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    file = written(tmp_path / "questions.jsonl", expecting({"text": SENTENCES[3]}))
    arguments = ["eval", file, "--out", str(tmp_path), "--collection", collection, "--max-steps"]
    lists: dict[str, dict[str, list[int]]] = {}
    for most in ("3", "12"):
        assert main([*arguments, most]) == 0
        (result,) = read_report(tmp_path / "report.json").questions
        lists[most] = {name: [c.index for c in score.answer.chunks] for name, score in result.scores.items()}
    near, words = lists["12"]["one-step"], lists["12"]["bm25"]
    assert [
        each["index"] for each in ask(shared_client, QUESTION, collection=collection, trace=True)["one_step"]
    ] == near
    scores = {
        index: sum(1 / (61 + each.index(index)) for each in (near, words) if index in each) for index in near + words
    }
    assert lists["12"]["hybrid"] == sorted(scores, key=lambda index: -scores[index])
    assert {name: lists["12"][name][:3] for name in ("one-step", "bm25", "hybrid")} == {
        name: lists["3"][name] for name in ("one-step", "bm25", "hybrid")
    }
    assert lists["3"]["hybrid"] not in (lists["3"]["one-step"], lists["3"]["bm25"])


def test_a_service_without_calibration_and_reranker(
    capsys: pytest.CaptureFixture[str], limited_client: httpx.Client, tmp_path: Path
) -> None:
    file = written(tmp_path / "q.jsonl", expecting({"text": "Ana"}, collection="kept"))
    arguments = ["--url", str(limited_client.base_url), "eval", file, "--out", str(tmp_path)]
    assert main(arguments) == 0
    (default, *_) = read_report(tmp_path / "report.json").methods
    assert (default.recall.mean, default.calibration, default.stopped_by) == (1, None, {"exhausted": 1})
    (tmp_path / "report.json").unlink()
    assert main([*arguments, "--rerank", "5"]) == 1
    assert "QRAG_RERANKER" in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()


@pytest.mark.usefixtures("minutes")
def test_questions_of_several_collections(shared_client: httpx.Client, collection: str, tmp_path: Path) -> None:
    other = f"{collection}-2"
    add(shared_client, "The bees swarmed again.", collection=other)
    report = evaluated(
        tmp_path,
        collection,
        expecting({"text": "The bees swarmed"}),
        expecting({"text": "The bees swarmed"}, collection=other),
        expecting({"text": "swarmed again"}),
    )
    assert [result.collection for result in report.questions] == [collection, other, collection]
    assert [found(result) for result in report.questions] == [[True], [True], [False]]
    assert [result.id for result in report.questions] == ["1", "2", "3"]
    assert report.questions[2].unresolved == [f"“swarmed again”: the passage does not stand in collection {collection}"]


# --- What is not there ---------------------------------------------------------------------------------------


def test_what_cannot_be_resolved_is_named_and_counts_as_not_found(
    capsys: pytest.CaptureFixture[str], collection: str, minutes: str, tmp_path: Path
) -> None:
    questions = [
        expecting({"text": "Nobody wrote this."}, {"text": "Lisbon"}, id="a"),
        expecting([{"title": "Nowhere"}, {"text": "Porto"}], id="b"),
        expecting({"document_id": minutes, "start": 9000, "end": 9001}, {"document_id": minutes, "page": 1}, id="c"),
        expecting({"title": "Minutes"}, id="d"),
    ]
    report = evaluated(tmp_path, collection, *questions)
    error = capsys.readouterr().err
    for words in ("question a: “Nobody wrote this.”", "question b: “Nowhere”", "9000 to 9001", f"{minutes}, page 1"):
        assert words in error
    assert "expectations that cannot be resolved: 4, in 3 of 4 questions" in error
    assert [found(result) for result in report.questions] == [[False, True], [True], [False, False], [True]]
    assert report.methods[0].recall.mean == 0.5
    assert report.methods[0].share.mean == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    for name in ("report.html", "report.md"):
        assert "4 expectations, in 3 of 4 questions" in (tmp_path / "report" / name).read_text()
    file = written(tmp_path / "strict.jsonl", *questions)
    assert main(["eval", file, "--out", str(tmp_path / "strict"), "--collection", collection, "--strict"]) == 1
    assert list((tmp_path / "strict").iterdir()) == []


@pytest.mark.usefixtures("minutes")
def test_a_question_that_is_refused_counts_and_is_named(
    capsys: pytest.CaptureFixture[str], collection: str, tmp_path: Path
) -> None:
    long = expecting({"text": "Lisbon"}, id="long") | {"question": "Where? " * 5000}
    report = evaluated(tmp_path, collection, long, expecting({"text": "Lisbon"}))
    assert "3 answers are missing" in capsys.readouterr().err
    assert [method.failed for method in report.methods] == [1, 1, 0, 1]
    assert (report.methods[0].recall.mean, found(report.questions[0])) == (0.5, [False])
    reason = report.questions[0].scores["default"].answer.error
    assert reason is not None
    assert reason in (tmp_path / "report" / "report.html").read_text()


def test_a_collection_that_is_not_there(capsys: pytest.CaptureFixture[str], collection: str, tmp_path: Path) -> None:
    report = evaluated(tmp_path, collection, expecting({"text": "Lisbon"}))
    assert [score.answer.error is None for score in report.questions[0].scores.values()] == [False, False, True, False]
    assert "there is no document that can be searched" in capsys.readouterr().err


def test_a_service_that_dies_is_said_and_an_earlier_report_stays(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    document = {**examples.DOCUMENT, "chunks": 1}
    chunks = {"document_id": "franklin", "chunks": examples.CHUNKS["chunks"][:1], "next_cursor": None}
    begun: list[Action] = [
        answer(200, {"documents": [document], "next_cursor": None}),
        answer(200, chunks),
        answer(200, examples.MODEL),
        *2 * [answer(200, {**examples.RESULT, "one_step": []})],
    ]
    file = written(tmp_path / "q.jsonl", *(expecting({"title": "Autobiography"}) for _ in range(9)))
    (tmp_path / "report.json").write_text("earlier")
    arguments = parser().parse_args(["eval", file, "--out", str(tmp_path), "--parallel", "1"])
    for death, error in ((drop, Unreachable), (refusal(500), ServerError), (refusal(404), NotFound)):
        with scripted(begun, otherwise=death) as server, Client(server.url, sleep=lambda _seconds: None) as client:
            if error is NotFound:  # of one question, not of the service
                assert run(client, arguments) == 0
                continue
            with pytest.raises(error):
                run(client, arguments)
        assert capsys.readouterr().err == "qrag: 2 of 9 requests were answered; no report was written.\n"
        assert (tmp_path / "report.json").read_text() == "earlier"
    assert read_report(tmp_path / "report.json").methods[0].failed == 7


def test_an_interrupted_evaluation_waits_for_no_answer(tmp_path: Path) -> None:
    asked, ended = Barrier(3), Event()

    def never(_handler: BaseHTTPRequestHandler) -> None:
        asked.wait()
        ended.wait()

    file = written(tmp_path / "q.jsonl", *2 * [{"question": "Who?", "answers": ["Ana"]}])
    script = [answer(200, examples.MODEL)]
    with (
        scripted(script, otherwise=never) as server,
        started("eval", file, "--out", str(tmp_path), "--url", server.url) as process,
    ):
        try:
            asked.wait(timeout=60)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        finally:
            ended.set()
            process.kill()
    assert (process.returncode, error) == (130, "qrag: interrupted\n")


@pytest.mark.usefixtures("minutes")
def test_a_report_that_cannot_be_written_is_shown(
    capsys: pytest.CaptureFixture[str], collection: str, tmp_path: Path
) -> None:
    file = written(tmp_path / "q.jsonl", expecting({"text": "Lisbon"}))
    (tmp_path / "report.md").mkdir()
    assert main(["eval", file, "--out", str(tmp_path), "--collection", collection]) == 1
    shown = capsys.readouterr()
    assert rows(shown.out)[1][0] == "default"
    assert "the report cannot be written: " in shown.err


# --- Limits and comparisons ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("minutes")
def test_limits_decide_the_exit_status(capsys: pytest.CaptureFixture[str], collection: str, tmp_path: Path) -> None:
    file = written(tmp_path / "q.jsonl", expecting({"title": "Minutes"}, [{"text": "Nobody wrote this."}]))
    arguments = ["eval", file, "--out", str(tmp_path), "--collection", collection]
    for limits, status in (
        (["share=0.5"], 0),
        (["share=0.51"], 1),
        (["share@1=0.5", "share@6=0.5", "recall=0"], 0),
        (["share=0.5", "recall@2=0.1"], 1),
    ):
        assert main([*arguments, *(word for limit in limits for word in ("--fail-under", limit))]) == status
        assert (tmp_path / "report.html").exists()
        error = capsys.readouterr().err
        assert (", below " in error) == bool(status)
    assert "recall@2 is 0.000, below 0.1" in error


@pytest.mark.usefixtures("minutes")
def test_a_limit_that_is_met_is_met_whatever_the_sum_is_rounded_to(collection: str, tmp_path: Path) -> None:
    pieces = [*4 * [{"title": "Minutes"}], {"text": "Nobody wrote this."}]
    report = evaluated(tmp_path, collection, *6 * [expecting(*pieces)], options=["--fail-under", "share=0.8"])
    assert report.methods[0].share.mean == pytest.approx(0.8)
    assert report.methods[0].share.mean < 0.8, "or this test says nothing"


@pytest.mark.usefixtures("minutes")
def test_an_earlier_report_is_compared(capsys: pytest.CaptureFixture[str], collection: str, tmp_path: Path) -> None:
    before = [expecting({"text": text}, id=id) for id, text in (("a", "Nowhere"), ("b", "Porto"), ("gone", "bees"))]
    evaluated(tmp_path, collection, *before)
    (tmp_path / "report").rename(tmp_path / "earlier")
    earlier = str(tmp_path / "earlier" / "report.json")
    capsys.readouterr()
    now = [expecting({"text": text}, id=id) for id, text in (("a", "Lisbon"), ("b", "Nowhere"), ("new", "bees"))]
    report = evaluated(tmp_path, collection, *now, options=["--compare", earlier])
    comparison = report.comparison
    assert comparison is not None
    assert (comparison.questions, comparison.only_now, comparison.only_before) == (2, 1, 1)
    assert [(each.name, each.better, each.worse) for each in comparison.methods[:2]] == [
        ("default", ["a"], ["b"]),
        ("one-step", ["a"], ["b"]),
    ]
    for each in comparison.methods[:2]:
        assert (each.recall.mean, each.recall.low, each.recall.high) == (0, -1, 1)
    shown = capsys.readouterr().out
    assert "on the 2 questions of both reports" in shown
    assert "default, worse: b" in shown
    assert "default, better: a" in (tmp_path / "report" / "report.md").read_text()
    again = evaluated(tmp_path, collection, *now, options=["--compare", str(tmp_path / "report" / "report.json")])
    assert again.comparison is not None
    assert [(each.share.low, each.share.high) for each in again.comparison.methods] == [(0, 0)] * len(METHODS)
