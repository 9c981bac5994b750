from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from selenium.webdriver import Chrome

from tests.page.browser import Page, chromium
from tests.service.proxies import served
from tests.shared_server import client, collection, shared_client

__all__ = ["client", "collection", "served", "shared_client"]


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A Chromium for all modules that look at the page."""
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(driver: Chrome, shared_client: httpx.Client, collection: str) -> Iterator[Page]:
    """The page about a collection of its own; at the end nothing may have gone wrong in it."""
    page = Page(driver, str(shared_client.base_url).rstrip("/"))
    page.open(collection)
    yield page
    page.assert_clean()
