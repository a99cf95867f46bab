"""Which split a problem belongs to: by a hash of what is asked, so that no seed ever moves one.

Owns the shares. Knows no task. The demo model's families have shares of their own (`demo/problem.py`).
"""

from __future__ import annotations

import hashlib

TEST_PERCENT, CALIBRATION_PERCENT = 40, 20  # the rest is "train": a list of names is short, and a test wants many


def split_of(name: str, key: str) -> str:
    """ "test", "calibration" or "train" for a problem of the family ``name`` that asks for ``key``."""
    digest = hashlib.sha256(f"{name}\n{key}".encode()).digest()
    bucket = int.from_bytes(digest[:4], "big") % 100
    if bucket < TEST_PERCENT:
        return "test"
    return "calibration" if bucket < TEST_PERCENT + CALIBRATION_PERCENT else "train"
