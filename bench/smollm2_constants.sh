#!/usr/bin/env bash
# The heads of SmolLM2 beside constants with their own mean, min-p and dynatemp, on two cores, about 40 minutes of CPU time:
#   bash bench/smollm2_constants.sh build/constants && python -P bench/smollm2_constants.py build/constants --lab STATE
# Goes on where it was stopped. The order puts first what decides most.
set -eu
out=$1
model=$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", "none", offline=True).model)')
heads=$(python -c 'from autodeco_edge.hub import resolve; print(resolve("smollm2-135m", offline=True).heads)')

draw() { # task, tokens of a reply, problems, replies, methods
    autodeco-edge eval -m "$model" --heads "$heads" --task "$1" -n "$2" --limit "$3" --samples "$4" --seeds 1 \
        --methods "$5" -o "$out/${1/:/-}" --threads 1 --resume < /dev/null
}
many() { for task in many:country many:other many:bound; do draw $task 40 53 16 "$1"; done; }
write() { for task in write:story write:list write:advice write:letter; do draw $task 200 40 "$1" "$2"; done; }

many 0.771/0.9
write 4 0.984/0.916
many 0.771/0.9,autodeco,min-p,dynatemp
write 2 0.984/0.916,autodeco,min-p,dynatemp
