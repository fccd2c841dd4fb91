#!/usr/bin/env python3
"""Peak anonymous memory while a folder of 8B size becomes a Q4_0 file.

The folder is made up: Llama 3 8B's shapes in four shards of holes (16 GB
that take no disk space), random numbers nowhere. Memory is what this is
about; speed on real numbers is in quant_check.py. Needs 5 GB of disk.

    tests/quant_memory.py [--layers 32] [--program build/quant/ksllm-quant]
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 1024            # MiB


def bytes_to_letters():
    """The letters that byte-level vocabularies write bytes with."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(rest))]


def write_folder(folder, n_layers):
    embd, ffn, kv, vocab = 4096, 14336, 1024, 128256
    config = dict(
        model_type="llama", hidden_size=embd, intermediate_size=ffn,
        num_hidden_layers=n_layers, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=8192,
        rms_norm_eps=1e-5, tie_word_embeddings=False, rope_theta=5e5,
        vocab_size=vocab)
    (folder / "config.json").write_text(json.dumps(config))
    words = {c: i for i, c in enumerate(bytes_to_letters())}
    (folder / "tokenizer.json").write_text(json.dumps(dict(
        added_tokens=[], normalizer=None, pre_tokenizer=dict(
            type="ByteLevel", add_prefix_space=False, use_regex=True),
        model=dict(type="BPE", vocab=words, merges=[]))))
    shapes = {"model.embed_tokens.weight": [vocab, embd],
              "lm_head.weight": [vocab, embd], "model.norm.weight": [embd]}
    for i in range(n_layers):
        p = f"model.layers.{i}."
        for name, out, n_in in (("q", embd, embd), ("k", kv, embd),
                                ("v", kv, embd), ("o", embd, embd)):
            shapes[f"{p}self_attn.{name}_proj.weight"] = [out, n_in]
        shapes[p + "mlp.gate_proj.weight"] = [ffn, embd]
        shapes[p + "mlp.up_proj.weight"] = [ffn, embd]
        shapes[p + "mlp.down_proj.weight"] = [embd, ffn]
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{p}{name}.weight"] = [embd]
    where, names, total = {}, list(shapes), 0
    for shard in range(4):
        file = f"model-0000{shard + 1}-of-00004.safetensors"
        head, at = {}, 0
        for name in names[shard::4]:
            n = 2
            for d in shapes[name]:
                n *= d
            head[name] = dict(dtype="BF16", shape=shapes[name],
                              data_offsets=[at, at + n])
            where[name], at = file, at + n
        text = json.dumps(head).encode()
        with open(folder / file, "wb") as f:
            f.write(len(text).to_bytes(8, "little") + text)
            f.truncate(8 + len(text) + at)
        total += at
    (folder / "model.safetensors.index.json").write_text(
        json.dumps(dict(weight_map=where)))
    return total


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--layers", type=int, default=32)
    ap.add_argument("--program",
                    default=ROOT / "build" / "quant" / "ksllm-quant")
    args = ap.parse_args()
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as temp:
        folder = Path(temp) / "model"
        folder.mkdir()
        size = write_folder(folder, args.layers)
        start, peak, all_peak = time.monotonic(), 0, 0
        run = subprocess.Popen([args.program, "convert", folder, "-o",
                                Path(temp) / "out.gguf", "-t", "q4_0",
                                "--quiet"])
        while run.poll() is None:
            try:
                status = Path(f"/proc/{run.pid}/status").read_text()
            except OSError:
                break
            values = dict(line.split(":", 1) for line in status.splitlines())
            if "RssAnon" in values:
                peak = max(peak, int(values["RssAnon"].split()[0]) // 1024)
                all_peak = max(all_peak, int(values["VmRSS"].split()[0])
                               // 1024)
            time.sleep(0.02)
        print(f"{size / 1e9:.1f} GB of BF16 in four shards to Q4_0, "
              f"{time.monotonic() - start:.0f} s: peak anonymous memory "
              f"{peak} MiB (limit {LIMIT}), resident with mapped files "
              f"{all_peak} MiB")
        ok = run.wait() == 0 and 0 < peak <= LIMIT
    print("1 passed, 0 failed" if ok else "0 passed, 1 failed")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
