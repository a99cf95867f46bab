"""The process in which foreign chat templates run: Jinja's sandbox, and a memory limit around it.

Owns the rendering. Started as a script by template.py and imports nothing of this package, so that it
is up in a tenth of a second. A line of JSON in, {"template", "variables"}; a line out, {"text"} or {"error"}.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from datetime import datetime

from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_MEMORY = 1 << 30  # bytes of address space; Python and Jinja need a tenth
MAX_TEXT = 1 << 24  # characters of a rendered prompt


def environment() -> ImmutableSandboxedEnvironment:
    """As transformers sets it up: whitespace rules, break and continue, JSON that is not escaped for HTML."""
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    env.filters["tojson"] = to_json
    return env


def to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def refuse(message: str) -> None:
    raise ValueError(message)


def answer(env: ImmutableSandboxedEnvironment, line: bytes) -> dict[str, str]:
    request = json.loads(line)
    try:
        text = env.from_string(request["template"]).render(request["variables"])
    except MemoryError:
        return {"error": f"it needs more than {MAX_MEMORY >> 20} MiB of memory"}
    except Exception as error:  # whatever a foreign template does, RecursionError included
        return {"error": str(error) or type(error).__name__}
    if len(text) > MAX_TEXT:
        return {"error": f"it made {len(text)} characters, more than {MAX_TEXT}"}
    return {"text": text}


def limit_memory() -> None:
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such thing on Windows; macOS may refuse
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which closes our stdin
    limit_memory()
    env = environment()
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(json.dumps(answer(env, line)).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
