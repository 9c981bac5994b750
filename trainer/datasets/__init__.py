"""Loaders: the official formats of the benchmarks, and a plain one for one's own data.

Each yields :class:`~trainer.datasets.question.Question` and raises :class:`~trainer.errors.DataError` with the
file and the line where something is wrong.
"""
