"""Pictures of the real screen: types at `autodeco-edge run` on a pseudo-terminal and draws what it shows.

pip install pexpect pyte
python docs/make_screens.py        writes docs/images/chat-*.svg
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from pathlib import Path

import pexpect
import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

IMAGES = Path(__file__).with_name("images")
COLUMNS = 104
QUIET_SECONDS = 1.0  # nothing written for so long: the screen is as it will stay

SCENES = {
    "chat-tints": (22, ["--color-by", "t", "--seed", "1"], ["Find two numbers that make 83.", "/set color-by p", "/regen"]),
    "chat-commands": (34, ["--seed", "1"], ["/help"]),
    "chat-trace": (36, ["--seed", "3"], ["Write a short story about a fox.", "/trace"]),
    "chat-compare": (22, ["--seed", "3", "--color-by", "t"], ["/compare Write a short story about a fox."]),
    "chat-schema": (
        14,
        ["--seed", "2", "--color-by", "t", "--json-schema", '{"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"integer"}},"required":["a","b"]}'],
        ["Find two numbers that make 83.", "/stats"],
    ),
}  # fmt: skip


class Replies(pyte.Screen):
    """A screen that answers "where is the cursor?", as prompt_toolkit asks."""

    def __init__(self, columns: int, lines: int, child) -> None:
        super().__init__(columns, lines)
        self._child = child

    def write_process_input(self, data: str) -> None:
        self._child.send(data)


def play(rows: int, arguments: list[str], lines: list[str]) -> pyte.Screen:
    """The screen after the lines were typed."""
    with tempfile.TemporaryDirectory() as home:
        places = {name: home for name in ("AUTODECO_CONFIG", "XDG_STATE_HOME")}
        environment = {**os.environ, **places, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        command = ["-m", "autodeco_edge", "run", "-t", "1", *arguments]
        child = pexpect.spawn(sys.executable, command, env=environment, dimensions=(rows, COLUMNS), timeout=30)
        screen = Replies(COLUMNS, rows, child)
        stream = pyte.ByteStream(screen)
        until_quiet(child, stream, wait_for=b"/help lists")
        for line in lines:
            child.send(line + "\r")
            until_quiet(child, stream)
        child.ptyproc.delayafterterminate = 1.0
        child.close(force=True)
        return screen


def until_quiet(child, stream: pyte.ByteStream, wait_for: bytes = b"") -> None:
    seen, last = b"", time.monotonic()
    while wait_for not in seen or time.monotonic() - last < QUIET_SECONDS:
        try:
            data = child.read_nonblocking(4096, timeout=0.1)
        except pexpect.TIMEOUT:
            continue
        seen, last = seen + data, time.monotonic()
        stream.feed(data)


def colour(name: str) -> str | None:
    if name == "default":
        return None
    return (
        f"#{name}"
        if len(name) == 6 and all(c in "0123456789abcdef" for c in name)
        else name.replace("bright", "bright_")
    )


def save(screen: pyte.Screen, target: Path) -> None:
    console = Console(width=COLUMNS, record=True, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    for y in range(screen.lines):
        text = Text()
        for x in range(screen.columns):
            cell = screen.buffer[y][x]
            style = Style(color=colour(cell.fg), bgcolor=colour(cell.bg), bold=cell.bold, reverse=cell.reverse)
            text.append(cell.data, style)
        console.print(text, no_wrap=True)
    svg = console.export_svg(title="autodeco-edge run", unique_id=target.stem)
    target.write_text(
        re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL), encoding="utf-8"
    )  # no fonts from elsewhere


def main() -> None:
    for name, (rows, arguments, lines) in SCENES.items():
        if len(sys.argv) < 2 or name in sys.argv[1:]:
            save(play(rows, arguments, lines), IMAGES / f"{name}.svg")


if __name__ == "__main__":
    main()
