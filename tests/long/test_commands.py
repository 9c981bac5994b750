"""The documentation works as written: its blocks are run, page by page, against a service that begins empty."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest

import trainer.command_line.main
from service.settings import DEFAULT_CHECKPOINT
from tests.client.command import command as qrag
from tests.docs.pages import NOT_RUN_HERE, PAGES, ROOT, commands, reason, stale_entries
from tests.markdown import Block, blocks
from tests.servers import running_server
from tests.service.chat import completion, written
from tests.service.scripted import scripted

RUN = [page for page in PAGES if any(reason(block) is None for block in commands(page))]

ADDRESS = "http://127.0.0.1:8000"

WITH_THE_DEFAULT_CHECKPOINT = {"quick-start.md"}
"""Pages that show answers."""


FAILED_INSIDE = ("event: error", '"isError":true')
"""What stands in answers with status 200 that are failures."""


def shortened(text: str) -> str:
    """Every eighth line, and all short ones: of the story its facts, and so little else that it is soon indexed."""
    return "".join(line for number, line in enumerate(text.splitlines(True)) if number % 8 == 0 or len(line) < 40)


@pytest.fixture
def checkout(tmp_path: Path, calibrated_checkpoint: Path) -> Path:
    """The repository as its user stands in it, to be written into; ``data`` is the service's."""
    for name in ("index", "trainer", "deploy", "benchmarks", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for text in (tmp_path / "examples").rglob("*.txt"):
        if text.stat().st_size > 100_000:
            text.write_text(shortened(text.read_text(encoding="utf-8")), encoding="utf-8")
    checkpoints = tmp_path / "data" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copytree(calibrated_checkpoint, checkpoints / "tuned-on-minutes")
    return tmp_path


@contextlib.contextmanager
def language_model() -> Iterator[str]:
    """An endpoint that writes an answer, at once or in pieces."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        in_pieces = json.loads(endpoint.requests[-1].body)["stream"]
        (written("In the attic", " [1].") if in_pieces else completion("In the attic [1]."))(handler)

    with scripted(otherwise=write) as endpoint:
        yield f"{endpoint.url}/v1"


def trainer_commands(code: str) -> list[str]:
    """What a block that does nothing else says to the trainer, which takes longer to import than to train so little."""
    lines = code.replace("\\\n", " ").strip().splitlines()
    before = "python -m trainer "
    return [line.removeprefix(before) for line in lines] if all(line.startswith(before) for line in lines) else []


def run(block: Block, checkout: Path, server: httpx.Client, environment: dict[str, str]) -> str:
    """Run a block where a user would; what it printed."""
    code = block.code.replace(ADDRESS, environment["QRAG_URL"])
    for folder in ("/backups", "/srv"):
        code = code.replace(folder, f"{checkout}{folder}")
    if lines := trainer_commands(code):
        for line in lines:
            assert trainer.command_line.main.main(shlex.split(line)) == 0, line
        return ""
    if block.language == "python":
        command = [sys.executable, "-c", code]
    else:
        assert block.language == "sh", f"{block.page}:{block.line}: run as what?"
        command = ["bash", "-euo", "pipefail", "-c", re.sub(r"\bcurl ", "curl --silent --show-error --fail ", code)]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{block.page}:{block.line}\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert server.get("/readyz").status_code == 200
    assert not any(sign in done.stdout for sign in FAILED_INSIDE), f"{block.page}:{block.line}\n{done.stdout[-2000:]}"
    return done.stdout


@pytest.mark.parametrize("page", RUN, ids=[page.stem for page in RUN])
def test_the_commands_of_a_page_work_one_after_the_other(
    page: Path, checkout: Path, calibrated_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    checkpoint = DEFAULT_CHECKPOINT if page.name in WITH_THE_DEFAULT_CHECKPOINT else calibrated_checkpoint
    printed = ""
    with (
        language_model() as model,
        # Keys of its own: those that a page makes in the data directory would be asked for by all that follows.
        running_server(
            checkout / "data",
            checkpoint,
            keys_file=str(checkout / "no-keys"),
            llm_base_url=model,
            llm_model="small",
            keep_questions_days=30,
        ) as server,
    ):
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("QRAG_", "LLM_"))} | {
            "QRAG_URL": str(server.base_url).rstrip("/"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore",
        }
        for block in commands(page):
            if reason(block) is None:
                printed += run(block, checkout, server, environment)
    if page.name in WITH_THE_DEFAULT_CHECKPOINT:
        answers = blocks(page, "text")
        assert answers, "the page shows answers"
        for answer in answers:
            assert answer in printed


def test_there_are_pages_to_run() -> None:
    """Without blocks, the test above would be skipped."""
    assert {page.name for page in RUN} >= {"quick-start.md", "ways-in.md", "operating.md"}
    assert {page.name for page in RUN} >= WITH_THE_DEFAULT_CHECKPOINT


def test_every_block_is_run_or_it_is_said_why_not() -> None:
    """A new block is run by the test above; the list holds those that cannot be, and no others."""
    assert not stale_entries()
    for why in NOT_RUN_HERE.values():
        for file, name in re.findall(r"((?:tests|\.ci)/[\w/]+\.py)(?:::(\w+))?", why):
            assert f"def {name}(" in (ROOT / file).read_text() if name else (ROOT / file).exists(), why


def test_the_trainer_takes_the_commands_that_are_too_long_to_run() -> None:
    taken = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for command in re.findall(r"(?:python|-4) -m trainer ([^`\n]+)", text):
            words = re.split(r"\s{3,}[a-z]", command)[0].replace("[", "").replace("]", "")
            if "..." not in words and " " in words.strip():
                trainer.command_line.main.command_line().parse_args(shlex.split(words))
                taken += 1
    assert taken, "the documentation has commands for the trainer"


def test_the_page_about_the_client_is_true(tmp_path: Path, calibrated_checkpoint: Path) -> None:
    page = ROOT / "docs" / "client.md"
    tool = tmp_path / "qrag"
    tool.write_text(f'#!/bin/sh\nexec {shlex.join(qrag())} "$@"\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    work = tmp_path / "work"
    work.mkdir()
    (work / "examples").symlink_to(ROOT / "examples")
    settings = {
        name: value for name, value in os.environ.items() if not name.startswith("QRAG_") and name != "NO_COLOR"
    }
    settings |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT / "client")}
    with running_server(tmp_path / "data", calibrated_checkpoint, keep_questions_days=30) as server:
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
