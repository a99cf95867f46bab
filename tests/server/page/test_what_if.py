"""A reply that goes on from another token."""

from __future__ import annotations

import re

from tests.support.browsing import Tab
from tests.support.page_use import ask, ended, text_of, tokens
from tests.support.serving import serving


def test_what_if(page, expect, server):
    """The tokens before stay, the candidate is in its place, and what follows is what the model says to them."""
    ask(page, expect)
    before = tokens(page).all_text_contents()
    tokens(page).nth(4).click()
    row = page.locator(".card tbody tr").filter(has=page.get_by_role("button")).first
    candidate = row.locator(".candidate").inner_text()
    with page.expect_request("**/v1/chat/completions") as sent:
        row.get_by_role("button").click()
    ended(page, expect)
    after = tokens(page).all_text_contents()
    assert after[:4] == before[:4] and after[4].strip("\u200b") == candidate.strip("\u200b") and len(after) > 5
    expect(page.locator(".note")).to_contain_text("From token 4 on")
    body = {**sent.value.post_data_json, "stream": False}
    del body["stream_options"]
    assert len(body["autodeco"]["reply_start"]) == 5
    wanted = server.post("/v1/chat/completions", body).json()["choices"][0]
    begun = server.post("/detokenize", {"tokens": body["autodeco"]["reply_start"]}).json()["content"]
    assert text_of(page) == begun + wanted["message"]["content"]
    page.get_by_role("button", name="As text").click()
    shown = page.locator(".reply .text").inner_text()
    assert re.sub(r"\W", "", shown) == re.sub(r"\W", "", begun + wanted["message"]["content"])


THINKS = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}<|im_start|>assistant
<think>
"""


def test_thought_is_told_apart(chromium, expect, tmp_path):
    (tmp_path / "think.jinja").write_text(THINKS)
    with serving("--chat-template-file", str(tmp_path / "think.jinja")) as served:
        tab = Tab(chromium, served.url)
        ask(tab.page, expect)
        expect(tab.page.locator(".token.thought").first).to_be_visible()
        thought = tab.page.locator(".token.thought").count()
        tab.page.get_by_role("button", name="As text").click()
        expect(tab.page.locator("details.thought")).to_be_visible()
        tab.page.get_by_role("button", name="As tokens").click()
        tokens(tab.page).nth(2).click()
        tab.page.locator(".card button").first.click()
        ended(tab.page, expect)
        assert tab.page.locator(".token.thought").count() > 3 and thought > 3
        tab.close()
