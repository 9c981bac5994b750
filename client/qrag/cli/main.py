"""The parser of ``qrag``, and how every command ends."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from qrag import ApiError, Client, QRagClientError, Unreachable
from qrag.cli import asking, indexing, looking
from qrag.cli.terminal import complain
from qrag.client.transport import DEFAULT_URL

REFUSED: Final = 1
NOT_REACHABLE: Final = 3
INTERRUPTED: Final = 130

_HINTS = {
    "unauthorized": "Put the key into QRAG_API_KEY, or into a file for --key-file.",
    "unknown_collection": "`qrag collections` shows those that there are, `qrag index FILE...` makes one.",
}
"""By the code of a problem, what can be done about it from here."""

_EPILOG = """\
environment: QRAG_URL, QRAG_API_KEY, NO_COLOR
exit status: 0 all is well, 1 the service said no or something failed, 2 wrong usage, 3 not reachable, 130 interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit status, and exits with 2 where it is wrongly used."""
    parser = _parser()
    given = parser.parse_args(arguments)
    try:
        status = _run(parser, given)
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
    except BrokenPipeError:  # whoever reads the output has had enough: `qrag ask ... | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="qrag",
        description="Index documents and find evidence in them, with a Q-RAG service.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # `--key SECRET` must not pass as --key-file: everybody sees the arguments of a process
    )
    _add_address(parser, os.environ.get("QRAG_URL") or DEFAULT_URL, None)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        _add_address(one, argparse.SUPPRESS, argparse.SUPPRESS)
        return one

    index = command("index", "send files, and wait until they can be searched")
    indexing.add_arguments(index)
    index.set_defaults(run=indexing.run, check=indexing.check)
    ask = command("ask", "find the evidence for a question")
    asking.add_arguments(ask)
    ask.set_defaults(run=asking.run, check=asking.stop_of)
    status = command("status", "how the service is, and what it holds")
    looking.add_status_arguments(status)
    status.set_defaults(run=looking.status)
    command("collections", "the collections and their sizes").set_defaults(run=looking.collections)
    delete = command("delete", "delete documents")
    looking.add_delete_arguments(delete)
    delete.set_defaults(run=looking.delete)
    return parser


def _add_address(parser: argparse.ArgumentParser, url: str, key_file: str | None) -> None:
    """Before and after the command alike; after it, what is not given leaves alone what was given before."""
    parser.add_argument("--url", default=url, help=f"where the service is (default: QRAG_URL, or {DEFAULT_URL})")
    parser.add_argument("--key-file", default=key_file, metavar="FILE", help="has the API key (default: QRAG_API_KEY)")


def _run(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    try:
        if "check" in given:
            given.check(given)
        client = Client(given.url, _key(given))
    except (ValueError, OSError) as error:
        parser.error(str(error))
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
        if len(error.errors) > 1:  # the detail has the first
            lines += [f"  {each['at']}: {each['message']}" for each in error.errors]
        if error.status >= 500 and error.request_id is not None:
            lines.append(f"  The service's log has it as request {error.request_id}.")
    return "\n".join(lines)
