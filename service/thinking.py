"""What a reasoning model thinks before it answers, where it stands in the text itself: none of it is the answer."""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = ("think", "thinking", "thought", "reasoning")
_OPENING: Final = re.compile(rf"\s*<({'|'.join(_NAMES)})>", re.IGNORECASE)
_ONLY_CLOSING: Final = re.compile(rf"(?:\A|\n)[ \t]*</({'|'.join(_NAMES)})>[ \t]*\r?\n", re.IGNORECASE)
"""A closing tag on a line of its own, as those write it whose chat template has opened the thinking already."""
_LONGEST_OPENING: Final = max(map(len, _NAMES)) + len("<>")
_LONGEST_CLOSING: Final = max(map(len, _NAMES)) + len("</>")


class ThinkingFilter:
    """Lets the text of an answer through piece by piece, without a block of thinking at its beginning."""

    def __init__(self, *, opened: bool = False) -> None:
        """``opened`` where the model may be thinking from the start, without a tag that says so.

        Nothing is then let through before a tag on a line of its own ends the thinking; all of it in the end, where
        none does.
        """
        self.closed_only = False
        """Whether the text ended a block of thinking that it did not begin."""
        self._held = ""
        self._closing: re.Pattern[str] | None = None
        """The tag that ends the thinking, while it goes on."""
        self._opened = opened
        self._has_thought = False
        self._is_answering = False

    def passed(self, text: str, *, final: bool = False) -> str:
        """What of the text so far is answer and was not given out yet; ``final`` where nothing follows."""
        self._held += text
        if self._is_answering:
            self.closed_only = self.closed_only or _ONLY_CLOSING.search(self._held) is not None
            self._held = self._held[-2 * _LONGEST_CLOSING :]  # the beginning of such a line may be among these
            return text
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
                self._held, self._opened = self._held[opening.end() :], False
                continue
            if self._opened and (end := _ONLY_CLOSING.search(self._held)):
                self._held, self._opened = self._held[end.end() :], False
                self.closed_only = self._has_thought = True
            begun = self._held.lstrip()
            may_become_tag = not begun or (begun.startswith("<") and len(begun) < _LONGEST_OPENING)
            if not final and (self._opened or may_become_tag):
                return ""
            self._is_answering = True
            return begun if self._has_thought else self._held
