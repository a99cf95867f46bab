"""Replies of thousands of tokens."""

from __future__ import annotations

import json

import pytest

from tests.support.page_use import ask, ended, open_trace, send, tokens

FRAMES = """() => {
  window.longest = 0;
  let last = performance.now();
  const tick = (now) => { window.longest = Math.max(window.longest, now - last); last = now; requestAnimationFrame(tick); };
  requestAnimationFrame(tick);
}"""


def long_stream(n):
    """The server's own chunks of one real reply, as often as it takes."""
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    top = [{"id": i, "token": f" w{i}", "logprob": -1.0 - i, "bytes": []} for i in range(10)]
    for i in range(n):
        text = "\n" if i % 40 == 39 else f" w{i % 97}"
        record = {"index": i, "id": i % 97, "bytes": list(text.encode()), "text": text, "temperature": (i % 12) / 10, "top_p": 0.9,
                  "temperature_eff": 1, "top_p_eff": 0.9, "n_kept": 3, "entropy": 1.0, "max_prob": 0.5, "logprob": -1.0}  # fmt: skip
        entry = {
            "id": i % 97,
            "token": text,
            "bytes": [],
            "logprob": -1.0,
            "top_logprobs": top,
            "temperature": 1,
            "top_p": 0.9,
        }
        choice = {
            "index": 0,
            "delta": {"content": text},
            "logprobs": {"content": [entry]},
            "finish_reason": None,
            "autodeco": {"trace": [record]},
        }
        if i == n - 1:
            choice = {**choice, "finish_reason": "length"}
        yield f"data: {json.dumps({**head, 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


@pytest.mark.parametrize("view", ["tokens", "text"])
def test_4000_tokens_stay_smooth(page, expect, view):
    if view == "text":
        ask(page, expect)
        page.get_by_role("button", name="Tokens").click()
    body = "".join(long_stream(4000))
    page.route("**/v1/chat/completions", lambda route: route.fulfill(content_type="text/event-stream", body=body))
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
