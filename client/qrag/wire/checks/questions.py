"""Questions with the evidence and the answers that are expected, as ``qrag eval`` and gates before checkpoints ask."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from qrag.wire.models import PositiveInteger, RequestModel, whole_number
from qrag.wire.names import CollectionName
from qrag.wire.retrieval import Question as QuestionText

WORDS_SHOWN = 12
"""Words of a passage that name it."""

MAX_ACCEPTED = 32
"""Most answers of a question that count as right."""


class Expected(RequestModel):
    """A piece of evidence: a passage, or a whole document, a range of its characters, or one of its pages."""

    text: Annotated[str, StringConstraints(pattern=r"\S")] | None = None
    document_id: str | None = None
    title: str | None = None
    start: Annotated[int, Field(ge=0), BeforeValidator(whole_number)] | None = None
    end: PositiveInteger | None = None
    page: Annotated[int | str, BeforeValidator(whole_number)] | None = None
    """The number of a page, or as a string what the file calls it."""

    @model_validator(mode="after")
    def _names_one_thing(self) -> Self:
        if self.document_id is not None and self.title is not None:
            raise ValueError("name the document by document_id or by title, not both")
        if self.text is None and self.document_id is None and self.title is None:
            raise ValueError("give a text, or name a document by document_id or title")
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end belong together")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError("start must be smaller than end")
        if sum(part is not None for part in (self.text, self.start, self.page)) > 1:
            raise ValueError("give a text, or start and end, or a page: one of them")
        return self

    def document(self) -> str:
        """The document in words; empty where none is named."""
        if self.document_id is not None:
            return f"document {self.document_id}"
        return "" if self.title is None else f"“{self.title}”"

    def words(self) -> str:
        """What is expected, in words."""
        place = self.document()
        if self.text is not None:
            words = self.text.split()
            passage = " ".join(words[:WORDS_SHOWN]) + (" …" if len(words) > WORDS_SHOWN else "")
            return f"“{passage}”" + (f" in {place}" if place else "")
        if self.start is not None:
            return f"{place}, characters {self.start} to {self.end}"
        return place if self.page is None else f"{place}, page {self.page}"


def _as_list(piece: object) -> object:
    return piece if isinstance(piece, list) else [piece]


Alternatives = Annotated[list[Expected], Field(min_length=1), BeforeValidator(_as_list)]
"""A piece of evidence that can be found in one of several ways; one that stands alone is a list of itself."""


AcceptedAnswer = Annotated[str, StringConstraints(pattern=r"\S")]
"""An answer that counts as right."""


class Question(RequestModel):
    """A question, and what is known of it: all the pieces of evidence that its answer needs, right answers, or both."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=200)] = ""
    """Default: its number, from 1; in a file, that of its line."""
    question: QuestionText
    collection: CollectionName | None = None
    """None: that of the command, or of the gate."""
    expected: Annotated[list[Alternatives], Field(min_length=1)] | None = None
    answers: Annotated[list[AcceptedAnswer], Field(min_length=1, max_length=MAX_ACCEPTED)] | None = None

    @model_validator(mode="after")
    def _can_be_measured(self) -> Self:
        if self.expected is None and self.answers is None:
            raise ValueError("give the evidence that is expected, or answers, or both")
        return self
