"""``qrag``, against running servers: what it prints, how it ends, and that the pages about it are true."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import stat
import struct
import subprocess
import sys
import termios
import threading
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import httpx
import pytest

from service import examples
from service.command_line.main import main
from tests.markdown import blocks
from tests.service.helpers import UNICODE, add, ids_in, lines_of_text, pages, text_of
from tests.service.scripted import answer, drop, event, refusal, scripted, stream
from tests.support import running_server

ROOT = Path(__file__).parent.parent.parent
COMMAND = """
import signal, sys
from importlib.metadata import EntryPoint
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background, it is ignored
sys.exit(EntryPoint("qrag", {value!r}, "console_scripts").load()())
"""
STEP = {**examples.RESULT["steps"][0], "chunk": examples.RESULT["chunks"][0]}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, shared_client: httpx.Client) -> None:
    """The shared server is the one by default, and nothing else is set."""
    for name in [*os.environ]:
        if name.startswith("QRAG_") or name == "NO_COLOR":
            monkeypatch.delenv(name)
    monkeypatch.setenv("QRAG_URL", str(shared_client.base_url))


def command(*arguments: str) -> list[str]:
    """The command as it is installed, in a process of its own."""
    script = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["qrag"]
    return [sys.executable, "-c", COMMAND.format(value=script), *arguments]


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=os.environ | settings, capture_output=True, text=True, timeout=60
    )


def started(*arguments: str) -> subprocess.Popen[str]:
    """Let it run."""
    return subprocess.Popen(command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def on_a_terminal(*arguments: str, **settings: str) -> str:
    """What it shows on one."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with subprocess.Popen(
        command(*arguments), cwd=ROOT, env=os.environ | settings, stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        shown = b""
        try:
            while block := os.read(ours, 4096):
                shown += block
        except OSError:  # EIO: the other side is closed
            pass
    os.close(ours)
    assert process.returncode == 0, shown
    return shown.decode()


def rows(table: str) -> list[list[str]]:
    """The cells of a table, its names first."""
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines()]


# --- index ----------------------------------------------------------------------------------------------


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
    (tmp_path / "a.csv").write_text("a,b")
    (tmp_path / "b.pdf").write_text("no PDF")
    (tmp_path / "c.txt").write_text("Ana signed.")
    files = [str(tmp_path / name) for name in ("none.txt", "a.csv", "b.pdf", "c.txt")]
    assert main(["index", *files, "--collection", collection]) == 1
    shown = capsys.readouterr()
    assert [line.split(": ")[:2] for line in shown.err.splitlines()] == [["qrag", file] for file in files[:3]]
    assert "No such file" in shown.err
    assert "qrag index - <" in shown.err
    assert [row[1:3] for row in rows(shown.out)[1:]] == [["c.txt", "ready"]]
    assert len(ids_in(shared_client, collection)) == 1


def test_folders_are_gone_through(capsys: pytest.CaptureFixture[str], collection: str, tmp_path: Path) -> None:
    for name in ("a.txt", "deep/er/b.md", "deep/c.csv", ".hidden/d.txt"):
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


def test_a_document_that_cannot_be_indexed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("Ana signed.")
    failed = {**examples.DOCUMENT, "status": "failed", "error": "It is too long.", "chunks": None, "tokens": None}
    with scripted([answer(202, {**failed, "status": "queued", "error": None}), answer(200, failed)]) as server:
        assert main(["--url", server.url, "index", str(path)]) == 1
    shown = capsys.readouterr()
    assert "It is too long." in shown.err
    assert rows(shown.out)[1] == ["franklin", "Autobiography", "failed", "-", "-"]


def test_progress_is_shown_on_a_terminal(collection: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(lines_of_text(3000))
    shown = on_a_terminal("index", str(tmp_path / "a.txt"), "--collection", collection)
    assert "sending:" in shown
    assert "indexing: 100%" in shown
    assert "a.txt" in shown


# --- ask ------------------------------------------------------------------------------------------------


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


def test_json_and_context_are_printed_alone(
    capsys: pytest.CaptureFixture[str], shared_client: httpx.Client, collection: str
) -> None:
    add(shared_client, "Ana signed.", collection=collection, title="Lease")
    arguments = ["ask", "Who?", "--collection", collection]
    assert main([*arguments, "--json", "--beam-width", "2", "--target-recall", "0.9"]) == 0
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


# --- status, collections, delete ------------------------------------------------------------------------


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


# --- How it ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "COMMAND"),
        ("serve", "invalid choice"),
        ("ask", "question"),
        ("ask x --step-cost 1.5", "--step-cost: Input should be less than 1"),
        ("ask x --target-recall 0", "--target-recall: Input should be greater than 0"),
        ("ask x --step-cost 0.1 --budget", "not allowed with"),
        ("ask x --json --context", "not allowed with"),
        ("ask x --max-steps many", "--max-steps"),
        ("ask --key secret x", "--key"),
        ("--key secret status", "--key"),
        ("status --url nowhere", "'nowhere' is no address"),
        ("status --key-file /no/such/file", "/no/such/file"),
        ("index a.txt b.txt --id x", "--id is for one file"),
        ("index a.txt --metadata [1]", "--metadata"),
        ("index a.txt --metadata {", "--metadata"),
        ("index a.txt --chunking words", "--chunking"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], arguments: str, message: str) -> None:
    with pytest.raises(SystemExit) as refused:
        main(shlex.split(arguments))
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


def test_what_the_service_refuses(capsys: pytest.CaptureFixture[str], collection: str) -> None:
    assert main(["ask", "Who?", "--collection", collection]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"qrag: There is no collection '{collection}'.")
    assert "qrag collections" in error
    assert main(["ask", "Who?", "--max-steps", "99", "--beam-width", "0"]) == 1
    error = capsys.readouterr().err
    assert "body.max_steps: " in error
    assert "body.beam_width: " in error
    with scripted([refusal(500)]) as server:
        assert main(["ask", "Who?", "--url", server.url]) == 1
    assert "request request-1" in capsys.readouterr().err


def test_nobody_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted([]) as server:
        pass
    monkeypatch.setenv("QRAG_URL", server.url)
    assert main(["status"]) == 3
    error = capsys.readouterr().err
    assert server.url in error
    assert "qrag-serve" in error
    assert "QRAG_URL" in error


def test_a_service_that_goes_away_ends_the_uploads(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with scripted([drop]) as server:
        ended = subprocess.run(
            command("--url", server.url, "index", "-", str(tmp_path / "none.txt")),
            cwd=ROOT,
            stdin=reading,
            capture_output=True,
            text=True,
            timeout=60,
        )
    os.close(reading)
    assert ended.returncode == 3
    assert "Is the service still running?" in ended.stderr
    assert "none.txt" not in ended.stderr


def test_keys_come_from_the_environment_or_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    empty = answer(200, {"collections": []})
    monkeypatch.setenv("QRAG_API_KEY", "from-the-environment")
    with scripted([empty, empty, refusal(401, "unauthorized")]) as server:
        assert main(["collections", "--url", server.url]) == 0
        assert main(["--key-file", str(tmp_path / "key"), "collections", "--url", server.url]) == 0
        monkeypatch.delenv("QRAG_API_KEY")
        assert main(["collections", "--url", server.url]) == 1
    assert [request.headers.get("Authorization") for request in server.requests] == [
        "Bearer from-the-environment",
        "Bearer from-a-file",
        None,
    ]
    assert "QRAG_API_KEY" in capsys.readouterr().err


def test_a_reader_that_has_had_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        command("collections"), cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_interruption_ends_it_cleanly() -> None:
    asked, over = threading.Event(), threading.Event()
    script = [stream(asked.set, over.wait)]
    with scripted(script) as server, started("ask", "Who?", "--url", server.url) as process:
        try:
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        finally:
            over.set()
    assert (process.returncode, error) == (130, "qrag: interrupted\n")


# --- The pages ------------------------------------------------------------------------------------------


def test_the_page_about_the_client_is_true(tmp_path: Path, calibrated_checkpoint: Path) -> None:
    page = ROOT / "docs" / "client.md"
    tool = tmp_path / "qrag"
    tool.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    work = tmp_path / "work"
    work.mkdir()
    (work / "examples").symlink_to(ROOT / "examples")
    settings = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with running_server(tmp_path / "data", calibrated_checkpoint) as server:
        url = str(server.base_url).rstrip("/")
        settings["QRAG_URL"] = url
        for block in blocks(page, "sh"):
            ended = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block], cwd=work, env=settings, capture_output=True, text=True
            )
            assert (ended.returncode, ended.stderr) == (0, ""), block
        assert (work / "prompt.txt").read_text() == "[1] standard input\nAna signed the lease in May.\n"
        assert server.get("/documents/lease").status_code == 404
        for block in blocks(page, "python"):
            code = block.replace("http://127.0.0.1:8000", url)
            assert url in code
            ended = subprocess.run([sys.executable, "-c", code], cwd=work, env=settings, capture_output=True, text=True)
            assert (ended.returncode, ended.stderr) == (0, ""), block
    assert ended.stdout.startswith("unknown_document There is no document 'no-such-document'. ")
    assert {int(row) for row in re.findall(r"^\| (\d+) \|", page.read_text(), re.M)} == {0, 1, 2, 3, 130}


def test_the_command_is_installed_beside_the_others() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"qrag", "qrag-serve", "qrag-train"}
    assert EntryPoint("qrag", scripts["qrag"], "console_scripts").load() is main
