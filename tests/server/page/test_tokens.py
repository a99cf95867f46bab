"""The tokens of a reply: tints, card, plot, keys."""

from __future__ import annotations

import re

import pytest

from tests.support.page_use import ask, ended, tokens
from tests.support.serving import QUESTION


def test_hover_shows_the_token(page, expect):
    ask(page, expect)
    tokens(page).nth(3).hover()
    card = page.locator(".card")
    expect(card.locator("h3")).to_contain_text("Token 3")
    for name in ("id", "T", "P", "log-probability", "rank", "nucleus", "entropy"):
        expect(card.locator("dt", has_text=re.compile(f"^{name}$"))).to_have_count(1)
    expect(card.locator("tbody tr")).to_have_count(5)
    n_kept = int(card.locator("dd", has_text="token").inner_text().split()[0])
    expect(card.locator("tbody s")).to_have_count(5 - min(n_kept, 5))
    expect(tokens(page).nth(3)).to_have_attribute("aria-selected", "true")


def test_the_plot_and_the_text_are_in_step(page, expect):
    ask(page, expect)
    box = page.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.99, box["y"] + 20)
    last = tokens(page).count() - 1
    expect(tokens(page).nth(last)).to_have_attribute("aria-selected", "true")
    tokens(page).nth(0).hover()
    assert page.locator(".u-cursor-x").evaluate("line => new DOMMatrix(getComputedStyle(line).transform).e") < 3


@pytest.mark.parametrize("name, low, high", [("P", "0.5", "1.0"), ("entropy", "0.0", "5.0"), ("log p", "-10.0", "0.0")])
def test_switch_signal(page, expect, name, low, high):
    ask(page, expect)
    before = tokens(page).evaluate_all("all => all.map(each => each.className).join()")
    page.get_by_label(name, exact=True).check()
    expect(page.locator(".legend")).to_contain_text(low)
    expect(page.locator(".legend")).to_contain_text(high)
    assert tokens(page).evaluate_all("all => all.map(each => each.className).join()") != before
    page.reload()
    expect(page.get_by_label(name, exact=True)).to_be_checked()


def test_keyboard_only(page, expect):
    keys = page.keyboard
    page.get_by_label("Message", exact=True).focus()
    keys.type(QUESTION)
    keys.press("Enter")
    expect(page.locator(".token").first).to_be_visible()
    ended(page, expect)
    for _ in range(40):
        if page.evaluate("document.activeElement.getAttribute('role')") == "listbox":
            break
        keys.press("Shift+Tab")
    expect(page.locator("#chat [role=listbox]")).to_be_focused()
    for key in ("Home", "ArrowRight", "ArrowRight"):
        keys.press(key)
    expect(page.locator(".card h3")).to_contain_text("Token 2")
    expect(page.locator("#announcer")).to_contain_text(re.compile(r"T 0\.\d\d, P \d\.\d\d"))
    keys.press("ArrowDown")
    below = page.locator("#chat [aria-selected=true]").bounding_box()
    assert below["y"] > tokens(page).nth(2).bounding_box()["y"]
    keys.press("ArrowUp")
    expect(page.locator(".card h3")).to_contain_text("Token 2")
    keys.press("End")
    expect(tokens(page).last).to_have_attribute("aria-selected", "true")
    keys.press("Home")
    keys.press("Enter")
    expect(page.locator(".card button").first).to_be_focused()
    keys.press("Enter")
    expect(page.locator(".variants")).to_contain_text("2 of 2")
