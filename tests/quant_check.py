#!/usr/bin/env python3
"""Compare ksllm-quant with llama-quantize on real models.

The sources are the models of check_models.py, dequantized to F16. From each,
ksllm-quant and llama.cpp's llama_model_quantize make a file per type: without
statistics, with the same statistics of the same calibration text (quant/
calibration_ko.txt), and, ours only, with --refine. The figure is the mean KL
divergence of the next-token distributions from the float source over a text
that neither has seen (tests/quant_heldout_ko.txt), with float products, so
that nothing but the rounding of the weights counts.

Those models have been quantized once, and a type that holds such weights
exactly says nothing about weights as they are trained. So there are two more
sources, NAME-noise: to each weight comes a random number as wide as the step
between the values of its block, in place of what the first rounding took.

Ratios are of the same tokens; the error behind +- is that of the ratio of two
means taken in pairs. A ratio passes when it is at most the limit, or above by
less than one such error.

Then: both programs' files in llama.cpp, ours in ksllm and theirs in ksllm,
and how fast either quantizes on one core. What does not depend on ksllm is
kept in build/models.

    tests/quant_check.py [--sources smollm2,gemma3-noise] [--types q4_0,...]
    tests/quant_check.py --quick | --speed | --table
"""
import argparse
import ctypes as C
import json
import os
import shutil
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
# Without noise, only types that do not hold the source (mostly Q4_1 and Q8_0;
# Q5_0, Q4_K, Q6_K and Q8_0).
SOURCES = {
    "smollm2": [t for t in FILE_TYPES if t not in ("q4_1", "q5_1", "q5_k_m")],
    "gemma3": ["q4_0", "q4_1", "iq4_nl", "iq4_xs", "q3_k_m", "q2_k"],
    "smollm2-noise": ["q4_0", "q4_1", "q5_1", "q5_k_m"],
    "gemma3-noise": list(FILE_TYPES),
}
# Gemma's head of 262144 tokens makes it slow.
N_TOKENS = {"smollm2": 600, "gemma3": 300}
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
    """KL by position of each file."""
    tests = json.loads(run(
        program, "compare", source, *files, HELD_OUT, "--weights-only",
        "--tokens", n_tokens, "--json", "--positions"))["tests"]
    return [np.array(t["kl"]) for t in tests], tests[0]["bits_per_weight"]


def ratio(a, b):
    """Of the means, with its standard error."""
    r = a.mean() / b.mean()
    return r, (a - r * b).std(ddof=1) / b.mean() / len(a) ** 0.5


def add_noise(path, original):
    """To every weight that was quantized: uniform, as wide as the smallest
    step between values in its 16 weights."""
    import gguf
    kinds = {t.name: t.tensor_type.name
             for t in gguf.GGUFReader(original).tensors}
    rng = np.random.default_rng(1)
    reader = gguf.GGUFReader(path, "r+")
    for t in reader.tensors:
        if kinds[t.name] in ("F32", "F16"):
            continue
        groups = t.data.reshape(-1, 16)
        for at in range(0, len(groups), 1 << 18):
            x = groups[at:at + (1 << 18)]
            step = np.diff(np.sort(x, axis=1), axis=1)
            step[step <= 0] = np.inf
            step = step.min(axis=1, keepdims=True)
            step[~np.isfinite(step)] = 0
            x += (rng.random(x.shape, np.float32) - np.float32(0.5)) * step
    reader.data.flush()


def make_source(name, program):
    """The F16 file of a source."""
    STORE.mkdir(parents=True, exist_ok=True)
    path = STORE / f"{name}.f16.gguf"
    if path.exists():
        return path
    original = cm.fetch_model(cm.MODELS[name.split("-")[0]])
    f32 = cm.f32_copy(original)
    if name.endswith("-noise"):
        copy = STORE / f"{name}.f32.gguf"
        shutil.copyfile(f32, copy)
        add_noise(copy, original)
        f32 = copy
    run(program, "quantize", f32, "-o", path, "-t", "f16", "--quiet")
    if f32.parent == STORE:
        f32.unlink()
    return path


def make_theirs(peer, name, source, kind, stats=None):
    key = cm.digest(stats.name, cm.PEER_VERSION) if stats else cm.PEER_VERSION
    path = STORE / f"{name}.{kind}.peer.{key}.gguf"
    if not path.exists():
        peer_quantize(peer, source, path, kind, stats)
    return path


def table(name, types, program, peer):
    source = make_source(name, program)
    n_tokens = N_TOKENS[name.split("-")[0]]
    code = [(ROOT / "quant" / f).read_text() for f in
            ("calibrate.c", "stats.c", "calibration_ko.txt")]
    stats = STORE / f"{name}.{cm.digest(*code, N_CALIBRATE)}.stats"
    if not stats.exists():
        say(f"calibrating {name}")
        run(program, "calibrate", source, CALIBRATION, "-o", stats, "--gram",
            "--tokens", N_CALIBRATE, "--quiet")
    key = cm.digest(stats.name, cm.PEER_VERSION, HELD_OUT.read_text(),
                    n_tokens)
    say(f"\n{name}: mean KL over {n_tokens} tokens; ratio is ours / theirs")
    say(f"  {'type':<7}{'bits':>6}{'plain':>10}{'theirs':>10}{'ratio':>14}"
        f"{'stats':>11}{'theirs':>10}{'ratio':>14}{'refine':>11}"
        f"{'ratio':>14}")
    for kind in types:
        ours = [STORE / f"{name}.{kind}.{how}.gguf"
                for how in ("plain", "stats", "refine")]
        for path, how in zip(ours, ([], ["--stats", stats],
                                    ["--stats", stats, "--refine"])):
            run(program, "quantize", source, "-t", kind, "--quiet", "-o",
                path, *how)
        known = STORE / f"{name}.{kind}.{key}.npy"
        theirs = []
        if not known.exists():
            theirs = [make_theirs(peer, name, source, kind, s)
                      for s in (None, stats)]
        kl, bits = compare(program, source, ours + theirs, n_tokens)
        if theirs:
            np.save(known, np.array(kl[3:]))
        for path in ours + theirs:
            path.unlink()
        plain, weighted = np.load(known)
        limit = LIMIT_REFINE if kind in FOUR_BITS else LIMIT
        line, failed = f"  {kind:<7}{bits:>6.3f}", []
        for i, (a, b, top) in enumerate((
                (kl[0], plain, LIMIT), (kl[1], weighted, LIMIT),
                (kl[2], weighted, limit))):
            r, error = ratio(a, b)
            line += f"{a.mean():>{11 if i else 10}.3e}"
            line += f"{b.mean():>10.3e}" if i < 2 else ""
            line += f"{r:>8.3f} +-{error:>4.3f}".replace("+-0.", "+-.")
            results.append(r - error <= top)
            if not results[-1]:
                failed.append(f"{r:.3f} > {top}")
        say(line + (f"  FAIL {', '.join(failed)}" if failed else ""))


def perplexity(logits, tokens):
    """Mean and standard error of -ln p of the next token."""
    nll = np.empty(len(tokens) - 1)
    for i in range(len(nll)):
        x = logits[i].astype(np.float64)
        m = x.max()
        nll[i] = m + np.log(np.exp(x - m).sum()) - x[tokens[i + 1]]
    return nll.mean(), nll.std(ddof=1) / np.sqrt(len(nll))


def check_perplexity(name, program, peer, n_tokens):
    """Both programs' files in llama.cpp and in ksllm: the perplexities of one
    text differ by less than llama.cpp's own noise, the standard error of the
    mean over the tokens."""
    source = make_source(name, program)
    path = cm.fetch_model(cm.MODELS[name])
    tokens = cm.load_tokenizer(path).encode(
        HELD_OUT.read_text("utf-8")).ids[:n_tokens]
    say(f"\n{name}: perplexity of {len(tokens)} tokens")
    for kind in ("q8_0", "q4_0", "q4_k_m", "q6_k"):
        ours = STORE / f"{name}.{kind}.plain.gguf"
        run(program, "quantize", source, "-o", ours, "-t", kind, "--quiet")
        theirs = make_theirs(peer, name, source, kind)
        known = STORE / f"{name}.{kind}.{cm.digest(cm.PEER_VERSION, tokens)}" \
            ".ppl.json"
        logits = peer.logits(ours, tokens)
        a, noise = perplexity(logits, tokens)
        if not known.exists():
            known.write_text(json.dumps(
                perplexity(peer.logits(theirs, tokens), tokens)[0]))
        b = json.loads(known.read_text())
        check(abs(a - b) <= noise,
              f"{kind:<7} in llama.cpp: ours {np.exp(a):8.3f}, theirs "
              f"{np.exp(b):8.3f}, noise {100 * noise:.1f} %")
        c, d = (perplexity(cm.run_ours(
            ROOT / "build" / "tests" / "logits", file, tokens,
            logits.shape[1], "--kv", "f16")[0], tokens)[0]
            for file in (ours, theirs))
        check(max(abs(c - a), abs(d - b)) <= noise,
              f"{kind:<7} in ksllm:     ours {np.exp(c):8.3f}, theirs "
              f"{np.exp(d):8.3f}")
        ours.unlink()


def check_speed(name, program, peer, rounds=5):
    """MB/s of F16 source on one core, processor time, in turns."""
    source = make_source(name, program)
    size = source.stat().st_size / 1e6
    out = STORE / "speed.gguf"
    say(f"\n{name}: MB/s of source on one core (processor time, median of "
        f"{rounds} rounds in turns)")
    for kind in ("q4_0", "q4_k_m"):
        spent = [[], []]
        for _ in range(rounds):
            start = time.process_time()
            peer_quantize(peer, source, out, kind, threads=1)
            spent[1].append(time.process_time() - start)
            before = os.times()
            run(program, "quantize", source, "-o", out, "-t", kind,
                "--threads", 1, "--quiet")
            after = os.times()
            spent[0].append(
                after.children_user - before.children_user
                + after.children_system - before.children_system)
        out.unlink()
        a, b = (size / float(np.median(x)) for x in spent)
        check(a >= b, f"{kind:<7} ours {a:7.1f}, theirs {b:7.1f}, ratio "
              f"{a / b:.3f}, by round " + " ".join(
                  f"{y / x:.2f}" for x, y in zip(*spent)))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--sources", default=",".join(SOURCES))
    ap.add_argument("--types", help="default: those that say something")
    ap.add_argument("--quick", action="store_true",
                    help="SmolLM2-noise, three types, 400 tokens")
    ap.add_argument("--speed", action="store_true", help="only the speed")
    ap.add_argument("--table", action="store_true", help="only the table")
    ap.add_argument("--program", type=Path,
                    default=ROOT / "build" / "quant" / "ksllm-quant")
    args = ap.parse_args()
    args.program = args.program.resolve()
    if not args.program.exists():
        sys.exit(f"{args.program}: not built")
    start = time.monotonic()
    peer = cm.Peer(cm.fetch_peer())
    program = str(args.program)
    if args.speed:
        check_speed("smollm2", program, peer)
        check_speed("gemma3", program, peer)
    elif args.quick:
        N_TOKENS["smollm2"] = 400
        table("smollm2-noise", ["q4_0", "q4_k_m", "q8_0"], program, peer)
        check_perplexity("smollm2", program, peer, 800)
        check_speed("smollm2", program, peer, 3)
    else:
        for name in args.sources.split(","):
            table(name, args.types.split(",") if args.types
                  else SOURCES[name], program, peer)
        if not args.table:
            check_perplexity("smollm2", program, peer, 1600)
            check_perplexity("gemma3", program, peer, 400)
            check_speed("smollm2", program, peer)
    say(f"\n{time.monotonic() - start:.0f} s")
    failed = results.count(False)
    say(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
