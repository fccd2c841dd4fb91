/* test_text.c - UTF-8, composition, the rules that cut text into words, and
 * both kinds of tokenizer on vocabularies made here.
 *
 * The source is included: most of this has no public name. Ids of real
 * vocabularies are compared with other implementations by check_tokens.py.
 * Plain C kernels: it is not about arithmetic.
 */
#if !defined KSLLM_NO_SIMD
#define KSLLM_NO_SIMD 1
#endif
#include "../ksllm.c"

#include "test.h"
#include "fixture.h"
#include "unigram.h"

#include <time.h>

/* ---- UTF-8 -------------------------------------------------------------- */

/* A second, slower opinion: the character that exactly n bytes are, or -1. */
static int64_t naive_char(const uint8_t *p, int n)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t cp;
    if (n == 1)
        return p[0] < 0x80 ? p[0] : -1;
    if ((n == 2 && p[0] >> 5 != 6) || (n == 3 && p[0] >> 4 != 14) ||
        (n == 4 && p[0] >> 3 != 30))
        return -1;
    cp = p[0] & (0x7fu >> n);
    for (int i = 1; i < n; i++) {
        if (p[i] >> 6 != 2)
            return -1;
        cp = cp << 6 | (p[i] & 0x3fu);
    }
    if (cp < least[n] || cp > 0x10ffff || (cp >= 0xd800 && cp < 0xe000))
        return -1;
    return cp;
}

/* Whether some character begins with these n bytes and is longer. */
static bool naive_prefix(const uint8_t *p, int n)
{
    uint8_t b[4];
    memcpy(b, p, (size_t)n);
    for (int len = n + 1; len <= 4; len++)
        for (int fill = 0x80; fill <= 0xbf; fill += 0x0f) {
            memset(b + n, fill, (size_t)(len - n));
            if (naive_char(b, len) >= 0)
                return true;
        }
    return false;
}

static void check_bytes(const uint8_t *p, int n)
{
    uint32_t cp = 0, len = txt_next(p, p + n, &cp);
    int64_t want = -1;
    int want_len = 1;
    for (int k = 1; k <= n && want < 0; k++)
        if ((want = naive_char(p, k)) >= 0)
            want_len = k;
    if (want < 0)
        while (want_len < n && naive_prefix(p, want_len + 1))
            want_len++;
    /* a first byte that begins nothing is a subpart of one byte */
    if (!CHECK_EQ(len, want_len) ||
        !CHECK_EQ(cp, want < 0 ? (int64_t)TXT_BAD : want))
        printf("    bytes %02x %02x %02x %02x, %d\n", p[0], p[1], p[2], p[3],
               n);
}

TEST(utf8_every_character)
{
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        uint8_t b[4];
        uint32_t back = 0;
        if (c >= 0xd800 && c < 0xe000)
            continue;
        uint32_t n = txt_put(b, c);
        CHECK_EQ(n, c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4);
        CHECK_EQ(txt_next(b, b + n, &back), n);
        CHECK_EQ(back, c);
        CHECK_EQ(naive_char(b, (int)n), c);
    }
}

/* Every lead byte with every second byte, and the borders of the third and
 * fourth: overlong forms, surrogates, beyond U+10FFFF, cut characters. */
TEST(utf8_every_border)
{
    static const uint8_t edge[] = {0, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f,
                                   0xa0, 0xbf, 0xc0, 0xe0, 0xff};
    /* After a byte that begins no longer character only the edges differ. */
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b += a < 0xc0 && b % 16 != 15 ? 15 : 1)
            for (size_t c = 0; c < sizeof edge; c++)
                for (size_t d = 0; d < sizeof edge; d++) {
                    uint8_t p[4] = {(uint8_t)a, (uint8_t)b, edge[c], edge[d]};
                    for (int n = 1; n <= 4; n++)
                        check_bytes(p, n);
                }
}

/* What comes out byte by byte is what Rust and Python call lossy decoding. */
TEST(utf8_stream_is_lossy_decoding)
{
    static const uint8_t some[] = {'a', 0xea, 0xb0, 0x80, 0xc3, 0xa9, 0xf0,
                                   0x9f, 0x98, 0xed, 0xa0, 0xff, 0xe0};
    uint64_t seed = test_seed;
    for (int round = 0; round < 20000; round++) {
        uint8_t in[24], out[160], want[160], pending[4], n_pending = 0;
        uint32_t n = fx_below(&seed, 24), n_out = 0, n_want = 0;
        for (uint32_t i = 0; i < n; i++)
            in[i] = some[fx_below(&seed, sizeof some)];
        for (const uint8_t *p = in; p < in + n; ) {
            uint32_t cp;
            p += txt_next(p, in + n, &cp);
            n_want += txt_put(want + n_want,
                              cp == TXT_BAD ? 0xfffd : cp);
        }
        for (uint32_t i = 0; i < n; i++)
            n_out += txt_feed(pending, &n_pending, in[i], out + n_out);
        if (n_pending > 0)
            n_out += txt_put(out + n_out, 0xfffd);
        CHECK_EQ(n_out, n_want);
        CHECK(memcmp(out, want, n_out) == 0);
    }
}

/* ---- Composition -------------------------------------------------------- */

/* NFC of a text, checked to be measured right, as a string. */
static const char *nfc(const char *s)
{
    static char out[4096];
    const uint8_t *p = (const uint8_t *)s, *end = p + strlen(s);
    size_t n = txt_nfc(p, end, NULL, 0);
    CHECK(n < sizeof out);
    CHECK_EQ(txt_nfc(p, end, (uint8_t *)out, n), n);
    out[n] = 0;
    return out;
}

static const char *joined(const char *s)
{
    static char out[4096];
    const uint8_t *p = (const uint8_t *)s;
    out[txt_hangul_join(p, p + strlen(s), (uint8_t *)out)] = 0;
    return out;
}

TEST(hangul_every_syllable)
{
    for (uint32_t s = 0; s < 11172; s++) {
        uint8_t nfd[16], part[16], whole[8];
        uint32_t t = s % 28, n = txt_put(nfd, 0x1100 + s / 588), m;
        n += txt_put(nfd + n, 0x1161 + s / 28 % 21);
        n += t ? txt_put(nfd + n, 0x11a7 + t) : 0;
        m = txt_put(part, 0xac00 + s - t);
        m += t ? txt_put(part + m, 0x11a7 + t) : 0;
        whole[txt_put(whole, 0xac00 + s)] = 0;
        nfd[n] = part[m] = 0;
        CHECK_STR(joined((char *)nfd), (char *)whole);
        CHECK_STR(joined((char *)part), (char *)whole);
        CHECK_STR(nfc((char *)nfd), (char *)whole);
        CHECK_STR(nfc((char *)part), (char *)whole);
        CHECK_STR(nfc((char *)whole), (char *)whole);
        CHECK(txt_hangul_find(whole, whole + 3) == whole + 3);
    }
}

TEST(hangul_alone)
{
    /* L L V T T, a vowel alone, a trailing consonant after a closed one */
    CHECK_STR(joined("\u1112\u1112\u1161\u11ab\u11ab"), "\u1112한\u11ab");
    CHECK_STR(joined("\u1161\u1100"), "\u1161\u1100");
    CHECK_STR(joined("각\u11a8"), "각\u11a8");
    CHECK_STR(joined("a\u1100\u1161e\u0301가\u11a8b"), "a가e\u0301각b");
    /* old Hangul does not compose; U+11A7 is no consonant */
    CHECK_STR(joined("\u1113\u1161가\u11a7"), "\u1113\u1161가\u11a7");
    CHECK_STR(joined("\u1100\u11a8\u1161"), "\u1100\u11a8\u1161");
    CHECK_STR(joined(""), "");
    CHECK_STR(joined("\xe1\x84"), "\xe1\x84");
}

TEST(nfc_samples)
{
    CHECK_STR(nfc("cafe\u0301"), "café");
    CHECK_STR(nfc("\u212b\u2126"), "\u00c5\u03a9");     /* singletons */
    CHECK_STR(nfc("\u0958"), "\u0915\u093c");           /* excluded */
    CHECK_STR(nfc("a\u0307\u0323"), "\u1ea1\u0307");    /* in order */
    CHECK_STR(nfc("q\u0307\u0323"), "q\u0323\u0307");
    CHECK_STR(nfc("\u1e69"), "\u1e69");
    CHECK_STR(nfc("s\u0307\u0323"), "\u1e69");
    CHECK_STR(nfc("\u0344"), "\u0308\u0301");
    CHECK_STR(nfc("\uf900\U0002f81a"), "\u8c48\u51ac");
    CHECK_STR(nfc("\U0001d15f"), "\U0001d158\U0001d165");
    CHECK_STR(nfc("\U00011099\U000110ba"), "\U0001109a");
    CHECK_STR(nfc("\u09c7\u09be"), "\u09cb");           /* two starters */
    CHECK_STR(nfc("\u0301a"), "\u0301a");
    CHECK_STR(nfc("\u304b\u3099"), "\u304c");
    CHECK_STR(nfc("a\u0300\u0300"), "\u00e0\u0300");
    CHECK_STR(nfc("a\u0328\u0304"), "\u0105\u0304");
    CHECK_STR(nfc("\xff\u1100\u1161\xea\xb0"), "\xff가\xea\xb0");
    /* marks after a byte that is no character have nothing to join */
    CHECK_STR(nfc("a\xff\u0301"), "a\xff\u0301");
    CHECK_STR(nfc("\xff\u0307\u0323"), "\xff\u0323\u0307");
    /* the longest chain of parts: U+1F82 is U+03B1 and three marks */
    CHECK_STR(nfc("\u1f82\u0323"), "\u1f82\u0323");
    /* a mark younger than Unicode 9 keeps its place */
    CHECK_STR(nfc("a\u1df6\u0323"), "a\u1df6\u0323");
}

/* A letter with hundreds of marks: no limit is crossed, and nothing lost. */
TEST(nfc_many_marks)
{
    char in[1024] = "a", out[2048];
    for (int i = 0; i < 300; i++)
        strcat(in, i % 2 ? "\u0301" : "\u0327");
    size_t n = txt_nfc((uint8_t *)in, (uint8_t *)in + strlen(in),
                       (uint8_t *)out, sizeof out);
    CHECK(n >= strlen(in) - 2 && n <= strlen(in) + 2);
}

/* ---- Units of a stream -------------------------------------------------- */

/* Gives a text out character by character as ksllm_generate does, a bar after
 * each piece. */
static const char *units(const char *text, ksllm_unit unit)
{
    static char out[4096];
    char held[1024];
    const uint8_t *p = (const uint8_t *)text, *end = p + strlen(text);
    size_t n = 0, n_held = 0;
    while (p < end) {
        uint32_t cp, len = txt_next(p, end, &cp);
        memcpy(held + n_held, p, len);
        n_held += len;
        p += len;
        size_t k = ksllm_text_units(held, n_held, unit);
        memcpy(out + n, held, k);
        n += k;
        if (k > 0)
            out[n++] = '|';
        memmove(held, held + k, n_held -= k);
    }
    memcpy(out + n, held, n_held);
    out[n + n_held] = '\0';
    return out;
}

/* Every range of the table and random texts are compared with another
 * implementation by check_tokens.py. */
TEST(grapheme_clusters)
{
    static const char *const clusters[] = {
        "한|국|어", "가\u11a8|나", "\u1100\u1161\u11a8|\u1102",
        "\u1112\u119e\u11ab|\u1100\u1160", "\ua960\u1161\ud7cb|각|\u1161",
        "e\u0301|a", "a|\r\n|b\n|\n|c|\r|\r\n|", "🇰🇷|🇯🇵|🇰",
        "👨\u200d👩\u200d👧|!", "a\u200d|👩", "👍🏽|1\ufe0f\u20e3|x",
        "क\u094dष|a", "क\u200c|ष", "\u0600가", "가\a|나", "",
        /* jamo: vowels together, final consonants after a closed syllable */
        "\u1161\u1175|가\u1161\u11a8|가", "각\u11a8|\u1161",
        "\u11a8\u11a8|각|\u1175", "\u1100\ud7b0\ud7cb\ud7fb|\ud7c7|a",
        /* a spacing mark; it ends what a picture or a consonant began */
        "क\u093e|क", "👨\u093e\u200d|👩", "👨\u200d|a", "क\u094d|a",
        "a\u094d|क", "क\u093e\u094d|क",
        /* not assigned: a control up to U+E0FFF, and then nothing special */
        "a\U000e01f0|b", "a\U000e0fff|b", "a|\U000e1000|b",
    };
    for (size_t i = 0; i < KS_LEN(clusters); i++) {
        char text[128];
        size_t n = 0;
        for (const char *p = clusters[i]; *p != '\0'; p++)
            if (*p != '|')
                text[n++] = *p;
        text[n] = '\0';
        CHECK_STR(units(text, KSLLM_UNIT_GRAPHEME), clusters[i]);
    }
}

TEST(eojeol)
{
    CHECK_STR(units("나는  학교에\n갔다\u3000.", KSLLM_UNIT_EOJEOL),
              "나는 | |학교에\n|갔다\u3000|.");
    CHECK_STR(units("가나", KSLLM_UNIT_CHARACTER), "가|나|");
    CHECK_EQ(ksllm_text_units("a b", 3, (ksllm_unit)3), 0);
    CHECK_EQ(ksllm_text_units(NULL, 0, KSLLM_UNIT_EOJEOL), 0);
}

/* Above U+1FFFF only Chinese characters and the selectors of their variants
 * are more than "other". */
TEST(classes_of_far_characters)
{
    static const struct { uint32_t first, last; txt_class want; } far[] = {
        {0x1ffff, 0x1ffff, TXT_OTHER}, {0x20000, 0x2a6df, TXT_LETTER},
        {0x2a6e0, 0x2a6ff, TXT_OTHER}, {0x2a700, 0x2b739, TXT_LETTER},
        {0x2f7ff, 0x2f7ff, TXT_OTHER}, {0x2f800, 0x2fa1d, TXT_LETTER},
        {0x323b0, 0x323b0, TXT_OTHER}, {0xe00ff, 0xe00ff, TXT_OTHER},
        {0xe0100, 0xe01ef, TXT_MARK}, {0xe01f0, 0xe01f0, TXT_OTHER},
        {0x10fffd, 0x10fffd, TXT_OTHER}};
    for (size_t i = 0; i < KS_LEN(far); i++)
        for (uint32_t c = far[i].first; c <= far[i].last; c++)
            if (!CHECK_EQ(txt_class_of(c), far[i].want)) {
                printf("    U+%X\n", (unsigned)c);
                break;
            }
}

/* ---- Cutting into words ------------------------------------------------- */

static const tok_rule *rule_of(const char *name)
{
    for (size_t i = 0; i < KS_LEN(TOK_RULES); i++)
        if (strcmp(TOK_RULES[i].name, name) == 0)
            return &TOK_RULES[i];
    CHECK(!"a rule of that name");
    exit(1);
}

/* The words of a text with a bar between them. */
static const char *words(const char *rule, const char *s)
{
    static char out[512];
    const uint8_t *p = (const uint8_t *)s, *end = p + strlen(s);
    tok_cutter c = {rule_of(rule), p, p, end};
    size_t n = 0;
    while (c.at < end) {
        const uint8_t *at = c.at, *next = tok_cut(&c);
        if (!CHECK(next > at && next <= end))
            exit(1);
        if (n > 0)
            out[n++] = '|';
        memcpy(out + n, at, (size_t)(next - at));
        n += (size_t)(next - at);
    }
    out[n] = 0;
    return out;
}

/* Three digits are a word from their first on; marks stand alone. */
TEST(words_falcon)
{
    CHECK_STR(words("falcon", "a 12345.6"), "a| |123|45|.|6");
    CHECK_STR(words("falcon", " 12 x=`y` it's"), " 12| x|=`|y|`| it|'|s");
    CHECK_STR(words("default", " 12 x=`y`"), " |12| x|=|`|y|`");
    CHECK_STR(words("default", " \u0967123"), " |\u0967|123");
    CHECK_STR(words("falcon", "안녕 하세요, 1 234"), "안녕| 하세요|,| 1| |234");
}

TEST(words_coder)
{
    CHECK_STR(words("deepseek-coder", "int a = 12;\n"), "int| a| = |1|2|;|\n");
    CHECK_STR(words("deepseek-coder", " 안녕abc, 하"), " |안녕|abc|,| |하");
    CHECK_STR(words("deepseek-coder", "  x\t\t$"), " | x|\t\t$");
    CHECK_STR(words("deepseek-llm", "int a = 12;\n"), "int| a| =| |12|;|\n");
    CHECK_STR(words("deepseek-llm", " 안녕abc,  하 Été"),
              " |안녕|abc|,|  |하| É|t|é");
    CHECK_STR(words("deepseek-llm", "아  x\t\t$ "), "아| | x|\t|\t$| ");
    CHECK_STR(words("seed-coder", "a;\n b 12"), "a|;|\n| b| |1|2");
    CHECK_STR(words("minicpm5", "a  12345"), "a|  |123|45");
}

TEST(words_gpt2)
{
    CHECK_STR(words("gpt-2", "Hello world's  end"), "Hello| world|'s| | end");
    CHECK_STR(words("gpt-2", "I'LL we'll"), "I|'|LL| we|'ll");
    CHECK_STR(words("gpt-2", "2026년 12월!?"), "2026|년| 12|월|!?");
    CHECK_STR(words("gpt-2", "a \n b  "), "a| \n| b|  ");
    CHECK_STR(words("gpt-2", "안녕 하세요"), "안녕| 하세요");
    CHECK_STR(words("gpt-2", "e\u0301 \u3000x"), "e|\u0301| |\u3000|x");
    CHECK_STR(words("gpt-2", "a\xff\xfe b"), "a|\xff\xfe| b");
    CHECK_STR(words("gpt-2", "I'm he'd we've they'll you're can't"),
              "I|'m| he|'d| we|'ve| they|'ll| you|'re| can|'t");
    CHECK_STR(words("gpt-2", "x'r y'vx z'la '"), "x|'|r| y|'|vx| z|'|la| '");
    CHECK_STR(words("exaone", "2026년  12"), "2|0|2|6|년|  |1|2");
    CHECK_STR(words("smollm", "x 1"), "x| |1");
}

TEST(words_llama3)
{
    CHECK_STR(words("llama-bpe", "I'LL go\n\n x"), "I|'LL| go|\n\n| x");
    CHECK_STR(words("llama-bpe", "1234567"), "123|456|7");
    CHECK_STR(words("qwen2", "1234"), "1|2|3|4");
    CHECK_STR(words("llama-bpe", "(가나)\n\n다"), "(가나|)\n\n|다");
    CHECK_STR(words("llama-bpe", "  \n  a   b"), "  \n| | a|  | b");
    CHECK_STR(words("llama-bpe", "it'\u017f"), "it|'\u017f");
    CHECK_STR(words("llama-bpe", "x's_y"), "x|'s|_y");
    CHECK_STR(words("llama-bpe", "x'\u017e y'r Z'Re"),
              "x|'\u017e| y|'r| Z|'Re");
    CHECK_STR(words("qwen2", "e\u0301a"), "e|\u0301a");
    CHECK_STR(words("qwen35", "e\u0301a"), "e\u0301a");
    CHECK_STR(words("qwen35", "\u0301!\u0301 \u0301"),
              "\u0301|!\u0301| \u0301");
    CHECK_STR(words("exaone-moe", "나는 밥을 먹는다. 네"),
              "나는 밥을 먹는다|.| 네");
    CHECK_STR(words("exaone-moe", "가  나 1 다!\n\n"),
              "가| | 나| |1| 다|!\n|\n");
}

TEST(words_by_case)
{
    CHECK_STR(words("gpt-4o", "HTTPServer's camelCase"),
              "HTTPServer's| camel|Case");
    CHECK_STR(words("gpt-4o", "ABC abc 한국AB"), "ABC| abc| 한국|AB");
    CHECK_STR(words("kanana2", "a/b.c//\n"), "a|/b|.c|//\n");
    CHECK_STR(words("gpt-4o", "it's DON'T"), "it's| DON'T");
    CHECK_STR(words("tekken", "it's 12"), "it|'s| |1|2");
    CHECK_STR(words("gpt-4o", "a!\n/\n/b ?"), "a|!\n/\n/|b| ?");
}

TEST(words_deepseek)
{
    CHECK_STR(words("deepseek-v3", "x=1234,漢字かな가나"),
              "x|=|123|4|,|漢字かな|가나");
    CHECK_STR(words("deepseek-v3", ".foo (bar) \x01\x02 e\u0301"),
              ".foo| (|bar|)| |\x01\x02| e\u0301");
    CHECK_STR(words("deepseek-v3", "\x01\x02x"), "\x01|\x02x");
    CHECK_STR(words("deepseek-v3", "{a}b~c{}D[e"), "{a|}b|~c|{}|D|[e");
    CHECK_STR(words("hyperclovax", "12 34"), "1|2| |3|4");
}

/* No rule takes more than linear time: a text of one kind of character each,
 * and pairs of kinds. Linear is milliseconds, the square of N seconds. */
TEST(words_are_linear)
{
    static const char *const bits[] = {"a", "A", " ", "\n", "1", "가", "!",
                                       "\u0301", "\x01", "'", "\xff", "漢",
                                       "aA", " \n", "가A", "A\u0301", " 가"};
    enum { N = 60000 };
    uint8_t *text = malloc(N + 8);
    for (size_t r = 0; r < KS_LEN(TOK_RULES); r++)
        for (size_t b = 0; b < KS_LEN(bits); b++) {
            size_t n = 0, k = strlen(bits[b]);
            for (; n < N; n += k)
                memcpy(text + n, bits[b], k);
            tok_cutter c = {&TOK_RULES[r], text, text, text + n};
            clock_t begun = clock();
            while (c.at < c.end)
                tok_cut(&c);
            CHECK(clock() - begun < CLOCKS_PER_SEC);
        }
    free(text);
}

/* ---- Vocabularies ------------------------------------------------------- */

typedef struct vocab {
    fx_vocab v;
    const char *model, *pre;
    int bos, eos, unk, prefix;  /* -1: the file does not say */
    fx_gguf more;               /* its keys come last */
    const char *without;        /* a key that gets another name */
} vocab;

static vocab vocab_of(const char *model, const char *pre)
{
    vocab v = {.model = model, .pre = pre,
               .bos = -1, .eos = -1, .unk = -1, .prefix = -1};
    return v;
}

static fx_file vocab_file(vocab *v)
{
    fx_gguf g;
    fx_begin(&g);
    fx_kv_text(&g, "general.architecture", "llama");
    fx_kv_text(&g, "tokenizer.ggml.model", v->model);
    if (v->pre)
        fx_kv_text(&g, "tokenizer.ggml.pre", v->pre);
    if (v->bos >= 0)
        fx_kv_u32(&g, "tokenizer.ggml.bos_token_id", (uint32_t)v->bos);
    if (v->eos >= 0)
        fx_kv_u32(&g, "tokenizer.ggml.eos_token_id", (uint32_t)v->eos);
    if (v->unk >= 0)
        fx_kv_u32(&g, "tokenizer.ggml.unknown_token_id", (uint32_t)v->unk);
    if (v->prefix >= 0)
        fx_kv_bool(&g, "tokenizer.ggml.add_space_prefix", v->prefix);
    fx_kv_array(&g, "tokenizer.ggml.tokens", KSLLM_META_TEXT, v->v.n);
    fx_put(&g.kv, v->v.tokens.data, v->v.tokens.size);
    fx_kv_array(&g, "tokenizer.ggml.token_type", KSLLM_META_I32,
                v->v.types.size / 4);
    fx_put(&g.kv, v->v.types.data, v->v.types.size);
    fx_kv_array(&g, "tokenizer.ggml.scores", KSLLM_META_F32,
                v->v.scores.size / 4);
    fx_put(&g.kv, v->v.scores.data, v->v.scores.size);
    fx_kv_array(&g, "tokenizer.ggml.merges", KSLLM_META_TEXT, v->v.n_merges);
    fx_put(&g.kv, v->v.merges.data, v->v.merges.size);
    fx_put(&g.kv, v->more.kv.data, v->more.kv.size);
    g.n_kv += v->more.n_kv;
    free(v->v.tokens.data);
    free(v->v.types.data);
    free(v->v.scores.data);
    free(v->v.merges.data);
    free(v->more.kv.data);
    fx_file f = fx_end(&g);
    if (v->without)
        f.data[fx_where(&f, v->without) + 8] = 'X';
    return f;
}

typedef struct opened {
    fx_file f;
    ksllm_model *m;
    ksllm_status status;
    ksllm_error e;
} opened;

static opened open_vocab(vocab *v, const char *override)
{
    ksllm_model_options o;
    opened x = {.f = vocab_file(v)};
    ksllm_model_options_init(&o);
    o.vocab_only = true;
    o.pretokenizer = override;
    x.status = ksllm_model_open_memory(x.f.data, x.f.size, &o, &x.m, &x.e);
    return x;
}

static void close_vocab(opened *x)
{
    ksllm_model_close(x->m);
    free(x->f.data);
}

static opened open_good(vocab *v)
{
    opened x = open_vocab(v, NULL);
    if (!CHECK_OK(x.status, x.e))
        exit(1);
    return x;
}

/* Ids as text: "1 2 3". */
static const char *ids_of(const opened *x, const char *s, uint32_t flags)
{
    static char out[4096];
    int32_t ids[512];
    ksllm_error e;
    int64_t n = ksllm_encode(x->m, s, KSLLM_NUL, flags, ids, 512, &e);
    size_t at = 0;
    CHECK_OK(n, e);
    out[0] = 0;
    for (int64_t i = 0; i < n; i++)
        at += (size_t)sprintf(out + at, i ? " %d" : "%d", (int)ids[i]);
    return out;
}

static const char *text_of(const opened *x, const char *s, uint32_t encode,
                           uint32_t decode)
{
    static char out[4096];
    int32_t ids[512];
    ksllm_error e;
    int64_t n = ksllm_encode(x->m, s, KSLLM_NUL, encode, ids, 512, &e);
    n = ksllm_decode(x->m, ids, (size_t)n, decode, out, sizeof out - 1, &e);
    CHECK_OK(n, e);
    out[n] = 0;
    return out;
}

static vocab bpe_vocab(const char *pre)
{
    vocab v = vocab_of("gpt2", pre);
    fx_vocab_bpe(&v.v);
    return v;
}

static opened open_bpe(const char *pre)
{
    vocab v = bpe_vocab(pre);
    v.bos = FX_IM_START;
    v.eos = FX_IM_END;
    return open_good(&v);
}

TEST(bpe_merges_by_rank)
{
    opened x = open_bpe("gpt-2");
    char text[40];
    int32_t id = ksllm_token_find(x.m, "he", 2);
    sprintf(text, "116 %d 121", (int)id);
    CHECK_STR(ids_of(&x, "they", 0), text);
    sprintf(text, "%d %d 121", (int)ksllm_token_find(x.m, "\u0120t", 3),
            (int)id);
    CHECK_STR(ids_of(&x, " they", 0), text);
    CHECK(id >= 256);
    CHECK_STR(text_of(&x, "안녕하세요 they\xff\xea", 0, 0),
              "안녕하세요 they\ufffd\ufffd");
    CHECK_STR(ids_of(&x, "\xff\xea", 0), "255 234");
    CHECK_STR(ids_of(&x, "", 0), "");
    close_vocab(&x);
}

/* Control tokens are read only from trusted text, plain added ones always;
 * the longest one wins. */
TEST(special_tokens)
{
    opened x = open_bpe("gpt-2");
    CHECK_STR(ids_of(&x, "<|im_start|>", KSLLM_ENCODE_SPECIAL), "277");
    CHECK_STR(ids_of(&x, "[added]", 0), "280");
    CHECK(strstr(ids_of(&x, "<|im_start|>", 0), "277") == NULL);
    CHECK_STR(text_of(&x, "a<|im_end|>b[added]", 0, 0),
              "a<|im_end|>b[added]");
    CHECK_STR(text_of(&x, "a<|im_end|>b", KSLLM_ENCODE_SPECIAL, 0), "ab");
    CHECK_STR(text_of(&x, "a<|im_end|>b", KSLLM_ENCODE_SPECIAL,
                      KSLLM_DECODE_SPECIAL), "a<|im_end|>b");
    CHECK_STR(ids_of(&x, "a", KSLLM_ENCODE_BOS), "97");
    CHECK(ksllm_token_is_stop(x.m, FX_IM_END));
    CHECK(ksllm_token_is_stop(x.m, FX_END));
    CHECK(!ksllm_token_is_stop(x.m, FX_IM_START));
    close_vocab(&x);

    x = open_bpe("llama-bpe");      /* where the rule's models have a BOS */
    CHECK_STR(ids_of(&x, "a", KSLLM_ENCODE_BOS), "277 97");
    close_vocab(&x);
}

TEST(special_longest_first)
{
    vocab v = vocab_of("gpt2", "gpt-2");
    for (int i = 0; i < 256; i++) {
        char s[4];
        fx_vocab_add_n(&v.v, s, fx_alphabet((uint8_t)i, s), FX_NORMAL);
    }
    fx_vocab_add(&v.v, "<a", FX_CONTROL);       /* 256 */
    fx_vocab_add(&v.v, "<a>", FX_USER);         /* 257 */
    fx_vocab_add(&v.v, "<a><b>", FX_CONTROL);   /* 258 */
    fx_vocab_add(&v.v, "  ", FX_USER);          /* 259 */
    fx_vocab_add(&v.v, "   ", FX_USER);         /* 260 */
    opened x = open_good(&v);
    CHECK_STR(ids_of(&x, "<a><b><a", KSLLM_ENCODE_SPECIAL), "258 256");
    CHECK_STR(ids_of(&x, "<a><b><a", 0), "257 60 98 62 60 97");
    CHECK_STR(ids_of(&x, "<a><b", KSLLM_ENCODE_SPECIAL), "257 60 98");
    CHECK_STR(ids_of(&x, "x     y", 0), "120 260 259 121");
    CHECK_STR(ids_of(&x, "<", KSLLM_ENCODE_SPECIAL), "60");
    close_vocab(&x);
}

/* Of equal special texts the lowest id counts: of all where control tokens are
 * wanted, of the user-defined ones elsewhere. */
TEST(special_twice)
{
    static const int types[] = {FX_CONTROL, FX_CONTROL, FX_USER, FX_USER};
    vocab v = bpe_vocab("gpt-2");
    for (size_t i = 0; i < KS_LEN(types); i++)
        fx_vocab_add(&v.v, "<x>", types[i]);
    fx_vocab_add(&v.v, "<y>", FX_USER);
    fx_vocab_add(&v.v, "<y>", FX_CONTROL);
    opened x = open_good(&v);
    char both[40], plain[40];
    sprintf(both, "%d %d", FX_BPE_SIZE, FX_BPE_SIZE + 4);
    sprintf(plain, "%d %d", FX_BPE_SIZE + 2, FX_BPE_SIZE + 4);
    CHECK_STR(ids_of(&x, "<x><y>", KSLLM_ENCODE_SPECIAL), both);
    CHECK_STR(ids_of(&x, "<x><y>", 0), plain);
    close_vocab(&x);
}

/* A rule that takes whole words (ignore_merges) takes only normal tokens, and
 * of any length: 180 bytes of Hangul have 360 in the letters of the file. */
TEST(whole_words)
{
    char text[3 * 200 + 1] = "", letters[2 * 600 + 1], want[16];
    for (int i = 0; i < 200; i++)
        strcat(text, i % 2 ? "가" : "안");
    vocab v = bpe_vocab("llama-bpe");
    fx_vocab_add(&v.v, "whole", FX_NORMAL);
    fx_vocab_add(&v.v, "hidden", FX_CONTROL);
    letters[fx_alphabet_text(text, 180, letters)] = 0;
    fx_vocab_add(&v.v, letters, FX_NORMAL);
    memset(letters, 'x', TOK_TEXT_MAX);
    fx_vocab_add_n(&v.v, letters, TOK_TEXT_MAX, FX_NORMAL);
    opened x = open_good(&v);
    sprintf(want, "%d", FX_BPE_SIZE);
    CHECK_STR(ids_of(&x, "whole", 0), want);
    CHECK(strchr(ids_of(&x, "hidden", 0), ' ') != NULL);
    sprintf(want, "%d", FX_BPE_SIZE + 1);
    CHECK_STR(ids_of(&x, "hidden", KSLLM_ENCODE_SPECIAL), want);
    int32_t id = -1;
    CHECK_EQ(ksllm_encode(x.m, text, 180, 0, &id, 1, NULL), 1);
    CHECK_EQ(id, FX_BPE_SIZE + 2);
    CHECK_EQ(ksllm_encode(x.m, letters, TOK_TEXT_MAX, 0, &id, 1, NULL), 1);
    CHECK_EQ(id, FX_BPE_SIZE + 3);
    /* 300 bytes would have 600 letters: no token can be that */
    CHECK(ksllm_encode(x.m, text, 300, 0, NULL, 0, NULL) > 1);
    CHECK_STR(text_of(&x, text, 0, 0), text);
    close_vocab(&x);
}

/* Bytes that are no token: the unknown one for each, or nothing. */
TEST(bytes_without_tokens)
{
    for (int unk = -1; unk < 1; unk++) {
        vocab v = vocab_of("gpt2", "gpt-2");
        fx_vocab_add(&v.v, "<unk>", FX_UNKNOWN);
        fx_vocab_add(&v.v, "a", FX_NORMAL);
        v.unk = unk;
        opened x = open_good(&v);
        CHECK_STR(ids_of(&x, "abba", 0), unk < 0 ? "1 1" : "1 0 0 1");
        CHECK_STR(ids_of(&x, "가", 0), unk < 0 ? "" : "0 0 0");
        close_vocab(&x);
    }
}

TEST(compose_flag)
{
    opened x = open_bpe("gpt-2");
    char want[64];
    strcpy(want, ids_of(&x, "안녕", 0));
    CHECK_STR(ids_of(&x, "\u110b\u1161\u11ab\u1102\u1167\u11bc",
                     KSLLM_ENCODE_COMPOSE), want);
    /* not asked for, it stays three jamo: nine bytes */
    CHECK_STR(ids_of(&x, "\u110b\u1161\u11ab", 0),
              "225 132 139 225 133 161 225 134 171");
    close_vocab(&x);
    x = open_bpe("qwen2");          /* NFC without being asked */
    CHECK_STR(ids_of(&x, "\u110b\u1161\u11ab\u1102\u1167\u11bc", 0), want);
    close_vocab(&x);
}

/* A call with less room says the same number and writes what fits. */
TEST(encode_and_decode_measure)
{
    opened x = open_bpe("gpt-2");
    const char *text = "안녕하세요 a<|im_end|>b가\xff";
    int32_t all[64], some[64];
    char whole[64], part[64];
    ksllm_error e;
    int64_t n = ksllm_encode(x.m, text, KSLLM_NUL, 3, all, 64, &e);
    for (int64_t cap = 0; cap <= n; cap++) {
        memset(some, 0x55, sizeof some);
        CHECK_EQ(ksllm_encode(x.m, text, KSLLM_NUL, 3, some, (size_t)cap, &e),
                 n);
        CHECK(memcmp(all, some, 4 * (size_t)cap) == 0);
        CHECK_EQ(some[cap], 0x55555555);
    }
    int64_t m = ksllm_decode(x.m, all, (size_t)n, 0, whole, 64, &e);
    for (int64_t cap = 0; cap <= m; cap++) {
        memset(part, 0x55, sizeof part);
        CHECK_EQ(ksllm_decode(x.m, all, (size_t)n, 0, part, (size_t)cap, &e),
                 m);
        /* whole characters only; nothing is written beyond them */
        int64_t k = 0;
        while (k < cap && part[k] == whole[k])
            k++;
        CHECK(cap - k < 4);
        for (int64_t i = k; i < 64; i++)
            CHECK_EQ(part[i], 0x55);
    }
    CHECK_EQ(ksllm_decode(x.m, (int32_t[]){5, -1}, 2, 0, part, 64, &e),
             KSLLM_ERR_TOKEN);
    CHECK_EQ(ksllm_decode(x.m, (int32_t[]){FX_BPE_SIZE}, 1, 0, part, 64, &e),
             KSLLM_ERR_TOKEN);
    close_vocab(&x);
}

/* More text than the decoder's buffer holds, cut at every place near its end:
 * the length is that of all, what is written is whole, and nothing follows it.
 * The last character is unfinished. */
TEST(decode_long_texts)
{
    enum { N = 2999 };
    opened x = open_bpe("gpt-2");
    char *text = malloc(N + 4), *out = malloc(N + 8);
    int32_t *ids = malloc(4 * N);
    ksllm_error e;
    for (int i = 0; i < N; i++)
        text[i] = "\xea\xb0\x80\xec\x95\x88 ab"[i % 9];
    memcpy(text + N - 2, "\xea\xb0", 2);
    int64_t n = ksllm_encode(x.m, text, N, 0, ids, N, &e);
    memcpy(text + N - 2, "\xef\xbf\xbd", 3);    /* U+FFFD comes out */
    CHECK_OK(n, e);
    for (size_t cap = N + 1; cap + 40 > N; cap--) {
        memset(out, 0x55, N + 8);
        CHECK_EQ(ksllm_decode(x.m, ids, (size_t)n, 0, out, cap, &e), N + 1);
        size_t k = 0;
        while (k < cap && out[k] == text[k])
            k++;
        CHECK(k == cap || (cap - k < 40 && out[k] == 0x55));
        CHECK(cap <= N || k == N + 1);
        CHECK_EQ((uint8_t)out[k], 0x55);
    }
    CHECK_EQ(ksllm_decode(x.m, ids, (size_t)n, 0, NULL, 0, &e), N + 1);
    free(text);
    free(out);
    free(ids);
    close_vocab(&x);
}

/* What is refused leaves the decoder as it was. */
TEST(decoder_refusals)
{
    opened x = open_bpe("gpt-2");
    ksllm_model_info info = {.size = sizeof info};
    ksllm_model_get_info(x.m, &info, NULL);
    char piece[1600];
    size_t cap = 3 * (size_t)info.max_piece_bytes + 12;
    ksllm_decoder d;
    ksllm_decoder_init(&d, x.m, 0);
    CHECK_EQ(ksllm_decoder_next(&d, 0xea, piece, cap), 0);
    CHECK_EQ(ksllm_decoder_next(&d, -1, piece, cap), KSLLM_ERR_TOKEN);
    CHECK_EQ(ksllm_decoder_next(&d, FX_BPE_SIZE, piece, cap),
             KSLLM_ERR_TOKEN);
    CHECK_EQ(ksllm_decoder_next(&d, 0xb0, piece, cap - 1), KSLLM_ERR_BUFFER);
    CHECK_EQ(ksllm_decoder_next(&d, 0xb0, piece, cap), 0);
    CHECK_EQ(ksllm_decoder_end(&d, piece, 2), KSLLM_ERR_BUFFER);
    CHECK_EQ(ksllm_decoder_next(&d, 0x80, piece, cap), 3);
    CHECK(memcmp(piece, "가", 3) == 0);
    CHECK_EQ(ksllm_decoder_next(&d, 0xea, piece, cap), 0);
    CHECK_EQ(ksllm_decoder_end(&d, piece, 3), 3);
    CHECK(memcmp(piece, "\ufffd", 3) == 0);
    CHECK_EQ(ksllm_decoder_end(&d, piece, 0), 0);
    close_vocab(&x);
}

static int64_t stream(const opened *x, const int32_t *ids, int64_t n,
                      uint32_t flags, char *out)
{
    ksllm_decoder d;
    ksllm_model_info info = {.size = sizeof info};
    char piece[3 * TOK_TEXT_MAX + 12];
    int64_t at = 0;
    ksllm_model_get_info(x->m, &info, NULL);
    size_t cap = 3 * (size_t)info.max_piece_bytes + 12;
    ksllm_decoder_init(&d, x->m, flags);
    CHECK_EQ(ksllm_decoder_next(&d, 0, piece, cap - 1), KSLLM_ERR_BUFFER);
    for (int64_t i = 0; i <= n; i++) {
        int64_t k = i < n ? ksllm_decoder_next(&d, ids[i], piece, cap)
                          : ksllm_decoder_end(&d, piece, cap);
        CHECK(k >= 0 && (size_t)k <= cap);
        for (int64_t j = 0; j < k; ) {      /* whole characters */
            uint32_t cp;
            j += txt_next((uint8_t *)piece + j, (uint8_t *)piece + k, &cp);
            CHECK(cp != TXT_BAD);
        }
        memcpy(out + at, piece, (size_t)k);
        at += k;
    }
    return at;
}

static void check_streams(opened *x, int n_vocab)
{
    uint64_t seed = test_seed;
    for (int round = 0; round < 3000; round++) {
        int32_t ids[20];
        char one[4096], two[4096];
        ksllm_error e;
        int64_t n = fx_below(&seed, 20);
        for (int64_t i = 0; i < n; i++)
            ids[i] = (int32_t)fx_below(&seed, (uint32_t)n_vocab);
        for (uint32_t flags = 0; flags < 2; flags++) {
            int64_t a = ksllm_decode(x->m, ids, (size_t)n, flags, one,
                                     sizeof one, &e);
            int64_t b = stream(x, ids, n, flags, two);
            CHECK_EQ(a, b);
            CHECK(memcmp(one, two, (size_t)b) == 0);
        }
    }
}

TEST(stream_is_decode_bpe)
{
    opened x = open_bpe("gpt-2");
    check_streams(&x, FX_BPE_SIZE);
    close_vocab(&x);
}

/* Both ways to merge a word give the same tokens; the long one is the only
 * one that texts of more than TOK_SHORT bytes ever see. */
static void check_merging(const opened *x, const char *const *bits,
                          uint32_t n_bits)
{
    uint64_t seed = test_seed;
    for (int round = 0; round < 20000; round++) {
        uint8_t text[TOK_SHORT], scratch[TOK_SHORT * 12 + 8];
        int32_t a[TOK_SHORT], b[TOK_SHORT];
        size_t n = 0;
        uint32_t most = 1 + fx_below(&seed, TOK_SHORT);
        for (;;) {
            const char *bit = bits[fx_below(&seed, n_bits)];
            if (n + strlen(bit) > most)
                break;
            memcpy(text + n, bit, strlen(bit));
            n += strlen(bit);
        }
        if (n < 2)
            continue;
        tok_coder c = {.t = &x->m->tok, .out = a, .cap = TOK_SHORT};
        tok_coder d = {.t = &x->m->tok, .out = b, .cap = TOK_SHORT,
                       .scratch = scratch, .scratch_bytes = sizeof scratch};
        tok_merge_short(&c, text, n);
        tok_merge_long(&d, text, n);
        CHECK_EQ(d.status, KSLLM_OK);
        CHECK_EQ(c.n, d.n);
        CHECK(memcmp(a, b, 4 * (size_t)c.n) == 0);
    }
}

TEST(long_words_merge_alike_bpe)
{
    static const char *const bits[] = {"aa", "a", "b", "안", "녕", "하", "세",
                                       "요", " t", "he", "\xec", "\xff"};
    opened x = open_bpe("gpt-2");
    check_merging(&x, bits, KS_LEN(bits));
    close_vocab(&x);
}

/* Scratch of the documented size is enough for the worst word, and is all
 * that is used when there is no allocator. */
TEST(scratch_is_enough)
{
    opened x = open_bpe("gpt-2");
    uint64_t seed = test_seed;
    for (size_t n = 1; n < 3000; n += n / 3 + 1) {
        size_t bytes = n * TOK_SCRATCH_PER_BYTE + TOK_SCRATCH_FIXED;
        char *text = malloc(n);
        uint8_t *scratch = malloc(bytes);
        for (size_t i = 0; i < n; i++)
            text[i] = (char)('a' + fx_below(&seed, 3));
        tok_coder c = {.t = &x.m->tok, .flags = 7, .scratch = scratch,
                       .scratch_bytes = bytes};
        CHECK(tok_encode(&c, (str){text, n}) > 0);
        c = (tok_coder){.t = &x.m->tok, .flags = 7, .scratch = scratch + 1};
        int64_t k = tok_encode(&c, (str){text, n});
        CHECK(n > TOK_SHORT ? k == KSLLM_ERR_BUFFER : k > 0);
        free(text);
        free(scratch);
    }
    close_vocab(&x);
}

/* A megabyte that is one word: not quadratic (the alarm). */
TEST(huge_word)
{
    enum { N = 1 << 20 };
    opened x = open_bpe("gpt-2");
    char *text = malloc(N);
    ksllm_error e;
    for (int i = 0; i < N; i++)
        text[i] = "he"[i % 2];      /* one token */
    CHECK_EQ(ksllm_encode(x.m, text, N, 0, NULL, 0, &e), N / 2);
    for (int i = 0; i < N; i++)
        text[i] = "\xec\x95\x88"[i % 3];
    CHECK(ksllm_encode(x.m, text, N, 0, NULL, 0, &e) > 0);
    free(text);
    close_vocab(&x);
}

/* The limit is looked at before the text. */
TEST(text_of_any_size)
{
    opened x = open_bpe("gpt-2");
    ksllm_error e = {0};
    for (int i = 0; i < 2; i++) {
        size_t size = i ? KSLLM_NUL - 1 : KSLLM_MAX_TEXT_BYTES + 1;
        CHECK_EQ(ksllm_encode(x.m, "a", size, 0, NULL, 0, &e),
                 KSLLM_ERR_ARGUMENT);
        CHECK(strstr(e.text, "at most 536870912") != NULL);
    }
    close_vocab(&x);
}

/* ---- Unigrams ----------------------------------------------------------- */

static vocab unigram_vocab(void)
{
    vocab v = vocab_of("t5", "default");
    for (size_t i = 0; i < KS_LEN(unigram_tokens); i++)
        fx_vocab_add(&v.v, unigram_tokens[i].text, unigram_tokens[i].type);
    for (size_t i = 0; i < KS_LEN(unigram_tokens); i++)
        memcpy(v.v.scores.data + 4 * i, &unigram_tokens[i].score, 4);
    v.bos = 0;
    v.eos = 2;
    v.unk = 3;
    v.prefix = 1;
    fx_kv_bool(&v.more, "tokenizer.ggml.remove_extra_whitespaces", true);
    return v;
}

static void add_map(vocab *v, const void *map, size_t n)
{
    fx_kv_array(&v->more, "tokenizer.ggml.precompiled_charsmap",
                KSLLM_META_U8, n);
    fx_put(&v->more.kv, map, n);
}

static opened open_unigrams(void)
{
    vocab v = unigram_vocab();
    add_map(&v, unigram_map, sizeof unigram_map);
    return open_good(&v);
}

/* What sentencepiece gives, its own character map included. */
TEST(unigrams)
{
    opened x = open_unigrams();
    for (size_t i = 0; i < KS_LEN(unigram_texts); i++)
        CHECK_STR(ids_of(&x, unigram_texts[i].text, 0), unigram_texts[i].ids);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_model_get_info(x.m, &info, NULL);
    CHECK(!info.adds_bos && info.adds_eos);     /* where the file is silent */
    CHECK_STR(ids_of(&x, "<s>", KSLLM_ENCODE_SPECIAL | KSLLM_ENCODE_EOS),
              "0 2");
    CHECK_STR(text_of(&x, "\uff41\uff42\u3000\u3000하로 ", 0, 0), "ab 하로");
    CHECK_EQ(ksllm_token_find(x.m, "\u2581", 3), ksllm_token_find(x.m, " ", 1));
    close_vocab(&x);
}

/* Spaces as the file asks for them; a name that the user has defined comes out
 * of the map, too. */
TEST(unigrams_and_spaces)
{
    static const char *const want[2][2] = {
        {"a  b", " a  b "}, {" a  b", "  a  b "}};
    for (int prefix = 0; prefix < 2; prefix++) {
        vocab v = vocab_of("t5", NULL);
        static const char *const pieces[] = {"\u2581", "a", "b", "<m>"};
        fx_vocab_add(&v.v, "<unk>", FX_UNKNOWN);
        for (int i = 0; i < 4; i++)
            fx_vocab_add(&v.v, pieces[i], i < 3 ? FX_NORMAL : FX_USER);
        v.unk = 0;
        v.prefix = prefix;
        opened x = open_good(&v);
        for (int i = 0; i < 2; i++) {
            const char *text = i ? " a  b " : "a  b";
            char ids[32] = "", one[4];
            for (const char *c = want[prefix][i]; *c; c++) {
                sprintf(one, "%s%d", *ids ? " " : "",
                        *c == ' ' ? 1 : *c == 'a' ? 2 : 3);
                strcat(ids, one);
            }
            CHECK_STR(ids_of(&x, text, 0), ids);
            CHECK_STR(text_of(&x, text, 0, 0), text);
        }
        CHECK_STR(ids_of(&x, "a<m>zz", 0), prefix ? "1 2 4 1 0" : "2 4 0");
        close_vocab(&x);
    }
}

/* Against every segmentation there is, in order: the first of the best. */
static double best_sum(const tokenizer *t, const char *p, size_t n)
{
    double best[64] = {0};
    for (size_t to = 1; to <= n; to++) {
        best[to] = best[to - 1] + (double)t->lexicon.unknown;
        for (size_t from = 0; from < to; from++) {
            i32 id = tok_lookup(t, (const u8 *)p + from, to - from);
            double sum = id < 0 ? -1e9
                       : best[from] + (double)ld_f32(t->scores + 4 * id);
            best[to] = sum > best[to] ? sum : best[to];
        }
    }
    return best[n];
}

TEST(unigrams_of_random_vocabularies)
{
    uint64_t seed = test_seed;
    for (int round = 0; round < 200; round++) {
        vocab v = vocab_of("t5", NULL);
        fx_vocab_add(&v.v, "<unk>", FX_UNKNOWN);
        uint32_t n = 1 + fx_below(&seed, 40);
        for (uint32_t i = 0; i < n; i++) {
            char token[12] = "";
            uint32_t len = 1 + fx_below(&seed, 9);
            for (uint32_t k = 0; k < len; k++)
                token[k] = (char)('a' + fx_below(&seed, 2));
            fx_vocab_add(&v.v, token, FX_NORMAL);
        }
        for (uint32_t i = 1; i <= n; i++) {
            float score = -(float)fx_below(&seed, 1000) / 64;
            memcpy(v.v.scores.data + 4 * i, &score, 4);
        }
        v.unk = 0;
        opened x = open_good(&v);
        const tokenizer *t = &x.m->tok;
        for (int k = 0; k < 20; k++) {
            char text[41];
            int32_t ids[64];
            size_t len = 1 + fx_below(&seed, 40);
            for (size_t i = 0; i < len; i++)
                text[i] = (char)('a' + fx_below(&seed, 2));
            int64_t count = ksllm_encode(x.m, text, len, 0, ids, 64, NULL);
            double sum = 0;
            size_t bytes = 0;
            bool unknown = false;
            for (int64_t i = 0; i < count; i++) {
                unknown = unknown || ids[i] == 0;
                sum += (double)ld_f32(t->scores + 4 * ids[i]);
                bytes += tok_text(t, (u32)ids[i]).n;
            }
            if (!unknown) {
                CHECK_EQ(bytes, len);
                CHECK(sum == best_sum(t, text, len));
            }
        }
        close_vocab(&x);
    }
}

/* One long word, in a vocabulary of one letter's runs: eight times the word is
 * 64 times the time of who compares all with all. */
TEST(unigrams_are_not_quadratic)
{
    enum { N = 1 << 16 };
    clock_t took[2];
    char *text = malloc(N);
    memset(text, 'a', N);
    vocab v = vocab_of("t5", NULL);
    fx_vocab_add(&v.v, "<unk>", FX_UNKNOWN);
    for (size_t n = 1; n <= TOK_TEXT_MAX; n += 8)
        fx_vocab_add_n(&v.v, text, n, FX_NORMAL);
    opened x = open_good(&v);
    for (int i = 0; i < 2; i++) {
        size_t size = i ? N : N / 8;
        clock_t begun = clock();
        int64_t n = ksllm_encode(x.m, text, size, 0, NULL, 0, NULL);
        took[i] = clock() - begun;
        CHECK(n >= (int64_t)size / TOK_TEXT_MAX && n < (int64_t)size / 64);
    }
    CHECK(took[1] < 30 * took[0] + CLOCKS_PER_SEC / 20);
    close_vocab(&x);
    free(text);
}

/* Scratch of the documented size is enough for a text that stays as it is. */
TEST(unigrams_in_scratch)
{
    opened x = open_unigrams();
    for (size_t n = 1; n < 3000; n += n / 3 + 1) {
        size_t bytes = n * TOK_SCRATCH_PER_BYTE + TOK_SCRATCH_FIXED;
        char *text = malloc(n);
        uint8_t *scratch = malloc(bytes);
        memset(text, 'x', n);
        tok_coder c = {.t = &x.m->tok, .flags = 7, .scratch = scratch,
                       .scratch_bytes = bytes};
        CHECK(tok_encode(&c, (str){text, n}) > 0);
        c = (tok_coder){.t = &x.m->tok, .flags = 7, .scratch = scratch};
        int64_t k = tok_encode(&c, (str){text, n});
        CHECK(n >= TOK_SHORT ? k == KSLLM_ERR_BUFFER : k > 0);
        free(text);
        free(scratch);
    }
    close_vocab(&x);
}

/* Every allocation of opening and of a long word fails once. */
TEST(unigrams_without_memory)
{
    vocab v = unigram_vocab();
    add_map(&v, unigram_map, sizeof unigram_map);
    fx_file f = vocab_file(&v);
    char text[500];
    memset(text, 'y', sizeof text);
    ksllm_status st = KSLLM_ERR_MEMORY;
    for (long k = 1; st == KSLLM_ERR_MEMORY && k < 100; k++) {
        fx_alloc a;
        fx_alloc_init(&a);
        a.fail_at = k;
        ksllm_model_options o;
        ksllm_model_options_init(&o);
        o.vocab_only = true;
        o.allocator = &a.allocator;
        ksllm_model *m = NULL;
        st = ksllm_model_open_memory(f.data, f.size, &o, &m, NULL);
        if (!st) {
            int64_t n = ksllm_encode(m, text, sizeof text, 0, NULL, 0, NULL);
            CHECK(n > 0 || n == KSLLM_ERR_MEMORY);
            st = n < 0 ? (ksllm_status)n : KSLLM_OK;
            ksllm_model_close(m);
        }
        CHECK_EQ(a.live, 0);
    }
    CHECK_EQ(st, KSLLM_OK);
    free(f.data);
}

/* Damage of the map is refused or harmless. */
TEST(maps_that_are_damaged)
{
    static const struct { const char *map; size_t n; bool opens; } maps[] = {
        {"", 0, true}, {"\0\0\0\0", 4, true}, {"\0\0\0\0\0", 5, true},
        {"\4\0\0\0xxxx", 8, false}, {"\4\0\0\0xxxx\0", 9, true},
        {"\5\0\0\0xxxx\0", 9, false}, {"\377\377\377\377\0", 5, false},
        {"\0\0\0\0x", 5, false}};
    for (size_t i = 0; i < KS_LEN(maps); i++) {
        vocab v = unigram_vocab();
        add_map(&v, maps[i].map, maps[i].n);
        opened x = open_vocab(&v, NULL);
        CHECK_EQ(x.status, maps[i].opens ? KSLLM_OK : KSLLM_ERR_FORMAT);
        close_vocab(&x);
    }
    uint8_t map[sizeof unigram_map];
    uint64_t seed = test_seed;
    for (int round = 0; round < 300; round++) {
        memcpy(map, unigram_map, sizeof map);
        for (int k = 0; k < 20; k++)
            map[4 + fx_below(&seed, sizeof map - 5)] =
                (uint8_t)fx_below(&seed, 256);
        vocab v = unigram_vocab();
        add_map(&v, map, sizeof map);
        opened x = open_vocab(&v, NULL);
        for (size_t i = 0; !x.status && i < KS_LEN(unigram_texts); i++)
            CHECK(ksllm_encode(x.m, unigram_texts[i].text, KSLLM_NUL, 0, NULL,
                               0, NULL) >= 0);
        close_vocab(&x);
    }
    vocab v = unigram_vocab();      /* a score that is none */
    memcpy(v.v.scores.data + 40, "\0\0\xc0\x7f", 4);
    opened x = open_vocab(&v, NULL);
    CHECK_EQ(x.status, KSLLM_ERR_FORMAT);
    close_vocab(&x);
}

/* ---- SentencePiece ------------------------------------------------------ */

enum { SP_BYTE = 3, SP_FIRST = 259 };

static vocab spm_vocab(void)
{
    static const char *const pieces[] = {
        "\u2581", "a", "b", "c", "ab", "bc", "\u2581a", "\u2581ab", "aa",
        "가", "나", "가나", "c\u2581a", "\u2581\u2581"};
    vocab v = vocab_of("llama", NULL);
    char s[8];
    fx_vocab_add(&v.v, "<unk>", FX_UNKNOWN);
    fx_vocab_add(&v.v, "<s>", FX_CONTROL);
    fx_vocab_add(&v.v, "</s>", FX_CONTROL);
    for (int i = 0; i < 256; i++) {
        sprintf(s, "<0x%02X>", i);
        fx_vocab_add(&v.v, s, FX_BYTE);
    }
    for (size_t i = 0; i < KS_LEN(pieces); i++)
        fx_vocab_add(&v.v, pieces[i], FX_NORMAL);
    v.bos = 1;
    v.eos = 2;
    return v;
}

TEST(pieces_by_score)
{
    vocab v = spm_vocab();
    opened x = open_good(&v);
    /* ids: 259 _, 260 a, 261 b, 262 c, 263 ab, 264 bc, 265 _a, 266 _ab,
     * 267 aa, 268 ga, 269 na, 270 gana, 271 c_a, 272 __ */
    CHECK_STR(ids_of(&x, "abc", 0), "266 262");
    CHECK_STR(ids_of(&x, "bc", 0), "259 264");
    CHECK_STR(ids_of(&x, "c a", 0), "259 271");     /* _a, then c_a */
    CHECK_STR(ids_of(&x, " a", 0), "259 265");
    CHECK_STR(ids_of(&x, "가나\u2581가", 0), "259 270 259 268");
    CHECK_STR(ids_of(&x, "다", 0), "259 238 142 167");  /* EB 8B A4 + 3 */
    CHECK_STR(ids_of(&x, "\xff", 0), "259 258");
    CHECK_STR(ids_of(&x, "a", KSLLM_ENCODE_BOS), "1 265");
    CHECK_STR(ids_of(&x, "<s>a", KSLLM_ENCODE_SPECIAL), "1 265");
    CHECK_STR(ids_of(&x, "", 0), "");
    CHECK_STR(text_of(&x, " 가나 다\xff", 1, 0), " 가나 다\ufffd");
    CHECK_EQ(ksllm_token_find(x.m, "\u2581ab", 5), 266);
    CHECK(ksllm_token_is_stop(x.m, 2));
    check_streams(&x, 273);
    close_vocab(&x);

    v = spm_vocab();
    v.prefix = 0;
    x = open_good(&v);
    CHECK_STR(ids_of(&x, "abc", 0), "263 262");
    CHECK_STR(text_of(&x, " a", 0, 0), " a");
    close_vocab(&x);
}

/* Gemma 4: by the list of merges, whatever the scores are, and only those. */
static vocab merged_vocab(void)
{
    static const char *const merges[] = {"b c", "\u2581 a", "\u2581a b", "a b",
                                         "가 나", "\u2581 \u2581"};
    vocab v = spm_vocab();
    v.model = "gemma4";
    fx_vocab_add(&v.v, "<x>", FX_USER);         /* 273 */
    for (size_t i = 0; i < KS_LEN(merges); i++, v.v.n_merges++)
        fx_text(&v.v.merges, merges[i]);
    return v;
}

TEST(pieces_by_merges)
{
    vocab v = merged_vocab();
    opened x = open_good(&v);
    CHECK_STR(ids_of(&x, "abc", 0), "260 264");
    CHECK_STR(ids_of(&x, "ab", 0), "263");
    CHECK_STR(ids_of(&x, " ab", 0), "266");
    CHECK_STR(ids_of(&x, "  ", 0), "272");
    CHECK_STR(ids_of(&x, "c a", 0), "262 265");     /* c_a has no merge */
    CHECK_STR(ids_of(&x, "aa", 0), "260 260");
    CHECK_STR(ids_of(&x, "가나\u2581가", 0), "270 259 268");
    CHECK_STR(ids_of(&x, "다", 0), "238 142 167");
    CHECK_STR(ids_of(&x, "a", KSLLM_ENCODE_BOS), "1 260");
    /* a mark that llama.cpp calls user-defined is none of a user's */
    CHECK_STR(ids_of(&x, "<x>", 0), "63 123 65");
    CHECK_STR(ids_of(&x, "<x>", KSLLM_ENCODE_SPECIAL), "273");
    CHECK_STR(text_of(&x, " 가나 다\xff", 0, 0), " 가나 다\ufffd");
    check_streams(&x, 274);
    close_vocab(&x);
    v = merged_vocab();
    v.without = "tokenizer.ggml.merges";
    x = open_vocab(&v, NULL);
    CHECK_EQ(x.status, KSLLM_ERR_FORMAT);
    CHECK(strstr(x.e.text, "merges"));
    close_vocab(&x);
}

/* A token that has a space where others have U+2581 joins across it, too. */
TEST(pieces_with_plain_spaces)
{
    vocab v = spm_vocab();
    fx_vocab_add(&v.v, "b ", FX_NORMAL);
    opened x = open_good(&v);
    CHECK_STR(ids_of(&x, "cb c", 0), "259 262 273 262");
    close_vocab(&x);
}

/* The bytes of a broken character are one symbol, as they are one U+FFFD: no
 * token begins or ends between them, but one that is just these bytes fits. */
TEST(pieces_of_broken_characters)
{
    vocab v = spm_vocab();
    fx_vocab_add(&v.v, "\x96" "a", FX_NORMAL);                   /* 273 */
    fx_vocab_add(&v.v, "a\xe2", FX_NORMAL);
    fx_vocab_add(&v.v, "\xe3\x82", FX_NORMAL);                   /* 275 */
    opened x = open_good(&v);
    CHECK_STR(ids_of(&x, "\xe2\x96" "a", 0), "259 229 153 260");
    CHECK_STR(ids_of(&x, "ca\xe2\x96", 0), "259 262 260 229 153");
    CHECK_STR(ids_of(&x, "c\x96" "a", 0), "259 262 273");
    CHECK_STR(ids_of(&x, "ca\xe2", 0), "259 262 274");
    CHECK_STR(ids_of(&x, "c\xe3\x82", 0), "259 262 275");
    close_vocab(&x);
}

/* Cutting at spaces gives what merging the text as one word gives. */
TEST(pieces_in_parts)
{
    static const char *const bits[] = {"a", "b", "c", " ", "가", "나", "다",
                                       "\xff"};
    vocab v = spm_vocab();
    v.prefix = 0;
    opened x = open_good(&v);
    uint64_t seed = test_seed;
    check_merging(&x, bits, KS_LEN(bits));
    for (int round = 0; round < 20000; round++) {
        char text[100] = "";
        uint8_t scratch[1300];
        int32_t a[100], b[100];
        uint32_t n = fx_below(&seed, 30);
        for (uint32_t i = 0; i < n; i++)
            strcat(text, bits[fx_below(&seed, 8)]);
        if (strlen(text) < 2)
            continue;
        tok_coder c = {.t = &x.m->tok, .out = a, .cap = 100,
                       .scratch = scratch, .scratch_bytes = sizeof scratch};
        tok_merge_long(&c, (uint8_t *)text, strlen(text));
        CHECK_EQ(c.status, KSLLM_OK);
        CHECK_EQ(ksllm_encode(x.m, text, KSLLM_NUL, 0, b, 100, NULL), c.n);
        CHECK(memcmp(a, b, 4 * (size_t)c.n) == 0);
    }
    close_vocab(&x);
}

/* Where no memory is left the call ends, whatever it was needed for: a text
 * with U+2581, its flags, the first word with its space, a later word, one that
 * is composed. Nothing follows the word that failed. */
TEST(scratch_that_ends)
{
    char big[301] = "";
    for (int i = 0; i < 100; i++)
        strcat(big, "가");
    char text[1000];
    uint8_t scratch[6000], data[1000] = {0};
    ksllm_error e;
    for (int kind = 0; kind < 2; kind++) {
        vocab v = kind ? spm_vocab() : bpe_vocab("qwen2");
        opened x = open_good(&v);
        static const char *const forms[] = {
            "%s a b", "a %s b c", "a b \u2581 %s", "\u2581",
            "\u1100\u1161%s a"};
        for (size_t i = 0; i < KS_LEN(forms); i++) {
            int64_t last = KSLLM_ERR_BUFFER;
            sprintf(text, forms[i], big);
            for (size_t room = 0; room < 6000; room += 12) {
                tok_coder c = {.t = &x.m->tok, .data = data,
                               .flags = KSLLM_ENCODE_COMPOSE,
                               .scratch = scratch, .scratch_bytes = room,
                               .err = &e};
                int64_t n = tok_encode(&c, str_of(text));
                CHECK(n == KSLLM_ERR_BUFFER || n > 0);
                CHECK(last < 0 || n == last);   /* more room does no harm */
                CHECK_EQ(c.scratch_bytes, room); /* all is given back */
                last = n;
            }
            CHECK_EQ(last, ksllm_encode(x.m, text, KSLLM_NUL,
                                        KSLLM_ENCODE_COMPOSE, NULL, 0, &e));
        }
        close_vocab(&x);
    }
}

/* Flags say which bytes are data, where no control token may begin or end; they
 * stay with their bytes when U+2581 becomes one. */
TEST(flags_follow_their_bytes)
{
    vocab v = spm_vocab();
    v.prefix = 0;
    opened x = open_good(&v);
    const char *text = "\u2581<s>\u2581\u2581a<s>\u2581b<s>";
    for (size_t at = 0; at <= strlen(text); at++) {
        int32_t ids[64];
        uint8_t data[64] = {0}, scratch[2000];
        int found = 0, want = 3;
        data[at] = 1;
        tok_coder c = {.t = &x.m->tok, .flags = KSLLM_ENCODE_SPECIAL,
                       .data = data, .scratch = scratch,
                       .scratch_bytes = sizeof scratch, .out = ids, .cap = 64};
        int64_t n = tok_encode(&c, str_of(text));
        for (int64_t i = 0; i < n; i++)
            found += ids[i] == 1;
        for (const char *p = text; (p = strstr(p, "<s>")) != NULL; p++)
            want -= at >= (size_t)(p - text) && at < (size_t)(p - text) + 3;
        CHECK_EQ(found, want);
    }
    close_vocab(&x);
}

/* A user-defined piece that begins with a space is found where the text's own
 * space is the one put before it. */
TEST(pieces_defined_by_the_user)
{
    vocab v = spm_vocab();
    fx_vocab_add(&v.v, "\u2581b", FX_USER);     /* 273 */
    opened x = open_good(&v);
    CHECK_STR(ids_of(&x, "b", 0), "273");
    CHECK_STR(ids_of(&x, "ab b", 0), "266 273");
    close_vocab(&x);
}

/* Without bytes, what has no piece is the unknown token, once in a row. */
TEST(pieces_without_bytes)
{
    for (int unk = -1; unk < 1; unk++) {
        vocab v = vocab_of("llama", NULL);
        fx_vocab_add(&v.v, "<unk>", FX_UNKNOWN);
        fx_vocab_add(&v.v, "a", FX_NORMAL);
        fx_vocab_add(&v.v, "\u2581", FX_NORMAL);
        v.unk = unk;
        opened x = open_good(&v);
        CHECK_STR(ids_of(&x, "a가나a\xff", 0), unk < 0 ? "2 1 1" : "2 1 0 1 0");
        CHECK_EQ(ksllm_encode(x.m, "가나", KSLLM_NUL, 0, NULL, 0, NULL),
                 unk < 0 ? 1 : 2);      /* the same when it only counts */
        close_vocab(&x);
    }
}

/* ---- Files that mean harm ----------------------------------------------- */

static void check_refused(vocab *v, const char *override,
                          ksllm_status status, const char *word)
{
    opened x = open_vocab(v, override);
    CHECK_EQ(x.status, status);
    CHECK(x.m == NULL);
    if (x.status < 0 && !CHECK(strstr(x.e.text, word) != NULL))
        printf("    %s\n", x.e.text);
    close_vocab(&x);
}

TEST(pretokenizer_names)
{
    vocab v = bpe_vocab(NULL);
    check_refused(&v, NULL, KSLLM_ERR_UNSUPPORTED, "options.pretokenizer");
    v = bpe_vocab("no-such-rule");
    check_refused(&v, NULL, KSLLM_ERR_UNSUPPORTED, "no-such-rule");
    v = bpe_vocab("gpt-2");
    check_refused(&v, "neither", KSLLM_ERR_UNSUPPORTED, "neither");
    v = bpe_vocab(NULL);
    opened x = open_vocab(&v, "qwen2");
    CHECK_OK(x.status, x.e);
    close_vocab(&x);
    v = bpe_vocab("gpt-2");
    v.model = "rwkv";
    check_refused(&v, NULL, KSLLM_ERR_UNSUPPORTED, "rwkv");
}

TEST(arrays_that_disagree)
{
    vocab v = bpe_vocab("gpt-2");
    v.v.types.size -= 4;
    check_refused(&v, NULL, KSLLM_ERR_FORMAT, "token_type");
    v = bpe_vocab("gpt-2");
    v.v.scores.size -= 4;
    check_refused(&v, NULL, KSLLM_ERR_FORMAT, "scores");
    v = bpe_vocab("gpt-2");
    v.bos = FX_BPE_SIZE;
    check_refused(&v, NULL, KSLLM_ERR_FORMAT, "bos_token_id");
    v = bpe_vocab("gpt-2");
    char *long_text = malloc(TOK_TEXT_MAX + 1);
    memset(long_text, 'x', TOK_TEXT_MAX + 1);
    fx_vocab_add_n(&v.v, long_text, TOK_TEXT_MAX + 1, FX_NORMAL);
    check_refused(&v, NULL, KSLLM_ERR_UNSUPPORTED, "1025");
    free(long_text);
}

/* What tokenizer.ggml.tokens and .merges may be. */
TEST(arrays_of_text)
{
    static const char *const keys[] = {"tokenizer.ggml.tokens",
                                       "tokenizer.ggml.merges"};
    static const size_t limits[] = {2097152, 4194304};
    for (size_t i = 0; i < 2; i++) {
        vocab v = bpe_vocab("gpt-2");
        v.without = keys[i];
        check_refused(&v, NULL, KSLLM_ERR_FORMAT, keys[i]);
        v = bpe_vocab("gpt-2");
        v.without = keys[i];
        fx_kv_text(&v.more, keys[i], "a b");
        check_refused(&v, NULL, KSLLM_ERR_FORMAT, keys[i]);
        v = bpe_vocab("gpt-2");
        v.without = keys[i];
        fx_kv_array(&v.more, keys[i], KSLLM_META_U8, 0);
        check_refused(&v, NULL, KSLLM_ERR_FORMAT, keys[i]);
        v = bpe_vocab("gpt-2");
        v.without = keys[i];
        fx_kv_array(&v.more, keys[i], KSLLM_META_TEXT, limits[i]);
        memset(fx_grow(&v.more.kv, 8 * limits[i]), 0, 8 * limits[i]);
        check_refused(&v, NULL, KSLLM_ERR_FORMAT,
                      i ? "4194303 items" : "2097151 items");
    }
    vocab v = bpe_vocab("gpt-2");
    v.without = keys[0];
    fx_kv_array(&v.more, keys[0], KSLLM_META_TEXT, 0);
    check_refused(&v, NULL, KSLLM_ERR_FORMAT, "1 to 2097151 items");
    v = bpe_vocab("gpt-2");
    v.without = "tokenizer.ggml.scores";
    fx_kv_f32(&v.more, "tokenizer.ggml.scores", 1);
    check_refused(&v, NULL, KSLLM_ERR_FORMAT, "tokenizer.ggml.scores");
    v = spm_vocab();
    v.without = "tokenizer.ggml.scores";
    check_refused(&v, NULL, KSLLM_ERR_FORMAT, "tokenizer.ggml.scores");
    v = bpe_vocab("gpt-2");
    v.without = "tokenizer.ggml.model";
    check_refused(&v, NULL, KSLLM_ERR_UNSUPPORTED, "tokenizer.ggml.model");
    v = bpe_vocab("gpt-2");         /* without types all are normal tokens */
    v.without = "tokenizer.ggml.token_type";
    opened x = open_good(&v);
    CHECK(strchr(ids_of(&x, "<|im_start|>", KSLLM_ENCODE_SPECIAL), ' '));
    close_vocab(&x);
}

/* An id of the file that is none: all ones in either width. */
TEST(ids_that_are_none)
{
    static const struct {
        ksllm_meta_type type;
        uint64_t v;
        bool good;
    } ids[] = {
        {KSLLM_META_U32, 0xffffffff, true}, {KSLLM_META_I32, UINT64_MAX, true},
        {KSLLM_META_I64, UINT64_MAX, true}, {KSLLM_META_U64, 3, true},
        {KSLLM_META_I32, (uint64_t)-2, false},
        {KSLLM_META_U64, (uint64_t)1 << 63, false},
        {KSLLM_META_U32, FX_BPE_SIZE, false}};
    for (size_t i = 0; i < KS_LEN(ids); i++) {
        vocab v = bpe_vocab("gpt-2");
        fx_kv_int(&v.more, "tokenizer.ggml.eos_token_id", ids[i].type,
                  ids[i].v);
        fx_kv_bool(&v.more, "tokenizer.ggml.add_eos_token", true);
        if (!ids[i].good) {
            check_refused(&v, NULL, KSLLM_ERR_FORMAT, "eos_token_id");
            continue;
        }
        opened x = open_good(&v);
        ksllm_model_info info = {.size = sizeof info};
        ksllm_model_get_info(x.m, &info, NULL);
        CHECK_EQ(info.eos, ids[i].v == 3 ? 3 : -1);
        CHECK_EQ(info.adds_eos, ids[i].v == 3);
        CHECK_STR(ids_of(&x, "a", KSLLM_ENCODE_EOS),
                  ids[i].v == 3 ? "97 3" : "97");
        close_vocab(&x);
    }
    vocab v = bpe_vocab("gpt-2");       /* as if the key did not exist */
    fx_kv_array(&v.more, "tokenizer.ggml.eos_token_id", KSLLM_META_U32, 1);
    fx_int(&v.more.kv, 3, 4);
    opened x = open_good(&v);
    ksllm_model_info info = {.size = sizeof info};
    ksllm_model_get_info(x.m, &info, NULL);
    CHECK_EQ(info.eos, -1);
    close_vocab(&x);
}

/* ksllm-quant lists the ids that end an answer: 32 at most, all of the
 * vocabulary. */
TEST(stop_tokens_listed)
{
    static const char key[] = "tokenizer.ksllm.stop_token_ids";
    static const struct { ksllm_meta_type item; uint32_t n, last; } lists[] = {
        {KSLLM_META_I32, 32, 40}, {KSLLM_META_U32, 0, 0},
        {KSLLM_META_I32, 33, 40}, {KSLLM_META_F32, 2, 40},
        {KSLLM_META_I32, 2, UINT32_MAX}, {KSLLM_META_U32, 2, FX_BPE_SIZE}};
    for (size_t i = 0; i < KS_LEN(lists); i++) {
        vocab v = bpe_vocab("gpt-2");
        fx_kv_array(&v.more, key, lists[i].item, lists[i].n);
        for (uint32_t k = 1; k <= lists[i].n; k++)
            fx_int(&v.more.kv, k < lists[i].n ? k : lists[i].last, 4);
        if (i >= 2) {
            check_refused(&v, NULL, KSLLM_ERR_FORMAT, key);
            continue;
        }
        opened x = open_good(&v);
        for (int32_t id = 0; id < 64; id++)
            CHECK_EQ(ksllm_token_is_stop(x.m, id),
                     i == 0 && ((id >= 1 && id < 32) || id == 40));
        close_vocab(&x);
    }
    vocab v = bpe_vocab("gpt-2");
    fx_kv_u32(&v.more, key, 3);
    check_refused(&v, NULL, KSLLM_ERR_FORMAT, key);
}

/* Tokens that no draw gives: ids of any number, also of none that there are. */
TEST(suppressed_tokens_listed)
{
    static const char key[] = "tokenizer.ggml.suppress_tokens";
    static const struct { ksllm_meta_type item; uint32_t n, from; } lists[] = {
        {KSLLM_META_I32, 0, 0}, {KSLLM_META_U32, FX_BPE_SIZE - 1, 1},
        {KSLLM_META_I32, 3, UINT32_MAX - 2}, {KSLLM_META_I32, 200000, 7},
        {KSLLM_META_F32, 0, 0}, {KSLLM_META_BOOL, 8, 0},
        {KSLLM_META_I64, 2, 0}, {KSLLM_META_U32, FX_BPE_SIZE, 0},
        {KSLLM_META_I32, 2 * FX_BPE_SIZE, 0}};
    for (size_t i = 0; i < KS_LEN(lists); i++) {
        vocab v = bpe_vocab("gpt-2");
        fx_kv_array(&v.more, key, lists[i].item, lists[i].n);
        for (uint32_t k = 0; k < lists[i].n; k++)
            fx_int(&v.more.kv, lists[i].n == 200000 ? 7 : lists[i].from + k,
                   fx_meta_size(lists[i].item));
        if (i >= 4) {
            check_refused(&v, NULL, KSLLM_ERR_FORMAT, key);
            continue;
        }
        opened x = open_good(&v);
        for (int32_t id = 0; id < FX_BPE_SIZE; id++)
            CHECK_EQ(tok_is_drawn(&x.m->tok, id),
                     i == 1 ? id < 1 : i == 3 ? id != 7 : true);
        CHECK_EQ(x.m->tok.drawn != NULL, i > 0);
        close_vocab(&x);
    }
    vocab v = bpe_vocab("gpt-2");
    fx_kv_u32(&v.more, key, 3);
    check_refused(&v, NULL, KSLLM_ERR_FORMAT, key);
}

static void merge_of(fx_vocab *v, const char *text)
{
    fx_text(&v->merges, text);
    v->n_merges++;
}

TEST(special_tokens_of_every_first_byte)
{
    vocab v = bpe_vocab("gpt-2");
    for (int b = 0; b < 256; b++) {
        char text[2] = {(char)b, 'x'};
        fx_vocab_add_n(&v.v, text, 2, FX_CONTROL);
    }
    opened x = open_good(&v);
    for (int b = 0; b < 256; b++) {
        char text[2] = {(char)b, 'x'};
        int32_t id = -1;
        CHECK_EQ(ksllm_encode(x.m, text, 2, KSLLM_ENCODE_SPECIAL, &id, 1,
                              NULL), 1);
        CHECK_EQ(id, FX_BPE_SIZE + b);
    }
    close_vocab(&x);
}

/* ---- Vocabularies made to be slow --------------------------------------- */

static void many_ending(fx_vocab *v, int type, char end)
{
    char s[TOK_TEXT_MAX];
    memset(s, 'a', sizeof s);
    for (size_t k = 2; k < TOK_TEXT_MAX; k++) {
        s[k] = end;
        fx_vocab_add_n(v, s, k + 1, type);
        s[k] = 'a';
    }
}

static void ending_user(fx_vocab *v) { many_ending(v, FX_USER, 'b'); }
static void ending_control(fx_vocab *v) { many_ending(v, FX_CONTROL, 'b'); }
static void runs_control(fx_vocab *v) { many_ending(v, FX_CONTROL, 'a'); }
static void runs_normal(fx_vocab *v) { many_ending(v, FX_NORMAL, 'a'); }

static void one_long(fx_vocab *v)
{
    char s[TOK_TEXT_MAX];
    memset(s, 'a', sizeof s);
    s[TOK_TEXT_MAX - 1] = 'b';
    fx_vocab_add_n(v, s, sizeof s, FX_USER);
}

/* 10,000 that differ in their last bytes, and one that is short. */
static void one_prefix(fx_vocab *v)
{
    char s[TOK_TEXT_MAX];
    memset(s, 'a', sizeof s);
    fx_vocab_add(v, "aab", FX_USER);
    for (int i = 0; i < 10000; i++) {
        snprintf(s + 480, 12, "b%06d", i * 7919 % 10000);
        fx_vocab_add_n(v, s, 487, i % 2 ? FX_USER : FX_CONTROL);
    }
}

static void many_short(fx_vocab *v)
{
    char s[16];
    for (int i = 0; i < 10000; i++) {
        snprintf(s, sizeof s, "a%05d", i * 7919 % 10000);
        fx_vocab_add(v, s, FX_USER);
    }
}

/* 508 in a row of the hash table that special tokens once stood in: 0.1 took
 * 5.6 ms for a byte of text. */
static void one_chain(fx_vocab *v)
{
    uint64_t seed = 5;
    for (size_t i = 0; i < 508; i++) {
        char s[TOK_TEXT_MAX];
        size_t n = 4 + i % 490;
        uint64_t h;
        memset(s, 'a', n);
        do {
            for (size_t k = 0; k < 6; k++)
                s[n + k] = (char)('b' + fx_below(&seed, 25));
            h = fx_hash(FX_HASH, s, n + 6);
            h ^= h >> 32;
            h *= UINT64_C(0xd6e8feb86659fd93);
            h ^= h >> 29;
            h *= UINT64_C(0x9e3779b97f4a7c15);
            h ^= h >> 32;
        } while ((h & 1023) != i);
        fx_vocab_add_n(v, s, n + 6, FX_USER);
    }
}

/* Seconds of processor time for the text. */
static double encoding(const ksllm_model *m, const char *text, size_t n)
{
    clock_t begin = clock();
    for (uint32_t flags = 0; flags <= KSLLM_ENCODE_SPECIAL;
         flags += KSLLM_ENCODE_SPECIAL)
        CHECK(ksllm_encode(m, text, n, flags, NULL, 0, NULL) > 0);
    return (double)(clock() - begin) / CLOCKS_PER_SEC;
}

/* Whatever the vocabulary and the text, a byte costs at most some hundred
 * times what it costs in honest ones. 0.1 is beyond the limit by far on any
 * machine: the limit goes with the machine. */
TEST(no_vocabulary_is_slow)
{
    enum { N = 20000 };
    static const struct { const char *name; void (*add)(fx_vocab *); } add[] = {
        {"ending_user", ending_user}, {"ending_control", ending_control},
        {"runs_control", runs_control}, {"runs_normal", runs_normal},
        {"one_long", one_long}, {"one_prefix", one_prefix},
        {"many_short", many_short}, {"one_chain", one_chain}};
    static const char *const bits[] = {"a", "ab", "aab", "aaaaaaaaaaaaaaaac",
                                       "\u2581", "a "};
    char *text = malloc(N + 64);
    opened honest = open_bpe("gpt-2");
    for (size_t i = 0; i < N; i++)
        text[i] = "they say hello "[i % 15];
    double limit = 0;
    for (int i = 0; i < 3; i++) {
        double took = encoding(honest.m, text, N);
        limit = took > limit ? took : limit;
    }
    limit = 1000 * (limit + 2.0 / CLOCKS_PER_SEC) + 0.05;
    close_vocab(&honest);
    for (size_t i = 0; i < 2 * KS_LEN(add); i++) {
        vocab v = i % 2 ? spm_vocab() : bpe_vocab("gpt-2");
        add[i / 2].add(&v.v);
        opened x = open_good(&v);
        for (size_t b = 0; b < KS_LEN(bits); b++) {
            size_t n = 0, k = strlen(bits[b]);
            for (; n < N; n += k)
                memcpy(text + n, bits[b], k);
            double took = encoding(x.m, text, n);
            if (getenv("KSLLM_TIMES"))
                printf("%s %s %s: %.1f us/byte\n", i % 2 ? "spm" : "bpe",
                       add[i / 2].name, bits[b], took * 1e6 / 2 / N);
            if (!CHECK(took < limit))
                printf("%s %s: %g s, limit %g\n", add[i / 2].name, bits[b],
                       took, limit);
        }
        close_vocab(&x);
    }
    free(text);
}

/* SentencePiece takes text without spaces as one word: a megabyte of it, with a
 * token for every run up to the limit (the alarm). */
TEST(huge_word_of_pieces)
{
    enum { N = 1 << 20 };
    vocab v = spm_vocab();
    runs_normal(&v.v);
    opened x = open_good(&v);
    char *text = malloc(N);
    ksllm_error e;
    memset(text, 'a', N);
    int64_t n = ksllm_encode(x.m, text, N, 0, NULL, 0, &e);
    CHECK(n > N / TOK_TEXT_MAX && n < N / 2);
    free(text);
    close_vocab(&x);
}

static uint64_t inverse_of(uint64_t odd)       /* Newton, modulo 2^64 */
{
    uint64_t inverse = odd;
    for (int step = 0; step < 6; step++)
        inverse *= 2 - odd * inverse;
    return inverse;
}

/* 16 bytes whose hash is that of every other `i`. */
static void alike(uint64_t i, char *s)
{
    uint64_t g = (i ^ UINT64_C(16) << 56) * UINT64_C(0xd6e8feb86659fd93);
    uint64_t h = UINT64_C(0x123456789abcdef0) ^ (g << 32 | g >> 32);
    h *= inverse_of(UINT64_C(0x9e3779b97f4a7c15));
    h ^= UINT64_C(0xa0761d6478bd642f);
    memcpy(s, &i, 8);
    memcpy(s + 8, &h, 8);
}

/* Texts with one hash: a look-up would go from one to the next. */
TEST(texts_made_to_collide)
{
    char s[16], other[16];
    alike(1, s);
    alike(2, other);
    CHECK_HEX(tok_key_of((u8 *)s, 16).hash, tok_key_of((u8 *)other, 16).hash);
    for (int round = 0; round < 4; round++) {
        int more = round % 2, pieces = round / 2;
        vocab v = pieces ? spm_vocab() : bpe_vocab("gpt-2");
        int first = (int)v.v.n;
        for (int i = 0; i < TOK_ALIKE + more; i++) {
            alike((uint64_t)i, s);
            fx_vocab_add_n(&v.v, s, 16, FX_NORMAL);
        }
        if (more) {
            check_refused(&v, NULL, KSLLM_ERR_FORMAT, "collide");
            continue;
        }
        opened x = open_good(&v);
        for (int i = 0; i < TOK_ALIKE + 2; i++) {
            alike((uint64_t)i, s);
            CHECK_EQ(ksllm_token_find(x.m, s, 16),
                     i < TOK_ALIKE ? first + i : -1);
        }
        close_vocab(&x);
    }
}

/* 24 bytes with this hash, of which the last 16 are always the same. */
static void hashed(uint64_t hash, char *s)
{
    const uint64_t before = UINT64_C(0x6867666564636261), last = before + 8;
    uint64_t h = hash ^ hash >> 29 ^ hash >> 58;
    h *= inverse_of(UINT64_C(0xe7037ed1a0b428db));
    h ^= h >> 32;
    h ^= (last ^ UINT64_C(0xa0761d6478bd642f)) * UINT64_C(0x9e3779b97f4a7c15);
    uint64_t g = (before ^ UINT64_C(24) << 56) * UINT64_C(0xd6e8feb86659fd93);
    uint64_t first = (h << 32 | h >> 32)
        * inverse_of(UINT64_C(0x9fb21c651e98df25)) - (g ^ g >> 31);
    memcpy(s, &first, 8);
    memcpy(s + 8, &before, 8);
    memcpy(s + 16, &last, 8);
}

/* Texts with one place in the table, as many as a look-up goes past. Those it
 * looks for and does not find have the hash of one of them but for the place,
 * and its last 16 bytes. */
TEST(texts_with_one_place)
{
    char s[24];
    hashed(UINT64_C(0x123456789abcdef0), s);
    CHECK_HEX(tok_key_of((u8 *)s, 24).hash, UINT64_C(0x123456789abcdef0));
    for (int more = 0; more < 2; more++) {
        vocab v = vocab_of("gpt2", "gpt-2");
        for (uint64_t i = 0; i < TOK_CHAIN_MAX + (uint64_t)more; i++) {
            hashed((i + 1) << TOK_ID_BITS | 5, s);
            fx_vocab_add_n(&v.v, s, 24, FX_NORMAL);
        }
        for (int i = 0; more && i < 100; i++) {
            sprintf(s, "%d", i);
            fx_vocab_add(&v.v, s, FX_NORMAL);
        }
        if (more) {
            check_refused(&v, NULL, KSLLM_ERR_FORMAT, "collide");
            continue;
        }
        opened x = open_good(&v);
        for (uint64_t i = 0; i < TOK_CHAIN_MAX; i++) {
            hashed((i + 1) << TOK_ID_BITS | 5, s);
            CHECK_EQ(ksllm_token_find(x.m, s, 24), i);
            hashed((i + 1) << TOK_ID_BITS | 6, s);
            CHECK_EQ(ksllm_token_find(x.m, s, 24), -1);
        }
        hashed((uint64_t)7777 << TOK_ID_BITS | 5, s);
        CHECK_EQ(ksllm_token_find(x.m, s, 24), -1);
        close_vocab(&x);
    }
}

/* Numbers of three digits, tokens from FIRST on, as the only sides of merges. */
enum { FIRST = FX_BPE_SIZE, SIDE = 700 };

static void only_numbers(vocab *v)
{
    char s[8];
    v->v.merges.size = v->v.n_merges = 0;
    for (int i = 0; i < SIDE; i++) {
        sprintf(s, "%03d", i);
        fx_vocab_add(&v->v, s, FX_NORMAL);
    }
}

/* The i-th pair of them: how it is hashed, and its merge with its token. */
static uint64_t hash_of_pair(int i)
{
    return tok_merge_hash(FIRST + (u32)i / SIDE, FIRST + (u32)i % SIDE);
}

static void join_numbers(vocab *v, int i)
{
    char s[32];
    sprintf(s, "%03d %03d", i / SIDE, i % SIDE);
    merge_of(&v->v, s);
    sprintf(s, "%03d%03d", i / SIDE, i % SIDE);
    fx_vocab_add(&v->v, s, FX_NORMAL);
}

/* Pairs with one place and different tags. */
TEST(merges_with_one_place)
{
    tokenizer table = {.merge_mask = 511};
    for (int more = 0; more < 2; more++) {
        vocab v = bpe_vocab("gpt-2");
        int n = 0, last = 0;
        only_numbers(&v);
        for (int i = 0; i < SIDE * SIDE && n < TOK_CHAIN_MAX + 1; i++) {
            uint64_t h = hash_of_pair(i);
            if (tok_merge_slot(&table, h) != 3)
                continue;
            last = i;
            if (n++ == TOK_CHAIN_MAX && !more)
                break;
            join_numbers(&v, i);
        }
        CHECK_EQ(n, TOK_CHAIN_MAX + 1);
        if (more) {
            check_refused(&v, NULL, KSLLM_ERR_FORMAT, "collide");
            continue;
        }
        opened x = open_good(&v);
        CHECK_EQ(x.m->tok.merge_mask, 511);
        for (u32 rank = 0; rank < TOK_CHAIN_MAX; rank++) {
            const tok_merge *m = &x.m->tok.merges[rank];
            CHECK_EQ(tok_rank(&x.m->tok, m->left, m->right), rank);
        }
        CHECK_EQ(tok_rank(&x.m->tok, FIRST + (u32)last / SIDE,
                          FIRST + (u32)last % SIDE), TOK_NONE);
        close_vocab(&x);
    }
}

/* The same of merges: pairs with one place and one tag. */
TEST(merges_made_to_collide)
{
    tokenizer small = {.merge_mask = 15};
    for (int more = 0; more < 2; more++) {
        vocab v = bpe_vocab("gpt-2");
        int n = 0;
        only_numbers(&v);
        for (int i = 0; i < SIDE * SIDE && n < TOK_ALIKE + more; i++) {
            uint64_t h = hash_of_pair(i);
            if (tok_merge_tag(h) != 0 || tok_merge_slot(&small, h) != 3)
                continue;
            join_numbers(&v, i);
            n++;
        }
        CHECK_EQ(n, TOK_ALIKE + more);
        if (more) {
            check_refused(&v, NULL, KSLLM_ERR_FORMAT, "collide");
        } else {
            opened x = open_good(&v);
            close_vocab(&x);
        }
    }
}

/* Empty tokens, tokens twice, merges of what is not there: nothing breaks,
 * every id that comes out is in range. */
TEST(senseless_vocabularies)
{
    vocab v = bpe_vocab("gpt-2");
    static const char *const merges[] = {"", " ", "a", "a ", " a", "a  b",
                                         "qq zz", "a b c", "h e", "l l"};
    for (size_t i = 0; i < KS_LEN(merges); i++)
        merge_of(&v.v, merges[i]);
    fx_vocab_add(&v.v, "", FX_NORMAL);
    fx_vocab_add(&v.v, "", FX_CONTROL);
    fx_vocab_add(&v.v, "", FX_USER);
    fx_vocab_add(&v.v, "a", FX_NORMAL);
    fx_vocab_add(&v.v, "he", FX_USER);
    fx_vocab_add(&v.v, "\xff\xfe", FX_NORMAL);
    fx_vocab_add(&v.v, "<0xZZ>", FX_BYTE);
    fx_vocab_add(&v.v, "<0x41>", FX_BYTE);
    fx_vocab_add(&v.v, "odd", 77);
    int cut = (int)v.v.n;
    fx_vocab_add(&v.v, "a\xc3", FX_NORMAL);     /* half of a letter */
    char *text = malloc(TOK_TEXT_MAX + 3);
    memset(text, 'x', TOK_TEXT_MAX + 1);
    fx_vocab_add_n(&v.v, text, TOK_TEXT_MAX + 1, TOK_UNUSED);
    int n_vocab = (int)v.v.n;
    sprintf(text, "a ");                        /* longer than any token */
    memset(text + 2, '-', TOK_TEXT_MAX);
    text[TOK_TEXT_MAX + 2] = 0;
    merge_of(&v.v, text);
    opened x = open_good(&v);
    int32_t ids[64];
    ksllm_error e;
    int64_t n = ksllm_encode(x.m, "a hello \xff\xfe 안녕 <0x41>", KSLLM_NUL,
                             7, ids, 64, &e);
    CHECK(n > 0 && n < 64);
    for (int64_t i = 0; i < n; i++)
        CHECK(ids[i] >= 0 && ids[i] < n_vocab);
    check_streams(&x, n_vocab);
    CHECK_EQ(ksllm_token_find(x.m, "", 0), -1);
    char out[16];
    CHECK_EQ(ksllm_token_bytes(x.m, cut, 0, out, sizeof out), 2);
    CHECK(memcmp(out, "a\xc3", 2) == 0);
    CHECK_EQ(ksllm_token_bytes(x.m, cut + 1, 0, out, sizeof out), 0);
    memset(text, 'x', TOK_TEXT_MAX + 1);
    CHECK_EQ(ksllm_token_find(x.m, text, TOK_TEXT_MAX + 1), -1);
    free(text);
    close_vocab(&x);
}

/* What a merge makes is looked up as in a dictionary: of equal texts the last,
 * never one that is unused. Halves of every length, and two that are longer
 * together than any token. */
TEST(merges_find_their_tokens)
{
    vocab v = bpe_vocab("gpt-2");
    int first = (int)v.v.n;
    char text[TOK_TEXT_MAX + 1] = "q", merge[2 * TOK_TEXT_MAX + 8], want[16];
    fx_vocab_add(&v.v, "xy", FX_NORMAL);
    fx_vocab_add(&v.v, "xz", TOK_UNUSED);
    fx_vocab_add(&v.v, "xy", FX_NORMAL);
    merge_of(&v.v, "x y");
    merge_of(&v.v, "x z");
    for (int n = 1; n < 60; n++) {
        text[n] = (char)(n % 20 + 'b');
        fx_vocab_add(&v.v, text, FX_NORMAL);
        snprintf(merge, sizeof merge, "%.*s %c", n, text, text[n]);
        merge_of(&v.v, merge);
    }
    snprintf(merge, sizeof merge, "%.20s %.20s", text, text);
    merge_of(&v.v, merge);
    memset(text, '-', TOK_TEXT_MAX);
    fx_vocab_add_n(&v.v, text, TOK_TEXT_MAX, FX_NORMAL);
    snprintf(merge, sizeof merge, "%.*s %.*s", TOK_TEXT_MAX, text,
             TOK_TEXT_MAX, text);
    merge_of(&v.v, merge);
    opened x = open_good(&v);
    sprintf(want, "%d", first + 2);
    CHECK_STR(ids_of(&x, "xy", 0), want);
    CHECK(strchr(ids_of(&x, "xz", 0), ' ') != NULL);    /* two tokens */
    memset(text, 0, sizeof text);
    text[0] = 'q';
    for (int n = 1; n < 60; n++) {
        text[n] = (char)(n % 20 + 'b');
        sprintf(want, "%d", first + 2 + n);
        CHECK_STR(ids_of(&x, text, 0), want);
    }
    close_vocab(&x);
}

TEST(scores_that_are_no_numbers)
{
    vocab v = spm_vocab();
    uint32_t odd[] = {0x7fc00000, 0xffc00000, 0x7f800000, 0xff800000,
                      0x80000000, 0x7fffffff, 0xffffffff};
    for (size_t i = 0; i < 14; i++)
        memcpy(v.v.scores.data + 4 * (SP_FIRST + i), &odd[i % 7], 4);
    opened x = open_good(&v);
    CHECK_STR(text_of(&x, "abc aab 가나가 cba", 0, 0), "abc aab 가나가 cba");
    close_vocab(&x);
}

/* <|end|> ends Phi's turn; in Solar Open it ends a part of an answer. */
TEST(stop_tokens)
{
    vocab v = bpe_vocab("gpt-2");
    fx_vocab_add(&v.v, "<|end|>", FX_CONTROL);
    opened x = open_good(&v);
    CHECK(ksllm_token_is_stop(x.m, FX_BPE_SIZE));
    close_vocab(&x);
    v = bpe_vocab("gpt-2");
    fx_vocab_add(&v.v, "<|end|>", FX_CONTROL);
    fx_vocab_add(&v.v, "<|flush|>", FX_CONTROL);
    fx_vocab_add(&v.v, "</s>", FX_USER);
    x = open_good(&v);
    CHECK(!ksllm_token_is_stop(x.m, FX_BPE_SIZE));
    CHECK(ksllm_token_is_stop(x.m, FX_BPE_SIZE + 1));
    CHECK(!ksllm_token_is_stop(x.m, FX_BPE_SIZE + 2));
    close_vocab(&x);
    v = bpe_vocab("gpt-2");
    fx_vocab_add(&v.v, "<|end|>", FX_CONTROL);
    fx_vocab_add(&v.v, "<|return|>", FX_USER);
    fx_vocab_add(&v.v, "</s>", FX_CONTROL);
    fx_vocab_add(&v.v, "<eos>", FX_NORMAL);
    x = open_good(&v);
    CHECK(!ksllm_token_is_stop(x.m, FX_BPE_SIZE));
    CHECK(ksllm_token_is_stop(x.m, FX_BPE_SIZE + 1));
    CHECK(ksllm_token_is_stop(x.m, FX_BPE_SIZE + 2));
    CHECK(!ksllm_token_is_stop(x.m, FX_BPE_SIZE + 3));
    close_vocab(&x);
}

TEST_MAIN
