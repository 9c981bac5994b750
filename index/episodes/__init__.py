"""Episodes: one selection after the other, each given those before.

::

    episode              one question over one scope: greedy, or a beam
    stepping             the one function that steps many episodes together
    head, stopping       what a checkpoint has learned about stopping: probabilities, the STOP action
    rules, calibration   the stop rules, and their thresholds for a cost or a recall
    drift                what served questions get, beside those of the calibration
    heat                 heat maps of whole documents, for a trace

The states of episodes are embedded together, their scopes estimate the Q-value of each candidate, and each episode
takes its step or ends.
"""
