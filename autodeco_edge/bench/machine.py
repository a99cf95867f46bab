"""What the figures were taken on: processor, cores, instruction sets, versions.

Owns which facts are worth printing beside a benchmark. No host names and no paths: results are published.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from ..engine.sampler import kernels_in_use

_CPUINFO = Path("/proc/cpuinfo")
_FLAGS = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "amx_tile",
          "asimd", "asimdhp", "asimddp", "i8mm", "sve")  # fmt: skip


def describe_machine() -> dict:
    """JSON-ready facts."""
    from ..engine.cpu import physical_cores

    info = _cpuinfo()
    flags = set((info.get("flags") or info.get("Features") or "").split())
    return {
        "cpu": info.get("model name") or platform.processor() or platform.machine(),
        "logical_cores": os.cpu_count(),
        "physical_cores": physical_cores(),
        "flags": [flag for flag in _FLAGS if flag in flags],
        "kernels": kernels_in_use(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": _versions(),
    }


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines; {} where there are none."""
    try:
        lines = _CPUINFO.read_text().split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from .. import __version__
    from ..engine import native as _native
    from . import _native as bench

    return {
        "autodeco-edge": __version__,
        "llama.cpp": _native.lib.autodeco_llama_version().decode(),
        "ggml": bench.lib.ggml_version().decode(),
        "llama-cpp-python": version("llama-cpp-python"),
        "python": platform.python_version(),
    }


def one_line(machine: dict) -> str:
    """For people."""
    versions = machine["versions"]
    return (
        f"{machine['cpu']}, {machine['physical_cores']} cores, {machine['kernels']} kernels, llama.cpp {versions['llama.cpp']}, "
        f"ggml {versions['ggml']}, autodeco-edge {versions['autodeco-edge']}"
    )
