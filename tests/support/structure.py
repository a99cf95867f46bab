"""Figures of the source: python tests/support/structure.py [ROOT] prints them. Also the import graph that
tests/test_layers.py judges.

Reads source, imports nothing: it runs on any commit's tree.
"""

from __future__ import annotations

import ast
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

Graph = dict[str, set[str]]


def source_files(root: Path) -> dict[str, Path]:
    """Dotted module name, from autodeco_edge on, to its file; convert/ is autodeco_edge.convert."""
    found = {}
    for folder, name in ((root / "autodeco_edge", "autodeco_edge"), (root / "convert", "autodeco_edge.convert")):
        for path in sorted(folder.rglob("*.py")):
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


def import_graph(root: Path, types: bool = False) -> Graph:
    """Module to the modules of the package that it imports, when it is loaded or called; ``types``: for annotations too."""
    files = source_files(root)
    graph: Graph = {}
    for name, path in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        nodes = _imports(ast.parse(path.read_text(encoding="utf-8")), types)
        graph[name] = {target for node in nodes for target in _targets(node, package, files)} - {name}
    return graph


def _imports(node: ast.AST, types: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif types or not (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)):
            yield from _imports(child, types)


def _targets(node: ast.Import | ast.ImportFrom, package: str, files: dict[str, Path]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in files)
        return
    base = node.module or ""
    if node.level:
        parents = package.split(".")[: len(package.split(".")) - node.level + 1]
        base = ".".join([*parents, base]).rstrip(".")
    for alias in node.names:
        if f"{base}.{alias.name}" in files:
            yield f"{base}.{alias.name}"
        elif base in files:
            yield base


def room(module: str) -> str:
    """The package or loose module of the first level that a module belongs to."""
    return [*module.split("."), "__init__"][1]


def inside(graph: Graph, name: str) -> Graph:
    """The graph of one room."""
    members = {module for module in graph if room(module) == name}
    return {module: graph[module] & members for module in members}


def cycles(graph: Graph) -> list[list[str]]:
    """Sets of modules that reach each other, sorted (Tarjan's strongly connected components of two or more)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                found.append(sorted(stack[at:]))
            del stack[at:]

    for name in sorted(graph):
        if name not in index:
            visit(name)
    return found


def layers_of(root: Path) -> dict[str, int]:
    """The table of tests/test_layers.py."""
    for node in ast.parse((root / "tests" / "test_layers.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS":
            return ast.literal_eval(node.value)
    return {}


def up(graph: Graph, layers: dict[str, int]) -> list[str]:
    """Imports from one room into another that does not lie below it. The package's own file runs before all of them
    and names them only on demand, so it is above and below."""
    return sorted(
        f"{module} -> {other}"
        for module, others in graph.items()
        for other in others
        if room(module) != room(other)
        and "__init__" not in (room(module), room(other))
        and not layers[room(other)] < layers[room(module)]
    )


def shared_class_names(files: dict[str, Path], apart: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Public classes of one name in several modules, those ``apart`` left out."""
    homes: dict[str, list[str]] = {}
    for module in files.keys() - set(apart):
        for node in ast.parse(files[module].read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(module)
    return {name: sorted(modules) for name, modules in homes.items() if len(modules) > 1}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """(name, lines with the docstring, without decorators) of every def."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield node.name, node.end_lineno - node.lineno + 1


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parents[2])
    files, graph = source_files(root), import_graph(root)
    loose = [n.split(".")[1] for n, p in files.items() if n.count(".") == 1 and p.name != "__init__.py"]
    arrows = up(import_graph(root, types=True), layers_of(root))
    circles = [c for name in sorted({room(m) for m in files}) for c in cycles(inside(graph, name))]
    lengths = sorted(n for path in files.values() for _, n in functions(path))
    commands = {p: functions(p) for module, p in files.items() if room(module) == "cli"}
    long = [f"{path.name}:{name} {n}" for path, found in commands.items() for name, n in found if n > 60]
    p90 = lengths[int(0.9 * len(lengths))]
    print(f"loose modules on the top level  {len(loose)}  {', '.join(loose)}")
    print(f"arrows up between rooms         {len(arrows)}  {', '.join(arrows)}")
    print(f"import cycles inside rooms      {len(circles)}  {'; '.join(', '.join(c) for c in circles)}")
    shared = shared_class_names(files, apart=("autodeco_edge.engine.native",))
    print(f"class names of two modules      {len(shared)}  {', '.join(shared)}")
    print(f"lines of a function             median {statistics.median(lengths):g}, p90 {p90}, of {len(lengths)}")
    print(f"functions of cli/ over 60 lines {len(long)}  {', '.join(long)}")
    print(f"modules                         {len(files)}")
    print(
        f"lines                           {sum(len(p.read_text(encoding='utf-8').splitlines()) for p in files.values())}"
    )


if __name__ == "__main__":
    main()
