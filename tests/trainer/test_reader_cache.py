"""What a reader said is kept: whatever ends the process, and whatever the reader does."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pytest

from trainer.errors import ReaderError
from trainer.readers.cache import CachedReader
from trainer.readers.protocol import Generation, Prompt, Reader, Reply, Request, Score, generated, replied, scored

REQUESTS = [Request(Prompt(f"question {number}?", ("ünd",) * (number % 3)), f"answer {number}") for number in range(12)]


@dataclass
class Counting:
    """A reader whose scores are lengths; it fails after ``lives`` results."""

    identity: str = "counting"
    lives: int = 1_000_000
    asked: list[Request | Prompt] = field(default_factory=list)

    def log_probability(self, requests: Sequence[Request]) -> Iterator[tuple[int, Score]]:
        for place in reversed(range(len(requests))):
            self._live(requests[place])
            length = len(requests[place].answer)
            yield place, Score(-length / 3, length, 7, len(requests[place].prompt.contexts))

    def generate(self, prompts: Sequence[Prompt], most_tokens: int) -> Iterator[tuple[int, Generation]]:
        for place, prompt in enumerate(prompts):
            self._live(prompt)
            yield place, Generation((prompt.question or "")[:most_tokens], 7, len(prompt.contexts))

    def reply(self, requests: Sequence[Request], most_tokens: int) -> Iterator[tuple[int, Reply]]:
        for place, request in enumerate(requests):
            ((_, score),) = self.log_probability([request])
            ((_, generation),) = self.generate([request.prompt], most_tokens)
            yield place, Reply(score, generation)

    def _live(self, item: Request | Prompt) -> None:
        if not self.lives:
            raise ReaderError("the reader is dead")
        self.lives -= 1
        self.asked.append(item)


def expected(requests: Sequence[Request]) -> list[float]:
    return [-len(request.answer) / 3 for request in requests]


def cached(path: Path, requests: Sequence[Request], reader: Reader) -> list[float]:
    with closing(CachedReader(reader, path)) as cache:
        return list(map(float, scored(cache, requests).log_probability))


def test_what_was_scored_is_not_asked_again(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    assert cached(tmp_path / "a" / "cache", REQUESTS[:8], first) == expected(REQUESTS[:8])
    assert cached(tmp_path / "a" / "cache", REQUESTS, second) == expected(REQUESTS)
    assert set(second.asked) == set(REQUESTS[8:])


def test_the_same_request_is_asked_once(tmp_path: Path) -> None:
    reader = Counting()
    assert cached(tmp_path / "cache", REQUESTS[:2] * 3, reader) == expected(REQUESTS[:2] * 3)
    assert len(reader.asked) == 2


def test_every_part_of_a_request_counts(tmp_path: Path) -> None:
    requests = [
        Request(Prompt("a", ("b", "c")), "d"),
        Request(Prompt("a", ("b c",)), "d"),
        Request(Prompt("a", ("c", "b")), "d"),
        Request(Prompt("a", ("b", "c")), "dd"),
        Request(Prompt("aa", ("b", "c")), "d"),
        Request(Prompt(None, ("b", "c")), "d"),
        Request(Prompt(None, ("b", "c"), "e"), "d"),
    ]
    for reader in (Counting(), Counting(identity="other weights")):
        for request in requests:
            cached(tmp_path / "cache", [request], reader)
        assert reader.asked == requests


def test_what_was_written_is_kept_by_its_length(tmp_path: Path) -> None:
    reader = Counting()
    prompts = [request.prompt for request in REQUESTS]
    with closing(CachedReader(reader, tmp_path / "cache")) as cache:
        for most in (3, 5, 3):
            assert [item.text for item in generated(cache, prompts, most)] == [text.start[:most] for text in prompts]
    assert len(reader.asked) == 24


def test_a_reply_is_asked_for_only_where_one_of_its_parts_is_unknown(tmp_path: Path) -> None:
    reader = Counting()
    with closing(CachedReader(reader, tmp_path / "cache")) as cache:
        scored(cache, REQUESTS[:4])
        generated(cache, [request.prompt for request in REQUESTS[2:6]], 5)
        reader.asked.clear()
        for _ in range(2):
            scores, written = replied(cache, REQUESTS[:6], 5)
            assert scores.log_probability.tolist() == expected(REQUESTS[:6])
            assert [item.text for item in written] == [request.prompt.start[:5] for request in REQUESTS[:6]]
        assert scored(cache, REQUESTS[4:6]).log_probability.tolist() == expected(REQUESTS[4:6])
    assert {item for item in reader.asked if isinstance(item, Request)} == {*REQUESTS[:2], *REQUESTS[4:6]}


def test_replies_before_a_failure_are_kept(tmp_path: Path) -> None:
    with (
        closing(CachedReader(Counting(lives=7), tmp_path / "cache")) as cache,
        pytest.raises(ReaderError, match="dead"),
    ):
        replied(cache, REQUESTS, 5)
    with closing(CachedReader(second := Counting(), tmp_path / "cache")) as cache:
        assert replied(cache, REQUESTS, 5)[0].log_probability.tolist() == expected(REQUESTS)
    assert len(second.asked) == 2 * (len(REQUESTS) - 3)


def test_what_was_scored_before_a_failure_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ReaderError, match="dead"):
        cached(tmp_path / "cache", REQUESTS, Counting(lives=5))
    assert cached(tmp_path / "cache", REQUESTS, second := Counting()) == expected(REQUESTS)
    assert len(second.asked) == len(REQUESTS) - 5


def test_two_processes_share_a_file(tmp_path: Path) -> None:
    first, second = Counting(), Counting()
    with (
        closing(CachedReader(first, tmp_path / "cache")) as one,
        closing(CachedReader(second, tmp_path / "cache")) as two,
    ):
        scored(one, REQUESTS[:6])
        assert scored(two, REQUESTS).log_probability.tolist() == expected(REQUESTS)
        assert scored(one, REQUESTS).log_probability.tolist() == expected(REQUESTS)
    assert (len(first.asked), len(second.asked)) == (6, 6)


KILLED = """
import sys
from pathlib import Path
from tests.trainer.test_reader_cache import REQUESTS, Counting
from trainer.readers.cache import CachedReader
for place, _ in CachedReader(Counting(), Path(sys.argv[1])).log_probability(REQUESTS):
    print(place, flush=True)
    if place == 4:
        sys.stdin.read()
"""


def test_what_was_scored_before_a_kill_is_kept_and_a_torn_record_dropped(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cache")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        places = [int(line) for line in islice(process.stdout, 8)]
        process.send_signal(signal.SIGKILL)
    assert places == [11, 10, 9, 8, 7, 6, 5, 4]
    log = tmp_path / "cache-wal"
    copy = tmp_path / "torn"
    copy.write_bytes((tmp_path / "cache").read_bytes())
    copy.with_name("torn-wal").write_bytes(log.read_bytes()[:-100])  # the last record was being written
    assert cached(tmp_path / "cache", REQUESTS, whole := Counting()) == expected(REQUESTS)
    assert set(whole.asked) == set(REQUESTS[:4])
    assert cached(copy, REQUESTS, torn := Counting()) == expected(REQUESTS)
    assert set(torn.asked) == set(REQUESTS[:5])


def test_another_file_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("this is no cache at all, " * 400)
    with pytest.raises(ReaderError, match="notes cannot be used"):
        CachedReader(Counting(), tmp_path / "notes")
    assert (tmp_path / "notes").read_text() == "this is no cache at all, " * 400
