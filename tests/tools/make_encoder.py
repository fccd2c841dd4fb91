#!/usr/bin/env python3
"""make_encoder.py - writes tests/data/encoder.*: a tiny XLM-R reranker with
random weights as llama.cpp's converter would write it, and what transformers
computes. And tests/data/embedding_gemma/: EmbeddingGemma's layout as a
folder of sentence-transformers, in embedding.bin the tokens of TEXTS and their
vectors; tests/data/xlmr/: the same for BGE-M3 and KURE; tests/data/xlmr_rank/:
a reranker's folder as BGE's is, in rank.txt the tokens of pairs of TEXTS and
their logits.

    build/venv/bin/python tests/tools/make_encoder.py

encoder.bin: u32 texts, u32 n_embd; for each text u32 n, i32 tokens[n], then f32
of the first token, the last one, the mean over all, and the reranker's logit.
"""
import json
import os
import re
import struct
import sys

import gguf
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import processors
from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
HERE = os.path.join(TESTS, "data")
sys.path.insert(0, os.path.join(TESTS, "reference"))
import make_reference   # noqa: E402
sys.path.insert(0, TESTS)
import check_tokens as ct  # noqa: E402
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


def write_json(folder, name, value):
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, name), "w") as f:
        json.dump(value, f, indent=1)


def gemma(folder):
    """A window of 9 tokens to each side and five such layers to one without;
    the mean through two matrices; length 1."""
    window = 17         # as published; transformers makes 17 // 2 + 1 of it
    config = transformers.Gemma3TextConfig(
        vocab_size=264, hidden_size=64, num_hidden_layers=7,
        intermediate_size=64, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, query_pre_attn_scalar=16, sliding_window=window,
        max_position_embeddings=256, use_bidirectional_attention=True,
        attn_implementation="eager", bos_token_id=256, eos_token_id=257,
        pad_token_id=0)
    torch.manual_seed(2)
    model = transformers.Gemma3TextModel(config).eval().float()
    dense = [torch.randn(n) / n[1] ** 0.5 for n in ((96, 64), (64, 96))]
    with torch.no_grad():
        for key, p in model.named_parameters():
            p.normal_(0, 0.3 if "norm" in key else 1 / p.shape[-1] ** 0.5)
            p.copy_(p.half().float())
    dense = [d.half().float() for d in dense]
    os.makedirs(folder, exist_ok=True)
    make_reference.write_tokenizer(folder)
    path = os.path.join(folder, "tokenizer.json")
    with open(path) as f:
        tok = json.load(f)
    ends = [{"SpecialToken": {"id": t, "type_id": 0}} for t in ("<bos>", "<eos>")]
    names = {t["id"]: t["content"] for t in tok["added_tokens"]}
    for end, i in zip(ends, (256, 257)):
        end["SpecialToken"]["id"] = names[i]
    text = {"Sequence": {"id": "A", "type_id": 0}}
    tok["post_processor"] = {
        "type": "TemplateProcessing", "single": [ends[0], text, ends[1]],
        "pair": [ends[0], text, {"Sequence": {"id": "B", "type_id": 1}},
                 ends[1]],
        "special_tokens": {names[i]: {"id": names[i], "ids": [i],
                                      "tokens": [names[i]]}
                           for i in (256, 257)}}
    with open(path, "w") as f:
        json.dump(tok, f, ensure_ascii=True, separators=(",", ":"))
    saved = {**config.to_dict(), "sliding_window": window,
             "architectures": ["Gemma3TextModel"]}
    write_json(folder, "config.json", saved)
    save_file({k: v.half() for k, v in model.state_dict().items()},
              os.path.join(folder, "model.safetensors"), {"format": "pt"})
    kinds = ["Transformer", "Pooling", "Dense", "Dense", "Normalize"]
    write_json(folder, "modules.json", [
        {"idx": i, "name": str(i), "path": "%d_%s" % (i, k) if i else "",
         "type": "sentence_transformers.models." + k}
        for i, k in enumerate(kinds)])
    write_json(os.path.join(folder, "1_Pooling"), "config.json", {
        "word_embedding_dimension": 64, "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False})
    for i, d in enumerate(dense):
        sub = os.path.join(folder, "%d_Dense" % (i + 2))
        write_json(sub, "config.json", {
            "in_features": d.shape[1], "out_features": d.shape[0],
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity"})
        save_file({"linear.weight": d.half()},
                  os.path.join(sub, "model.safetensors"), {"format": "pt"})
    fast = transformers.PreTrainedTokenizerFast(tokenizer_file=path)
    with open(os.path.join(folder, "embedding.bin"), "wb") as f:
        rows = []
        for t in make_reference.TEXTS:
            ids = fast(t)["input_ids"]
            assert ids[0] == 256 and ids[-1] == 257
            with torch.no_grad():
                h = model(torch.tensor([ids])).last_hidden_state[0].mean(0)
            rows.append(torch.nn.functional.normalize(
                dense[1] @ (dense[0] @ h), dim=0))
            f.write(("ids %s\n" % " ".join(map(str, ids))).encode())
        f.write(b"logits %d 64\n" % len(rows))
        f.write(torch.stack(rows).numpy().astype("<f4").tobytes())


def unigram():
    """The vocabulary and the map of tests/unigram.h: rows, bytes."""
    with open(os.path.join(TESTS, "unigram.h")) as f:
        text = f.read()
    rows = [(re.sub(rb"\\(\d{3})", lambda m: bytes([int(m[1], 8)]),
                    t.encode()).decode(), float(s), int(k))
            for t, s, k in re.findall(r'\{"(.*?)", (\S+)f, (\d)\}', text)]
    table = text[text.index("unigram_map[]"):]
    table = table[table.index("{") + 1:table.index("}")]
    return rows, bytes(int(b) for b in re.findall(r"\d+", table))


def xlmr_model(cls, rows, seed, **config):
    config = XLMRobertaConfig(
        vocab_size=len(rows), type_vocab_size=1, pad_token_id=1,
        bos_token_id=0, eos_token_id=2, layer_norm_eps=1e-5, **config)
    torch.manual_seed(seed)
    model = cls(config).eval().float()
    with torch.no_grad():
        for key, p in model.named_parameters():
            if key.endswith("LayerNorm.weight"):
                p.normal_(1, 0.2)
            elif key.endswith("bias"):
                p.normal_(0, 0.3)
            p.copy_(p.half().float())
    return model


def xlmr_folder(folder, model, rows, charsmap):
    """The model and its tokenizer, which is returned."""
    os.makedirs(folder, exist_ok=True)
    tok = ct.xlm_roberta(rows, charsmap)
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)])
    data = json.loads(tok.to_str())
    path = os.path.join(folder, "tokenizer.json")
    with open(path, "w") as f:
        json.dump(data, f, ensure_ascii=True, separators=(",", ":"))
    write_json(folder, "tokenizer_config.json", {
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "pad_token": "<pad>"})
    write_json(folder, "config.json", {
        **model.config.to_dict(), "architectures": [type(model).__name__]})
    save_file({k: v.half() for k, v in model.state_dict().items()},
              os.path.join(folder, "model.safetensors"), {"format": "pt"})
    return tok


def xlmr(folder):
    """The first token's state, of length 1. The pooler is not used."""
    rows, charsmap = unigram()
    model = xlmr_model(
        transformers.XLMRobertaModel, rows, 3, hidden_size=32,
        num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=130, initializer_range=0.3)
    tok = xlmr_folder(folder, model, rows, charsmap)
    write_json(folder, "modules.json", [
        {"idx": i, "name": str(i), "path": "%d_%s" % (i, k) if i else "",
         "type": "sentence_transformers.models." + k}
        for i, k in enumerate(["Transformer", "Pooling", "Normalize"])])
    write_json(os.path.join(folder, "1_Pooling"), "config.json", {
        "word_embedding_dimension": 32, "pooling_mode_cls_token": True,
        "pooling_mode_mean_tokens": False})
    with open(os.path.join(folder, "embedding.bin"), "wb") as f:
        out = []
        for t in make_reference.TEXTS:
            ids = tok.encode(t).ids
            with torch.no_grad():
                h = model(torch.tensor([ids])).last_hidden_state[0, 0]
            out.append(torch.nn.functional.normalize(h, dim=0))
            f.write(("ids %s\n" % " ".join(map(str, ids))).encode())
        f.write(b"logits %d 32\n" % len(out))
        f.write(torch.stack(out).numpy().astype("<f4").tobytes())


def xlmr_rank(folder):
    """Each text is asked for with the next one."""
    rows, charsmap = unigram()
    model = xlmr_model(
        XLMRobertaForSequenceClassification, rows, 4, hidden_size=16,
        num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=130, initializer_range=0.8, num_labels=1)
    tok = xlmr_folder(folder, model, rows, charsmap)
    texts = make_reference.TEXTS
    with open(os.path.join(folder, "rank.txt"), "w") as f:
        for a, b in zip(texts, texts[1:] + texts[:1]):
            ids = tok.encode(a, b).ids
            with torch.no_grad():
                logit = model(torch.tensor([ids])).logits[0, 0]
            f.write("ids %s score %.6f\n" % (" ".join(map(str, ids)), logit))


def main():
    gemma(os.path.join(HERE, "embedding_gemma"))
    xlmr(os.path.join(HERE, "xlmr"))
    xlmr_rank(os.path.join(HERE, "xlmr_rank"))
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
