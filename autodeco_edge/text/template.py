"""A chat template's text, rendered in a child process that is killed when it takes too long.

Owns the child and the time limit: a template comes with a model file from anywhere, and what it can do
to the memory or the clock must not reach this process. Does not know models or conversations (chat.py);
the sandbox itself is template_child.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import FormatError
from ..io import child
from ..io.exchange import exchange

MAX_SECONDS = 2.0
MAX_MEMORY = 1 << 30  # bytes of address space; Python and Jinja need a tenth
MAX_ADDED = 1 << 20  # characters of a prompt beyond twice what went in: no template has that much to say itself
_SCRIPT = Path(__file__).with_name("template_child.py")


class TemplateError(FormatError):
    """A chat template that failed, or was stopped; the message is its own, one line of bounded length."""


class TemplateStopped(TemplateError):
    """It broke a limit, and would break it again."""


class Renderer:
    """The child, started at first use and again after it had to be killed. Threads take turns."""

    def __init__(self, max_seconds: float = MAX_SECONDS) -> None:
        self.max_seconds = max_seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._pid = os.getpid()
        self._lock = threading.Lock()

    def render(self, template: str, variables: Mapping[str, Any]) -> str:
        """The text. Raises TemplateError for a template that fails, TemplateStopped for one that breaks a limit."""
        given = json.dumps(variables)
        limit = MAX_ADDED + 2 * len(given)
        request = f'{{"template": {json.dumps(template)}, "max_text": {limit}, "variables": {given}}}\n'.encode()
        with self._lock:
            try:
                answer = self._ask(request)
            except BaseException:  # Ctrl-C: an answer that nobody reads must not be the next one's
                self.close()
                raise
        if "limit" in answer:
            raise TemplateStopped(answer["limit"])
        if "error" in answer:
            raise TemplateError(answer["error"])
        return answer["text"]

    def _ask(self, request: bytes) -> dict[str, str]:
        try:
            line = exchange(self._started(), request, self.max_seconds)
        except TimeoutError:
            self.close()
            raise TemplateStopped(f"it did not end within {self.max_seconds:g} seconds") from None
        if line.endswith(b"\n"):
            return json.loads(line)
        self.close()
        raise TemplateStopped("it broke its process")

    def _started(self) -> subprocess.Popen[bytes]:
        """A child that is ready: its start does not count against the template's time."""
        if self._pid != os.getpid():  # after a fork the child is the parent's
            self._child, self._pid = None, os.getpid()
        if self._child is None or self._child.poll() is not None:
            self.close()
            limits = [os.getpid(), 2 * self.max_seconds, MAX_MEMORY]
            self._child = subprocess.Popen(
                [sys.executable, "-I", child.__file__, str(_SCRIPT), *map(str, limits)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            if self._child.stdout.readline() != b"ready\n":
                raise TemplateStopped("no process to render it in could be started; is Jinja2 installed?")
        return self._child

    def close(self) -> None:
        process, self._child = self._child, None
        if process:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


_renderer = Renderer()


def render_template(template: str, variables: Mapping[str, Any]) -> str:
    """``Renderer.render`` in the child that this process shares."""
    return _renderer.render(template, variables)
