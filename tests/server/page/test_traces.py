"""Replies as files: saved, drawn, and opened again."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from autodeco_edge.text.plot import read_trace
from tests.support.page_use import answer_with, ask, open_trace, saved, send, text_of, tokens
from tests.support.serving import QUESTION, WAIT


def test_export_is_what_plot_reads(page, expect, tmp_path):
    ask(page, expect)
    trace = read_trace(saved(page, "Save as JSONL", tmp_path))
    assert "".join(t["text"] for t in trace.tokens) == text_of(page)
    assert trace.summary["n_tokens"] == len(trace.tokens) and trace.summary["finish_reason"] == "stop"
    assert abs(trace.summary["mean_temperature"] - sum(trace.values("temperature")) / len(trace.tokens)) < 1e-9


def test_export_a_picture(page, expect, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    ask(page, expect)
    with pillow.open(saved(page, "Save as PNG", tmp_path)) as picture:
        assert picture.format == "PNG" and picture.width == 2000 and picture.height > 400
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20


def test_open_a_trace_of_run(page, expect, tmp_path):
    path = tmp_path / "reply.jsonl"
    command = [sys.executable, "-m", "autodeco_edge", "run", QUESTION, "--seed", "3", "-t", "1", "--jsonl"]
    path.write_bytes(subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=WAIT).stdout)
    records = read_trace(path).tokens
    open_trace(page, path)
    expect(tokens(page)).to_have_count(len(records))
    tokens(page).nth(2).click()
    expect(page.locator(".card")).to_contain_text(f"{records[2]['temperature']:.3f}")
    expect(page.get_by_role("button", name="Regenerate")).to_have_count(0)
    assert saved(page, "Save as JSONL", tmp_path).read_text().count("\n") == len(records) + 1


BAD = {
    "empty": "", "prose": "hello", "no-token": '{"done": true}', "array": "[1]", "null": "null", "number": "7",
    "text-is-number": '{"text": 1, "temperature": 1, "top_p": 1}', "t-is-text": '{"text": "a", "temperature": "1", "top_p": 1}',
    "half": '{"text": "a", "tempe', "bytes": "\x00\x01\x02",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_no_trace_is_one_line(page, expect, tmp_path, name):
    path = tmp_path / f"{name}.jsonl"
    path.write_text(BAD[name])
    open_trace(page, path)
    expect(page.locator("#notice")).to_contain_text("choose a file that run --trace wrote")
    expect(page.locator("article")).to_have_count(0)


def test_a_hostile_trace_stays_text(page, expect, tmp_path):
    evil = '<img src=x onerror="document.title=1"><script>document.title=1</script>[x](javascript:alert(1))'
    record = {
        "text": evil,
        "temperature": 1e300,
        "top_p": None,
        "bytes": ["<", -1, 999],
        "top": [{"id": 1, "text": evil, "logprob": -1, "kept": True}],
        "n_kept": 3,
    }
    path = tmp_path / "evil.jsonl"
    path.write_text(json.dumps(record) + "\n")
    open_trace(page, path)
    tokens(page).first.click()
    expect(page.locator(".card")).to_contain_text("onerror")
    page.get_by_role("button", name="As text").click()
    expect(page.locator(".reply .text")).to_contain_text("x")
    assert page.locator(".reply .text :is(img, script)").count() == 0
    assert page.locator(".reply .text [href]").count() == 0
    assert page.title() == "evil.jsonl · autodeco-edge"


RECORD = '{"text": "a", "temperature": 0.5, "top_p": 0.9}\n'
BEYOND = {
    "too many tokens": RECORD * 100_001,
    "too many replies": f'{RECORD}{{"done": true}}\n' * 201,
    "one endless line": "x" * (2**24 + 1),
    "a token without end": json.dumps({"text": "x" * 20_000, "temperature": 1, "top_p": 1}),
    "not a number": '{"text": "a", "temperature": NaN, "top_p": 0.9}\n',
    "beyond all numbers": '{"text": "a", "temperature": 1e999, "top_p": 0.9}\n',
    "records in records": '{"text": ' + "[" * 100_000,
    "not UTF-8": b'{"text": "\xff\xfe", "temp'.decode("latin-1"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_a_file_beyond_measure_is_one_line(page, expect, tmp_path, name):
    path = tmp_path / "beyond.jsonl"
    path.write_text(BEYOND[name])
    open_trace(page, path)
    expect(page.locator("#notice")).to_contain_text("beyond.jsonl")
    expect(page.locator("article")).to_have_count(0)
    ask(page, expect)
    expect(page.locator("#notice")).to_be_hidden()


DROP = """(text) => {
  const files = new DataTransfer();
  files.items.add(new File([text], "dropped.jsonl"));
  const events = ["dragover", "drop"].map((name) => new DragEvent(name, { dataTransfer: files, bubbles: true, cancelable: true }));
  return events.map((event) => document.querySelector("#turns").dispatchEvent(event));
}"""


def test_a_file_is_dropped_on_the_page(page, expect):
    """Without care the browser would leave the page for it. Text that is dragged is the browser's own matter."""
    assert page.evaluate(DROP, RECORD * 3) == [False, False]
    expect(tokens(page)).to_have_count(3)
    page.get_by_role("button", name="Compare", exact=True).click()
    page.evaluate(DROP, RECORD * 3)
    expect(page.locator(".beside section")).to_have_count(1)


def test_a_reply_of_nothing_is_not_saved(page, tab, expect):
    tab.expected = ("429",)
    answer_with(page, '{"error": {"message": "full"}}', 429)
    send(page)
    expect(page.locator(".reply .fault")).to_have_text("full")
    for name in ("Save as JSONL", "Save as PNG", "Copy", "As text"):
        expect(page.get_by_role("button", name=name)).to_be_disabled()
    expect(page.get_by_role("button", name="Regenerate")).to_be_enabled()
