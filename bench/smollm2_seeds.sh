#!/usr/bin/env bash
# Heads of three training seeds on the same replies, and those of a `fit` of an hour, beside those of a card, in the lab:
#   bash bench/smollm2_seeds.sh build/smollm2.gguf.fit LAB STATE build/seeds
# FIT is the work folder of `autodeco-edge fit -m smollm2-135m --minutes 60` (its right replies are the data), LAB what `bench.smollm2_lab pack` made, STATE
# what the lab brought back. About 40 minutes on two cores; heads and methods that are there are not made again.
set -eu
fit=$1 lab=$2 state=$3 out=$4
model=$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", "none", offline=True).model)')
for part in short long; do
    mkdir -p "$out/$part" && cp "$state/chosen.json" "$state/reward-all-0.heads" "$out/$part"
done
for seed in 0 1 2; do
    [ -e "$out/seed-$seed/model.safetensors" ] || autodeco-edge train -m "$model" --data "$fit/right.jsonl" --seed $seed --max-steps 150 \
        -o "$out/seed-$seed" < /dev/null
done
beside() { # part, samples a problem by group
    python -P -m bench.smollm2_lab more "$lab" --out "$out/$1" --device cpu --dtype bf16 --batch 96 --draws "$2" --policies \
        reward-all-0 "recipe-reward=$fit/reward.gguf" "seed-0=$out/seed-0" "seed-1=$out/seed-1" "seed-2=$out/seed-2"
}
beside short '{"exact": 3, "many": 8}'
python -P bench/smollm2_seeds.py "$out/short"
beside long '{"write": 1}'
python -P bench/smollm2_seeds.py "$out/short" "$out/long"
