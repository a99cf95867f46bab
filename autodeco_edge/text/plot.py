"""Traces as pictures: T and P over the tokens of a reply, with the text beneath.

Owns reading a trace back, the layout of the figure and its summary numbers. matplotlib is imported inside.
Several traces come one under the other on the same axes, as in Figure 5 of the paper: a baseline, a command
that asks for more diversity, one that asks for less.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ..errors import FormatError, UsageError
from ..io.atomic import atomic_write
from ..io.reading import parse_json, read_text

FORMATS = ("png", "svg", "html")
MAX_TOKENS = 400  # of a panel: beyond it neither a line nor a word can be told from its neighbour
T_COLOUR, P_COLOUR = "#0072b2", "#d55e00"  # Okabe and Ito: told apart with any colour vision
_LINE_CHARS = 125  # of the text beneath a panel
_NUMBERS = ("temperature", "top_p", "entropy", "logprob", "n_kept")  # of a record, as far as they are drawn
_LARGEST = 1e9
_MAX_BYTES = 2**28  # of a trace: some 800,000 tokens
_MAX_INCHES = 400  # of a figure; matplotlib ends at 2^16 dots
_HINT = "give a file that run --trace wrote"


@dataclass(frozen=True)
class ReadTrace:
    """name  of the file;  tokens  its records in order;  summary  the last object, {} where a kill cut it off."""

    name: str
    tokens: list[dict[str, Any]]
    summary: dict[str, Any]

    def values(self, field: str) -> list[float]:
        """NaN where the head was off."""
        return [float("nan") if t[field] is None else t[field] for t in self.tokens]

    def caption(self) -> str:
        return f"{self.name}: {len(self.tokens)} tokens, " + ", ".join(
            f"mean {letter} {_mean(self.values(field))}" for letter, field in (("T", "temperature"), ("P", "top_p"))
        )


def _mean(values: list[float]) -> str:
    known = [v for v in values if v == v]
    if not known:
        return "-"
    mean = sum(known) / len(known)
    spread = (sum((v - mean) ** 2 for v in known) / len(known)) ** 0.5
    return f"{mean:.2f} (sd {spread:.2f})"


def read_trace(path: str | os.PathLike[str]) -> ReadTrace:
    """A file of `run --trace` or `--jsonl`; its first reply. Raises MissingInputError, FormatError."""
    lines = read_text(path, _HINT, limit=_MAX_BYTES, streams=True).split("\n")
    tokens: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        record = _record(path, number, line) if line.strip() else None
        if record is not None and record.get("done"):
            return ReadTrace(Path(path).stem, tokens, record)
        if record is not None:
            tokens.append(record)
    if not tokens:
        raise FormatError(f"{path}: holds no token; {_HINT}")
    return ReadTrace(Path(path).stem, tokens, {})


def _record(path: object, number: int, line: str) -> dict[str, Any]:
    record = parse_json(line, f"{path}, line {number}", _HINT)
    if isinstance(record, dict) and (record.get("done") is True or _is_token(record)):
        return record
    raise FormatError(f"{path}, line {number}: no record of a token; {_HINT}")


def _is_token(record: dict[str, Any]) -> bool:
    """Whether it has what is drawn, of the kinds that can be."""
    if not {"text", "temperature", "top_p"} <= record.keys() or not isinstance(record["text"], str):
        return False
    return all(record.get(name) is None or _is_number(record[name]) for name in _NUMBERS)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def save_figure(traces: Sequence[ReadTrace], output: str | os.PathLike[str]) -> None:
    """Writes the figure in the format of the name's ending. Raises UsageError, OutputError, StorageError."""
    target = Path(output)
    form = target.suffix.lower().lstrip(".")
    if form not in FORMATS:
        raise UsageError(f"{output}: allowed endings {', '.join('.' + f for f in FORMATS)}; got '{target.suffix}'")
    empty = [t.name for t in traces if not t.tokens]
    if empty:
        raise FormatError(f"{empty[0]}: the reply has no token to draw")
    data = page(traces).encode() if form == "html" else picture(traces, form)
    with atomic_write(target) as out:
        out.write(data)


def picture(traces: Sequence[ReadTrace], form: str) -> bytes:
    """The figure as PNG or SVG."""
    from matplotlib.figure import Figure

    lines = [_text_lines(t.tokens[:MAX_TOKENS]) for t in traces]
    heights = [2.0 + 0.17 * len(text) for text in lines]
    if sum(heights) > _MAX_INCHES:
        raise UsageError(f"plot: {len(traces)} traces are too much for one figure; draw fewer at a time")
    figure = Figure(figsize=(10, sum(heights) + 0.4), layout="constrained")
    panels = figure.subplots(len(traces), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axes, trace, text in zip(panels, traces, lines, strict=True):
        _panel(axes, trace, text)
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, fontsize=8)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a character that the font lacks is a box: nobody needs a line for each
        figure.savefig(out, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()


def _panel(axes: Any, trace: ReadTrace, text: list[str]) -> None:
    """T on the left scale, P on the right, 0 to 2 and 0 to 1 in every panel, so that panels compare."""
    tokens = trace.tokens[:MAX_TOKENS]
    cut = f", first {MAX_TOKENS} shown" if len(trace.tokens) > MAX_TOKENS else ""
    axes.set_title(visible(trace.caption()) + cut, fontsize=9, loc="left", parse_math=False)
    x = range(len(tokens))
    axes.plot(x, trace.values("temperature")[:MAX_TOKENS], color=T_COLOUR, lw=1.2, marker=".", ms=3, label="T")
    axes.plot([], [], color=P_COLOUR, lw=1.2, ls="--", label="P")
    axes.set_ylim(0, 2.04)
    axes.set_ylabel("temperature T", color=T_COLOUR, fontsize=8)
    right = axes.twinx()
    right.plot(x, trace.values("top_p")[:MAX_TOKENS], color=P_COLOUR, lw=1.2, ls="--", marker=".", ms=3)
    right.set_ylim(0, 1.02)
    right.set_ylabel("top-p P", color=P_COLOUR, fontsize=8)
    for each in (axes, right):
        each.tick_params(labelsize=7)
        each.margins(x=0.01)
    axes.grid(alpha=0.25)
    axes.set_xlabel("token\n" + "\n".join(text), fontsize=7, family="monospace", loc="left", parse_math=False)


def _text_lines(tokens: Sequence[dict[str, Any]]) -> list[str]:
    """The reply's text in lines of a panel's width, each after the index of its first token."""
    lines, start, line = [], 0, ""
    for i, token in enumerate(tokens):
        text = visible(token["text"])[:_LINE_CHARS]
        if line and len(line) + len(text) > _LINE_CHARS:
            lines.append((start, line))
            start, line = i, ""
        line += text
    return [f"{i:>4}  {text}" for i, text in [*lines, (start, line)]]


def visible(text: str) -> str:
    """Line breaks and control characters as signs; blanks stay."""
    return "".join("⏎" if c == "\n" else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# ---- a page -----------------------------------------------------------------------------------


def page(traces: Sequence[ReadTrace]) -> str:
    """The figure and, under it, every token tinted by its T, with its numbers where the mouse rests. One file."""
    body = "".join(f"<h2>{escape(visible(t.caption()))}</h2><p class=reply>{_spans(t)}</p>" for t in traces)
    svg = picture(traces, "svg").decode()
    return _PAGE.format(
        title=escape(visible(", ".join(t.name for t in traces))), figure=svg[svg.index("<svg") :], body=body
    )


def _spans(trace: ReadTrace) -> str:
    return "".join(_span(i, token) for i, token in enumerate(trace.tokens))


def _span(i: int, token: dict[str, Any]) -> str:
    told = ", ".join(
        f"{letter} {token[name]:.3f}"
        for letter, name in (("T", "temperature"), ("P", "top_p"), ("entropy", "entropy"), ("logprob", "logprob"))
        if token.get(name) is not None
    )
    share = min(max((token["temperature"] or 0) / 2, 0), 1)
    text = escape(visible(token["text"]) or "·") + ("<br>" if token["text"].endswith("\n") else "")
    return f'<span style="--t:{share:.3f}" title="token {i}: {told}, {token.get("n_kept", "-")} kept">{text}</span>'


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
body{{font-family:system-ui,sans-serif;max-width:1000px;margin:2em auto;background:#fff;color:#111}}
svg{{width:100%;height:auto}} h2{{font-size:1em}} .reply{{font-family:ui-monospace,monospace;line-height:1.9}}
span{{background:color-mix(in oklab,#fee838 calc(100%*var(--t)),#d9e2f1);padding:2px 0;white-space:pre-wrap}}
span:hover{{outline:2px solid #0072b2}}</style>{figure}{body}<p>Tint: T from 0 (pale blue) to 2 (yellow).</p></html>
"""
