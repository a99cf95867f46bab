"""The llama-cpp-python source distribution: llama.cpp's converter and vocabularies.

Owns where it lies. It is fetched once into the cache (or found through AUTODECO_LLAMA_SOURCE),
because the installed wheel holds neither the converter nor the vocabulary files.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path

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
        _fetch(root.parent)
    source = root / "vendor" / "llama.cpp"
    return source if source.exists() else None


def _fetch(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--no-binary", ":all:", "-d", str(folder), f"llama-cpp-python=={VERSION}"]
    subprocess.run(command, check=False)
    for archive in folder.glob(f"llama_cpp_python-{VERSION}*.tar.gz"):
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")


def vocabulary(name: str) -> Path:
    """One of llama.cpp's ``ggml-vocab-<name>.gguf`` files."""
    return llama_source() / "models" / f"ggml-vocab-{name}.gguf"


def convert(model_dir: Path, out: Path, outtype: str = "f32") -> None:
    """Run llama.cpp's own converter on a Hugging Face folder."""
    script = llama_source() / "convert_hf_to_gguf.py"
    command = [sys.executable, str(script), str(model_dir), "--outfile", str(out), "--outtype", outtype]
    # the script imports modules that lie beside it
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode != 0:
        raise RuntimeError(f"{model_dir}: converter failed\n{done.stderr[-2000:]}")
