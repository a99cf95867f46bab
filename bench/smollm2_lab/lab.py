"""Everything a stage needs, over a folder of finished work.

Owns the files of state/, and drawing and judging many policies on many problems.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .folder import join_parts, load_problems
from .model import Llama
from .sampler import BUNDLE, Drawn, Job, Policy, Sampler
from .verdicts import CUT, LIMITS, Pool, group_of, limit_of, seed_of


class Lab:
    """Everything a stage needs. Files: state/ of finished stages (JSON, npz, heads), each written whole or not at all."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.folder = options, Path(options.folder)
        self.state = Path(options.out or self.folder / "state")
        self.state.mkdir(parents=True, exist_ok=True)
        sys.path.insert(0, str(self.folder / "source"))
        self.problems, self.vocab = load_problems(self.folder)
        self.pool = Pool(
            self.problems, self.vocab, options.processes, options.dry
        )  # before there is a device: it forks
        torch.backends.cuda.matmul.allow_tf32 = True
        self.device = torch.device(options.device)
        self.start = time.monotonic()
        dtype = torch.bfloat16 if options.dtype == "bf16" else torch.float32
        self.model = Llama.load(join_parts(self.folder), self.device, dtype)
        self.sampler = Sampler(self.model, [row["ids"] for row in self.problems], options.batch)
        self.sampler.cut_is_end = options.dry
        if options.dry:
            LIMITS.update(exact=4, many=4, write=8)
            CUT.clear()
        self.say(f"model and {len(self.problems)} problems loaded; {self.device}, {options.dtype}")

    def say(self, text: str) -> None:
        line = f"[{time.monotonic() - self.start:6.1f} s] {text}"
        print(line, flush=True)
        with (self.state / "log.txt").open("a") as out:
            out.write(line + "\n")

    # ---- files -----------------------------------------------------------------------

    def has(self, name: str) -> bool:
        return (self.state / name).exists()

    def write(self, name: str, value: Any) -> None:
        data = json.dumps(value).encode() if name.endswith(".json") else value
        part = self.state / f"{name}.part"
        part.write_bytes(data)
        os.replace(part, self.state / name)

    def read(self, name: str) -> Any:
        return json.loads((self.state / name).read_text())

    def save_heads(self, name: str, heads: Any, about: dict[str, Any]) -> None:
        buffer = io.BytesIO()
        torch.save({"heads": {k: v.detach().cpu() for k, v in heads.state_dict().items()}, "about": about}, buffer)
        self.write(f"{name}.heads", buffer.getvalue())

    def load_heads(self, name: str) -> Any:
        heads = self.new_heads(0)
        heads.load_state_dict(torch.load(self.state / f"{name}.heads", map_location=self.device)["heads"])
        return heads

    def new_heads(self, seed: int, at: tuple[float, float] | None = None) -> Any:
        """Fresh heads; ``at``: T and P that they give everywhere at first (the last layer's weights are zero)."""
        from autodeco_edge.gguf.keys import FEATURES_ENHANCED, HeadSpec
        from autodeco_edge.train.modules import AutoDecoHeads

        heads = AutoDecoHeads(HeadSpec(self.model.shape.width, self.options.hidden, FEATURES_ENHANCED, True, True))
        heads.reset_parameters(torch.Generator().manual_seed(seed))
        if at:
            with torch.no_grad():
                for head, share in ((heads.temp_head, at[0] / 2), (heads.top_p_head, min(at[1], MOST_P))):
                    head.mlp[2].weight.zero_()
                    head.mlp[2].bias.fill_(math.log(share / (1 - share)))
        return heads.to(self.device)

    # ---- problems ----------------------------------------------------------------------

    def of(self, kind: str, split: str, most: int) -> list[int]:
        rows = [i for i, row in enumerate(self.problems) if row["kind"] == kind and row["split"] == split]
        return rows[: most * self.options.scale_percent // 100 or 1]

    def kinds(self, chosen: bool = True) -> list[str]:
        every = list(dict.fromkeys(row["kind"] for row in self.problems))
        return [k for k in every if k in self.read("chosen.json")["kinds"]] if chosen else every

    def groups(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for kind in self.kinds():
            found[group_of(kind)].append(kind)
        return dict(found)

    # ---- drawing ------------------------------------------------------------------------

    def measure(
        self,
        name: str,
        policies: list[Policy],
        problems: dict[str, list[int]],
        samples: dict[str, int],
        deadline: float,
        at_once: int = 0,
    ) -> None:
        """Draws, judges, and writes NAME-POLICY.npz: of each kind the number of the key of every sample (0: wrong).

        Policies are drawn side by side, a few at a time (as many as have ``at_once`` replies), so that what is done when time
        ends stays.
        """
        at_once = at_once or BUNDLE * self.options.batch
        waiting = [p for p in policies if not self.has(f"{name}-{slug(p.name)}.npz")]
        while waiting and time.monotonic() < deadline:
            bundle: list[Policy] = []
            jobs: list[Job] = []
            while waiting and len(jobs) < at_once:
                jobs += self._jobs(name, len(bundle), waiting[0], problems, samples)
                bundle.append(waiting.pop(0))
            drawn = self.sampler.draw(jobs, bundle)
            keys = self.pool.keys([(job.prompt, drawn.tokens[i], bool(drawn.ended[i])) for i, job in enumerate(jobs)])
            for number, policy in enumerate(bundle):
                rows = [i for i, job in enumerate(jobs) if job.policy == number]
                self._save(
                    f"{name}-{slug(policy.name)}.npz",
                    policy,
                    problems,
                    samples,
                    drawn.only(rows),
                    [keys[i] for i in rows],
                    name == "test",
                )

    def _jobs(
        self, name: str, number: int, policy: Policy, problems: dict[str, list[int]], samples: dict[str, int]
    ) -> list[Job]:
        """Kind by kind, problem by problem, sample by sample; the same seeds for every policy."""
        return [
            Job(row, number, seed_of(name, self.problems[row]["id"], k), limit_of(kind))
            for kind, rows in problems.items()
            for row in rows
            for k in range(1 if policy.temperature == 0 else samples[group_of(kind)])
        ]

    def _save(
        self,
        file: str,
        policy: Policy,
        problems: dict[str, list[int]],
        samples: dict[str, int],
        drawn: Drawn,
        keys: list[str | None],
        keep_tokens: bool,
    ) -> None:
        arrays: dict[str, np.ndarray] = {}
        means, at = {}, 0
        for kind in problems:
            n_rows = len(problems[kind]) * (1 if policy.temperature == 0 else samples[group_of(kind)])
            rows = list(range(at, at + n_rows))
            at += n_rows
            n = len(rows) // len(problems[kind])
            numbers: list[dict[str, int]] = [{} for _ in problems[kind]]
            found = np.zeros((len(problems[kind]), n), np.uint16)
            for place, i in enumerate(rows):
                if keys[i] is not None:
                    seen = numbers[place // n]
                    found[place // n, place % n] = seen.setdefault(keys[i], len(seen) + 1)
            arrays[f"{kind}|keys"] = found
            lengths = np.array([len(drawn.tokens[i]) for i in rows], np.uint16)
            weights = np.maximum(lengths, 1)
            means[kind] = {
                "accuracy": float((found > 0).mean()),
                "t": float(np.average(drawn.mean_t[rows], weights=weights)),
                "p": float(np.average(drawn.mean_p[rows], weights=weights)),
                "log_p": float(np.average(drawn.log_p[rows], weights=weights)),
                "tokens": float(lengths.mean()),
                "ended": float(drawn.ended[rows].mean()),
            }
            if group_of(kind) == "write" and n > 1:
                m = min(n, 16)
                groups = [[drawn.tokens[i] for i in rows[a * n : a * n + m]] for a in range(len(problems[kind]))]
                diverse = self.pool.diversity(groups)
                for measure in ("distinct_1", "distinct_2", "distinct_3", "self_bleu"):
                    arrays[f"{kind}|{measure}"] = np.array([d[measure] for d in diverse], np.float32)
                arrays[f"{kind}|log_p"] = drawn.log_p[rows].reshape(len(groups), n).mean(1)
            if keep_tokens and self.options.keep_tokens:
                few = [i for place, i in enumerate(rows) if place % n < self.options.keep_tokens]
                arrays[f"{kind}|tokens"] = np.concatenate([drawn.tokens[i] for i in few])
                arrays[f"{kind}|lengths"] = np.array([len(drawn.tokens[i]) for i in few], np.uint16)
            arrays[f"{kind}|problems"] = np.array(problems[kind], np.int32)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, about=np.array(json.dumps({"policy": policy.name, "means": means})), **arrays)
        self.write(file, buffer.getvalue())
        text = "  ".join(f"{k.split(',')[0]} {100 * m['accuracy']:.0f}" for k, m in means.items())
        self.say(f"{file}: {text}")


MOST_P = 0.98  # heads that begin at P = 1 would have no slope


def slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in ".-" else "_" for c in name)


def keys_of(file: Path) -> dict[str, np.ndarray]:
    return dict(np.load(file))


def about_of(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return json.loads(str(arrays["about"]))


def coverage(keys: np.ndarray, m: int) -> float:
    """Expected distinct right answers among m of the samples, keys [n] (0: wrong): eval/statistics.distinct_of."""
    n = len(keys)
    counts = np.unique(keys[keys > 0], return_counts=True)[1].astype(float)
    missed = np.ones_like(counts)
    for i in range(min(m, n)):
        missed *= np.maximum(n - counts - i, 0) / (n - i)
    return float((1 - missed).sum())


def parse(name: str) -> tuple[float, float]:
    t, p = name.split("/")
    return float(t), float(p)
