"""Draws a trace (`run --jsonl`) as an SVG: the tokens tinted by T, with T and P beneath.

    python docs/plot_reply.py reply.jsonl reply.svg

Fixed scales (T 0 to 2, P 0 to 1), so that two pictures compare. The colours are a cut of
the cividis map, which reads the same with and without colour vision.
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path

COLOURS = [(0, 34, 78), (53, 69, 108), (102, 105, 112), (148, 142, 119), (200, 184, 102), (254, 232, 56)]
CHAR, ROW, LEFT, WIDTH, NARROWEST = 8.4, 64, 44, 940, 560


def colour(t: float) -> tuple[int, int, int]:
    """T in [0, 2] to RGB."""
    x = min(max(t / 2, 0), 1) * (len(COLOURS) - 1)
    i = min(int(x), len(COLOURS) - 2)
    return tuple(round(a + (b - a) * (x - i)) for a, b in zip(COLOURS[i], COLOURS[i + 1], strict=True))


def ink(rgb: tuple[int, int, int]) -> str:
    return "#ffffff" if sum(w * c for w, c in zip((0.3, 0.59, 0.11), rgb, strict=True)) < 130 else "#111111"


def cell(x: float, y: float, token: dict) -> tuple[float, str]:
    """One token: a box with its text, T above the line, P below."""
    text = token["text"].replace("\n", "⏎") or "end"
    width = max(len(text) * CHAR, 30.0)
    rgb = colour(token["temperature"] or 0)
    t, p = (f"{v:.2f}" if v is not None else "–" for v in (token["temperature"], token["top_p"]))
    middle = x + width / 2
    return width, (
        f'<rect x="{x:.1f}" y="{y}" width="{width - 2:.1f}" height="24" rx="3" fill="rgb{rgb}"/>'
        f'<text x="{middle - 1:.1f}" y="{y + 17}" class="token" fill="{ink(rgb)}">{escape(text.replace(" ", chr(160)))}</text>'
        f'<text x="{middle - 1:.1f}" y="{y + 37}" class="value">{t}</text>'
        f'<text x="{middle - 1:.1f}" y="{y + 50}" class="value p">{p}</text>'
    )


def layout(tokens: list[dict]) -> tuple[list[str], float, int]:
    """Cells from left to right, a new row where a line ends or the page does; returns the right and the lower edge."""
    x, y, right, cells = float(LEFT), 56, 0.0, [label(56)]
    for token in tokens:
        width, svg = cell(x, y, token)
        if x + width > WIDTH - 24:
            x, y = float(LEFT), y + ROW
            cells.append(label(y))
            width, svg = cell(x, y, token)
        cells.append(svg)
        x += width
        right = max(right, x)
        if token["text"].endswith("\n") and token is not tokens[-1]:
            x, y = float(LEFT), y + ROW
            cells.append(label(y))
    return cells, right, y + ROW


def label(y: int) -> str:
    return f'<text x="28" y="{y + 37}" class="value">T</text><text x="28" y="{y + 50}" class="value p">P</text>'


def figure(tokens: list[dict], title: str, footer: str) -> str:
    cells, right, bottom = layout(tokens)
    width, height = max(round(right) + 24, NARROWEST), bottom + 26
    style = (
        "text{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}"
        ".token{font-size:13px;text-anchor:middle}.value{font-size:10px;text-anchor:middle;fill:#1f4e8c}"
        ".p{fill:#8a5a00}.note{font-size:12px;fill:#444}.title{font-size:14px;fill:#111}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="24" y="32" class="title">{escape(title)}</text>{"".join(cells)}'
        f'<text x="24" y="{height - 16}" class="note">{escape(footer)}</text></svg>\n'
    )


def main() -> None:
    source, target = sys.argv[1:3]
    *tokens, done = [json.loads(line) for line in Path(source).read_text(encoding="utf-8").splitlines()]
    title = sys.argv[3] if len(sys.argv) > 3 else "> Find two numbers that make 83."
    footer = (
        f"tint: T from 0 (dark) to 2 (yellow) · mean T {done['mean_temperature']:.2f}, mean P {done['mean_top_p']:.2f} · "
        f"seed {done['seed']}"
    )
    Path(target).write_text(figure(tokens, title, footer), encoding="utf-8")


main()
