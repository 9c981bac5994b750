"""Nothing from another collection, of a deleted or a filtered document ever comes back, whatever happened before."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.servers import running_server
from tests.service.helpers import Json, add, ask, problem, stream

SECRET = "The vault opens with the number four four seven one."
QUESTION = "With which number does the vault open?"


@dataclass(frozen=True)
class Stored:
    """What a test knows of a document that it has stored."""

    collection: str
    lines: tuple[str, ...]
    year: int


def places(result: Json) -> set[tuple[str, int]]:
    """Every chunk that an answer mentions anywhere."""
    mentions = [*result["chunks"], *result["citations"], *result["steps"], *(result["one_step"] or [])]
    mentions += [candidate for step in result["steps"] for candidate in step["candidates"] or []]
    return {(each["document_id"], each["index"]) for each in mentions}


def expect_exactly(client: httpx.Client, collection: str, documents: dict[str, Stored], **fields: object) -> None:
    """An exhaustive retrieval returns the chunks of these documents, each once, and no others."""
    result = ask(client, QUESTION, collection=collection, max_steps=32, trace=True, **fields)
    wanted = {(id, index): line for id, stored in documents.items() for index, line in enumerate(stored.lines)}
    assert {(chunk["document_id"], chunk["index"]): chunk["text"] for chunk in result["chunks"]} == wanted
    assert len(result["chunks"]) == result["usage"]["candidates"] == len(wanted)
    assert result["stopped_by"] == ("budget" if len(wanted) == 32 else "exhausted")
    assert places(result) == set(wanted)


# --- The same text elsewhere -------------------------------------------------------------------------------


def add_secrets(client: httpx.Client, mine: str, others: str) -> None:
    """The answer lies everywhere, word for word, but may be found only in ``<mine>-open`` of collection ``mine``."""
    add(client, SECRET, id=f"{mine}-open", collection=mine, metadata={"secret": False})
    add(client, SECRET, id=f"{mine}-filtered", collection=mine, metadata={"secret": True})
    add(client, SECRET, id=f"{mine}-deleted", collection=mine, metadata={"secret": False}, title="once more")
    for number in range(3):
        add(client, SECRET, id=f"{others}-{number}", collection=others, metadata={"secret": False}, title=str(number))
    add(client, SECRET, id=f"{mine}-moved", collection=mine, metadata={"secret": False}, title="moved")
    assert client.delete(f"/documents/{mine}-deleted").status_code == 204
    moved = {"id": f"{mine}-moved", "text": SECRET, "collection": others}
    assert client.post("/documents", params={"wait": True, "replace": True}, json=moved).status_code == 201


def expect_only_the_open_one(client: httpx.Client, mine: str) -> None:
    plain = {"field": "secret", "equals": False}
    for fields in (
        {"filter": plain},
        {"filter": plain, "beam_width": 4},
        {"filter": {"not": {"field": "secret", "equals": True}}},
        {"document_ids": [f"{mine}-open"]},
        {"document_ids": [f"{mine}-open", f"{mine}-filtered"], "filter": plain},
    ):
        expect_exactly(client, mine, {f"{mine}-open": Stored(mine, (SECRET,), 0)}, **fields)
        events = stream(client, QUESTION, collection=mine, trace=True, **fields)
        assert [event["document_id"] for name, event in events if name == "step"] == [f"{mine}-open"]
        assert places(events[-1][1]) == {(f"{mine}-open", 0)}
    both = {f"{mine}-{name}": Stored(mine, (SECRET,), 0) for name in ("open", "filtered")}
    expect_exactly(client, mine, both)
    for id in (f"{mine}-deleted", f"{mine}-moved"):
        body = {"question": QUESTION, "collection": mine, "document_ids": [f"{mine}-open", id]}
        problem(client.post("/retrieve", json=body), 404, "unknown_document")


def test_the_same_text_elsewhere_is_never_returned(shared_client: httpx.Client, collection: str) -> None:
    add_secrets(shared_client, collection, f"{collection}-others")
    expect_only_the_open_one(shared_client, collection)


def test_unready_documents_are_never_returned(shared_client: httpx.Client, collection: str) -> None:
    add(shared_client, SECRET, id=f"{collection}-ready", collection=collection)
    lines = [f"{SECRET} {number}" for number in range(20_000)]
    long = {"id": f"{collection}-long", "collection": collection, "chunking": {"mode": "lines"}}
    assert shared_client.post("/documents", json={**long, "text": "\n".join(lines)}).status_code == 202
    answers = 0
    while shared_client.get(f"/documents/{collection}-long").json()["status"] != "ready":
        # A change elsewhere makes the service look anew at what there is to search.
        noise = {"id": f"{collection}-noise", "text": f"Noise {answers}.", "collection": f"{collection}-noise"}
        assert shared_client.post("/documents", params={"replace": True}, json=noise).status_code == 202
        result = ask(shared_client, QUESTION, collection=collection, max_steps=2, trace=True)
        if result["usage"]["candidates"] != 20_001:  # all of a document or nothing
            assert result["usage"]["candidates"] == 1
            assert places(result) == {(f"{collection}-ready", 0)}
        answers += 1
    assert answers > 0
    assert ask(shared_client, QUESTION, collection=collection)["usage"]["candidates"] == 20_001


def test_answers_while_documents_come_and_go_are_of_one_moment(shared_client: httpx.Client, collection: str) -> None:
    """Each version of a document says its number in every line; an answer never mixes two, nor text and index."""
    id = f"{collection}-changing"
    add(shared_client, "Stays.", collection=collection)
    stop = threading.Event()
    answers: list[httpx.Response] = []

    def keep_asking() -> None:
        with httpx.Client(base_url=shared_client.base_url, timeout=60) as client:
            while not stop.is_set():
                body = {"question": QUESTION, "collection": collection, "max_steps": 8}
                answers.append(client.post("/retrieve", json=body))

    threads = [threading.Thread(target=keep_asking) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for version in range(12):
            text = "\n".join(f"Version {version}, line {line}." for line in range(3))
            body = {"id": id, "text": text, "collection": collection, "chunking": {"mode": "lines"}}
            shared_client.post("/documents", params={"wait": True, "replace": True}, json=body).raise_for_status()
            whole = {"question": QUESTION, "collection": collection, "document_ids": [id]}
            answers.append(shared_client.post("/retrieve", json=whole))
            if version % 3 == 2:
                assert shared_client.delete(f"/documents/{id}").status_code == 204
                answers.append(shared_client.post("/retrieve", json={"question": QUESTION, "collection": collection}))
                assert [chunk["text"] for chunk in answers[-1].json()["chunks"]] == ["Stays."]
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    seen = set()
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, 409, "documents_changed")
            continue
        found = {chunk["index"]: chunk["text"] for chunk in answer.json()["chunks"] if chunk["document_id"] == id}
        versions = {text.partition(",")[0] for text in found.values()}
        assert len(versions) <= 1
        assert all(text.endswith(f", line {index}.") for index, text in found.items())
        assert len(found) in (0, 3)
        seen |= versions
    assert seen == {f"Version {version}" for version in range(12)}


# --- Any sequence of operations --------------------------------------------------------------------------

NAMES = ("n0", "n1", "n2", "n3", "n4")
LINES = st.lists(st.sampled_from([SECRET, "Bees swarm in June.", "A boat."]), min_size=1, max_size=3).map(tuple)
YEARS = st.sampled_from([1923, 1950])
COLLECTIONS = st.sampled_from(range(3))


class Operations(RuleBasedStateMachine):
    """Indexing, replacing and deleting in three collections, beside a dictionary that does the same."""

    def __init__(self, client: httpx.Client, prefix: str) -> None:
        super().__init__()
        self.client = client
        self.prefix = prefix
        self.model: dict[str, Stored] = {}
        for number in range(3):
            assert client.delete(f"/collections/{self.name(number)}").status_code in (204, 404)

    def name(self, collection: int) -> str:
        return f"{self.prefix}-{collection}"

    def body(self, id: str, stored: Stored) -> Json:
        text = "\n".join(stored.lines)
        metadata = {"year": stored.year}
        return {
            "id": id, "text": text, "collection": stored.collection, "metadata": metadata, "chunking": {"mode": "lines"}
        }  # fmt: skip

    @rule(name=st.sampled_from(NAMES), collection=COLLECTIONS, lines=LINES, year=YEARS, replace=st.booleans())
    def post(self, name: str, collection: int, lines: tuple[str, ...], year: int, replace: bool) -> None:
        id, new = f"{self.prefix}.{name}", Stored(self.name(collection), lines, year)
        answer = self.client.post("/documents", params={"wait": True, "replace": replace}, json=self.body(id, new))
        old = self.model.get(id)
        if old is not None and old != new and not replace:
            problem(answer, 409, "document_conflict")
            return
        assert answer.status_code == (200 if old == new else 201)
        self.model[id] = new

    @rule(names=st.permutations(NAMES), collection=COLLECTIONS, lines=LINES, year=YEARS)
    def replace_many(self, names: Sequence[str], collection: int, lines: tuple[str, ...], year: int) -> None:
        new = {f"{self.prefix}.{name}": Stored(self.name(collection), lines, year) for name in names[:3]}
        body = {"documents": [self.body(id, stored) for id, stored in new.items()]}
        answer = self.client.post("/documents", params={"wait": True, "replace": True}, json=body)
        assert answer.status_code in (200, 201)
        self.model |= new

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        known = self.model.pop(f"{self.prefix}.{name}", None)
        assert self.client.delete(f"/documents/{self.prefix}.{name}").status_code == (204 if known else 404)

    @rule(collection=COLLECTIONS)
    def delete_collection(self, collection: int) -> None:
        gone = [id for id, stored in self.model.items() if stored.collection == self.name(collection)]
        answer = self.client.delete(f"/collections/{self.name(collection)}")
        assert answer.status_code == (204 if gone else 404)
        for id in gone:
            del self.model[id]

    @invariant()
    def nothing_leaks(self) -> None:
        expect_model(self.client, [self.name(number) for number in range(3)], self.model)


def expect_model(client: httpx.Client, collections: Sequence[str], model: dict[str, Stored]) -> None:
    for collection in collections:
        inside = {id: stored for id, stored in model.items() if stored.collection == collection}
        listed = client.get("/documents", params={"collection": collection}).json()["documents"]
        assert {document["id"] for document in listed} == set(inside)
        if not inside:
            body = {"question": QUESTION, "collection": collection}
            problem(client.post("/retrieve", json=body), 404, "unknown_collection")
            continue
        expect_exactly(client, collection, inside)
        old = {id: stored for id, stored in inside.items() if stored.year < 1950}
        expect_exactly(client, collection, old, filter={"field": "year", "lt": 1950})
        first = min(inside)
        expect_exactly(client, collection, {first: inside[first]}, document_ids=[first])


def test_any_sequence_of_operations_leaves_what_it_should(shared_client: httpx.Client, collection: str) -> None:
    class HereAndNow(Operations):
        def __init__(self) -> None:
            super().__init__(shared_client, collection)

    run_state_machine_as_test(
        HereAndNow,
        settings=settings(
            max_examples=6, stateful_step_count=10, deadline=None, suppress_health_check=[HealthCheck.too_slow]
        ),
    )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> tuple[Path, dict[str, Stored]]:
    """A directory that a service has left behind after many changes, and what must be in it."""
    directory = tmp_path_factory.mktemp("restart")
    model: dict[str, Stored] = {}
    with running_server(directory, tiny_checkpoint) as client:
        add_secrets(client, "mine", "others")
        for round_ in range(3):
            for number in range(6):
                id = f"d{number}"
                new = Stored(f"c{(number + round_) % 3}", (SECRET, f"Round {round_}.")[: 1 + number % 2], 1900 + number)
                body = {
                    "id": id,
                    "text": "\n".join(new.lines),
                    "collection": new.collection,
                    "metadata": {"year": new.year},
                    "chunking": {"mode": "lines"},
                }
                client.post("/documents", params={"replace": True, "wait": True}, json=body).raise_for_status()
                model[id] = new
        for id in ("d0", "d4"):
            assert client.delete(f"/documents/{id}").status_code == 204
            del model[id]
    return directory, model


def test_a_restart_brings_nothing_back(data_dir: tuple[Path, dict[str, Stored]], tiny_checkpoint: Path) -> None:
    directory, model = data_dir
    with running_server(directory, tiny_checkpoint) as client:
        expect_only_the_open_one(client, "mine")
        expect_model(client, ["c0", "c1", "c2"], model)
        add(client, SECRET, collection="c9")
        expect_model(client, ["c0", "c1", "c2"], model)
