"""``qrag feedback``: the judgements of which chunks helped, for training and for an end."""

from __future__ import annotations

import argparse
import json

from qrag import Client
from qrag.cli.looking import delete_each


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``qrag feedback``."""
    parser.add_argument(
        "action", choices=("export", "delete"), help="export prints a JSON object a record; delete removes records"
    )
    parser.add_argument("id", nargs="*", help="id of a record to delete")
    parser.add_argument("--collection", metavar="C", help="export only its feedback, or delete all of it")


def check(arguments: argparse.Namespace) -> None:
    """Raises :class:`ValueError` for arguments that contradict each other, before anything is sent."""
    if arguments.action == "export" and arguments.id:
        raise ValueError("export takes no ids: --collection narrows it")
    if arguments.action == "delete" and bool(arguments.id) == (arguments.collection is not None):
        raise ValueError("delete takes ids, or --collection for all of its feedback")


def run(client: Client, arguments: argparse.Namespace) -> int:
    """Export or delete feedback; 1 if some records could not be deleted."""
    if arguments.action == "export":
        for record in client.feedback(collection=arguments.collection):
            print(json.dumps(record.model_dump(mode="json")))
    elif arguments.collection is not None:
        client.delete_all_feedback(arguments.collection)
        print(f"the feedback of {arguments.collection} is deleted")
    else:
        return delete_each(client.delete_feedback, arguments.id)
    return 0
