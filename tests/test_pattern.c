/* test_pattern.c - regular expressions, number ranges, formats and GBNF as
 * programs, and the automata that they become.
 *
 * The source is included: none of this has a public name. A naive machine runs
 * the programs; a program also becomes an automaton where it can. Plain C
 * kernels: it is not about arithmetic.
 */
#if !defined KSLLM_NO_SIMD
#define KSLLM_NO_SIMD 1
#endif
#include "../ksllm.c"

#include "test.h"
#include "fixture.h"

#include <time.h>

/* ---- a naive machine ---------------------------------------------------- */

typedef struct frame {
    u32 ret, parent;
    u64 count;
} frame;

typedef struct config {
    u32 pc, frame;
} config;

enum { MOST_CONFIGS = 1 << 15, MOST_FRAMES = 1 << 16 };

typedef struct machine {
    const pro *p;
    frame *frames;
    u32 n_frames;
    config *now, *then;
    u32 n_now, n_then;
    bool too_many;
} machine;

static u32 frame_of(machine *m, frame f)
{
    for (u32 i = 1; i < m->n_frames; i++)
        if (m->frames[i].ret == f.ret && m->frames[i].parent == f.parent &&
            m->frames[i].count == f.count)
            return i;
    if (m->n_frames == MOST_FRAMES) {
        m->too_many = true;
        return 0;
    }
    m->frames[m->n_frames] = f;
    return m->n_frames++;
}

/* Adds what waits for input behind (pc, frame). */
static void add(machine *m, config *set, u32 *n, u32 pc, u32 at)
{
    config stack[4096];
    u32 k = 0, seen = 0;
    static config visited[1 << 16];
    stack[k++] = (config){pc, at};
    while (k) {
        config c = stack[--k];
        const pro_op *o = &m->p->ops[c.pc];
        frame f = m->frames[c.frame];
        u32 i;
        for (i = 0; i < seen; i++)
            if (visited[i].pc == c.pc && visited[i].frame == c.frame)
                break;
        if (i < seen)
            continue;
        if (seen == 1 << 16 || k > 4000) {
            m->too_many = true;
            return;
        }
        visited[seen++] = c;
        switch (o->op) {
        case PRO_BYTE: case PRO_ACCEPT:
            for (i = 0; i < *n; i++)
                if (set[i].pc == c.pc && set[i].frame == c.frame)
                    break;
            if (i == MOST_CONFIGS)
                m->too_many = true;
            else if (i == *n)
                set[(*n)++] = c;
            break;
        case PRO_SPLIT:
            stack[k++] = (config){o->b, c.frame};
            /* fall through */
        case PRO_JUMP:
            stack[k++] = (config){o->a, c.frame};
            break;
        case PRO_CALL:
            stack[k++] = (config){o->a, frame_of(m, (frame){o->b, c.frame,
                                                            0})};
            break;
        case PRO_RETURN:
            stack[k++] = (config){f.ret, f.parent};
            break;
        case PRO_PUSH:
            stack[k++] = (config){o->a, frame_of(m, (frame){PRO_NONE, c.frame,
                                                            0})};
            break;
        case PRO_POP:
            stack[k++] = (config){o->a, f.parent};
            break;
        case PRO_COUNT:
            f.count += f.count < o->b;
            stack[k++] = (config){o->a, frame_of(m, f)};
            break;
        case PRO_LEAST:
            if (f.count >= o->b)
                stack[k++] = (config){o->a, c.frame};
            break;
        case PRO_BELOW:
            if (f.count < o->b)
                stack[k++] = (config){o->a, c.frame};
            break;
        case PRO_FAIL:
            break;
        default:
            CHECK(!"an instruction that patterns have not");
        }
    }
}

/* There is one at a time. */
static machine machine_new(const pro *p, u32 start)
{
    static frame frames[MOST_FRAMES];
    static config sets[2][MOST_CONFIGS];
    machine m = {p, frames, 1, sets[0], sets[1], 0, 0, false};
    m.frames[0] = (frame){PRO_NONE, PRO_NONE, 0};
    add(&m, m.now, &m.n_now, start, 0);
    return m;
}

static bool machine_step(machine *m, u8 byte)
{
    m->n_then = 0;
    for (u32 i = 0; i < m->n_now; i++) {
        const pro_op *o = &m->p->ops[m->now[i].pc];
        if (o->op == PRO_BYTE && byte >= o->x && byte <= o->y)
            add(m, m->then, &m->n_then, o->a, m->now[i].frame);
    }
    config *was = m->now;
    m->now = m->then;
    m->then = was;
    m->n_now = m->n_then;
    return m->n_now;
}

static bool machine_ends(const machine *m)
{
    for (u32 i = 0; i < m->n_now; i++)
        if (m->p->ops[m->now[i].pc].op == PRO_ACCEPT)
            return true;
    return false;
}

static bool takes(const pro *p, u32 start, const char *s, size_t n)
{
    machine m;
    if (start == PRO_NONE)
        return false;
    m = machine_new(p, start);
    for (size_t i = 0; i < n && m.n_now; i++)
        machine_step(&m, (u8)s[i]);
    return machine_ends(&m);
}

/* The same by an automaton. */
static bool dfa_takes(const pro *p, u32 dfa, const char *s, size_t n)
{
    u32 at = 0;
    if (dfa == PRO_NONE)
        return false;
    for (size_t i = 0; i < n; i++) {
        const pro_state *x = &p->states[p->dfas[dfa].state + at];
        u32 k = 0;
        while (k < x->n_edges && (p->edges[x->edge + k].hi < (u8)s[i] ||
                                  p->edges[x->edge + k].lo > (u8)s[i]))
            k++;
        if (k == x->n_edges)
            return false;
        at = p->edges[x->edge + k].to;
    }
    return p->states[p->dfas[dfa].state + at].final;
}

/* ---- one pattern -------------------------------------------------------- */

typedef struct built {
    pro_build b;
    ksllm_error e;
    u32 start, dfa;
} built;

static void begin(built *x)
{
    memset(x, 0, sizeof *x);
    x->b.alloc = &MEM_LIBC;
    x->b.err = &x->e;
    x->b.max_ops = 65536;
}

static ksllm_status compile(built *x, const char *pattern, unsigned flags)
{
    begin(x);
    u32 accept = pro_emit(&x->b, PRO_ACCEPT, 0, 0, 0, 0);
    x->start = rex_emit(&x->b, str_of(pattern), 0, flags, accept);
    return x->b.status;
}

/* Whether the pattern, built in three ways, takes the text. */
static bool matches(const char *pattern, unsigned flags, const char *text,
                    size_t n)
{
    built x, y;
    bool yes;
    if (!CHECK_OK(compile(&x, pattern, flags), x.e))
        printf("  /%s/\n", pattern);
    yes = takes(&x.b.p, x.start, text, n);
    CHECK_OK(compile(&y, pattern, flags | REX_EXPAND), y.e);
    if (yes != takes(&y.b.p, y.start, text, n) && CHECK(!"expanded differs"))
        printf("  /%s/ on %.*s\n", pattern, (int)n, text);
    u32 dfa = pro_determine(&y.b, y.start);
    CHECK_OK(y.b.status, y.e);
    if (yes != dfa_takes(&y.b.p, dfa, text, n)) {
        CHECK(!"the automaton differs");
        printf("  /%s/ on %.*s\n", pattern, (int)n, text);
    }
    pro_free(&x.b);
    pro_free(&y.b);
    return yes;
}

static void check_match(const char *pattern, unsigned flags, const char *text,
                        bool want)
{
    if (matches(pattern, flags, text, strlen(text)) != want) {
        CHECK(!"a pattern takes what it should not, or the other way");
        printf("  /%s/ on \"%s\": %d wanted\n", pattern, text, want);
    }
}

/* A pattern, what it finds and what it does not; texts end with a newline. */
static const struct { const char *pattern, *yes, *no; } found[] = {
    {"abc", "abc\nxabcx\nabcabc\n", "ab\nacb\n\n"},
    {"^abc$", "abc\n", "xabc\nabcx\n"},
    {"^a|b$", "a\naxx\nb\nxb\nab\n", "xa\nbx\nxax\n\n"},
    {"^$", "\n", "a\n"},
    {"$^", "\n", "a\n"},
    {"(^a|b)c", "ac\nxbc\n", "xac\n"},
    {"a$b|c", "c\nxc\n", "ab\n"},
    {"(^|,)x(,|$)", "x\nx,\n,x\na,x\nx,b\na,x,b\n", "ax\nxb\na,xb\n"},
    {"^(a*)*$", "\na\naaaa\n", "b\nab\n"},
    {"^(a?b?)*$", "\nab\nba\nbbaab\n", "c\nabc\n"},
    {"^(a?){3,}$", "\naaaaaa\n", "b\n"},
    {"^(|a)+$", "\naaa\n", "b\n"},
    {"^((a*)*b?)*$", "\naab\nbb\nbab\n", "c\n"},
    {"^(a?b?){2}$", "\nab\nabab\nba\nbab\n", "aaa\nbba\nababa\n"},
    {"^(ab?){2,3}$", "aa\nabab\naaba\nabaab\n", "a\naaaa\nb\n"},
    {"^a{0}$", "\n", "a\n"},
    {"^a{0,2}b$", "b\nab\naab\n", "aaab\n"},
    {"^(a{2}){2,}$", "aaaa\naaaaaa\n", "aa\naaa\naaaaa\n"},
    {"^[a-c]{3}$", "abc\nccc\n", "ab\nabcd\nabd\n"},
    {"^[^a-c]$", "d\n가\n😀\n", "a\nc\n\n"},
    {"^[가-힣]+$", "가나다\n힣\n", "a\nㄱ\n\n"},
    {"^[\\uac00-\\ud7a3]{2}$", "한글\n", "한\n한글날\n"},
    {"^\\u{1f600}$", "😀\n", "😁\n"},
    {"^\\ud83d\\ude00$", "😀\n", "😁\n"},
    {"^[\\w.-]+$", "a.b-c_1\n", "a b\n가\n"},
    {"^[\\w-.]+$", "a.b-c_1\n", "a b\n"},
    {"^\\d+$", "0123\n", "１２\na\n"},
    {"^\\D$", "a\n가\n", "1\n"},
    {"^\\s$", " \n　\n \n", "a\n"},
    {"^\\S+$", "ab\n", "a b\n"},
    {"^\\p{L}+$", "aZ가漢\n", "1\n.\n"},
    {"^\\p{Lu}\\p{Ll}$", "Ab\nÄö\n", "ab\nAB\n"},
    {"^\\P{L}$", "1\n!\n", "a\n가\n"},
    {"^\\p{Script=Hangul}+$", "한글ㄱ\n", "a\n漢\n"},
    {"^[^\\p{L}\\d]$", "!\n", "a\n1\n"},
    {"^[]$|a", "a\n", "b\n\n"},
    {"^[^]$", "a\n가\n", "\nab\n"},
    {"^.$", "a\n가\n", "\nab\n\xe2\x80\xa8\n"},
    {"^(?:x|y)(?<n>z)$", "xz\nyz\n", "x\nz\n"},
    {"^a{,$", "a{,\n", "a\n"},
    {"^{$|^}]$", "{\n}]\n", "a\n"},
    {"^a+?b*?c??$", "a\naabbc\n", "b\n"},
    {"^\\x41\\cA?\\.\\/\\-$", "A./-\n", "A\n"},
    {"^([a-z]+\\s?)*$", "\nab cd \n", "A\n"},
    {"colou?r", "the color\ncolour\n", "colr\n"},
    {"^([a-z]{3}){40}$", "", "abc\n"},
};

TEST(patterns_find_what_they_say)
{
    for (size_t i = 0; i < sizeof found / sizeof *found; i++)
        for (int yes = 0; yes < 2; yes++)
            for (const char *s = yes ? found[i].yes : found[i].no; *s; ) {
                size_t n = strcspn(s, "\n");
                if (matches(found[i].pattern, 0, s, n) != yes) {
                    CHECK(!"wrong");
                    printf("  /%s/ on \"%.*s\": %d wanted\n",
                           found[i].pattern, (int)n, s, yes);
                }
                s += n + 1;
            }
}

TEST(whole_patterns_are_anchored)
{
    check_match("a|bc", REX_WHOLE, "a", true);
    check_match("a|bc", REX_WHOLE, "ac", false);
    check_match("a|bc", REX_WHOLE, "abc", false);
    check_match("^a$", REX_WHOLE, "a", true);
}

TEST(json_form_escapes)
{
    check_match("^a\"b$", REX_JSON, "a\\\"b", true);
    check_match("^a\"b$", REX_JSON, "a\"b", false);
    check_match("^\\\\$", REX_JSON, "\\\\", true);
    check_match("^\\n$", REX_JSON, "\\n", true);
    check_match("^\\n$", REX_JSON, "\\u000a", false);
    check_match("^\\x00$", REX_JSON, "\\u0000", true);
    check_match("^\\x1f$", REX_JSON, "\\u001f", true);
    check_match("^\\x1f$", REX_JSON, "\\u001F", false);
    check_match("^.$", REX_JSON, "\\n", false);
    check_match("^.$", REX_JSON, "\\t", true);
    check_match("^\\x7f/$", REX_JSON, "\x7f/", true);
    check_match("b", REX_JSON, "\\\"b\\n", true);
    check_match("b", REX_JSON, "\\b", false);
    check_match("n", REX_JSON, "\\n", false);
    for (int c = 0; c < 256; c++) {
        char text[8], esc[8];
        const u8 *p = (const u8 *)text;
        u32 n = txt_put((u8 *)text, (u32)c);
        n = json_escape(&p, p + n, (u8 *)esc);
        CHECK(matches("^[^]$", REX_JSON, esc, n));
        CHECK(!matches("^[]$", REX_JSON, esc, n));
    }
}

/* Errors: where, and of which kind. */
static const struct { const char *pattern; int status, offset; } wrong[] = {
    {"(a", KSLLM_ERR_ARGUMENT, 0}, {"a)", KSLLM_ERR_ARGUMENT, 1},
    {"x[a", KSLLM_ERR_ARGUMENT, 1}, {"*a", KSLLM_ERR_ARGUMENT, 0},
    {"a**", KSLLM_ERR_ARGUMENT, 2}, {"^*", KSLLM_ERR_ARGUMENT, 0},
    {"ab{3,2}", KSLLM_ERR_ARGUMENT, 2}, {"[b-a]", KSLLM_ERR_ARGUMENT, 1},
    {"a{,3}", KSLLM_ERR_UNSUPPORTED, 1}, {"\\", KSLLM_ERR_ARGUMENT, 1},
    {"a(?=b)", KSLLM_ERR_UNSUPPORTED, 1}, {"(?!b)", KSLLM_ERR_UNSUPPORTED, 0},
    {"(?<=b)", KSLLM_ERR_UNSUPPORTED, 0}, {"(?i)a", KSLLM_ERR_UNSUPPORTED, 0},
    {"(a)\\1", KSLLM_ERR_UNSUPPORTED, 3}, {"\\bx", KSLLM_ERR_UNSUPPORTED, 0},
    {"\\k<a>", KSLLM_ERR_UNSUPPORTED, 0}, {"\\q", KSLLM_ERR_ARGUMENT, 0},
    {"\\p{Zork}", KSLLM_ERR_UNSUPPORTED, 2}, {"\\pL", KSLLM_ERR_ARGUMENT, 2},
    {"\\x4", KSLLM_ERR_ARGUMENT, 2}, {"\\u{110000}", KSLLM_ERR_ARGUMENT, 3},
    {"a\xff", KSLLM_ERR_ARGUMENT, 1}, {"(^|a?)*", KSLLM_ERR_UNSUPPORTED, 7},
};

TEST(errors_say_where)
{
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        built x;
        begin(&x);
        rex_emit(&x.b, str_of(wrong[i].pattern), 100, 0, 0);
        if (!CHECK_EQ(x.b.status, wrong[i].status) ||
            !CHECK_EQ(x.e.offset, 100 + wrong[i].offset))
            printf("  /%s/: %s\n", wrong[i].pattern, x.e.text);
        CHECK_EQ(x.e.status, x.b.status);
        pro_free(&x.b);
    }
}

/* ---- every place can finish --------------------------------------------- */

/* Whether an end can be reached from one configuration. */
static bool can_end(const pro *p, const machine *from, config c)
{
    machine m = {.p = p, .frames = from->frames, .n_frames = from->n_frames};
    static config all[MOST_CONFIGS];
    u32 n = 0;
    bool ends = false;
    add(&m, all, &n, c.pc, c.frame);
    for (u32 i = 0; i < n && !ends && !m.too_many; i++) {
        const pro_op *o = &p->ops[all[i].pc];
        ends = o->op == PRO_ACCEPT;
        if (!ends)
            add(&m, all, &n, o->a, all[i].frame);
    }
    return ends || m.too_many;
}

static void check_no_dead_ends(const char *pattern, unsigned flags)
{
    built x;
    machine m;
    uint64_t rng = test_seed + strlen(pattern);
    if (compile(&x, pattern, flags) == KSLLM_OK && x.start != PRO_NONE) {
        m = machine_new(&x.b.p, x.start);
        for (int step = 0; step < 12 && m.n_now; step++) {
            for (u32 i = 0; i < m.n_now; i++)
                if (!can_end(&x.b.p, &m, m.now[i])) {
                    CHECK(!"a dead end");
                    printf("  /%s/ after %d bytes\n", pattern, step);
                    break;
                }
            const pro_op *o =
                &x.b.p.ops[m.now[fx_below(&rng, m.n_now)].pc];
            if (o->op != PRO_BYTE)
                break;
            machine_step(&m, (u8)(o->x + fx_below(&rng, o->y - o->x + 1u)));
        }
    }
    pro_free(&x.b);
}

/* ---- random patterns against a backtracking matcher ---------------------- */

/* A pattern as a tree, printed and matched by the definition. */
typedef struct node {
    char kind;              /* c . | , * ^ $ e */
    char lo, hi;
    u32 m, n;
    struct node *a, *b;
} node;

static node *random_node(uint64_t *rng, int depth, bool anchors)
{
    node *x = fx_memory(NULL, sizeof *x);
    u32 how = fx_below(rng, depth > 0 ? 10 : 3);
    *x = (node){.kind = 'c', .lo = (char)('a' + fx_below(rng, 3))};
    x->hi = (char)(x->lo + fx_below(rng, 2));
    if (how == 2)
        x->kind = anchors && fx_below(rng, 3) == 0
            ? "^$"[fx_below(rng, 2)] : 'e';
    if (how >= 3) {
        x->kind = how < 5 ? '|' : how < 8 ? ',' : '*';
        x->a = random_node(rng, depth - 1, anchors && x->kind != '*');
        if (x->kind != '*')
            x->b = random_node(rng, depth - 1, anchors);
        x->m = fx_below(rng, 3);
        x->n = fx_below(rng, 3) ? x->m + fx_below(rng, 3) : PRO_NONE;
        if (fx_below(rng, 4) == 0)
            x->m += 9, x->n += x->n == PRO_NONE ? 0 : 9;
    }
    return x;
}

static void free_node(node *x)
{
    if (!x)
        return;
    free_node(x->a);
    free_node(x->b);
    free(x);
}

static void print_node(const node *x, fx_bytes *out)
{
    char text[40];
    switch (x->kind) {
    case 'c':
        snprintf(text, sizeof text, "[%c-%c]", x->lo, x->hi);
        fx_put(out, text, strlen(text));
        break;
    case '^': case '$':
        fx_put(out, &x->kind, 1);
        break;
    case 'e':
        fx_put(out, "(?:)", 4);
        break;
    default:
        fx_put(out, "(?:", 3);
        print_node(x->a, out);
        if (x->kind == '|')
            fx_put(out, "|", 1);
        if (x->b)
            print_node(x->b, out);
        fx_put(out, ")", 1);
        if (x->kind == '*') {
            int n = snprintf(text, sizeof text,
                             x->n == PRO_NONE ? "{%u,}" : "{%u,%u}", x->m,
                             x->n);
            fx_put(out, text, (size_t)n);
        }
    }
}

/* The places where x can end when it begins at one of `from`, as bits. */
static u32 ends_of(const node *x, u32 from, const char *s, u32 n)
{
    u32 to = 0, reached;
    switch (x->kind) {
    case 'c':
        for (u32 i = 0; i < n; i++)
            if (from >> i & 1 && s[i] >= x->lo && s[i] <= x->hi)
                to |= 1u << (i + 1);
        return to;
    case '^': return from & 1;
    case '$': return from & 1u << n;
    case 'e': return from;
    case '|': return ends_of(x->a, from, s, n) | ends_of(x->b, from, s, n);
    case ',': return ends_of(x->b, ends_of(x->a, from, s, n), s, n);
    }
    for (u32 i = 0; i < x->m; i++)
        from = ends_of(x->a, from, s, n);
    for (u32 i = x->m; i < x->n; i++) {
        reached = from | ends_of(x->a, from, s, n);
        if (reached == from)
            break;
        from = reached;
    }
    return from;
}

TEST(random_patterns_match_by_definition)
{
    uint64_t rng = test_seed;
    u32 refused = 0, yes = 0, all = 0;
    for (int i = 0; i < 1500 / TEST_ONE_OF; i++) {
        node *x = random_node(&rng, 1 + (int)fx_below(&rng, 4), i % 2);
        fx_bytes text = {0};
        bool whole = fx_below(&rng, 2);
        built y, z;
        print_node(x, &text);
        fx_put(&text, "", 1);
        const char *pattern = (const char *)text.data;
        ksllm_status st = compile(&y, pattern, whole ? REX_WHOLE : 0);
        compile(&z, pattern, (whole ? REX_WHOLE : 0) | REX_EXPAND);
        u32 dfa = pro_determine(&z.b, z.start);
        if (st) {
            CHECK_EQ(st, KSLLM_ERR_UNSUPPORTED);
            refused++;
        }
        for (int k = 0; k < 12 && !st; k++) {
            char s[24];
            u32 n = fx_below(&rng, k < 6 ? 5 : 20);
            for (u32 j = 0; j < n; j++)
                s[j] = (char)('a' + fx_below(&rng, 4));
            bool want = whole ? ends_of(x, 1, s, n) >> n & 1
                : ends_of(x, (2u << n) - 1, s, n) != 0;
            bool got = takes(&y.b.p, y.start, s, n);
            all++;
            yes += want;
            if (got != want) {
                CHECK(!"it differs from the definition");
                printf("  /%s/%s on %.*s: %d wanted\n", pattern,
                       whole ? " whole" : "", (int)n, s, want);
            }
            if (!z.b.status && dfa_takes(&z.b.p, dfa, s, n) != want) {
                CHECK(!"the automaton differs from the definition");
                printf("  /%s/ on %.*s: %d wanted\n", pattern, (int)n, s,
                       want);
            }
        }
        pro_free(&y.b);
        pro_free(&z.b);
        if (i % 8 == 0)
            check_no_dead_ends(pattern, whole ? REX_WHOLE : 0);
        free_node(x);
        free(text.data);
    }
    CHECK(refused * 4 < 1500 / TEST_ONE_OF + 4);
    CHECK(yes * 20 > all && yes < all);
}

TEST(nothing_leads_nowhere)
{
    static const char *const patterns[] = {
        "$[a-z]{100}", "^(a$|b)c", "(a[]){5,}b|c", "x([]){0,3}", "^.{3,70}$",
        "a^b|c", "^(a{90}|b){2,90}$", "[a-z]{70}", "(ab|cd){2,40}e",
        "^(?:$|a){2}", "^a{80,}$"};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        check_no_dead_ends(patterns[i], 0);
        check_no_dead_ends(patterns[i], REX_JSON);
    }
    built x;
    CHECK_OK(compile(&x, "a[]", 0), x.e);
    CHECK(x.start == PRO_NONE);
    pro_free(&x.b);
}

/* ---- automata ----------------------------------------------------------- */

static u32 dfa_of(built *x, const char *pattern, unsigned flags)
{
    u32 accept = pro_emit(&x->b, PRO_ACCEPT, 0, 0, 0, 0);
    return pro_determine(&x->b, rex_emit(&x->b, str_of(pattern), 0,
                                         flags | REX_EXPAND, accept));
}

TEST(automata_know_how_far_an_end_is)
{
    static const struct { const char *pattern; u32 near, far; } sizes[] = {
        {"^$", 0, 0}, {"^abc$", 3, 3}, {"^[가-힣]{2,5}$", 2, 5}, {"a", 1, PRO_NONE},
        {"^(\"|\\n|\\x01a?)$", 1, 2}, {"^a+$", 1, PRO_NONE},
        {"^\\x1f{3}😀?$", 3, 4}, {"^(a{70}|\\\\{3})$", 3, 70}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        built x;
        begin(&x);
        u32 d = dfa_of(&x, sizes[i].pattern, REX_JSON);
        if (CHECK_OK(x.b.status, x.e) && CHECK(d != PRO_NONE)) {
            const pro_state *s = &x.b.p.states[x.b.p.dfas[d].state];
            CHECK_EQ(s->near, sizes[i].near);
            CHECK_EQ(s->far, sizes[i].far);
        }
        pro_free(&x.b);
    }
}

TEST(automata_know_whether_all_text_lives)
{
    static const struct { const char *pattern; bool total; } known[] = {
        {"a", true}, {"가|b$", true}, {"[a-f0-9]{3}", true}, {"^[^]*$", true},
        {"^a", false}, {"^a?", true}, {"^[^x]*$", false},
        {"^[^가]*$", false}, {"^.*$", true}, {"^\\S*$", false},
        {"^[^　]*$", true}, /* white space is not plain */
        {"^(a|[^]b)", false}, {"^[^]{3,}$", true}, {"^[^]{0,3}$", false},
        {"\"$", true}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        built x;
        begin(&x);
        u32 d = dfa_of(&x, known[i].pattern, REX_JSON);
        if (CHECK_OK(x.b.status, x.e) && CHECK(d != PRO_NONE))
            if (!CHECK_EQ(x.b.p.dfas[d].total, known[i].total))
                printf("%s\n", known[i].pattern);
        pro_free(&x.b);
    }
}

TEST(automata_intersect_and_run)
{
    uint64_t rng = test_seed;
    for (int i = 0; i < 200 / TEST_ONE_OF; i++) {
        built x;
        fx_bytes text[2] = {{0}};
        u32 d[3];
        begin(&x);
        for (int k = 0; k < 2; k++) {
            node *t = random_node(&rng, 3, false);
            print_node(t, &text[k]);
            fx_put(&text[k], "", 1);
            d[k] = dfa_of(&x, (const char *)text[k].data, REX_WHOLE);
            free_node(t);
        }
        d[2] = pro_dfa_both(&x.b, d[0], d[1]);
        u32 accept = pro_emit(&x.b, PRO_ACCEPT, 0, 0, 0, 0);
        u32 run = pro_dfa_run(&x.b, d[2], accept);
        for (int k = 0; k < 100 && !x.b.status; k++) {
            char s[8];
            u32 n = fx_below(&rng, 8);
            for (u32 j = 0; j < n; j++)
                s[j] = (char)('a' + fx_below(&rng, 4));
            bool want = dfa_takes(&x.b.p, d[0], s, n) &&
                        dfa_takes(&x.b.p, d[1], s, n);
            CHECK_EQ(dfa_takes(&x.b.p, d[2], s, n), want);
            CHECK_EQ(takes(&x.b.p, run, s, n), want);
        }
        pro_free(&x.b);
        free(text[0].data);
        free(text[1].data);
    }
}

TEST(automata_have_a_limit)
{
    built x;
    begin(&x);
    CHECK_EQ(dfa_of(&x, "a.{14}$", REX_JSON), PRO_NONE);
    CHECK_EQ(x.b.status, KSLLM_ERR_BUFFER);
    pro_free(&x.b);
    CHECK_OK(compile(&x, "a.{1000}b", REX_JSON), x.e);  /* by counting */
    CHECK(x.start != PRO_NONE);
    pro_free(&x.b);
}

/* ---- numbers ------------------------------------------------------------ */

typedef struct limits {
    bool integer;
    const char *min, *max;      /* NULL: none */
    bool min_out, max_out;
    const char *multiple;
} limits;

static u32 number(built *x, const limits *l)
{
    num_range r = {.integer = l->integer, .has_min = l->min, .has_max = l->max,
        .min_exclusive = l->min_out, .max_exclusive = l->max_out,
        .min = str_of(l->min), .max = str_of(l->max),
        .multiple_of = str_of(l->multiple)};
    begin(x);
    return num_emit(&x->b, &r, pro_emit(&x->b, PRO_ACCEPT, 0, 0, 0, 0));
}

static bool within(const limits *l, double v)
{
    double m = l->multiple ? strtod(l->multiple, NULL) : 0;
    if (l->min && (l->min_out ? v <= strtod(l->min, NULL)
                              : v < strtod(l->min, NULL)))
        return false;
    if (l->max && (l->max_out ? v >= strtod(l->max, NULL)
                              : v > strtod(l->max, NULL)))
        return false;
    if (m >= 1)
        return (double)(int64_t)(v / m) * m == v;
    double t = v / (m > 0 ? m : 1), near = (double)(int64_t)(t + (t < 0 ? -0.5
                                                                      : 0.5));
    return m == 0 || (t - near < 1e-6 && near - t < 1e-6);
}

static void check_number(const limits *l, const pro *p, u32 start, double v,
                         const char *text, bool fraction)
{
    bool want = within(l, v) && !(l->integer && fraction);
    /* More digits than the multiple has are not written. */
    if (fraction && l->multiple && strtod(l->multiple, NULL) != 0.01)
        want = false;
    if (takes(p, start, text, strlen(text)) != want) {
        CHECK(!"a number is on the wrong side");
        printf("  %s in %s%s, %s%s of %s: %d wanted\n", text,
               l->min ? l->min : "-", l->min_out ? " (out)" : "",
               l->max ? l->max : "-", l->max_out ? " (out)" : "",
               l->multiple ? l->multiple : "-", want);
    }
}

/* All integers to 5 digits, all decimals to 2 and 2. */
static void check_range(const limits *l)
{
    built x;
    u32 start = number(&x, l);
    char text[32];
    int step = TEST_ONE_OF > 1 ? 37 : 1;
    if (CHECK_OK(x.b.status, x.e)) {
        for (int v = -12000; v <= 12000; v += v > -2200 && v < 2200 ? step
                                                                     : 7) {
            snprintf(text, sizeof text, "%d", v);
            check_number(l, &x.b.p, start, v, text, false);
        }
        for (int v = -2500; v <= 2500; v += step) {
            snprintf(text, sizeof text, "%s%d.%02d", v < 0 ? "-" : "",
                     abs(v) / 100, abs(v) % 100);
            if (v)
                check_number(l, &x.b.p, start, v / 100.0, text, true);
        }
        for (const char *const *s = (const char *const[]){"", "-", "01",
             "-01", "1.", ".5", "+1", "1.5.5", "1e", "00", NULL}; *s; s++)
            CHECK(!takes(&x.b.p, start, *s, strlen(*s)));
    }
    pro_free(&x.b);
}

TEST(numbers_lie_in_their_range)
{
    static const limits all[] = {
        {true, "0", "100", false, false, NULL},
        {true, "1", NULL, false, false, NULL},
        {true, NULL, "-1", false, false, NULL},
        {true, "-17", "1234", true, true, NULL},
        {true, "-999", "-7", false, true, NULL},
        {true, "2.5", "7.5", false, false, NULL},
        {true, "1e3", "12.5e2", false, true, NULL},
        {true, "10", "10", false, false, NULL},
        {true, "-100", "100", false, false, "7"},
        {true, NULL, NULL, false, false, "60"},
        {false, "-12.50", "12.5", false, false, NULL},
        {false, "0", NULL, true, false, NULL},
        {false, NULL, "0", false, true, NULL},
        {false, "-0.05", "0.05", true, true, NULL},
        {false, "9.99", "10.01", false, false, NULL},
        {false, "-1", "1", false, false, "0.1"},
        {false, "0", "20", false, false, "0.01"},
        {false, NULL, NULL, false, false, "25"},
        {false, "0.001", "1e3", false, false, NULL},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        check_range(&all[i]);
}

TEST(random_ranges_of_numbers)
{
    uint64_t rng = test_seed;
    for (int i = 0; i < 24 / TEST_ONE_OF + 1; i++) {
        char min[32], max[32];
        int a = (int)fx_below(&rng, 4000) - 2000;
        int b = a + (int)fx_below(&rng, 2000);
        snprintf(min, sizeof min, "%s%d.%02d", a < 0 ? "-" : "", abs(a) / 100,
                 abs(a) % 100);
        snprintf(max, sizeof max, "%d%s", b, i % 2 ? "e-2" : "");
        limits l = {i % 3 == 0, min, max, fx_below(&rng, 2),
                    fx_below(&rng, 2), NULL};
        check_range(&l);
    }
}

TEST(numbers_have_bounds_of_their_own)
{
    static const struct { limits l; const char *yes, *no; } texts[] = {
        {{false, NULL, NULL, false, false, NULL},
         "0\n-0\n-1.5e-7\n1E+3\n1e003\n123456789012345678\n0.12345678901234567\n",
         "1234567890123456789\n0.123456789012345678\n1e0003\n1e+\n01\n-\n"},
        {{true, NULL, NULL, false, false, NULL}, "0\n-1\n123456789012345678\n",
         "-0\n1.0\n1e2\n"},
        {{true, "-9223372036854775808", "9223372036854775807", false, false,
          NULL},
         "9223372036854775807\n-9223372036854775808\n",
         "9223372036854775808\n-9223372036854775809\n99999999999999999999\n"},
        {{false, NULL, "1.7976931348623157e308", false, false, NULL}, "5\n0.5\n",
         "1234567890123456789\n"},
        {{true, "1e20", NULL, false, false, NULL}, "100000000000000000000\n",
         "99999999999999999999\n1\n1000000000000000000000\n"},
        {{true, "3", "2", false, false, NULL}, "", "2\n3\n2.5\n"},
        {{true, "2.1", "2.9", false, false, NULL}, "", "2\n3\n2.5\n"},
        {{true, NULL, NULL, false, false, "1000"}, "0\n1000\n-25000\n",
         "100\n1001\n10\n"},
        {{false, NULL, NULL, false, false, "1"}, "0\n7\n-7\n", "7.0\n7.5\n"},
        {{true, "0", NULL, false, false, NULL}, "0\n5\n", "-0\n-1\n"},
        {{true, "-5", NULL, false, false, NULL}, "0\n-5\n", "-0\n-6\n"},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        built x;
        u32 start = number(&x, &texts[i].l);
        CHECK_OK(x.b.status, x.e);
        for (int yes = 0; yes < 2; yes++)
            for (const char *s = yes ? texts[i].yes : texts[i].no; *s; ) {
                size_t n = strcspn(s, "\n");
                if (takes(&x.b.p, start, s, n) != yes) {
                    CHECK(!"a number");
                    printf("  %zu: %.*s: %d wanted\n", i, (int)n, s, yes);
                }
                s += n + 1;
            }
        pro_free(&x.b);
    }
}

TEST(numbers_refuse)
{
    static const struct { limits l; int status; } bad[] = {
        {{true, "x", NULL, false, false, NULL}, KSLLM_ERR_ARGUMENT},
        {{true, "", NULL, false, false, NULL}, KSLLM_ERR_ARGUMENT},
        {{true, "true", NULL, false, false, NULL}, KSLLM_ERR_ARGUMENT},
        {{true, "1e401", NULL, false, false, NULL}, KSLLM_ERR_UNSUPPORTED},
        {{true, NULL, NULL, false, false, "0.3"}, KSLLM_ERR_UNSUPPORTED},
        {{true, NULL, NULL, false, false, "1001"}, KSLLM_ERR_UNSUPPORTED},
        {{true, NULL, NULL, false, false, "0"}, KSLLM_ERR_UNSUPPORTED},
        {{true, NULL, NULL, false, false, "-2"}, KSLLM_ERR_UNSUPPORTED},
        {{true, NULL, NULL, false, false, "99999999999"},
         KSLLM_ERR_UNSUPPORTED},
        {{true, NULL, NULL, false, false, "997"}, KSLLM_ERR_BUFFER},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        built x;
        number(&x, &bad[i].l);
        CHECK_EQ(x.b.status, bad[i].status);
        pro_free(&x.b);
    }
}

/* ---- formats ------------------------------------------------------------ */

static u32 format(built *x, const char *name)
{
    begin(x);
    const char *pattern = fmt_pattern(str_of(name));
    if (!pattern) {
        CHECK(!"no such format");
        return PRO_NONE;
    }
    return rex_emit(&x->b, str_of(pattern), 0, REX_WHOLE,
                    pro_emit(&x->b, PRO_ACCEPT, 0, 0, 0, 0));
}

TEST(dates_are_days_of_the_calendar)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    built x;
    u32 start = format(&x, "date");
    int step = TEST_ONE_OF > 1 ? 997 : 31;
    CHECK_OK(x.b.status, x.e);
    for (int year = 0; year < 10000; year += year >= 1890 && year < 1910 ? 1
                                               : year % 100 == 99 ? 1 : step) {
        bool leap = year % 4 == 0 && (year % 100 || year % 400 == 0);
        for (int month = 0; month < 14; month++)
            for (int day = month == 2 ? 27 : 0; day < 34; day +=
                     month == 2 || day > 27 ? 1 : 9) {
                char text[64];
                snprintf(text, sizeof text, "%04d-%02d-%02d", year, month,
                         day);
                bool want = year && month >= 1 && month <= 12 && day >= 1 &&
                    day <= days[month - 1] + (month == 2 && leap);
                if (takes(&x.b.p, start, text, strlen(text)) != want) {
                    CHECK(!"a date");
                    printf("  %s: %d wanted\n", text, want);
                }
            }
    }
    pro_free(&x.b);
}

static const struct { const char *name, *yes, *no; } formats[] = {
    {"date-time", "2024-02-29T23:59:59.123+09:00\n2024-01-01T00:00:00Z\n",
     "2023-02-29T00:00:00Z\n2024-01-01 00:00:00Z\n2024-01-01T24:00:00Z\n"
     "2024-01-01T00:00:00\n2024-01-01T00:00:60Z\n"},
    {"time", "08:30:06Z\n08:30:06.283185+00:20\n", "8:30:06Z\n08:30:06\n"
     "08:60:00Z\n08:30:06+24:00\n"},
    {"duration", "P4DT12H30M5S\nPT1M\nP1Y2M3D\nP4W\nPT36H\n",
     "P\nPT\nP1YT\nP1D2H\nP2D1Y\nP1Y2W\nP1\nPT1H1S\n"},
    {"email", "joe.bloggs@example.com\nte~st@ex-a.com\n",
     ".a@b.c\na.@b.c\na..b@c.d\na@\n@b\nab\na@-b\n"},
    {"hostname", "www.example.com\na\n1b\nxn-b.com2\n"
     "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz0123456789a\n",
     "-a\na-\na_b\na..b\n.a\na.\nxn--abc\n"
     "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz0123456789abcd\n"},
    {"ipv4", "0.0.0.0\n255.255.255.255\n192.168.0.1\n",
     "256.0.0.1\n01.2.3.4\n1.2.3\n1.2.3.4.5\n1.2.3.4 \n"},
    {"ipv6", "::\n::1\n1::\n1:2:3:4:5:6:7:8\n1:2::7:8\n::ffff:192.168.0.1\n"
     "1:2:3:4:5:6:7::\n::2:3:4:5:6:7:8\n1:2:3:4:5:6:1.2.3.4\n",
     "1\n:::\n1::2::3\n12345::\n1:2:3:4:5:6:7\n1:2:3:4:5:6:7:8:9\n:1\n1:\n"
     "::1.2.3\n::1.2.3.256\n1:2:3:4:5:6:7:1.2.3.4\n::g\n"},
    {"uuid", "2EB8AA08-AA98-11EA-B4AA-73B441D16380\n",
     "2eb8aa08-aa98-11ea-b4aa-73b441d1638\n2eb8aa08aa9811eab4aa73b441d16380\n"},
    {"uri", "http://foo.bar/?baz=qux#quux\nmailto:a@b.c\nurn:a:b\nfile:///a/b\n"
     "http://a:80/%20\nldap:a?b\n", "//foo.bar\n/abc\nabc\n:// no\nhttp:// no\n"
     "bar,baz:foo\nhttp://a b\nhttp://[::1]:80a/\na:\\b\nhttp://a%2\n"},
    {"uri-reference", "/abc\n//foo.bar/?q\n#a\nabc/d:e\n\nhttp://a\n",
     "\\\\a\n#a\\b\na b\n1:a\n"},
    {"iri", "http://ƒøø.ßår/?∂éœ=πîx#πîüx\n", "/abc\n"},
    {"uri-template", "http://a/{b}/{c,d*}{?e:3}\n\na\n{b.c_1}\n",
     "http://a/{b\n{}\n{a b}\na\"b\n{a}}\n"},
    {"json-pointer", "\n/a/b\n/a~0b/~1\n/\n", "a\n/a~\n/~2\n#\n"},
    {"relative-json-pointer", "1\n0/foo\n2/0/b/c\n0#\n", "/a\n-1\n01/a\n0##\n"},
};

TEST(formats_take_what_is_valid)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        built x;
        u32 start = format(&x, formats[i].name);
        CHECK_OK(x.b.status, x.e);
        for (int yes = 0; yes < 2 && !x.b.status; yes++)
            for (const char *s = yes ? formats[i].yes : formats[i].no; *s; ) {
                size_t n = strcspn(s, "\n");
                if (takes(&x.b.p, start, s, n) != yes) {
                    CHECK(!"a format");
                    printf("  %s: %.*s: %d wanted\n", formats[i].name, (int)n,
                           s, yes);
                }
                s += n + 1;
            }
        pro_free(&x.b);
    }
    CHECK(!fmt_pattern(str_of("regex")));
    CHECK_EQ(fmt_max(str_of("hostname")), 253);
    CHECK_EQ(fmt_max(str_of("x")), PRO_NONE);
}

/* ---- GBNF --------------------------------------------------------------- */

static void check_gbnf(const char *source, const char *yes, const char *no)
{
    built x;
    begin(&x);
    x.start = gbnf_emit(&x.b, str_of(source));
    if (CHECK_OK(x.b.status, x.e))
        for (int k = 0; k < 2; k++)
            for (const char *s = k ? yes : no; *s; ) {
                size_t n = strcspn(s, ";");
                if (takes(&x.b.p, x.start, s, n) != k) {
                    CHECK(!"a grammar");
                    printf("  %s\n  on %.*s: %d wanted\n", source, (int)n, s,
                           k);
                }
                s += n + 1;
            }
    pro_free(&x.b);
}

TEST(gbnf_takes_what_it_says)
{
    check_gbnf("root ::= \"a\" | \"bc\"", "a;bc;", "b;;abc;");
    check_gbnf("# c\nroot ::= x+ # d\n\nx ::= [0-9] | \"(\" x \")\"\n",
               "1;(1);12((3));", "(;();(1;");
    check_gbnf("root ::= (\n  \"a\" |\n  \"b\"\n)* ws\nws ::= [ \\t\\n]*",
               ";a;ab ;\n;", "c;a b;");
    check_gbnf("root ::= [^a-c\\]] [\\x41-\\x43] \"\\u00e9\\\"\"",
               "dA\xc3\xa9\";가B\xc3\xa9\";", "aA\xc3\xa9\";d\xc3\xa9\";");
    check_gbnf("root ::= \"ab\"{2} \"c\"{1,} \"d\"{0,2} .",
               "ababcx;ababcccdd가;", "abcx;ababx;ababc;");
    check_gbnf("root ::= \"x\"{70,90}\n",
               "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
               "xxxxxxxx;", "xxx;");
    check_gbnf("root ::= e\ne ::= t (\"+\" t)*\nt ::= \"1\" | \"(\" e \")\"",
               "1;1+1;(1+1)+1;", "+;1+;(1;");
    check_gbnf("root ::= a ws b? ws*\na ::= \"a\"?\nb ::= \"b\" | \"\"\n"
               "ws ::= \" \"?", ";a;ab;a b  ;", "ba;");
    check_gbnf("root ::= \"a\" dead | \"b\"\ndead ::= \"c\" dead\n", "b;",
               "a;ac;");
}

TEST(gbnf_refuses)
{
    static const struct { const char *source; int status, offset; } bad[] = {
        {"", KSLLM_ERR_ARGUMENT, 0}, {"x ::= \"a\"", KSLLM_ERR_ARGUMENT, 0},
        {"root ::= y", KSLLM_ERR_ARGUMENT, 9},
        {"root ::= \"a", KSLLM_ERR_ARGUMENT, 9},
        {"root ::= (\"a\"", KSLLM_ERR_ARGUMENT, 9},
        {"root ::= \"a\")", KSLLM_ERR_ARGUMENT, 12},
        {"root ::= *", KSLLM_ERR_ARGUMENT, 9},
        {"root = \"a\"", KSLLM_ERR_ARGUMENT, 5},
        {"root ::= \"\\q\"", KSLLM_ERR_ARGUMENT, 10},
        {"root ::= [b-a]", KSLLM_ERR_ARGUMENT, 10},
        {"root ::= root \"a\"", KSLLM_ERR_UNSUPPORTED, 9},
        {"root ::= x\nx ::= y? x \"a\" | \"b\"\ny ::= \"\"",
         KSLLM_ERR_UNSUPPORTED, 20},
        {"root ::= \"a\" | x\nx ::= \"\" y\ny ::= z? z\nz ::= x \"c\" | \"b\"",
         KSLLM_ERR_UNSUPPORTED, 45},
        {"root ::= \"a\" root", KSLLM_ERR_ARGUMENT, 0},
        {"root ::= \"a\"\nroot ::= \"b\"", KSLLM_ERR_ARGUMENT, 13},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        built x;
        begin(&x);
        gbnf_emit(&x.b, str_of(bad[i].source));
        if (!CHECK_EQ(x.b.status, bad[i].status) ||
            !CHECK_EQ(x.e.offset, bad[i].offset))
            printf("  %s: %s\n", bad[i].source, x.e.text);
        pro_free(&x.b);
    }
}

/* ---- hostile input ------------------------------------------------------ */

static char *repeated(const char *s, size_t times, const char *behind)
{
    size_t n = strlen(s);
    char *all = fx_memory(NULL, n * times + strlen(behind) + 1);
    for (size_t i = 0; i < times; i++)
        memcpy(all + i * n, s, n);
    strcpy(all + n * times, behind);
    return all;
}

TEST(hostile_patterns_end_soon)
{
    static const struct { const char *s; int times; const char *behind; } bad[] = {
        {"a", 10000000, ""}, {"(", 100000, ""}, {"(?:", 199, "a"},
        {"[a-b", 1000000, "]"}, {"[\\p{L}", 100000, "]"},
        {"\\p{L}\\P{N}", 100000, ""}, {"(a?", 150, ""}, {"a|", 1000000, ""},
        {"(a{0,4294967295})", 1, "{0,4294967295}"}, {"a?", 30000, ""},
        {"(?:a?b?)*", 7000, ""}, {"(\"a\"?)*", 8000, ""},
        {"[^\\d\\w\\s\\p{P}]{3,9999}", 1000, ""},
        {"(?:$|^a)", 1, "{0,99999999}"}, {"(?:a?)", 1, "{99999999}"},
        {".*a.{1000}b", 1, ""}, {"(?:x{1,900}y?)", 1, "{1,900}"},
        {"[a-z]{162}", 1, ""}, {"((a|b)*c.{0,40}){3,30}", 1, ""}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        for (int form = 0; form < 3; form++) {
            char *s = repeated(bad[i].s, (size_t)bad[i].times, bad[i].behind);
            clock_t t = clock();
            built x;
            begin(&x);
            u32 end = pro_emit(&x.b, PRO_ACCEPT, 0, 0, 0, 0);
            u32 at = form == 2 ? gbnf_emit(&x.b, str_of(s))
                : rex_emit(&x.b, str_of(s), 0,
                           form ? REX_JSON | REX_EXPAND : 0, end);
            if (form == 1)
                pro_determine(&x.b, at);
            double took = (double)(clock() - t) / CLOCKS_PER_SEC;
            if (took > 2 * TEST_SLOWER) {
                CHECK(!"it took long");
                printf("  %s... %d: %g s\n", bad[i].s, form, took);
            }
            pro_free(&x.b);
            free(s);
        }
}

/* 4,000 rules that call the one before, or the one after; one that never ends
 * beside them; one that names them all again and again. */
static char *chained(int form, int step)
{
    char *all = fx_memory(NULL, 1 << 20), *p = all;
    p += sprintf(p, "root ::= r%d \"x\" | dead\ndead ::= ",
                 step < 0 ? 3999 : 0);
    for (int i = 0; i < (form == 2 ? 40000 : 1); i++)
        p += sprintf(p, "\"a\" ");
    p += sprintf(p, "dead\n");
    for (int i = 0; i < 4000; i++) {
        bool last = i + step < 0 || i + step == 4000;
        if (last)
            p += sprintf(p, "r%d ::= \"%s\"\n", i, form ? "" : "b");
        else
            p += sprintf(p, "r%d ::= r%d\n", i, i + step);
    }
    p += sprintf(p, "all ::= ");
    for (int i = 0; form == 1 && i < 40000; i++)
        p += sprintf(p, "r%d ", 3999 - i % 9);
    strcpy(p, "\"c\"\n");
    return all;
}

TEST(hostile_grammars_end_soon)
{
    for (int i = 0; i < 6; i++) {
        char *s = chained(i % 3, i / 3 ? 1 : -1);
        clock_t t = clock();
        built x;
        begin(&x);
        x.b.max_ops = 1 << 18;
        x.start = gbnf_emit(&x.b, str_of(s));
        CHECK_OK(x.b.status, x.e);
        CHECK((double)(clock() - t) / CLOCKS_PER_SEC <
              0.3 * TEST_SLOWER);
        if (i == 0)
            CHECK(takes(&x.b.p, x.start, "bx", 2));
        pro_free(&x.b);
        free(s);
    }
}

static void build_all(const ksllm_allocator *a, ksllm_status *status)
{
    static const char *const patterns[] = {
        "^(a|b{2,90}|\\p{Lu})*$", "[a-z]{162}", "(x?y?)*z"};
    ksllm_error e;
    limits l = {false, "-3.5", "1e3", false, true, NULL};
    *status = KSLLM_OK;
    for (int i = 0; i < 5; i++) {
        pro_build b = {.alloc = a, .err = &e, .max_ops = 65536};
        u32 end = pro_emit(&b, PRO_ACCEPT, 0, 0, 0, 0), at = 0;
        num_range r = {.has_min = true, .has_max = true,
                       .min = str_of(l.min), .max = str_of(l.max)};
        if (i < 3)
            at = rex_emit(&b, str_of(patterns[i]), 0, REX_JSON, end);
        else if (i == 3)
            at = num_emit(&b, &r, end);
        else
            gbnf_emit(&b, str_of("root ::= (x | \"a\"{3,80})*\nx ::= [b]?"));
        if (i == 2)
            pro_determine(&b, at);
        if (b.status)
            *status = b.status;
        pro_free(&b);
    }
}

TEST(memory_may_fail_anywhere)
{
    fx_alloc a;
    for (long k = 1; ; k += TEST_ONE_OF > 1 ? 7 : 1) {
        ksllm_status status;
        fx_alloc_init(&a);
        a.fail_at = k;
        build_all(&a.allocator, &status);
        CHECK_EQ(a.live, 0);
        CHECK_EQ(a.n_live, 0);
        CHECK(!a.wrong_size);
        if (!a.failed)
            break;
        CHECK_EQ(status, KSLLM_ERR_MEMORY);
    }
    CHECK(a.calls > 50);
}

TEST_MAIN
