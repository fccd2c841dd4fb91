#!/bin/sh
# ksllm.h stands alone, as C and as C++, and ksllm.c compiles under each of
# its switches, without a function that nobody calls. That is clang's front end
# where there is clang, which takes a quarter of the time; else $CC compiles.
set -u
CC=${CC:-cc} CXX=${CXX:-c++}
passed=0 failed=0 skipped=0
warn='-Wall -Wextra -Wpedantic -Werror -fsyntax-only'
lint="$CC -O0 -c -o /dev/null"
if command -v clang >/dev/null; then lint='clang -fsyntax-only'; fi
lint="$lint -std=c11 -Wall -Wextra -Wpedantic -Werror -Wno-psabi"

try() {     # try WHAT COMMAND...
    what=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "failed: $what"
    fi
}

not() {
    ! "$@" 2>/dev/null
}

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cat >"$dir/use.c" <<'END'
#include "ksllm.h"
int f(void);
int f(void) { return ksllm_version()[0]; }
END
cat >"$dir/private.c" <<'END'
#include "ksllm.c"
int main(void) { return ksllm_version()[0] == 0; }
END
cat >"$dir/chat.c" <<'END'
#include "ksllm.h"
int main(void) { return (int)ksllm_json_string(0, 0, 0, 0); }
END

cat >"$dir/grammar.c" <<'END'
#include "ksllm.h"
int main(void) { ksllm_grammar_free(0); return 0; }
END

# shellcheck disable=SC2086  # $CC and $warn are several words
{
    for std in c11 gnu11 c17 gnu17; do
        try "header as $std" $CC -std=$std $warn -I. "$dir/use.c"
    done
    if command -v $CXX >/dev/null; then
        for std in c++11 c++17; do
            try "header as $std" \
                $CXX -std=$std $warn -Wold-style-cast -I. -x c++ "$dir/use.c"
        done
    else
        skipped=$((skipped + 2))
        echo "skipped: no C++ compiler"
    fi
    # What has no kernel in it goes without them.
    everything='NO_THREADS NO_MMAP NO_SIMD NO_CHAT NO_GRAMMAR NO_STATE NO_MEDIA'
    for switches in NO_SIMD NO_IQ 'NO_SIMD NO_THREADS' 'NO_SIMD NO_MMAP' \
        'NO_SIMD NO_CHAT' 'NO_SIMD NO_GRAMMAR' 'NO_SIMD NO_STATE' \
        'NO_SIMD NO_MEDIA' 'NO_SIMD NO_CHAT NO_GRAMMAR' "$everything"
    do
        flags=
        for s in $switches; do flags="$flags -DKSLLM_$s"; done
        try "ksllm.c with $switches" $lint $flags ksllm.c
    done
    isas=
    case $($CC -dumpmachine) in
        x86_64* | i?86*) isas='avx2 avx512vnni' ;;
        aarch64*) isas=neon ;;
    esac
    for isa in $isas; do
        try "ksllm.c with ISA_ONLY=$isa" \
            $lint -DKSLLM_ISA_ONLY=$isa ksllm.c
    done
    if $lint -DKSLLM_ISA_ONLY=abacus ksllm.c 2>/dev/null; then
        try 'ISA_ONLY with a name that is none' false
    fi
    # Without chat, or grammars, or state, nothing of it is left: none is
    # missing at the link, and none is there that a program could call by
    # mistake.
    plain='-std=gnu11 -O0 -DKSLLM_NO_SIMD -I.'
    for flags in -DKSLLM_NO_CHAT '-DKSLLM_NO_CHAT -DKSLLM_NO_GRAMMAR
        -DKSLLM_NO_STATE -DKSLLM_NO_MEDIA'
    do
        try "program with $flags" $CC $plain $flags -Wall -Wextra -Werror \
            -o "$dir/program" "$dir/private.c" -lm -pthread
    done
    for what in CHAT GRAMMAR; do
        file=$(echo $what | tr A-Z a-z).c
        try "$file compiles" $CC $plain -fsyntax-only \
            -Werror=implicit-function-declaration "$dir/$file"
        try "nothing of $file with NO_$what" not $CC $plain -fsyntax-only \
            -DKSLLM_NO_$what \
            -Werror=implicit-function-declaration "$dir/$file"
    done
    # The user's file includes the source. What it does not call is unused
    # then, and that is all a compiler may say about it.
    try 'private copy' $CC -std=gnu11 $warn -Wno-unused-function \
        -DKSLLM_API=static -I. "$dir/private.c"
}

line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ]
