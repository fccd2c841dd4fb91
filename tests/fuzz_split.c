/* fuzz_split.c - answers of a model through the splitter.
 *
 * An input: format, size of the buffer, a seed for the cuts, length of the
 * prompt, where the callback stops it; the prompt; the answer.
 */
#include "fuzz.h"
#include "json.h"

static const size_t buffers[] = {0, 1, 7, 16, 64, 300, 4096, 65536};

static const char *const words[] = {
    "<think>", "</think>", "<tool_call>", "</tool_call>", "<arg_key>",
    "</arg_key>", "<arg_value>", "</arg_value>", "<arguments>",
    "</arguments>", "<function=", "<parameter=", "</parameter>",
    "</function>", "<|tool_calls|>", "<|tool_call:begin|>",
    "<|tool_call:name|>", "<|tool_call:args|>", "<|tool_call:end|>",
    "<|calls|>", "<|think|>", "<|content|>", "<|end|>", "<|flush|>",
    "<|begin|>assistant", "<|im_end|>", "<|im_start|>assistant", "/think\n",
    " -> tool/function_call\n", "<tool_start>", "<tool_end>", "<thought>",
    "</thought>", "{\"name\": \"f\", \"arguments\": {\"a\": 1}}", "\"name\"",
    "\"arguments\"", "\"parameters\"", "{", "}", "[", "]", "\"", "\\", "\\u",
    "\\ud83d\\ude00", "\\ud800", "1e5", "-0", "true", "null", "\n\n", "한",
    "😀", "key", "long value of an argument", NULL};

/* What came out: a letter for each part that begins, then its text. */
typedef struct heard {
    fx_bytes all, arguments;
    int last;
    bool checked, in_call;
    long calls_left;            /* 0: never stops; -1: was stopped */
} heard;

static int on_part(void *ctx, ksllm_part part, ksllm_text text)
{
    heard *h = ctx;
    MUST(h->calls_left >= 0, "called after it stopped");
    MUST((unsigned)part <= KSLLM_PART_CALL_END, "part %d", (int)part);
    MUST(text.size > 0 || part == KSLLM_PART_CALL_END, "an empty piece");
    if (h->checked)
        MUST(fuzz_is_utf8(text.data, text.size), "part %d is cut", (int)part);
    if (part == KSLLM_PART_ARGUMENTS || part == KSLLM_PART_CALL_END)
        MUST(h->in_call, "part %d outside of a call", (int)part);
    if ((int)part != h->last || part == KSLLM_PART_CALL) {
        fx_int(&h->all, 1, 1);
        fx_put(&h->all, &"TRCAE"[part], 1);
    }
    h->last = (int)part;
    fx_put(&h->all, text.data, text.size);
    if (part == KSLLM_PART_CALL)
        h->arguments.size = 0;
    if (part == KSLLM_PART_ARGUMENTS)
        fx_put(&h->arguments, text.data, text.size);
    if (part == KSLLM_PART_CALL_END && h->checked) {
        fx_int(&h->arguments, 0, 1);
        MUST(is_json((char *)h->arguments.data), "arguments %s",
             (char *)h->arguments.data);
    }
    h->in_call = part == KSLLM_PART_CALL || part == KSLLM_PART_ARGUMENTS;
    if (h->calls_left == 0)
        return 0;
    h->calls_left -= h->calls_left == 1 ? 2 : 1;
    return h->calls_left < 0;
}

typedef struct splitting {
    const char *format, *prompt, *text;
    size_t n_prompt, n, buffer;
} splitting;

/* Gives the answer in pieces of up to `most` bytes and what the last character
 * lacks; 0: whole. Returns bits: a call was lost, the end was not one. */
static int split(const splitting *x, uint32_t most, uint64_t rng, heard *h)
{
    uint8_t *room = fuzz_room(x->buffer);
    ksllm_splitter s;
    ksllm_splitter_options o;
    ksllm_error e;
    ksllm_splitter_options_init(&o);
    o.format = x->format;
    o.prompt = (ksllm_text){x->prompt, x->n_prompt};
    o.buffer = room;
    o.buffer_size = x->buffer;
    o.on_part = on_part;
    o.ctx = h;
    h->last = -1;
    MUST(ksllm_splitter_init(&s, NULL, &o, &e) == 0, "%s", e.text);
    int lost = 0;
    uint8_t *pieces = fuzz_room(x->n);      /* each at its end */
    for (size_t i = 0, k; i < x->n; i += k) {
        k = most ? 1 + fx_below(&rng, most) : x->n;
        k = k < x->n - i ? k : x->n - i;
        while (i + k < x->n && ((uint8_t)x->text[i + k] & 0xc0) == 0x80)
            k++;
        uint8_t *piece = pieces + x->n - k;
        memcpy(piece, x->text + i, k);
        ksllm_status st = ksllm_splitter_next(&s, (char *)piece, k, &e);
        if (h->calls_left < 0)
            MUST(st == KSLLM_ERR_CANCELLED, "stopped, %d", (int)st);
        else
            MUST(st == 0 || st == KSLLM_ERR_BUFFER, "next: %s", e.text);
        lost |= st != 0;
    }
    ksllm_status st = ksllm_splitter_end(&s, &e);
    MUST(st == 0 || st == KSLLM_ERR_FORMAT || st == KSLLM_ERR_BUFFER ||
         (st == KSLLM_ERR_CANCELLED && h->calls_left < 0), "end: %s", e.text);
    fuzz_free(pieces, x->n);
    fuzz_free(room, x->buffer);
    return lost | (st != 0) << 1;
}

static void one(const uint8_t *data, size_t size)
{
    if (size < 5)
        return;
    size_t n_formats = 0;
    while (ksllm_splitter_format_at(n_formats))
        n_formats++;
    splitting x = {.format = ksllm_splitter_format_at(data[0] % n_formats),
                   .buffer = buffers[data[1] % 8]};
    uint64_t rng = data[2];
    long stop = data[4] & 0x80 ? 1 + (data[4] & 0x7f) : 0;
    x.n_prompt = data[3] < size - 5 ? data[3] : size - 5;
    x.n = size - 5 - x.n_prompt;
    uint8_t *prompt = fuzz_copy(data + 5, x.n_prompt);
    x.prompt = (char *)prompt;
    x.text = (const char *)data + 5 + x.n_prompt;
    bool whole = fuzz_is_utf8(x.text, x.n) &&
                 fuzz_is_utf8(x.prompt, x.n_prompt);
    double begin = fuzz_now();
    heard first = {.checked = whole};
    int status = split(&x, 0, rng, &first);
    for (uint32_t most = 1; most < 50; most = most * 4 + 3) {
        heard h = {.checked = whole};
        int other = split(&x, most, rng, &h);
        /* What does not fit is lost in pieces of the caller's making. */
        if (whole && x.buffer >= 4096)
            MUST(other == status && fuzz_same(&h.all, &first.all),
                 "%s: whole %d %.*s\n in pieces %d %.*s", x.format, status,
                 (int)first.all.size, (char *)first.all.data, other,
                 (int)h.all.size, (char *)h.all.data);
        free(h.all.data);
        free(h.arguments.data);
    }
    if (stop) {
        heard h = {.checked = whole, .calls_left = stop};
        split(&x, 7, rng, &h);
        free(h.all.data);
        free(h.arguments.data);
    }
    /* Escapes make six of one. */
    MUST(first.all.size <= 7 * x.n + 7 * x.n_prompt + 200, "%zu of %zu",
         first.all.size, x.n);
    MUST(fuzz_now() - begin < 3 + 1e-4 * (double)size, "it took %g s",
         fuzz_now() - begin);
    free(first.all.data);
    free(first.arguments.data);
    fuzz_free(prompt, x.n_prompt);
}

/* By format as ksllm_splitter_format_at gives them. */
static const struct { const char *format, *prompt, *text; } answers[] = {
    {"json", "", "<think>\n음\n</think>\n\n볼게요\n<tool_call>{\"name\": "
     "\"날씨\", \"arguments\": {\"city\": \"서울\", \"n\": [1, {}]}}"
     "</tool_call>\n<tool_call>{\"arguments\": {}, \"name\": \"b\"}"
     "</tool_call>끝"},
    {"glm", "<think>\n", "음</think><tool_call>날씨\n<arg_key>city</arg_key>"
     "\n<arg_value>서울 \"시\"\n둘</arg_value>\n<arg_key>n</arg_key>\n"
     "<arg_value>2</arg_value></tool_call>"},
    {"glm", "", "<tool_call>f\n<arguments>{\"a\": 1}</arguments>\n"
     "</tool_call>"},
    /* 0.1 read beyond its buffer: a value without a key. */
    {"glm", "", "<tool_call>f<arg_key>abcdefg</arg_key><arg_value>1"
     "</arg_value><arg_value>x</arg_value>"},
    {"qwen-coder", "", "x\n<tool_call>\n<function=f>\n<parameter=path>\na.c\n"
     "</parameter>\n<parameter=n>\n-1.5e3\n</parameter>\n</function>\n"
     "</tool_call>\n"},
    {"vaetki", "", "<tool_start>{\"name\": \"f\"}<tool_end>"},
    {"thought", "<thought>\n", "음\n</thought>답"},
    {"lfm2", "", "네<|tool_call_start|>[날씨(city='서울', n=[1, {'a': None}]), "
     "g(t=\"a\\\"b\")]<|tool_call_end|>끝"},
    {"gemma4", "", "<|channel>thought\n음<channel|><|tool_call>call:f{a:<|\"|>x\n"
     "<|\"|>,b:[1,{c:null}]}<tool_call|>끝"},
    {"solar", "<|begin|>assistant", "<|think|>음<|end|><|begin|>assistant"
     "<|tool_calls|><|tool_call:begin|>a1<|tool_call:name|>f"
     "<|tool_call:args|>{\"x\": \"<|\"}<|tool_call:end|><|calls|>"},
    {"hcx-think", "<|im_start|>assistant", "/think\n음<|im_end|>\n"
     "<|im_start|>assistant -> tool/function_call\n"
     "[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]<|im_end|>"},
    {"text", "", "a <b> c"}};

static bool seed(size_t i, fx_bytes *out)
{
    if (i >= sizeof answers / sizeof answers[0])
        return false;
    uint8_t head[5] = {0, 6, (uint8_t)i, (uint8_t)strlen(answers[i].prompt),
                       (uint8_t)(i % 3 ? 0 : 0x80 | i)};
    while (strcmp(ksllm_splitter_format_at(head[0]), answers[i].format))
        head[0]++;
    fx_put(out, head, 5);
    fx_put(out, answers[i].prompt, strlen(answers[i].prompt));
    fx_put(out, answers[i].text, strlen(answers[i].text));
    return true;
}

static const fuzz_target fuzz = {"fuzz_split", one, seed, NULL, words, 4096};
FUZZ_MAIN
