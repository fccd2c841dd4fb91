#!/usr/bin/env python3
"""Convert a tiny model of every family and compare its logits.

transformers writes a random model and a small tokenizer for each family;
ksllm-quant converts the folder; the library runs the result. Token ids must
be those of the tokenizer, logits (float32 weights) those of transformers.
llama.cpp loads the same file, if its libraries are there. Then tokenizers:
every rule for cutting text that convert knows, those that models publish, and
SentencePiece's own; what they put around a text; and folders whose files say
different things.

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

sys.path.insert(0, str(Path(__file__).resolve().parent))
import check_tokens as ct                                   # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1",
                  TOKENIZERS_PARALLELISM="false")
TEXT = (ROOT / "tests" / "data" / "check_text.txt").read_text("utf-8")
HELD_OUT = (ROOT / "tests" / "quant_heldout_ko.txt").read_text("utf-8")
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
    "llama": ("LlamaConfig", dict(tie_word_embeddings=True), "gpt-2"),
    "llama-untied-llama3": ("LlamaConfig", dict(
        tie_word_embeddings=False, rope_parameters=LLAMA3), "llama-bpe"),
    "llama-yarn": ("LlamaConfig", dict(
        tie_word_embeddings=False, rope_parameters=YARN), "gpt-2"),
    "llama-linear-bias": ("LlamaConfig", dict(
        tie_word_embeddings=True, rope_parameters=LINEAR,
        attention_bias=True), "smollm"),
    "mistral": ("MistralConfig", dict(sliding_window=None), "pieces"),
    # llama.cpp wants what every Qwen2 has: head_dim = hidden / heads
    "qwen2": ("Qwen2Config", dict(tie_word_embeddings=True, head_dim=16),
              "qwen2"),
    "qwen3": ("Qwen3Config", dict(tie_word_embeddings=False), "qwen2"),
    # the same weights in 8 bits: a scale for each block, and for each row
    "llama-f8-blocks": ("LlamaConfig", dict(tie_word_embeddings=True), "gpt-2"),
    "llama-f8-rows": ("LlamaConfig", dict(tie_word_embeddings=True), "gpt-2"),
    "gemma3_text": ("Gemma3TextConfig", dict(
        num_hidden_layers=7, sliding_window=48, query_pre_attn_scalar=32,
        rope_parameters=GEMMA_ROPE), "pieces"),
    "gemma4_text": ("Gemma4TextConfig", dict(
        num_hidden_layers=5, sliding_window=48, global_head_dim=64,
        num_kv_shared_layers=2, use_double_wide_mlp=True,
        hidden_size_per_layer_input=32, vocab_size_per_layer_input=400,
        layer_types=["sliding_attention", "sliding_attention",
                     "full_attention"] + ["sliding_attention",
                                          "full_attention"],
        final_logit_softcapping=20.0), "merges"),
}
# Rules that have several names, by the one that convert writes.
NAMES = {"exaone4": "gpt-2", "a.x-4.0": "gpt-2", "trillion": "gpt-2",
         "exaone": "smollm", "midm-2.0": "llama-bpe",
         "solar-open": "deepseek-r1-qwen", "kormo": "deepseek-r1-qwen",
         "kanana2": "gpt-4o"}
# Rules that convert knows; of the others only the library does.
WRITTEN = {"gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-r1-qwen",
           "qwen35", "exaone-moe", "gpt-4o", "tekken", "deepseek-v3",
           "hyperclovax"}
# Other spellings of rules.
SPELLINGS = [("llama-bpe", (lambda s=s: ct.split(s), False, True)) for s in (
    ct.CL100K.replace(ct.CI, "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|"
                             "'[lL][lL]|'[dD])"),
    ct.CL100K.replace(ct.CI, "'(?i:[sdmt]|ll|ve|re)")
    .replace("]?", "]?+", 1).replace("]+", "]++", 1),
    ct.CL100K.replace(r"\r", "\r").replace(r"\n", "\n"))]
SPELLINGS.append(("smollm", (lambda: ct.gpt2(
    ct.pre_tokenizers.Digits(True)), False, False)))
# What models publish, in packages of npm: folder, name.
PUBLISHED = dict(gpt2="gpt-2", llama3_1="llama-bpe", qwen3="qwen2",
                 gpt4o="gpt-4o", deepseek_v3="deepseek-v3", gemma3="default")
results = []


def check(ok, text):
    results.append(bool(ok))
    print(f"  {'pass' if ok else 'FAIL'}  {text}", flush=True)


def make_tokenizer(kind, n_vocab):
    from tokenizers import (Tokenizer, decoders, models, normalizers,
                            pre_tokenizers, processors, trainers)
    special = ["<unk>", "<s>", "</s>", "<|im_end|>"]
    if kind in ("pieces", "merges"):
        t = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>",
                                 fuse_unk=True))
        t.normalizer = normalizers.Replace(" ", "\u2581")
        if kind == "pieces":
            t.normalizer = normalizers.Sequence([
                normalizers.Prepend("\u2581"), t.normalizer])
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
    pre, nfc, whole = ct.RULES[kind] if isinstance(kind, str) else kind
    t = Tokenizer(models.BPE(ignore_merges=whole))
    if nfc:
        t.normalizer = normalizers.NFC()
    t.pre_tokenizer = pre()
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
    model.generation_config.top_p = 0.9
    model.generation_config.min_p = 0.05
    model.generation_config.repetition_penalty = 1.1
    model.generation_config.do_sample = True
    if "-f8-" in name:
        save_f8(folder, model, name.endswith("rows"))
    else:   # several shards, so that the index is read
        model.save_pretrained(folder, max_shard_size="100KB")
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=make_tokenizer(kind, BASE["vocab_size"]),
        bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        chat_template="{{ messages[0].content }}")
    fast.save_pretrained(folder)
    return model, fast


def save_f8(folder, model, rows):
    """Matrices in F8_E4M3 with scales, one a row or one a block of 48 x 40;
    the model gets what they stand for."""
    import torch
    from safetensors.torch import save_file
    tensors = {}
    for name, p in model.named_parameters():
        tensors[name] = p.data.contiguous()
        if "_proj.weight" not in name:
            continue
        bo, bi = (1, p.shape[1]) if rows else (48, 40)
        scale = torch.stack([torch.stack(
            [x.abs().max() / 448 for x in r.split(bi, 1)])
            for r in p.data.split(bo)])
        full = scale.repeat_interleave(bo, 0).repeat_interleave(bi, 1)
        full = full[:p.shape[0], :p.shape[1]]
        q = (p.data / full).to(torch.float8_e4m3fn)
        p.data = q.float() * full
        tensors[name] = q
        tensors[name + ("_scale" if rows else "_scale_inv")] = scale
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    model.generation_config.save_pretrained(folder)
    config = model.config.to_dict()
    config["quantization_config"] = dict(
        quant_method="fp8", weight_block_size=[48, 40])
    (folder / "config.json").write_text(json.dumps(config))


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
            # its GELU is a table of float16, and Gemma 4's scores are large
            limit = 2e-2 if name == "gemma4_text" else 2e-3
            check(worst <= limit, f"llama.cpp reads it, within {worst:.1e}")
        info = json.loads(subprocess.run(
            [args.program, "inspect", path, "--json"], check=True,
            capture_output=True, text=True).stdout)["metadata"]
        check(info["tokenizer.ggml.bos_token_id"] == 1
              and info["tokenizer.ggml.eos_token_id"] == 2
              and info["tokenizer.ggml.eot_token_id"] == 3
              and info["general.sampling.top_k"] == 20
              and all(abs(info["general.sampling." + k] - v) < 1e-6
                      for k, v in (("temp", 0.6), ("top_p", 0.9),
                                   ("min_p", 0.05), ("penalty_repeat", 1.1)))
              and info["tokenizer.chat_template"].startswith("{{"),
              "special tokens, sampling defaults, template")


def bare_folder(folder, n_vocab):
    """A Llama that is there only for its tokenizer."""
    from safetensors.numpy import save_file
    n, f = 32, 32
    config = dict(model_type="llama", hidden_size=n, intermediate_size=f,
                  num_hidden_layers=1, num_attention_heads=1,
                  vocab_size=n_vocab, max_position_embeddings=64,
                  rms_norm_eps=1e-5, tie_word_embeddings=True,
                  hidden_act="silu")
    (folder / "config.json").write_text(json.dumps(config))
    p = "model.layers.0."
    shapes = {"model.embed_tokens.weight": (n_vocab, n),
              "model.norm.weight": (n,), p + "input_layernorm.weight": (n,),
              p + "post_attention_layernorm.weight": (n,)}
    shapes |= {f"{p}self_attn.{k}_proj.weight": (n, n) for k in "qkvo"}
    shapes |= {f"{p}mlp.{k}_proj.weight": (f, n)
               for k in ("gate", "up", "down")}
    save_file({k: np.ones(v, np.float16) for k, v in shapes.items()},
              folder / "model.safetensors")


def check_tokenizer(name, folder, want_pre, encode, n_vocab, args):
    """The folder's tokenizer is called want_pre and gives encode's ids.
    Returns what was written."""
    import gguf
    bare_folder(folder, n_vocab)
    path = folder / "out.gguf"
    r = subprocess.run([args.program, "convert", folder, "-o", path,
                        "--quiet"], capture_output=True, text=True)
    if r.returncode:
        check(False, f"{name}: {r.stderr.strip()}")
        return None
    got = gguf.GGUFReader(path)
    pre = got.fields["tokenizer.ggml.pre"].contents()
    same = all(run_tokens(args.tokens, path, t) == encode(t)
               for t in (TEXT, HELD_OUT))
    check(pre == want_pre and same, f"{name}: {pre}, "
          f"{'the same' if same else 'OTHER'} ids")
    return got


def check_json_tokenizers(args):
    from tokenizers import Tokenizer
    print("tokenizer.json", flush=True)
    cases = [(k, NAMES.get(k, k), make_tokenizer(k, 600)) for k in ct.RULES
             if NAMES.get(k, k) in WRITTEN]
    for i, (pre, kind) in enumerate(SPELLINGS):
        cases.append((f"spelling {i}", pre, make_tokenizer(kind, 600)))
    for folder, pre in PUBLISHED.items():
        path = args.npm / folder / "package" / "models" / "tokenizer.json"
        if path.exists():
            cases.append((f"{folder} as published", pre,
                          Tokenizer.from_file(str(path))))
    for name, pre, t in cases:
        with tempfile.TemporaryDirectory() as temp:
            t.save(str(Path(temp) / "tokenizer.json"))
            n = 1 + max(t.get_vocab().values())
            check_tokenizer(name, Path(temp), pre, lambda s: t.encode(
                s, add_special_tokens=False).ids, n, args)


def convert(args, folder):
    """The folder's GGUF, as gguf reads it; None, and said why, if there is
    none."""
    import gguf
    path = folder / "out.gguf"
    r = subprocess.run([args.program, "convert", folder, "-o", path, "-t",
                        "f32", "--quiet"], capture_output=True, text=True)
    if r.returncode:
        check(False, r.stderr.strip())
        return None
    return {k: v.contents() for k, v in gguf.GGUFReader(path).fields.items()}


def check_qwen35(args):
    """Qwen3.5's tokenizer as transformers builds it normalizes to NFC."""
    import unicodedata
    from transformers import Qwen3_5Tokenizer
    print("Qwen3.5, decomposed text", flush=True)
    model = json.loads(make_tokenizer("qwen35", 600).to_str())["model"]
    t = Qwen3_5Tokenizer(vocab=model["vocab"],
                         merges=[tuple(m) for m in model["merges"]])
    split = unicodedata.normalize("NFD", TEXT[:4000])
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        t.save_pretrained(folder)
        check_tokenizer("Qwen3_5Tokenizer", folder, "qwen35", lambda s: t(
            s, add_special_tokens=False).input_ids, 600, args)
        got = run_tokens(args.tokens, folder / "out.gguf", split)
        check(split != TEXT[:4000] and got == t(split).input_ids
              == t(TEXT[:4000]).input_ids, "decomposed: the ids of NFC")


def check_frames(args):
    """What AutoTokenizer puts before and after a text."""
    import transformers
    from tokenizers import processors
    print("post-processors", flush=True)

    def template(single):
        return processors.TemplateProcessing(single=single, special_tokens=[
            ("<s>", 1), ("</s>", 2), ("<|im_end|>", 3)])
    cases = dict(
        none=None, bytes=processors.ByteLevel(), bos=template("<s> $A"),
        eos=template("$A </s>"), both=template("<s> $A </s>"),
        other=processors.Sequence([processors.ByteLevel(),
                                   template("$A <|im_end|>")]),
        roberta=processors.RobertaProcessing(("</s>", 2), ("<s>", 1)))
    flags = [{}, dict(add_bos_token=False, add_eos_token=False),
             dict(add_bos_token=True, add_eos_token=True)]
    for name, post in cases.items():
        same = True
        for flag in flags:
            with tempfile.TemporaryDirectory() as temp:
                folder = Path(temp)
                t = make_tokenizer("gpt-2", 400)
                if post:
                    t.post_processor = post
                t.save(str(folder / "tokenizer.json"))
                (folder / "tokenizer_config.json").write_text(json.dumps(
                    dict(bos_token="<s>", eos_token="</s>") | flag))
                bare_folder(folder, 400)
                got = convert(args, folder)
                if not got:
                    return
                f = {k.removeprefix("tokenizer.ggml."): v
                     for k, v in got.items()}
                ours = ([f["bos_token_id"]] * f["add_bos_token"]
                        + run_tokens(args.tokens, folder / "out.gguf", "ab cd")
                        + [f["eos_token_id"]] * f["add_eos_token"])
                theirs = transformers.AutoTokenizer.from_pretrained(folder)
                same &= ours == theirs("ab cd").input_ids
        check(same, f"{name}: as AutoTokenizer, whatever the flags")


def check_templates(args):
    """Which template AutoTokenizer takes."""
    import transformers
    print("chat templates", flush=True)
    files = {
        "chat_template.json": json.dumps(dict(chat_template="one")),
        "tokenizer_config.json": json.dumps(dict(chat_template="two")),
        "additional_chat_templates/rag.jinja": "three",
        "chat_template.jinja": "four"}
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        (folder / "additional_chat_templates").mkdir()
        make_tokenizer("gpt-2", 400).save(str(folder / "tokenizer.json"))
        bare_folder(folder, 400)
        for name, text in files.items():
            (folder / name).write_text(text)
            theirs = transformers.AutoTokenizer.from_pretrained(
                folder).chat_template
            if not isinstance(theirs, dict):
                theirs = dict(default=theirs)
            if name == "chat_template.json":    # AutoProcessor's alone
                theirs = dict(default="one")
            ours = {k.removeprefix("tokenizer.chat_template").lstrip(".")
                    or "default": v for k, v in convert(args, folder).items()
                    if k.startswith("tokenizer.chat_template")
                    and not k.endswith("templates")}
            check(ours == theirs, f"with {name}: {theirs}")


def check_disagreements(args):
    """Folders whose files say different things, against what transformers
    makes of them."""
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
    print("files that disagree", flush=True)

    def same(what, folder):
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager").eval()
        fields = convert(args, folder)
        if not fields:
            return
        tokens = [1, *range(5, 60)]
        with torch.inference_mode():
            want = model(torch.tensor([tokens])).logits[0].numpy()
        ours = run_ours(args.logits, folder / "out.gguf", tokens,
                        want.shape[1], folder)
        eos = model.generation_config.eos_token_id
        eos = eos if isinstance(eos, list) else [eos]
        worst = np.abs(ours - want).max()
        check(worst <= LIMIT and set(eos) <= set(
            fields["tokenizer.ksllm.stop_token_ids"]),
            f"{what}: within {worst:.1e}, ends at {eos}")

    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "llama"
        model, _ = make_folder(folder, "llama")
        for f in folder.glob("model*"):
            f.unlink()
        model.save_pretrained(folder)
        one = folder / "model.safetensors"
        weights = load_file(one)
        old = {k: v + 1 for k, v in weights.items()}
        save_file(old, folder / "old.safetensors", {"format": "pt"})
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps(dict(
            weight_map={k: "old.safetensors" for k in old})))
        same("an index of other files", folder)
        index.unlink()
        embd = weights["model.embed_tokens.weight"]
        for what, head in (("a head that is tied", embd.clone()),
                           ("a head that is not", embd.flip(0).contiguous())):
            save_file(weights | {"lm_head.weight": head}, one,
                      {"format": "pt"})
            same(what, folder)
        path = folder / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | dict(
            rope_scaling=LINEAR, rope_parameters={}, eos_token_id=[7, 8])))
        same("rope_scaling beside nothing", folder)
        (folder / "generation_config.json").unlink()
        same("stops of config.json alone", folder)


def check_sentencepiece(args):
    """A lone tokenizer.model: pieces, scores, types, ids."""
    import sentencepiece as sp
    print("tokenizer.model", flush=True)
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp)
        (folder / "text").write_text(TEXT)
        sp.SentencePieceTrainer.train(
            input=str(folder / "text"), model_prefix=str(folder / "tokenizer"),
            model_type="bpe", vocab_size=1000, byte_fallback=True,
            normalization_rule_name="identity", character_coverage=0.98,
            remove_extra_whitespaces=False, minloglevel=2,
            user_defined_symbols=["<|im_end|>"])
        t = sp.SentencePieceProcessor(str(folder / "tokenizer.model"))
        n = t.vocab_size()
        (folder / "tokenizer_config.json").write_text(json.dumps(dict(
            added_tokens_decoder={str(n): dict(content="<|end|>",
                                               special=True)})))
        got = check_tokenizer("SentencePiece BPE", folder, "default",
                              t.encode, n + 1, args)
        if not got:
            return
        fields = {k: got.fields["tokenizer.ggml." + k].contents() for k in (
            "tokens", "scores", "token_type", "bos_token_id", "eos_token_id",
            "unknown_token_id", "add_space_prefix")}
        kinds = [2 if t.is_unknown(i) else 3 if t.is_control(i) else
                 6 if t.is_byte(i) else 5 if t.is_unused(i) else
                 4 if t.id_to_piece(i) == "<|im_end|>" else 1
                 for i in range(n)]
        check(fields["tokens"] == [t.id_to_piece(i) for i in range(n)]
              + ["<|end|>"] and fields["token_type"] == kinds + [3]
              and np.array_equal(np.float32(fields["scores"][:n]), np.float32(
                  [t.get_score(i) for i in range(n)])),
              f"{n} pieces, scores, types; an added token")
        check((fields["unknown_token_id"], fields["bos_token_id"],
               fields["eos_token_id"], fields["add_space_prefix"])
              == (t.unk_id(), t.bos_id(), t.eos_id(), True), "special ids")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("families", nargs="*", default=list(FAMILIES))
    build = ROOT / "build"
    ap.add_argument("--program", default=build / "quant" / "ksllm-quant")
    ap.add_argument("--logits", default=build / "tests" / "logits")
    ap.add_argument("--tokens", default=build / "tests" / "tokens")
    ap.add_argument("--npm", type=Path, default=build / "tokenizers",
                    help="published tokenizers; without them fewer checks")
    ap.add_argument("--no-peer", action="store_true")
    args = ap.parse_args()
    peer = None
    if not args.no_peer:
        import check_models
        peer = check_models.Peer(check_models.fetch_peer())
    for name in args.families:
        check_family(name, args, peer)
    check_json_tokenizers(args)
    check_sentencepiece(args)
    check_qwen35(args)
    check_frames(args)
    check_templates(args)
    check_disagreements(args)
    failed = results.count(False)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
