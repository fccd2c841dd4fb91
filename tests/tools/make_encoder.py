#!/usr/bin/env python3
"""make_encoder.py - writes tests/data/encoder.*: a tiny XLM-R reranker with
random weights as llama.cpp's converter would write it, and what transformers
computes.

    build/venv/bin/python tests/tools/make_encoder.py

encoder.bin: u32 texts, u32 n_embd; for each text u32 n, i32 tokens[n], then f32
of the first token, the last one, the mean over all, and the reranker's logit.
"""
import os
import struct

import gguf
import torch
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")
VOCAB, EMBD, LAYERS, HEADS, FFN, PLACES, EPS = 64, 32, 2, 4, 72, 70, 1e-5
NAMES = {
    "roberta.embeddings.word_embeddings.weight": "token_embd.weight",
    "roberta.embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "roberta.embeddings.LayerNorm.bias": "token_embd_norm.bias",
    "roberta.embeddings.position_embeddings.weight": "position_embd.weight",
    "roberta.embeddings.token_type_embeddings.weight": "token_types.weight",
    "classifier.dense.weight": "cls.weight",
    "classifier.dense.bias": "cls.bias",
    "classifier.out_proj.weight": "cls.output.weight",
    "classifier.out_proj.bias": "cls.output.bias",
}
LAYER = {
    "attention.self.query": "attn_q", "attention.self.key": "attn_k",
    "attention.self.value": "attn_v", "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up", "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def name_of(key):
    if key in NAMES:
        return NAMES[key]
    _, _, _, layer, rest = key.split(".", 4)
    part, kind = rest.rsplit(".", 1)
    return "blk.%s.%s.%s" % (layer, LAYER[part], kind)


def write_gguf(model, path):
    w = gguf.GGUFWriter(path, "bert")
    w.add_context_length(PLACES - 2)     # the rows of <s> and <pad> go
    w.add_embedding_length(EMBD)
    w.add_block_count(LAYERS)
    w.add_feed_forward_length(FFN)
    w.add_head_count(HEADS)
    w.add_layer_norm_eps(EPS)
    w.add_causal_attention(False)
    w.add_pooling_type(gguf.PoolingType.RANK)
    w.add_tokenizer_model("t5")
    w.add_tokenizer_pre("default")
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "\u2581"]
    tokens += [chr(ord("a") + i) for i in range(26)]
    tokens += ["\u2581t%d" % i for i in range(VOCAB - len(tokens))]
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * 4 + [-float(i) for i in range(4, VOCAB)])
    w.add_token_types([3, 3, 3, 2] + [1] * (VOCAB - 4))
    w.add_token_type_count(1)
    w.add_add_space_prefix(True)
    w.add_remove_extra_whitespaces(True)
    for kind, i in (("bos", 0), ("eos", 2), ("unk", 3), ("sep", 2),
                    ("pad", 1)):
        getattr(w, "add_%s_token_id" % kind)(i)
    w.add_add_bos_token(True)
    w.add_add_eos_token(True)
    for key, value in model.state_dict().items():
        value = value.detach().numpy()
        if key.endswith("position_embeddings.weight"):
            value = value[2:].copy()
        w.add_tensor(name_of(key), value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def main():
    torch.manual_seed(1)
    config = XLMRobertaConfig(
        vocab_size=VOCAB, hidden_size=EMBD, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, intermediate_size=FFN,
        max_position_embeddings=PLACES, type_vocab_size=1, pad_token_id=1,
        layer_norm_eps=EPS, initializer_range=0.3, num_labels=1)
    model = XLMRobertaForSequenceClassification(config).eval().float()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if key.endswith("LayerNorm.weight"):
                p.normal_(1, 0.2)
            elif key.endswith("bias"):
                p.normal_(0, 0.3)
    os.makedirs(HERE, exist_ok=True)
    write_gguf(model, os.path.join(HERE, "encoder.gguf"))
    with open(os.path.join(HERE, "encoder.bin"), "wb") as f:
        texts = [[0] + torch.randint(4, VOCAB, (n,)).tolist() + [2]
                 for n in (1, 5, 38, 66)]
        f.write(struct.pack("<II", len(texts), EMBD))
        for tokens in texts:
            ids = torch.tensor([tokens])
            with torch.no_grad():
                h = model.roberta(ids).last_hidden_state[0]
                logit = model(ids).logits[0, 0]
            f.write(struct.pack("<I%di" % len(tokens), len(tokens), *tokens))
            for v in (h[0], h[-1], h.mean(0), logit):
                f.write(v.numpy().astype("<f4").tobytes())


if __name__ == "__main__":
    main()
