/* convert.c, part of ksllm-quant.c - a Hugging Face folder to GGUF.
 * Architectures are data: how their tensors and config keys are called here
 * and there. What a row does not know is an error that names it, before
 * anything is written. */

typedef struct {
    const char *from, *to; /* "{}" is the layer, a second one the expert */
} cv_name;

static const cv_name CV_COMMON[] = {
    {"model.embed_tokens.weight", "token_embd.weight"},
    {"model.norm.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"model.layers.{}.self_attn.q_proj.weight", "blk.{}.attn_q.weight"},
    {"model.layers.{}.self_attn.k_proj.weight", "blk.{}.attn_k.weight"},
    {"model.layers.{}.self_attn.v_proj.weight", "blk.{}.attn_v.weight"},
    {"model.layers.{}.self_attn.o_proj.weight", "blk.{}.attn_output.weight"},
    {"model.layers.{}.self_attn.q_proj.bias", "blk.{}.attn_q.bias"},
    {"model.layers.{}.self_attn.k_proj.bias", "blk.{}.attn_k.bias"},
    {"model.layers.{}.self_attn.v_proj.bias", "blk.{}.attn_v.bias"},
    {"model.layers.{}.self_attn.o_proj.bias", "blk.{}.attn_output.bias"},
    {"model.layers.{}.self_attn.q_norm.weight", "blk.{}.attn_q_norm.weight"},
    {"model.layers.{}.self_attn.k_norm.weight", "blk.{}.attn_k_norm.weight"},
    {"model.layers.{}.mlp.gate_proj.weight", "blk.{}.ffn_gate.weight"},
    {"model.layers.{}.mlp.up_proj.weight", "blk.{}.ffn_up.weight"},
    {"model.layers.{}.mlp.down_proj.weight", "blk.{}.ffn_down.weight"},
    {NULL, NULL},
};

static const cv_name CV_PRE_NORMS[] = {
    {"model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"},
    {"model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.ffn_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_POST_NORMS[] = { /* EXAONE 4: no norm in front */
    {"model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.post_attention_norm.weight"},
    {"model.layers.{}.post_feedforward_layernorm.weight",
        "blk.{}.post_ffw_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_GEMMA_NORMS[] = {
    {"model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"},
    {"model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.post_attention_norm.weight"},
    {"model.layers.{}.pre_feedforward_layernorm.weight",
        "blk.{}.ffn_norm.weight"},
    {"model.layers.{}.post_feedforward_layernorm.weight",
        "blk.{}.post_ffw_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_GEMMA4[] = {
    {"model.embed_tokens_per_layer.weight", "per_layer_token_embd.weight"},
    {"model.per_layer_model_projection.weight", "per_layer_model_proj.weight"},
    {"model.per_layer_projection_norm.weight", "per_layer_proj_norm.weight"},
    {"model.layers.{}.per_layer_input_gate.weight", "blk.{}.inp_gate.weight"},
    {"model.layers.{}.per_layer_projection.weight", "blk.{}.proj.weight"},
    {"model.layers.{}.post_per_layer_input_norm.weight",
        "blk.{}.post_norm.weight"},
    {"model.layers.{}.layer_scalar", "blk.{}.layer_output_scale.weight"},
    /* experts beside the dense feed-forward */
    {"model.layers.{}.router.proj.weight", "blk.{}.ffn_gate_inp.weight"},
    {"model.layers.{}.router.scale", "blk.{}.ffn_gate_inp.scale"},
    {"model.layers.{}.router.per_expert_scale", "blk.{}.ffn_down_exps.scale"},
    {"model.layers.{}.experts.gate_up_proj", "blk.{}.ffn_gate_up_exps.weight"},
    {"model.layers.{}.experts.down_proj", "blk.{}.ffn_down_exps.weight"},
    {"model.layers.{}.post_feedforward_layernorm_1.weight",
        "blk.{}.post_ffw_norm_1.weight"},
    {"model.layers.{}.pre_feedforward_layernorm_2.weight",
        "blk.{}.pre_ffw_norm_2.weight"},
    {"model.layers.{}.post_feedforward_layernorm_2.weight",
        "blk.{}.post_ffw_norm_2.weight"},
    {NULL, NULL},
};

static const cv_name CV_EXAONE[] = {
    {"transformer.wte.weight", "token_embd.weight"},
    {"transformer.ln_f.weight", "output_norm.weight"},
    {"lm_head.weight", "output.weight"},
    {"transformer.h.{}.ln_1.weight", "blk.{}.attn_norm.weight"},
    {"transformer.h.{}.ln_2.weight", "blk.{}.ffn_norm.weight"},
    {"transformer.h.{}.attn.attention.q_proj.weight", "blk.{}.attn_q.weight"},
    {"transformer.h.{}.attn.attention.k_proj.weight", "blk.{}.attn_k.weight"},
    {"transformer.h.{}.attn.attention.v_proj.weight", "blk.{}.attn_v.weight"},
    {"transformer.h.{}.attn.attention.out_proj.weight",
        "blk.{}.attn_output.weight"},
    {"transformer.h.{}.mlp.c_fc_0.weight", "blk.{}.ffn_gate.weight"},
    {"transformer.h.{}.mlp.c_fc_1.weight", "blk.{}.ffn_up.weight"},
    {"transformer.h.{}.mlp.c_proj.weight", "blk.{}.ffn_down.weight"},
    {NULL, NULL},
};

static const cv_name CV_PERI_NORMS[] = { /* HyperCLOVA X Think */
    {"model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"},
    {"model.layers.{}.post_norm1.weight", "blk.{}.post_attention_norm.weight"},
    {"model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.ffn_norm.weight"},
    {"model.layers.{}.post_norm2.weight", "blk.{}.post_ffw_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_GLM_NORMS[] = { /* llama.cpp's name for ffn_norm */
    {"model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"},
    {"model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.post_attention_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_VAETKI_NORMS[] = {
    {"model.layers.{}.input_layernorm.weight", "blk.{}.attn_norm.weight"},
    {"model.layers.{}.post_attention_layernorm.weight",
        "blk.{}.post_attention_norm.weight"},
    {"model.layers.{}.pre_mlp_layernorm.weight", "blk.{}.ffn_norm.weight"},
    {"model.layers.{}.post_mlp_layernorm.weight",
        "blk.{}.post_ffw_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_KORMO_NORMS[] = {
    {"model.layers.{}.pre_attention_layernorm.weight",
        "blk.{}.attn_norm.weight"},
    {"model.layers.{}.pre_mlp_layernorm.weight", "blk.{}.ffn_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_PHI3[] = {
    {"model.layers.{}.self_attn.qkv_proj.weight", "blk.{}.attn_qkv.weight"},
    {"model.layers.{}.mlp.gate_up_proj.weight", "blk.{}.ffn_up.weight"},
    {NULL, NULL},
};

static const cv_name CV_SHARED_MLP[] = { /* gate and up are one: cv_take */
    {"model.layers.{}.shared_mlp.input_linear.weight",
        "blk.{}.ffn_gate.weight"},
    {"model.layers.{}.shared_mlp.input_linear.weight", "blk.{}.ffn_up.weight"},
    {"model.layers.{}.shared_mlp.output_linear.weight",
        "blk.{}.ffn_down.weight"},
    {NULL, NULL},
};

static const cv_name CV_EXPERTS[] = {
    {"model.layers.{}.mlp.gate.weight", "blk.{}.ffn_gate_inp.weight"},
    {"model.layers.{}.mlp.gate.e_score_correction_bias",
        "blk.{}.exp_probs_b.bias"},
    {"model.layers.{}.mlp.e_score_correction_bias", "blk.{}.exp_probs_b.bias"},
    {"model.layers.{}.mlp.experts.{}.gate_proj.weight",
        "blk.{}.ffn_gate_exps.weight"},
    {"model.layers.{}.mlp.experts.{}.up_proj.weight",
        "blk.{}.ffn_up_exps.weight"},
    {"model.layers.{}.mlp.experts.{}.down_proj.weight",
        "blk.{}.ffn_down_exps.weight"},
    {"model.layers.{}.mlp.shared_experts.gate_proj.weight",
        "blk.{}.ffn_gate_shexp.weight"},
    {"model.layers.{}.mlp.shared_experts.up_proj.weight",
        "blk.{}.ffn_up_shexp.weight"},
    {"model.layers.{}.mlp.shared_experts.down_proj.weight",
        "blk.{}.ffn_down_shexp.weight"},
    {NULL, NULL},
};

/* Attention through a latent vector. What makes keys and values is one tensor
 * there and two here, and so is A.X K2's query with its gate: cv_take. */
static const cv_name CV_LATENT[] = {
    {"model.layers.{}.self_attn.q_a_proj.weight", "blk.{}.attn_q_a.weight"},
    {"model.layers.{}.self_attn.q_a_layernorm.weight",
        "blk.{}.attn_q_a_norm.weight"},
    {"model.layers.{}.self_attn.q_b_proj.weight", "blk.{}.attn_q_b.weight"},
    {"model.layers.{}.self_attn.kv_a_proj_with_mqa.weight",
        "blk.{}.attn_kv_a_mqa.weight"},
    {"model.layers.{}.self_attn.kv_a_layernorm.weight",
        "blk.{}.attn_kv_a_norm.weight"},
    {"model.layers.{}.self_attn.kv_b_proj.weight", "blk.{}.attn_k_b.weight"},
    {"model.layers.{}.self_attn.kv_b_proj.weight", "blk.{}.attn_v_b.weight"},
    {NULL, NULL},
};

static const cv_name CV_AXK1[] = {
    {"model.layers.{}.post_mlp_layernorm.weight",
        "blk.{}.post_ffw_norm.weight"},
    {NULL, NULL},
};

static const cv_name CV_AXK2[] = {
    {"model.layers.{}.self_attn.q_b_proj.weight", "blk.{}.attn_gate.weight"},
    {"model.layers.{}.input_layernorm.norm.weight",
        "blk.{}.attn_norm.weight"},
    {"model.layers.{}.input_layernorm.W_down.weight",
        "blk.{}.attn_norm_gate_a.weight"},
    {"model.layers.{}.input_layernorm.W_up.weight",
        "blk.{}.attn_norm_gate_b.weight"},
    {"model.layers.{}.post_attention_layernorm.norm.weight",
        "blk.{}.ffn_norm.weight"},
    {"model.layers.{}.post_attention_layernorm.W_down.weight",
        "blk.{}.ffn_norm_gate_a.weight"},
    {"model.layers.{}.post_attention_layernorm.W_up.weight",
        "blk.{}.ffn_norm_gate_b.weight"},
    {NULL, NULL},
};

static const cv_name CV_LFM2[] = {
    {"model.embedding_norm.weight", "token_embd_norm.weight"},
    {"model.layers.{}.operator_norm.weight", "blk.{}.attn_norm.weight"},
    {"model.layers.{}.ffn_norm.weight", "blk.{}.ffn_norm.weight"},
    {"model.layers.{}.self_attn.out_proj.weight", "blk.{}.attn_output.weight"},
    {"model.layers.{}.self_attn.q_layernorm.weight",
        "blk.{}.attn_q_norm.weight"},
    {"model.layers.{}.self_attn.k_layernorm.weight",
        "blk.{}.attn_k_norm.weight"},
    {"model.layers.{}.conv.in_proj.weight", "blk.{}.shortconv.in_proj.weight"},
    {"model.layers.{}.conv.out_proj.weight",
        "blk.{}.shortconv.out_proj.weight"},
    {"model.layers.{}.conv.conv.weight", "blk.{}.shortconv.conv.weight"},
    {"model.layers.{}.feed_forward.w1.weight", "blk.{}.ffn_gate.weight"},
    {"model.layers.{}.feed_forward.w3.weight", "blk.{}.ffn_up.weight"},
    {"model.layers.{}.feed_forward.w2.weight", "blk.{}.ffn_down.weight"},
    {"model.layers.{}.feed_forward.gate.weight", "blk.{}.ffn_gate_inp.weight"},
    {"model.layers.{}.feed_forward.expert_bias", "blk.{}.exp_probs_b.bias"},
    {"model.layers.{}.feed_forward.experts.{}.w1.weight",
        "blk.{}.ffn_gate_exps.weight"},
    {"model.layers.{}.feed_forward.experts.{}.w3.weight",
        "blk.{}.ffn_up_exps.weight"},
    {"model.layers.{}.feed_forward.experts.{}.w2.weight",
        "blk.{}.ffn_down_exps.weight"},
    {NULL, NULL},
};

/* The gated delta net. Value heads lie by key head there, and in turns of key
 * heads here, as llama.cpp has them: cv_tile. */
static const cv_name CV_DELTA[] = {
    {"model.layers.{}.linear_attn.in_proj_qkv.weight",
        "blk.{}.attn_qkv.weight"},
    {"model.layers.{}.linear_attn.in_proj_z.weight", "blk.{}.attn_gate.weight"},
    {"model.layers.{}.linear_attn.in_proj_b.weight", "blk.{}.ssm_beta.weight"},
    {"model.layers.{}.linear_attn.in_proj_a.weight", "blk.{}.ssm_alpha.weight"},
    {"model.layers.{}.linear_attn.conv1d.weight", "blk.{}.ssm_conv1d.weight"},
    {"model.layers.{}.linear_attn.dt_bias", "blk.{}.ssm_dt.bias"},
    {"model.layers.{}.linear_attn.A_log", "blk.{}.ssm_a"},
    {"model.layers.{}.linear_attn.norm.weight", "blk.{}.ssm_norm.weight"},
    {"model.layers.{}.linear_attn.out_proj.weight", "blk.{}.ssm_out.weight"},
    {NULL, NULL},
};

/* Experts of a layer in one tensor, gate and up together: cv_take; or each
 * alone. */
static const cv_name CV_QWEN_EXPERTS[] = {
    {"model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_gate_exps.weight"},
    {"model.layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_up_exps.weight"},
    {"model.layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps.weight"},
    {"model.layers.{}.mlp.shared_expert.gate_proj.weight",
        "blk.{}.ffn_gate_shexp.weight"},
    {"model.layers.{}.mlp.shared_expert.up_proj.weight",
        "blk.{}.ffn_up_shexp.weight"},
    {"model.layers.{}.mlp.shared_expert.down_proj.weight",
        "blk.{}.ffn_down_shexp.weight"},
    {"model.layers.{}.mlp.shared_expert_gate.weight",
        "blk.{}.ffn_gate_inp_shexp.weight"},
    {NULL, NULL},
};

/* XLM-R: norms after sums, all with a bias; a reranker's head. */
static const cv_name CV_XLMR_NAMES[] = {
    {"embeddings.word_embeddings.weight", "token_embd.weight"},
    {"embeddings.position_embeddings.weight", "position_embd.weight"},
    {"embeddings.token_type_embeddings.weight", "token_types.weight"},
    {"embeddings.LayerNorm.weight", "token_embd_norm.weight"},
    {"embeddings.LayerNorm.bias", "token_embd_norm.bias"},
    {"classifier.dense.weight", "cls.weight"},
    {"classifier.dense.bias", "cls.bias"},
    {"classifier.out_proj.weight", "cls.output.weight"},
    {"classifier.out_proj.bias", "cls.output.bias"},
#define LAYER(from, to)                                                       \
    {"encoder.layer.{}." from ".weight", "blk.{}." to ".weight"},             \
    {"encoder.layer.{}." from ".bias", "blk.{}." to ".bias"},
    LAYER("attention.self.query", "attn_q")
    LAYER("attention.self.key", "attn_k")
    LAYER("attention.self.value", "attn_v")
    LAYER("attention.output.dense", "attn_output")
    LAYER("attention.output.LayerNorm", "attn_output_norm")
    LAYER("intermediate.dense", "ffn_up")
    LAYER("output.dense", "ffn_down")
    LAYER("output.LayerNorm", "layer_output_norm")
#undef LAYER
    {NULL, NULL},
};

/* Tensors of a checkpoint that a text model does without, and what they are
 * for; NULL: not worth a line. */
typedef struct {
    const char *name, *what;
} cv_skip;

static const char CV_MTP[] = "predicting more than one token";
static const char CV_MEDIA[] = "images and sound";

static const cv_skip CV_SKIP[] = {
    {"*.rotary_emb.inv_freq", NULL}, {"*.attention.bias", NULL},
    {"*.masked_bias", NULL}, {"mtp.*", CV_MTP}, {"model.mtp.*", CV_MTP},
    {"*.self_attn.indexer.*", "sparse attention; contexts are limited instead"},
    {"vision_tower.*", CV_MEDIA}, {"model.vision_tower.*", CV_MEDIA},
    {"visual.*", CV_MEDIA}, {"model.visual.*", CV_MEDIA},
    {"vision_model.*", CV_MEDIA}, {"model.vision_model.*", CV_MEDIA},
    {"*mm_projector.*", CV_MEDIA}, {"*multi_modal_projector.*", CV_MEDIA},
    {"model.projector.*", CV_MEDIA}, {"model.vision_projector.*", CV_MEDIA},
    {"*.embed_vision.*", CV_MEDIA}, {"*.embed_audio.*", CV_MEDIA},
    {"*image_newline", CV_MEDIA}, {"model.audio_*", CV_MEDIA},
    {"thinker.audio_tower.*", CV_MEDIA},
    {"model.discrete_*", "discrete codes of images and sound"},
    {"model.video_audio_compressor.*", CV_MEDIA},
};

static const char *const CV_PREFIX[] = { /* of a text model inside another */
    "model.language_model.", "language_model.", "thinker.",
};

enum {
    CV_PERMUTE = 1,     /* q and k: pairs (i, i + n/2) to (2i, 2i + 1) */
    CV_NORM_PLUS_1 = 2, /* norms are stored less 1 */
    CV_GEMMA = 4,       /* window, scale and rope of Gemma 3 */
    CV_WINDOW_OFF = 8,  /* sliding_window counts only when switched on */
    CV_WINDOWS = 16,    /* some layers have it, and the config says which */
    CV_MOE = 32,        /* a router with sigmoid scores, as DeepSeek-V3's */
    CV_MLA = 64,
    CV_GATED = 128,     /* A.X K2 */
    CV_SCALES = 256,    /* multipliers of HyperCLOVA X */
    CV_TIED = 512,      /* when the config does not say */
    CV_ROPES = 1024,    /* one for local layers, one for the others */
    CV_SKIPS = 2048,    /* Solar Pro's streams */
    CV_NO_ROPE = 4096,  /* every fourth layer has none */
    CV_TEMPER = 8192,   /* queries grow with their position */
    CV_LONG = 16384,    /* part of a head rotates; LongRoPE */
    CV_SHARED = 32768,  /* Granite 4 without its experts and Mamba layers */
    CV_CONV = 65536,    /* LFM2: some layers are short convolutions */
    CV_BOTH_WAYS = 1 << 17, /* an encoder */
    CV_RECUR = 1 << 18, /* Qwen 3.5: most layers have a state */
    CV_SOFTMAX = 1 << 19, /* with CV_MOE: its scores are a softmax, and those
                             of the chosen are normed */
    CV_LAYERED = 1 << 20, /* Gemma 4: two lengths of heads, shared caches */
    CV_XLMR = 1 << 21,  /* learned positions, LayerNorm, no next token */
};

typedef struct {
    const char *model_type, *arch;
    const cv_name *names[6];
    u32 flags;
    const char *act; /* the activation its graph has */
} cv_family;

static const cv_family CV_FAMILIES[] = {
    {"llama", "llama", {CV_COMMON, CV_PRE_NORMS}, CV_PERMUTE, "silu"},
    {"mistral", "llama", {CV_COMMON, CV_PRE_NORMS},
        CV_PERMUTE | CV_WINDOW_OFF, "silu"},
    {"qwen2", "qwen2", {CV_COMMON, CV_PRE_NORMS}, CV_WINDOW_OFF, "silu"},
    {"qwen3", "qwen3", {CV_COMMON, CV_PRE_NORMS}, CV_WINDOW_OFF, "silu"},
    {"qwen2_vl_text", "qwen2", {CV_COMMON, CV_PRE_NORMS}, CV_WINDOW_OFF, "silu"},
    {"qwen2_5_vl_text", "qwen2", {CV_COMMON, CV_PRE_NORMS}, CV_WINDOW_OFF,
        "silu"},
    {"qwen3_vl_text", "qwen3", {CV_COMMON, CV_PRE_NORMS}, 0, "silu"},
    {"qwen3_asr_text", "qwen3", {CV_COMMON, CV_PRE_NORMS}, 0, "silu"},
    {"kormo", "qwen2", {CV_COMMON, CV_KORMO_NORMS}, 0, "silu"},
    {"granite", "granite", {CV_COMMON, CV_PRE_NORMS}, CV_PERMUTE | CV_SCALES,
        "silu"},
    {"granitemoehybrid", "granite", {CV_COMMON, CV_PRE_NORMS, CV_SHARED_MLP},
        CV_PERMUTE | CV_SCALES | CV_SHARED, "silu"},
    {"smollm3", "smollm3", {CV_COMMON, CV_PRE_NORMS},
        CV_PERMUTE | CV_NO_ROPE | CV_TIED | CV_WINDOW_OFF, "silu"},
    {"ministral3", "mistral3", {CV_COMMON, CV_PRE_NORMS},
        CV_PERMUTE | CV_TEMPER, "silu"},
    {"phi3", "phi3", {CV_COMMON, CV_PHI3, CV_PRE_NORMS}, CV_LONG, "silu"},
    {"gemma3_text", "gemma3", {CV_COMMON, CV_GEMMA_NORMS},
        CV_NORM_PLUS_1 | CV_GEMMA | CV_TIED, "gelu_pytorch_tanh"},
    {"gemma3", "gemma3", {CV_COMMON, CV_GEMMA_NORMS},
        CV_NORM_PLUS_1 | CV_GEMMA | CV_TIED, "gelu_pytorch_tanh"},
    {"gemma3_text", "gemma-embedding", {CV_COMMON, CV_GEMMA_NORMS},
        CV_NORM_PLUS_1 | CV_GEMMA | CV_TIED | CV_BOTH_WAYS,
        "gelu_pytorch_tanh"},
    {"gemma4_text", "gemma4", {CV_COMMON, CV_GEMMA_NORMS, CV_GEMMA4},
        CV_LAYERED | CV_WINDOWS | CV_ROPES | CV_TIED, "gelu_pytorch_tanh"},
    {"exaone", "exaone", {CV_EXAONE}, 0, "silu"},
    {"exaone4", "exaone4", {CV_COMMON, CV_POST_NORMS}, CV_WINDOWS, "silu"},
    {"exaone4_5_text", "exaone4", {CV_COMMON, CV_POST_NORMS}, CV_WINDOWS,
        "silu"},
    {"exaone_moe", "exaone-moe", {CV_COMMON, CV_PRE_NORMS, CV_EXPERTS},
        CV_WINDOWS | CV_MOE, "silu"},
    {"hyperclovax", "hyperclovax", {CV_COMMON, CV_PERI_NORMS},
        CV_PERMUTE | CV_SCALES, "silu"},
    {"solar_open", "glm4moe", {CV_COMMON, CV_GLM_NORMS, CV_EXPERTS}, CV_MOE,
        "silu"},
    {"deepseek_v3", "deepseek2",
        {CV_COMMON, CV_PRE_NORMS, CV_EXPERTS, CV_LATENT}, CV_MOE | CV_MLA,
        "silu"},
    {"axk1", "axk1",
        {CV_COMMON, CV_PRE_NORMS, CV_EXPERTS, CV_LATENT, CV_AXK1},
        CV_MOE | CV_MLA, "silu"},
    {"axk2", "axk2", {CV_COMMON, CV_PRE_NORMS, CV_EXPERTS, CV_LATENT, CV_AXK2},
        CV_MOE | CV_MLA | CV_GATED, "silu"},
    {"vaetki", "vaetki",
        {CV_COMMON, CV_VAETKI_NORMS, CV_EXPERTS, CV_LATENT},
        CV_MOE | CV_MLA | CV_WINDOWS | CV_ROPES | CV_NORM_PLUS_1, "silu"},
    {"kanana2_tiny", "kanana2-tiny", {CV_COMMON, CV_PRE_NORMS},
        CV_WINDOWS | CV_ROPES | CV_TIED, "silu"},
    {"solar", "solar", {CV_COMMON, CV_PRE_NORMS}, CV_PERMUTE | CV_SKIPS,
        "silu"},
    {"qwen3_5_text", "qwen35", {CV_COMMON, CV_GLM_NORMS, CV_DELTA},
        CV_RECUR | CV_NORM_PLUS_1, "silu"},
    {"qwen3_5_moe_text", "qwen35moe",
        {CV_COMMON, CV_GLM_NORMS, CV_DELTA, CV_EXPERTS, CV_QWEN_EXPERTS},
        CV_RECUR | CV_NORM_PLUS_1 | CV_MOE | CV_SOFTMAX, "silu"},
    {"xlm-roberta", "bert", {CV_XLMR_NAMES}, CV_XLMR | CV_TIED, "gelu"},
    {"lfm2", "lfm2", {CV_COMMON, CV_LFM2}, CV_CONV | CV_TIED, "silu"},
    {"lfm2_moe", "lfm2moe", {CV_COMMON, CV_LFM2}, CV_CONV | CV_TIED | CV_MOE,
        "silu"},
};

/* Config keys; alternatives are separated by '|'. */
typedef enum { CV_INT, CV_FLOAT, CV_BOOL, CV_WIDTH } cv_kind;

typedef struct {
    const char *from, *to;
    cv_kind kind;
    bool needed;
    u32 of; /* flags of the families that it is for; 0: all */
} cv_key;

static const cv_key CV_KEYS[] = {
    {"num_hidden_layers|num_layers", "block_count", CV_INT, true, 0},
    {"hidden_size", "embedding_length", CV_INT, true, 0},
    {"block_ff_dim|intermediate_size|moe_intermediate_size",
        "feed_forward_length", CV_WIDTH, true, 0},
    {"num_attention_heads", "attention.head_count", CV_INT, true, 0},
    {"rms_norm_eps|layer_norm_epsilon|layer_norm_eps|norm_eps",
        "attention.layer_norm_rms_epsilon", CV_FLOAT, true, 0},
    {"layer_norm_eps", "attention.layer_norm_epsilon", CV_FLOAT, true, CV_XLMR},
    {"vocab_size", "vocab_size", CV_INT, false, 0},
    {"num_experts|n_routed_experts|num_local_experts", "expert_count", CV_INT,
        true, CV_MOE},
    {"num_experts_per_tok", "expert_used_count", CV_INT, true, CV_MOE},
    {"moe_intermediate_size", "expert_feed_forward_length", CV_INT, true,
        CV_MOE},
    {"num_shared_experts|n_shared_experts", "expert_shared_count", CV_INT,
        false, CV_MOE},
    {"routed_scaling_factor", "expert_weights_scale", CV_FLOAT, false, CV_MOE},
    {"norm_topk_prob", "expert_weights_norm", CV_BOOL, false, CV_MOE},
    {"shared_expert_intermediate_size", "expert_shared_feed_forward_length",
        CV_INT, true, CV_SOFTMAX},
    {"n_group", "expert_group_count", CV_INT, false, CV_MOE},
    {"topk_group", "expert_group_used_count", CV_INT, false, CV_MOE},
    {"q_lora_rank", "attention.q_lora_rank", CV_INT, false, CV_MLA},
    {"kv_lora_rank", "attention.kv_lora_rank", CV_INT, true, CV_MLA},
    {"v_head_dim", "attention.value_length_mla", CV_INT, true, CV_MLA},
    {"index_topk", "attention.indexer.top_k", CV_INT, true, CV_GATED},
    {"embedding_multiplier", "embedding_scale", CV_FLOAT, false, CV_SCALES},
    {"residual_multiplier", "residual_scale", CV_FLOAT, false, CV_SCALES},
    {"logits_scaling", "logit_scale", CV_FLOAT, false, CV_SCALES},
    {"attention_multiplier", "attention.scale", CV_FLOAT, false, CV_SCALES},
    {"final_logit_softcapping", "final_logit_softcapping", CV_FLOAT, false,
        CV_LAYERED},
    {"hidden_size_per_layer_input", "embedding_length_per_layer_input", CV_INT,
        false, CV_LAYERED},
    {"num_kv_shared_layers", "attention.shared_kv_layers", CV_INT, false,
        CV_LAYERED},
    {"conv_L_cache", "shortconv.l_cache", CV_INT, true, CV_CONV},
    {"linear_conv_kernel_dim", "ssm.conv_kernel", CV_INT, true, CV_RECUR},
    {"linear_key_head_dim", "ssm.state_size", CV_INT, true, CV_RECUR},
    {"linear_num_key_heads", "ssm.group_count", CV_INT, true, CV_RECUR},
    {"linear_num_value_heads", "ssm.time_step_rank", CV_INT, true, CV_RECUR},
};

static const cv_key CV_SAMPLING[] = {
    {"temperature", "general.sampling.temp", CV_FLOAT, false, 0},
    {"top_k", "general.sampling.top_k", CV_INT, false, 0},
    {"top_p", "general.sampling.top_p", CV_FLOAT, false, 0},
    {"min_p", "general.sampling.min_p", CV_FLOAT, false, 0},
    {"repetition_penalty", "general.sampling.penalty_repeat", CV_FLOAT, false,
        0},
};

/* Where a tensor's rows come from. */
typedef struct cv_source cv_source;
struct cv_source {
    const st_tensor *t, *scale; /* scale: of F8, or NULL */
    u64 n_in, block_out, block_in, scale_in;
    cv_source *experts; /* sources of `each` rows, one after the other */
    u64 each;
    u64 head_rows, first, take; /* of each head only these; 0: all */
    bool turned; /* rows and columns of a head are exchanged */
    u32 head; /* rows of a head to permute; 0: none */
    u64 tile, tile_first; /* rows, or with `across` columns, of a value head of
                             a delta net, from the first one on; 0: none */
    u64 tile_keys, tile_per; /* key heads; value heads of each */
    bool across;
    f32 add;
    const f32 *made; /* values made here, when there is no tensor */
};

typedef struct {
    const char *dir;
    const js *config, *top, *generation;
    str model_type; /* of the whole */
    const cv_family *family;
    st_folder st, dense[2]; /* of two matrices after the mean */
    u32 n_dense_after;
    i64 n_layers, n_heads, n_kv, head_dim, n_embd, n_rope;
    i64 n_dense, n_mtp, n_experts; /* MTP blocks follow the layers */
    i64 nope, value; /* of MLA: key without rope, value; head_dim is rope */
    f64 theta;
    bool tied, headless; /* names without "model.", as AutoModel saves */
    bool no_media, media_only;
    gw *g;
    qz_options *o;
} cv;

/* ---- config ---- */

static const js *cv_get(const js *o, const char *names) {
    char name[64];
    while (*names) {
        size_t n = strcspn(names, "|");
        snprintf(name, sizeof name, "%.*s", (int)n, names);
        const js *v = js_get(o, name);
        if (v && v->kind != JS_NULL) return v;
        names += n + (names[n] == '|');
    }
    return NULL;
}

static i64 cv_int(const cv *c, const char *names, i64 fallback) {
    const js *v = cv_get(c->config, names);
    i64 i;
    if (!v && fallback >= 0) return fallback;
    if (!v) die("%s/config.json: '%s' is missing", c->dir, names);
    if (!js_int(v, &i) || i < 0 || i > 1 << 30)
        die("%s/config.json: '%s' is no sensible number", c->dir, names);
    return i;
}

/* What the config says of the first layer, then ->next; NULL: nothing. */
static const js *cv_types(const cv *c) {
    const js *types = js_get(c->config, "layer_types");
    return types && types->kind == JS_ARR ? types->first : NULL;
}

static f64 cv_float(const js *o, const char *names, f64 fallback) {
    f64 v;
    return js_num(cv_get(o, names), &v) ? v : fallback;
}

static const char *cv_arch_key(const cv *c, const char *name) {
    static char key[128];
    snprintf(key, sizeof key, "%s.%s", c->family->arch, name);
    return key;
}

static void cv_find_family(cv *c) {
    const js *text = js_get(c->top, "text_config");
    c->config = text && text->kind == JS_OBJ ? text : c->top;
    str type = js_text(js_get(c->config, "model_type"));
    if (!type.n) type = js_text(js_get(c->top, "model_type"));
    bool both_ways = js_true(js_get(c->config, "use_bidirectional_attention"));
    for (size_t i = 0; i < KS_LEN(CV_FAMILIES); i++)
        if (str_eq(type, str_of(CV_FAMILIES[i].model_type))
            && both_ways == !!(CV_FAMILIES[i].flags & CV_BOTH_WAYS))
            c->family = &CV_FAMILIES[i];
    if (c->family) return;
    if (both_ways)
        die("%s/config.json: use_bidirectional_attention: tokens that see "
            "later ones are not supported for '%.*s'", c->dir, STR(type));
    fprintf(stderr, "known:");
    for (size_t i = 0; i < KS_LEN(CV_FAMILIES); i++)
        fprintf(stderr, " %s", CV_FAMILIES[i].model_type);
    fputc('\n', stderr);
    die("%s/config.json: model_type '%.*s' is not known", c->dir, STR(type));
}

/* rope_scaling or rope_parameters, that of global layers. */
static const js *cv_rope_named(const cv *c, const char *name) {
    const js *r = js_get(c->config, name);
    const js *full = js_get(r, "full_attention");
    if (full && full->kind == JS_OBJ) r = full;
    return r && r->kind == JS_OBJ && r->n ? r : NULL;
}

static const js *cv_rope(const cv *c) {
    const js *r = cv_rope_named(c, "rope_scaling");
    return r ? r : cv_rope_named(c, "rope_parameters");
}

/* Whether all that a says about rope, but its base, b says as well. */
static bool cv_rope_within(const js *a, const js *b) {
    for (const js *v = a->first; v; v = v->next) {
        bool type = str_eq(v->key, str_of("type"))
            || str_eq(v->key, str_of("rope_type"));
        const js *w = cv_get(b, type ? "rope_type|type" : str_dup(v->key));
        f64 x, y;
        if (str_eq(v->key, str_of("rope_theta")) || v->kind == JS_NULL)
            continue;
        if (!w || w->kind != v->kind) return false;
        if (js_num(v, &x) && js_num(w, &y) ? x < y || x > y
                                           : !str_eq(v->text, w->text))
            return false;
    }
    return true;
}

static void cv_check_base(const cv *c, f64 base, const char *name, f64 other) {
    if (base < other || base > other)
        die("%s/config.json: the base of rope is %g and, in %s, %g: take out "
            "the one that is wrong", c->dir, base, name, other);
}

/* transformers 5 takes rope_scaling before rope_parameters, and a base in
 * there before the one outside. Code that comes with a model reads what it
 * was written for. So what stands in two places has to be the same. */
static void cv_check_rope(const cv *c) {
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    const js *r[2];
    for (int i = 0; i < 2; i++) r[i] = cv_rope_named(c, names[i]);
    if (r[0] && r[1] && !(cv_rope_within(r[0], r[1])
            && cv_rope_within(r[1], r[0])))
        die("%s/config.json: rope_scaling and rope_parameters differ: take "
            "out the one that is wrong", c->dir);
    f64 base = 0, b;
    bool own = js_get(c->config, "rope_theta_global") != NULL;
    if (!own) js_num(js_get(c->config, "rope_theta"), &base);
    for (int i = 0; i < 2; i++) {
        if (!js_num(js_get(r[i], "rope_theta"), &b)) continue;
        if (base > 0) cv_check_base(c, base, names[i], b);
        base = b;
    }
    const js *local = js_get(js_get(c->config, "rope_parameters"),
        "sliding_attention");
    if (js_num(js_get(c->config, "rope_local_base_freq"), &base)
        && js_num(js_get(local, "rope_theta"), &b))
        cv_check_base(c, base, "sliding_attention", b);
}

/* Switches that a layer could have and no graph here has. */
static void cv_check_layers(const cv *c) {
    const js *rope = js_get(c->config, "no_rope_layers"), *v;
    i64 i = 0, on;
    if (c->family->flags & CV_NO_ROPE) {
        bool fits = cv_int(c, "no_rope_layer_interval", 4) == 4 || rope;
        for (v = rope && rope->kind == JS_ARR ? rope->first : NULL; v;
            v = v->next, i++)
            fits &= js_int(v, &on) && on == ((i + 1) % 4 != 0);
        if (!fits) die("%s/config.json: 'no_rope_layers' is not every fourth "
            "layer", c->dir);
    }
    if (c->family->flags & CV_TEMPER && cv_int(c, "sliding_window", 0))
        die("%s/config.json: 'sliding_window' is not supported for %s", c->dir,
            c->family->arch);
    if (!(c->family->flags & CV_SHARED)) return;
    bool fits = cv_int(c, "num_local_experts", 0) == 0 && cv_types(c)
        && js_is(js_get(c->config, "position_embedding_type"), "rope")
        && cv_int(c, "shared_intermediate_size", -1)
            == cv_int(c, "intermediate_size", -1);
    for (v = cv_types(c); v; v = v->next)
        fits &= js_is(v, "attention") || js_is(v, "full_attention");
    if (!fits) die("%s/config.json: experts, Mamba layers, layers without rope "
        "or two widths of feed-forward: not supported", c->dir);
}

/* Routers that no graph here has, or that the config does not say. */
static void cv_check_router(const cv *c) {
    const js *norm = js_get(c->config, "norm_topk_prob");
    const js *scale = js_get(c->config, "routed_scaling_factor");
    const js *score = js_get(c->config, "scoring_func");
    const js *dense = js_get(c->config, "mlp_only_layers");
    bool soft = (c->family->flags & CV_SOFTMAX) != 0;
    if (!soft && !(norm && scale))
        die("%s/config.json: '%s' is missing", c->dir, norm
            ? "routed_scaling_factor" : "norm_topk_prob");
    if ((score && !js_is(score, soft ? "softmax" : "sigmoid"))
        || cv_int(c, "moe_layer_freq", 1) != 1
        || (soft && ((norm && !js_true(norm)) || scale || (dense && dense->n)
            || cv_int(c, "decoder_sparse_step", 1) != 1)))
        die("%s/config.json: scoring_func, norm_topk_prob, "
            "routed_scaling_factor, moe_layer_freq, mlp_only_layers or "
            "decoder_sparse_step is one that %s is not run with", c->dir,
            c->family->arch);
}

/* A number that layers which see all have for themselves: n, or, where that is
 * 0, for each of them in per_layer_config. */
static i64 cv_global(const cv *c, const char *name, i64 n) {
    const js *each = js_get(c->config, "per_layer_config");
    i64 usual = cv_int(c, name, -1), i = 0, one;
    for (const js *v = cv_types(c); v; v = v->next, i++) {
        char key[24];
        snprintf(key, sizeof key, "%lld", (long long)i);
        const js *has = js_get(js_get(each, key), name);
        if (!has || !js_int(has, &one)) one = usual;
        bool all = js_is(v, "full_attention");
        if (each && all && !n) n = one;
        if (each && one != (all ? n : usual))
            die("%s/config.json: per_layer_config: %s is not one number for "
                "layers that see all, and '%s' for the others", c->dir, name,
                name);
    }
    return n ? n : usual;
}

/* Gemma 4: whether layers that see all have their keys for values. */
static bool cv_keys_are_values(const cv *c) {
    return js_true(js_get(c->config, "attention_k_eq_v"));
}

/* Whether it has experts beside its feed-forward. */
static bool cv_has_beside(const cv *c) {
    return c->family->flags & CV_LAYERED
        && js_true(js_get(c->config, "enable_moe_block"));
}

static bool cv_is_global(const cv *c, i64 layer) {
    const js *v = cv_types(c);
    for (; v && layer > 0; layer--) v = v->next;
    return js_is(v, "full_attention");
}

static void cv_check_layered(const cv *c) {
    if (js_true(js_get(c->config, "attention_bias"))
        || js_is(js_get(c->config, "use_bidirectional_attention"), "all"))
        die("%s/config.json: attention_bias, or use_bidirectional_attention "
            "'all', is not supported for %s", c->dir, c->family->arch);
    if (!cv_int(c, "sliding_window", 0))
        die("%s/config.json: 'sliding_window' is missing", c->dir);
}

/* The first row of XLM-R's positions that a token has. */
static i64 cv_first_place(const cv *c) {
    return cv_int(c, "pad_token_id", 1) + 1;
}

/* XLM-R as encoders and rerankers have it. */
static void cv_check_xlmr(const cv *c) {
    const js *places = js_get(c->config, "position_embedding_type");
    if ((places && !js_is(places, "absolute"))
        || js_true(js_get(c->config, "is_decoder"))
        || js_true(js_get(c->config, "add_cross_attention")))
        die("%s/config.json: position_embedding_type that is not 'absolute', "
            "is_decoder or add_cross_attention is not supported for %s",
            c->dir, c->family->arch);
    if (cv_int(c, "max_position_embeddings", -1) <= cv_first_place(c))
        die("%s/config.json: max_position_embeddings has no place after "
            "pad_token_id", c->dir);
}

/* What the graph would compute wrongly, because it has no switch for it. */
static void cv_check_config(const cv *c) {
    const js *act = cv_get(c->config,
        "hidden_activation|hidden_act|activation_function");
    if (act && !js_is(act, c->family->act))
        die("%s/config.json: activation '%.*s', but %s is run with %s", c->dir,
            STR(js_text(act)), c->family->arch, c->family->act);
    static const char *const off[] = {"attn_logit_softcapping",
        "final_logit_softcapping", "embedding_multiplier", "logits_scaling",
        "residual_multiplier", "attention_multiplier"};
    for (size_t i = 0; i < KS_LEN(off); i++) {
        f64 v;
        if (i > 1 && c->family->flags & CV_SCALES) break;
        if (i == 1 && c->family->flags & CV_LAYERED) continue;
        if (js_num(js_get(c->config, off[i]), &v) && (v < 1 || v > 1))
            die("%s/config.json: '%s' is %g, which %s is not run with", c->dir,
                off[i], v, c->family->arch);
    }
    cv_check_rope(c);
    f64 part = fmin(cv_float(c->config, "partial_rotary_factor", 1),
        cv_float(cv_rope(c), "partial_rotary_factor", 1));
    if (part < 1 && !(c->family->flags & (CV_LONG | CV_RECUR | CV_LAYERED)))
        die("%s/config.json: partial_rotary_factor %g is not supported",
            c->dir, part);
    cv_check_layers(c);
    const js *gate = js_get(c->config, "attn_output_gate");
    if (c->family->flags & CV_RECUR && ((gate && !js_true(gate)) || part >= 1))
        die("%s/config.json: attn_output_gate false, or no "
            "partial_rotary_factor, is not supported for %s", c->dir,
            c->family->arch);
    if (c->family->flags & CV_CONV && (js_true(js_get(c->config, "conv_bias"))
            || (c->family->flags & CV_MOE
                && !js_true(js_get(c->config, "norm_topk_prob")))))
        die("%s/config.json: conv_bias, or norm_topk_prob false, is not "
            "supported for %s", c->dir, c->family->arch);
    const js *pairs = js_get(c->config, "rope_interleave");
    if (c->family->flags & CV_MLA && pairs && !js_true(pairs))
        die("%s/config.json: rope_interleave false is not supported", c->dir);
    if (c->family->flags & CV_MOE) cv_check_router(c);
    if (c->family->flags & CV_LAYERED) cv_check_layered(c);
    if (c->family->flags & CV_XLMR) cv_check_xlmr(c);
    if (c->family->flags & CV_WINDOW_OFF
        && js_true(js_get(c->config, "use_sliding_window"))
        && cv_int(c, "max_window_layers", 0) < c->n_layers)
        die("%s/config.json: use_sliding_window is not supported for %s",
            c->dir, c->family->arch);
    const js *method = js_get(js_get(c->top, "quantization_config"),
        "quant_method");
    if (method && !js_is(method, "fp8") && !js_is(method, "compressed-tensors"))
        die("%s/config.json: already quantized by '%.*s'; take the original",
            c->dir, STR(js_text(method)));
}

/* Gemma 3: five local layers, then one global. */
static void cv_write_gemma(const cv *c) {
    i64 i = 0;
    bool fits = cv_int(c, "sliding_window_pattern", 6) == 6;
    for (const js *v = cv_types(c); v; v = v->next, i++)
        fits &= js_is(v, (i + 1) % 6 ? "sliding_attention" : "full_attention");
    if (!fits) die("%s/config.json: layers are not five local, one global",
        c->dir);
    gw_kv_u32(c->g, cv_arch_key(c, "attention.sliding_window"),
        (u32)cv_int(c, "sliding_window", -1));
    f64 scale = cv_float(c->config, "query_pre_attn_scalar",
        (f64)c->head_dim);
    f64 usual = c->n_layers == 62 ? (f64)(c->n_embd / c->n_heads)
        : (f64)c->head_dim;
    if (scale < usual || scale > usual)
        die("%s/config.json: query_pre_attn_scalar %g, but %g is run", c->dir,
            scale, usual);
}

static void cv_made_rows(const gw_tensor *t, u64 row, u64 n, f32 *out) {
    const cv_source *s = t->src;
    memcpy(out, s->made + row * t->dims[0],
        (size_t)(n * t->dims[0]) * sizeof *out);
}

/* A tensor of float values made here. */
static void cv_add_made(cv *c, const char *name, const f32 *v, u32 n_dims,
    const u64 *dims) {
    gw_tensor *t = gw_add(c->g, str_of(name), n_dims, dims);
    cv_source *s = xalloc(1, sizeof *s);
    s->made = v;
    t->src = s;
    t->rows = cv_made_rows;
    t->type = t->from = KSLLM_TYPE_F32;
    t->note = "";
}

/* Llama 3's scaling as the divisors of each frequency, a tensor. */
static void cv_write_llama3(cv *c, const js *r) {
    u64 half = (u64)c->head_dim / 2;
    f32 *d = xalloc(half, sizeof *d);
    f64 factor = cv_float(r, "factor", 8), low = cv_float(r,
        "low_freq_factor", 1), high = cv_float(r, "high_freq_factor", 4);
    f64 original = cv_float(r, "original_max_position_embeddings", 8192);
    if (!(factor > 0 && high > low && low > 0))
        die("%s/config.json: rope factors that make no sense", c->dir);
    for (u64 i = 0; i < half; i++) {
        f64 f = pow(c->theta, -2.0 * (f64)i / (f64)c->head_dim);
        f64 wave = 2 * 3.14159265358979323846 / f;
        f64 t = (original / wave - low) / (high - low);
        d[i] = (f32)(wave < original / high ? 1
            : wave > original / low ? factor : 1 / ((1 - t) / factor + t));
    }
    cv_add_made(c, "rope_freqs.weight", d, 1, &half);
}

/* What cosine and sine are multiplied with, and for MLA the scores. */
static void cv_write_yarn_gain(const cv *c, const js *r) {
    f64 grow = 0.1 * log(cv_float(r, "factor", 1));
    f64 usual = grow > 0 ? 1 + grow : 1, gain = usual;
    f64 m = cv_float(r, "mscale", 0), all = cv_float(r, "mscale_all_dim", 0);
    if (grow > 0 && m > 0 && all > 0) gain = (1 + m * grow) / (1 + all * grow);
    gain = cv_float(r, "attention_factor", gain);
    if (c->family->flags & CV_MLA && all > 0) {
        gw_kv_f32(c->g, cv_arch_key(c, "rope.scaling.yarn_log_multiplier"),
            (f32)(0.1 * all));
        usual = 1;
    }
    if (gain < usual || gain > usual)
        gw_kv_f32(c->g, cv_arch_key(c, "rope.scaling.attn_factor"),
            (f32)(gain / usual));
}

static void cv_write_scaling(cv *c, const js *r, str type) {
    gw_kv_str(c->g, cv_arch_key(c, "rope.scaling.type"), type);
    gw_kv_f32(c->g, cv_arch_key(c, "rope.scaling.factor"),
        (f32)cv_float(r, "factor", 1));
    if (!str_eq(type, str_of("yarn"))) return;
    gw_kv_u32(c->g, cv_arch_key(c, "rope.scaling.original_context_length"),
        (u32)cv_float(r, "original_max_position_embeddings",
            (f64)cv_int(c, "max_position_embeddings", -1)));
    gw_kv_f32(c->g, cv_arch_key(c, "rope.scaling.yarn_beta_fast"),
        (f32)cv_float(r, "beta_fast", 32));
    gw_kv_f32(c->g, cv_arch_key(c, "rope.scaling.yarn_beta_slow"),
        (f32)cv_float(r, "beta_slow", 1));
    cv_write_yarn_gain(c, r);
}

/* LongRoPE: its two lists of divisors, and its gain. */
static void cv_write_long_rope(cv *c, const js *r) {
    static const char *const names[2][2] = {
        {"short_factor", "rope_factors_short.weight"},
        {"long_factor", "rope_factors_long.weight"}};
    f64 original = cv_float(c->config, "original_max_position_embeddings",
        cv_float(r, "original_max_position_embeddings", 0));
    if (!(original > 1))
        die("%s/config.json: 'original_max_position_embeddings' is missing",
            c->dir);
    f64 factor = cv_float(r, "factor",
        (f64)cv_int(c, "max_position_embeddings", -1) / original);
    f64 gain = factor > 1 ? sqrt(1 + log(factor) / log(original)) : 1;
    gw_kv_u32(c->g, cv_arch_key(c, "rope.scaling.original_context_length"),
        (u32)original);
    gw_kv_f32(c->g, cv_arch_key(c, "rope.scaling.attn_factor"),
        (f32)cv_float(r, "attention_factor", gain));
    for (int k = 0; k < 2; k++) {
        const js *list = js_get(r, names[k][0]);
        u64 n = 0, half = (u64)c->n_rope / 2;
        f32 *d = xalloc(half, sizeof *d);
        f64 x;
        for (const js *v = list && list->kind == JS_ARR ? list->first : NULL;
            v; v = v->next, n++)
            if (n < half && js_num(v, &x) && x > 0) d[n] = (f32)x;
            else n = half;
        if (n != half)
            die("%s/config.json: '%s' is no list of %llu divisors", c->dir,
                names[k][0], (unsigned long long)half);
        cv_add_made(c, names[k][1], d, 1, &half);
    }
}

/* Gemma 4: the first part of a head rotates, the rest does not turn in any
 * context. */
static void cv_write_proportional(cv *c, const js *r) {
    u64 half = (u64)c->head_dim / 2;
    f64 part = cv_float(r, "partial_rotary_factor", 1);
    f64 factor = cv_float(r, "factor", 1);
    if (!(part > 0 && part <= 1 && factor > 0))
        die("%s/config.json: rope factors that make no sense", c->dir);
    u64 turns = (u64)(part * (f64)c->head_dim / 2);
    f32 *d = xalloc(half, sizeof *d);
    for (u64 i = 0; i < half; i++) d[i] = i < turns ? (f32)factor : 1e30f;
    cv_add_made(c, "rope_freqs.weight", d, 1, &half);
}

static void cv_write_rope(cv *c) {
    const js *r = cv_rope(c), *type = cv_get(r, "rope_type|type");
    const js *local = js_get(js_get(c->config, "rope_parameters"),
        "sliding_attention");
    f64 base = cv_float(c->config, "rope_theta", 10000);
    base = cv_float(c->config, "rope_local_base_freq",
        cv_float(local, "rope_theta", base));
    c->theta = cv_float(c->config, "rope_theta_global|rope_theta",
        cv_float(r, "rope_theta", cv_float(
            cv_rope_named(c, "rope_parameters"), "rope_theta",
            c->family->flags & (CV_GEMMA | CV_CONV) ? 1e6 : 10000)));
    gw_kv_f32(c->g, cv_arch_key(c, "rope.freq_base"), (f32)c->theta);
    if (c->family->flags & CV_ROPES
        || (c->family->flags & CV_GEMMA && (base < 10000 || base > 10000)))
        gw_kv_f32(c->g, cv_arch_key(c, "rope.freq_base_swa"), (f32)base);
    if (c->family->flags & CV_TEMPER && js_get(r, "llama_4_scaling_beta"))
        gw_kv_f32(c->g, cv_arch_key(c, "attention.temperature_scale"),
            (f32)cv_float(r, "llama_4_scaling_beta", 0));
    if (!type || js_is(type, "default") || js_is(type, "mrope")) {
        /* VAETKI: what its global layers have when nothing is said */
        if (js_get(c->config, "rope_theta_global")) {
            gw_kv_str(c->g, cv_arch_key(c, "rope.scaling.type"),
                str_of("linear"));
            gw_kv_f32(c->g, cv_arch_key(c, "rope.scaling.factor"), 8);
        }
        return;
    }
    const js *cut = js_get(r, "truncate");
    if (c->family->flags & CV_LAYERED && js_is(type, "proportional"))
        cv_write_proportional(c, r);
    else if (js_is(type, "llama3"))
        cv_write_llama3(c, r);
    else if (c->family->flags & CV_LONG
        && (js_is(type, "longrope") || js_is(type, "su")))
        cv_write_long_rope(c, r);
    else if (!js_is(type, "linear") && (!js_is(type, "yarn")
            || (cut && !js_true(cut))))
        die("%s/config.json: rope_type '%.*s', or its truncate, is not "
            "supported", c->dir, STR(js_text(type)));
    else
        cv_write_scaling(c, r, js_text(type));
}

/* Which layers see a window only. */
static void cv_write_windows(const cv *c) {
    const js *types = js_get(c->config, "layer_types");
    const js *pattern = cv_get(c->config, "sliding_window_pattern");
    i64 period = 4, window = cv_int(c, "sliding_window", 0);
    str letters = js_text(pattern); /* "LLLG" */
    if (!window) return;
    if (pattern && !letters.n) js_int(pattern, &period);
    if (types && (types->kind != JS_ARR || types->n != c->n_layers))
        die("%s/config.json: 'layer_types' is not one for each layer", c->dir);
    if (!types && !letters.n && period < 1)
        die("%s/config.json: 'sliding_window_pattern' is no period", c->dir);
    gw_kv_u32(c->g, cv_arch_key(c, "attention.sliding_window"), (u32)window);
    gw_kv_array(c->g, cv_arch_key(c, "attention.sliding_window_pattern"),
        KSLLM_META_BOOL, (u64)c->n_layers);
    const js *v = types ? types->first : NULL;
    for (i64 i = 0; i < c->n_layers; i++, v = v ? v->next : NULL) {
        u8 local = types ? js_is(v, "sliding_attention")
            : letters.n ? letters.p[(u64)i % letters.n] == 'L'
            : (i + 1) % period != 0;
        bytes_put(&c->g->kv, &local, 1);
    }
}

static bool cv_lists(const cv *c, const char *name, i64 layer) {
    const js *list = js_get(c->config, name);
    i64 i;
    for (const js *v = list && list->kind == JS_ARR ? list->first : NULL; v;
        v = v->next)
        if (js_int(v, &i) && i == layer) return true;
    return false;
}

/* Solar Pro: before some layers the stream is kept, before others what was
 * kept is mixed in. The second of its two shares is for inference. */
static void cv_write_skips(const cv *c) {
    static const char *const lists[2][2] = {
        {"bskcn_1", "bskcn_2"}, {"bskcn_3", "bskcn_4"}};
    const js *shares = js_get(c->config, "bskcn_tv");
    f64 share;
    if (!shares || shares->kind != JS_ARR || shares->n != 2
        || !js_num(shares->first->next, &share))
        die("%s/config.json: 'bskcn_tv' is no pair", c->dir);
    gw_kv_f32(c->g, cv_arch_key(c, "skip.weight"), (f32)share);
    for (int k = 0; k < 2; k++) {
        gw_kv_array(c->g, cv_arch_key(c, k ? "skip.mix" : "skip.save"),
            KSLLM_META_I32, (u64)c->n_layers);
        for (i64 i = 0; i < c->n_layers; i++)
            gw_u32(&c->g->kv, cv_lists(c, lists[k][0], i)
                | (u32)cv_lists(c, lists[k][1], i) << 1);
    }
}

/* LFM2: a layer has no KV heads where it is a convolution. */
static void cv_write_convolutions(const cv *c) {
    const js *types = js_get(c->config, "layer_types");
    const js *v = types && types->kind == JS_ARR ? types->first : NULL;
    if (v ? types->n != c->n_layers : !js_get(c->config, "full_attn_idxs"))
        die("%s/config.json: neither 'layer_types', one for each layer, nor "
            "'full_attn_idxs'", c->dir);
    gw_kv_array(c->g, cv_arch_key(c, "attention.head_count_kv"),
        KSLLM_META_I32, (u64)c->n_layers);
    for (i64 i = 0; i < c->n_layers; i++) {
        bool attends = v ? js_is(v, "full_attention")
                         : cv_lists(c, "full_attn_idxs", i);
        if (v && !attends && !js_is(v, "conv"))
            die("%s/config.json: 'layer_types' has '%.*s'", c->dir,
                STR(js_text(v)));
        gw_u32(&c->g->kv, attends ? (u32)c->n_kv : 0);
        v = v ? v->next : NULL;
    }
}

/* Qwen 3.5: each interval's last layer attends; rope's three dimensions, which
 * are one for text. */
static void cv_write_recurrence(const cv *c) {
    const js *types = cv_types(c);
    const js *sections = js_get(cv_rope(c), "mrope_section");
    i64 interval = cv_int(c, "full_attention_interval", 0), i = 0, n;
    i64 heads = cv_int(c, "linear_num_value_heads", -1);
    i64 keys = cv_int(c, "linear_num_key_heads", -1);
    for (const js *v = types; v && !interval; v = v->next, i++)
        if (js_is(v, "full_attention")) interval = i + 1;
    i = 0;
    for (const js *v = interval ? types : NULL; v; v = v->next, i++)
        if (!js_is(v, (i + 1) % interval ? "linear_attention"
                                         : "full_attention"))
            interval = 0;
    if (interval < 1 || (types && i != c->n_layers))
        die("%s/config.json: 'layer_types' or 'full_attention_interval' is no "
            "interval", c->dir);
    if (keys < 1 || heads < 1 || heads % keys
        || cv_int(c, "linear_key_head_dim", -1) < 1
        || cv_int(c, "linear_value_head_dim", -1)
            != cv_int(c, "linear_key_head_dim", -1))
        die("%s/config.json: value heads (%lld) are no multiple of key heads "
            "(%lld), or are not as long", c->dir, (long long)heads,
            (long long)keys);
    gw_kv_u32(c->g, cv_arch_key(c, "full_attention_interval"), (u32)interval);
    gw_kv_u32(c->g, cv_arch_key(c, "ssm.inner_size"),
        (u32)(heads * cv_int(c, "linear_value_head_dim", -1)));
    gw_kv_array(c->g, cv_arch_key(c, "rope.dimension_sections"),
        KSLLM_META_I32, 4);
    const js *v = sections && sections->kind == JS_ARR ? sections->first : NULL;
    for (i = 0; i < 4; i++, v = v ? v->next : NULL)
        gw_u32(&c->g->kv, v && js_int(v, &n) ? (u32)n : 0);
}

/* The width of feed-forwards. LFM2's own code makes it of what its config says:
 * two thirds of that, times a factor, up to a multiple. */
static i64 cv_width(const cv *c, const char *names) {
    const js *adjust = js_get(c->config, "block_auto_adjust_ff_dim");
    i64 n = cv_int(c, names, -1);
    if (strcmp(c->family->arch, "lfm2") || (adjust && !js_true(adjust)))
        return n;
    i64 of = cv_int(c, "block_multiple_of", 256);
    if (of < 1) die("%s/config.json: 'block_multiple_of' is 0", c->dir);
    f64 factor = cv_float(c->config, "block_ffn_dim_multiplier", 1);
    n = (i64)(factor * (f64)(i64)((f64)(2 * n) / 3));
    return (n + of - 1) / of * of;
}

/* Gemma 4: layers with another's keys may have twice the width, heads that see
 * a window have their own length and number. */
static void cv_write_layered(const cv *c) {
    const i64 own = c->n_layers - cv_int(c, "num_kv_shared_layers", 0);
    const i64 ffn = cv_int(c, "intermediate_size", -1);
    const bool twice = js_true(js_get(c->config, "use_double_wide_mlp"));
    const u32 head = (u32)cv_int(c, "head_dim", -1);
    /* their own number counts only with keys for values */
    const i64 kv = cv_global(c, "num_key_value_heads", cv_keys_are_values(c)
        ? cv_int(c, "num_global_key_value_heads", 0) : 0);
    const js *v = cv_types(c);
    gw_kv_array(c->g, cv_arch_key(c, "feed_forward_length"), KSLLM_META_I32,
        (u64)c->n_layers);
    for (i64 i = 0; i < c->n_layers; i++)
        gw_u32(&c->g->kv, (u32)(i >= own && twice ? 2 * ffn : ffn));
    gw_kv_u32(c->g, cv_arch_key(c, "attention.key_length_swa"), head);
    gw_kv_u32(c->g, cv_arch_key(c, "attention.value_length_swa"), head);
    gw_kv_u32(c->g, cv_arch_key(c, "rope.dimension_count_swa"), head);
    gw_kv_array(c->g, cv_arch_key(c, "attention.head_count_kv"),
        KSLLM_META_I32, (u64)c->n_layers);
    for (i64 i = 0; i < c->n_layers; i++, v = v ? v->next : NULL)
        gw_u32(&c->g->kv, (u32)(js_is(v, "full_attention") ? kv : c->n_kv));
    static const char *const experts[][2] = {
        {"num_experts", "expert_count"}, {"top_k_experts", "expert_used_count"},
        {"moe_intermediate_size", "expert_feed_forward_length"}};
    for (size_t i = 0; i < KS_LEN(experts) && cv_has_beside(c); i++)
        gw_kv_u32(c->g, cv_arch_key(c, experts[i][1]),
            (u32)cv_int(c, experts[i][0], -1));
}

static void cv_write_keys(cv *c) {
    gw *g = c->g;
    u32 flags = c->family->flags;
    i64 context = cv_int(c, "max_position_embeddings", -1);
    if (flags & CV_XLMR) context -= cv_first_place(c);
    if (flags & CV_GATED)
        context = (i64)min_size((size_t)context,
            (size_t)cv_int(c, "index_topk", -1));
    gw_kv_u32(g, cv_arch_key(c, "context_length"), (u32)context);
    for (size_t i = 0; i < KS_LEN(CV_KEYS); i++) {
        const cv_key *k = &CV_KEYS[i];
        const js *have = cv_get(c->config, k->from);
        if (k->of & ~flags || (!have && !k->needed)) continue;
        if (!have) die("%s/config.json: '%s' is missing", c->dir, k->from);
        if (k->kind == CV_INT) {
            gw_kv_u32(g, cv_arch_key(c, k->to), (u32)cv_int(c, k->from, -1));
        } else if (k->kind == CV_WIDTH && flags & CV_LAYERED) {
            cv_write_layered(c);
        } else if (k->kind == CV_WIDTH) {
            gw_kv_u32(g, cv_arch_key(c, k->to), (u32)cv_width(c, k->from));
        } else if (k->kind == CV_BOOL) {
            gw_kv_bool(g, cv_arch_key(c, k->to), js_true(have));
        } else {
            f64 v = cv_float(c->config, k->from, -1);
            if (!(v > 0))
                die("%s/config.json: '%s' is no sensible number", c->dir,
                    k->from);
            gw_kv_f32(g, cv_arch_key(c, k->to), (f32)v);
        }
    }
    /* with MLA the cache holds the latent and the key's rope part, one head */
    i64 latent = flags & CV_MLA ? cv_int(c, "kv_lora_rank", -1) : 0;
    if (flags & CV_RECUR) cv_write_recurrence(c);
    if (flags & CV_CONV) cv_write_convolutions(c);
    else if (!(flags & CV_LAYERED))
        gw_kv_u32(g, cv_arch_key(c, "attention.head_count_kv"),
            latent ? 1 : (u32)c->n_kv);
    gw_kv_u32(g, cv_arch_key(c, "attention.key_length"),
        (u32)(latent + c->head_dim));
    gw_kv_u32(g, cv_arch_key(c, "attention.value_length"),
        (u32)(latent ? latent : c->head_dim));
    if (latent)
        gw_kv_u32(g, cv_arch_key(c, "attention.key_length_mla"),
            (u32)(c->nope + c->head_dim));
    gw_kv_u32(g, cv_arch_key(c, "rope.dimension_count"), (u32)c->n_rope);
    if (flags & CV_LONG && cv_int(c, "sliding_window", 0))
        gw_kv_u32(g, cv_arch_key(c, "attention.sliding_window"),
            (u32)cv_int(c, "sliding_window", 0));
    if (flags & CV_MOE) {
        gw_kv_u32(g, cv_arch_key(c, "leading_dense_block_count"),
            (u32)c->n_dense);
        gw_kv_u32(g, cv_arch_key(c, "expert_gating_func"),
            flags & CV_SOFTMAX ? ROUTE_SOFTMAX : ROUTE_SIGMOID);
    }
    if (flags & CV_XLMR) {
        gw_kv_bool(g, cv_arch_key(c, "attention.causal"), false);
        gw_kv_u32(g, "tokenizer.ggml.token_type_count",
            (u32)cv_int(c, "type_vocab_size", 1));
    }
    if (flags & CV_WINDOWS) cv_write_windows(c);
    if (flags & CV_SKIPS) cv_write_skips(c);
    if (flags & CV_GEMMA) cv_write_gemma(c);
}

/* do_sample false is greedy there, whatever else is said, but for the penalty;
 * here a temperature of 0. Where it is not said, transformers is greedy too;
 * but who gives a temperature means it. */
static void cv_write_sampling(const cv *c) {
    const js *sample = js_get(c->generation, "do_sample");
    bool greedy = sample && sample->kind == JS_BOOL && !js_true(sample);
    if (greedy) gw_kv_f32(c->g, "general.sampling.temp", 0);
    for (size_t i = 0; i < KS_LEN(CV_SAMPLING); i++) {
        const cv_key *k = &CV_SAMPLING[i];
        f64 v;
        if (greedy && strcmp(k->from, "repetition_penalty")) continue;
        if (!js_num(js_get(c->generation, k->from), &v) || v - v != 0) continue;
        if (k->kind == CV_FLOAT) {
            gw_kv_f32(c->g, k->to, (f32)v);
        } else {
            gw_key(c->g, k->to, KSLLM_META_I32);
            gw_u32(&c->g->kv, (u32)(i32)v);
        }
    }
}

/* The folder of a module, inside the model's. */
static char *cv_module_path(const cv *c, const js *module, const char *type) {
    str in = js_text(js_get(module, "path"));
    if (!name_is_plain(in))
        die("%s/modules.json: %s has a path outside the folder", c->dir, type);
    return path_join(c->dir, in);
}

static u32 cv_pooling(const cv *c, const char *path) {
    static const struct {
        const char *flag, *mode;
        u32 number; /* llama.cpp's */
    } kinds[] = {{"pooling_mode_mean_tokens", "mean", 1},
        {"pooling_mode_lasttoken", "lasttoken", 3},
        {"pooling_mode_cls_token", "cls", 2}}; /* of encoders */
    const js *kept = json_read(path, "config.json");
    str mode = js_text(js_get(kept, "pooling_mode"));
    u32 number = 0;
    for (size_t i = 0; i < KS_LEN(kinds); i++)
        if (js_true(js_get(kept, kinds[i].flag))
            || str_eq(mode, str_of(kinds[i].mode)))
            number = kinds[i].number;
    if (!number || (number == 2 && !(c->family->flags & CV_XLMR)))
        die("%s/config.json: a pooling that is neither the mean nor the last "
            "token, nor an encoder's first", path);
    return number;
}

/* A matrix after the mean, as EmbeddingGemma has two. */
static void cv_read_dense(cv *c, const char *path) {
    const js *config = json_read(path, "config.json");
    str act = js_text(js_get(config, "activation_function"));
    str end = str_of(".Identity");
    if (!(c->family->flags & CV_BOTH_WAYS) || c->n_dense_after == 2)
        die("%s: a dense layer after the pooling, which %s is not run with",
            path, c->family->arch);
    if (js_true(js_get(config, "bias")) || act.n < end.n
        || memcmp(act.p + act.n - end.n, end.p, end.n))
        die("%s/config.json: a bias, or an activation that is not Identity, "
            "is not supported", path);
    st_open(&c->dense[c->n_dense_after++], path);
}

/* What the folder of sentence-transformers says about a text's vector. Its
 * normalisation is the caller's (ksllm_session_unit_embedding). */
static void cv_read_modules(cv *c) {
    static const char *const known[] = {
        "Transformer", "Pooling", "Dense", "Normalize"};
    const js *modules = json_read(c->dir, "modules.json");
    if (c->family->flags & CV_XLMR
        && st_find(&c->st, str_of("classifier.dense.weight"))) {
        gw_kv_u32(c->g, cv_arch_key(c, "pooling_type"), 4); /* it ranks */
        return;
    }
    if (!modules || modules->kind != JS_ARR) return;
    for (const js *v = modules->first; v; v = v->next) {
        str type = js_text(js_get(v, "type"));
        u32 i = 0;
        while (type.n && memchr(type.p, '.', type.n)) type.p++, type.n--;
        while (i < KS_LEN(known) && !str_eq(type, str_of(known[i]))) i++;
        if (i == KS_LEN(known))
            die("%s/modules.json: '%.*s' is not supported", c->dir, STR(type));
        if (i != 1 && i != 2) continue;
        char *path = cv_module_path(c, v, known[i]);
        if (i == 2) cv_read_dense(c, path);
        else gw_kv_u32(c->g, cv_arch_key(c, "pooling_type"),
            cv_pooling(c, path));
        free(path);
    }
    if (c->n_dense_after == 1)
        die("%s/modules.json: one dense layer, but %s is run with two or none",
            c->dir, c->family->arch);
}

static void cv_write_general(cv *c) {
    gw *g = c->g;
    str name = str_of(path_last(c->dir));
    str path = js_text(js_get(c->top, "_name_or_path"));
    for (size_t i = 0; i < path.n; i++)
        if (path.p[i] == '/') name = (str){path.p + i + 1, path.n - i - 1};
    const char *arch = c->family->arch;
    gw_kv_str(g, "general.architecture", str_of(c->media_only ? "clip" : arch));
    gw_kv_str(g, "general.type", str_of(c->media_only ? "mmproj" : "model"));
    if (c->media_only) gw_kv_str(g, "clip.text_architecture", str_of(arch));
    gw_kv_str(g, "general.name", name);
    gw_kv_u32(g, "general.file_type", c->o->mix->number);
    if (!is_float_type(c->o->mix->base))
        gw_kv_u32(g, "general.quantization_version", 2);
}

/* ---- tensors ---- */

/* Matches a name with a pattern; gives the numbers that its "{}" stand for,
 * -1 where it has none. */
static bool cv_match(const char *pattern, str name, i64 number[2]) {
    size_t at = 0;
    int k = 0;
    number[0] = number[1] = -1;
    for (const char *p = pattern; *p; p++) {
        if (p[0] != '{' || p[1] != '}' || k == 2) {
            if (at == name.n || name.p[at++] != *p) return false;
            continue;
        }
        size_t first = at;
        i64 v = 0;
        for (; at < name.n && name.p[at] >= '0' && name.p[at] <= '9'; at++)
            if ((v = v * 10 + name.p[at] - '0') > 100000) return false;
        if (at == first) return false;
        number[k++] = v;
        p++;
    }
    return at == name.n;
}

/* What a tensor is for that is left out; "" if that needs no word; NULL if it
 * is wanted. */
static const char *cv_left_out(const cv *c, str name) {
    static const char layers[] = "layers.";
    char z[GGUF_MAX_NAME + 1], *digits, *end;
    snprintf(z, sizeof z, "%.*s", (int)min_size(name.n, GGUF_MAX_NAME),
        name.p);
    for (size_t i = 0; i < KS_LEN(CV_SKIP); i++)
        if (glob_fits(CV_SKIP[i].name, z))
            return CV_SKIP[i].what ? CV_SKIP[i].what : "";
    if (c->family->flags & CV_XLMR && (str_has(name, "pooler.")
            || str_begins(name, "lm_head.") || str_has(name, "position_ids")))
        return ""; /* of other tasks */
    if (!(digits = strstr(z, layers))) return NULL;
    digits += sizeof layers - 1;
    long long n = strtoll(digits, &end, 10);
    if (end == digits) return NULL;
    /* DeepSeek's way: blocks after the layers */
    if (n >= c->n_layers && n < c->n_layers + c->n_mtp) return CV_MTP;
    if (n < c->n_dense && !strcmp(c->family->arch, "axk1")
        && str_has(name, ".post_mlp_layernorm."))
        return "layers without experts, where nothing uses them";
    if (c->family->flags & CV_LAYERED
        && n >= c->n_layers - cv_int(c, "num_kv_shared_layers", 0)
        && (str_has(name, ".k_proj.") || str_has(name, ".v_proj.")
            || str_has(name, ".k_norm.")))
        return ""; /* they see another layer's */
    if (c->family->flags & CV_LAYERED && str_has(name, ".v_proj.")
        && cv_keys_are_values(c) && cv_is_global(c, n))
        return "";
    return NULL;
}

/* A name with a layer for its "{}". */
static str cv_filled(const char *to, i64 layer) {
    char z[128];
    const char *gap = strstr(to, "{}");
    if (gap)
        snprintf(z, sizeof z, "%.*s%lld%s", (int)(gap - to), to,
            (long long)layer, gap + 2);
    else
        snprintf(z, sizeof z, "%s", to);
    return str_of(str_dup(str_of(z)));
}

typedef struct {
    str name; /* n is 0: none */
    i64 expert;
} cv_place;

/* Where the k-th of a tensor's results goes. */
static cv_place cv_place_of(const cv *c, str name, u32 k) {
    for (size_t i = 0; i < KS_LEN(c->family->names); i++)
        for (const cv_name *n = c->family->names[i]; n && n->from; n++) {
            i64 number[2];
            if (!cv_match(n->from, name, number) || k--) continue;
            if (number[0] >= c->n_layers)
                die("%s: tensor '%.*s' is beyond the %lld layers of "
                    "config.json", c->dir, STR(name), (long long)c->n_layers);
            if (number[1] >= c->n_experts && number[1] >= 0)
                die("%s: tensor '%.*s' is beyond the %lld experts of "
                    "config.json", c->dir, STR(name),
                    (long long)c->n_experts);
            return (cv_place){cv_filled(n->to, number[0]), number[1]};
        }
    return (cv_place){.expert = -1};
}

/* Without what wraps a text model: "model.language_model.layers.x" and
 * "language_model.model.layers.x" are "model.layers.x". So is "layers.x" of a
 * model that was saved without a head. */
static str cv_bare(const cv *c, str name) {
    static const char own[] = "roberta.";
    if (c->family->flags & CV_XLMR && str_begins(name, own))
        return (str){name.p + sizeof own - 1, name.n - (sizeof own - 1)};
    if (c->headless) {
        char z[GGUF_MAX_NAME];
        snprintf(z, sizeof z, "model.%.*s",
            (int)min_size(name.n, GGUF_MAX_NAME - 16), name.p);
        return str_of(str_dup(str_of(z)));
    }
    for (size_t i = 0; i < KS_LEN(CV_PREFIX); i++) {
        size_t n = strlen(CV_PREFIX[i]);
        if (name.n <= n || memcmp(name.p, CV_PREFIX[i], n)) continue;
        str rest = {name.p + n, name.n - n};
        if ((rest.n > 6 && !memcmp(rest.p, "model.", 6))
            || (rest.n > 8 && !memcmp(rest.p, "lm_head.", 8)))
            return rest;
        char z[GGUF_MAX_NAME];
        snprintf(z, sizeof z, "model.%.*s",
            (int)min_size(rest.n, GGUF_MAX_NAME - 16), rest.p);
        return str_of(str_dup(str_of(z)));
    }
    return name;
}

/* Which row, or column, of the source is number r of the result. */
static u64 cv_tile(const cv_source *s, u64 r) {
    if (r < s->tile_first) return r;
    u64 head = (r - s->tile_first) / s->tile, in = (r - s->tile_first) % s->tile;
    u64 from = head % s->tile_keys * s->tile_per + head / s->tile_keys;
    return s->tile_first + from * s->tile + in;
}

static u64 cv_row(const cv_source *s, u64 r) {
    if (s->tile && !s->across) return cv_tile(s, r);
    if (s->take) return r / s->take * s->head_rows + s->first + r % s->take;
    if (!s->head) return r;
    u64 in = r % s->head;
    return r - in + (in & 1) * (s->head / 2) + in / 2;
}

/* n values of a row of the source, from the i-th on. */
static void cv_read(const cv_source *s, u64 row, u64 i, u64 n, f32 *out) {
    st_values(s->t, row * s->n_in + i, n, out);
    for (u64 j = 0; s->scale && j < n; j++) {
        f32 k;
        st_values(s->scale, row / s->block_out * s->scale_in
            + (i + j) / s->block_in, 1, &k);
        out[j] *= k;
    }
    for (u64 j = 0; s->add != 0 && j < n; j++) out[j] += s->add;
}

static void cv_rows(const gw_tensor *t, u64 row, u64 n, f32 *out) {
    for (u64 r = row; r < row + n; r++, out += t->dims[0]) {
        const cv_source *s = t->src;
        u64 k = r;
        if (s->experts) k = r % s->each, s = &s->experts[r / s->each];
        if (s->across) {
            for (u64 i = 0; i < s->n_in; i += s->tile)
                cv_read(s, k, cv_tile(s, i), s->tile, out + i);
            continue;
        }
        if (!s->turned) {
            cv_read(s, cv_row(s, k), 0, s->n_in, out);
            continue;
        }
        u64 first = k / s->n_in * s->head_rows + s->first;
        for (u64 i = 0; i < s->take; i++)
            cv_read(s, first + i, k % s->n_in, 1, out + i);
    }
}

/* The scales of an F8 tensor: one, one per row, or one per block. */
static void cv_find_scale(const cv *c, cv_source *s, u64 n_out) {
    char name[GGUF_MAX_NAME + 32];
    static const char *const ends[] = {"_scale_inv", "_scale"};
    st_tensor *k = NULL;
    for (int i = 0; i < 2 && !k; i++) {
        int n = snprintf(name, sizeof name, "%.*s%s",
            (int)min_size(s->t->name.n, GGUF_MAX_NAME), s->t->name.p, ends[i]);
        k = st_find(&c->st, (str){name, (size_t)n});
    }
    if (!k) return;
    k->used = true;
    s->scale = k;
    u64 a = k->dims[0], b = k->n_dims > 1 ? k->dims[1] : 1;
    const js *block = js_get(js_get(c->top, "quantization_config"),
        "weight_block_size");
    i64 bo = 128, bi = 128;
    if (block && block->kind == JS_ARR && block->n == 2) {
        js_int(block->first, &bo);
        js_int(block->first->next, &bi);
    }
    if (a == 1 && b == 1) bo = (i64)n_out, bi = (i64)s->n_in;
    else if (a == n_out && b == 1) bo = 1, bi = (i64)s->n_in;
    if (bo < 1 || bi < 1 || k->n_dims > 2
        || a != (n_out + (u64)bo - 1) / (u64)bo
        || b != (s->n_in + (u64)bi - 1) / (u64)bi)
        die("%s: '%.*s' is %llu x %llu: not the scales of blocks of %lld x "
            "%lld", c->dir, STR(k->name), (unsigned long long)a,
            (unsigned long long)b, (long long)bo, (long long)bi);
    s->block_out = (u64)bo;
    s->block_in = (u64)bi;
    s->scale_in = b;
}

/* Two things that the checkpoint has in one, head by head: what of each head a
 * tensor gets. The keys' part of kv_b is turned, as llama.cpp has it: it is
 * multiplied with the query. Gives the tensor's shape. */
static u32 cv_take(const cv *c, str name, cv_source *s, u64 dims[3]) {
    const i64 key = c->nope + c->head_dim, both = c->nope + c->value;
    const i64 ffn = cv_int(c, "shared_intermediate_size", 0);
    const i64 wide = cv_int(c, "moe_intermediate_size", 0);
    const bool xlmr = (c->family->flags & CV_XLMR) != 0;
    const i64 first = xlmr ? cv_first_place(c) : 0;
    const i64 places =
        xlmr ? cv_int(c, "max_position_embeddings", -1) - first : 0;
    const struct {
        const char *name;
        u32 of, n_dims;
        i64 head_rows, first, take, heads;
    } takes[] = {
        {".attn_k_b.", CV_MLA, 3, both, 0, c->nope, c->n_heads},
        {".attn_v_b.", CV_MLA, 3, both, c->nope, c->value, c->n_heads},
        {".attn_q_b.", CV_GATED, 2, key + c->value, 0, key, c->n_heads},
        {".attn_gate.", CV_GATED, 2, key + c->value, key, c->value,
            c->n_heads},
        {".ffn_gate.", CV_SHARED, 2, 2 * ffn, 0, ffn, 1},
        {".ffn_up.", CV_SHARED, 2, 2 * ffn, ffn, ffn, 1},
        {"position_embd.", CV_XLMR, 2, places + first, first, places, 1},
        {".ffn_gate_exps.", CV_SOFTMAX, 3, 2 * wide, 0, wide, c->n_experts},
        {".ffn_up_exps.", CV_SOFTMAX, 3, 2 * wide, wide, wide, c->n_experts},
        {".ffn_gate_up_exps.", CV_LAYERED, 3, 2 * wide, 0, 2 * wide,
            c->n_experts},
        {".ffn_down_exps.weight", CV_SOFTMAX | CV_LAYERED, 3, c->n_embd, 0,
            c->n_embd, c->n_experts},
    };
    for (size_t i = 0; i < KS_LEN(takes); i++) {
        if (!(c->family->flags & takes[i].of) || !str_has(name, takes[i].name))
            continue;
        u64 heads = (u64)takes[i].heads;
        s->head_rows = (u64)takes[i].head_rows;
        s->first = (u64)takes[i].first;
        s->take = (u64)takes[i].take;
        s->turned = i == 0;
        if (!s->take || dims[1] != s->head_rows * heads)
            die("%s: tensor '%.*s' does not divide into %llu times %llu rows",
                c->dir, STR(s->t->name), (unsigned long long)heads,
                (unsigned long long)s->head_rows);
        dims[1] = s->turned ? s->n_in
            : takes[i].n_dims == 3 ? s->take : s->take * heads;
        if (s->turned) dims[0] = s->take;
        dims[2] = heads;
        return takes[i].n_dims;
    }
    return s->t->n_dims;
}

/* Where a tensor has value heads, whose order changes. */
static void cv_find_tiles(const cv *c, str name, cv_source *s, u64 n_out) {
    const i64 keys = cv_int(c, "linear_num_key_heads", 0);
    const i64 values = cv_int(c, "linear_num_value_heads", 0);
    const i64 n = cv_int(c, "linear_key_head_dim", 0);
    const struct {
        const char *name;
        i64 tile, first;
        bool across;
    } tiles[] = {
        {".attn_qkv.", n, 2 * keys * n, false},
        {".attn_gate.", n, 0, false}, {".ssm_beta.", 1, 0, false},
        {".ssm_alpha.", 1, 0, false}, {".ssm_conv1d.", n, 2 * keys * n, false},
        {".ssm_dt.", 1, 0, true}, {".ssm_a", 1, 0, true},
        {".ssm_out.", n, 0, true},
    };
    if (!(c->family->flags & CV_RECUR)) return;
    for (size_t i = 0; i < KS_LEN(tiles) && !s->tile; i++) {
        if (!str_has(name, tiles[i].name)) continue;
        s->tile = (u64)tiles[i].tile;
        s->tile_first = (u64)tiles[i].first;
        s->tile_keys = (u64)keys;
        s->tile_per = (u64)(values / keys);
        s->across = tiles[i].across;
        u64 have = s->across ? s->n_in : n_out;
        if (have != s->tile_first + (u64)values * s->tile)
            die("%s: tensor '%.*s' does not divide into %lld value heads",
                c->dir, STR(s->t->name), (long long)values);
    }
}

static gw_tensor *cv_planned(const cv *c, str name) {
    for (u32 i = c->g->n; i-- > 0;)
        if (str_eq(c->g->t[i].name, name)) return &c->g->t[i];
    return NULL;
}

static cv_source cv_source_of(const cv *c, st_tensor *from, u64 n_out) {
    cv_source s = {.t = from, .n_in = from->dims[from->n_dims - 1]};
    if (from->dtype == ST_F8_E4M3) cv_find_scale(c, &s, n_out);
    from->used = true;
    return s;
}

/* One expert of many: all of a layer become one tensor, which the one that
 * comes first makes. */
static void cv_add_expert(cv *c, st_tensor *from, cv_place place) {
    gw_tensor *t = cv_planned(c, place.name);
    u64 dims[3] = {from->dims[1], from->dims[0], (u64)c->n_experts};
    if (from->n_dims != 2 || !dims[0] || !dims[1]
        || (t && (t->dims[0] != dims[0] || t->dims[1] != dims[1])))
        die("%s: tensor '%.*s' has not the shape of other experts", c->dir,
            STR(from->name));
    if (!t) {
        cv_source *s = xalloc(1, sizeof *s);
        t = gw_add(c->g, place.name, 3, dims);
        s->experts = xalloc((size_t)c->n_experts, sizeof *s->experts);
        s->each = dims[1];
        t->src = s;
        t->rows = cv_rows;
        t->from = ST_DTYPES[from->dtype].same;
        t->src_row_bytes = dims[0] * ST_DTYPES[from->dtype].bytes;
        qz_choose(c->o, t);
        qz_statistics(c->o, t);
    }
    const cv_source *s = t->src;
    s->experts[place.expert] = cv_source_of(c, from, dims[1]);
}

/* `turns`: its rows may have to be taken apart or change places. */
static void cv_add_tensor(cv *c, st_tensor *from, str name, bool turns) {
    if (from->n_dims == 3 && from->dims[1] == 1) { /* a convolution's channel */
        from->dims[1] = from->dims[2];
        from->n_dims = 2;
    }
    if (from->n_dims == 3 && str_has(name, "_exps.")) { /* cv_take */
        from->dims[0] *= from->dims[1];
        from->dims[1] = from->dims[2];
        from->n_dims = 2;
    }
    if (!from->n_dims || from->n_dims > 2 || !from->dims[0] || !from->dims[1])
        die("%s: tensor '%.*s' has %u dimensions, 1 or 2 were expected",
            c->dir, STR(from->name), from->n_dims);
    u64 dims[3] = {from->dims[from->n_dims - 1], from->dims[0], 1};
    u64 n_out = from->n_dims == 2 ? dims[1] : 1;
    cv_source *s = xalloc(1, sizeof *s);
    *s = cv_source_of(c, from, n_out);
    if (turns) cv_find_tiles(c, name, s, n_out);
    u32 n_dims = turns ? cv_take(c, name, s, dims) : from->n_dims;
    gw_tensor *t = gw_add(c->g, name, n_dims, dims);
    bool bias = str_has(name, ".bias");
    if (turns && c->family->flags & CV_PERMUTE
        && (str_has(name, "attn_q.") || str_has(name, "attn_k."))) {
        if ((bias ? dims[0] : n_out) % (u64)c->head_dim || c->head_dim % 2)
            die("%s: tensor '%.*s' does not divide into heads of %lld", c->dir,
                STR(from->name), (long long)c->head_dim);
        s->head = (u32)c->head_dim;
    }
    if (c->family->flags & CV_NORM_PLUS_1 && str_has(name, "norm.weight")
        && !str_has(name, ".ssm_norm."))
        s->add = 1;
    bool fades = c->family->flags & CV_RECUR && str_has(name, ".ssm_a")
        && n_dims == 1; /* -e^x of the checkpoint's */
    if (fades || (bias && s->head)) {
        /* a vector is one row: permuted here, values are few */
        f32 *v = xalloc(dims[0], sizeof *v), *w = xalloc(dims[0], sizeof *w);
        st_values(from, 0, dims[0], v);
        for (u64 i = 0; i < dims[0]; i++)
            w[i] = fades ? (f32)-exp((f64)v[cv_tile(s, i)]) : v[cv_row(s, i)];
        free(v);
        s->made = w;
        s->head = 0;
    }
    t->src = s;
    t->rows = s->made ? cv_made_rows : cv_rows;
    t->from = ST_DTYPES[from->dtype].same;
    t->src_row_bytes = dims[0] * ST_DTYPES[from->dtype].bytes;
    if (!s->take) t->data = from->data;
    qz_choose(c->o, t);
    qz_statistics(c->o, t);
}

/* Their matrices, under llama.cpp's names, which count modules. */
static void cv_plan_dense(cv *c) {
    for (u32 i = 0; i < c->n_dense_after; i++) {
        st_tensor *t = st_find(&c->dense[i], str_of("linear.weight"));
        if (!t || c->dense[i].n != 1 || t->n_dims != 2)
            die("%s/modules.json: dense layer %u is not a 'linear.weight' "
                "alone", c->dir, i + 1);
        const char *const ends[] = {"in", "out"};
        char key[32];
        for (int k = 0; k < 2; k++) {
            snprintf(key, sizeof key, "dense_%u_feat_%s", i + 2, ends[k]);
            gw_kv_u32(c->g, cv_arch_key(c, key), (u32)t->dims[!k]);
        }
        snprintf(key, sizeof key, "dense_%u.weight", i + 2);
        cv_add_tensor(c, t, str_of(str_dup(str_of(key))), false);
    }
}

/* The tensor of the checkpoint that becomes this one. */
static const st_tensor *cv_find(const cv *c, const char *to) {
    for (u32 i = 0; i < c->st.n; i++) {
        str name = c->st.t[i].name;
        if (!cv_left_out(c, name)
            && str_eq(cv_place_of(c, cv_bare(c, name), 0).name, str_of(to)))
            return &c->st.t[i];
    }
    return NULL;
}

static bool cv_same_values(const st_tensor *a, const st_tensor *b) {
    enum { N = 1024 };
    f32 x[N], y[N];
    u64 n = 1;
    if (a->n_dims != b->n_dims || a->dtype == ST_F8_E4M3
        || b->dtype == ST_F8_E4M3) return false; /* those have scales */
    for (u32 i = 0; i < a->n_dims; i++) {
        if (a->dims[i] != b->dims[i]) return false;
        n *= a->dims[i];
    }
    if (a->dtype == b->dtype)
        return !memcmp(a->data, b->data, (size_t)(a->end - a->begin));
    for (u64 i = 0; i < n; i += N) {
        u64 k = n - i < N ? n - i : N;
        st_values(a, i, k, x);
        st_values(b, i, k, y);
        for (u64 j = 0; j < k; j++)
            if (x[j] < y[j] || x[j] > y[j]) return false;
    }
    return true;
}

/* As transformers does: a head that differs from the embedding counts, though
 * the config says that they are one. */
static void cv_decide_tied(cv *c) {
    const js *v = cv_get(c->config, "tie_word_embeddings|tie_embedding");
    const js *top = js_get(c->top, "tie_word_embeddings");
    c->tied = c->family->flags & CV_XLMR ? true : v || top ? js_true(v) || js_true(top)
        : (c->family->flags & CV_TIED) != 0;
    const st_tensor *head = cv_find(c, "output.weight");
    const st_tensor *embd = cv_find(c, "token_embd.weight");
    if (!c->tied || !head || !embd || cv_same_values(head, embd)) return;
    c->tied = false;
    fprintf(stderr, "%s: tie_word_embeddings is set, but '%.*s' is not '%.*s': "
        "both are kept, as transformers does\n", c->dir, STR(head->name),
        STR(embd->name));
}

/* A line for each purpose. */
static void cv_say_left_out(const cv *c) {
    const char *what[KS_LEN(CV_SKIP) + 2];
    u32 n = 0, count[KS_LEN(what)] = {0}, k;
    for (u32 i = 0; i < c->st.n; i++) {
        const char *w = cv_left_out(c, c->st.t[i].name);
        if (!w || !*w || c->st.t[i].used) continue;
        for (k = 0; k < n && what[k] != w; k++) {}
        if (k == n) what[n++] = w;
        count[k]++;
    }
    for (k = 0; k < n; k++)
        fprintf(stderr, "%s: %u tensor%s left out: for %s\n", c->dir, count[k],
            count[k] > 1 ? "s" : "", what[k]);
}

/* The tensors and keys of what it sees with, if any. */
static void tw_run(cv *c);

static void cv_plan(cv *c) {
    str unknown = {0};
    u32 n_unknown = 0;
    c->o->tied = c->tied;
    for (u32 i = 0; i < c->st.n; i++) {
        st_tensor *t = &c->st.t[i];
        if (cv_left_out(c, t->name)) continue;
        for (u32 k = 0;; k++) {
            cv_place place = cv_place_of(c, cv_bare(c, t->name), k);
            if (!place.name.n) break;
            if (c->tied && str_eq(place.name, str_of("output.weight")))
                t->used = true;
            else if (place.expert >= 0) cv_add_expert(c, t, place);
            else cv_add_tensor(c, t, place.name, true);
        }
    }
    for (u32 i = 0; i < c->st.n; i++) {
        const st_tensor *t = &c->st.t[i];
        str end = {t->name.p + t->name.n - min_size(t->name.n, 12),
            min_size(t->name.n, 12)};
        if (t->used || cv_left_out(c, t->name) || str_has(end, "input_scale"))
            continue;
        if (!n_unknown++) unknown = t->name;
    }
    if (n_unknown)
        die("%s: tensor '%.*s'%s no place in %s; without it the model would "
            "be another one", c->dir, STR(unknown),
            n_unknown > 1 ? " and others have" : " has", c->family->arch);
    for (u32 i = 0; i < c->g->n; i++) {
        const cv_source *s = c->g->t[i].src;
        for (i64 e = 0; s->experts && e < c->n_experts; e++)
            if (!s->experts[e].t)
                die("%s: '%.*s': expert %lld of %lld is missing", c->dir,
                    STR(c->g->t[i].name), (long long)e,
                    (long long)c->n_experts);
    }
    tw_run(c);
    cv_say_left_out(c);
}

static void cv_check_plan(const cv *c) {
    if (!cv_planned(c, str_of("token_embd.weight")))
        die("%s: no token embedding among the tensors", c->dir);
    if (!cv_planned(c, str_of("output.weight")) && !c->tied)
        die("%s: 'lm_head.weight' is missing and tie_word_embeddings is not "
            "set", c->dir);
    for (i64 n = 0; n < c->n_layers; n++) {
        u32 i = 0, layer;
        str rest;
        while (i < c->g->n && !(mdl_split_name(c->g->t[i].name, &layer, &rest)
                && layer == n))
            i++;
        if (i == c->g->n)
            die("%s: nothing among the tensors becomes 'blk.%lld.*'", c->dir,
                (long long)n);
    }
}

/* Whether the library will run it, with the tables that are made here. */
static void cv_try(const cv *c) {
    u8 *p = qz_zeros(c->g);
    for (u32 i = 0; p && i < c->g->n; i++) {
        const gw_tensor *t = &c->g->t[i];
        const cv_source *s = t->src;
        if (t->rows == cv_made_rows) {
            u8 *to = p + (size_t)(c->g->data + t->offset);
            memcpy(to, s->made, (size_t)t->bytes);
        }
    }
    if (p) qz_try(c->o, c->g, c->dir, p);
}

/* Which layers have experts: all after the first dense ones. */
static void cv_read_experts(cv *c) {
    const js *types = js_get(c->config, "mlp_layer_types");
    c->n_experts = cv_int(c, "num_experts|n_routed_experts|num_local_experts",
        -1);
    if (c->n_experts < 1 || c->n_experts > 1 << 12)
        die("%s/config.json: %lld experts", c->dir, (long long)c->n_experts);
    c->n_dense = cv_int(c, "first_k_dense_replace|num_dense_layers", 0);
    if (!types || types->kind != JS_ARR) return;
    c->n_dense = 0;
    i64 i = 0;
    for (const js *v = types->first; v; v = v->next, i++) {
        bool dense = js_is(v, "dense");
        if (dense && c->n_dense < i)
            die("%s/config.json: 'mlp_layer_types' has a dense layer after "
                "others, which %s is not run with", c->dir, c->family->arch);
        c->n_dense += dense;
    }
}

static void cv_check_folder(const char *dir) {
    sys_entry e;
    int there = sys_look(dir, &e);
    if (!there) die("%s: there is no such folder", dir);
    if (there < 0) die("%s: %s", dir, sys_why());
    if (!e.folder)
        die("%s: a file; convert takes a model's folder, with config.json and "
            "its weights ('quantize' takes a GGUF file)", dir);
}

static void cv_read_config(cv *c) {
    cv_check_folder(c->dir);
    c->top = json_read(c->dir, "config.json");
    if (!c->top || c->top->kind != JS_OBJ)
        die("%s: no config.json: not a model's folder", c->dir);
    c->generation = json_read(c->dir, "generation_config.json");
    c->model_type = js_text(js_get(c->top, "model_type"));
    const js *thinker = js_get(c->top, "thinker_config");
    if (thinker && thinker->kind == JS_OBJ) { /* Qwen3-ASR as Qwen has it */
        char name[96];
        snprintf(name, sizeof name, "%.*s_thinker", STR(c->model_type));
        c->model_type = str_of(str_dup(str_of(name)));
        c->top = thinker;
    }
    cv_find_family(c);
    c->n_layers = cv_int(c, "num_hidden_layers|num_layers", -1);
    c->n_heads = cv_int(c, "num_attention_heads", -1);
    c->n_kv = cv_int(c, "num_key_value_heads", c->n_heads);
    c->n_embd = cv_int(c, "hidden_size", -1);
    if (!c->n_heads || !c->n_kv || c->n_layers > 100000)
        die("%s/config.json: no heads or layers", c->dir);
    c->head_dim = cv_int(c, "head_dim", c->n_embd / c->n_heads);
    if (c->family->flags & CV_MLA) {
        c->head_dim = cv_int(c, "qk_rope_head_dim", -1);
        c->nope = cv_int(c, "qk_nope_head_dim", -1);
        c->value = cv_int(c, "v_head_dim", -1);
    }
    if (c->family->flags & CV_LAYERED)
        c->head_dim =
            cv_global(c, "head_dim", cv_int(c, "global_head_dim", 0));
    f64 part = fmin(cv_float(c->config, "partial_rotary_factor", 1),
        cv_float(cv_rope(c), "partial_rotary_factor", 1));
    if (c->family->flags & CV_LAYERED) part = 1;
    c->n_rope = part > 0 && part < 1 ? (i64)((f64)c->head_dim * part)
                                     : c->head_dim;
    if (c->family->flags & CV_MOE || cv_has_beside(c)) cv_read_experts(c);
    c->n_mtp = cv_int(c, "num_nextn_predict_layers|num_mtp_layers", 0);
    c->o->n_layers = (u32)c->n_layers;
    c->o->gqa = (u32)(c->n_heads / c->n_kv);
    cv_check_config(c);
}

/* The towers alone, as a file beside the language model's. */
static void cv_run_media(cv *c) {
    cv_write_general(c);
    tw_run(c);
    if (!c->g->n)
        die("%s/config.json: no tower that is known, for --media-only",
            c->dir);
    gw_set(c->g, &c->o->sets, str_of("clip"));
    qz_check_plan(c->o, c->g);
}

static void cv_run(cv *c, const char *pre) {
    cv_read_config(c);
    st_open(&c->st, c->dir);
    if (c->media_only) {
        cv_run_media(c);
        return;
    }
    c->headless = st_find(&c->st, str_of("embed_tokens.weight")) != NULL;
    cv_decide_tied(c);
    cv_write_general(c);
    cv_write_keys(c);
    cv_read_modules(c);
    cv_write_rope(c);
    cv_write_sampling(c);
    cv_plan(c);
    cv_plan_dense(c);
    cv_check_plan(c);
    const gw_tensor *embd = cv_planned(c, str_of("token_embd.weight"));
    tk_write(c->dir, c->top, c->config, c->generation, pre,
        (u32)embd->dims[1], c->g);
    gw_set(c->g, &c->o->sets, str_of(c->family->arch));
    qz_check_plan(c->o, c->g);
}
