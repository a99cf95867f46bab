"""Fixtures that several test folders share: tiny real models, made once a session.

The repository root goes to the end of the path, behind site-packages: `demo` and `tests.support` are
found there, while `autodeco_edge` is the installed one, with its native library.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))
signal.signal(signal.SIGINT, signal.default_int_handler)  # a runner in the background hands down "ignored"
os.environ["PYTHONSAFEPATH"] = "1"  # the same for child interpreters: no working directory at the front
os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch's: its tensors are tiny, and other workers have the cores

from tests.support import checkpoints, families, llama_source, once  # noqa: E402


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What ``-n auto`` means: the cores that this process may use, as few as a container grants, and 4 at the most, for
    each worker takes a gigabyte."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, round(int(quota) / int(period)))
    return max(1, min(cores, 4))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Names with an address in them differ from worker to worker."""
    if named := next((item.nodeid for item in items if " at 0x" in item.nodeid), None):
        raise pytest.UsageError(f"{named}: give its parameters ids")


@dataclass(frozen=True)
class TinyModel:
    """One family on disk: Hugging Face folder, F32 GGUF, heads checkpoint (F32), heads file."""

    name: str
    hf: Path
    gguf: Path
    checkpoint: Path
    heads: Path


def _make(model: TinyModel, tokenizer: Path) -> None:
    from autodeco_edge.convert.base import open_base
    from autodeco_edge.convert.checkpoint import read_checkpoint
    from autodeco_edge.convert.export import write_heads

    families.make(model.name, tokenizer, model.hf, model.gguf)
    checkpoints.random_heads(model.checkpoint, families.HIDDEN, seed=7)
    _, base = open_base(model.gguf)
    write_heads(read_checkpoint(model.checkpoint), model.heads, base=base)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """``tiny(name)`` makes a family's model on first use."""
    if llama_source.llama_source() is None:
        pytest.skip("the llama-cpp-python source distribution can be neither found nor fetched")
    folder = once.common(tmp_path_factory) / "families"

    @cache
    def get(name: str) -> TinyModel:
        vocabulary, out = families.VOCABULARY[name], folder / name
        parts = (out / "hf", out / f"{name}-f32.gguf", out / f"{name}-heads", out / f"{name}-heads.gguf")
        model = TinyModel(name, *parts)
        tokenizer = once.once(
            folder / "tokenizers" / vocabulary, lambda path: families.make_tokenizer(vocabulary, path)
        )
        once.once(out, lambda _: _make(model, tokenizer))
        return model

    return get


@pytest.fixture(scope="session")
def qwen2(tiny) -> TinyModel:
    return tiny("qwen2")


@pytest.fixture(scope="session")
def golden() -> dict:
    import json

    return json.loads((ROOT / "tests" / "golden" / "golden.json").read_text())
