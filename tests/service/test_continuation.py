"""Episodes that go on: chunks that are given or excluded, and continuations, over HTTP."""

from __future__ import annotations

import base64
import os
import random
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from qrag.wire.retrieval import MAX_CONTINUATION
from service.errors import ConfigurationError
from service.keys import Right, add_key
from service.settings import Settings
from service.signing import KEY_FILE, signer
from tests.servers import Server, running_server
from tests.service.helpers import Json, ask, metric, problem, stream
from tests.service.library import QUESTION, add_library, add_lines

BUDGET = {"rule": "budget"}
LINES = ["Ana signed the lease.", "The weather was fine.", "The office moved to Lisbon.", "Nobody read it."]


def selected(*answers: Json) -> list[tuple[str, int]]:
    """The chunks of answers in the order of their selection."""
    return [(step["document_id"], step["index"]) for answer in answers for step in answer["steps"]]


def q_of(*answers: Json) -> list[float]:
    return [step["q"] for answer in answers for step in answer["steps"]]


def likely(*answers: Json) -> list[float]:
    """How likely the evidence was complete before each step, where that is known."""
    before = [step["sufficiency"] for answer in answers for step in answer["steps"]]
    return [sufficiency["complete"] for sufficiency in before if sufficiency is not None]


def references(chunks: Sequence[tuple[str, int]]) -> list[Json]:
    return [{"document_id": id, "index": index} for id, index in chunks]


def mentioned(answer: Json) -> set[tuple[str, int]]:
    """Every chunk that an answer shows as one that could be selected, or was."""
    entries = [*answer["chunks"], *answer["citations"], *answer["steps"], *(answer["one_step"] or [])]
    entries += [candidate for step in answer["steps"] for candidate in step["candidates"] or []]
    return {(entry["document_id"], entry["index"]) for entry in entries}


def go_on(client: httpx.Client, answer: Json, **fields: object) -> Json:
    response = client.post("/retrieve", json={"continuation": answer["continuation"], **fields})
    assert response.status_code == 200, response.text
    result: Json = response.json()
    return result


# --- What is selected ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["shared_client", "limited_client"])  # with and without a sufficiency head
@pytest.mark.parametrize(("first", "second"), [(1, 1), (1, 5), (4, 3), (6, 6), (2, 32)])
def test_two_calls_select_what_one_selects(
    request: pytest.FixtureRequest, server: str, collection: str, first: int, second: int
) -> None:
    client: httpx.Client = request.getfixturevalue(server)
    add_library(client, collection)
    most = min(first + second, 32)
    whole = ask(client, QUESTION, collection=collection, max_steps=most, stop=BUDGET)
    begun = ask(client, QUESTION, collection=collection, max_steps=first, stop=BUDGET)
    continued = go_on(client, begun, max_steps=second)
    assert selected(begun, continued) == selected(whole)
    assert q_of(begun, continued) == pytest.approx(q_of(whole), abs=1e-5)
    assert continued["stopped_by"] == whole["stopped_by"]
    assert likely(begun, continued) == pytest.approx(likely(whole), abs=1e-5)
    assert continued["sufficiency"] == pytest.approx(whole["sufficiency"], abs=1e-5)


def test_a_chain_goes_on_until_nothing_is_left(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    answer = ask(client, QUESTION, collection=collection, max_steps=5, stop=BUDGET)
    chunks = selected(answer)
    for left in (7, 2, 0, 0):
        answer = go_on(client, answer, max_steps=5, trace=True)
        assert len(answer["chunks"]) == min(5, left)
        assert answer["stopped_by"] == ("budget" if left > 5 else "exhausted")
        assert not mentioned(answer) & set(chunks)
        chunks += selected(answer)
    assert len(chunks) == len(set(chunks)) == 12


def test_given_chunks_change_what_comes_next_as_if_selected(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    whole = ask(client, QUESTION, collection=collection, max_steps=6, stop=BUDGET)
    held = references(selected(whole)[:3])
    for given in (held, held[::-1]):
        answer = ask(client, QUESTION, collection=collection, max_steps=3, stop=BUDGET, given=given, trace=True)
        assert selected(answer) == selected(whole)[3:]
        assert q_of(answer) == pytest.approx(q_of(whole)[3:], abs=1e-5)
        assert not mentioned(answer) & set(selected(whole)[:3])
    twice = go_on(client, answer, given=[*held, *references(selected(answer))], max_steps=1)
    assert selected(twice) == selected(ask(client, QUESTION, collection=collection, max_steps=7, stop=BUDGET))[6:]
    events = stream(client, QUESTION, collection=collection, max_steps=3, stop=BUDGET, given=given)
    assert [(event["document_id"], event["index"]) for name, event in events if name == "step"] == selected(whole)[3:]
    assert events[-1][1]["continuation"] == answer["continuation"]


def test_excluded_chunks_change_nothing_else(client: httpx.Client, collection: str) -> None:
    """Without them the best of the rest has the Q-value that it had, and stays excluded for the rest of the chain."""
    add_library(client, collection)
    plain = ask(client, QUESTION, collection=collection, max_steps=1, trace=True)
    best, second = plain["steps"][0]["candidates"][:2]
    excluded = [(best["document_id"], best["index"])]
    fields = {"exclude": references(excluded), "stop": BUDGET, "trace": True}
    answer = ask(client, QUESTION, collection=collection, max_steps=2, **fields)
    assert answer["steps"][0] | {"q": 0} == answer["steps"][0] | {**second, "q": 0}
    assert answer["steps"][0]["q"] == pytest.approx(second["q"], abs=1e-6)
    more = go_on(client, answer, max_steps=32, exclude=references([selected(plain)[0]]), trace=True)
    assert not (mentioned(answer) | mentioned(more)) & set(excluded)
    assert len(set(selected(answer, more))) == 11
    assert more["stopped_by"] == "exhausted"
    everything = references([*excluded, *selected(answer, more)])
    nothing = ask(client, QUESTION, collection=collection, exclude=everything, trace=True)
    assert (nothing["chunks"], nothing["one_step"], nothing["stopped_by"]) == ([], [], "exhausted")


def test_a_chain_keeps_to_its_total(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    answer = ask(client, QUESTION, collection=collection, max_steps=3, stop=BUDGET, max_total_chunks=5)
    assert len(answer["chunks"]) == 3
    rest = go_on(client, answer, max_steps=3)
    assert (len(rest["chunks"]), rest["stopped_by"]) == (2, "budget")
    full = go_on(client, rest)
    assert (full["chunks"], full["stopped_by"]) == ([], "budget")
    assert len(go_on(client, full, max_steps=3, max_total_chunks=7)["chunks"]) == 2
    given = references(selected(answer, rest))
    result = ask(client, QUESTION, collection=collection, given=given, max_total_chunks=4)
    assert (result["chunks"], result["stopped_by"]) == ([], "budget")


def test_what_was_asked_and_how_stays_as_it_was(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)
    fields: Json = {"filter": {"field": "number", "in": [0, 2]}, "order": "selection", "max_context_tokens": 40}
    answer = ask(client, QUESTION, collection=collection, stop={"rule": "threshold", "threshold": -9.0}, **fields)
    assert answer["stopped_by"] == "context"
    more = go_on(client, answer)
    assert more["stopped_by"] == "context"
    assert [chunk["step"] for chunk in more["chunks"]] == [*range(len(more["chunks"]))]
    rest = go_on(client, more, max_steps=32, max_context_tokens=10_000, question=QUESTION, collection=collection)
    assert len(selected(answer, more, rest)) == 8
    assert {chunk["metadata"]["number"] for chunk in (*more["chunks"], *rest["chunks"])} == {0, 2}
    assert go_on(client, answer, filter=fields["filter"], document_ids=None)["chunks"] == more["chunks"]
    for other in (
        {"question": "Another?"},
        {"collection": "default"},
        {"filter": {"field": "number", "in": [0]}},
        {"document_ids": ["other"]},
        {"location": {"page": 1}},
    ):
        body = {"continuation": answer["continuation"], **other}
        (name,) = other
        assert name in problem(client.post("/retrieve", json=body), 422, "invalid_continuation")["detail"]


# --- Speed ------------------------------------------------------------------------------------------------------


def test_no_state_is_embedded_twice(client: httpx.Client, collection: str) -> None:
    add_library(client, collection)

    def passes(body: Json) -> tuple[int, Json]:
        before = metric(client, "qrag_batch_states_count")
        answer = client.post("/retrieve", json=body).json()
        return int(metric(client, "qrag_batch_states_count") - before), answer

    # States are the same in all collections: this question is asked nowhere else.
    question = {"question": f"Who counted in {collection}?", "collection": collection, "stop": BUDGET}
    fresh, whole = passes({**question, "max_steps": 3})
    assert fresh == 4  # the last one for the sufficiency
    again, same = passes({**question, "max_steps": 3})
    assert (again, same["steps"]) == (0, whole["steps"])
    reused = metric(client, "qrag_states_reused_total")
    taken, more = passes({"continuation": whole["continuation"], "max_steps": 2})
    assert taken == 2  # one less than the three states of these steps
    assert metric(client, "qrag_states_reused_total") == reused + 1
    assert passes({**question, "max_steps": 5})[0] == 0
    given = references(selected(whole, more))
    assert passes({**question, "given": given, "max_steps": 1})[0] == 1
    assert passes({**question, "given": given[1:], "max_steps": 1})[0] == 2


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"question": None},
        {"question": "Who?", "given": [{"document_id": "x", "index": 0}], "beam_width": 2},
        {"continuation": "abc", "beam_width": 2},
        {"question": "Who?", "given": [{"document_id": "x", "index": -1}]},
        {"question": "Who?", "given": [{"document_id": "x"}]},
        {"question": "Who?", "given": [{"document_id": "x", "index": number} for number in range(33)]},
        {"question": "Who?", "exclude": [{"document_id": "x", "index": number} for number in range(1001)]},
        {"question": "Who?", "max_total_chunks": 129},
        {"question": "Who?", "max_total_chunks": 0},
        {"continuation": ""},
        {"continuation": "no base64!"},
        {"continuation": "A" * (MAX_CONTINUATION + 1)},
    ],
)
def test_bad_requests_are_refused(client: httpx.Client, fields: Json) -> None:
    problem(client.post("/retrieve", json=fields), 422, "validation_error")


def test_chunks_that_are_not_searched_are_refused_by_name(client: httpx.Client, collection: str) -> None:
    first = add_lines(client, collection, LINES, id=f"{collection}-first", metadata={"year": 1})
    add_lines(client, collection, LINES[:2], id=f"{collection}-second", metadata={"year": 2})
    add_lines(client, f"{collection}-other", LINES, id=f"{collection}-elsewhere")
    good = {"document_id": first["id"], "index": 3}
    for bad, fields in (
        ({"document_id": "nowhere", "index": 0}, {}),
        ({"document_id": first["id"], "index": 4}, {}),
        ({"document_id": f"{collection}-elsewhere", "index": 0}, {}),
        ({"document_id": f"{collection}-second", "index": 0}, {"document_ids": [first["id"]]}),
        ({"document_id": f"{collection}-second", "index": 0}, {"filter": {"field": "year", "equals": 1}}),
    ):
        for name in ("given", "exclude"):
            body = {"question": "Who?", "collection": collection, name: [good, bad], **fields}
            detail = problem(client.post("/retrieve", json=body), 422, "chunk_out_of_scope")["detail"]
            assert detail.startswith(f"{name}.1: chunk {bad['index']} of document '{bad['document_id']}'")
            assert ask(client, "Who?", collection=collection, **{name: [good]}, **fields)["chunks"]


@pytest.fixture(scope="module")
def token(shared_client: httpx.Client) -> str:
    add_lines(shared_client, "tokens", LINES, id="tokens")
    found: str = ask(shared_client, "Who?", collection="tokens", max_steps=2)["continuation"]
    return found


def test_a_continuation_is_short_and_goes_where_a_token_may(token: str) -> None:
    assert len(token) < 700
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def hostile(token: str) -> Iterator[str]:
    """Tokens that differ from one that is right."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place in (*range(0, len(token), 17), len(token) - 1):
        for bit in (1, 32):
            other = alphabet[alphabet.index(token[place]) ^ bit]
            yield token[:place] + other + token[place + 1 :]
    for length in (1, 4, 21, 22, 40, len(token) // 2, len(token) - 4, len(token) - 1):
        yield token[:length]
    yield token + "A"
    yield token + "AAAA"
    yield token + token
    yield "A" * MAX_CONTINUATION
    generator = random.Random(1)
    for length in (0, 16, 17, 300, 6000):
        yield base64.urlsafe_b64encode(generator.randbytes(length) or b"\0").decode().rstrip("=")


def test_tokens_that_are_not_ours_are_refused(client: httpx.Client, token: str) -> None:
    assert client.post("/retrieve", json={"continuation": token}).status_code == 200
    for other in hostile(token):
        problem(client.post("/retrieve", json={"continuation": other}), 422, "invalid_continuation")


def test_a_token_of_another_server_is_refused(limited_client: httpx.Client, token: str) -> None:
    problem(limited_client.post("/retrieve", json={"continuation": token}), 422, "invalid_continuation")


def test_what_does_not_fit_a_token_has_none(client: httpx.Client, collection: str) -> None:
    add_lines(client, collection, LINES)
    names = [random.Random(number).randbytes(60).hex() for number in range(200)]
    wide = {"field": "name", "in": names}
    answer = ask(client, "Who?", collection=collection, filter={"not": wide})
    assert answer["chunks"]
    assert answer["continuation"] is None


# --- What changes meanwhile ---------------------------------------------------------------------------------------


def test_changed_and_deleted_documents_end_a_continuation(client: httpx.Client, collection: str) -> None:
    for name in ("first", "second"):
        add_lines(client, collection, LINES[:2], id=f"{collection}-{name}", metadata={"name": name})
    first = {"filter": {"field": "name", "equals": "first"}}
    answers = [
        ask(client, "Who?", collection=collection, max_steps=1, **first),
        ask(client, "Who?", collection=collection, max_steps=1, document_ids=[f"{collection}-first"]),
        ask(client, "Who?", collection=collection, max_steps=1, given=references([(f"{collection}-first", 0)])),
        ask(client, "Who?", collection=collection, max_steps=1, exclude=references([(f"{collection}-first", 1)])),
    ]
    second = ask(client, "Who?", collection=collection, max_steps=1, document_ids=[f"{collection}-second"])
    add_lines(client, collection, LINES[2:], id=f"{collection}-third")  # what comes is no change of what is there
    client.patch(
        f"/documents/{collection}-first",
        json={"title": "Another", "metadata": {"year": 1}},
        headers={"Content-Type": "application/merge-patch+json"},
    ).raise_for_status()
    for answer in (*answers, second):
        go_on(client, answer, max_steps=1)
    body: Json = {"id": f"{collection}-first", "text": "\n".join(LINES[1:3]), "collection": collection}
    body["chunking"] = {"mode": "lines"}
    assert client.post("/documents", params={"wait": True, "replace": True}, json=body).status_code == 201
    for answer in answers:
        refusal = client.post("/retrieve", json={"continuation": answer["continuation"]})
        problem(refusal, 409, "continuation_outdated")
    go_on(client, second)
    assert client.delete(f"/documents/{collection}-second").status_code == 204
    problem(client.post("/retrieve", json={"continuation": second["continuation"]}), 409, "continuation_outdated")
    moved = ask(client, "Who?", collection=collection, max_steps=1)
    assert client.delete(f"/collections/{collection}").status_code == 204
    problem(client.post("/retrieve", json={"continuation": moved["continuation"]}), 409, "continuation_outdated")


def test_a_document_that_left_the_filter_ends_a_continuation(client: httpx.Client, collection: str) -> None:
    document = add_lines(client, collection, LINES, metadata={"year": 1})
    answer = ask(client, "Who?", collection=collection, max_steps=1, filter={"field": "year", "equals": 1})
    headers = {"Content-Type": "application/merge-patch+json"}
    client.patch(f"/documents/{document['id']}", json={"metadata": {"year": 2}}, headers=headers).raise_for_status()
    problem(client.post("/retrieve", json={"continuation": answer["continuation"]}), 409, "continuation_outdated")


def test_a_continuation_outlasts_the_server(tmp_path: Path, tiny_checkpoint: Path, calibrated_checkpoint: Path) -> None:
    data = tmp_path / "data"
    with running_server(data, tiny_checkpoint) as client:
        add_library(client, "default")
        whole = ask(client, QUESTION, max_steps=5)
        begun = ask(client, QUESTION, max_steps=3)
    key = data / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    content = key.read_bytes()
    with running_server(data, tiny_checkpoint) as client:
        assert key.read_bytes() == content
        continued = go_on(client, begun, max_steps=2)
        assert selected(begun, continued) == selected(whole)
        assert q_of(begun, continued) == pytest.approx(q_of(whole), abs=1e-5)
    with running_server(data, calibrated_checkpoint) as client:  # another one: other weights
        problem(client.post("/retrieve", json={"continuation": begun["continuation"]}), 409, "continuation_outdated")
    shared = "k" * 32
    with running_server(data, tiny_checkpoint, continuation_key=shared) as client:
        problem(client.post("/retrieve", json={"continuation": begun["continuation"]}), 422, "invalid_continuation")
        copied = ask(client, QUESTION, max_steps=1)["continuation"]
    with running_server(tmp_path / "other", tiny_checkpoint, continuation_key=shared) as client:
        add_lines(client, "default", LINES)
        add_lines(client, "default", LINES[:3])
        add_lines(client, "default", LINES[:2])
        # The same key and the same numbers of versions, of other documents.
        problem(client.post("/retrieve", json={"continuation": copied}), 409, "continuation_outdated")
    assert not (tmp_path / "other" / KEY_FILE).exists()


def test_a_damaged_key_stops_the_start(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    server = Server(tmp_path, tiny_checkpoint)
    status, log = server.exit()
    server.kill()
    assert status == 1
    assert f"{KEY_FILE} is damaged. Remove it" in log


def test_a_short_key_is_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="fewer than 32") as refused:
        Settings(continuation_key="guess-me")
    assert "guess-me" not in str(refused.value)


def test_a_signer_knows_its_own_texts_alone(tmp_path: Path) -> None:
    ours, others = signer(None, tmp_path), signer("another key of thirty characters", tmp_path)
    assert signer(None, tmp_path) == ours
    assert "key" not in repr(ours)
    for content in (b"", b"a", b"ab", os.urandom(1000)):
        token = ours.sealed(content)
        assert ours.opened(token) == content
        assert others.opened(token) is None
        assert ours.opened(token[:-1]) is None
        assert ours.opened(f"{token}=") is None
        assert ours.opened(f"{token}é") is None


# --- Rights --------------------------------------------------------------------------------------------------------


def test_a_token_is_no_permission(tmp_path: Path, tiny_checkpoint: Path) -> None:
    keys = tmp_path / "keys.json"
    with running_server(tmp_path, tiny_checkpoint) as client:
        for name in ("a", "b"):
            add_lines(client, name, LINES, id=f"in-{name}")

        def holder(name: str, *rights: Right, collections: list[str] | None = None) -> httpx.Client:
            secret = add_key(keys, name, rights, collections)
            return httpx.Client(base_url=client.base_url, timeout=60, headers={"Authorization": f"Bearer {secret}"})

        with (
            holder("owner", "read", "write") as owner,
            holder("tenant", "read", collections=["a"]) as tenant,
            holder("writer", "write") as writer,
        ):
            ours = ask(owner, "Who?", collection="a", max_steps=1)
            theirs = ask(owner, "Who?", collection="b", max_steps=1)
            assert go_on(tenant, ours)["chunks"]
            body = {"continuation": theirs["continuation"]}
            problem(tenant.post("/retrieve", json=body), 403, "forbidden")
            problem(tenant.post("/retrieve", json={**body, "collection": "a"}), 422, "invalid_continuation")
            problem(tenant.post("/answer", json=body), 403, "forbidden")
            problem(writer.post("/retrieve", json={"continuation": ours["continuation"]}), 403, "forbidden")
            call = {"name": "retrieve", "arguments": body}
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}
            accepted = {"Accept": "application/json, text/event-stream"}
            result = tenant.post("/mcp", params={"collection": "a"}, json=message, headers=accepted).json()["result"]
            assert result["isError"]
            assert result["content"][0]["text"].startswith("forbidden: ")
            for name in ("given", "exclude"):
                details = [
                    problem(
                        tenant.post(
                            "/retrieve", json={"question": "Who?", "collection": "a", name: references([(id, 0)])}
                        ),
                        422,
                        "chunk_out_of_scope",
                    )["detail"]
                    for id in ("in-b", "nowhere")
                ]
                assert details[0] == details[1].replace("nowhere", "in-b")
