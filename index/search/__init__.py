"""Q-values of every chunk that a request may select, and the best of them.

::

    positions                      eq. 6 and the rotation, each formula once
    states, signals, function      what is scored, the summands of Q, their sum
    scope, scoring                 the candidate axis (a protocol), and the exact best of an estimate
    matrices, matrix_scope         scopes over embeddings in memory or mapped from files
    codes, kernels, scan           the read of all candidates on a CPU: bytes, compiled loops, threads
    device_scan                    the same on a GPU
    preselection                   nearest neighbours, where a scope is too large to be read for each step

States and a scope go in, :meth:`Scope.estimate <index.search.scope.Scope.estimate>` bounds every Q-value, and
:func:`index.search.scoring.best` decides in float64.
"""
