"""Random keystrokes against a reply that streams: typing, pastes, Ctrl-C, windows that change their size, Enter.

    python -P -m tests.cli.keystrokes --schedules 200 --seed 1

A schedule is a function of its seed. The history file says what the chat was given: every piece typed between two Enters
without a Ctrl-C between is there, once, whole and in its place; nothing is there that was not typed; and the chat is alive.
What a Ctrl-C may have cleared may be missing, no more. Exits 1 with the seeds that failed.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import sys
import tempfile
import time
from pathlib import Path

import pexpect

from tests.support.letters import Letters, make_letters
from tests.support.terminal import Terminal

STEPS = 14
_PIECE = re.compile(r"<\d+\.[a-z ]*>")


def schedule(seed: int) -> list[tuple[str, str]]:
    """(kind, text) of each step. No two Ctrl-C without a text between them: at an empty prompt they would end the chat."""
    draw, steps, may_stop = random.Random(seed), [], True
    for i in range(STEPS):
        kind = draw.choice(["type", "type", "paste", "enter", "enter", "stop", "resize", "wait"])
        if kind == "stop" and not may_stop:
            kind = "type"
        may_stop = kind != "stop" and (may_stop or kind in ("type", "paste"))
        length = draw.choice([3, 30, 3000]) if kind == "paste" else draw.randint(1, 12)
        text = f"<{i}.{''.join(draw.choice('abcdefgh ') for _ in range(length))}>" if kind in ("type", "paste") else ""
        steps.append((kind, text))
    return steps


def play(seed: int, letters: Letters, home: Path) -> str | None:
    """What went wrong, or None."""
    places = {name: str(home) for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "AUTODECO_CONFIG")}
    steps, draw = schedule(seed), random.Random(-seed - 1)
    endless = ("--logit-bias", "258=-100", "--logit-bias", "259=-100")
    terminal = Terminal(
        "run", "-t", "1", "--seed", "1", "-m", letters.gguf, "--heads", letters.heads, "-c", "20000", "-n", "2500", *endless,
        term="xterm-256color", columns=80, **places,
    )  # fmt: skip
    child = terminal.child
    child.delaybeforesend = None
    try:
        terminal.wait_for("/help lists the commands")
        terminal.wait_for_prompt()
        for kind, text in steps:
            _do(terminal, kind, text, draw)
        _drain(child, 0.3)
        terminal.send("\r")
        if not _settles(terminal):
            return "it answers no more"
        child.send("\x04")
        terminal.ended()
        return _compare(steps, (home / "autodeco-edge" / "history").read_text(encoding="utf-8"))
    except (pexpect.TIMEOUT, pexpect.EOF) as error:
        return f"{type(error).__name__}; the end of the screen: {terminal.shown[-300:]!r}"
    finally:
        terminal.kill()


def _do(terminal: Terminal, kind: str, text: str, draw: random.Random) -> None:
    if kind == "type":
        terminal.send(text)
    elif kind == "paste":
        terminal.send(f"\x1b[200~{text}\x1b[201~")
    elif kind == "enter":
        terminal.send("\r")
    elif kind == "stop":
        terminal.interrupt()
    elif kind == "resize":
        terminal.child.setwinsize(draw.randint(10, 50), draw.randint(20, 120))
    _drain(terminal.child, draw.choice([0.0, 0.01, 0.1, 0.4]))


def _drain(child: pexpect.spawn, seconds: float) -> None:
    """Reads for a while, as a terminal does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            child.read_nonblocking(65536, timeout=left)
        except pexpect.TIMEOUT:
            return


def _settles(terminal: Terminal) -> bool:
    """Whether every reply ends and a last command is answered: in a line of its own, behind whatever is still typed."""
    for _ in range(40):
        terminal.send("\r/stats\r")
        if terminal.child.expect_exact(["thread", "no reply yet", pexpect.TIMEOUT], timeout=3) < 2:
            _drain(terminal.child, 0.5)
            return True
    return False


def _compare(steps: list[tuple[str, str]], history: str) -> str | None:
    lines = [line[1:] for line in history.splitlines() if line.startswith("+")]
    found = _PIECE.findall("\n".join(lines).replace("\n", "\n"))
    rest = "".join(_PIECE.sub("", line) for line in lines if not line.startswith("/stats"))
    if rest.replace("/stats", "").strip():
        return f"not what was typed: {rest[:200]!r}"
    typed = [text for _, text in steps if text]
    in_order = iter(typed)
    if not all(any(piece == t for t in in_order) for piece in found):
        return f"twice, cut or out of order: {found} of {typed}"
    for line in _undisturbed(steps):
        if "".join(line) and "".join(line) not in "".join(found):
            return f"lost: {line}"
    return None


def _undisturbed(steps: list[tuple[str, str]]) -> list[list[str]]:
    """What was typed between two Enters, where no Ctrl-C may have cleared a part of it: none from the Enter before on."""
    lines, line, clean = [], [], True
    for kind, text in [*steps, ("enter", "")]:
        if text:
            line.append(text)
        if kind == "stop":
            clean = False
        if kind == "enter":
            if clean:
                lines.append(line)
            line, clean = [], True
    return lines


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--schedules", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        letters = make_letters(Path(folder))
        for seed in range(options.seed, options.seed + options.schedules):
            home = Path(folder) / f"home-{seed}"
            if wrong := play(seed, letters, home):
                failed.append(seed)
                print(f"seed {seed}: {wrong}", flush=True)
    print(f"{options.schedules} schedules, {len(failed)} failed: {failed}")
    return bool(failed)


if __name__ == "__main__":
    os.environ.pop("NO_COLOR", None)
    sys.exit(main())
