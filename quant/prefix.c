/* prefix.c, part of ksllm-quant.c - the state after a system prompt, as a file
 * that a phone or a car starts with.
 *
 * What all conversations share is found, not guessed: the template is rendered
 * twice, with two different messages after the given ones, and the tokens that
 * both have in common are evaluated. So it ends where the user's text begins,
 * whatever the template puts there. */

typedef struct {
    const char *model, *prompt, *out;
    ksllm_type kv;
    bool text, quiet;
} pf_options;

/* The members of the prompt's file as they stand there. */
typedef struct {
    str messages, tools, variables;
} pf_prompt;

/* The text of the value that comes next in r. */
static str pf_value(const char *path, json_reader *r) {
    str text;
    u32 depth = 0;
    const u8 *begin = NULL;
    do {
        json_token t = json_next(r, &text);
        if (t == JSON_T_END) die("%s: %s", path, r->why ? r->why : "no JSON");
        if (!begin) begin = r->at;
        if (t == JSON_T_LIST || t == JSON_T_OBJECT) depth++;
        if (t == JSON_T_CLOSE) depth--;
    } while (depth);
    return (str){(const char *)begin, (size_t)(r->p - begin)};
}

static pf_prompt pf_read(const char *path, str file) {
    static const char *const names[] = {"messages", "tools", "variables"};
    pf_prompt p = {{0}, {0}, {0}};
    str *to[] = {&p.messages, &p.tools, &p.variables}, key;
    js_reader check;
    if (file.n >= 3 && !memcmp(file.p, "\xef\xbb\xbf", 3))
        file.p += 3, file.n -= 3;
    const js *all = js_parse(&check, path, (const u8 *)file.p, file.n);
    if (!all) die("%s: %s", path, check.why);
    json_reader r = json_begin_reader(file);
    if (all->kind == JS_ARR) {
        p.messages = file;
    } else if (all->kind == JS_OBJ) {
        json_next(&r, &key);
        while (json_next(&r, &key) == JSON_T_KEY) {
            size_t i = 0;
            while (i < 3 && !str_eq(key, str_of(names[i]))) i++;
            if (i == 3)
                die("%s: '%.*s' is none of messages, tools and variables",
                    path, STR(key));
            *to[i] = pf_value(path, &r);
        }
    }
    if (!p.messages.p)
        die("%s: neither an array of messages nor an object that has them",
            path);
    js_free(&check);
    return p;
}

/* The messages and one more, of whoever's turn it is. */
static str pf_with(const char *path, str messages, const char *content) {
    js_reader r;
    const js *all = js_parse(&r, path, (const u8 *)messages.p, messages.n);
    if (!all || all->kind != JS_ARR) die("%s: messages is no array", path);
    const js *last = all->first;
    while (last && last->next) last = last->next;
    bool user = js_is(js_get(last, "role"), "user");
    bytes b = {0};
    while (messages.n && messages.p[messages.n - 1] != ']') messages.n--;
    bytes_put(&b, messages.p, messages.n - 1);
    char more[96];
    int n = snprintf(more, sizeof more, "%s{\"role\": \"%s\", \"content\": "
        "\"%s\"}]", last ? ", " : "", user ? "assistant" : "user", content);
    bytes_put(&b, more, (size_t)n);
    js_free(&r);
    return (str){(const char *)b.p, b.n};
}

static i32 *pf_encode(const ksllm_model *m, const pf_options *o,
    const pf_prompt *p, const char *content, size_t *n) {
    ksllm_chat chat;
    ksllm_error err;
    str messages = pf_with(o->prompt, p->messages, content);
    ksllm_chat_init(&chat);
    chat.messages = (ksllm_text){messages.p, messages.n};
    if (p->tools.p) chat.tools = (ksllm_text){p->tools.p, p->tools.n};
    if (p->variables.p)
        chat.variables = (ksllm_text){p->variables.p, p->variables.n};
    i64 k = ksllm_chat_encode(m, &chat, KSLLM_ENCODE_COMPOSE, NULL, 0, &err);
    i32 *tokens = xalloc(k > 0 ? (u64)k : 1, sizeof *tokens);
    if (k >= 0)
        k = ksllm_chat_encode(m, &chat, KSLLM_ENCODE_COMPOSE, tokens,
            (size_t)k, &err);
    if (k < 0) die("%s: %s", o->prompt, err.text);
    free((void *)(uintptr_t)messages.p);
    *n = (size_t)k;
    return tokens;
}

static i32 *pf_tokens(
    const ksllm_model *m, const pf_options *o, str file, size_t *n) {
    size_t n_other;
    if (o->text) {
        ksllm_error err;
        const u32 flags = KSLLM_ENCODE_BOS | KSLLM_ENCODE_COMPOSE;
        i64 k = ksllm_encode(m, file.p, file.n, flags, NULL, 0, &err);
        i32 *tokens = xalloc(k > 0 ? (u64)k : 1, sizeof *tokens);
        if (k >= 0)
            k = ksllm_encode(m, file.p, file.n, flags, tokens, (size_t)k, &err);
        if (k < 0) die("%s: %s", o->prompt, err.text);
        *n = (size_t)k;
        return tokens;
    }
    pf_prompt p = pf_read(o->prompt, file);
    i32 *tokens = pf_encode(m, o, &p, "a", n);
    i32 *other = pf_encode(m, o, &p, "\xea\xb0\x80", &n_other);
    size_t i = 0;
    while (i < *n && i < n_other && tokens[i] == other[i]) i++;
    *n = i;
    free(other);
    return tokens;
}

static int pf_write(void *ctx, const void *data, size_t n) {
    out_append(ctx, data, n); /* ends the program where it fails */
    return 0;
}

static void pf_progress(void *ctx, size_t n_done, size_t n_total) {
    progress *bar = ctx;
    (void)n_total;
    __atomic_store_n(&bar->done, n_done, __ATOMIC_RELAXED);
    progress_tick(bar);
}

static void pf_go(const pf_options *o) {
    ksllm_model *m;
    ksllm_session *s;
    ksllm_session_options so;
    ksllm_control control;
    ksllm_error err;
    os_file file;
    out_file out;
    size_t n;
    in_check(o->model);
    if (ksllm_model_open(o->model, NULL, &m, &err)) die("%s", err.text);
    if (!file_map(o->prompt, &file))
        die("%s: there is no such file", o->prompt);
    i32 *tokens = pf_tokens(
        m, o, (str){file.p ? (const char *)file.p : "", (size_t)file.n}, &n);
    if (!n)
        die("%s: no token of it comes before the user's text", o->prompt);
    ksllm_session_options_init(&so);
    if (n > 1u << 30) die("%s: %llu tokens are too many", o->prompt, LLU(n));
    so.n_ctx = (u32)n;
    so.n_threads = n_workers;
    so.kv_type = o->kv;
    if (ksllm_session_create(m, &so, &s, &err)) die("%s", err.text);
    out_open(&out, o->out);
    progress bar = {.quiet = o->quiet};
    progress_begin(&bar, "evaluating", n);
    ksllm_control_init(&control);
    control.on_progress = pf_progress;
    control.progress_ctx = &bar;
    if (ksllm_session_sync(s, tokens, n, &control, &err)
        || ksllm_session_save(s, 0, pf_write, &out, NULL, NULL, &err))
        die("%s", err.text);
    progress_end(&bar);
    out_finish(&out);
    if (!o->quiet)
        fprintf(stderr, "%s: %zu tokens, %.1f MB, %.1f s\n", o->out, n,
            (f64)out.at / 1e6, now_seconds() - bar.start);
    free(tokens);
    file_unmap(&file);
    ksllm_session_free(s);
    ksllm_model_close(m);
}

static const char PF_USAGE[] =
    "ksllm-quant prefix MODEL.gguf PROMPT.json -o OUT.kv\n"
    "  PROMPT.json: an array of messages, or {\"messages\": [..], \"tools\":\n"
    "  [..], \"variables\": {..}}, as ksllm_chat has them\n"
    "  --text            the prompt is plain text, without a template\n"
    "  --kv-type TYPE    of the sessions that will load it: q8_0 (default),\n"
    "                    f16 or f32\n"
    "  --threads N\n"
    "  --quiet\n";

static int pf_main(int argc, char **argv) {
    pf_options o = {.kv = KSLLM_TYPE_Q8_0};
    args a = {argc, 1, argv};
    const char *v;
    while (a.at < argc) {
        if (arg_threads(&a)) continue;
        if (arg_is(&a, "-o", &v) || arg_is(&a, "--output", &v)) o.out = v;
        else if (arg_is(&a, "--text", NULL)) o.text = true;
        else if (arg_is(&a, "--quiet", NULL)) o.quiet = true;
        else if (arg_is(&a, "--kv-type", &v)) o.kv = type_by_name(v);
        else if (arg_is(&a, "--help", NULL) || arg_is(&a, "-h", NULL)) {
            fputs(PF_USAGE, stdout);
            return 0;
        } else if (argv[a.at][0] == '-' || o.prompt) arg_unknown(&a);
        else if (!o.model) o.model = argv[a.at++];
        else o.prompt = argv[a.at++];
    }
    if (!o.prompt || !o.out) die("prefix MODEL.gguf PROMPT.json -o OUT.kv");
    pf_go(&o);
    return 0;
}
