"""The llama-cpp-python source distribution: llama.cpp's converter and vocabularies.

Owns where it lies. It is fetched once into the cache (or found through AUTODECO_LLAMA_SOURCE),
because the installed wheel holds neither the converter nor the vocabulary files.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tarfile
import tempfile
from functools import cache
from pathlib import Path

from . import warm

VERSION = "0.3.36"


def _cache_dir() -> Path:
    base = os.environ.get("AUTODECO_TEST_CACHE") or Path.home() / ".cache" / "autodeco-edge-tests"
    return Path(base)


@cache
def llama_source() -> Path | None:
    """Folder of the pinned llama.cpp sources, or None where it can be neither found nor fetched."""
    override = os.environ.get("AUTODECO_LLAMA_SOURCE")
    if override:
        return Path(override)
    root = _cache_dir() / f"llama_cpp_python-{VERSION}"
    if not root.exists():
        _fetch(root)
    source = root / "vendor" / "llama.cpp"
    return source if source.exists() else None


def _fetch(root: Path) -> None:
    """Unpacked beside its place and moved there, so that it is never there in part."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent) as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
        command += ["--no-binary", ":all:", "-d", folder, f"llama-cpp-python=={VERSION}"]
        subprocess.run(command, check=False)
        for archive in Path(folder).glob(f"llama_cpp_python-{VERSION}*.tar.gz"):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
            with contextlib.suppress(OSError):  # another process was first
                os.replace(Path(folder) / root.name, root)


def vocabulary(name: str) -> Path:
    """One of llama.cpp's ``ggml-vocab-<name>.gguf`` files."""
    return llama_source() / "models" / f"ggml-vocab-{name}.gguf"


CONVERTER = """
import runpy, sys
sys.path.insert(0, sys.argv[1])  # modules lie beside the script
sys.argv[:2] = [sys.argv[1] + "/convert_hf_to_gguf.py"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def convert(model_dir: Path, out: Path, outtype: str = "f32") -> None:
    """Run llama.cpp's own converter on a Hugging Face folder. It brings a gguf of its own."""
    words = (llama_source(), model_dir, "--outfile", out, "--outtype", outtype)
    done = warm.python("-c", CONVERTER, *words, modules=("torch", "transformers"), timeout=300, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{model_dir}: converter failed\n{done.stderr[-2000:]}")
