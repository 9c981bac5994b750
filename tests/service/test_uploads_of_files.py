"""What a file says of itself, what was left out of it, and where its parts stand, over HTTP."""

from __future__ import annotations

import httpx
import pytest

from tests.service.files import docx, paragraph, pdf, shown
from tests.service.helpers import Json, ask, chunks_of, problem, text_of
from tests.service.packages import xlsx

PAGE = b"<!doctype html><html lang=en><head><title>The Mill</title><meta name=author content=Ida></head><body>"


def upload(client: httpx.Client, content: bytes, name: str, **fields: str) -> Json:
    answer = client.post("/documents?wait=true", data=fields, files={"file": (name, content)})
    assert answer.status_code == 201, answer.text
    document: Json = answer.json()
    return document


def test_title_and_metadata_are_the_files_own_unless_the_upload_has_them(client: httpx.Client, collection: str) -> None:
    content = PAGE + b"<p>It was sold."
    document = upload(client, content, "page.html", collection=collection)
    assert (document["title"], document["metadata"]) == ("The Mill", {"author": "Ida", "language": "en"})
    given = upload(client, content, "page.html", collection=collection, title="Mine", metadata='{"author": "Otto"}')
    assert (given["title"], given["metadata"]) == ("Mine", {"author": "Otto", "language": "en"})
    untitled = upload(client, b"<p>Nothing but words.", "page.html", collection=collection)
    assert (untitled["title"], untitled["metadata"]) == ("page.html", {})


def test_a_raw_body_may_have_a_file_name(client: httpx.Client, collection: str) -> None:
    query = {"wait": "true", "collection": collection, "filename": "prices.csv"}
    headers = {"Content-Type": "application/octet-stream"}
    answer = client.post("/documents", params=query, content=b"item,price\nbread,3\n", headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["title"] == "prices.csv"
    assert [chunk["text"] for chunk in chunks_of(client, answer.json()["id"])] == ["item: bread; price: 3"]


def test_metadata_of_a_file_that_is_too_much_is_left_out(client: httpx.Client, collection: str) -> None:
    fields = "".join(f"field{number}: {'x' * 1000}\n" for number in range(40))
    content = f"---\ntitle: T\n{fields}---\nText.".encode()
    document = upload(client, content, "a.md", collection=collection, metadata='{"a": 1}')
    assert (document["title"], document["metadata"]) == ("T", {"a": 1})


def test_what_was_left_out_is_said(client: httpx.Client, collection: str) -> None:
    document = upload(client, pdf([shown(b"Words."), b""]), "a.pdf", collection=collection)
    assert len(document["warnings"]) == 1
    assert "Pages without text: 2." in document["warnings"][0]
    assert client.get(f"/documents/{document['id']}").json() == document
    assert upload(client, b"All of it.", "a.txt", collection=collection)["warnings"] == []


def test_chunks_say_where_they_stand_in_answers_contexts_and_citations(client: httpx.Client, collection: str) -> None:
    content = docx(
        paragraph("Leases", "<w:outlineLvl w:val='0'/>")
        + paragraph("Ana signed the lease.")
        + paragraph("Bees", "<w:outlineLvl w:val='1'/>")
        + paragraph("Bruno kept bees.")
    )
    document = upload(client, content, "office.docx", collection=collection, chunking="paragraphs")
    headings = [chunk["location"]["headings"] for chunk in chunks_of(client, document["id"])]
    assert headings == [["Leases"], ["Leases"], ["Leases", "Bees"], ["Leases", "Bees"]]
    found = ask(client, "Who kept bees?", collection=collection, max_steps=4)
    for chunk, citation in zip(found["chunks"], found["citations"], strict=True):
        assert chunk["location"] == citation["location"]
        place = " > ".join(chunk["location"]["headings"])
        assert f"{citation['marker']} office.docx ({place})\n{chunk['text']}" in found["context"]


@pytest.mark.parametrize("page", [1, 2])
def test_a_chunk_of_a_pdf_file_knows_its_page(client: httpx.Client, collection: str, page: int) -> None:
    content = pdf([shown(b"Ana signed the lease."), shown(b"Bruno kept bees.")])
    document = upload(client, content, "a.pdf", collection=collection, chunking="lines")
    chunk = chunks_of(client, document["id"])[page - 1]
    assert chunk["location"] == {"page": page, "label": None, "headings": [], "sheet": None, "row": None}


def test_rows_fit_the_chunks_that_were_asked_for(client: httpx.Client, collection: str) -> None:
    row = ["key"] + [f"value number {number} of the row" for number in range(12)]
    content = xlsx({"S": [[f"head{number}" for number in range(13)], row]})
    small = upload(client, content, "a.xlsx", collection=collection)
    large = upload(
        client, content, "a.xlsx", collection=collection, chunking='{"mode": "sentences", "max_tokens": 400}'
    )
    rows = [[chunk for chunk in chunks_of(client, found["id"]) if "key" in chunk["text"]] for found in (small, large)]
    assert len(rows[0]) > 1
    assert len(rows[1]) == 1
    assert all(chunk["text"].count("head0: key") >= 1 for chunk in rows[0])
    assert all(chunk["location"]["row"] == 2 for chunk in rows[0])


# -- location as a filter ---------------------------------------------------------------------------------------------


PAGES = ["Ana signed the lease.", "Bruno kept bees.", "Ana moved to Lisbon.", "The mill was sold."]


@pytest.fixture
def pages(client: httpx.Client, collection: str) -> Json:
    """A file of four pages beside a text that has none."""
    client.post("/documents?wait=true", json={"text": "Ana was here.", "collection": collection})
    return upload(
        client, pdf([shown(text.encode()) for text in PAGES]), "a.pdf", collection=collection, chunking="lines"
    )


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ({"page": 3}, [2]),
        ({"page": {"first": 2, "last": 3}}, [1, 2]),
        ({"page": {"first": 3}}, [2, 3]),
        ({"page": 9}, []),
        ({"page": 3, "sheet": "S"}, []),
        ({"headings": "Costs"}, []),
    ],
)
def test_only_chunks_that_stand_there_can_be_selected(
    client: httpx.Client, collection: str, pages: Json, location: Json, expected: list[int]
) -> None:
    stop = {"rule": "budget"}
    found = ask(client, "Who was where?", collection=collection, location=location, max_steps=6, stop=stop)
    assert sorted(chunk["text"] for chunk in found["chunks"]) == sorted(PAGES[number] for number in expected)
    assert {chunk["document_id"] for chunk in found["chunks"]} <= {pages["id"]}
    assert found["usage"]["candidates"] == 5
    if not expected:
        assert found["stopped_by"] == "exhausted"


def test_headings_are_looked_for_in_any_case_and_order(client: httpx.Client, collection: str) -> None:
    content = b"# The  House\n\nAna lives there.\n\n## Costs\n\nIt costs nine.\n\n# K\xc3\xbcche\n\nIt costs two.\n"
    upload(client, content, "a.md", collection=collection, chunking="paragraphs")

    def found(*headings: str) -> set[str]:
        location = {"headings": list(headings)}
        answer = ask(client, "What does it cost?", collection=collection, location=location, stop={"rule": "budget"})
        return {chunk["text"] for chunk in answer["chunks"]}

    assert found("costs", "the house") == {"Costs", "It costs nine."}
    assert found("KU\u0308CHE") == {"Küche", "It costs two."}  # the other spelling of ü
    assert found("Küche", "Costs") == set()


@pytest.mark.parametrize(
    "location",
    [
        {"page": 0},
        {"headings": []},
        {"place": 3},
        {"page": "x"},
        {"row": {"first": 0}},
        {"page": {"first": 3, "last": 2}},
    ],
)
def test_conditions_on_places_that_cannot_be_meant(client: httpx.Client, location: Json) -> None:
    problem(client.post("/retrieve", json={"question": "Who?", "location": location}), 422, "validation_error")


@pytest.mark.parametrize("block", [5, 100_000])
def test_a_raw_body_without_a_type_or_a_name_is_what_it_begins_as(
    client: httpx.Client, collection: str, block: int
) -> None:
    content = pdf([shown(b"A page.")])
    answer = client.post(
        "/documents",
        params={"collection": collection},
        content=(content[start : start + block] for start in range(0, len(content), block)),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert text_of(client, answer.raise_for_status().json()["id"]) == "A page."
