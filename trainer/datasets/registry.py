"""The data sets that recipes can name and suites test on.

To add one: a module here that reads its format into questions, and an entry of :data:`DATASETS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trainer.datasets.evidence import read_evidence, read_evidence_sentences
from trainer.datasets.jsonl import read_jsonl
from trainer.datasets.multihop import musique_hops, read_2wiki, read_hotpotqa, read_musique, read_musique_single_hops
from trainer.datasets.question import Question
from trainer.datasets.squad import read_squad


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set: how its files are read, and what its questions are like."""

    name: str
    """The ``kind`` of a recipe's task."""
    read: Callable[[Path], Iterable[Question]]
    """The questions of a file, over whole paragraphs or whatever the file's chunks are."""
    read_sentences: Callable[[Path, int], Iterable[Question]] | None = None
    """The same over whole sentences packed into chunks of at most so many words; none where chunks are the file's."""
    read_single_hops: Callable[[Path, int | None], Iterable[Question]] | None = None
    """The single-hop questions that its questions were made of; a hop's id is the question's, ``#`` and a number."""
    one_article: bool = False
    """Whether the documents of a question are one article, which is no search: held-out questions, too, are asked among
    distractors."""
    sentence_labels: bool = False
    """Whether its files say which sentences are support: suites then test on packed sentences, too."""
    hops: Callable[[str], int] | None = None
    """The number of hops by a question's id: suites then report each number by itself, too."""
    test_files: Mapping[str, str] = field(default_factory=dict)
    """The file of test questions below the data folder, by the suite that asks them: ``multihop`` or ``squad``."""

    def questions(self, path: Path, words: int | None = None) -> Iterable[Question]:
        """The questions of a file, over packed sentences of at most so many ``words`` where that is possible."""
        if words is None or self.read_sentences is None:
            return self.read(path)
        return self.read_sentences(path, words)


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "hotpotqa",
            read_hotpotqa,
            read_hotpotqa,
            sentence_labels=True,
            test_files={"multihop": "multihop/hotpotqa_dev.jsonl.gz"},
        ),
        Dataset(
            "2wiki",
            read_2wiki,
            read_2wiki,
            sentence_labels=True,
            test_files={"multihop": "multihop/2wiki_dev.jsonl.gz"},
        ),
        Dataset(
            "musique",
            read_musique,
            read_musique,
            read_single_hops=read_musique_single_hops,
            hops=musique_hops,
            test_files={"multihop": "multihop/musique_dev.jsonl.gz"},
        ),
        Dataset(
            "squad",
            read_squad,
            read_squad,
            one_article=True,
            test_files={"squad": "squad/xquad_en_dev.json"},
        ),
        Dataset("evidence", read_evidence, read_evidence_sentences),
        Dataset("jsonl", read_jsonl),
    )
}
"""All data sets by name."""


def tested_in(suite: str) -> list[Dataset]:
    """The data sets that have a test file in a suite."""
    return [dataset for dataset in DATASETS.values() if suite in dataset.test_files]
