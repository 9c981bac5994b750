"""Documents, chunks, embeddings and Q-values: everything that training and serving share.

No HTTP and no gradients here. Data flows one way: text -> :mod:`~index.chunking` ->
:mod:`~index.encoder` -> :mod:`~index.store`; question -> state -> :mod:`~index.scoring` ->
:mod:`~index.episode`.
"""
