"""Replies with drafts beside the same replies without: what differs, and by how much.

    python -P tests/support/draft_campaign.py -m MODEL.gguf --heads HEADS.gguf --prompts 200 --tokens 128 --seeds 3

Each reply is drawn three times: plainly, with prompt lookup, and with drafts that know the plain reply and are wrong at
every fifth token, so that a model whose words never repeat is put to the test as well. A line of JSON for each at the end;
--json keeps them in bench/results/draft-campaign.json beside those of other models.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from autodeco_edge.engine.drafts import Drafts
from autodeco_edge.engine.engine import Engine
from autodeco_edge.engine.model import Model
from autodeco_edge.engine.sampler import SamplingParams, Step

DRAFTS = ("ngram", "known")
_TEXTS = (
    "Find two numbers that make {0}. Find two numbers that make {1}. Find",
    "The list has {0} names: Anna, Berta, Carl, Anna, Berta, Carl, Anna,",
    '[{{"id": {0}, "name": "fox"}}, {{"id": {1}, "name": "bird"}}, {{"id":',
    "Tell me a story about {0} foxes.",
    "def add_{0}(value):\n    return value + {0}\n\ndef add_{1}(value):\n",
    "Once upon a time there were {0} stars",
    "{0} {1} {0} {1} {0} {1}",
    "What is the capital of country number {0}?",
)


class Known(Drafts):
    """Knows the reply, and is wrong at every ``wrong``-th token of it; of a length that changes."""

    def __init__(self, n_vocab: int, prompt: Sequence[int] = (), reply: Sequence[int] = (), wrong: int = 0) -> None:
        self._n_vocab = n_vocab
        self.tell(prompt, reply, wrong)

    def tell(self, prompt: Sequence[int], reply: Sequence[int], wrong: int = 0) -> None:
        text = [*prompt, *reply, *reply]
        self.text = [(t + 1) % self._n_vocab if wrong and i and i % wrong == 0 else t for i, t in enumerate(text)]

    def propose(self, sequence: int, tokens: Sequence[int], n_max: int) -> list[int]:
        return self.text[len(tokens) : len(tokens) + 1 + len(tokens) % n_max]


@dataclass
class Differences:
    """Of replies to those drawn plainly. largest: of T or P, as far as the tokens are equal."""

    replies: int = 0
    equal: int = 0  # every field of every Step, to the bit
    same_ids: int = 0
    tokens: int = 0
    tokens_of_other_bits: int = 0
    largest: float = 0.0
    drafted: int = 0
    accepted: int = 0

    def add(self, got: Sequence[Step], want: Sequence[Step]) -> None:
        n_same = next((i for i, (a, b) in enumerate(zip(got, want, strict=False)) if a.id != b.id), len(want))
        self.replies += 1
        self.equal += list(got) == list(want)
        self.same_ids += n_same == len(want) == len(got)
        self.tokens += len(want)
        for a, b in zip(got[:n_same], want, strict=False):
            self.tokens_of_other_bits += a != b
            self.largest = max(self.largest, _distance(a, b))


def _distance(a: Step, b: Step) -> float:
    values = [(a.temperature_eff, b.temperature_eff), (a.top_p_eff, b.top_p_eff)]
    return max(abs(x - y) for x, y in values)


def prompts(model: Model, n: int) -> Iterator[list[int]]:
    for i in range(n):
        yield model.tokenize(_TEXTS[i % len(_TEXTS)].format(10 + i, 11 + i))


def compare(
    model: Model,
    heads: str | None,
    n_prompts: int,
    n_tokens: int,
    n_seeds: int,
    n_threads: int,
    draft_max: int,
    drafts: Sequence[str] = DRAFTS,
) -> dict[str, Differences]:
    how = {"heads": heads, "n_ctx": n_tokens + 128, "n_threads": n_threads}
    known = Known(model.n_vocab)
    kinds = {"ngram": "ngram", "known": known}
    engines = {name: Engine(model, draft=kinds[name], draft_max=draft_max, draft_cost=0.1, **how) for name in drafts}
    found = {name: Differences() for name in engines}
    with Engine(model, **how) as plain:
        for ids in prompts(model, n_prompts):
            for seed in range(n_seeds):
                settings = SamplingParams(seed=seed)
                want = list(plain.generate(ids, settings, max_tokens=n_tokens, stop_at_end=False))
                known.tell(ids, [step.id for step in want], 5)
                for name, engine in engines.items():
                    reply = engine.generate(ids, settings, max_tokens=n_tokens, stop_at_end=False)
                    found[name].add(list(reply), want)
                    found[name].drafted += reply.timings.draft_n
                    found[name].accepted += reply.timings.draft_n_accepted
    for engine in engines.values():
        engine.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--heads", default="auto")
    parser.add_argument("--draft-max", type=int, default=8)
    parser.add_argument("--drafts", nargs="+", choices=DRAFTS, default=DRAFTS)
    parser.add_argument("--name", help="of the model in the file; else what llama.cpp calls it")
    parser.add_argument("--json", type=Path)
    for name, default in (("prompts", 200), ("tokens", 128), ("seeds", 3), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    model = Model(args.model)
    sizes = (args.prompts, args.tokens, args.seeds, args.threads)
    found = compare(model, args.heads, *sizes, args.draft_max, args.drafts)
    how = dict(zip(("prompts", "length", "seeds", "threads"), sizes, strict=True))
    runs = [{"model": args.name or model.description, "draft": name, **how, **asdict(of)} for name, of in found.items()]
    for run in runs:
        print(json.dumps(run))
    if args.json:
        keep(args.json, runs)


def keep(path: Path, runs: Sequence[dict]) -> None:
    """In place of the same runs of before."""

    def name(run: dict) -> list:
        return [run[key] for key in ("model", "draft", "prompts", "length", "seeds", "threads")]

    before = json.loads(path.read_text()) if path.exists() else []
    kept = [run for run in before if name(run) not in map(name, runs)]
    lines = ",\n".join(json.dumps(run) for run in [*kept, *runs])
    path.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
