"""One conversation: send, stream, stop, regenerate, edit, and what the settings do to a request."""

from __future__ import annotations

from tests.support.page_use import OTHER, ask, ended, endless, send, text_of, tokens
from tests.support.serving import QUESTION


def test_send_and_stream(page, expect, server):
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Seed (empty: any)").fill("7")
    page.get_by_role("button", name="Close").click()
    ask(page, expect)
    wanted = server.post(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTION}], "seed": 7}
    ).json()
    assert text_of(page) == wanted["choices"][0]["message"]["content"]
    mean = wanted["choices"][0]["autodeco"]["temperature"]["mean"]
    expect(page.locator(".summary")).to_contain_text(f"{mean:.2f}")
    expect(page.locator(".summary")).to_contain_text("7")
    page.get_by_role("button", name="As text").click()
    expect(page.locator(".reply .text")).to_contain_text("boxed")
    expect(page.locator("#chat [role=listbox]")).to_be_hidden()


def test_stop(page, expect, server):
    endless(page, server)
    send(page)
    expect(tokens(page).nth(20)).to_be_attached()
    page.get_by_role("button", name="Stop").click()
    ended(page, expect)
    expect(page.locator(".reply .state")).to_have_text("Stopped.")
    assert 20 < tokens(page).count() < 900
    server.wait_until(lambda: server.metric("autodeco_slots_busy") == 0)
    page.unroute("**/v1/chat/completions")
    ask(page, expect, OTHER)


def test_regenerate_and_back(page, expect):
    ask(page, expect)
    first = text_of(page)
    page.get_by_role("button", name="Regenerate").click()
    ended(page, expect)
    expect(page.locator(".variants")).to_contain_text("2 of 2")
    page.get_by_role("button", name="Earlier reply").click()
    expect(page.locator(".variants")).to_contain_text("1 of 2")
    assert text_of(page) == first


def test_edit(page, expect):
    ask(page, expect)
    ask(page, expect, OTHER)
    expect(page.locator("article.question")).to_have_count(2)
    page.get_by_role("button", name="Edit message 1").click()
    page.get_by_label("Edited message").fill("Find two numbers that make 62.")
    page.get_by_label("Edited message").press("Enter")
    ended(page, expect)
    expect(page.locator("article.question")).to_have_count(1)
    expect(page.locator("article.question")).to_contain_text("62")
    expect(page.locator("article.reply")).to_have_count(1)


def test_edit_can_be_left(page, expect):
    ask(page, expect)
    page.get_by_role("button", name="Edit message 1").click()
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("article.question p")).to_have_text(QUESTION)


def test_the_system_prompt_and_the_settings_reach_the_server(page, expect):
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_role("combobox", name="Heads").select_option("none")
    page.get_by_role("spinbutton", name="Temperature").fill("0.4")
    page.get_by_role("spinbutton", name="Top-p").fill("0.9")
    page.get_by_label("P at least").fill("2")  # out of range: marked, not kept
    page.get_by_label("Longest reply, tokens").fill("6")
    page.get_by_role("button", name="Close").click()
    with page.expect_request("**/v1/chat/completions") as sent:
        send(page)
    body = sent.value.post_data_json
    assert body["messages"][0] == {"role": "system", "content": "Be brief."} and body["max_tokens"] == 6
    assert body["autodeco"] == {"heads": "none", "trace": True, "temperature_factor": 0.4, "top_p_factor": 0.9}
    expect(tokens(page)).to_have_count(6)
    tokens(page).first.click()
    expect(page.locator(".card")).to_contain_text("0.400 (constant)")


def test_further_settings_are_folded_and_reach_the_server(page, expect):
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Top-k (0: off)")).to_be_hidden()
    page.get_by_text("More: top-k").click()
    for name, value in (("Top-k", "7"), ("Min-p", "0.1"), ("Repeat penalty", "1.1"), ("Frequency penalty", "0.2"), ("Presence penalty", "-0.3")):  # fmt: skip
        page.get_by_label(name).fill(value)
    page.get_by_label("Stop before").fill("END\n\n two words")
    page.get_by_role("button", name="Close").click()
    with page.expect_request("**/v1/chat/completions") as sent:
        send(page)
    wanted = {"top_k": 7, "min_p": 0.1, "repeat_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": -0.3}
    body = sent.value.post_data_json
    assert {name: body[name] for name in wanted} == wanted and body["stop"] == ["END", " two words"]
    ended(page, expect)
    expect(page.locator(".reply .state")).to_have_text("")
    page.get_by_role("button", name="Settings").click()
    expect(page.get_by_label("Top-k (0: off)")).to_have_value("7")  # open, for some of it is set


def test_a_refusal_is_shown_and_can_be_mended(page, tab, expect):
    tab.expected = ("400",)
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("T at least").fill("5")
    page.get_by_label("T at most").fill("1")
    page.get_by_role("button", name="Close").click()
    send(page)
    expect(page.locator(".reply .fault")).to_contain_text("low end must not exceed")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("T at least").fill("")
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Regenerate").click()
    ended(page, expect)
    expect(tokens(page).nth(5)).to_be_visible()


def test_edit_keeps_the_earlier_version(page, expect):
    """With all that came after it; a reload keeps both."""
    ask(page, expect)
    ask(page, expect, OTHER)
    page.get_by_role("button", name="Edit message 1").click()
    page.get_by_label("Edited message").fill("Find two numbers that make 62.")
    page.get_by_label("Edited message").press("Enter")
    expect(page.locator("article.question")).to_have_count(1)
    ended(page, expect)
    page.reload()
    expect(page.locator("article.question")).to_contain_text("62")
    page.get_by_role("button", name="Earlier message").click()
    expect(page.locator("article.question p")).to_have_text([QUESTION, OTHER])
    expect(page.locator("article.reply")).to_have_count(2)
    expect(page.locator("article.question .variants").first).to_contain_text("1 of 2")
    page.get_by_role("button", name="Later message").click()
    expect(page.locator("article.question p")).to_have_text(["Find two numbers that make 62."])
