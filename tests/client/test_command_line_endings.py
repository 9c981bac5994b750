"""``qrag``, against running servers: how it ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import threading
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from qrag.cli.main import main
from tests.client.command import ROOT, command, started
from tests.service.scripted import answer, drop, refusal, scripted, stream

pytestmark = pytest.mark.usefixtures("surroundings")


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
        ("status --url http://a..b", "'http://a..b' is no address"),
        ("status --key-file /no/such/file", "/no/such/file"),
        ("index a.txt b.txt --id x", "--id is for one file"),
        ("index a.txt --metadata [1]", "--metadata: this is no JSON object"),
        ("index a.txt --metadata {", "--metadata: this is no JSON: Expecting"),
        (f"index a.txt --metadata {'[' * 10_000}", "--metadata: this is no JSON: "),
        ("questions export --since yesterday", "--since: this is no time like 2026-03-01"),
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


def test_metadata_that_is_too_long_for_an_address_fails_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_text("Ana signed.")
    with scripted() as server:
        metadata = json.dumps({"a": "x" * 70_000})
        assert main(["index", str(tmp_path / "a.txt"), "--metadata", metadata, "--url", server.url]) == 1
    assert f"{tmp_path / 'a.txt'}: URL component 'query' too long" in capsys.readouterr().err
    assert not server.requests


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_full_disk_is_said() -> None:
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            command("collections"), cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert (ended.returncode, ended.stderr) == (1, "qrag: [Errno 28] No space left on device\n")


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


def test_the_command_is_installed_with_the_client() -> None:
    scripts = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"qrag"}
    assert EntryPoint("qrag", scripts["qrag"], "console_scripts").load() is main
