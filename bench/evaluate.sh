#!/usr/bin/env bash
# Everything that docs/results.md shows, on the demo model. Some hours on 2 cores; what is there is not made again.
#
#     bash bench/evaluate.sh BIN DEMO OUT RESULTS
#
# BIN: folder of autodeco-edge and python. DEMO: what `make demo-model` left (base/, heads/, samples.jsonl).
# OUT: heads, models and samples. RESULTS: where the reports go.

set -euo pipefail
bin=$1 demo=$2 out=$3 results=$4
export OMP_NUM_THREADS=1 PATH="$bin:$PATH"
mkdir -p "$out" "$results"

# ---- models: the base in four types ----------------------------------------------------------------------------

for type in f32 f16 q8_0; do
    [ -e "$out/$type.gguf" ] || python -P demo/make.py export "$demo/base" "$out/$type.gguf" --outtype "$type"
done
[ -e "$out/q4_k_m.gguf" ] || python -P -c 'import sys; sys.path.append("."); from pathlib import Path
from bench.make_model import quantise; quantise(*map(Path, sys.argv[1:]))' "$out/f32.gguf" "$out/q4_k_m.gguf"

# ---- heads: each objective, then rewards on top of the official ones ---------------------------------------------

train() { # name, options
    local name=$1
    shift
    [ -e "$out/$name.gguf" ] && return
    autodeco-edge train -m "$out/q8_0.gguf" -t 1 -o "$out/$name" "$@"
    autodeco-edge convert "$out/$name" --base "$out/q8_0.gguf" -o "$out/$name.gguf"
}
data=(--data "$demo/samples.jsonl" --epochs 3 --lr 1e-3 --log-every 50)
reward=(--objective reward --problems demo --init "$demo/heads" -n 120 -c 256 --parallel 32 --save-every 5)
[ -e "$out/official.gguf" ] || autodeco-edge convert "$demo/heads" --base "$out/q8_0.gguf" -o "$out/official.gguf"
train likelihood "${data[@]}" --objective likelihood
train joint "${data[@]}" --objective joint
train nemo "${data[@]}" --loss nemo
train reward "${reward[@]}" --lr 1e-3 --max-steps 70
train reward-85 "${reward[@]}" --lr 1e-3 --max-steps 85
train reward-temp "${reward[@]}" --lr 5e-4 --max-steps 100 --heads temp --seed 1
[ -e "$out/q4.gguf" ] || {
    autodeco-edge train -m "$out/q4_k_m.gguf" -t 1 -o "$out/q4" "${data[@]}"
    autodeco-edge convert "$out/q4" --base "$out/q4_k_m.gguf" -o "$out/q4.gguf"
    autodeco-edge train -m "$out/f16.gguf" -t 1 -o "$out/f16-heads" "${data[@]}"
    autodeco-edge convert "$out/f16-heads" --base "$out/f16.gguf" -o "$out/f16-heads.gguf"
}

# ---- which heads, on the calibration split; then all methods on the test problems ---------------------------------

draw=(--resume -n 200 -c 256 -t 1 --json)
methods=() with=()
for name in official likelihood joint nemo reward reward-85 reward-temp; do
    methods+=("autodeco@$name") with+=(--with "$name=$out/$name.gguf")
done
autodeco-edge eval --task demo --split calibration --count 120 --samples 16 --seeds 1 "${draw[@]}" "${with[@]}" \
    --methods "$(IFS=,; echo "${methods[*]}")" -o "$out/choice" > "$results/eval-choice.json"
autodeco-edge eval --task demo --count 200 --samples 16 --seeds 8 "${draw[@]}" --with reward="$out/reward.gguf" \
    --methods greedy,default,card,mean-shift,min-p,dynatemp,expert,autodeco-t,autodeco-p,autodeco,mean-shift@reward,autodeco@reward \
    --expert-samples 8 --frontier 16 -o "$out/demo" > "$results/eval-demo.json"

# ---- given texts, and quantisation -----------------------------------------------------------------------------

shuf -n 60 --random-source=<(yes) "$demo/samples.jsonl" > "$out/texts.jsonl"
autodeco-edge eval drift --data "$out/texts.jsonl" -t 1 --json \
    --variant f16="$out/f16.gguf,$out/f16-heads.gguf" --variant q8_0="$out/q8_0.gguf,$out/f16-heads.gguf" \
    --variant q4_k_m="$out/q4_k_m.gguf,$out/f16-heads.gguf" --variant q4_k_m-own="$out/q4_k_m.gguf,$out/q4.gguf" \
    > "$results/eval-drift.json"

# ---- commands: before and after training on them -----------------------------------------------------------------

steer=(--task demo --count 100 -t 1 -n 300 --commands unseen --resume --json)
[ -e "$out/messages.jsonl" ] || python -P demo/make.py messages "$demo/samples.jsonl" "$out/messages.jsonl" --count 1600
[ -e "$out/steered.gguf" ] || {
    autodeco-edge train -m "$out/q8_0.gguf" -t 1 --init "$demo/heads" --data "$out/messages.jsonl" -o "$out/steered" \
        --steer --lr 2e-3 --schedule cosine --max-steps 100
    autodeco-edge convert "$out/steered" --base "$out/q8_0.gguf" -o "$out/steered.gguf"
}
autodeco-edge eval steering -m "$out/q8_0.gguf" --heads "$out/official.gguf" --samples 4 "${steer[@]}" -o "$out/steer-before" \
    > "$results/eval-steering-before.json"
autodeco-edge eval steering -m "$out/q8_0.gguf" --heads "$out/steered.gguf" --samples 2 "${steer[@]}" -o "$out/steer-after" \
    > "$results/eval-steering-after.json"
