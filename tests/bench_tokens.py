#!/usr/bin/env python3
"""bench_tokens.py - speed of the tokenizers against two others.

    python3 tests/bench_tokens.py --tokens build/tests/tokens
        --corpus build/corpus/korean.txt [--data DIR] [--npm DIR]
        [--gemma FILE] [--rounds 5] [--stream 10000000] [--opens 60]
        [--only NAME]

For each vocabulary, MB of text per second to tokens and back, one thread, in
pieces of about 4 KiB:

  ksllm      ksllm_encode and ksllm_decode, processor time in tests/tokens
  tokenizers Hugging Face's, in Rust: encode_batch_fast (no offsets) and
             decode_batch, with one thread
  llama.cpp  llama_tokenize and llama_detokenize of the npm package

The three take turns, a round each; the table has the medians, and behind them
how many times ours is the faster of the others (median of the rounds' ratios,
with the least one). Exit status 1 if a ratio is not above 1. Before that every
vocabulary is opened --opens times (least and median of the processor time), has
to decode --stream random tokens without a fault, and encodes 1 MB and 4 MB of
each of WORST: the slowest is printed, and status is 1 if four times the text
takes more than twelve times as long.
"""
import argparse
import ctypes as C
import os
import re
import subprocess
import sys
import tempfile
import time
from statistics import median

os.environ.update(RAYON_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")

import check_models                                         # noqa: E402
import check_tokens                                         # noqa: E402
from tokenizers import Tokenizer                            # noqa: E402

CHUNK = 4096        # as in tokens.c
VOCAB_ONLY = 72     # vocab_only in llama_model_params of v0.5.0, bytes


def chunks(text):
    out, at = [], 0
    while at < len(text):
        end = text.find(b"\n", at + CHUNK) + 1
        out.append(text[at:end or len(text)])
        at = end or len(text)
    return out


class Ours:
    def __init__(self, program, path, corpus):
        self.args = [program, path, "--bench", corpus]

    def round(self):
        """MB/s of encoding and of decoding."""
        text = subprocess.run(self.args, check=True, text=True,
                              stdout=subprocess.PIPE).stdout
        return tuple(map(float, re.findall(r"[\d.]+", text)))


class Rust:
    def __init__(self, tok, parts):
        self.tok, self.parts = tok, [p.decode() for p in parts]
        self.size = sum(map(len, parts))

    def round(self):
        t0 = time.process_time()
        got = self.tok.encode_batch_fast(self.parts, add_special_tokens=False)
        t1 = time.process_time()
        ids = [e.ids for e in got]
        t2 = time.process_time()
        self.tok.decode_batch(ids)
        t3 = time.process_time()
        return self.size / (t1 - t0) * 1e-6, self.size / (t3 - t2) * 1e-6


class Llama:
    def __init__(self, peer, path, parts):
        self.lib, self.parts = peer.lib, parts
        raw = bytearray(bytes(self.lib.llama_model_default_params()))
        raw[VOCAB_ONLY] = 1
        model = self.lib.llama_model_load_from_file(
            path.encode(), check_models.ModelParams.from_buffer(raw))
        self.vocab = C.c_void_p(self.lib.llama_model_get_vocab(
            C.c_void_p(model)))
        self.size = sum(map(len, parts))

    def round(self):
        cap = max(map(len, self.parts)) + 16
        ids = [(C.c_int32 * cap)() for _ in self.parts]
        back, counts = C.create_string_buffer(8 * cap), []
        t0 = time.process_time()
        for part, room in zip(self.parts, ids):
            counts.append(self.lib.llama_tokenize(
                self.vocab, part, len(part), room, cap, False, False))
        t1 = time.process_time()
        for n, room in zip(counts, ids):
            self.lib.llama_detokenize(self.vocab, room, n, back, 8 * cap,
                                      False, False)
        t2 = time.process_time()
        assert min(counts) > 0
        return self.size / (t1 - t0) * 1e-6, self.size / (t2 - t1) * 1e-6


# What a tokenizer might take badly: words that do not end, and what a special
# token, a contraction, a cluster or a normalization begins with.
WORST = ["a", "A", "aA", "7", " ", " a", "\t", "\r", "=", "'", "'s", "er",
         "aaaaaaab", "thequickbrownfox", "가", "하다", "\u1100\u1161\u11a8",
         "\u0301\u0323", "\u2581", "\u200b", "\U0001F468\u200D", "<|",
         "<|im_start|", "<|im_end|>", "<|begin_of_text|", "<start_of_turn"]


def worst(program, path, work):
    """(MB/s, text) of the slowest, (ratio, text) of the least linear."""
    found, name = [], os.path.join(work, "worst.txt")
    for text in WORST:
        speeds = []
        for size in (1 << 20, 1 << 22):
            unit = text.encode()
            with open(name, "wb") as f:
                f.write(unit * (size // len(unit)))
            speeds.append(Ours(program, path, name).round()[0])
        found.append((speeds[1], 4 * speeds[0] / max(speeds[1], 0.01), text))
    return min(f[::2] for f in found), max(f[1:] for f in found)


def vocabularies(args, work):
    """(name, GGUF, tokenizers object) of what is at hand."""
    for name in ("llama-bpe", "qwen2", "gpt-2", "llama-spm"):
        path = os.path.join(args.data or "", "tokenizers",
                            "ggml-vocab-%s.gguf" % name)
        if os.path.exists(path):
            v = check_tokens.Vocabulary(path)
            yield name, path, (v.pieces() if name == "llama-spm"
                               else v.byte_level(v.pre))
    for name, pre in check_tokens.NPM.items():
        source = os.path.join(args.npm or "", name, "package", "models",
                              "tokenizer.json")
        if os.path.exists(source):
            path = os.path.join(work, name + ".gguf")
            check_tokens.gguf_of_json(source, pre, path)
            yield name, path, Tokenizer.from_file(source)
    path = args.data and check_tokens.exaone_gguf(args.data, work)
    if path:
        yield ("exaone4", path,
               check_tokens.Vocabulary(path).byte_level("exaone4"))
    source = os.path.join(args.npm or "", "gemma3", "package", "models",
                          "tokenizer.json")
    if args.gemma and os.path.exists(source):
        yield "gemma3", args.gemma, Tokenizer.from_file(source)


def ratio(ours, others):
    """Median and least of ours over the faster of the others, per round."""
    r = [a / max(b) for a, b in zip(ours, zip(*others))]
    return median(r), min(r)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tokens", required=True)
    p.add_argument("--corpus", required=True)
    p.add_argument("--data")
    p.add_argument("--npm")
    p.add_argument("--gemma")
    p.add_argument("--only")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--stream", type=int, default=10000000)
    p.add_argument("--opens", type=int, default=60)
    args = p.parse_args()
    with open(args.corpus, "rb") as f:
        text = f.read()
    parts, slow = chunks(text), []
    peer = check_models.Peer(check_models.fetch_peer())
    print("%d bytes of Korean, %d rounds; MB/s: ksllm, tokenizers, llama.cpp"
          % (len(text), args.rounds))
    with tempfile.TemporaryDirectory() as work:
        for name, path, tok in vocabularies(args, work):
            if args.only and args.only != name:
                continue
            if args.opens:
                done = subprocess.run([args.tokens, path, "--open",
                                       str(args.opens)], text=True, check=True,
                                      stdout=subprocess.PIPE)
                print("%-11s %s" % (name, done.stdout.strip()), flush=True)
            if args.stream:
                done = subprocess.run([args.tokens, path, "--stream",
                                       str(args.stream)], text=True,
                                      stdout=subprocess.PIPE)
                print("%-11s %s" % (name, done.stdout.strip()), flush=True)
                if done.returncode:
                    slow.append(name + " stream")
            slowest, least = worst(args.tokens, path, work)
            print("%-11s slowest of %d hostile texts: %r, %.1f MB/s; four "
                  "times the text takes at most %.1f times as long (%r)" % (
                      name, len(WORST), slowest[1], slowest[0], *least),
                  flush=True)
            if least[0] > 12:
                slow.append(name + " is not linear")
            ours = Ours(args.tokens, path, args.corpus)
            others = [Rust(tok, parts), Llama(peer, path, parts)]
            rounds = [[x.round() for x in [ours] + others]
                      for _ in range(args.rounds)]
            columns = [list(zip(*[r[i] for r in rounds])) for i in range(3)]
            for k, what in enumerate(("encode", "decode")):
                mid, least = ratio(columns[0][k],
                                   [columns[1][k], columns[2][k]])
                print("%-11s %s %6.1f %6.1f %6.1f   %.1f times the faster one "
                      "(least %.1f)" % (
                          name, what, *(median(c[k]) for c in columns), mid,
                          least), flush=True)
                if mid <= 1:
                    slow.append("%s %s" % (name, what))
    print("not faster: " + ", ".join(slow) if slow else
          "faster in every case")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
