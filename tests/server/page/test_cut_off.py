"""Replies that end before their end: why, in words, and on with them."""

from __future__ import annotations

import httpx
import pytest

from tests.support.page_use import OTHER, answer_with, ask, chunks, ended, endless, send, text_of


def test_a_reply_that_was_cut_off_goes_on(page, expect, server):
    set_longest(page, 5)
    ask(page, expect)
    expect(page.locator(".reply .state")).to_have_text("Cut off at the limit of tokens.")
    begun = text_of(page)
    set_longest(page, "")
    with page.expect_request("**/v1/chat/completions") as sent:
        page.get_by_role("button", name="Continue").click()
    ended(page, expect)
    body = {**sent.value.post_data_json, "stream": False}
    del body["stream_options"]
    assert len(body["autodeco"]["reply_start"]) == 5
    wanted = server.post("/v1/chat/completions", body).json()["choices"][0]
    assert text_of(page) == begun + wanted["message"]["content"]
    expect(page.locator(".variants")).to_have_count(0)
    expect(page.get_by_role("button", name="Continue")).to_be_hidden()


def set_longest(page, n):
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Longest reply, tokens").fill(str(n))
    page.get_by_role("button", name="Close").click()


def test_a_full_context_is_said(page, tab, expect, server):
    tab.expected = ("status of 400",)
    n_ctx = httpx.get(server.url + "/props").json()["n_ctx"]
    endless(page, server, n=2 * n_ctx, slow=False)
    ask(page, expect)
    expect(page.locator(".reply .state")).to_contain_text("the context is full")
    expect(page.locator(".summary tr").filter(has_text="context")).to_contain_text(f"{n_ctx} of {n_ctx}")
    expect(page.get_by_role("button", name="Continue")).to_be_hidden()
    send(page, OTHER)
    expect(page.locator(".reply .fault")).to_contain_text("shorten it")


def test_a_reply_without_a_word_says_so(page, expect):
    answer_with(page, "".join(chunks([""])))
    ask(page, expect)
    expect(page.locator(".reply .state")).to_have_text("It ended without a word.")


def test_a_prompt_that_is_being_read_is_said(page, expect, server):
    """The server answers at once, and the first token comes when it has read the prompt."""
    page.add_init_script("""
      const real = window.fetch;
      const first = new TextEncoder().encode('data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\\n\\n');
      window.fetch = (url, options) => !String(url).includes("chat/completions") ? real(url, options) :
        Promise.resolve(new Response(new ReadableStream({ start(line) {
          line.enqueue(first);
          options.signal.addEventListener("abort", () => line.error(options.signal.reason));
        } })));
    """)
    page.reload()
    send(page)
    expect(page.locator(".reply .state")).to_have_text("Reading the prompt …")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(".reply .state")).to_have_text("Stopped.")
    ended(page, expect)


@pytest.mark.parametrize("by", ["time", "shutdown"])
def test_what_the_server_cut_off_says_why(page, expect, by):
    body = "".join(chunks(["a", "b"], finish="length")).replace('"autodeco": {', f'"autodeco": {{"cut_by": "{by}", ')
    answer_with(page, body)
    ask(page, expect)
    expect(page.locator(".reply .state")).to_contain_text({"time": "its time", "shutdown": "told to end"}[by])
