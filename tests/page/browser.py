"""A real Chromium without a window, and what a reader does with the page in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import httpx
import pytest
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select
from selenium.webdriver.support.wait import WebDriverWait

from tests.service.helpers import Json, ask

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

_SWITCHES = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)

needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium and its driver: apt-get install chromium chromium-driver"
)

SECONDS = 90
"""How long anything may take on a busy machine."""


@contextmanager
def chromium(profile: Path) -> Iterator[Chrome]:
    """A browser with a fresh profile."""
    assert CHROMIUM is not None
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, Service(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Page:
    """The page as a reader meets it."""

    def __init__(self, driver: Chrome, base: str) -> None:
        self.driver = driver
        self.base = base
        self.expected: list[str] = []
        """Parts of console messages that a test provokes."""

    def open(self, collection: str) -> None:
        """The page about a collection, with nothing left from before."""
        self.driver.get(f"{self.base}/page/icon.svg")
        self.driver.execute_script("sessionStorage.clear(); localStorage.clear()")
        self.log("browser")
        self.log("performance")
        self.look()
        self.driver.get(f"{self.base}/?collection={collection}")

    def log(self, kind: Literal["browser", "performance"]) -> list[dict[str, Any]]:
        """What was logged since it was last asked for."""
        entries: list[dict[str, Any]] = self.driver.get_log(kind)  # type: ignore[no-untyped-call]
        return entries

    def look(
        self,
        *,
        width: int = 1200,
        height: int = 900,
        scheme: Literal["light", "dark"] = "light",
        motion: Literal["reduce", "no-preference"] = "reduce",  # what moves cannot be clicked
    ) -> None:
        """As large a window as this, and what the reader prefers."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        preferences = {"prefers-color-scheme": scheme, "prefers-reduced-motion": motion}
        features = [{"name": name, "value": value} for name, value in preferences.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def until(self, holds: Callable[[], object]) -> None:
        """Wait for something to be true of the page."""
        WebDriverWait(self.driver, SECONDS, poll_frequency=0.05).until(lambda _: holds())

    def id(self, id: str) -> WebElement:
        """An element that the page always has."""
        return self.driver.find_element(By.ID, id)

    def all(self, selector: str) -> list[WebElement]:
        """What a selector finds."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def run(self, script: str, *arguments: object) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def choose(self, id: str, value: str) -> None:
        """An option of a list."""
        Select(self.id(id)).select_by_value(value)

    def fill(self, id: str, text: str) -> None:
        """Put text into a field, as pasting does."""
        self.run("arguments[0].value = arguments[1]", self.id(id), text)

    def press(self, *keys: str) -> None:
        """Keys on whatever has the focus."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, id: str) -> None:
        """Get somewhere with the tabulator key alone."""
        for _ in range(60):
            self.press(Keys.TAB)
            if self.driver.switch_to.active_element.get_attribute("id") == id:
                return
        raise AssertionError(f"the tabulator key does not lead to {id}")

    def paste(self, text: str, *, title: str = "", chunking: str = "lines") -> None:
        """Index a text and wait until it is searchable."""
        self.until(lambda: self.id("model").text)
        before = len(self.ready())
        self.run("arguments[0].open = true", self.id("adding"))
        self.choose("chunking", chunking)
        self.fill("paste-text", text)
        self.fill("paste-title", title)
        self.id("paste").find_element(By.TAG_NAME, "button").click()
        self.until(lambda: len(self.ready()) == before + 1)

    def ready(self) -> list[WebElement]:
        """The documents that are searchable."""
        return self.all("#documents li[data-status=ready]")

    def ask(self, question: str) -> None:
        """Ask, and wait for the whole answer."""
        self.id("question").clear()
        self.id("question").send_keys(question)
        self.all("#ask button.main")[0].click()
        self.until_answered()

    def until_answered(self) -> None:
        """Wait until the selected chunks are shown in their documents."""
        self.until(lambda: self.all("#excerpts mark"))

    def wider_than_the_window(self) -> int:
        """By how many pixels one would have to scroll sideways."""
        return int(self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def assert_clean(self) -> None:
        """Nothing went wrong in the console but what was provoked, and nobody else was asked for anything."""
        for entry in self.log("browser"):
            assert any(part in entry["message"] for part in self.expected), entry
        for entry in self.log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                assert url.startswith((f"{self.base}/", "data:")), url


def asked(page: Page) -> Json:
    """The request that the page says it has made."""
    method, _, body = page.run("return document.getElementById('request').textContent").partition("\n")
    assert method == "POST /retrieve"
    content: Json = json.loads(body)
    return content


def answer(page: Page, client: httpx.Client) -> Json:
    """What the service answers to the page's request."""
    return ask(client, **asked(page))


def texts(page: Page, selector: str) -> list[str]:
    """The texts of what a selector finds, whether it can be seen or not."""
    found: list[str] = page.run(
        "return [...document.querySelectorAll(arguments[0])].map(element => element.textContent)", selector
    )
    return found
