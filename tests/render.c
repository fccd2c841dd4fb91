/* render.c - renders chat templates for tests/check_templates.py.
 *
 *     render [MODEL.gguf] < records > answers
 *     render --bench TEMPLATE MESSAGES.json
 *
 * A record: u32 flags (1 generation prompt, 2 continue the final message,
 * 4 tokens instead of text, 8 parts), i64 local time, then four texts, each as
 * u32 length and bytes: template (empty: the model's), messages, tools,
 * switches.
 * With flag 8 they are the splitter's format, the prompt, the answer, nothing.
 * Its answer: i32 length and the text, or i32 count and the ids, or the
 * negative status, u32 length and the message; of parts, each begins with byte
 * 1 and one of TRCAE (text, reasoning, call, arguments, end). Numbers are of
 * this machine's byte order. --bench prints microseconds per call, best of five
 * runs.
 */
#define _POSIX_C_SOURCE 200809L
#include "../ksllm.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void *room(void *p, size_t n)
{
    p = realloc(p, n + 1);
    if (p == NULL) {
        fprintf(stderr, "render: no memory\n");
        exit(1);
    }
    return p;
}

static bool get(void *p, size_t n)
{
    return fread(p, 1, n, stdin) == n;
}

static void put(const void *p, size_t n)
{
    if (n > 0 && fwrite(p, 1, n, stdout) != n)
        exit(1);
}

static bool get_text(ksllm_text *t, char **hold)
{
    uint32_t n;
    if (!get(&n, sizeof n))
        return false;
    *hold = room(*hold, n);
    if (!get(*hold, n))
        return false;
    t->data = n > 0 ? *hold : NULL;
    t->size = n;
    return true;
}

static void fail(int64_t status, const ksllm_error *err)
{
    int32_t code = (int32_t)status;
    uint32_t n = (uint32_t)strlen(err->text);
    put(&code, sizeof code);
    put(&n, sizeof n);
    put(err->text, n);
}

static void answer(const ksllm_model *model, const ksllm_chat *chat,
                   bool tokens)
{
    static char *out;
    ksllm_error err = {KSLLM_OK, 0, ""};
    size_t item = tokens ? sizeof(int32_t) : 1;
    int64_t n = tokens ? ksllm_chat_encode(model, chat, 0, NULL, 0, &err)
                       : ksllm_chat_render(model, chat, NULL, 0, &err);
    if (n < 0) {
        fail(n, &err);
        return;
    }
    out = room(out, (size_t)n * item);
    int64_t again =
        tokens ? ksllm_chat_encode(model, chat, 0, (int32_t *)(void *)out,
                                   (size_t)n, &err)
               : ksllm_chat_render(model, chat, out, (size_t)n, &err);
    if (again != n) {
        fprintf(stderr, "render: measured %lld, wrote %lld\n", (long long)n,
                (long long)again);
        exit(1);
    }
    int32_t count = (int32_t)n;
    put(&count, sizeof count);
    put(out, (size_t)n * item);
}

typedef struct parts { char *text; size_t n; int last; } parts;

static int add_part(void *ctx, ksllm_part part, ksllm_text text)
{
    parts *p = ctx;
    p->text = room(p->text, p->n + text.size + 2);
    if ((int)part != p->last) {
        p->text[p->n++] = 1;
        p->text[p->n++] = "TRCAE"[part];
    }
    p->last = (int)part;
    memcpy(p->text + p->n, text.data, text.size);
    p->n += text.size;
    return 0;
}

static void answer_parts(const ksllm_chat *r)
{
    char format[32], buffer[4096];
    ksllm_splitter_options o;
    ksllm_splitter s;
    ksllm_error err;
    parts p = {NULL, 0, -1};
    snprintf(format, sizeof format, "%.*s", (int)r->template_text.size,
             r->template_text.data);
    ksllm_splitter_options_init(&o);
    o.format = format;
    o.prompt = r->messages;
    o.buffer = buffer;
    o.buffer_size = sizeof buffer;
    o.on_part = add_part;
    o.ctx = &p;
    ksllm_status status = ksllm_splitter_init(&s, NULL, &o, &err);
    if (!status)
        status = ksllm_splitter_next(&s, r->tools.data, r->tools.size, &err);
    if (!status)
        status = ksllm_splitter_end(&s, &err);
    if (status) {
        fail(status, &err);
    } else {
        int32_t count = (int32_t)p.n;
        put(&count, sizeof count);
        put(p.text, p.n);
    }
    free(p.text);
}

static int serve(const ksllm_model *model)
{
    static char *hold[4];
    uint32_t flags;
    while (get(&flags, sizeof flags)) {
        ksllm_chat chat;
        ksllm_chat_init(&chat);
        chat.add_generation_prompt = (flags & 1) != 0;
        chat.continue_final = (flags & 2) != 0;
        if (!get(&chat.local_time, sizeof chat.local_time)
            || !get_text(&chat.template_text, &hold[0])
            || !get_text(&chat.messages, &hold[1])
            || !get_text(&chat.tools, &hold[2])
            || !get_text(&chat.variables, &hold[3]))
            return 1;
        if (flags & 8)
            answer_parts(&chat);
        else
            answer(model, &chat, (flags & 4) != 0);
    }
    return 0;
}

static char *load(const char *path)
{
    FILE *f = fopen(path, "rb");
    size_t n = 0, got;
    char *p = NULL;
    if (f == NULL) {
        perror(path);
        exit(1);
    }
    do {
        p = room(p, n + 65536);
        got = fread(p + n, 1, 65536, f);
        n += got;
    } while (got > 0);
    p[n] = 0;
    fclose(f);
    return p;
}

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int bench(const char *template_path, const char *messages_path)
{
    ksllm_chat chat;
    ksllm_error err;
    double best = 0;
    ksllm_chat_init(&chat);
    chat.template_text.data = load(template_path);
    chat.messages.data = load(messages_path);
    for (int run = 0; run < 5; run++) {
        double start = now_us();
        for (int i = 0; i < 100; i++)
            if (ksllm_chat_render(NULL, &chat, NULL, 0, &err) < 0) {
                fprintf(stderr, "render: %s\n", err.text);
                return 1;
            }
        double us = (now_us() - start) / 100;
        best = run == 0 || us < best ? us : best;
    }
    printf("%.0f us\n", best);
    free((char *)chat.template_text.data);
    free((char *)chat.messages.data);
    return 0;
}

int main(int argc, char **argv)
{
    ksllm_model_options options;
    ksllm_model *model = NULL;
    ksllm_error err;
    if (argc == 4 && strcmp(argv[1], "--bench") == 0)
        return bench(argv[2], argv[3]);
    ksllm_model_options_init(&options);
    options.vocab_only = true;
    if (argc > 1 && ksllm_model_open(argv[1], &options, &model, &err)) {
        fprintf(stderr, "render: %s\n", err.text);
        return 2;
    }
    int status = serve(model);
    ksllm_model_close(model);
    return status;
}
