"""What the readers do to extracted text, and what several of them say when a document cannot be read."""

from __future__ import annotations

from typing import Final

from service.errors import DocumentTooComplex, EncryptedDocument

CLEANED: Final = {
    code: " " if chr(code).isspace() else None for code in (*range(0x20), 0x7F) if chr(code) not in "\t\n"
}
"""Control characters, for :meth:`str.translate`: they carry no text, and lxml refuses to store them."""


def trimmed(text: str) -> str:
    """The text without the space that lines end in (table cells are padded) and without blank lines at both ends."""
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def plain(text: str) -> str:
    """The text as a field of metadata holds it: without control characters and halves of characters."""
    return text.translate(CLEANED).encode("utf-8", "replace").decode()


def encrypted(kind: str) -> EncryptedDocument:
    """The refusal of a file that needs a password; ``kind`` is its format in capitals."""
    return EncryptedDocument(f"The {kind} file needs a password; save it without one and send that.")


def too_deep() -> DocumentTooComplex:
    """The refusal of a document whose elements are nested too deeply."""
    return DocumentTooComplex(
        "The document's elements are nested too deeply to be read. Simplify it, for instance by "
        "opening it and saving it anew, then send it again."
    )
