"""Mail: what the message says, below its subject, sender, recipients and date."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from pathlib import Path
from typing import Final

from service.errors import UnreadableDocument
from service.intake.encodings import decoded, html_encoding
from service.intake.parsing.cleaning import CLEANED
from service.intake.parsing.markup.html import html_text
from service.intake.parsing.reading import Reading

_SHOWN: Final = ("Subject", "From", "To", "Cc", "Date")
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
    if body is not None:
        yield _text(body)
    for attachment in message.iter_attachments():
        if attachment.get_content_type() == "message/rfc822" and depth < _DEEPEST:
            inner = attachment.get_payload(0)
            if isinstance(inner, EmailMessage):
                yield from _parts(inner, reading, depth + 1)
                continue
        if attachment.get_content_type() == "text/plain":
            yield _text(attachment)
        else:
            name = attachment.get_filename() or attachment.get_content_type()
            reading.warn(f"The attachment {name} was left out.")


def _text(part: MIMEPart) -> str:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ""
    if part.get_content_subtype() == "html":
        return html_text(decoded(content, part.get_content_charset(), html_encoding, "cp1252"), Reading())
    return decoded(content, part.get_content_charset(), last="cp1252").replace("\r\n", "\n").strip()
