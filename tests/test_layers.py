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
    "paths": 1,
    "io": 1,
    "records": 2,
    "gguf": 3,
    "spec": 4,
    "convert": 5,
    "engine": 6,
    "tasks": 6,
    "text": 7,
    "hub": 7,
    "train": 8,
    "bench": 9,
    "eval": 9,
    "collect": 10,
    "cli": 11,
    "__main__": 12,
    "__init__": 12,
}
# Rooms are packages: inside one of them, modules import each other.


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
    "module", ["autodeco_edge", "autodeco_edge.cli", "autodeco_edge.convert.checkpoint", "autodeco_edge.engine.engine"]
)
def test_import_needs_no_torch(module):
    code = f'import sys, {module}; bad = {{"torch", "transformers"}} & set(sys.modules); sys.exit(bad and ", ".join(bad) or 0)'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
