"""Uploads over HTTP: every way in, and what the same content does when it comes again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest

from qrag.wire.media_types import MediaType
from tests.service.files import docx, paragraph, pdf, shown
from tests.service.helpers import PLAIN, UNICODE, Json, add, ask, chunks_of, ids_in, problem, sha256, text_of, until

# --- The ways in --------------------------------------------------------------------------------------


def test_json_document_with_wait_is_there_and_searchable(client: httpx.Client, collection: str) -> None:
    fields = {
        "id": f"{collection}.minutes:1@x",
        "title": "Minutes, März",
        "collection": collection,
        "metadata": {"year": 2024, "tags": ["a", "b"], "draft": False, "note": None, "deep": {"x": 1.5}},
        "chunking": {"mode": "lines", "max_tokens": 16},
    }
    text = "Ana signed the lease.\nThe office moved."
    answer = client.post("/documents?wait=true", json={"text": text, **fields})
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/documents/{fields['id']}"
    document = answer.json()
    assert document == client.get(answer.headers["Location"]).json()
    assert {name: document[name] for name in fields} == fields
    assert document["characters"] == len(text)
    assert document["sha256"] == sha256(text)
    assert (document["status"], document["progress"], document["error"]) == ("ready", 1.0, None)
    assert document["chunks"] == 2
    assert document["tokens"] == sum(chunk["tokens"] for chunk in chunks_of(client, document["id"])) > 0
    assert datetime.fromisoformat(document["created_at"]) <= datetime.fromisoformat(document["updated_at"])
    assert [chunk["text"] for chunk in ask(client, "Who?", collection=collection)["chunks"]] == text.split("\n")


def test_defaults_of_a_json_document(client: httpx.Client) -> None:
    document = add(client, "Nothing but a text, and it says so once.")
    assert document["id"].startswith("doc-")
    assert (document["title"], document["collection"], document["metadata"]) == (None, "default", {})
    assert document["chunking"] == {"mode": "sentences", "max_tokens": None}


def test_without_wait_the_answer_is_202_and_indexing_follows(client: httpx.Client, collection: str) -> None:
    answer = client.post("/documents", json={"text": "Soon to be found.", "collection": collection})
    assert answer.status_code == 202
    location = answer.headers["Location"]
    assert location == f"/documents/{answer.json()['id']}"
    assert answer.json()["status"] in ("queued", "indexing")
    until(lambda: client.get(location).json()["status"] == "ready")
    assert len(ask(client, "What?", collection=collection)["chunks"]) == 1


def test_many_json_documents_keep_their_order(client: httpx.Client, collection: str) -> None:
    texts = [f"Document number {number}." for number in range(30)]
    body = {"documents": [{"text": text, "collection": collection} for text in texts]}
    answer = client.post("/documents", json=body)
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/documents?collection={collection}"
    posted = answer.json()["documents"]
    assert [document["sha256"] for document in posted] == [sha256(text) for text in texts]
    listed = client.get(answer.headers["Location"]).json()["documents"]
    assert [document["id"] for document in listed] == [document["id"] for document in posted]
    again = client.post("/documents?wait=true", json=body)
    assert again.status_code == 200
    assert [document["status"] for document in again.json()["documents"]] == ["ready"] * 30


def test_many_with_wait_are_all_ready(client: httpx.Client, collection: str) -> None:
    body = {"documents": [{"text": f"{number} apples.", "collection": collection} for number in range(5)]}
    answer = client.post("/documents?wait=true", json=body)
    assert answer.status_code == 201
    assert [document["status"] for document in answer.json()["documents"]] == ["ready"] * 5


def test_one_document_in_a_list_is_answered_with_a_list(client: httpx.Client, collection: str) -> None:
    answer = client.post("/documents", json={"documents": [{"text": "Alone.", "collection": collection}]})
    assert [document["collection"] for document in answer.json()["documents"]] == [collection]


@pytest.mark.parametrize("wait", [False, True])
def test_the_same_document_twice_in_a_request_is_one(client: httpx.Client, collection: str, wait: bool) -> None:
    document = {"id": f"{collection}-twin", "text": "Twin.", "collection": collection}
    answer = client.post("/documents", params={"wait": wait}, json={"documents": [document, document]})
    assert answer.status_code == (201 if wait else 202)
    assert [each["id"] for each in answer.json()["documents"]] == [document["id"]] * 2
    assert ids_in(client, collection) == [document["id"]]


@pytest.mark.parametrize("replace", [False, True])
def test_an_id_twice_in_a_request_with_other_content_is_refused_whole(
    client: httpx.Client, collection: str, replace: bool
) -> None:
    texts = ("Before.", "One.", "Two.")
    documents = [
        {"id": f"{collection}-{i > 0}", "text": text, "collection": collection} for i, text in enumerate(texts)
    ]
    answer = client.post("/documents", params={"replace": replace}, json={"documents": documents})
    problem(answer, 409, "document_conflict")
    assert ids_in(client, collection) == []


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain", "Ünïcode 🎉\r\n".encode(), "Ünïcode 🎉\r\n"),
        ("Text/Plain; Charset=UTF-8", "naïve".encode(), "naïve"),
        ("text/plain; charset=windows-1252", b"\x93caf\xe9\x94", "“café”"),
        ("text/plain; charset=koi8-r", "Привет".encode("koi8-r"), "Привет"),
        ("text/plain; charset=utf-16", "a 𝄞 b".encode("utf-16"), "a 𝄞 b"),
        ("text/plain; charset=gb18030", "中文 😀".encode("gb18030"), "中文 😀"),
        ('text/plain; charset="shift_jis"', "日本".encode("shift_jis"), "日本"),
        ("text/plain", b"", ""),
        ("text/markdown", b"# Head\n\nSome *strong* text.", "Head\n\nSome strong text."),
        ("text/html; charset=iso-8859-1", b"<p>caf\xe9 <script>no()</script>&amp; bar", "café & bar"),
        ("application/pdf", pdf([shown(b"First page"), shown(b"Second page")]), "First page\n\nSecond page"),
        (
            MediaType.DOCX.value,
            docx(paragraph("One paragraph.") + paragraph("And another.")),
            "One paragraph.\n\nAnd another.",
        ),
    ],
)
def test_raw_bodies_become_the_text_they_hold(
    client: httpx.Client, collection: str, content_type: str, body: bytes, text: str
) -> None:
    parameters = {
        "wait": "true",
        "id": f"{collection}-raw",
        "title": "A title & more",
        "collection": collection,
        "metadata": '{"year": 1923}',
        "chunking": "paragraphs",
    }
    answer = client.post("/documents", params=parameters, content=body, headers={"Content-Type": content_type})
    assert answer.status_code == 201, answer.text
    document = answer.json()
    assert text_of(client, document["id"]) == text
    assert document["sha256"] == sha256(text)
    assert (document["title"], document["collection"]) == ("A title & more", collection)
    assert document["metadata"] == {"year": 1923}
    assert document["chunking"] == {"mode": "paragraphs", "max_tokens": None}


def test_what_a_file_says_of_itself_is_noted_once_more_on_request(client: httpx.Client, collection: str) -> None:
    def posted(own: str, **parameters: str) -> Json:
        body = f"---\nauthor: Ana\nstatus: {own}\n---\nWords."
        parameters |= {"collection": collection, "metadata": '{"author": "Ben"}'}
        answer = client.post("/documents", params=parameters, content=body, headers={"Content-Type": "text/markdown"})
        document: Json = answer.raise_for_status().json()
        return document

    plain = {"author": "Ben", "status": "draft"}
    assert posted("draft")["metadata"] == plain
    assert posted("draft", file_fields="true")["metadata"] == {**plain, "file_fields": {"status": "draft"}}
    long = posted("long " * 2_000, file_fields="true")
    assert long["metadata"].keys() == plain.keys()
    assert "no room" in long["warnings"][0]


def test_raw_text_is_decoded_across_network_chunks(client: httpx.Client, collection: str) -> None:
    def byte_by_byte() -> Iterator[bytes]:
        for byte in UNICODE.encode("utf-8"):
            yield bytes([byte])

    parameters = {"wait": "true", "collection": collection, "chunking": '{"mode": "lines", "max_tokens": 9}'}
    answer = client.post("/documents", params=parameters, content=byte_by_byte(), headers=PLAIN)
    assert answer.status_code == 201
    assert text_of(client, answer.json()["id"]) == UNICODE
    assert answer.json()["chunking"] == {"mode": "lines", "max_tokens": 9}


def test_form_with_one_file_and_fields(client: httpx.Client, collection: str) -> None:
    fields = {"id": f"{collection}-form", "collection": collection, "metadata": '{"a": [1]}', "chunking": "whole"}
    answer = client.post("/documents?wait=true", data=fields, files={"file": ("Notes ü.txt", UNICODE.encode())})
    assert answer.status_code == 201, answer.text
    document = answer.json()
    assert (document["id"], document["title"]) == (f"{collection}-form", "Notes ü.txt")
    assert (document["metadata"], document["chunking"]["mode"]) == ({"a": [1]}, "whole")
    assert text_of(client, document["id"]) == UNICODE


def test_form_with_files_of_every_type(client: httpx.Client, collection: str) -> None:
    files: list[tuple[str, tuple[str, bytes] | tuple[str, bytes, str]]] = [
        ("file", ("plain.txt", b"Plain words.", "application/octet-stream")),
        ("file", ("latin", b"caf\xe9", "text/plain; charset=latin-1")),
        ("file", ("notes.md", b"*Marked* words.")),
        ("more", ("page.html", b"<p>Web words.")),
        ("file", ("paper.pdf", pdf([shown(b"Printed words.")]))),
        ("file", ("letter.docx", docx(paragraph("Typed words.")))),
    ]
    answer = client.post(f"/documents?wait=true&collection={collection}", files=files, data={"chunking": "lines"})
    assert answer.status_code == 201, answer.text
    documents = answer.json()["documents"]
    assert [document["title"] for document in documents] == [file[0] for _, file in files]
    texts = [text_of(client, document["id"]) for document in documents]
    assert texts == ["Plain words.", "café", "Marked words.", "Web words.", "Printed words.", "Typed words."]
    assert {document["collection"] for document in documents} == {collection}
    assert {document["chunking"]["mode"] for document in documents} == {"lines"}


def test_form_title_goes_before_the_file_name(client: httpx.Client, collection: str) -> None:
    files = [("file", (name, name.encode(), "text/plain")) for name in ("a", "b")]
    answer = client.post("/documents", data={"title": "Both", "collection": collection}, files=files)
    assert [document["title"] for document in answer.json()["documents"]] == ["Both", "Both"]


# --- The same content, other content --------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
def test_same_content_again_is_200_and_no_second_copy(client: httpx.Client, collection: str, named: bool) -> None:
    fields: Json = {"collection": collection, "title": "T", "metadata": {"b": 1, "a": 2}}
    if named:
        fields["id"] = f"{collection}-same"
    first = add(client, "The same.", **fields)
    again = client.post("/documents", json={"text": "The same.", **fields, "metadata": {"a": 2, "b": 1}})
    assert again.status_code == 200
    assert again.json() == first
    assert again.headers["Location"] == f"/documents/{first['id']}"
    raw = {name: value for name, value in fields.items() if name != "metadata"} | {"metadata": '{"a": 2, "b": 1}'}
    assert client.post("/documents", params=raw, content="The same.", headers=PLAIN).json() == first
    assert ids_in(client, collection) == [first["id"]]
    assert ask(client, "What?", collection=collection)["usage"]["candidates"] == 1


@pytest.mark.parametrize(
    "change",
    [{"text": "Other."}, {"title": "U"}, {"metadata": {"a": 2}}, {"chunking": {"mode": "whole"}}, {"collection": "x"}],
)
def test_other_content_under_the_id_is_409_unless_it_is_to_replace(
    client: httpx.Client, collection: str, change: Json
) -> None:
    if "collection" in change:
        change = {"collection": f"{collection}-x"}
    original: Json = {
        "id": f"{collection}-id",
        "text": "First.",
        "title": "T",
        "metadata": {"a": 1},
        "collection": collection,
    }
    first = add(client, **original)
    answer = client.post("/documents", json={**original, **change})
    assert "replace=true" in problem(answer, 409, "document_conflict")["detail"]
    assert client.get(f"/documents/{first['id']}").json() == first
    replaced = client.post("/documents?replace=true&wait=true", json={**original, **change})
    assert replaced.status_code == 201
    now = client.get(f"/documents/{first['id']}").json()
    assert now == replaced.json()
    assert text_of(client, first["id"]) == {**original, **change}["text"]
    assert sum(ids_in(client, name).count(first["id"]) for name in {collection, now["collection"]}) == 1
    found = ask(client, "What?", collection=now["collection"])["chunks"]
    assert [(chunk["text"], chunk["title"], chunk["metadata"]) for chunk in found] == [
        (text_of(client, first["id"]), now["title"], now["metadata"])
    ]


def test_other_content_without_an_id_is_another_document(client: httpx.Client, collection: str) -> None:
    documents = [add(client, "Text.", collection=collection, title=title) for title in (None, "A", "B")]
    assert len({document["id"] for document in documents}) == 3


def test_a_bad_document_among_many_keeps_all_out(client: httpx.Client, collection: str) -> None:
    taken = add(client, "Taken.", id=f"{collection}-taken", collection=collection)
    documents = [
        {"text": "New.", "collection": collection},
        {"text": "Other.", "id": taken["id"], "collection": collection},
    ]
    problem(client.post("/documents", json={"documents": documents}), 409, "document_conflict")
    assert ids_in(client, collection) == [taken["id"]]
