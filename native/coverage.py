"""How much of native/ its tests reach: lines and branches by file, with what is missing.

Builds the library with gcov into build/coverage, runs tests/native on it, and adds up what every object saw (the kernels are
compiled once an instruction set; a line counts when one of them ran it). A line with GCOV_EXCL_LINE, or between GCOV_EXCL_START
and GCOV_EXCL_STOP, is left out, and the reason stands there; GCOV_EXCL_BR_LINE leaves out its branches alone.
Fails where a test does, a line is missing, or a file has less than 95 % of its branches and is not in BELOW.

    python native/coverage.py [--missing] [TESTS ...]
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "coverage"
# Files with less than 95 % of their branches, and the least that they may have: why.
BELOW = {
    "autodeco-kernels.c": (92.0, "blocks are inlined for 1, 2 and 4 rows each: a loop of one turn never goes back"),
    "autodeco-simd.h": (93.0, "inlined into every kernel: a loop over registers ends where the compiler already knows"),
    "autodeco-nucleus.c": (
        94.5,
        "a token is found before the loops over tiles end; guards against rounding that no input meets",
    ),
}
# What reaches the sources and is quick at -O0: of the 10,000 distributions of test_kernels.py one part in ten.
_FILES = [
    "corpus",
    "load_memory",
    "malloc",
    "arguments",
    "overflow",
    "refusals",
    "oracle",
    "batches",
    "rows",
    "filters",
    "sampler",
    "mask",
    "edges",
]
_KERNELS = [
    "test_every_kernel_keeps_and_draws_what_the_reference_does[0]",
    "test_every_kernel_evaluates_the_heads",
    "test_the_entropy_keeps_its_guard",
    "test_hidden_sizes_that_fill_no_vector",
    "test_a_kernel_this_cpu_lacks_falls_back_to_the_baseline",
]
TESTS = [
    *(f"tests/native/test_{name}.py" for name in _FILES),
    *(f"tests/native/test_kernels.py::{name}" for name in _KERNELS),
]


def build() -> Path:
    # Without -fno-inline each copy of a small function would need its branches taken in it (-O3 comes from CMakeLists.txt).
    flags = "--coverage -fno-inline -fprofile-update=prefer-atomic"
    configure = ["cmake", "-S", ROOT, "-B", BUILD, f"-DPython3_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=Debug"]
    subprocess.run([*configure, f"-DCMAKE_C_FLAGS={flags}"], check=True, capture_output=True)
    subprocess.run(["cmake", "--build", BUILD, "--target", "autodeco-bench"], check=True, capture_output=True)
    for old in BUILD.rglob("*.gcda"):
        old.unlink()
    return next(BUILD.rglob("libautodeco.*"))


def run_tests(library: Path, tests: list[str]) -> int:
    env = {**os.environ, "AUTODECO_LIBRARY": str(library)}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], cwd=ROOT, env=env
    ).returncode


def excluded(path: Path) -> tuple[set[int], set[int]]:
    """Numbers of the lines that do not count, and of those whose branches do not."""
    lines, branches, inside = set(), set(), False
    for i, text in enumerate(path.read_text().splitlines(), 1):
        inside = inside or "GCOV_EXCL_START" in text
        if inside or "GCOV_EXCL_LINE" in text:
            lines.add(i)
        if "GCOV_EXCL_BR_LINE" in text:
            branches.add(i)
        inside = inside and "GCOV_EXCL_STOP" not in text
    return lines, branches


def collect() -> dict[str, dict[int, tuple[int, list[int]]]]:
    """{file: {line: (times, [times of each branch])}}, the largest of all objects."""
    seen: dict[str, dict[int, tuple[int, list[int]]]] = defaultdict(dict)
    for data in BUILD.rglob("*.gcda"):
        done = subprocess.run(
            ["gcov", "-b", "--json-format", "--stdout", data], capture_output=True, text=True, cwd=BUILD
        )
        for file in json.loads(done.stdout)["files"]:
            path = Path(file["file"])
            if path.parent.name != "native" or not re.match(r"autodeco.*\.[ch]$", path.name):
                continue
            for line in file["lines"]:
                add(seen[path.name], line)
    return seen


def add(lines: dict[int, tuple[int, list[int]]], line: dict) -> None:
    number, branches = line["line_number"], [b["count"] for b in line["branches"]]
    times, before = lines.get(number, (0, []))
    if len(before) == len(branches):
        branches = [max(a, b) for a, b in zip(before, branches, strict=True)]
    elif len(before) > len(branches):
        branches = before
    lines[number] = (max(times, line["count"]), branches)


def report(seen: dict, show_missing: bool) -> bool:
    """Prints the table. Whether every line is reached, and enough branches of each file."""
    total = [0, 0, 0, 0]
    enough = True
    print(f"{'':24}{'lines':>8}{'':>8}{'branches':>10}")
    for name in sorted(seen):
        no_lines, no_branches = excluded(ROOT / "native" / name)
        lines = {n: v for n, v in seen[name].items() if n not in no_lines}
        branches = [(n, b) for n, (_, many) in lines.items() if n not in no_branches for b in many]
        counts = [sum(t > 0 for t, _ in lines.values()), len(lines), sum(b > 0 for _, b in branches), len(branches)]
        total = [a + b for a, b in zip(total, counts, strict=True)]
        print(f"{name:24}{percent(*counts[:2]):7.1f}%{counts[1]:8}{percent(*counts[2:]):9.1f}%{counts[3]:8}")
        least, why = BELOW.get(name, (95.0, ""))
        enough = enough and percent(*counts[2:]) >= least
        if why:
            print(f"    branches from {least:g} %: {why}")
        if show_missing:
            print("    lines", sorted(n for n, (t, _) in lines.items() if t == 0))
            print("    branches", sorted({n for n, b in branches if b == 0}))
    print(f"{'all':24}{percent(*total[:2]):7.1f}%{total[1]:8}{percent(*total[2:]):9.1f}%{total[3]:8}")
    return enough and total[0] == total[1] and percent(*total[2:]) >= 95.0


def percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0


def main() -> None:
    arguments = [a for a in sys.argv[1:] if a != "--missing"]
    tests = arguments or TESTS
    failed = run_tests(build(), tests)
    sys.exit(0 if report(collect(), "--missing" in sys.argv) and not failed else 1)


if __name__ == "__main__":
    main()
