"""Finds and loads libautodeco and the llama.cpp it shares with llama-cpp-python.

Owns the two library handles, llama.cpp's log, and the version check. Does not know any
function signature beyond those (see native.py).

llama_cpp is imported first: its copy of libllama must be the one in the process, and the
dynamic linker then reuses it for libautodeco by its soname.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

# An abort inside ggml would otherwise fork a debugger.
os.environ.setdefault("GGML_NO_BACKTRACE", "1")

from ..errors import AutodecoError

_NAMES = {"darwin": "libautodeco.dylib", "win32": "autodeco.dll"}


class Log:
    """The last warnings and errors that llama.cpp logged in this thread, and a switch to see all of it.

    llama-cpp-python's own callback maps levels by an old enum, so that errors vanish with
    verbose=False; native/autodeco-llama.c replaces it when the library is loaded. It is C, because llama.cpp
    logs at every token, and a Ctrl-C that arrives in a Python callback is lost.
    """

    @property
    def lines(self) -> list[str]:
        found: list[str] = []
        while (line := library().autodeco_log_line(len(found))) is not None:
            found.append(line.decode("utf-8", "replace"))
        return found

    def last_error(self) -> str:
        """The most telling recent line, or ''."""
        lines = self.lines
        errors = [line for line in lines if "error" in line.lower() or "failed" in line.lower()]
        return (errors or lines or [""])[0]

    def clear(self) -> None:
        library().autodeco_log_clear()

    def set_verbose(self, verbose: bool) -> None:
        """Print every line to stderr as well."""
        library().autodeco_log_set_verbose(verbose)


log = Log()


def _candidates() -> list[Path]:
    """AUTODECO_LIBRARY, then every folder this package is spread over (source tree and site-packages)."""
    name = _NAMES.get(sys.platform, "libautodeco.so")
    override = os.environ.get("AUTODECO_LIBRARY")
    if override:
        return [Path(override)]
    import sysconfig

    folders = [Path(__file__).parents[1], Path(sysconfig.get_path("platlib")) / "autodeco_edge"]
    folders += [Path(p) / "autodeco_edge" for p in sys.path if p.endswith("site-packages")]
    return [folder / name for folder in folders]


def _load() -> ctypes.CDLL:
    import llama_cpp  # noqa: F401  its copy of libllama goes first

    for path in _candidates():
        if path.exists():
            return ctypes.CDLL(str(path))
    raise AutodecoError(
        f"the native library is missing: looked for {_candidates()[0].name} beside the package; "
        "reinstall autodeco-edge (a C compiler and CMake are needed)"
    )


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
        lib.autodeco_log_line.restype = ctypes.c_char_p
        lib.autodeco_log_capture()
        _library = lib
    return _library
