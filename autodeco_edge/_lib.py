"""Finds and loads libautodeco and the llama.cpp it shares with llama-cpp-python.

Owns the two library handles, llama.cpp's log, and the version check. Does not know any
function signature beyond those (see _native.py).

llama_cpp is imported first: its copy of libllama must be the one in the process, and the
dynamic linker then reuses it for libautodeco by its soname.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from pathlib import Path

# An abort inside ggml would otherwise fork a debugger.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

from .errors import AutodecoError

_NAMES = {"darwin": "libautodeco.dylib", "win32": "autodeco.dll"}
_LEVEL_WARN, _LEVEL_ERROR, _LEVEL_CONT = 3, 4, 5  # ggml_log_level of this llama.cpp: DEBUG 1, INFO 2, WARN 3, ERROR 4


class Log:
    """The last warnings and errors of llama.cpp, and a tap for all of it.

    llama-cpp-python's own callback maps levels by an old enum, so that errors vanish with
    verbose=False; this one replaces it when the library is loaded.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=12)
        self.verbose = False
        self._level = 0

    def write(self, level: int, text: bytes) -> None:
        line = text.decode("utf-8", "replace")
        if level != _LEVEL_CONT:
            self._level = level
        if self._level in (_LEVEL_WARN, _LEVEL_ERROR) and line.strip():
            self.lines.append(line.strip())
        if self.verbose:
            print(line, end="", file=sys.stderr, flush=True)

    def last_error(self) -> str:
        """The most telling recent line, or ''."""
        errors = [line for line in self.lines if "error" in line.lower() or "failed" in line.lower()]
        return (errors or list(self.lines) or [""])[0]

    def clear(self) -> None:
        self.lines.clear()


log = Log()


def _candidates() -> list[Path]:
    """AUTODECO_LIBRARY, then every folder this package is spread over (source tree and site-packages)."""
    name = _NAMES.get(sys.platform, "libautodeco.so")
    override = os.environ.get("AUTODECO_LIBRARY")
    if override:
        return [Path(override)]
    import sysconfig

    folders = [Path(__file__).parent, Path(sysconfig.get_path("platlib")) / "autodeco_edge"]
    folders += [Path(p) / "autodeco_edge" for p in sys.path if p.endswith("site-packages")]
    return [folder / name for folder in folders]


def _load() -> ctypes.CDLL:
    import llama_cpp

    _set_log(llama_cpp)
    for path in _candidates():
        if path.exists():
            return ctypes.CDLL(str(path))
    raise AutodecoError(
        f"the native library is missing: looked for {_candidates()[0].name} beside the package; "
        "reinstall autodeco-edge (a C compiler and CMake are needed)"
    )


def _set_log(llama_cpp) -> None:
    @llama_cpp.llama_log_callback
    def callback(level, text, user_data):
        log.write(level, text)

    _set_log.callback = callback  # kept alive as long as the process
    llama_cpp.llama_log_set(callback, ctypes.c_void_p(0))


_library: ctypes.CDLL | None = None


def library() -> ctypes.CDLL:
    """libautodeco, loaded once. Raises AutodecoError when it is missing or made for another llama.cpp."""
    global _library
    if _library is None:
        lib = _load()
        err = ctypes.create_string_buffer(512)
        lib.autodeco_check_llama.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        if lib.autodeco_check_llama(err, len(err)) != 0:
            raise AutodecoError(err.value.decode())
        _library = lib
    return _library
