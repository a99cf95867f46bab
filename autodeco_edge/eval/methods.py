"""What is compared: ways to choose the temperature and the top-p of a token.

Owns the names, what each means to the sampler, and the grids that an expert and a frontier search. Draws
nothing.

    greedy       the most likely token
    default      T = 1, P = 1: the paper's Default Sampling
    card         T = 0.6, P = 0.95, as model cards of reasoning models recommend
    mean-shift   the constants equal to the heads' own mean T and P (equations 14)
    min-p        T = 1, tokens below 0.05 of the largest dropped
    dynatemp     llama.cpp's dynamic temperature, 0.5 to 1.5 by entropy
    autodeco-t, autodeco-p, autodeco   the heads: temperature only, top-p only, both (paper Figure 4)
    expert       Expert-Guided Tuning: the best constants on the test set, an oracle (paper Figure 3)
    turn         T by entropy alone, P = 1, on other problems than the test's (entropy.py)
    T/P          any constants, as 0.7/0.9
    NAME@HEADS   autodeco, autodeco-t, autodeco-p or mean-shift with other heads than the first
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from ..engine.sampler import SamplingParams
from ..engine.strategies import StockChain
from ..errors import UsageError

MIN_P = 0.05
DYNATEMP_MEAN, DYNATEMP_RANGE, DYNATEMP_EXPONENT = 1.0, 0.5, 1.0
CARD = (0.6, 0.95)
EXPERT_GRID = tuple(round(0.1 * i, 1) for i in range(1, 11))  # of T, then of P (paper Figure 3)
FRONTIER_T = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)
FRONTIER_P = (0.6, 0.8, 0.9, 0.95, 1.0)
NAMES = (
    "greedy",
    "default",
    "card",
    "mean-shift",
    "min-p",
    "dynatemp",
    "autodeco-t",
    "autodeco-p",
    "autodeco",
    "expert",
    "turn",
)
FOUND = ("expert", "turn")  # constants that a run has to look for
HEADS_MODES = {"autodeco-t": "temp", "autodeco-p": "top-p", "autodeco": "both"}
_CONSTANTS = re.compile(r"(\d+(?:\.\d+)?)/(\d+(?:\.\d+)?)")


@dataclass(frozen=True)
class Method:
    """name: as above. params: all but the seed. stock: llama.cpp's samplers instead. once: draws nothing, so that one
    sample of a problem tells all. heads: name of the heads that it is about, "" = the first."""

    name: str
    params: SamplingParams = SamplingParams()
    stock: StockChain | None = None
    once: bool = False
    heads: str = ""

    @property
    def uses_heads(self) -> bool:
        return self.stock is None and self.params.heads_mode != "none"

    @property
    def is_constant(self) -> bool:
        return self.stock is None and not self.uses_heads and not self.params.min_p

    def settings(self) -> dict[str, float | str]:
        """What it does, for the record of a run."""
        if self.stock:
            return {"sampler": self.name}
        p = self.params
        return {"heads": p.heads_mode, "temperature": p.temperature, "top_p": p.top_p, "min_p": p.min_p}

    def seeded(self, seed: int) -> SamplingParams:
        return replace(self.params, seed=seed)


def constants(t: float, p: float, name: str | None = None) -> Method:
    """A fixed temperature and top-p. Raises UsageError out of range."""
    return Method(name or f"{t:g}/{p:g}", SamplingParams(temperature=t, top_p=p, heads_mode="none"), once=t == 0.0)


def _dynatemp(seed: int) -> list[int]:
    import llama_cpp

    temp = llama_cpp.llama_sampler_init_temp_ext(DYNATEMP_MEAN, DYNATEMP_RANGE, DYNATEMP_EXPONENT)
    return [temp, llama_cpp.llama_sampler_init_dist(seed % 2**32)]


def method(name: str, means: Mapping[str, tuple[float, float]] | None = None) -> Method:
    """The method of a name; ``means``: by heads, the constants of mean-shift. Raises UsageError for an unknown name."""
    base, _, heads = name.partition("@")
    if base in HEADS_MODES:
        return Method(name, SamplingParams(heads_mode=HEADS_MODES[base]), heads=heads)
    if base == "mean-shift":
        return replace(constants(*(means or {}).get(heads, (1.0, 1.0)), name), heads=heads)
    if found := _CONSTANTS.fullmatch(name):
        return constants(float(found[1]), float(found[2]), name)
    simple = {
        "greedy": lambda: constants(0.0, 1.0, name),
        "default": lambda: constants(1.0, 1.0, name),
        "card": lambda: constants(*CARD, name),
        "min-p": lambda: Method(name, SamplingParams(min_p=MIN_P, heads_mode="none")),
        "dynatemp": lambda: Method(name, stock=_dynatemp),
    }
    if name not in simple:
        raise UsageError(f"method: allowed {', '.join(NAMES)}, or constants as 0.7/0.9; got {name!r}")
    return simple[name]()


def check_names(names: Sequence[str], heads: Collection[str] = ()) -> None:
    """Raises UsageError for a name that is none, one that comes twice, and heads other than "" and ``heads``."""
    for name in names:
        if name not in FOUND and (about := method(name).heads) and about not in heads:
            raise UsageError(f"method {name}: no heads of that name; add --with {about}=HEADS.gguf")
    if len(set(names)) < len(names):
        raise UsageError(f"methods: each once; got {', '.join(names)}")


def frontier_grid() -> list[Method]:
    """Constants over a grid of T and P."""
    return [constants(t, p) for t in FRONTIER_T for p in FRONTIER_P]
