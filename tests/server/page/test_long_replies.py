"""Replies of thousands of tokens."""

from __future__ import annotations

import json

import pytest

from tests.support.page_use import answer_with, ask, chunks, ended, open_trace, send, tokens

FRAMES = """() => {
  window.longest = 0;
  let last = performance.now();
  const tick = (now) => { window.longest = Math.max(window.longest, now - last); last = now; requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}"""


def long_stream(n):
    return chunks(["\n" if i % 40 == 39 else f" w{i % 97}" for i in range(n)], finish="length")


@pytest.mark.parametrize("view", ["tokens", "text"])
def test_4000_tokens_stay_smooth(page, expect, view):
    if view == "text":
        ask(page, expect)
        page.get_by_role("button", name="As text").click()
    body = "".join(long_stream(4000))
    answer_with(page, body)
    page.evaluate(FRAMES)
    send(page)
    ended(page, expect)
    expect(page.locator(".summary")).to_contain_text("4000")
    took = page.evaluate("window.longest")
    print(f"longest frame while 4,000 tokens came, as {view}: {took:.0f} ms")
    assert took < 3000
    if view == "text":
        assert page.locator("#chat .token:visible").count() == 0
        return
    page.evaluate("window.longest = 0")
    for name in ("P", "entropy", "T"):
        page.get_by_label(name, exact=True).check()
    tokens(page).nth(3990).scroll_into_view_if_needed()
    tokens(page).nth(3990).hover()
    expect(page.locator(".card h3")).to_contain_text("Token 3990")
    took = page.evaluate("window.longest")
    print(f"longest frame while the signal changed three times: {took:.0f} ms")
    assert took < 2000


def test_more_tokens_than_the_page_shows_at_once(page, expect, tmp_path):
    path = tmp_path / "long.jsonl"
    record = {"text": " a", "temperature": 0.5, "top_p": 0.9}
    path.write_text(f"{json.dumps(record)}\n" * 12_000)
    open_trace(page, path)
    expect(tokens(page)).to_have_count(5000)
    page.get_by_role("button", name="Next 5000").click()
    expect(page.locator(".more")).to_contain_text("Tokens 5000 to 9999 of 12000")
    page.get_by_role("button", name="Next 2000").click()
    expect(tokens(page)).to_have_count(2000)
    page.get_by_role("button", name="Back").click()
    expect(tokens(page)).to_have_count(5000)
