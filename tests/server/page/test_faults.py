"""What goes wrong is one line, and the next try is one press away."""

from __future__ import annotations

import json

import pytest

from tests.support.page_use import answer_with, ended, send, tokens


def refused(words):
    return json.dumps({"error": {"message": words}})


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (429, refused("20 replies wait; try again later"), "20 replies wait; try again later"), (503, refused("shutting down"), "shutting down"),
        (500, "<html>", "The server answered 500."), (502, '{"error": null}', "The server answered 502."),
        (200, "<html>", "The reply broke off."), (200, 'data: {"id"', "The reply broke off."), (200, "", "The reply broke off."),
        (200, 'data: {"id": "x"}\n\ndata: [DONE]\n\n', "The reply broke off."),
        (200, 'data: {"error": "x"}\n\n', "The reply broke off."), (200, f"data: {refused('the model died')}\n\n", "the model died"),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_one_line(page, tab, expect, status, body, said):
    tab.expected = (f"status of {status}",)
    answer_with(page, body, status, **{"Retry-After": "3"})
    send(page)
    expect(page.locator(".reply .fault")).to_have_text(said)
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Regenerate").click()
    ended(page, expect)
    expect(tokens(page).nth(5)).to_be_visible()


def test_a_message_beyond_the_limit_is_refused_in_words(page, tab, expect):
    tab.expected = ("413",)
    message = page.get_by_label("Message", exact=True)
    message.evaluate("box => { box.value = ('word '.repeat(130) + '\\n').repeat(1700); }")
    message.press("Enter")
    expect(page.locator(".reply .fault")).to_contain_text("the body is larger than")
    expect(page.locator("#notice")).to_be_hidden()
