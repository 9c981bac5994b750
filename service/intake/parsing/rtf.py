"""RTF, of which striprtf reads the text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from service.errors import UnreadableDocument
from service.intake.parsing.cleaning import CLEANED, trimmed
from service.intake.parsing.reading import Reading


def read(source: Path, _reading: Reading) -> Iterator[str]:
    """The text of an RTF file."""
    from striprtf.striprtf import rtf_to_text

    content = source.read_bytes()
    if not content.lstrip().startswith(b"{\\rtf"):
        raise UnreadableDocument("The file is no RTF. Open it in a word processor, save it as .rtf and send that.")
    words: str = rtf_to_text(content.decode("latin-1"), errors="replace")  # type: ignore[no-untyped-call]
    text = trimmed(words.translate(CLEANED))
    if not text.strip():
        raise UnreadableDocument("The RTF file holds no text: it is empty, or its pages are pictures.")
    yield text
