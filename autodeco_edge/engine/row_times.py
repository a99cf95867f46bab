"""The times of batches by their rows, measured in a context.

Owns the measurement that a draft's length is decided by. It is made once, before the first reply, so that drafts stay a
function of their reply (docs/decisions/0045).
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from .context import Context, Row
from .draft_cost import USUAL, Costs

_ROWS = (1, 2, 4, 8, 16, 32, 63)
_SECONDS, _MOST = 0.25, 1.0  # that it goes on for, after three rounds; that no round is begun behind


def measure(context: Context, n_most: int) -> Costs:
    """By decoding in sequence 0, whose cells are empty before and after: the least time of each number of rows up to n_most,
    none less than that of fewer, to a twentieth."""
    counts = [n for n in _ROWS if n <= min(n_most, context.params.n_ctx)]
    if len(counts) < 2:
        return USUAL
    _seconds(context, 1)  # memory is touched that later ones find
    times: dict[int, list[float]] = {n: [] for n in counts}
    start = time.perf_counter()
    while not times[1] or (spent := time.perf_counter() - start) < _SECONDS or (len(times[1]) < 3 and spent < _MOST):
        for n in counts:
            if n > 2 and not times[n] and time.perf_counter() - start > _MOST:
                break  # of a large model: what more rows cost is read off the line
            times[n].append(_seconds(context, n))
            if n == 1:  # of plain decoding, whose graph serves again and again; that of a draft is mostly new
                times[n][-1] = _seconds(context, n)
    return Costs(_rounded({n: min(seconds) for n, seconds in times.items() if seconds}))


def _seconds(context: Context, n_rows: int) -> float:
    step = 7919  # words from everywhere, so that experts are chosen as in a text
    rows = [Row(i * step % context.model.n_vocab, i, 0, True) for i in range(n_rows)]
    start = time.perf_counter()
    try:
        context.decode(rows)
    finally:
        context.keep(0, 0)
    return time.perf_counter() - start


def _rounded(least: Mapping[int, float]) -> dict[int, float]:
    known, most = {}, 1.0
    for n, seconds in least.items():
        most = max(most, round(20 * seconds / least[1]) / 20)
        known[n] = most
    return known
