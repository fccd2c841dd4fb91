/* parrot.c - writes a model that says what stands in its script: what an
 * answer must be is known to the letter, whatever program asks for it.
 *
 *     parrot OUT.gguf [PAD]    with PAD bytes before it and 4096 after it
 *
 * It is a Llama whose layers add nothing. The embedding of each token is the
 * output row of the one that follows it, so it says the same at any temperature
 * up to 1. Its template chooses what is said, by the last message: `count` has
 * no end, `weather` with tools is a call, a tool's message is followed by the
 * weather, `think` thinks, all else is a greeting. Without a template, a
 * prompt that ends in # is followed by the count. The tokens of the script cut
 * characters anywhere.
 */
#include "fixture.h"

enum { N_EMBD = 128, N_FF = 4096, N_LAYERS = 4, N_HEADS = 2, HEAD_DIM = 64 };

static const char template[] =
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "<|im_end|>{% endfor %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% set last = messages[-1].content or '' %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if messages[-1].role == 'tool' %}<|say-weather|>"
    "{% elif tools and 'weather' in last %}<|say-call|>"
    "{% elif 'count' in last %}<|say-count|>"
    "{% elif 'think' in last %}<|say-think|>"
    "{% else %}<|say-hello|>{% endif %}{% endif %}"
    "{# <tool_call> #}";

enum { HELLO, THINK, CALL, WEATHER, COUNT, N_LINES };
static const char *const lines[N_LINES][2] = {
    {"<|say-hello|>", "안녕하세요, 반가워요 👩‍👩‍👧‍👦🇰🇷! "
                      "\"따옴표\" \\ and a tab\t<b>.\n둘째 줄입니다."},
    {"<|say-think|>", "<think>\n곰곰이 생각해 봅니다 🤔\n</think>\n\n"
                      "답은 둘입니다."},
    {"<|say-call|>", "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": "
                     "{\"city\": \"서울\", \"days\": 2}}\n</tool_call>"},
    {"<|say-weather|>", "서울은 맑습니다 ☀️"},
    {"<|say-count|>", "하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열 "}};

enum { MAX_VOCAB = 1024, IM_START = 256, IM_END = 257, SAY = 258 };

typedef struct parrot {
    fx_vocab v;
    const char *piece[MAX_VOCAB];
    size_t n_piece[MAX_VOCAB];
    uint32_t next[MAX_VOCAB];
} parrot;

static bool known(const parrot *p, const char *s, size_t n)
{
    for (uint32_t i = SAY; i < p->v.n; i++)
        if (p->n_piece[i] == n && memcmp(p->piece[i], s, n) == 0)
            return true;
    return n == 1;
}

/* The tokens of a line: two bytes each, or as many as make it a new one. */
static void add_line(parrot *p, int line)
{
    const char *s = lines[line][1];
    uint32_t first = p->v.n, at = SAY + (uint32_t)line;
    while (*s) {
        char text[64];
        size_t n = 2;
        while (s[n] && (known(p, s, n) || !s[n + 1]))
            n++;
        if (known(p, s, n) || p->v.n == MAX_VOCAB) {
            fprintf(stderr, "the line ends in a token twice: %s\n", s);
            exit(1);
        }
        p->piece[p->v.n] = s;
        p->n_piece[p->v.n] = n;
        p->next[at] = p->v.n;
        at = p->v.n;
        fx_vocab_add_n(&p->v, text, fx_alphabet_text(s, n, text), FX_NORMAL);
        s += n;
    }
    p->next[at] = line == COUNT ? first : IM_END;
}

static void make_vocab(parrot *p)
{
    char s[8];
    for (int i = 0; i < 256; i++)
        fx_vocab_add_n(&p->v, s, fx_alphabet((uint8_t)i, s), FX_NORMAL);
    fx_vocab_add(&p->v, "<|im_start|>", FX_CONTROL);
    fx_vocab_add(&p->v, "<|im_end|>", FX_CONTROL);
    for (int i = 0; i < N_LINES; i++)
        fx_vocab_add(&p->v, lines[i][0], FX_CONTROL);
    for (int i = 0; i < N_LINES; i++)
        add_line(p, i);
    for (int i = 0; i < SAY; i++)
        p->next[i] = p->next[SAY + (i == '#' ? COUNT : HELLO)];
}

static void put_vocab(fx_gguf *g, const fx_vocab *v)
{
    fx_kv_text(g, "tokenizer.ggml.model", "gpt2");
    fx_kv_text(g, "tokenizer.ggml.pre", "gpt-2");
    fx_kv_array(g, "tokenizer.ggml.tokens", KSLLM_META_TEXT, v->n);
    fx_put(&g->kv, v->tokens.data, v->tokens.size);
    fx_kv_array(g, "tokenizer.ggml.token_type", KSLLM_META_I32, v->n);
    fx_put(&g->kv, v->types.data, v->types.size);
    fx_kv_array(g, "tokenizer.ggml.merges", KSLLM_META_TEXT, 0);
    fx_kv_u32(g, "tokenizer.ggml.bos_token_id", IM_START);
    fx_kv_u32(g, "tokenizer.ggml.eos_token_id", IM_END);
    fx_kv_bool(g, "tokenizer.ggml.add_bos_token", false);
    fx_kv_text(g, "tokenizer.chat_template", template);
}

static void put_f32(uint8_t *p, float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    fx_set(p, u, 4);
}

static void put_ones(fx_gguf *g, const char *name)
{
    uint8_t *p = fx_tensor(g, name, KSLLM_TYPE_F32, N_EMBD, 0);
    for (int i = 0; i < N_EMBD; i++)
        put_f32(p + 4 * i, 1);
}

/* Rows of 1 and -1: row i is that of token id[i]. */
static void put_rows(fx_gguf *g, const char *name, const uint32_t *id,
                     uint32_t n)
{
    uint8_t *p = fx_tensor(g, name, KSLLM_TYPE_F32, N_EMBD, n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t rng = id[i] + 1;
        for (int k = 0; k < N_EMBD; k++, p += 4)
            put_f32(p, fx_next(&rng) >> 63 ? 1 : -1);
    }
}

static void put_layer(fx_gguf *g, int layer)
{
    enum { Q = N_HEADS * HEAD_DIM };
    static const struct { const char *name; uint64_t in, out; } matrix[] = {
        {"attn_q", N_EMBD, Q}, {"attn_k", N_EMBD, Q}, {"attn_v", N_EMBD, Q},
        {"attn_output", Q, N_EMBD}, {"ffn_gate", N_EMBD, N_FF},
        {"ffn_up", N_EMBD, N_FF}, {"ffn_down", N_FF, N_EMBD}};
    char name[64];
    for (size_t i = 0; i < sizeof matrix / sizeof matrix[0]; i++) {
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, matrix[i].name);
        fx_tensor(g, name, KSLLM_TYPE_Q4_0, matrix[i].in, matrix[i].out);
    }
    snprintf(name, sizeof name, "blk.%d.attn_norm.weight", layer);
    put_ones(g, name);
    snprintf(name, sizeof name, "blk.%d.ffn_norm.weight", layer);
    put_ones(g, name);
}

static fx_file make_model(parrot *p)
{
    static const fx_spec spec = {
        "parrot", "llama", N_LAYERS, N_EMBD, N_FF, N_HEADS, N_HEADS, HEAD_DIM,
        0, KSLLM_TYPE_Q4_0, false, FX_ROPE_PLAIN, FX_BPE, FX_SOUND};
    static uint32_t self[MAX_VOCAB];
    fx_gguf g;
    make_vocab(p);
    for (uint32_t i = 0; i < p->v.n; i++)
        self[i] = i;
    fx_begin(&g);
    fx_model_keys(&g, &spec);
    put_vocab(&g, &p->v);
    put_rows(&g, "token_embd.weight", p->next, p->v.n);
    put_rows(&g, "output.weight", self, p->v.n);
    for (int i = 0; i < N_LAYERS; i++)
        put_layer(&g, i);
    put_ones(&g, "output_norm.weight");
    return fx_end(&g);
}

int main(int argc, char **argv)
{
    static parrot p;
    long pad = argc > 2 ? atol(argv[2]) : 0;
    FILE *out = argc > 1 ? fopen(argv[1], "wb") : NULL;
    if (!out) {
        fprintf(stderr, "usage: parrot OUT.gguf [PAD]\n");
        return 2;
    }
    fx_file f = make_model(&p);
    for (long i = 0; i < pad; i++)
        fputc(0xa5, out);
    fwrite(f.data, 1, f.size, out);
    for (long i = 0; pad && i < 4096; i++)
        fputc(0x5a, out);
    printf("%zu\n", f.size);        /* bytes of the model alone */
    return fclose(out) != 0;
}
