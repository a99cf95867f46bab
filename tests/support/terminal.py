"""`autodeco-edge` on a pseudo-terminal, typed at and read as by a user."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress

import pexpect

PROMPT = r">(?: |\x08\x1b\[2C)"  # prompt_toolkit skips a blank on a real terminal
STATS = r"context (\d+)/(\d+) .*seed (\d+)\]"


class Terminal:
    """A running command. TERM=dumb unless told otherwise: what is read is then what was written."""

    def __init__(self, *args: object, term: str = "dumb", columns: int = 200, **variables: str) -> None:
        environment = {
            **os.environ,
            "TERM": term,
            "PROMPT_TOOLKIT_NO_CPR": "1",
            "PYTHONIOENCODING": "utf-8",
            **variables,
        }
        self.child = pexpect.spawn(
            sys.executable,
            ["-m", "autodeco_edge", *map(str, args)],
            env=environment,
            encoding="utf-8",
            codec_errors="replace",  # a model of random weights writes anything
            timeout=30,  # others may have the processor
            dimensions=(40, columns),
        )
        self.child.logfile_read = self._log = io.StringIO()

    @property
    def shown(self) -> str:
        """Everything that was read so far."""
        return self._log.getvalue()

    def wait_for(self, text: str) -> None:
        self.child.expect_exact(text)

    def wait_for_match(self, pattern: str) -> tuple[str, ...]:
        self.child.expect(pattern)
        return self.child.match.groups()

    def wait_for_prompt(self) -> None:
        """The prompt is there, and the keyboard is read: before that, Ctrl-D would go to the terminal itself."""
        self.wait_for_match(PROMPT)
        assert self.child.waitnoecho(timeout=10)

    def type(self, line: str) -> None:
        self.child.sendline(line)

    def send(self, keys: str) -> None:
        self.child.send(keys)

    def interrupt(self) -> None:
        self.child.sendintr()

    def command(self, line: str, answer: str) -> None:
        """A slash command, its answer, and the prompt again."""
        self.type(line)
        self.wait_for(answer)
        self.wait_for_prompt()

    def say(self, line: str) -> tuple[int, int, int]:
        """One turn; returns (tokens in the context, size of the context, seed)."""
        self.type(line)
        found = self.wait_for_match(STATS)
        self.wait_for_prompt()
        return tuple(int(x) for x in found)

    def leave(self) -> int:
        """Ctrl-D; returns the exit code."""
        self.child.sendeof()
        return self.ended()

    def ended(self) -> int:
        self.child.expect(pexpect.EOF)
        self.child.close()
        assert "Traceback" not in self.child.before, self.child.before
        return self.child.exitstatus

    def kill(self) -> None:
        with suppress(pexpect.ExceptionPexpect):  # it was killed; a busy machine takes its time to say so
            self.child.close(force=True)
