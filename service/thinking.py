"""What a reasoning model thinks before it answers, where it stands in the text itself: none of it is the answer."""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = ("think", "thinking", "thought", "reasoning")
_OPENING: Final = re.compile(rf"\s*<({'|'.join(_NAMES)})>", re.IGNORECASE)
_LONGEST_OPENING: Final = max(map(len, _NAMES)) + len("<>")
_LONGEST_CLOSING: Final = max(map(len, _NAMES)) + len("</>")


class ThinkingFilter:
    """Lets the text of an answer through piece by piece, without a block of thinking at its beginning."""

    def __init__(self) -> None:
        self._held = ""
        self._closing: re.Pattern[str] | None = None
        """The tag that ends the thinking, while it goes on."""
        self._has_thought = False
        self._is_answering = False

    def passed(self, text: str, *, final: bool = False) -> str:
        """What of the text so far is answer and was not given out yet; ``final`` where nothing follows."""
        if self._is_answering:
            return text
        self._held += text
        while True:
            if self._closing is not None:
                end = self._closing.search(self._held)
                if end is None:
                    self._held = self._held[-_LONGEST_CLOSING:]  # the beginning of the tag may be among these
                    return ""
                self._held = self._held[end.end() :]
                self._closing, self._has_thought = None, True
            if opening := _OPENING.match(self._held):
                self._closing = re.compile(f"</{opening[1]}>", re.IGNORECASE)
                self._held = self._held[opening.end() :]
                continue
            begun = self._held.lstrip()
            if not final and (not begun or (begun.startswith("<") and len(begun) < _LONGEST_OPENING)):
                return ""  # it may still become a tag
            self._is_answering = True
            return begun if self._has_thought else self._held
