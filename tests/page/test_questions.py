"""The tab of questions with expected passages, in a real Chromium: as `qrag eval` counts, and what changed since."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from qrag import Client
from qrag.evaluation.library import fetch
from qrag.evaluation.resolving import resolve
from qrag.wire.checks.questions import Question
from tests.page.browser import Page, needs_chromium, texts
from tests.service.helpers import add, ask
from tests.service.library import SENTENCES, add_lines

pytestmark = needs_chromium

STEPS = 3


def piece(number: int) -> dict[str, str]:
    return {"text": SENTENCES[number]}


def questions_about(client: httpx.Client, collection: str) -> list[dict[str, Any]]:
    """Questions in every form, about a text of twelve lines."""
    id = add_lines(client, collection, SENTENCES, title="Minutes")["id"]
    halves = "The bees swarmed in June.\n In Lisbon   the trams are yellow."
    return [
        {"id": "lease", "question": "Who signed the lease?", "expected": [piece(0), piece(11)], "answers": ["Ana"]},
        {
            "question": "Where did the office move?",
            "expected": [[piece(4), {"title": "Minutes", "start": 0, "end": 9}]],
        },
        {"question": "What swarmed?", "expected": [{"text": halves}]},
        {"question": "What is there?", "expected": [{"document_id": id}]},
        {"question": "What of the boats? 👀", "expected": [{"document_id": id, "start": 79, "end": 120}]},
        {"question": "Which page?", "expected": [{"title": "Minutes", "page": 2}, piece(6)]},
        {"question": "Nowhere?", "expected": [{"text": "This stands nowhere."}]},
    ]


def lines(questions: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(question) for question in questions)


def play(page: Page, text: str) -> None:
    page.until(lambda: page.id("model").text)
    page.id("questions-tab").click()
    page.fill("play-lines", text)
    page.fill("play-steps", str(STEPS))
    page.id("play").find_element("css selector", "button.main").click()
    page.until(lambda: page.id("play-state").text.startswith("Done."))


def totals(page: Page) -> dict[str, str]:
    return dict(zip(texts(page, "#played-totals dt"), texts(page, "#played-totals dd"), strict=True))


def expected_counts(client: httpx.Client, collection: str, questions: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Pieces that are found and that there are, by the command's own code."""
    with Client(str(client.base_url)) as caller:
        library = fetch(caller, collection)
    counts = []
    for question in questions:
        resolved = resolve(Question.model_validate(question), library)
        answer = ask(client, question["question"], collection=collection, max_steps=STEPS, order="selection")
        found = resolved.found_at([(chunk["document_id"], chunk["index"]) for chunk in answer["chunks"]])
        counts.append((len(found) - found.count(None), len(found)))
    return counts


def test_it_counts_as_the_command_does(page: Page, client: httpx.Client, collection: str) -> None:
    questions = questions_about(client, collection)
    play(page, lines(questions))
    counts = expected_counts(client, collection, questions)
    assert len({found for found, _ in counts}) > 1
    assert texts(page, "#played-questions .share") == [f"{found} of {all}" for found, all in counts]
    shares = [found / all for found, all in counts]
    shown = totals(page)
    assert shown["Questions"] == "7"
    assert shown["All that was expected"] == f"{100 * shares.count(1.0) / 7:.1f}%"
    assert float(shown["Share of the evidence"].removesuffix("%")) == pytest.approx(100 * sum(shares) / 7, abs=0.051)
    assert shown["Chunks a question"] == f"{STEPS}.00"
    assert shown["Expect what stands nowhere"] == "2 questions"
    first = page.all("#played-questions details")[0]
    first.find_element("css selector", "summary").click()
    page.until(lambda: page.all("#played-1 blockquote"))
    answer = ask(client, "Who signed the lease?", collection=collection, max_steps=STEPS, order="selection")
    assert texts(page, "#played-1 blockquote") == [chunk["text"] for chunk in answer["chunks"]]
    hits = [chunk["text"] for chunk in answer["chunks"] if chunk["index"] in (0, 11)]
    assert texts(page, "#played-1 blockquote.hit") == hits
    assert "As many chunks as were allowed are selected." in first.text
    assert "stands nowhere" not in first.text


def test_it_says_what_changed_since_the_last_run(page: Page, client: httpx.Client, collection: str) -> None:
    questions = questions_about(client, collection)
    play(page, lines(questions[:2]))
    assert "kept in this browser" in page.id("played-changes").text
    play(page, lines(questions))
    said = page.id("played-changes").text
    assert "by the same checkpoint" in said
    assert "0 newly found" in said
    assert "5 questions of these not asked then" in said
    kept = page.run("return JSON.stringify(localStorage)")
    assert "lease" not in kept
    assert client.get("/model").json()["fingerprint"] in kept
    # As if another checkpoint had found less of the first, and more of the second.
    counts = expected_counts(client, collection, questions)
    page.run(
        """const key = Object.keys(localStorage).find(key => key.endsWith(arguments[0]));
        const run = JSON.parse(localStorage[key]);
        run.shares[0][1] = -1;
        run.shares[1][1] = 2;
        run.checkpoint = { name: "<b>former</b>", fingerprint: "other" };
        localStorage[key] = JSON.stringify(run);""",
        collection,
    )
    play(page, lines(questions))
    said = page.id("played-changes").text
    assert "by <b>former</b>, another checkpoint" in said
    assert "1 newly found: lease" in said
    assert "1 newly lost: 2" in said
    page.choose("played-filter", "changed")
    assert [item.is_displayed() for item in page.all("#played-questions > li")] == [True, True, *[False] * 5]
    page.choose("played-filter", "missed")
    missed = [found < all for found, all in counts]
    assert [item.is_displayed() for item in page.all("#played-questions > li")] == missed
    page.all("#played-changes a")[1].click()
    assert page.run("return document.activeElement.closest('li').id") == "played-2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "There is no question"),
        ('{"question": "Who?", "expected": [{"text": "a"}]}\n{no json', "Line 2: no JSON object"),
        ('{"question": "Who?", "expected": []}', "Line 1: expected has to be a list"),
        ('{"question": "Who?", "answers": ["a"]}', "Line 1: it has answers alone, and here expected is needed"),
        (
            '{"question": "Who?", "expected": [{"text": "a", "page": 3}]}',
            "Line 1: give a text, start and end, or a page",
        ),
        ('{"question": "Who?", "expected": [{"title": "a", "start": 3}]}', "Line 1: start and end belong together"),
    ],
)
def test_lines_that_make_no_sense_are_named(page: Page, text: str, words: str) -> None:
    page.until(lambda: page.id("model").text)
    page.id("questions-tab").click()
    page.fill("play-lines", text or " ")
    page.id("play").find_element("css selector", "button.main").click()
    page.until(lambda: words in page.id("alert-text").text)
    assert not page.id("played").is_displayed()


def test_a_run_can_be_cancelled_and_what_was_asked_is_shown(page: Page, client: httpx.Client, collection: str) -> None:
    questions = questions_about(client, collection)
    page.until(lambda: page.id("model").text)
    page.run(
        """const send = fetch;
        let asked = 0;
        window.fetch = (path, options) => {
            if (path === "retrieve" && ++asked === 3) document.getElementById("play-cancel").click();
            return send(path, options);
        }"""
    )
    page.id("questions-tab").click()
    page.fill("play-lines", lines(questions))
    page.id("play").find_element("css selector", "button.main").click()
    page.until(lambda: page.id("play-state").text == "Cancelled.")
    assert totals(page)["Questions"] == "2"
    assert page.run("return localStorage.length") == 0
    assert not page.id("play-cancel").is_displayed()


def test_a_question_that_is_refused_does_not_keep_the_others_out(
    page: Page, client: httpx.Client, collection: str
) -> None:
    (first, *_) = questions_about(client, collection)
    page.expected = ["422"]
    play(page, lines([{**first, "id": "long", "question": "lease " * 2000}, first]))
    assert totals(page)["Without an answer"] == "1 question"
    assert "no answer" in page.all("#played-questions li")[0].text
    assert "stopped by budget" in page.all("#played-questions li")[1].text


def test_a_file_is_taken_and_the_keyboard_is_enough(
    page: Page, client: httpx.Client, collection: str, tmp_path: Path
) -> None:
    questions = questions_about(client, collection)
    (tmp_path / "questions.jsonl").write_text("\ufeff" + lines(questions), encoding="utf-8")
    page.until(lambda: page.id("model").text)
    page.tab_to("ask-tab")
    page.press(Keys.ARROW_RIGHT)
    assert page.run("return document.activeElement.id") == "questions-tab"
    assert (page.id("asking").is_displayed(), page.id("questions").is_displayed()) == (False, True)
    page.id("play-file").send_keys(str(tmp_path / "questions.jsonl"))
    page.until(lambda: page.id("play-lines").get_attribute("value"))
    page.tab_to("play-steps")
    page.press(Keys.ENTER)
    page.until(lambda: page.id("play-state").text.startswith("Done."))
    assert page.run("return document.activeElement.id") == "played-title"
    page.press(Keys.TAB)
    assert page.run("return document.activeElement.id") == "played-filter"
    page.press(Keys.TAB, Keys.ENTER)
    page.until(lambda: page.all("#played-1 blockquote"))
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]}
    assert {("tab", "Questions"), ("tabpanel", "Questions"), ("list", "Questions")} <= found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_questions_and_documents_are_text_and_fit_a_phone(
    page: Page, client: httpx.Client, collection: str, scheme: Literal["light", "dark"]
) -> None:
    hostile = "<img src=x onerror='window.pwned = 1'> \u202e " + "x" * 300
    add(client, hostile, collection=collection, title=hostile)
    page.look(width=360, height=700, scheme=scheme)
    play(page, lines([{"id": "<b>" + "y" * 190, "question": hostile, "expected": [{"text": hostile}, piece(0)]}]))
    page.run("for (const each of document.querySelectorAll('#questions details')) each.open = true")
    page.until(lambda: page.all("#played-1 blockquote"))
    assert texts(page, "#played-1 blockquote.hit") == [hostile]
    assert page.all("main img, main b") == []
    assert page.run("return window.pwned") is None
    assert page.wider_than_the_window() == 0
