"""Replies beside each other."""

from __future__ import annotations

import json

import pytest

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


def endless_comparison(page, expect, server):
    endless(page, server)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_label("Prompt", exact=True).fill(QUESTION)
    page.get_by_role("button", name="Compare them").click()
    expect(page.locator(".beside [role=option]").nth(20)).to_be_attached()


def test_a_comparison_can_be_stopped(page, expect, server):
    endless_comparison(page, expect, server)
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


def test_a_second_start_while_it_runs_is_none(page, expect, server):
    """Enter in a field of the form would be one."""
    endless_comparison(page, expect, server)
    page.get_by_text("What differs").click()
    page.get_by_label("Name").first.press("Enter")
    expect(page.locator(".beside [role=option]").nth(30)).to_be_attached()
    page.locator("#compare").get_by_role("button", name="Stop").click()
    expect(page.locator("#announcer")).to_have_text("The comparison was stopped.")
    expect(page.get_by_role("button", name="Compare them")).to_be_visible()
    server.wait_until(lambda: server.metric("autodeco_slots_busy") == 0)


def test_nothing_is_saved_of_nothing(page, expect):
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("button", name="Save all as JSONL")).to_be_disabled()
    expect(page.get_by_role("button", name="Save all as PNG")).to_be_disabled()


def test_three_long_replies_are_one_picture(page, expect, tmp_path):
    """More lines than a canvas can have: the picture says how much it leaves out. A fourth reply finds no room, which is said."""
    pillow = pytest.importorskip("PIL.Image")
    line = json.dumps({"text": "word\n", "temperature": 0.5, "top_p": 0.9})
    lines = f"{line}\n" * 1000
    (tmp_path / "four.jsonl").write_text(f'{lines}{{"done": true}}\n' * 4)
    page.get_by_role("button", name="Compare", exact=True).click()
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Add a trace").click()
    chooser.value.set_files(tmp_path / "four.jsonl")
    expect(page.locator(".beside section")).to_have_count(3)
    expect(page.locator("#notice")).to_contain_text("3 of 4 replies added")
    with pillow.open(saved(page, "Save all as PNG", tmp_path)) as picture:
        assert picture.width == 2000 and 20_000 < picture.height < 32_767


def test_the_figures_of_three_replies_fit(page, expect):
    compare(page, expect, "factors")
    inspector = page.locator("#inspector")
    assert inspector.evaluate("box => box.scrollWidth - box.clientWidth") <= 0
