"""The door by which text goes out: what we print and did not write is shown, never obeyed.

Owns the two streams (one that is closed, full, or cannot show a character) and the escapes: a reply, a name out of a
file, a message of a library may hold control characters, and a terminal would do what they say. Stdout that fails ends
the work with StdoutError; stderr that fails never does, for it carries chatter. Knows neither replies nor commands.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import textwrap
from typing import TextIO

from ..errors import StorageError

BIDI = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]  # what stands behind them would be read in another order
_C1 = range(0x7F, 0xA0)
_LINES = {0x2028: r"\u2028", 0x2029: r"\u2029"}  # separators that some viewers break a line at
_HIDDEN = {c: f"\\x{c:02x}" for c in _C1} | {c: f"\\u{c:04x}" for c in BIDI} | _LINES
_SURROGATES = {0xDC80 + b: f"\\x{0x80 + b:02x}" for b in range(128)}  # a byte of a file name that is no UTF-8

TEXT = _HIDDEN | {c: chr(0x2400 + c) for c in range(32) if chr(c) not in "\n\t"} | {0x7F: "\u2421"}
_LONGEST = 1200  # characters of a message
_DOT, _JOINED = " · ", "\0"  # between parts of a line; in place of a blank, where a line is not broken
LINE = _HIDDEN | _SURROGATES | {c: f"\\x{c:02x}" for c in range(32)} | {9: r"\t", 10: r"\n", 13: r"\r"}
JSON = {c: f"\\u{c:04x}" for c in [*_C1, *BIDI, *_LINES]}  # inside strings only; json itself escapes the rest


class StdoutError(StorageError):
    """Nothing more can be written to stdout: the end of the work."""


# ---- what is shown ----------------------------------------------------------------------------


def safe_text(text: str) -> str:
    """Foreign text on a terminal: line breaks and tabs stay, other control characters become pictures."""
    return text.translate(TEXT)


def safe_line(text: str) -> str:
    """Foreign text inside one line: everything that is not shown as itself is escaped, line breaks too."""
    return text.translate(LINE)


def one_line(error: object) -> str:
    """An error's words as the one line that is said of it, and not a screenful where it quotes much."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"


def first_line(error: BaseException) -> str:
    """Of another library's error, which may have many or none: then its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def say(*lines: str, indent: int = 0) -> None:
    """Chatter, a line each: to stderr, so that stdout stays the reply. A terminal gets it broken between words; what goes
    on in a next line begins behind ``indent`` blanks there."""
    for line in lines:
        print("\n".join(_broken(safe_line(line), sys.stderr, indent)), file=sys.stderr, flush=True)


def _broken(line: str, stream: TextIO, indent: int) -> list[str]:
    """A word longer than the window, such as a path, stays whole: the terminal breaks it. Of a line in parts, each stays
    whole where it can: "seed 3" is no use as "seed" and "3"."""
    if not (stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"):
        return [line]
    width = max(shutil.get_terminal_size().columns - 1, 1)
    margin = " " * (indent if indent <= width // 2 else 0)
    whole = {"break_long_words": False, "break_on_hyphens": False}
    parts = line.split(_DOT)
    if len(parts) > 1 and max(map(len, parts)) + 2 + len(margin) <= width:
        line = f"{_JOINED}· ".join(part.replace(" ", _JOINED) for part in parts)
    lines = textwrap.wrap(line, width, subsequent_indent=margin, **whole) or [line]
    return [each.replace(_JOINED, " ") for each in lines]


def put(text: str) -> None:
    """A result of our own making that quotes foreign names, to stdout. Line breaks in it are ours."""
    print("\n".join(map(safe_line, text.split("\n"))))


def put_path(path: str | os.PathLike[str]) -> None:
    """A path alone on its line: for a program the path itself, for a person one that does not act."""
    print(safe_line(os.fspath(path)) if sys.stdout.isatty() else os.fspath(path))


def shows_unicode(stream: TextIO) -> bool:
    return "utf" in (stream.encoding or "").lower()


# ---- the streams ------------------------------------------------------------------------------


def open_streams() -> None:
    """Once, at the start of the program: stdin, stdout and stderr that can be used without looking.

    A closed one becomes the null device, so that no file of ours is opened in its place. A character that an
    encoding does not have is written as an escape.
    """
    _fill_closed()
    for name, kind in (("stdout", _Result), ("stderr", _Chatter)):
        stream = getattr(sys, name)
        if sys.platform == "win32" or not _is_plain(stream):
            with contextlib.suppress(AttributeError):
                stream.reconfigure(errors="backslashreplace")
            continue
        setattr(sys, name, _stream(kind, stream.fileno(), stream.encoding))


def close_stdout() -> StdoutError | None:
    """Write out what is left; what went wrong, or None. Nothing is left to fail when the interpreter ends."""
    try:
        sys.stdout.flush()
        return None
    except (BrokenPipeError, ValueError):
        failure = None
    except StdoutError as error:
        failure = error
    except OSError as error:
        failure = _stdout_error(error)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return failure


# The rules stand above the text layer: a Ctrl-C in a Python method below the buffer would come between the write and the
# note that it was done, and the same bytes would be written twice.


class _Result(io.TextIOWrapper):
    def write(self, text: str) -> int:
        return self._guarded(super().write, text)

    def flush(self) -> None:
        self._guarded(super().flush)

    def _guarded(self, action, *arguments):
        try:
            return action(*arguments)
        except BrokenPipeError:
            raise  # a reader that has seen enough is no failure
        except BlockingIOError:  # somebody made the terminal non-blocking; what is left stands in the buffer
            os.set_blocking(self.fileno(), True)
            return self._guarded(super().flush)
        except OSError as error:
            raise _stdout_error(error) from None


class _Chatter(io.TextIOWrapper):
    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _stream(kind: type[io.TextIOWrapper], fd: int, encoding: str) -> TextIO:
    raw = io.FileIO(fd, "wb", closefd=False)
    if hasattr(os, "set_blocking"):
        os.set_blocking(fd, True)
    line_buffering = raw.isatty() or kind is _Chatter
    return kind(io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=line_buffering)


def _is_plain(stream: TextIO | None) -> bool:
    """Whether it is the process's own; a test or a notebook may have put another there."""
    try:
        return stream is not None and stream.fileno() in (1, 2)
    except (OSError, ValueError, AttributeError):
        return False


def _fill_closed() -> None:
    for fd, name, flags in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_WRONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(fd)
        except OSError:
            null = os.open(os.devnull, flags)  # takes the lowest free number, which is this one
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            os.set_inheritable(fd, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def _stdout_error(error: OSError) -> StdoutError:
    return StdoutError(f"stdout: writing failed ({error.strerror})")
