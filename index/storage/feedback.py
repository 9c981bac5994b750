"""Feedback: which chunks helped with a question, as a person judged it. Values that every storage engine shares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class JudgedChunk:
    """A chunk, with its text as it was when it was judged."""

    document_id: str
    index: int
    text: str
    helpful: bool


@dataclass(frozen=True, slots=True)
class Feedback:
    """What was said about the chunks of an answer, and the checkpoint that was served then."""

    collection: str
    question: str
    chunks: Sequence[JudgedChunk]
    """At least one, each once, by document and index."""
    answer: str | None
    """The right answer, where the person knows it."""
    comment: str | None
    checkpoint: str
    fingerprint: str

    @property
    def identity(self) -> str:
        """The id of its record, derived from what was said: a repeated request does not make a second record."""
        said = asdict(self)
        del said["checkpoint"], said["fingerprint"]
        return f"fb-{hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:24]}"


class StoredFeedback(NamedTuple):
    """A record; ``number`` grows with each that is stored, and none is used twice."""

    number: int
    id: str
    created_at: datetime
    feedback: Feedback
