"""bench/serve.py measures what it says, against a second server that stands in for llama-server: one of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")
pytest.importorskip("httpx", reason="httpx is not installed")

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "autodeco_edge" / "assets" / "autodeco-demo-q8_0.gguf"
STAND_IN = """#!{python}
import sys
from autodeco_edge.cli import main
words = [word for word in sys.argv[1:] if word != "--no-warmup"]
given = dict(zip(words[::2], words[1::2]))
slots = int(given["--parallel"])
assert given["-b"] == given["-ub"] == "512" and "--no-warmup" in sys.argv
sys.argv[1:] = ["serve", "--port", given["--port"], "-c", str(int(given["-c"]) // slots), "--parallel", str(slots), "-t", "1",
                "--no-heads", "-m", given["-m"]]
main()
"""


def test_one_command_gives_all_figures(tmp_path):
    other = tmp_path / "llama-server"
    other.write_text(STAND_IN.format(python=sys.executable))
    other.chmod(0o755)
    out = tmp_path / "serve.json"
    command = [sys.executable, "-P", str(ROOT / "bench" / "serve.py"), "-m", str(MODEL), "--llama-server", str(other)]
    few = [
        "--rounds",
        "1",
        "--chats",
        "2",
        "--tokens",
        "8",
        "--clients",
        "2",
        "--slots",
        "2",
        "--threads",
        "1",
        "--context",
        "128",
    ]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run([*command, *few, "--out", out], capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert json.loads(done.stdout) == found
    for clients, n in (("1 clients", 2), ("2 clients", 4)):
        for server in ("autodeco", "llama"):
            assert 0 < found[clients][server]["tokens"] <= 8 * n
            assert found[clients][server]["tokens_per_s"] > 0 and found[clients][server]["first_token_s"] > 0
    assert len(found["ratios"]) == 5
    many = found["2 clients"]
    ratio = many["autodeco"]["tokens_per_s"] / many["llama"]["tokens_per_s"]
    assert abs(found["ratios"]["throughput, ours / llama-server"] - ratio) < 1e-3


def test_a_server_that_does_not_start_is_said(tmp_path):
    command = [sys.executable, "-P", str(ROOT / "bench" / "serve.py"), "-m", str(MODEL), "--llama-server", "/bin/false"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "/bin/false did not start" in done.stderr
