"""docs/limits.md has the fixed limits that are in force."""

from __future__ import annotations

from qrag.wire.asking.batches import MAX_BATCH
from qrag.wire.asking.vector_stores import MAX_QUERIES, MAX_RESULTS
from qrag.wire.checks.gates import MAX_GATE_QUESTIONS
from qrag.wire.chunking import Chunking
from qrag.wire.documents import METADATA_BYTES
from qrag.wire.feedback import MAX_JUDGEMENTS, MAX_REMARK
from qrag.wire.filters import MAX_FILTER_VALUES
from qrag.wire.retrieval import (
    MAX_BEAM_WIDTH,
    MAX_CONTINUATION,
    MAX_EXCLUDED,
    MAX_GIVEN,
    MAX_STEPS,
    MAX_STRETCHES,
    MAX_TOTAL_CHUNKS,
)
from service.retrieval.splitting import MAX_PARTS
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "limits.md").read_text(encoding="utf-8")


def test_what_cannot_be_set() -> None:
    (longest,) = (
        limit.le for limit in Chunking.model_fields["max_tokens"].metadata if getattr(limit, "le", None) is not None
    )
    for words in (
        f"{MAX_STEPS} steps",
        f"{MAX_BEAM_WIDTH} sets of a beam",
        f"{MAX_STRETCHES} stretches",
        f"{MAX_GIVEN} chunks that are `given`, {MAX_EXCLUDED:,} to `exclude`",
        f"{MAX_TOTAL_CHUNKS} chunks of a chain",
        f"{MAX_CONTINUATION:,} characters of a `continuation`",
        f"{MAX_BATCH} questions of a batch, {MAX_PARTS} parts of a question",
        f"{METADATA_BYTES:,} bytes of",
        f"{longest:,} tokens",
        f"{MAX_FILTER_VALUES:,} names and values",
        f"{MAX_JUDGEMENTS} judged chunks",
        f"{MAX_GATE_QUESTIONS:,} questions of a gate",
        f"{MAX_REMARK:,} characters of an `answer` or a `comment`",
        f"{MAX_RESULTS} results and {MAX_QUERIES} queries",
    ):
        assert words in " ".join(PAGE.split()), words
