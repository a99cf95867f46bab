"""A module imports only from a lower layer (docs: the layer list), and stays light.

The list is the architecture; a new module has to be given its place here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LAYERS = {
    "errors": 0,
    "format": 1,
    "paths": 1,
    "template_child": 1,
    "pieces": 1,
    "heads": 2,
    "sampling": 3,
    "_lib": 2,
    "cpu": 2,
    "tasks": 2,
    "template": 2,
    "config": 2,
    "pattern": 2,
    "records": 2,
    "_native": 3,
    "convert": 3,
    "schema": 3,
    "sampler": 4,
    "model": 4,
    "hub": 4,
    "memory": 4,
    "plot": 4,
    "runtime": 5,
    "chat": 5,
    "filters": 5,
    "batch": 6,
    "trace": 6,
    "llama": 6,
    "train": 7,
    "bench": 8,
    "eval": 8,
    "collect": 9,
    "cli": 10,
    "__main__": 11,
    "__init__": 11,
}
# convert, train, bench and cli are packages: inside one of them, modules import each other.


def modules() -> list[tuple[str, Path]]:
    files = [
        (p, p.relative_to(ROOT / "autodeco_edge").parts[0].removesuffix(".py"))
        for p in (ROOT / "autodeco_edge").rglob("*.py")
    ]
    files += [(p, "convert") for p in (ROOT / "convert").rglob("*.py")]
    return [(name, path) for path, name in files]


def imported(path: Path, package: str) -> set[str]:
    """Top-level modules of autodeco_edge that a file imports when it is loaded or called."""
    depth = 2 if path.is_relative_to(ROOT / "convert") else len(path.relative_to(ROOT / "autodeco_edge").parts)
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names |= {node.module.split(".")[0]} if node.module else {a.name for a in node.names}
    return names - {package}


@pytest.mark.parametrize("name,path", modules(), ids=lambda x: str(x) if isinstance(x, str) else x.name)
def test_imports_point_down(name, path):
    for other in imported(path, name):
        if other in LAYERS and name != "__init__":
            assert LAYERS[other] < LAYERS[name], (
                f"{path.name} (layer {LAYERS[name]}) imports {other} (layer {LAYERS[other]})"
            )
        assert other in LAYERS or not (ROOT / "autodeco_edge" / other).exists(), f"{other} has no layer"


def test_every_module_has_a_layer():
    missing = {name for name, _ in modules()} - LAYERS.keys()
    assert not missing, f"give {missing} a layer"


def absolute_imports(path: Path) -> set[str]:
    """Top-level names of every `import x` and `from x import` in a file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_torch_lives_in_train_only():
    for name, path in modules():
        if name != "train" and path.name != "train.py":  # cli/train.py is its command
            assert not absolute_imports(path) & {"torch", "transformers", "accelerate"}, (
                f"{path}: torch lives in train only"
            )


@pytest.mark.parametrize(
    "module", ["autodeco_edge", "autodeco_edge.cli", "autodeco_edge.convert.checkpoint", "autodeco_edge.runtime"]
)
def test_import_needs_no_torch(module):
    code = f'import sys, {module}; bad = {{"torch", "transformers"}} & set(sys.modules); sys.exit(bad and ", ".join(bad) or 0)'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
