"""Where a reply should end: texts that were not allowed to end, and at each place what ending there would be worth.

Owns the paths and their objective. Open writing mostly fails because a reply does not end within its limit. Whether it ends
is one draw a place, whose chance is known, and the verifier can be asked about every prefix: so the expectation over all
places of one path is a sum, where replies that are drawn to their end give one outcome each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autodeco_edge.train.pressed import Pressed

from .lab import Lab
from .replay import ROWS, log_probability
from .sampler import EOS, Job, Policy, Traces
from .verdicts import limit_of, seed_of


@dataclass
class Paths:
    """Texts [N] and their places [M] in order: path [M] the text, fine [M] whether it is well formed if it ends here, hidden [M, H]
    half, and the pressed distribution with the end as its token; t, z [M]: T and logit of P of the heads that drew it."""

    path: Tensor
    fine: Tensor
    hidden: Tensor
    values: Tensor
    log_n: Tensor
    rank: Tensor
    token: Tensor
    t: Tensor
    z: Tensor

    def pressed(self, rows: Tensor) -> Pressed:
        return Pressed(self.values[rows].float(), self.log_n[rows].float(), self.rank[rows], self.token[rows])

    def state(self) -> dict[str, Tensor]:
        return {f.name: getattr(self, f.name) for f in fields(self)}


def collect_paths(lab: Lab, name: str, policy: Policy, rows: Sequence[int], samples: int) -> Paths:
    """So many texts of each problem, drawn with heads without the end token."""
    jobs = [Job(r, 0, seed_of(name, r, k), limit_of(lab.problems[r]["kind"])) for r in rows for k in range(samples)]
    traces = Traces()
    lab.sampler.endless = True
    try:
        drawn = lab.sampler.draw(jobs, [policy], traces=traces)
    finally:
        lab.sampler.endless = False
    found = traces.joined()
    order = torch.argsort(found["row"], stable=True)
    hidden, path = found["hidden"][order], found["row"][order]
    end = torch.full((ROWS,), EOS)
    pressed = Pressed.joined(Pressed.of(lab.model.logits(h), end[: len(h)]) for h in hidden.split(ROWS))
    asked = [
        (job.prompt, np.append(drawn.tokens[i][:n], EOS).astype(np.uint16), True)
        for i, job in enumerate(jobs)
        for n in range(len(drawn.tokens[i]))
    ]
    fine = torch.tensor([key is not None for key in lab.pool.keys(asked)])
    lab.say(f"{name}: {len(jobs)} texts, {len(path)} places, fine {float(fine.float().mean()):.3f}")
    whole = vars(pressed) | {"values": pressed.values.half(), "log_n": pressed.log_n.half()}
    t, z = _own(policy.heads, hidden, Pressed(**whole), lab.model.shape.vocab)
    return Paths(path=path, fine=fine, hidden=hidden.half(), t=t, z=z, **whole)


@torch.no_grad()
def _own(heads: Any, hidden: Tensor, pressed: Pressed, n_vocab: int) -> tuple[Tensor, Tensor]:
    parts = []
    for rows in torch.arange(len(hidden)).split(8192):
        part = Pressed(
            pressed.values[rows].float(), pressed.log_n[rows].float(), pressed.rank[rows], pressed.token[rows]
        )
        _, t, p = log_probability(heads, hidden[rows], part, 1.0, n_vocab)
        parts.append((t, torch.logit(p.clamp(1e-6, 1 - 1e-6))))
    return torch.cat([t for t, _ in parts]), torch.cat([z for _, z in parts])


def ends_well(log_end: Tensor, fine: Tensor) -> Tensor:
    """The chance that a text ends, and where it is well formed: sum over its places [n] of (not ended before) * (ends here) * fine."""
    going = torch.log1p(-log_end.exp().clamp(max=1 - 1e-6))
    before = torch.cat([torch.zeros_like(going[:1]), going.cumsum(0)[:-1]])
    return ((before + log_end).exp() * fine).sum()


class Texts:
    """The paths of a group. Places of a text lie together."""

    def __init__(self, paths: Paths, n_vocab: int) -> None:
        self.paths, self.n_vocab = paths, n_vocab
        self.starts = torch.searchsorted(paths.path, torch.arange(int(paths.path.max()) + 2))

    def __len__(self) -> int:
        return len(self.starts) - 1

    def objective(self, heads: Any, chosen: Sequence[int], sigma: float) -> tuple[Tensor, Tensor, dict[str, float]]:
        """(sum of ends_well over the chosen texts, mean square by which T and z_P have left those that drew them, figures)."""
        paths, starts = self.paths, self.starts
        rows = torch.cat([torch.arange(int(starts[i]), int(starts[i + 1])) for i in chosen])
        log_end, t, p = log_probability(heads, paths.hidden[rows].float(), paths.pressed(rows), sigma, self.n_vocab)
        sizes = [int(starts[i + 1] - starts[i]) for i in chosen]
        each = zip(log_end.split(sizes), paths.fine[rows].split(sizes), strict=True)
        ends = torch.stack([ends_well(of, fine) for of, fine in each])
        z = torch.logit(p.clamp(1e-6, 1 - 1e-6))
        left = ((t - paths.t[rows]).square() + 0.25 * (z - paths.z[rows]).square()).mean()
        figures = {"right": ends, "t": t, "p": p, "left": left}
        return ends.sum(), left, {name: float(value.detach().mean()) for name, value in figures.items()}
