"""Qdrant as the engine of vectors: it keeps embeddings and bags of tokens, and does the searching.

It knows nothing of Q, and need not: a state turned to each level of its positions is a batch of plain searches under
conditions (:mod:`index.search.turning`). Which documents exist and may be searched is never decided here
(:mod:`index.storage.points`).

* :mod:`~index.storage.qdrant.points` writes and reads, :mod:`~index.storage.qdrant.layout` says how chunks stand there,
  :mod:`~index.storage.qdrant.connection` makes the calls.
* :mod:`~index.storage.qdrant.scope` is what is searched: :mod:`~index.storage.qdrant.conditions` narrow a search to it,
  :mod:`~index.storage.qdrant.lists` are what Qdrant is asked for and what follows from it,
  :mod:`~index.storage.qdrant.contenders` what has to be scored, :mod:`~index.storage.qdrant.contents` reads that.
"""
