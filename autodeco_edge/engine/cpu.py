"""Facts of this machine's processor that decide how llama.cpp is run.

Owns the default thread count and the AMX probe. Knows nothing of models beyond the demo
model that the probe decodes.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

_PROBE_SECONDS = 30
_FATES = ("ok", "SIGILL")  # verdicts worth remembering


def physical_cores(devices: Path = Path("/sys/devices")) -> int:
    """Physical performance cores this process may run on; SMT siblings count once. At least 1.

    On a hybrid processor the slow cores are left out: every layer ends with a barrier, where all would wait
    for them.
    """
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # macOS, Windows
        return _darwin_performance_cores() or os.cpu_count() or 1
    allowed = allowed & _performance_cpus(allowed, devices) or allowed
    cores = set()
    for cpu in allowed:
        topology = devices / f"system/cpu/cpu{cpu}/topology"
        try:
            cores.add(((topology / "physical_package_id").read_text(), (topology / "core_id").read_text()))
        except OSError:
            return len(allowed)
    return len(cores) or 1


def _performance_cpus(cpus: set[int], devices: Path) -> set[int]:
    """The fast ones: as an Intel hybrid lists them, or those of the largest capacity (Arm); all where all are alike."""
    try:
        return _cpu_list((devices / "cpu_core/cpus").read_text())
    except (OSError, ValueError):
        pass
    try:
        capacity = {cpu: int((devices / f"system/cpu/cpu{cpu}/cpu_capacity").read_text()) for cpu in cpus}
    except (OSError, ValueError):
        return cpus
    fast = max(capacity.values()) * 0.75  # a fastest "prime" core does not make slow ones of its neighbours
    return {cpu for cpu, value in capacity.items() if value >= fast}


def _cpu_list(text: str) -> set[int]:
    """{0, 1, 2, 3, 8} of "0-3,8"."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    return cpus


def _darwin_performance_cores() -> int:
    if sys.platform != "darwin":
        return 0
    out = subprocess.run(["sysctl", "-n", "hw.perflevel0.physicalcpu"], capture_output=True, text=True)
    return int(out.stdout) if out.returncode == 0 and out.stdout.strip().isdigit() else 0


def amx_advertised(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the kernel lists AMX tiles."""
    try:
        return "amx_tile" in cpuinfo.read_text()
    except OSError:
        return False


def cache_dir() -> Path:
    """Folder for what can be made again: AUTODECO_CACHE, else the platform's user cache."""
    if os.environ.get("AUTODECO_CACHE"):
        return Path(os.environ["AUTODECO_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "autodeco-edge"


def extra_buffers_safe() -> bool:
    """Whether llama.cpp may repack weights for special instructions (``use_extra_bufts``).

    Some virtual machines advertise AMX and die with SIGILL at the first tile instruction,
    which a llama.cpp built natively reaches with quantised models and prompts of more than
    a few tokens. Where AMX is advertised, a child process decodes the demo model (Q8_0, 64
    tokens) once, and its fate is remembered for this kernel and library.
    """
    if not amx_advertised():
        return True
    record = cache_dir() / f"amx-{platform.release()}-{_library_version()}"
    try:
        remembered = record.read_text()
    except OSError:
        remembered = ""
    if remembered in _FATES:  # a record cut short says nothing
        return remembered == "ok"
    fate = probe_in_child(_PROBE)
    if fate in _FATES:  # "failed" is another trouble, such as a missing demo model: cautious now, asked again later
        _remember(record, fate)
    return fate == "ok"


def _remember(record: Path, fate: str) -> None:
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(fate)
    except OSError:
        pass  # an unwritable cache costs a probe each time, nothing else


def probe_in_child(code: str) -> str:
    """What becomes of a fresh interpreter that runs ``code``: "ok", "SIGILL" or "failed"."""
    try:
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=_PROBE_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return "failed"
    if child.returncode == 0:
        return "ok"
    return "SIGILL" if child.returncode == -signal.SIGILL else "failed"


def _library_version() -> str:
    from importlib.metadata import version

    return version("llama-cpp-python")


_PROBE = """
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.pairing import demo_model
engine = Engine(demo_model(), heads=None, n_ctx=128, extra_buffers=True)
engine.prefill(list(range(64)))
"""
