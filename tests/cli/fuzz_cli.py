"""Random command lines: every command, with options and files that nobody sane would give.

    python tests/cli/fuzz_cli.py [--count 2000] [--seed 1] [--torch] [--show]

Each runs in a forked child that has the heavy modules already, in a folder of its own, with streams that may be closed
or full. Said is how they ended; a finding is a code that docs/cli.md does not list, a signal, a traceback, an
"internal error", an escape code on stderr, an input that is gone, more than 5 s of processor (bench loss aside) or 60 s in all. Exits 1 with one.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT))

from autodeco_edge.cli.settings import PATHS  # noqa: E402
from tests.support import hostile, warm  # noqa: E402

CODES = {0, 2, 65, 66, 71, 73, 74, 75, 130}
MAX_CPU_S, MAX_WALL_S = 5.0, 60.0
RAW = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]")
SMALL = {
    "run": ["-n", "2", "-t", "1"],
    "collect": [
        "-n",
        "1",
        "--count",
        "2",
        "--max-tokens",
        "2",
        "--retries",
        "0",
        "--timeout",
        "1",
        "-t",
        "1",
        "--limit",
        "2",
    ],
    "train": [
        "--max-steps",
        "1",
        "--max-length",
        "16",
        "--batch-size",
        "1",
        "--accumulation",
        "1",
        "-n",
        "2",
        "--samples",
        "2",
        "--problems-per-step",
        "1",
    ],
    "fit": ["--minutes", "0.01", "--max-tokens", "2", "-t", "1", "--parallel", "2"],
    "eval": [
        "--samples",
        "1",
        "--seeds",
        "1",
        "--count",
        "2",
        "-n",
        "2",
        "-t",
        "1",
        "--expert-samples",
        "1",
        "--limit",
        "2",
    ],
    "eval steering": ["--samples", "1", "--count", "2", "-n", "2", "-t", "1"],
    "eval drift": ["--limit", "1", "--max-length", "16", "-t", "1"],
    "bench step": ["--rounds", "1", "--n-vocab", "500", "--n-embd", "32"],
    "bench decode": ["--rounds", "1", "--tokens", "2", "--prompt-tokens", "4", "-t", "1"],
    "bench loss": ["--rounds", "1", "--n-vocab", "100", "--n-tokens", "2"],
}  # first, so that what is drawn wins
RARE = {"doctor": 0.03, "bench loss": 0.2, "train": 0.4}  # slow to start, or needs torch
FEW = (-5, -2, -1, 0, 1, 2, 3, 2**31, 2**63, -(2**63) - 1, 10**30)  # no number that would be a real day's work
NUMBERS = ("nan", "inf", "-inf", "1e999", "-1", "0", "0.5", "1", "2", "1e-320", "-0.0", "1e30", "x", "")


@dataclass
class Case:
    words: list[str]
    stdin: str  # null, closed, or a text
    stdout: str  # file, closed, full or unwritable
    config: bytes
    variables: dict[str, str] = field(default_factory=dict)


@dataclass
class Ended:
    code: int
    cpu_s: float
    wall_s: float
    stderr: bytes
    gone: list[str]

    def findings(self, case: Case) -> list[str]:
        found = []
        if self.code not in CODES and not (self.code == 1 and case.words[0] in ("doctor", "collect", "fit")):
            found.append(f"code {self.code}")
        for word in (b"Traceback", b"internal error", b"Exception ignored", b"GGML_ASSERT", b"terminate called"):
            if word in self.stderr:
                found.append(word.decode())
        if RAW.search(self.stderr):
            found.append("raw control characters")
        heavy = case.words[:2] == ["bench", "loss"]  # starts interpreters of its own, each with torch
        if (self.cpu_s > MAX_CPU_S and not heavy) or self.wall_s > MAX_WALL_S:
            found.append(f"{self.cpu_s:.1f} s of processor, {self.wall_s:.1f} s")
        return found + [f"gone: {name}" for name in self.gone]


# ---- command lines ----------------------------------------------------------------------------


def commands() -> dict[str, list]:
    """Name to parameters, of everything that can be called."""
    from typer.main import get_command

    from autodeco_edge.cli import app

    found: dict[str, list] = {}

    def walk(command, name: str) -> None:
        for key, child in getattr(command, "commands", {}).items():
            walk(child, f"{name} {key}".strip())
        if name and (not hasattr(command, "commands") or name == "eval"):
            found[name] = list(command.params)

    walk(get_command(app), "")
    return found


def draw(rng: random.Random, known: dict[str, list], files: list[str], models: dict[str, str]) -> Case:
    name = rng.choices(list(known), [RARE.get(n, 4.0 if n == "run" else 1.0) for n in known])[0]
    words = [*name.split(), *SMALL.get(name, [])]
    if rng.random() < 0.8:
        words += _sound(rng, known[name], models)
    for parameter in rng.sample(known[name], min(rng.choice((0, 1, 1, 2, 3)), len(known[name]))):
        words += _option(rng, parameter, files)
    words += _arguments(rng, known[name], files)
    if rng.random() < 0.03:
        rng.shuffle(words)
    words = [word for word in words if "\0" not in word]
    stdin = rng.choices(("null", "closed", "text", "größer\r\n", "\udcff"), (6, 1, 1, 1, 1))[0]
    stdout = rng.choices(("file", "closed", "full", "unwritable"), (12, 1, 1, 1))[0]
    config = rng.choice(hostile.CONFIGS) if rng.random() < 0.15 else b""
    variables = {}
    if rng.random() < 0.1:
        variables[f"AUTODECO_{rng.choice(('TEMP', 'STOP', 'SEED', 'TRACE', 'CTX_SIZE', 'HEADS', 'PRESET'))}"] = (
            rng.choice(hostile.TEXTS)
        )
    return Case(words, stdin, stdout, config, variables)


def _sound(rng: random.Random, parameters: list, models: dict[str, str]) -> list[str]:
    """A model and heads that are right, so that what follows is reached."""
    names = {p.name: max(p.opts, key=len) for p in parameters if p.opts[0].startswith("-")}
    sound = [word for name, path in models.items() if name in names for word in (names[name], path)]
    return sound if "output" not in names else [*sound, names["output"], "out"]


def _arguments(rng: random.Random, parameters: list, files: list[str]) -> list[str]:
    """As many words as the command takes, now and then one more or less."""
    takes = [p for p in parameters if not p.opts[0].startswith("-")]
    n = sum(rng.choice((1, 1, 1, 2)) if p.nargs == -1 else 1 for p in takes) + rng.choices((-1, 0, 1), (1, 16, 1))[0]
    paths = any(p.name in PATHS for p in takes)
    return [rng.choice(files if paths and rng.random() < 0.8 else hostile.TEXTS) for _ in range(n)]


def _option(rng: random.Random, parameter, files: list[str]) -> list[str]:
    pool = [*hostile.TEXTS, *files, *files, *NUMBERS, *map(str, FEW), *map(str, FEW)]
    if not parameter.opts[0].startswith("-"):
        return [rng.choice(pool)]
    flag = rng.choice([*parameter.opts, *parameter.secondary_opts])
    if getattr(parameter, "is_flag", False):
        return [flag]
    if parameter.name in PATHS and rng.random() < 0.8:
        pool = files
    elif isinstance(parameter.default, int | float) and rng.random() < 0.8:
        pool = [*NUMBERS, *map(str, FEW)]
    value = rng.choice(pool)
    return [f"{flag}={value}"] if rng.random() < 0.3 and flag.startswith("--") else [flag, value]


# ---- one of them ------------------------------------------------------------------------------


def run(case: Case, scratch: Path, kept: dict[str, tuple]) -> Ended:
    home = scratch / "home"
    shutil.rmtree(scratch / "work", ignore_errors=True)
    shutil.rmtree(home, ignore_errors=True)
    (scratch / "work").mkdir()
    (home / "autodeco-edge").mkdir(parents=True)
    if case.config:
        (home / "autodeco-edge" / "config.toml").write_bytes(case.config)
    start = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(case, scratch, home)
    code, cpu_s = _wait(pid, start)
    gone = [path for path, state in kept.items() if _state(path) != state]
    return Ended(code, cpu_s, time.monotonic() - start, (scratch / "stderr").read_bytes(), gone)


def _child(case: Case, scratch: Path, home: Path) -> None:
    code = 1
    try:
        os.setsid()
        os.chdir(scratch / "work")
        os.environ.update(
            {"XDG_CONFIG_HOME": str(home), "XDG_STATE_HOME": str(home), "XDG_CACHE_HOME": str(scratch / "cache")},
            HOME=str(home), HF_HOME=str(scratch / "hf"), HF_HUB_OFFLINE="1", HF_ENDPOINT="http://127.0.0.1:9",
            OMP_NUM_THREADS="1", MPLCONFIGDIR=str(scratch / "cache"),
        )  # fmt: skip
        with contextlib.suppress(UnicodeEncodeError):  # half a character cannot be in an environment
            os.environ.update(case.variables)
        resource.setrlimit(resource.RLIMIT_CPU, (20, 25))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**28, 2**28))
        _streams(case, scratch)
        sys.argv = ["autodeco-edge", *case.words]
        from autodeco_edge.cli import main

        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    except BaseException:
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _streams(case: Case, scratch: Path) -> None:
    """The three descriptors as case says, and Python's objects on them as at its start: none where one is closed."""
    new = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    err = os.open(scratch / "stderr", new)
    if case.stdin not in ("null", "closed"):
        (scratch / "stdin").write_bytes(case.stdin.encode("utf-8", "surrogateescape"))
    source = {"null": os.devnull, "closed": os.devnull}.get(case.stdin, scratch / "stdin")
    target, flags = {
        "full": ("/dev/full", os.O_WRONLY), "unwritable": (os.devnull, os.O_RDONLY)
    }.get(case.stdout, (scratch / "stdout", new))  # fmt: skip
    os.dup2(os.open(source, os.O_RDONLY), 0)
    os.dup2(os.open(target, flags), 1)
    os.dup2(err, 2)
    os.closerange(3, 64)
    sys.stdin = None if case.stdin == "closed" else open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = None if case.stdout == "closed" else open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    for fd, how in ((0, case.stdin), (1, case.stdout)):
        if how == "closed":
            os.close(fd)


def _wait(pid: int, start: float) -> tuple[int, float]:
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() - start > MAX_WALL_S:
            os.kill(pid, signal.SIGKILL)
            _, status, usage = os.wait4(pid, 0)
            break
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def _state(path: str) -> tuple:
    try:
        stat = os.stat(path)
        return stat.st_size, stat.st_mtime_ns, stat.st_ino
    except OSError:
        return ()


# ---- all of them ------------------------------------------------------------------------------


def campaign(count: int, seed: int, scratch: Path, with_torch: bool, show: bool = False) -> dict:
    rng = random.Random(seed)
    files = hostile.make(scratch / "files")
    sound = {"model": "letters.gguf", "heads": "letters-heads.gguf", "problems": "problems.jsonl", "data": "data.jsonl"}
    sound |= {"task": "problems.jsonl", "base": "letters.gguf"}
    models = {name: str(scratch / "files" / file) for name, file in sound.items()}
    models["variant"] = f"a={models['model']},{models['heads']}"
    kept = {path: _state(path) for path in files if path.endswith((".gguf", ".gbnf", ".jinja", ".safetensors"))}
    known = commands()
    if not with_torch:
        known = {name: p for name, p in known.items() if name not in ("train", "bench loss")}
    preload(with_torch)
    codes: collections.Counter = collections.Counter()
    findings, slowest = [], (0.0, [])
    for number in range(count):
        case = draw(rng, known, files, models)
        ended = run(case, scratch, kept)
        codes[ended.code] += 1
        slowest = max(slowest, (round(ended.wall_s, 2), case.words))
        if found := ended.findings(case):
            findings.append({"number": number, "found": found, **asdict(case), "config": repr(case.config)})
            findings[-1]["stderr"] = ended.stderr[-600:].decode("utf-8", "backslashreplace")
        if show and (found or number % 100 == 99):
            print(number, found or dict(codes), case.words if found else "", file=sys.stderr, flush=True)
            if found:
                print("   ", findings[-1]["stderr"].replace("\n", "\n    "), file=sys.stderr)
    return {"count": count, "codes": dict(sorted(codes.items())), "slowest": slowest, "findings": findings}


def preload(with_torch: bool) -> None:
    """What every child would import again. None of it starts a thread."""
    for name in warm.COMMANDS:
        warm.load(name)
    with contextlib.suppress(ImportError):
        import matplotlib.figure  # noqa: F401
    if with_torch:
        import autodeco_edge.train.reinforce  # noqa: F401


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--torch", action="store_true")
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-cli-") as scratch:
        report = campaign(args.count, args.seed, Path(scratch), args.torch, args.show)
    print(json.dumps(report, indent=1))
    return 1 if report["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
