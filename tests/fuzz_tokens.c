/* fuzz_tokens.c - a vocabulary and a text: both ways, in streams, in units.
 *
 * An input:
 *
 *     1   the base: fixture.h's byte-level vocabulary, its pieces, pieces
 *         without a space before text, or the least one (2 bits); the rule
 *         that cuts words (6 bits); of pieces: BIT(0): they are unigrams,
 *         BIT(1): these squeeze spaces, BIT(2): and have a character map, the
 *         bytes of the merges
 *     1   flags of ksllm_encode (4 bits); how often the text is repeated
 *     1   n, then n tokens: type, length, bytes; a type of 128 and more: one
 *         byte so many times, and an end
 *     1   n, then n merges: two tokens by index, which make a new one
 *     the text
 */
#include "fuzz.h"

#include <math.h>

static const char *const rules[] = {
    "gpt-2", "exaone", "exaone4", "a.x-4.0", "trillion", "llama-bpe", "qwen2",
    "qwen35", "exaone-moe", "gpt-4o", "kanana2", "tekken", "deepseek-v3",
    "hyperclovax", "falcon", "deepseek-coder", "default", "deepseek-llm"};

static const char *const words[] = {
    "<|im_start|>", "<|im_end|>", "<s>", "</s>", "[added]", "<0x41>", "안녕",
    "하세요", "한", "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xe2\x96\x81",
    " ", "   ", "\n\n", "\r\n", "123", "'s", "'LL", "e\xcc\x81", "漢字", "ß",
    "\xf0\x9f\x91\xa8\xe2\x80\x8d\xf0\x9f\x91\xa9", "\xf0\x9f\x87\xb0",
    "\xff", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x96", "th", "he",
    "aaaaaaaaaaaaaaaa", "AbC", "\xc4\xa0", "\xc5\xbf", "http://", NULL};

enum { TOKENS = 63, MERGES = 63, LONGEST = 512 };

typedef struct input {
    uint8_t base, rule;
    uint32_t flags;
    size_t repeat;
    struct { uint8_t text[LONGEST]; size_t n; int type; }
        token[TOKENS + MERGES];
    size_t n_tokens;
    fx_bytes merges;            /* as the file has them */
    uint32_t n_merges;
    bool exact;                 /* decoding gives the text again */
    bool unigram, squeezes, map;
} input;

static void read_token(input *x, fuzz_reader *r)
{
    static const int types[8] = {FX_NORMAL, FX_NORMAL, FX_USER, FX_USER,
                                 FX_CONTROL, FX_UNKNOWN, FX_BYTE, 5};
    uint8_t type = fuzz_byte(r), size = fuzz_byte(r), *text;
    text = x->token[x->n_tokens].text;
    size_t n = size < 128 ? size : LONGEST - (255u - size) * 4;
    if (type & 0x80) {
        memset(text, fuzz_byte(r), LONGEST);
        if (n)
            text[n - 1] = fuzz_byte(r);
    } else {
        n = n < r->n ? n : r->n;
        for (size_t i = 0; i < n; i++)
            text[i] = fuzz_byte(r);
    }
    x->token[x->n_tokens].n = n;
    x->token[x->n_tokens++].type = types[type & 7];
    /* A token that is added as plain text and reads as letters for bytes may
     * come out where a merge makes it: as letters. */
    x->exact = x->exact && types[type & 7] < FX_BYTE && types[type & 7] != 5;
    for (size_t i = 0; i < n; i++)
        x->exact = x->exact && text[i] > ' ' && text[i] < 0x7f;
    x->exact = x->exact && (n > 1 || types[type & 7] == FX_NORMAL);
}

static void read_merge(input *x, fuzz_reader *r)
{
    uint8_t text[2 * LONGEST + 1];
    size_t n = 0;
    for (int i = 0; i < 2; i++) {
        uint8_t which = fuzz_byte(r);
        if (which < 128 || !x->n_tokens) {
            text[n++] = which & 0x7f;
        } else {
            size_t k = which % x->n_tokens;
            memcpy(text + n, x->token[k].text, x->token[k].n);
            n += x->token[k].n;
        }
        if (i == 0)
            text[n++] = ' ';
    }
    fx_text_n(&x->merges, text, n);
    x->n_merges++;
    uint8_t *space = memchr(text + 1, ' ', n - 1);
    if (space) {
        size_t left = (size_t)(space - text), k = x->n_tokens;
        memmove(space, space + 1, n - left - 1);
        x->token[k].n = n - 1 < LONGEST ? n - 1 : LONGEST;
        memcpy(x->token[k].text, text, x->token[k].n);
        x->token[x->n_tokens++].type = FX_NORMAL;
    }
}

static void read_input(input *x, fuzz_reader *r)
{
    uint8_t b = fuzz_byte(r);
    x->base = b & 3;
    x->unigram = (x->base == 1 || x->base == 2) && (b & 4);
    x->squeezes = x->unigram && (b & 8);
    x->map = x->unigram && (b & 16);
    x->rule = (uint8_t)((b >> 2) % (sizeof rules / sizeof rules[0]));
    b = fuzz_byte(r);
    x->flags = b & 15;
    x->repeat = b >> 4 > 13 ? 64 : b >> 4 > 11 ? 8 : 1;
    x->exact = x->base != 3 && !(x->flags & (1 | 4 | 8)) && !x->squeezes &&
               !x->map;
    for (int n = fuzz_byte(r) % (TOKENS + 1); n > 0; n--)
        read_token(x, r);
    for (int n = fuzz_byte(r) % (MERGES + 1); n > 0; n--)
        read_merge(x, r);
}

/* ---- The file ------------------------------------------------------------ */

/* The vocabulary as the naive encoder sees it. */
enum { VOCAB = 512 };
static struct {
    struct { const uint8_t *text; size_t n; int type; float score; }
        token[VOCAB];
    size_t n;
    fx_bytes texts, merges;     /* one block: the texts folded */
    uint32_t n_merges;
    bool pieces;
} naive;

static size_t fold(uint8_t *p, size_t n);

static void know(const fx_vocab *v, bool pieces)
{
    size_t at = 0;
    naive.texts.size = naive.merges.size = 0;
    fx_put(&naive.texts, v->tokens.data, v->tokens.size);
    fx_put(&naive.merges, v->merges.data, v->merges.size);
    naive.n_merges = v->n_merges;
    naive.pieces = pieces;
    for (naive.n = 0; naive.n < v->n && naive.n < VOCAB; naive.n++) {
        uint8_t *p = naive.texts.data + at;
        uint64_t n = 0;
        for (int i = 7; i >= 0; i--)
            n = n << 8 | p[i];
        at += 8 + (size_t)n;
        naive.token[naive.n].text = p + 8;
        naive.token[naive.n].n = pieces ? fold(p + 8, (size_t)n) : (size_t)n;
        naive.token[naive.n].type = v->types.data[4 * naive.n];
        memcpy(&naive.token[naive.n].score, v->scores.data + 4 * naive.n, 4);
    }
}

static fx_file file_of(const input *x)
{
    bool pieces = x->base == 1 || x->base == 2;
    fx_vocab v = {0};
    fx_gguf g;
    if (pieces)
        fx_vocab_spm(&v);
    else if (x->base == 0)
        fx_vocab_bpe(&v);
    else
        fx_vocab_mini(&v);
    for (size_t i = 0; i < x->n_tokens; i++)
        fx_vocab_add_n(&v, x->token[i].text, x->token[i].n, x->token[i].type);
    fx_put(&v.merges, x->merges.data, x->merges.size);
    v.n_merges += x->n_merges;
    know(&v, pieces);
    fx_begin(&g);
    fx_kv_text(&g, "general.architecture", "llama");
    fx_kv_text(&g, "tokenizer.ggml.model",
               x->unigram ? "t5" : pieces ? "llama" : "gpt2");
    if (x->unigram)
        fx_kv_bool(&g, "tokenizer.ggml.remove_extra_whitespaces", x->squeezes);
    if (x->unigram && x->base == 1)
        fx_kv_bool(&g, "tokenizer.ggml.add_space_prefix", true);
    if (x->map) {
        size_t units = x->merges.size / 8 * 4;
        fx_kv_array(&g, "tokenizer.ggml.precompiled_charsmap", KSLLM_META_U8,
                    x->merges.size + 5);
        fx_int(&g.kv, units, 4);
        fx_put(&g.kv, x->merges.data, x->merges.size);
        fx_int(&g.kv, 0, 1);
    }
    fx_kv_text(&g, "tokenizer.ggml.pre", rules[x->rule]);
    fx_kv_array(&g, "tokenizer.ggml.tokens", KSLLM_META_TEXT, v.n);
    fx_put(&g.kv, v.tokens.data, v.tokens.size);
    fx_kv_array(&g, "tokenizer.ggml.token_type", KSLLM_META_I32, v.n);
    fx_put(&g.kv, v.types.data, v.types.size);
    fx_kv_array(&g, "tokenizer.ggml.scores", KSLLM_META_F32, v.n);
    fx_put(&g.kv, v.scores.data, v.scores.size);
    fx_kv_array(&g, "tokenizer.ggml.merges", KSLLM_META_TEXT, v.n_merges);
    fx_put(&g.kv, v.merges.data, v.merges.size);
    if (pieces)
        fx_kv_u32(&g, "tokenizer.ggml.unknown_token_id", 0);
    if (x->base == 2)
        fx_kv_bool(&g, "tokenizer.ggml.add_space_prefix", false);
    fx_kv_u32(&g, "tokenizer.ggml.bos_token_id", 1);
    fx_kv_u32(&g, "tokenizer.ggml.eos_token_id", 2);
    fx_kv_bool(&g, "tokenizer.ggml.add_bos_token", true);
    fx_kv_bool(&g, "tokenizer.ggml.add_eos_token", true);
    free(v.tokens.data);
    free(v.merges.data);
    free(v.scores.data);
    free(v.types.data);
    return fx_end(&g);
}

/* ---- Text ---------------------------------------------------------------- */

/* What is no character becomes U+FFFD. */
static void lossy(const uint8_t *p, size_t n, fx_bytes *out)
{
    for (size_t i = 0, k; i < n; i += k) {
        bool good;
        k = fuzz_char(p + i, n - i, &good);
        if (good)
            fx_put(out, p + i, k);
        else
            fx_put(out, "\xef\xbf\xbd", 3);
    }
}

/* U+2581 is how pieces write a space. */
static size_t fold(uint8_t *p, size_t n)
{
    size_t k = 0;
    for (size_t i = 0; i < n; k++)
        if (n - i >= 3 && memcmp(p + i, "\xe2\x96\x81", 3) == 0) {
            p[k] = ' ';
            i += 3;
        } else {
            p[k] = p[i++];
        }
    return k;
}

/* ---- A naive encoder ------------------------------------------------------
 * Slow and short. Text that is cut into words only where it is [a-z] alone: one
 * word by every rule.
 */

enum { NAIVE = 400 };           /* bytes of text */

static struct {
    int32_t ids[4 * NAIVE];
    size_t n;
} naive_out;

/* Of equal texts the last one; 5 is unused. */
static int32_t naive_find(const uint8_t *p, size_t n)
{
    for (size_t i = naive.n; n > 0 && i-- > 0; )
        if (naive.token[i].n == n && naive.token[i].type != 5 &&
            memcmp(naive.token[i].text, p, n) == 0)
            return (int32_t)i;
    return -1;
}

static int32_t naive_piece(const uint8_t *p, size_t n)
{
    int32_t id = naive_find(p, n);
    int type = id < 0 ? 0 : naive.token[id].type;
    return type == FX_NORMAL || type == FX_USER ? id : -1;
}

/* How late two neighbours become one; INFINITY: never. */
static double naive_rank(const uint8_t *p, size_t left, size_t right,
                         const int32_t *ids, int32_t *both)
{
    double rank = INFINITY;
    if (naive.pieces) {
        *both = naive_piece(p, left + right);
        return *both < 0 ? rank : -(double)naive.token[*both].score;
    }
    const uint8_t *m = naive.merges.data;
    for (uint32_t k = 0; k < naive.n_merges; k++) {     /* the last counts */
        size_t n = m[0] | (size_t)m[1] << 8;
        const uint8_t *text = m + 8;
        const uint8_t *space = n > 2 ? memchr(text + 1, ' ', n - 2) : NULL;
        m += 8 + n;
        if (!space || n > LONGEST)
            continue;
        uint8_t joined[LONGEST];
        size_t l = (size_t)(space - text), r = n - l - 1;
        memcpy(joined, text, l);
        memcpy(joined + l, space + 1, r);
        int32_t id = naive_find(joined, l + r);
        if (id < 0 || naive_find(text, l) != ids[0] ||
            naive_find(space + 1, r) != ids[1])
            continue;
        *both = id;
        rank = k;
    }
    return rank;
}

static void naive_emit(int32_t id, const uint8_t *p, size_t n)
{
    for (size_t k = 0; id < 0 && k < n; k++) {
        char byte[8];
        snprintf(byte, sizeof byte, "<0x%02X>", p[k]);
        for (size_t i = naive.n; i-- > 0; )
            if (naive.token[i].type == FX_BYTE && naive.token[i].n == 6 &&
                memcmp(naive.token[i].text, byte, 6) == 0) {
                naive_out.ids[naive_out.n++] = (int32_t)i;
                break;
            }
    }
    if (id >= 0)
        naive_out.ids[naive_out.n++] = id;
}

static void naive_word(const uint8_t *p, size_t n, bool whole)
{
    size_t at[NAIVE + 2], count = 0, best;
    int32_t ids[NAIVE + 2], both[NAIVE + 2];
    double rank[NAIVE + 2];
    int32_t id = whole && n > 1 ? naive_find(p, n) : -1;
    if (id >= 0 && naive.token[id].type == FX_NORMAL) {
        naive_emit(id, p, n);
        return;
    }
    for (size_t i = 0, k; i < n; i += k, count++) {
        bool good;
        k = fuzz_char(p + i, n - i, &good);
        k = naive.pieces ? k : 1;       /* also that of a broken character */
        at[count] = i;
        ids[count] = naive.pieces ? naive_piece(p + i, k)
                                  : naive_find(p + i, 1);
        rank[count] = NAN;
    }
    at[count] = n;
    for (;;) {
        best = count;
        for (size_t i = 0; i + 1 < count; i++) {
            if (rank[i] != rank[i])
                rank[i] = naive.pieces || (ids[i] >= 0 && ids[i + 1] >= 0)
                        ? naive_rank(p + at[i], at[i + 1] - at[i],
                                     at[i + 2] - at[i + 1], ids + i, both + i)
                        : INFINITY;
            if (rank[i] < (best < count ? rank[best] : INFINITY))
                best = i;
        }
        if (best == count)
            break;
        ids[best] = both[best];
        rank[best] = NAN;
        if (best > 0)
            rank[best - 1] = NAN;
        count--;
        for (size_t i = best + 1; i <= count; i++) {
            at[i] = at[i + 1];
            ids[i] = ids[i + 1];
            both[i] = both[i + 1];
            rank[i] = rank[i + 1];
        }
    }
    for (size_t i = 0; i < count; i++)
        naive_emit(ids[i], p + at[i], at[i + 1] - at[i]);
}

/* The longest special token at p, -1: none. Of equal ones the first. */
static int32_t naive_special(const uint8_t *p, size_t left, bool control)
{
    int32_t found = -1;
    for (size_t i = 0; i < naive.n; i++) {
        int type = naive.token[i].type;
        size_t n = naive.token[i].n;
        if ((type == FX_USER || (control && (type == FX_CONTROL ||
             type == FX_UNKNOWN))) && n > 0 && n <= left &&
            memcmp(naive.token[i].text, p, n) == 0 &&
            (found < 0 || n > naive.token[found].n))
            found = (int32_t)i;
    }
    return found;
}

/* The best sum over a fragment of unigrams; the first of equal ones. */
static void naive_unigrams(const input *x, const uint8_t *p, size_t n)
{
    static struct { double sum; size_t from; int32_t id; bool there; }
        best[4 * NAIVE];
    fx_bytes text = {0};
    double least = 0;
    bool any = false;
    if (x->base == 1)
        fx_put(&text, " ", 1);
    lossy(p, n, &text);
    for (size_t i = 0; i < naive.n; i++)
        if ((naive.token[i].type == FX_NORMAL || naive.token[i].type == FX_USER)
            && naive.token[i].n > 0) {
            double score = naive.token[i].type == FX_USER
                         ? 0 : (double)naive.token[i].score;
            least = any && least < score ? least : score;
            any = true;
        }
    memset(best, 0, sizeof best);
    best[0].there = true;
    for (size_t i = 0, k; i < text.size; i += k) {
        bool good, whole = false;
        k = fuzz_char(text.data + i, text.size - i, &good);
        for (size_t len = 1; len <= text.size - i; len++) {
            int32_t id = -1;
            for (size_t j = 0; j < naive.n; j++)
                if ((naive.token[j].type == FX_NORMAL ||
                     naive.token[j].type == FX_USER) &&
                    naive.token[j].n == len &&
                    memcmp(naive.token[j].text, text.data + i, len) == 0)
                    id = (int32_t)j;
            whole = whole || (len == k && id >= 0);
            if (id < 0 && (len != k || whole))
                continue;
            double sum = best[i].sum + (id < 0 ? least - 10
                : naive.token[id].type == FX_USER ? 0
                : (double)naive.token[id].score);
            if (best[i + len].there && sum <= best[i + len].sum)
                continue;
            best[i + len].sum = sum;
            best[i + len].from = i;
            best[i + len].id = id;
            best[i + len].there = true;
        }
    }
    static size_t path[4 * NAIVE];
    size_t steps = 0;
    for (size_t at = text.size; at > 0; at = best[at].from)
        path[steps++] = at;
    while (steps-- > 0)
        naive_emit(best[path[steps]].id, text.data + best[path[steps]].from,
                   path[steps] - best[path[steps]].from);
    free(text.data);
}

/* Text between special tokens; false where only the library can cut it. */
static bool naive_between(const input *x, const uint8_t *p, size_t n)
{
    uint8_t word[NAIVE + 1] = " ";
    const char *rule = rules[x->rule];
    bool prefix = x->base == 1;
    if (!n)
        return true;
    if (x->unigram) {
        naive_unigrams(x, p, n);
        return true;
    }
    for (size_t i = 0; i < n && !naive.pieces; i++)
        if (p[i] < 'a' || p[i] > 'z')
            return false;
    memcpy(word + prefix, p, n);
    naive_word(word, n + prefix, !naive.pieces &&
               (strcmp(rule, "llama-bpe") == 0 || strcmp(rule, "tekken") == 0
                || strcmp(rule, "midm-2.0") == 0));
    return true;
}

static bool naive_encode(const input *x, const uint8_t *text, size_t n)
{
    uint8_t folded[NAIVE];
    size_t begin = 0, i = 0;
    naive_out.n = 0;
    if (n > NAIVE || naive.n == VOCAB || (x->flags & KSLLM_ENCODE_COMPOSE))
        return false;
    if (x->unigram) {       /* special tokens are looked for in text as it is */
        bool mark = x->map || x->squeezes;
        for (size_t i = 0; i + 2 < n; i++)
            mark = mark || memcmp(text + i, "\xe2\x96\x81", 3) == 0;
        for (size_t i = 0; i < naive.n; i++)
            mark = mark || (naive.token[i].type != FX_NORMAL &&
                            naive.token[i].n > 0 &&
                            memchr(naive.token[i].text, ' ', naive.token[i].n));
        if (mark)
            return false;
    }
    if (n)
        memcpy(folded, text, n);
    if (naive.pieces)
        n = fold(folded, n);
    if (x->flags & KSLLM_ENCODE_BOS)
        naive_emit(1, NULL, 0);
    while (i < n) {
        int32_t id = naive_special(folded + i, n - i,
                                   x->flags & KSLLM_ENCODE_SPECIAL);
        if (id < 0) {
            i++;
            continue;
        }
        if (!naive_between(x, folded + begin, i - begin))
            return false;
        naive_emit(id, NULL, 0);
        begin = i += naive.token[id].n;
    }
    if (!naive_between(x, folded + begin, n - begin))
        return false;
    if (x->flags & KSLLM_ENCODE_EOS)
        naive_emit(2, NULL, 0);
    return true;
}

/* ---- What must hold ------------------------------------------------------ */

/* The stream gives what decoding at once gives, in whole characters. */
static void check_stream(const ksllm_model *m, const int32_t *ids, size_t n,
                         uint32_t flags, const char *text, size_t size)
{
    ksllm_model_info info = {.size = sizeof info};
    ksllm_model_get_info(m, &info, NULL);
    ksllm_decoder d;
    size_t cap = 3 * (size_t)info.max_piece_bytes + 12, at = 0;
    char *buf = (char *)fuzz_room(cap);
    ksllm_decoder_init(&d, m, flags);
    for (size_t i = 0; i <= n; i++) {
        int64_t k = i < n ? ksllm_decoder_next(&d, ids[i], buf, cap)
                          : ksllm_decoder_end(&d, buf, cap);
        MUST(k >= 0 && (size_t)k <= cap, "%lld of %zu", (long long)k, cap);
        MUST(fuzz_is_utf8(buf, (size_t)k), "token %zu", i);
        MUST((size_t)k <= size - at && memcmp(text + at, buf, (size_t)k) == 0,
             "the stream is another text at %zu", at);
        at += (size_t)k;
    }
    MUST(at == size, "the stream has %zu of %zu bytes", at, size);
    fuzz_free((uint8_t *)buf, cap);
}

/* Units of a prefix are units of the text, and the rest goes on from there. */
static void check_units(const char *text, size_t n, ksllm_unit unit)
{
    size_t all = ksllm_text_units(text, n, unit);
    MUST(all <= n, "%zu of %zu", all, n);
    MUST(all == n || ((uint8_t)text[all] & 0xc0) != 0x80, "cut at %zu", all);
    for (size_t p = 0; p <= n; p += 1 + n / 7) {
        while (p < n && ((uint8_t)text[p] & 0xc0) == 0x80)
            p++;
        uint8_t *part = fuzz_copy(text, p);
        size_t k = ksllm_text_units((char *)part, p, unit);
        fuzz_free(part, p);
        MUST(k <= p && k <= all, "%zu of a prefix of %zu, %zu of the whole",
             k, p, all);
        MUST(k == p || k + ksllm_text_units(text + k, n - k, unit) == all,
             "unit %d: not the same after %zu", (int)unit, k);
    }
}

static void check_decode(const ksllm_model *m, const int32_t *ids, size_t n,
                         uint32_t flags, const fx_bytes *want)
{
    ksllm_error e;
    int64_t size = ksllm_decode(m, ids, n, flags, NULL, 0, &e);
    MUST(size >= 0, "decode: %s", e.text);
    uint8_t *text = fuzz_room((size_t)size);
    MUST(ksllm_decode(m, ids, n, flags, (char *)text, (size_t)size, &e) == size,
         "decode measured %lld", (long long)size);
    MUST(fuzz_is_utf8(text, (size_t)size), "flags %u", (unsigned)flags);
    check_stream(m, ids, n, flags, (char *)text, (size_t)size);
    for (int unit = 0; unit < 3; unit++)
        check_units((char *)text, (size_t)size, (ksllm_unit)unit);
    if (want)
        MUST(want->size == (size_t)size &&
             (!size || memcmp(want->data, text, (size_t)size) == 0),
             "%zu bytes and back: %.*s", want->size, (int)size, (char *)text);
    fuzz_free(text, (size_t)size);
}

static void check_text(const input *x, const ksllm_model *m,
                       const uint8_t *text, size_t n)
{
    ksllm_model_info info = {.size = sizeof info};
    ksllm_model_get_info(m, &info, NULL);
    ksllm_error e;
    double begin = fuzz_now();
    int64_t count = ksllm_encode(m, (const char *)text, n, x->flags, NULL, 0,
                                 &e);
    /* Under a sanitizer a byte costs some microseconds at most. */
    MUST(fuzz_now() - begin < 1 + 1e-4 * (double)n, "%zu bytes took %g s", n,
         fuzz_now() - begin);
    MUST(count >= 0, "encode: %s", e.text);
    MUST((uint64_t)count <= (x->map ? 130 : 3) * (uint64_t)n + 4, "%lld tokens of %zu bytes",
         (long long)count, n);
    size_t bytes = (size_t)count * sizeof(int32_t), half = (size_t)count / 2;
    int32_t *ids = (int32_t *)(void *)fuzz_room(bytes);
    int32_t *less = (int32_t *)(void *)fuzz_room(half * sizeof *less);
    MUST(ksllm_encode(m, (const char *)text, n, x->flags, ids, (size_t)count,
                      &e) == count, "encode measured %lld", (long long)count);
    MUST(ksllm_encode(m, (const char *)text, n, x->flags, less, half, &e) ==
         count && memcmp(ids, less, half * sizeof *less) == 0, "half");
    if (naive_encode(x, text, n))
        MUST(naive_out.n == (size_t)count &&
             memcmp(naive_out.ids, ids, bytes) == 0,
             "%lld tokens, the naive encoder has %zu", (long long)count,
             naive_out.n);
    bool plain = true;          /* no special tokens */
    for (int64_t i = 0; i < count; i++) {
        MUST(ids[i] >= 0 && (uint32_t)ids[i] < info.n_vocab, "id %d", ids[i]);
        plain = plain && ids[i] > 2 && (uint32_t)ids[i] <
                info.n_vocab - x->n_tokens;
    }
    bool normal_form = x->base == 0 && (strcmp(rules[x->rule], "qwen2") == 0 ||
        strcmp(rules[x->rule], "qwen35") == 0 ||
        strcmp(rules[x->rule], "exaone-moe") == 0);
    fx_bytes want = {0};
    lossy(text, n, &want);
    if (x->base)
        want.size = fold(want.data, want.size);
    bool exact = x->exact && !normal_form && (x->base == 0 || plain);
    check_decode(m, ids, (size_t)count, 0, NULL);
    check_decode(m, ids, (size_t)count, KSLLM_DECODE_SPECIAL,
                 exact ? &want : NULL);
    free(want.data);
    fuzz_free((uint8_t *)ids, bytes);
    fuzz_free((uint8_t *)less, half * sizeof *less);
    for (int unit = 0; unit < 4; unit++)        /* no text: no matter */
        MUST(ksllm_text_units((const char *)text, n, (ksllm_unit)unit) <= n,
             "unit %d", unit);
}

static void check_tokens(const ksllm_model *m)
{
    ksllm_model_info info = {.size = sizeof info};
    ksllm_model_get_info(m, &info, NULL);
    uint8_t *buf = fuzz_room(info.max_piece_bytes);
    for (int32_t id = -1; id <= (int32_t)info.n_vocab; id++) {
        int64_t n = ksllm_token_bytes(m, id, KSLLM_DECODE_SPECIAL,
                                      (char *)buf, info.max_piece_bytes);
        bool known = id >= 0 && id < (int32_t)info.n_vocab;
        MUST(known ? n >= 0 && n <= (int64_t)info.max_piece_bytes
                   : n == KSLLM_ERR_TOKEN, "token %d: %lld", id,
             (long long)n);
        ksllm_token_is_stop(m, id);
        int32_t found = ksllm_token_find(m, (char *)buf, n > 0 ? (size_t)n : 0);
        MUST(found >= -1 && found < (int32_t)info.n_vocab, "found %d", found);
    }
    fuzz_free(buf, info.max_piece_bytes);
}

static void one(const uint8_t *data, size_t size)
{
    static input x;
    fuzz_reader r = {data, size};
    memset(&x, 0, sizeof x);
    read_input(&x, &r);
    fx_file made = file_of(&x);
    uint8_t *file = fuzz_copy(made.data, made.size);
    free(made.data);
    fx_alloc a;
    fx_alloc_init(&a);
    ksllm_model_options o;
    ksllm_model *m;
    ksllm_error e;
    ksllm_model_options_init(&o);
    o.vocab_only = true;
    o.allocator = &a.allocator;
    ksllm_status st = ksllm_model_open_memory(file, made.size, &o, &m, &e);
    if (st == KSLLM_OK) {
        size_t live = a.live, n = r.n * x.repeat;
        uint8_t *text = fuzz_room(n);
        for (size_t i = 0; i < n; i++)
            text[i] = r.p[i % r.n];
        check_text(&x, m, text, n);
        check_tokens(m);
        MUST(a.live == live, "encode keeps memory");
        fuzz_free(text, n);
    } else {
        MUST(st == KSLLM_ERR_FORMAT || st == KSLLM_ERR_UNSUPPORTED, "%s",
             e.text);
    }
    ksllm_model_close(m);
    MUST(!a.live && !a.wrong_size, "a leak of %zu bytes", a.live);
    fuzz_free(file, made.size);
    free(x.merges.data);
}

static void put_token(fx_bytes *b, int type, const char *text)
{
    uint8_t head[2] = {(uint8_t)type, (uint8_t)strlen(text)};
    fx_put(b, head, 2);
    fx_put(b, text, strlen(text));
}

static bool seed(size_t i, fx_bytes *out)
{
    static const char text[] =
        "안녕하세요 they're <|im_start|>Hello\xff 1234,  \n\n한글 <s>[added] "
        "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab \xe2\x96\x81 e\xcc\x81 漢字";
    static const char letters[] =
        "abcabcxyaaacabcaaabaaaaaaaathehehelloxyzabclaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaabababaaabxylxylxyhethethethezzzzzzzzxyxyxylllbcbcbcaaaaaaaabcabc";
    if (i >= 4 * sizeof rules / sizeof rules[0])
        return false;
    fx_int(out, i, 1);
    fx_int(out, (i % 16) | (i % 5 == 4 ? 0xc0 : 0), 1);
    fx_int(out, i % 2 ? 5 : 0, 1);
    if (i % 2) {
        put_token(out, 2, "<tag>");
        put_token(out, 4, "<|x|>");
        put_token(out, 0, "abc");
        fx_put(out, i % 4 == 1 ? "\x82\xc0" "ab" : "\x82\x04" "ab", 4);
        fx_put(out, "\x80\x20" "aa", 4);       /* runs of a */
    }
    fx_int(out, i % 3, 1);
    for (size_t k = 0; k < i % 3; k++)
        fx_put(out, k ? "l\x82" : "aa", 2);
    fx_put(out, i % 3 ? letters : text, i % 3 ? 20 + i * 7 % 118
                                              : sizeof text - 1);
    if (i % 2)
        fx_put(out, "<tag>", 5);
    return true;
}

/* n bytes made of few texts; the first 12 are of [a-z] alone. */
static size_t put_few(uint8_t *out, size_t n, bool bytes, uint64_t *rng)
{
    static const char *const some[] = {
        "a", "a", "a", "b", "b", "c", "d", "h", "e", "aa", "ab", "abc", " ",
        "\xe2\x96\x81", "\xe2\x96", "\xe2", "\x96", "\x81", "한", "\xff"};
    uint32_t few = 3 + fx_below(rng, bytes ? 10 : 18);
    size_t k = 0;
    while (k < n) {
        const char *s = some[fx_below(rng, few)];
        for (; *s && k < n; s++)
            out[k++] = (uint8_t)*s;
    }
    return k;
}

/* A vocabulary and a text of few letters, so that tokens overlap or are equal
 * as often as can be. */
static size_t make_few(uint8_t *out, uint64_t *rng)
{
    uint8_t base = (uint8_t)fx_below(rng, 4), *p = out;
    bool bytes = base == 0 || base == 3;
    uint32_t n = fx_below(rng, 12), least = fx_below(rng, 4);
    *p++ = (uint8_t)(base | fx_below(rng, 64) << 2);
    *p++ = (uint8_t)(fx_below(rng, 3) ? 0 : fx_below(rng, 256));
    *p++ = (uint8_t)n;
    for (uint32_t i = 0; i < n; i++) {
        *p++ = (uint8_t)(fx_below(rng, 8) < 6 ? 0 : fx_below(rng, 8));
        *p = (uint8_t)(1 + fx_below(rng, 6));
        p += 1 + put_few(p + 1, *p, bytes, rng);
    }
    n = fx_below(rng, bytes ? 40 : 4);
    *p++ = (uint8_t)n;
    for (uint32_t i = 0; i < 2 * n; i++)
        *p++ = (uint8_t)(fx_below(rng, 2) ? 'a' + fx_below(rng, 3)
                                          : 128 + fx_below(rng, 128));
    return (size_t)(p - out) +
           put_few(p, 1 + fx_below(rng, least ? 60 : 399), bytes, rng);
}

static size_t mutate(uint8_t *data, size_t size, size_t max, uint64_t *rng)
{
    uint8_t made[1024];
    if (fx_below(rng, 4))
        return fuzz_mutate(data, size, max, rng);
    size = make_few(made, rng);
    size = size < max ? size : max;
    memcpy(data, made, size);
    return size;
}

static const fuzz_target fuzz = {"fuzz_tokens", one, seed, mutate, words, 4096};
FUZZ_MAIN
