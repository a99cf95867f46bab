"""Which split a problem belongs to: by a hash of what is asked, so that no seed ever moves one.

Owns the rule and the shares. Knows no task. The demo model's families have shares of their own (`demo/problem.py`).
"""

from __future__ import annotations

from ..io.digest import fingerprint

TEST_PERCENT, CALIBRATION_PERCENT = 40, 20  # the rest is "train": a list of names is short, and a test wants many


def split_of(
    name: str, key: str, test_percent: int = TEST_PERCENT, calibration_percent: int = CALIBRATION_PERCENT
) -> str:
    """ "test", "calibration" or "train" for a problem of the family ``name`` that asks for ``key``."""
    bucket = int(fingerprint(f"{name}\n{key}", 8), 16) % 100
    if bucket < test_percent:
        return "test"
    return "calibration" if bucket < test_percent + calibration_percent else "train"
