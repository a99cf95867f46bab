"""Kills and races of the commands that write records: what is left is what an undisturbed run leaves, to the byte.

    python -P tests/support/campaign.py kills collect 50
    python -P tests/support/campaign.py races train 50

The tests run a few of each. A kill is SIGKILL at a random moment, half of them while results are being written.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "train" / "demo_replies.jsonl"
TIMEOUT_S = 600
PORTION = 10  # kills or races between two lines
DRAWS = ("-t", "1", "--parallel", "2")


@dataclass(frozen=True)
class Kind:
    """arguments before -o; started: whether a run there has written anything; left: what it leaves, in the end."""

    arguments: tuple[str, ...]
    started: Callable[[Path], bool]
    left: Callable[[Path], dict[str, bytes]]


def _collected(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.parent.glob("*") if path.name.startswith(out.name)}


def _evaluated(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def _trained(out: Path) -> dict[str, bytes]:
    """Without what the clock says, and with the settings that may differ."""
    found = _evaluated(out)
    values = json.loads(found["training.json"])
    for name in ("seconds", "tokens_per_second"):
        del values[name]
    for name in ("output", "resume"):
        del values["settings"][name]
    return found | {"training.json": json.dumps(values, sort_keys=True).encode()}


def _demo_model() -> str:
    from autodeco_edge.engine.pairing import demo_model

    return str(demo_model())


def kinds() -> dict[str, Kind]:
    model = ("-m", _demo_model())
    collect = ("collect", *model, "--problems", "demo", "--count", "12", "-n", "4", "--max-tokens", "80", *DRAWS)
    evaluate = ("eval", *model, "--task", "demo:make", "--count", "6", "--samples", "2", "--seeds", "2", "-n", "80",
                "--methods", "autodeco,mean-shift,default", "--json", *DRAWS)  # fmt: skip
    train = ("train", *model, "--data", str(DATA), "-t", "1", "--max-steps", "30", "--save-every", "2",
             "--eval-every", "4", "--log-every", "0")  # fmt: skip
    return {
        "collect": Kind(collect, lambda out: out.with_name(out.name + ".part").exists(), _collected),
        "eval": Kind(evaluate, lambda out: (out / "calibration.jsonl").exists(), _evaluated),
        "train": Kind(train, lambda out: (out / "training.state").exists(), _trained),
    }


def start(kind: Kind, out: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "autodeco_edge", *kind.arguments, "-o", str(out), *more]
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "PYTHONSAFEPATH": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


def finish(child: subprocess.Popen[str]) -> tuple[int, str]:
    _, errors = child.communicate(timeout=TIMEOUT_S)
    assert "Traceback" not in errors, errors
    return child.returncode, errors


def undisturbed(kind: Kind, folder: Path) -> tuple[dict[str, bytes], float]:
    """(what a run leaves, seconds from its first result to its end)."""
    out = folder / "out.jsonl"
    folder.mkdir(parents=True)
    child = start(kind, out)
    while not kind.started(out) and child.poll() is None:
        time.sleep(0.01)
    clock = time.monotonic()
    code, errors = finish(child)
    assert code == 0, errors
    return kind.left(out), time.monotonic() - clock


def kills(kind: Kind, n: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """``n`` kills, as many runs as they take; each run that ends is compared. {"kills", "runs", "equal"}."""
    rng, done, runs, equal = random.Random(seed), 0, 0, 0
    want, work_s = undisturbed(kind, folder / "whole")
    while done < n or runs == 0:
        out = folder / f"run-{runs}" / "out.jsonl"
        out.parent.mkdir()
        while not _killed(kind, out, rng, work_s, alive=done >= n):
            done += 1
        runs += 1
        equal += kind.left(out) == want
    return {"kills": done, "runs": runs, "equal": equal}


def _killed(kind: Kind, out: Path, rng: random.Random, work_s: float, *, alive: bool) -> bool:
    """One process; True when it came to its end, which ``alive`` lets it."""
    child = start(kind, out, "--resume")
    if not alive:
        while rng.random() < 0.8 and not kind.started(out) and child.poll() is None:
            time.sleep(0.02)
        try:
            child.wait(rng.uniform(0.0, 0.7 * work_s) if kind.started(out) else rng.uniform(0.0, 3.0))
        except subprocess.TimeoutExpired:
            child.kill()
    code, errors = finish(child)
    assert code in (0, -9), (code, errors)
    return code == 0


def races(kind: Kind, n: int, folder: Path, seed: int = 0) -> dict[str, int]:
    """``n`` times two runs on one output. {"races", "busy": a run was turned away, "equal"}."""
    rng, busy, equal = random.Random(seed), 0, 0
    want, _ = undisturbed(kind, folder / "whole")
    for i in range(n):
        out = folder / f"race-{i}" / "out.jsonl"
        out.parent.mkdir()
        children = [start(kind, out, "--resume")]
        time.sleep(rng.choice((0.0, rng.uniform(0.0, 2.0))))
        children.append(start(kind, out, "--resume"))
        ends = [finish(child) for child in children]
        codes = sorted(code for code, _ in ends)
        assert codes in ([0, 75], [0, 0]), ends  # two zeros: the second came when the first was done
        busy += codes[1] == 75
        assert all("in use by" in errors for code, errors in ends if code == 75), (
            ends
        )  # the number may not be there yet
        equal += kind.left(out) == want
    return {"races": n, "busy": busy, "equal": equal}


def main() -> None:
    what, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
    folder = Path(tempfile.mkdtemp())
    try:
        totals: Counter[str] = Counter()
        for seed in range(-(-n // PORTION)):
            totals.update({"kills": kills, "races": races}[what](kinds()[name], PORTION, folder / str(seed), seed))
            print(name, dict(totals), flush=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
