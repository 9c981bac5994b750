"""The entry point of ``qrag``: arguments, errors and exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qrag import ApiError, Client, QRagClientError, Unreachable
from qrag.cli import asking, evaluating, feedback, indexing, looking, questions, syncing
from qrag.cli.terminal import complain, write_any_text
from qrag.client.transport import DEFAULT_TIMEOUT, DEFAULT_URL

REFUSED: Final = 1
NOT_REACHABLE: Final = 3
INTERRUPTED: Final = 130
"""Exit statuses; argparse exits with 2."""

_HINTS = {
    "unauthorized": "Put the key into QRAG_API_KEY, or into a file for --key-file.",
    "unknown_collection": "`qrag collections` lists the collections, `qrag index FILE...` makes one.",
}
"""What a user of the command can do about a problem, by its code."""

_EPILOG = """\
environment: QRAG_URL, QRAG_API_KEY, NO_COLOR
exit status: 0 success, 1 the service refused or something failed, 2 wrong usage, 3 not reachable, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; wrong usage exits with 2."""
    write_any_text(sys.stdout)
    commands = parser()
    given = commands.parse_args(arguments)
    try:
        status = _run(commands, given)
        sys.stdout.flush()
    except Unreachable as error:
        complain(f"{error} (--url or QRAG_URL)")
        return NOT_REACHABLE
    except QRagClientError as error:
        complain(_explained(error))
        return REFUSED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails at exit as well
        if isinstance(error, BrokenPipeError):  # the reader of the output has stopped: `qrag ask ... | head -1`
            return 0
        complain(str(error))  # a full disk, for instance
        return REFUSED
    return status


def parser() -> argparse.ArgumentParser:
    """The parser of all commands and their arguments."""
    program = argparse.ArgumentParser(
        prog="qrag",
        description="Index documents and find evidence in them, with a Q-RAG service.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # `--key SECRET` must not pass as --key-file: every user can see a process's arguments
    )
    program.set_defaults(timeout=DEFAULT_TIMEOUT)
    _add_address(program, os.environ.get("QRAG_URL") or DEFAULT_URL, None)
    commands = program.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        subparser = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        _add_address(subparser, argparse.SUPPRESS, argparse.SUPPRESS)
        return subparser

    index = command("index", "send files, and wait until they can be searched")
    indexing.add_arguments(index)
    index.set_defaults(run=indexing.run, check=indexing.check)
    sync = command("sync", "keep the documents of a folder in step with its files")
    syncing.add_arguments(sync)
    sync.set_defaults(run=syncing.run, check=syncing.check)
    ask = command("ask", "find the evidence for a question")
    asking.add_arguments(ask)
    ask.set_defaults(run=asking.run, check=asking.check)
    evaluate = command("eval", "measure what is found, and how well it is answered, for questions of your own")
    evaluating.add_arguments(evaluate)
    evaluate.set_defaults(run=evaluating.run, check=evaluating.check, timeout=evaluating.TIMEOUT)
    status = command("status", "show whether the service is ready, its model and its documents")
    looking.add_status_arguments(status)
    status.set_defaults(run=looking.status)
    command("collections", "list the collections and their sizes").set_defaults(run=looking.collections)
    delete = command("delete", "delete documents")
    looking.add_delete_arguments(delete)
    delete.set_defaults(run=looking.delete)
    judged = command("feedback", "export or delete the judgements of which chunks helped")
    feedback.add_arguments(judged)
    judged.set_defaults(run=feedback.run, check=feedback.check)
    kept = command("questions", "export or delete what people asked, where the service keeps it")
    questions.add_arguments(kept)
    kept.set_defaults(run=questions.run, check=questions.check)
    return program


def _add_address(parser: argparse.ArgumentParser, url: str, key_file: str | None) -> None:
    """Add the options that stand before or after the command; SUPPRESS as default keeps the value given before it."""
    parser.add_argument("--url", default=url, help=f"address of the service (default: QRAG_URL, or {DEFAULT_URL})")
    parser.add_argument(
        "--key-file", default=key_file, metavar="FILE", help="holds the API key (default: QRAG_API_KEY)"
    )


def _run(program: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    try:
        if "check" in given:
            given.check(given)
        client = Client(given.url, _key(given), timeout=given.timeout)
    except (ValueError, OSError) as error:
        program.error(str(error))
    with client:
        status: int = given.run(client, given)
        return status


def _key(given: argparse.Namespace) -> str | None:
    if given.key_file is not None:
        return Path(given.key_file).read_text(encoding="utf-8").strip()
    return os.environ.get("QRAG_API_KEY") or None


def _explained(error: QRagClientError) -> str:
    lines = [str(error)]
    if isinstance(error, ApiError):
        if error.code in _HINTS:
            lines[0] += f" {_HINTS[error.code]}"
        if len(error.errors) > 1:  # the detail names the first
            lines += [f"  {entry['at']}: {entry['message']}" for entry in error.errors]
        if error.status >= 500 and error.request_id is not None:
            lines.append(f"  The service's log has this as request {error.request_id}.")
    return "\n".join(lines)
