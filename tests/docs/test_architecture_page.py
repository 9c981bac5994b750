"""docs/architecture.md names every room and no other, and answers where new things go."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ROOMS = dict(re.findall(r"^\*\*`([\w/]+)/`\*\*\n(.*?)(?=^\*\*`|^## )", PAGE, re.M | re.S))

SEAMS = {
    *("a storage engine", "a second signal in Q", "a reward", "a teacher, or a reranker as one", "a stop rule"),
    *(
        "a reader",
        "an ending",
        "a data set",
        "a document format",
        "a route with its schema",
        "an MCP tool",
        "a setting",
    ),
    "a metric",
}


def folders(package: Path) -> set[str]:
    """The folders of a package that hold something of this repository."""
    files = [path.relative_to(package) for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.parts[0] for path in files if len(path.parts) > 1}


@pytest.mark.parametrize("package", ["client/qrag", "index", "service", "trainer"])
def test_the_rooms_of_a_package_are_named(package: str) -> None:
    first_cells = re.findall(r"^\| ([^|]+) \|", ROOMS[package], re.M)
    assert set(re.findall(r"`(\w+)/`", " ".join(first_cells))) == folders(ROOT / package)


def test_the_table_has_a_row_for_every_seam() -> None:
    table = PAGE.partition("## To add something")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| ([^|`]+?) \|", table, re.M)) >= SEAMS
