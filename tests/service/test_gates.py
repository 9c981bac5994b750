"""Gates and canaries: another checkpoint shows what it finds before it is served, and no answer changes meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from qrag import Client
from qrag.wire.checks.gates import MAX_GATE_QUESTIONS, GateIn
from service.keys import add_key
from tests.servers import Server, running_server
from tests.service.helpers import Json, add, ask, metric, problem, stream, until
from tests.service.other_checkpoints import fill, write_other_checkpoints

QUESTIONS = [f"Where is thing {number}?" for number in range(10)]
STEPS = 3

Chosen = list[tuple[str, int]]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    write_other_checkpoints(folder, tiny_checkpoint)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, checkpoints: Path, tiny_checkpoint: Path) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("gates"), tiny_checkpoint, checkpoints_dir=str(checkpoints))
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
        fill(client)
        yield client


@pytest.fixture(scope="module")
def selections(client: httpx.Client) -> dict[str, list[Chosen]]:
    """What each checkpoint selects for each question while it is the one that is served."""
    found = {"configured": selected(client)}
    serve(client, "wide")
    found["wide"] = selected(client)
    serve(client, "configured")
    return found


@pytest.fixture(autouse=True)
def served_again(client: httpx.Client) -> Iterator[None]:
    yield
    serve(client, "configured")


def selected(client: httpx.Client) -> list[Chosen]:
    answers = [ask(client, question, max_steps=STEPS)["chunks"] for question in QUESTIONS]
    return [[(chunk["document_id"], chunk["index"]) for chunk in chunks] for chunks in answers]


def state(client: httpx.Client) -> Json:
    answer: Json = client.get("/admin/checkpoints").json()
    return answer


def change(client: httpx.Client, name: str, **further: Any) -> httpx.Response:
    return client.post("/admin/checkpoints", json={"checkpoint": name, **further})


def serve(client: httpx.Client, name: str) -> None:
    assert change(client, name).status_code in (200, 202)
    until(lambda: state(client)["served"] == name and state(client)["change"] is None)


def ended(client: httpx.Client) -> Json:
    """How things are once a change is over, or waits for an operator."""
    until(lambda: (state(client)["change"] or {"state": "none"})["state"] in ("none", "refused", "failed", "canary"))
    return state(client)


def gate(client: httpx.Client, expected: Sequence[Chosen], **further: Any) -> Json:
    """A gate that expects these chunks, by their characters."""
    questions = []
    for question, keys in zip(QUESTIONS, expected, strict=True):
        pieces = []
        for document, index in keys:
            page = client.get(f"/documents/{document}/chunks", params={"cursor": index, "limit": 1}).json()
            (chunk,) = page["chunks"]
            pieces.append({"document_id": document, "start": chunk["start"], "end": chunk["end"]})
        questions.append({"question": question, "expected": pieces, "answers": ["Nobody looks at this."]})
    return {"questions": questions, "max_steps": STEPS, **further}


def shares(found: Sequence[Chosen], expected: Sequence[Chosen]) -> list[float]:
    return [sum(key in chosen for key in keys) / len(keys) for chosen, keys in zip(found, expected, strict=True)]


def test_what_loses_is_refused_and_nothing_else_changes(
    client: httpx.Client, selections: dict[str, list[Chosen]]
) -> None:
    begun = change(client, "wide", gate=gate(client, selections["configured"]))
    assert begun.status_code == 202
    after = ended(client)
    assert (after["served"], after["change"]["state"]) == ("configured", "refused")
    outcome = after["gate"]
    reference = shares(selections["wide"], selections["configured"])
    assert sum(reference) < len(reference)
    assert (outcome["passed"], outcome["checkpoint"], outcome["against"]) == (False, "wide", "configured")
    assert (outcome["questions"], outcome["unresolved"], outcome["max_steps"]) == (len(QUESTIONS), 0, STEPS)
    assert outcome["served"] == {"share": 1.0, "recall": 1.0, "chunks": STEPS}
    assert outcome["candidate"]["share"] == pytest.approx(sum(reference) / len(reference))
    assert outcome["candidate"]["recall"] == pytest.approx(reference.count(1.0) / len(reference))
    difference = outcome["difference"]
    assert difference["mean"] == pytest.approx(sum(reference) / len(reference) - 1)
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert outcome["lost"] == [str(number) for number, share in enumerate(reference, 1) if share < 1]
    assert (outcome["losses"], outcome["wins"], outcome["won"]) == (len(outcome["lost"]), 0, [])
    assert f"{outcome['candidate']['share']:.3f} of the expected evidence" in after["change"]["error"]
    assert selected(client) == selections["configured"]
    assert client.delete("/admin/checkpoints/wide").status_code == 204
    assert state(client)["change"] is None
    assert state(client)["gate"] == outcome


def test_what_does_not_lose_is_served(client: httpx.Client, selections: dict[str, list[Chosen]]) -> None:
    assert change(client, "wide", gate=gate(client, selections["wide"])).status_code == 202
    after = ended(client)
    assert (after["served"], after["change"], after["gate"]["passed"]) == ("wide", None, True)
    assert after["gate"]["wins"] > after["gate"]["losses"] == 0
    assert selected(client) == selections["wide"]


def test_some_loss_may_be_allowed(client: httpx.Client, selections: dict[str, list[Chosen]]) -> None:
    reference = shares(selections["wide"], selections["configured"])
    loss = 1 - sum(reference) / len(reference)
    for max_loss, served in ((loss - 0.001, "configured"), (loss, "wide")):
        change(client, "wide", gate=gate(client, selections["configured"], max_loss=max_loss))
        assert ended(client)["served"] == served


def test_the_same_action_tower_is_tested_too(client: httpx.Client, selections: dict[str, list[Chosen]]) -> None:
    begun = change(client, "same-actions", gate=gate(client, selections["configured"]))
    assert (begun.status_code, begun.json()["vector_sets"]) == (202, state(client)["vector_sets"])
    after = ended(client)
    assert (after["served"], after["gate"]["difference"]["mean"], after["gate"]["losses"]) == ("same-actions", 0, 0)
    with Client(str(client.base_url)) as caller:
        questions = gate(client, selections["configured"])["questions"]
        caller.change_checkpoint("wide", gate=GateIn(questions=questions, max_steps=STEPS))
        assert ended(client)["served"] == "same-actions"
        outcome = caller.checkpoints().gate
        assert outcome is not None
        assert not outcome.passed
        caller.forget_checkpoint("wide")
        assert caller.checkpoints().change is None


def test_what_cannot_be_asked_is_refused_at_once(client: httpx.Client) -> None:
    def question(**piece: Any) -> Json:
        return {"question": "Where?", "expected": [piece]}

    good = question(document_id="d0")
    nowhere = [
        question(text="It stands nowhere."),
        question(document_id="d0", start=10**6, end=10**6 + 5),
        question(document_id="d0", page=3),
        {**question(text="Person 0 took thing"), "collection": "elsewhere"},
    ]
    for one in nowhere:
        body = problem(change(client, "wide", gate={"questions": [good, one]}), 422, "expectation_unresolved")
        assert "gate.questions.1.expected.0" in body["detail"]
    long = {"question": "thing " * 3000, "expected": [{"document_id": "d0"}]}
    assert (
        "gate.questions.1"
        in problem(change(client, "wide", gate={"questions": [good, long]}), 422, "question_too_long")["detail"]
    )
    unsound: list[Json] = [
        {"questions": []},
        {"questions": [{**good, "id": "a"}, {**good, "id": "a"}]},
        {"questions": [{"question": "Where?", "expected": []}]},
        {"questions": [good], "max_loss": 2},
        {"questions": [good] * (MAX_GATE_QUESTIONS + 1)},
        {"questions": [{**good, "answers": []}]},
    ]
    for wrong in unsound:
        problem(change(client, "wide", gate=wrong), 422, "validation_error")
    answers = {"question": "Where?", "answers": ["Here"]}
    refused = problem(change(client, "wide", gate={"questions": [good, answers]}), 422, "validation_error")
    assert "gate.questions.1.expected: Field required" in refused["detail"]
    problem(change(client, "wide", canary=0), 422, "validation_error")
    problem(change(client, "nowhere", gate={"questions": [good]}), 404, "unknown_checkpoint")
    assert (state(client)["served"], state(client)["change"]) == ("configured", None)


def test_a_gate_needs_the_right_to_read_what_it_expects(tmp_path: Path, tiny_checkpoint: Path) -> None:
    keys = tmp_path / "data" / "keys.json"
    operator = add_key(keys, "operator", ["admin"], None)
    everything = add_key(keys, "everything", ["admin", "read", "write"], None)
    with running_server(tmp_path / "data", tiny_checkpoint) as client:
        client.headers["Authorization"] = f"Bearer {everything}"
        add(client, "A secret.", id="secret")
        questions = {"questions": [{"question": "What?", "expected": [{"text": "A secret."}]}]}
        for key, status in ((operator, 403), (everything, 202)):
            client.headers["Authorization"] = f"Bearer {key}"
            assert change(client, "configured", gate=questions).status_code == status


def test_documents_that_come_meanwhile_are_found_by_the_one_that_is_served_in_the_end(
    server: Server, client: httpx.Client, selections: dict[str, list[Chosen]]
) -> None:
    add(client, "Thing 99 is in the attic.", id="early", collection="meanwhile")
    change(client, "wide", gate=gate(client, selections["wide"]), canary=1.0)
    add(client, "Thing 98 is in the attic too.", id="late", collection="meanwhile")
    until(lambda: (state(client)["change"] or {})["state"] == "canary")
    assert len(ask(client, "Where?", collection="meanwhile")["chunks"]) == 2
    server.wait_for_log("canary checkpoint=wide .*overlap=1.000")
    serve(client, "wide")
    assert len(ask(client, "Where?", collection="meanwhile")["chunks"]) == 2


def test_a_canary_answers_unseen_until_it_is_asked_for_alone(
    server: Server, client: httpx.Client, selections: dict[str, list[Chosen]]
) -> None:
    compared = 'qrag_canary_requests_total{outcome="compared"}'
    before = metric(client, compared)
    change(client, "wide", canary=1.0)
    assert ended(client)["change"]["canary"] == {
        "share": 1.0,
        "compared": 0,
        "dropped": 0,
        "failed": 0,
        "overlap": None,
    }
    overlaps = []
    for number, question in enumerate(QUESTIONS[:3]):
        if number == 2:
            *_, (_, found) = stream(client, question, max_steps=STEPS)
        else:
            found = ask(client, question, max_steps=STEPS)
        mine, other = set(selections["configured"][number]), set(selections["wide"][number])
        assert {(chunk["document_id"], chunk["index"]) for chunk in found["chunks"]} == mine
        overlaps.append(len(mine & other) / len(mine | other))
        line = server.wait_for_log(r"(canary checkpoint=wide served=configured overlap=.*)")
        figures = dict(re.findall(r"(\w+)=(\S+)", line))
        assert float(figures["overlap"]) == pytest.approx(overlaps[-1], abs=0.001)
        assert (figures["served_steps"], figures["candidate_steps"]) == (str(STEPS), str(STEPS))
        assert [float(q) for q in figures["served_q"].split(",")] == [
            pytest.approx(step["q"], abs=0.001) for step in found["steps"]
        ]
        assert question not in line
    canary = state(client)["change"]["canary"]
    assert (canary["compared"], canary["failed"]) == (3, 0)
    assert canary["overlap"] == pytest.approx(sum(overlaps) / 3)
    assert metric(client, compared) == before + 3
    assert metric(client, "qrag_canary_overlap_sum") >= sum(overlaps) - 1e-6
    assert state(client)["served"] == "configured"
    serve(client, "wide")
    assert selected(client) == selections["wide"]


def test_a_canary_can_be_given_up(client: httpx.Client, selections: dict[str, list[Chosen]]) -> None:
    change(client, "wide", canary=0.5)
    assert ended(client)["change"]["state"] == "canary"
    assert client.delete("/admin/checkpoints/wide").status_code == 204
    assert (state(client)["served"], state(client)["change"]) == ("configured", None)
    assert selected(client) == selections["configured"]


def test_a_restart_in_the_middle_forgets_neither_gate_nor_canary(
    tmp_path: Path, checkpoints: Path, tiny_checkpoint: Path
) -> None:
    settings = {"checkpoints_dir": str(checkpoints)}
    with running_server(tmp_path, tiny_checkpoint, **settings) as client:
        fill(client)
        expected = gate(client, selected(client))
        many = [
            {**question, "id": f"{time}-{number}"}
            for time in range(10)
            for number, question in enumerate(expected["questions"])
        ]
    server = Server(tmp_path, tiny_checkpoint, (), **settings)
    try:
        with httpx.Client(base_url=server.wait_until_listening(), timeout=60) as client:
            assert change(client, "wide", gate={**expected, "questions": many}, canary=0.25).status_code == 202
    finally:
        server.kill()
    with running_server(tmp_path, tiny_checkpoint, **settings) as client:
        after = ended(client)
        assert (after["served"], after["change"]["state"]) == ("configured", "refused")
        assert after["gate"]["questions"] == len(many)
    with running_server(tmp_path, tiny_checkpoint, **settings) as client:
        assert (state(client)["gate"], state(client)["change"]) == (after["gate"], None)
