"""Replies beside each other."""

from __future__ import annotations

from tests.support.page_use import ask, compare, endless, saved
from tests.support.serving import QUESTION


def test_compare_heads_with_a_constant(page, expect):
    compare(page, expect)
    columns = page.locator(".beside section")
    expect(columns).to_have_count(2)
    row = page.locator(".summary tr").filter(has=page.get_by_role("rowheader", name="T", exact=True)).locator("td")
    assert row.nth(1).inner_text() == "0.70 (0.70 to 0.70)" != row.nth(0).inner_text()
    seeds = page.locator(".summary tr").filter(has_text="seed").locator("td").all_inner_texts()
    assert seeds[0] == seeds[1]
    columns.nth(1).locator("[role=option]").nth(2).hover()
    expect(page.locator(".card")).to_contain_text("(constant)")


def test_compare_commands(page, expect):
    page.on("request", lambda r: r.method == "POST" and sent.append(r.post_data_json["messages"][-1]["content"]))
    sent: list[str] = []
    compare(page, expect, "diversity")
    expect(page.locator(".beside section")).to_have_count(3)
    assert sorted(text.removeprefix(QUESTION).strip()[-5:] for text in sent) == ["", " low.", "high."]
    assert len({*sent}) == 3 and all(text.startswith(QUESTION) for text in sent)


def test_a_comparison_can_be_stopped(page, expect, server):
    endless(page, server)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_label("Prompt", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Compare them").click()
    expect(page.locator(".beside [role=option]").nth(20)).to_be_attached()
    page.locator("#compare").get_by_role("button", name="Stop").click()
    expect(page.locator(".beside .state", has_text="Stopped.")).to_have_count(2)


def test_a_trace_stands_beside(page, expect, tmp_path):
    ask(page, expect)
    path = saved(page, "Save as JSONL", tmp_path)
    compare(page, expect)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add a trace").click()
    chooser.value.set_files(path)
    expect(page.locator(".beside section")).to_have_count(3)
    expect(page.locator(".summary thead")).to_contain_text(path.name)
