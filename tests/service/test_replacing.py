"""Documents that change: replaced as a whole while the former content is searched, or described anew in place."""

from __future__ import annotations

import threading

import httpx
import pytest

from tests.service.helpers import PLAIN, Json, add, ask, ids_in, lines_of_text, problem, until

LONG = 6_000
"""Lines that keep the indexing thread busy while a test looks at it."""


def replace(client: httpx.Client, id: str, collection: str, text: str, **query: str) -> httpx.Response:
    parameters = {"id": id, "collection": collection, "replace": "true", "chunking": "lines", **query}
    return client.post("/documents", params=parameters, content=text, headers=PLAIN)


def found(client: httpx.Client, collection: str) -> set[str]:
    chunks = ask(client, "Who signed?", collection=collection, max_steps=3)["chunks"]
    return {chunk["text"] for chunk in chunks}


def test_the_old_version_is_searched_until_the_new_one_is_ready_and_both_switch_at_once(
    client: httpx.Client, collection: str
) -> None:
    id = f"{collection}-letter"
    old = add(client, "Ana signed.", id=id, collection=collection)
    answer = replace(client, id, collection, lines_of_text(LONG))
    assert answer.status_code == 202
    shown: Json = answer.json()
    assert {**shown, "replacement": None} == old
    assert shown["replacement"]["status"] in ("queued", "indexing")
    location = answer.headers["Location"]
    assert ids_in(client, collection) == [id]
    replacements: list[Json] = []

    def switched() -> bool:
        document = client.get(location).json()
        chunks = found(client, collection)
        if document["replacement"] is not None:
            replacements.append(document["replacement"])
            assert document["chunks"] == 1
        else:
            assert "Ana signed." not in chunks
            assert document["chunks"] == LONG
        return document["replacement"] is None

    assert found(client, collection) == {"Ana signed."}
    until(switched)
    progress = [each["progress"] for each in replacements]
    assert progress == sorted(progress)
    assert any(0 < each < 1 for each in progress)
    assert {each["error"] for each in replacements} == {None}
    again = replace(client, id, collection, lines_of_text(LONG))
    assert (again.status_code, again.json()) == (200, client.get(location).json())


def test_whoever_waits_gets_the_new_one(client: httpx.Client, collection: str) -> None:
    id = f"{collection}-letter"
    add(client, "Ana signed.", id=id, collection=collection)
    answer = replace(client, id, collection, "Bruno signed.", wait="true")
    assert (answer.status_code, answer.json()["replacement"]) == (201, None)
    assert answer.json() == client.get(f"/documents/{id}").json()
    assert found(client, collection) == {"Bruno signed."}


def test_deleting_and_replacing_again_end_a_replacement(client: httpx.Client, collection: str) -> None:
    id = f"{collection}-letter"
    add(client, "Ana signed.", id=id, collection=collection)
    answers: list[httpx.Response] = []

    def wait() -> None:
        with httpx.Client(base_url=client.base_url, timeout=60) as other:
            query = {"id": id, "collection": collection, "replace": "true", "chunking": "lines", "wait": "true"}
            answers.append(other.post("/documents", params=query, content=lines_of_text(LONG), headers=PLAIN))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: client.get(f"/documents/{id}").json()["replacement"] is not None)
    back = client.post(
        "/documents", params={"replace": True}, json={"id": id, "text": "Ana signed.", "collection": collection}
    )
    assert (back.status_code, back.json()["replacement"]) == (200, None)
    thread.join(60)
    problem(answers[0], 409, "documents_changed")
    replace(client, id, collection, lines_of_text(LONG))
    assert client.delete(f"/documents/{id}").status_code == 204
    problem(client.get(f"/documents/{id}"), 404, "unknown_document")
    survivor = add(client, "Clara signed.", collection=collection)  # behind everything that was in the queue
    assert ids_in(client, collection) == [survivor["id"]]
    assert found(client, collection) == {"Clara signed."}


def test_documents_are_listed_by_title(client: httpx.Client, collection: str) -> None:
    letters = [
        add(client, text, title="Letter ü", collection=collection)["id"] for text in ("Ana signed.", "Bruno signed.")
    ]
    add(client, "Clara signed.", title="Note", collection=collection)
    page = client.get("/documents", params={"collection": collection, "title": "Letter ü", "limit": 1}).json()
    assert [document["id"] for document in page["documents"]] == letters[:1]
    query = {"collection": collection, "title": "Letter ü", "cursor": page["next_cursor"]}
    assert [document["id"] for document in client.get("/documents", params=query).json()["documents"]] == letters[1:]


# --- In place ------------------------------------------------------------------------------------------


def patch(client: httpx.Client, id: str, change: object, **headers: str) -> httpx.Response:
    return client.patch(
        f"/documents/{id}", json=change, headers={"Content-Type": "application/merge-patch+json", **headers}
    )


def test_metadata_is_merged_and_filters_see_it_at_once(client: httpx.Client, collection: str) -> None:
    metadata = {"year": 2024, "draft": True, "by": {"name": "Ana", "room": 3}}
    document = add(client, "Ana signed.", title="Letter", metadata=metadata, collection=collection)
    recent = {"field": "year", "gte": 2025}
    assert ask(client, "Who?", collection=collection, filter=recent)["chunks"] == []
    change = {"metadata": {"year": 2025, "draft": None, "by": {"room": None}, "tags": ["a"]}}
    answer = patch(client, document["id"], change)
    assert answer.status_code == 200
    expected = {"year": 2025, "by": {"name": "Ana"}, "tags": ["a"]}
    assert answer.json() == {**document, "metadata": expected, "updated_at": answer.json()["updated_at"]}
    (chunk,) = ask(client, "Who?", collection=collection, filter=recent)["chunks"]
    assert chunk["metadata"] == expected
    named = patch(client, document["id"], {"title": "Lease"}, **{"Content-Type": "application/json"})
    assert (named.json()["title"], named.json()["metadata"]) == ("Lease", expected)
    assert patch(client, document["id"], {}).json() == client.get(f"/documents/{document['id']}").json()
    assert patch(client, document["id"], {"title": None}).json()["title"] is None
    (chunk,) = ask(client, "Who?", collection=collection)["chunks"]
    assert (chunk["title"], chunk["text"]) == (None, "Ana signed.")


@pytest.mark.parametrize("change", [{"text": "Bruno signed."}, {"metadata": None}, {"metadata": [1]}, [], "x"])
def test_a_change_of_anything_else_is_refused(client: httpx.Client, collection: str, change: object) -> None:
    document = add(client, "Ana signed.", collection=collection)
    problem(patch(client, document["id"], change), 422, "validation_error")
    assert client.get(f"/documents/{document['id']}").json() == document


def test_a_change_that_makes_metadata_too_long_changes_nothing(client: httpx.Client, collection: str) -> None:
    document = add(client, "Ana signed.", metadata={"a": "x" * 9_000}, collection=collection)
    refused = problem(patch(client, document["id"], {"metadata": {"b": "x" * 9_000}}), 409, "metadata_too_long")
    assert "more than 16384 bytes" in refused["detail"]
    assert client.get(f"/documents/{document['id']}").json() == document


def test_a_change_says_what_it_is_and_whose(client: httpx.Client, collection: str) -> None:
    document = add(client, "Ana signed.", collection=collection)
    answer = patch(client, document["id"], {"title": "A"}, **{"Content-Type": "text/plain"})
    problem(answer, 415, "unsupported_media_type")
    problem(patch(client, f"{collection}-none", {"title": "A"}), 404, "unknown_document")
