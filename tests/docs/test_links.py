"""Every link of every page in the repository leads somewhere, and every picture is shown."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.docs.pages import PAGES, ROOT
from tests.markdown import anchors, links

HIDDEN_OR_BUILT = {"build", "node_modules", "runs", "data", "shared"}

EVERY_PAGE = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in HIDDEN_OR_BUILT for part in path.relative_to(ROOT).parts)
)

PICTURES = sorted((ROOT / "docs" / "pictures").iterdir())


@pytest.mark.parametrize("page", EVERY_PAGE, ids=[str(page.relative_to(ROOT)) for page in EVERY_PAGE])
def test_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        parts = urlsplit(link)
        if parts.scheme:
            continue  # the network is not asked
        target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if parts.fragment:
            assert parts.fragment in anchors(target), link


FOLDERS = ("client", "index", "service", "trainer", "tests", "benchmarks", "docs", "deploy", "examples")


@pytest.mark.parametrize("page", EVERY_PAGE, ids=[str(page.relative_to(ROOT)) for page in EVERY_PAGE])
def test_files_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]+)`", text)
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    assert set(links(index)) >= {str(page.relative_to(index.parent)) for page in PAGES if page != index}


@pytest.mark.parametrize("picture", PICTURES, ids=[picture.name for picture in PICTURES])
def test_pictures_are_shown_and_say_what_they_show(picture: Path) -> None:
    assert any(f"pictures/{picture.name}" in links(page) for page in PAGES)
    svg = ElementTree.parse(picture).getroot()
    assert svg.get("viewBox")
    assert svg.get("role") == "img"
    (title,) = svg.findall("{http://www.w3.org/2000/svg}title")
    assert title.text
