"""What the service, indexing and the benchmarks need of a storage engine.

A *catalogue* decides what exists: documents in their versions, their texts, how they are cut, and how far each is on
its way ``queued -> indexing -> ready`` (or ``failed``). A *vector store* holds the embeddings of their chunks, and
builds from them the scopes that a search reads. A scope holds only documents that are ``ready``, each of them
whole.

A call that has returned is durable: it survives the death of the process and of the machine, except where its
docstring says otherwise. Every writing call may raise :class:`~index.errors.DiskFull`, and has then changed nothing.
All calls are safe from many threads; those that say so belong to the one thread that indexes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from index.arrays import Float32Array, IntArray, TokenIds
from index.search.turning import Turning
from index.storage.documents import Chosen, CollectionSize, Description, Document, Place, Published, StoredChunk
from index.storage.feedback import FeedbackStore
from index.storage.news import News
from index.storage.questions import QuestionStore
from index.storage.vectors import ChunkAddress, EngineCalls, SearchScope, Space, Unbagged, Unembedded
from qrag.wire.documents import Status
from qrag.wire.filters import Filter

APPEND_ROWS = 8192
"""Most rows of one :meth:`VectorStore.append`: half a minute of indexing on two cores, the most a crash can cost."""


class Upload(Protocol):
    """A text on its way in. It belongs to no document before :meth:`Catalogue.publish`, and is not durable until then.

    One thread uses it at a time.
    """

    @property
    def characters(self) -> int:
        """Length of the text so far."""

    @property
    def bytes(self) -> int:
        """Length of the text so far in UTF-8."""

    @property
    def sha256(self) -> str:
        """Checksum of the text so far in UTF-8, hexadecimal."""

    def write(self, text: str) -> None:
        """Append to the text. Raises :class:`~index.errors.DiskFull`; the upload can only be discarded then."""

    def discard(self) -> None:
        """Remove what is not published. Idempotent; raises nothing."""


class Catalogue(Protocol):
    """Documents, their texts and chunks.

    A document is found by its ``id``, which a client chooses. Each version of it has a ``uid``: content that replaces
    other content gets a greater one, and none is ever used again, so late work for a deleted version finds
    nothing. Where content replaces other content that is searchable, the new version waits until it is ready, and then
    takes the other's place (:attr:`~index.storage.documents.Document.replaces`); it is not listed, searched or counted
    before. An engine may keep former versions; they are not either.
    """

    # Uploads

    def begin_upload(self) -> Upload:
        """A new, empty upload."""

    def publish(
        self,
        uploads: Sequence[tuple[Upload, Description]],
        *,
        replace: bool,
        queue_limit: int,
        within: Collection[str] | None = None,
    ) -> list[Published]:
        """Turn uploads of this catalogue into ``queued`` documents: all of them at once or, on an error, none.

        A document of the same id and content is left as it is (a failed one is queued again). Raises
        :class:`~index.errors.DocumentExists` where the content differs, unless ``replace``: then a former version that
        is ``ready`` is searched until the new one is, in whose place a further one may be put, and one that is not
        ready is gone when this returns. With ``replace`` the content that is searched drops what waits to take its
        place. Documents of collections that are not in ``within``, where that
        is given, are never replaced. Raises :class:`~index.errors.QueueFull` where more than ``queue_limit`` documents
        would wait. The uploads are used up either way.
        """

    # Documents

    def document(self, id: str) -> Document:
        """The document of this id, with what waits to take its place; raises :class:`~index.errors.UnknownDocument`."""

    def versions(self, id: str) -> list[Document]:
        """Every stored version of a document, newest first; none where there is no such document."""

    def documents_at(self, uids: Iterable[int]) -> dict[int, Document]:
        """The versions with these ``uid``s; raises :class:`~index.errors.UnknownDocument` where one was deleted."""

    def documents(
        self,
        collections: Collection[str] | None = None,
        *,
        title: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[Document]:
        """Documents (of some collections, of a title) in order of arrival with a ``uid`` greater than ``after``."""

    def describe(
        self, id: str, description: Callable[[Document], tuple[str | None, Mapping[str, Any]]], *, collection: str
    ) -> Document:
        """Change title and metadata in place to what ``description`` returns; vectors of the active space stay.

        With the title, those of other spaces go, whose towers may read it: they are made again.

        It is called inside the transaction, for the document and for what waits to take its place; what it raises
        leaves both as they were. Raises :class:`~index.errors.UnknownDocument`, also where the document is not in the
        ``collection``.
        """

    def delete_document(self, id: str, *, collection: str | None = None) -> None:
        """Remove a document in any state, on a full disk too, with what waits to take its place.

        No search finds it when this returns.

        Raises :class:`~index.errors.UnknownDocument`, also where it is not in the ``collection``, if one is given.
        """

    def retry_document(self, id: str, *, collection: str | None = None) -> Document:
        """Queue a failed document or replacement again; any other is left as it is.

        Raises like :meth:`delete_document`.
        """

    def count_by_status(self) -> dict[Status, int]:
        """How many documents and replacements there are of each status; every status has an entry."""

    def collections(self) -> list[CollectionSize]:
        """Every collection that holds a document, by name."""

    def delete_collection(self, name: str) -> None:
        """Remove every document of a collection, as :meth:`delete_document` does, and every replacement for it.

        Raises :class:`~index.errors.UnknownCollection`.
        """

    # Texts and chunks: for a deleted version the result is empty, or ends early

    def text_blocks(self, uid: int) -> Iterator[str]:
        """A document's text from its beginning, in blocks."""

    def text(self, uid: int, start: int, end: int) -> str:
        """Characters ``start <= i < end`` of a document."""

    def chunks(self, uid: int, *, first: int = 0, limit: int = 100) -> list[StoredChunk]:
        """At most ``limit`` of a document's chunks from number ``first`` on, in order; none until it is cut."""

    def starts(self, uid: int) -> IntArray:
        """The first character of each of a document's chunks, shape ``[chunks]``; none until it is cut."""

    def places(self, uid: int) -> list[Place]:
        """Where the parts of a document stand in the file that it was read from, in order; none of a plain text."""

    # Searching

    def choose(
        self, collection: str, document_ids: Sequence[str] | None = None, filter: Filter | None = None
    ) -> Chosen:
        """The ``ready`` documents of a collection that have chunks, narrowed by ids and metadata.

        Raises :class:`~index.errors.UnknownCollection`, or :class:`~index.errors.UnknownDocument` for an id that the
        collection does not hold.
        """

    # Indexing: all of this belongs to the one thread that indexes

    def waiting(self, long_characters: int) -> Iterator[Document]:
        """Documents that are ``queued`` or ``indexing``, in the order in which they should be indexed.

        Those longer than ``long_characters`` come last; otherwise the order is that of arrival. Each is read when the
        iterator reaches it, and skipped where it waits no longer.
        """

    def save_chunks(self, uid: int, chunks: IntArray) -> None:
        """Store how a document is cut, and mark it ``indexing``; does nothing where it was deleted.

        ``chunks`` has shape ``[chunks, 3]``: start, end and tokens of each.
        """

    def set_progress(self, uid: int, progress: float) -> None:
        """Record the share of a document that is embedded; not durable."""

    def finish(self, uids: Iterable[int]) -> None:
        """Mark documents ``ready`` whose chunks all have a vector in the active space: a search finds them from now on.

        One that replaces another takes its place at the same moment. Deleted ones are skipped. After a crash between
        :meth:`VectorStore.append` and this, the documents still wait, and the next round finds nothing left to embed
        in them.
        """

    def fail(self, uids: Iterable[int], reason: str) -> None:
        """Mark documents ``failed``; the reason is shown to the user. Deleted ones are skipped."""

    @property
    def stalled(self) -> str | None:
        """Why indexing is stalled, if it is; shown as the ``error`` of every waiting document."""

    @property
    def stalls(self) -> int:
        """How often :meth:`stall` was called."""

    def stall(self, reason: str) -> None:
        """Record why indexing is stalled; not durable. A deletion clears it."""

    def resume(self) -> None:
        """Record that indexing goes on."""

    # Properties of the whole storage, small texts by name

    def read_property(self, name: str) -> str | None:
        """A property; none where it was never written."""

    def write_properties(self, properties: Mapping[str, str | None]) -> None:
        """Set properties, or remove those that are none, all at once."""

    def settle_property(self, name: str, value: str) -> str:
        """A property, which gets this value where it has none: the same for all who ask, whoever is first."""


class Scopes(Protocol):
    """Scopes of one space's vectors. It stays with its space when another one becomes active."""

    def scope(
        self, collection: str, document_ids: Sequence[str] | None = None, filter: Filter | None = None
    ) -> SearchScope:
        """The chunks that :meth:`Catalogue.choose` allows, in order of arrival, of the documents this space has whole.

        Raises what that raises. A scope stays readable while it is referenced, whatever is deleted meanwhile. It is
        exact, unless it is a whole collection for which :meth:`preselect` has built an index.
        """

    def preselect(self, turning: Turning, stopped: Callable[[], bool], seconds: float) -> None:
        """Wait for a collection too large to be read at each step, and build an index for its later scopes.

        Waits at most ``seconds``, and returns at once after :meth:`close`. Gives up the index once ``stopped`` returns
        true or the collection is deleted. After any other failure, which is raised, searches of the collection stay
        exact. An engine that needs no index only waits. Belongs to one thread of its own.
        """

    def close(self) -> None:
        """Build and cache nothing more; scopes that were handed out stay readable. Idempotent."""


class VectorStore(Protocol):
    """Embeddings of chunks, in spaces side by side: one for each action tower, of which one is active (searched)."""

    @property
    def space(self) -> Space:
        """The active space."""

    @property
    def spaces(self) -> Collection[Space]:
        """Every space, the active one among them."""

    def append(
        self, rows: Sequence[ChunkAddress], vectors: Float32Array, bags: Sequence[TokenIds], space: Space
    ) -> None:
        """Store the vectors of chunks, shape ``[len(rows), space.dimension]``, with at least one row, and their bags.

        A bag is the tokens of a chunk, for the lexical signal. A document's rows stand together and continue what
        :meth:`stored` counts. Rows of deleted documents are skipped; where the space was dropped, all rows are. No
        search finds the vectors of a document before :meth:`Catalogue.finish`.
        """

    def stored(self, uid: int, space: Space) -> int:
        """How many of a document's first chunks have a vector in a space."""

    def rows(self, uid: int, numbers: IntArray, space: Space) -> Float32Array | None:
        """The vectors of some chunks of a document, shape ``[len(numbers), d]``; none where one of them is missing."""

    def unembedded(self, space: Space, limit: int) -> list[Unembedded]:
        """The first ``limit`` searchable documents, in order of arrival, for which a space lacks vectors."""

    def share_embedded(self, space: Space) -> float:
        """The share of all searchable chunks that a space has vectors of; 1 where there are none."""

    def unbagged(self, space: Space) -> Unbagged | None:
        """Some chunks of a space that have no bags, as in storages of former versions; none where all have.

        Belongs to the thread that indexes.
        """

    def add_bags(self, unbagged: Unbagged, bags: Sequence[TokenIds]) -> None:
        """Store the bags of such chunks, one for each of their rows. Belongs to the thread that indexes."""

    def open_space(self, *, fingerprint: str, dimension: int, properties: Mapping[str, str | None] = {}) -> Space:
        """The space of an action tower, to be filled. All others but the active one are dropped.

        Properties of the storage are written at the same time (:meth:`Catalogue.write_properties`).
        """

    def activate(self, space: Space, properties: Mapping[str, str | None]) -> bool:
        """Search a space from now on, and write properties at the same time; returns false while it lacks vectors.

        Documents that are not searchable yet will be cut and embedded again. Belongs to the thread that indexes.
        """

    def follow(self, fingerprint: str) -> bool:
        """Whether the active space is that of this action tower, also where another process has activated it.

        It is :attr:`space` from then on. An engine of one process has no other. Belongs to the thread that indexes.
        """

    def forget_other_spaces(self) -> None:
        """Drop the vectors of all spaces but the active one."""

    def scopes(self, space: Space | None = None, *, preselect_above: float = math.inf) -> Scopes:
        """The scopes of a space, by default the active one; of another one only while it lacks no vectors.

        Collections of more than ``preselect_above`` chunks may be preselected.
        """

    def has_room(self) -> bool:
        """Whether there is space for another :meth:`append` of :data:`APPEND_ROWS` rows."""


class Capacity(NamedTuple):
    """Space of the disk (or whatever else runs out first), in bytes."""

    free: int
    total: int


class Storage(Protocol):
    """One opened storage: a catalogue and a vector store that belong together."""

    @property
    def catalogue(self) -> Catalogue:
        """The documents."""

    @property
    def vectors(self) -> VectorStore:
        """Their embeddings."""

    @property
    def feedback(self) -> FeedbackStore:
        """What people said about their chunks."""

    @property
    def questions(self) -> QuestionStore:
        """What people asked."""

    @property
    def news(self) -> News:
        """News that both announce; others may announce to wake waiting threads."""

    @property
    def incoming_directory(self) -> Path:
        """A folder of this machine for files being received and read; emptied when the storage is opened."""

    def check(self) -> None:
        """Return where requests can be answered; raises :class:`~index.errors.StorageUnavailable` otherwise."""

    def capacity(self) -> Capacity:
        """How much space is left, and how much there is in all."""

    def calls(self) -> Sequence[EngineCalls]:
        """The calls so far to an engine that searches beyond this process; none where there is no such engine."""

    def reclaim_space(self) -> bool:
        """Remove some of what deleted documents have left behind; returns whether there was anything.

        Works on a full disk. Belongs to the thread that indexes.
        """

    def maintain(self) -> bool:
        """One round of housekeeping, for when nothing waits to be indexed; returns whether there was anything to do.

        Searches go on meanwhile. Belongs to the thread that indexes.
        """

    def close(self) -> None:
        """Release everything, so that another process can open the storage."""
