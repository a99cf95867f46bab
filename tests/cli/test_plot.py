"""Traces as pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from autodeco_edge.errors import FormatError, MissingInputError, UsageError
from autodeco_edge.text.plot import draw, page, read_trace

pytest.importorskip("matplotlib")


def record(i: int, text: str, t: float | None = 0.5, p: float | None = 0.9) -> dict:
    return {"index": i, "text": text, "temperature": t, "top_p": p, "entropy": 1.0, "logprob": -1.0, "n_kept": 3}


def write(path, records, done=True):
    lines = [*records, {"done": True, "n_tokens": len(records)}] if done else records
    path.write_text("".join(json.dumps(r) + "\n" for r in lines))
    return path


@pytest.fixture
def traces(tmp_path):
    hot = [record(i, text, 0.1 * i) for i, text in enumerate(["One", " $x^", "<b>", "\n", "é", "\x1b["])]
    cold = [record(i, f" word{i}", None if i % 7 else 0.25, None) for i in range(90)]
    return write(tmp_path / "hot.jsonl", hot), write(tmp_path / "cold.jsonl", cold, done=False)


def test_what_is_read(traces):
    hot, cold = map(read_trace, traces)
    assert hot.caption() == "hot: 6 tokens, mean T 0.25 (sd 0.17), mean P 0.90 (sd 0.00)"
    assert cold.caption() == "cold: 90 tokens, mean T 0.25 (sd 0.00), mean P -"
    assert cold.summary == {}, "a trace that a kill cut off is read as far as it goes"


@pytest.mark.parametrize("form", ["png", "svg", "html"])
def test_every_format_through_the_command(traces, tmp_path, form):
    target = tmp_path / f"figure.{form}"
    command = [sys.executable, "-m", "autodeco_edge", "plot", *map(str, traces), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("hot: 6 tokens")
    data = target.read_bytes()
    if form == "png":
        assert data.startswith(b"\x89PNG")
    elif form == "svg":
        assert ElementTree.fromstring(data).tag.endswith("svg")
    else:
        text = data.decode()
        assert text.count("<span") == 96 and "&lt;b&gt;" in text and "<b>" not in text and "<svg" in text
        assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
            "http://creativecommons.org", ""
        ).replace("https://matplotlib.org", ""), "the page asks nobody for anything"


def test_same_traces_same_bytes(traces):
    found = [read_trace(path) for path in traces]
    assert page(found).count("<h2>") == 2


@pytest.mark.parametrize("text", ["", "text", "{}", "[1]", '{"text": "a"}'])
def test_file_that_is_no_trace(tmp_path, text):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(FormatError, match="t.jsonl.*give a file that run --trace wrote"):
        read_trace(tmp_path / "t.jsonl")


def test_what_cannot_be_drawn(traces, tmp_path):
    found = [read_trace(traces[0])]
    with pytest.raises(UsageError, match="allowed endings .png, .svg, .html; got '.gif'"):
        draw(found, tmp_path / "f.gif")
    with pytest.raises(FormatError, match="no token to draw"):
        draw([read_trace(write(tmp_path / "empty.jsonl", []))], tmp_path / "f.png")
    with pytest.raises(MissingInputError, match="cannot be read"):
        read_trace(tmp_path / "nowhere.jsonl")
    assert not (tmp_path / "f.png").exists()
