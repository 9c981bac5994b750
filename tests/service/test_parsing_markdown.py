"""Markdown loses nothing that was written: what only looks like syntax stays text."""

from __future__ import annotations

from pathlib import Path

import pytest

from qrag.wire.media_types import MediaType
from service.intake.parsing.reading import Reading
from service.intake.parsing.worker import convert
from tests.service.files import MEBIBYTE, Extract
from tests.service.outcomes import Outcome


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("Use <your-key> or Map<String, List<Int>>.", "Use <your-key> or Map<String, List<Int>>."),
        ("If x<y and y>z, press <Enter>.", "If x<y and y>z, press <Enter>."),
        ("Usage: tool <input> <output>", "Usage: tool <input> <output>"),
        ("From Ida <ida AT example DOT org>", "From Ida <ida AT example DOT org>"),
        ("<draft-holm-03>\n\nLine.", "<draft-holm-03>\n\nLine."),
        ("a <b>bold</b> <em>word</em><br>next", "a bold word\nnext"),
        ("<Note>\n\nInside.\n\n</Note>", "Inside."),
        ("<details><summary>More</summary>\n\nHidden part.\n\n</details>", "More\n\nHidden part."),
        ("`List<String>` and `<b>`", "List<String> and <b>"),
        ("2*3*4 and 5*6*7, f(a)*g(b)*h, 2**3**2", "2*3*4 and 5*6*7, f(a)*g(b)*h, 2**3**2"),
        ("*one* word, **two** words, un*likely*", "one word, two words, unlikely"),
        ("1986. A great year.", "1986. A great year."),
        ("7) Seven\n8) Eight", "7. Seven\n8. Eight"),
        (
            '[Ida]: hello\n[Later]: https://example.org "Repair it"',
            '[Ida]: hello\n\n[Later]: https://example.org "Repair it"',
        ),
        ("See [the report][r] and [r].\n\n[r]: https://example.org", "See the report and r."),
        ('A [link](https://example.org "of the year") here.', "A link here. (of the year)"),
        ("![Chart: up by 5](c.png) and ![](d.png)", "Chart: up by 5 and"),
        ("~~Old~~ new", "Old new"),
        ("> [!NOTE]\n> A callout.", "[!NOTE] A callout."),
        ("| a | b |\n|---|---|\n| 1 | 2 | three |\n| one |", "a: 1; b: 2; three\n\na: one"),
        ("| a | b |\n|---|---|\n| x \\| y | `p` |", "a: x | y; b: p"),
        ("<table><tr><td>Bread</td><td>3</td></tr></table>\n\nAfter.", "Bread; 3\n\nAfter."),
    ],
)
def test_words_stay_words(convert_here: Extract, markdown: str, expected: str) -> None:
    assert convert_here(markdown.encode(), MediaType.MARKDOWN) == expected


def test_footnotes_are_numbered_and_kept(convert_here: Extract) -> None:
    text = convert_here(b"The rule[^a] holds[^2].\n\n[^a]: Lisbon\n[^2]: A longer note.\n", MediaType.MARKDOWN)
    assert text == "The rule[1] holds[2].\n\n1. Lisbon\n\n2. A longer note."


def read(tmp_path: Path, content: str) -> tuple[str, Reading]:
    source, target, reading = tmp_path / "source", tmp_path / "target", Reading()
    source.write_text(content)
    convert(source, target, MediaType.MARKDOWN, reading=reading, output_bytes=MEBIBYTE)
    return target.read_text(), reading


@pytest.mark.parametrize(
    "matter",
    [
        "---\ntitle: The Mill\ndate: 2026-01-05\ntags: [mill, rock]\ndraft: true\nnested: {a: 1}\nempty:\n---\n",
        '+++\ntitle = "The Mill"\ndate = 2026-01-05\ntags = ["mill", "rock"]\ndraft = true\n[nested]\na = 1\n+++\n',
    ],
    ids=["YAML", "TOML"],
)
def test_front_matter_becomes_title_and_metadata(tmp_path: Path, matter: str) -> None:
    text, reading = read(tmp_path, f"{matter}\nIt was sold.\n")
    assert text == "It was sold."
    assert reading.title == "The Mill"
    assert reading.metadata == {"date": "2026-01-05", "tags": ["mill", "rock"], "draft": True}


@pytest.mark.parametrize(
    "content",
    [
        "---\n\nA rule above.\n\n---\n",
        "---\n: [\n---\n",
        "---\na: &a [x]\nb: [*a, *a]\n---\n",
        "+++\nno toml\n+++\n",
        "---\ntitle: no end\n",
    ],
)
def test_what_is_no_front_matter_is_text(tmp_path: Path, content: str) -> None:
    text, reading = read(tmp_path, content)
    assert text
    assert (reading.title, reading.metadata) == (None, {})


@pytest.mark.parametrize(
    ("first", "other"), [("- ", "  "), ("1. ", "   "), ("> ", "> "), ("> > ", "> > "), ("- > ", "  > ")]
)
def test_cells_of_tables_in_lists_and_quotes_are_read_once(tmp_path: Path, first: str, other: str) -> None:
    table = f"{first}| a | b |\n{other}|---|---|\n{other}| 1 | 2 |\n{other}| 3 | 4 | 5 |\n"
    found = Outcome(tmp_path, table.encode(), MediaType.MARKDOWN)
    assert [line.lstrip("-1. ") for line in found.paragraphs[:1]] == ["a: 1; b: 2"]
    assert found.paragraphs[1:] == ["a: 3; b: 4; 5"]
    assert not found.reading.warnings
