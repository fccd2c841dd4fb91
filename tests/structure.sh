#!/bin/sh
# The shape of the two files and of the tree, as design decisions state it: a
# contents list that is true, sections in order, 80 columns, no forward
# declaration of a static function, no function beyond what a reader holds in
# mind, no call that would end or print, a README that can be read.
#
#     tests/structure.sh
set -u
passed=0 failed=0

check() {   # check WHAT LINES: holds if there are none
    if [ -z "$2" ]; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $1:"
        echo "$2" | head -n 10
    fi
}

# Columns are characters: bytes that continue one do not count.
wide() {
    LC_ALL=C awk '{ line = $0; gsub(/[\200-\277]/, "", line) }
        length(line) > 80 { print FILENAME ":" FNR }' "$@"
}

# "N NAME" of the contents list and of the banners.
contents=$(sed -n 's/^ \*   § \([0-9]*\) *\([A-Z]*\) .*/\1 \2/p' ksllm.c)
banners=$(awk '/^\/\* =====/ { getline; print }' ksllm.c |
    sed -n 's/^ \* § \([0-9]*\) \([A-Z]*\) .*/\1 \2/p')
[ "$contents" = "$banners" ] && same= || same="$contents / $banners"
check "the contents list is not that of the banners" "$same"
check "sections out of order" "$(echo "$banners" |
    awk '$1 != NR { print "§ " $0 " at place " NR }')"
check "lines over 80 columns" "$(wide ksllm.c ksllm.h)"
check "static functions declared before they are defined" \
    "$(grep -nE '^static [^=({]*\([^{]*\);' ksllm.c)"
check "tabs, or blanks at a line's end" \
    "$(grep -nE '	| $' ksllm.c ksllm.h)"
# A function begins at a line that does and ends at the next "}" there. The
# longest are the loops of kernels; nothing else needs as many.
check "functions of more than 90 lines" "$(awk '
    /^[a-zA-Z].*[({,]$/ || /^[a-zA-Z].*\) \{$/ { if (!begin) begin = FNR }
    /^}/ { if (begin && was && FNR - begin > 90 && $0 == "}")
               print FILENAME ":" begin ": " FNR - begin " lines"
           begin = was = 0 }
    /\) \{$/ { was = 1 }
    /;$/ && !was { begin = 0 }' ksllm.c)"
check "calls that print or end the program" "$(grep -nE \
    '\b(abort|exit|assert|printf|fprintf|puts|perror|setjmp|longjmp|signal) *\(' \
    ksllm.c | grep -vE '_Static_assert|^[0-9]+: *(\*|/\*)')"
system='open|fopen|fstat|pread|read|close|mmap|munmap|madvise|nanosleep'
system="$system|pthread_[a-z_]+|sched_[a-z]+|Create[A-Za-z]+|MapViewOfFile"
check "files or threads outside of § 3 and § 5" "$(awk -v calls="$system" '
    /^\/\* =====/ { getline; section = $3 }
    section != 3 && section != 5 && $0 ~ "(^|[^a-z_>.])(" calls ") *\\(" {
        print FNR ": " $0 }' ksllm.c)"
check "README.md has more than 250 lines" \
    "$(awk 'END { if (NR > 250) print NR }' README.md)"
if command -v git >/dev/null && git rev-parse --git-dir >/dev/null 2>&1; then
    check "names at the top that have no place there" "$(git ls-files |
        cut -d/ -f1 | sort -u | grep -vE \
        '^(\..*|Makefile|README\.md|LICENSE|ksllm\.[ch]|quant|examples|tests)$')"
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
