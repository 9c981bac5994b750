"""``python -m service``: run the server, or maintain its data directory."""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from contextlib import suppress

import uvicorn
from pydantic import ValidationError

from index.checkpoint import read_config
from index.errors import QRagError
from index.reindex import forget_vectors
from service.app import create_app
from service.services import open_services
from service.settings import Settings


def main() -> None:
    """Entry point; exits with 1 and one line on standard error if the service cannot start."""
    parser = argparse.ArgumentParser(prog="python -m service", description="The Q-RAG retrieval service.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="run the server (the default)")
    commands.add_parser("reindex", help="drop all embeddings; the next start computes them from the stored texts")
    arguments = parser.parse_args()
    try:
        settings = Settings()
        logging.basicConfig(
            level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr
        )
        logging.getLogger("httpx").setLevel(logging.WARNING)
        if arguments.command == "reindex":
            _reindex(settings)
        else:
            _serve(settings)
    except (QRagError, ValidationError, OSError) as error:
        sys.exit(f"qrag: {error}")


def _serve(settings: Settings) -> None:
    services = open_services(settings)
    config = uvicorn.Config(
        create_app(services),
        host=settings.host,
        port=settings.port,
        log_level=settings.log_level,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        server_header=False,
    )
    # uvicorn drains on SIGTERM and then raises it once more: a stop that was asked for is a success.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):  # Ctrl-C is drained like SIGTERM
        server.run()
    if not server.started:
        sys.exit(1)


def _reindex(settings: Settings) -> None:
    config = read_config(settings.checkpoint)
    count = forget_vectors(settings.data_dir, dimension=config.dimension, fingerprint=config.action_fingerprint)
    print(f"{count} documents will be indexed again when the service starts.")


if __name__ == "__main__":
    main()
