"""Documents, chunks, embeddings and Q-values: everything that training and serving share. No HTTP and no gradients.

::

    arrays, errors   the array types; the exception tree
    chunking         a text cut into chunks that quote it
    search           Q-values: positions, signals, the scan, the best of a scope
    episodes         one selection after the other, and when to stop
    encoders         checkpoints, and the two towers in them
    storage          documents and vectors: protocols, and the engine in one directory
    indexing         from a queued document to a searchable one

Data flows one way: text -> chunking -> encoders -> storage; question -> encoders -> search -> episodes. Each room
imports only from those above it.
"""

import os

# Set before torch is imported: its OpenMP threads otherwise spin for long after each forward pass and take the cores
# from the scan that follows, and on a busy machine from other processes (benchmarks/results/spin.json).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
