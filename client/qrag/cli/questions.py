"""``qrag questions``: what people asked, to read, to measure with, and for an end."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from datetime import datetime

from qrag import Client, FeedbackOut, QuestionOut
from qrag.cli.looking import delete_each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``qrag questions``."""
    parser.add_argument(
        "action", choices=("export", "delete"), help="export prints a JSON object a question; delete removes questions"
    )
    parser.add_argument("id", nargs="*", help="id of a question to delete")
    parser.add_argument("--collection", metavar="C", help="export only its questions, or delete all of them")
    parser.add_argument("--all", action="store_true", help="delete the questions of all collections")
    parser.add_argument("--since", type=_moment, metavar="TIME", help="asked then or later: 2026-03-01, or with a time")
    parser.add_argument("--found-nothing", action="store_true", help="export only those that found nothing")
    parser.add_argument("--with-feedback", action="store_true", help="export only those with feedback")
    parser.add_argument(
        "--for-eval",
        action="store_true",
        help="export what `qrag eval` takes: each question with a chunk that helped once, and the chunks that did",
    )


def check(arguments: argparse.Namespace) -> None:
    """Raises :class:`ValueError` for arguments that contradict each other, before anything is sent."""
    narrowed = arguments.since or arguments.found_nothing or arguments.with_feedback or arguments.for_eval
    if arguments.action == "export" and (arguments.id or arguments.all):
        raise ValueError("export takes neither ids nor --all: --collection narrows it")
    if arguments.action == "delete" and narrowed:
        raise ValueError("delete takes ids, --collection or --all, nothing else")
    ways = (bool(arguments.id), arguments.collection is not None, arguments.all)
    if arguments.action == "delete" and sum(ways) != 1:
        raise ValueError("delete takes ids, or --collection for all of its questions, or --all")


def run(client: Client, arguments: argparse.Namespace) -> int:
    """Export or delete questions; 1 if some could not be deleted."""
    if arguments.action == "export":
        questions = client.questions(
            collection=arguments.collection,
            since=arguments.since,
            found_nothing=arguments.found_nothing,
            with_feedback=arguments.with_feedback or arguments.for_eval,
        )
        lines = _for_eval(questions) if arguments.for_eval else (each.model_dump(mode="json") for each in questions)
        for line in lines:
            print(json.dumps(line))
    elif arguments.id:
        return delete_each(client.delete_question, arguments.id)
    else:
        client.delete_all_questions(arguments.collection)
        print("the questions are deleted" if arguments.all else f"the questions of {arguments.collection} are deleted")
    return 0


def _for_eval(questions: Iterable[QuestionOut]) -> Iterator[dict[str, object]]:
    """Each question of a collection once, with the texts that helped; what was said last about a chunk counts."""
    asked: dict[tuple[str, str], QuestionOut] = {}
    said: dict[tuple[str, str], dict[str, FeedbackOut]] = {}
    for each in questions:
        key = each.collection, each.question
        asked.setdefault(key, each)
        said.setdefault(key, {}).update({record.id: record for record in each.feedback})
    for key, first in asked.items():
        helpful: dict[tuple[str, str], bool] = {}
        for record in sorted(said[key].values(), key=lambda record: record.created_at):
            helpful |= {(chunk.document_id, chunk.text): chunk.helpful for chunk in record.chunks}
        expected = [{"document_id": id, "text": text} for (id, text), helps in helpful.items() if helps]
        if expected:
            fields = {"id": first.id, "question": first.question, "collection": first.collection}
            yield {**fields, "expected": expected}


def _moment(text: str) -> datetime:
    """A time of this machine's zone where it names none."""
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"this is no time like 2026-03-01 or 2026-03-01T14:30: {error}") from error
