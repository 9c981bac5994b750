"""The trainer's exceptions, one tree.

::

    TrainerError
    ├── DataError      a data file is missing, malformed, or contradicts itself; names file and line
    ├── RecipeError    a recipe asks for something that does not exist or cannot be combined
    ├── ReaderError    a frozen language model cannot be loaded, cannot score, or fails
    └── ResumeError    a run cannot be continued from what is in its directory
"""

from __future__ import annotations

from pathlib import Path


class TrainerError(Exception):
    """Base of the trainer's exceptions; the message says what to do."""


class DataError(TrainerError):
    """A data file is missing, malformed, or contradicts itself."""

    def __init__(self, path: Path, line: int | None, problem: str) -> None:
        """``line`` counts from 1; none where the whole file is meant."""
        super().__init__(f"{path}:{line}: {problem}" if line is not None else f"{path}: {problem}")


class RecipeError(TrainerError):
    """A recipe asks for something that does not exist or cannot be combined."""


class ReaderError(TrainerError):
    """A frozen language model cannot be loaded, cannot score given answers, or fails while it reads."""


class ResumeError(TrainerError):
    """A run cannot be continued from what is in its directory."""
