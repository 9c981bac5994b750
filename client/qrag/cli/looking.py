"""``qrag status``, ``qrag collections`` and ``qrag delete``."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Sequence

from qrag import ApiError, Client, CollectionOut, Unauthorized
from qrag.cli.terminal import bold, complain, shown, size, table


def add_status_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``qrag status``."""
    parser.add_argument("--json", action="store_true", help="print the status as JSON and nothing else")


def status(client: Client, arguments: argparse.Namespace) -> int:
    """Print whether the service is ready, its model and its documents; 1 if it is not ready."""
    if not client.ready():
        complain(f"{arguments.url} answers, but is not ready. Try again in a moment; its log has the reason.")
        return 1
    model = client.model()
    documents = list(client.documents())
    counts = Counter(document.status for document in documents)
    busy = [document for document in documents if document.status == "indexing"]
    failed = [document for document in documents if document.status == "failed"]
    collections = client.collections()
    if arguments.json:
        report = {
            "url": arguments.url,
            "ready": True,
            "model": model.model_dump(mode="json"),
            "documents": counts,
            "indexing": [document.model_dump(mode="json") for document in busy],
            "failed": [document.model_dump(mode="json") for document in failed],
            "collections": [collection.model_dump(mode="json") for collection in collections],
        }
        print(json.dumps(report, indent=2))
        return 0
    print(f"{bold('service')}    {arguments.url}, ready")
    print(f"{bold('model')}      {model.name} ({model.base_model}), {model.dimension} dimensions, on {model.device}")
    totals = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print(f"{bold('documents')}  {totals or 'none: qrag index FILE... adds some'}")
    for document in busy:
        print(f"  {document.id}: {document.progress:.0%} indexed" + (f"; {document.error}" if document.error else ""))
    for document in documents:
        if document.replacement is not None:
            new = document.replacement
            reason = f"; {shown(new.error)}" if new.error else ""
            print(f"  {document.id}: new content {new.status}, {new.progress:.0%} indexed{reason}")
    for document in failed:
        print(f"  {document.id}: failed. {shown(document.error or '')}")
    if collections:
        print(f"\n{_table(collections)}")
    return 0


def collections(client: Client, _arguments: argparse.Namespace) -> int:
    """Print the collections and their sizes."""
    print(_table(client.collections()))
    return 0


def _table(collections: list[CollectionOut]) -> str:
    rows = [(entry.name, entry.documents, entry.chunks, size(entry.bytes)) for entry in collections]
    return table(("COLLECTION", "DOCUMENTS", "CHUNKS", "TEXT"), rows)


def add_delete_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``qrag delete``."""
    parser.add_argument("id", nargs="+", help="id of a document")


def delete(client: Client, arguments: argparse.Namespace) -> int:
    """Delete documents; 1 if some could not be."""
    return delete_each(client.delete, arguments.id)


def delete_each(delete_one: Callable[[str], None], ids: Sequence[str]) -> int:
    """Delete what has these ids and say so; 1 if some could not be."""
    failed = False
    for id in ids:
        try:
            delete_one(id)
        except Unauthorized:
            raise  # every other document would fail alike
        except ApiError as error:
            failed = True
            complain(error.detail)
        else:
            print(f"{id} is deleted")
    return int(failed)
