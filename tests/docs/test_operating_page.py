"""docs/operating.md lists every metric and no other."""

from __future__ import annotations

import ast
import re

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")


def metrics() -> set[str]:
    """The names of metrics in the code; a counter's is without the ``_total`` that it has for Prometheus."""
    names = set()
    for path in (ROOT / "service" / "observing").glob("*.py"):
        constants = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        names |= {node.value for node in constants if re.fullmatch(r"qrag_[a-z_]+", str(node.value))}
    return {str(name).removesuffix("_total") for name in names}


def test_every_metric_has_a_row() -> None:
    cells = re.findall(r"^\| ([^|]+) \|", PAGE.partition("## Metrics")[2], re.M)
    rows = {name.removesuffix("_total") for cell in cells for name in re.findall(r"`(qrag_\w+)`", cell)}
    assert metrics()
    assert rows == metrics()
