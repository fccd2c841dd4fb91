#!/bin/sh
# What static analysers say about ksllm.c and quant/; `make analyse`.
#
#     tests/analyse.sh            all of them
#     tests/analyse.sh NAME...    only those: clang-tidy cppcheck gcc
#
# A finding is an error, unless it is accepted below. Accepted are lines of a
# rule and, if not all that it finds, a pattern (awk's) for the message and the
# line of source together; the indented line after them is the reason. One that
# fits nothing any more is an error too. What the tools say lies in
# $BUILD/analyse.
set -u
cd "$(dirname "$0")/.." || exit
out=${BUILD:-build}/analyse
mkdir -p "$out" || exit
wanted=" $* "
passed=0 failed=0 skipped=0

wants() {   # wants NAME COMMAND
    case $wanted in "  " | *" $1 "*) ;; *) return 1 ;; esac
    command -v "$2" >/dev/null && return
    printf '%-12s skipped: no %s\n' "$1" "$2"
    skipped=$((skipped + 1))
    return 1
}

# judge NAME STATUS <ACCEPTED: looks through $out/NAME.log, whose findings have
# the form FILE:LINE:COLUMN: warning: MESSAGE [RULE].
judge() {
    cat >"$out/$1.accepted"
    sed 's|quant/\.\./||; s|^'"$PWD"'/||' "$out/$1.log" | sort -u |
    awk -v name="$1" -v status="$2" '
        NR == FNR && /^ / { next }
        NR == FNR {
            rule[++n] = $1
            sub(/^[^ ]* */, "")
            pattern[n] = $0
            next
        }
        !/^[^ :]+:[0-9]+:[0-9]+: (warning|error): / { next }
        {
            split($0, at, ":")
            if (!(at[1] in seen)) {
                seen[at[1]] = 1
                for (i = 1; (getline text < at[1]) > 0; i++)
                    source[at[1], i] = text
            }
            finding = $0
            sub(/\]$/, "")
            sub(/.*\[/, "")
            sub(/,.*/, "")
            text = finding " " source[at[1], at[2]]
            for (i = 1; i <= n; i++)
                if ($0 == rule[i] && (pattern[i] == "" || text ~ pattern[i]))
                    break
            if (i <= n) { used[i]++; accepted++; next }
            print "    " finding
            print "        " source[at[1], at[2]]
            bad++
        }
        END {
            for (i = 1; i <= n; i++)
                if (!used[i]) {
                    print "    fits nothing: " rule[i] " " pattern[i]
                    unused++
                }
            if (status) print "    ended with status " status
            printf "%-12s %d findings, %d accepted\n", name, bad + accepted,
                accepted
            exit bad || unused || status
        }' "$out/$1.accepted" - &&
    passed=$((passed + 1)) || failed=$((failed + 1))
}

plain='-DKSLLM_NO_SIMD -I.'

# Every kernel of this machine's kind, then all else.
if wants clang-tidy "${TIDY:=clang-tidy-19}"; then
    checks='-*,bugprone-*,cert-*'
    # shellcheck disable=SC2086
    {
        "$TIDY" --quiet --checks="$checks" ksllm.c -- -std=c11 -I. &&
        "$TIDY" --quiet --checks="$checks" --header-filter='.*' \
            quant/ksllm-quant.c -- -std=gnu11 $plain
    } >"$out/clang-tidy.log" 2>"$out/clang-tidy.err"
    judge clang-tidy $? <<'END'
bugprone-easily-swappable-parameters
    An interface of numbers has neighbours of one type.
bugprone-implicit-widening-of-multiplication-result in type 'int'
    A place in a block of weights, a tile, a group of heads: thousands at most.
bugprone-implicit-widening-of-multiplication-result 2 [*] [ik]
    Pairs of a dict: a list has at most 2^20 items.
bugprone-implicit-widening-of-multiplication-result 4 [*] id[)]
    Ids of tokens are below 2^21.
bugprone-implicit-widening-of-multiplication-result memmove.* 4 [*] .count
    The symbols of a short word, TOK_SHORT at most.
bugprone-implicit-widening-of-multiplication-result rank [*] .m->arch->gated
    A rank is at most 2^24.
bugprone-implicit-widening-of-multiplication-result n_groups [*] together
    The number of a head.
bugprone-implicit-widening-of-multiplication-result h [*] f->m [*] d
    A head of 1,024 times a token of 4,096 at most, then size_t.
bugprone-implicit-widening-of-multiplication-result t->map [+] 4 [*]
    n_map is a quarter of a text's bytes, which a u32 counts.
bugprone-implicit-widening-of-multiplication-result work [+] 2 [*] n|same [+] 2
    Places of a program, texts of a vocabulary: below 2^22.
bugprone-implicit-widening-of-multiplication-result _mask [+] 1[)] [*] 2
    A table of 60,000 entries, so of 2^17 places.
bugprone-implicit-widening-of-multiplication-result edges
    A state has 257 of them at most.
bugprone-implicit-widening-of-multiplication-result t [*] 3 [*] n|2 [*] t [*] d
    A token of 4,096 at most.
bugprone-implicit-widening-of-multiplication-result % slabs [*] SES_SLAB
    A place in a head of a recurrent layer.
bugprone-implicit-widening-of-multiplication-result [+] 3 [*] x [+]
    A picture has 65,535 columns at most.
bugprone-implicit-widening-of-multiplication-result sine.j [*] k
    Below the window of a sound, 400.
bugprone-implicit-widening-of-multiplication-result t->side [*] t->cells|twr_across
    A tile has 128 cells a side, a grid 64 tiles.
cert-int09-c
    Counted from 0 on, with limits and flags after what is counted.
bugprone-sizeof-expression API_STRUCT
    The size of the last field, which is a pointer.
bugprone-switch-missing-default-case switch ..int.type
    Whoever calls it has looked at the type.
bugprone-signed-char-misuse
    i8 is a number here; characters are u8.
bugprone-multi-level-implicit-pointer-conversion
    What grows or allocates arrays of any type takes and gives void *.
bugprone-casting-through-void
    The cast says that the alignment was seen to.
bugprone-reserved-identifier _GNU_SOURCE|_FILE_OFFSET_BITS
    The system's headers ask for these.
bugprone-integer-division scale\[k / 16\]|min\[k / 16\]
    An index.
bugprone-integer-division n_embd / c->n_heads
    A whole number in the original too.
bugprone-suspicious-string-compare
    memcmp and strcmp are not 0 where the texts differ, as everywhere in C.
bugprone-inc-dec-in-conditions
    && and || put these in order.
bugprone-assignment-in-if-condition
    A number grows by a digit and is compared at once.
bugprone-suspicious-include
    ksllm.c includes itself for each instruction set, the tool its parts.
bugprone-suspicious-realloc-usage
    The program ends there.
cert-err33-c snprintf
    The room is enough, or the end may be missing.
cert-err33-c printf|put|fwrite|fflush
    main asks once whether all could be written; to stderr nothing more helps.
cert-err33-c clock_gettime
    The time is 0 before, and the tests let it fail.
cert-err33-c signal
    SIG_IGN of a signal that exists.
cert-err33-c GET\(
    snprintf in a macro: the room is enough.
cert-flp30-c damp
    The loop ends when the matrix can be factored; it does not count.
END
fi

if wants cppcheck cppcheck; then
    # shellcheck disable=SC2086
    cppcheck --quiet --enable=warning,portability,performance --std=c11 \
        --platform=unix64 $plain -D__GNUC__=12 -D__x86_64__ -D__linux__ \
        -DFLT_EVAL_METHOD=0 -D__BYTE_ORDER__=1 -D__ORDER_LITTLE_ENDIAN__=1 \
        --template='{file}:{line}:{column}: warning: {message} [{id}]' \
        quant/ksllm-quant.c >"$out/cppcheck.err" 2>"$out/cppcheck.log"
    judge cppcheck $? <<'END'
arrayIndexOutOfBounds x\[c\] = p->acts->x
    T is 3 only where V_TOKENS is.
incorrectLogicOperator 0x1p63
    It reads 0x1p63 as 0.
returnDanglingLifetime f->fn.c, &all.
    A value never points to the arguments' struct, only to their values.
ctunullpointer s->n >> 3
    A scope is NULL only where nothing is stored: v is NULL too.
invalidFunctionArg log.sum.
    One of the terms is expf(0).
memleak o.texts
    The program ends.
uninitvar what\[k\]
    what[k] is set for every k below n.
legacyUninitvar json_escape
    The call that fills esc is an argument: it ends before fwrite begins.
END
fi

# Left alone, gcc follows every chain of calls from the public functions, and
# has spent its budget in the function that formats errors: of 103 mistakes put
# in on purpose it found 4 in ten minutes. With every function as a beginning
# and two states at a place it found all of them in six seconds.
if wants gcc "${GCC:=gcc}"; then
    status=0
    for f in ksllm.c quant/ksllm-quant.c; do
        # shellcheck disable=SC2086
        "$GCC" -std=gnu11 -O0 $plain -Wno-psabi -Wno-return-local-addr \
            -fanalyzer -Dstatic= --param=analyzer-max-recursion-depth=0 \
            --param=analyzer-max-enodes-per-program-point=2 \
            -fdiagnostics-path-format=none -S -o /dev/null $f || status=1
    done 2>"$out/gcc.log"
    judge gcc $status <<'END'
-Wanalyzer-use-of-uninitialized-value memcpy.&x, &u, 8.
    gcc 12 does not see that memcpy wrote u.
-Wanalyzer-use-of-uninitialized-value q\[l\] = .i8..q\[l\]|q\[(32|96)\] [+] 32
    A function before has filled q, in a loop of the same length.
-Wanalyzer-use-of-uninitialized-value \^ flip\[
    The loop above has filled it.
-Wanalyzer-use-of-uninitialized-value nodes\[open\[depth\]\]
    depth grows by ++, and that place of open is written at once.
-Wanalyzer-use-of-uninitialized-value .[xq]s\[i\].
    The loop above has filled both, up to the same n_try.
-Wanalyzer-use-of-uninitialized-value __m256i [ac] = _mm256_packs
    The levels of a whole block, filled in a loop of the same length.
END
fi

line="$passed passed, $failed failed"
[ "$skipped" -eq 0 ] || line="$line, $skipped skipped"
echo "$line"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
