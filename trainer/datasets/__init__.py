"""Data sets: the official formats of the benchmarks, and a plain one for one's own questions.

A module reads a format into questions (:class:`~trainer.datasets.question.Question`) and raises
:class:`~trainer.errors.DataError` with the file and the line where something is wrong. ``registry`` names the data sets
for recipes and suites; ``babi`` and ``ruler`` hide facts in ``books`` instead, ``augment`` makes more bAbI questions.
``files`` reads records, ``lexical`` is BM25.
"""
