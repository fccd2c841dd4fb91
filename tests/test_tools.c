/* test_tools.c - answers with tool calls: what a grammar of tools lets through,
 * in every notation, and what the splitter makes of it.
 *
 * Calls of the thirty tools of tools.h are written as the models write them,
 * must be taken token by token and must come out of the splitter as they went
 * in. Damaged, they must not be taken. Then the other way round: whatever a
 * random walk through a grammar writes, the splitter must find calls in it that
 * their schemas allow, by a judge that is written here.
 */
#include "test.h"
#include "fixture.h"
#include "json.h"
#include "tools.h"

static ksllm_error err;

/* ---- JSON as a tree ------------------------------------------------------ */

typedef struct tree {
    char kind;              /* one of {["0tfn */
    char *key, *text;       /* key; of a string, its characters; else as written */
    struct tree *child, *next;
} tree;

static char pool[1 << 22];
static size_t pooled;

static void *take(size_t n)
{
    void *p = pool + pooled;
    pooled += (n + 15) & ~(size_t)15;
    if (pooled > sizeof pool)
        abort();
    return memset(p, 0, n);
}

static size_t put_utf8(char *to, uint32_t c)
{
    if (c < 0x80)
        return to[0] = (char)c, 1;
    if (c < 0x800)
        return to[0] = (char)(0xc0 | c >> 6), to[1] = (char)(0x80 | (c & 63)),
               2;
    if (c < 0x10000)
        return to[0] = (char)(0xe0 | c >> 12),
               to[1] = (char)(0x80 | (c >> 6 & 63)),
               to[2] = (char)(0x80 | (c & 63)), 3;
    return to[0] = (char)(0xf0 | c >> 18), to[1] = (char)(0x80 | (c >> 12 & 63)),
           to[2] = (char)(0x80 | (c >> 6 & 63)), to[3] = (char)(0x80 | (c & 63)),
           4;
}

static char *read_string(const char **at)
{
    const char *p = *at + 1;
    char *out = take(strlen(p) + 1), *to = out;
    while (*p != '"') {
        static const char from[] = "\"\\/bfnrt", by[] = "\"\\/\b\f\n\r\t";
        if (*p != '\\') {
            *to++ = *p++;
        } else if (p[1] == 'u') {
            unsigned c = 0, low = 0;
            sscanf(p + 2, "%4x", &c);
            p += 6;
            if (c >> 10 == 0x36 && sscanf(p, "\\u%4x", &low) == 1) {
                c = 0x10000 + ((c & 0x3ff) << 10) + (low & 0x3ff);
                p += 6;
            }
            to += put_utf8(to, c);
        } else {
            *to++ = by[strchr(from, p[1]) - from];
            p += 2;
        }
    }
    *at = p + 1;
    return out;
}

/* Of text that is JSON. */
static tree *read_tree(const char **at)
{
    tree *t = take(sizeof *t), **last = &t->child;
    const char *p = *at + strspn(*at, " \t\r\n");
    t->kind = strchr("{[\"tfn", *p) ? *p : '0';
    if (t->kind == '"') {
        t->text = read_string(&p);
    } else if (t->kind != '{' && t->kind != '[') {
        size_t n = strcspn(p, ",]} \t\r\n");
        t->text = take(n + 1);
        memcpy(t->text, p, n);
        p += n;
    } else {
        for (p++; p += strspn(p, " \t\r\n,"), !strchr("]}", *p); ) {
            char *key = t->kind == '{' ? read_string(&p) : NULL;
            p += key ? strspn(p, " \t\r\n") + 1 : 0;
            *last = read_tree(&p);
            (*last)->key = key;
            last = &(*last)->next;
        }
        p++;
    }
    *at = p;
    return t;
}

static tree *tree_of(const char *json)
{
    return read_tree(&json);
}

static tree *get(const tree *t, const char *key)
{
    for (tree *c = t ? t->child : NULL; c; c = c->next)
        if (c->key && strcmp(c->key, key) == 0)
            return c;
    return NULL;
}

static int count(const tree *t)
{
    int n = 0;
    for (const tree *c = t->child; c; c = c->next)
        n++;
    return n;
}

static bool equal(const tree *a, const tree *b)
{
    if (a->kind != b->kind || count(a) != count(b))
        return false;
    if (a->kind == '0')
        return strtod(a->text, NULL) - strtod(b->text, NULL) == 0;
    if (a->text)
        return strcmp(a->text, b->text) == 0;
    const tree *y = b->child;
    for (const tree *x = a->child; x; x = x->next, y = y->next) {
        const tree *other = a->kind == '{' ? get(b, x->key) : y;
        if (!other || !equal(x, other))
            return false;
    }
    return true;
}

/* As Python's json.dumps writes it, without \u, or as Gemma 4 does. */
static void write_tree(char *to, const tree *t, bool marks)
{
    const char *sep = "";
    to += strlen(to);
    if (t->kind == '"' && marks) {
        sprintf(to, "<|\"|>%s<|\"|>", t->text);
        return;
    }
    if (t->kind == '"') {
        to += ksllm_json_string(t->text, strlen(t->text), to, 1000);
        *to = 0;
        return;
    }
    if (t->text) {
        strcpy(to, t->text);
        return;
    }
    sprintf(to, "%c", t->kind);
    for (const tree *c = t->child; c; c = c->next, sep = marks ? "," : ", ") {
        strcat(to, sep);
        to += strlen(to);
        if (c->key && marks) {
            to += sprintf(to, "%s:", c->key);
        } else if (c->key) {
            to += ksllm_json_string(c->key, strlen(c->key), to, 1000);
            strcpy(to, ": ");
        }
        write_tree(to, c, marks);
        to += strlen(to);
    }
    strcat(to, t->kind == '{' ? "}" : "]");
}

static const char *json_text(const tree *t)
{
    char text[8192] = "";
    write_tree(text, t, false);
    return strcpy(take(strlen(text) + 1), text);
}

/* ---- a judge -------------------------------------------------------------- */

static int characters(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += (*s & 0xc0) != 0x80;
    return n;
}

static bool has_type(const tree *v, const char *type)
{
    double x = v->kind == '0' ? strtod(v->text, NULL) : 0;
    switch (*type) {
    case 's': return v->kind == '"';
    case 'n': return type[2] == 'l' ? v->kind == 'n' : v->kind == '0';
    case 'i': return v->kind == '0' && x - (double)(int64_t)x == 0;
    case 'b': return v->kind == 't' || v->kind == 'f';
    case 'a': return v->kind == '[';
    default: return v->kind == '{';
    }
}

/* The patterns of tools.h. */
static bool has_pattern(const char *s, const char *pattern)
{
    int a = -1, b = -1, c = -1, n = 0;
    if (strncmp(pattern, "^01", 3) == 0)
        return sscanf(s, "01%1[016]-%*[0-9]-%4d%n", (char[2]){0}, &a, &n) == 2
               && !s[n];
    (void)c;
    return strlen(s) == 5 && sscanf(s, "%2d:%2d", &a, &b) == 2 && a < 30
           && b < 60;
}

static bool valid(const tree *v, const tree *schema);

static bool valid_inside(const tree *v, const tree *schema)
{
    const tree *props = get(schema, "properties"), *items = get(schema, "items");
    const tree *need = get(schema, "required"), *more =
        get(schema, "additionalProperties");
    for (const tree *r = need && v->kind == '{' ? need->child : NULL; r;
         r = r->next)
        if (!get(v, r->text))
            return false;
    for (const tree *c = v->child; c; c = c->next) {
        const tree *s = v->kind == '[' ? items : get(props, c->key);
        if (!s && v->kind == '{' && props && (!more || more->kind == 'f'))
            return false;
        if (s && !valid(c, s))
            return false;
        for (const tree *d = c->next; d && c->key; d = d->next)
            if (strcmp(d->key, c->key) == 0)
                return false;
    }
    return true;
}

static bool valid(const tree *v, const tree *schema)
{
    const tree *type = get(schema, "type"), *list = get(schema, "enum");
    const tree *only = get(schema, "const"), *pattern = get(schema, "pattern");
    bool found = !type || (type->text && has_type(v, type->text));
    for (const tree *c = type ? type->child : NULL; c; c = c->next)
        found = found || has_type(v, c->text);
    if (!found || (only && !equal(only, v)))
        return false;
    found = !list;
    for (const tree *c = list ? list->child : NULL; c; c = c->next)
        found = found || equal(c, v);
    if (!found || (pattern && v->kind == '"'
                   && !has_pattern(v->text, pattern->text)))
        return false;
    double x = v->kind == '0' ? strtod(v->text, NULL)
        : v->kind == '"' ? characters(v->text) : count(v);
    const char *least = v->kind == '0' ? "minimum" : v->kind == '"'
        ? "minLength" : "minItems";
    const char *most = v->kind == '0' ? "maximum" : v->kind == '"'
        ? "maxLength" : "maxItems";
    const tree *l = get(schema, least), *m = get(schema, most), *e;
    if ((l && x < strtod(l->text, NULL)) || (m && x > strtod(m->text, NULL)))
        return false;
    if ((e = get(schema, "exclusiveMinimum")) && v->kind == '0'
        && x <= strtod(e->text, NULL))
        return false;
    if ((e = get(schema, "exclusiveMaximum")) && v->kind == '0'
        && x >= strtod(e->text, NULL))
        return false;
    if ((e = get(schema, "multipleOf")) && v->kind == '0'
        && (int64_t)x % (int64_t)strtod(e->text, NULL))
        return false;
    return valid_inside(v, schema);
}

static const tool_row *tool_named(const char *name)
{
    for (int i = 0; i < N_TOOLS; i++)
        if (strcmp(tool_rows[i].name, name) == 0)
            return &tool_rows[i];
    return NULL;
}

static bool is_right(const char *name, const tree *arguments)
{
    const tool_row *t = tool_named(name);
    if (!t || arguments->kind != '{')
        return false;
    return t->parameters ? valid(arguments, tree_of(t->parameters))
                         : !arguments->child;
}

/* ---- models ---------------------------------------------------------------- */

static const char *const marks[] = {
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_start>",
    "<tool_end>", "<|begin|>", "<|end|>", "<|think|>", "<|content|>",
    "<|tool_calls|>", "<|tool_call:begin|>", "<|tool_call:name|>",
    "<|tool_call:args|>", "<|tool_call:end|>", "<|calls|>", "<|flush|>",
    "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>",
    "<|tool_call_start|>", "<|tool_call_end|>", "<|tool_call>", "<tool_call|>",
    "<|\"|>", "<|channel>", "<channel|>"};
static const char *const words[] = {
    "{\"", "\": ", "\", \"", "\"}", "}}", "tool", "name", "arguments", "\n\n",
    "</", ">\n", "[{\""};

static fx_file file;
static ksllm_model *model;

/* A vocabulary of bytes and words, in which the marks are control tokens. */
static void open_model(void)
{
    ksllm_model_options o;
    fx_vocab v = {0};
    fx_gguf g;
    if (model)
        return;
    fx_vocab_bpe(&v);
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        fx_vocab_add(&v, marks[i], FX_CONTROL);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        fx_merge(&v, words[i], 1);
    fx_begin(&g);
    fx_kv_text(&g, "general.architecture", "llama");
    fx_put_lists(&g, &v, false);
    fx_kv_u32(&g, "tokenizer.ggml.eos_token_id", FX_END);
    file = fx_end(&g);
    ksllm_model_options_init(&o);
    o.vocab_only = true;
    fx_must(ksllm_model_open_memory(file.data, file.size, &o, &model, &err),
            &err);
}

static const char *all_tools(void)
{
    static char text[40000];
    for (int i = 0; i < N_TOOLS && !text[39999]; i++)
        sprintf(text + strlen(text), "%s{\"type\": \"function\", \"function\": "
                "{\"name\": \"%s\", \"description\": \"%s\"%s%s}}",
                i ? ", " : "[", tool_rows[i].name, tool_rows[i].description,
                tool_rows[i].parameters ? ", \"parameters\": " : "",
                tool_rows[i].parameters ? tool_rows[i].parameters : "");
    if (!text[39999])
        strcat(text, "]");
    text[39999] = 1;
    return text;
}

static ksllm_grammar_options options_of(const char *format, ksllm_calls calls)
{
    ksllm_grammar_options o;
    ksllm_grammar_options_init(&o);
    o.kind = KSLLM_GRAMMAR_TOOLS;
    o.format = format;
    o.calls = calls;
    o.source.data = all_tools();
    return o;
}

static ksllm_grammar *grammar_of(const char *format, ksllm_calls calls,
                                 const char *tool)
{
    ksllm_grammar_options o = options_of(format, calls);
    ksllm_grammar *g = NULL;
    open_model();
    o.tool = tool;
    CHECK_OK(ksllm_grammar_create(model, &o, &g, &err), err);
    return g;
}

static char memory[1 << 20];

static ksllm_matcher *matcher_of(const ksllm_grammar *g)
{
    ksllm_matcher *m = NULL;
    CHECK_OK(ksllm_matcher_init(g, memory, sizeof memory, &m, &err), err);
    return m;
}

typedef enum verdict { REFUSED, OPEN, WHOLE } verdict;

/* What a grammar says of an answer; `special`: marks are control tokens. */
static verdict judge(const ksllm_grammar *g, const char *text, bool special)
{
    static int32_t tokens[20000];
    ksllm_matcher *m = matcher_of(g);
    int64_t n = ksllm_encode(model, text, strlen(text),
                             special ? KSLLM_ENCODE_SPECIAL : 0, tokens, 20000,
                             &err);
    CHECK_OK(n, err);
    for (int64_t i = 0; i < n; i++) {
        bool takes = ksllm_matcher_takes(m, tokens[i]);
        if (takes != (ksllm_matcher_next(m, tokens[i]) == KSLLM_OK))
            CHECK(!"takes and next agree");
        if (!takes)
            return REFUSED;
    }
    return ksllm_matcher_may_end(m) ? WHOLE : OPEN;
}

static bool is_taken(const ksllm_grammar *g, const char *text)
{
    verdict plain = judge(g, text, false), special = judge(g, text, true);
    CHECK_EQ(plain, special);
    return plain == WHOLE && special == WHOLE;
}

/* ---- calls ------------------------------------------------------------------ */

typedef struct call {
    char name[64];
    char arguments[4000];   /* JSON */
    bool whole;
} call;

static call calls[40];      /* that came out of the splitter */
static int n_calls;
static char said[8192];     /* text between them */

static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    call *c = calls + n_calls - 1;
    (void)ctx;
    if (part == KSLLM_PART_CALL && n_calls < 40) {
        c = calls + n_calls++;
        *c = (call){0};
        snprintf(c->name, sizeof c->name, "%.*s", (int)text.size, text.data);
    } else if (part == KSLLM_PART_ARGUMENTS) {
        strncat(c->arguments, text.data,
                text.size < 3900 - strlen(c->arguments) ? text.size : 0);
    } else if (part == KSLLM_PART_CALL_END) {
        c->whole = true;
    } else if (part == KSLLM_PART_TEXT) {
        strncat(said, text.data,
                text.size < 8000 - strlen(said) ? text.size : 0);
    }
    return 0;
}

static bool split_answer(const char *format, const char *text)
{
    static char buffer[8192];
    ksllm_splitter_options o;
    ksllm_splitter s;
    ksllm_splitter_options_init(&o);
    o.format = format;
    o.buffer = buffer;
    o.buffer_size = sizeof buffer;
    o.on_part = on_part;
    n_calls = 0;
    said[0] = 0;
    CHECK_OK(ksllm_splitter_init(&s, NULL, &o, &err), err);
    CHECK_OK(ksllm_splitter_next(&s, text, strlen(text), &err), err);
    return ksllm_splitter_end(&s, &err) == KSLLM_OK;
}

/* With Python's words; no text of the tools has one of JSON's in it. */
static const char *python_text(const tree *t)
{
    static const char *const words[][2] = {
        {"true", "True"}, {"false", "False"}, {"null", "None"}};
    char *text = take(strlen(json_text(t)) + 64), *to = text;
    for (const char *p = json_text(t); *p; p++, to++) {
        *to = *p;
        for (int i = 0; i < 3; i++)
            if (strncmp(p, words[i][0], strlen(words[i][0])) == 0) {
                to = stpcpy(to, words[i][1]) - 1;
                p += strlen(words[i][0]) - 1;
                break;
            }
    }
    return text;
}

/* ---- notations --------------------------------------------------------------- */

/* Arguments in tags; "glm" with line ends or without. */
static void write_tags(char *to, const tree *args, const char *key,
                       const char *value, const char *end)
{
    for (const tree *c = args->child; c; c = c->next) {
        to += sprintf(to, "%s%s%s", key, c->key, value);
        if (c->kind == '"')
            strcpy(to, c->text);
        else
            write_tree(to, c, false);
        strcat(to, end);
        to += strlen(to);
    }
}

/* A call as the models' templates write it; `form` says which of them. */
static void write_call(char *to, const char *format, int form, const char *name,
                       const tree *args)
{
    to += strlen(to);
    if (strcmp(format, "glm") == 0) {
        to += sprintf(to, "<tool_call>%s%s", name, form ? "" : "\n");
        write_tags(to, args, "<arg_key>", form ? "</arg_key><arg_value>"
                   : "</arg_key>\n<arg_value>",
                   form ? "</arg_value>" : "</arg_value>\n");
        strcat(to, "</tool_call>");
    } else if (strcmp(format, "qwen-coder") == 0) {
        to += sprintf(to, "<tool_call>\n<function=%s>\n", name);
        write_tags(to, args, "<parameter=", ">\n", "\n</parameter>\n");
        strcat(to, "</function>\n</tool_call>");
    } else if (strcmp(format, "solar") == 0) {
        sprintf(to, "<|tool_call:begin|>a1b2c3d4e5<|tool_call:name|>%s"
                "<|tool_call:args|>%s<|tool_call:end|>", name, json_text(args));
    } else if (strcmp(format, "lfm2") == 0) {
        const char *sep = "";
        to += sprintf(to, "%s(", name);
        for (const tree *c = args->child; c; c = c->next) {
            to += sprintf(to, "%s%s=%s", sep, c->key, python_text(c));
            sep = form ? ", " : ",";
        }
        strcpy(to, ")");
    } else if (strcmp(format, "gemma4") == 0) {
        to += sprintf(to, "<|tool_call>call:%s", name);
        write_tree(to, args, true);
        strcat(to, "<tool_call|>");
    } else {
        bool plain = strcmp(format, "hcx-think") == 0;
        const char *mark = *format == 'v' ? "tool_start" : "tool_call";
        sprintf(to, "%s%s%s%s{\"name\": \"%s\", \"arguments\": %s}%s%s%s%s",
                plain ? "" : "<", plain ? "" : mark, plain ? "" : ">",
                form && !plain ? "\n" : "", name, json_text(args),
                form && !plain ? "\n" : "", plain ? "" : "<",
                plain ? "" : *format == 'v' ? "tool_end" : "/tool_call",
                plain ? "" : ">");
    }
}

static const struct notation {
    const char *format;
    const char *before, *between, *after;
    const char *said;       /* text, up to where calls begin */
} notations[] = {
    {"json", "", "\n", "", ""},
    {"glm", "", "\n", "", ""},
    {"qwen-coder", "", "\n", "", ""},
    {"vaetki", "", "\n", "", ""},
    {"hcx-think", " -> tool/function_call\n[", ", ", "]",
     "<|im_end|>\n<|im_start|>assistant"},
    {"solar", "<|tool_calls|>", "", "<|calls|>", "<|end|><|begin|>assistant"},
    {"lfm2", "<|tool_call_start|>[", ", ", "]<|tool_call_end|>", ""},
    {"gemma4", "", "", "", ""},
};
enum { N_NOTATIONS = sizeof notations / sizeof *notations };

static const char *answer_with(const struct notation *n, int form,
                               const char *name, const tree *args)
{
    static char text[16000];
    sprintf(text, "%s", n->before);
    write_call(text, n->format, form, name, args);
    strcat(text, n->after);
    return text;
}

/* ---- right calls -------------------------------------------------------------- */

/* Each tool's call is taken and comes out of the splitter as it went in. */
TEST(calls_are_taken_and_split)
{
    for (int k = 0; k < N_NOTATIONS; k++) {
        const struct notation *n = notations + k;
        ksllm_grammar *g = grammar_of(n->format, KSLLM_CALLS_REQUIRED, NULL);
        for (int i = 0; g && i < 2 * N_TOOLS; i++) {
            const tool_row *t = tool_rows + i / 2;
            pooled = 0;
            tree *args = tree_of(t->arguments);
            const char *text = answer_with(n, i % 2, t->name, args);
            CHECK(is_right(t->name, args));
            if (!CHECK(is_taken(g, text)))
                printf("    %s: %s\n", n->format, text);
            CHECK(split_answer(n->format, text));
            if (!CHECK_EQ(n_calls, 1))
                continue;
            CHECK(calls[0].whole);
            CHECK_STR(calls[0].name, t->name);
            if (!CHECK(is_json(calls[0].arguments)
                       && equal(tree_of(calls[0].arguments), args)))
                printf("    %s\n", calls[0].arguments);
        }
        ksllm_grammar_free(g);
    }
}

/* Text before calls, thinking before that, and more calls than one. */
TEST(text_thinking_and_several_calls)
{
    static const struct { const char *format, *before; } thinking[] = {
        {"json", "<think>\n음, a < b\n</think>\n\n"},
        {"glm", "<think>음</think>"}, {"qwen-coder", "<think>\n</think>"},
        {"vaetki", "<think>음</think>"},
        {"hcx-think", "/think\n음\n<|im_end|>\n<|im_start|>assistant"},
        {"solar", "<|think|>음<|end|><|begin|>assistant"},
        {"lfm2", "<think>음</think>"},
        {"gemma4", "<|channel>thought\n음, a < b\n<channel|>"}};
    for (int k = 0; k < N_NOTATIONS; k++) {
        const struct notation *n = notations + k;
        const char *text = *n->said ? k == 4 ? "\n온도를 < 22도로 할게요 "
            : "<|content|>온도를 < 22도로 할게요 " : "온도를 < 22도로 할게요 ";
        for (int mode = 0; mode < 3; mode++) {
            ksllm_grammar *g = grammar_of(n->format, (ksllm_calls)mode, NULL);
            char answer[8192];
            pooled = 0;
            snprintf(answer, sizeof answer, "%s%s", thinking[k].before, text);
            CHECK_EQ(is_taken(g, answer), mode != KSLLM_CALLS_REQUIRED);
            CHECK_EQ(is_taken(g, text), mode != KSLLM_CALLS_REQUIRED);
            CHECK(judge(g, k == 7 ? "<|channel>thought\n음" : "<think>음", false)
                  != WHOLE || k == 4 || k == 5);
            strcat(strcat(answer, n->said), n->before);
            for (int i = 0; i < 3; i++) {
                strcat(answer, i ? n->between : "");
                write_call(answer, n->format, 0, tool_rows[7 * i].name,
                           tree_of(tool_rows[7 * i].arguments));
            }
            strcat(answer, n->after);
            /* where text may end, a stop token ends the answer */
            bool plain = k == 4 && mode == KSLLM_CALLS_AUTO;
            if (!CHECK_EQ(plain ? judge(g, answer, false) == WHOLE
                          : is_taken(g, answer), mode != KSLLM_CALLS_NONE))
                printf("    %s: %s\n", n->format, answer);
            CHECK(split_answer(n->format, answer));
            CHECK_EQ(n_calls, 3);
            CHECK(strstr(said, "온도를 < 22도로") != NULL);
            for (int i = 0; i < n_calls; i++)
                CHECK(calls[i].whole && equal(tree_of(calls[i].arguments),
                      tree_of(tool_rows[7 * i].arguments)));
            ksllm_grammar_free(g);
        }
    }
}

TEST(one_named_tool)
{
    for (int k = 0; k < N_NOTATIONS; k++) {
        ksllm_grammar *g = grammar_of(notations[k].format, KSLLM_CALLS_AUTO,
                                      "light");
        CHECK(!is_taken(g, "켤게요"));
        for (int i = 0; i < N_TOOLS; i++) {
            pooled = 0;
            const char *text = answer_with(notations + k, 0, tool_rows[i].name,
                                           tree_of(tool_rows[i].arguments));
            CHECK_EQ(is_taken(g, text),
                     strcmp(tool_rows[i].name, "light") == 0);
        }
        ksllm_grammar_free(g);
    }
}

/* ---- wrong calls --------------------------------------------------------------- */

/* Changes the arguments in way number `how`; false: there is no such way. */
static bool damage(tree *args, const tree *schema, int how)
{
    const tree *props = get(schema, "properties");
    tree **last = &args->child;
    int i = 0;
    for (; *last; last = &(*last)->next, i++) {
        tree *v = *last, *s = get(props, v->key);
        if (how == 3 * i) {             /* gone */
            *last = v->next;
            return true;
        }
        if (how == 3 * i + 1) {         /* of another type */
            v->child = NULL;
            v->kind = v->kind == 'n' ? 't' : 'n';
            v->text = v->kind == 't' ? "true" : "null";
            return true;
        }
        if (how == 3 * i + 2) {         /* not in the list, or too much */
            v->text = s && get(s, "enum") && v->kind == '"' ? "창고"
                : v->kind == '0' ? "123456" : v->text;
            return true;
        }
    }
    if (how != 3 * i)
        return false;
    *last = take(sizeof **last);        /* one more */
    **last = (tree){.kind = '0', .key = "extra", .text = "1"};
    return true;
}

TEST(wrong_calls_are_refused)
{
    int refused = 0;
    for (int k = 0; k < N_NOTATIONS; k++) {
        const struct notation *n = notations + k;
        ksllm_grammar *g = grammar_of(n->format, KSLLM_CALLS_REQUIRED, NULL);
        pooled = 0;
        CHECK(!is_taken(g, answer_with(n, 0, "no_tool", tree_of("{}"))));
        CHECK(!is_taken(g, answer_with(n, 0, "ligh", tree_of("{}"))));
        for (int i = 0; i < N_TOOLS; i++) {
            const tool_row *t = tool_rows + i;
            tree *schema = tree_of(t->parameters ? t->parameters
                                   : "{\"properties\": {}}");
            for (int how = 0;; how++) {
                pooled = pooled > sizeof pool / 2 ? 0 : pooled;
                tree *args = tree_of(t->arguments);
                schema = tree_of(t->parameters ? t->parameters
                                 : "{\"properties\": {}}");
                if (!damage(args, schema, how))
                    break;
                const char *text = answer_with(n, how % 2, t->name, args);
                /* in tags a string may read "null" */
                bool is = is_right(t->name, args), tags = k == 1 || k == 2;
                if (tags && !is && how % 3 == 1)
                    continue;
                refused += !is;
                if (!CHECK_EQ(is_taken(g, text), is))
                    printf("    %s: %s\n", n->format, text);
            }
        }
        ksllm_grammar_free(g);
    }
    CHECK(refused > 6 * 2 * N_TOOLS);
}

/* Each byte of a right answer, changed or gone: what is still taken is a call
 * that the splitter finds right. */
TEST(damaged_answers)
{
    uint64_t seed = test_seed;
    for (int k = 0; k < N_NOTATIONS; k++) {
        const struct notation *n = notations + k;
        ksllm_grammar *g = grammar_of(n->format, KSLLM_CALLS_REQUIRED, NULL);
        for (int i = 0; i < 240 / TEST_ONE_OF; i++) {
            const tool_row *t = tool_rows + fx_below(&seed, N_TOOLS);
            char text[16000];
            pooled = 0;
            strcpy(text, answer_with(n, i % 2, t->name, tree_of(t->arguments)));
            size_t size = strlen(text), at = fx_below(&seed, (uint32_t)size);
            static const char other[] = "\"{}[],:<>/|\n 1-.etn\\a";
            if (i % 3)
                text[at] = other[fx_below(&seed, sizeof other - 1)];
            else
                memmove(text + at, text + at + 1, size - at);
            if (judge(g, text, i % 4 == 0) != WHOLE)
                continue;
            bool good = split_answer(n->format, text) && n_calls >= 1;
            for (int c = 0; c < n_calls; c++)
                good = good && calls[c].whole && is_json(calls[c].arguments)
                       && is_right(calls[c].name, tree_of(calls[c].arguments));
            if (!CHECK(good))
                printf("    %s: %s\n", n->format, text);
        }
        ksllm_grammar_free(g);
    }
}

/* ---- random walks ----------------------------------------------------------------- */

static int32_t drawn(ksllm_matcher *m, uint64_t *seed)
{
    size_t n, total = 0;
    const uint64_t *mask = ksllm_matcher_allowed(m, &n);
    for (size_t i = 0; i < n; i++)
        total += (size_t)__builtin_popcountll(mask[i]);
    size_t k = total ? fx_below(seed, (uint32_t)total) : 0;
    for (size_t i = 0; i < n && total; i++)
        for (int b = 0; b < 64; b++)
            if (mask[i] >> b & 1 && k-- == 0)
                return (int32_t)(64 * i + (size_t)b);
    return -1;
}

/* Tokens at random, every other one or so on the shortest way to the end. */
static bool walk(const ksllm_grammar *g, char *text, size_t cap, uint64_t *seed)
{
    static int32_t tokens[3000];
    ksllm_matcher *m = matcher_of(g);
    size_t n = 0;
    uint32_t wild = fx_below(seed, 4);
    while (n < 3000) {
        int32_t token = -1;
        bool ends = ksllm_matcher_may_end(m);
        if (ends && (ksllm_matcher_must_end(m) || fx_below(seed, 3) == 0))
            break;
        if (n > 100 || ends || fx_below(seed, 4) >= wild) {
            int64_t k = ksllm_matcher_close(m, &token, 1);
            if (!CHECK(k >= 0))
                return false;
            if (k == 0)
                break;
        } else {
            token = drawn(m, seed);
        }
        if (ends && ksllm_token_is_stop(model, token))
            break;
        if (!CHECK(token >= 0) || !CHECK(ksllm_matcher_takes(m, token))
            || !CHECK_EQ(ksllm_matcher_next(m, token), KSLLM_OK))
            return false;
        tokens[n++] = token;
    }
    int64_t size = ksllm_decode(model, tokens, n, KSLLM_DECODE_SPECIAL, text,
                                cap - 1, &err);
    CHECK_OK(size, err);
    text[size < (int64_t)cap ? size : 0] = 0;
    return CHECK(n < 3000);
}

TEST(walks_are_right_calls)
{
    uint64_t seed = test_seed;
    for (int k = 0; k < N_NOTATIONS; k++) {
        const char *format = notations[k].format;
        ksllm_grammar *g = grammar_of(format, KSLLM_CALLS_REQUIRED, NULL);
        int total = 0;
        uint32_t tools = 0;
        for (int i = 0; i < 150 / TEST_ONE_OF; i++) {
            char text[20000];
            pooled = 0;
            if (!walk(g, text, sizeof text, &seed))
                break;
            bool good = split_answer(format, text) && n_calls >= 1;
            for (int c = 0; c < n_calls; c++) {
                good = good && calls[c].whole && is_json(calls[c].arguments)
                       && is_right(calls[c].name, tree_of(calls[c].arguments));
                if (good)
                    tools |= 1u << (tool_named(calls[c].name) - tool_rows);
            }
            total += n_calls;
            if (!CHECK(good)) {
                printf("    %s: %d calls in \"", format, n_calls);
                for (const char *c = text; *c; c++)
                    printf(*c > 0 && *c < 32 ? "\\x%02x" : "%c", *c);
                printf("\"\n");
                break;
            }
        }
        CHECK(total >= 100 / TEST_ONE_OF);
        CHECK(__builtin_popcount(tools) > 10 / TEST_ONE_OF);
        ksllm_grammar_free(g);
    }
}

/* ---- a model that must call ----------------------------------------------- */

/* A small model, to be closed, with the bytes that it lies in. */
static ksllm_model *open_small(fx_file *f)
{
    static const fx_spec small = {
        "small", "llama", 1, 32, 32, 2, 1, 16, 0, KSLLM_TYPE_Q4_0, true,
        FX_ROPE_PLAIN, FX_JSON, FX_SOUND};
    ksllm_model *m = NULL;
    *f = fx_model(&small);
    fx_must(ksllm_model_open_memory(f->data, f->size, NULL, &m, &err), &err);
    return m;
}

/* Whatever part of the notation a prompt ends in, a model of random weights
 * gives right calls, whole within max_tokens. */
TEST(a_turn_of_a_chat_calls)
{
    static const struct { const char *format, *open; } rows[] = {
        {"json", "<|im_start|>assistant\n"}, {"json", "<think>\n"},
        {"json", "<think>\n\n</think>\n\n"}, {"glm", "<think>\n"},
        {"glm", "a"}, {"qwen-coder", "a"}, {"vaetki", "<think>"},
        {"vaetki", "a"}, {"solar", "<|begin|>assistant"},
        {"solar", "<|begin|>assistant<|think|>"},
        {"solar", "<|begin|>assistant<|content|>"},
        {"solar", "<|begin|>assistant<|think|><|end|><|begin|>assistant"},
        {"hcx-think", "<|im_start|>assistant"},
        {"hcx-think", "<|im_start|>assistant\n\n"},
        {"hcx-think", "<|im_start|>assistant/think\n\n"},
        {"lfm2", "a"}, {"lfm2", "<|tool_call_start|>"},
        {"gemma4", "<|channel>thought\n<channel|>"}, {"gemma4", "<|tool_call>"},
    };
    fx_file f;
    ksllm_model *m = open_small(&f);
    ksllm_session_options so = fx_small_options();
    so.n_ctx = 1024;
    ksllm_session *session = fx_create(m, &so);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ksllm_grammar_options o =
            options_of(rows[i].format, KSLLM_CALLS_REQUIRED);
        ksllm_grammar *g = NULL;
        CHECK_OK(ksllm_grammar_create(m, &o, &g, &err), err);
        for (uint64_t seed = 0; seed < 2; seed++) {
            ksllm_generation want;
            ksllm_sampling sampling;
            ksllm_result r = {.size = sizeof r};
            ksllm_chat chat;
            ksllm_chat_init(&chat);
            chat.messages.data = "[{\"role\": \"user\", \"content\": \"a\"}]";
            chat.template_text.data = rows[i].open;
            chat.format = rows[i].format;
            ksllm_sampling_init(&sampling);
            sampling.seed = seed;
            sampling.temperature = seed ? 1 : 0;
            ksllm_generation_init(&want);
            want.sampling = &sampling;
            want.grammar = g;
            want.max_tokens = 250;
            want.max_thinking = seed ? 8 : 0;
            pooled = 0;
            n_calls = 0;
            said[0] = 0;
            CHECK_OK(ksllm_chat_generate(session, &chat, &want, on_part, NULL,
                                         &r, &err), err);
            if (!CHECK(n_calls > 0))
                printf("    %s, '%s', %d: stop %d, %zu tokens: %s\n",
                       rows[i].format, rows[i].open, (int)seed, (int)r.stop,
                       r.n_generated, said);
            for (int c = 0; c < n_calls; c++)
                if (!CHECK(calls[c].whole && is_json(calls[c].arguments)
                           && is_right(calls[c].name,
                                       tree_of(calls[c].arguments))))
                    printf("    %s, '%s', %d: %s %s\n", rows[i].format,
                           rows[i].open, (int)seed, calls[c].name,
                           calls[c].arguments);
        }
        ksllm_grammar_free(g);
    }
    ksllm_session_free(session);
    ksllm_model_close(m);
    free(f.data);
}

/* A mark that is one token of the vocabulary comes as that token in a turn of
 * a chat, where marks in other answers are kept out. */
TEST(a_mark_comes_as_its_token)
{
    fx_file f;
    ksllm_model *m = open_small(&f);
    ksllm_session_options so = fx_small_options();
    so.n_ctx = 1024;
    ksllm_session *session = fx_create(m, &so);
    ksllm_grammar_options o = options_of("solar", KSLLM_CALLS_REQUIRED);
    ksllm_grammar *g = NULL;
    CHECK_OK(ksllm_grammar_create(m, &o, &g, &err), err);
    const ksllm_logit_bias likes = {
        ksllm_token_find(m, "<|tool_calls|>", 14), 1000};
    ksllm_generation want;
    ksllm_sampling sampling;
    ksllm_chat chat;
    ksllm_chat_init(&chat);
    chat.messages.data = "[{\"role\": \"user\", \"content\": \"a\"}]";
    chat.template_text.data = "<|begin|>assistant";
    chat.format = "solar";
    ksllm_sampling_init(&sampling);
    sampling.biases = &likes;
    sampling.n_biases = 1;
    ksllm_generation_init(&want);
    want.sampling = &sampling;
    want.grammar = g;
    want.max_tokens = 250;
    ksllm_result r = {.size = sizeof r};
    CHECK_OK(ksllm_chat_generate(session, &chat, &want, NULL, NULL, &r, &err),
             err);
    size_t n = 0;
    const int32_t *tokens = ksllm_session_tokens(session, &n);
    if (CHECK(likes.token >= 0 && n > r.n_prompt))
        CHECK_EQ(tokens[r.n_prompt], likes.token);
    ksllm_grammar_free(g);
    ksllm_session_free(session);
    ksllm_model_close(m);
    free(f.data);
}

/* ---- one schema, one answer -------------------------------------------------- */

static ksllm_status status_of(const char *format, const char *source,
                              ksllm_grammar_options *o, ksllm_grammar **g)
{
    ksllm_grammar_options mine = options_of(format, KSLLM_CALLS_REQUIRED);
    open_model();
    *g = NULL;
    o = o ? o : &mine;
    o->source.data = source;
    err.offset = 0;
    return ksllm_grammar_create(model, o, g, &err);
}

/* Values of an argument "v" of a tool "f" in tags: whether they are taken. */
TEST(values_in_tags)
{
    static const struct { const char *schema, *value; bool taken; } rows[] = {
        {"{\"type\": \"string\"}", "서울", true},
        {"{\"type\": \"string\"}", "", true},
        {"{\"type\": \"string\"}", " a\n<b> </arg_valu </parameter", true},
        {"{\"type\": \"string\"}", "12층", true},
        {"{\"type\": \"string\"}", "2026-11-29", true},
        {"{\"type\": \"string\"}", "010-1234", true},
        {"{\"type\": \"string\"}", "trueish", true},
        {"{\"type\": \"string\"}", "[서울] 날씨", true},
        {"{\"type\": \"string\"}", "{이름}", true},
        {"{\"type\": \"string\"}", "1.5e", true},
        {"{\"type\": \"string\"}", "\"12\"", true},
        /* these would come out as something else than a string */
        {"{\"type\": \"string\"}", "12", false},
        {"{\"type\": \"string\"}", "\"a <\\/arg_value>\"", false},
        {"{\"type\": \"string\"}", " 12\n", false},
        {"{\"type\": \"string\"}", "-1.5e3", false},
        {"{\"type\": \"string\"}", "true", false},
        {"{\"type\": \"string\"}", "null ", false},
        {"{\"type\": \"string\"}", "[1]", false},
        {"{\"type\": \"string\"}", "{\"a\": 1}", false},
        {"{\"type\": \"string\"}", "a\x01", true},
        {"{\"type\": \"string\"}", "a\xff", false},
        {"{\"type\": \"string\"}", "\"a</arg_value>\"", false},
        {"{\"type\": \"string\"}", "\"a", false},
        {"{\"type\": \"integer\"}", "12", true},
        {"{\"type\": \"integer\"}", "열둘", false},
        {"{\"type\": [\"integer\", \"string\"]}", "12", true},
        {"{\"type\": [\"integer\", \"string\"]}", "열둘", true},
        {"{\"type\": [\"integer\", \"string\"]}", "1.5", false},
        {"{}", "열둘", true}, {"{}", "[1, {}]", true},
        {"{\"type\": \"boolean\"}", "true", true},
        {"{\"type\": \"boolean\"}", "True", false},
        {"{\"enum\": [\"12\", \"열둘\", 3]}", "열둘", true},
        {"{\"enum\": [\"12\", \"열둘\", 3]}", "3", true},
        {"{\"enum\": [\"12\", \"열둘\", 3]}", "\"12\"", true},
        {"{\"enum\": [\"12\", \"열둘\", 3]}", "12", false},
        {"{\"const\": \"\\uc5f4 둘\"}", "열 둘", true},
        {"{\"const\": \"열\"}", "둘", false},
        {"{\"type\": \"string\", \"pattern\": \"^[0-9a-f]+$\"}", "12ab", true},
        {"{\"type\": \"string\", \"pattern\": \"^[0-9a-f]+$\"}", "12", false},
        {"{\"type\": \"string\", \"pattern\": \"^[0-9a-f]+$\"}", "\"12\"", true},
        {"{\"type\": \"string\", \"pattern\": \"^[0-9a-f]+$\"}", "xy", false},
        {"{\"type\": \"string\", \"pattern\": \"^a.*$\"}", "\"a</arg_value>\"",
         false},
        {"{\"type\": \"string\", \"pattern\": \"^a.*$\"}", "\"a<b\"", true},
        {"{\"type\": \"string\", \"format\": \"date\"}", "2026-11-29", true},
        {"{\"type\": \"string\", \"format\": \"date\"}", "내일", false},
        {"{\"type\": \"string\", \"format\": \"누구\"}", "내일", true},
        {"{\"type\": \"string\", \"maxLength\": 3}", "서울역", true},
        {"{\"type\": \"string\", \"maxLength\": 3}", "서울역에", false},
        {"{\"type\": \"string\", \"minLength\": 2}", "서", false},
        {"{\"type\": \"string\", \"minLength\": 2}", "서울역에", true},
        {"{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 2}", "서울",
         true},
        {"{\"type\": \"string\", \"minLength\": 2, \"maxLength\": 2}", "\"서\"",
         false},
        {"{\"type\": \"string\", \"minLength\": 2, \"pattern\": \"^a\"}", "ab",
         false},
        {"{\"type\": \"string\", \"minLength\": 2, \"pattern\": \"^a\"}",
         "\"ab\"", true},
        {"{\"anyOf\": [{\"type\": \"string\"}, {\"type\": \"null\"}]}",
         "\"a\"", true},
        {"{\"$ref\": \"#/$defs/n\"}", "-7", true},
        {"{\"$ref\": \"#/$defs/n\"}", "\"-7\"", false},
        {"{\"type\": \"object\", \"properties\": {\"a\": {}}, "
         "\"additionalProperties\": {\"type\": \"string\"}}",
         "{\"b\": \"<\", \"a\": \"/\"}", true},
        {"{\"type\": \"object\", \"properties\": {\"a\": {}}, "
         "\"additionalProperties\": {\"type\": \"string\"}}",
         "{\"b</\": \"\"}", false},
        {"{\"type\": \"object\", \"properties\": {\"a\": {}}}", "{\"b\": 1}",
         false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char source[800], text[400];
        ksllm_grammar *g;
        snprintf(source, sizeof source, "[{\"name\": \"f\", \"parameters\": "
                 "{\"$defs\": {\"n\": {\"type\": \"integer\"}}, \"properties\":"
                 " {\"v\": %s}, \"required\": [\"v\"]}}]", rows[i].schema);
        for (int k = 0; k < 2; k++) {
            const char *format = k ? "qwen-coder" : "glm";
            CHECK_OK(status_of(format, source, NULL, &g), err);
            snprintf(text, sizeof text, k ? "<tool_call>\n<function=f>\n"
                     "<parameter=v>\n%s\n</parameter>\n</function>\n"
                     "</tool_call>" : "<tool_call>f\n<arg_key>v</arg_key>\n"
                     "<arg_value>%s</arg_value>\n</tool_call>", rows[i].value);
            if (!CHECK_EQ(is_taken(g, text), rows[i].taken))
                printf("    %s: %s: %s\n", format, rows[i].schema,
                       rows[i].value);
            ksllm_grammar_free(g);
        }
    }
}

/* ---- what the source may be ------------------------------------------------- */

TEST(sources)
{
    static const struct { const char *source; ksllm_status status; int at; }
    rows[] = {
        {"[{\"name\": \"f\"}]", KSLLM_OK, 0},
        {"[{\"name\": \"\\ub0a0\\uc528\", \"parameters\": null}]", KSLLM_OK, 0},
        {"[{\"type\": \"function\", \"function\": {\"name\": \"f\", \"strict\": "
         "true, \"parameters\": {\"type\": \"object\"}}}]", KSLLM_OK, 0},
        {"", KSLLM_ERR_ARGUMENT, 0}, {"[", KSLLM_ERR_ARGUMENT, 1},
        {"{}", KSLLM_ERR_ARGUMENT, 0}, {"[]", KSLLM_ERR_ARGUMENT, -1},
        {"[1]", KSLLM_ERR_ARGUMENT, 1}, {"[{}]", KSLLM_ERR_ARGUMENT, 1},
        {"[{\"name\": 1}]", KSLLM_ERR_ARGUMENT, 1},
        {"[{\"name\": \"\"}]", KSLLM_ERR_ARGUMENT, 10},
        {"[{\"name\": \"a b\"}]", KSLLM_ERR_ARGUMENT, 10},
        {"[{\"name\": \"a<b\"}]", KSLLM_ERR_ARGUMENT, 10},
        {"[{\"name\": \"a\\u0022b\"}]", KSLLM_ERR_ARGUMENT, 10},
        {"[{\"name\": \"f\"}, {\"name\": \"\\u0066\"}]", KSLLM_ERR_ARGUMENT, 16},
        {"[{\"name\": \"f\", \"parameters\": []}]", KSLLM_ERR_ARGUMENT, 29},
        {"[{\"name\": \"f\", \"parameters\": {\"type\": \"string\"}}]",
         KSLLM_ERR_ARGUMENT, 29},
        {"[{\"name\": \"f\"}] x", KSLLM_ERR_ARGUMENT, 16},
    };
    ksllm_grammar *g;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int k = 0; k < N_NOTATIONS; k++) {
            if (!CHECK_EQ(status_of(notations[k].format, rows[i].source, NULL,
                                    &g), rows[i].status))
                printf("    %s: %s: %s\n", notations[k].format, rows[i].source,
                       err.text);
            if (rows[i].status && rows[i].at >= 0)
                CHECK_EQ(err.offset, rows[i].at);
            CHECK_EQ(g != NULL, !rows[i].status);
            ksllm_grammar_free(g);
        }
    ksllm_grammar_options o = options_of("text", KSLLM_CALLS_AUTO);
    CHECK_EQ(status_of(NULL, "[{\"name\": \"f\"}]", &o, &g),
             KSLLM_ERR_UNSUPPORTED);
    o.calls = KSLLM_CALLS_NONE;
    CHECK_OK(status_of(NULL, "[]", &o, &g), err);
    CHECK_EQ(judge(g, "<tool_call> <|im_start|", false), WHOLE);
    ksllm_grammar_free(g);
    o.format = "thought";
    CHECK_OK(status_of(NULL, "[]", &o, &g), err);
    CHECK(is_taken(g, "<thought>a</thought>b") && !is_taken(g, "<thought>a"));
    ksllm_grammar_free(g);
    o = options_of("json", KSLLM_CALLS_AUTO);
    o.tool = "g";
    CHECK_EQ(status_of(NULL, "[{\"name\": \"f\"}]", &o, &g),
             KSLLM_ERR_ARGUMENT);
    o = options_of("no such", KSLLM_CALLS_AUTO);
    CHECK_EQ(status_of(NULL, "[{\"name\": \"f\"}]", &o, &g),
             KSLLM_ERR_ARGUMENT);
}

/* Calls of one format between two marks: what is taken comes out as it was
 * meant, what has no arguments here is refused. */
typedef struct call_row { const char *text, *arguments; } call_row;

static void check_calls(const char *format, const char *source,
                        const char *before, const char *after,
                        const call_row *rows, size_t n)
{
    ksllm_grammar *g;
    CHECK_OK(status_of(format, source, NULL, &g), err);
    for (size_t i = 0; g && i < n; i++) {
        char text[400];
        snprintf(text, sizeof text, "%s%s%s", before, rows[i].text, after);
        pooled = 0;
        if (!CHECK_EQ(is_taken(g, text), rows[i].arguments != NULL))
            printf("    %s\n", text);
        if (rows[i].arguments && CHECK(split_answer(format, text))
                && CHECK_EQ(n_calls, 1)
                && !CHECK(equal(tree_of(calls[0].arguments),
                                tree_of(rows[i].arguments))))
            printf("    %s: %s\n", text, calls[0].arguments);
    }
    ksllm_grammar_free(g);
}

/* Calls as Python writes them. */
TEST(lists_of_calls)
{
    static const char source[] = "[{\"name\": \"f\", \"parameters\": {"
        "\"properties\": {\"s\": {\"type\": \"string\"}, \"b\": {\"type\": "
        "[\"boolean\", \"null\"]}, \"e\": {\"enum\": [true, \"참\", [null]]}, "
        "\"o\": {\"type\": \"object\"}}}}, {\"name\": \"g.h\"}]";
    static const call_row rows[] = {
        {"f(s=\"C:\\\\users\")", "{\"s\": \"C:\\\\users\"}"},
        {"f(s=\"a\\\"), b=\\\"\\n\")", "{\"s\": \"a\\\"), b=\\\"\\n\"}"},
        {"f(s=\"<|tool_call_\")", "{\"s\": \"<|tool_call_\"}"},
        {"f(b=True, s=\"\")", "{\"b\": true, \"s\": \"\"}"},
        {"f(b=None,e=True)", "{\"b\": null, \"e\": true}"},
        {"f(e=\"참\")", "{\"e\": \"참\"}"}, {"f(e=[None])", "{\"e\": [null]}"},
        {"f(o={\"a\": [False, {\"b\": 1e3}]})",
         "{\"o\": {\"a\": [false, {\"b\": 1e3}]}}"},
        {"f()", "{}"}, {"g.h()", "{}"},
        {"f(s=\"\\u0001\")", NULL}, {"f(s=\"<|tool_call_end|>\")", NULL},
        {"f(o={\"<|tool_call_end|>\": 1})", NULL}, {"f(b=true)", NULL},
        {"f(b=1)", NULL}, {"f(x=1)", NULL}, {"f(b=True, b=True)", NULL},
        {"f(b=True,)", NULL}, {"f(, b=True)", NULL}, {"f(s='a')", NULL},
        {"f(True)", NULL}, {"g.h(b=True)", NULL}, {"f", NULL}, {"f()g.h()", NULL},
        {"", NULL}};
    ksllm_grammar *g;
    check_calls("lfm2", source, "<|tool_call_start|>[", "]<|tool_call_end|>",
                rows, sizeof rows / sizeof *rows);
    static const char *const refused[] = {
        "[{\"name\": \"a:b\"}]", "[{\"name\": \"f\", \"parameters\": "
        "{\"properties\": {\"a(\": {}}}}]",
        "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": "
        "{\"const\": \"\\u0001\"}}}}]",
        "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": "
        "{\"const\": \"<|tool_call_end|>\"}}}}]"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        CHECK_EQ(status_of("lfm2", refused[i], NULL, &g), i < 2
                 ? KSLLM_ERR_ARGUMENT : KSLLM_ERR_UNSUPPORTED);
}

/* A value that may be anything gets as deep as the splitter reads, and no
 * deeper: a number still comes there, and what is around it closes. */
TEST(values_are_as_deep_as_the_splitter_reads)
{
    enum { MOST = 46 };     /* with the arguments and the call around it: 48 */
    static const char source[] = "[{\"name\": \"f\", \"parameters\": "
        "{\"type\": \"object\", \"properties\": {\"v\": {}}}}]";
    static const struct {
        const char *format, *before, *after, *key;
        int most;
    } rows[] = {
        {"json", "<tool_call>{\"name\":\"f\",\"arguments\":{\"v\":",
         "}}</tool_call>", "\"a\"", MOST},
        /* Its values stand alone: one level fewer is around. */
        {"glm", "<tool_call>f<arg_key>v</arg_key><arg_value>",
         "</arg_value></tool_call>", "\"a\"", MOST + 1},
        {"gemma4", "<|tool_call>call:f{v:", "}<tool_call|>", "a", MOST}};
    for (int k = 0; k < 3; k++) {
        ksllm_grammar *g;
        CHECK_OK(status_of(rows[k].format, source, NULL, &g), err);
        for (int depth = MOST - 1; g && depth < MOST + 2; depth++)
            for (int object = 0; object < 2; object++) {
                char text[1200], *to = text;
                to += sprintf(to, "%s", rows[k].before);
                for (int i = 0; i < depth; i++)
                    to += object ? sprintf(to, "{%s:", rows[k].key)
                                 : sprintf(to, "[");
                *to++ = '1';
                for (int i = 0; i < depth; i++)
                    *to++ = object ? '}' : ']';
                sprintf(to, "%s", rows[k].after);
                bool taken = is_taken(g, text);
                CHECK_EQ(taken, depth <= rows[k].most);
                if (taken)
                    CHECK(split_answer(rows[k].format, text) && n_calls == 1
                          && calls[0].whole);
            }
        ksllm_grammar_free(g);
    }
}

/* Gemma 4's: strings as they are, keys without quotes. */
TEST(calls_with_marks)
{
    static const char source[] = "[{\"name\": \"f\", \"parameters\": {"
        "\"properties\": {\"s\": {\"type\": \"string\"}, \"k\": {\"type\": "
        "\"string\", \"minLength\": 2, \"maxLength\": 3}, \"e\": {\"enum\": "
        "[true, \"참\", \"\", \"true\", 1.0, [\"가\", {\"a b\": null}]]}, "
        "\"p\": {\"type\": \"string\", \"pattern\": \"^\\\\\\\\[a-c]+$\", "
        "\"maxLength\": 3}, \"n\": {\"type\": \"string\", \"not\": {\"enum\": "
        "[\"x\\ny\"]}}, \"u\": {\"type\": \"array\", \"uniqueItems\": true, "
        "\"items\": {\"enum\": [\"불\", 1]}}, \"o\": {\"type\": \"object\"}, "
        "\"q\": {\"type\": \"object\", \"properties\": {\"a b\": {}}, "
        "\"patternProperties\": {\"^[0-9]\": {\"type\": \"number\"}}, "
        "\"additionalProperties\": {\"type\": \"string\"}}, \"1\": {}, "
        "\"true\": {}, \"\": {}}}}, {\"name\": \"g.h\"}]";
    static const call_row rows[] = {
        {"f{s:<|\"|>C:\\users \"a\"\n}, <|\"<|\"|>}",
         "{\"s\": \"C:\\\\users \\\"a\\\"\\n}, <|\\\"\"}"},
        {"f{s:<|\"|><|\"|>,e:true}", "{\"s\": \"\", \"e\": true}"},
        {"f{s:<|\"|>\x01<tool_call<|\"|>}", "{\"s\": \"\\u0001<tool_call\"}"},
        {"f{e:<|\"|>참<|\"|>}", "{\"e\": \"참\"}"},
        {"f{e:<|\"|><|\"|>}", "{\"e\": \"\"}"},
        {"f{e:<|\"|>true<|\"|>}", "{\"e\": \"true\"}"}, {"f{e:1}", "{\"e\": 1}"},
        {"f{e:[<|\"|>가<|\"|>,{<|\"|>a b<|\"|>:null}]}",
         "{\"e\": [\"가\", {\"a b\": null}]}"},
        {"f{k:<|\"|>거실<|\"|>}", "{\"k\": \"거실\"}"},
        {"f{k:<|\"|>거<|\"|>}", NULL}, {"f{k:<|\"|>거실에서<|\"|>}", NULL},
        {"f{p:<|\"|>\\ab<|\"|>}", "{\"p\": \"\\\\ab\"}"},
        {"f{p:<|\"|>\\abc<|\"|>}", NULL}, {"f{p:<|\"|>ab<|\"|>}", NULL},
        {"f{n:<|\"|>x y<|\"|>}", "{\"n\": \"x y\"}"},
        {"f{n:<|\"|>x\ny<|\"|>}", NULL},
        {"f{u:[1,<|\"|>불<|\"|>]}", "{\"u\": [1, \"불\"]}"},
        {"f{u:[<|\"|>불<|\"|>,<|\"|>불<|\"|>]}", NULL},
        {"f{o:{a:[false,{거실.b-1:1e3}]}}",
         "{\"o\": {\"a\": [false, {\"거실.b-1\": 1e3}]}}"},
        {"f{o:{1a:1,nulls:[]}}", "{\"o\": {\"1a\": 1, \"nulls\": []}}"},
        {"f{o:{null:1}}", NULL}, {"f{o:{-1.5:1}}", NULL}, {"f{o:{True:1}}", NULL},
        {"f{o:{a b:1}}", NULL}, {"f{o:{:1}}", NULL},
        {"f{q:{<|\"|>a b<|\"|>:0,1st:2,c:<|\"|>d<|\"|>}}",
         "{\"q\": {\"a b\": 0, \"1st\": 2, \"c\": \"d\"}}"},
        {"f{q:{1st:<|\"|>d<|\"|>}}", NULL}, {"f{q:{c:1}}", NULL},
        {"f{<|\"|>1<|\"|>:0,<|\"|>true<|\"|>:1,<|\"|><|\"|>:2}",
         "{\"1\": 0, \"true\": 1, \"\": 2}"},
        {"f{1:0}", NULL}, {"f{true:0}", NULL}, {"f{<|\"|>s<|\"|>:0}", NULL},
        {"f{}", "{}"}, {"g.h{}", "{}"}, {"g.h{s:1}", NULL}, {"f", NULL},
        {"f{s:\"a\"}", NULL}, {"f{s:a}", NULL}, {"f{e:True}", NULL},
        {"f{x:1}", NULL}, {"f{s:<|\"|>a<|\"|>,}", NULL}, {"f {}", NULL},
        {"f{s:<|\"|><tool_call|><|\"|>}", NULL}, {"", NULL}};
    static const char *const refused[] = {
        "[{\"name\": \"a:b\"}]", "[{\"name\": \"f\", \"parameters\": "
        "{\"properties\": {\"a\": {\"const\": \"<\\u007c\\\"|>\"}}}}]",
        "[{\"name\": \"f\", \"parameters\": {\"properties\": "
        "{\"<tool_call|>\": {}}}}]",
        "[{\"name\": \"f\", \"parameters\": {\"properties\": {\"a\": "
        "{\"pattern\": \"^(ab)*$\", \"type\": \"string\", \"minLength\": 1, "
        "\"maxLength\": 300}}}}]"};
    ksllm_grammar *g;
    check_calls("gemma4", source, "<|tool_call>call:", "<tool_call|>", rows,
                sizeof rows / sizeof *rows);
    for (size_t i = 0; i < 2 * (sizeof refused / sizeof *refused); i++) {
        ksllm_grammar_options o = options_of("gemma4", KSLLM_CALLS_AUTO);
        o.lenient = i % 2;
        CHECK_EQ(status_of("gemma4", refused[i / 2], &o, &g),
                 i / 2 ? KSLLM_ERR_UNSUPPORTED : KSLLM_ERR_ARGUMENT);
    }
    /* what no answer can have may have a mark */
    if (CHECK_OK(status_of("gemma4", "[{\"name\": \"f\", \"description\": "
                           "\"<tool_call|>\", \"parameters\": {\"title\": "
                           "\"<|\\\"|>\"}}]", NULL, &g), err))
        ksllm_grammar_free(g);
}

/* Texts of a pattern that are counted, too: none gets stuck at a limit. */
TEST(lengths_between_marks)
{
    static const struct { const char *value; int min, max; } rows[] = {
        {"\"format\": \"email\", \"maxLength\": 40", 3, 40},
        {"\"format\": \"hostname\"", 1, 253},
        {"\"pattern\": \"^[a-c가]+끝나$\", \"minLength\": 299, "
         "\"maxLength\": 300", 299, 300},
        {"\"pattern\": \"^(아니|네네네네)*$\", \"minLength\": 5, "
         "\"maxLength\": 7", 6, 6},
        {"\"not\": {\"pattern\": \"[^가]\"}, \"minLength\": 3", 3, 3000}};
    uint64_t seed = test_seed;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ksllm_grammar *g;
        char source[400], text[8192];
        snprintf(source, sizeof source, "[{\"name\": \"f\", \"parameters\": "
                 "{\"properties\": {\"a\": {\"type\": \"string\", %s}}, "
                 "\"required\": [\"a\"]}}]", rows[i].value);
        CHECK_OK(status_of("gemma4", source, NULL, &g), err);
        for (int k = 0; g && k < 4; k++) {
            pooled = 0;
            if (!walk(g, text, sizeof text, &seed)
                || !CHECK(split_answer("gemma4", text) && n_calls >= 1))
                break;
            const tree *a = get(tree_of(calls[0].arguments), "a");
            if (CHECK(a && a->kind == '"'))
                CHECK(characters(a->text) >= rows[i].min
                      && characters(a->text) <= rows[i].max);
        }
        ksllm_grammar_free(g);
    }
}

/* Keys in order, white space, and what is ignored if that is asked for. */
TEST(options)
{
    static const char source[] = "[{\"name\": \"f\", \"parameters\": {"
        "\"properties\": {\"a\": {\"type\": \"integer\"}, \"b\": {\"type\": "
        "\"integer\"}}}}]";
    static const char odd[] = "[{\"name\": \"f\", \"parameters\": {"
        "\"properties\": {\"a\": {}}, \"minProperties\": 1}}]";
    ksllm_grammar *g;
    size_t at;
    open_model();
    for (int ordered = 0; ordered < 2; ordered++) {
        ksllm_grammar_options o = options_of("json", KSLLM_CALLS_AUTO);
        o.ordered = ordered;
        o.max_space = 0;
        CHECK_OK(status_of(NULL, source, &o, &g), err);
        CHECK(is_taken(g, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":1,"
                       "\"b\":2}}</tool_call>"));
        CHECK_EQ(is_taken(g, "<tool_call>{\"name\":\"f\",\"arguments\":{\"b\":1"
                          ",\"a\":2}}</tool_call>"), !ordered);
        CHECK(!is_taken(g, "<tool_call>{\"name\": \"f\",\"arguments\":{}}"
                        "</tool_call>"));
        ksllm_grammar_free(g);
        o.format = "glm";
        CHECK_OK(status_of(NULL, source, &o, &g), err);
        CHECK(is_taken(g, "<tool_call>f<arg_key>a</arg_key><arg_value>1"
                       "</arg_value><arg_key>b</arg_key><arg_value>1"
                       "</arg_value></tool_call>"));
        CHECK_EQ(is_taken(g, "<tool_call>f<arg_key>b</arg_key><arg_value>1"
                          "</arg_value><arg_key>a</arg_key><arg_value>1"
                          "</arg_value></tool_call>"), !ordered);
        CHECK(!is_taken(g, "<tool_call>f<arg_key>a</arg_key><arg_value>1"
                        "</arg_value><arg_key>a</arg_key><arg_value>1"
                        "</arg_value></tool_call>"));
        ksllm_grammar_free(g);
    }
    CHECK_OK(status_of("json", odd, NULL, &g), err);
    CHECK(!is_taken(g, "<tool_call>{\"name\": \"f\", \"arguments\": {}}"
                    "</tool_call>"));
    ksllm_grammar_free(g);
    CHECK_EQ(status_of("glm", odd, NULL, &g), KSLLM_ERR_UNSUPPORTED);
    CHECK_EQ(err.offset, strstr(odd, "minProp") - odd);
    ksllm_grammar_options o = options_of("glm", KSLLM_CALLS_AUTO);
    o.lenient = true;
    CHECK_OK(status_of(NULL, odd, &o, &g), err);
    CHECK_EQ(ksllm_grammar_ignored(g, &at), 1);
    CHECK_EQ(at, strstr(odd, "minProp") - odd);
    ksllm_grammar_free(g);
}

/* ---- what goes wrong -------------------------------------------------------- */

/* Each allocation fails once, and nothing is lost. */
TEST(no_memory)
{
    static char source[2000];
    snprintf(source, sizeof source, "[{\"name\": \"a\", \"parameters\": %s}, "
             "{\"name\": \"b\"}, {\"name\": \"c\", \"parameters\": %s}]",
             tool_named("set_alarm")->parameters,
             tool_named("recipe")->parameters);
    open_model();
    for (int k = 0; k < N_NOTATIONS; k++)
        for (int64_t fail = 1;; fail += 1 + fail / 32) {
            ksllm_grammar_options o =
                options_of(notations[k].format, KSLLM_CALLS_AUTO);
            ksllm_grammar *g = NULL;
            fx_alloc a;
            fx_alloc_init(&a);
            a.fail_at = (long)fail;
            o.allocator = &a.allocator;
            o.source.data = source;
            ksllm_status status = ksllm_grammar_create(model, &o, &g, &err);
            if (!CHECK(status == KSLLM_OK || status == KSLLM_ERR_MEMORY))
                printf("    %s: %d %s\n", notations[k].format, status,
                       err.text);
            ksllm_grammar_free(g);
            CHECK(a.live == 0 && !a.wrong_size);
            if (status == KSLLM_OK)
                break;
        }
}

/* A source with any byte changed gives a grammar or an error, soon. */
TEST(damaged_sources)
{
    uint64_t seed = test_seed;
    char *source = strcpy(fx_memory(NULL, 1 << 16), all_tools());
    size_t size = strlen(source);
    for (int i = 0; i < 300 / TEST_ONE_OF; i++) {
        ksllm_grammar *g;
        size_t at = fx_below(&seed, (uint32_t)size);
        char was = source[at];
        static const char other[] = "\"{}[],:\\0-.x\xff";
        source[at] = other[fx_below(&seed, sizeof other - 1)];
        ksllm_status status =
            status_of(notations[i % N_NOTATIONS].format, source, NULL, &g);
        CHECK(status == KSLLM_OK || status == KSLLM_ERR_ARGUMENT
              || status == KSLLM_ERR_UNSUPPORTED || status == KSLLM_ERR_BUFFER);
        ksllm_grammar_free(g);
        source[at] = was;
    }
    free(source);
}

TEST_MAIN
