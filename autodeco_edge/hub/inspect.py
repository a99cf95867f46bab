"""What is in a GGUF file and whether the heads around it belong to it, as plain facts.

Owns the dictionary behind ``show --json`` and its extra lines. The tables of one file's headers come from
autodeco_edge.convert.describe; nothing here loads weights.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

from ..convert.base import BaseInfo
from ..convert.describe import Row
from ..convert.verify import HEADS_FILE, SINGLE_FILE, GgufHeads, check_base, kind_of, load_heads, read_heads_gguf
from ..errors import AutodecoError, FormatError, MismatchError, MissingInputError
from ..gguf import types as gt
from ..gguf.reader import GGUFFile
from .heads import base_info

KIND_NAMES = {HEADS_FILE: "heads", SINGLE_FILE: "model with heads", None: "model"}
KEY_TEMPLATE = "tokenizer.chat_template"
MAX_HEADS_BYTES = gt.MAX_HEADS_BYTES + (1 << 20)  # larger files in the folder are models


def inspect(path: Path, heads: Path | None = None) -> dict[str, object]:
    """Facts of a GGUF, with ``heads`` (a heads file for it) or those that lie in its folder.

    Raises FormatError or MissingInputError when ``path`` cannot be read.
    """
    with GGUFFile(path) as file:
        kind = kind_of(file)
        facts: dict[str, object] = {"file": str(path), "kind": KIND_NAMES[kind], "bytes": file.size}
        own = load_heads(file) if kind else None
        if kind != HEADS_FILE:
            facts |= _model_facts(file)
    if own:
        facts["heads"] = _heads_facts(own) | {"inside": kind != HEADS_FILE}
    if kind == HEADS_FILE:
        return facts
    try:
        base = base_info(path)
    except MissingInputError as error:  # a part of a split model
        return facts | {"missing": str(error)}
    except FormatError:  # a projector, a vocabulary: a GGUF, but no language model that heads could be for
        return facts
    if own:
        facts["heads"] |= _fit_facts(own, base)
    found = [heads] if heads else _heads_beside(path)
    facts["heads_files"] = [_facts_beside(other, base) for other in found]
    return facts


def _facts_beside(path: Path, base: BaseInfo) -> dict[str, object]:
    """A damaged heads file says so; the model beside it is shown all the same."""
    try:
        loaded = read_heads_gguf(path)
    except AutodecoError as error:
        return {"file": str(path), "fits": False, "fingerprints": False, "mismatch": str(error)}
    return _heads_facts(loaded) | _fit_facts(loaded, base)


def extra_rows(facts: dict[str, object]) -> list[Row]:
    """What ``describe_file`` does not say: quantisation, chat template, fit, heads beside."""
    rows: list[Row] = []
    if "parts" in facts and facts["parts"] != 1:
        rows.append(("parts", str(facts["parts"])))
    if "missing" in facts:
        rows.append(("missing", str(facts["missing"])))
    if "chat_template" in facts:
        rows.append(("quantisation", str(facts["quant"] or "mixed")))
        rows.append(("chat template", "yes" if facts["chat_template"] else "no"))
    own = facts.get("heads")
    if own and "fits" in own:
        rows.append(("heads fit", _fit_text(own)))
    for beside in facts.get("heads_files", []):
        rows.append(("heads beside", beside["file"]))
        rows.append(("heads fit", _fit_text(beside)))
    return rows


def _fit_text(facts: dict) -> str:
    if not facts["fits"]:
        return f"no: {facts['mismatch']}"
    return "yes" if facts["fingerprints"] else "in shape (no fingerprints recorded)"


def _model_facts(file: GGUFFile) -> dict[str, object]:
    arch = file.string("general.architecture") or ""
    return {
        "name": file.string("general.name"),
        "architecture": arch,
        "parameters": sum(math.prod(t.shape) for t in file.tensors.values()),
        "parts": file.integer("split.count") or 1,
        "quant": _commonest_type(file),
        "n_ctx_train": file.integer(f"{arch}.context_length"),
        "n_embd": file.integer(f"{arch}.embedding_length"),
        "chat_template": KEY_TEMPLATE in file.kv,
    }


def _commonest_type(file: GGUFFile) -> str | None:
    """The type of most weights: the file name may say Q4_K_M, these say Q4_K."""
    weights: Counter[str] = Counter()
    for tensor in file.tensors.values():
        weights[gt.type_name(tensor.ggml_type)] += math.prod(tensor.shape)
    return weights.most_common(1)[0][0] if weights else None


def _heads_facts(heads: GgufHeads) -> dict[str, object]:
    spec = heads.spec
    return {
        "file": str(heads.path),
        "architecture": heads.arch,
        "n_embd": spec.n_embd,
        "n_hidden": spec.n_hidden,
        "temperature": spec.has_temp,
        "top_p": spec.has_top_p,
        "features": list(spec.features),
        "mean_temperature": _rounded(heads.means.temperature),
        "mean_top_p": _rounded(heads.means.top_p),
        "source_sha256": heads.source_sha256,
    }


def _rounded(mean: float | None) -> float | None:
    """A mean is stored in 32 bits: its digits beyond the seventh are noise."""
    return None if mean is None else float(f"{mean:.6g}")


def _fit_facts(heads: GgufHeads, base: BaseInfo) -> dict[str, object]:
    """``fingerprints``: whether the heads record whose they are; without them another model of the same shape fits.
    ``mismatch``: the field that differs, with both values."""
    facts = {"fits": True, "fingerprints": bool(heads.tokenizer_sha256 or heads.norm_sha256), "mismatch": None}
    try:
        check_base(heads, base)
    except MismatchError as error:
        facts |= {"fits": False, "mismatch": str(error)}
    return facts


def _heads_beside(path: Path) -> list[Path]:
    """Heads files in the folder of a model."""
    return [other for other in sorted(path.parent.glob("*.gguf")) if other != path and _is_heads_file(other)]


def _is_heads_file(path: Path) -> bool:
    try:
        if path.stat().st_size > MAX_HEADS_BYTES:
            return False
        with GGUFFile(path) as file:
            return kind_of(file) == HEADS_FILE
    except (AutodecoError, OSError):  # damaged, not readable, a link to nothing
        return False
