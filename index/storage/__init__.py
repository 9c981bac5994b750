"""Documents and their vectors, behind protocols that several engines can implement.

* :mod:`~index.storage.protocols` says what a *catalogue* (what exists) and a *vector store* (what is searched) do, and
  what they promise. Other rooms use only these.
* :mod:`~index.storage.documents`, :mod:`~index.storage.vectors`, :mod:`~index.storage.feedback` and
  :mod:`~index.storage.questions` are the values that cross the protocols, the last with its own protocol.
  :mod:`~index.storage.news` wakes threads that wait for a change.
* :mod:`~index.storage.local` is the engine that needs nothing but a directory: SQLite and FAISS files.
* :mod:`~index.storage.distributed` is a storage beyond one machine: documents in PostgreSQL
  (:mod:`~index.storage.postgres`), vectors as the points of an engine (:mod:`~index.storage.points`), which is Qdrant
  (:mod:`~index.storage.qdrant`).
* :mod:`~index.storage.moving` moves everything from one storage to another, through a folder of plain files.
* :mod:`~index.storage.opening` opens a storage, in a directory or over the two of :mod:`~index.storage.engines`.
  Another engine is a folder beside ``local`` and a change there.

Data flow: an upload is written and published (``queued``), :mod:`index.indexing` cuts it, appends the vectors of its
chunks and finishes it (``ready``). A request then gets a scope over the documents that the catalogue lets it choose
from, and :mod:`index.search` reads the scope.
"""
