"""How llama.cpp's threads wait for each other.

Owns the variables that tell the thread pool, and what is said of them. Knows nothing of models.

A model's graph ends every step with a barrier, hundreds a token. OpenMP's threads spin there for milliseconds before
they sleep: where another program has a core, the thread that waits burns the time that the thread it waits for
needs, and two threads become twenty times slower than one. So ours spin for a short while only, which covers the
barriers of a machine that has nothing else to do, and then give the core away.

The pools that llama.cpp may have been built with:

    libgomp   (gcc) reads GOMP_SPINCOUNT when it is loaded, so this module runs before llama_cpp is imported
    libomp    (clang, Intel's libiomp5) reads KMP_BLOCKTIME at the first graph
    vcomp     (MSVC) has no such setting
    own       ggml's threads (macOS, GGML_OPENMP=OFF) spin at barriers without end, whatever they are told

A variable of the user's own stays as it is, and AUTODECO_THREAD_WAIT chooses: short (the default), spin (as llama.cpp
does by itself), sleep (at once), or a number of spins.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ..errors import UsageError

VARIABLE = "AUTODECO_THREAD_WAIT"
SPINS = 500  # of libgomp; docs/decisions/0022-waiting.md has the measurement
# What decides for a pool: the variable that is set here, and others by which a user may have decided.
_VARIABLES = {
    "libgomp": ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"),
    "libomp": ("KMP_BLOCKTIME", "OMP_WAIT_POLICY", "KMP_LIBRARY"),
}
_POOLS = {
    "libgomp": rb"libgomp[-\w]*\.(?:so|dylib)",
    "libomp": rb"lib(?:omp|iomp5|iomp5md|omp140)[-.\w]*\.(?:so|dylib|dll)",
    "vcomp": rb"(?i:vcomp\d*\.dll)",
}
_LOADED = re.compile(rb"/lib(?:gomp|omp|iomp5)\.so")

_ours: dict[str, str] = {}  # what this process has set
_users: dict[str, str] = {}  # what the user had set
_late = False  # OpenMP was in the process before us


def choose(asked: str, pool_name: str, present: Mapping[str, str]) -> dict[str, str]:
    """Variables to set for ``asked`` (AUTODECO_THREAD_WAIT) beside those that are present. Raises UsageError."""
    spins = {"": SPINS, "short": SPINS, "spin": None, "sleep": 0}.get(asked, -1)
    if spins == -1:
        if not (asked.isascii() and asked.isdecimal()) or len(asked) > 9:
            raise UsageError(f"{VARIABLE}: allowed short, spin, sleep or a number of spins; got '{asked}'")
        spins = int(asked)
    variables = _VARIABLES.get(pool_name, ())
    if spins is None or not variables or any(name in present for name in variables):
        return {}
    return {variables[0]: str(spins) if pool_name == "libgomp" else "0"}  # libomp's shortest time, a ms, is too long


def apply() -> None:
    """Set the variable, once, before llama_cpp is imported. A value that cannot be meant counts as none (``doctor``
    says so): an import must not fail on it."""
    global _late
    _late = "llama_cpp" in sys.modules or _openmp_is_loaded()
    variables = _VARIABLES.get(pool(), ())
    _users.update({name: os.environ[name] for name in variables if name in os.environ})
    try:
        _ours.update(choose(os.environ.get(VARIABLE, ""), pool(), os.environ))
    except UsageError:
        _ours.update(choose("", pool(), os.environ))
    os.environ.update(_ours)


def environment(asked: str) -> dict[str, str]:
    """For a child process that is to wait as ``asked``, whatever was chosen here."""
    mine = {name: value for name, value in os.environ.items() if name not in _ours}
    return {**mine, VARIABLE: asked}


@cache
def pool() -> str:
    """Thread pool of the llama.cpp in use: libgomp, libomp, vcomp or own; from the names of what its libraries need."""
    for library in _libraries():
        data = library.read_bytes()
        for name, pattern in _POOLS.items():
            if re.search(pattern, data):
                return name
    return "own"


def _libraries() -> list[Path]:
    """ggml's CPU libraries beside llama_cpp, which is not imported for it."""
    spec = find_spec("llama_cpp")
    folder = os.environ.get("LLAMA_CPP_LIB_PATH") or (spec and spec.origin and Path(spec.origin).parent / "lib")
    return sorted(Path(folder).glob("*ggml-cpu*"))[:1] if folder else []


def describe() -> str:
    """One line for people: the pool, and how its threads wait."""
    name, asked, note = pool(), os.environ.get(VARIABLE, ""), ""
    try:
        choose(asked, name, {})
    except UsageError as error:
        asked, note = "", f" ({error})"
    return f"{name}: {_policy(name, asked)}{note}"


def _policy(name: str, asked: str) -> str:
    if name == "vcomp":
        return "its threads spin for a while and then sleep; not adjustable"
    if name == "own":
        return "ggml's own threads, which spin without end; on a busy machine -t 1 is faster"
    if _users:
        return "threads wait as your environment says: " + ", ".join(f"{k}={v}" for k, v in _users.items())
    if not _ours:
        return f"threads spin, as llama.cpp does by itself ({VARIABLE}={asked})"
    (ours,) = (f"{k}={v}" for k, v in _ours.items())
    if _late and name == "libgomp":
        return f"threads spin: OpenMP was loaded before autodeco_edge; import autodeco_edge first, or set {ours}"
    words = {"": "spin briefly, then sleep", "short": "spin briefly, then sleep", "sleep": "sleep at once"}
    return f"threads {words.get(asked, 'spin as often as asked, then sleep')} ({ours})"


def _openmp_is_loaded(maps: Path = Path("/proc/self/maps")) -> bool:
    try:
        return bool(_LOADED.search(maps.read_bytes()))
    except OSError:  # not Linux: unknown, and said to be in time
        return False
