/* adapter.h - adapters made in memory, for test_adapter and fuzz_adapter. */
#ifndef KSLLM_ADAPTER_H
#define KSLLM_ADAPTER_H

#include "fixture.h"

/* The keys that every adapter has; alpha is twice the rank 4. */
static inline void ad_begin(fx_gguf *g, const char *arch)
{
    fx_begin(g);
    fx_kv_text(g, "general.architecture", arch);
    fx_kv_text(g, "general.type", "adapter");
    fx_kv_text(g, "adapter.type", "lora");
    fx_kv_f32(g, "adapter.lora.alpha", 8);
}

/* Half a pair, "a" or "b", of random weights. */
static inline void ad_half(fx_gguf *g, const char *name, const char *half,
                           ksllm_type type, uint64_t n_in, uint64_t n_out,
                           uint64_t seed)
{
    char z[96];
    snprintf(z, sizeof z, "%s.lora_%s", name, half);
    seed ^= fx_hash(FX_HASH, z, strlen(z));
    fx_fill(fx_tensor(g, z, type, n_in, n_out), fx_type_of(type),
            n_in * n_out, &seed);
}

static inline void ad_pair(fx_gguf *g, const char *name, uint64_t n_in,
                           uint64_t n_out, uint64_t rank, uint64_t seed)
{
    ad_half(g, name, "a", KSLLM_TYPE_F16, n_in, rank, seed);
    ad_half(g, name, "b", KSLLM_TYPE_F32, rank, n_out, seed);
}

/* On every matrix of a fixture's model, and its head. */
static inline void ad_fill(fx_gguf *g, const fx_spec *s, uint64_t rank,
                           uint64_t seed)
{
    uint64_t e = s->n_embd, q = (uint64_t)s->n_heads * s->head_dim;
    uint64_t kv = (uint64_t)s->n_kv_heads * s->head_dim, f = s->n_ff;
    const struct {
        const char *name;
        uint64_t n_in, n_out;
    } all[] = {{"attn_q", e, q}, {"attn_k", e, kv}, {"attn_v", e, kv},
               {"attn_output", q, e}, {"ffn_gate", e, f}, {"ffn_up", e, f},
               {"ffn_down", f, e}};
    for (uint32_t layer = 0; layer < s->n_layers; layer++)
        for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
            char z[64];
            snprintf(z, sizeof z, "blk.%u.%s.weight", (unsigned)layer,
                     all[i].name);
            ad_pair(g, z, all[i].n_in, all[i].n_out, rank, seed);
        }
    ad_pair(g, "output.weight", e, fx_vocab_size(s->vocab), rank, seed);
}

static inline fx_file ad_file(const fx_spec *s, uint64_t rank, uint64_t seed)
{
    fx_gguf g;
    ad_begin(&g, s->arch);
    ad_fill(&g, s, rank, seed);
    return fx_end(&g);
}

#endif
