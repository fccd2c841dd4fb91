/* fuzz_grammar.c - text that says what an answer may be: regular expressions,
 * GBNF and tools as programs and automata.
 *
 * An input: a byte that says what it is, one of options, then its text. The
 * source is included: none of this has a public name.
 */
#define KSLLM_NO_SIMD 1
#include "../ksllm.c"

#include "fuzz.h"

static const char *const words[] = {
    "(?:", "(?<n>", ")", "|", "*", "+", "?", "{2,3}", "{0,}", "{70,90}",
    "{4294967295}", "^", "$", "[^", "]", "[a-z]", "\\d", "\\W", "\\s", ".",
    "\\p{L}", "\\P{Lu}", "\\p{Script=Hangul}", "\\u{1f600}", "\\uac00", "\\x1f",
    "\\\"", "\\\\", "가-힣", "😀", "root ::= ", "\nx ::= ", "x", "\"a\"",
    "( ", "# c\n", "[^\\]]", "-1e3", "0.25", "9223372036854775808", "date-time",
    "uri", "ipv6", "\xff", "[{\"name\":\"f\",", "\"parameters\":{",
    "\"properties\":{\"a\":", "{\"type\":\"string\"}", "\"required\":[\"a\"]",
    "\"maxLength\":3", "\"enum\":[1,\"</a\"]", "}}]", NULL};

enum { REGEX, GBNF, NUMBER, FORMAT, TOOLS, KINDS };

/* The numbers of a program lie in their arrays. */
static void check_program(const pro *p, u32 start)
{
    MUST(start == PRO_NONE || start < p->n_ops, "start");
    for (u32 i = 0; i < p->n_ops; i++) {
        const pro_op *o = &p->ops[i];
        MUST(o->op < PRO_CODES, "op %u", o->op);
        if (o->op == PRO_BYTE)
            MUST(o->x <= o->y && o->y < 256, "bytes %u to %u", o->x, o->y);
        if (o->op != PRO_ACCEPT && o->op != PRO_RETURN && o->op != PRO_FAIL)
            MUST(o->a < p->n_ops || o->op == PRO_JUMP, "a of %u", i);
        if (o->op == PRO_SPLIT || o->op == PRO_CALL)
            MUST(o->b < p->n_ops, "b of %u", i);
    }
    for (u32 i = 0; i < p->n_dfas; i++)
        for (u32 k = 0; k < p->dfas[i].n_states; k++) {
            const pro_state *s = &p->states[p->dfas[i].state + k];
            MUST(s->near != PRO_NONE && s->near <= s->far, "state %u", k);
            MUST(s->edge + s->n_edges <= p->n_edges, "edges of %u", k);
            for (u32 e = 0; e < s->n_edges; e++)
                MUST(p->edges[s->edge + e].to < p->dfas[i].n_states &&
                     (!e || p->edges[s->edge + e].lo >
                            p->edges[s->edge + e - 1].hi), "edge %u", e);
        }
}

/* Every place where an answer may begin is one of the program's. */
static u32 build_tools(pro_build *b, uint8_t how, str text)
{
    u32 n_ignored = 0, place[SPLIT_ARGS + 1];
    u64 first = 0;
    const split_format *f = &SPLIT_FORMATS[(how >> 2) % KS_LEN(SPLIT_FORMATS)];
    const gra_tools_options o = {f, NULL, text, how & 0x40
        ? KSLLM_CALLS_REQUIRED : KSLLM_CALLS_AUTO, {NULL, 0},
        {.ordered = how & 0x80, .lenient = how & 0x40, .max_space = how & 3,
         .n_ignored = &n_ignored, .first_ignored = &first}};
    gra_tools(b, &o, place);
    for (u32 i = 0; i <= SPLIT_ARGS && !b->status; i++)
        MUST(place[i] == PRO_NONE || place[i] < b->p.n_ops, "place %u", i);
    return b->status ? 0 : place[f->start];
}

static u32 build(pro_build *b, uint8_t kind, uint8_t how, str text)
{
    u32 end = pro_emit(b, PRO_ACCEPT, 0, 0, 0, 0);
    const char *pattern;
    size_t cut = text.n / 2;
    num_range r = {how & 8, how & 16, how & 32, how & 64, how & 128,
                   {text.p, cut}, {text.p + cut, text.n - cut}, {NULL, 0}};
    switch (kind) {
    case GBNF:
        return gbnf_emit(b, text);
    case TOOLS:
        return build_tools(b, how, text);
    case NUMBER:
        if (how & 4)
            r.multiple_of = r.min;
        return num_emit(b, &r, end);
    case FORMAT:
        pattern = fmt_pattern(text);
        if (pattern)
            return rex_emit(b, str_of(pattern), 0, how >> 3 & 7, end);
        /* fall through */
    default:
        return rex_emit(b, text, 0, how >> 3 & 7, end);
    }
}

static void one(const uint8_t *data, size_t size)
{
    fx_alloc a;
    ksllm_error e;
    size_t head = size < 2 ? size : 2;
    uint8_t kind = size ? (uint8_t)(data[0] - '0') % KINDS : 0;
    uint8_t how = size > 1 ? data[1] : 0;
    uint8_t *copy = fuzz_copy(data, size);
    str text = {(const char *)copy + head, size - head};
    double begin = fuzz_now();
    fx_alloc_init(&a);
    if (how & 1)                /* memory fails somewhere */
        a.fail_at = 1 + how % 61;
    pro_build b = {.alloc = &a.allocator, .err = &e,
                   .max_ops = how & 2 ? 65536 : 900};
    u32 start = build(&b, kind, how, text);
    if (!b.status) {
        check_program(&b.p, start);
        if (how & 0x40 && kind != TOOLS) {
            u32 d = pro_determine(&b, start);
            pro_dfa_run(&b, pro_dfa_both(&b, d, d), 0);
        }
    }
    if (!b.status)
        check_program(&b.p, start);
    else
        MUST(e.status == b.status && e.text[0] &&
             (e.offset == KSLLM_NO_OFFSET || e.offset <= size + 100),
             "error %d at %llu: %s", b.status, LLU(e.offset), e.text);
    pro_free(&b);
    MUST(!a.live && !a.n_live && !a.wrong_size, "memory");
    MUST(fuzz_now() - begin < 20, "%g s", fuzz_now() - begin);
    fuzz_free(copy, size);
}

/* Schemas alone and the matcher are fuzz_obey's. */
static bool seed(size_t i, fx_bytes *out)
{
    static const char *const seeds[] = {
        "0\x02^(a|b)*c{3,90}$", "0\x4a[\\w.-]+@[^\\p{L}]{2,}", "0\x42(?:a?b?)*x",
        "0\x0a[a-z]{162}", "1\x02root ::= x+\nx ::= \"(\" x \")\" | [0-9]{2,3}",
        "2\x32-12.5100", "2\xba" "0.2501e2", "2\x0e" "7100", "3\x42" "date-time",
        "3\x4auri", "0\x43(ab|c){2,}\\p{Lu}",
        "4\x02[{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":"
        "{\"type\":\"string\",\"maxLength\":3}},\"required\":[\"a\"]}}]",
        "4\xc6[{\"name\":\"f\"},{\"function\":{\"name\":\"g\"}}]",
        "4\x0a[{\"name\":\"f\",\"parameters\":{\"properties\":{\"a\":"
        "{\"pattern\":\"^x+$\"},\"b\":{\"enum\":[1,\"</a\"]}}}}]"};
    if (i == sizeof seeds / sizeof *seeds)
        return false;
    fx_put(out, seeds[i], strlen(seeds[i]));
    return true;
}

static const fuzz_target fuzz = {"fuzz_grammar", one, seed, NULL, words, 2000};

FUZZ_MAIN
