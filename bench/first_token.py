"""Seconds from the command to the first token of its reply, and how far T moves in it: `python -P bench/first_token.py`.

The whole command counts, the start of Python and the loading of the model included. Measure on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path


def reply(command: list[str]) -> tuple[float, list[float]]:
    """(seconds, T of every token)."""
    start = time.monotonic()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        seconds = time.monotonic() - start
        rows = [json.loads(line) for line in (first, *process.stdout)]
    return seconds, [row["temperature"] for row in rows if row.get("temperature") is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompt", default="Tell me about the sea")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/smollm2-first-token.json"))
    options = parser.parse_args()
    command = ["autodeco-edge", "run", options.model, options.prompt, "--jsonl", "-n", str(options.tokens), "--seed"]
    found = [reply([*command, str(seed)]) for seed in range(1, options.seeds + 1)]
    seconds = [s for s, _ in found]
    result = {
        "command": " ".join([*command[:3], f'"{options.prompt}"', *command[4:-1]]),
        "load": os.getloadavg()[0],
        "cores": os.cpu_count(),
        "first_token_s": {"median": statistics.median(seconds), "largest": max(seconds)},
        "t_spread": [round(max(t) - min(t), 3) for _, t in found],
        "tokens": [len(t) for _, t in found],
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
