"""Changes of JSON objects."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue


def merge_patch(target: JsonValue, patch: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The target after a merge patch (RFC 7396): objects are merged, null removes a field, all else is replaced."""
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value) if isinstance(value, dict) else value
    return merged
