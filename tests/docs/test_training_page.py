"""docs/training.md: its tables have every field of a recipe, as the code has it."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from tests.docs.pages import ROOT
from trainer.recipe import BabiTask, DatasetTask, Recipe, RulerTask

OF_THEIR_OWN = {"kind", "tasks", "hyperparameters"}
"""Said in other words."""


def rows(model: type[BaseModel]) -> dict[str, str]:
    """The name, the default and the description of each field, as a line of a table."""
    found = {}
    for name, field in model.model_fields.items():
        default = field.default
        shown = (
            "required" if field.is_required() else f"`{default if isinstance(default, BaseModel) else repr(default)}`"
        )
        found[name] = f"| `{name}` | {shown} | {field.description or ''} |"
    return found


@pytest.mark.parametrize("model", [Recipe, BabiTask, RulerTask, DatasetTask])
def test_every_field_of_a_recipe_is_described(model: type[BaseModel]) -> None:
    lines = set((ROOT / "docs" / "training.md").read_text(encoding="utf-8").splitlines())
    missing = {name: row for name, row in rows(model).items() if name not in OF_THEIR_OWN and row not in lines}
    assert not missing
