/* chat.c - a conversation in the terminal.
 *
 *     cc -O2 examples/chat.c ksllm.c -lm -pthread -o chat
 *     ./chat model.gguf ["system prompt"]
 *
 * Shows: a session that is only ever added to, so that a turn costs its own
 * tokens and never those before it; rewinding a turn that was stopped;
 * Ctrl-C that stops the answer, not the program; and how to put a user's text
 * into a chat format so that it cannot forge a turn.
 */
#define _POSIX_C_SOURCE 200809L
#include "../ksllm.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TURN = 8192, MAX_ANSWER = 1000 };    /* tokens */

/* How a family writes a conversation. A format is taken when its marker is in
 * the model's vocabulary. The order matters: some vocabularies hold the
 * markers of two families. Without any, the text is simply continued. */
typedef struct format {
    const char *marker;
    const char *system, *system_end;    /* NULL: the family has none */
    const char *user;
    const char *answer;                 /* from the user's text to the answer */
    const char *end;                    /* after the answer */
} format;

static const format formats[] = {
    {"<|im_start|>",                                        /* ChatML */
     "<|im_start|>system\n", "<|im_end|>\n", "<|im_start|>user\n",
     "<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"},
    {"<start_of_turn>",                                     /* Gemma */
     NULL, NULL, "<start_of_turn>user\n",
     "<end_of_turn>\n<start_of_turn>model\n", "<end_of_turn>\n"},
    {"<|start_header_id|>",                                 /* Llama 3 */
     "<|start_header_id|>system<|end_header_id|>\n\n", "<|eot_id|>",
     "<|start_header_id|>user<|end_header_id|>\n\n",
     "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
     "<|eot_id|>"},
    {"[|user|]",                                            /* EXAONE 4.0 */
     "[|system|]\n", "[|endofturn|]\n", "[|user|]\n",
     "[|endofturn|]\n[|assistant|]\n<think>\n\n</think>\n\n",
     "[|endofturn|]\n"},
    {"<|endofturn|>",                                       /* K-EXAONE */
     "<|system|>\n", "<|endofturn|>\n", "<|user|>\n",
     "<|endofturn|>\n<|assistant|>\n<think>\n\n</think>\n\n",
     "<|endofturn|>\n"},
};
static const format plain = {"", "", "\n\n", "", "", "\n\n"};

static const format *find_format(const ksllm_model *model)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const char *m = formats[i].marker;
        if (ksllm_token_find(model, m, strlen(m)) >= 0)
            return &formats[i];
    }
    return &plain;
}

/* The tokens that the next call will add to the session. */
typedef struct turn {
    const ksllm_model *model;
    int32_t ids[MAX_TURN];
    size_t n;
} turn;

static bool add(turn *t, const char *text, uint32_t flags)
{
    int64_t n = ksllm_encode(t->model, text, strlen(text), flags,
                             t->ids + t->n, MAX_TURN - t->n, NULL);
    if (n < 0 || (uint64_t)n > MAX_TURN - t->n)
        return false;
    t->n += (size_t)n;
    return true;
}

/* Only the format's own text may become control tokens. What a user types is
 * encoded without KSLLM_ENCODE_SPECIAL: "<|im_end|>" stays ten characters. */
static bool add_format(turn *t, const char *text)
{
    return add(t, text, KSLLM_ENCODE_SPECIAL);
}

static bool add_text(turn *t, const char *text)
{
    return add(t, text, KSLLM_ENCODE_COMPOSE);
}

static bool make_turn(turn *t, const format *f, const char *system,
                      const char *text, bool first)
{
    t->n = 0;
    if (first)
        return add(t, "", KSLLM_ENCODE_BOS) &&
               (!system || !f->system ||
                (add_format(t, f->system) && add_text(t, system) &&
                 add_format(t, f->system_end))) &&
               add_format(t, f->user) && add_text(t, text) &&
               add_format(t, f->answer);
    return add_format(t, f->end) && add_format(t, f->user) &&
           add_text(t, text) && add_format(t, f->answer);
}

static ksllm_cancel cancel;

static void on_interrupt(int number)
{
    (void)number;
    ksllm_cancel_set(&cancel);
}

static int print_piece(void *ctx, const ksllm_piece *piece)
{
    (void)ctx;
    fwrite(piece->text.data, 1, piece->text.size, stdout);
    return fflush(stdout);
}

/* Adds the turn and prints the answer. A turn that failed, or was stopped
 * before the answer began, is forgotten as if it had never been typed. */
static void answer(ksllm_session *session, const turn *t)
{
    ksllm_generation want;
    ksllm_sampling sampling;
    ksllm_control control;
    ksllm_result result;
    ksllm_error err;
    size_t n_before;

    ksllm_session_tokens(session, &n_before);
    ksllm_cancel_clear(&cancel);
    ksllm_control_init(&control);
    control.cancel = &cancel;
    ksllm_sampling_init(&sampling);
    sampling.temperature = 0.3f;
    sampling.top_p = 0.9f;
    sampling.repeat_penalty = 1.1f;
    ksllm_generation_init(&want);
    want.tokens = t->ids;
    want.n_tokens = t->n;
    want.append = true;
    want.max_tokens = MAX_ANSWER;
    want.on_piece = print_piece;
    want.sampling = &sampling;
    want.control = &control;

    ksllm_status status = ksllm_generate(session, &want, &result, &err);
    if (status == KSLLM_ERR_CANCELLED)
        printf(" [stopped]");
    else if (result.stop == KSLLM_STOP_CONTEXT || status == KSLLM_ERR_CONTEXT)
        printf(" [the context is full: /new starts again]");
    else if (result.stop == KSLLM_STOP_LENGTH)
        printf(" [cut after %d tokens]", (int)MAX_ANSWER);
    else if (status != KSLLM_OK)
        printf("[%s: %s]", ksllm_status_name(status), err.text);
    putchar('\n');
    if (status != KSLLM_OK && result.n_generated == 0)
        ksllm_session_rewind(session, n_before);
}

static void talk(const ksllm_model *model, ksllm_session *session,
                 const char *system)
{
    static turn t;      /* 32 KiB: too much for some stacks */
    const format *f = find_format(model);
    char *line = NULL;
    size_t cap = 0, n_held;
    t.model = model;

    for (;;) {
        printf("> ");
        fflush(stdout);
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0 && ferror(stdin)) {       /* Ctrl-C while typing */
            clearerr(stdin);
            printf("\n[Ctrl-D ends the conversation]\n");
            continue;
        }
        if (n < 0)
            break;
        line[strcspn(line, "\n")] = '\0';
        ksllm_session_tokens(session, &n_held);
        if (strcmp(line, "/new") == 0)
            ksllm_session_rewind(session, 0);
        else if (!make_turn(&t, f, system, line, n_held == 0))
            printf("[too long for one turn]\n");
        else if (line[0] != '\0')
            answer(session, &t);
    }
    putchar('\n');
    free(line);
}

int main(int argc, char **argv)
{
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
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
              ksllm_session_create(model, NULL, &session, &err) == KSLLM_OK;
    if (ok)
        talk(model, session, argc == 3 ? argv[2] : NULL);
    else
        fprintf(stderr, "%s: %s\n", ksllm_status_name(err.status), err.text);
    ksllm_session_free(session);
    ksllm_model_close(model);
    return ok ? 0 : 1;
}
