"""Mail: what the message says, below its subject, sender, recipients and date."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from pathlib import Path
from typing import Final

from service.errors import InvalidEncoding, UnreadableDocument
from service.intake.encodings import decoded, html_encoding
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.html import html_text
from service.intake.parsing.reading import Reading

_SHOWN: Final = ("Subject", "From", "To", "Cc", "Date")
_READ: Final = frozenset({"text/plain", "text/html", "text/rfc822-headers"})
"""Types of attachments that are read as text."""

_REPORTS: Final = frozenset({"message/delivery-status", "message/disposition-notification"})
"""Types of attachments that are fields and no text."""

_DEEPEST: Final = 5
"""Messages inside messages that are read."""


def read(source: Path, reading: Reading) -> Iterator[str]:
    """The text of a message, and of those that it carries; other attachments are named in a warning."""
    message = message_from_bytes(source.read_bytes(), policy=policy.default)
    if not message.keys():
        raise UnreadableDocument("The file is no message: it has no header. Save the mail as .eml and send that.")
    reading.name(str(message["subject"] or ""))
    reading.note("author", str(message["from"] or ""))
    reading.note("date", str(message["date"] or ""))
    yield "\n\n".join(_parts(message, reading, 0)).translate(CLEANED)


def _parts(message: EmailMessage, reading: Reading, depth: int) -> Iterator[str]:
    yield "\n".join(f"{name}: {message[name]}" for name in _SHOWN if message[name])
    body = message.get_body(("plain", "html"))
    if body is None and not message.is_multipart():
        reading.warn(f"The message is no text but {message.get_content_type()}, which was left out.")
    if body is not None:
        yield _text(body, reading)
    for attachment in message.iter_attachments():
        if attachment.get_content_type() == "message/rfc822" and depth < _DEEPEST:
            inner = attachment.get_payload(0)
            if isinstance(inner, EmailMessage):
                yield from _parts(inner, reading, depth + 1)
                continue
        if attachment.get_content_type() in _READ:
            yield _text(attachment, reading)
        elif attachment.get_content_type() in _REPORTS:
            yield "\n\n".join(map(_fields, attachment.iter_parts()))
        else:
            name = attachment.get_filename() or attachment.get_content_type()
            reading.warn(f"The attachment {name} was left out.")


def _text(part: MIMEPart, reading: Reading) -> str:
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


def _fields(part: EmailMessage | MIMEPart) -> str:
    """The fields of a report, or of one recipient in it."""
    return "\n".join(f"{name}: {value}" for name, value in part.items())
