"""What comes out of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qrag.wire.media_types import MediaType
from service.intake.parsing.reading import Reading
from service.intake.parsing.worker import convert
from tests.service.files import MEBIBYTE


class Outcome:
    """What came out of a file."""

    def __init__(self, folder: Path, content: bytes, media_type: MediaType) -> None:
        source, target, self.reading = folder / "source", folder / "target", Reading()
        source.write_bytes(content)
        places = convert(source, target, media_type, reading=self.reading, output_bytes=MEBIBYTE)
        self.text = target.read_bytes().decode()
        self.paragraphs = self.text.split("\n\n")
        self._places = places

    def location_of(self, words: str) -> dict[str, Any]:
        place = self.text.index(words)
        return next((fields for start, fields in reversed(self._places) if start <= place), {})
