"""Filters on metadata agree with a naive reading of their JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from qrag.wire.filters import Filter

FILTER: TypeAdapter[Filter] = TypeAdapter(Filter)


def matches(filter: object, metadata: dict[str, Any]) -> bool:
    return FILTER.validate_json(json.dumps(filter)).matches(metadata)


# -- a naive evaluator of the JSON ------------------------------------------------------------------------------------


def type_of(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    return type(value).__name__


def same(value: object, wanted: object) -> bool:
    return type_of(value) == type_of(wanted) and value == wanted


def meets(value: Any, condition: dict[str, Any]) -> bool:
    for name, wanted in condition.items():
        if name == "equals" and not same(value, wanted):
            return False
        if name == "in" and wanted is not None and not [each for each in wanted if same(value, each)]:
            return False
        if name in ("gt", "gte", "lt", "lte") and wanted is not None:
            if type_of(value) != type_of(wanted):
                return False
            if not {"gt": value > wanted, "gte": value >= wanted, "lt": value < wanted, "lte": value <= wanted}[name]:
                return False
    return True


def naive(filter: dict[str, Any], metadata: dict[str, Any]) -> bool:
    if "and" in filter:
        return all(naive(each, metadata) for each in filter["and"])
    if "or" in filter:
        return any(naive(each, metadata) for each in filter["or"])
    if "not" in filter:
        return not naive(filter["not"], metadata)
    if filter["field"] not in metadata:
        return False
    value = metadata[filter["field"]]
    return any(meets(each, filter) for each in (value if isinstance(value, list) else [value]))


FIELDS = st.sampled_from(["a", "b", "c"])
# Few values, so that equal ones meet, and those that Python confuses: 0, False, "", 1, True, 1.0, "1".
NUMBERS = st.sampled_from([0, 1, 2, -1, 1.0, 0.5, 2**60, 2**60 + 1, float(2**60)])
STRINGS = st.sampled_from(["", "1", "true", "a", "b", "B", "ä"])
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, STRINGS)
ORDERED = st.one_of(NUMBERS, STRINGS)
BOUND = st.none() | ORDERED

conditions = st.builds(
    lambda field, comparisons: {"field": field, **comparisons},
    FIELDS,
    st.fixed_dictionaries(
        {},
        optional={
            "equals": SCALARS,
            "in": st.lists(SCALARS, max_size=3),
            "gt": BOUND,
            "gte": BOUND,
            "lt": BOUND,
            "lte": BOUND,
        },
    ),
).filter(
    lambda condition: "equals" in condition or any(condition[name] is not None for name in condition.keys() - {"field"})
)

filters: st.SearchStrategy[dict[str, Any]] = st.recursive(
    conditions,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda several: {"and": several}),
        st.lists(inner, min_size=1, max_size=3).map(lambda several: {"or": several}),
        inner.map(lambda one: {"not": one}),
    ),
    max_leaves=6,
)

metadata = st.dictionaries(
    FIELDS,
    st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.just({"nested": 1}), st.just([[1], {"a": 1}])),
    max_size=3,
)


@settings(deadline=None, max_examples=1000)
@given(filters, metadata)
def test_filters_mean_what_a_naive_reading_says(filter: dict[str, Any], data: dict[str, Any]) -> None:
    assert matches(filter, data) == naive(filter, data)


# -- the rules by example ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (1, 1, True),
        (1, 1.0, True),
        (1.0, 1, True),
        (True, True, True),
        (None, None, True),
        ("a", "a", True),
        (True, 1, False),
        (1, True, False),
        (False, 0, False),
        (0, False, False),
        (1, "1", False),
        ("1", 1, False),
        ("true", True, False),
        (None, False, False),
        (0, None, False),
        ("", None, False),
        ("A", "a", False),
    ],
)
def test_values_are_compared_strictly_by_type(value: object, wanted: object, expected: bool) -> None:
    assert matches({"field": "x", "equals": wanted}, {"x": value}) == expected
    assert matches({"field": "x", "in": ["other", wanted]}, {"x": value}) == expected


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ({"gt": 5}, False),
        ({"gte": 5}, True),
        ({"lt": 5}, False),
        ({"lte": 5}, True),
        ({"gt": 4.5, "lt": 5.5}, True),
        ({"gt": 4.5, "lt": 5}, False),
        ({"gte": "4"}, False),
        ({"lte": "z"}, False),
        ({"in": [5], "gt": 4}, True),
        ({"in": [5], "gt": 5}, False),
        ({"in": []}, False),
        ({"gt": None, "lte": 5}, True),
        ({"gt": None, "lt": 5}, False),
    ],
)
def test_several_comparisons_must_all_hold(comparison: dict[str, object], expected: bool) -> None:
    assert matches({"field": "x", **comparison}, {"x": 5}) == expected


@pytest.mark.parametrize("value", [True, None, "5", {"x": 9}, [[9]]])
def test_only_numbers_are_greater_than_numbers(value: object) -> None:
    assert not matches({"field": "x", "gt": 0}, {"x": value})
    assert not matches({"field": "x", "lt": 10}, {"x": value})


def test_strings_are_ordered_by_code_points() -> None:
    assert matches({"field": "date", "gte": "2024-01-31", "lt": "2024-10"}, {"date": "2024-02-01"})
    assert not matches({"field": "date", "lt": "2024-10"}, {"date": "2024-9"})


def test_a_missing_field_meets_no_condition_and_so_every_negated_one() -> None:
    for comparison in ({"equals": None}, {"in": [None]}, {"lt": 1}):
        assert not matches({"field": "x", **comparison}, {"y": None})
        assert matches({"not": {"field": "x", **comparison}}, {"y": None})
    assert matches({"field": "x", "equals": None}, {"x": None})


def test_one_member_of_a_list_is_enough_but_must_meet_all_comparisons() -> None:
    years = {"years": [1990, 2020]}
    assert matches({"field": "years", "equals": 2020}, years)
    assert matches({"field": "years", "gt": 1980, "lt": 2000}, years)
    assert not matches({"field": "years", "gt": 2000, "lt": 2010}, years)
    assert not matches({"field": "years", "lt": 9999}, {"years": []})
    assert not matches({"field": "years", "equals": 1}, {"years": [True, "1", [1]]})


def test_combinations_nest() -> None:
    filter = {
        "and": [
            {"or": [{"field": "kind", "equals": "novel"}, {"field": "kind", "equals": "diary"}]},
            {"not": {"and": [{"field": "year", "lt": 1900}, {"not": {"field": "kept", "equals": True}}]}},
        ]
    }
    assert matches(filter, {"kind": "diary", "year": 1850, "kept": True})
    assert not matches(filter, {"kind": "diary", "year": 1850, "kept": False})
    assert matches(filter, {"kind": "novel", "year": 1950})
    assert not matches(filter, {"kind": "letter", "year": 1950})


A = {"field": "a", "equals": 1}


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"field": "a"},
        {"field": "", "equals": 1},
        {"field": "a" * 201, "equals": 1},
        {"field": 1, "equals": 1},
        {"equals": 1},
        {"field": "a", "gt": None},
        {"field": "a", "in": None, "lte": None},
        {"field": "a", "like": "x%"},
        {"field": "a", "is_in": [1]},
        {"field": "a", "equals": [1]},
        {"field": "a", "equals": {"b": 1}},
        {"field": "a", "in": 1},
        {"field": "a", "in": [[1]]},
        {"field": "a", "in": [1] * 1001},
        {"field": "a", "gt": True},
        {"field": "a", "lt": [1]},
        {"and": []},
        {"or": []},
        {"or": [A] * 101},
        {"and": A},
        {"not": [A]},
        {"not": {}},
        {"not": None},
        {"and": [A], "or": [A]},
        {"and": [A], "field": "a", "equals": 1},
        {"not": A, "equals": 1},
        [A],
        "a = 1",
        None,
        1,
    ],
)
def test_other_shapes_are_refused(wrong: object) -> None:
    FILTER.validate_python(A)
    with pytest.raises(ValidationError):
        FILTER.validate_json(json.dumps(wrong))


@pytest.mark.parametrize("bound", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("comparison", ["equals", "gt", "lte"])
def test_numbers_that_are_none_are_refused(comparison: str, bound: str) -> None:
    with pytest.raises(ValidationError):
        FILTER.validate_python(json.loads(f'{{"field": "a", "{comparison}": {bound}}}'))


def test_nesting_without_end_is_refused() -> None:
    filter: dict[str, Any] = A
    for _ in range(900):
        filter = {"not": filter}
    with pytest.raises(ValidationError):
        FILTER.validate_python(filter)


# -- beyond single fields ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"field": "year", "exists": True}, True),
        ({"field": "year", "exists": False}, False),
        ({"field": "none", "exists": True}, True),
        ({"field": "gone", "exists": True}, False),
        ({"field": "gone", "exists": False}, True),
        ({"field": "gone", "exists": False, "equals": None}, False),
        ({"field": "year", "exists": True, "gt": 2030}, False),
        ({"field": "author.name", "equals": "Ida"}, True),
        ({"field": "author.born.year", "gte": 1900}, True),
        ({"field": "author.gone", "exists": False}, True),
        ({"field": "author.name.first", "exists": True}, False),
        ({"field": "a.b", "equals": 1}, True),
        ({"field": "a.b.c", "equals": 2}, True),
        ({"field": "tags.0", "exists": True}, False),
    ],
)
def test_fields_that_are_there_and_fields_of_nested_objects(filter: dict[str, Any], expected: bool) -> None:
    metadata = {
        "year": 2024,
        "none": None,
        "author": {"name": "Ida", "born": {"year": 1901}},
        "a.b": 1,
        "a": {"b": {"c": 2}},
        "tags": ["x"],
    }
    assert matches(filter, metadata) is expected


@pytest.mark.parametrize("stored", ["Z\u00fcrich", "Zu\u0308rich"])
@pytest.mark.parametrize("asked", ["Z\u00fcrich", "Zu\u0308rich"])
def test_the_two_spellings_of_a_letter_are_one(stored: str, asked: str) -> None:
    for filter in ({"equals": asked}, {"in": [asked]}, {"gte": asked, "lte": asked}):
        assert matches({"field": "town"} | filter, {"town": stored})
        assert matches({"field": "town"} | filter, {"town": ["x", stored]})
    assert matches({"field": asked, "equals": 1}, {stored: 1})


def test_a_condition_that_asks_for_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="exists"):
        matches({"field": "a"}, {})
