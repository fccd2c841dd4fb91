#!/usr/bin/env python3
"""Convert a tiny model of every family and compare its logits.

transformers writes a random model and a small tokenizer for each family;
ksllm-quant converts the folder; the library runs the result. Token ids must
be those of the tokenizer, logits (float32 weights) those of transformers.
llama.cpp loads the same file, if its libraries are there.

    tests/quant_families.py [--program build/quant/ksllm-quant] [FAMILY ...]
"""
import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1",
                  TOKENIZERS_PARALLELISM="false")
TEXT = (ROOT / "tests" / "data" / "check_text.txt").read_text("utf-8")
LIMIT = 2e-4            # largest difference of a logit
BASE = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=3,
            num_attention_heads=4, num_key_value_heads=2, head_dim=32,
            max_position_embeddings=512, vocab_size=400)
LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0,
              low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0,
            original_max_position_embeddings=128)
LINEAR = dict(rope_type="linear", rope_theta=1e4, factor=4.0)
GEMMA_ROPE = dict(
    full_attention=dict(rope_type="default", rope_theta=1e6),
    sliding_attention=dict(rope_type="default", rope_theta=1e4))
FAMILIES = {
    "llama": ("LlamaConfig", dict(tie_word_embeddings=True), "gpt2"),
    "llama-untied-llama3": ("LlamaConfig", dict(
        tie_word_embeddings=False, rope_parameters=LLAMA3), "llama3"),
    "llama-yarn": ("LlamaConfig", dict(
        tie_word_embeddings=False, rope_parameters=YARN), "gpt2"),
    "llama-linear-bias": ("LlamaConfig", dict(
        tie_word_embeddings=True, rope_parameters=LINEAR,
        attention_bias=True), "digits"),
    "mistral": ("MistralConfig", dict(sliding_window=None), "pieces"),
    # llama.cpp wants what every Qwen2 has: head_dim = hidden / heads
    "qwen2": ("Qwen2Config", dict(tie_word_embeddings=True, head_dim=16),
              "qwen2"),
    "qwen3": ("Qwen3Config", dict(tie_word_embeddings=False), "qwen2"),
    "gemma3_text": ("Gemma3TextConfig", dict(
        num_hidden_layers=7, sliding_window=48, query_pre_attn_scalar=32,
        rope_parameters=GEMMA_ROPE), "pieces"),
}
LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
                r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
                r"\s+(?!\S)|\s+")
results = []


def check(ok, text):
    results.append(bool(ok))
    print(f"  {'pass' if ok else 'FAIL'}  {text}", flush=True)


def make_tokenizer(kind, n_vocab):
    from tokenizers import (Regex, Tokenizer, decoders, models, normalizers,
                            pre_tokenizers, processors, trainers)
    special = ["<unk>", "<s>", "</s>", "<|im_end|>"]
    if kind == "pieces":
        t = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>",
                                 fuse_unk=True))
        t.normalizer = normalizers.Sequence([
            normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        special += [f"<0x{b:02X}>" for b in range(256)]
        # no pre-tokenizer: as SentencePiece's converted models
        trainer = trainers.BpeTrainer(
            vocab_size=n_vocab, special_tokens=special, show_progress=False,
            max_token_length=8,
            initial_alphabet=list("\u2581abcdefghijklmnopqrstuvwxyz"),
            limit_alphabet=60)
        t.train_from_iterator(TEXT.split("\n"), trainer)
        data = json.loads(t.to_str())
        # byte pieces are plain vocabulary there, not added tokens
        data["added_tokens"] = data["added_tokens"][:4]
        t = Tokenizer.from_str(json.dumps(data))
        t.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 1)])
        return t
    t = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False,
                                     use_regex=kind in ("gpt2", "digits"))
    split = LLAMA3_SPLIT
    if kind == "qwen2":
        t.normalizer = normalizers.NFC()
        split = split.replace("{1,3}", "")
    first = {"gpt2": [], "digits": [pre_tokenizers.Digits(True)]}.get(
        kind, [pre_tokenizers.Split(Regex(split), "isolated")])
    t.pre_tokenizer = pre_tokenizers.Sequence(first + [level]) \
        if first else level
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(TEXT.split("\n"), trainers.BpeTrainer(
        vocab_size=n_vocab - 7, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def make_folder(folder, name):
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    config_class, options, kind = FAMILIES[name]
    torch.manual_seed(7)
    config = getattr(transformers, config_class)(
        **(BASE | options), bos_token_id=1, eos_token_id=2)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager").float().eval()
    with torch.no_grad():
        for p in model.parameters():    # norms too: ones would hide a lot
            p.add_(torch.randn_like(p) * 0.1)
    model.generation_config.eos_token_id = [2, 3]
    model.generation_config.temperature = 0.6
    model.generation_config.top_k = 20
    model.generation_config.do_sample = True
    # several shards, so that the index is read
    model.save_pretrained(folder, max_shard_size="100KB")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(kind, BASE["vocab_size"]),
        bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        chat_template="{{ messages[0].content }}")
    fast.save_pretrained(folder)
    return model, fast


def run_ours(logits, path, tokens, n_vocab, folder):
    ids, out = folder / "ids", folder / "out"
    np.array(tokens, "<i4").tofile(ids)
    subprocess.run([logits, path, ids, out, "--kv", "f32"], check=True,
                   stdout=subprocess.DEVNULL)
    return np.fromfile(out, "<f4").reshape(len(tokens), n_vocab)


def run_tokens(program, path, text):
    data = text.encode()
    record = struct.pack("<III", 0, 0, len(data)) + data
    out = subprocess.run([program, path], input=record, check=True,
                         stdout=subprocess.PIPE).stdout
    n, = struct.unpack_from("<i", out)
    return list(struct.unpack_from(f"<{n}i", out, 4))


def check_family(name, args, peer):
    import torch
    print(name, flush=True)
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / name
        model, tokenizer = make_folder(folder, name)
        path = Path(temp) / "out.gguf"
        run = subprocess.run([args.program, "convert", folder, "-o", path,
                              "-t", "f32", "--quiet"], capture_output=True,
                             text=True)
        if run.returncode:
            check(False, run.stderr.strip())
            return
        text = TEXT[-600:]
        want_ids = tokenizer.backend_tokenizer.encode(
            text, add_special_tokens=False).ids
        got_ids = run_tokens(args.tokens, path, text)
        check(got_ids == want_ids, f"{len(want_ids)} token ids")
        tokens = [1] + want_ids[:120]
        with torch.inference_mode():
            want = model(torch.tensor([tokens])).logits[0].numpy()
        ours = run_ours(args.logits, path, tokens, want.shape[1], Path(temp))
        worst = np.abs(ours - want).max()
        check(worst <= LIMIT, f"logits within {worst:.1e} (limit {LIMIT:g}), "
              f"they span {np.ptp(want):.1f}")
        if peer:
            theirs = peer.logits(path, tokens, exact=True)
            worst = np.abs(theirs - want).max()
            check(worst <= 2e-3, f"llama.cpp reads it, within {worst:.1e}")
        info = json.loads(subprocess.run(
            [args.program, "inspect", path, "--json"], check=True,
            capture_output=True, text=True).stdout)["metadata"]
        check(info["tokenizer.ggml.bos_token_id"] == 1
              and info["tokenizer.ggml.eos_token_id"] == 2
              and info["tokenizer.ggml.eot_token_id"] == 3
              and abs(info["general.sampling.temp"] - 0.6) < 1e-6
              and info["general.sampling.top_k"] == 20
              and info["tokenizer.chat_template"].startswith("{{"),
              "special tokens, sampling defaults, template")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("families", nargs="*", default=list(FAMILIES))
    build = ROOT / "build"
    ap.add_argument("--program", default=build / "quant" / "ksllm-quant")
    ap.add_argument("--logits", default=build / "tests" / "logits")
    ap.add_argument("--tokens", default=build / "tests" / "tokens")
    ap.add_argument("--no-peer", action="store_true")
    args = ap.parse_args()
    peer = None
    if not args.no_peer:
        sys.path.insert(0, str(ROOT / "tests"))
        import check_models
        peer = check_models.Peer(check_models.fetch_peer())
    for name in args.families:
        check_family(name, args, peer)
    failed = results.count(False)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
