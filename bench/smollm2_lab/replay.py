"""Replies drawn once in the lab, in the form in which autodeco_edge/train/replay.py weighs them.

Owns the drawing and the judging. Replies come from constants that leave no token out, and from earlier heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from autodeco_edge.train import replay
from autodeco_edge.train.pressed import Pressed
from autodeco_edge.train.replay import Replies, log_chances, log_mean, log_probability

from .lab import Lab
from .sampler import Job, Policy, Traces
from .verdicts import limit_of, seed_of

ROWS = 256  # positions whose logits exist at once


def collect(
    lab: Lab, name: str, policies: Sequence[tuple[Policy, float]], rows: Sequence[int], samples: int
) -> Replies:
    """Of each policy (and the noise on its z_P) so many replies to every problem."""
    found = [_drawn(lab, name, number, *of, rows, samples) for number, of in enumerate(policies)]
    whole = Replies.joined([replies for replies, _ in found])
    whole.key = replay.numbered(whole.problem.tolist(), [key for _, keys in found for key in keys])
    return whole.by_problem()


def _drawn(
    lab: Lab, name: str, number: int, policy: Policy, sigma: float, rows: Sequence[int], samples: int
) -> tuple[Replies, list[str | None]]:
    jobs = [
        Job(r, 0, seed_of(name, number, r, k), limit_of(lab.problems[r]["kind"])) for r in rows for k in range(samples)
    ]
    traces = Traces()
    drawn = lab.sampler.draw(jobs, [policy], traces=traces, sigma=sigma)
    found = traces.joined()
    order = torch.argsort(found["row"], stable=True)
    hidden, token, reply = (found[k][order] for k in ("hidden", "token", "row"))
    pressed = Pressed.joined(
        Pressed.of(lab.model.logits(h), t) for h, t in zip(hidden.split(ROWS), token.split(ROWS), strict=True)
    )
    keys = lab.pool.keys([(job.prompt, drawn.tokens[i], bool(drawn.ended[i])) for i, job in enumerate(jobs)])
    right = float(np.mean([k is not None for k in keys]))
    lab.say(f"{name} {policy.name}: {len(jobs)} replies, {len(token)} tokens, right {right:.3f}")
    problem = torch.tensor([job.prompt for job in jobs])
    return Replies.of(
        problem, torch.zeros_like(problem), torch.full_like(problem, number), reply, hidden, pressed
    ), keys


def joined(parts: Sequence[Replies]) -> Replies:
    """Of one group, other problems each."""
    return Replies.joined(parts).by_problem()


class Weighed(replay.Weighed):
    """Of policies, each with the noise on its z_P."""

    def __init__(
        self, replies: Replies, policies: Sequence[tuple[Policy, float]], n_vocab: int, diversity: float
    ) -> None:
        def chances(policy: Policy, sigma: float) -> Tensor:
            def of(hidden: Tensor, pressed: Pressed) -> Tensor:
                if policy.heads is None:
                    return pressed.log_softmax(torch.full_like(pressed.token, policy.temperature))
                return log_probability(policy.heads, hidden, pressed, sigma, n_vocab)[0]

            return log_chances(replies, of)

        mixture = log_mean([chances(*of) for of in policies])
        super().__init__(
            replies, mixture, n_vocab, diversity, at_most_one=False
        )  # as the heads of the package were made
