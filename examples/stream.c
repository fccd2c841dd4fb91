/* stream.c - text as it comes, and three ways to end it early: Ctrl-C, a time
 * budget, a stop string. Prints where the time went.
 *
 *     cc -O2 examples/stream.c ksllm.c -lm -pthread -o stream
 *     ./stream                                 the demo model, in a checkout
 *     ./stream model.gguf "옛날 옛적에" 5        (at most 5 seconds)
 */
#define _POSIX_C_SOURCE 200809L
#include "../ksllm.h"
#include "system.h"

#include <stdio.h>
#include <stdlib.h>

#define DEMO "examples/demo-model/ksllm-demo.gguf"

static ksllm_cancel cancel;

/* ksllm_cancel_set is one of the few calls that a signal handler may make.
 * A long prompt ends within milliseconds too, not only between tokens. */
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

static const char *why(ksllm_stop stop)
{
    switch (stop) {
    case KSLLM_STOP_NONE: return "it did not begin";
    case KSLLM_STOP_TOKEN: return "the model ended it";
    case KSLLM_STOP_TEXT: return "a stop string";
    case KSLLM_STOP_LENGTH: return "max_tokens";
    case KSLLM_STOP_CONTEXT: return "the context is full";
    case KSLLM_STOP_CALLBACK: return "the output failed";
    case KSLLM_STOP_CANCELLED: return "Ctrl-C";
    case KSLLM_STOP_DEADLINE: return "the time budget";
    case KSLLM_STOP_COMPLETE: return "nothing can follow";
    }
    return "?";
}

static void print_timings(const ksllm_result *r)
{
    double prompt_s = (double)r->prompt_ns / 1e9;
    double rest_s = (double)(r->total_ns - r->prompt_ns) / 1e9;
    fprintf(stderr, "\n[ended by: %s]\n", why(r->stop));
    fprintf(stderr, "prompt  %zu tokens in %.3f s\n", r->n_prompt, prompt_s);
    fprintf(stderr, "answer  %zu tokens in %.3f s", r->n_generated, rest_s);
    if (r->n_generated > 0 && rest_s > 0)
        fprintf(stderr, ", %.1f per second, first text after %.3f s",
                (double)r->n_generated / rest_s, (double)r->first_ns / 1e9);
    fputc('\n', stderr);
}

int main(int argc, char **argv)
{
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_generation want;
    ksllm_sampling sampling;
    ksllm_control control;
    ksllm_result result = {.size = sizeof result};
    ksllm_error err;
    static const ksllm_text stops[] = {{"\n\n\n", 3}};

    double seconds = argc == 4 ? strtod(argv[3], NULL) : 0;
    if (argc == 2 || argc > 4 || !(seconds >= 0 && seconds < 1e9)) {
        fprintf(stderr, "usage: stream [MODEL.gguf PROMPT [SECONDS]]\n");
        return 2;
    }
    catch_signal(SIGINT, on_interrupt);

    ksllm_control_init(&control);
    control.cancel = &cancel;
    control.budget_us = (uint64_t)(seconds * 1e6);
    ksllm_sampling_init(&sampling);
    sampling.temperature = 0.8f;
    sampling.min_p = 0.1f;
    sampling.repeat_penalty = 1.1f;
    ksllm_generation_init(&want);
    want.text = argc > 2 ? argv[2] : "네, 오후 3시에";
    want.on_piece = print_piece;
    want.stop_texts = stops;
    want.n_stop_texts = 1;
    want.sampling = &sampling;
    want.control = &control;

    ksllm_status status = ksllm_model_open(argc > 2 ? argv[1] : DEMO, NULL,
                                           &model, &err);
    if (status == KSLLM_OK)
        status = ksllm_session_create(model, NULL, &session, &err);
    if (status == KSLLM_OK) {
        status = ksllm_generate(session, &want, &result, &err);
        print_timings(&result);
    }
    /* Being stopped is not a failure: the session could go on from here. */
    bool ok = status == KSLLM_OK || status == KSLLM_ERR_CANCELLED ||
              status == KSLLM_ERR_DEADLINE;
    if (!ok)
        fprintf(stderr, "%s: %s\n", ksllm_status_name(status), err.text);
    ksllm_session_free(session);
    ksllm_model_close(model);
    return ok ? 0 : 1;
}
