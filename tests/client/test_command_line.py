"""``qrag``, against running servers: what it does and prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from pathlib import Path

import httpx
import pytest

from qrag.cli.main import main
from qrag.wire import examples
from tests.client.command import ROOT, command, on_a_terminal, rows, run, started
from tests.service.helpers import UNICODE, add, ids_in, lines_of_text, pages, text_of
from tests.service.scripted import answer, event, refusal, scripted, stream

pytestmark = pytest.mark.usefixtures("surroundings")
STEP = {**examples.RESULT["steps"][0], "chunk": examples.RESULT["chunks"][0]}


# --- index ---------------------------------------------------------------------------------------------


def test_files_are_indexed_and_shown_as_a_table(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text(lines_of_text(3))
    (tmp_path / "b.md").write_text("Ana *signed*.")
    files = [str(tmp_path / "a.txt"), str(tmp_path / "b.md")]
    assert main(["index", *files, "--collection", collection, "--chunking", "lines", "--metadata", '{"a": 1}']) == 0
    shown = capsys.readouterr()
    ids = ids_in(shared_client, collection)
    documents = [shared_client.get(f"/documents/{id}").json() for id in ids]
    assert rows(shown.out) == [
        ["DOCUMENT", "TITLE", "STATUS", "CHUNKS", "TOKENS"],
        *([each["id"], each["title"], "ready", str(each["chunks"]), str(each["tokens"])] for each in documents),
    ]
    assert [(each["title"], each["chunks"], each["metadata"]) for each in documents] == [
        ("a.txt", 3, {"a": 1}),
        ("b.md", 1, {"a": 1}),
    ]
    assert shown.err == ""


def test_it_goes_on_after_a_file_that_fails(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    (tmp_path / "a.xyz").write_text("a,b")
    (tmp_path / "b.pdf").write_text("no PDF")
    (tmp_path / "c.txt").write_text("Ana signed.")
    files = [str(tmp_path / name) for name in ("none.txt", "a.xyz", "b.pdf", "c.txt")]
    assert main(["index", *files, "--collection", collection]) == 1
    shown = capsys.readouterr()
    assert [line.split(": ")[:2] for line in shown.err.splitlines()] == [["qrag", file] for file in files[:3]]
    assert "No such file" in shown.err
    assert "qrag index - <" in shown.err
    assert [row[1:3] for row in rows(shown.out)[1:]] == [["c.txt", "ready"]]
    assert len(ids_in(shared_client, collection)) == 1


def test_folders_are_gone_through(capsys: pytest.CaptureFixture[str], collection: str, tmp_path: Path) -> None:
    for name in ("a.txt", "deep/er/b.md", "deep/c.xyz", ".hidden/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"This is {name}.")
    arguments = ["index", str(tmp_path), "--collection", collection]
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert refused.value.code == 2
    assert "--recursive" in capsys.readouterr().err
    assert main([*arguments, "--recursive", "--glob", "*.md"]) == 0
    assert [row[1] for row in rows(capsys.readouterr().out)[1:]] == ["deep/er/b.md"]
    assert main([*arguments, "--recursive"]) == 0
    assert [row[1] for row in rows(capsys.readouterr().out)[1:]] == ["a.txt", "deep/er/b.md"]
    (tmp_path / "deep" / os.fsdecode(b"b\xff.md")).write_text("Its name is no text.")
    assert main([*arguments, "--recursive", "--glob", "b*.md"]) == 0
    assert [row[1] for row in rows(capsys.readouterr().out)[1:]] == ["deep/b?.md", "deep/er/b.md"]
    assert main([*arguments, "--recursive", "--glob", "*.pdf"]) == 1
    assert "no file" in capsys.readouterr().err


def test_standard_input_is_text(shared_client: httpx.Client, collection: str, tmp_path: Path) -> None:
    (tmp_path / "text").write_text(UNICODE, newline="")
    with (tmp_path / "text").open("rb") as file:
        ended = subprocess.run(
            command("index", "-", "--id", collection, "--title", "Ä", "--no-wait"), cwd=ROOT, stdin=file, timeout=60
        )
    assert ended.returncode == 0
    assert text_of(shared_client, collection) == UNICODE
    assert shared_client.get(f"/documents/{collection}").json()["title"] == "Ä"
    shared_client.delete(f"/documents/{collection}")


def test_a_conflict_is_explained_and_replaced(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    add(shared_client, "Ana signed.", id=collection, collection=collection)
    path = tmp_path / "a.txt"
    path.write_text("Ben signed.")
    arguments = ["index", str(path), "--id", collection, "--collection", collection]
    assert main(arguments) == 1
    assert "exists with other content" in capsys.readouterr().err
    assert main([*arguments, "--replace"]) == 0
    assert text_of(shared_client, collection) == "Ben signed."


def test_an_earlier_text_of_the_same_name_is_named_or_replaced(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ana signed.")
    given = add(shared_client, "By hand.", id=f"{collection}-given", title="a.txt", collection=collection)
    arguments = ["index", str(path), "--collection", collection]
    assert main([*arguments, "--title", "b.txt"]) == 0
    assert capsys.readouterr().err == ""
    assert main(arguments) == 0
    first = rows(capsys.readouterr().out)[1][0]
    assert main(arguments) == 0
    assert f"another document of this title, {given['id']}, stays searchable" in capsys.readouterr().err
    path.write_text("Ben signed.")
    assert main(arguments) == 0
    assert first in capsys.readouterr().err
    path.write_text("Clara signed.")
    with pytest.raises(SystemExit) as refused:
        main([*arguments, "--replace", "--no-wait"])
    assert refused.value.code == 2
    assert main([*arguments, "--replace"]) == 0
    shown = capsys.readouterr()
    assert f"took the place of {first}" in shown.err
    last = rows(shown.out)[1][0]
    titled = shared_client.get("/documents", params={"collection": collection, "title": "a.txt"}).json()["documents"]
    assert [document["id"] for document in titled] == [given["id"], last]
    assert text_of(shared_client, last) == "Clara signed."


def test_a_document_that_cannot_be_indexed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ana signed.")
    failed = {**examples.DOCUMENT, "status": "failed", "error": "It is too long.", "chunks": None, "tokens": None}
    with scripted([answer(202, {**failed, "status": "queued", "error": None}), answer(200, failed)]) as server:
        assert main(["--url", server.url, "index", str(path)]) == 1
    shown = capsys.readouterr()
    assert "It is too long." in shown.err
    assert rows(shown.out)[1] == ["franklin", "Autobiography", "failed", "-", "-"]


def test_an_earlier_text_stays_until_the_new_one_can_be_searched(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ana signed.")
    waits = {**examples.DOCUMENT, "status": "indexing", "error": "It waits for free space."}
    earlier = {**examples.DOCUMENT, "id": f"doc-{'0' * 24}"}
    script = [answer(202, waits), answer(200, waits), answer(200, {"documents": [earlier], "next_cursor": None})]
    with scripted(script) as server:
        assert main(["--url", server.url, "index", str(path), "--replace"]) == 1
    assert [request.method for request in server.requests] == ["POST", "GET", "GET"]
    assert f"{earlier['id']}, stays searchable" in capsys.readouterr().err


def test_a_document_that_is_replaced_by_its_id_takes_no_other_place(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ana signed.")
    other = add(shared_client, "Ben signed.", title="a.txt", collection=collection)
    arguments = ["index", str(path), "--id", f"{collection}-given", "--collection", collection, "--replace"]
    for option in ([], ["--no-wait"]):
        assert main([*arguments, *option]) == 0
        assert f"{other['id']}, stays searchable" in capsys.readouterr().err
    assert ids_in(shared_client, collection) == [other["id"], f"{collection}-given"]


def test_progress_is_shown_on_a_terminal(collection: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(lines_of_text(3000))
    shown = on_a_terminal("index", str(tmp_path / "a.txt"), "--collection", collection)
    assert "sending:" in shown
    assert "indexing: 100%" in shown
    assert "a.txt" in shown


# --- ask -----------------------------------------------------------------------------------------------


def test_a_question_is_answered_in_words(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str
) -> None:
    id = f"{collection}:a"
    add(shared_client, lines_of_text(9), id=id, title="Lines", collection=collection, chunking={"mode": "lines"})
    options = ["--collection", collection, "--document", id, "--max-steps", "2", "--trace"]
    assert main(["ask", "Which line?", *options, "--budget"]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^(\d)\. Lines  Q -?\d\.\d{3}  (\S+) \[\d+:\d+\]\n   Line \d says little\.$", shown, re.M) == [
        ("1", id),
        ("2", id),
    ]
    assert shown.count("candidates:") == 2
    assert "one step would have found:" in shown
    assert "Stopped because as many chunks as asked for are selected." in shown
    assert re.search(r"complete: \d+%; that it cannot be: \d+%", shown)


def test_one_step_is_shown_with_as_many_chunks_as_there_may_be(capsys: pytest.CaptureFixture[str]) -> None:
    result = {**examples.RESULT, "one_step": [{"document_id": "a", "index": index, "q": 0.5} for index in range(30)]}
    for options, count in (([], 6), (["--max-steps", "9"], 9)):
        with scripted([stream(event("result", result))]) as server:
            assert main(["ask", "Who?", "--trace", "--url", server.url, *options]) == 0
        assert capsys.readouterr().out.count("(0.500)") == count


def test_every_text_can_be_printed_whatever_the_locale(shared_client: httpx.Client, collection: str) -> None:
    add(shared_client, "Ana → signed.", collection=collection)
    arguments = ("ask", "Who?", "--collection", collection)
    for option in ("--context", "--json"):
        ended = subprocess.run(
            command(*arguments, option),
            cwd=ROOT,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
            capture_output=True,
            timeout=60,
        )
        assert "Ana → signed." in ended.stdout.decode(), "a program reads UTF-8"
    assert "Ana ? signed." in on_a_terminal(*arguments, PYTHONIOENCODING="ascii")


def test_json_and_context_are_printed_alone(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str
) -> None:
    add(shared_client, "Ana signed.", collection=collection, title="Lease")
    arguments = ["ask", "Who?", "--collection", collection]
    assert main([*arguments, "--json", "--beam-width", "2", "--target-recall", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["context"] == "[1] Lease\nAna signed."
    assert main([*arguments, "--context", "--step-cost", "0"]) == 0
    assert capsys.readouterr().out == "[1] Lease\nAna signed.\n"
    ended = subprocess.run(
        command("ask", "-", "--context", "--collection", collection),
        cwd=ROOT,
        input="Who?\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout == "[1] Lease\nAna signed.\n"


def test_a_question_goes_on(capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str) -> None:
    add(shared_client, "Ana signed.\nBen came.\n", collection=collection, title="Lease", chunking={"mode": "lines"})
    assert main(["ask", "Who?", "--collection", collection, "--json", "--budget", "--max-steps", "1"]) == 0
    begun = json.loads(capsys.readouterr().out)
    assert main(["ask", "--continue", begun["continuation"], "--context"]) == 0
    contexts = {begun["context"], capsys.readouterr().out.strip()}
    assert contexts == {"[1] Lease\nAna signed.", "[1] Lease\nBen came."}
    assert main(["ask", "--continue", begun["continuation"], "--focus", "Who came?", "--json"]) == 0
    focused = json.loads(capsys.readouterr().out)
    assert (focused["focus"], {begun["context"], focused["context"]}) == ("Who came?", contexts)
    with pytest.raises(SystemExit, match="2"):
        main(["ask", "--collection", collection])
    assert "give a question, or --continue TOKEN" in capsys.readouterr().err


def test_options_reach_the_service(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--step-cost", "0.25", "--beam-width", "3", "--document", "a", "--document", "b", "--max-steps", "7"]
    with scripted([answer(200, examples.RESULT)]) as server:
        assert main(["ask", "Who?", "--json", "--url", server.url, *options]) == 0
    assert json.loads(server.requests[0].body) == {
        "question": "Who?",
        "stop": {"step_cost": 0.25},
        "beam_width": 3,
        "document_ids": ["a", "b"],
        "max_steps": 7,
        "trace": False,
    }
    assert json.loads(capsys.readouterr().out) == examples.RESULT


def test_a_step_is_shown_before_the_next_is_taken() -> None:
    seen = threading.Event()
    script = [stream(event("step", STEP), seen.wait, event("result", examples.RESULT))]
    with scripted(script) as server, started("ask", "Who?", "--url", server.url) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("1. Autobiography")
        finally:
            seen.set()
        rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Stopped because the evidence is most likely complete." in rest


def test_a_question_that_could_not_be_split_is_told(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str
) -> None:
    add(shared_client, "Ana signed the lease.", collection=collection)
    assert main(["ask", "Who signed and who paid?", "--collection", collection, "--decompose"]) == 0
    shown = capsys.readouterr()
    assert "Ana signed the lease." in shown.out
    assert "The question was not split" in shown.err
    assert main(["ask", "Who signed?", "--collection", collection]) == 0
    assert capsys.readouterr().err == ""


def test_colours_are_for_terminals_and_documents_cannot_write_to_them(
    shared_client: httpx.Client, collection: str
) -> None:
    text = "Ana \x1b[31msigned\x1b]0;title\x07\x9b31m."
    add(shared_client, text, collection=collection, title="Lease")
    arguments = ("ask", "Who?", "--collection", collection)
    shown = on_a_terminal(*arguments)
    assert "\x1b[1mLease\x1b[0m" in shown
    assert "\x1b[31m" not in shown
    assert "\x1b]" not in shown
    assert "\x1b" not in on_a_terminal(*arguments, NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(*arguments, "--context")
    for option in ((), ("--context",), ("--json",)):
        assert "\x9b" not in on_a_terminal(*arguments, *option)
    assert "\x1b" not in run(*arguments).stdout
    assert "Ana \x1b[31msigned" in run(*arguments, "--context").stdout, "for a program, the text is what it is"


# --- status, collections, delete -----------------------------------------------------------------------


def test_the_state_of_the_service(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str
) -> None:
    for number in range(3):
        add(shared_client, f"Text {number}.", collection=collection)
    assert main(["status"]) == 0
    shown = capsys.readouterr().out
    assert f"{shared_client.base_url}, ready\n" in shown
    assert "random-32-1 (random), 32 dimensions, on cpu" in shown
    assert re.search(r"documents .*\d ready", shown)
    table = rows(shown[shown.index("COLLECTION") :])
    assert table[0] == ["COLLECTION", "DOCUMENTS", "CHUNKS", "TEXT"]
    assert [collection, "3", "3", "21 B"] in table
    assert main(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ready"] is True
    assert sum(found["documents"].values()) == len([*pages(shared_client, "/documents", "documents", 1)])
    assert found["model"] == shared_client.get("/model").json()
    assert found["collections"] == shared_client.get("/collections").json()["collections"]


def test_the_state_of_an_empty_service(capsys: pytest.CaptureFixture[str]) -> None:
    nothing = [answer(200, {"documents": [], "next_cursor": None}), answer(200, {"collections": []})]
    script = [answer(200, {"status": "ready"}), answer(200, examples.MODEL), *nothing, nothing[1]]
    with scripted(script) as server:
        assert main(["status", "--url", server.url]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "documents  none: qrag index FILE... adds some"
        assert main(["collections", "--url", server.url]) == 0
        assert rows(capsys.readouterr().out) == [["COLLECTION", "DOCUMENTS", "CHUNKS", "TEXT"]]


def test_what_is_being_indexed_and_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    documents = [
        {**examples.DOCUMENT, "id": "busy", "status": "indexing", "progress": 0.25},
        {**examples.DOCUMENT, "id": "bad", "status": "failed", "error": "It is too long."},
    ]
    script = [
        answer(200, {"status": "ready"}),
        answer(200, examples.MODEL),
        answer(200, {"documents": documents, "next_cursor": None}),
        answer(200, examples.COLLECTIONS),
    ]
    with scripted(script) as server:
        assert main(["status", "--url", server.url]) == 0
    shown = capsys.readouterr().out
    assert "1 failed, 1 indexing" in shown
    assert "busy: 25% indexed" in shown
    assert "bad: failed. It is too long." in shown


def test_a_service_that_is_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    with scripted([refusal(503)]) as server:
        assert main(["status", "--url", server.url]) == 1
    assert "not ready" in capsys.readouterr().err


def test_a_row_of_a_table_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ana signed.")
    document = {**examples.DOCUMENT, "title": "A\nB", "status": "ready"}
    nothing = answer(200, {"documents": [], "next_cursor": None})
    with scripted([answer(202, document), answer(200, document), nothing]) as server:
        assert main(["--url", server.url, "index", str(path)]) == 0
    assert [row[1] for row in rows(capsys.readouterr().out)] == ["TITLE", "A B"]


def test_collections_are_listed_and_documents_deleted(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str
) -> None:
    ids = [add(shared_client, text, collection=collection)["id"] for text in ("One.", "Two.")]
    assert main(["collections"]) == 0
    assert [collection, "2", "2", "8 B"] in rows(capsys.readouterr().out)
    assert main(["delete", ids[0], "nobody-has-this", ids[1]]) == 1
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [f"{id} is deleted" for id in ids]
    assert "no document 'nobody-has-this'" in shown.err
    assert ids_in(shared_client, collection) == []
