"""Evaluation: what a way of retrieving finds with fixed budgets, without an oracle that stops it.

``suites`` make test sets. ``playing`` answers their questions with a checkpoint, by the code that serves, over the
embeddings in ``vectors``; ``baselines`` answer them in other ways. ``counting`` turns selections into recalls,
``reports`` into rows of a file and tables, ``plots`` into images. ``machine`` says on what it was measured.
"""
