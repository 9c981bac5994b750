"""The catalogue of a service beyond one machine: documents, texts, jobs and feedback in PostgreSQL.

Any number of processes work on one database. Writers take turns (:mod:`~index.storage.postgres.database`), documents
are claimed for indexing (:mod:`~index.storage.postgres.work`), and what one process changes the others hear of
(:mod:`~index.storage.postgres.replicas`). The vectors are another engine's, but which of them count is said here, in
the same transactions (:mod:`~index.storage.postgres.spaces`).
"""
