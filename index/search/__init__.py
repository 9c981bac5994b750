"""Q-values of every chunk that a request may select, and the best of them.

::

    positions, turning           eq. 6 and the rotation, each formula once; what of a state turns
    states, function             what is scored, and the sum of the signals
    signals                      the summands of Q: the inner product, and tokens
    surroundings                 a chunk's average with those beside it
    scope, scoring               the candidate axis (a protocol), and the exact best of an estimate
    scanning                     the read of all candidates: matrices, codes, bags, compiled loops, threads, the GPU
    matrix_scope, preselection   scopes over matrices; nearest neighbours, where one is too large to be read each step
    explanation                  what one Q-value is made of

States and a scope go in, :meth:`Scope.estimate <index.search.scope.Scope.estimate>` bounds every Q-value, and
:func:`index.search.scoring.best` decides in float64.
"""
