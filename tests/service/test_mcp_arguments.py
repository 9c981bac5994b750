"""Arguments of MCP tools as frameworks and models write them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from qrag.wire.retrieval import EpisodeIn
from service.mcp.arguments import as_meant, in_words
from service.mcp.tools import TOOLS

OPTIONAL = set(EpisodeIn.model_fields) - {"question"}


def test_null_stands_for_the_default_of_every_argument() -> None:
    arguments = {"question": "Who?", **dict.fromkeys(OPTIONAL)}
    assert EpisodeIn.model_validate(as_meant(arguments, EpisodeIn)) == EpisodeIn(question="Who?")


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"max_steps": "3"}, {"max_steps": 3}),
        ({"filter": '{"field": "year", "equals": 2024}'}, {"filter": {"field": "year", "equals": 2024}}),
        ({"document_ids": '["a", "b"]'}, {"document_ids": ["a", "b"]}),
        ({"max_steps": "null"}, {}),
        ({"collection": "3", "question": "null"}, {"collection": "3", "question": "null"}),
        ({"max_steps": "three"}, {"max_steps": "three"}),
        ({"unknown": "3"}, {"unknown": "3"}),
    ],
)
def test_json_in_strings_is_read_where_no_string_is_meant(written: dict[str, Any], meant: dict[str, Any]) -> None:
    assert as_meant(written, EpisodeIn) == meant


def test_what_is_wrong_is_said_in_words_a_model_can_act_on() -> None:
    with pytest.raises(ValidationError) as wrong:
        EpisodeIn.model_validate({"question": "Who?", "max_steps": "three"})
    words = in_words(wrong.value)
    assert "max_steps: " in words
    assert "integer" in words
    assert "openapi" not in words


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_the_arguments_of_every_tool_can_be_read(name: str) -> None:
    model = TOOLS[name].arguments
    assert as_meant(dict.fromkeys(model.model_fields, "x"), model) == dict.fromkeys(model.model_fields, "x")
