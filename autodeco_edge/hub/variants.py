"""Which GGUF files of a repository make one model, and which of them to take.

Owns the reading of file names: the quantisation, and the parts of a split model. Opens no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import UsageError

PREFERRED = ("Q4_K_M", "Q8_0")
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
_QUANT = re.compile(
    r"(?<![A-Za-z0-9])(?:UD-)?(?:I?Q[1-9](?:_[A-Z0-9]+)*|TQ[12]_0|MXFP4(?:_MOE)?|BF16|F16|F32)(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(r"(mmproj|autodeco-|imatrix)", re.IGNORECASE)  # beside a model, never one


@dataclass(frozen=True)
class Variant:
    """One model in a repository. ``files``: its parts in order; llama.cpp is given the first."""

    quant: str
    files: tuple[str, ...]


def find_variants(names: Iterable[str]) -> list[Variant]:
    """The whole models among file names (``/`` between folders), in order of name. Split models with a
    part missing are left out."""
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        base = name.rpartition("/")[2]
        if base.lower().endswith(".gguf") and not _NO_MODEL.match(base):
            groups.setdefault(_PART.sub(".gguf", name), []).append(name)
    return [Variant(quant_of(stem), tuple(files)) for stem, files in groups.items() if _is_whole(files)]


def quant_of(name: str) -> str:
    """``Q4_K_M`` out of a file name, else out of its folder; "" where neither says."""
    folder, _, base = _PART.sub(".gguf", name).rpartition("/")
    found = _QUANT.findall(base.removesuffix(".gguf")) or _QUANT.findall(folder)
    return found[-1].upper() if found else ""


def choose(variants: list[Variant], quant: str | None, where: str) -> Variant:
    """The variant asked for (a quantisation or a file name), or the default. Raises UsageError."""
    if not variants:
        raise UsageError(f"{where}: no GGUF model in it; give a repository that holds .gguf files")
    if quant is None:
        ranked = [v for wanted in PREFERRED for v in variants if v.quant == wanted]
        return (ranked or variants)[0]
    for said in (
        lambda v: v.quant == quant.upper(),
        lambda v: v.quant.removeprefix("UD-") == quant.upper(),  # Q4_K_XL means UD-Q4_K_XL where that is all there is
        lambda v: quant in (v.files[0], v.files[0].rpartition("/")[2]),
    ):
        if found := [v for v in variants if said(v)]:
            return found[0]
    names = ", ".join(dict.fromkeys(v.quant or v.files[0] for v in variants))
    raise UsageError(f"{where}: no quantisation {quant!r} in it; there are {names}")


def _is_whole(files: list[str]) -> bool:
    parts = [_PART.search(name) for name in files]
    if not parts[0]:
        return len(files) == 1
    numbers = [int(part.group(1)) for part in parts if part]
    return numbers == list(range(1, int(parts[0].group(2)) + 1))
