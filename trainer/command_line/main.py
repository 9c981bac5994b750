"""``python -m trainer``: runs one command."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from tqdm.contrib.logging import logging_redirect_tqdm

from index.errors import QRagError
from qrag.client.errors import QRagClientError
from trainer.command_line.arguments import command_line
from trainer.errors import TrainerError

__all__ = ["command_line", "main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 1, after one line on standard error, where it cannot be done."""
    parsed = command_line().parse_args(arguments)
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every index it builds, at the level of debugging
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        with logging_redirect_tqdm():
            parsed.run(parsed)
    except (TrainerError, QRagError, QRagClientError, OSError, ImportError) as error:
        print(f"trainer: {error}", file=sys.stderr)
        return 1
    return 0
