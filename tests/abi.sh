#!/bin/sh
# A program that was compiled with this header runs with a later library,
# whose structs have grown: the header gets a field more at the end of each
# struct that begins with `size`, the library is built with it as a shared
# object, and test_interface, built with the header as it is, is run on it. Its
# structs lie at the edge of their memory: one byte more is a SIGSEGV.
#
#     tests/abi.sh
set -eu
cd "$(dirname "$0")/.."
CC=${CC:-cc}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir "$dir/later"

# The structs with a size, by name.
grown=$(awk '/^    size_t size;/ && name { print name }
    { name = /^typedef struct ksllm_[a-z_]* \{/ ? $3 : "" }' ksllm.h)
sed 's/^\(} ksllm_[a-z_]*;\)/@\1/' ksllm.h | awk -v grown="$grown" '
    BEGIN { split(grown, a); for (i in a) is["@} " a[i] ";"] = 1 }
    $0 in is { print "    uint64_t later[8];" }
    { sub(/^@/, ""); print }' >"$dir/later/ksllm.h"
sed 's/^\(API_STRUCT(.*, \)[a-z_]*);/\1later);/' ksllm.c >"$dir/later/ksllm.c"

fail() {
    echo "FAILED $1"
    echo "0 passed, 1 failed"
    exit 1
}

# Nobody forgets one: as many as the library has rows.
[ "$(echo "$grown" | wc -l)" -eq "$(grep -c '^API_STRUCT(' ksllm.c)" ] ||
    fail "structs with a size and rows of API_STRUCT differ: $grown"
[ "$(diff ksllm.h "$dir/later/ksllm.h" | grep -c later)" -eq \
    "$(echo "$grown" | wc -l)" ] || fail "not every struct has grown"

# shellcheck disable=SC2086
"$CC" -std=c11 -O0 -DKSLLM_NO_SIMD -fPIC \
    -shared -o "$dir/libksllm.so" "$dir/later/ksllm.c" -lm -pthread ||
    fail "the later library does not compile"
"$CC" -std=gnu11 -O0 -I. -o "$dir/program" tests/test_interface.c \
    -L"$dir" -lksllm -lm -pthread || fail "the program does not compile"
LD_LIBRARY_PATH=$dir "$dir/program" || fail "the program does not run"
