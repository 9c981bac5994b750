"""Moving a storage to another one: everything arrives, whatever the engines are and whenever the moving dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.errors import DocumentExists, MovingError
from index.storage.moving.exporting import PartSize
from index.storage.moving.importing import import_export
from index.storage.news import News
from index.storage.protocols import Storage
from tests.engines.memory_points import MemoryPoints
from tests.engines.postgres import PostgresServer
from tests.engines.storages import open_distributed
from tests.index.memory_catalogue import MemoryCatalogue
from tests.index.memory_questions import MemoryQuestions
from tests.index.memory_storage import MemoryFeedback, MemoryStorage, MemoryVectors
from tests.index.moves import (
    MORNING,
    answers,
    ask,
    assert_same,
    broken,
    contents,
    exported,
    judge,
    put,
    tell_story,
    terms,
)
from tests.index.storages import DIMENSION, embed, index_all, lines, open_local

Open = Callable[[str], Storage]


@pytest.fixture
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """New storages of the engine that is named."""
    numbers = count()
    with ExitStack() as stack:

        def open_engine(engine: str) -> Storage:
            folder = tmp_path / f"storage-{next(numbers)}"
            storage: Storage
            if engine == "local":
                storage = open_local(folder)
            elif engine == "distributed":
                server: PostgresServer = request.getfixturevalue("postgres")
                storage = open_distributed(server.new_url(), MemoryPoints(), folder)
            else:
                news = News()
                catalogue = MemoryCatalogue(news)
                vectors = MemoryVectors(catalogue, news, fingerprint="words", dimension=DIMENSION)
                storage = MemoryStorage(
                    catalogue, vectors, MemoryFeedback(catalogue), MemoryQuestions(catalogue), news, folder
                )
            return stack.enter_context(closing(storage))

        yield open_engine


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("local", "local"),
        ("local", "memory"),
        ("memory", "local"),
        ("local", "distributed"),
        ("distributed", "local"),
    ],
)
def test_everything_arrives_and_answers_as_before(opened: Open, tmp_path: Path, source: str, target: str) -> None:
    old, new = opened(source), opened(target)
    tell_story(old)
    manifest = exported(old, tmp_path / "export")
    assert (manifest.documents, manifest.feedback_records, manifest.question_records) == (10, 2, 3)
    assert len(manifest.parts) == 5
    imported = import_export(new, tmp_path / "export")
    assert (imported.created, imported.vectors, imported.differences) == (10, manifest.chunks, [])
    assert_same(old, new)
    assert any(episode for episode in answers(new))
    again = import_export(new, tmp_path / "export")
    assert (again.created, again.vectors, again.differences) == (0, 0, [])
    assert_same(old, new)
    for storage in (old, new):  # what waits is indexed in both
        index_all(storage)
    assert_same(old, new)
    # What was indexed meanwhile, or has taken its place, is left as it is.
    assert import_export(new, tmp_path / "export").created == 0
    assert_same(old, new)
    for storage in (old, new):  # questions are as old as they were
        storage.questions.forget(MORNING + timedelta(minutes=4))
        assert len(storage.questions.records()) == 1
    assert_same(old, new)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 4), st.integers(1, 9), st.booleans()),
        st.tuples(st.sampled_from(["delete", "describe", "judge", "ask", "delete all"]), st.integers(0, 4)),
        st.tuples(st.sampled_from(["index", "break"])),
    ),
    max_size=14,
)


def perform(storage: Storage, step: int, operation: tuple[Any, ...]) -> None:
    kind, *arguments = operation
    known = [document.id for document in storage.catalogue.documents()]
    if kind == "put":
        number, size, other = arguments
        put(storage, f"d{number}", lines(f"{size}", size), replace=True, collection="other" if other else "default")
    elif kind == "index":
        index_all(storage)
    elif kind == "break":
        index_all(storage, broken)
    elif (id := f"d{arguments[0]}") in known:
        collection = storage.catalogue.document(id).collection
        if kind == "delete":
            storage.catalogue.delete_document(id)
        elif kind == "delete all":
            storage.catalogue.delete_collection(collection)
        elif kind == "judge":
            judge(storage, id)
        elif kind == "ask":
            ask(storage, step ^ 1, id, collection=collection)  # not always in the order of the times
        else:
            storage.catalogue.describe(id, lambda _: ("A long title", {}), collection=collection)


@settings(max_examples=8, deadline=None)
@given(history=operations, documents=st.integers(1, 4))
def test_any_history_goes_to_the_engines_and_back(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, history: list[tuple[Any, ...]], documents: int
) -> None:
    home = tmp_path_factory.mktemp("moves")
    size = PartSize(documents=documents)
    with (
        closing(open_local(home / "old")) as old,
        closing(open_distributed(postgres.new_url(), MemoryPoints(), home / "engines")) as engines,
        closing(open_local(home / "new")) as new,
    ):
        for step, operation in enumerate(history):
            perform(old, step, operation)
        exported(old, home / "there", size=size)
        for _ in range(2):
            import_export(engines, home / "there")
            assert_same(old, engines)
        exported(engines, home / "back", size=size)
        import_export(new, home / "back")
        assert_same(old, new)


def test_what_is_there_is_left_and_other_content_is_in_the_way_or_replaced(opened: Open, tmp_path: Path) -> None:
    old, new = opened("local"), opened("local")
    put(old, "letter", "Ana signed it.")
    put(old, "note", "Bruno kept bees.")
    index_all(old)
    exported(old, tmp_path / "export")
    put(new, "own", "It stays.")
    put(new, "note", "Bruno kept bees.")
    put(new, "letter", "Clara signed it.")
    index_all(new)
    before = contents(new)
    with pytest.raises(DocumentExists, match=r"'letter' is there with other content.*--replace"):
        import_export(new, tmp_path / "export")
    assert contents(new) == before
    imported = import_export(new, tmp_path / "export", replace=True)
    assert (imported.documents, imported.created, imported.vectors) == (2, 1, 1)
    texts = {document.id: new.catalogue.text(document.uid, 0, 99) for document in new.catalogue.documents()}
    assert texts == {"own": "It stays.", "note": "Bruno kept bees.", "letter": "Ana signed it."}
    assert {document.status for document in new.catalogue.documents()} == {"ready"}


def test_vectors_of_its_own_are_left_to_a_document_and_named(opened: Open, tmp_path: Path) -> None:
    old, new = opened("local"), opened("local")
    for storage in (old, new):
        put(storage, "letter", "Ana signed it.")
    index_all(old)
    index_all(new, lambda inputs: 2 * embed(inputs))
    exported(old, tmp_path / "export")
    (difference,) = import_export(new, tmp_path / "export").differences
    assert difference == ("letter", "its vectors are others")


def test_questions_that_do_not_arrive_are_missed(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = opened("local"), opened("local")
    put(old, "letter", "Ana signed it.")
    ask(old, 1, "letter")
    exported(old, tmp_path / "export")
    monkeypatch.setattr(new.questions, "restore", lambda _: None)
    with pytest.raises(MovingError, match="0 records of feedback and 1 questions are missing"):
        import_export(new, tmp_path / "export")


def test_an_export_goes_on_and_follows_what_has_changed(opened: Open, tmp_path: Path) -> None:
    old, folder = opened("local"), tmp_path / "export"
    for number in range(7):
        put(old, f"d{number}", lines(f"{number}", 3))
    index_all(old)
    calls: list[int] = []

    def stop(done: int, total: int) -> None:
        calls.append(total)
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exported(old, folder, progress=stop)
    assert calls == [7, 7]
    assert sorted(path.name for path in folder.iterdir()) == ["part-000001", "part-000002"]
    kept = (folder / "part-000001" / "part.json").stat().st_mtime_ns
    (folder / "part-000003.partial").mkdir()  # as a death in the middle of a part leaves it
    old.catalogue.delete_document("d3")
    put(old, "d1", "other content", replace=True)
    index_all(old)
    with pytest.raises(MovingError, match="no finished export"):
        import_export(opened("local"), folder)
    manifest = exported(old, folder)
    assert manifest.documents == 6
    assert (folder / "part-000001" / "part.json").stat().st_mtime_ns != kept  # d1 was in it
    new = opened("memory")
    import_export(new, folder)
    assert_same(old, new)
    with pytest.raises(MovingError, match="finished export in"):
        exported(old, folder)


def test_parts_that_are_still_true_are_not_written_again(opened: Open, tmp_path: Path) -> None:
    old, folder = opened("local"), tmp_path / "export"
    for number in range(6):
        put(old, f"d{number}", lines(f"{number}", 3))
    index_all(old)
    with pytest.raises(ZeroDivisionError):
        exported(old, folder, progress=lambda done, _total: 1 // (4 - done))
    times = [(folder / f"part-00000{number}" / "part.json").stat().st_mtime_ns for number in (1, 2)]
    vectors = folder / "part-000002" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\xff")
    exported(old, folder)
    again = [(folder / f"part-00000{number}" / "part.json").stat().st_mtime_ns for number in (1, 2)]
    assert (again[0] == times[0], again[1] == times[1]) == (True, False)
    new = opened("local")
    import_export(new, folder)
    assert_same(old, new)


def test_documents_that_come_and_go_during_an_export_are_those_of_its_end(opened: Open, tmp_path: Path) -> None:
    old = opened("distributed")
    for number in range(6):
        put(old, f"d{number}", lines(f"{number}", 3))
    index_all(old)
    changes = iter(["d0", "d5"])

    def change(done: int, _total: int) -> None:
        if done == 4 and (id := next(changes, None)):
            old.catalogue.delete_document(id)
            put(old, f"new-{id}", "It came late.")

    exported(old, tmp_path / "export", progress=change)
    new = opened("local")
    import_export(new, tmp_path / "export")
    assert_same(old, new)


def test_an_export_of_what_never_rests_is_given_up_with_words(opened: Open, tmp_path: Path) -> None:
    old = opened("local")
    numbers = count()
    put(old, "first", "one")
    with pytest.raises(MovingError, match="Stop writing"):
        exported(old, tmp_path / "export", progress=lambda *_: put(old, f"d{next(numbers)}", "more"), size=PartSize())
    with pytest.raises(MovingError, match="something in"):
        exported(old, tmp_path / "storage-0")


@pytest.mark.parametrize(("target", "replace"), [("local", False), ("local", True), ("distributed", False)])
def test_an_import_goes_on_wherever_it_was_interrupted(
    request: pytest.FixtureRequest, opened: Open, tmp_path: Path, target: str, replace: bool
) -> None:
    old = opened("local")
    tell_story(old)
    exported(old, tmp_path / "export")
    points = MemoryPoints()
    url = request.getfixturevalue("postgres").new_url() if target == "distributed" else ""

    def reopened() -> Storage:
        return open_distributed(url, points, tmp_path / "new") if url else open_local(tmp_path / "new")

    if replace:
        with closing(reopened()) as new:
            put(new, "letter", "in the way")
            put(new, "often", "in the way as well")
            index_all(new)
    for fatal in count(1):
        with closing(reopened()) as new:
            try:
                import_export(Mortal(new, fatal), tmp_path / "export", replace=replace)
            except Died:
                # Whatever is searchable is whole, by the export's own comparison of what was there before.
                for document in new.catalogue.documents():
                    if document.status == "ready":
                        assert new.vectors.stored(document.uid, new.vectors.space) == document.chunks
                continue
            if not replace:  # what was replaced came first here
                assert_same(old, new)
            assert import_export(new, tmp_path / "export").created == 0
            break
    assert fatal > 3


class Died(BaseException):
    pass


class Mortal:
    """A storage whose process dies in the call number ``fatal`` that changes it, after the call or instead of it."""

    def __init__(self, storage: Any, fatal: int, calls: Iterator[int] | None = None) -> None:
        self._inner, self._fatal, self._calls = storage, fatal, calls or count(1)

    def __getattr__(self, name: str) -> Any:
        inner = getattr(self._inner, name)
        if name in ("catalogue", "vectors", "feedback", "questions"):
            return Mortal(inner, self._fatal, self._calls)
        if name not in ("publish", "save_chunks", "append", "finish", "fail", "add", "restore", "write_properties"):
            return inner

        def call(*arguments: Any, **named: Any) -> Any:
            number = next(self._calls)
            if number == self._fatal and number % 2:
                raise Died
            result = inner(*arguments, **named)
            if number == self._fatal:
                raise Died
            return result

        return call


def test_chunks_without_bags_get_those_that_follow_from_their_texts(opened: Open, tmp_path: Path) -> None:
    old, complete = opened("local"), opened("local")
    for storage in (old, complete):
        put(storage, "letter", "Ana signed it.\nBruno kept bees.", title="A letter")
        index_all(storage)
    old.close()
    for path in (tmp_path / "storage-0").rglob("*.bags"):
        path.unlink()
    with closing(open_local(tmp_path / "storage-0")) as without:
        exported(without, tmp_path / "export", terms=terms)
    new = opened("local")
    import_export(new, tmp_path / "export")
    assert_same(complete, new)
