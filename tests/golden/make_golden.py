"""Makes golden.json again from the formulas of docs/equations.md, in float64, without the package.

    python tests/golden/make_golden.py            compare with golden.json
    python tests/golden/make_golden.py --write    replace it

Owns the closed-form inputs of equations 16 and a plain form of equations 2, 3, 7, 8 and 10 with their derivatives by T
and P. Imports nothing of autodeco_edge: it is a second opinion, not the code under test.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("golden.json")
TOLERANCE = 1e-12  # float64 sums of at most 256 terms of size 1, in whatever order
RELATIVE = 1e-7  # for derivatives of 3e-9, which are differences of two terms of size 1: 16 digits less 9
N_POSITIONS, N_EMBD, N_VOCAB, N_HIDDEN = 5, 4, 7, 256
LABELS = [-100, -100, 5, 3, 5]
STEEPNESS, EPSILON = 30.0, 1e-9


def make() -> dict:
    """Everything that golden.json holds."""
    rows = [_position(s) for s in range(N_POSITIONS)]
    valid = [s for s in range(N_POSITIONS - 1) if LABELS[s + 1] >= 0]
    cases = [(np.array(rows[s]["logits"]), rows[s]["temperature"], rows[s]["top_p"], LABELS[s + 1]) for s in valid]
    easy = np.array([int(x.argmax()) == y for x, _, _, y in cases])
    every = np.ones(len(cases), bool)
    hf = np.array([_temperature_loss(x, t, y, nemo=False) for x, t, _, y in cases])
    top_p = np.array([_top_p_loss(x, max(t, 1e-8), p, y) for x, t, p, y in cases])
    nemo = np.array([_temperature_loss(x, t, y, nemo=True) for x, t, _, y in cases]) + top_p
    return {
        "heads": rows,
        "labels": LABELS,
        "positions": valid,
        "easy": easy.tolist(),
        "hf_temperature_none_dropped": _mean(hf, every),
        "hf_temperature_easy_dropped": _mean(hf, ~easy),
        "hf_top_p": _mean(top_p, every),
        "nemo_none_dropped": _mean(nemo, every),
        "nemo_easy_dropped": _mean(nemo, ~easy),
    }


# ---- inputs and heads (equations 16, 2, 3) ---------------------------------------------


def _position(s: int) -> dict:
    hidden = np.sin(1.3 * s + 0.7 * np.arange(N_EMBD))
    logits = 3.0 * np.cos(0.9 * s + 1.1 * np.arange(N_VOCAB))
    temperature = 2.0 * _head(hidden, 0.1, 0.2, 0.2, 0.4)
    q = _softmax(logits / (temperature + 1e-8))
    statistics = {
        "max_prob": q.max(),
        "entropy": -(q * np.log(q + 1e-8)).sum(),
        "prob_var": ((q - 1.0 / N_VOCAB) ** 2).sum() / (N_VOCAB - 1),
        "top5_sum": np.sort(q)[-5:].sum(),
    }
    top_p = _head(np.concatenate([hidden, [temperature, *statistics.values()]]), 0.3, 0.6, 0.4, 0.8)
    numbers = {"temperature": temperature, "top_p": top_p, **statistics}
    return {"s": s, "hidden": hidden.tolist(), "logits": logits.tolist()} | {k: float(x) for k, x in numbers.items()}


def _head(u: np.ndarray, a: float, b: float, c: float, d: float) -> float:
    """sigmoid(W2 relu(W0 u + b0) + b2) with the closed-form weights of a, b, c, d. u [n]."""
    i, j = np.arange(N_HIDDEN), np.arange(u.size)
    hidden = np.sin(a + 0.37 * i[:, None] + 0.53 * j) / np.sqrt(u.size) @ u + 0.1 * np.cos(b + 0.41 * i)
    z = 0.125 * np.sin(c + 0.53 * i) @ np.maximum(hidden, 0.0) + 0.1 * np.cos(d)
    return 1.0 / (1.0 + np.exp(-z))


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max())
    return e / e.sum()


# ---- losses and slopes (equations 7, 8, 10) --------------------------------------------


def _temperature_loss(x: np.ndarray, t: float, y: int, nemo: bool) -> tuple[float, float, float]:
    """(loss, slope by T, slope by P) of one position; x [V] logits."""
    q = _softmax(x / (t if nemo else max(t, 0.01)))
    weight = q[y] if nemo else _softmax(x)[y]
    return -weight * np.log(q[y]), weight * (x[y] - q @ x) / t**2, 0.0


def _top_p_loss(x: np.ndarray, t: float, p: float, y: int) -> tuple[float, float, float]:
    """Likewise, of the soft nucleus."""
    order = np.argsort(-x, kind="stable")
    x, y = x[order], int(np.flatnonzero(order == y)[0])
    q = _softmax(x / t)
    dq = q * (q @ x - x) / t**2  # by T
    beyond = q.cumsum() - p
    m = np.exp(-STEEPNESS * np.maximum(beyond, 0.0))
    slope = STEEPNESS * m * (beyond > 0)  # of m by P; by the mass c it is the negative
    n, dn_dt, dn_dp = q * m, dq * m - q * slope * dq.cumsum(), q * slope
    total = n.sum() + EPSILON
    r, weight = n[y] / total, _softmax(x)[y]
    dr_dt, dr_dp = ((d[y] - r * d.sum()) / total for d in (dn_dt, dn_dp))
    return -weight * np.log(r + EPSILON), -weight * dr_dt / (r + EPSILON), -weight * dr_dp / (r + EPSILON)


def _mean(values: np.ndarray, kept: np.ndarray) -> dict:
    """values [m, 3]: loss and slopes of each position; the mean over those kept."""
    loss, dt, dp = np.where(kept[:, None], values, 0.0).T / kept.sum()
    return {"value": float(loss.sum()), "dT": dt.tolist(), "dP": dp.tolist()}


# ---- comparing -------------------------------------------------------------------------


def differences(made: object, kept: object, where: str = "") -> list[str]:
    """Where two trees of dicts, lists and numbers differ by more than TOLERANCE or RELATIVE, or in shape."""
    if isinstance(made, dict) and isinstance(kept, dict) and made.keys() == kept.keys():
        return [line for key in made for line in differences(made[key], kept[key], f"{where}/{key}")]
    if isinstance(made, list) and isinstance(kept, list) and len(made) == len(kept):
        return [
            line for i, pair in enumerate(zip(made, kept, strict=True)) for line in differences(*pair, f"{where}/{i}")
        ]
    numbers = all(isinstance(x, int | float) for x in (made, kept))
    same = made == kept or (numbers and abs(made - kept) <= min(TOLERANCE, RELATIVE * abs(kept)))
    return [] if same else [f"{where}: made {made}, golden.json has {kept}"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="replace golden.json")
    made = make()
    if parser.parse_args().write:
        FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
        return 0
    wrong = differences(made, json.loads(FILE.read_text(encoding="utf-8")))
    print("\n".join(wrong) or f"{FILE.name} agrees to {TOLERANCE:g}")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
