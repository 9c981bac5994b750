"""Tables become lines in which a cell stands with its row's key and its column's head, whatever their shape."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qrag.wire.media_types import MediaType
from service.intake.parsing.markup.tables import Cell, Row, are_heads, record_lines, rows_of, spread
from tests.service.files import Extract

WIDE = 10_000


def lines(table: list[list[str]], *, heads: bool = False, characters: int = WIDE) -> list[str]:
    rows = [
        Row(tuple(Cell((text,)) for text in row), in_head=heads and number == 0) for number, row in enumerate(table)
    ]
    return list(rows_of(spread(rows), characters))


def html(content: str, convert_here: Extract) -> list[str]:
    text = convert_here(f"<meta charset=utf-8>{content}".encode(), MediaType.HTML)
    return [line for line in text.split("\n") if line]


def test_each_row_says_what_its_values_are() -> None:
    table = [["Item", "Price", "Shop"], ["bread", "3", "corner"], ["milk", "", "market"]]
    assert lines(table, heads=True) == ["Item: bread; Price: 3; Shop: corner", "Item: milk; Shop: market"]
    assert lines(table) == ["Item; Price; Shop", "bread; 3; corner", "milk; market"]


def test_a_head_without_rows_is_a_row() -> None:
    assert lines([["Item", "Price"]], heads=True) == ["Item; Price"]


def test_cells_beyond_the_head_are_kept() -> None:
    assert lines([["a", "b"], ["1", "2", "three"], ["one"]], heads=True) == ["a: 1; b: 2; three", "a: one"]


def test_a_row_longer_than_a_chunk_is_split_between_cells_then_sentences_each_with_its_key() -> None:
    long = "The first sentence is here. The second one follows. A third one ends it."
    table = [["Key", "Meaning", "Code"], ["alpha", long, "X-17"], ["beta", "short", "Y-23"]]
    assert lines(table, heads=True, characters=60) == [
        "Key: alpha; Meaning: The first sentence is here.",
        "Key: alpha; Meaning: The second one follows.",
        "Key: alpha; Meaning: A third one ends it.; Code: X-17",
        "Key: beta; Meaning: short; Code: Y-23",
    ]


def test_a_key_that_is_itself_too_long_is_written_out_once() -> None:
    key = " ".join(f"word{number}" for number in range(40))
    written = lines([[key, "one value", "another value"]], characters=80)
    assert all(word in " ".join(written) for word in [*key.split(), "one", "another"])
    assert max(map(len, written)) <= 100
    assert any("one value" in line and line.startswith("word0 ") for line in written)


WORDS = st.lists(st.text("abcdefgh", min_size=1, max_size=9), max_size=25).map(" ".join)
TABLES = st.lists(st.lists(WORDS, min_size=1, max_size=5), min_size=1, max_size=6)


@settings(deadline=None)
@given(table=TABLES, heads=st.booleans(), characters=st.integers(30, 300))
def test_no_word_of_a_table_is_lost_and_no_line_is_much_too_long(
    table: list[list[str]], heads: bool, characters: int
) -> None:
    written = lines(table, heads=heads, characters=characters)
    found = set(re.findall("[a-h]+", " ".join(written)))
    expected = {word for row in table for cell in row for word in cell.split()}
    unused_heads = {word for cell in table[0] for word in cell.split()} if heads else set()
    assert expected - unused_heads <= found
    longest_head = max(map(len, table[0])) if heads else 0
    assert all(len(line) <= 2 * characters + 2 * longest_head for line in written)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "<table><tr><td rowspan=2>Europe<td>Oslo<td>5<tr><td>Rome<td>7<tr><td colspan=2>Sum<td>12</table>",
            ["Europe; Oslo; 5", "Europe; Rome; 7", "Sum; 12"],
        ),
        (
            "<table><tr><th rowspan=2>Town<th colspan=2>2030<tr><th>spring<th>autumn<tr><td>Rome<td>1<td>2</table>",
            ["Town: Rome; 2030 spring: 1; 2030 autumn: 2"],
        ),
        (
            "<table><tr><th>Name</th><td>Ida Holm<br>Mill Road 3</td></tr><tr><th>Phone</th><td>555</td></tr></table>",
            ["Name: Ida Holm, Mill Road 3", "Phone: 555"],
        ),
        (
            "<table><tr><th>Plant<th>Parts<tr><td>North<td><table><tr><td>pump<td>14 bar<tr><td>valve<td>3 bar</table>"
            "<tr><td>South<td>closed</table>",
            ["Plant: North; Parts: pump; 14 bar", "Plant: North; Parts: valve; 3 bar", "Plant: South; Parts: closed"],
        ),
        (
            "<table><tr><td><p>Home<p>About<td><p>The mill was sold.<p>She paid in gold.</table>",
            ["Home", "About", "The mill was sold.", "She paid in gold."],
        ),
        (
            "<table role=presentation><tr><td>left<td>right<tr><td>below<td>last</table>",
            ["left", "right", "below", "last"],
        ),
        (
            "<table><tfoot><tr><td>Sum<td>2</tfoot><thead><tr><th>Item<th>Price</thead><tr><td>Bread<td>2</table>",
            ["Item: Bread; Price: 2", "Item: Sum; Price: 2"],
        ),
        (
            "<table><tr><td>a<td>b<tr hidden><td>c<td>d<tr><td>e<td style='display:none'>f<td>g</table>",
            ["a; b", "e; g"],
        ),
        ("<table><tr><td rowspan=0>all<td>1<tr><td>2<tr><td>3</table>", ["all; 1", "all; 2", "all; 3"]),
        ("<table><tr><td colspan=99999999 rowspan=x>a<td>b</table>", ["a; b"]),
        ("<table><td>a<td>b<tr><td>c<td>d</table>", ["a; b", "c; d"]),
        (
            "<table><form><tr><td>Name<td>Ida</tr><tr><td>Town<td><input value=Rome></tr></form></table>",
            ["Name; Ida", "Town; Rome"],
        ),
        ("<table><tr><form><td>a</td><td>b</td></form></tr></table>", ["a; b"]),
    ],
    ids=[
        *("spans", "two heads", "labels", "nested", "layout", "role", "foot", "hidden", "to the end", "absurd"),
        *("cells without a row", "rows in a form", "cells in a form"),
    ],
)
def test_tables_of_pages(convert_here: Extract, content: str, expected: list[str]) -> None:
    assert html(content, convert_here) == expected


def test_a_table_is_about_as_long_as_its_text(convert_here: Extract) -> None:
    rows = "".join(f"<tr><td>key {number}<td>value {number}" for number in range(300))
    page = f"<table><tr><td>first<td>{'word ' * 20_000}{rows}</table>"
    text = convert_here(page.encode(), MediaType.HTML)
    assert len(text) < 1.2 * len(page)
    assert "key 217; value 217\n" in text


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["item", "price"], True),
        (["item", "price", ""], True),
        (["item", "", "price"], False),
        (["bread", "3"], False),
        (["bread", "-3,50 €"], False),
        (["a", "a"], False),
        (["", ""], False),
        (["Q1 2030", "Q2 2030"], True),
    ],
)
def test_the_first_record_gives_heads_if_it_has_words_no_two_alike(values: list[str], expected: bool) -> None:
    assert are_heads(values) is expected


def test_a_record_may_be_longer_or_shorter_than_its_heads() -> None:
    assert list(record_lines(["a", "b"], ["1"], WIDE)) == ["a: 1"]
    assert list(record_lines(["a"], ["1", "2"], WIDE)) == ["a: 1; 2"]
    assert list(record_lines(["a"], ["", " "], WIDE)) == []
