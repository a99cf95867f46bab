"""The server goes, comes back, has another name, or asks for a key."""

from __future__ import annotations

import shutil
import time
from importlib import resources

import httpx

from tests.support.browsing import Tab
from tests.support.page_use import OTHER, ask, ended, endless, send, tokens
from tests.support.serving import NAME, serving


def test_the_server_goes_and_comes_back(chromium, expect):
    with serving() as first:
        port = first.url.rpartition(":")[2]
        tab = Tab(chromium, first.url)
        page = tab.page
        endless(page, first, slow=False)  # what a slow line holds back would come when the server is gone
        send(page)
        first.wait_until(lambda: first.metric("autodeco_first_token_seconds_count") == 1)
        time.sleep(0.05)  # a whole reply takes half a second, too little for a look at the page
        first.process.kill()
        first.process.wait()
        expect(page.locator("#notice")).to_contain_text("does not answer")
        expect(page.locator(".reply .fault")).to_be_visible()
        assert 0 < tokens(page).count() < 900
    page.unroute("**/v1/chat/completions")
    with serving("--port", port):
        expect(page.locator("#notice")).to_be_hidden()
        page.get_by_role("button", name="Regenerate").click()
        ended(page, expect)
        expect(page.locator(".variants")).to_contain_text("2 of 2")
        expect(page.locator(".reply .state")).to_have_text("")
        tab.close(expected=("net::ERR", "503"))


def test_plain_http_from_another_name(chromium, expect):
    """Such a page is no "secure context": the browser takes some of its tools away."""
    with serving("--allow-host", "page.test") as served:
        tab = Tab(chromium, served.url.replace("127.0.0.1", "page.test"))
        assert tab.page.evaluate("isSecureContext") is False
        ask(tab.page, expect)
        tokens(tab.page).nth(2).hover()
        expect(tab.page.locator(".card")).to_be_visible()
        tab.close(expected=("Cross-Origin-Opener-Policy",))


def test_the_key_is_asked_for(chromium, expect):
    with serving("--api-key", "open-sesame") as served:
        assert httpx.get(served.url).status_code == 200 and httpx.get(served.url + "/props").status_code == 401
        tab = Tab(chromium, served.url)
        page = tab.page
        dialog = page.get_by_role("dialog", name="Key")
        expect(dialog).to_contain_text("This server asks for a key. Who runs it has one.")
        page.get_by_role("textbox", name="Key").fill("wrong")
        page.get_by_role("button", name="Use it").click()
        expect(dialog).to_contain_text("not one of this server's")
        page.get_by_role("textbox", name="Key").fill("open-sesame")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("heads")
        ask(page, expect)
        page.reload()
        expect(page.locator("#model")).to_contain_text("heads")  # it is kept for the tab
        assert "open-sesame" not in page.evaluate("JSON.stringify(localStorage)")
        tab.close(expected=("401",))


def test_another_model_behind_the_address(chromium, expect, tmp_path):
    """It is noticed at the next message; what another model drew is not gone on with, for its tokens have other ids."""
    with serving() as first:
        port = first.url.rpartition(":")[2]
        tab = Tab(chromium, first.url)
        page = tab.page
        ask(page, expect)
        tokens(page).nth(3).click()
        expect(page.locator(".card td button").first).to_be_visible()
    shutil.copy(resources.files("autodeco_edge") / "assets" / f"{NAME}.gguf", tmp_path / "another.gguf")
    with serving(str(tmp_path / "another.gguf"), "--port", port, "--no-heads"):
        send(page, OTHER)
        expect(page.locator("#model")).to_have_text("another.gguf · no heads")
        ended(page, expect)
        tokens(page).nth(3).click()
        expect(page.locator(".card td button").first).to_be_visible()
        expect(page.locator(".summary tr").filter(has_text="model")).to_contain_text("another")
        page.get_by_role("button", name="As tokens").first.click()
        tokens(page).nth(3).click()
        expect(page.locator(".card h3")).to_contain_text("Token 3")
        expect(page.locator(".card td button")).to_have_count(0)
        expect(page.locator(".summary tr").filter(has_text="model")).to_contain_text("autodeco-demo")
        tab.close(expected=("net::ERR",))


def test_a_key_that_cannot_be_one_is_not_sent(chromium, expect):
    """A browser cannot send it: the server would seem to be gone."""
    with serving("--api-key", "open-sesame") as served:
        tab = Tab(chromium, served.url)
        page = tab.page
        page.get_by_role("textbox", name="Key").fill("ключ")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Key")).to_be_visible()
        assert page.locator("#key input").evaluate("input => input.validity.patternMismatch")
        page.get_by_role("textbox", name="Key").fill(" open-sesame ")
        page.keyboard.press("Enter")
        expect(page.locator("#model")).to_contain_text("heads")
        tab.close(expected=("401",))
