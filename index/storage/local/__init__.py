"""The embedded storage engine: a data directory with one SQLite file and vector files, held by one process.

::

    qrag.sqlite3     documents, texts, chunks, the document of each row of a segment, feedback, questions
    segments/*.faiss embeddings, written once
    segments/*.codes their codes, which a search reads
    incoming/        files being received and read, removed after a crash
    reserve          space released for a deletion when the disk is full
    lock             held while a process has the directory open

SQLite decides what exists. A segment file is durable *before* the transaction that mentions it commits, and removed
*after* the one that last did; whatever a crash leaves in between is mentioned nowhere and is swept away at the next
start. Vectors are stored in one transaction and their documents become ``ready`` in the next: after a crash between
the two, the next round of indexing finds nothing left to embed in them and makes them ``ready``.

* :mod:`~index.storage.local.opening` opens and closes a directory. :mod:`~index.storage.local.directory` holds what
  everything shares: lock, database, reserve, news.
* :mod:`~index.storage.local.catalogue` is the catalogue, with :mod:`~index.storage.local.uploads`,
  :mod:`~index.storage.local.deletion` and :mod:`~index.storage.local.rows` over
  :mod:`~index.storage.local.database` (schema, connections, transactions); :mod:`~index.storage.local.records`
  are the stores of feedback and of questions over the same.
* :mod:`~index.storage.local.vectors` is the vector store: :mod:`~index.storage.local.files.segments` are its files,
  :mod:`~index.storage.local.spaces` its rows, :mod:`~index.storage.local.scopes` what is searched, and
  :mod:`~index.storage.local.compaction` merges segments.
* :mod:`~index.storage.local.backup` copies a data directory and puts it back, for operators.

Only this folder contains SQL.
"""
