/* bench_draft.c - what drafts are worth.
 *
 *     bench_draft MODEL.gguf [ROUNDS [N_DRAFT [DRAFTER.gguf or - [KIND]]]]
 *
 * Answers prompts of four kinds, greedily and sampled, with drafts and without
 * in turns, on one thread: a summary, questions about a text, an object under a
 * JSON Schema, chat; or those with KIND in their names. Prints medians over ROUNDS (5): tokens a second without
 * drafts, the ratio with them, how many were tried and came true for 100 tokens.
 * Ends with 1 unless every answer is the same, token for token and in every
 * log-probability.
 */
#include "fixture.h"

enum { MOST = 31, TOKENS = 96 };

static const char article[] =
    "The city of Harbour Falls opened its new tram line on Monday. The line is "
    "14 kilometres long and connects the central station with the university "
    "hospital in the north of the city. Trams run every six minutes during the "
    "day and every fifteen minutes after nine in the evening. The mayor, Anna "
    "Lindqvist, said that the new tram line would replace about 9,000 car "
    "journeys a day. The line cost 320 million euros, which is 40 million euros "
    "more than planned, because the old bridge over the river had to be rebuilt. "
    "A second tram line from the central station to the airport is planned for "
    "2031. The transport company has bought 22 new trams for the line, each of "
    "which can carry 210 passengers. Tickets cost two euros and are also valid on "
    "buses. On the first day the trams were free, and about 60,000 people rode "
    "them between the central station and the university hospital.";

static const char schema[] =
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\","
    "\"maxLength\":30},\"length_in_kilometres\":{\"type\":\"integer\"},"
    "\"cost_in_million_euros\":{\"type\":\"integer\"},\"mayor\":{\"type\":"
    "\"string\",\"maxLength\":30},\"connects\":{\"type\":\"array\",\"items\":"
    "{\"type\":\"string\",\"maxLength\":40},\"minItems\":2,\"maxItems\":2},"
    "\"free_on_the_first_day\":{\"type\":\"boolean\"}},\"required\":[\"city\","
    "\"length_in_kilometres\",\"cost_in_million_euros\",\"mayor\",\"connects\","
    "\"free_on_the_first_day\"],\"additionalProperties\":false}";

static const struct {
    const char *name, *ask;
    bool reads, obeys;
} kinds[] = {
    {"summary", "Summarise this article in three sentences.", true, false},
    {"questions", "Which places does the new tram line connect, what did it "
     "cost, and why was it more than planned? Quote the article.", true, false},
    {"JSON", "Extract the facts of this article as JSON by this schema:", true,
     true},
    {"chat", "I have a free weekend. What could I do with my two children when "
     "it rains?", false, false},
    {"chat 2", "Tell me a short story about a robot that learns to cook.",
     false, false},
};
enum { KINDS = sizeof kinds / sizeof *kinds };

typedef struct said {
    uint64_t hash;
    double ns;
    ksllm_result r;
} said;

static int on_piece(void *ctx, const ksllm_piece *p)
{
    said *x = ctx;
    x->hash = fx_hash(x->hash, &p->token, sizeof p->token);
    if (p->logprob == p->logprob)
        x->hash = fx_hash_floats(x->hash, &p->logprob, 1);
    return 0;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, compare);
    return x[n / 2];
}

static ksllm_model *open_model(const char *path)
{
    ksllm_model *m = NULL;
    ksllm_error e;
    fx_must(ksllm_model_open(path, NULL, &m, &e), &e);
    return m;
}

static ksllm_session *session(const ksllm_model *m, size_t n_draft)
{
    ksllm_session_options o;
    ksllm_session_options_init(&o);
    o.n_ctx = 1024;
    o.n_threads = 1;
    o.n_draft = n_draft;
    return fx_create(m, &o);
}

/* The prompt of a kind, as the model's template makes it, or plain. */
static void prompt(const ksllm_model *m, int kind, char *out, size_t size)
{
    static char text[8192], json[12000], messages[13000];
    ksllm_chat c;
    ksllm_error e;
    snprintf(text, sizeof text, "%s%s%s%s%s", kinds[kind].ask,
             kinds[kind].obeys ? " " : "", kinds[kind].obeys ? schema : "",
             kinds[kind].reads ? "\n\n" : "",
             kinds[kind].reads ? article : "");
    int64_t n = ksllm_json_string(text, KSLLM_NUL, json, sizeof json);
    snprintf(messages, sizeof messages,
             "[{\"role\": \"user\", \"content\": %.*s}]", (int)n, json);
    ksllm_chat_init(&c);
    c.messages.data = messages;
    n = ksllm_chat_render(m, &c, out, size - 1, &e);
    if (n < 0)
        n = snprintf(out, size, "%s\n\nAnswer: ", text);
    out[n] = '\0';
}

static said answer(ksllm_session *s, const ksllm_generation *g)
{
    said x = {.hash = FX_HASH, .r = {.size = sizeof x.r}};
    ksllm_generation mine = *g;
    ksllm_error e;
    mine.on_piece = on_piece;
    mine.piece_ctx = &x;
    fx_must(ksllm_generate(s, &mine, &x.r, &e), &e);
    x.ns = (double)(x.r.total_ns - x.r.prompt_ns);
    return x;
}

int main(int argc, char **argv)
{
    static char text[16384];
    static double ratio[MOST], speed[MOST];
    int rounds = argc > 2 ? atoi(argv[2]) : 5, wrong = 0;
    size_t n_draft = argc > 3 ? strtoul(argv[3], NULL, 10) : 0;
    if (argc < 2 || rounds < 1 || rounds > MOST) {
        fprintf(stderr, "bench_draft MODEL.gguf [ROUNDS [N_DRAFT "
                "[DRAFTER.gguf or - [KIND]]]]\n");
        return 2;
    }
    ksllm_model *m = open_model(argv[1]), *small = NULL;
    ksllm_session *s = session(m, n_draft), *d = NULL;
    if (argc > 4 && strcmp(argv[4], "-") != 0) {
        small = open_model(argv[4]);
        d = session(small, 0);
    }
    ksllm_grammar_options o;
    ksllm_grammar *g = NULL;
    ksllm_error e;
    ksllm_grammar_options_init(&o);
    o.kind = KSLLM_GRAMMAR_SCHEMA;
    o.source.data = schema;
    fx_must(ksllm_grammar_create(m, &o, &g, &e), &e);
    printf("%-10s %-8s %9s %7s %7s %9s %6s\n", "", "", "tokens/s", "ratio",
           "tried", "came true", "tokens");
    for (int kind = 0; kind < KINDS; kind++)
        for (int sampled = 0; sampled < 2; sampled++) {
            if (argc > 5 && !strstr(kinds[kind].name, argv[5]))
                continue;
            ksllm_sampling p;
            ksllm_generation want;
            said plain = {0}, with = {0};
            size_t tried = 0, right = 0, n = 0;
            ksllm_sampling_init(&p);
            ksllm_generation_init(&want);
            p.temperature = sampled ? 0.7f : 0;
            p.top_p = 0.95f;
            prompt(m, kind, text, sizeof text);
            want.text = text;
            want.encode_flags |= KSLLM_ENCODE_SPECIAL;
            want.sampling = &p;
            want.max_tokens = TOKENS;
            want.grammar = kinds[kind].obeys ? g : NULL;
            want.drafter = d;
            for (int i = 0; i < rounds; i++) {
                p.seed = (uint64_t)i;
                for (int k = 0; k < 2; k++) {
                    want.drafts = (k + i) % 2;
                    *(want.drafts ? &with : &plain) = answer(s, &want);
                }
                wrong += plain.hash != with.hash;
                ratio[i] = plain.ns / with.ns;
                speed[i] = 1e9 * (double)plain.r.n_generated / plain.ns;
                tried += with.r.n_drafted;
                right += with.r.n_accepted;
                n += with.r.n_generated;
            }
            printf("%-10s %-8s %9.1f %7.2f %7.0f %9.0f %6zu%s\n",
                   kinds[kind].name, sampled ? "sampled" : "greedy",
                   median(speed, rounds), median(ratio, rounds),
                   100.0 * (double)tried / (double)n,
                   100.0 * (double)right / (double)n, n,
                   wrong ? "  DIFFERENT" : "");
            fflush(stdout);
        }
    ksllm_grammar_free(g);
    ksllm_session_free(s);
    ksllm_session_free(d);
    ksllm_model_close(m);
    ksllm_model_close(small);
    return wrong != 0;
}
