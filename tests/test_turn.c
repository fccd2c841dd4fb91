/* test_turn.c - a turn of a chat in one call. The model is a fixture of random
 * weights; a filter makes it say what a test wants said, so that every answer
 * goes the way that a real one does, token by token.
 */
#include "test.h"
#include "fixture.h"

/* ---- a model that says what it is told ---- */

enum { ROOM = 1 << 16 };

typedef struct stage {
    fx_file f;
    ksllm_model *m;
    ksllm_session *s;
    int32_t say[2048];
    size_t n_say, n_said;
    /* what came out: live parts, "T:.." "H:.." "C:.." "A:.." "E", and the
     * fields of the message as they ought to be */
    char parts[ROOM], message[ROOM];
    char text[ROOM], thinking[ROOM], calls[ROOM], call[ROOM];
    int last;
    size_t n_parts, n_message, n_calls;
    size_t stop_at;             /* parts until on_part stops; 0: never */
    ksllm_cancel *cancel;       /* set it at that part instead */
    ksllm_result r;
    ksllm_error e;
} stage;

static void say_filter(void *ctx, float *logits, size_t n)
{
    stage *x = ctx;
    int32_t id = x->n_said < x->n_say ? x->say[x->n_said] : FX_END;
    x->n_said++;
    for (size_t i = 0; i < n; i++)
        logits[i] = (int32_t)i == id ? 1e6f : -1e6f;
}

static void add(char *to, const char *p, size_t n)
{
    size_t at = strlen(to);
    if (at + n >= ROOM)
        exit(1);
    memcpy(to + at, p, n);
    to[at + n] = '\0';
}

static void add_json(char *to, ksllm_text t)
{
    char room[4096];
    int64_t n = ksllm_json_string(t.data, t.size, room, sizeof room);
    if (n < 2 || (size_t)n > sizeof room)
        exit(1);
    add(to, room + 1, (size_t)n - 2);
}

static int on_part(void *ctx, ksllm_part part, ksllm_text t)
{
    static const char *const heads[] = {"|T:", "|H:", "|C:", "|A:", "|E"};
    stage *x = ctx;
    if (part == KSLLM_PART_MESSAGE) {
        add(x->message, t.data, t.size);
        x->n_message++;
        return 0;
    }
    CHECK(x->n_message == 0);
    x->n_parts++;
    if (x->last != (int)part || part == KSLLM_PART_CALL)
        add(x->parts, heads[part], strlen(heads[part]));
    x->last = (int)part;
    add(x->parts, t.data, t.size);
    if (part == KSLLM_PART_TEXT)
        add_json(x->text, t);
    if (part == KSLLM_PART_THINKING)
        add_json(x->thinking, t);
    if (part == KSLLM_PART_CALL) {
        static const char open[] = "{\"type\": \"function\", \"function\": "
                                   "{\"name\": \"";
        x->call[0] = '\0';
        add(x->call, open, sizeof open - 1);
        add_json(x->call, t);
        add(x->call, "\", \"arguments\": ", 15);
    }
    if (part == KSLLM_PART_ARGUMENTS)
        add(x->call, t.data, t.size);
    if (part == KSLLM_PART_CALL_END) {
        add(x->call, "}}", 2);
        add(x->calls, ", ", x->n_calls++ ? 2 : 0);
        add(x->calls, x->call, strlen(x->call));
    }
    if (x->stop_at && x->n_parts == x->stop_at) {
        if (!x->cancel)
            return 1;
        ksllm_cancel_set(x->cancel);
    }
    return 0;
}

/* The smallest model with a vocabulary of all bytes. */
static const fx_spec talker = {
    "talker", "llama", 1, 32, 32, 2, 1, 16, 0, KSLLM_TYPE_Q4_0, true,
    FX_ROPE_PLAIN, FX_BPE, FX_SOUND};

static void begin(stage *x, uint32_t n_ctx)
{
    memset(x, 0, sizeof *x);
    ksllm_session_options o = fx_small_options();
    o.n_ctx = n_ctx;
    x->f = fx_model(&talker);
    fx_must(ksllm_model_open_memory(x->f.data, x->f.size, NULL, &x->m, &x->e),
            &x->e);
    x->s = fx_create(x->m, &o);
}

static void end(stage *x)
{
    ksllm_session_free(x->s);
    ksllm_model_close(x->m);
    free(x->f.data);
}

static const char simple[] =
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}";

/* One turn in which the model says `answer`. */
static ksllm_status turn(stage *x, const char *format, const char *tmpl,
                         const char *messages, const char *answer,
                         const ksllm_generation *more)
{
    ksllm_chat chat;
    ksllm_generation g;
    ksllm_sampling p;
    if (more)
        g = *more;
    else
        ksllm_generation_init(&g);
    ksllm_chat_init(&chat);
    ksllm_sampling_init(&p);
    chat.messages.data = messages;
    chat.template_text.data = tmpl;
    chat.format = format;
    p.filter = say_filter;
    p.filter_ctx = x;
    g.sampling = &p;
    int64_t n = ksllm_encode(x->m, answer, KSLLM_NUL, KSLLM_ENCODE_SPECIAL,
                             x->say, sizeof x->say / sizeof *x->say, &x->e);
    if (n < 0 || (size_t)n > sizeof x->say / sizeof *x->say)
        exit(1);
    x->n_say = (size_t)n;
    x->n_said = 0;
    x->parts[0] = x->message[0] = x->text[0] = x->thinking[0] = '\0';
    x->calls[0] = x->call[0] = '\0';
    x->last = -1;
    x->n_parts = x->n_message = x->n_calls = 0;
    x->r.size = sizeof x->r;
    return ksllm_chat_generate(x->s, &chat, &g, on_part, x, &x->r, &x->e);
}

/* What the message has to be, by the parts that came. */
static void check_message(const stage *x)
{
    static char want[4 * ROOM];
    want[0] = '\0';
    strcat(want, "{\"role\": \"assistant\", \"content\": \"");
    strcat(strcat(want, x->text), "\"");
    if (x->thinking[0])
        strcat(strcat(strcat(want, ", \"reasoning_content\": \""),
                      x->thinking), "\"");
    if (x->calls[0])
        strcat(strcat(strcat(want, ", \"tool_calls\": ["), x->calls), "]");
    strcat(want, "}");
    CHECK_STR(x->message, want);
}

#define HELLO "[{\"role\": \"user\", \"content\": \"안녕\"}]"

TEST(answers_come_apart)
{
    static const struct { const char *format, *prompt, *answer, *parts; }
    rows[] = {
        {"text", "", "안녕하세요", "|T:안녕하세요"},
        {"text", "", "", ""},
        {"json", "", "<think>\n음\n</think>\n\n네, \"서울\"\\은\t",
         "|H:음|T:네, \"서울\"\\은\t"},
        {"json", "<think>\n", "음</think>네", "|H:음|T:네"},
        {"json", "", "볼게요<tool_call>\n{\"name\": \"날씨\", \"arguments\": "
         "{\"city\": \"서울\"}}\n</tool_call>끝",
         "|T:볼게요|C:날씨|A:{\"city\": \"서울\"}|E|T:끝"},
        {"json", "<tool_call>\n", "{\"name\": \"f\", \"arguments\": {}}\n"
         "</tool_call>", "|C:f|A:{}|E"},
        {"glm", "<think>\n", "음</think><tool_call>f\n<arg_key>a</arg_key>\n"
         "<arg_value>2</arg_value>\n</tool_call>", "|H:음|C:f|A:{\"a\": 2}|E"},
        {"qwen-coder", "", "<tool_call>\n<function=f>\n<parameter=a>\n가\n"
         "</parameter>\n</function>\n</tool_call>",
         "|C:f|A:{\"a\": \"가\"}|E"},
        {"solar", "<|begin|>assistant", "<|think|>음<|end|><|begin|>assistant"
         "<|content|>네", "|H:음|T:네"},
        {"solar", "<|begin|>assistant", "<|tool_calls|><|tool_call:begin|>1"
         "<|tool_call:name|>f<|tool_call:args|>{\"a\": 1}<|tool_call:end|>"
         "<|calls|>", "|C:f|A:{\"a\": 1}|E"},
        {"vaetki", "", "<tool_start>{\"name\": \"f\", \"arguments\": {}}"
         "<tool_end>", "|C:f|A:{}|E"},
        {"thought", "<thought>\n", "음</thought>네", "|H:음|T:네"},
        {"json", "", "하나<tool_call>{\"name\": \"f\\\"\", \"arguments\": "
         "{\"a\": [1]}}</tool_call>둘<tool_call>{\"name\": \"g\"}</tool_call>",
         "|T:하나|C:f\"|A:{\"a\": [1]}|E|T:둘|C:g|A:{}|E"},
        /* A call that does not end is in no message, wherever it stands. */
        {"solar", "<|begin|>assistant", "<|tool_calls|><|tool_call:name|>a"
         "<|tool_call:args|>{]<|tool_call:end|><|tool_call:name|>b"
         "<|tool_call:args|>{}<|tool_call:end|><|tool_call:name|>c"
         "<|tool_call:args|>{", "|C:a|A:{|C:b|A:{}|E|C:c|A:{"},
        {"glm", "", "가<tool_call>f<arg_key>a</arg_key><arg_value>1",
         "|T:가|C:f"},
    };
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 512);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char tmpl[512];
        snprintf(tmpl, sizeof tmpl, "<u>{{ messages[0].content }}<a>%s",
                 rows[i].prompt);
        CHECK_OK(turn(x, rows[i].format, tmpl, HELLO, rows[i].answer, NULL),
                 x->e);
        CHECK_STR(x->parts, rows[i].parts);
        CHECK_EQ(x->r.stop, KSLLM_STOP_TOKEN);
        check_message(x);
    }
    end(x);
    free(x);
}

/* The pieces of a conversation stay in the cache, and what came as a message
 * goes in again. */
TEST(the_message_goes_in_again)
{
    stage *x = fx_memory(NULL, sizeof *x);
    char talk[ROOM + 200];
    begin(x, 512);
    CHECK_OK(turn(x, "text", simple, HELLO, "네, \"하나\"\n둘", NULL), x->e);
    CHECK_EQ(x->r.n_reused, 0);
    size_t held;
    ksllm_session_tokens(x->s, &held);
    snprintf(talk, sizeof talk, "[{\"role\": \"user\", \"content\": \"안녕\"}, "
             "%s, {\"role\": \"user\", \"content\": \"또\"}]", x->message);
    CHECK_OK(turn(x, "text", simple, talk, "그래", NULL), x->e);
    CHECK(x->r.n_reused + 2 >= held && x->r.n_reused <= held);
    CHECK_STR(x->parts, "|T:그래");
    end(x);
    free(x);
}

TEST(on_part_stops_it)
{
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 512);
    x->stop_at = 3;
    x->e.status = KSLLM_ERR_STATE;      /* a success leaves it alone */
    CHECK_OK(turn(x, "text", simple, HELLO, "하나 둘 셋 넷 다섯 여섯", NULL),
             x->e);
    CHECK_EQ(x->e.status, KSLLM_ERR_STATE);
    CHECK_EQ(x->r.stop, KSLLM_STOP_CALLBACK);
    CHECK_EQ(x->n_parts, 3);
    CHECK_EQ(x->n_message, 0);
    CHECK(x->r.n_generated < x->n_say);
    end(x);
    free(x);
}

TEST(a_cancel_leaves_a_message)
{
    stage *x = fx_memory(NULL, sizeof *x);
    ksllm_cancel cancel = {0};
    ksllm_control c;
    ksllm_generation g;
    begin(x, 512);
    ksllm_control_init(&c);
    ksllm_generation_init(&g);
    c.cancel = x->cancel = &cancel;
    g.control = &c;
    x->stop_at = 2;
    CHECK_EQ(turn(x, "text", simple, HELLO, "하나 둘 셋 넷 다섯 여섯", &g),
             KSLLM_ERR_CANCELLED);
    CHECK_EQ(x->r.stop, KSLLM_STOP_CANCELLED);
    CHECK(x->text[0] != '\0');
    check_message(x);
    /* Cancelled before a token came there is none. */
    CHECK_EQ(turn(x, "text", simple, HELLO, "하나", &g), KSLLM_ERR_CANCELLED);
    CHECK_EQ(x->n_message, 0);
    /* So is one that is late before it. */
    c.cancel = NULL;
    c.budget_us = 1;
    CHECK_EQ(turn(x, "text", simple, HELLO, "하나", &g), KSLLM_ERR_DEADLINE);
    CHECK_EQ(x->r.stop, KSLLM_STOP_DEADLINE);
    CHECK_EQ(x->n_message, 0);
    end(x);
    free(x);
}

TEST(limits_of_an_answer)
{
    stage *x = fx_memory(NULL, sizeof *x);
    ksllm_generation g;
    begin(x, 64);
    ksllm_generation_init(&g);
    g.max_tokens = 5;
    CHECK_OK(turn(x, "text", simple, HELLO, "abcdefghijklm", &g), x->e);
    CHECK_EQ(x->r.stop, KSLLM_STOP_LENGTH);
    check_message(x);
    ksllm_text stop = {"fg", 2};
    ksllm_generation_init(&g);
    g.stop_texts = &stop;
    g.n_stop_texts = 1;
    CHECK_OK(turn(x, "text", simple, HELLO, "abcdefghijklm", &g), x->e);
    CHECK_EQ(x->r.stop, KSLLM_STOP_TEXT);
    CHECK_STR(x->parts, "|T:abcde");
    check_message(x);
    char big[200];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    CHECK_OK(turn(x, "text", simple, HELLO, big, NULL), x->e);
    CHECK_EQ(x->r.stop, KSLLM_STOP_CONTEXT);
    check_message(x);
    /* A prompt that does not fit leaves the session as it was. */
    char talk[400];
    snprintf(talk, sizeof talk, "[{\"role\": \"user\", \"content\": \"%s\"}]",
             big);
    CHECK_EQ(turn(x, "text", simple, talk, "a", NULL), KSLLM_ERR_CONTEXT);
    end(x);
    free(x);
}

/* A session that slides does so between turns only: in an answer the system
 * prompt would go without a word. */
TEST(an_answer_does_not_slide)
{
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 64);
    ksllm_session_options o = fx_small_options();
    o.overflow = KSLLM_OVERFLOW_SLIDE;
    ksllm_session_free(x->s);
    x->s = fx_create(x->m, &o);
    char big[200];
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    CHECK_OK(turn(x, "text", simple, HELLO, big, NULL), x->e);
    CHECK_EQ(x->r.stop, KSLLM_STOP_CONTEXT);
    check_message(x);
    end(x);
    free(x);
}

TEST(thinking_has_an_end)
{
    static const struct { const char *format, *prompt, *answer, *parts; }
    rows[] = {
        {"json", "<think>\n", "abcdefghij", "|H:abcd|T:efghij"},
        {"glm", "<think>\n", "abcdefghij", "|H:abcd|T:efghij"},
        {"thought", "<thought>\n", "abcdefghij", "|H:abcd|T:efghij"},
        {"solar", "<|begin|>assistant<|think|>", "abcd<|content|>efghij",
         "|H:abcd|T:efghij"},
        /* The mark that begins it is not thinking. */
        {"json", "", "<think>abcdefgh", "|H:abcd|T:efgh"},
        /* Three tokens a syllable: not after its first. */
        {"json", "<think>\n", "뷁뷁뷁efghij", "|H:뷁뷁|T:뷁efghij"},
        /* What ends by itself in time is left alone. */
        {"json", "<think>\n", "ab</think>cdefghij", "|H:ab|T:cdefghij"},
        {"text", "", "abcdefghij", "|T:abcdefghij"},
    };
    stage *x = fx_memory(NULL, sizeof *x);
    ksllm_generation g;
    begin(x, 512);
    ksllm_generation_init(&g);
    g.max_thinking = 4;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char tmpl[512];
        snprintf(tmpl, sizeof tmpl, "<u>{{ messages[0].content }}<a>%s",
                 rows[i].prompt);
        /* "</think>" by letters takes more than four tokens of thinking: of
         * the row that ends by itself each is one token's text. */
        if (strstr(rows[i].answer, "</think>"))
            g.max_thinking = 12;
        CHECK_OK(turn(x, rows[i].format, tmpl, HELLO, rows[i].answer, &g),
                 x->e);
        CHECK_STR(x->parts, rows[i].parts);
        check_message(x);
        g.max_thinking = 4;
    }
    /* Not without a chat: there is no telling what is thinking. */
    ksllm_generation plain;
    ksllm_generation_init(&plain);
    plain.text = "a";
    plain.max_thinking = 4;
    CHECK_EQ(ksllm_generate(x->s, &plain, NULL, &x->e), KSLLM_ERR_ARGUMENT);
    end(x);
    free(x);
}

/* HyperCLOVA X Think 14B ends its thinking with the token that ends a turn. */
TEST(a_stop_token_that_ends_the_thinking)
{
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 512);
    CHECK(ksllm_token_is_stop(x->m, FX_IM_END));
    CHECK_OK(turn(x, "hcx-think", "<|im_start|>{{ messages[0].content }}"
                  "<|im_end|>\n<|im_start|>assistant", HELLO,
                  "/think\n음<|im_end|>\n<|im_start|>assistant\n네<|im_end|>x",
                  NULL), x->e);
    CHECK_STR(x->parts, "|H:음|T:네");
    CHECK_EQ(x->r.stop, KSLLM_STOP_TOKEN);
    check_message(x);
    end(x);
    free(x);
}

TEST(too_many_calls)
{
    stage *x = fx_memory(NULL, sizeof *x);
    static char many[ROOM];
    begin(x, 1024);
    strcpy(many, "<tool_call>");
    for (int i = 0; i < 64; i++)
        strcat(many, "{\"name\":\"f\"}");
    CHECK_OK(turn(x, "json", simple, HELLO, many, NULL), x->e);
    CHECK_EQ(x->n_calls, 64);
    check_message(x);
    strcat(many, "{\"name\":\"f\"}");
    CHECK_EQ(turn(x, "json", simple, HELLO, many, NULL), KSLLM_ERR_BUFFER);
    CHECK_EQ(x->e.status, KSLLM_ERR_BUFFER);
    CHECK(strstr(x->e.text, "64 tool calls") != NULL);
    CHECK_EQ(x->r.stop, KSLLM_STOP_NONE);
    CHECK_EQ(x->n_message, 0);
    end(x);
    free(x);
}

static int count_piece(void *ctx, const ksllm_piece *piece)
{
    size_t *left = ctx;
    CHECK(piece->text.size > 0 || piece->token >= 0);
    return --*left == 0;
}

/* on_piece sees the answer too, and may end it: then there is no message. */
TEST(on_piece_in_a_turn)
{
    stage *x = fx_memory(NULL, sizeof *x);
    ksllm_generation g;
    size_t left = 99;
    begin(x, 64);
    ksllm_generation_init(&g);
    g.on_piece = count_piece;
    g.piece_ctx = &left;
    CHECK_OK(turn(x, "text", simple, HELLO, "uvwxyz", &g), x->e);
    CHECK_STR(x->parts, "|T:uvwxyz");
    CHECK_EQ(left, 99 - 6);
    check_message(x);
    left = 3;
    CHECK_OK(turn(x, "text", simple, HELLO, "uvwxyz", &g), x->e);
    CHECK_EQ(x->r.stop, KSLLM_STOP_CALLBACK);
    CHECK_EQ(left, 0);
    CHECK_STR(x->parts, "|T:uv");
    CHECK_STR(x->message, "");
    end(x);
    free(x);
}

TEST(wrong_arguments)
{
    stage *x = fx_memory(NULL, sizeof *x);
    ksllm_chat chat;
    ksllm_generation g;
    begin(x, 64);
    ksllm_generation_init(&g);
    g.text = "a";
    CHECK_EQ(turn(x, "text", simple, HELLO, "a", &g), KSLLM_ERR_ARGUMENT);
    ksllm_generation_init(&g);
    g.append = true;
    CHECK_EQ(turn(x, "text", simple, HELLO, "a", &g), KSLLM_ERR_ARGUMENT);
    const int32_t id = 5;
    ksllm_generation_init(&g);
    g.tokens = &id;
    g.n_tokens = 1;
    CHECK_EQ(turn(x, "text", simple, HELLO, "a", &g), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(turn(x, "text", "{% if 0 %}a{% endif %}", HELLO, "a", NULL),
             KSLLM_ERR_ARGUMENT);
    CHECK(strstr(x->e.text, "makes no text") != NULL);
    CHECK_EQ(turn(x, "text", "{{ 'a' * 1000 }}", HELLO, "a", NULL),
             KSLLM_ERR_CONTEXT);
    CHECK_EQ(turn(x, "nosuch", simple, HELLO, "a", NULL), KSLLM_ERR_ARGUMENT);
    CHECK(strstr(x->e.text, "nosuch") != NULL);
    CHECK_EQ(turn(x, "text", simple, "[{]", "a", NULL), KSLLM_ERR_ARGUMENT);
    CHECK_EQ(turn(x, "text", "{% if %}", HELLO, "a", NULL), KSLLM_ERR_FORMAT);
    ksllm_chat_init(&chat);
    CHECK_EQ(ksllm_chat_generate(NULL, &chat, NULL, NULL, NULL, NULL, &x->e),
             KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_chat_generate(x->s, NULL, NULL, NULL, NULL, NULL, &x->e),
             KSLLM_ERR_ARGUMENT);
    CHECK_EQ(ksllm_chat_generate(x->s, &chat, NULL, NULL, NULL, NULL, &x->e),
             KSLLM_ERR_ARGUMENT);
    /* After all of it the session works. */
    CHECK_OK(turn(x, "text", simple, HELLO, "ab", NULL), x->e);
    CHECK_STR(x->parts, "|T:ab");
    end(x);
    free(x);
}

/* Rendering takes memory and gives it back before the first token; with memory
 * of the caller's nothing is taken at all. */
TEST(memory_of_a_turn)
{
    fx_alloc a;
    fx_alloc_init(&a);
    stage *x = fx_memory(NULL, sizeof *x);
    begin(x, 256);
    char *room = fx_memory(NULL, 1 << 20);
    ksllm_chat chat;
    ksllm_generation g;
    ksllm_chat_init(&chat);
    ksllm_generation_init(&g);
    chat.messages.data = HELLO;
    chat.template_text.data = simple;
    chat.allocator = &a.allocator;
    g.max_tokens = 20;
    CHECK_OK(ksllm_chat_generate(x->s, &chat, &g, NULL, NULL, NULL, &x->e),
             x->e);
    CHECK(a.calls > 0);
    CHECK_EQ(a.n_live, 0);
    long calls = a.calls;
    chat.memory = room;
    chat.memory_size = 1 << 20;
    CHECK_OK(ksllm_chat_generate(x->s, &chat, &g, NULL, NULL, NULL, &x->e),
             x->e);
    CHECK_EQ(a.calls, calls);
    /* Every allocation may fail. */
    chat.memory = NULL;
    for (long k = 1; k < 100; k++) {
        fx_alloc_init(&a);
        a.fail_at = k;
        ksllm_status st = ksllm_chat_generate(x->s, &chat, &g, NULL, NULL,
                                              NULL, &x->e);
        CHECK_EQ(a.n_live, 0);
        if (st == KSLLM_OK)
            break;
        CHECK_EQ(st, KSLLM_ERR_MEMORY);
        CHECK(k < 99);
    }
    free(room);
    end(x);
    free(x);
}

/* Whatever a model says, the message is what the parts were. */
TEST(any_answer_makes_its_message)
{
    static const char *const formats[] = {"json", "glm", "qwen-coder", "solar",
        "hcx-think", "vaetki", "thought", "text"};
    static const char *const bits[] = {"<think>", "</think>", "<tool_call>",
        "</tool_call>", "{\"name\": \"f\", \"arguments\": {\"a\": \"<\"}}",
        "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "f", "\n",
        "<function=", ">", "<parameter=", "</parameter>", "</function>",
        "<|begin|>assistant", "<|think|>", "<|content|>", "<|end|>",
        "<|tool_calls|>", "<|tool_call:name|>", "<|tool_call:args|>",
        "<|tool_call:end|>", "<|calls|>", "{}", "{\"a\": 1", "/think\n",
        " -> tool/function_call\n", "<|im_start|>assistant", "<tool_start>",
        "<tool_end>", "<thought>", "</thought>", "가", "\"", "\\", "12"};
    stage *x = fx_memory(NULL, sizeof *x);
    static char talk[ROOM + 8];
    uint64_t seed = test_seed;
    begin(x, 1024);
    for (int i = 0; i < 300; i++) {
        char answer[1024] = "";
        for (uint32_t k = fx_below(&seed, 14); k > 0; k--)
            strcat(answer, bits[fx_below(&seed, sizeof bits / sizeof *bits)]);
        const char *format = formats[fx_below(&seed, 8)];
        ksllm_status st = turn(x, format, "a<|begin|>assistant", HELLO, answer,
                               NULL);
        CHECK_OK(st, x->e);
        check_message(x);
        /* A template takes it. */
        ksllm_chat chat;
        ksllm_chat_init(&chat);
        snprintf(talk, sizeof talk, "[%s]", x->message);
        chat.template_text.data = "{{ messages[0].role }}";
        chat.messages.data = talk;
        CHECK_EQ(ksllm_chat_render(NULL, &chat, NULL, 0, &x->e), 9);
        if (atomic_load(&test_failures)) {
            printf("%s: %s\n", format, answer);
            break;
        }
    }
    end(x);
    free(x);
}

TEST_MAIN
