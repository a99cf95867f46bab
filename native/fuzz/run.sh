#!/usr/bin/env bash
# Builds the fuzzer of the heads loader with ASan and UBSan, and runs it. Needs gcc; on x86-64 and arm64.
#
#   native/fuzz/run.sh 200000                  what the tests do: mutations of the kept corpus, in order
#   native/fuzz/run.sh 10000000 7              ten million of another seed
#   native/fuzz/run.sh 1 7 123456              one execution again
#   CC=clang native/fuzz/run.sh libfuzzer -max_total_time=14400    libFuzzer, guided by coverage
#
# BUILD is the folder to build in, build/fuzz by default. BASELINE=1 leaves the faster kernels out: it compiles in a third of the time.
set -euo pipefail
cd "$(dirname "$0")/../.."
CC=${CC:-gcc}
BUILD=${BUILD:-build/fuzz}
SANITIZE="address,undefined"
SOURCES="fuzz/fuzz-heads.c autodeco-source.c autodeco-gguf.c autodeco-heads.c autodeco-math.c autodeco-nucleus.c autodeco-row.c autodeco-dispatch.c"
FLAGS="-std=c11 -O1 -g -Inative -ffp-contract=off -fno-math-errno -fno-omit-frame-pointer -fno-sanitize-recover=all"

if [ "${1:-}" = libfuzzer ]; then
    SANITIZE="fuzzer,$SANITIZE"
    shift
    set -- native/fuzz/corpus "$@" # new inputs land there: keep what is worth keeping in make_corpus.py
else
    SOURCES="$SOURCES fuzz/driver.c"
    set -- native/fuzz/corpus "$@"
fi

mkdir -p "$BUILD"
SETS="baseline:"
DEFINES=""
case "$(uname -m)${BASELINE:-}" in
    x86_64 | amd64)
        SETS="baseline: avx2:-mavx2,-mfma,-mf16c avx512:-mavx512f,-mfma,-mf16c"
        DEFINES="-DAUTODECO_KERNELS_X86"
        ;;
esac
OBJECTS=""
for set in $SETS; do
    name=${set%%:*}
    extra=${set#*:}
    # shellcheck disable=SC2086
    "$CC" $FLAGS -fsanitize=$SANITIZE ${extra//,/ } -DAUTODECO_KERNELS_NAME="$name" -c native/autodeco-kernels.c -o "$BUILD/$name.o"
    OBJECTS="$OBJECTS $BUILD/$name.o"
done
# shellcheck disable=SC2086
"$CC" $FLAGS -fsanitize=$SANITIZE $DEFINES $(printf 'native/%s ' $SOURCES) $OBJECTS -lm -o "$BUILD/fuzz-heads"
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
exec "$BUILD/fuzz-heads" "$@"
