"""Continuations: what an answer was selected by, as a token from which another call goes on.

A token says what was asked and where, and names chunks by the versions of their documents. It is signed, not
encrypted, and it is no permission: rights are asked anew.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable
from typing import TypeVar

from pydantic import ValidationError

from index.storage.documents import Document
from index.storage.vectors import ChunkAddress
from qrag.wire.models import FrozenModel
from qrag.wire.retrieval import MAX_CONTINUATION, RetrieveIn
from service.errors import InvalidContinuation
from service.signing import Signer

WHAT_WAS_ASKED = ("question", "collection", "document_ids", "filter", "location")
"""The fields of a request that cannot change on the way."""

HOW = ("stop", "rerank", "max_context_tokens", "max_total_chunks", "order")
"""The fields that stay as they were unless a request says otherwise; all others belong to one call."""

_OF_ONE_CALL = set(RetrieveIn.model_fields) - {*WHAT_WAS_ASKED, *HOW}

Body = TypeVar("Body", bound=RetrieveIn)


class Continuation(FrozenModel):
    """What an episode goes on from."""

    request: RetrieveIn
    checkpoint: str
    """The fingerprint of the checkpoint that selected."""
    versions: str
    """The :func:`digest` of the documents of all chunks."""
    held: tuple[tuple[ChunkAddress, float], ...]
    """The chunks in the state with their Q-values, in the order they came."""
    excluded: tuple[ChunkAddress, ...]


def digest(documents: Iterable[Document]) -> str:
    """What tells versions of documents from all others, those of another data directory too."""
    versions = sorted((each.uid, each.id, each.sha256, each.chunking.model_dump_json()) for each in documents)
    return hashlib.sha256(json.dumps(versions).encode()).hexdigest()[:32]


def token_of(continuation: Continuation, signer: Signer) -> str | None:
    """The continuation as a token; none where it would be longer than :data:`~qrag.wire.retrieval.MAX_CONTINUATION`."""
    content = continuation.model_dump_json(by_alias=True, exclude_unset=True, exclude={"request": _OF_ONE_CALL})
    token = signer.sealed(zlib.compress(content.encode(), 9))
    return token if len(token) <= MAX_CONTINUATION else None


def continuation_of(token: str, signer: Signer) -> Continuation:
    """The continuation that a token stands for; raises :class:`~service.errors.InvalidContinuation`."""
    content = signer.opened(token)
    if content is None:
        raise InvalidContinuation(
            "The continuation is damaged, or is not one of this service. Send it as an answer had it, or ask again."
        )
    try:
        return Continuation.model_validate_json(zlib.decompress(content))
    except ValidationError:
        raise InvalidContinuation("The continuation is one of another version of this service. Ask again.") from None


def resumed(body: Body, continuation: Continuation) -> Body:
    """The request with what it leaves out as it was before.

    Raises :class:`~service.errors.InvalidContinuation` where it says something else than what was asked.
    """
    earlier = continuation.request
    for name in body.model_fields_set.intersection(WHAT_WAS_ASKED):
        if getattr(body, name) is not None and _said(body, name) != _said(earlier, name):
            raise InvalidContinuation(
                f"The continuation goes on with another {name} than the request names. Leave {name} out, or ask anew "
                "without continuation."
            )
    kept = earlier.model_fields_set - body.model_fields_set.intersection(HOW)
    return body.model_copy(update={name: getattr(earlier, name) for name in kept})


def _said(request: RetrieveIn, name: str) -> object:
    said = request.model_dump(mode="json", by_alias=True, exclude_unset=True, include={name})
    return said.get(name, RetrieveIn.model_fields[name].default)
