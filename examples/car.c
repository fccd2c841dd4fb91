/* car.c - an assistant in a car: memory, pace and power cuts.
 *
 *     cc -O2 examples/car.c ksllm.c -lm -pthread -o car
 *     ./car [MODEL.gguf [STATE]]          from the top of a checkout
 *     printf '운전석 창문 좀 열어 줘\n다시 닫아 줘\n' | ./car
 *
 * Shows: everything in one static array, the working memory of a turn too, so
 * that what the linker says is what it takes; no allocation after the start; a
 * cap on tokens a second, which leaves the processor to others; a conversation
 * that SIGTERM (the ignition is off) saves and the next start goes on with, the
 * evaluated tokens included: "다시 닫아 줘" still means that window.
 */
#define _POSIX_C_SOURCE 200809L
#include "../ksllm.h"
#include "system.h"

#include <stdio.h>
#include <string.h>

#define DEMO "examples/demo-model/ksllm-demo.gguf"
enum { TEXT = 2048, TALK = 16 * TEXT, LINE = 64 };

/* ---- memory ---- */

/* The file is mapped and not in it. What a model and a grammar need follows
 * from its vocabulary: this is for the demo model. */
static _Alignas(LINE) unsigned char arena[8 << 20];
static _Alignas(LINE) unsigned char turn_memory[2 << 20];
static size_t used, most;
static bool started;        /* from here on there is no more */

/* Blocks one after the other; only the last one comes back or grows. */
static void *resize(void *ctx, void *p, size_t old_size, size_t new_size)
{
    (void)ctx;
    size_t was = (old_size + LINE - 1) / LINE * LINE;
    bool last = p && (unsigned char *)p + was == arena + used;
    if (new_size == 0) {
        used -= last ? was : 0;
        return NULL;
    }
    size_t from = last ? used - was : used;
    if (started || new_size > sizeof arena - from)
        return NULL;
    if (p && !last)
        memcpy(arena + from, p, old_size < new_size ? old_size : new_size);
    used = from + (new_size + LINE - 1) / LINE * LINE;
    most = used > most ? used : most;
    return arena + from;
}

/* ---- a turn ---- */

static char tools[1 << 14];
static char talk[TALK];     /* messages, "[{..}, {..}" without the "]" */
static char message[2 * TEXT];
static ksllm_cancel cancel;

static void off(int number)
{
    (void)number;
    ksllm_cancel_set(&cancel);
}

static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    size_t n = strlen(message);
    (void)ctx;
    if (part == KSLLM_PART_MESSAGE) {
        if (text.size < sizeof message - n) {
            memcpy(message + n, text.data, text.size);
            message[n + text.size] = '\0';
        }
        return 0;
    }
    if (part == KSLLM_PART_CALL)
        fputs("\n  ", stdout);
    fwrite(text.data, 1, text.size, stdout);
    if (part == KSLLM_PART_CALL)
        putchar(' ');
    return fflush(stdout);
}

/* `line` is shorter than TEXT / 6 bytes, so that it fits with its escapes. */
static ksllm_status turn(ksllm_session *s, const ksllm_grammar *g,
                         const char *line, ksllm_error *err)
{
    ksllm_chat chat;
    ksllm_control control;
    ksllm_generation want;
    ksllm_result result = {.size = sizeof result};
    char user[TEXT];
    size_t n = (size_t)ksllm_json_string(line, KSLLM_NUL, user, TEXT - 1);
    user[n] = '\0';
    size_t before = strlen(talk);
    if (before > TALK - 4 * TEXT)
        before = 0;
    snprintf(talk + before, sizeof talk - before,
             "%s{\"role\": \"user\", \"content\": %s}]", before ? ", " : "[",
             user);
    ksllm_chat_init(&chat);
    chat.messages.data = talk;
    chat.tools.data = tools;
    chat.memory = turn_memory;
    chat.memory_size = sizeof turn_memory;
    ksllm_control_init(&control);
    control.cancel = &cancel;
    control.budget_us = isatty(STDIN_FILENO) ? 5 * 1000000 : 0;
    control.max_tokens_per_second = 40;
    ksllm_generation_init(&want);
    want.max_tokens = 120;
    want.control = &control;
    want.grammar = g;
    message[0] = '\0';
    ksllm_status status = ksllm_chat_generate(s, &chat, &want, on_part, NULL,
                                              &result, err);
    if (status == KSLLM_ERR_CONTEXT && before) {
        talk[0] = '\0';         /* it has grown too long: begin anew */
        return turn(s, g, line, err);
    }
    putchar('\n');
    fprintf(stderr, "[%zu of %zu prompt tokens were there already]\n",
            result.n_reused, result.n_prompt);
    size_t at = strlen(talk) - 1;       /* of the "]" */
    if (status == KSLLM_OK && message[0] &&
        strlen(message) + 3 < sizeof talk - at)
        strcat(strcpy(talk + at, ", "), message);
    else
        talk[before] = '\0';            /* it has never been said */
    return status == KSLLM_ERR_CANCELLED ? KSLLM_OK : status;
}

/* ---- a state: the messages' length and text, then the session ---- */

static int write_file(void *ctx, const void *data, size_t size)
{
    return fwrite(data, 1, size, ctx) != size;
}

static int read_file(void *ctx, void *data, size_t size)
{
    return fread(data, 1, size, ctx) != size;
}

/* A state that cannot be used is none: the conversation begins anew. */
static void load(ksllm_session *s, const char *path)
{
    size_t n = 0;
    FILE *f = fopen(path, "rb");
    if (f && fscanf(f, "car %zu", &n) == 1 && fgetc(f) == '\n' &&
        n < sizeof talk && fread(talk, 1, n, f) == n) {
        talk[n] = '\0';
        ksllm_session_load(s, NULL, 0, read_file, f, NULL, NULL, NULL);
    } else {
        talk[0] = '\0';
    }
    if (f)
        fclose(f);
}

/* Whole or not at all, whenever the power goes. */
static bool save(const ksllm_session *s, const char *path)
{
    char temp[4096];
    ksllm_error err;
    if (snprintf(temp, sizeof temp, "%s.tmp", path) >= (int)sizeof temp)
        return false;
    FILE *f = fopen(temp, "wb");
    bool ok = f && fprintf(f, "car %zu\n%s", strlen(talk), talk) > 0 &&
              ksllm_session_save(s, 0, write_file, f, NULL, NULL, &err) == 0;
    if (f)
        ok = close_synced(f) && ok;
    return ok && replace_file(temp, path);
}

static bool read_tools(const char *model)
{
    char path[4096];
    const char *slash = strrchr(model, '/');
    snprintf(path, sizeof path, "%.*stools.json",
             slash ? (int)(slash - model + 1) : 0, model);
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(tools, 1, sizeof tools - 1, f) : 0;
    if (f)
        fclose(f);
    return n > 0;
}

int main(int argc, char **argv)
{
    const ksllm_allocator allocator = {resize, NULL};
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_grammar *grammar = NULL;
    ksllm_model_options options;
    ksllm_session_options plan;
    ksllm_grammar_options rules;
    ksllm_error err;
    char line[TEXT / 6];
    const char *path = argc > 1 ? argv[1] : DEMO;
    if (argc > 3 || !read_tools(path)) {
        fprintf(stderr, "usage: car [MODEL.gguf [STATE]], tools.json beside "
                "the model\n");
        return 2;
    }
    catch_signal(SIGTERM, off);
    catch_signal(SIGINT, off);

    ksllm_model_options_init(&options);
    options.allocator = &allocator;
    ksllm_grammar_options_init(&rules);
    rules.kind = KSLLM_GRAMMAR_TOOLS;
    rules.source.data = tools;
    ksllm_session_options_init(&plan);
    plan.n_ctx = 1024;
    plan.n_threads = 1;
    ksllm_status status = ksllm_model_open(path, &options, &model, &err);
    if (status == KSLLM_OK)
        status = ksllm_grammar_create(model, &rules, &grammar, &err);
    if (status == KSLLM_OK)
        status = ksllm_session_create(model, &plan, &session, &err);
    started = true;
    fprintf(stderr, "[%zu of %zu bytes]\n", most, sizeof arena);
    if (status == KSLLM_OK && argc > 2)
        load(session, argv[2]);
    while (status == KSLLM_OK && !cancel.flag &&
           fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0])
            status = turn(session, grammar, line, &err);
    }
    if (status != KSLLM_OK)
        fprintf(stderr, "%s: %s\n", ksllm_status_name(status), err.text);
    if (session && argc > 2 && !save(session, argv[2])) {
        fprintf(stderr, "%s cannot be written\n", argv[2]);
        status = KSLLM_ERR_IO;
    }
    ksllm_session_free(session);
    ksllm_grammar_free(grammar);
    ksllm_model_close(model);
    return status != KSLLM_OK;
}
