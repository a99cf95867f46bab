"""What a user does on the page, as a word each. `expect` is Playwright's, handed in: the library may be missing."""

from __future__ import annotations

import json

from tests.support.serving import QUESTION

OTHER = "Find two numbers that make 41."


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
        line, rate = page.context.new_cdp_session(page), 40_000  # bytes a second
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
