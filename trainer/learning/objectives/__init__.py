"""Objectives: what the networks learn from episodes.

An objective says whose selections a rollout plays, what their returns are, and what the loss of a transition is. The
learner plays the episodes and takes the optimiser's steps. ``objective`` is the protocol, ``warm_start`` and
``lambda_returns`` are Q-RAG's two, ``reinforced`` is R3's, ``stop`` what they share about STOP.
"""
