"""docs/settings.md has every setting of the service, with its default."""

from __future__ import annotations

import re

from service.settings import DEFAULT_CHECKPOINT, Settings
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `([A-Z_]+)` \| ([^|]+?) \|", PAGE, re.M))

IN_WORDS = {"QRAG_CHECKPOINT", "QRAG_CHECKPOINTS_DIR", "QRAG_KEYS_FILE"}
"""Variables whose defaults are paths that depend on others."""


def variables() -> dict[str, object]:
    """The default of each variable."""
    return {
        str(field.validation_alias or f"QRAG_{name.upper()}"): field.default
        for name, field in Settings.model_fields.items()
    }


def shown(default: object) -> str:
    """A default as the page writes it."""
    if default is None or default == ():
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"{default:.0f}" if isinstance(default, int | float) else f"`{default}`"


def test_every_setting_has_a_row_with_its_default() -> None:
    expected = {name: shown(default) for name, default in variables().items() if name not in IN_WORDS}
    assert {name: ROWS.get(name) for name in expected} == expected
    assert set(ROWS) >= IN_WORDS


def test_the_default_checkpoint_is_the_bundled_one() -> None:
    assert ROWS["QRAG_CHECKPOINT"] == "the bundled one"
    assert Settings.model_fields["checkpoint"].default == DEFAULT_CHECKPOINT
