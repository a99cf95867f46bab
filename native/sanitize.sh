#!/usr/bin/env bash
# The tests of the C library against a build with AddressSanitizer and UndefinedBehaviorSanitizer. Needs gcc, CMake and Linux.
#
#   native/sanitize.sh                       all of tests/native
#   native/sanitize.sh -k oracle             some of them: arguments go to pytest
#   PYTHON=.venv/bin/python native/sanitize.sh
#
# Left out: test_fuzz.py, which has sanitizers of its own; test_malloc.py and test_instructions.py, where another library is
# preloaded, or none may be. Leaks are not looked for: Python's own would drown ours, and the fuzzer looks for them.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
cmake --preset asan -DPython3_EXECUTABLE="$("$PYTHON" -c 'import sys; print(sys.executable)')"
cmake --build --preset asan

export AUTODECO_LIBRARY="$PWD/build/asan/native/libautodeco.so"
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=0:allocator_may_return_null=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
LD_PRELOAD="$(gcc -print-file-name=libasan.so) $(gcc -print-file-name=libubsan.so)"
export LD_PRELOAD
exec "$PYTHON" -P -m pytest tests/native --ignore tests/native/test_fuzz.py --ignore tests/native/test_malloc.py \
    --ignore tests/native/test_instructions.py "$@"
