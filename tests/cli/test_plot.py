"""Traces as pictures."""

from __future__ import annotations

import json
import os
import warnings
from xml.etree import ElementTree

import pytest

from autodeco_edge.errors import FormatError, MissingInputError, UsageError
from autodeco_edge.text.plot import page, read_trace, save_figure
from tests.support import warm

pytest.importorskip("matplotlib")


def record(i: int, text: str, t: float | None = 0.5, p: float | None = 0.9) -> dict:
    return {
        "index": i,
        "id": 7,
        "text": text,
        "temperature": t,
        "top_p": p,
        "entropy": 1.0,
        "logprob": -1.0,
        "n_kept": 3,
    }


def write(path, records, done=True):
    lines = [*records, {"done": True, "n_tokens": len(records)}] if done else records
    path.parent.mkdir(exist_ok=True)
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
    done = warm.run("plot", *traces, "-o", target, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("hot: 6 tokens") and len(done.stdout.splitlines()) == 2
    assert done.stderr == f"wrote {target}\n"
    data = target.read_bytes()
    if form == "png":
        assert data.startswith(b"\x89PNG")
    elif form == "svg":
        assert ElementTree.fromstring(data).tag.endswith("svg")
    else:
        text = data.decode()
        assert text.count("<span") == 96 and "&lt;b&gt;" in text and "<b>" not in text and "<svg" in text
        assert "token 1, id 7<br>T 0.100, P 0.900" in text and "the nucleus kept 3" in text
        assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
            "http://creativecommons.org", ""
        ).replace("https://matplotlib.org", ""), "the page asks nobody for anything"


def test_without_a_file_it_is_drawn_on_the_terminal(traces):
    done = warm.run("plot", *traces, text=True)
    assert done.returncode == 0 and not done.stderr
    assert (
        done.stdout.index("hot: 6 tokens") < done.stdout.index("token\n".strip()) < done.stdout.index("cold: 90 tokens")
    )
    assert "\x1b" not in done.stdout and done.stdout.count("2.0") == 2
    one, two = done.stdout[: done.stdout.index("cold: ")], done.stdout[done.stdout.index("cold: ") :]
    assert one.count("┌") == two.count("┌") == 2, "two panels, whatever was drawn before"


def test_where_a_token_is_drawn_is_its_place(tmp_path):
    """Not what a file calls its index."""
    indices = [5, -1, "first", [], None, 10**400]
    sound = write(tmp_path / "t.jsonl", [record(i, "a") for i in range(6)])
    strange = write(tmp_path / "u" / "t.jsonl", [{**record(0, "a"), "index": i} for i in indices])
    drawn = [warm.run("plot", path, text=True) for path in (sound, strange)]
    assert drawn[0].returncode == drawn[1].returncode == 0 and drawn[0].stdout == drawn[1].stdout


def test_without_unicode_the_frame_is_ascii(traces):
    done = warm.run("plot", *traces, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and b"\\u" not in done.stdout and done.stdout.count(b"+-") >= 8


def test_what_the_terminal_cannot_draw(tmp_path):
    nothing = write(tmp_path / "t.jsonl", [])
    for arguments in ([nothing], [nothing, "-o", tmp_path / "t.png"]):
        done = warm.run("plot", *arguments, text=True)
        assert done.returncode == 65 and "the reply has no token to draw" in done.stderr and not done.stdout
    done = warm.run("plot", ".", text=True, cwd=tmp_path)
    assert done.returncode == 65 and "is a folder" in done.stderr


def test_the_likeliest_tokens_and_what_the_nucleus_cut(tmp_path):
    """A reply of the demo model with --trace-top, through the file to the page: the same tokens as without."""
    args = ("Find two numbers that make 83.", "-t", "1", "--seed", "3")
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    assert warm.run("run", *args, "--trace", one, "--trace-top", "5").returncode == 0
    assert warm.run("run", *args, "--trace", two).returncode == 0
    found, plain = read_trace(one), read_trace(two)
    assert [t["id"] for t in found.tokens] == [t["id"] for t in plain.tokens] and "top" not in plain.tokens[0]
    for token in found.tokens:
        logprobs = [each["logprob"] for each in token["top"]]
        assert logprobs == sorted(logprobs, reverse=True) and len(logprobs) == 5
        assert [each["kept"] for each in token["top"]] == [i < token["n_kept"] for i in range(5)]
        ids = [each["id"] for each in token["top"]]
        assert token["id"] not in ids if token["rank"] is None else ids[token["rank"] - 1] == token["id"]
    text = page([found])
    assert "<u><code>Let</code> 24.0 %</u>" in text and "<s><code>" in text and "rank 2" in text
    done = warm.run("run", *args, "--trace-top", "21", text=True)
    assert done.returncode == 2 and "--trace-top: allowed 0 to 20" in done.stderr


def test_points_stand_above_their_tokens(tmp_path):
    """Rows of the strip: every token once, in order, none beyond the edge, and a point in the middle of each."""
    from autodeco_edge.text.plot import _rows

    tokens = [record(i, "x" * (1 + i * 7 % 13)) for i in range(60)]
    rows = _rows(tokens, 40)
    assert [cell.token for row in rows for cell in row] == tokens and len(rows) > 5
    for row in rows:
        assert row[0].start == 0 and row[-1].start + row[-1].width <= 40
        assert all(a.start + a.width == b.start for a, b in zip(row, row[1:], strict=False))


def test_same_traces_same_bytes(traces):
    found = [read_trace(path) for path in traces]
    assert page(found).count("<h2>") == 2


@pytest.mark.parametrize("text", ["", "text", "{}", "[1]", '{"text": "a"}'])
def test_file_that_is_no_trace(tmp_path, text):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(FormatError, match="t.jsonl.*give a file that run --trace wrote"):
        read_trace(tmp_path / "t.jsonl")


HOSTILE = {
    "list": {"temperature": [1]}, "text": {"temperature": "warm"}, "true": {"top_p": True}, "huge": {"n_kept": 10**400},
    "top": {"top": 5}, "top of what": {"top": [1]}, "top without a text": {"top": [{"logprob": -1.0, "kept": True}]},
    "more than likely": {"top": [{"text": "a", "logprob": 900.0, "kept": True}]}, "rank": {"rank": "first"},
    "nan": {"entropy": float("nan")}, "object": {"logprob": {}}, "no text": {"text": None}, "half": {"text": "\ud83d"},
}  # fmt: skip


@pytest.mark.parametrize("fields", HOSTILE.values(), ids=HOSTILE)
def test_record_that_cannot_be_drawn(tmp_path, fields):
    path = write(tmp_path / "t.jsonl", [record(0, "a"), {**record(1, "b"), **fields}])
    with pytest.raises(FormatError, match="t.jsonl, line 2.*give a file that run --trace wrote"):
        read_trace(path)


@pytest.mark.parametrize(
    "text", ['{"done": ' + "[" * 100_000, "[" * 5000 + "]" * 5000, '{"text": "a", "temperature": 1e999, "top_p": 1}']
)
def test_line_that_cannot_be_read(tmp_path, text):
    (tmp_path / "t.jsonl").write_text(text)
    with pytest.raises(FormatError, match="line 1"):
        read_trace(tmp_path / "t.jsonl")


def test_strange_text_and_names_are_drawn(tmp_path):
    """Mathematics, escapes, markup and glyphs that no font has, in a token and in a file's name; no warning either."""
    records = [
        record(i, t) for i, t in enumerate(["$x^", "\\frac$", "\x1b[2J\u202e", "<script>", "日本🎉", "\n", "x" * 9999])
    ]
    path = write(tmp_path / "d$x^$ <b>\x1b[31m\u202e.jsonl", records)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for form in ("png", "svg", "html"):
            save_figure([read_trace(path)], tmp_path / f"f.{form}")
    page_text = (tmp_path / "f.html").read_text()
    assert (
        "<b>" not in page_text and "<script>" not in page_text and "\x1b" not in page_text and "\u202e" not in page_text
    )


def test_more_than_a_figure_can_hold_is_refused(tmp_path):
    long = read_trace(write(tmp_path / "long.jsonl", [record(i, "x" * 200) for i in range(400)]))
    with pytest.raises(UsageError, match="too much for one figure"):
        save_figure([long], tmp_path / "f.png")


def test_what_cannot_be_drawn(traces, tmp_path):
    found = [read_trace(traces[0])]
    with pytest.raises(UsageError, match="allowed endings .png, .svg, .html; got '.gif'"):
        save_figure(found, tmp_path / "f.gif")
    with pytest.raises(FormatError, match="no token to draw"):
        save_figure([read_trace(write(tmp_path / "empty.jsonl", []))], tmp_path / "f.png")
    with pytest.raises(MissingInputError, match="cannot be read"):
        read_trace(tmp_path / "nowhere.jsonl")
    assert not (tmp_path / "f.png").exists()
