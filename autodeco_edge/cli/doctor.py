"""`autodeco-edge doctor`: facts about this installation, and a real decode.

Owns the checks and how they are worded. Exits 1 when one of them fails.
"""

from __future__ import annotations

import os
import platform

import typer

from ..io.printing import one_line, put, say


def doctor() -> None:
    """Check the installation: versions, processor, and a 64-token decode of the demo model.

    Example: autodeco-edge doctor
    """
    failures = 0
    for name, check in _CHECKS:
        try:
            put(f"{name:<22} {one_line(check())}")
        except Exception as error:
            failures += 1
            put(f"{name:<22} FAILED: {one_line(error)}")
    if failures:
        say(f"{failures} check(s) failed; reinstall autodeco-edge, or report the lines above")
        raise typer.Exit(1)


def _version() -> str:
    from .. import __version__

    return f"{__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"


_PACKAGES = ("llama-cpp-python", "gguf", "numpy", "huggingface_hub", "matplotlib", "plotext", "torch", "transformers")


def _packages() -> str:
    from importlib.metadata import PackageNotFoundError, version

    def one(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"{name} -"

    return ", ".join(one(n) for n in _PACKAGES)


def _library() -> str:
    from ..engine import library as _lib
    from ..engine import native as _native

    return f"{_lib.library()._name} for llama.cpp {_native.lib.autodeco_llama_version().decode()}"


def _kernels() -> str:
    from ..engine.sampler import kernels, kernels_in_use

    return f"{kernels_in_use()} (this processor runs {', '.join(kernels())})"


def _threads() -> str:
    from ..engine.cpu import physical_cores

    return f"{physical_cores()} (physical performance cores) of {os.cpu_count()} logical ones"


def _waiting() -> str:
    from ..engine.waiting import describe

    return describe()


def _amx() -> str:
    from ..engine.cpu import amx_advertised, amx_fate

    if not amx_advertised():
        return "not advertised"
    fate = amx_fate()
    if fate == "ok":
        return "works"
    why = "the probe could not be finished" if fate == "failed" else f"the probe ended with {fate}"
    return f"advertised, but {why}: repacked weights are switched off"


def _gpu() -> str:
    import llama_cpp

    return "supported, -ngl -1 uses it" if llama_cpp.llama_supports_gpu_offload() else "not in this llama.cpp build"


def _devices() -> str:
    """What llama.cpp can compute on, in its own words."""
    from ..engine.devices import devices

    return ", ".join(devices())


def _memory() -> str:
    from ..engine.memory import free_memory

    free = free_memory()
    return "unknown" if free is None else f"{free / 2**30:.1f} GiB free"


def _folders() -> str:
    from ..hub.cache import hub_cache
    from ..paths import cache_dir
    from .config_file import config_path, state_dir

    return f"cache {cache_dir()}, models {hub_cache()}, history {state_dir()}, settings {config_path()}"


def _demo() -> str:
    from ..engine.engine import Engine
    from ..engine.pairing import demo_model

    with Engine(demo_model(), n_ctx=256) as engine:
        prompt = engine.model.tokenize("one two three four five six seven eight nine ten " * 8)[:64]
        generation = engine.generate(prompt, max_tokens=64, stop_at_end=False)
        steps = list(generation)
        rate = generation.timings.as_dict()["predicted_per_second"]
        mean_t = sum(s.temperature for s in steps) / len(steps)
        return f"{len(steps)} tokens at {rate:.0f}/s, mean T {mean_t:.2f} ({engine.heads.description})"


def _smollm2() -> str:
    """A model to talk to is no must: whether one is here, and how it comes here."""
    from ..errors import MissingInputError
    from ..hub.resolve import find_entry, resolve

    entry, _ = find_entry("smollm2-135m")
    try:
        return str(resolve(entry.name, offline=True, progress=False).model)
    except MissingInputError:
        return f"not here; {entry.how_to_install} or `autodeco-edge pull {entry.name}` brings it"


_CHECKS = (
    ("autodeco-edge", _version),
    ("packages", _packages),
    ("native library", _library),
    ("sampler kernels", _kernels),
    ("threads", _threads),
    ("thread pool", _waiting),
    ("AMX", _amx),
    ("GPU offload", _gpu),
    ("devices", _devices),
    ("memory", _memory),
    ("folders", _folders),
    ("demo model", _demo),
    ("smollm2-135m", _smollm2),
)
