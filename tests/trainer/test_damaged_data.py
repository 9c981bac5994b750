"""Whatever happens to a data file, a loader reads it or says what is wrong with it; nothing else is raised."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets.babi import read_babi
from trainer.datasets.jsonl import read_jsonl
from trainer.datasets.multihop import read_2wiki, read_hotpotqa, read_musique, read_musique_single_hops
from trainer.datasets.question import Question
from trainer.datasets.ruler import read_ruler
from trainer.errors import DataError

SAMPLES = Path(__file__).parents[2] / "examples" / "training"

READERS: list[tuple[str, Callable[[Path], Iterable[object]]]] = [
    ("babi/qa3.txt", lambda path: read_babi(path, "qa3")),
    ("hotpotqa/hotpotqa.json", read_hotpotqa),
    ("2wiki/2wiki.json", read_2wiki),
    ("musique/musique.jsonl", read_musique),
    ("musique/musique.jsonl", read_musique_single_hops),
    ("own.jsonl", read_jsonl),
    ("own.jsonl", lambda path: read_ruler(path, "niah_single_1")),
]


@pytest.mark.parametrize(("name", "read"), READERS)
@given(data=st.data())
def test_damage_is_reported_as_a_data_error(
    name: str, read: Callable[[Path], Iterable[object]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = (SAMPLES / name).read_bytes()
    start = data.draw(st.integers(0, len(content)), label="start")
    end = data.draw(st.integers(start, min(len(content), start + 200)), label="end")
    inserted = data.draw(st.one_of(st.binary(max_size=6), st.sampled_from([b'"', b"[", b"{}", b"null", b"\t", b"-1"])))
    content = content[:start] + inserted + content[end:]
    compressed = data.draw(st.booleans(), label="compressed")
    path = tmp_path_factory.mktemp("damaged") / f"{Path(name).name}{'.gz' * compressed}"
    path.write_bytes(gzip.compress(content) if compressed else content)
    try:
        questions = list(read(path))
    except DataError as failure:
        problem = str(failure)
    else:
        problem = ""
        for question in questions:
            if isinstance(question, Question):
                "".join([question.text, *question.chunks]).encode()  # what a tokenizer can read
    assert problem.startswith(str(path)) or questions


@pytest.mark.parametrize(("name", "read"), READERS)
def test_a_cut_off_file_is_reported(name: str, read: Callable[[Path], Iterable[object]], tmp_path: Path) -> None:
    path = tmp_path / f"{Path(name).name}.gz"
    path.write_bytes(gzip.compress((SAMPLES / name).read_bytes())[:-20])
    with pytest.raises(DataError, match=r"\.gz:\d+: "):
        list(read(path))
