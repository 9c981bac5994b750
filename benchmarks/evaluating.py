"""How long ``qrag eval`` takes for a thousand questions about a book of 200,000 tokens.

    python -m benchmarks.evaluating --data DIR [--questions N]

A service of its own holds the beginning of books laid end to end. A question is made from each of so many sentences,
spread over the whole text, and expects it: what a question costs does not depend on how well it was put. The command is
the one that is installed, with all that it does by default. Result: ``benchmarks/results/evaluating.json``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.serving import ROOT, running_service
from index.encoders.loading import load_encoder
from service.settings import DEFAULT_CHECKPOINT
from trainer.datasets.books import book_sentences, read_books
from trainer.evaluation.machine import describe_machine

RESULT = Path(__file__).parent / "results" / "evaluating.json"
TOKENS = 200_000
LEAST_WORDS = 8


def read_sentences(data: Path) -> tuple[list[str], int]:
    """The first sentences of the dev books, as many as have so many tokens, and how many they have."""
    tokenizer = load_encoder(DEFAULT_CHECKPOINT, device="cpu").chunk_tokenizer
    sentences = [sentence for book in read_books(data / "books", "dev") for sentence in book_sentences(book.text)]
    tokens = np.cumsum(tokenizer.count(sentences))
    count = int(np.searchsorted(tokens, TOKENS)) + 1
    return sentences[:count], int(tokens[count - 1])


def asked(sentences: list[str], count: int) -> list[dict[str, Any]]:
    """Questions about sentences that stand once in the text."""
    usable = [each for each in sentences if len(each.split()) >= LEAST_WORDS and sentences.count(each) == 1]
    chosen = [usable[place] for place in np.linspace(0, len(usable) - 1, count, dtype=np.int64)]
    return [
        {
            "question": f"Where does it say that {' '.join(each.split()[:LEAST_WORDS])}?",
            "expected": [{"text": each}],
        }
        for each in chosen
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the data")
    parser.add_argument("--questions", type=int, default=1000, metavar="N", help="default: 1000")
    arguments = parser.parse_args()
    sentences, tokens = read_sentences(arguments.data)
    questions = asked(sentences, arguments.questions)
    with tempfile.TemporaryDirectory() as temporary, running_service() as service:
        body = {"text": "\n".join(sentences)}
        document = service.client.post("/documents", params={"wait": True}, json=body).raise_for_status().json()
        folder = Path(temporary)
        (folder / "questions.jsonl").write_text("".join(json.dumps(question) + "\n" for question in questions))
        began = time.perf_counter()
        subprocess.run(
            [ROOT / ".venv/bin/qrag", "--url", service.address, "eval", "questions.jsonl", "--out", "report"],
            cwd=folder,
            check=True,
        )
        seconds = time.perf_counter() - began
        report = json.loads((folder / "report" / "report.json").read_text())
    result = {
        "machine": describe_machine(),
        "checkpoint": report["model"],
        "tokens": tokens,
        "chunks": document["chunks"],
        "questions": len(questions),
        "methods": [method["name"] for method in report["methods"]],
        "seconds": round(seconds, 1),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
