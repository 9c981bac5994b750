"""Episodes: one selection after the other, each in the light of those before.

::

    episode              one question over one scope: greedy, or a beam
    stepping             the one function that steps many episodes together
    head, stopping       what a checkpoint has learned about stopping: probabilities, the STOP action
    rules, calibration   the stop rules, and the threshold that follows from a wish
    heat                 what a trace shows of whole documents

The states of episodes are embedded together, their scopes say what each candidate is worth, and each episode takes its
step or ends.
"""
