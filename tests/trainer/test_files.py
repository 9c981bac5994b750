from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from trainer.datasets.files import entries, numbered_lines
from trainer.errors import DataError


class _Record(BaseModel):
    name: str
    numbers: list[int] = []


def test_lines_are_numbered_and_lose_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_bytes("\ufefföne\r\n\ntwo\u2028still two\nlast".encode())
    assert list(numbered_lines(path)) == [(1, "öne"), (2, ""), (3, "two\u2028still two"), (4, "last")]


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_compressed_files_read_like_plain_ones(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"lines.txt{suffix}"
    content = "first\nzweite Zeile: ä\n".encode()
    path.write_bytes({"": content, ".gz": gzip.compress(content), ".xz": lzma.compress(content)}[suffix])
    assert list(numbered_lines(path)) == [(1, "first"), (2, "zweite Zeile: ä")]


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_cut_off_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.txt{suffix}"
    content = "".join(f"{number * 7919 % 1000003}\n" for number in range(40_000)).encode()
    compressed = (gzip.compress if suffix == ".gz" else lzma.compress)(content)
    path.write_bytes(compressed[: len(compressed) // 2])
    with pytest.raises(DataError, match=r"cut\.txt\.\wz:\d+: cannot be read from here on .*fetch the file again"):
        list(numbered_lines(path))


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_file_that_is_not_what_its_suffix_says_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plain.txt{suffix}"
    path.write_text("plain text")
    with pytest.raises(DataError, match=r":1: cannot be read"):
        list(numbered_lines(path))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(DataError, match="cannot be opened"):
            list(numbered_lines(path))


def test_text_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "latin.txt"
    path.write_bytes(b"good\ncaf\xe9\n")
    with pytest.raises(DataError, match=r"latin\.txt:2: not UTF-8"):
        list(numbered_lines(path))


def test_an_array_and_lines_give_the_same_records(tmp_path: Path) -> None:
    records = [{"name": "a", "numbers": [1, 2]}, {"name": "[ü,]\n"}]
    lines = tmp_path / "lines.jsonl"
    lines.write_text("\n".join(["", *map(json.dumps, records), ""]))
    array = tmp_path / "array.json"
    array.write_text(json.dumps(records, indent=2))
    for path, positions in ((lines, [2, 3]), (array, [2, 9])):
        found = list(entries(path))
        assert [json.loads(entry.text) for entry in found] == records
        assert [entry.line for entry in found] == positions
        assert [entry.number for entry in found] == [1, 2]


@given(
    records=st.lists(st.dictionaries(st.text(max_size=5), st.one_of(st.text(), st.integers(), st.floats(-1, 1)))),
    block=st.integers(1, 40),
    indent=st.sampled_from([None, 1]),
)
def test_an_array_survives_any_block_border(
    records: list[dict[str, object]], block: int, indent: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("array") / "array.json"
    path.write_text(json.dumps(records, indent=indent, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.datasets.files._BLOCK", block)
        if records:
            assert [json.loads(entry.text) for entry in entries(path)] == records
        else:
            with pytest.raises(DataError, match="no records"):
                list(entries(path))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no records"),
        ("\n \n", "no records"),
        ("[]", "no records"),
        ('[{"name": "a"}', r":1: expected ',', found ''"),
        ('[{"name": "a"}\n {"name": "b"}]', r":2: expected ',', found '\{'"),
        ('[{"name": "a"},\n{"name": }]', r":2: record 2 is not JSON"),
        ('[{"name": "a"}] 1', "something follows"),
        ('[{"name": "a"},\n5]', r":2: record 2: .*object"),
        ('{"name": "a"}\n{"name": 5}', r":2: name: Input should be a valid string"),
        ('{"name": "a"}\n{"nam": "a"}', r":2: name: Field required"),
        ('{"name": "a"}\n{"name": "a"', r":2: Invalid JSON"),
        ('{"name": "a", "numbers": [1, 2.5]}', r":1: numbers\.1: Input should be a valid integer"),
        ('{"name": "a", "numbers": [true]}', r":1: numbers\.0: "),
        ('{"name": "\\ud800"}', r":1: Invalid JSON: .*hex escape at column 17"),
        ('{"name": NaN}', r":1: name: "),
        ("[" * 100_000, r":1: record 1 is not JSON"),
        ('{"name": ' + "[" * 100_000, r":1: Invalid JSON: recursion limit"),
    ],
)
def test_malformed_records_name_their_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "records.json"
    path.write_text(text)
    with pytest.raises(DataError, match=problem):
        [entry.parse(_Record) for entry in entries(path)]


def test_an_array_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "records.json"
    path.write_bytes(b'[{"name": "a"},\n{"name": "caf\xe9"}]')
    with pytest.raises(DataError, match="not UTF-8"):
        list(entries(path))
