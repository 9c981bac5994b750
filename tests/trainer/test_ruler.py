from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.datasets.question import Question
from trainer.datasets.ruler import NOISE, VARIANTS, Words, count_tokens, generate_ruler, read_ruler, wonderwords
from trainer.errors import DataError

WORDS = Words(("big", "half-open", "ad hoc"), ("door", "dump truck", "tam-o'-shanter"))
BOOK = [f"Sentence number {number} tells of something else." for number in range(50)]
NEEDLE = re.compile(r"One of the special magic (numbers|uuids) for (.+) is: (\S+)\.")
NEEDLES = {  # needles that the question asks for, needles in all: None where the haystack is made of them
    "single_1": (1, 1),
    "single_2": (1, 1),
    "single_3": (1, 1),
    "multikey_1": (1, 4),
    "multikey_2": (1, None),
    "multikey_3": (1, None),
    "multivalue": (4, 4),
    "multiquery": (4, 4),
}


def _generate(variant: str, tokens: int, seed: int) -> Question:
    return generate_ruler(variant, tokens, BOOK, np.random.default_rng(seed), words=WORDS)


def _asked(question: Question) -> list[str]:
    match = re.fullmatch(
        r"What (?:is|are all) the special magic \w+ for (.+) mentioned in the provided text\?", question.text
    )
    assert match is not None
    return re.split(", and |, ", match[1])


def _needles(question: Question) -> list[tuple[int, str, str]]:
    found = [(place, NEEDLE.fullmatch(chunk)) for place, chunk in enumerate(question.chunks)]
    return [(place, match[2], match[3]) for place, match in found if match is not None]


def _prompt(question: Question) -> dict[str, object]:
    """The question as RULER writes it."""
    kind = re.findall(r"special magic (\w+) for", question.text)[0]
    context = " ".join(question.chunks)
    head = f"Some special magic {kind} are hidden within the following text. Make sure to memorize it."
    outputs = [match[3] for place in question.support if (match := NEEDLE.fullmatch(question.chunks[place]))]
    return {
        "index": 0,
        "input": f"{head} I will quiz you about the {kind} afterwards.\n{context}\n{question.text}",
        "outputs": outputs,
    }


def test_the_eight_variants() -> None:
    assert set(VARIANTS) == set(NEEDLES)


@pytest.mark.parametrize("variant", NEEDLES)
@given(tokens=st.integers(0, 1500), seed=st.integers(0, 2**32 - 1))
def test_support_is_exactly_the_needles_of_the_asked_keys(variant: str, tokens: int, seed: int) -> None:
    question = _generate(variant, tokens, seed)
    wanted, total = NEEDLES[variant]
    asked = _asked(question)
    needles = _needles(question)
    assert len(question.support) == wanted
    assert len(set(asked)) == len(asked) == (4 if variant == "multiquery" else 1)
    assert {place for place, key, _ in needles if key in asked} == question.support
    assert len(needles) == (len(question.chunks) if total is None else total)
    assert (question.task, question.budget, question.counts) == (f"niah_{variant}", 4, (len(question.chunks),))
    if variant == "multikey_1":
        assert len({key for _, key, _ in needles}) == 4
    if variant == "multivalue":
        assert len({key for _, key, _ in needles}) == 1


@pytest.mark.parametrize("variant", NEEDLES)
@pytest.mark.parametrize("tokens", [500, 4096])
def test_the_context_is_as_long_as_asked(variant: str, tokens: int) -> None:
    question = _generate(variant, tokens, 1)
    longest = max(count_tokens(chunk) for chunk in question.chunks)
    assert abs(sum(map(count_tokens, question.chunks)) - tokens) <= max(longest, count_tokens(" ".join(NOISE)))


def test_kinds_of_haystacks_keys_and_values() -> None:
    for variant, setting in VARIANTS.items():
        question = _generate(variant, 800, 2)
        for _, key, value in _needles(question):
            if setting.key == "uuids":
                assert uuid.UUID(key).version == 4
            else:
                assert any(key == f"{one}-{two}" for one in WORDS.adjectives for two in WORDS.nouns)
            if setting.value == "uuids":
                assert uuid.UUID(value).version == 4
            else:
                assert 10**6 <= int(value) < 10**7
        hay = [chunk for chunk in question.chunks if NEEDLE.fullmatch(chunk) is None]
        if setting.haystack == "noise":
            assert hay == list(NOISE) * (len(hay) // len(NOISE))
        elif setting.haystack == "essay":
            start = BOOK.index(hay[0])
            assert hay == [BOOK[(start + at) % len(BOOK)] for at in range(len(hay))]
        else:
            assert hay == []


def test_the_queries_are_rulers() -> None:
    assert re.fullmatch(
        r"What is the special magic number for .+-.+ mentioned in the provided text\?",
        _generate("single_1", 99, 0).text,
    )
    assert re.fullmatch(
        r"What is the special magic uuid for \S+ mentioned in the provided text\?", _generate("multikey_3", 99, 0).text
    )
    assert re.fullmatch(
        r"What are all the special magic numbers for .+, .+, .+, and .+ mentioned in the provided text\?",
        _generate("multiquery", 99, 0).text,
    )


def test_needles_can_stand_anywhere() -> None:
    depths = {
        (min(question.support) * 10) // len(question.chunks)
        for seed in range(200)
        for question in [_generate("single_2", 600, seed)]
    }
    assert depths == set(range(10))


def test_the_same_seed_gives_the_same_question() -> None:
    assert _generate("multiquery", 700, 5) == _generate("multiquery", 700, 5)
    assert _generate("multiquery", 700, 5) != _generate("multiquery", 700, 6)


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="'single_4' is none of RULER's needle tasks: single_1, "):
        _generate("single_4", 100, 0)
    with pytest.raises(ValueError, match="no sentences"):
        generate_ruler("single_2", 100, [], np.random.default_rng(0), words=WORDS)
    with pytest.raises(ValueError, match="too few words"):
        generate_ruler("multiquery", 100, BOOK, np.random.default_rng(0), words=Words(("big", "red"), ("door",)))


def test_rulers_own_words() -> None:
    pytest.importorskip("wonderwords")
    words = wonderwords()
    assert {"lively", "blue-eyed", "ad hoc"} <= set(words.adjectives)
    assert {"ectodermal", "contact lens", "take-out"} <= set(words.nouns)
    assert all(word == word.strip() for word in (*words.adjectives, *words.nouns))


def test_tokens_are_estimated_from_pieces() -> None:
    assert count_tokens("A needle, hidden!") == 5
    assert count_tokens("1234567 is: 8fd1df16-6103") == 2 + 2 + 2 + 1 + 1
    assert count_tokens("under_score straßen") == 3 + 2


@pytest.mark.parametrize("variant", NEEDLES)
def test_a_written_prompt_reads_back(tmp_path: Path, variant: str) -> None:
    questions = [_generate(variant, 1200, seed) for seed in range(3)]
    path = tmp_path / f"niah_{variant}_4096.jsonl"
    path.write_text("".join(f"{json.dumps(_prompt(question))}\n" for question in questions))
    for number, (read, written) in enumerate(zip(read_ruler(path), questions, strict=True), 1):
        assert (read.id, read.task, read.text) == (f"{path.name}:{number}", written.task, written.text)
        assert list(read.chunks) == list(written.chunks)
        assert read.support == written.support


def test_a_prompt_as_the_generator_writes_it(tmp_path: Path) -> None:
    (tmp_path / "niah_single_2").mkdir()
    path = tmp_path / "niah_single_2" / "validation.jsonl"
    prompt = (
        "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about "
        "the number afterwards.\n of the wind. He came. One of the special magic numbers for half-open-dump truck is: "
        "1234567. It was late, and the\nWhat is the special magic number for half-open-dump truck mentioned in the "
        "provided text? The special magic number for half-open-dump truck mentioned in the provided text is"
    )
    path.write_text(json.dumps({"input": prompt, "outputs": ["1234567"]}))
    (question,) = read_ruler(path)
    assert question == Question(
        "validation.jsonl:1",
        "niah_single_2",
        "What is the special magic number for half-open-dump truck mentioned in the provided text?",
        [
            "of the wind.",
            "He came.",
            "One of the special magic numbers for half-open-dump truck is: 1234567.",
            "It was late, and the",
        ],
        (4,),
        frozenset({2}),
        4,
    )


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"input": "Memorize the variables."}, ":1: input is no prompt of RULER's needle tasks"),
        ({"input": None}, ":1: input: Input should be a valid string"),
        ({"outputs": []}, ":1: outputs: List should have at least 1 item"),
        ({"outputs": ["7654321"]}, r":1: the needles of the asked keys say \['\d{7}'\], outputs \['7654321'\]"),
    ],
)
def test_malformed_prompts_name_their_line(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    path = tmp_path / "niah_single_1_4096.jsonl"
    path.write_text(json.dumps(_prompt(_generate("single_1", 200, 0)) | change))
    with pytest.raises(DataError, match=re.escape(path.name) + problem):
        list(read_ruler(path))


def test_a_file_of_another_task_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vt_4096.jsonl"
    path.write_text(json.dumps(_prompt(_generate("single_1", 200, 0))))
    with pytest.raises(DataError, match=r"vt_4096\.jsonl: neither the file nor its folder is named after"):
        list(read_ruler(path))
    assert next(read_ruler(path, "mine")).task == "mine"
