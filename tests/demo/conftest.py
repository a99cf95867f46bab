"""A tokenizer and a tiny random model of the demo's own kind, and its F32 GGUF, made once for these tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The recipe is no part of the package, so it is found in the repository, after everything that is installed.
sys.path.append(str(Path(__file__).parents[2]))

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch

    from demo.base import new_model
    from demo.tokenizer import build_tokenizer

    directory = tmp_path_factory.mktemp("tiny")
    build_tokenizer(directory, seed=0)
    model = new_model(0, hidden_size=64, num_hidden_layers=2, intermediate_size=96)
    with torch.no_grad():  # biases and norms start as zeros and ones: random ones show a misplaced tensor
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
            else:
                parameter.mul_(4.0)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_gguf(tiny_dir: Path) -> Path:
    from demo.export import export_gguf

    return export_gguf(tiny_dir, tiny_dir / "tiny-f32.gguf", "f32")
