"""What ``qrag eval`` is given: files of questions and options, read before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qrag.cli.main import main
from qrag.evaluation.questions import read_questions
from qrag.evaluation.report import Report
from tests.client.evaluations import expecting, written
from tests.service.scripted import scripted

pytestmark = pytest.mark.usefixtures("surroundings")


def test_csv_says_the_same(tmp_path: Path) -> None:
    (tmp_path / "q.csv").write_text(
        "\ufeffid,question,collection,text,document_id,title,start,end,page\r\n"
        'a,"Who, and\nwhen?",books,"A ""quoted"" passage",,,,,\r\n'
        'a,"Who, and\nwhen?",books,,minutes,,3,9,\r\n'
        ",Where \u2028 is it?,,,,Book,,,xii\r\n"
        "c,Why?,,,,Book,,,12\r\n"
    )
    file = written(
        tmp_path / "q.jsonl",
        {
            "id": "a",
            "question": "Who, and\nwhen?",
            "collection": "books",
            "expected": [{"text": 'A "quoted" passage'}, {"document_id": "minutes", "start": 3, "end": 9}],
        },
        {"id": "6", "question": "Where \u2028 is it?", "expected": [{"title": "Book", "page": "xii"}]},
        {"id": "c", "question": "Why?", "expected": [{"title": "Book", "page": 12}]},
    )
    assert read_questions(tmp_path / "q.csv") == read_questions(Path(file))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", "", "holds no question"),
        ("q.jsonl", '{"question": "Who?"}', "q.jsonl:1: give the evidence that is expected, or answers"),
        ("q.jsonl", '{"question": "Who?", "answers": []}', "q.jsonl:1: answers: "),
        ("q.jsonl", '{"question": "Who?", "answers": ["Ana", " "]}', "q.jsonl:1: answers.1: "),
        ("q.jsonl", json.dumps({"question": "Who?", "answers": ["Ana"] * 33}), "q.jsonl:1: answers: "),
        ("q.jsonl", '\n{"question": "Who?", "expected": []}', "q.jsonl:2: expected: "),
        ("q.jsonl", '{"question": " ", "expected": [{"text": "a"}]}', "this question is blank"),
        ("q.jsonl", '{"question": "Who?", "expected": [{"text": " "}]}', "expected.0.0.text"),
        ("q.jsonl", '{"question": "Who?", "expected": [{"texts": "a"}]}', "expected.0.0.texts"),
        ("q.jsonl", '{"question": "Who?", "expected": [{"text": "a", "title": "b", "page": 1}]}', "one of them"),
        ("q.jsonl", '{"question": "Who?", "expected": [{"page": 1}]}', "name a document"),
        ("q.jsonl", '{"question": "Who?", "expected": [{"title": "a", "start": 1}]}', "belong together"),
        ("q.jsonl", '{"question": "Who?", "expected": [{"title": "a", "start": 2, "end": 2}]}', "smaller than end"),
        ("q.jsonl", '{"question": "\\ud800", "expected": [{"text": "a"}]}', "q.jsonl:1: "),
        ("q.jsonl", 2 * '{"id": "a", "question": "Who?", "expected": [{"text": "a"}]}\n', "'a' is of two questions"),
        ("q.csv", "question,answers\nWho?,Ana\n", "no column 'answers'"),
        ("q.csv", "question,answer\nWho?,\n", "q.csv:2: expected.0.0: give a text"),
        ("q.csv", "id,question,text\na,Who?,Ana\na,When?,May\n", "q.csv:3: the id 'a' has another question"),
        ("q.csv", "question,text\nWho?,Ana,May\n", "q.csv:2: more fields"),
        ("q.csv", "question,answer,answer\nWho?,Ana,Ben\n", "q.csv: the column 'answer' is there twice"),
        ("q.csv", f"question,text\nWho?,{'a' * 200_000}\n", "q.csv: field larger"),
        ("q.csv", "question,start,end,title\nWho?,1,many,a\n", "q.csv:2: expected.0.0.end"),
    ],
)
def test_a_wrong_file_is_refused_before_anything_is_sent(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with scripted() as server, pytest.raises(SystemExit) as refused:
        main(["eval", str(tmp_path / name), "--out", str(tmp_path / "out"), "--url", server.url])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err
    assert not server.requests


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--max-steps 33", "33 is not between 1 and 32"),
        ("--fail-under speed=1", "is no limit like"),
        ("--fail-under recall=2", "is no limit like"),
        ("--fail-under recall@7=1", "at most 6 chunks"),
        ("--fail-under exact@1=1", "is no limit like"),
        ("--fail-under f1=0.5", "no question has answers"),
        ("--compare {file}", "is no report.json"),
        ("--compare {other}", "has none of these questions"),
        ("--compare /no/such/file", "No such file"),
    ],
)
def test_wrong_options_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: str, message: str
) -> None:
    file = written(tmp_path / "q.jsonl", expecting({"text": "a"}))
    other = Report(created_at="2024-01-01T00:00:00Z", model="m", max_steps=6, methods=[], questions=[])
    (tmp_path / "other.json").write_text(other.model_dump_json())
    given = options.format(file=file, other=tmp_path / "other.json").split()
    with pytest.raises(SystemExit) as refused:
        main(["eval", file, "--out", str(tmp_path / "out"), *given])
    assert refused.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
