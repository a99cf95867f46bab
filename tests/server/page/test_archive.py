"""The conversations that the browser keeps."""

from __future__ import annotations

import re

from tests.support.page_use import OTHER, ask, ended, endless, send, text_of, tokens
from tests.support.serving import QUESTION


def test_conversations_are_kept_and_deleted(page, expect):
    ask(page, expect)
    text = text_of(page)
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("article")).to_have_count(0)
    ask(page, expect, OTHER)
    page.reload()
    expect(page.locator("#conversation-list li")).to_have_count(2)
    expect(page.locator("article.question")).to_contain_text("41")
    page.get_by_role("button", name=QUESTION, exact=True).click()
    expect(tokens(page).nth(5)).to_be_visible()
    assert text_of(page) == text
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=f"Delete {QUESTION}").click()
    expect(page.locator("#conversation-list li")).to_have_count(1)
    page.reload()
    expect(page.locator("#conversation-list li")).to_have_count(1)


def test_a_page_that_is_left_in_the_middle_keeps_what_came(page, expect, server):
    endless(page, server)
    send(page)
    expect(tokens(page).nth(20)).to_be_attached()
    page.reload()
    expect(page.locator("article.question")).to_contain_text(QUESTION)
    ended(page, expect)


def test_another_conversation_while_a_reply_is_drawn(page, expect, server):
    """The one that is left is stopped and kept; one that is deleted does not come back when its reply ends."""
    ask(page, expect)
    page.get_by_role("button", name="New conversation").click()
    endless(page, server)
    send(page, OTHER)
    expect(tokens(page).nth(20)).to_be_attached()
    page.get_by_role("button", name=QUESTION, exact=True).click()
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(page.locator("article.question")).to_have_text(re.compile("83"))
    server.wait_until(lambda: server.metric("autodeco_slots_busy") == 0)
    page.get_by_role("button", name=OTHER, exact=True).click()
    expect(page.locator(".reply .state")).to_have_text("Stopped.")
    page.get_by_role("button", name="Regenerate").click()
    expect(tokens(page).nth(20)).to_be_attached()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=f"Delete {OTHER}").click()
    server.wait_until(lambda: server.metric("autodeco_slots_busy") == 0)
    page.reload()
    expect(page.locator("#conversation-list li")).to_have_count(1)
