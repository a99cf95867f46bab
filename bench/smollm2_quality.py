"""Open writing judged by a second model: `python -P bench/smollm2_quality.py JUDGE.gguf EVALS --lab STATE --work FOLDER`.

JUDGE is Gemma-3-270M, a base model of another family (bench/gemma3.sh says where it comes from): the mean log-probability that
it gives to a token of a reply behind its request, both as plain text. STATE and EVALS as in smollm2_table.py. A reply a
problem and method, its first tokens; diversity is that of the first four replies of the same problems. What is scored lies in
FOLDER and is not scored again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np

from autodeco_edge.engine.model import Model
from autodeco_edge.eval.diversity import distinct, self_bleu
from autodeco_edge.eval.statistics import bootstrap, paired_bootstrap
from autodeco_edge.hub import resolve
from autodeco_edge.tasks import load_task
from autodeco_edge.train.gguf_states import HiddenStates

sys.path.append(str(Path(__file__).resolve().parent.parent))  # behind the installed packages
from bench.smollm2_table import AMONG, GROUPS, HEADS, PROBLEMS, drawn, of_lab, own_means  # noqa: E402

METHODS = (HEADS, "0.8/0.95", "1/1", "0.6/0.95", "reward-all-0", "likelihood-0")  # and the heads' own mean


class Judge:
    """``score(request, reply)``: mean ln p of the reply's first tokens, and how many they are."""

    def __init__(self, path: Path, n_tokens: int, n_threads: int) -> None:
        self.model = Model(path)
        self._states = HiddenStates(self.model, 512, n_threads)
        self._n = n_tokens

    def score(self, request: str, reply: str) -> tuple[float, int]:
        prompt = self.model.tokenize(f"{request}\n\n")
        ids = [*prompt, *self.model.tokenize(reply.strip(), add_special=False)][: len(prompt) + self._n]
        found, position = [], 0
        for _, logits in self._states.with_logits(ids[:-1]):
            for row in logits:
                position += 1
                if position >= len(prompt):
                    top = row.max()
                    found.append(float(row[ids[position]] - top - np.log(np.exp(row - top, dtype=np.float64).sum())))
        return float(np.mean(found)), len(found)

    def close(self) -> None:
        self._states.close()
        self.model.close()


def replies(evals: Path, state: Path, per_kind: int) -> tuple[list[str], dict[str, list[list[str]]]]:
    """Requests, and method -> texts of each: the first problems of every kind that all methods have a text of."""
    small = Model(resolve("smollm2-135m", "none", offline=True).model)
    vocab = [small.token_bytes(i) for i in range(small.n_vocab)]
    problems = [p for kind in GROUPS["write"] for p in load_task(kind, limit=PROBLEMS["write"]).problems]
    found = of_lab(state, "write", vocab) | drawn(evals, [p.id for p in problems])
    methods = (*METHODS, own_means(state)["write"])
    texts = {m: [[text for _, text in of if text.strip()] for of in found[m]] for m in methods}
    chosen = []
    for kind in GROUPS["write"]:
        own = [i for i, p in enumerate(problems) if p.kind == kind and all(texts[m][i] for m in methods)]
        chosen += own[:per_kind]
    return [problems[i].messages[-1]["content"] for i in chosen], {m: [texts[m][i] for i in chosen] for m in methods}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("judge", type=Path)
    parser.add_argument("evals", type=Path)
    parser.add_argument("--lab", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--per-kind", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path, default=Path("bench/results/smollm2-quality.json"))
    options = parser.parse_args()
    requests, texts = replies(options.evals, options.lab, options.per_kind)
    options.work.mkdir(parents=True, exist_ok=True)
    result: dict = {"judge": options.judge.name, "n_problems": len(requests), "tokens": options.tokens, "methods": {}}
    scores: dict[str, np.ndarray] = {}
    with closing(Judge(options.judge, options.tokens, options.threads)) as judge:
        for method in texts:
            scores[method] = np.array(
                _scores(judge, requests, texts[method], options.work / f"{method.replace('/', '-')}.json")
            )
    for method in texts:
        four = [of[: AMONG["write"]] for of in texts[method] if len(of) >= AMONG["write"]]
        result["methods"][method] = {
            "log_p": asdict(bootstrap(scores[method])),
            "heads_minus_it": asdict(paired_bootstrap(scores[HEADS], scores[method])),
            "spread": asdict(bootstrap([1 - self_bleu(of) for of in four])),
            "distinct_2": asdict(bootstrap([distinct(of, 2) for of in four])),
        }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def _scores(judge: Judge, requests: list[str], texts: list[list[str]], file: Path) -> list[float]:
    """Of the first text of each request, as far as it is not in the file."""
    found: list[float] = json.loads(file.read_text()) if file.exists() else []
    for request, of in list(zip(requests, texts, strict=True))[len(found) :]:
        clock = time.process_time()
        score, n = judge.score(request, of[0])
        found.append(score)
        file.write_text(json.dumps(found))
        print(
            f"{file.stem} {len(found)} of {len(requests)}: {score:.3f} over {n}, {time.process_time() - clock:.1f} s",
            file=sys.stderr,
        )
    return found


if __name__ == "__main__":
    main()
