/* naive.h - a machine for programs (§ 14 of ksllm.c), slow and plain: sets of
 * configurations, frames on a list, nothing shared or kept.
 *
 * It reads bytes, and knows no token. Include it behind ../ksllm.c.
 */
#ifndef NAIVE_H
#define NAIVE_H

#include <stdio.h>
#include <stdlib.h>

/* `seen` is a set of members, as bits in nv.seen; 0 is the empty one. */
typedef struct nv_frame { u32 back, up, count, seen; } nv_frame;
/* Of a string: characters read, place in its automaton, bytes that are to come
 * of a character. */
typedef struct nv_conf {
    u32 pc, frame, chars, state;
    u8 lex, lo, hi;     /* lo, hi: of the next byte */
} nv_conf;

typedef struct nv {
    const pro *p;
    nv_frame *frames;
    u32 n_frames, cap_frames;
    u64 *seen;          /* n_seen sets of `width` words */
    u32 n_seen, width;
    nv_conf *now, *next;
    u32 n_now, n_next, cap_now, cap_next;
    u32 *table, mask;   /* frames by their hash */
    u64 *done;          /* configurations of this step: step, number */
    u32 step, mask_done;
} nv;

enum { NV_PLAIN, NV_TAIL, NV_ESCAPE, NV_U, NV_ZERO, NV_ZERO2, NV_HEX1, NV_HEX2 };
#define NV_DEAD UINT32_MAX

static void *nv_room(void *p, size_t n)
{
    p = realloc(p, n ? n : 1);
    if (!p) {
        fprintf(stderr, "naive.h: no memory\n");
        exit(1);
    }
    return p;
}

static u32 nv_hash(const void *p, size_t n)
{
    const u8 *b = p;
    u32 h = 0x811c9dc5u;
    for (size_t i = 0; i < n; i++) h = (h ^ b[i]) * 0x01000193u;
    return h ^ h >> 15;
}

static u32 nv_frame_of(nv *m, nv_frame f)
{
    if (2 * m->n_frames >= m->mask) {
        u32 n = m->mask ? 2 * (m->mask + 1) : 1024;
        m->mask = n - 1;
        m->table = nv_room(m->table, n * sizeof *m->table);
        memset(m->table, 0, n * sizeof *m->table);
        m->frames = nv_room(m->frames, n * sizeof *m->frames);
        if (!m->n_frames) m->frames[m->n_frames++] = (nv_frame){0, 0, 0, 0};
        for (u32 i = 1; i < m->n_frames; i++) {
            u32 h = nv_hash(&m->frames[i], sizeof f);
            while (m->table[h & m->mask]) h++;
            m->table[h & m->mask] = i;
        }
    }
    u32 h = nv_hash(&f, sizeof f), at;
    for (; (at = m->table[h & m->mask]) != 0; h++)
        if (!memcmp(&m->frames[at], &f, sizeof f)) return at;
    m->frames[m->n_frames] = f;
    return m->table[h & m->mask] = m->n_frames++;
}

static u32 nv_seen_with(nv *m, u32 set, u32 bit)
{
    u32 w = m->width;
    m->seen = nv_room(m->seen, (m->n_seen + 1) * w * sizeof(u64));
    u64 *to = m->seen + m->n_seen * w;
    memcpy(to, m->seen + set * w, w * sizeof(u64));
    to[bit / 64] |= (u64)1 << bit % 64;
    for (u32 i = 0; i < m->n_seen; i++)
        if (!memcmp(m->seen + i * w, to, w * sizeof(u64))) return i;
    return m->n_seen++;
}

static bool nv_has(const nv *m, u32 set, u32 bit)
{
    return m->seen[set * m->width + bit / 64] >> bit % 64 & 1;
}

static u32 nv_missing(const nv *m, const pro_set *s, u32 set)
{
    u32 n = 0;
    for (u32 i = 0; i < s->n; i++)
        n += (m->p->words[s->required + i / 64] >> i % 64 & 1)
            && !nv_has(m, set, i);
    return n;
}

/* Whether a member may come: enough places stay for those that are missing. */
static bool nv_may(const nv *m, const pro_set *s, nv_frame f, u32 i)
{
    u32 left = s->max == PRO_NONE ? PRO_NONE : s->max - f.count;
    u32 need = nv_missing(m, s, f.seen);
    bool wanted = i < s->n
        && (m->p->words[s->required + i / 64] >> i % 64 & 1);
    if (f.count >= s->max || (left != PRO_NONE && !wanted && need >= left))
        return false;
    if (i == PRO_OTHER && !s->ordered) return true;
    if (i == PRO_OTHER) return need == 0;
    if (nv_has(m, f.seen, i) || m->p->members[s->first + i] == PRO_NONE)
        return false;
    for (u32 k = 0; k < s->n && s->ordered; k++)
        if (k < i ? !nv_has(m, f.seen, k)
                && (m->p->words[s->required + k / 64] >> k % 64 & 1)
            : nv_has(m, f.seen, k)) return false;
    return true;
}

static void nv_add(nv *m, nv_conf c)
{
    u32 h = nv_hash(&c, sizeof c), n = m->mask_done + 1;
    for (; m->done[h & m->mask_done] >> 32 == m->step; h++)
        if (!memcmp(&m->next[(u32)m->done[h & m->mask_done]], &c, sizeof c))
            return;
    if (m->n_next == m->cap_next) {
        m->cap_next = m->cap_next ? 2 * m->cap_next : 256;
        m->next = nv_room(m->next, m->cap_next * sizeof *m->next);
    }
    m->done[h & m->mask_done] = (u64)m->step << 32 | m->n_next;
    m->next[m->n_next++] = c;
    if (2 * m->n_next < n) return;
    m->done = nv_room(m->done, 2 * n * sizeof *m->done);
    memset(m->done, 0, 2 * n * sizeof *m->done);
    m->mask_done = 2 * n - 1;
    for (u32 i = 0; i < m->n_next; i++) {
        h = nv_hash(&m->next[i], sizeof c);
        while (m->done[h & m->mask_done]) h++;
        m->done[h & m->mask_done] = (u64)m->step << 32 | i;
    }
}

static void nv_at(nv *m, u32 pc, u32 frame)
{
    nv_conf c;
    memset(&c, 0, sizeof c);
    c.pc = pc, c.frame = frame;
    if (m->p->ops[pc].op == PRO_STRING) {
        u32 dfa = m->p->strings[m->p->ops[pc].b].dfa;
        if (dfa != PRO_NONE) c.state = m->p->dfas[dfa].state;
    }
    nv_add(m, c);
}

static void nv_go(nv *m, nv_conf c)
{
    const pro_op *o = &m->p->ops[c.pc];
    nv_frame f = m->frames[c.frame];
    const pro_set *s = o->op >= PRO_SET && o->op <= PRO_SET_END
        ? &m->p->sets[o->b] : NULL;
    switch ((pro_code)o->op) {
    case PRO_JUMP: nv_at(m, o->a, c.frame); break;
    case PRO_SPLIT:
        nv_at(m, o->a, c.frame);
        nv_at(m, o->b, c.frame);
        break;
    case PRO_CALL:
        nv_at(m, o->a, nv_frame_of(m, (nv_frame){o->b, c.frame, 0, 0}));
        break;
    case PRO_RETURN: nv_at(m, f.back, f.up); break;
    case PRO_PUSH: case PRO_SET:
        nv_at(m, o->a, nv_frame_of(m, (nv_frame){NV_DEAD, c.frame, 0, 0}));
        break;
    case PRO_POP: nv_at(m, o->a, f.up); break;
    case PRO_COUNT:
        f.count += f.count < o->b;
        nv_at(m, o->a, nv_frame_of(m, f));
        break;
    case PRO_LEAST: if (f.count >= o->b) nv_at(m, o->a, c.frame); break;
    case PRO_BELOW: if (f.count < o->b) nv_at(m, o->a, c.frame); break;
    case PRO_SHALLOW: nv_at(m, o->a, c.frame); break;   /* texts are short */
    case PRO_SET_NEXT:
        for (u32 i = 0; i < s->n; i++)
            if (nv_may(m, s, f, i)) nv_at(m, m->p->members[s->first + i],
                c.frame);
        if (s->other != PRO_NONE && nv_may(m, s, f, PRO_OTHER))
            nv_at(m, s->other, c.frame);
        break;
    case PRO_SET_TAKEN:
        f.count++;
        if (o->y != PRO_OTHER) f.seen = nv_seen_with(m, f.seen, o->y);
        nv_at(m, o->a, nv_frame_of(m, f));
        break;
    case PRO_SET_MORE: {
        bool may = s->other != PRO_NONE && nv_may(m, s, f, PRO_OTHER);
        for (u32 i = 0; i < s->n && !may; i++) may = nv_may(m, s, f, i);
        if (may) nv_at(m, o->a, c.frame);
        break;
    }
    case PRO_SET_END:
        if (!nv_missing(m, s, f.seen) && f.count >= s->min)
            nv_at(m, o->a, f.up);
        break;
    default: break;
    }
}

static u32 nv_dfa(const nv *m, u32 base, u32 at, u8 byte)
{
    const pro_state *q = &m->p->states[at];
    for (u32 i = 0; i < q->n_edges; i++) {
        const pro_edge *e = &m->p->edges[q->edge + i];
        if (e->lo <= byte && byte <= e->hi) return base + e->to;
    }
    return NV_DEAD;
}

static bool nv_string(nv *m, nv_conf c, u8 byte)
{
    const pro_op *o = &m->p->ops[c.pc];
    const pro_string *s = &m->p->strings[o->b];
    bool first = c.lex == NV_PLAIN;
    if (first && byte == '"') {
        bool in = s->dfa == PRO_NONE || ((c.state != NV_DEAD
            && m->p->states[c.state].final) != s->except);
        if (c.chars < s->min || !in) return false;
        nv_at(m, o->a, c.frame);
        return true;
    }
    if (first) {
        if (c.chars >= s->max) return false;
        c.chars += c.chars < s->min || s->max != PRO_NONE;
        c.lo = 0x80, c.hi = 0xbf;
        u8 n = byte < 0x80 ? 0 : byte < 0xc2 ? 9 : byte < 0xe0 ? 1
            : byte < 0xf0 ? 2 : byte < 0xf5 ? 3 : 9;
        if (byte < 32 || n == 9) return false;
        if (byte == 0xe0) c.lo = 0xa0;
        if (byte == 0xed) c.hi = 0x9f;
        if (byte == 0xf0) c.lo = 0x90;
        if (byte == 0xf4) c.hi = 0x8f;
        c.lex = byte == '\\' ? NV_ESCAPE : n ? (u8)(32 + n) : NV_PLAIN;
    } else if (c.lex > 32) {
        if (byte < c.lo || byte > c.hi) return false;
        c.lo = 0x80, c.hi = 0xbf;
        c.lex = c.lex == 33 ? NV_PLAIN : (u8)(c.lex - 1);
    } else if (c.lex == NV_ESCAPE) {
        if (!memchr("\"\\bfnrtu", byte, 8)) return false;
        c.lex = byte == 'u' ? NV_U : NV_PLAIN;
    } else if (c.lex == NV_U || c.lex == NV_ZERO) {
        if (byte != '0') return false;
        c.lex = c.lex == NV_U ? NV_ZERO : NV_ZERO2;
    } else if (c.lex == NV_ZERO2) {
        if (byte != '0' && byte != '1') return false;
        c.lex = byte == '0' ? NV_HEX1 : NV_HEX2;
    } else {
        const char *digits = c.lex == NV_HEX1 ? "01234567bef"
            : "0123456789abcdef";
        if (!byte || !strchr(digits, byte)) return false;
        c.lex = NV_PLAIN;
    }
    if (s->dfa != PRO_NONE && c.state != NV_DEAD)
        c.state = nv_dfa(m, m->p->dfas[s->dfa].state, c.state, byte);
    if (c.state == NV_DEAD && !s->except) return false;
    if (c.lex == NV_PLAIN) c.lo = c.hi = 0;
    nv_add(m, c);
    return true;
}

static void nv_close(nv *m)
{
    for (u32 i = 0; i < m->n_next; i++) nv_go(m, m->next[i]);
    nv_conf *c = m->now;
    u32 cap = m->cap_now;
    m->now = m->next, m->n_now = m->n_next, m->cap_now = m->cap_next;
    m->next = c, m->n_next = 0, m->cap_next = cap;
    m->step++;
}

static void nv_begin(nv *m, const pro *p)
{
    memset(m, 0, sizeof *m);
    m->p = p;
    m->width = 1;
    for (u32 i = 0; i < p->n_sets; i++)
        m->width = max_u32(m->width, p->sets[i].n / 64 + 1);
    m->seen = nv_room(NULL, m->width * sizeof(u64));
    memset(m->seen, 0, m->width * sizeof(u64));
    m->n_seen = 1;
    m->step = 1;
    m->mask_done = 1023;
    m->done = nv_room(NULL, 1024 * sizeof *m->done);
    memset(m->done, 0, 1024 * sizeof *m->done);
    nv_frame_of(m, (nv_frame){NV_DEAD, NV_DEAD, NV_DEAD, NV_DEAD});
    nv_at(m, p->start, 0);
    nv_close(m);
}

/* false: no text goes on with this byte. */
static bool nv_next(nv *m, u8 byte)
{
    for (u32 i = 0; i < m->n_now; i++) {
        nv_conf c = m->now[i];
        const pro_op *o = &m->p->ops[c.pc];
        if (o->op == PRO_BYTE && o->x <= byte && byte <= o->y)
            nv_at(m, o->a, c.frame);
        if (o->op == PRO_STRING) nv_string(m, c, byte);
    }
    nv_close(m);
    return m->n_now > 0;
}

static bool nv_may_end(const nv *m)
{
    for (u32 i = 0; i < m->n_now; i++)
        if (m->p->ops[m->now[i].pc].op == PRO_ACCEPT) return true;
    return false;
}

static void nv_end(nv *m)
{
    free(m->frames);
    free(m->seen);
    free(m->now);
    free(m->next);
    free(m->table);
    free(m->done);
}

/* Whether a program takes a whole text. */
static bool nv_takes(const pro *p, const char *text, size_t n)
{
    nv m;
    nv_begin(&m, p);
    bool ok = true;
    for (size_t i = 0; i < n && ok; i++) ok = nv_next(&m, (u8)text[i]);
    ok = ok && nv_may_end(&m);
    nv_end(&m);
    return ok;
}

#endif
