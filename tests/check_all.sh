#!/usr/bin/env bash
# What takes too long for `make test`: sanitizers, analysers, fuzzers, coverage,
# 100,000 stopped calls, hours of use, mutants. Ends with a table of the
# figures and one line, `N passed, N failed, N skipped`. More of one: make fuzz
# SECONDS=, make soak SOAK=, tests/mutate.py with 60 mutants.
#
#     tests/check_all.sh              all of it: 25 minutes on two quiet cores
#     SLICE=1 tests/check_all.sh      a little of the last five, for .ci/run:
#                                     three minutes of one core
#     tests/check_all.sh NAME...      only those: asan fuzz cancels ...
set -u
cd "$(dirname "$0")/.."
. tests/stage.sh
unset MAKEFLAGS MAKELEVEL
build=${BUILD:-build}
model=build/models/SmolLM2-135M-Instruct.Q4_1.gguf
splitter='CHAT/the parts of an answer'
if [ -n "${SLICE:-}" ]; then
    fuzz=8 cancels=10000 soak=10 mutants=8 goal=60 at_once=1 model=
    fuzzers='FUZZERS=chat split tokens'
else
    fuzz=8 cancels=100000 soak=60 mutants=20 goal=85 at_once=2 fuzzers=
fi

# The longest first: two run at a time, in a slice one, beside what else runs.
every='coverage asan msan valgrind tsan fuzz analyse mutants-gguf
    mutants-split soak cancels'
[ -z "${SLICE:-}" ] || every='fuzz mutants-gguf mutants-split soak cancels'
[ $# -eq 0 ] || every=$*

check() {       # check NAME
    case $1 in
        asan | msan | tsan | valgrind) stage "$1" sh tests/matrix.sh "$1" ;;
        analyse) stage analyse make analyse ;;
        coverage) stage coverage make BUILD="$build" coverage JOBS=1 ;;
        fuzz)
            stage fuzz make BUILD="$build" fuzz SECONDS=$fuzz JOBS=1 \
                ${fuzzers:+"$fuzzers"} ;;
        mutants-gguf)
            stage "$1" counted python3 tests/mutate.py GGUF $mutants \
                test_gguf fuzz_gguf --jobs 1 --goal $goal ;;
        mutants-split)
            stage "$1" counted python3 tests/mutate.py "$splitter" $mutants \
                test_split fuzz_split --jobs 1 --goal $goal ;;
        cancels)
            stage cancels env KSLLM_CANCELS=$cancels \
                "$build"/tests/test_invariants random_cancels ;;
        soak)
            # shellcheck disable=SC2046  # no model: no argument
            stage soak "$build"/tests/soak $soak \
                $([ ! -e "$model" ] || echo "$model") ;;
        *) stage "$1" counted false ;;
    esac
}

# The lines of a check's output that have its figures.
figures() {
    case $1 in
        coverage) grep -E '^all: |^below' "$2" ;;
        fuzz) grep ' inputs, ' "$2" ;;
        mutants-*) grep 'mutants killed' "$2" ;;
        cancels) grep ' stopped; late' "$2" ;;
        soak) grep 'rounds of' "$2" ;;
        build) ;;
        *) grep -E '^[a-z0-9-]+ +[0-9]+ passed|skipped: |finding' "$2" ;;
    esac | sed 's/^ *//; s/  */ /g' | grep . || echo
}

stage build counted make BUILD="$build" lib "$build"/tests/test_invariants \
    "$build"/tests/soak
n=1
for name in $every; do
    while [ "$(jobs -rp | wc -l)" -ge $at_once ]; do
        wait -n
    done
    check "$name" &
    n=$((n + 1))
done
wait

printf '\n%-14s %8s  %7s  %s\n' check seconds ended figures
for name in build $every; do
    p=0 f=1 s=0 seconds=-
    if [ -e "$notes/$name.counts" ]; then
        read -r p f s seconds <"$notes/$name.counts"
    fi
    ended=ok
    [ "$p" -gt 0 ] || ended=skipped
    [ "$f" -eq 0 ] || ended=FAILED
    figures "$name" "$notes/$name.log" | while read -r line; do
        printf '%-14s %8s  %7s  %s\n' "$name" "$seconds" "$ended" "$line"
        name='' seconds='' ended=''
    done
done
total $n
