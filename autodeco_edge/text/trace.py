"""What the heads did, token by token, as JSON lines.

Owns the records of `--json`, `--jsonl` and `--trace`, and the summary of a reply. Does not
decide where they are printed.
"""

from __future__ import annotations

import codecs
import json
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..engine.sampler import Step
from ..errors import OutputError, StorageError
from ..io.printing import JSON


class TextStream:
    """Bytes of tokens to text, where a character may be spread over several tokens."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> str:
        return self._decoder.decode(data)

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


def record_of(step: Step, data: bytes, text: str, top: Sequence[str] = ()) -> dict[str, Any]:
    """One token of a trace. top: texts of ``step.top``, where they are wanted: then "rank" (None = not among them) and
    "top" are there, each with whether the nucleus kept it (before filters)."""
    record = {
        "index": step.index,
        "id": step.id,
        "bytes": list(data),
        "text": text,
        "temperature": step.temperature,
        "top_p": step.top_p,
        "temperature_eff": step.temperature_eff,
        "top_p_eff": step.top_p_eff,
        "n_kept": step.n_kept,
        "entropy": step.entropy,
        "max_prob": step.max_prob,
        "logprob": step.logprob,
    }
    if top:
        ids = [token for token, _ in step.top]
        record["rank"] = ids.index(step.id) + 1 if step.id in ids else None
        record["top"] = [
            {"id": token, "text": text, "logprob": logprob, "kept": i < step.n_kept}
            for i, ((token, logprob), text) in enumerate(zip(step.top, top, strict=True))
        ]
    return record


@dataclass
class Trace:
    """The records of one reply and their running summary."""

    prompt_ids: list[int]
    seed: int
    records: list[dict[str, Any]] = field(default_factory=list)
    rest: str = ""  # of a last character that never became whole

    def add(self, step: Step, data: bytes, text: str, top: Sequence[str] = ()) -> dict[str, Any]:
        """Record of one token; ``text`` is what became printable with it, ``top`` as in record_of."""
        record = record_of(step, data, text, top)
        self.records.append(record)
        return record

    @property
    def text(self) -> str:
        return "".join(r["text"] for r in self.records) + self.rest

    def mean(self, name: str) -> float | None:
        """Mean of a head's value over the reply; None where that head was off."""
        values = [r[name] for r in self.records if r[name] is not None]
        return sum(values) / len(values) if values else None

    def summary(self, finish_reason: str | None, timings: dict[str, Any]) -> dict[str, Any]:
        """The last object of a trace."""
        return {
            "done": True,
            "finish_reason": finish_reason,
            "prompt_ids": self.prompt_ids,
            "n_tokens": len(self.records),
            "mean_temperature": self.mean("temperature"),
            "mean_top_p": self.mean("top_p"),
            "seed": self.seed,
            "timings": timings,
        }


class TraceFile:
    """A trace on disk: written beside its name and renamed when complete, so that a file under
    its own name is always whole. ``close(keep=False)`` leaves nothing behind. A device or a pipe is
    written as it is: a rename would put a file in its place."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        special = os.path.exists(self.path) and not os.path.isfile(self.path)
        beside = self.path.with_name(f"{self.path.name[:200]}.{secrets.token_hex(4)}.part")
        self._part = self.path if special else beside
        try:
            with suppress(FileNotFoundError):
                os.lstat(self.path)  # a name that cannot be is refused before the reply, not after it
            self._file = open(_open(self._part, special), "w", encoding="utf-8", newline="\n")  # noqa: SIM115
        except OSError as error:
            raise OutputError(
                f"{self.path}: cannot be written ({error.strerror}); choose another --trace file"
            ) from None

    def write(self, record: dict[str, Any]) -> None:
        try:
            self._file.write(dumps(record) + "\n")
            self._file.flush()  # a full disk shows now, not at the end
        except OSError as error:
            raise StorageError(f"{self.path}: writing failed ({error.strerror})") from None

    def close(self, keep: bool = True) -> None:
        try:
            self._file.flush()
            if self._part != self.path:
                os.fsync(self._file.fileno())
            self._file.close()
            if keep and self._part != self.path:
                os.replace(self._part, self.path)
        except OSError as error:
            keep = False
            raise StorageError(f"{self.path}: writing failed ({error.strerror})") from None
        finally:
            if not keep and self._part != self.path:
                self._part.unlink(missing_ok=True)


def is_trace(path: Path) -> bool:
    """Whether a file is one of ours, by the beginning of its first line."""
    try:
        with path.open("rb") as file:
            return file.read(16).startswith((b'{"index": ', b'{"done": '))
    except OSError:
        return False


def _open(path: Path, special: bool) -> int:
    """A new file, which nobody has planted; or a device or a pipe, without waiting for somebody to read it."""
    if not special:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    fd = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    os.set_blocking(fd, True)
    return fd


def dumps(record: dict[str, Any], ascii_only: bool = False) -> str:
    """One line of strict JSON, which a terminal shows and does not obey."""
    return json.dumps(record, ensure_ascii=ascii_only, allow_nan=False).translate(JSON)
