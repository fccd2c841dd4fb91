#!/usr/bin/env python3
"""Compare ksllm-quant with llama-quantize on real models.

The sources are the models of check_models.py, dequantized to F16. From each,
ksllm-quant and llama.cpp's llama_model_quantize make a file per type: without
statistics, with the same statistics of the same calibration text (quant/
calibration_ko.txt), and, ours only, with --refine. The figure is the mean KL
divergence of the next-token distributions from the float source over a text
that neither has seen (tests/quant_heldout_ko.txt), with float products, so
that nothing but the rounding of the weights counts.

Then: both programs' files in llama.cpp, and how fast either quantizes on one
core. What does not depend on ksllm is kept in build/models.

    tests/quant_check.py [--models smollm2,gemma3] [--types q4_0,...] [--quick]
"""
import argparse
import ctypes as C
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
import check_models as cm                                   # noqa: E402

ROOT = cm.ROOT
STORE = cm.STORE / "quant"
HELD_OUT = ROOT / "tests" / "quant_heldout_ko.txt"
CALIBRATION = ROOT / "quant" / "calibration_ko.txt"
FILE_TYPES = dict(
    q4_0=2, q4_1=3, q8_0=7, q5_0=8, q5_1=9, q2_k=10, q3_k_m=12, q4_k_m=15,
    q5_k_m=17, q6_k=18, iq4_nl=25, iq4_xs=30)
FOUR_BITS = ("q4_0", "q4_1", "q4_k_m", "iq4_nl", "iq4_xs")
# SmolLM2's file is a Q4_1, Gemma's a Q4_K_M: a type that holds it exactly says
# nothing. Gemma's head of 262144 tokens makes it slow.
DEFAULT = {"smollm2": [t for t in FILE_TYPES if t not in ("q4_1", "q5_1")],
           "gemma3": ["q4_0", "q4_1", "q5_1"]}
N_TOKENS = {"smollm2": 800, "gemma3": 150}
N_CALIBRATE = 4000
LIMIT, LIMIT_REFINE = 1.0, 0.85

results = []


def say(text=""):
    print(text, flush=True)


def check(ok, text):
    results.append(bool(ok))
    say(f"  {'pass' if ok else 'FAIL'}  {text}")


class QuantizeParams(C.Structure):
    """llama_model_quantize_params (include/llama.h)."""
    _fields_ = [
        ("n_threads", C.c_int32), ("ftype", C.c_int32),
        ("output_type", C.c_int32), ("embedding_type", C.c_int32),
        ("flags", C.c_bool * 6), ("imatrix", C.c_void_p),
        ("kv_overrides", C.c_void_p), ("type_overrides", C.c_void_p),
        ("prune_layers", C.c_void_p)]


class Imatrix(C.Structure):
    _fields_ = [("name", C.c_char_p), ("data", C.POINTER(C.c_float)),
                ("size", C.c_size_t)]


def peer_quantize(peer, source, target, kind, stats=None, threads=None):
    """Seconds it took."""
    lib = peer.lib
    lib.llama_model_quantize_default_params.restype = QuantizeParams
    p = lib.llama_model_quantize_default_params()
    p.n_threads, p.ftype = threads or os.cpu_count(), FILE_TYPES[kind]
    if stats:
        data = read_stats(stats)
        rows = (Imatrix * (len(data) + 1))()
        for row, (name, x) in zip(rows, data.items()):
            row.name, row.size = name.encode(), len(x)
            row.data = x.ctypes.data_as(C.POINTER(C.c_float))
        p.imatrix = C.cast(rows, C.c_void_p)
    start = time.monotonic()
    part = target.with_suffix(".part")
    if lib.llama_model_quantize(str(source).encode(), str(part).encode(),
                                C.byref(p)):
        sys.exit(f"llama.cpp could not make {target}")
    part.rename(target)
    return time.monotonic() - start


def read_stats(path):
    """Name to mean squares, what llama-quantize makes of the same file."""
    import gguf
    data = {t.name: np.asarray(t.data, np.float32).ravel()
            for t in gguf.GGUFReader(path).tensors
            if not t.name.endswith(".in_gram")}
    return {name[:-8]: x / data[name[:-8] + ".counts"][0]
            for name, x in data.items() if name.endswith(".in_sum2")}


def run(program, *arguments):
    r = subprocess.run([program, *map(str, arguments)], capture_output=True,
                       text=True)
    if r.returncode:
        sys.exit(f"{program} {arguments[0]}: {r.stderr}")
    return r.stdout


def compare(program, source, files, n_tokens):
    """Mean KL and the rest for each file; four at a time, for memory."""
    out = []
    for at in range(0, len(files), 4):
        out += json.loads(run(
            program, "compare", source, *files[at:at + 4], HELD_OUT,
            "--weights-only", "--tokens", n_tokens, "--json"))["tests"]
    return out


def table(name, types, program, peer, args):
    model = cm.MODELS[name]
    f32 = cm.f32_copy(cm.fetch_model(model))
    source = STORE / f"{name}.f16.gguf"
    if not source.exists():
        run(program, "quantize", f32, "-o", source, "-t", "f16", "--quiet")
    code = [(ROOT / "quant" / f).read_text() for f in
            ("calibrate.c", "stats.c", "calibration_ko.txt")]
    stats = STORE / f"{name}.{cm.digest(*code, N_CALIBRATE)}.stats"
    if not stats.exists():
        say(f"calibrating {name}")
        run(program, "calibrate", source, CALIBRATION, "-o", stats, "--gram",
            "--tokens", N_CALIBRATE, "--quiet")
    key = cm.digest(stats.name, cm.PEER_VERSION)
    say(f"\n{name}: mean KL from {source.name} on {HELD_OUT.name}")
    say(f"  {'type':<8}{'bits':>7}{'plain':>10}{'theirs':>10}{'ratio':>7}"
        f"{'stats':>11}{'theirs':>10}{'ratio':>7}{'refine':>11}{'ratio':>7}")
    for kind in types:
        ours = [STORE / f"{name}.{kind}.{how}.gguf"
                for how in ("plain", "stats", "refine")]
        theirs = [STORE / f"{name}.{kind}.peer.{cm.PEER_VERSION}.gguf",
                  STORE / f"{name}.{kind}.peer.{key}.gguf"]
        quantize = ["quantize", source, "-t", kind, "--quiet", "-o"]
        run(program, *quantize, ours[0])
        run(program, *quantize, ours[1], "--stats", stats)
        run(program, *quantize, ours[2], "--stats", stats, "--refine")
        if not theirs[0].exists():
            peer_quantize(peer, source, theirs[0], kind)
        if not theirs[1].exists():
            peer_quantize(peer, source, theirs[1], kind, stats)
        known = STORE / (f"{name}.{kind}." + cm.digest(
            key, HELD_OUT.read_text(), N_TOKENS[name]) + ".json")
        want = ours + ([] if known.exists() else theirs)
        r = compare(program, source, want, N_TOKENS[name])
        if not known.exists():
            known.write_text(json.dumps(r[3:]))
        a, b, c = (x["kl_mean"] for x in r[:3])
        d, e = (x["kl_mean"] for x in json.loads(known.read_text()))
        bits = r[0]["bits_per_weight"]
        say(f"  {kind:<8}{bits:>7.3f}{a:>10.3e}{d:>10.3e}{a / d:>7.3f}"
            f"{b:>11.3e}{e:>10.3e}{b / e:>7.3f}{c:>11.3e}{c / e:>7.3f}")
        limit = LIMIT_REFINE if kind in FOUR_BITS else LIMIT
        results.extend([a / d <= LIMIT, b / e <= LIMIT, c / e <= limit])
        if not all(results[-3:]):
            say(f"  FAIL  {kind}: limits {LIMIT}, {LIMIT}, {limit}")
        for path in ours[1:] + ([] if kind in ("q8_0", "q4_0", "q4_k_m",
                                               "q6_k") else ours[:1]):
            path.unlink()


def perplexity(logits, tokens):
    """Mean and standard error of -ln p of the next token."""
    nll = np.empty(len(tokens) - 1)
    for i in range(len(nll)):
        x = logits[i].astype(np.float64)
        m = x.max()
        nll[i] = m + np.log(np.exp(x - m).sum()) - x[tokens[i + 1]]
    return nll.mean(), nll.std(ddof=1) / np.sqrt(len(nll))


def check_peer_reads(name, types, peer):
    """llama.cpp on both programs' files: perplexity within its noise."""
    path = cm.fetch_model(cm.MODELS[name])
    tokens = cm.load_tokenizer(path).encode(
        HELD_OUT.read_text("utf-8")).ids[:300]
    say(f"\n{name}: perplexity by llama.cpp, {len(tokens)} tokens")
    for kind in ("q8_0", "q4_0", "q4_k_m", "q6_k"):
        if kind not in types:
            continue
        a, noise = perplexity(peer.logits(
            STORE / f"{name}.{kind}.plain.gguf", tokens), tokens)
        b, _ = perplexity(peer.logits(
            STORE / f"{name}.{kind}.peer.{cm.PEER_VERSION}.gguf", tokens),
            tokens)
        check(abs(a - b) <= noise,
              f"{kind:<7} ours {np.exp(a):8.3f}, theirs {np.exp(b):8.3f}, "
              f"noise {100 * noise:.1f} %")


def check_speed(name, program, peer):
    """MB/s of F16 source on one core; the better of two runs each."""
    source = STORE / f"{name}.f16.gguf"
    size = source.stat().st_size / 1e6
    say(f"\n{name}: MB/s of source on one core")
    for kind in ("q4_0", "q4_k_m"):
        out, best = STORE / "speed.gguf", [1e9, 1e9]
        for _ in range(2):
            start = time.process_time()
            peer_quantize(peer, source, out, kind, threads=1)
            best[1] = min(best[1], time.process_time() - start)
            before = os.times()
            run(program, "quantize", source, "-o", out, "-t", kind,
                "--threads", 1, "--quiet")
            after = os.times()
            best[0] = min(best[0], after.children_user - before.children_user
                          + after.children_system - before.children_system)
        out.unlink()
        check(best[0] <= best[1],
              f"{kind:<7} ours {size / best[0]:7.1f}, theirs "
              f"{size / best[1]:7.1f} (processor time)")


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--models", default="smollm2,gemma3")
    ap.add_argument("--types", help="default: those that say something")
    ap.add_argument("--quick", action="store_true", help="SmolLM2, 3 types")
    ap.add_argument("--program", type=Path,
                    default=ROOT / "build" / "quant" / "ksllm-quant")
    args = ap.parse_args()
    args.program = args.program.resolve()
    if not args.program.exists():
        sys.exit(f"{args.program}: not built")
    STORE.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    peer = cm.Peer(cm.fetch_peer())
    names = ["smollm2"] if args.quick else args.models.split(",")
    for name in names:
        types = ["q4_0", "q4_k_m", "q8_0"] if args.quick else \
            args.types.split(",") if args.types else DEFAULT[name]
        table(name, types, str(args.program), peer, args)
        check_peer_reads(name, types, peer)
    check_speed(names[0], str(args.program), peer)
    say(f"\n{time.monotonic() - start:.0f} s")
    failed = results.count(False)
    say(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
