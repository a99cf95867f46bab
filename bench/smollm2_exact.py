"""Do the runtime and the lab ask the model the same? Of syllogisms, without drawing: `python -P bench/smollm2_exact.py`.

A right reply to a syllogism is nearly always "Yes", "Yes.", "No" or "No." and the end. What each of these gets is a product of
three or four shares of a nucleus, so of every problem the probability of a right reply of this form is known to the last
digit: with llama.cpp's hidden states and logits (activations rounded to 8 bits), and with those of the lab's plain Llama on
the dequantised weights. T and P of both, and the nucleus, are the numpy specification's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind the installed packages
from autodeco_edge.convert.verify import read_heads_gguf  # noqa: E402
from autodeco_edge.engine.model import Model  # noqa: E402
from autodeco_edge.eval.statistics import bootstrap, paired_bootstrap  # noqa: E402
from autodeco_edge.hub import resolve  # noqa: E402
from autodeco_edge.spec.heads import HeadWeights, forward  # noqa: E402
from autodeco_edge.spec.sampling import draw  # noqa: E402
from autodeco_edge.tasks import load_task  # noqa: E402
from autodeco_edge.tasks.gym import entry, parse  # noqa: E402
from autodeco_edge.text.chat import render  # noqa: E402
from autodeco_edge.train.gguf_states import HiddenStates  # noqa: E402
from bench.smollm2_lab.model import Llama  # noqa: E402
from tests.support.weights import weights_of  # noqa: E402

TASK = "rg:syllogism"
TABLE = Path(__file__).parent / "results" / "smollm2-table.json"
States = Callable[
    [list[int], int], tuple[np.ndarray, np.ndarray]
]  # ids, n -> (hidden [n, H], logits [n, V]) of the last n


def shares(rows: tuple[np.ndarray, np.ndarray], tokens: Sequence[int], heads: HeadWeights | None, fixed) -> np.ndarray:
    """[n, 2]: the probability of each of ``tokens`` but the first at its position, and that of the first, the end, there.

    rows: (hidden [n, H], logits [n, V]); fixed: T and P where there are no heads
    """
    found = []
    for hidden, logits, token in zip(*rows, tokens[1:], strict=True):
        t, p = forward(heads, hidden, logits)[:2] if heads else fixed
        probs = draw(logits, t, p, 0.0).probs
        found.append((probs[token], probs[tokens[0]]))
    return np.array(found)


def of_runtime(model: Model) -> tuple[States, Callable[[], None]]:
    reader = HiddenStates(model, 512, 1)

    def states(ids: list[int], n: int) -> tuple[np.ndarray, np.ndarray]:
        parts = list(reader.with_logits(ids))
        return tuple(np.concatenate([part[i] for part in parts])[-n:].copy() for i in (0, 1))

    return states, reader.close


def of_lab(path: Path) -> States:
    torch.set_num_threads(1)
    llama = Llama.load(path, torch.device("cpu"), torch.float32)

    @torch.no_grad()
    def states(ids: list[int], n: int) -> tuple[np.ndarray, np.ndarray]:
        hidden = llama.hidden_of(torch.tensor([ids]))[0, -n:]
        return hidden.numpy(), llama.logits(hidden).numpy()

    return states


def constants() -> dict[str, tuple[float, float]]:
    """The paper's default, and the heads' own mean."""
    own_mean = json.loads(TABLE.read_text())["exact"]["mean_shift"]
    return {"1/1": (1.0, 1.0), own_mean: tuple(map(float, own_mean.split("/")))}


def measure(states: States, model: Model, problems: list, heads: HeadWeights) -> dict[str, dict[str, np.ndarray]]:
    """method -> {"yes": [n] probability of "Yes" first, "right": [n] of a right reply of the four forms}."""
    words = {word: model.tokenize(word)[0] for word in ("Yes", "No")}
    (stop,) = model.tokenize(".")
    (end,) = model.tokenize("<|im_end|>", parse_special=True)
    given = constants()
    found = {name: {"yes": [], "right": []} for name in ("heads", *given)}
    for problem in problems:
        prompt = list(map(int, render(model, list(problem.messages))))
        answer = entry(*parse(TASK), int(problem.gt))["answer"]
        rows = {word: states([*prompt, token, stop], 3) for word, token in words.items()}
        for name, row in found.items():
            fixed = given.get(name)
            at = {
                w: shares(rows[w], (end, token, stop, end), None if fixed else heads, fixed)
                for w, token in words.items()
            }
            (word, _), (full_stop, at_once), (last, _) = at[answer]
            row["yes"].append(at["Yes"][0, 0])
            row["right"].append(word * (at_once + full_stop * last))
    return {name: {key: np.array(values) for key, values in row.items()} for name, row in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/smollm2-exact.json"))
    options = parser.parse_args()
    found = resolve("smollm2-135m", offline=True)
    problems = list(load_task(TASK, limit=options.count).problems)
    heads = weights_of(read_heads_gguf(found.heads))
    with closing(Model(found.model)) as model:
        states, close = of_runtime(model)
        here = measure(states, model, problems, heads)
        close()
        lab = measure(of_lab(found.model), model, problems, heads)
    result = {"problems": len(problems)}
    for name in here:
        result[name] = {
            key: {
                "runtime": asdict(bootstrap(here[name][key])),
                "lab": asdict(bootstrap(lab[name][key])),
                "runtime_minus_lab": asdict(paired_bootstrap(here[name][key], lab[name][key])),
                "largest": float(np.abs(here[name][key] - lab[name][key]).max()),
            }
            for key in ("yes", "right")
        }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
