/* extract.c - a Korean text to a record in JSON, by a schema.
 *
 *     cc -O2 examples/extract.c ksllm.c -lm -pthread -o extract
 *     ./extract model.gguf "금요일 저녁 일곱 시에 네 명, 창가 자리로 부탁해요"
 *     ./extract model.gguf TEXT schema.json
 *
 * Shows: an answer that a program can use as it is. Whatever the model is, what
 * is printed is JSON that the schema allows, and it is whole, also where the
 * model has to be cut short, after 200 tokens or a minute.
 */
#include "../ksllm.h"

#include <stdio.h>
#include <string.h>

/* A program reads its keys. Without additionalProperties: false the model may
 * add others. */
static const char reservation[] =
    "{\"type\": \"object\", \"additionalProperties\": false,"
    " \"required\": [\"요일\", \"시각\", \"인원\"],"
    " \"properties\": {"
    "  \"요일\": {\"enum\": [\"월\", \"화\", \"수\", \"목\", \"금\", \"토\","
    "                     \"일\"]},"
    "  \"시각\": {\"type\": \"string\","
    "            \"pattern\": \"^([01][0-9]|2[0-3]):[0-5][0-9]$\"},"
    "  \"인원\": {\"type\": \"integer\", \"minimum\": 1, \"maximum\": 20},"
    "  \"요청\": {\"type\": \"array\", \"maxItems\": 3,"
    "            \"items\": {\"type\": \"string\", \"maxLength\": 30}}}}";

static char schema[1 << 16], messages[1 << 16];

static bool read_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    size_t n = f ? fread(schema, 1, sizeof schema - 1, f) : 0;
    bool whole = f && !ferror(f) && feof(f);
    if (f)
        fclose(f);
    schema[n] = '\0';
    return whole;
}

/* The schema belongs in the prompt too: the grammar forbids, it does not
 * explain. */
static bool put_messages(const char *text)
{
    static char ask[sizeof schema + 4096];
    int n = snprintf(ask, sizeof ask, "다음 글의 내용을 JSON으로 옮겨라.\n"
                     "스키마: %s\n글: %s", schema, text);
    if (n < 0 || (size_t)n >= sizeof ask)
        return false;
    static const char head[] = "[{\"role\": \"user\", \"content\": ";
    strcpy(messages, head);
    size_t at = strlen(head), room = sizeof messages - at;
    int64_t k = ksllm_json_string(ask, KSLLM_NUL, messages + at, room);
    if (k < 0 || (size_t)k + 3 > room)
        return false;
    strcpy(messages + at + k, "}]");
    return true;
}

static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    (void)ctx;
    if (part == KSLLM_PART_TEXT)
        fwrite(text.data, 1, text.size, stdout);
    return ferror(stdout);
}

static ksllm_status extract(ksllm_session *session,
                            const ksllm_grammar *grammar, ksllm_error *err)
{
    ksllm_chat chat;
    ksllm_generation want;
    ksllm_sampling greedy;
    ksllm_control control;
    ksllm_result result = {.size = sizeof result};
    ksllm_chat_init(&chat);
    chat.messages.data = messages;
    chat.variables.data = "{\"enable_thinking\": false}";
    ksllm_sampling_init(&greedy);
    ksllm_control_init(&control);
    control.budget_us = 60 * 1000000;
    ksllm_generation_init(&want);
    want.grammar = grammar;
    want.max_tokens = 200;
    want.sampling = &greedy;
    want.control = &control;
    ksllm_status status = ksllm_chat_generate(
        session, &chat, &want, on_part, NULL, &result, err);
    printf("\n");
    if (result.n_closed > 0)
        fprintf(stderr, "[cut short: %zu of %zu tokens are not the model's]\n",
                result.n_closed, result.n_generated);
    /* Out of time: the record is whole if it has begun. */
    return status == KSLLM_ERR_DEADLINE && result.n_generated ? KSLLM_OK
                                                              : status;
}

int main(int argc, char **argv)
{
    ksllm_model *model = NULL;
    ksllm_grammar *grammar = NULL;
    ksllm_session *session = NULL;
    ksllm_grammar_options options;
    ksllm_error err;

    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: extract MODEL.gguf TEXT [SCHEMA.json]\n");
        return 2;
    }
    strcpy(schema, reservation);
    if ((argc == 4 && !read_file(argv[3])) || !put_messages(argv[2])) {
        fprintf(stderr, "the schema cannot be read, or is too long\n");
        return 1;
    }
    ksllm_grammar_options_init(&options);
    options.kind = KSLLM_GRAMMAR_SCHEMA;
    options.source.data = schema;
    options.ordered = true;     /* small models like an order that they know */
    ksllm_status status = ksllm_model_open(argv[1], NULL, &model, &err);
    if (status == KSLLM_OK)
        status = ksllm_grammar_create(model, &options, &grammar, &err);
    if (status == KSLLM_OK)
        status = ksllm_session_create(model, NULL, &session, &err);
    if (status == KSLLM_OK)
        status = extract(session, grammar, &err);
    if (status != KSLLM_OK)
        fprintf(stderr, "%s: %s\n", ksllm_status_name(status), err.text);
    ksllm_session_free(session);
    ksllm_grammar_free(grammar);
    ksllm_model_close(model);
    return status != KSLLM_OK;
}
