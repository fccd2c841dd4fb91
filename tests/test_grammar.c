/* test_grammar.c - the machine of constrained answers (§ 14-16), white-box:
 * random programs on a naive machine, byte for byte; masks against every token
 * alone; closings against brute force; tables that are too small; hostile
 * programs.
 */
#ifndef KSLLM_NO_SIMD
#define KSLLM_NO_SIMD
#endif
#include "../ksllm.c"

#include "test.h"
#include "fixture.h"

/* ---- the naive machine ----------------------------------------------------
 * Explicit stacks, sets as lists, nothing shared, nothing kept. It runs a
 * program as built or as finished. */

enum { NV_DEPTH = 16, NV_MEMBERS = 96, NV_MOST = 300 };

typedef struct nv_frame {
    uint32_t ret, kind;             /* 0 call, 1 counter, 2 set, 3 string */
    uint32_t count, dfa;
    uint32_t taken[NV_MEMBERS / 32];
} nv_frame;

typedef struct nv_cfg {
    uint32_t pc, sub, depth;
    nv_frame stack[NV_DEPTH];
} nv_cfg;

typedef struct nv_set {
    nv_cfg *c;
    size_t n, cap;
    bool overflow;
} nv_set;

static bool nv_same(const nv_cfg *a, const nv_cfg *b)
{
    return a->pc == b->pc && a->sub == b->sub && a->depth == b->depth &&
           memcmp(a->stack, b->stack, a->depth * sizeof *a->stack) == 0;
}

static bool nv_put(nv_set *s, const nv_cfg *c)
{
    for (size_t i = 0; i < s->n; i++)
        if (nv_same(&s->c[i], c))
            return false;
    if (s->n == NV_MOST) {
        s->overflow = true;
        return false;
    }
    if (s->n == s->cap) {
        s->cap = s->cap * 2 + 16;
        s->c = fx_memory(s->c, s->cap * sizeof *s->c);
    }
    s->c[s->n++] = *c;
    return true;
}

static nv_frame *nv_push(nv_set *s, nv_cfg *c, uint32_t kind, uint32_t ret)
{
    if (c->depth == NV_DEPTH) {
        s->overflow = true;
        return &c->stack[NV_DEPTH - 1];
    }
    nv_frame *f = &c->stack[c->depth++];
    memset(f, 0, sizeof *f);
    f->kind = kind;
    f->ret = ret;
    return f;
}

static bool nv_required(const pro *p, const pro_set *s, uint32_t i)
{
    return p->words[s->required + i / 64] >> (i & 63) & 1;
}

static bool nv_taken(const nv_frame *f, uint32_t i)
{
    return f->taken[i / 32] >> (i & 31) & 1;
}

/* Members that may still come, those that must. */
static void nv_tally(const pro *p, const pro_set *s, const nv_frame *f,
                     uint32_t *left, uint32_t *missing)
{
    *left = *missing = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        if (nv_taken(f, i))
            continue;
        *left += p->members[s->first + i] != PRO_NONE;
        *missing += nv_required(p, s, i);
    }
}

static bool nv_optional(const pro *p, const pro_set *s, const nv_frame *f)
{
    uint32_t left, missing;
    nv_tally(p, s, f, &left, &missing);
    return s->max == PRO_NONE || f->count + missing < s->max;
}

/* Every place that can be reached without input, waiting or not. */
static void nv_close(const pro *p, nv_set *s)
{
    for (size_t i = 0; i < s->n && !s->overflow; i++) {
        nv_cfg c = s->c[i];
        const pro_op *o = &p->ops[c.pc];
        if (c.sub || o->op <= PRO_ACCEPT)
            continue;
        nv_frame *f = c.depth ? &c.stack[c.depth - 1] : NULL;
        const pro_set *set = o->op >= PRO_SET ? &p->sets[o->b] : NULL;
        uint32_t left = 0, missing = 0;
        if (o->op > PRO_SET)
            nv_tally(p, set, f, &left, &missing);
        nv_cfg to = c;
        nv_frame *top = f ? &to.stack[c.depth - 1] : NULL;
        to.pc = o->a;
        bool on = true;
        switch (o->op) {
        case PRO_JUMP: case PRO_SHALLOW: break;     /* texts are short */
        case PRO_SPLIT:
            nv_put(s, &to);
            to.pc = o->b;
            break;
        case PRO_CALL: nv_push(s, &to, 0, o->b); break;
        case PRO_RETURN:
            on = c.depth > 0;
            if (on) {
                to.pc = f->ret;
                to.depth--;
            }
            break;
        case PRO_PUSH: nv_push(s, &to, 1, 0); break;
        case PRO_POP: to.depth--; break;
        case PRO_COUNT:
            if (top->count < o->b)
                top->count++;
            break;
        case PRO_LEAST: on = f->count >= o->b; break;
        case PRO_BELOW: on = f->count < o->b; break;
        case PRO_SET: nv_push(s, &to, 2, o->b); break;
        case PRO_SET_TAKEN:
            for (uint32_t k = 0; k < set->n; k++)
                if (k == o->y || (set->ordered && k < o->y))
                    top->taken[k / 32] |= UINT32_C(1) << (k & 31);
            if (set->max != PRO_NONE ? top->count < set->max
                                     : top->count < set->min)
                top->count++;
            break;
        case PRO_SET_MORE:
            on = missing || (nv_optional(p, set, f) &&
                             (left || set->other != PRO_NONE));
            break;
        case PRO_SET_END:
            on = !missing && f->count >= set->min;
            to.depth--;
            break;
        case PRO_SET_NEXT:
            on = false;
            for (uint32_t k = 0; k < set->n; k++) {
                bool must = nv_required(p, set, k);
                if (nv_taken(f, k) || p->members[set->first + k] == PRO_NONE)
                    continue;
                left--;
                bool few = set->ordered && set->other == PRO_NONE &&
                           f->count + 1 + left < set->min;
                to.pc = p->members[set->first + k];
                if ((must || nv_optional(p, set, f)) && !few)
                    nv_put(s, &to);
                if (must && set->ordered)
                    break;
            }
            if (set->other != PRO_NONE && nv_optional(p, set, f) &&
                !(set->ordered && missing)) {
                to.pc = set->other;
                nv_put(s, &to);
            }
            break;
        default: on = false;
        }
        if (on)
            nv_put(s, &to);
    }
}

static uint32_t nv_edge(const pro *p, const pro_dfa *d, uint32_t state,
                        uint8_t byte)
{
    if (!state)
        return 0;
    const pro_state *s = &p->states[d->state + state - 1];
    for (uint32_t i = 0; i < s->n_edges; i++)
        if (p->edges[s->edge + i].lo <= byte &&
            p->edges[s->edge + i].hi >= byte)
            return p->edges[s->edge + i].to + 1;
    return 0;
}

static void nv_string(const pro *p, const nv_cfg *c, uint8_t byte, nv_set *to)
{
    const pro_op *o = &p->ops[c->pc];
    const pro_string *s = &p->strings[o->b];
    const pro_dfa *d = s->dfa == PRO_NONE ? NULL : &p->dfas[s->dfa];
    nv_cfg n = *c;
    if (!c->sub) {                  /* nothing was pushed yet, or go on */
        nv_frame *f = n.depth ? &n.stack[n.depth - 1] : NULL;
        if (!f || f->kind != 3 || f->ret != c->pc) {
            f = nv_push(to, &n, 3, c->pc);
            f->dfa = d ? 1 : 0;
        }
    }
    nv_frame *f = &n.stack[n.depth - 1];
    if (!c->sub && byte == '"') {
        bool final = d && f->dfa && p->states[d->state + f->dfa - 1].final;
        if (f->count < s->min || (d && final == s->except))
            return;
        n.depth--;
        n.pc = o->a;
        nv_put(to, &n);
        return;
    }
    uint32_t sub = pro_sub_next(c->sub, byte);
    if (sub == PRO_NO_SUB)
        return;
    if (!c->sub && s->max != PRO_NONE && f->count == s->max)
        return;
    if (!c->sub && (s->max != PRO_NONE || f->count < s->min))
        f->count++;
    if (d)
        f->dfa = nv_edge(p, d, f->dfa, byte);
    if (d && !s->except) {
        if (!f->dfa)
            return;
        const pro_state *at = &p->states[d->state + f->dfa - 1];
        if (s->max != PRO_NONE && f->count + at->near > s->max)
            return;
        if (at->far != PRO_NONE && f->count + at->far < s->min)
            return;
    }
    n.sub = sub;
    nv_put(to, &n);
}

static void nv_begin(const pro *p, uint32_t start, nv_set *s)
{
    nv_cfg c = {.pc = start};
    s->n = 0;
    s->overflow = false;
    nv_put(s, &c);
    nv_close(p, s);
}

/* Input: a byte, or 256 + a control token. */
static void nv_step(const pro *p, const nv_set *from, uint32_t in, nv_set *to)
{
    to->n = 0;
    to->overflow = from->overflow;
    for (size_t i = 0; i < from->n; i++) {
        nv_cfg c = from->c[i];
        const pro_op *o = &p->ops[c.pc];
        if (o->op == PRO_STRING && in < 256)
            nv_string(p, &c, (uint8_t)in, to);
        bool fits = o->op == PRO_BYTE && in >= o->x && in <= o->y;
        if (o->op == PRO_TOKEN && in == 256u + o->x)
            fits = true;
        c.pc = o->a;
        if (fits)
            nv_put(to, &c);
    }
    nv_close(p, to);
}

static bool nv_accepts(const pro *p, const nv_set *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (p->ops[s->c[i].pc].op == PRO_ACCEPT)
            return true;
    return false;
}

static bool nv_lives(const pro *p, const nv_set *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (p->ops[s->c[i].pc].op <= PRO_ACCEPT)
            return true;
    return false;
}

/* ---- random programs ------------------------------------------------------ */

enum { MADE_RULES = 3 };

typedef struct made {
    pro_build b;
    uint64_t seed;
    uint32_t rules[MADE_RULES];
    uint32_t left;                  /* parts that may still be made */
    bool closable;                  /* no part without an end */
    ksllm_error err;
} made;

static uint32_t made_part(made *m, uint32_t depth, uint32_t next);

static uint32_t made_bytes(made *m, uint32_t next)
{
    static const char *const texts[] = {
        "a", "ab", "b", "ba", "c", "\xea\xb0\x80", "\xea\xb0\x81", "aa", " "};
    if (fx_below(&m->seed, 3) == 0)
        return pro_byte(&m->b, 'a', (uint8_t)('a' + fx_below(&m->seed, 4)),
                        next);
    return pro_text(&m->b, str_of(texts[fx_below(&m->seed, 9)]), next);
}

static uint32_t made_star(made *m, uint32_t depth, uint32_t next)
{
    uint32_t hole = pro_hole(&m->b);
    uint32_t body = made_part(m, depth, hole);
    pro_fill(&m->b, hole, pro_emit(&m->b, PRO_SPLIT, 0, 0, body, next));
    return hole;
}

static uint32_t made_repeat(made *m, uint32_t depth, uint32_t next)
{
    pro_build *b = &m->b;
    uint32_t min = fx_below(&m->seed, 4);
    uint32_t max = fx_below(&m->seed, 2) ? PRO_NONE
                                         : min + fx_below(&m->seed, 3);
    uint32_t hole = pro_hole(b);
    uint32_t count = pro_emit(b, PRO_COUNT, 0, 0, hole,
                              max == PRO_NONE ? min : max);
    uint32_t body = made_part(m, depth, count);
    uint32_t pop = pro_emit(b, PRO_POP, 0, 0, next, 0);
    uint32_t least = pro_emit(b, PRO_LEAST, 0, 0, pop, min);
    uint32_t below = max == PRO_NONE ? body
        : pro_emit(b, PRO_BELOW, 0, 0, body, max);
    pro_fill(b, hole, pro_emit(b, PRO_SPLIT, 0, 0, below, least));
    return pro_emit(b, PRO_PUSH, 0, 0, min && max ? body : hole, min);
}

static void made_edge(made *m, uint32_t to, uint8_t lo, uint8_t hi)
{
    pro_edge *e = PRO_ADD(&m->b, edges);
    if (e)
        *e = (pro_edge){to, lo, hi};
}

/* [ab]{0,2}, [ab]*, or the three texts a, ab and "가". */
static uint32_t made_dfa(made *m, uint32_t kind)
{
    static const struct { uint32_t near, far, final, edges; } states[3][5] = {
        {{0, 2, 1, 1}, {0, 1, 1, 1}, {0, 0, 1, 0}},
        {{0, PRO_NONE, 1, 1}},
        {{1, 2, 0, 2}, {0, 1, 1, 1}, {0, 0, 1, 0}, {0, 0, 0, 1},
         {0, 0, 0, 1}}};
    static const uint32_t counts[] = {3, 1, 5};
    pro_build *b = &m->b;
    uint32_t first = b->p.n_states, edge = b->p.n_edges;
    for (uint32_t i = 0; i < counts[kind]; i++) {
        pro_state *s = PRO_ADD(b, states);
        *s = (pro_state){edge, states[kind][i].edges, states[kind][i].near,
                         states[kind][i].far, states[kind][i].final};
        edge += states[kind][i].edges;
    }
    if (kind == 0) {
        made_edge(m, 1, 'a', 'b');
        made_edge(m, 2, 'a', 'b');
    } else if (kind == 1) {
        made_edge(m, 0, 'a', 'b');
    } else {
        made_edge(m, 1, 'a', 'a');
        made_edge(m, 3, 0xea, 0xea);
        made_edge(m, 2, 'b', 'b');
        made_edge(m, 4, 0xb0, 0xb0);
        made_edge(m, 2, 0x80, 0x80);
    }
    pro_dfa *d = PRO_ADD(b, dfas);
    *d = (pro_dfa){.state = first, .n_states = counts[kind]};
    return b->p.n_dfas - 1;
}

static uint32_t made_string(made *m, uint32_t next)
{
    pro_string s = {0, PRO_NONE, PRO_NONE, false, false};
    uint32_t kind = fx_below(&m->seed, 7);
    if (kind == 1 || kind == 2)
        s.min = fx_below(&m->seed, 3);
    if (kind == 2 || kind == 3)
        s.max = s.min + fx_below(&m->seed, 3);
    if (kind == 4)
        s.dfa = made_dfa(m, fx_below(&m->seed, 3));
    if (kind == 5) {
        s.dfa = made_dfa(m, 2);
        s.except = s.names = true;
    }
    if (kind == 6) {
        s.dfa = made_dfa(m, fx_below(&m->seed, 2));
        s.min = fx_below(&m->seed, 3);
        s.max = s.min + fx_below(&m->seed, 3);
    }
    pro_string *to = PRO_ADD(&m->b, strings);
    if (to)
        *to = s;
    return pro_byte(&m->b, '"', '"', pro_emit(&m->b, PRO_STRING, 0, 0, next,
                                              m->b.p.n_strings - 1));
}

static uint32_t made_set(made *m, uint32_t depth, uint32_t next)
{
    pro_build *b = &m->b;
    bool wide = fx_below(&m->seed, 12) == 0;
    uint32_t n = wide ? 60 + fx_below(&m->seed, 10) : fx_below(&m->seed, 5);
    uint32_t set = b->p.n_sets, required = 0;
    pro_set *s = PRO_ADD(b, sets);
    pro_set x = {.n = n, .first = b->p.n_members, .other = PRO_NONE,
                 .max = PRO_NONE, .required = b->p.n_words,
                 .ordered = fx_below(&m->seed, 3) == 0};
    for (uint32_t i = 0; i < n; i++)
        (void)PRO_ADD(b, members);
    for (uint32_t i = 0; i < n; i++) {
        if (i % 64 == 0)
            (void)PRO_ADD(b, words);
        if (fx_below(&m->seed, wide ? 20 : 3))
            continue;
        b->p.words[x.required + i / 64] |= UINT64_C(1) << (i & 63);
        required++;
    }
    uint32_t end = pro_emit(b, PRO_SET_END, 0, 0, pro_byte(b, '}', '}', next),
                            set);
    uint32_t more = pro_hole(b);
    uint32_t again = pro_emit(b, PRO_SET_NEXT, 0, 0, 0, set);
    pro_fill(b, more, pro_emit(b, PRO_SPLIT, 0, 0, end,
        pro_emit(b, PRO_SET_MORE, 0, 0, pro_byte(b, ',', ',', again), set)));
    for (uint32_t i = 0; i < n; i++) {
        char name[3] = {(char)('a' + i / 26 % 26), (char)('a' + i % 26), 0};
        uint32_t taken = pro_emit(b, PRO_SET_TAKEN, 0, i, more, set);
        uint32_t value = wide ? taken : made_part(m, depth, taken);
        uint32_t entry = pro_text(b, str_of(name + !wide), value);
        b->p.members[x.first + i] = entry;
    }
    if (fx_below(&m->seed, 3) == 0)
        x.other = pro_byte(b, 'x', 'z',
            pro_emit(b, PRO_SET_TAKEN, 0, PRO_OTHER, more, set));
    if (fx_below(&m->seed, 3) == 0) {
        x.min = fx_below(&m->seed, n + (x.other != PRO_NONE) + 1);
        x.max = (x.min > required ? x.min : required) + fx_below(&m->seed, 3);
    }
    (void)s;
    if (b->status)
        return 0;
    b->p.sets[set] = x;
    return pro_emit(b, PRO_SET, 0, 0, pro_byte(b, '{', '{',
        pro_emit(b, PRO_SPLIT, 0, 0, again, end)), set);
}

static uint32_t made_part(made *m, uint32_t depth, uint32_t next)
{
    uint32_t kind = fx_below(&m->seed, 16);
    if (depth == 0 || m->left == 0)
        return made_bytes(m, next);
    depth--;
    m->left--;
    switch (kind) {
    case 0: case 1: case 2:
        return made_part(m, depth, made_part(m, depth, next));
    case 3: case 4:
        return pro_either(&m->b, made_part(m, depth, next),
                          made_part(m, depth, next));
    case 5: return pro_either(&m->b, made_part(m, depth, next), next);
    case 6: return made_star(m, depth, next);
    case 7: case 8: return made_repeat(m, depth, next);
    case 9: case 10:
        return pro_call(&m->b, m->rules[fx_below(&m->seed, MADE_RULES)], next);
    case 11: case 12: return made_set(m, depth, next);
    case 13: case 14: return made_string(m, next);
    default:
        if (fx_below(&m->seed, 3) == 0)
            return pro_emit(&m->b, PRO_FAIL, 0, 0, 0, 0);
        if (fx_below(&m->seed, 3) == 0)
            return pro_emit(&m->b, PRO_TOKEN, fx_below(&m->seed, 2), 0, next,
                            0);
        return made_bytes(m, next);
    }
}

/* Builds a program; returns its start. Control tokens have these ids. */
static uint32_t made_begin(made *m, uint64_t seed, const int32_t *tokens)
{
    memset(m, 0, sizeof *m);
    m->b.alloc = &MEM_LIBC;
    m->b.err = &m->err;
    m->b.max_ops = 4000;
    m->seed = seed;
    m->left = 30;
    for (int i = 0; i < 2; i++) {
        int32_t *t = PRO_ADD(&m->b, tokens);
        *t = tokens[i];
    }
    uint32_t accept = pro_emit(&m->b, PRO_ACCEPT, 0, 0, 0, 0);
    uint32_t back = pro_emit(&m->b, PRO_RETURN, 0, 0, 0, 0);
    for (int i = 0; i < MADE_RULES; i++)
        m->rules[i] = pro_hole(&m->b);
    for (int i = 0; i < MADE_RULES; i++) {
        uint32_t body = made_part(m, 3, back);
        pro_fill(&m->b, m->rules[i], fx_below(&m->seed, 2) ? body
            : pro_either(&m->b, body, made_bytes(m, back)));
    }
    return made_part(m, 4, accept);
}

/* ---- a vocabulary and a matcher ------------------------------------------- */

typedef struct rig {
    ksllm_model *model;
    fx_file file;
    voc *v;
    mat *m;
    void *memory;
    int32_t tokens[2];              /* control tokens */
} rig;

static void rig_open(rig *r, fx_vocab_kind kind)
{
    ksllm_error e;
    memset(r, 0, sizeof *r);
    r->model = fx_open_vocab(NULL, kind, &r->file);
    fx_must(voc_build(&r->model->tok, &MEM_LIBC, &r->v, &e), &e);
    r->tokens[0] = kind == FX_BPE ? FX_IM_START : 1;
    r->tokens[1] = kind == FX_BPE ? FX_END : 0;
}

/* The bytes, and as added tokens: texts that are there twice, that end or begin
 * in the midst of a character, that share 8 bytes, that cross a string's end. */
static void rig_open_odd(rig *r)
{
    static const char *const texts[] = {
        "ab", "ab", "abc", "aaaaaaaa", "aaaaaaaab", "aaaaaaaaab", "aaaaaaaab",
        " a", " ab", "  ", " \xea\xb0\x80", "\xea\xb0\x80\xea\xb0\x81",
        "\xea\xb0", "\xb0\x80", "\x80", "\xb0\x80\"", "\"", "\"}", "\",",
        "a\"", "{\"", "a,", "b}", "}}", "\\n", "\\", "a\\", "\n", "a\nb",
        "\xea\xb0\x80\xea", "-a", "a b", "x,y", "{a", "bab", "{aa,ab"};
    ksllm_model_options o;
    ksllm_error e;
    fx_gguf g;
    fx_vocab v = {0};
    char s[8];
    memset(r, 0, sizeof *r);
    for (int i = 0; i < 256; i++)
        fx_vocab_add_n(&v, s, fx_alphabet((uint8_t)i, s), FX_NORMAL);
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        fx_vocab_add(&v, texts[i], FX_USER);
    for (int i = 0; i < 4; i++)
        fx_vocab_add(&v, i % 2 ? "<e>" : "<|im_end|>", FX_CONTROL);
    r->tokens[0] = (int32_t)v.n - 3;
    r->tokens[1] = (int32_t)v.n - 1;
    fx_begin(&g);
    fx_kv_text(&g, "general.architecture", "llama");
    fx_put_lists(&g, &v, false);
    r->file = fx_end(&g);
    ksllm_model_options_init(&o);
    o.vocab_only = true;
    fx_must(ksllm_model_open_memory(r->file.data, r->file.size, &o, &r->model,
                                    &e), &e);
    fx_must(voc_build(&r->model->tok, &MEM_LIBC, &r->v, &e), &e);
}

static void rig_place(rig *r, size_t table_bytes)
{
    size_t n = mat_bytes(r->v, table_bytes);
    r->memory = fx_memory(r->memory, n);
    memset(r->memory, 0xaa, n);
    r->m = mat_place(r->memory, r->v, n);
}

static void rig_close(rig *r)
{
    voc_free(r->v);
    free(r->memory);
    fx_close(r->model, &r->file);
}

static bool rig_lives(rig *r, uint32_t in)
{
    mat *m = r->m;
    uint32_t cls = in < 256 ? m->p->class_of[in] : m->p->n_classes + in - 256;
    m->work = MAT_WORK;
    return mat_go(m, m->live, cls) != MAT_DEAD;
}

static void rig_step(rig *r, uint32_t in)
{
    mat *m = r->m;
    uint32_t cls = in < 256 ? m->p->class_of[in] : m->p->n_classes + in - 256;
    m->live = mat_go(m, m->live, cls);
}

static nv_set nv_now, nv_next, nv_raw, nv_raw_next, nv_token;

/* Whether the naive machine takes a token. */
static bool nv_takes(const pro *p, const tokenizer *t, uint32_t id)
{
    uint8_t buf[TOK_TEXT_MAX];
    for (uint32_t i = 0; i < p->n_tokens; i++)
        if (p->tokens[i] == (int32_t)id) {
            nv_step(p, &nv_now, 256 + i, &nv_token);
            if (nv_lives(p, &nv_token))
                return true;
        }
    if (tok_is_stop(t, (int32_t)id))
        return nv_accepts(p, &nv_now);
    uint32_t type = tok_type(t, id);
    if (type == TOK_CONTROL || type == TOK_UNKNOWN)
        return false;
    str s = tok_bytes(t, id, buf);
    if (!s.n)
        return false;
    static nv_set a, b;
    const nv_set *now = &nv_now;
    for (size_t i = 0; i < s.n; i++) {
        nv_set *into = i % 2 ? &b : &a;
        nv_step(p, now, (uint8_t)s.p[i], into);
        if (!nv_lives(p, into))
            return false;
        now = into;
    }
    return true;
}

static void check_mask(rig *r, const pro *p)
{
    const tokenizer *t = r->v->t;
    size_t n = 0, wrong = 0, allowed = 0;
    const u64 *mask = mat_mask(r->m, &n);
    if (!CHECK(mask != NULL))
        return;
    for (uint32_t id = 0; id < t->n_vocab; id++) {
        bool takes = nv_takes(p, t, id);
        allowed += takes;
        wrong += takes != tok_has_bit(mask, id);
    }
    CHECK_EQ(wrong, 0);
    CHECK_EQ(n, allowed);
}

/* The fewest inputs to an end, or `most` if there are more. */
static uint32_t nv_least(const pro *p, uint32_t most)
{
    static nv_set now, next, one;
    now.n = 0;
    for (size_t i = 0; i < nv_now.n; i++)
        nv_put(&now, &nv_now.c[i]);
    for (uint32_t k = 0; k < most; k++) {
        if (nv_accepts(p, &now))
            return k;
        next.n = 0;
        next.overflow = false;
        for (uint32_t in = 0; in < p->n_classes + p->n_tokens; in++) {
            nv_step(p, &now, in < p->n_classes ? p->class_byte[in]
                    : 256 + in - p->n_classes, &one);
            for (size_t i = 0; i < one.n; i++)
                nv_put(&next, &one.c[i]);
        }
        if (next.overflow || next.n > 600)
            return most;
        nv_set swap = now;
        now = next;
        next = swap;
    }
    return most;
}

static uint32_t n_closed, n_shortest, n_open;

/* A closing is accepted, and no longer than it must be. */
static void check_close(rig *r, const pro *p, bool least)
{
    int32_t tokens[300];
    uint32_t n, bytes = 0;
    uint8_t buf[TOK_TEXT_MAX];
    int32_t count = mat_close(r->m, tokens, 300, &n);
    n_open += count < 0;
    if (count < 0)
        return;
    n_closed++;
    CHECK_EQ(count, n);
    for (uint32_t i = 0; i < n; i++) {
        bool control = tokens[i] == r->tokens[0] || tokens[i] == r->tokens[1];
        bytes += control ? 1
            : (uint32_t)tok_bytes(r->v->t, (uint32_t)tokens[i], buf).n;
        bool takes = mat_takes(r->m, tokens[i]);
        if (r->m->status && !least)
            return;                 /* a table that is too small */
        CHECK(takes);
        if (!CHECK_EQ(mat_next(r->m, tokens[i]), KSLLM_OK))
            return;
    }
    CHECK(mat_may_end(r->m));
    uint32_t shortest = least ? nv_least(p, 9) : 9;
    if (shortest < 9) {
        CHECK_EQ(bytes, shortest);
        n_shortest++;
    }
}

enum { ASK_MASKS = 1, ASK_CLOSE = 2 };

/* One random program along random texts. */
static void check_program(rig *r, uint64_t seed, size_t table, unsigned ask)
{
    const int32_t *tokens = r->tokens;
    made m;
    ksllm_error e;
    uint32_t start = made_begin(&m, seed, tokens);
    /* The program as built, for the naive machine. */
    made raw;
    uint32_t raw_start = made_begin(&raw, seed, tokens);
    ksllm_status s = pro_finish(&m.b, start);
    if (s) {
        pro_free(&m.b);
        pro_free(&raw.b);
        return;
    }
    rig_place(r, table);
    s = mat_begin(r->m, &m.b.p, &e);
    if (s && table > 100000)
        printf("seed %d: %s\n", (int)seed, e.text);
    for (int text = 0; text < 6 && !s; text++) {
        nv_begin(&m.b.p, m.b.p.start, &nv_now);
        nv_begin(&raw.b.p, raw_start, &nv_raw);
        if (mat_begin(r->m, &m.b.p, &e))
            break;
        for (int i = 0; i < 24; i++) {
            if (nv_now.overflow || nv_raw.overflow)
                break;
            uint32_t choices[300], n = 0;
            bool same = true;
            for (uint32_t in = 0; in < 258; in++) {
                nv_step(&m.b.p, &nv_now, in, &nv_next);
                bool lives = nv_lives(&m.b.p, &nv_next);
                if (lives)
                    choices[n++] = in;
                bool mine = rig_lives(r, in);
                if (nv_next.overflow || r->m->status)
                    break;
                if (lives != mine && same) {
                    printf("seed %d text %d at %d: %u lives %d, naive %d\n",
                           (int)seed, text, i, (unsigned)in, mine, lives);
                    same = false;
                }
            }
            if (r->m->status || nv_next.overflow)
                break;
            if (!CHECK(same))
                break;
            CHECK_EQ(mat_may_end(r->m), nv_accepts(&m.b.p, &nv_now));
            CHECK_EQ(nv_accepts(&raw.b.p, &nv_raw),
                     nv_accepts(&m.b.p, &nv_now));
            CHECK(n > 0 || nv_accepts(&m.b.p, &nv_now));
            if (ask & ASK_MASKS && i % 3 == 0)
                check_mask(r, &m.b.p);
            if (ask & ASK_CLOSE && fx_below(&m.seed, 6) == 0) {
                check_close(r, &m.b.p, table > 100000);
                break;
            }
            if (n == 0)
                break;
            uint32_t in = choices[fx_below(&m.seed, n)];
            nv_step(&m.b.p, &nv_now, in, &nv_next);
            nv_set swap = nv_now;
            nv_now = nv_next;
            nv_next = swap;
            nv_step(&raw.b.p, &nv_raw, in, &nv_raw_next);
            swap = nv_raw;
            nv_raw = nv_raw_next;
            nv_raw_next = swap;
            rig_step(r, in);
        }
    }
    pro_free(&m.b);
    pro_free(&raw.b);
}

TEST(random_programs)
{
    rig r;
    rig_open(&r, FX_BPE);
    uint32_t n = 150 / TEST_ONE_OF + 1;
    for (uint32_t i = 0; i < n; i++)
        check_program(&r, test_seed * 100003 + i, 256 << 10, 0);
    rig_close(&r);
}

TEST(masks_are_every_token_alone)
{
    rig r;
    rig_open(&r, FX_BPE);
    for (uint32_t i = 0; i < 40 / TEST_ONE_OF + 1; i++)
        check_program(&r, test_seed * 100019 + i, 256 << 10, ASK_MASKS);
    rig_close(&r);
}

TEST(masks_of_odd_tokens)
{
    rig r;
    for (int spm = 0; spm < 2; spm++) {
        if (spm)
            rig_open(&r, FX_SPM);
        else
            rig_open_odd(&r);
        CHECK(spm || r.v->n_same >= 3);
        for (uint32_t i = 0; i < 40 / TEST_ONE_OF + 1; i++)
            check_program(&r, test_seed * 100129 + i, i % 2 ? 256 << 10 : 9000,
                          ASK_MASKS | ASK_CLOSE);
        rig_close(&r);
    }
}

TEST(closings_are_shortest)
{
    rig r;
    rig_open(&r, FX_BPE);
    for (uint32_t i = 0; i < 150 / TEST_ONE_OF + 1; i++)
        check_program(&r, test_seed * 100043 + i, 256 << 10, ASK_CLOSE);
    printf("%u closed, %u shortest\n", (unsigned)n_closed,
           (unsigned)n_shortest);
    CHECK_EQ(n_open, 0); /* whatever began has an end that is found */
    rig_close(&r);
}

TEST(tiny_tables)
{
    rig r;
    rig_open(&r, FX_BPE);
    for (uint32_t i = 0; i < 40 / TEST_ONE_OF + 1; i++)
        check_program(&r, test_seed * 100057 + i, 3000 + i % 16 * 500,
                      ASK_MASKS);
    rig_close(&r);
}

/* ---- hostile programs ----------------------------------------------------- */

static void build_begin(pro_build *b, const ksllm_allocator *a, ksllm_error *e)
{
    memset(b, 0, sizeof *b);
    b->alloc = a;
    b->err = e;
    b->max_ops = 100000;
}

/* n texts of `length` letters, one of which must come. */
static uint32_t build_choices(pro_build *b, uint32_t n, uint32_t length)
{
    uint32_t accept = pro_emit(b, PRO_ACCEPT, 0, 0, 0, 0), all = PRO_NONE;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t x = accept;
        for (uint32_t k = 0, rest = i; k < length; k++, rest /= 26)
            x = pro_byte(b, (uint8_t)('a' + rest % 26),
                         (uint8_t)('a' + rest % 26), x);
        all = pro_either(b, x, all);
    }
    return all;
}

/* More alternatives than the tables hold are refused with advice; what fits
 * runs. */
TEST(too_many_alternatives)
{
    rig r;
    ksllm_error e;
    pro_build b;
    rig_open(&r, FX_BPE);
    for (uint32_t n = 500; n <= 10000; n += 9500) {
        build_begin(&b, &MEM_LIBC, &e);
        CHECK_EQ(pro_finish(&b, build_choices(&b, n, 3)), KSLLM_OK);
        rig_place(&r, 256 << 10);
        ksllm_status s = mat_begin(r.m, &b.p, &e);
        CHECK_EQ(s, n == 500 ? KSLLM_OK : KSLLM_ERR_BUFFER);
        CHECK_EQ(mat_failed(r.m), s);
        CHECK((mat_mask(r.m, NULL) != NULL) == !s);
        CHECK_EQ(mat_takes(r.m, 'a'), !s && mat_takes(r.m, 'a'));
        if (s) {
            CHECK(strstr(e.text, "raise grammar_bytes") != NULL);
            CHECK_EQ(mat_next(r.m, 'a'), KSLLM_ERR_BUFFER);
            CHECK(!mat_may_end(r.m));
            CHECK(!mat_must_end(r.m));
        }
        pro_free(&b);
    }
    rig_close(&r);
}

/* ((a|a)*)* and deeper, in which a text has exponentially many readings. */
TEST(ambiguous_loops)
{
    rig r;
    ksllm_error e;
    pro_build b;
    rig_open(&r, FX_BPE);
    build_begin(&b, &MEM_LIBC, &e);
    uint32_t next = pro_emit(&b, PRO_ACCEPT, 0, 0, 0, 0);
    for (int i = 0; i < 60; i++) {
        uint32_t hole = pro_hole(&b);
        uint32_t body = pro_either(&b, pro_byte(&b, 'a', 'a', hole),
                                   pro_byte(&b, 'a', 'b', hole));
        pro_fill(&b, hole, pro_either(&b, body, next));
        next = hole;
    }
    CHECK_EQ(pro_finish(&b, next), KSLLM_OK);
    rig_place(&r, 256 << 10);
    CHECK_EQ(mat_begin(r.m, &b.p, &e), KSLLM_OK);
    for (int i = 0; i < 300; i++)
        CHECK_EQ(mat_next(r.m, r.model->tok.byte_id[i % 2 ? 'a' : 'b']),
                 KSLLM_OK);
    CHECK(r.m->n_states < 100);
    CHECK(mat_may_end(r.m));
    pro_free(&b);
    rig_close(&r);
}

/* A rule that nests for ever: the tables fill up, and say so. */
TEST(endless_nesting)
{
    rig r;
    ksllm_error e;
    pro_build b;
    rig_open(&r, FX_BPE);
    build_begin(&b, &MEM_LIBC, &e);
    uint32_t back = pro_emit(&b, PRO_RETURN, 0, 0, 0, 0);
    uint32_t rule = pro_hole(&b);
    uint32_t end = pro_byte(&b, ']', ']', back);
    pro_fill(&b, rule, pro_byte(&b, '[', '[',
        pro_either(&b, pro_call(&b, rule, end), end)));
    uint32_t start = pro_call(&b, rule, pro_emit(&b, PRO_ACCEPT, 0, 0, 0, 0));
    CHECK_EQ(pro_finish(&b, start), KSLLM_OK);
    rig_place(&r, 64 << 10);
    CHECK_EQ(mat_begin(r.m, &b.p, &e), KSLLM_OK);
    int depth = 0, open = r.model->tok.byte_id['['];
    while (depth < 100000 && mat_next(r.m, open) == KSLLM_OK)
        depth++;
    CHECK(depth > 300 && depth < 100000);
    CHECK_EQ(mat_failed(r.m), KSLLM_ERR_BUFFER);
    CHECK_EQ(mat_begin(r.m, &b.p, &e), KSLLM_OK);
    for (int i = 0; i < 200; i++)
        CHECK_EQ(mat_next(r.m, open), KSLLM_OK);
    int32_t tokens[400];
    uint32_t n;
    CHECK_EQ(mat_close(r.m, tokens, 400, &n), 200);
    pro_free(&b);
    rig_close(&r);
}

/* ---- what is refused ------------------------------------------------------ */

/* A member that must hold its own kind, for ever; a choice of nothing. */
TEST(nothing_can_satisfy)
{
    ksllm_error e;
    pro_build b;
    build_begin(&b, &MEM_LIBC, &e);
    pro_set *s = PRO_ADD(&b, sets);
    (void)PRO_ADD(&b, members);
    (void)PRO_ADD(&b, words);
    b.p.words[0] = 1;
    *s = (pro_set){.n = 1, .other = PRO_NONE, .max = PRO_NONE};
    uint32_t back = pro_emit(&b, PRO_RETURN, 0, 0, 0, 0);
    uint32_t end = pro_emit(&b, PRO_SET_END, 0, 0, back, 0);
    uint32_t rule = pro_hole(&b);
    uint32_t taken = pro_emit(&b, PRO_SET_TAKEN, 0, 0, end, 0);
    b.p.members[0] = pro_byte(&b, 'a', 'a', pro_call(&b, rule, taken));
    pro_fill(&b, rule, pro_emit(&b, PRO_SET, 0, 0,
        pro_either(&b, pro_emit(&b, PRO_SET_NEXT, 0, 0, 0, 0), end), 0));
    uint32_t start = pro_call(&b, rule, pro_emit(&b, PRO_ACCEPT, 0, 0, 0, 0));
    CHECK_EQ(pro_finish(&b, start), KSLLM_ERR_ARGUMENT);
    pro_free(&b);
    build_begin(&b, &MEM_LIBC, &e);
    CHECK_EQ(pro_finish(&b, pro_emit(&b, PRO_FAIL, 0, 0, 0, 0)),
             KSLLM_ERR_ARGUMENT);
    pro_free(&b);
}

/* What comes is forced or not; where nothing may follow, the end. */
TEST(forced_text)
{
    rig r;
    ksllm_error e;
    pro_build b;
    char text[32];
    rig_open(&r, FX_BPE);
    build_begin(&b, &MEM_LIBC, &e);
    uint32_t end = pro_text(&b, str_of("end"),
                            pro_emit(&b, PRO_ACCEPT, 0, 0, 0, 0));
    CHECK_EQ(pro_finish(&b, pro_text(&b, str_of("go "),
             pro_byte(&b, 'a', 'b', end))), KSLLM_OK);
    rig_place(&r, 64 << 10);
    CHECK_EQ(mat_begin(r.m, &b.p, &e), KSLLM_OK);
    CHECK_EQ(mat_forced(r.m, text, sizeof text), 3);
    CHECK(memcmp(text, "go ", 3) == 0);
    CHECK_EQ(mat_forced(r.m, text, 2), 2);
    for (const char *c = "go b"; *c; c++)
        CHECK_EQ(mat_next(r.m, r.model->tok.byte_id[(uint8_t)*c]), KSLLM_OK);
    CHECK_EQ(mat_forced(r.m, text, sizeof text), 3);
    CHECK(!mat_must_end(r.m));
    CHECK(!mat_takes(r.m, FX_IM_END));
    for (const char *c = "end"; *c; c++)
        CHECK_EQ(mat_next(r.m, r.model->tok.byte_id[(uint8_t)*c]), KSLLM_OK);
    CHECK(mat_must_end(r.m) && mat_may_end(r.m));
    CHECK_EQ(mat_next(r.m, 'a'), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(mat_next(r.m, FX_IM_END), KSLLM_OK);
    CHECK_EQ(mat_next(r.m, FX_IM_END), KSLLM_ERR_ARGUMENT);
    pro_free(&b);
    rig_close(&r);
}

/* Every allocation fails once: MEMORY, and nothing is lost. */
TEST(no_memory)
{
    rig r;
    ksllm_error e;
    rig_open(&r, FX_BPE);
    for (long at = 1, more = 1; more; at++) {
        fx_alloc a;
        voc *v = NULL;
        fx_alloc_init(&a);
        a.fail_at = at;
        ksllm_status s = voc_build(&r.model->tok, &a.allocator, &v, &e);
        more = a.failed;
        CHECK_EQ(s, more ? KSLLM_ERR_MEMORY : KSLLM_OK);
        voc_free(v);
        CHECK_EQ(a.live, 0);
        CHECK(!a.wrong_size);
    }
    for (long at = 1, more = 1; more; at++) {
        fx_alloc a;
        pro_build b;
        fx_alloc_init(&a);
        a.fail_at = at;
        build_begin(&b, &a.allocator, &e);
        ksllm_status s = pro_finish(&b, build_choices(&b, 40, 3));
        more = a.failed;
        CHECK_EQ(s, more ? KSLLM_ERR_MEMORY : KSLLM_OK);
        pro_free(&b);
        CHECK_EQ(a.live, 0);
        CHECK(!a.wrong_size);
    }
    rig_close(&r);
}

TEST_MAIN
