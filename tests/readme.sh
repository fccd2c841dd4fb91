#!/bin/sh
# What README.md and the examples promise about compiling is true: the program
# on the first screen builds with the command beside it, in a folder that
# holds nothing but it and the two files; each example builds with the command
# in its head.
#
#     tests/readme.sh          at -O0, plain C kernels: a tenth of the time
#     tests/readme.sh as-is    README's command to the letter, and no more
set -u
CC=${CC:-cc}
passed=0 failed=0
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT

check() {   # check WHAT COMMAND...
    what=$1
    shift
    if "$@" >"$dir/log" 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        cat "$dir/log"
        echo "failed: $what"
    fi
}

# The command as printed, with the compiler under test, its warnings fatal.
quick='-O0 -DKSLLM_NO_SIMD -Wall -Wextra -Werror'
[ "${1:-}" != as-is ] || quick=-O2
compile() {
    line=$(echo "$1" | sed "s/^ *cc /$CC /; s/ -O2 / $quick /")
    (cd "$dir" && sh -c "$line")
}

fails_politely() {
    ! (cd "$dir" && ./app >app.log 2>&1) && grep -q 'model\.gguf' "$dir/app.log"
}

mkdir "$dir/examples"
cp ksllm.h ksllm.c "$dir"
awk '/^```c$/ {on = 1; next} /^```/ {if (on) exit} on' README.md >"$dir/app.c"
line=$(grep -m 1 '^ *cc .*app\.c' README.md)
check "README's program: $line" compile "$line -o app"
# There is no model.gguf here: it has to say so and not to crash.
[ -n "${RUN:-}" ] || check "README's program without a model" fails_politely

if [ "${1:-}" = as-is ]; then
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
fi
# What the robot says on the first screen is what it says, in each block alone.
BUILD=${BUILD:-build}
block() {   # block FILE N: its N-th console block, less the command
    awk -v n="$2" '/^```console$/ { on = ++k == n; next } /^```/ { on = 0 }
        on && !/^\$/' "$1"
}
talks() {   # talks FILE N
    block "$@" >"$dir/shown"
    sed -n 's/^> //p' "$dir/shown" |
        ${RUN:-} "$BUILD/examples/robot" >"$dir/said" 2>"$dir/late" &&
        [ -s "$dir/said" ] && diff "$dir/shown" "$dir/said" ||
        { cat "$dir/late"; false; }
}
if [ -x "$BUILD/examples/robot" ]; then
    for file in README.md examples/demo-model/README.md; do
        for n in $(seq "$(grep -c '^```console$' "$file")"); do
            check "$file: conversation $n (make demo-accept)" talks "$file" "$n"
        done
    done
fi

# Without pip the demo says what to do instead, in three lines.
demo_without_pip() {
    ! env -u MAKEFLAGS -u MAKELEVEL PIP=false sh examples/demo.sh \
        "$dir/one.gguf" "$dir/two.gguf" >"$dir/out" 2>"$dir/said" &&
        ! [ -s "$dir/out" ] && grep -q 'stream FILE.gguf' "$dir/said" &&
        [ "$(grep -c -v '^Fetching' "$dir/said")" = 3 ] ||
        { cat "$dir/said"; false; }
}
check "make demo-real without pip" demo_without_pip

# ksllm.c itself was compiled by the line above; `make` has it, too.
# shellcheck disable=SC2086  # $CC may be several words
cp "$BUILD/ksllm.o" "$dir" 2>/dev/null || (cd "$dir" && $CC $quick -c ksllm.c)
cp examples/*.h "$dir/examples"
for file in examples/*.c; do
    cp "$file" "$dir/examples"
    line=$(grep -m 1 "^ \*  *cc .*$file" "$file" |
        sed 's/^ \* *//; s/ ksllm\.c/ ksllm.o/')
    check "$file: ${line:-no compile line in its head}" compile "$line"
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
