"""docs/results.md names every file of results and every benchmark."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results"


def test_every_result_is_mentioned() -> None:
    for path in RESULTS.iterdir():
        assert re.search(rf"(?<![\w-]){re.escape(path.name)}(?!\w)", PAGE), path.name
    for folder in (path for path in RESULTS.rglob("*") if path.is_dir()):
        assert f"{folder.name}" in PAGE, folder


def test_every_benchmark_is_mentioned_and_no_other() -> None:
    mentioned = set(re.findall(r"benchmarks\.(\w+)|benchmarks/(\w+)\.py", PAGE))
    assert {name or file for name, file in mentioned} == {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
