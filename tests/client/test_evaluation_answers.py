"""Questions with accepted answers: what ``qrag eval`` lets the language model write, and how that counts."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrag import Client, ServerError
from qrag.cli.evaluating import run
from qrag.cli.main import main, parser
from qrag.evaluation.answering.matching import exact_match, f1
from qrag.evaluation.questions import read_questions
from qrag.evaluation.report import read_report
from qrag.evaluation.together import together
from qrag.wire import examples
from qrag.wire.checks.questions import Question
from tests.client.command import ROOT, rows
from tests.client.evaluations import written
from tests.markdown import blocks
from tests.servers import running_server
from tests.service import chat
from tests.service.helpers import Json, add
from tests.service.scripted import Action, Scripted, answer, refusal, scripted
from trainer.readers import matching

pytestmark = pytest.mark.usefixtures("surroundings")

WRITTEN = "Nobody knows [1]."
"""What the language model of the shared server always writes."""

WORDS = st.sampled_from(
    ["a", "The", "an", "lease", "Lease,", "Ana's", "“", "straße", "STRASSE", "7", "-", "theme", "\n"]
)
TEXTS = st.lists(WORDS, max_size=6).map(" ".join)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Scripted]:
    with scripted() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, calibrated_checkpoint: Path, endpoint: Scripted
) -> Iterator[httpx.Client]:
    """A server whose language model writes what a test says."""
    model = {"llm_base_url": f"{endpoint.url}/v1", "llm_model": "small"}
    with running_server(tmp_path_factory.mktemp("answers"), calibrated_checkpoint, **model) as client:
        add(client, "Ana signed the lease.", id="lease")
        yield client


def question(*answers: str, **fields: Any) -> Json:
    return {"question": "Who signed the lease?", "answers": list(answers), **fields}


def evaluate(service: httpx.Client, endpoint: Scripted, script: Sequence[Action], file: str, *options: str) -> int:
    """The exit status; the language model does what the script says, question by question."""
    endpoint.requests.clear()
    endpoint.script[:] = script
    arguments = parser().parse_args(["eval", file, "--parallel", "1", *options])
    with Client(str(service.base_url), sleep=lambda _seconds: None) as client:
        return run(client, arguments)


def words(text: str) -> list[str]:
    """The words that SQuAD's script compares, step by step."""
    text = "".join(character for character in text.casefold() if character not in string.punctuation)
    return [word for word in re.sub(r"\b(a|an|the)\b", " ", text).split() if word]


def reference(text: str, accepted: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1, by pairing off equal words one by one."""
    exact = f1 = 0.0
    for gold in map(words, accepted):
        left, right, common = words(text), list(gold), 0
        for word in left:
            if word in right:
                right.remove(word)
                common += 1
        exact = max(exact, float(left == gold))
        if common:
            precision, recall = common / len(left), common / len(gold)
            f1 = max(f1, 2 * precision * recall / (precision + recall))
        else:
            f1 = max(f1, float(left == gold))
    return exact, f1


# --- What is counted -----------------------------------------------------------------------------------------


@given(text=TEXTS, accepted=st.lists(TEXTS, min_size=1, max_size=3))
def test_words_are_compared_as_squad_and_the_trainer_do(text: str, accepted: list[str]) -> None:
    found = (exact_match(text, accepted), f1(text, accepted))
    assert found == pytest.approx(reference(text, accepted))
    assert found == pytest.approx((matching.exact_match(text, accepted), matching.f1(text, accepted)))


def test_the_figures_are_those_of_the_answers(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    add(shared_client, "Ana signed the lease.\nBruno kept bees.", collection=collection, chunking={"mode": "lines"})
    accepted = [["nobody KNOWS!"], ["Ana", "nobody"], ["Ana"], ["The nobody knows it", "knows a lot"], ["knows nobody"]]
    questions = [question(*answers, id=f"q{number}") for number, answers in enumerate(8 * accepted)]
    for asked in questions[::2]:
        asked["expected"] = [{"text": "Ana signed"}]
    file = written(tmp_path / "q.jsonl", *questions)
    assert main(["eval", file, "--out", str(tmp_path), "--collection", collection, "--max-steps", "2"]) == 0
    report = read_report(tmp_path / "report.json")
    expected = [reference("Nobody knows.", asked["answers"]) for asked in questions]
    for result, figures in zip(report.questions, expected, strict=True):
        assert result.written is not None
        assert (result.written.text, result.written.language_model) == (WRITTEN, "small")
        assert [result.written.exact, result.written.f1] == pytest.approx(figures)
    assert [result.answers for result in report.questions] == [asked["answers"] for asked in questions]
    means = report.answers
    assert means is not None
    assert (means.questions, means.failed, means.language_model) == (40, 0, "small")
    for figure, values in zip((means.exact, means.f1), zip(*expected, strict=True), strict=True):
        assert figure.mean == pytest.approx(sum(values) / 40)
        assert figure.low < figure.mean < figure.high
    assert [bool(result.scores) for result in report.questions] == [True, False] * 20
    for method in report.methods:
        assert (method.recall.mean, method.chunks.mean) == (1, method.chunks.low)
    assert sum(report.methods[0].stopped_by.values()) == 20
    shown = capsys.readouterr()
    assert shown.err == ""
    evidence, answers, _ = shown.out.split("\n\n")
    assert rows(evidence)[0] == ["METHOD", "RECALL", "SHARE", "CHUNKS"]
    assert rows(answers)[0] == ["ANSWERS", "EXACT", "F1", "NOT ANSWERED"]
    assert rows(answers)[1][0] == "40"
    assert rows(answers)[1][2].startswith(f"{means.f1.mean:.3f} [")
    assert f"| 40 | {rows(answers)[1][1]} |" in (tmp_path / "report.md").read_text()
    assert "Accepted answers: <bdi>Ana</bdi> or <bdi>nobody</bdi>" in (tmp_path / "report.html").read_text()


def test_answers_alone_need_no_evidence(
    capsys: pytest.CaptureFixture[str], service: httpx.Client, endpoint: Scripted, tmp_path: Path
) -> None:
    texts = ["Ana [1].", "It was 【1†source】 Ana [1, 2]", "Nobody."]
    script = [chat.completion(text) for text in texts]
    file = written(tmp_path / "q.jsonl", *(question("Ana", "the Ana Costa") for _ in texts))
    assert evaluate(service, endpoint, script, file, "--out", str(tmp_path), "--max-steps", "1") == 0
    report = read_report(tmp_path / "report.json")
    assert report.methods == []
    answers = [result.written for result in report.questions if result.written is not None]
    assert [(each.text, each.exact, each.f1) for each in answers] == [
        (texts[0], 1, 1),
        (texts[1], 0, 0.5),
        (texts[2], 0, 0),
    ]
    assert "no question has expected evidence" in capsys.readouterr().out
    for name in ("report.md", "report.html"):
        assert "No question has expected evidence." in (tmp_path / name).read_text()
    prompts = [json.loads(request.body)["messages"][1]["content"] for request in endpoint.requests]
    assert ["Ana signed the lease." in prompt for prompt in prompts] == [True] * 3
    earlier = str(tmp_path / "report.json")
    assert evaluate(service, endpoint, script, file, "--out", str(tmp_path), "--compare", earlier) == 0


# --- What cannot be answered ---------------------------------------------------------------------------------


def test_without_a_language_model_nothing_else_is_asked(
    capsys: pytest.CaptureFixture[str], limited_client: httpx.Client, tmp_path: Path
) -> None:
    both = question("Ana", collection="kept", expected=[{"text": "Ana"}])
    file = written(tmp_path / "q.jsonl", both, {**both, "id": "b"})
    out = tmp_path / "out"
    assert main(["--url", str(limited_client.base_url), "eval", file, "--out", str(out)]) == 1
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    for words in ("no language model", "LLM_BASE_URL", "remove `answers`"):
        assert words in shown.err
    assert list(out.iterdir()) == []
    begun = [answer(200, {"documents": [], "next_cursor": None}), answer(200, examples.MODEL)]
    with scripted(begun, otherwise=refusal(501, "no_language_model")) as server, Client(server.url) as client:
        assert run(client, parser().parse_args(["eval", file, "--out", str(out), "--parallel", "1"])) == 1
        paths = [request.path.partition("?")[0] for request in server.requests]
    assert paths[:3] == ["/documents", "/model", "/answer"]
    assert set(paths[3:]) <= {"/answer"}


def test_a_question_that_the_model_fails_on_counts_and_is_named(
    capsys: pytest.CaptureFixture[str], service: httpx.Client, endpoint: Scripted, tmp_path: Path
) -> None:
    script = [
        chat.completion("Ana."),
        *5 * [chat.refusal(500, "out of memory")],
        chat.completion(None),
        *5 * [chat.completion("Ana.")],
    ]
    asked = [question("Ana", id=id) for id in ("good", "failing")]
    asked += [
        question("Ana", id="nowhere", collection="nowhere"),
        question("Ana", id="long") | {"question": "x " * 5000},
    ]
    file = written(tmp_path / "q.jsonl", *asked)
    options = ["--out", str(tmp_path), "--fail-under"]
    assert evaluate(service, endpoint, script, file, *options, "exact=0.25") == 0
    report = read_report(tmp_path / "report.json")
    figures = report.answers
    assert figures is not None
    assert (figures.failed, figures.exact.mean, figures.f1.mean) == (3, 0.25, 0.25)
    errors = capsys.readouterr().err.splitlines()
    for id, line in zip(("failing", "nowhere", "long"), errors, strict=True):
        assert line.startswith(f"qrag: question {id}: not answered: ")
    for name in ("report.md", "report.html"):
        assert "out of memory" in (tmp_path / name).read_text()
    assert evaluate(service, endpoint, script, file, *options, "f1=0.26", "--fail-under", "exact=0") == 1
    assert "f1 is 0.250, below 0.26" in capsys.readouterr().err


def test_a_service_that_fails_ends_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = written(tmp_path / "q.jsonl", question("Ana"), question("Ana"))
    begun = [answer(200, examples.MODEL), answer(200, examples.ANSWER)]
    arguments = parser().parse_args(["eval", file, "--out", str(tmp_path), "--parallel", "1"])
    with scripted(begun, otherwise=refusal(500)) as server, Client(server.url) as client, pytest.raises(ServerError):
        run(client, arguments)
    assert capsys.readouterr().err == "qrag: 1 of 2 requests were answered; no report was written.\n"


def test_what_ended_before_a_failure_is_counted() -> None:
    def fail() -> None:
        raise RuntimeError("gone")

    counted: list[None] = []
    with pytest.raises(RuntimeError, match="gone"):
        together([*[lambda: None] * 40, fail], 1, lambda: counted.append(None))
    assert len(counted) == 40


# --- Comparisons ---------------------------------------------------------------------------------------------


def test_answers_are_compared_with_earlier_ones(
    capsys: pytest.CaptureFixture[str], service: httpx.Client, endpoint: Scripted, tmp_path: Path
) -> None:
    before = written(tmp_path / "before.jsonl", *(question("Ana Costa", id=id) for id in ("a", "b", "c", "gone")))
    script = [chat.completion(text) for text in ("Ana Costa", "Ana", "Ben", "Ana")]
    (tmp_path / "before").mkdir()
    (tmp_path / "now").mkdir()
    assert evaluate(service, endpoint, script, before, "--out", str(tmp_path / "before")) == 0
    earlier = ["--compare", str(tmp_path / "before" / "report.json"), "--out", str(tmp_path / "now")]
    now = [question("Ana Costa", id=id) for id in ("a", "b", "c", "new")]
    del now[2]["answers"]
    now[2]["expected"] = [{"text": "Ana"}]
    script = [chat.completion(text) for text in ("Ana", "Ana Costa", "Ana")]
    capsys.readouterr()
    assert evaluate(service, endpoint, script, written(tmp_path / "now.jsonl", *now), *earlier) == 0
    comparison = read_report(tmp_path / "now" / "report.json").comparison
    assert comparison is not None
    assert (comparison.questions, comparison.methods) == (3, [])
    answers = comparison.answers
    assert answers is not None
    assert (answers.questions, answers.better, answers.worse) == (2, ["b"], ["a"])
    assert (answers.exact.mean, answers.exact.low, answers.exact.high) == (0, -1, 1)
    assert answers.f1.mean == 0
    assert answers.f1.high == pytest.approx(1 / 3)
    shown = capsys.readouterr().out
    assert "EXACT CHANGED" in shown
    assert "answers, worse: a" in shown
    assert "answers, better: b" in (tmp_path / "now" / "report.md").read_text()
    assert '<span class="good">better</span>: <bdi>b</bdi>' in (tmp_path / "now" / "report.html").read_text()


def test_a_report_from_before_there_were_answers_is_read_and_compared(
    service: httpx.Client, endpoint: Scripted, tmp_path: Path
) -> None:
    plain = {"id": "a", "question": "Who signed the lease?", "expected": [{"text": "Ana"}]}
    assert evaluate(service, endpoint, [], written(tmp_path / "q.jsonl", plain), "--out", str(tmp_path)) == 0
    path = tmp_path / "report.json"
    content = json.loads(path.read_text())
    assert content.pop("answers") is None
    assert [each.pop("answers") for each in content["questions"]] == [[]]
    assert [each.pop("written") for each in content["questions"]] == [None]
    path.write_text(json.dumps(content))
    both = written(tmp_path / "q.jsonl", {**plain, "answers": ["Ana"]})
    options = ["--out", str(tmp_path), "--compare", str(path)]
    assert evaluate(service, endpoint, [chat.completion("Ana")], both, *options) == 0
    comparison = read_report(path).comparison
    assert comparison is not None
    assert comparison.answers is None
    assert [(method.share.low, method.share.high) for method in comparison.methods] == [(0, 0)] * 4


# --- Files ---------------------------------------------------------------------------------------------------


def test_csv_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(
        "id,question,text,answer\r\n"
        "a,Where?,The office moved,Lisbon\r\n"
        'a,Where?,,"Lisbon, in May"\r\n'
        "a,Where?,To Lisbon,\r\n"
        ",Who?,,Ana\r\n"
    )
    file = written(
        tmp_path / "q.jsonl",
        {
            "id": "a",
            "question": "Where?",
            "expected": [{"text": "The office moved"}, {"text": "To Lisbon"}],
            "answers": ["Lisbon", "Lisbon, in May"],
        },
        {"id": "5", "question": "Who?", "answers": ["Ana"]},
    )
    assert read_questions(tmp_path / "q.csv") == read_questions(Path(file))


def test_the_question_of_the_page_is_one() -> None:
    _, shown = blocks(ROOT / "docs" / "evaluating.md", "json")
    assert Question.model_validate_json(shown).answers is not None


@pytest.mark.parametrize("limit", ["recall=0.5", "share@2=0.5"])
def test_a_limit_for_evidence_needs_some(capsys: pytest.CaptureFixture[str], tmp_path: Path, limit: str) -> None:
    file = written(tmp_path / "q.jsonl", question("Ana"))
    with pytest.raises(SystemExit) as refused:
        main(["eval", file, "--out", str(tmp_path / "out"), "--fail-under", limit])
    assert refused.value.code == 2
    assert "no question has expected evidence" in capsys.readouterr().err
