"""Facts of this machine's processor that decide how llama.cpp is run.

Owns the default thread count and the AMX probe with its verdict. Knows nothing of models beyond the demo
model that the probe decodes.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

from ..io.digest import fingerprint
from ..io.interpreter import interpreter
from ..paths import cache_dir

_PROBE_SECONDS = 30
# Verdicts worth remembering. A virtual machine may hand the trap on as any of these; SIGKILL is the lack of memory.
_FATES = ("ok", "SIGILL", "SIGSEGV", "SIGBUS", "SIGTRAP", "SIGFPE")
_SIGNALS = {s.value for s in signal.Signals}


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


def processors() -> int:
    """Logical ones that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    """Whether the kernel lists AMX tiles, or a trap is simulated."""
    return bool(_simulated_trap()) or "amx_tile" in _read(cpuinfo)


def extra_buffers_safe() -> bool:
    """Whether llama.cpp may repack weights for special instructions (``use_extra_bufts``).

    Some virtual machines advertise AMX and die with a signal at the first tile instruction, which a llama.cpp
    built natively reaches with quantised models and prompts of more than a few tokens. Where AMX is
    advertised, a child process decodes the demo model (Q8_0, 64 tokens) once, and its fate is remembered for
    this processor, kernel and library. Never raises.
    """
    return not amx_advertised() or amx_fate() == "ok"


def amx_fate() -> str:
    """What became of the probe: "ok", the name of the signal that ended it, or "failed": another trouble, such as
    a missing demo model or a child that did not end in time. Then one is careful now and asks again the next time.
    """
    record = _record()
    remembered = _read(record) if record else ""
    if remembered in _FATES:  # a record cut short says nothing
        return remembered
    fate = probe_in_child(_PROBE)
    if record and fate in _FATES:
        _remember(record, fate)
    return fate


def _record(cpuinfo: Path = Path("/proc/cpuinfo")) -> Path | None:
    """Where the verdict is kept, named for all that it depends on; None where this user has no folder.

    A home folder may be shared by several machines, and a container may move: the processor is part of the name.
    """
    this = _read(cpuinfo).split("\n\n")[0].splitlines()
    facts = [line for line in this if line.startswith(("model name", "stepping", "microcode", "flags"))]
    facts += [platform.release(), _library_version(), _simulated_trap()]
    try:
        return cache_dir() / f"amx-{fingerprint(chr(10).join(facts))}"
    except RuntimeError:  # a user without a home folder
        return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _remember(record: Path, fate: str) -> None:
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(fate)
    except OSError:
        pass  # an unwritable cache costs a probe each time, nothing else


def probe_in_child(code: str) -> str:
    """What becomes of a fresh interpreter that uses AMX by ``code``; as ``fate_in_child``."""
    if _simulated_trap():
        code = f"import os, signal; os.kill(os.getpid(), signal.{_simulated_trap()})"
    return fate_in_child(code)


def fate_in_child(code: str) -> str:
    """What becomes of a fresh interpreter that runs ``code``: "ok", a signal of _FATES or "failed"."""
    try:
        child = subprocess.run(
            interpreter("-c", _NO_CORE + code),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=_PROBE_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "failed"
    if child.returncode == 0:
        return "ok"
    fate = signal.Signals(-child.returncode).name if -child.returncode in _SIGNALS else "failed"
    return fate if fate in _FATES else "failed"


def _simulated_trap() -> str:
    """The signal that AUTODECO_SIMULATE_AMX_TRAP asks for: "" where it is not set, SIGSEGV by name, else SIGILL.

    This machine then counts as one that advertises AMX and dies of it. For tests: the guard in
    tests/support/amx_trap.c ends each process that loads a model with the repacked weights all the same.
    """
    asked = os.environ.get("AUTODECO_SIMULATE_AMX_TRAP", "")
    if asked in ("", "0"):
        return ""
    return asked if asked in _FATES[1:] else "SIGILL"


def _library_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("llama-cpp-python")
    except PackageNotFoundError:  # put there by hand
        return "unknown"


# The child's death is expected: it leaves no core file.
_NO_CORE = "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n" if os.name == "posix" else ""

_PROBE = """
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.pairing import demo_model
engine = Engine(demo_model(), heads=None, n_ctx=128, extra_buffers=True)
engine.prefill(list(range(64)))
"""
