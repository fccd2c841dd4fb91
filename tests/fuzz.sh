#!/bin/sh
# Runs fuzzers side by side, each for $LIMIT seconds, and says what came of it.
#
#     LIMIT=60 JOBS=2 tests/fuzz.sh gguf split ...
#
# `make fuzz` has built them. The last line is "N passed, N failed".
set -u
folder=${BUILD:-build}/fuzz

one() {     # one NAME
    corpus=$folder/corpus/$1 log=$folder/$1.log
    mkdir -p "$corpus"
    "${BUILD:-build}/tests/fuzz_$1" --seeds "$corpus"
    [ ! -d "tests/fuzz/fuzz_$1" ] || cp tests/fuzz/fuzz_"$1"/* "$corpus"
    "$folder/fuzz_$1" -max_total_time="${LIMIT:-60}" -timeout=120 \
        -rss_limit_mb=3000 -print_final_stats=1 -max_len=400000 \
        -artifact_prefix="$folder/$1." "$corpus" >"$log" 2>&1
    status=$?
    [ $status -eq 0 ] || tail -n 40 "$log"
    # The last line with "cov:" counts the edges that were reached.
    awk -v name="fuzz_$1" -v status=$status '
        match($0, /cov: [0-9]+/) { edges = substr($0, RSTART + 5, RLENGTH - 5) }
        /number_of_executed_units/ { n = $2 }
        END {
            printf "%-12s %8d inputs, %5d edges%s\n", name, n, edges,
                status ? ", BROKEN (status " status ")" : ""
        }' "$log"
    echo $status >"$folder/$1.status"
}

if [ "${1:-}" = --one ]; then
    one "$2"
    exit
fi

rm -f "$folder"/*.status
printf '%s\n' "$@" | xargs -n 1 -P "${JOBS:-1}" sh "$0" --one
cat "$folder"/*.status | awk -v n=$# '
    { p += $1 == 0 }
    END { printf "%d passed, %d failed\n", p, n - p; exit p != n }'
