"""What heads cost by prompt length, as the paper's Table 3: `python -P bench/smollm2_efficiency.py --lengths 1024,2048`.

Work is reckoned from the shapes in the files (two operations a weight and token; attention over all that came before). Memory
and time are measured, in a process of its own for each length, way and round: the largest resident memory, seconds to read the
prompt, seconds of a token behind it. Ways take turns. The prompt is the project's documentation. Lengths are measured on a
quiet machine; what a file has of other lengths stays in it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from math import prod
from pathlib import Path
from statistics import median

WAYS = ("1/1", "heads")
ROOT = Path(__file__).resolve().parent.parent


# ---- reckoned -------------------------------------------------------------------------


def operations(model: Path, heads: Path) -> dict[str, float]:
    """Floating-point operations of one token: base without attention, attention a token before it, heads."""
    from autodeco_edge.gguf.reader import GGUFFile

    with GGUFFile(model) as file:
        layers = sum(prod(t.shape) for name, t in file.tensors.items() if name.startswith("blk.") and len(t.shape) == 2)
        n_embd, n_vocab = file.tensors["token_embd.weight"].shape  # the output matrix too
        n_layer = file.u32("llama.block_count")
    with GGUFFile(heads) as file:
        weights = sum(prod(t.shape) for t in file.tensors.values())
    # T's softmax, its entropy, variance and largest five, the cut: about eight operations an entry of the vocabulary
    return {
        "base": 2.0 * (layers + n_embd * n_vocab),
        "attention": 4.0 * n_layer * n_embd,
        "heads": 2.0 * weights + 8.0 * n_vocab,
    }


# ---- measured -------------------------------------------------------------------------


def once(model: Path, heads: Path | None, n_prompt: int, n_tokens: int, n_threads: int) -> dict[str, float]:
    """In a process of its own."""
    from autodeco_edge.engine.engine import Engine
    from autodeco_edge.engine.sampler import SamplingParams

    with Engine(model, heads, n_ctx=n_prompt + n_tokens + 1, n_threads=n_threads) as engine:
        words = "\n".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "docs").glob("*.md")))
        prompt = engine.model.tokenize(words[: 8 * n_prompt])[:n_prompt]
        assert len(prompt) == n_prompt
        reply = engine.generate(prompt, SamplingParams(seed=1), max_tokens=n_tokens, stop_at_end=False, spelt=False)
        start, at = time.perf_counter(), []
        for _ in reply:
            at.append(time.perf_counter())
    return {
        "prompt_s": at[0] - start,
        "token_ms": 1e3 * (at[-1] - at[0]) / (len(at) - 1),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def measured(options: argparse.Namespace, n_prompt: int) -> dict[str, dict]:
    """way -> medians over the rounds, and all of them."""
    rounds: dict[str, list[dict]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            command = [sys.executable, "-P", __file__, "--once", way, "--lengths", str(n_prompt)]
            command += ["--tokens", str(options.tokens), "--threads", str(options.threads)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
            rounds[way].append(json.loads(done.stdout.splitlines()[-1]))
    return {way: {k: median(r[k] for r in of) for k in of[0]} | {"rounds": of} for way, of in rounds.items()}


def main() -> None:
    from autodeco_edge.hub import resolve

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lengths", default="1024,2048,4096,8000", help="tokens of the prompt")
    parser.add_argument("--tokens", type=int, default=64, help="behind it")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--once", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/smollm2-efficiency.json"))
    options = parser.parse_args()
    found = resolve("smollm2-135m", offline=True)
    lengths = [int(n) for n in options.lengths.split(",")]
    if options.once:
        heads = found.heads if options.once == "heads" else None
        print(json.dumps(once(found.model, heads, lengths[0], options.tokens, options.threads)))
        return
    from autodeco_edge.bench.machine import describe_machine

    before = json.loads(options.output.read_text())["lengths"] if options.output.exists() else {}
    result = {"operations": operations(found.model, found.heads), "tokens": options.tokens, "threads": options.threads}
    result |= {"machine": describe_machine(), "lengths": before}
    for n in lengths:
        result["lengths"][str(n)] = measured(options, n)
        options.output.write_text(json.dumps(result, indent=1) + "\n")
        print(
            n,
            json.dumps(
                {way: {k: v for k, v in of.items() if k != "rounds"} for way, of in result["lengths"][str(n)].items()}
            ),
        )


if __name__ == "__main__":
    main()
