"""A reply's Markdown: what a model writes may be anything."""

from __future__ import annotations

import pytest

from tests.support.page_use import ask, ended, say, text_of

HTML = '<b onclick="document.title=1">b</b> <script>document.title=1</script> <img src=https://evil.test/a>'
LINKS = "[bad](javascript:alert(1)) [data](data:text/html,x) [good](https://good.test/) ![shot](https://evil.test/b?q=secret)"


def test_lines_and_lists_are_as_they_were_written(page, expect):
    say(page, expect, "Roses are red,\nViolets are blue.\n\n- [x] done\n- [ ] open\n\n> quoted")
    shown = page.locator(".reply .text").inner_text()
    assert "red,\nViolets" in shown and "☑ done" in shown and "☐ open" in shown
    assert page.locator(".reply .text blockquote").count() == 1


def test_nothing_is_fetched_and_nothing_runs(page, expect):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    say(page, expect, f"{HTML}\n\n{LINKS}")
    text = page.locator(".reply .text")
    expect(text).to_contain_text('<b onclick="document.title=1">b</b> <script>')
    links = {link.inner_text(): link.get_attribute("href") for link in text.locator("a").all()}
    assert links == {"bad": None, "data": None, "good": "https://good.test/", "shot": "https://evil.test/b?q=secret"}
    assert text.locator("img, script, b").count() == 0
    assert not [url for url in asked if "evil" in url]


@pytest.mark.parametrize("text", [">" * 20_000, "> " * 5000, "- " * 5000, "[" * 20_000, "*a " * 5000, "_a" * 5000])
def test_marks_beyond_measure_leave_the_page_whole(page, expect, text):
    """The parser may give up on them: then the text stands there as it is, now and after a reload."""
    say(page, expect, text)
    page.reload()
    expect(page.locator("article.question")).to_have_count(1)
    page.unroute("**/v1/chat/completions")
    page.get_by_role("button", name="Regenerate").click()
    ended(page, expect)
    expect(page.locator(".reply .text")).to_contain_text("boxed")


def test_code_is_copied(page, expect):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    say(page, expect, "So:\n\n```python\nx = 1\ny = 2\n```\n")
    page.get_by_role("button", name="Copy the code").click()
    expect(page.locator("#announcer")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "x = 1\ny = 2\n"


def test_a_refusal_of_the_clipboard_is_said(page, expect):
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    page.evaluate("() => { document.execCommand = () => false; }")
    ask(page, expect)
    page.get_by_role("button", name="Copy", exact=True).click()
    expect(page.locator("#announcer")).to_contain_text("the browser forbids it")


def test_lines_from_right_to_left(page, expect):
    say(page, expect, "שלום, 123.\n\nplain")
    starts = page.locator(".reply .text p").evaluate_all(
        "all => all.map((p) => { const r = document.createRange(); r.selectNodeContents(p); return r.getBoundingClientRect().left - p.getBoundingClientRect().left; })"
    )
    assert starts[0] > 100 and starts[1] == 0  # against the right edge, against the left one


def test_joined_signs_stay_joined(page, expect):
    family = "👩\u200d👧"
    say(page, expect, f"{family} a\u200cb \u200d")
    page.get_by_role("button", name="As tokens").click()
    assert f"{family} a\u200cb ‹200D›" in text_of(page)
