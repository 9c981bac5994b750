"""Every way an episode can end has its words, in the command line and on the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from qrag.cli.main import main
from qrag.wire import examples
from qrag.wire.rules import ENDINGS, StoppedBy
from tests.service.scripted import event, scripted, stream

PAGE = Path(__file__).parents[2] / "service" / "page"
ALL_ENDINGS: tuple[StoppedBy, ...] = get_args(StoppedBy)


def on_the_page() -> dict[str, str]:
    """The page's words for each ending."""
    scripts = "".join(path.read_text(encoding="utf-8") for path in PAGE.glob("*.js"))
    (table,) = re.findall(r"const ENDINGS = \{\n(.*?)\n\};", scripts, re.DOTALL)
    return dict(re.findall(r'^  (\w+): "([^"]+)",$', table, re.MULTILINE))


@pytest.mark.parametrize("ending", ALL_ENDINGS)
def test_the_command_says_why_an_episode_ended(ending: StoppedBy, capsys: pytest.CaptureFixture[str]) -> None:
    with scripted([stream(event("result", {**examples.RESULT, "stopped_by": ending}))]) as server:
        assert main(["ask", "Who?", "--url", server.url]) == 0
    assert f"Stopped because {ENDINGS[ending]}.\n" in capsys.readouterr().out


def test_an_ending_without_words_is_named(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qrag.cli.asking.ENDINGS", {})
    with scripted([stream(event("result", {**examples.RESULT, "stopped_by": "budget"}))]) as server:
        assert main(["ask", "Who?", "--url", server.url]) == 0
    assert "Stopped because budget.\n" in capsys.readouterr().out


def test_the_page_has_words_for_every_ending_and_for_no_other() -> None:
    assert set(on_the_page()) == set(ALL_ENDINGS)
