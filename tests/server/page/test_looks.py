"""How the page looks, to the eye and to a screen reader."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browsing import Tab
from tests.support.page_use import answer_with, ask, choose, chunks, compare, ended, tokens

CONTRAST = """() => {
  const light = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const luminance = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map(Number); return 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b); };
  return [...document.querySelectorAll(".scale i")].map((each) => {
    const { backgroundColor, color } = getComputedStyle(each);
    const [a, b] = [luminance(backgroundColor), luminance(color)].sort((x, y) => y - x);
    return [luminance(backgroundColor), (a + 0.05) / (b + 0.05)];
  });
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_tints_read_in_either_theme(page, expect, theme):
    choose(page, "Theme", theme)
    found = page.evaluate(CONTRAST)
    lightness = [each[0] for each in found]
    assert len(found) == 16 and all(contrast >= 4.5 for _, contrast in found)
    assert lightness == sorted(lightness)  # the same on both: high is bright
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", theme)
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Theme")).to_have_value(theme)


def test_the_system_s_theme(chromium, server):
    papers = []
    for scheme in ("light", "dark"):
        tab = Tab(chromium, server.url, color_scheme=scheme)
        papers.append(tab.page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
        tab.close()
    assert papers[0] != papers[1]


def test_narrow_screen(page, expect):
    page.set_viewport_size({"width": 360, "height": 700})
    ask(page, expect)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for each in (page.locator(".token").first, page.get_by_role("button", name="Send")):
        expect(each).to_be_in_viewport()
    expect(page.locator("#conversations")).to_be_hidden()
    page.get_by_role("button", name="Conversations").click()
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#conversations")).to_be_hidden()
    expect(page.locator("article")).to_have_count(0)


AXE = """async () => (await axe.run(document, {resultTypes: ["violations"]})).violations
  .filter((v) => ["serious", "critical"].includes(v.impact)).map((v) => [v.id, v.nodes.map((n) => n.html).slice(0, 3)])"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(page, expect, theme):
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    source = next(Path(axe.__file__).parent.rglob("axe.min.js")).read_text(encoding="utf-8")
    choose(page, "Theme", theme)
    page.evaluate(source)
    faults = []

    def look(place):
        faults.extend((place, *fault) for fault in page.evaluate(AXE))

    look("empty")
    ask(page, expect)
    tokens(page).nth(3).click()
    look("tokens")
    page.get_by_role("button", name="As text").click()
    look("text")
    page.get_by_role("button", name="Edit message 1").click()
    look("edit")
    page.get_by_role("button", name="Settings").click()
    look("settings")
    page.get_by_role("button", name="Close").click()
    compare(page, expect)
    look("compare")
    assert faults == []


def test_twice_as_large(page, expect):
    """What zooming to 200 % leaves of a window of 1440 by 850."""
    page.set_viewport_size({"width": 720, "height": 425})
    ask(page, expect)
    assert page.evaluate("document.documentElement.scrollWidth") <= 720
    assert page.locator("#turns").bounding_box()["height"] >= 200
    expect(page.locator(".plot")).to_be_in_viewport()


def test_on_paper(page, expect):
    """The whole conversation, however much of it the window shows, in ink on white, and no buttons."""
    answer_with(page, "".join(chunks([f"line {i}\n" for i in range(200)])))
    ask(page, expect)
    choose(page, "Theme", "dark")
    page.emulate_media(media="print")
    for gone in ("#composer", "#conversations", ".reply .actions"):
        expect(page.locator(gone)).to_be_hidden()
    turns = page.locator("#turns")
    assert turns.evaluate("box => box.clientHeight") == turns.evaluate("box => box.scrollHeight") > 3000
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"


def test_the_drawer(page, expect):
    page.set_viewport_size({"width": 360, "height": 700})
    menu, drawer = page.get_by_role("button", name="Conversations"), page.locator("#conversations")
    menu.press("Enter")
    expect(page.get_by_role("button", name="New conversation")).to_be_focused()
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(menu).to_be_focused()
    menu.click()
    page.mouse.click(340, 300)
    expect(drawer).to_be_hidden()


def test_a_narrow_screen_is_the_conversation_s(page, expect):
    """At 380 by 780: one line of header, and the plot only where somebody opens it, which is kept."""
    page.set_viewport_size({"width": 380, "height": 780})
    page.reload()
    ask(page, expect)
    assert page.locator(".top").bounding_box()["height"] <= 44
    assert page.locator("#turns").bounding_box()["height"] >= 450
    expect(page.locator("#model")).to_be_in_viewport()
    page.get_by_text("Plot and figures").click()
    expect(page.locator(".plot canvas")).to_be_visible()
    assert page.locator(".plot canvas").bounding_box()["width"] >= 300
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    page.reload()
    expect(page.locator(".plot")).to_be_visible()
    page.get_by_text("Plot and figures").click()
    page.set_viewport_size({"width": 1250, "height": 860})
    page.reload()
    expect(page.locator(".plot")).to_be_hidden()


def test_the_empty_page_says_what_it_is(page, expect):
    expect(page.locator("#turns .hint")).to_contain_text("tint of its temperature")
    examples = page.locator("#turns button")
    expect(examples).to_have_count(2)
    examples.last.click()
    expect(page.locator("article.question p")).to_have_text("Tell me a story about a fox.")
    ended(page, expect)
    expect(examples.filter(has_text="Find two numbers")).to_have_count(0)
    assert tokens(page).count() > 5


def test_replies_as_text_by_the_button_and_by_the_settings(page, expect):
    ask(page, expect)
    page.get_by_role("button", name="As text").click()
    expect(page.get_by_role("button", name="As tokens")).to_be_visible()
    expect(page.locator("#chat [role=listbox]")).to_be_hidden()
    ask_text = page.locator(".reply .text")
    expect(ask_text).to_be_visible()
    choose(page, "Replies", "tokens")
    expect(tokens(page).first).to_be_visible()
    choose(page, "Replies", "text")
    page.reload()
    expect(ask_text).to_be_visible()
