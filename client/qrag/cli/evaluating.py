"""``qrag eval``: how much of the expected evidence the service finds for one's own questions."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from qrag import Client, QRagClientError
from qrag.cli.terminal import complain, shown, table
from qrag.evaluation.comparing import compare
from qrag.evaluation.figures import Limit, all_figures, limit
from qrag.evaluation.library import fetch
from qrag.evaluation.markdown import interval, markdown
from qrag.evaluation.measuring import ask, requests, with_peers
from qrag.evaluation.page import page
from qrag.evaluation.questions import read_questions
from qrag.evaluation.report import Answer, Comparison, QuestionResult, Report, Score, read_report
from qrag.evaluation.resolving import Resolved, resolve
from qrag.wire.retrieval import MAX_RERANKED, MAX_STEPS

T = TypeVar("T")

PARALLEL = 32
"""Requests under way at the same time, unless told otherwise: as many states as the service embeds at once on a CPU."""

MOST_PARALLEL = 100
"""Connections that the client keeps."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``qrag eval``."""
    parser.add_argument("questions", type=_given(lambda name: read_questions(Path(name))), help="JSON Lines, or CSV")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="for report.json, .md and .html")
    parser.add_argument("--collection", metavar="C", default="default", help="of questions that name none")
    parser.add_argument(
        "--max-steps", type=_between(1, MAX_STEPS), default=6, metavar="N", help="most chunks to select (default: 6)"
    )
    parser.add_argument("--budget", action="store_true", help="also measure exactly --max-steps chunks")
    parser.add_argument(
        "--rerank", type=_between(2, MAX_RERANKED), metavar="N", help="also let a cross-encoder choose among the best N"
    )
    parser.add_argument(
        "--parallel",
        type=_between(1, MOST_PARALLEL),
        default=PARALLEL,
        metavar="N",
        help=f"requests at the same time (default: {PARALLEL})",
    )
    parser.add_argument("--strict", action="store_true", help="ask nothing where an expectation cannot be resolved")
    parser.add_argument(
        "--compare",
        type=_given(lambda name: read_report(Path(name))),
        metavar="REPORT",
        help="an earlier report.json: show what changed",
    )
    parser.add_argument(
        "--fail-under",
        action="append",
        default=[],
        type=_given(limit),
        metavar="LIMIT",
        help="exit with 1 below it, e.g. recall=0.8 or share@3=0.5; may be repeated",
    )


def check(arguments: argparse.Namespace) -> None:
    """Make the folder of the report.

    Raises :class:`OSError`, and :class:`ValueError` for arguments that make no sense, before anything is sent.
    """
    for least in arguments.fail_under:
        if least.at is not None and least.at > arguments.max_steps:
            raise ValueError(f"--fail-under {least}: there are at most {arguments.max_steps} chunks (--max-steps)")
    if arguments.compare is not None:
        asked = {(question.id, question.question) for question in arguments.questions}
        if asked.isdisjoint((result.id, result.question) for result in arguments.compare.questions):
            raise ValueError("--compare: the report has none of these questions; they are the same by id and words")
    arguments.out.mkdir(parents=True, exist_ok=True)


def run(client: Client, arguments: argparse.Namespace) -> int:
    """Evaluate, print a table and write the report; 1 below a limit, or with ``--strict`` for what is unresolved."""
    resolved = _resolved(client, arguments)
    unresolved = [(entry.question.id, reason) for entry in resolved for reason in entry.unresolved]
    for id, reason in unresolved:
        complain(f"question {id}: {reason}")
    if unresolved:
        questions = len({id for id, _ in unresolved})
        complain(
            f"expectations that cannot be resolved: {len(unresolved)}, in {questions} of {len(resolved)} questions"
        )
        if arguments.strict:
            return 1
    model = client.model().name
    answers = _measured(client, resolved, arguments)
    report = _report(model, resolved, answers, arguments)
    rows = [
        (method.name, interval(method.recall), interval(method.share), f"{method.chunks.mean:.2f}")
        for method in report.methods
    ]
    print(table(("METHOD", "RECALL", "SHARE", "CHUNKS"), rows))
    if report.comparison is not None:
        print(f"\n{_compared(report.comparison)}")
    try:
        _write(report, arguments.out)
    except OSError as error:
        complain(f"the report cannot be written: {error}")
        return 1
    print(f"\n{len(resolved)} questions; the report is in {shown(str(arguments.out / 'report.html'))}", flush=True)
    failed = sum(method.failed for method in report.methods)
    if failed:
        complain(f"{failed} answers are missing and count as nothing found: the report says why.")
    return int(_below(report, arguments.fail_under))


def _resolved(client: Client, arguments: argparse.Namespace) -> list[Resolved]:
    asked = [(question, question.collection or arguments.collection) for question in arguments.questions]
    collections = dict.fromkeys(collection for _, collection in asked)
    libraries = {
        collection: fetch(client, collection)
        for collection in tqdm(collections, desc="fetching", unit="collection", leave=False, disable=None)
    }
    return [resolve(question, libraries[collection]) for question, collection in asked]


def _measured(
    client: Client, resolved: Sequence[Resolved], arguments: argparse.Namespace
) -> Sequence[dict[str, Answer]]:
    sent = requests(arguments.max_steps, arguments.budget, arguments.rerank)
    with tqdm(total=len(resolved) * len(sent), desc="asking", unit="request", leave=False, disable=None) as bar:
        answered = 0

        def progress() -> None:
            nonlocal answered
            answered += 1
            bar.update()

        try:
            answers = ask(client, resolved, sent, arguments.parallel, progress)
        except QRagClientError:
            with bar.external_write_mode():
                complain(f"{answered} of {len(resolved) * len(sent)} requests were answered; no report was written.")
            raise
    return list(with_peers(answers, resolved, arguments.max_steps))


def _report(
    model: str, resolved: Sequence[Resolved], answers: Sequence[dict[str, Answer]], arguments: argparse.Namespace
) -> Report:
    results = [_result(entry, answer) for entry, answer in zip(resolved, answers, strict=True)]
    report = Report(
        created_at=datetime.now(UTC),
        model=model,
        max_steps=arguments.max_steps,
        methods=all_figures(results, arguments.max_steps),
        questions=results,
    )
    if arguments.compare is None:
        return report
    return report.model_copy(update={"comparison": compare(report, arguments.compare)})


def _result(resolved: Resolved, answers: dict[str, Answer]) -> QuestionResult:
    question = resolved.question
    return QuestionResult(
        id=question.id,
        question=question.question,
        collection=resolved.library.collection,
        expected=[" or ".join(expected.words() for expected in alternatives) for alternatives in question.expected],
        unresolved=list(resolved.unresolved),
        scores={
            method: Score(
                answer=answer,
                found_at=resolved.found_at([(chunk.document_id, chunk.index) for chunk in answer.chunks]),
            )
            for method, answer in answers.items()
        },
    )


def _write(report: Report, folder: Path) -> None:
    for name, text in (
        ("report.json", report.model_dump_json(indent=1)),
        ("report.md", markdown(report)),
        ("report.html", page(report)),
    ):
        (folder / name).write_text(text, encoding="utf-8")


def _compared(comparison: Comparison) -> str:
    rows = [
        (
            method.name,
            interval(method.recall, signed=True),
            interval(method.share, signed=True),
            len(method.better),
            len(method.worse),
        )
        for method in comparison.methods
    ]
    names = ("METHOD", "RECALL CHANGED", "SHARE CHANGED", "BETTER", "WORSE")
    lines = [f"on the {comparison.questions} questions of both reports:", table(names, rows)]
    for method in comparison.methods:
        lines += [f"{method.name}, worse: {shown(', '.join(method.worse))}"] if method.worse else []
    return "\n".join(lines)


def _below(report: Report, limits: Sequence[Limit]) -> bool:
    """Whether a figure of the service's own answers, the first method, is below its limit; says which."""
    below = [least for least in limits if least.measured(report.methods[0]) < least.least]
    for least in below:
        complain(f"{least} is {least.measured(report.methods[0]):.3f}, below {least.least:g}")
    return bool(below)


def _given(read: Callable[[str], T]) -> Callable[[str], T]:
    """A reader of an argument whose errors argparse shows as they are."""

    def reading(words: str) -> T:
        try:
            return read(words)
        except (ValueError, OSError) as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return reading


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(words: str) -> int:
        value = int(words)
        if not least <= value <= most:
            raise ValueError(f"{value} is not between {least} and {most}")
        return value

    return _given(number)
