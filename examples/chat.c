/* chat.c - a conversation in the terminal, by the model's own template.
 *
 *     cc -O2 examples/chat.c ksllm.c -lm -pthread -o chat
 *     ./chat model.gguf ["system prompt"]
 *
 * Shows: one call for a turn, which gives thinking, text and tool calls apart
 * as they come and the answer as a message to append; messages that no user
 * can forge a turn with; a turn that costs its own tokens only; Ctrl-C that
 * stops the answer, not the program.
 */
#define _POSIX_C_SOURCE 200809L
#include "../ksllm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The messages so far, "[{...},{...}" without the "]". */
typedef struct talk {
    char *json;
    size_t n, cap;
    size_t n_asked;             /* of it, up to the user's last message */
    bool thinks;                /* what was printed last */
} talk;

static char *reserve(talk *t, size_t n)
{
    if (t->cap - t->n < n)
        t->json = realloc(t->json, t->cap = 2 * t->cap + n);
    if (!t->json)
        exit(1);
    return t->json + t->n;
}

static void put(talk *t, const char *p, size_t n)
{
    memcpy(reserve(t, n), p, n);
    t->n += n;
}

static void put_message(talk *t, const char *role, const char *text)
{
    size_t n = (size_t)ksllm_json_string(text, KSLLM_NUL, NULL, 0);
    char *to = reserve(t, n + 64);
    t->n += (size_t)sprintf(to, "%s{\"role\": \"%s\", \"content\": ",
                            t->n ? ", " : "[", role);
    ksllm_json_string(text, KSLLM_NUL, t->json + t->n, n);
    t->n += n;
    put(t, "}", 1);
}

/* Thinking in grey, calls in brackets; the message joins the others. */
static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    talk *t = ctx;
    if (part == KSLLM_PART_MESSAGE) {
        if (t->n == t->n_asked)
            put(t, ", ", 2);
        put(t, text.data, text.size);
        return 0;
    }
    if (t->thinks != (part == KSLLM_PART_THINKING))
        fputs(t->thinks ? "\033[0m\n" : "\033[90m", stdout);
    t->thinks = part == KSLLM_PART_THINKING;
    if (part == KSLLM_PART_CALL)
        fputs("[call ", stdout);
    fwrite(text.data, 1, text.size, stdout);
    if (part == KSLLM_PART_CALL_END)
        fputs("]\n", stdout);
    return fflush(stdout);
}

static ksllm_cancel cancel;

static void on_interrupt(int number)
{
    (void)number;
    ksllm_cancel_set(&cancel);
}

/* One turn. If nothing came of it, it is as if it had never been typed. */
static void turn(talk *t, ksllm_session *session, const char *line)
{
    ksllm_chat chat;
    ksllm_control control;
    ksllm_generation want;      /* samples as the model's file recommends */
    ksllm_result result = {.size = sizeof result};
    ksllm_error err;
    size_t before = t->n;

    put_message(t, "user", line);
    t->n_asked = t->n;
    ksllm_chat_init(&chat);
    *reserve(t, 1) = ']';
    chat.messages = (ksllm_text){t->json, t->n + 1};
    ksllm_control_init(&control);
    ksllm_cancel_clear(&cancel);
    control.cancel = &cancel;
    ksllm_generation_init(&want);
    want.max_tokens = 1000;
    want.control = &control;

    ksllm_status status = ksllm_chat_generate(session, &chat, &want, on_part,
                                              t, &result, &err);
    if (t->thinks)
        fputs("\033[0m", stdout);
    t->thinks = false;
    if (t->n == t->n_asked)
        t->n = before;
    if (status != KSLLM_OK)
        printf(" [%s: %s]", ksllm_status_name(status), err.text);
    else if (result.stop == KSLLM_STOP_LENGTH)
        printf(" [cut after %zu tokens]", result.n_generated);
    else if (result.stop == KSLLM_STOP_CONTEXT)
        printf(" [the context is full: /new starts again]");
    printf("\n[%zu of %zu prompt tokens were there already]\n",
           result.n_reused, result.n_prompt);
}

int main(int argc, char **argv)
{
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_error err;
    talk t = {0};
    char line[4096];
    if (argc < 2 || argc > 3) {
        fprintf(stderr, "usage: chat MODEL.gguf [SYSTEM PROMPT]\n");
        return 2;
    }
    /* Without SA_RESTART, so that Ctrl-C also interrupts fgets. */
    struct sigaction act = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &act, NULL);
    bool ok = ksllm_model_open(argv[1], NULL, &model, &err) == KSLLM_OK &&
              ksllm_session_create(model, NULL, &session, &err) == KSLLM_OK;
    if (!ok)
        fprintf(stderr, "%s: %s\n", ksllm_status_name(err.status), err.text);
    if (ok && argc == 3)
        put_message(&t, "system", argv[2]);
    for (size_t begin = t.n; ok;) {
        printf("> ");
        fflush(stdout);
        clearerr(stdin);
        if (!fgets(line, sizeof line, stdin) && feof(stdin))
            break;
        if (ferror(stdin)) {
            printf("\n[Ctrl-D ends the conversation]\n");
            continue;
        }
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "/new") == 0)
            t.n = begin;
        else if (line[0] != '\0')
            turn(&t, session, line);
    }
    free(t.json);
    ksllm_session_free(session);
    ksllm_model_close(model);
    return ok ? 0 : 1;
}
