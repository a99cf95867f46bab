"""Whether everything runs on the machine, and how fast."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import torch

from .folder import load_problems
from .model import Llama, Shape
from .reward import step_on_reward
from .sampler import Job, Policy, Sampler, Traces, constant, fresh
from .verdicts import Pool


def smoke(options: argparse.Namespace) -> None:
    """Whether everything runs, and how fast, on random weights of the true shape: the model is only half there yet."""
    folder = Path(options.folder)
    sys.path.insert(0, str(folder / "source"))
    problems, vocab = load_problems(folder)
    pool = Pool(problems, vocab, options.processes)
    some = [(i, np.array([1, 2, 3], np.uint16), True) for i in range(0, len(problems), max(1, len(problems) // 2000))]
    began = time.monotonic()
    pool.keys(some)
    print(f"{len(some)} verdicts in {time.monotonic() - began:.1f} s")
    pool.diversity([[np.arange(50, dtype=np.uint16)] * 4] * 8)
    torch.backends.cuda.matmul.allow_tf32 = True
    device = torch.device(options.device)
    shape = Shape() if options.scale_percent >= 100 else Shape(n_layer=2)
    for dtype in (torch.float32, torch.bfloat16):
        model = Llama.random(shape, device, dtype)
        sampler = Sampler(model, [row["ids"] for row in problems], options.batch)
        for kind, policy in (
            ("constant", constant(1.0)),
            ("nucleus", constant(1.0, 0.9)),
            ("heads", None),
            ("traced", None),
        ):
            heads = fresh(shape.width, options.hidden, device)
            of = policy or Policy("heads", heads=heads)
            jobs = [Job(i % len(problems), 0, i, 24) for i in range(options.batch)]
            for attempt in ("first", "again"):
                began, traces = time.monotonic(), Traces()
                drawn = sampler.draw(jobs, [of], traces=traces if kind == "traced" else None, sigma=0.5)
                seconds = time.monotonic() - began
                memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0
                print(
                    f"{dtype} {kind} {attempt}: {drawn.n_steps / seconds:.0f} tokens/s, {seconds:.2f} s, {memory:.1f} GiB",
                    flush=True,
                )
        if kind == "traced":
            optimizer = torch.optim.AdamW(heads.parameters(), 1e-3)
            step_on_reward(heads, optimizer, traces.joined(), torch.randn(len(jobs), device=device), True, 0.5)
        del model, sampler
