"""A focus: a call of an episode that selects for a sub-question, over HTTP."""

from __future__ import annotations

import httpx
import pytest

from tests.service.helpers import Json, ask, problem
from tests.service.library import QUESTION, add_library

BUDGET = {"rule": "budget"}
FOCI = ["Who signed the lease?", "Where did the office of Ana move?", "What colour are the trams in Lisbon?"]


def places(*answers: Json) -> list[tuple[str, int]]:
    return [(step["document_id"], step["index"]) for answer in answers for step in answer["steps"]]


def references(*answers: Json) -> list[Json]:
    return [{"document_id": id, "index": index} for id, index in places(*answers)]


def assert_same(answer: Json, other: Json) -> None:
    assert places(answer) == places(other)
    assert [step["q"] for step in answer["steps"]] == pytest.approx([step["q"] for step in other["steps"]], abs=1e-5)
    assert (answer["sufficiency"] is None) == (other["sufficiency"] is None)
    if answer["sufficiency"] is not None:
        assert answer["sufficiency"] == pytest.approx(other["sufficiency"], abs=1e-4)


@pytest.fixture
def library(client: httpx.Client, collection: str) -> str:
    add_library(client, collection)
    return collection


@pytest.mark.parametrize("fields", [{}, {"rerank": 4}, {"max_context_tokens": 60}, {"stop": {"step_cost": 0.05}}])
def test_a_focus_is_asked_by_itself_of_what_is_not_held(client: httpx.Client, library: str, fields: Json) -> None:
    options = {"collection": library, "max_steps": 3, "stop": BUDGET, "trace": True, **fields}
    begun = ask(client, QUESTION, **options)
    focused = ask(client, QUESTION, focus=FOCI[1], given=references(begun), **options)
    assert_same(focused, ask(client, FOCI[1], exclude=references(begun), **options))
    assert focused["focus"] == FOCI[1]
    assert begun["focus"] is None
    # Held chunks appear nowhere: not among candidates, not in the one-step answer.
    shown = [*focused["one_step"], *(candidate for step in focused["steps"] for candidate in step["candidates"])]
    assert not {(one["document_id"], one["index"]) for one in shown} & {*places(begun)}


def test_a_focus_belongs_to_one_call(client: httpx.Client, library: str) -> None:
    options = {"collection": library, "max_steps": 1, "stop": BUDGET}
    answers = [ask(client, QUESTION, focus=FOCI[0], **options)]
    for focus in FOCI[1:]:
        body = {"continuation": answers[-1]["continuation"], "focus": focus, "max_steps": 1}
        answers.append(client.post("/retrieve", json=body).json())
    assert [answer["focus"] for answer in answers] == FOCI
    rest = client.post("/retrieve", json={"continuation": answers[-1]["continuation"], "max_steps": 2}).json()
    assert rest["focus"] is None
    assert_same(rest, ask(client, QUESTION, **{**options, "given": references(*answers), "max_steps": 2}))
    assert len({*places(*answers, rest)}) == 5
    body = {"continuation": rest["continuation"], "focus": FOCI[0], "max_steps": 32, "max_total_chunks": 7}
    last = client.post("/retrieve", json=body).json()
    assert (len(last["steps"]), last["stopped_by"]) == (2, "budget")
    everything = {"continuation": last["continuation"], "focus": FOCI[0], "max_steps": 32, "max_total_chunks": 128}
    end = client.post("/retrieve", json=everything).json()
    assert end["stopped_by"] == "exhausted"
    assert len({*places(*answers, rest, last, end)}) == 12


def test_a_beam_may_have_a_focus(client: httpx.Client, library: str) -> None:
    options = {"collection": library, "max_steps": 3, "beam_width": 3, "stop": BUDGET}
    assert_same(ask(client, QUESTION, focus=FOCI[0], **options), ask(client, FOCI[0], **options))


@pytest.mark.parametrize("focus", ["", " \n", 7])
def test_a_blank_focus_is_refused(client: httpx.Client, focus: object) -> None:
    answer = client.post("/retrieve", json={"question": QUESTION, "focus": focus})
    assert problem(answer, 422, "validation_error")["errors"][0]["at"] == "body.focus"


def test_a_focus_is_as_long_as_a_question_at_most(client: httpx.Client, library: str) -> None:
    most = client.get("/model").json()["max_question_tokens"]
    body = {"question": QUESTION, "collection": library, "max_steps": 1}
    assert client.post("/retrieve", json={**body, "focus": "a " * most}).status_code == 200
    detail = problem(client.post("/retrieve", json={**body, "focus": "a " * (most + 1)}), 422, "question_too_long")
    assert f"The focus has {most + 1} tokens" in detail["detail"]
    problem(
        client.post("/retrieve", json={**body, "question": "a " * (most + 1), "focus": "a"}), 422, "question_too_long"
    )


def test_a_focus_needs_its_question(client: httpx.Client, library: str) -> None:
    answer = client.post("/retrieve", json={"focus": FOCI[0], "collection": library})
    assert "give a question" in problem(answer, 422, "validation_error")["errors"][0]["message"]
