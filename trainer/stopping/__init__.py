"""Stopping: fits the stop rules of a trained checkpoint, and judges them.

``traces`` are episodes played past their ends, with all that a rule could have seen. ``calibration`` fits the head and
the curves to traces over a recipe's questions. ``judging`` plays test sets and puts together a report: ``stops``
measures one test set, ``mixed`` compares rules with fixed budgets on all; ``stop_reports``, ``stop_tables`` and
``plots`` are the report's file, tables and image.
"""
