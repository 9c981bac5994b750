"""What an episode begins with beside its question: chunks that the caller holds, and chunks that it does not want."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from index.episodes.episode import Held
from index.errors import UnknownCollection, UnknownDocument
from index.search.scope import Scope
from index.storage.protocols import Catalogue
from index.storage.vectors import ChunkAddress, SearchScope
from qrag.wire.documents import ChunkReference
from qrag.wire.retrieval import RetrieveIn
from service.engine.loaded import Loaded
from service.errors import ChunkOutOfScope, ContinuationOutdated
from service.retrieval.continuation import Continuation, continuation_of, digest, resumed
from service.retrieval.locating import located
from service.signing import Signer

NOWHERE = -1
"""The ``uid`` of a document that does not exist."""

Body = TypeVar("Body", bound=RetrieveIn)


@dataclass(frozen=True, slots=True)
class Searched:
    """What a request may select from, what it holds, and what it excluded from the scope."""

    scope: SearchScope
    held: tuple[Held, ...]
    excluded: tuple[ChunkAddress, ...]

    def beginning(self, *, alone: bool) -> tuple[Scope, tuple[Held, ...]]:
        """The scope of an episode and what is in its first state: all that is held, or, ``alone``, nothing of it, and
        then it cannot be selected either.
        """
        if not (alone and self.held):
            return self.scope.scope, self.held
        return self.scope.scope.masked(np.array([chunk.position for chunk in self.held], dtype=np.int64)), ()


@dataclass(frozen=True, slots=True)
class Settled:
    """What a request does not choose for itself: its checkpoint, and with others of a batch its scope."""

    loaded: Loaded
    scope: SearchScope | None = None


def begin(body: Body, signer: Signer) -> tuple[Body, Continuation | None]:
    """The request with what it leaves out, and what it goes on from.

    Raises :class:`~service.errors.InvalidContinuation`. Whether the caller may search there is still to be asked.
    """
    if body.continuation is None:
        return body, None
    continuation = continuation_of(body.continuation, signer)
    return resumed(body, continuation), continuation


def look_up(
    body: RetrieveIn,
    past: Continuation | None,
    loaded: Loaded,
    catalogue: Catalogue,
    scope: SearchScope | None = None,
) -> Searched:
    """The scope of a request, unless it is given, and what the request says about chunks there.

    Raises :class:`~service.errors.ChunkOutOfScope`, :class:`~service.errors.ContinuationOutdated`, and what
    :meth:`index.storage.protocols.Scopes.scope` raises.
    """
    scope = scope_of(body, past, loaded, catalogue) if scope is None else scope
    held: dict[int, Held] = {}
    excluded: dict[ChunkAddress, int] = {}
    if past is not None:
        places = _places_before(past, scope, catalogue)
        held |= {places[address]: Held(places[address], q) for address, q in past.held}
        excluded |= {address: places[address] for address in past.excluded}
    for position in _places("given", body.given, scope, catalogue).values():
        held.setdefault(position, Held(position))
    excluded |= _places("exclude", body.exclude, scope, catalogue)
    if excluded:
        scope = replace(scope, scope=scope.scope.masked(np.array([*excluded.values()], dtype=np.int64)))
    return Searched(scope, tuple(held.values()), tuple(excluded))


def scope_of(body: RetrieveIn, past: Continuation | None, loaded: Loaded, catalogue: Catalogue) -> SearchScope:
    """The chunks that a request may select from, before it excludes some; raises like :func:`look_up`."""
    if past is not None and past.checkpoint != loaded.encoder.config.fingerprint:
        raise ContinuationOutdated("The checkpoint that the continuation rests on is no longer served. Ask again.")
    try:
        scope = loaded.scopes.scope(body.collection, body.document_ids, body.filter)
    except (UnknownCollection, UnknownDocument) as error:
        if past is None:
            raise
        raise ContinuationOutdated("What the continuation searches was deleted. Ask again without it.") from error
    return scope if body.location is None else located(scope, catalogue, body.location)


def _places_before(past: Continuation, scope: SearchScope, catalogue: Catalogue) -> dict[ChunkAddress, int]:
    """The positions of a continuation's chunks."""
    addresses = {*(address for address, _ in past.held), *past.excluded}
    outdated = ContinuationOutdated(
        "A document with chunks of the continuation was changed or deleted, or is not searched any more. Ask again."
    )
    try:
        documents = catalogue.documents_at({address.uid for address in addresses})
    except UnknownDocument:
        raise outdated from None
    places = {address: scope.position(address) for address in addresses}
    known = {address: position for address, position in places.items() if position is not None}
    if digest(documents.values()) != past.versions or len(known) < len(places):
        raise outdated
    return known


def _places(
    field: str, references: Sequence[ChunkReference], scope: SearchScope, catalogue: Catalogue
) -> dict[ChunkAddress, int]:
    """The positions of the chunks that a field of the request names."""
    uids = {id: _uid(id, catalogue) for id in {reference.document_id for reference in references}}
    places: dict[ChunkAddress, int] = {}
    for number, reference in enumerate(references):
        address = ChunkAddress(uids[reference.document_id], reference.index)
        position = scope.position(address)
        if position is None:
            raise ChunkOutOfScope(
                f"{field}.{number}: chunk {reference.index} of document {reference.document_id!r} is not among those "
                "that this request searches. Leave it out, or search where it is."
            )
        places[address] = position
    return places


def _uid(id: str, catalogue: Catalogue) -> int:
    """The version of a document that is searched."""
    try:
        return catalogue.document(id).uid
    except UnknownDocument:
        return NOWHERE
