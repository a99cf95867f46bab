"""Owns the way back from ChatML text to messages: commands can be appended to a message, not to finished text.

python -m demo.messages SAMPLES.jsonl OUT.jsonl [--count N]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from autodeco_edge.tasks.demo.problem import IM_END, IM_START, turn

_TURN = re.compile(rf"{re.escape(IM_START)}(\w+)\n(.*?){re.escape(IM_END)}\n", re.DOTALL)
_HEADER = f"{IM_START}assistant\n"


def messages(prompt: str, completion: str) -> list[dict[str, str]]:
    """The turns of a prompt that ends in the assistant's header, and the completion as the last one."""
    body = prompt.removesuffix(_HEADER)
    turns = _TURN.findall(body)
    if body == prompt or "".join(turn(role, content) for role, content in turns) != body:
        raise ValueError(f"not ChatML up to the assistant's header: {prompt!r}")
    return [{"role": role, "content": content} for role, content in (*turns, ("assistant", completion))]


def convert(path: Path) -> Iterator[str]:
    """A JSON line for each line of ``samples.jsonl``."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            record = {"messages": messages(row["prompt"], row["completion"]), "family": row["family"]}
            yield json.dumps(record, ensure_ascii=False) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="ChatML samples as messages.")
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=None, help="the first N, in a mix of families")
    args = parser.parse_args()
    lines = list(convert(args.samples))
    step = max(1, len(lines) // args.count) if args.count else 1
    args.out.write_text("".join(islice(lines[::step], args.count)), encoding="utf-8")


if __name__ == "__main__":
    main()
