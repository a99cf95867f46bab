"""The conversations that the browser keeps."""

from __future__ import annotations

import re

import pytest

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
    expect(page.locator(".reply .state")).to_have_text("Stopped.")
    assert tokens(page).count() > 20


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


def new_conversation(page, expect, text):
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("article")).to_have_count(0)
    ask(page, expect, text)


def test_the_address_tells_which_is_open(page, expect):
    """So a reload opens it again, and the browser's own steps go from one to the other."""
    ask(page, expect)
    new_conversation(page, expect, OTHER)
    page.get_by_role("button", name=QUESTION, exact=True).click()
    expect(page.locator("article.question")).to_contain_text("83")
    page.reload()
    expect(page.locator("article.question")).to_contain_text("83")
    expect(page).to_have_title(f"{QUESTION} · autodeco-edge")
    page.go_back()
    expect(page.locator("article.question")).to_contain_text("41")
    page.go_forward()
    expect(page.locator("article.question")).to_contain_text("83")


def test_one_that_is_gone_is_nothing_to_the_address(page, expect):
    ask(page, expect)
    page.goto(page.url.partition("#")[0] + "#nosuch")
    page.reload()
    expect(page.locator("article.question")).to_contain_text("83")
    page.evaluate("location.hash = '%E0%A4%A'")
    expect(page.locator("article")).to_have_count(0)
    ask(page, expect, OTHER)


def test_a_conversation_is_shown_from_the_comparison_too(page, expect):
    ask(page, expect)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_role("button", name=QUESTION, exact=True).click()
    expect(tokens(page).first).to_be_visible()


def other_tab(tab, url):
    page = tab.context.new_page()
    page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    page.goto(url)
    return page


def test_two_tabs_are_in_step(page, tab, expect, server):
    other = other_tab(tab, server.url)
    ask(page, expect)
    other.get_by_role("navigation", name="Conversations").get_by_role("button", name=QUESTION, exact=True).click()
    expect(tokens(other).nth(5)).to_be_visible()
    ask(page, expect, OTHER)
    expect(other.locator("article.question")).to_have_count(2)
    ended(other, expect)
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name=f"Delete {QUESTION}").click()
    expect(other.locator("#conversation-list li")).to_have_count(0)
    expect(other.locator("article")).to_have_count(0)
    ask(other, expect, OTHER)
    expect(page.locator("#conversation-list li")).to_have_count(1)


def test_two_tabs_that_go_on_with_one_conversation_lose_nothing(page, tab, expect, server):
    """Whoever keeps it second keeps a copy."""
    ask(page, expect)
    other = other_tab(tab, page.url)
    expect(tokens(other).nth(5)).to_be_visible()
    endless(other, server)
    send(other, "Here.")
    expect(tokens(other).nth(2)).to_be_attached()
    expect(page.locator("article.question")).to_have_count(2)
    ask(page, expect, "There.")
    other.get_by_role("button", name="Stop").click()
    ended(other, expect)
    for each in (page, other):
        expect(each.locator("#conversation-list li")).to_have_count(2)
    texts = []
    for title in (QUESTION, f"{QUESTION} (copy)"):
        page.get_by_role("button", name=title, exact=True).click()
        expect(page.get_by_role("button", name=title, exact=True)).to_have_attribute("aria-current", "true")
        texts.append(page.locator("article.question p").all_inner_texts())
    assert sorted(texts) == [[QUESTION, "Here."], [QUESTION, "Here.", "There."]]


DENIED = "{ get() { throw new DOMException('denied', 'SecurityError'); } }"
WITHOUT = {
    "all that keeps": f"for (const n of ['sessionStorage', 'localStorage', 'indexedDB']) Object.defineProperty(window, n, {DENIED})",
    "the tab's memory": f"Object.defineProperty(window, 'sessionStorage', {DENIED})",
    "an answer from the database": "indexedDB.open = () => ({})",
    "what was kept": "IDBObjectStore.prototype.getAll = () => { throw new DOMException('broken', 'UnknownError'); }",
    "room": "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }",
}


@pytest.mark.parametrize("lack", WITHOUT)
def test_a_browser_without(page, expect, lack):
    """As in private windows, with cookies forbidden, or on a full disk: the chat works, and says what it cannot."""
    page.add_init_script(WITHOUT[lack])
    page.reload()
    ask(page, expect)
    assert len(text_of(page)) > 5
    said = {"the tab's memory": "", "what was kept": "cannot be read"}.get(lack, "export what matters")
    expect(page.locator("#notice")).to_contain_text(said)
    ask(page, expect, OTHER)
    expect(page.locator("article.question")).to_have_count(2)


VERSION_1 = """() => new Promise((resolve, reject) => {
  const request = indexedDB.open("autodeco-edge", 1);
  request.onupgradeneeded = () => request.result.createObjectStore("conversations", { keyPath: "id" });
  request.onsuccess = () => {
    const turn = { text: "old question", replies: [{ content: "remembered", records: [{ index: 0, id: 1, text: "remembered" }], state: "done" }], shown: 0 };
    const store = request.result.transaction("conversations", "readwrite").objectStore("conversations");
    store.put({ id: "old", title: "old question", changed: 1, isTrace: false, turns: [turn] });
    store.transaction.oncomplete = () => (request.result.close(), resolve());
  };
  request.onerror = reject;
})"""


def test_what_an_earlier_page_kept_is_found(chromium, expect, server):
    context = chromium.new_context()
    page = context.new_page()
    page.goto(server.url + "/health")
    page.evaluate(VERSION_1)
    page.goto(server.url)
    expect(page.locator("article.question")).to_contain_text("old question")
    expect(page.locator("article.reply")).to_contain_text("remembered")
    ask(page, expect)
    page.reload()
    expect(page.locator("article.question")).to_have_count(2)
    context.close()
