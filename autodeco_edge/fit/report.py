"""What a fit has come to, in words.

Owns the table and the verdict. Knows no run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..eval.report import table
from .measure import pair


def verdict(report: Mapping[str, Any]) -> str:
    """The table of the test, and what was written and why."""
    chosen, difference = report["choose"], report["difference"]
    temperature, top_p = pair(chosen["constant"])
    constant = f"T {temperature:g}, P {top_p:g}"
    lead = f"{difference['mean']:+.3f} [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    if report["heads_beat_the_constant"]:
        said = f"the heads beat the best constant ({constant}): {lead}; {report['output']} holds them"
    else:
        said = (
            f"the heads are not shown to beat the best constant ({constant}): {lead}; {report['output']} holds this "
            f"constant, the heads are {report['output']}.fit/{chosen['heads'].partition('@')[2]}.gguf"
        )
    return f"{table(report['test']['group'], chosen['heads'])}\n\n{said}\n(share of right replies + share of distinct ones)"
