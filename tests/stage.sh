# stage.sh - for scripts that run many checks, some side by side: bash sources
# it. Each check ends with "N passed, N failed" or "..., N skipped", as run.sh
# does; what it printed is shown in one piece when it ends.
set -o pipefail
notes=$(mktemp -d)
trap 'rm -rf "$notes"' EXIT

# stage NAME COMMAND...: its counts and seconds are noted for the end.
stage() {
    local name=$1 begun=$SECONDS status=0 counts p f s
    local log=$notes/$1.log
    shift
    "$@" >"$log" 2>&1 || status=$?
    counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' \
        "$log" | tail -n 1 | tr -cd '0-9 ') || true
    read -r p f s <<<"$counts" || true
    if [ -z "${f:-}" ] || { [ "$status" != 0 ] && [ "$f" = 0 ]; }; then
        echo "$name: status $status" >>"$log"
        p=${p:-0} f=1
    fi
    echo "$p $f ${s:-0} $((SECONDS - begun))" >"$notes/$name.counts"
    {
        flock 9
        printf '\n== %s\n' "$name"
        cat "$log"
        printf -- '-- %s: %d s\n' "$name" $((SECONDS - begun))
    } 9>"$notes/lock"
}

counted() {     # for a command that counts nothing itself
    if "$@"; then echo "1 passed, 0 failed"; else echo "0 passed, 1 failed"; fi
}

# total N: the sum of N stages. One that was killed left no counts.
total() {
    printf '\n%d s\n' $SECONDS
    cat "$notes"/*.counts | awk -v n="$1" '
        { p += $1; f += $2; s += $3 }
        END {
            f += n - NR
            printf "%d passed, %d failed, %d skipped\n", p, f, s
            exit f > 0 || p == 0
        }'
}
