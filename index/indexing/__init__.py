"""From stored texts to vectors, through the storage protocols alone.

:mod:`~index.indexing.indexer` takes the waiting documents out of the catalogue, cuts them
(:mod:`index.chunking`), embeds the chunks, appends the vectors and finishes the documents.
What a document had before it was replaced is not embedded again (:mod:`~index.indexing.reuse`).
:mod:`~index.indexing.reembedding` embeds the searchable documents again, for another action tower. Both work in rounds
that can be interrupted, over the batches of :mod:`~index.indexing.batches`.
"""
