"""Files of questions for ``qrag eval``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.service.helpers import Json
from tests.service.library import QUESTION


def written(path: Path, *questions: Json) -> str:
    """The path of a file of questions, which is written."""
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return str(path)


def expecting(*pieces: object, **fields: Any) -> Json:
    """A question that expects pieces of evidence."""
    return {"question": QUESTION, "expected": list(pieces), **fields}
