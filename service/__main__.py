"""``python -m service``: run the server, maintain, back up and move what it keeps, make and remove keys."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from pydantic import ValidationError

from index.errors import QRagError, StoreInUse
from service.errors import ConfigurationError
from service.keys import Right, add_key, read_keys, remove_key
from service.settings import Settings

_OF_DIRECTORIES = {"reindex", "backup", "restore"}
"""Commands that work on the files of a data directory."""


def main() -> None:
    """Entry point; exits with 1 and one line on standard error if the service cannot start."""
    parser = argparse.ArgumentParser(prog="python -m service", description="The Q-RAG retrieval service.")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("serve", help="run the server (the default)")
    commands.add_parser("reindex", help="drop all embeddings; the next start computes them from the stored texts")
    backup = commands.add_parser("backup", help="copy the data directory, also while the service runs")
    backup.add_argument("target", type=Path, help="a new or empty folder")
    restore = commands.add_parser("restore", help="put a backup into QRAG_DATA_DIR, which must be empty or new")
    restore.add_argument("source", type=Path, help="the folder of the backup")
    export = commands.add_parser("export", help="write all documents, with their vectors, into a folder of plain files")
    export.add_argument("target", type=Path, help="a new or empty folder, or that of an export to go on with")
    put = commands.add_parser("import", help="put an export into the storage; what is there already is left as it is")
    put.add_argument("source", type=Path, help="the folder of the export")
    put.add_argument("--replace", action="store_true", help="put its content in the place of other content")
    _add_keys_command(commands.add_parser("keys", help="make, list and remove API keys; no restart is needed"))
    arguments = parser.parse_args()
    try:
        settings = Settings()
        if settings.engines is not None and arguments.command in _OF_DIRECTORIES:
            raise ConfigurationError(
                f"{arguments.command} is for a data directory, and QRAG_DATABASE_URL is set. "
                "docs/operating.md says how documents in PostgreSQL are kept safe, and how all are embedded again."
            )
        if arguments.command == "reindex":
            _reindex(settings)
        elif arguments.command == "backup":
            _back_up(settings, arguments.target)
        elif arguments.command == "restore":
            _restore(settings, arguments.source)
        elif arguments.command == "export":
            _export(settings, arguments.target)
        elif arguments.command == "import":
            _import(settings, arguments.source, replace=arguments.replace)
        elif arguments.command == "keys":
            _keys(settings, arguments)
        else:
            _serve(settings)
    except (QRagError, ValidationError, OSError) as error:
        sys.exit(f"qrag: {error}")


def _add_keys_command(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True)
    add = actions.add_parser("add", help="make a key; it is printed once and kept as a hash")
    add.add_argument("name", help="for the log, and for removing it")
    add.add_argument(
        "--right", action="append", choices=["read", "write", "admin"], help="default: read and write; may be repeated"
    )
    add.add_argument("--collection", action="append", metavar="NAME", help="default: all; may be repeated")
    actions.add_parser("list", help="names, rights and collections")
    actions.add_parser("remove", help="the next request with it is refused").add_argument("name")


def _keys(settings: Settings, arguments: argparse.Namespace) -> None:
    path = settings.keys_path
    if arguments.action == "add":
        rights: list[Right] = arguments.right or ["read", "write"]
        print(add_key(path, arguments.name, rights, arguments.collection))
    elif arguments.action == "remove":
        remove_key(path, arguments.name)
    else:
        for key in read_keys(path):
            collections = "all collections" if key.collections is None else ", ".join(sorted(key.collections))
            print(f"{key.name}\t{', '.join(sorted(key.rights))}\t{collections}\t{key.created_at:%Y-%m-%d}")


def _serve(settings: Settings) -> None:
    _require_keys(settings)
    # Packed states have a new length nearly every time, so oneDNN's cached primitives are hardly reused, and 1,024
    # of them, the default, would take a gigabyte (benchmarks/soak.py).
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")
    # These take seconds to import, which the other commands need not wait for.
    import uvicorn

    from service.app import create_app
    from service.observing.logs import log_to_stderr
    from service.observing.observer import Observer
    from service.services import open_services

    log_to_stderr(settings.log_level, settings.log_format)
    services = open_services(settings)
    config = uvicorn.Config(
        Observer(create_app(services), services.metrics),
        host=settings.host,
        port=settings.port,
        log_config=None,  # uvicorn logs through the root logger, like all modules
        access_log=False,  # the observer logs requests with more details
        proxy_headers=False,  # ForwardedAddress reads them, and more of them
        # Longer than clients and proxies keep a connection that nothing is sent on (httpx 5 s, nginx and most load
        # balancers 60 s): where the server is the first to close it, the next request is lost.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=settings.shutdown_seconds,
        server_header=False,
        ws="none",  # no route speaks WebSocket, and an upgrade would pass the gate by
    )
    # uvicorn drains on SIGTERM and then raises it once more: a requested stop is a success.
    signal.signal(signal.SIGTERM, lambda _signal, _frame: sys.exit(0))
    server = uvicorn.Server(config)
    with suppress(KeyboardInterrupt):  # Ctrl-C is drained like SIGTERM
        server.run()
    if not server.started:
        sys.exit(1)


def _require_keys(settings: Settings) -> None:
    """Raise :class:`~service.errors.ConfigurationError` where the network could reach a service without keys."""
    if settings.loopback_only or settings.allow_anonymous or settings.api_keys or read_keys(settings.keys_path):
        return
    raise ConfigurationError(
        f"QRAG_HOST={settings.host} opens the service to the network, and there are no keys. Make one with "
        "`python -m service keys add NAME`, set QRAG_API_KEYS, or say QRAG_ALLOW_ANONYMOUS=true where something "
        "else keeps strangers away."
    )


def _reindex(settings: Settings) -> None:
    from index.encoders.checkpoint import read_config
    from index.storage.local.opening import forget_vectors

    config = read_config(settings.checkpoint)
    count = forget_vectors(settings.data_dir, dimension=config.dimension, fingerprint=config.action_fingerprint)
    print(f"{count} documents will be indexed again when the service starts.")


def _back_up(settings: Settings, target: Path) -> None:
    from tqdm import tqdm

    from index.storage.local.backup import back_up

    with tqdm(unit="B", unit_scale=True, desc="backup", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        size = back_up(settings.data_dir, target, show)
    print(f"{size:,} bytes in {target}")


def _restore(settings: Settings, source: Path) -> None:
    from index.storage.local.backup import restore

    size = restore(source, settings.data_dir)
    print(f"{size:,} bytes in {settings.data_dir}. Start the service with the checkpoint that it had.")


def _export(settings: Settings, target: Path) -> None:
    from tqdm import tqdm

    from index.encoders.loading import load_encoder
    from index.storage.documents import StoredChunk
    from index.storage.moving.exporting import export
    from service.engine.checkpoints import CHOSEN, chosen_checkpoint
    from service.observing.logs import log_to_stderr
    from service.services import storage_for_a_command

    if settings.engines is None and not settings.data_dir.is_dir():
        raise ConfigurationError(f"{settings.data_dir} is no data directory. Set QRAG_DATA_DIR to the service's.")
    log_to_stderr(settings.log_level, settings.log_format)
    _, checkpoint = chosen_checkpoint(settings)
    encoder = load_encoder(checkpoint, device="cpu")

    def terms(chunks: Sequence[StoredChunk]) -> list[list[int]]:
        return encoder.terms([encoder.chunk_text(chunk.heading, chunk.text) for chunk in chunks])

    with ExitStack() as opened:
        try:
            storage = opened.enter_context(storage_for_a_command(settings, encoder.config, encoder.device))
        except StoreInUse as error:
            raise StoreInUse(
                f"{error} While the service runs, export a copy: `python -m service backup COPY`, restore that with "
                "another QRAG_DATA_DIR, and export from there."
            ) from error
        bar = opened.enter_context(tqdm(unit=" documents", desc="export", disable=None))

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        manifest = export(storage, target, terms=terms, properties=[CHOSEN], progress=show)
    print(
        f"{manifest.documents:,} documents, {manifest.chunks:,} chunks with their vectors, "
        f"{manifest.feedback_records:,} records of feedback and {manifest.question_records:,} questions in {target}"
    )


def _import(settings: Settings, source: Path, *, replace: bool) -> None:
    import torch
    from tqdm import tqdm

    from index.encoders.checkpoint import read_config
    from index.storage.moving.checking import open_export
    from index.storage.moving.importing import import_export
    from service.engine.checkpoints import chosen_checkpoint
    from service.observing.logs import log_to_stderr
    from service.services import storage_for_a_command

    log_to_stderr(settings.log_level, settings.log_format)
    _, checkpoint = chosen_checkpoint(settings)
    config = read_config(checkpoint)
    open_export(source).require_tower(config.action_fingerprint, config.dimension)  # before a directory is made
    with (
        storage_for_a_command(settings, config, torch.device("cpu")) as storage,
        tqdm(unit=" documents", disable=None) as bar,
    ):

        def show(what: str, done: int, total: int) -> None:
            bar.set_description(what)
            bar.total, bar.n = total, done
            bar.refresh()

        imported = import_export(storage, source, replace=replace, progress=show)
    print(
        f"{imported.documents:,} documents, {imported.created:,} of them new; {imported.chunks:,} chunks, "
        f"{imported.vectors:,} of them stored now; {imported.feedback:,} records of feedback, "
        f"{imported.questions:,} questions. Texts, vectors and bags were read back and compared."
    )
    if imported.differences:
        print(f"{len(imported.differences):,} documents that were there before keep chunks or vectors of their own.")


if __name__ == "__main__":
    main()
