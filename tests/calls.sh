#!/bin/sh
# Which function calls which, and how deep that goes: nothing calls itself but
# what is listed below, each with a bound, and the deepest chain of calls stays
# under 32 KiB of stack.
#
#     tests/calls.sh [build/ksllm.o]
#
# The graph is gcc's own (-fcallgraph-info). Recursion is looked for in a build
# without optimisation, which has every call of the source; stack is added up
# over the frames of the library as built, where the Makefile left ksllm.ci
# beside it. Frames of libc do not count. Elsewhere it says so and skips.
set -u
object=${1:-${BUILD:-build}/ksllm.o}
here=$(dirname "$0")
CC=${CC:-cc}
most=32768

# Calls that lead back to where they came from: CALLER CALLEE, the bound.
recursive='
chat_number_cmp chat_number_cmp    once: the two change places
chat_int_math chat_int_math        once: a division by -1
chat_put_times chat_put_times      once: %F and %T stand for others
chat_eq chat_eq                    CHAT_DEPTH
chat_less chat_less                CHAT_DEPTH
chat_put_value chat_put_value      CHAT_DEPTH
chat_is_key chat_is_key            CHAT_DEPTH, with c->depth
chat_json_value chat_json_value    JSON_DEPTH, in json_step
chat_infix chat_infix              CHAT_NEST
chat_targets chat_targets          CHAT_NEST
chat_apply_to chat_apply           CHAT_DEPTH: map, select and their like
chat_expr pointer                  CHAT_NEST
chat_tuple pointer                 CHAT_NEST
chat_choice pointer                CHAT_NEST
chat_slice_parts pointer           CHAT_NEST
chat_call_macro pointer            CHAT_NEST: a macro runs a body
rex_level rex_level                3: the bytes of a character behind its first
'
# Where calls by pointer go: CALLER, what it may call; `host` is the program
# that uses the library.
pointers='
mem_(alloc|free)            mem_libc|chat_lend
gguf_unasked                mdl_is_idle
pro_resize|auto_room        mem_libc
chat_lend                   mem_libc
sort_merge                  .*_less|.*_less_.*
pool_(work|run)             (fwd|twr)_.*_piece
pool_thread                 host
fwd_step_piece              fwd_(embed|norm|add|.*heads|query_rank|skip)
fwd_step_piece              cab_(place|bend|around|mean|gate|add|pool)
fwd_step_piece              ear_(frame|around|beside|bend|flat|place)
fwd_step_piece              twr_(patch|place|norm|norm_pair|heads|attended|add|activate|middle|out|merge|before_fc|cell_row|pack)
fwd_step_piece              fwd_(cap|embds_.*|latent_.*|conv_.*|mix|read|route|scatter|activate.*|combine|put_beside)
fwd_advance                 host
twr_layers                  host
draft_give                  host
(k_panel|x_panel_step)_.*   x_.*|k_lay.*
k_panels_.*                 k_build_.*|k_tile.*
k_with_book_.*              k_direct_.*
(fwd|k|smp|twr|ear|cab)_.*   k_.*
ses_preload                 host
st_(call|save|load_chunks)  host
chat_attr_of|chat_names     chat_find_builtin
chat_tag                    chat_tag_.*
chat_(apply|invoke)         chat_(f|m|t|g)_.*|chat_(dict|list)_.*
split_give                  turn_part
gen_deliver                 turn_piece|turn_write
turn_(give|piece)           host
gen_run                     api_more
api_more                    host
'

dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
skip() {
    echo "calls.sh: $1"
    echo '0 passed, 0 failed, 1 skipped'
    exit
}
# shellcheck disable=SC2086  # CC may have arguments
$CC -std=c11 -w -O0 -DKSLLM_NO_SIMD -fcallgraph-info=su -c \
    -o "$dir/plain.o" "$here/../ksllm.c" 2>"$dir/said" ||
    skip "$CC makes no graph of calls (gcc does)"
built=${object%.o}.ci
if [ ! -e "$built" ]; then
    echo "no $built: stack not added up"
    built=
fi
echo "$recursive" >"$dir/recursive"
echo "$pointers" >"$dir/pointers"

# The frames of sanitizers and of -O0 are wider: those builds set no limit.
flags=$(dirname "$object")/flags
[ ! -e "$flags" ] || grep -q frame-larger "$flags" || most=0

# Lines of a graph:
#   node: { title: "ksllm.c:NAME" label: "NAME\nPLACE\n48 bytes (static)" }
#   edge: { sourcename: "ksllm.c:A" targetname: "B" label: "ksllm.c:372:12" }
# The place of a call stays its own when the caller is inlined somewhere: so
# calls that are listed by their functions are found again in the other graph.
# shellcheck disable=SC2086
awk -v most=$most -v cuts=' pool_thread chat_expression ' '
    function bare(title) { sub(/.*[:\/]/, "", title); return title }
    function base(name) { sub(/\..*/, "", name); return name }
    function check(what, bad) {
        if (bad == "") { passed++; print "OK " what }
        else { failed++; print "FAILED " what ":" bad }
    }
    function link(a, b) {
        if ((a, b) in edge) return
        edge[a, b] = 1
        out[a] = out[a] " " b
        into[b] = into[b] " " a
        n_out[a]++
        n_in[b]++
    }
    # A call by pointer that stands in function `place`: to all that its rows
    # allow and that nobody calls by name. Returns how many rows it has.
    function point(a, place,    b, i, n) {
        for (i = 1; i <= n_rows; i++) {
            if (place !~ "^(" row[i] ")$") continue
            if (n && row[i] != row[i - 1]) break
            goes[i] = ++n
            for (b in frame)
                if (base(b) in alone && base(b) ~ "^(" to[i] ")$") link(a, b)
        }
        return n
    }
    # Takes off what calls nothing that is left, from the leaves on; a chain is
    # as deep as its frames. Returns what stays: circles, and what lies between
    # two of them.
    function peel(    a, b, c, i, n, m, q, calls, callers) {
        for (a in frame) {
            left[a] = n_out[a]
            if (!left[a]) q[++n] = a
        }
        for (i = 1; i <= n; i++) {
            b = q[i]
            deep[b] += frame[b]
            m = split(into[b], callers, " ")
            while (m) {
                a = callers[m--]
                if (deep[b] > deep[a]) { deep[a] = deep[b]; next_of[a] = b }
                if (!--left[a]) q[++n] = a
            }
            delete left[b]
        }
        n = 0                           # then what no circle leads to
        for (a in left) {
            up[a] = 0
            m = split(into[a], callers, " ")
            while (m) if (callers[m--] in left) up[a]++
            if (!up[a]) q[++n] = a
        }
        for (i = 1; i <= n; i++) {
            m = split(out[q[i]], calls, " ")
            while (m) {
                b = calls[m--]
                if (b in left && !--up[b]) q[++n] = b
            }
            delete left[q[i]]
        }
        c = ""
        for (a in left) c = c " " a
        return c
    }
    FILENAME ~ /recursive$/ {
        if (NF) listed[$1, $2] = $1 " " $2
        next
    }
    FILENAME ~ /pointers$/ {
        if (NF) { row[++n_rows] = $1; to[n_rows] = $2 }
        next
    }
    FILENAME != was { graph++; was = FILENAME }
    { split($0, q, "\"") }
    /^node:/ && match(q[4], /[0-9]+ bytes/) {
        bytes[graph, bare(q[2])] = substr(q[4], RSTART, RLENGTH) + 0
        if (graph == 2 && q[4] ~ /\(dynamic\)/) grows = grows " " bare(q[2])
    }
    /^edge:/ {
        i = ++n_calls[graph]
        from[graph, i] = bare(q[2])
        callee[graph, i] = q[4] == "__indirect_call" ? "pointer" : bare(q[4])
        sub(/.*\//, "", q[6])
        place[graph, i] = q[6]
    }
    function begin(g,    k, two) {
        split("", frame); split("", edge); split("", out); split("", into)
        split("", n_out); split("", n_in); split("", deep); split("", left)
        split("", next_of)
        for (k in bytes) {
            split(k, two, SUBSEP)
            if (two[1] == g) frame[two[2]] = bytes[k]
        }
    }
    function source(    i, k, a, b, unknown, stale, lost, n) {
        begin(1)
        for (a in frame) if (a !~ /^ksllm_/) alone[a] = 1
        for (i = 1; i <= n_calls[1]; i++) delete alone[callee[1, i]]
        for (i = 1; i <= n_calls[1]; i++) {
            a = from[1, i]
            b = callee[1, i]
            if ((a, b) in listed) {
                cut[place[1, i]] = found[a, b] = 1
            } else if (b != "pointer") {
                if (b in frame) link(a, b)
            } else {
                by[place[1, i]] = a
                if (!point(a, a)) unknown = unknown " " a
            }
        }
        for (k in listed) if (!(k in found)) stale = stale " " listed[k] ","
        for (k = 1; k <= n_rows; k++)
            for (a in frame)
                if (!goes[k] && a ~ "^(" row[k] ")$") {
                    goes[k] = 1
                    stale = stale " " row[k]
                }
        for (a in frame) {
            n++
            if (a in alone && !n_in[a] && !match(cuts, " " a " "))
                lost = lost " " a
        }
        check("every call by pointer is listed", unknown)
        check("what is listed exists", stale)
        check("every function is called by a known one", lost)
        check(n " functions call none that calls them again", peel())
    }
    function library(    i, a, b, k, top, path) {
        begin(2)
        for (a in frame) if (!((1, base(a)) in bytes)) alone[base(a)] = 1
        for (i = 1; i <= n_calls[2]; i++) delete alone[base(callee[2, i])]
        for (i = 1; i <= n_calls[2]; i++) {
            a = from[2, i]
            b = callee[2, i]
            if (place[2, i] in cut || (base(a), base(b)) in listed) continue
            if (b in frame) link(a, b)
            if (b == "pointer")
                point(a, place[2, i] in by ? by[place[2, i]] : base(a))
        }
        check("no frame grows while it is in use", grows)
        check("nor does one in the library as built", peel())
        for (a in deep) if (!top || deep[a] > deep[top]) top = a
        for (a = top; a; a = next_of[a]) path = path "\n    " frame[a] " " a
        print "deepest stack without recursion: " deep[top] " bytes" path
        if (most) check("that is less than " most,
            deep[top] < most ? "" : " " deep[top])
    }
    END {
        source()
        if (n_calls[2]) library()
        printf "%d passed, %d failed\n", passed, failed
        exit failed > 0
    }' "$dir/recursive" "$dir/pointers" "$dir/plain.ci" $built
