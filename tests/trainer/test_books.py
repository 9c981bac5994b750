from __future__ import annotations

import hashlib
import io
import re
import tarfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets.books import Book, book_sentences, read_books
from trainer.errors import DataError

EXAMPLES = Path(__file__).parents[2] / "examples"
HEADER = "file\tpart\ttitle\tbytes\tsha256"
BOOKS = {"a.txt": ("train", "First.\r\nSecond."), "b.txt": ("dev", "Ünlike."), "c.txt": ("train", "Third.")}


def _row(name: str, part: str, content: bytes) -> str:
    return f"{name}\t{part}\tA title\t{len(content)}\t{hashlib.sha256(content).hexdigest()}"


def _archive(directory: Path, files: dict[str, bytes], rows: list[str]) -> None:
    with tarfile.open(directory / "books.tar.xz", "w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"books/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (directory / "manifest.tsv").write_text("\n".join([HEADER, *rows]) + "\n")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    files = {name: text.encode() for name, (_, text) in BOOKS.items()}
    _archive(tmp_path, files, [_row(name, part, files[name]) for name, (part, _) in BOOKS.items()])
    return tmp_path


def test_an_archive_gives_the_books_of_a_part(archive: Path) -> None:
    assert list(read_books(archive, "train")) == [Book("a.txt", "First.\nSecond."), Book("c.txt", "Third.")]
    assert list(read_books(archive, "dev")) == [Book("b.txt", "Ünlike.")]
    assert sorted(path.name for path in archive.iterdir()) == ["books.tar.xz", "manifest.tsv"]  # nothing was unpacked


def test_a_book_that_differs_from_the_manifest_is_refused(archive: Path) -> None:
    manifest = archive / "manifest.tsv"
    lines = manifest.read_text().splitlines()
    for other in (b"Thirt.", b"Third. And more."):  # another checksum, another length
        manifest.write_text("\n".join([*lines[:3], _row("c.txt", "train", other)]))
        books = read_books(archive, "train")
        assert next(books).name == "a.txt"
        with pytest.raises(DataError, match=r"manifest\.tsv:4: c\.txt in books\.tar\.xz is not the file listed here"):
            next(books)


def test_a_listed_book_that_is_missing_is_refused(archive: Path) -> None:
    with (archive / "manifest.tsv").open("a") as file:
        file.write(_row("d.txt", "dev", b"") + "\n")
    with pytest.raises(DataError, match=r"manifest\.tsv:5: d\.txt is not in books\.tar\.xz"):
        list(read_books(archive, "dev"))


def test_a_link_in_the_archive_is_not_followed(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "books.tar.xz", "w:xz") as tar:
        member = tarfile.TarInfo("books/a.txt")
        member.type, member.linkname = tarfile.SYMTYPE, "../secret"
        tar.addfile(member)
    (tmp_path / "manifest.tsv").write_text(f"{HEADER}\na.txt\ttrain\t\t0\t{'0' * 64}\n")
    with pytest.raises(DataError, match=r"manifest\.tsv:2: a\.txt"):
        list(read_books(tmp_path, "train"))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_a_cut_off_archive_is_refused(tmp_path: Path, share: float) -> None:
    content = "".join(f"{number * 7919 % 1000003}\n" for number in range(40_000)).encode()
    _archive(tmp_path, {"a.txt": content}, [_row("a.txt", "train", content)])
    path = tmp_path / "books.tar.xz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DataError, match=r"books\.tar\.xz: cannot be read .*: fetch the file again"):
        list(read_books(tmp_path, "train"))


def test_an_archive_with_wrong_bytes_in_it_is_refused(tmp_path: Path) -> None:
    content = "".join(f"{number * 7919 % 1000003}\n" for number in range(40_000)).encode()
    _archive(tmp_path, {"a.txt": content}, [_row("a.txt", "train", content)])
    path = tmp_path / "books.tar.xz"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"books\.tar\.xz: cannot be read .*: fetch the file again"):
        list(read_books(tmp_path, "train"))


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "manifest.tsv:1: the first line must name the columns file, part, bytes, sha256"),
        (["file\tpart\tbytes"], "manifest.tsv:1: the first line must name"),
        ([HEADER, "a.txt\ttrain"], "manifest.tsv:2: 2 fields, but the first line names 5 columns"),
        ([HEADER, "a.txt\ttest\t\t0\t0"], "manifest.tsv:2: part must be train or dev, not 'test'"),
        ([HEADER, "a.txt\ttrain\t\tmany\t0"], "manifest.tsv:2: bytes must be a number, not 'many'"),
        ([HEADER, "a.txt\tdev\t\t0\t0", "a.txt\tdev\t\t0\t0"], "manifest.tsv:3: a.txt is listed twice"),
    ],
)
def test_a_malformed_manifest_names_its_line(archive: Path, lines: list[str], problem: str) -> None:
    (archive / "manifest.tsv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=re.escape(problem)):
        list(read_books(archive, "train"))


def test_an_archive_without_its_manifest_is_refused(archive: Path) -> None:
    (archive / "manifest.tsv").unlink()
    with pytest.raises(DataError, match=r"manifest\.tsv: cannot be opened"):
        list(read_books(archive, "train"))


def test_a_book_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    _archive(tmp_path, {"a.txt": b"caf\xe9"}, [_row("a.txt", "train", b"caf\xe9")])
    with pytest.raises(DataError, match=r"a\.txt is not UTF-8"):
        list(read_books(tmp_path, "train"))


def test_a_plain_folder_shares_out_each_book() -> None:
    (train,) = read_books(EXAMPLES, "train")
    (dev,) = read_books(EXAMPLES, "dev")
    whole = (EXAMPLES / "franklin-autobiography.txt").read_text(encoding="utf-8")
    assert train.name == dev.name == "franklin-autobiography.txt"
    assert train.text + dev.text == whole.removesuffix("\n")
    assert 0.79 < len(train.text) / len(whole) < 0.81


def test_a_folder_with_parts_gives_whole_books(tmp_path: Path) -> None:
    for part, name in (("train", "a.txt"), ("train", "b.txt"), ("dev", "c.txt")):
        (tmp_path / part).mkdir(exist_ok=True)
        (tmp_path / part / name).write_text(f"One.\nTwo of {name}.\n")
    assert [book.name for book in read_books(tmp_path, "train")] == ["a.txt", "b.txt"]
    assert list(read_books(tmp_path, "dev")) == [Book("c.txt", "One.\nTwo of c.txt.")]


def test_a_folder_without_books_is_refused(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=r"holds neither books\.tar\.xz nor \.txt files"):
            list(read_books(directory, "train"))


def test_sentences_are_single_lines() -> None:
    text = 'It   rained.\nMr. Brown  said:\t"Go\non." \n \n\n CHAPTER II \r\n\r\nX\n\nHe went. He came back.'
    assert book_sentences(text) == [
        "It rained.",
        'Mr. Brown said: "Go on."',
        "CHAPTER II",
        "He went.",
        "He came back.",
    ]


def test_long_sentences_are_split_at_words() -> None:
    words = [f"word{number}" for number in range(700)]
    sentences = book_sentences(" ".join([*words, "x" * 2500]) + ".")
    assert max(map(len, sentences)) <= 1000
    assert " ".join(sentences[:-3]).split() == words
    assert "".join(sentences[-3:]) == "x" * 2500 + "."


@given(st.text(st.sampled_from("ab .!?\n\r\t\u3000\u2028\x1c\x85\u200b\"'()…é漢"), max_size=300))
def test_sentences_hold_every_word_but_the_shortest(text: str) -> None:
    sentences = book_sentences(text)
    assert all(3 <= len(sentence) <= 1000 and " ".join(sentence.split()) == sentence for sentence in sentences)
    squeezed = "".join(text.split())
    at = 0
    for sentence in sentences:
        at = squeezed.find("".join(sentence.split()), at)
        assert at >= 0


def test_a_book_in_one_paragraph_takes_no_quadratic_time() -> None:
    text = "This is a sentence without an end " * 40_000
    started = time.process_time()
    assert len(book_sentences(text)) > 1000
    assert time.process_time() - started < 5
