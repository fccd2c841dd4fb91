/* chat.c - a conversation in the terminal, by the model's own template.
 *
 *     cc -O2 examples/chat.c ksllm.c -lm -pthread -o chat
 *     ./chat                       the demo model with its tools, in a checkout
 *     ./chat model.gguf ["system prompt" [tools.json]]
 *
 * Shows: one call for a turn, which gives thinking, text and tool calls apart
 * as they come and the answer as a message to append; messages that no user
 * can forge a turn with; a turn that costs its own tokens only; Ctrl-C that
 * stops the answer, not the program. With tools (an array of functions, as in
 * ksllm_chat.tools) only calls that their schemas allow can come; you play the
 * tool: what is typed after a call is its result; an empty line is none.
 */
#define _POSIX_C_SOURCE 200809L
#include "../ksllm.h"
#include "system.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEMO "examples/demo-model/"

/* The messages so far, "[{...}, {...}" without the "]". */
static char talk[1 << 20];
static size_t n_talk, n_asked;  /* of it, up to the user's last message */
static char tools[1 << 16];     /* JSON; empty: none */
static ksllm_grammar *grammar;  /* of answers with calls of them */
static bool thinks;             /* that is what was printed last */
static bool called;             /* the last answer has a call */
static ksllm_cancel cancel;

static void put(const char *p, size_t n)
{
    if (n >= sizeof talk - n_talk) {
        fprintf(stderr, "the conversation is too long\n");
        exit(1);
    }
    memmove(talk + n_talk, p, n);
    n_talk += n;
}

static void put_message(const char *role, const char *text)
{
    put(n_talk ? ", {\"role\": \"" : "[{\"role\": \"", n_talk ? 12 : 11);
    put(role, strlen(role));
    put("\", \"content\": ", 14);
    size_t room = sizeof talk - n_talk;
    size_t n = (size_t)ksllm_json_string(text, KSLLM_NUL, talk + n_talk, room);
    put(n < room ? talk + n_talk : "", n);      /* it lies there already */
    put("}", 1);
}

/* Thinking in grey, calls in brackets; the message joins the others. */
static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    (void)ctx;
    if (part == KSLLM_PART_MESSAGE) {
        if (n_talk == n_asked)
            put(", ", 2);
        put(text.data, text.size);
        return 0;
    }
    if (thinks != (part == KSLLM_PART_THINKING))
        fputs(thinks ? "\033[0m\n" : "\033[90m", stdout);
    thinks = part == KSLLM_PART_THINKING;
    if (part == KSLLM_PART_CALL)
        fputs("[call ", stdout);
    fwrite(text.data, 1, text.size, stdout);
    if (part == KSLLM_PART_CALL_END)
        called = fputs("]\n", stdout) >= 0;
    return fflush(stdout);
}

static void on_interrupt(int number)
{
    (void)number;
    ksllm_cancel_set(&cancel);
}

/* One turn. If nothing came of it, it is as if it had never been typed. */
static void turn(ksllm_session *session, const char *line)
{
    ksllm_chat chat;
    ksllm_control control;
    ksllm_generation want;      /* samples as the model's file recommends */
    ksllm_result result = {.size = sizeof result};
    ksllm_error err;
    size_t before = n_talk;

    put_message(called ? "tool" : "user", line);
    called = false;
    n_asked = n_talk;
    talk[n_talk] = ']';
    ksllm_chat_init(&chat);
    chat.messages = (ksllm_text){talk, n_talk + 1};
    if (grammar)
        chat.tools.data = tools;
    ksllm_control_init(&control);
    ksllm_cancel_clear(&cancel);
    control.cancel = &cancel;
    ksllm_generation_init(&want);
    want.max_tokens = 1000;
    want.control = &control;
    want.grammar = grammar;
    ksllm_status status = ksllm_chat_generate(session, &chat, &want, on_part,
                                              NULL, &result, &err);
    if (thinks)
        fputs("\033[0m", stdout);
    thinks = false;
    if (n_talk == n_asked)
        n_talk = before;
    if (status != KSLLM_OK)
        printf(" [%s: %s]", ksllm_status_name(status), err.text);
    else if (result.stop == KSLLM_STOP_LENGTH)
        printf(" [cut after %zu tokens]", result.n_generated);
    else if (result.stop == KSLLM_STOP_CONTEXT)
        printf(" [the context is full: start again]");
    printf("\n[%zu of %zu prompt tokens were there already]\n",
           result.n_reused, result.n_prompt);
}

/* Reads the tools and compiles what the model may say with them. */
static ksllm_status open_tools(const ksllm_model *model, const char *path,
                               ksllm_error *err)
{
    ksllm_grammar_options options;
    FILE *f = fopen(path, "rb");
    if (f) {
        tools[fread(tools, 1, sizeof tools - 1, f)] = '\0';
        fclose(f);
    }
    ksllm_grammar_options_init(&options);
    options.kind = KSLLM_GRAMMAR_TOOLS;
    options.source.data = tools;
    return ksllm_grammar_create(model, &options, &grammar, err);
}

int main(int argc, char **argv)
{
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_error err;
    char line[2048];
    if (argc > 4) {
        fprintf(stderr, "usage: chat [MODEL.gguf [SYSTEM PROMPT [TOOLS]]]\n");
        return 2;
    }
    catch_signal(SIGINT, on_interrupt);
    const char *path = argc > 1 ? argv[1] : DEMO "ksllm-demo.gguf";
    const char *declared = argc == 4 ? argv[3]
                           : argc == 1 ? DEMO "tools.json" : NULL;
    bool ok = ksllm_model_open(path, NULL, &model, &err) == KSLLM_OK &&
              ksllm_session_create(model, NULL, &session, &err) == KSLLM_OK &&
              (!declared || open_tools(model, declared, &err) == KSLLM_OK);
    if (!ok)
        fprintf(stderr, "%s: %s\n", ksllm_status_name(err.status), err.text);
    if (ok && argc > 2 && argv[2][0])
        put_message("system", argv[2]);
    while (ok && (printf(called ? "result> " : "> "), fflush(stdout),
                  fgets(line, sizeof line, stdin) || ferror(stdin))) {
        if (ferror(stdin))
            printf("\n[Ctrl-D ends the conversation]\n");
        else if (line[strcspn(line, "\n")] = '\0', line[0])
            turn(session, line);
        else
            called = false;
        clearerr(stdin);
    }
    ksllm_session_free(session);
    ksllm_grammar_free(grammar);
    ksllm_model_close(model);
    return ok ? 0 : 1;
}
