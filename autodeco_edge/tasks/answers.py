"""The rule for math answers that the official runner scores by, and ours for letters.

Owns the extraction of an answer from a completion and its normal form (equations 14). No number is evaluated:
`017` is not `17`, `1,000` is not `1000`, and the order of a list counts. That leniency is `math_pool`'s.
"""

from __future__ import annotations

import re

BOX, SPACED_BOX = "\\boxed", "\\boxed "

# Done in this order on the whole answer, before anything that looks at its structure.
_PLAIN = (
    ("\n", ""),
    ("\\!", ""),
    ("\\\\", "\\"),
    ("tfrac", "frac"),
    ("dfrac", "frac"),
    ("\\left", ""),
    ("\\right", ""),
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("\\$", ""),
)
_UNIT = "\\text{ "
_LETTER = re.compile(r"\(?([A-J])\)?(?:[.:)].*)?", re.DOTALL)
_STYLE = re.compile(r"\\(?:text|textbf|textrm|mathrm|mathbf|mathsf)\{(.*)\}", re.DOTALL)


def extract(text: str) -> str | None:
    """The answer in a completion, reasoning included; None without one.

    Where "\\boxed " occurs, what follows its last occurrence, up to a dollar sign. Else the last \\boxed with its
    braces matched; a last \\fbox, with no \\boxed anywhere, gives nothing.
    """
    if SPACED_BOX in text:
        return text.rpartition(SPACED_BOX)[2].partition("$")[0]
    start = text.rfind(BOX)
    body = text[start + len(BOX) :]
    if start < 0 or not body.startswith("{"):
        return None
    depth = 0
    for brace in re.finditer(r"[{}]", body):
        depth += 1 if brace[0] == "{" else -1
        if not depth:
            return body[1 : brace.start()]
    return None


def normal(answer: str) -> str:
    """The form in which answers are compared. Raises ValueError where the rule has none."""
    for old, new in _PLAIN:
        answer = answer.replace(old, new)
    answer = _without_unit(answer).replace("\\%", "").replace(" .", " 0.").replace("{.", "{0.")
    if not answer:
        return answer
    if answer.startswith("."):
        answer = "0" + answer
    left, equals, right = answer.partition("=")
    if equals and "=" not in right and len(left) <= 2:
        answer = right
    answer = _braced_fractions(_braced_roots(answer).replace(" ", ""))
    return _slashed("\\frac{1}{2}" if answer == "0.5" else answer)


def official(text: str, gt: str) -> bool:
    """The official verdict on a completion."""
    answer = extract(text)
    if answer is None:
        return False
    try:
        return normal(answer) == normal(gt)
    except ValueError:
        return answer == gt


def key(text: str) -> str:
    """What makes a right answer distinct: its normal form, "" without an answer."""
    answer = extract(text)
    try:
        return normal(answer or "")
    except ValueError:
        return answer or ""


def letter(text: str) -> str | None:
    """The option named in the last box: `C`, `(C)`, `C. some text` or `\\text{C}`. None where there is no such letter."""
    answer = (extract(text) or "").strip()
    if styled := _STYLE.fullmatch(answer):
        answer = styled[1].strip()
    found = _LETTER.fullmatch(answer)
    return found[1] if found else None


# ---- parts of the normal form ------------------------------------------------------


def _without_unit(answer: str) -> str:
    value, *units = answer.split(_UNIT)
    if len(units) > 1:
        raise ValueError(f"more than one {_UNIT!r}")
    return value


def _braced_roots(answer: str) -> str:
    """`\\sqrt3` -> `\\sqrt{3}`: the one character that follows is the argument."""
    first, *parts = answer.split("\\sqrt")
    if "" in parts:
        raise ValueError("a root of nothing")
    return first + "".join("\\sqrt" + (p if p.startswith("{") else f"{{{p[0]}}}{p[1:]}") for p in parts)


def _braced_fractions(answer: str) -> str:
    """`\\frac12` -> `\\frac{1}{2}`, `\\frac1{72}` -> `\\frac{1}{72}`; all unchanged where one has too little after it."""
    first, *parts = answer.split("\\frac")
    if any(len(part) < 2 and not part.startswith("{") for part in parts):
        return answer
    return first + "".join("\\frac" + _braced_arguments(part) for part in parts)


def _braced_arguments(part: str) -> str:
    if part.startswith("{"):
        return part
    upper, lower, rest = part[0], part[1], part[2:]
    return f"{{{upper}}}{lower if lower == '{' else f'{{{lower}}}'}{rest}"


def _slashed(answer: str) -> str:
    """`3/4` -> `\\frac{3}{4}` for integers written as Python writes them."""
    found = re.fullmatch(r"(0|-?[1-9]\d*)/(0|-?[1-9]\d*)", answer, re.ASCII)
    return f"\\frac{{{found[1]}}}{{{found[2]}}}" if found else answer
