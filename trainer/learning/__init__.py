"""Learning: from a mixture of questions to the weights of a checkpoint.

:mod:`~trainer.learning.training` is the loop of a run, around the updates of a :mod:`~trainer.learning.learner`. The
learner plays episodes (``environment``, with a ``rewards`` class) by the policy of its ``networks``, which ``scoring``
and ``negatives`` ask for Q, into ``transitions``; an ``objectives`` class turns these into losses, in the warm start
with the values of a ``teachers`` class. ``heads`` are what the networks read of a state beside its embedding. ``state``
is what a run goes on from, ``checkpoints`` what it leaves behind, ``distributed`` what several processes agree on.
"""
