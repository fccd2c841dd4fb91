/* chat.c - a conversation in the terminal, by the model's own template.
 *
 *     cc -O2 examples/chat.c ksllm.c -lm -pthread -o chat
 *     ./chat model.gguf ["system prompt"]
 *
 * Shows: messages as JSON, made into tokens by the template in the file, so
 * that no user can forge a turn; an answer taken apart into thinking, text and
 * tool calls while it streams; a session that finds by itself what it already
 * holds, so that a turn costs its own tokens; Ctrl-C that stops the answer,
 * not the program.
 */
#define _POSIX_C_SOURCE 200809L
#include "../ksllm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ANSWER = 1000 };     /* tokens */

/* A text that grows; data is NULL while it is empty. */
typedef struct text {
    char *data;
    size_t n, cap;
} text;

static void reserve(text *t, size_t n)
{
    if (t->cap - t->n >= n)
        return;
    t->cap = 2 * t->cap + n + 256;
    t->data = realloc(t->data, t->cap);
    if (!t->data) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
}

static void put(text *t, const char *p, size_t n)
{
    reserve(t, n);
    if (n)
        memcpy(t->data + t->n, p, n);
    t->n += n;
}

static void put_z(text *t, const char *z)
{
    put(t, z, strlen(z));
}

/* As a JSON string. What is not UTF-8 becomes U+FFFD in the library. */
static void put_json(text *t, const char *p, size_t n)
{
    put_z(t, "\"");
    for (size_t i = 0; i < n; i++) {
        char code[8];
        unsigned char c = (unsigned char)p[i];
        if (c == '"' || c == '\\' || c < 0x20) {
            snprintf(code, sizeof code, "\\u%04x", c);
            put_z(t, code);
        } else {
            put(t, p + i, 1);
        }
    }
    put_z(t, "\"");
}

/* A conversation: its messages so far, "[{...},{...}" without the "]". */
typedef struct talk {
    const ksllm_model *model;
    ksllm_session *session;
    text messages, prompt, answer;
    int32_t *tokens;
    size_t n_tokens, cap;
    ksllm_splitter splitter;
    char room[8192];            /* for one tool call */
    bool thinks;                /* what was printed last */
} talk;

static void add_message(talk *t, const char *role, const char *p, size_t n)
{
    put_z(&t->messages, t->messages.n ? ",{\"role\":\"" : "[{\"role\":\"");
    put_z(&t->messages, role);
    put_z(&t->messages, "\",\"content\":");
    put_json(&t->messages, p, n);
    put_z(&t->messages, "}");
}

/* The whole conversation as text (the splitter wants its end) and tokens. */
static ksllm_status make_prompt(talk *t, ksllm_error *err)
{
    ksllm_chat chat;
    ksllm_chat_init(&chat);
    put_z(&t->messages, "]");
    chat.messages.data = t->messages.data;
    chat.messages.size = t->messages.n--;       /* the "]" goes off again */

    int64_t n = ksllm_chat_render(t->model, &chat, NULL, 0, err);
    if (n < 0)
        return (ksllm_status)n;
    t->prompt.n = 0;
    reserve(&t->prompt, (size_t)n);
    t->prompt.n = (size_t)n;
    n = ksllm_chat_render(t->model, &chat, t->prompt.data, (size_t)n, err);
    if (n >= 0)
        n = ksllm_chat_encode(t->model, &chat, KSLLM_ENCODE_COMPOSE,
                              t->tokens, t->cap, err);
    t->n_tokens = n < 0 ? 0 : (size_t)n;
    return n < 0 ? (ksllm_status)n : KSLLM_OK;
}

static ksllm_cancel cancel;

static void on_interrupt(int number)
{
    (void)number;
    ksllm_cancel_set(&cancel);
}

/* Thinking in grey, calls in brackets. Only the text is kept: templates leave
 * the thinking of earlier turns out. */
static void on_part(void *ctx, ksllm_part part, ksllm_text piece)
{
    talk *t = ctx;
    bool thinks = part == KSLLM_PART_THINKING;
    if (thinks != t->thinks)
        fputs(thinks ? "\033[90m" : "\033[0m\n", stdout);
    t->thinks = thinks;
    if (part == KSLLM_PART_TEXT)
        put(&t->answer, piece.data, piece.size);
    if (part == KSLLM_PART_CALL)
        fputs("[call ", stdout);
    if (part == KSLLM_PART_ARGUMENTS)
        putchar(' ');
    fwrite(piece.data, 1, piece.size, stdout);
    if (part == KSLLM_PART_CALL_END)
        fputs("]\n", stdout);
}

static int on_piece(void *ctx, const ksllm_piece *piece)
{
    talk *t = ctx;
    ksllm_splitter_next(&t->splitter, piece->text.data, piece->text.size, NULL);
    return fflush(stdout);
}

/* Prints the answer to the messages so far. */
static ksllm_status answer(talk *t, ksllm_result *result, ksllm_error *err)
{
    ksllm_generation want;
    ksllm_sampling sampling;
    ksllm_control control;
    ksllm_status status = make_prompt(t, err);
    if (status != KSLLM_OK)
        return status;
    if (t->n_tokens >= t->cap) {
        snprintf(err->text, sizeof err->text, "the context is full: /new");
        return KSLLM_ERR_CONTEXT;
    }
    status = ksllm_splitter_init(&t->splitter, t->model, NULL, t->prompt.data,
                                 t->prompt.n, t->room, sizeof t->room, on_part,
                                 t, err);
    if (status != KSLLM_OK)
        return status;
    ksllm_cancel_clear(&cancel);
    ksllm_control_init(&control);
    control.cancel = &cancel;
    ksllm_sampling_init(&sampling);
    sampling.temperature = 0.3f;
    sampling.top_p = 0.9f;
    sampling.repeat_penalty = 1.1f;
    ksllm_generation_init(&want);
    want.tokens = t->tokens;
    want.n_tokens = t->n_tokens;
    want.max_tokens = MAX_ANSWER;
    want.decode_flags = KSLLM_DECODE_SPECIAL;   /* the splitter's marks */
    want.on_piece = on_piece;
    want.piece_ctx = t;
    want.sampling = &sampling;
    want.control = &control;
    t->answer.n = 0;
    status = ksllm_generate(t->session, &want, result, err);
    ksllm_splitter_end(&t->splitter, NULL);
    if (t->thinks)
        fputs("\033[0m", stdout);
    t->thinks = false;
    return status;
}

/* One turn. If it fails it is forgotten, as if it had never been typed. */
static void turn(talk *t, const char *line)
{
    ksllm_result result = {.size = sizeof result};
    ksllm_error err;
    size_t before = t->messages.n;

    add_message(t, "user", line, strlen(line));
    ksllm_status status = answer(t, &result, &err);
    if (status == KSLLM_ERR_CANCELLED)
        printf(" [stopped]");
    else if (status != KSLLM_OK)
        printf("[%s: %s]", ksllm_status_name(status), err.text);
    else if (result.stop == KSLLM_STOP_LENGTH)
        printf(" [cut after %d tokens]", (int)MAX_ANSWER);
    else if (result.stop == KSLLM_STOP_CONTEXT)
        printf(" [the context is full: /new starts again]");
    putchar('\n');
    if (status == KSLLM_OK)
        printf("[%zu of %zu prompt tokens were there already]\n",
               result.n_reused, result.n_prompt);
    if (status != KSLLM_OK && result.n_generated == 0)
        t->messages.n = before;
    else
        add_message(t, "assistant", t->answer.data, t->answer.n);
}

static void converse(talk *t, const char *system)
{
    char *line = NULL;
    size_t cap = 0, begin;

    t->cap = ksllm_session_capacity(t->session);
    t->tokens = malloc(t->cap * sizeof *t->tokens);
    if (system)
        add_message(t, "system", system, strlen(system));
    begin = t->messages.n;
    for (;;) {
        printf("> ");
        fflush(stdout);
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0 && ferror(stdin)) {       /* Ctrl-C while typing */
            clearerr(stdin);
            printf("\n[Ctrl-D ends the conversation]\n");
            continue;
        }
        if (n < 0 || !t->tokens)
            break;
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "/new") == 0)
            t->messages.n = begin;
        else if (line[0] != '\0')
            turn(t, line);
    }
    putchar('\n');
    free(line);
    free(t->tokens);
    free(t->messages.data);
    free(t->prompt.data);
    free(t->answer.data);
}

int main(int argc, char **argv)
{
    static talk t;      /* 8 KiB: too much for some stacks */
    ksllm_model *model = NULL;
    ksllm_error err;
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: chat MODEL.gguf [SYSTEM PROMPT]\n");
        return 2;
    }
    /* Without SA_RESTART, so that Ctrl-C also interrupts getline. */
    struct sigaction act;
    memset(&act, 0, sizeof act);
    act.sa_handler = on_interrupt;
    sigaction(SIGINT, &act, NULL);

    bool ok = ksllm_model_open(argv[1], NULL, &model, &err) == KSLLM_OK &&
              ksllm_session_create(model, NULL, &t.session, &err) == KSLLM_OK;
    t.model = model;
    if (ok)
        converse(&t, argc == 3 ? argv[2] : NULL);
    else
        fprintf(stderr, "%s: %s\n", ksllm_status_name(err.status), err.text);
    ksllm_session_free(t.session);
    ksllm_model_close(model);
    return ok ? 0 : 1;
}
