"""A module imports only from a lower layer (docs: the layer list), and stays light.

The list is the architecture; a new module has to be given its place here.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import structure

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
    "dropin": 8,
    "train": 8,
    "bench": 9,
    "eval": 9,
    "collect": 10,
    "fit": 11,
    "server": 11,
    "cli": 12,
    "__main__": 13,
    "__init__": 13,
}
# The same within a room, from the bottom to the top: a module imports only from what stands left of a "<" before it.
# Imports for annotations alone may point up (cli: a session and its commands know each other's types).
INSIDE = {
    "io": "atomic child digest exchange extras interpreter printing reading regular < lock < folder",
    "gguf": "keys raw_file types < reader < model_file < model_check",
    "spec": "heads < sampling soft_nucleus speculative",
    "convert": """
        checkpoint_config safetensors_reader tensors < sources < checkpoint < base < layout < verify <
        describe export < merge
    """,
    "engine": """
        cpu draft_cost expressions guidance_words handle json_references library memory schema_words waiting < devices drafts ecma gbnf native tokenizer <
        json_schema lexemes < grammar model < sampler < context mask pairing plain < forced row_times < filters < generation < draft_model prompt_lookup slots strategies < draft_kinds drawing shared_prompt < drafting < scheduler < engine
    """,
    "tasks": """
        answers commands demo demo.words everyday.family everyday.lists everyday.reading gym_worker math_pool
        math_worker problem splits writing.wellformed < demo.problem everyday.names everyday.numbers gym
        writing.forms < demo.arithmetic demo.chats demo.puzzles demo.stories everyday.families writing <
        demo.families everyday < sources < rows verifier < task
    """,
    "text": "colours shapes streaming template template_child trace < chat plot reasoning reply < talk",
    "hub": "names registry remote variants < cache < download installed < heads < inspect resolve < inventory",
    "dropin": "chain checked formats logprobs options signatures trial < chat < llama < trial_child",
    "train": """
        advantages data gguf_states gguf_tokenizer lm_head modules recipe sampling tap < base checkpoint
        losses pressed < batches constant_heads fast_losses model replay < backbone compare objective < gguf_backbone head_run
        hidden_cache hyperparameters processes steer < metrics plan rollouts < constant_baseline gradient
        progress record < diagnostics early_stopping state < offline reinforce trainer
    """,
    "bench": "_native heads stats < machine < busy decode step < loss",
    "eval": "diversity methods results schedule statistics < likelihood samples < entropy progress report steering < evaluation figures",
    "collect": "chat_form client source < endpoint local rejection < ledger progress < collection",
    "fit": "heads_file settings state < pool < measure < fitting report",
    "server": """
        encoding errors fair_queue limits page_files schema wire < connection guard service settings threads tools < metrics prompts <
        replies < answers < stream < bodies < app < listen
    """,
    "cli": """
        bar bench colour config_file convert interrupts models piped refusals rpc_worker terminal window wrap < doctor screen settings
        terminal_plot last_conversation < plot < collect eval options train < arguments config fit status < opening session <
        compare settable < commands < completion < line_reader < conversation < run serve
    """,
}
GRAPH = structure.import_graph(ROOT)


def modules() -> list[tuple[str, Path]]:
    return [(structure.room(module), path) for module, path in structure.source_files(ROOT).items()]


def test_imports_point_down():
    """Also those inside functions and for annotations."""
    assert structure.up(structure.import_graph(ROOT, types=True), LAYERS) == []


@pytest.mark.parametrize("room", sorted({structure.room(module) for module in GRAPH} - {"__init__"}))
def test_imports_inside_a_room_point_down(room):
    """A room's own file stands outside: it may name all of them."""
    graph = structure.inside(GRAPH, room)
    package = f"autodeco_edge.{room}"
    level = {
        f"{package}.{module}": i for i, group in enumerate(INSIDE.get(room, "").split("<")) for module in group.split()
    }
    modules = graph.keys() - {package}
    assert modules == level.keys(), f"INSIDE: {sorted(modules ^ level.keys())} need a place, or have one too many"
    up = [(m, other) for m in modules for other in graph[m] - {package} if level[other] >= level[m]]
    assert not up, f"not below: {up}"
    assert structure.cycles(graph) == []


def test_no_two_classes_share_a_name():
    """One name, one thing. engine/native.py mirrors C structs under the names of C."""
    assert structure.shared_class_names(structure.source_files(ROOT), apart=("autodeco_edge.engine.native",)) == {}


def test_circles_and_arrows_up_are_seen(tmp_path):
    """The reader of imports: relative and absolute, of modules and of names, in functions, and for annotations apart."""
    for name, text in {
        "autodeco_edge/__init__.py": "from .low.a import f\n",
        "autodeco_edge/low/__init__.py": "",
        "autodeco_edge/low/a.py": "def f():\n    from . import b\n",
        "autodeco_edge/low/b.py": "import autodeco_edge.low.c\n",
        "autodeco_edge/low/c.py": "from .a import f\nif TYPE_CHECKING:\n    from ..high.d import g\n",
        "autodeco_edge/high/d.py": "from autodeco_edge.low import a\nfrom ..convert.e import h\n",
        "convert/e.py": "if TYPE_CHECKING:\n    from ..low.a import f\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    graph, typed = structure.import_graph(tmp_path), structure.import_graph(tmp_path, types=True)
    low = [f"autodeco_edge.low.{name}" for name in "abc"]
    assert structure.cycles(graph) == structure.cycles(structure.inside(graph, "low")) == [low]
    assert graph["autodeco_edge.high.d"] == {low[0], "autodeco_edge.convert.e"}
    assert (graph["autodeco_edge.convert.e"], typed["autodeco_edge.convert.e"]) == (set(), {low[0]})
    layers = {"low": 0, "convert": 1, "high": 2}
    assert structure.up(graph, layers) == []
    assert structure.up(typed, layers) == [f"{low[2]} -> autodeco_edge.high.d"]


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
