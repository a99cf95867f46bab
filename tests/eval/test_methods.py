"""Names of methods, and what each does to the sampler."""

from __future__ import annotations

import pytest

from autodeco_edge.errors import UsageError
from autodeco_edge.eval import methods
from autodeco_edge.eval.methods import NAMES, check_names, frontier_grid, method


@pytest.mark.parametrize(
    "name, settings",
    {
        "greedy": ("none", 0.0, 1.0, 0.0),
        "default": ("none", 1.0, 1.0, 0.0),
        "card": ("none", 0.6, 0.95, 0.0),
        "mean-shift": ("none", 0.48, 0.93, 0.0),
        "min-p": ("none", 1.0, 1.0, 0.05),
        "autodeco-t": ("temp", 1.0, 1.0, 0.0),
        "autodeco-p": ("top-p", 1.0, 1.0, 0.0),
        "autodeco": ("both", 1.0, 1.0, 0.0),
        "0.7/0.9": ("none", 0.7, 0.9, 0.0),
    }.items(),
)
def test_settings(name, settings):
    found = method(name, {"": (0.48, 0.93)})
    p = found.seeded(7)
    assert (p.heads_mode, p.temperature, p.top_p, p.min_p) == settings and p.seed == 7
    assert found.uses_heads == name.startswith("autodeco")
    assert found.is_constant == (name not in ("min-p", "autodeco-t", "autodeco-p", "autodeco"))
    assert found.once == (name == "greedy")


def test_other_heads_are_named_behind_an_at_sign():
    means = {"": (0.5, 0.9), "mine": (0.3, 0.8)}
    assert method("autodeco-t@mine").heads == "mine" and method("autodeco-t@mine").uses_heads
    found = method("mean-shift@mine", means).params
    assert (found.temperature, found.top_p) == (0.3, 0.8)
    check_names(["autodeco", "autodeco@mine"], ["mine"])
    with pytest.raises(UsageError, match="--with other=HEADS"):
        check_names(["autodeco@other"], ["mine"])


def test_dynatemp_is_llama_cpps_own():
    found = method("dynatemp")
    assert found.stock and not found.is_constant and found.settings() == {"sampler": "dynatemp"}


def test_names_are_checked():
    check_names(NAMES)
    with pytest.raises(UsageError, match="allowed greedy, default.*got 'best'"):
        check_names(["greedy", "best"])
    with pytest.raises(UsageError, match="each once"):
        check_names(["greedy", "greedy"])
    with pytest.raises(UsageError, match="top-p"):
        check_names(["0.7/1.5"])


def test_grids():
    assert methods.EXPERT_GRID == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    grid = frontier_grid()
    assert len({m.name for m in grid}) == len(grid) == 40 and all(m.is_constant for m in grid)
