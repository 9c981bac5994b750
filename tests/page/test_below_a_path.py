"""The page behind a proxy, below a path of its."""

from __future__ import annotations

from selenium.webdriver import Chrome

from tests.page.browser import Page, needs_chromium
from tests.service.library import QUESTION, SENTENCES
from tests.service.proxies import Proxy


@needs_chromium
def test_the_page_works_there(served: Proxy, driver: Chrome) -> None:
    page = Page(driver, served.url)
    page.expected = ["/favicon.ico"]  # the browser itself looks for one of the host, for a picture that is no page
    page.open("page")
    page.paste("\n".join(SENTENCES))
    page.ask(QUESTION)
    assert len(page.all("#steps li")) == 6
    page.assert_clean()  # and nothing was asked for beside the path
