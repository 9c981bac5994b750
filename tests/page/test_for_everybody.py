"""The page for those who use it without a mouse, by ear, in the dark or on a phone; and with hostile documents."""

from __future__ import annotations

import json
import math
import re
from typing import Literal

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.page.browser import Page, answer, needs_chromium, texts
from tests.service.library import QUESTION, SENTENCES

pytestmark = needs_chromium

TEXT = "\n".join(SENTENCES)


def test_everything_works_with_the_keyboard_alone(page: Page) -> None:
    page.until(lambda: page.id("model").text)
    page.tab_to("chunking")
    page.press("l")  # lines
    page.tab_to("paste-text")
    page.press(Keys.ENTER.join(SENTENCES[:4]))
    page.tab_to("paste-title")
    page.press("Typed", Keys.TAB, Keys.ENTER)
    page.until(lambda: page.ready())
    assert "4 chunks" in page.ready()[0].text
    page.tab_to("question")
    page.press("Who signed the lease?", Keys.ENTER)
    page.until_answered()
    assert len(page.all("#steps li")) == 4
    page.press(Keys.TAB, Keys.TAB, Keys.TAB, Keys.TAB)  # the other fields of the form, and its button
    focused = page.driver.switch_to.active_element
    assert focused.text == "Ask"
    assert page.run("return getComputedStyle(arguments[0]).outlineStyle", focused) == "solid"
    page.press(Keys.TAB)
    badge = page.driver.switch_to.active_element
    assert re.fullmatch(r"Step \d: chunk \d, in the text", badge.accessible_name)
    page.press(Keys.ENTER)
    assert page.run("return document.activeElement.id") == f"span-{badge.text}"
    page.tab_to("copy")
    page.tab_to("context")


def test_the_first_thing_is_a_way_to_the_question(page: Page) -> None:
    page.until(lambda: page.id("model").text)
    page.press(Keys.TAB, Keys.ENTER)
    assert page.run("return document.activeElement.id") == "question"


NAMED = {"button", "textbox", "combobox", "spinbutton", "slider", "link", "progressbar", "region", "table", "dialog"}


def test_whatever_can_be_used_has_a_name(page: Page) -> None:
    page.paste(TEXT, title="Minutes")
    page.ask(QUESTION)
    page.run("for (const each of document.querySelectorAll('details')) each.open = true")
    page.until(lambda: page.all("#one-step li") and page.all(".strip table"))
    nodes = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")
    ]
    assert [role for role, name in found if role in NAMED and not name] == []
    roles = {role for role, _ in found}
    assert {"main", "banner", "navigation", "status", "slider", "table", "listitem", "heading"} <= roles
    assert ("region", "Heat map of Minutes") in found
    assert ("slider", "Place in Minutes") in found


HOSTILE = (
    "<img src=x onerror='window.pwned = 1'><script>window.pwned = 1</script>\n"
    "\u202eright to left \u2067 and never back\n"
    + "x"
    * 10_000
    + "\n</mark></bdi></div>&lt;b&gt; ${window.pwned = 1} {{pwned}}\n"
    "שלום עולם\n"
    "👩\u200d👩\u200d👧 e\u0301 \U0001f1e9\U0001f1ea\n"
)


def test_hostile_documents_are_nothing_but_text(page: Page, client: httpx.Client) -> None:
    page.paste("Short.", title="y" * 1000)
    page.paste(HOSTILE, title="<img src=x onerror='window.pwned = 1'>", chunking="lines")
    page.look(width=360, height=700)
    page.fill("max-steps", "32")
    page.ask("<img src=x onerror='window.pwned = 1'>")
    page.run("for (const each of document.querySelectorAll('details')) each.open = true")
    page.until(lambda: page.all("#one-step li"))
    expected = answer(page, client)
    assert len(expected["chunks"]) > 6
    assert sorted(texts(page, "#excerpts mark bdi")) == sorted(chunk["text"] for chunk in expected["chunks"])
    assert page.run("return document.getElementById('context').textContent") == expected["context"]
    assert page.all("main img, main script, main b") == []
    assert page.run("return window.pwned") is None
    assert page.wider_than_the_window() == 0
    page.ready()[0].find_elements(By.TAG_NAME, "button")[-1].click()
    assert page.id("confirm").text.count("<img") == 1
    assert page.wider_than_the_window() == 0


def test_what_stands_after_a_title_stays_there_however_it_is_written(page: Page) -> None:
    page.paste(TEXT, title="\u202eturned around")
    page.ask(QUESTION)
    assert page.run(
        """const title = document.querySelector("#steps bdi"), after = document.createRange();
        after.selectNode(title.nextSibling);
        return after.getBoundingClientRect().left >= title.getBoundingClientRect().right - 1"""
    )


# --- How it looks -------------------------------------------------------------------------------------------


def luminance(colour: list[int]) -> float:
    parts = [part / 255 for part in colour[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


COLOURS = """
const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
const context = canvas.getContext("2d", { willReadFrequently: true });
const rgba = colour => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
};
const background = element => {
    for (let each = element; each; each = each.parentElement) {
        const found = rgba(getComputedStyle(each).backgroundColor);
        if (found[3] === 255) return found;
    }
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some(node => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (text && element.checkVisibility() && !element.closest(".unseen, .skip, datalist"))
        found.push([element.outerHTML.slice(0, 80), rgba(getComputedStyle(element).color), background(element)]);
}
return JSON.stringify([background(document.body), found]);
"""


SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [360, 1200])
def test_all_text_can_be_read(page: Page, scheme: Literal["light", "dark"], width: int) -> None:
    page.paste(TEXT, title="Minutes")
    page.look(width=width, scheme=scheme)
    page.ask(QUESTION)
    assert page.wider_than_the_window() == 0
    surface, found = json.loads(page.run(COLOURS))
    assert len(found) > 60
    for element, colour, background in found:
        dark, light = sorted((luminance(colour), luminance(background)))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, element
    assert (luminance(surface) < 0.05) if scheme == "dark" else (luminance(surface) > 0.9)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_colours_say_the_values_evenly_and_in_one_hue(
    page: Page, client: httpx.Client, scheme: Literal["light", "dark"]
) -> None:
    page.paste(TEXT)
    page.look(scheme=scheme)
    page.ask(QUESTION)
    steps = answer(page, client)["steps"]
    points = []
    for track, step in zip(page.all("#maps .track"), steps, strict=True):
        image = page.run("return getComputedStyle(arguments[0]).backgroundImage", track).partition("), repeating")[0]
        shown = re.findall(r"oklab\((\S+) (\S+) (\S+)\) [\d.]+%|rgba\(0, 0, 0, 0\) [\d.]+%", image)
        values = step["heatmap"][0]["q"]
        assert shown[::2] == shown[1::2]  # each stretch from its begin to its end
        shown = shown[::2]
        assert len(shown) == len(values) == 12
        assert [colour == ("", "", "") for colour in shown] == [q is None for q in values]
        points += [(q, *map(float, colour)) for q, colour in zip(values, shown, strict=True) if q is not None]
    points.sort()
    lowest, highest = points[0], points[-1]
    assert abs(highest[1] - lowest[1]) > 0.55
    assert (highest[1] > lowest[1]) == (scheme == "dark")
    for q, lightness, a, b in points:
        share = (q - lowest[0]) / (highest[0] - lowest[0])
        assert lightness == pytest.approx(lowest[1] + share * (highest[1] - lowest[1]), abs=0.02)
        assert math.degrees(math.atan2(b, a)) % 360 == pytest.approx(262, abs=3)


def test_nothing_moves_for_those_who_do_not_want_it(page: Page) -> None:
    page.look(motion="reduce")
    assert page.run("return getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    page.look(motion="no-preference")
    assert page.run("return getComputedStyle(document.documentElement).scrollBehavior") == "smooth"
