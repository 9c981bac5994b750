"""Markdown that means harm is read without loss or refused in words, and never makes the service fail."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from qrag.wire.media_types import MediaType
from service.errors import DocumentTooComplex
from tests.service.files import MEBIBYTE, Extract
from tests.service.helpers import ask, post, problem, text_of
from tests.service.outcomes import Outcome

LINES = "".join(f"[{number}]: https://example.org/{number}\n" for number in range(10_000))
NOTES = "".join(f"[^{number}]: note\n" for number in range(5_000))
TABLE = "|head" * 5_000 + "|\n" + "|-" * 5_000 + "|\n" + "|word" * 5_000 + "|\n"

READ = {
    "open brackets": "[" * 30_000 + "word",
    "nested brackets": "[" * 20_000 + "word" + "]" * 20_000,
    "nested links": "[" * 20_000 + "word" + "](x)" * 20_000,
    "open pictures": "![" * 5_000 + "word",
    "open links": "[a](" * 50_000 + "word",
    "open parentheses": "[word](" + "(" * 50_000,
    "open emphasis": "*a_ " * 20_000 + "word",
    "stars": "*" * 100_000 + "word",
    "backticks": "".join("e" + "`" * number for number in range(500)) + "word",
    "tags": "<a " * 50_000 + "word",
    "open elements": "<div>" * 50_000 + "word",
    "a declaration without end": "<!word " * 50_000,
    "a comment without end": "<!-- " * 50_000 + "word",
    "instructions": "a <?" * 50_000 + "word",
    "entities": "&" * 100_000 + "word",
    "escapes": "\\" * 100_000 + "word",
    "a wide table": TABLE,
    "a long head": f"|{'head ' * 20_000}|b|\n|-|-|\n" + "|word|2|\n" * 10,
    "a row beyond its head": "|a|b|\n|-|-|\n" + "|word" * 20_000 + "|\n",
    "references to notes": "".join(f"word[^{number}] " for number in range(5_000)) + "\n\n" + NOTES,
    "notes inside notes": "^[" * 5_000 + "word" + "]" * 5_000,
    "a note on itself": "word[^a]\n\n[^a]: n[^a]\n",
    "a fence without end": "```\n" + "word\n" * 100_000,
    "many fences": "```\n~~~\n" * 20_000 + "word",
    "definitions of links": LINES + "\nword",
    "an open definition": "[a]: <" * 50_000 + "word",
    "an open label": "[" + "\na" * 50_000 + "word",
    "blank lines": "\n" * MEBIBYTE + "word",
    "aliases": "---\na: &a [lol, lol]\nb: &b [*a, *a]\nc: [*b, *b]\n---\nword",
    "a deep field in YAML": f"---\na: {'[' * 10_000}\n---\nword",
    "a deep field in TOML": f"+++\na = {'[' * 10_000}\n+++\nword",
    "a number without end in TOML": f"+++\na = {'9' * 60_000}\n+++\nword",
    "a value that is none": "---\na: !!timestamp x\n---\nword",
    "an object": "---\na: !!python/object/apply:os.system [echo]\n---\nword",
    "front matter without end": "---\n" + "a: 1\n" * 50_000 + "word",
}


@pytest.mark.parametrize("name", READ)
def test_what_only_looks_like_syntax_is_read(convert_here: Extract, name: str) -> None:
    assert "word" in convert_here(READ[name].encode(), MediaType.MARKDOWN)


@pytest.mark.parametrize("line", ["word " * MEBIBYTE, "w" * 5 * MEBIBYTE + " word"], ids=["words", "one word"])
def test_a_line_of_five_megabytes_is_read(extract: Extract, line: str) -> None:
    assert extract(line.encode(), MediaType.MARKDOWN) == line.strip()


REFUSED = {
    "quotes": ">" * 100_000 + " word",
    "lists": "- " * 100_000 + "word",
    "lists in lines": "\n".join("  " * depth + "- word" for depth in range(300)),
    "notes": "\n\n".join("    " * depth + f"[^{depth}]: word" for depth in range(150)),
    "emphasis": "*a **a " * 10_000 + "word" + " b** b*" * 10_000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_nested_beyond_all_measure_is_refused(convert_here: Extract, name: str) -> None:
    with pytest.raises(DocumentTooComplex, match="nested too deeply"):
        convert_here(REFUSED[name].encode(), MediaType.MARKDOWN)


def test_references_that_multiply_a_title_end_at_the_limits(extract: Extract) -> None:
    with pytest.raises(DocumentTooComplex):
        extract(f'[a]: /u "{"t" * 100_000}"\n\n{"[a]" * 10_000}'.encode(), MediaType.MARKDOWN)


@pytest.mark.parametrize("mark", ["> ", "- ", "1. "])
def test_depths_that_people_write_lose_nothing(convert_here: Extract, mark: str) -> None:
    lines = [f"{mark * depth}word{depth}" for depth in range(1, 40)]
    text = convert_here("\n\n".join(lines).encode(), MediaType.MARKDOWN)
    assert re.findall(r"word\d+", text) == [f"word{depth}" for depth in range(1, 40)]


def test_notes_that_the_plugin_would_drop_are_kept(convert_here: Extract) -> None:
    content = b"A mill[^1].\n\n[^0]: Unused.\n[^1]: Sold.\n\n    [^2]: Inside.\n\n    In May.\n\n[^1]: Sold again.\n"
    text = convert_here(content, MediaType.MARKDOWN)
    assert text.split("\n\n") == ["A mill[1].", "1. Sold.", "In May.", "2. Unused.", "3. Inside.", "4. Sold again."]


def test_fields_of_front_matter_that_are_left_out_are_named(tmp_path: Path) -> None:
    fields = [f"a: {'1:' * 20_000}1", "b: .inf", "c: {d: 1}", "e: [[1]]", "none:", *(f"f{n}: {n}" for n in range(46))]
    found = Outcome(tmp_path, "\n".join(["---", *fields, "---", "word"]).encode(), MediaType.MARKDOWN)
    assert found.text == "word"
    assert found.reading.metadata == {f"f{n}": n for n in range(45)}
    (warning,) = found.reading.warnings
    assert warning.startswith("Fields of the front matter were left out: a, b, c, e, f45. ")


HOSTILE_FRONT_MATTER = {
    "a number without end": f"a: {'1:' * 20_000}1",
    "no numbers": "a: .inf\nb: .nan\nc: [.inf]",
    "half characters": '"\\ud800": "\\udc00"\ntitle: "The \\ud800 mill"\nc: ["\\ud800"]',
    "control characters": '"\\0": "\\0"\ntitle: "The\\0 mill"',
    "too much of it": "\n".join(f"field{number}: {'x' * 2_000}" for number in range(30)),
}


@pytest.mark.parametrize("name", HOSTILE_FRONT_MATTER)
def test_the_service_takes_a_file_whatever_its_front_matter_says(limited_client: httpx.Client, name: str) -> None:
    content = f"---\n{HOSTILE_FRONT_MATTER[name]}\n---\nThe mill was sold."
    stored = post(limited_client, content, MediaType.MARKDOWN, collection="hostile", wait="true")
    assert stored.status_code == 201, stored.text
    document = stored.json()
    assert text_of(limited_client, document["id"]) == "The mill was sold."
    assert limited_client.get("/documents", params={"collection": "hostile"}).json()["documents"] == [document]
    (chunk,) = ask(limited_client, "What was sold?", collection="hostile")["chunks"]
    assert chunk["text"] == "The mill was sold."
    lossy = name in {"a number without end", "no numbers", "too much of it"}
    assert bool(document["warnings"]) == lossy
    assert limited_client.delete(f"/documents/{document['id']}").status_code == 204


@pytest.mark.parametrize("name", REFUSED)
def test_the_service_refuses_and_goes_on(unchanged_client: httpx.Client, name: str) -> None:
    refused = problem(post(unchanged_client, REFUSED[name], MediaType.MARKDOWN), 422, "document_too_complex")
    assert "nested" in refused["detail"]
