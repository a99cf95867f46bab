"""The door by which text comes in: from a file, a pipe, an option, a configuration file, JSON.

Owns what counts as text (UTF-8, with or without a byte-order mark, no NUL, no half characters, CRLF read as LF),
what may be opened (a regular file, or a pipe where one makes sense), how large and how deeply nested it may be, and what
``~`` in a path means. Does not know what the text says.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import select
import stat
import tomllib
from pathlib import Path
from typing import Any

from ..errors import FormatError, MissingInputError, UsageError

MAX_BYTES = 64 * 2**20  # of a text read as a whole: far above any prompt, template, schema or trace
MAX_DEPTH = 200  # brackets in brackets; what walks the value later may be recursive, and no honest file has as many

_MARKS = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32"} | {  # in this order: one begins as another
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_CHUNK = 1 << 20


# ---- paths and options ------------------------------------------------------------------------


def user_path(text: str | os.PathLike[str]) -> Path:
    """A path as a person wrote it, with ``~`` as their home. Raises UsageError for what no file can be called."""
    text = os.fspath(text)
    if "\0" in text:
        raise UsageError(f"{text!r}: not a file name")
    if not text.startswith("~"):
        return Path(text)
    try:
        return Path(text).expanduser()
    except RuntimeError:
        if os.path.exists(text):  # a name that merely begins so
            return Path(text)
        raise UsageError(f"{text}: no such user, or no home folder is known; write the path in full") from None


def check_text(text: str, what: str) -> str:
    """An argument as text. Raises UsageError where its bytes are no UTF-8 (Python carries them as surrogates).

    In a locale that is not UTF-8 right text arrives as surrogates, too: it is put together again.
    """
    if "\0" in text:
        raise UsageError(f"{what}: holds a NUL character; leave it out")
    if not _SURROGATE.search(text):
        return text
    try:
        return os.fsencode(text).decode("utf-8")
    except UnicodeError:
        raise UsageError(f"{what}: is not UTF-8 text; convert it first") from None


def is_text(text: str) -> bool:
    """False for half a character, which JSON may spell and no file may hold."""
    return not _SURROGATE.search(text)


# ---- files and pipes --------------------------------------------------------------------------


def read_text(path: str | os.PathLike[str], hint: str = "", *, limit: int = MAX_BYTES, streams: bool = False) -> str:
    """The text of a file.

    hint     what to give instead, for the messages
    limit    bytes at most
    streams  take a pipe and a terminal too (/dev/stdin, a shell's <(...)); else regular files alone

    Raises MissingInputError where it cannot be read, FormatError where it is no text or too large.
    """
    return decode(read_bytes(path, hint, limit=limit, streams=streams), str(path))


def read_bytes(path: str | os.PathLike[str], hint: str = "", *, limit: int = MAX_BYTES, streams: bool = False) -> bytes:
    """The bytes of a file, as ``read_text``."""
    path, hint = user_path(path), f"; {hint}" if hint else ""
    try:
        fd = _open(path, hint, streams)
        try:
            return read_fd(fd, str(path), limit)
        finally:
            os.close(fd)
    except OSError as error:
        raise MissingInputError(f"{path}: cannot be read ({error.strerror}){hint}") from None


def read_fd(fd: int, where: str, limit: int = MAX_BYTES) -> bytes:
    """Everything up to the end of a descriptor. Raises FormatError beyond ``limit`` bytes, OSError."""
    parts, n_bytes = [], 0
    while part := _read(fd, min(_CHUNK, limit + 1)):
        parts.append(part)
        n_bytes += len(part)
        if n_bytes > limit:
            raise FormatError(f"{where}: larger than {limit} bytes; no text of this kind is that long")
    return b"".join(parts)


def _read(fd: int, n_bytes: int) -> bytes:
    while True:
        try:
            return os.read(fd, n_bytes)
        except BlockingIOError:  # somebody who shares the pipe made it so
            select.select([fd], [], [])


def _open(path: Path, hint: str, streams: bool) -> int:
    """Never waits for somebody to open the other end of a pipe: one without a writer is empty."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode) or (streams and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))):
        if not stat.S_ISREG(mode):
            os.set_blocking(fd, True)
        return fd
    os.close(fd)
    kind = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
    raise FormatError(f"{path}: cannot be read (it is {kind}, not a file){hint}")


def decode(data: bytes, where: str) -> str:
    """Bytes of a text file as text. Raises FormatError."""
    for mark, name in _MARKS.items():
        if data.startswith(mark):
            raise FormatError(f"{where}: is {name} text; convert it to UTF-8 first")
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"0x{data[error.start]:02X}" if error.start < len(data) else "end"
        raise FormatError(f"{where}: not UTF-8 text (byte {byte} at {error.start}); convert it first") from None
    if "\0" in text:
        raise FormatError(f"{where}: holds a NUL character (UTF-16, or no text at all); give UTF-8 text")
    return text.replace("\r\n", "\n")


# ---- JSON and TOML ----------------------------------------------------------------------------


def parse_json(text: str | bytes, where: str, hint: str = "", *, lenient: bool = False, unique: bool = False) -> Any:
    """The value of a JSON text. ``lenient`` lets pass what only a field that nobody reads may hold: NaN, Infinity, half a
    character. ``unique`` refuses an object with a key twice, of which others may read the first and we the second.

    Raises FormatError for what is no JSON, for halves of surrogate pairs and for deep nesting.
    """
    text = decode(text, where) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    hint = f"; {hint}" if hint else ""
    try:
        pairs = without_doubles if unique else None
        value = json.loads(text, parse_constant=None if lenient else _refuse_constant, object_pairs_hook=pairs)
    except RecursionError:
        raise FormatError(f"{where}: not valid JSON that can be read (nested too deeply){hint}") from None
    except ValueError as error:
        raise FormatError(f"{where}: not valid JSON ({error}){hint}") from None
    halves = not lenient and (_SURROGATE_ESCAPE.search(text) or _SURROGATE.search(text))
    if halves or text.count("[") + text.count("{") > MAX_DEPTH:
        _check_value(value, where, hint, lenient)
    return value


def without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json's object_pairs_hook. Raises ValueError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"{twice[:100]!r} stands twice in an object")
    return found


def read_json(path: str | os.PathLike[str], hint: str = "", *, lenient: bool = False) -> Any:
    """The value of a JSON file, as ``parse_json``. Raises MissingInputError, FormatError."""
    return parse_json(read_text(path, hint), str(path), hint, lenient=lenient)


def parse_toml(text: str, where: str, hint: str = "") -> dict[str, Any]:
    """The tables of a TOML text. Raises FormatError."""
    hint = f"; {hint}" if hint else ""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise FormatError(f"{where}: not valid TOML (nested too deeply){hint}") from None
    except ValueError as error:
        raise FormatError(f"{where}: not valid TOML ({error}){hint}") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _check_value(value: Any, where: str, hint: str, lenient: bool) -> None:
    """Walks without recursion: that is the point."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                following += item.keys()
                following += item.values()
            elif isinstance(item, list):
                following += item
            elif isinstance(item, str) and not lenient and _SURROGATE.search(item):
                raise FormatError(f"{where}: not valid Unicode (half a character, such as \\ud83d){hint}")
        if not following:
            return
        level = following
    raise FormatError(f"{where}: not valid JSON that can be read (nested too deeply, allowed {MAX_DEPTH} levels){hint}")
