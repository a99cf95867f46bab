"""How many schemas of the JSON Schema Test Suite are taken, and whether one of them lets an invalid instance through.

    pip download --no-deps --no-binary jsonschema jsonschema==4.26.0     # its sources hold the suite in json/tests
    python -m bench.schema_suite jsonschema-4.26.0/json/tests/draft2020-12/*.json

Schemas of an older draft's folder that name no dialect get that one's name.

Each instance that the suite calls invalid is fed to the grammar byte by byte, in two ways of writing it; one that may end
there is wrong. Instances in another order of properties, and replies that nobody wrote down, are not tried here
(tests/support/schemas.py draws those).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

from autodeco_edge.engine.grammar import Grammar
from autodeco_edge.errors import FormatError
from tests.support.schemas import byte_tokenizer

_DRAFTS = {f"draft{n}": f"http://json-schema.org/draft-0{n}/schema#" for n in (4, 6, 7)}


def named(schema, path: Path):
    dialect = next((_DRAFTS[part] for part in path.parts if part in _DRAFTS), None)
    return {"$schema": dialect, **schema} if dialect and isinstance(schema, dict) else schema


def allows(matcher, data: bytes) -> bool:
    matcher.reset()
    return matcher.try_consume_tokens(list(data)) == len(data) and matcher.is_accepting()


def main(paths: list[str]) -> int:
    tokenizer, counts = byte_tokenizer(), Counter()
    for path in map(Path, paths):
        for group in json.loads(path.read_text(encoding="utf-8")):
            try:
                matcher = Grammar.from_schema(json.dumps(named(group["schema"], path))).matcher(tokenizer)
            except FormatError:
                counts["refused"] += 1
                continue
            counts["accepted"] += 1
            for test in group["tests"]:
                texts = {json.dumps(test["data"], ensure_ascii=False, separators=s) for s in (None, (",", ":"))}
                allowed = any(allows(matcher, text.encode("utf-8", "surrogatepass")) for text in texts)
                counts["valid instances that no reply can be"] += test["valid"] and not allowed
                if allowed and not test["valid"]:
                    counts["WRONG"] += 1
                    print(f"wrong: {path.name}: {group['description']}: {test['description']}")
    print(dict(counts))
    return int(counts["WRONG"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
