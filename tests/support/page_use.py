"""What a user does on the page, as a word each. `expect` is Playwright's, handed in: the library may be missing."""

from __future__ import annotations

import json
import re

from tests.support.serving import QUESTION

OTHER = "Find two numbers that make 41."


def choose(page, label, value):
    """In the settings."""
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("combobox", name=label).select_option(value)
    page.get_by_role("button", name="Close").click()


def send(page, text=QUESTION):
    page.get_by_label("Message", exact=True).fill(text)
    page.get_by_role("button", name="Send", exact=True).click()


def ended(page, expect):
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.locator("article.reply[aria-busy=true]")).to_have_count(0)


def ask(page, expect, text=QUESTION):
    send(page, text)
    expect(page.locator(".token").first).to_be_visible()
    ended(page, expect)


def tokens(page):
    return page.locator("#chat [role=option]")


def text_of(page):
    """As it was drawn, without the signs for blanks."""
    found = "".join(tokens(page).all_text_contents())
    return found.replace("\u200b", "").replace("·", " ").replace("⏎", "\n").replace("∎", "")


def endless(page, server, n=900, slow=True):
    """Replies do not end by themselves, and come slowly enough to be stopped: the end token is forbidden on the way to the
    real server, and the line is a slow one, unless told otherwise."""
    ids = server.post("/tokenize", {"content": "<|im_end|><|endoftext|>"}).json()["tokens"]

    def changed(route):
        body = {**route.request.post_data_json, "logit_bias": {str(i): -100 for i in ids}, "max_tokens": n}
        route.continue_(post_data=json.dumps(body))

    page.route("**/v1/chat/completions", changed)
    if slow:
        line, rate = page.context.new_cdp_session(page), 70_000  # bytes a second
        conditions = {"offline": False, "latency": 0, "downloadThroughput": rate, "uploadThroughput": -1}
        line.send("Network.enable")
        line.send("Network.emulateNetworkConditions", conditions)


def compare(page, expect, preset="constant"):
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_label("Setups").select_option(preset)
    page.get_by_label("Prompt", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Compare them").click()
    expect(page.locator("#announcer")).to_have_text("The comparison is complete.")


def saved(page, name, folder):
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def open_trace(page, path):
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Open a trace").click()
    chooser.value.set_files(path)


def chunks(pieces, finish="stop", **more):
    """The server's own chunks of a reply of these tokens, up to [DONE]. more: beside the choices of the last one."""
    head = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "autodeco-demo-q8_0"}
    top = [{"id": i, "token": f" w{i}", "logprob": -1.0 - i, "bytes": []} for i in range(10)]
    for i, text in enumerate(pieces):
        applied = {"temperature": (i % 12) / 10, "top_p": 0.9, "temperature_eff": 1, "top_p_eff": 0.9}
        record = {"index": i, "id": i % 97, "bytes": list(text.encode()), "text": text, **applied, "n_kept": 3}
        record |= {"entropy": 1.0, "max_prob": 0.5, "logprob": -1.0}
        entry = {"id": i % 97, "token": text, "bytes": [], "logprob": -1.0, "top_logprobs": top}
        choice = {"index": 0, "delta": {"content": text}, "logprobs": {"content": [entry]}}
        choice |= {"finish_reason": finish if i == len(pieces) - 1 else None, "autodeco": {"trace": [record]}}
        yield f"data: {json.dumps({**head, 'choices': [choice], **(more if choice['finish_reason'] else {})})}\n\n"
    yield "data: [DONE]\n\n"


def answer_with(page, body, status=200, **headers):
    """Every chat is answered with this from now on: what a model says can be anything."""
    kind = "text/event-stream" if status == 200 else "application/json"
    page.unroute("**/v1/chat/completions")
    page.route(
        "**/v1/chat/completions",
        lambda route: route.fulfill(status=status, headers=headers, content_type=kind, body=body),
    )


def say(page, expect, text, **more):
    """A reply of this text, shown as text."""
    answer_with(page, "".join(chunks(re.findall(r"\s?\S{1,6}|\s", text), **more)))
    ask(page, expect)
    if (button := page.get_by_role("button", name="As text")).count():
        button.last.click()
