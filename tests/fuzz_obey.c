/* fuzz_obey.c - schemas, tools, choices and the rest as grammars, and a matcher
 * that draws tokens: only the public interface.
 *
 * An input: a byte for the kind and the notation of calls, one of options, one
 * from which the tokens are drawn, then the source.
 */
#include "fuzz.h"

enum { STEPS = 40, PROBES = 8 };
enum { FAIL = 1, ORDERED = 2, LENIENT = 4, SMALL = 8, COMPACT = 16 };

static const char *const words[] = {
    "{\"type\":\"object\"}", "\"type\":\"string\"", "\"type\":[\"null\",",
    "\"integer\"", "\"number\"", "\"boolean\"", "\"array\"", "\"null\"",
    "\"properties\":{", "\"required\":[", "\"additionalProperties\":",
    "\"patternProperties\":{\"^a\":", "\"propertyNames\":", "\"items\":",
    "\"prefixItems\":[", "\"minItems\":1", "\"maxItems\":2",
    "\"uniqueItems\":true", "\"minProperties\":2", "\"maxProperties\":3",
    "\"enum\":[", "\"const\":", "\"anyOf\":[", "\"oneOf\":[", "\"allOf\":[",
    "\"not\":", "\"if\":", "\"then\":", "\"else\":", "\"$ref\":\"#\"",
    "\"$ref\":\"#/$defs/a\"", "\"$defs\":{\"a\":", "\"$id\":\"http://a/b\"",
    "\"$anchor\":\"x\"", "\"minimum\":-1.5", "\"exclusiveMaximum\":10",
    "\"multipleOf\":0.5", "\"minLength\":2", "\"maxLength\":4",
    "\"pattern\":\"^[a-z]+$\"", "\"format\":\"date\"", "\"name\":\"f\"",
    "\"parameters\":{", "\"function\":{", "\"dependentRequired\":{", "true",
    "false", "{}", "[]", "\"a\"", "1e3", "-0", "{", "}", "[", "]", ",", ":",
    "\\u0041", "한글", "root ::= ", "\"a\" | ", "[0-9]{2,3}", NULL};

static const char *const formats[] = {
    "json", "glm", "qwen-coder", "vaetki", "solar", "hcx-think", "text",
    "thought", "lfm2", "gemma4"};

static ksllm_model *vocabulary(void)
{
    static ksllm_model *m;
    static fx_file f;
    if (!m)
        m = fx_open_vocab(NULL, FX_JSON, &f);
    return m;
}

/* The mask says what each token alone says. */
static void check_mask(ksllm_matcher *x, uint32_t n_vocab, uint64_t *rng)
{
    size_t n_words = 0;
    const uint64_t *mask = ksllm_matcher_allowed(x, &n_words);
    if (!mask)          /* it takes too much work, or memory */
        return;
    MUST(n_words * 64 >= n_vocab, "%zu words", n_words);
    uint8_t bits[PROBES];
    int32_t token[PROBES];
    for (int i = 0; i < PROBES; i++) {
        token[i] = (int32_t)fx_below(rng, n_vocab);
        bits[i] = mask[token[i] / 64] >> (token[i] % 64) & 1;
    }
    for (int i = 0; i < PROBES; i++)
        MUST(ksllm_matcher_takes(x, token[i]) == bits[i], "token %d",
             (int)token[i]);
}

/* Takes the tokens of the shortest end, and is at one. */
static void check_close(ksllm_matcher *x)
{
    int32_t tokens[512];
    int64_t n = ksllm_matcher_close(x, tokens, 512);
    if (n < 0 || n > 512) {
        MUST(n == KSLLM_ERR_BUFFER || n > 512, "%lld", (long long)n);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        MUST(!ksllm_matcher_may_end(x), "an end before the %lldth of %lld",
             (long long)i, (long long)n);
        ksllm_status s = ksllm_matcher_next(x, tokens[i]);
        if (s == KSLLM_ERR_BUFFER)
            return;
        MUST(s == KSLLM_OK, "token %lld of an end: %d", (long long)i, s);
    }
    MUST(ksllm_matcher_may_end(x), "no end");
}

static void draw(const ksllm_grammar *g, uint8_t options, uint64_t rng)
{
    ksllm_error e;
    ksllm_matcher *x;
    uint32_t n_vocab = fx_vocab_size(FX_JSON);
    size_t size = ksllm_matcher_bytes(g, options & SMALL ? 16384 : 0);
    uint8_t *memory = fuzz_room(size);
    ksllm_status s = ksllm_matcher_init(g, memory, size, &x, &e);
    MUST(s == KSLLM_OK || s == KSLLM_ERR_BUFFER, "init: %d", s);
    for (int i = 0; s == KSLLM_OK && i < STEPS; i++) {
        if (fx_below(&rng, 8) == 0)
            check_mask(x, n_vocab, &rng);
        int32_t token = (int32_t)fx_below(&rng, n_vocab);
        char text[8];
        size_t n = ksllm_matcher_forced(x, text, sizeof text);
        MUST(n <= sizeof text, "%zu forced", n);
        for (uint32_t k = 0; k < n_vocab && !ksllm_matcher_takes(x, token); k++)
            token = (int32_t)((uint32_t)token + 1) % (int32_t)n_vocab;
        s = ksllm_matcher_next(x, token);
        MUST(s == KSLLM_OK || s == KSLLM_ERR_BUFFER || s == KSLLM_ERR_ARGUMENT,
             "next: %d", s);
        if (ksllm_matcher_must_end(x))
            break;
    }
    if (s == KSLLM_OK)
        check_close(x);
    fuzz_free(memory, size);
}

static void one(const uint8_t *data, size_t size)
{
    if (size < 3)
        return;
    ksllm_error e;
    ksllm_grammar *g;
    ksllm_grammar_options o;
    fx_alloc a;
    const ksllm_model *m = vocabulary();
    uint8_t options = data[1];
    uint8_t *copy = fuzz_copy(data + 3, size - 3);
    double begin = fuzz_now();
    fx_alloc_init(&a);
    ksllm_grammar_options_init(&o);
    o.kind = (ksllm_grammar_kind)(data[0] % 6);
    o.format = formats[data[0] / 6 % 10];
    o.calls = (ksllm_calls)(options >> 5 & 3) % 3;
    o.ordered = options & ORDERED;
    o.lenient = options & LENIENT;
    o.max_space = options & COMPACT ? 0 : 16;
    o.max_program = options & SMALL ? 3000 : 0;
    o.source = (ksllm_text){(const char *)copy, size - 3};
    o.allocator = &a.allocator;
    if (options & FAIL)
        a.fail_at = 1 + data[2] % 67;
    ksllm_status s = ksllm_grammar_create(m, &o, &g, &e);
    if (s == KSLLM_OK) {
        draw(g, options, data[2] + 1u);
        ksllm_grammar_free(g);
    } else {
        MUST(g == NULL && e.status == s && e.text[0], "status %d", s);
        MUST(s == KSLLM_ERR_ARGUMENT || s == KSLLM_ERR_UNSUPPORTED ||
             s == KSLLM_ERR_BUFFER || (s == KSLLM_ERR_MEMORY &&
             (options & FAIL)), "%d: %s", s, e.text);
        MUST(e.offset == KSLLM_NO_OFFSET || e.offset <= size - 3,
             "byte %llu", (unsigned long long)e.offset);
    }
    MUST(!a.live && !a.n_live && !a.wrong_size, "memory");
    MUST(fuzz_now() - begin < 20, "%g s", fuzz_now() - begin);
    fuzz_free(copy, size - 3);
}

static bool seed(size_t i, fx_bytes *out)
{
    static const char schema[] =
        "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\","
        "\"minLength\":2,\"maxLength\":4},\"b\":{\"enum\":[1,\"한글\",null]},"
        "\"c\":{\"type\":\"array\",\"items\":{\"type\":\"integer\",\"minimum\":"
        "3,\"maximum\":70},\"minItems\":1,\"maxItems\":3}},\"required\":[\"a\"]}";
    static const char tools[] =
        "[{\"type\":\"function\",\"function\":{\"name\":\"move\",\"parameters\":"
        "{\"type\":\"object\",\"properties\":{\"to\":{\"type\":\"string\"},"
        "\"m\":{\"type\":\"number\"}},\"required\":[\"to\"]}}}]";
    static const char *const seeds[] = {
        schema, tools, "[\"a\",\"ab\",\"한글\"]", "[a-z]{2,4}|\\d+",
        "root ::= \"{\" [a-z]+ \"}\"",
        "{\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"anyOf\":[{\"type\":"
        "\"null\"},{\"type\":\"object\",\"properties\":{\"n\":{\"$ref\":"
        "\"#/$defs/a\"}}}]}}}",
        "{\"patternProperties\":{\"^x\":{\"type\":\"number\",\"multipleOf\":5}},"
        "\"additionalProperties\":{\"format\":\"date\",\"type\":\"string\"}}"};
    static const uint8_t kinds[] = {1, 4, 2, 3, 5, 1, 1};
    enum { N = sizeof seeds / sizeof *seeds };
    if (i >= N + 9)
        return false;
    uint8_t head[3] = {i < N ? kinds[i] : (uint8_t)(4 + 6 * (i - N + 1)),
                       (uint8_t)(i % 3 ? 0 : ORDERED), (uint8_t)(7 * i)};
    fx_put(out, head, 3);
    const char *text = i < N ? seeds[i] : tools;
    fx_put(out, text, strlen(text));
    return true;
}

static const fuzz_target fuzz = {"fuzz_obey", one, seed, NULL, words, 2000};

FUZZ_MAIN
