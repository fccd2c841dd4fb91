#!/usr/bin/env python3
"""Towers of real shapes with random weights: what a picture or a second of
sound costs, by the type of the weights, and llama.cpp beside it.

    bench_tower.py [--types Q8_0,F16] [--threads 1,2] [--rounds 3] [SHAPE ...]
    bench_tower.py --peer PEER_TOWER [SHAPE ...]

Each shape becomes files in build/models: the tower, as llama.cpp's mmproj, and
a language model of one small layer that it belongs to. Towers have a few
layers, and twice as many: what a layer takes is the difference, and the time
of all layers follows from it. Types are those of matrices.

With one thread the processor's time counts, with more the clock's: those need
a quiet machine.

--peer takes a program made of tests/tools/peer_tower.cpp. It reads the same
file, sees the same picture, and runs take turns; shapes that it does not know
run alone. How far its rows are from ours is printed, relative to the root mean
square: both quantize what comes into a product of Q8_0, and llama.cpp has
another GELU in the projector."""
import argparse
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import gguf
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
Q = gguf.GGMLQuantizationType

# The files that llama.cpp's towers read.
PEERS = {"varco-1.7b", "exaone4_5"}

SIGLIP = dict(width=1152, ffn=4320, heads=16, layers=26, tiles=True, place=5)
QWEN = dict(tiles=False, patch=14, window=112, place=5)
# Picture: width, height, max_tiles. Of the ear: seconds.
SHAPES = {
    "varco-1.7b": dict(SIGLIP, projector="mlp", patch=16, side=384, embd=2048,
                       picture=(384, 384, 1)),
    "hcx-vision-3b": dict(SIGLIP, projector="cabstractor", patch=14, side=378,
                          embd=3072, picture=(378, 378, 1)),
    "omni-8b": dict(QWEN, projector="hcx_qwen2.5vl", width=1280, ffn=3456,
                    heads=16, layers=32, every=8, mid=5120, out=5120,
                    embd=4096, picture=(448, 448, 0)),
    "exaone4_5": dict(QWEN, projector="exaone4_5", width=2048, ffn=5120,
                      heads=32, kv=8, layers=28, every=7, mid=8192, out=5120,
                      embd=5120, picture=(448, 448, 0)),
    "qwen3-asr-0.6b": dict(projector="qwen3a", width=896, ffn=3584, heads=14,
                           layers=18, tiles=False, channels=480, bands=128,
                           embd=1024, place=5, picture=(8, 0, 0)),
}


class File:
    def __init__(self, path, arch, kind, rng):
        self.w = gguf.GGUFWriter(path, arch)
        self.kind, self.rng = kind, rng

    def matrix(self, name, n_in, n_out):
        t = self.kind if n_in % 32 == 0 or self.kind != Q.Q8_0 else Q.F16
        n = n_in * n_out
        if t == Q.Q8_0:
            v = self.rng.integers(0, 256, (n // 32, 34), dtype=np.uint8)
            v[:, :2] = np.frombuffer(np.float16(
                0.02 / np.sqrt(n_in)).tobytes(), np.uint8)
            v = v.reshape(n_out, -1)
        else:
            v = self.rng.standard_normal((n_out, n_in), dtype=np.float32)
            v = (v / np.float32(np.sqrt(n_in))).astype(
                np.float16 if t == Q.F16 else np.float32)
        self.w.add_tensor(name, v, raw_dtype=t)

    def vector(self, name, *shape):
        v = self.rng.standard_normal(shape, dtype=np.float32) / np.float32(
            max(1, np.prod(shape[1:])) ** 0.5)
        self.w.add_tensor(name, v + (1 if "ln" in name and "weight" in name
                                     else 0))

    def linear(self, name, n_in, n_out, bias=True):
        self.matrix(name + ".weight", n_in, n_out)
        if bias:
            self.vector(name + ".bias", n_out)

    def done(self):
        self.w.write_header_to_file()
        self.w.write_kv_data_to_file()
        self.w.write_tensors_to_file()
        self.w.close()


def layers(f, s, n, at):
    w, kv = s["width"], s["width"] // s["heads"] * s.get("kv", s["heads"])
    for i in range(n):
        b = f"{at}.blk.{i}."
        if "window" in s:               # as llama.cpp wants them
            f.linear(b + "attn_qkv", w, w + 2 * kv)
        else:
            f.linear(b + "attn_q", w, w)
            f.linear(b + "attn_k", w, kv)
            f.linear(b + "attn_v", w, kv)
        f.linear(b + "attn_out", w, w)
        f.linear(b + "ffn_up", w, s["ffn"])
        f.linear(b + "ffn_down", s["ffn"], w)
        if "window" in s:
            f.linear(b + "ffn_gate", w, s["ffn"])
        for k in ("ln1", "ln2"):
            f.vector(b + k + ".weight", w)
            if "window" not in s:
                f.vector(b + k + ".bias", w)


def tower(f, s, n):
    w, embd, p = s["width"], s["embd"], s.get("patch")
    ear = "channels" in s
    part, add = "audio" if ear else "vision", f.w.add_uint32
    f.w.add_bool(f"clip.has_{part}_encoder", True)
    f.w.add_string("clip.projector_type", s["projector"])
    for k, v in {"block_count": n, "embedding_length": w,
                 "feed_forward_length": s["ffn"], "projection_dim": embd,
                 "attention.head_count": s["heads"],
                 "attention.head_count_kv": s.get("kv", s["heads"]),
                 "image_token_id": 5, "audio_token_id": 5}.items():
        add(f"clip.{part}.{k}", v)
    f.w.add_float32(f"clip.{part}.attention.layer_norm_epsilon", 1e-6)
    if ear:
        c, at = s["channels"], 0
        for k, v in {"num_mel_bins": s["bands"], "n_window": 50,
                     "n_window_infer": 800, "chunk_length": 30,
                     "min_samples": 8000}.items():
            add("clip.audio." + k, v)
        for i in (1, 2, 3):
            f.vector(f"a.conv2d.{i}.weight", c, 1 if i == 1 else c, 3, 3)
            f.vector(f"a.conv2d.{i}.bias", c)
        f.matrix("a.conv_out.weight", c * (s["bands"] // 8), w)
        f.vector("a.position_embd.weight", 13, w)
        layers(f, s, n, "a")
        f.vector("a.post_ln.weight", w)
        f.vector("a.post_ln.bias", w)
        f.linear("mm.a.mlp.1", w, w)
        f.linear("mm.a.mlp.2", w, embd)
        return
    add("clip.vision.patch_size", p)
    add("clip.vision.image_size", s.get("side", 560))
    f.w.add_array("clip.vision.image_mean", [0.5] * 3)
    f.w.add_array("clip.vision.image_std", [0.5] * 3)
    f.vector("v.patch_embd.weight", w, 3, p, p)
    layers(f, s, n, "v")
    if s["tiles"]:
        side = s["side"]
        f.w.add_string("clip.vision.mm_patch_merge_type", "spatial_unpad")
        f.w.add_array("clip.vision.image_grid_pinpoints",
                      [side * k for i in (1, 2, 3) for j in (1, 2, 3)
                       for k in (i, j)])
        f.vector("v.patch_embd.bias", w)
        f.vector("v.position_embd.weight", (side // p) ** 2, w)
        f.vector("v.image_newline", embd)
        if s["projector"] == "mlp":
            add("clip.vision.anyres_max", 9)
            f.w.add_bool("clip.use_gelu", True)
            f.w.add_array("clip.vision.feature_layer", [n])
            f.linear("mm.0", w, embd)
            f.linear("mm.2", embd, embd)
            return
        add("clip.vision.mm.num_queries", 81)
        add("clip.vision.pad_to_square", 1)
        f.vector("mm.pos_emb", (side // p) ** 2, w)
        for b in (f"mm.net.{i}.b{j}." for i in (0, 2) for j in (1, 2, 3)):
            kind, f.kind = f.kind, Q.F32 if f.kind == Q.F32 else Q.F16
            f.matrix(b + "conv1.conv.weight", w, w)
            f.matrix(b + "conv3.conv.weight", w, w)
            f.linear(b + "se.fc1", w, w // 4)
            f.linear(b + "se.fc2", w // 4, w)
            f.kind = kind
            f.vector(b + "conv2.conv.weight", w, 1, 3, 3)
            for k in (1, 2, 3):
                f.vector(b + f"conv{k}.bn.weight", w)
                f.vector(b + f"conv{k}.bn.bias", w)
        f.linear("mm.readout.0", w, embd)
        f.linear("mm.readout.2", embd, embd)
        return
    for k, v in {"spatial_merge_size": 2, "window_size": s["window"],
                 "n_wa_pattern": s["every"], "image_min_pixels": 3136,
                 "image_max_pixels": 2073600}.items():
        add("clip.vision." + k, v)
    f.w.add_bool("clip.use_silu", True)
    f.vector("v.patch_embd.weight.1", w, 3, p, p)
    f.vector("v.post_ln.weight", w)
    f.linear("mm.0", 4 * w, s["mid"])
    f.linear("mm.2", s["mid"], s["out"])
    if s["projector"] == "hcx_qwen2.5vl":
        f.linear("mm.model.fc", s["out"], embd)


def language_model(f, embd):
    w = f.w
    w.add_block_count(1)
    w.add_context_length(4096)
    w.add_embedding_length(embd)
    w.add_feed_forward_length(32)
    w.add_head_count(embd // 64)
    w.add_head_count_kv(1)
    w.add_layer_norm_rms_eps(1e-6)
    w.add_vocab_size(257)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    letters = [chr(256 + i) for i in range(256)]
    w.add_token_list(letters + [letters[0] + letters[1]])
    w.add_token_types([1] * 257)
    w.add_token_merges([" ".join(letters[:2])])
    w.add_bos_token_id(0)
    w.add_eos_token_id(1)
    f.matrix("token_embd.weight", embd, 257)
    f.vector("output_norm.weight", embd)
    b = "blk.0."
    f.vector(b + "attn_norm.weight", embd)
    f.vector(b + "ffn_norm.weight", embd)
    f.matrix(b + "attn_q.weight", embd, embd)
    f.matrix(b + "attn_k.weight", embd, 64)
    f.matrix(b + "attn_v.weight", embd, 64)
    f.matrix(b + "attn_output.weight", embd, embd)
    f.matrix(b + "ffn_gate.weight", embd, 32)
    f.matrix(b + "ffn_up.weight", embd, 32)
    f.matrix(b + "ffn_down.weight", 32, embd)


def made(store, name, s, kind, n):
    """The tower with n layers, or its language model where n is 0."""
    path = store / f"tower-{name}-{kind.name}-{n or 'text'}.gguf"
    if not path.exists():
        f = File(path, "clip" if n else "llama", kind,
                 np.random.default_rng(1))
        tower(f, s, n) if n else language_model(f, s["embd"])
        f.done()
    return path


def run(command):
    done = subprocess.run([str(c) for c in command], capture_output=True,
                          text=True)
    if done.returncode:
        sys.exit(f"{command[0]}: {done.stdout[-800:]}{done.stderr[-800:]}")
    line = done.stdout.strip().splitlines()[-1]
    return line, float(re.search(r"([\d.]+) ms$", line)[1])


def whole(times, n, all_layers):
    """Of all layers, from the times of n and of 2 n."""
    a, b = times
    return a + (b - a) * (all_layers - n) / n


def apart(ours, theirs):
    """Of the rows that both have: ours end with a newline that llama.cpp leaves
    to its caller."""
    a, b = np.fromfile(ours, np.float32), np.fromfile(theirs, np.float32)
    a = a[:len(b)]
    return np.sqrt(np.mean((a - b) ** 2) / np.mean(b ** 2))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--types", default="F32,F16,Q8_0")
    a.add_argument("--threads", default="1,2")
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--peer")
    a.add_argument("--store", type=Path, default=ROOT / "build" / "models")
    a.add_argument("shape", nargs="*", default=list(SHAPES))
    o = a.parse_args()
    o.store.mkdir(parents=True, exist_ok=True)
    for name in o.shape or SHAPES:
        s = SHAPES[name]
        step = s.get("every", max(1, s["layers"] // 8))
        w, h, tiles = s["picture"]
        peer = o.peer if name in PEERS else None
        rows = [o.store / f"tower-rows-{i}" for i in (0, 1)]
        for kind in (Q[t] for t in o.types.split(",")):
            for threads in o.threads.split(","):
                ours, theirs, line = [], [], ""
                text = made(o.store, name, s, kind, 0)
                for n in (step, 2 * step):
                    path = made(o.store, name, s, kind, n)
                    turns = []
                    for _ in range(o.rounds):
                        line, ms = run([
                            ROOT / "build/tests/bench_tower", text, path, w, h,
                            threads, 1, tiles, rows[0]])
                        turns.append((ms, run([
                            peer, path, w, h, threads, 1, rows[1]])[1]
                            if peer else 0))
                    ours.append(median(t[0] for t in turns))
                    theirs.append(median(t[1] for t in turns))
                ms = whole(ours, step, s["layers"])
                text = f"{name} {kind.name} {threads} thread(s): {ms:.0f} ms; " \
                    + ", ".join(line.split(", ")[2:4]) \
                    + f", {line.split(',')[0]}"
                if peer:
                    their = whole(theirs, step, s["layers"])
                    text += f"; llama.cpp {their:.0f} ms, ratio " \
                        f"{their / ms:.2f}, rows {apart(*rows):.1%} apart"
                print(text, flush=True)
        for path in rows:
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
