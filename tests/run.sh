#!/bin/sh
# Runs test programs and scripts, shows what failed, adds their counts up.
#
#     tests/run.sh build/tests/test_model tests/symbols.sh ...
#
# Each prints a last line "N passed, N failed" or "N passed, N failed, N
# skipped". One that ends otherwise counts as a failure of its own. $RUN, if
# set, runs the programs (an emulator). The last line printed here is the sum.
set -u
log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
passed=0 failed=0 skipped=0

for test; do
    case $test in
        *.sh) sh "$test" >"$log" 2>&1 ;;
        *) ${RUN:-} "$test" >"$log" 2>&1 ;;
    esac
    status=$?
    counts=$(tail -n 1 "$log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\)'\
' failed\(, \([0-9]*\) skipped\)\{0,1\}$/\1 \2 \4/p')
    # shellcheck disable=SC2086  # three words, the last may be missing
    set -- $counts
    p=${1:-0} f=${2:-0} s=${3:-0}
    note=
    if [ $# -lt 2 ]; then
        f=1 note=" (ended with status $status and without its counts)"
    elif [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1 note=" (status $status, though it counted no failure)"
    fi
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    [ "$f" -eq 0 ] || cat "$log"
    echo "  $(basename "$test"): $p passed, $f failed$note"
done

line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
