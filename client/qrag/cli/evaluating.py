"""``qrag eval``: what the service finds of the expected evidence for one's own questions, and how well it answers."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from qrag import Client, QRagClientError
from qrag.cli.terminal import complain, shown, table
from qrag.evaluation.answering.asking import Answerable, NoLanguageModel, write
from qrag.evaluation.comparing import compare
from qrag.evaluation.figures import OF_ANSWERS, Limit, all_figures, answer_figures, limit
from qrag.evaluation.library import fetch
from qrag.evaluation.markdown import interval, markdown
from qrag.evaluation.measuring import ask, requests, with_peers
from qrag.evaluation.page import page
from qrag.evaluation.questions import read_questions
from qrag.evaluation.report import (
    Answer,
    AnswerComparison,
    Comparison,
    Figure,
    MethodComparison,
    QuestionResult,
    Report,
    Score,
    read_report,
)
from qrag.evaluation.resolving import Resolved, resolve
from qrag.wire.checks.questions import Question
from qrag.wire.retrieval import MAX_RERANKED, MAX_STEPS

T = TypeVar("T")

PARALLEL = 32
"""Requests under way at the same time, unless told otherwise: as many states as the service embeds at once on a CPU."""

ROUNDING = 1e-9
"""What a figure may be below its limit: the mean of six times 0.8 is 0.7999999999999999."""

MOST_PARALLEL = 100
"""Connections that the client keeps."""

TIMEOUT = 330.0
"""Seconds for an answer: the service lets the language model write for 300, unless told otherwise."""


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
        help="exit with 1 below it, e.g. recall=0.8, share@3=0.5 or exact=0.5; may be repeated",
    )


def check(arguments: argparse.Namespace) -> None:
    """Make the folder of the report.

    Raises :class:`OSError`, and :class:`ValueError` for arguments that make no sense, before anything is sent.
    """
    known = {
        "answers": any(question.answers for question in arguments.questions),
        "expected evidence": any(question.expected for question in arguments.questions),
    }
    for least in arguments.fail_under:
        if least.at is not None and least.at > arguments.max_steps:
            raise ValueError(f"--fail-under {least}: there are at most {arguments.max_steps} chunks (--max-steps)")
        needed = "answers" if least.name in OF_ANSWERS else "expected evidence"
        if not known[needed]:
            raise ValueError(f"--fail-under {least}: no question has {needed}")
    if arguments.compare is not None:
        asked = {(question.id, question.question) for question in arguments.questions}
        if asked.isdisjoint((result.id, result.question) for result in arguments.compare.questions):
            raise ValueError("--compare: the report has none of these questions; they are the same by id and words")
    arguments.out.mkdir(parents=True, exist_ok=True)


def run(client: Client, arguments: argparse.Namespace) -> int:
    """Evaluate, print tables and write the report.

    1 below a limit, without a language model for questions with answers, or with ``--strict`` for what is unresolved.
    """
    resolved = _resolved(client, arguments)
    unresolved = [(id, reason) for id, entry in resolved.items() for reason in entry.unresolved]
    for id, reason in unresolved:
        complain(f"question {id}: {reason}")
    if unresolved:
        questions = len({id for id, _ in unresolved})
        total = len(arguments.questions)
        complain(f"expectations that cannot be resolved: {len(unresolved)}, in {questions} of {total} questions")
        if arguments.strict:
            return 1
    model = client.model().name
    try:
        results = _measured(client, resolved, arguments)
    except NoLanguageModel:
        complain(
            "the service has no language model to answer with: set LLM_BASE_URL and LLM_MODEL where it runs, or remove "
            "`answers` from the questions"
        )
        return 1
    report = _report(model, results, arguments)
    print(_tables(report))
    for result in results:
        if result.written is not None and result.written.error is not None:
            complain(f"question {result.id}: not answered: {result.written.error}")
    try:
        _write(report, arguments.out)
    except OSError as error:
        complain(f"the report cannot be written: {error}")
        return 1
    print(f"\n{len(results)} questions; the report is in {shown(str(arguments.out / 'report.html'))}", flush=True)
    failed = sum(method.failed for method in report.methods)
    if failed:
        complain(f"{failed} answers are missing and count as nothing found: the report says why.")
    return int(_below(report, arguments.fail_under))


def _collection(question: Question, arguments: argparse.Namespace) -> str:
    collection: str = question.collection or arguments.collection
    return collection


def _resolved(client: Client, arguments: argparse.Namespace) -> dict[str, Resolved]:
    """The questions with expected evidence, by their ids."""
    asked = [(each, _collection(each, arguments)) for each in arguments.questions if each.expected]
    collections = dict.fromkeys(collection for _, collection in asked)
    libraries = {
        collection: fetch(client, collection)
        for collection in tqdm(collections, desc="fetching", unit="collection", leave=False, disable=None)
    }
    return {question.id: resolve(question, libraries[collection]) for question, collection in asked}


def _measured(client: Client, resolved: Mapping[str, Resolved], arguments: argparse.Namespace) -> list[QuestionResult]:
    """The result of each question; raises :class:`NoLanguageModel` before any other request is sent."""
    sent = requests(arguments.max_steps, arguments.budget, arguments.rerank)
    answerable = {
        question.id: Answerable(question.question, _collection(question, arguments), question.answers)
        for question in arguments.questions
        if question.answers
    }
    total = len(answerable) + len(resolved) * len(sent)
    with tqdm(total=total, desc="asking", unit="request", leave=False, disable=None) as bar:
        answered = 0

        def progress() -> None:
            nonlocal answered
            answered += 1
            bar.update()

        try:
            texts = write(client, [*answerable.values()], arguments.max_steps, arguments.parallel, progress)
            answers = ask(client, [*resolved.values()], sent, arguments.parallel, progress)
        except QRagClientError:
            with bar.external_write_mode():
                complain(f"{answered} of {total} requests were answered; no report was written.")
            raise
    written = dict(zip(answerable, texts, strict=True))
    selected = dict(zip(resolved, with_peers(answers, [*resolved.values()], arguments.max_steps), strict=True))
    return [
        QuestionResult(
            id=question.id,
            question=question.question,
            collection=_collection(question, arguments),
            expected=[
                " or ".join(expected.words() for expected in alternatives) for alternatives in question.expected or ()
            ],
            unresolved=list(resolved[question.id].unresolved) if question.expected else [],
            scores=_scores(resolved[question.id], selected[question.id]) if question.expected else {},
            answers=question.answers or [],
            written=written.get(question.id),
        )
        for question in arguments.questions
    ]


def _scores(resolved: Resolved, answers: Mapping[str, Answer]) -> dict[str, Score]:
    return {
        method: Score(
            answer=answer,
            found_at=resolved.found_at([(chunk.document_id, chunk.index) for chunk in answer.chunks]),
        )
        for method, answer in answers.items()
    }


def _report(model: str, results: list[QuestionResult], arguments: argparse.Namespace) -> Report:
    report = Report(
        created_at=datetime.now(UTC),
        model=model,
        max_steps=arguments.max_steps,
        methods=all_figures(results, arguments.max_steps),
        answers=answer_figures(results),
        questions=results,
    )
    if arguments.compare is None:
        return report
    return report.model_copy(update={"comparison": compare(report, arguments.compare)})


def _write(report: Report, folder: Path) -> None:
    for name, text in (
        ("report.json", report.model_dump_json(indent=1)),
        ("report.md", markdown(report)),
        ("report.html", page(report)),
    ):
        (folder / name).write_text(text, encoding="utf-8")


def _tables(report: Report) -> str:
    rows = [
        (method.name, interval(method.recall), interval(method.share), f"{method.chunks.mean:.2f}")
        for method in report.methods
    ]
    names = ("METHOD", "RECALL", "SHARE", "CHUNKS")
    parts = [table(names, rows) if rows else "no question has expected evidence: only the answers are measured"]
    if report.answers is not None:
        figures = report.answers
        row = (figures.questions, interval(figures.exact), interval(figures.f1), figures.failed)
        parts.append(table(("ANSWERS", "EXACT", "F1", "NOT ANSWERED"), [row]))
    if report.comparison is not None:
        parts.append(_compared(report.comparison))
    return "\n\n".join(parts)


def _compared(comparison: Comparison) -> str:
    lines = [f"on the {comparison.questions} questions of both reports:"]
    if comparison.methods:
        rows = [_change(each.name, each.recall, each.share, each) for each in comparison.methods]
        lines.append(table(("METHOD", "RECALL CHANGED", "SHARE CHANGED", "BETTER", "WORSE"), rows))
    if (answers := comparison.answers) is not None:
        row = _change(answers.questions, answers.exact, answers.f1, answers)
        lines.append(table(("ANSWERS", "EXACT CHANGED", "F1 CHANGED", "BETTER", "WORSE"), [row]))
    lines += [
        f"{name}, worse: {shown(', '.join(change.worse))}" for name, change in comparison.changes() if change.worse
    ]
    return "\n".join(lines)


def _change(
    name: object, first: Figure, second: Figure, change: MethodComparison | AnswerComparison
) -> tuple[object, ...]:
    differences = (interval(first, signed=True), interval(second, signed=True))
    return (name, *differences, len(change.better), len(change.worse))


def _below(report: Report, limits: Sequence[Limit]) -> bool:
    """Whether a figure is below its limit; says which."""
    below = [least for least in limits if least.measured(report) < least.least - ROUNDING]
    for least in below:
        complain(f"{least} is {least.measured(report):.3f}, below {least.least:g}")
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
