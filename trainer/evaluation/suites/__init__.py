"""Suites: the test questions of the evaluation protocol, as test sets.

They depend on the data, the suite's seed, and the numbers asked for; never on a checkpoint. Questions of one test set
are made one after the other: at ten million tokens each has 400,000 chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from trainer.evaluation.suites.evidence import evidence, reader
from trainer.evaluation.suites.needles import ruler, ruler_files
from trainer.evaluation.suites.paragraphs import multihop, multihop_joined, own_file
from trainer.evaluation.suites.prose import squad
from trainer.evaluation.suites.stories import babilong
from trainer.evaluation.suites.test_sets import TestSet

__all__ = ["SUITES", "TestSet", "babilong", "multihop"]

SUITES: Mapping[str, Callable[[Path, Sequence[str] | None, int | None, int], Iterator[TestSet]]] = {
    "babilong": babilong,
    "ruler": ruler,
    "ruler-files": ruler_files,
    "multihop": multihop,
    "multihop-joined": multihop_joined,
    "squad": squad,
    "evidence": evidence,
    "reader": reader,
    "jsonl": own_file,
}
"""Every suite by name: a function of the data, labels of lengths (none: all), questions a row (none: as many as usual)
and the seed."""
