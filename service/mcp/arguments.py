"""Arguments of tools as models and frameworks really write them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from qrag.wire.models import RequestModel


def as_meant(arguments: dict[str, Any], model: type[RequestModel]) -> dict[str, Any]:
    """The arguments without those that are null, which stand for the default, and with JSON in strings read.

    Only where the model takes no string is a string read: ``"3"`` for a number, ``"{...}"`` for an object.
    """
    schema = model.model_json_schema()
    meant: dict[str, Any] = {}
    for name, value in arguments.items():
        if value is None:
            continue
        expected = schema["properties"].get(name)
        if isinstance(value, str) and expected is not None and "string" not in _types(expected, schema):
            with suppress(ValueError):  # the model says what is wrong with it
                value = from_json(value)
            if value is None:
                continue
        meant[name] = value
    return meant


def _types(expected: dict[str, Any], schema: dict[str, Any]) -> set[str]:
    """The types of JSON that a part of a schema allows."""
    if "$ref" in expected:
        return _types(schema["$defs"][expected["$ref"].rpartition("/")[2]], schema)
    parts = [part for combination in ("anyOf", "oneOf", "allOf") for part in expected.get(combination, ())]
    own = expected.get("type", "string" if "enum" in expected or "const" in expected else ())
    types = {own} if isinstance(own, str) else set(own)
    return types.union(*(_types(part, schema) for part in parts))


def in_words(error: ValidationError) -> str:
    """What is wrong with arguments, for a model to do better."""
    problems = [
        f"{'.'.join(map(str, problem['loc'])) or 'arguments'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    ]
    return f"{'; '.join(problems)}. Mend these arguments and call the tool again."
