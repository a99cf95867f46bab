"""Traces as pictures: T and P over the tokens of a reply, each point above its token.

Owns reading a trace back, the layout of the figure and its summary numbers. matplotlib is imported inside.
Several traces stand side by side on the same axes, as in Figure 5 of the paper: a baseline, a command that asks for
more diversity, one that asks for less.
"""

from __future__ import annotations

import io
import math
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
from .colours import css, ink, rgb, share

FORMATS = ("png", "svg", "html")
MAX_TOP = 20  # of a record
MAX_TOKENS = 400  # of a panel: beyond it neither a line nor a word can be told from its neighbour
T_COLOUR, P_COLOUR = "#0072b2", "#d55e00"  # Okabe and Ito: told apart with any colour vision
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
    return all(record.get(name) is None or _is_number(record[name]) for name in _NUMBERS) and _is_top(record)


def _is_top(record: dict[str, Any]) -> bool:
    """Whether the likeliest tokens are what is drawn of them, or not there."""
    top, rank = record.get("top", []), record.get("rank")
    return (
        isinstance(top, list)
        and len(top) <= MAX_TOP
        and (rank is None or _is_number(rank))
        and all(
            isinstance(one, dict) and isinstance(one.get("text"), str) and _is_number(one.get("logprob")) for one in top
        )
        and all(one["logprob"] <= 0.001 and isinstance(one.get("kept"), bool) for one in top)
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def save_figure(traces: Sequence[ReadTrace], output: str | os.PathLike[str]) -> None:
    """Writes the figure in the format of the name's ending. Raises UsageError, OutputError, StorageError."""
    target = Path(output)
    form = target.suffix.lower().lstrip(".")
    if form not in FORMATS:
        raise UsageError(f"{output}: allowed endings {', '.join('.' + f for f in FORMATS)}; got '{target.suffix}'")
    check_drawable(traces)
    data = page(traces).encode() if form == "html" else picture(traces, form)
    with atomic_write(target) as out:
        out.write(data)


def check_drawable(traces: Sequence[ReadTrace]) -> None:
    """Raises FormatError for a reply without a token."""
    for trace in traces:
        if not trace.tokens:
            raise FormatError(f"{trace.name}: the reply has no token to draw")


# ---- a figure -----------------------------------------------------------------------------------

# Inches. A row of tokens has T above its points, P below that, and the tokens themselves beneath.
_WIDTH, _WIDE, _NARROWEST = 6.4, 10.0, 5.4  # at most: of a column of several, and of the only one; at least
_LEFT, _RIGHT, _TITLE, _GAP = 0.5, 0.12, 0.35, 0.22
_T_HEIGHT, _BETWEEN, _P_HEIGHT, _STRIP = 0.95, 0.1, 0.5, 0.22
_ROW = _T_HEIGHT + _BETWEEN + _P_HEIGHT + _STRIP + _GAP
_SIGN = 0.068  # of monospaced text of 7.5 points, with a margin
_SIDE_BY_SIDE = 3


def picture(traces: Sequence[ReadTrace], form: str) -> bytes:
    """The figure as PNG or SVG: a column a trace, three beside each other."""
    from matplotlib.figure import Figure

    n_columns = min(len(traces), _SIDE_BY_SIDE)
    width = _WIDE if n_columns == 1 else _WIDTH
    rows = [_rows(t.tokens[:MAX_TOKENS], int((width - _LEFT - _RIGHT) / _SIGN)) for t in traces]
    longest = max(cell.start + cell.width for each in rows for row in each for cell in row)
    width = max(_NARROWEST, _LEFT + longest * _SIGN + _RIGHT)
    bands = [rows[i : i + n_columns] for i in range(0, len(rows), n_columns)]
    heights = [_TITLE + _ROW * max(map(len, band)) for band in bands]
    if sum(heights) > _MAX_INCHES:
        raise UsageError(f"plot: {len(traces)} traces are too much for one figure; draw fewer at a time")
    figure = Figure(figsize=(width * n_columns, sum(heights) + 2 * _GAP))
    for i, trace in enumerate(traces):
        top = _GAP / 2 + sum(heights[: i // n_columns])
        _Column(figure, width * (i % n_columns), top, width).draw(trace, rows[i])
    _legend(figure)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a character that the font lacks is a box: nobody needs a line for each
        figure.savefig(out, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
    return out.getvalue()


@dataclass(frozen=True)
class _Cell:
    """A token in a row of the strip: its text, where it begins and how wide it is, in signs."""

    token: dict[str, Any]
    text: str
    start: int
    width: int


def _rows(tokens: Sequence[dict[str, Any]], signs: int) -> list[list[_Cell]]:
    """Tokens in rows of so many signs."""
    rows: list[list[_Cell]] = [[]]
    at = 0
    for token in tokens:
        text = visible(token["text"] or "∎")[:signs]
        width = max(len(text), 2)
        if at + width > signs:
            rows.append([])
            at = 0
        rows[-1].append(_Cell(token, text, at, width))
        at += width
    return rows


@dataclass(frozen=True)
class _Column:
    """One trace on a figure, from ``left`` and ``top`` on, in inches."""

    figure: Any
    left: float
    top: float
    width: float

    def draw(self, trace: ReadTrace, rows: list[list[_Cell]]) -> None:
        cut = f", first {MAX_TOKENS} shown" if len(trace.tokens) > MAX_TOKENS else ""
        x, y = self._place(_LEFT, 0.22)
        self.figure.text(x, y, visible(trace.caption()) + cut, fontsize=9, parse_math=False)
        for i, row in enumerate(rows):
            top = _TITLE + i * _ROW
            self._line(row, "temperature", "T", T_COLOUR, 2.0, top, _T_HEIGHT)
            self._line(row, "top_p", "P", P_COLOUR, 1.0, top + _T_HEIGHT + _BETWEEN, _P_HEIGHT)
            self._strip(row, top + _T_HEIGHT + _BETWEEN + _P_HEIGHT)

    def _place(self, x: float, y: float) -> tuple[float, float]:
        width, height = self.figure.get_size_inches()
        return (self.left + x) / width, 1 - (self.top + y) / height

    def _axes(self, top: float, height: float) -> Any:
        x, y = self._place(_LEFT, top + height)
        whole = self.figure.get_size_inches()
        inner = self.width - _LEFT - _RIGHT
        axes = self.figure.add_axes((x, y, inner / whole[0], height / whole[1]))
        axes.set_xlim(0, inner / _SIGN)
        axes.set_xticks([])
        return axes

    def _line(
        self, row: list[_Cell], field: str, letter: str, colour: str, high: float, top: float, height: float
    ) -> None:
        """0 to 2 and 0 to 1 in every panel, so that panels compare."""
        axes = self._axes(top, height)
        x = [cell.start + cell.width / 2 for cell in row]
        y = [float("nan") if cell.token[field] is None else cell.token[field] for cell in row]
        axes.plot(x, y, color=colour, lw=1.1, marker=".", ms=4)
        axes.set_ylim(-0.03 * high, high * 1.04)
        axes.set_yticks([0, high / 2, high])
        axes.tick_params(labelsize=6, length=2)
        axes.set_ylabel(letter, color=colour, fontsize=8, rotation=0, labelpad=6)
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)

    def _strip(self, row: list[_Cell], top: float) -> None:
        from matplotlib.patches import Rectangle

        axes = self._axes(top + 0.03, _STRIP - 0.03)
        axes.set_ylim(0, 1)
        axes.axis("off")
        for cell in row:
            x = _share_of_t(cell.token)
            tint = "#eeeeee" if x is None else css(rgb(x))
            axes.add_patch(Rectangle((cell.start, 0), cell.width - 0.12, 1, facecolor=tint, lw=0))
            axes.text(
                cell.start + cell.width / 2, 0.45, cell.text, fontsize=7.5, family="monospace", ha="center", va="center",
                color="black" if x is None else css(ink(rgb(x))), parse_math=False, clip_on=True,
            )  # fmt: skip


def _legend(figure: Any) -> None:
    """The tint's scale, at the lower left."""
    from matplotlib.patches import Rectangle

    width, height = figure.get_size_inches()
    axes = figure.add_axes((_LEFT / width, 0.08 / height, 3.4 / width, 0.18 / height))
    axes.set_xlim(0, 10)
    axes.axis("off")
    axes.text(0, 0.45, "tint: T", fontsize=7.5, va="center")
    for i in range(7):
        tint = rgb(i / 6)
        axes.add_patch(Rectangle((1.3 + i, 0), 0.95, 1, facecolor=css(tint), lw=0))
        words = f"{0.2 * i:.1f}{'+' if i == 6 else ''}"
        axes.text(1.77 + i, 0.45, words, fontsize=7, ha="center", va="center", color=css(ink(tint)))


def _share_of_t(token: dict[str, Any]) -> float | None:
    """On the scale of the tints; what a head said, for a trace of a greedy reply, too."""
    return share("t", {"temperature_eff": token["temperature"]})


def visible(text: str) -> str:
    """Line breaks and control characters as signs; blanks stay."""
    return "".join("⏎" if c == "\n" else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


# ---- a page -----------------------------------------------------------------------------------

MAX_PAGE = 5000  # tokens of a trace: a browser draws them without a pause


def page(traces: Sequence[ReadTrace]) -> str:
    """The figure and, under it, every token tinted by its T; what is known of it appears where the mouse rests or the
    keyboard stands. One file without a script, which asks nobody for anything."""
    columns = "".join(f"<section><h2>{escape(visible(t.caption()))}</h2><p>{_spans(t)}</p></section>" for t in traces)
    svg = picture(traces, "svg").decode()
    steps = "".join(f'<b style="{_style(i / 6)}">{0.2 * i:.1f}</b>' for i in range(7))
    return _PAGE.format(
        title=escape(visible(", ".join(t.name for t in traces))),
        figure=svg[svg.index("<svg") :],
        body=f"<p class=legend>T {steps} and above</p><div class=traces>{columns}</div>",
    )


def _spans(trace: ReadTrace) -> str:
    left_out = len(trace.tokens) - MAX_PAGE
    more = f" ... {left_out} more tokens" if left_out > 0 else ""
    return "".join(_span(i, token) for i, token in enumerate(trace.tokens[:MAX_PAGE])) + more


def _style(x: float | None) -> str:
    return "" if x is None else f"background:{css(rgb(x))};color:{css(ink(rgb(x)))}"


def _span(i: int, token: dict[str, Any]) -> str:
    text = escape(visible(token["text"]) or "∎") + ("<br>" if token["text"].endswith("\n") else "")
    style = _style(_share_of_t(token))
    return f'<span tabindex=0 style="{style}">{text}<i>{_told(i, token)}</i></span>'


def _told(i: int, token: dict[str, Any]) -> str:
    """All that the trace has of one token."""
    numbers = [
        f"{letter} {token[name]:.3f}"
        for letter, name in (("T", "temperature"), ("P", "top_p"), ("entropy", "entropy"), ("logprob", "logprob"))
        if token.get(name) is not None
    ]
    lines = [
        f"token {i}, id {token.get('id', '?')}",
        ", ".join(numbers),
        f"the nucleus kept {token.get('n_kept', '?')}",
    ]
    top = token.get("top", ())
    if top:
        lines.append(f"rank {token.get('rank') or f'beyond {len(top)}'}")
    return "<br>".join([*map(escape, lines), *map(_candidate, top)])


def _candidate(one: dict[str, Any]) -> str:
    words = f"<code>{escape(visible(one['text']))}</code> {100 * math.exp(one['logprob']):.1f} %"
    return f"<u>{words}</u>" if one["kept"] else f"<s>{words}</s>"


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>
body{{font-family:system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;background:#fff;color:#111}}
svg{{width:100%;height:auto}} h2{{font-size:1em}} .traces{{display:flex;gap:2em}} section{{flex:1;min-width:0}}
section p{{font-family:ui-monospace,monospace;line-height:1.9}} .legend b{{padding:2px 6px;font-weight:normal}}
span{{padding:2px 0;white-space:pre-wrap;outline-offset:-1px}} u{{text-decoration:none}}
span:hover,span:focus{{outline:2px solid #d55e00}} s{{opacity:.6}}
span>i{{display:none;position:fixed;right:1em;top:1em;z-index:1;background:#fff;color:#111;border:1px solid #888;
padding:.4em .6em;font:normal 12px/1.5 system-ui,sans-serif;white-space:nowrap;box-shadow:0 2px 6px #0003}}
span:hover>i,span:focus>i{{display:block}}</style>{figure}{body}</html>
"""
