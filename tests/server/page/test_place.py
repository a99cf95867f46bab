"""The place where one reads, and the focus of the keys: both stay when the page is drawn anew."""

from __future__ import annotations

from tests.support.page_use import answer_with, ask, chunks, ended, endless, send, tokens


def test_who_reads_further_up_stays_there(page, expect, server):
    for _ in range(2):
        answer_with(page, "".join(chunks([f"line {i}\n" for i in range(60)])))
        ask(page, expect)
    endless(page, server, n=60)
    send(page)
    expect(tokens(page).nth(5)).to_be_attached()
    turns = page.locator("#turns")
    turns.evaluate("box => box.scrollTop = 100")
    ended(page, expect)
    page.wait_for_timeout(100)
    assert abs(turns.evaluate("box => box.scrollTop") - 100) < 5
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("button", name="Chat", exact=True).click()
    assert abs(turns.evaluate("box => box.scrollTop") - 100) < 5
    page.get_by_role("button", name="Edit message 2").click()
    at = turns.evaluate("box => box.scrollTop")
    page.get_by_role("button", name="Cancel").click()
    assert abs(turns.evaluate("box => box.scrollTop") - at) < 5 and at > 0


def test_the_focus_is_where_the_hand_is_needed(page, expect, server):
    ask(page, expect)
    endless(page, server)
    page.get_by_role("button", name="Regenerate").press("Enter")
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    expect(tokens(page).nth(5)).to_be_attached()
    page.keyboard.press("Enter")
    ended(page, expect)
    expect(page.get_by_label("Message", exact=True)).to_be_focused()
    page.get_by_role("button", name="Earlier reply").press("Enter")
    expect(page.get_by_role("button", name="Later reply")).to_be_enabled()
    assert page.evaluate("document.activeElement !== document.body")
