/* fuzz_adapter.c - an adapter from anywhere: opened, used, closed.
 *
 * An input: the file, and a last byte of options. A file of n bytes may take
 * 64 KiB and 32 n bytes to open, a call that runs with it none; what opens
 * gives the same bits whatever the batch.
 */
#include "adapter.h"
#include "fuzz.h"

static ksllm_model *model;
static fx_file model_file;
static fx_alloc memory;

static void open_model(void)
{
    ksllm_model_options o;
    ksllm_error e;
    if (model)
        return;
    fx_alloc_init(&memory);
    ksllm_model_options_init(&o);
    o.allocator = &memory.allocator;
    model_file = fx_model(&fx_mini);
    fx_must(ksllm_model_open_memory(model_file.data, model_file.size, &o,
                                    &model, &e), &e);
}

static uint64_t run(const ksllm_adapter *a, uint32_t n_batch, size_t from)
{
    int32_t tokens[12];
    ksllm_error e;
    ksllm_session_options o = fx_small_options();
    o.n_ctx = 16;
    o.n_batch = n_batch;
    o.max_rank = ksllm_adapter_rank(a);
    fx_prompt(tokens, 12, 3);
    for (int i = 0; i < 12; i++)
        tokens[i] %= (int32_t)fx_n_vocab(model);
    ksllm_session *s = fx_create(model, &o);
    long calls = memory.calls;
    MUST(ksllm_session_set_adapter(s, a, 0.5f, from, &e) == KSLLM_OK, "%s",
         e.text);
    MUST(ksllm_session_sync(s, tokens, 12, NULL, &e) == KSLLM_OK, "%s",
         e.text);
    MUST(memory.calls == calls, "a call on a session allocates");
    uint64_t h = fx_logits_hash(model, s);
    ksllm_session_free(s);
    return h;
}

static void one(const uint8_t *data, size_t size)
{
    ksllm_adapter *a = NULL;
    ksllm_error e;
    if (!size)
        return;
    open_model();
    uint8_t *copy = fuzz_copy(data, size - 1);
    uint8_t how = data[size - 1];
    size_t live = memory.live;
    memory.peak = live;
    memory.fail_at = how & 1 ? memory.calls + 1 + (how >> 4) : 0;
    ksllm_status st =
        ksllm_adapter_open_memory(model, copy, size - 1, &a, &e);
    memory.fail_at = 0;
    MUST((st == KSLLM_OK) == (a != NULL), "%d", (int)st);
    MUST(memory.peak - live <= (64 << 10) + 32 * size, "%zu bytes for %zu",
         memory.peak - live, size);
    if (a)
        MUST(run(a, 12, how & 7) == run(a, 5, how & 7), "other bits");
    ksllm_adapter_close(a);
    MUST(memory.live == live && !memory.wrong_size, "a leak");
    fuzz_free(copy, size - 1);
}

static bool seed(size_t i, fx_bytes *out)
{
    fx_gguf g;
    if (i >= 6)
        return false;
    ad_begin(&g, "llama");
    if (i & 1) {
        fx_kv_array(&g, "adapter.alora.invocation_tokens", KSLLM_META_U32, 2);
        fx_int(&g.kv, 3, 4);
        fx_int(&g.kv, 4, 4);
    }
    if (i < 4)
        ad_fill(&g, &fx_mini, 1 + 2 * i, i);
    else
        ad_pair(&g, "blk.0.attn_q.weight", 32, 32, 3, i);
    fx_file f = fx_end(&g);
    fx_put(out, f.data, f.size);
    fx_int(out, i * 8, 1);
    free(f.data);
    return true;
}

static const char *const words[] = {
    "general.architecture", "llama", "general.type", "adapter",
    "adapter.type", "lora", "adapter.lora.alpha", ".lora_a", ".lora_b",
    "adapter.alora.invocation_tokens", "blk.0.attn_q.weight",
    "blk.0.ffn_down.weight", "output.weight", "token_embd.weight",
    "\1\0\0\0\0\0\0\0", "\0\0\x80\x7f", "\0\0\xc0\x7f", "\0\x7c", NULL
};

static const fuzz_target fuzz = {"fuzz_adapter", one, seed, NULL, words,
                                 1 << 17};
FUZZ_MAIN
