/* rerank.c - documents, by how well they answer a question.
 *
 *     cc -O2 examples/rerank.c ksllm.c -lm -pthread -o rerank
 *     ./rerank MODEL.gguf QUESTION DOCUMENT...
 *
 * For models that answer yes or no, as Qwen3-Reranker: the score is the
 * probability of "yes" among the two. And for encoders with a head for it, as
 * BGE's: the score is the sigmoid of what the head gives. Shows: logits of
 * chosen tokens; a prompt whose beginning stays in the cache, so that each
 * document costs its own length; control tokens that come from the program and
 * never from a document; a pooling that gives a score.
 */
#include "../ksllm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 2048 };

static const char before[] =
    "<|im_start|>system\nJudge whether the Document meets the requirements "
    "based on the Query and the Instruct provided. Note that the answer can "
    "only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n";
static const char instruct[] =
    "<Instruct>: Given a web search query, retrieve relevant passages that "
    "answer the query\n<Query>: ";
static const char after[] =
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";

/* Adds the tokens of a text; those beyond the first `most` are left out. */
static bool add(const ksllm_model *model, const char *text, uint32_t flags,
                int32_t *tokens, size_t *n, size_t most, ksllm_error *err)
{
    int64_t k = ksllm_encode(model, text, KSLLM_NUL, flags, tokens + *n,
                             most - *n, err);
    if (k < 0)
        return false;
    *n += (size_t)k < most - *n ? (size_t)k : most - *n;
    return true;
}

/* Question, EOS, EOS, document between BOS and EOS. */
static bool head_score(const ksllm_model *model, ksllm_session *session,
                       const char *question, const char *document,
                       double *out, ksllm_error *err)
{
    int32_t tokens[MAX_TOKENS];
    size_t n = 0, half = MAX_TOKENS / 2, most = MAX_TOKENS;
    ksllm_model_info info = {.size = sizeof info};
    if (ksllm_model_get_info(model, &info, err) != KSLLM_OK)
        return false;
    if (most > info.n_ctx_train)
        most = info.n_ctx_train, half = most / 2;
    if (most < 8) {
        snprintf(err->text, sizeof err->text,
                 "a context of %zu tokens is too short for two texts", most);
        return false;
    }
    if (!add(model, question, KSLLM_ENCODE_BOS, tokens, &n, half - 2, err))
        return false;
    tokens[n++] = info.eos;
    tokens[n++] = info.eos;
    if (!add(model, document, 0, tokens, &n, most - 1, err))
        return false;
    tokens[n++] = info.eos;
    if (ksllm_session_sync(session, tokens, n, NULL, err) != KSLLM_OK)
        return false;
    *out = 1 / (1 + exp(-(double)ksllm_session_embedding(session)[0]));
    return true;
}

static bool score(const ksllm_model *model, ksllm_session *session,
                  const char *question, const char *document, double *out,
                  ksllm_error *err)
{
    int32_t tokens[MAX_TOKENS];
    int32_t yes = ksllm_token_find(model, "yes", KSLLM_NUL);
    int32_t no = ksllm_token_find(model, "no", KSLLM_NUL);
    size_t n = 0, room = MAX_TOKENS - 64;       /* for what comes after */
    char *text = malloc(strlen(instruct) + strlen(question) +
                        strlen(document) + 64);
    if (yes < 0 || no < 0 || !text) {
        snprintf(err->text, sizeof err->text, text
                     ? "the vocabulary has no tokens \"yes\" and \"no\""
                     : "out of memory");
        free(text);
        return false;
    }
    sprintf(text, "%s%s\n<Document>: %s", instruct, question, document);
    bool ok = add(model, before, KSLLM_ENCODE_SPECIAL, tokens, &n, room, err)
           && add(model, text, KSLLM_ENCODE_COMPOSE, tokens, &n, room, err)
           && add(model, after, KSLLM_ENCODE_SPECIAL, tokens, &n, MAX_TOKENS,
                  err)
           && ksllm_session_sync(session, tokens, n, NULL, err) == KSLLM_OK;
    if (ok) {
        const float *x = ksllm_session_logits(session);
        *out = 1 / (1 + exp((double)x[no] - (double)x[yes]));
    }
    free(text);
    return ok;
}

int main(int argc, char **argv)
{
    ksllm_model *model = NULL;
    ksllm_session *session = NULL;
    ksllm_session_options options;
    ksllm_error err = {.status = KSLLM_OK};

    if (argc < 4) {
        fprintf(stderr, "usage: rerank MODEL.gguf QUESTION DOCUMENT...\n");
        return 2;
    }
    ksllm_session_options_init(&options);
    bool ok = ksllm_model_open(argv[1], NULL, &model, &err) == KSLLM_OK;
    ksllm_model_info info = {.size = sizeof info};
    if (ok)
        ok = ksllm_model_get_info(model, &info, &err) == KSLLM_OK;
    options.n_ctx = info.n_ctx_train < MAX_TOKENS ? info.n_ctx_train
                                                  : MAX_TOKENS;
    options.pooling = KSLLM_POOLING_RANK;       /* refused without a head */
    bool head = ok && ksllm_session_create(model, &options, &session, NULL)
                      == KSLLM_OK;
    options.pooling = KSLLM_POOLING_NONE;
    ok = ok && (head || ksllm_session_create(model, &options, &session, &err)
                        == KSLLM_OK);
    for (int i = 3; i < argc && ok; i++) {
        double p;
        ok = (head ? head_score : score)(model, session, argv[2], argv[i], &p,
                                         &err);
        if (ok)
            printf("%.4f  %s\n", p, argv[i]);
    }
    if (!ok)
        fprintf(stderr, "%s\n", err.text);
    ksllm_session_free(session);
    ksllm_model_close(model);
    return ok ? 0 : 1;
}
