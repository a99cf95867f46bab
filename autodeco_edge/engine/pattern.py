"""A regular expression to GBNF, for the `pattern` of a JSON schema.

Owns the translation of Python's own parse of the pattern, node by node. The text lies inside a JSON string,
so that a pattern may only name characters which need no escape there.
"""

from __future__ import annotations

import re
import re._constants as sre
import re._parser as parser
from collections.abc import Iterable
from typing import Any

from ..errors import FormatError

_CATEGORIES = {sre.CATEGORY_DIGIT: "0-9", sre.CATEGORY_WORD: "a-zA-Z0-9_", sre.CATEGORY_SPACE: " "}


def pattern_rule(pattern: str) -> str:
    """An expression for the whole string. Raises FormatError unless the pattern is anchored and translatable."""
    try:
        nodes = list(parser.parse(pattern))
    except re.error as error:
        raise _refuse(pattern, str(error)) from None
    ends = [(sre.AT, sre.AT_BEGINNING), (sre.AT, sre.AT_END)]
    if len(nodes) < 2 or [nodes[0], nodes[-1]] != ends:
        raise _refuse(pattern, "it must begin with ^ and end with $")
    return _Translator(pattern).sequence(nodes[1:-1])


def _refuse(pattern: str, why: str) -> FormatError:
    return FormatError(f"the JSON schema cannot be enforced: pattern {pattern}: {why}")


class _Translator:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern

    def sequence(self, nodes: Iterable[tuple[Any, Any]]) -> str:
        return "(" + (" ".join(self._node(op, value) for op, value in nodes) or '""') + ")"

    def _node(self, op: Any, value: Any) -> str:
        if op is sre.LITERAL:
            return f"[{self._char(value)}]"
        if op is sre.IN:
            return f"[{''.join(self._member(*member) for member in value)}]"
        if op is sre.BRANCH:
            return "(" + " | ".join(self.sequence(branch) for branch in value[1]) + ")"
        if op is sre.SUBPATTERN:
            return self.sequence(value[-1])
        if op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            low, high, inner = value
            return f"{self.sequence(inner)}{{{low},{'' if high is sre.MAXREPEAT else high}}}"
        raise _refuse(self._pattern, f"{str(op).lower()} cannot be translated")

    def _member(self, op: Any, value: Any) -> str:
        if op is sre.LITERAL:
            return self._char(value)
        if op is sre.RANGE:
            if any(low <= ord(c) <= high for c in '"\\' for low, high in [value]):
                raise _refuse(self._pattern, "a range includes a quote or a backslash")
            return f"{self._char(value[0])}-{self._char(value[1])}"
        if op is sre.CATEGORY and value in _CATEGORIES:
            return _CATEGORIES[value]
        raise _refuse(self._pattern, f"{str(op).lower()} in a character class cannot be translated")

    def _char(self, code: int) -> str:
        if code < 0x20 or code == 0x7F or chr(code) in '"\\':
            raise _refuse(self._pattern, f"character {code:#x} needs an escape in JSON")
        return f"\\x{code:02X}" if code < 0x80 else f"\\U{code:08X}"
