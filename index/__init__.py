"""Documents, chunks, embeddings and Q-values: everything that training and serving share.

No HTTP and no gradients here. Data flows one way: text -> :mod:`~index.chunking` ->
:mod:`~index.encoders.encoder` -> :mod:`~index.storage.local.store`; question -> state -> :mod:`~index.search.scoring` ->
:mod:`~index.episodes.episode`.
"""

import os

# Before anything imports torch: its OpenMP threads otherwise spin for long after each forward pass and take the cores
# from the scan that follows, and on a busy machine from everybody (benchmarks/results/spin.json).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
