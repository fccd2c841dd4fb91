/* test_demo.c - the demo model on 200 utterances that it was never told.
 *
 * demo.txt has them with the true answers; examples/demo-model/evaluate.py
 * wrote it (--sample). Each is asked with the true turns before it, under the
 * grammar of its tools. How many actions are exactly right, and a sum over all
 * answers, stand in demo_golden.h: the same on every machine. `test_demo print`
 * writes that file for a new model (make demo-accept).
 */
#include "test.h"
#include "fixture.h"
#include "json.h"
#include "demo_golden.h"

/* Of 200: 97 %, as is asked of the whole test set. */
enum { LEAST = 194 };

#define MODEL "examples/demo-model/ksllm-demo.gguf"
enum { ROOM = 1 << 16 };

typedef struct answer {
    char say[2048], call[128], args[2048];
    int n_calls;
} answer;

typedef struct outcome {
    int n, right, broken;
    uint64_t hash;
} outcome;

static char tools_file[ROOM];

static bool read_text(const char *path, char *out)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(out, 1, ROOM - 1, f) : 0;
    out[n] = '\0';
    if (f)
        fclose(f);
    return n > 0 && n < ROOM - 1;
}

static void add(char *to, size_t size, ksllm_text text)
{
    size_t n = strlen(to);
    if (CHECK(text.size < size - n)) {
        memcpy(to + n, text.data, text.size);
        to[n + text.size] = '\0';
    }
}

static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    answer *a = ctx;
    if (part == KSLLM_PART_TEXT)
        add(a->say, sizeof a->say, text);
    if (part == KSLLM_PART_CALL && a->n_calls++ == 0)
        add(a->call, sizeof a->call, text);
    if (part == KSLLM_PART_ARGUMENTS && a->n_calls == 1)
        add(a->args, sizeof a->args, text);
    return 0;
}

/* The declarations of some tools: lines of tools.json, one each, in the order
 * of `names`. */
static void declare(char *names, char *out)
{
    strcpy(out, "[");
    for (char *name = strtok(names, " "); name; name = strtok(NULL, " ")) {
        char key[64];
        snprintf(key, sizeof key, "{\"name\": \"%s\"", name);
        const char *at = strstr(tools_file, key);
        if (!CHECK(at))
            continue;
        while (at[-1] != '\n')
            at--;
        strcat(out, out[1] ? ", " : "");
        strncat(out, at, strcspn(at, "\n"));
        size_t n = strlen(out);
        out[n - (out[n - 1] == ',')] = '\0';
    }
    strcat(out, "]");
}

static ksllm_status ask(ksllm_session *s, const ksllm_grammar *g,
                        const char *tools, const char *messages, answer *a)
{
    ksllm_chat chat;
    ksllm_generation want;
    ksllm_error e = {.text = ""};
    ksllm_chat_init(&chat);
    chat.messages.data = messages;
    chat.tools.data = tools;
    ksllm_generation_init(&want);
    want.max_tokens = 120;
    want.grammar = g;
    memset(a, 0, sizeof *a);
    ksllm_status status = ksllm_chat_generate(s, &chat, &want, on_part, a,
                                              NULL, &e);
    CHECK_OK(status, e);
    return status;
}

static void count(outcome *o, const answer *a, const char *tools,
                  const char *call, const char *args)
{
    char declared[160];
    snprintf(declared, sizeof declared, "{\"name\": \"%s\"", a->call);
    o->n++;
    o->right += strcmp(a->call, call) == 0 && strcmp(a->args, args) == 0;
    o->broken += a->n_calls > 1 ||
                 (a->n_calls == 1 && (!strstr(tools, declared) ||
                                      !is_json(a->args)));
    const char *parts[] = {a->say, a->call, a->args};
    for (int i = 0; i < 3; i++)
        o->hash = fx_hash(o->hash, parts[i], strlen(parts[i]) + 1);
}

/* A line is a letter, a space and a text: T the tools, which begins a
 * conversation; U what is said; S the true sentence; C the true call's name and
 * arguments, or nothing. U and S are JSON strings. */
static outcome run_sample(ksllm_model *m, ksllm_session *s)
{
    static char sample[ROOM], tools[ROOM], messages[ROOM];
    outcome o = {.hash = FX_HASH};
    ksllm_grammar *g = NULL;
    answer a = {.n_calls = 0};
    if (!CHECK(read_text("tests/demo.txt", sample)))
        return o;
    char *say = NULL;
    for (char *line = sample, *end; *line; line = end + 1) {
        char *text = line + 2;
        end = line + strcspn(line, "\n");
        *end = '\0';
        size_t n = strlen(messages);
        if (*line == 'T') {
            ksllm_grammar_options want;
            ksllm_error e;
            declare(text, tools);
            ksllm_grammar_free(g);
            ksllm_grammar_options_init(&want);
            want.kind = KSLLM_GRAMMAR_TOOLS;
            want.source.data = tools;
            CHECK_OK(ksllm_grammar_create(m, &want, &g, &e), e);
            strcpy(messages, "[");
        } else if (*line == 'U') {
            snprintf(messages + n, sizeof messages - n,
                     "{\"role\": \"user\", \"content\": %s}]", text);
            ask(s, g, tools, messages, &a);
        } else if (*line == 'S') {
            say = text;
        } else if (*line == 'C') {
            char *args = text + strcspn(text, " ");
            args += *args ? (*args = '\0', 1) : 0;
            count(&o, &a, tools, text, args);
            n -= n > 0 && messages[n - 1] == ']';
            n += (size_t)snprintf(messages + n, sizeof messages - n,
                ", {\"role\": \"assistant\", \"content\": %s", say);
            if (*text)
                n += (size_t)snprintf(messages + n, sizeof messages - n,
                    ", \"tool_calls\": [{\"type\": \"function\", \"function\": "
                    "{\"name\": \"%s\", \"arguments\": %s}}]", text, args);
            snprintf(messages + n, sizeof messages - n, "}, ");
        }
    }
    ksllm_grammar_free(g);
    return o;
}

static outcome run_all(void)
{
    ksllm_model *m = NULL;
    ksllm_session *s = NULL;
    ksllm_error e;
    ksllm_session_options options;
    outcome o = {.n = 0};
    ksllm_session_options_init(&options);
    options.n_threads = 1;
    if (CHECK(read_text("examples/demo-model/tools.json", tools_file)) &&
        CHECK_OK(ksllm_model_open(MODEL, NULL, &m, &e), e) &&
        CHECK_OK(ksllm_session_create(m, &options, &s, &e), e))
        o = run_sample(m, s);
    ksllm_session_free(s);
    ksllm_model_close(m);
    return o;
}

TEST(demo_model_golden)
{
    outcome o = run_all();
    CHECK_EQ(o.n, 200);
    CHECK_EQ(o.broken, 0);
    CHECK_EQ(o.right, DEMO_RIGHT);
    CHECK(o.right >= LEAST);
    CHECK_HEX(o.hash, DEMO_HASH);
}

int main(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "print") != 0)
        return test_main(argc, argv);
    outcome o = run_all();
    printf("/* demo_golden.h - what the demo model answers; `make demo-accept` "
           "wrote it. */\n"
           "#define DEMO_RIGHT %d      /* actions of %d, exactly */\n"
           "#define DEMO_HASH UINT64_C(0x%016" PRIx64 ")\n", o.right, o.n,
           o.hash);
    return o.n != 200 || o.broken != 0;
}
