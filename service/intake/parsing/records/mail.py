"""Mail: what the message says, below its subject, sender, recipients and date."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Final

from service.errors import InvalidEncoding, UnreadableDocument
from service.intake.encodings import decoded, html_encoding
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.html import html_text
from service.intake.parsing.reading import Reading

_SHOWN: Final = ("Subject", "From", "To", "Cc", "Date")
_READ: Final = frozenset({"text/plain", "text/html", "text/rfc822-headers"})
"""Types of parts that are read as text."""

_REPORTS: Final = frozenset({"message/delivery-status", "message/disposition-notification"})
"""Types of parts that are fields and no text."""

_DEEPEST: Final = 5
"""Messages inside messages that are read."""


def read(source: Path, reading: Reading) -> Iterator[str]:
    """The text of a message, and of those that it carries; other attachments are named in a warning."""
    message = message_from_bytes(source.read_bytes(), policy=policy.default)
    if not message.keys():
        raise UnreadableDocument("The file is no message: it has no header. Save the mail as .eml and send that.")
    reading.name(_header(message, "Subject"))
    reading.note("author", _header(message, "From"))
    reading.note("date", _header(message, "Date"))
    texts = (text for text in _message(message, reading, 0) if text.strip())
    yield "\n\n".join(texts).translate(CLEANED)


def _message(message: EmailMessage, reading: Reading, depth: int) -> Iterator[str]:
    headers = ((name, _header(message, name)) for name in _SHOWN)
    yield "\n".join(f"{name}: {value}" for name, value in headers if value)
    if message.get_content_type() in _READ or message.is_multipart():
        yield from _texts(message, reading, depth)
    else:
        reading.warn(f"The message is no text but {message.get_content_type()}, which was left out.")


def _texts(part: EmailMessage, reading: Reading, depth: int) -> Iterator[str]:
    """The texts of a part, and of those inside it, in order."""
    kind = part.get_content_type()
    parts = _inside(part)
    if kind in _READ and not parts:
        yield _text(part, reading)
    elif kind == "message/rfc822" and parts and depth < _DEEPEST:
        yield from _message(parts[0], reading, depth + 1)
    elif kind in _REPORTS:
        yield "\n\n".join(map(_fields, parts))
    elif kind == "multipart/alternative" and parts:
        yield from _alternative(parts, reading, depth)
    elif kind.startswith("multipart/") and parts:
        for inner in parts:
            yield from _texts(inner, reading, depth)
    else:
        reading.warn(f"The attachment {part.get_filename() or kind} was left out.")


def _alternative(forms: list[EmailMessage], reading: Reading, depth: int) -> Iterator[str]:
    """The texts of the first form that has any, plain text before others, then the files that the others carry."""
    texts: list[str] = []
    for form in sorted(forms, key=lambda form: form.get_content_type() != "text/plain"):
        parts = _files(form) if any(map(str.strip, texts)) else [form]
        texts += [text for part in parts for text in _texts(part, reading, depth)]
    yield from texts


def _files(form: EmailMessage) -> Iterator[EmailMessage]:
    """What one form of a text carries besides the text and its pictures."""
    if form.get_content_maintype() == "multipart":
        for part in _inside(form):
            yield from _files(part)
    elif form.get_content_maintype() not in {"text", "image"} or form.get_content_disposition() == "attachment":
        yield form


def _inside(part: EmailMessage) -> list[EmailMessage]:
    payload = part.get_payload() if part.is_multipart() else []
    return [inner for inner in payload if isinstance(inner, EmailMessage)]


def _header(message: EmailMessage, name: str) -> str:
    """A header's value, as it is written where the standard library stumbles over it; "" where there is none."""
    try:
        return str(message[name] or "")
    except Exception:  # its parser of addresses fails in many ways
        written = next((value for key, value in message.raw_items() if key.lower() == name.lower()), "")
        return " ".join(written.encode("utf-8", "surrogateescape").decode("utf-8", "replace").split())


def _text(part: EmailMessage, reading: Reading) -> str:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ""
    is_html = part.get_content_subtype() == "html"
    declared = html_encoding if is_html else _nothing
    try:
        text = decoded(content, part.get_content_charset(), declared, "cp1252")
    except InvalidEncoding:
        text = decoded(content, None, declared, "cp1252")
        reading.warn("Text whose encoding is not the one that the message names was read as what it looks like.")
    return html_text(text, reading.part()) if is_html else text.replace("\r\n", "\n").strip()


def _nothing(_content: bytes) -> None:
    """What plain text declares."""


def _fields(part: EmailMessage) -> str:
    """The fields of a report, or of one recipient in it."""
    return "\n".join(f"{name}: {value}" for name, value in part.items())
