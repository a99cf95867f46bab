"""The folder that travels there, and the archives that come back."""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

PART_BYTES = 47 << 20
TASKS = (
    "exact:sum",
    "exact:chain",
    "exact:story",
    "exact:capital",
    "many:country",
    "many:neighbour",
    "many:thing",
    "many:other",
    "many:rhyme",
    "many:add",
    "many:multiply",
    "many:between",
    "many:bound",
    "write:story",
    "write:list",
    "write:advice",
    "write:describe",
    "write:letter",
)
RG = (
    "rg:chain_sum,min_terms=2,max_terms=2,max_digits=1",
    "rg:chain_sum,min_terms=2,max_terms=2,min_digits=1,max_digits=2",
    "rg:gcd,min_value=2,max_value=20",
    "rg:coin_flip,min_trials=1,max_trials=3",
    "rg:syllogism",
    "rg:calendar_arithmetic",
)  # each has one right answer, which the library compares as text


def pack(options: argparse.Namespace) -> None:
    """FOLDER/a (first part, all else) and FOLDER/b (second part)."""
    from autodeco_edge.engine.model import Model
    from autodeco_edge.tasks import load_task
    from autodeco_edge.text.chat import render

    folder = Path(options.folder)
    (folder / "a").mkdir(parents=True, exist_ok=True)
    (folder / "b").mkdir(exist_ok=True)
    model = Model(options.model)
    rows = []
    for task in (*TASKS, *options.rg):
        for split, count in (("test", options.count), ("calibration", 40), ("train", 3 * options.count)):
            for p in load_task(task, count=count, split=split).problems:
                ids = list(map(int, render(model, list(p.messages))))
                row = {"id": p.id, "kind": p.kind, "gt": p.gt, "split": split, "ids": ids}
                rows.append(row | ({"reference": reference(p)} if p.kind.startswith("rg:") else {}))
    vocab = [model.token_bytes(i, special=True) for i in range(model.n_vocab)]
    data = json.dumps({"problems": rows, "vocab": [v.hex() for v in vocab]}).encode()
    (folder / "a" / "problems.json.gz").write_bytes(gzip.compress(data, 6, mtime=0))
    whole = Path(options.model).read_bytes()
    for name, part in (("a/model.part0", whole[:PART_BYTES]), ("b/model.part1", whole[PART_BYTES:])):
        (folder / name).write_bytes(part)
    (folder / "a" / "model.sha256").write_text(hashlib.sha256(whole).hexdigest())
    copy_source(folder / "a" / "source")
    copy_files(Path(__file__).parent, folder / "a" / "smollm2_lab")
    model.close()
    print(f"{len(rows)} problems, {sum(len(r['ids']) for r in rows) / len(rows):.0f} tokens a prompt")


def reference(problem: Any) -> str:
    """reasoning-gym's own answer."""
    from autodeco_edge.tasks import gym

    family, settings = gym.parse(problem.kind)
    return gym.entry(family, settings, int(problem.gt))["answer"]


def copy_source(folder: Path) -> None:
    """The package's Python files and data, without what is compiled."""
    root = Path(__file__).resolve().parents[2]
    for top, inside in (("autodeco_edge", "autodeco_edge"), ("convert", "autodeco_edge/convert")):
        copy_files(root / top, folder / inside)


def copy_files(top: Path, to: Path) -> None:
    for path in sorted(top.rglob("*")):
        wanted = path.suffix in (".py", ".txt", ".json", ".jinja") and "__pycache__" not in path.parts
        if wanted and path.stat().st_size < 1 << 20:
            target = to / path.relative_to(top)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def collect_files(options: argparse.Namespace) -> None:
    """state/ -> OUT/results-*.tar, none above 15 MiB: at most eight files come back."""
    import tarfile

    state, out = Path(options.out or Path(options.folder) / "state"), Path(options.to)
    files = sorted(p for p in state.iterdir() if p.suffix in (".json", ".heads", ".txt", ".npz"))
    files.sort(key=lambda p: (p.suffix == ".npz", p.name.startswith("calibration"), p.name))
    number, size, tar = 0, 0, None
    for path in files:
        if tar is None or size + path.stat().st_size > 15 << 20:
            if tar:
                tar.close()
            tar = tarfile.open(out / f"results-{number}.tar", "w")  # noqa: SIM115
            size, number = 0, number + 1
        tar.add(path, path.name)
        size += path.stat().st_size + 1024
    if tar:
        tar.close()
    print(f"{len(files)} files in {number} archives")
