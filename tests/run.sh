#!/bin/sh
# Runs test programs and scripts, shows what failed, adds their counts up.
#
#     tests/run.sh build/tests/test_model tests/symbols.sh ...
#
# Each prints a last line "N passed, N failed" or "N passed, N failed, N
# skipped". One that ends otherwise counts as a failure of its own. $RUN, if
# set, runs the programs (an emulator); $FILTER is a part of the names of the
# tests wanted; $JOBS programs run at a time (1). The last line printed here is
# the sum.
set -u

one() {     # one TEST: its line, after its output if it failed
    log=$COUNTS/$(basename "$1").log
    case $1 in
        *.sh) sh "$1" >"$log" 2>&1 ;;
        *) ${RUN:-} "$1" "${FILTER:-}" >"$log" 2>&1 ;;
    esac
    status=$?
    name=$(basename "$1")
    # shellcheck disable=SC2046  # two or three numbers, or nothing
    set -- $(tail -n 1 "$log" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\)'\
' failed\(, \([0-9]*\) skipped\)\{0,1\}$/\1 \2 \4/p')
    p=${1:-0} f=${2:-0} s=${3:-0} note=
    if [ $# -lt 2 ]; then
        f=1 note=" (ended with status $status and without its counts)"
    elif [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then
        f=1 note=" (status $status, though it counted no failure)"
    fi
    echo "$p $f $s" >"$log.counts"
    # In one piece, so that tests that run at the same time do not mix.
    [ "$f" -eq 0 ] && : >"$log"
    echo "  $name: $p passed, $f failed$note" >>"$log"
    cat "$log"
}

if [ "${1:-}" = --one ]; then
    one "$2"
    exit
fi

if [ $# -eq 0 ]; then
    echo "usage: tests/run.sh TEST..." >&2
    exit 2
fi
COUNTS=$(mktemp -d) || exit 1
export COUNTS
trap 'rm -rf "$COUNTS"' EXIT
printf '%s\n' "$@" | xargs -n 1 -P "${JOBS:-1}" sh "$0" --one
# A test that left no counts was killed together with its shell.
cat "$COUNTS"/*.counts 2>/dev/null | awk -v n=$# '
    { p += $1; f += $2; s += $3 }
    END {
        f += n - NR
        printf "%d passed, %d failed%s\n", p, f, s ? ", " s " skipped" : ""
        exit f > 0 || p == 0
    }'
