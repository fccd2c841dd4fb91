#!/usr/bin/env python3
"""Compare the speed of ksllm and llama.cpp on the same file.

ksllm runs through build/tests/bench, llama.cpp through its shared libraries
from the npm registry (as in check_models.py), both on the CPU with the same
number of threads and otherwise with their own defaults. llama.cpp runs twice,
with its weights repacked (its default) and as they lie; each case counts the
better of the two. Instruction sets are compared like with like: the other's
backend for Haswell is its AVX2, the ones for Zen 4 and Ice Lake are its
AVX512-VNNI. Where a CPU has AMX it is the one for Sapphire Rapids, which uses
what ksllm does not.

All three stay in memory and take turns, one round each, in changing order.
The table shows medians; the ratio is the median of the rounds' ratios, and
`least` the worst of them.

    prefill n   a prompt of n tokens, tokens per second
    share n     ksllm's decode as bench.c compares it with reading alone
    decode n    one token after the other behind n tokens. ksllm's time
                includes choosing the token, llama.cpp's does not

--engines takes a folder made by tests/engines.sh: OpenVINO GenAI, onnxruntime
and MNN take turns too, with a model of the same dimensions in their own int4.
It is not the same file, so they are shown beside and no case must be met.
--csv appends a line for each program and case, the median of its rounds:
date, machine, model, ksllm's row, threads, program, case, value. `open` is ms,
`anonymous` MiB, all else tokens per second. bench_chart.py draws it.
"""
import argparse
import atexit
import csv
import ctypes as C
import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import check_models
from check_models import ROOT, STORE, Batch, say

TYPES = ["Q4_0", "q4_k_m"]      # of the models made here: Llama 3.2 1B
EXTRA_BUFTS = 74    # use_extra_bufts in llama_model_params of v0.5.0, bytes

# ksllm's row, llama.cpp's backend, the flags of /proc/cpuinfo it needs;
# then what must be reached: prefill, decode. Of a row the first pair counts.
PAIRS = [
    ("avx512vbmi", "sapphirerapids", {"avx512_vnni", "amx_int8"}, 1.0, 1.0),
    ("avx512vbmi", "zen4", {"avx512_vnni", "avx512_bf16"}, 2.0, 1.2),
    ("avx512vbmi", "icelake", {"avx512_vnni", "avx512_vbmi"}, 2.0, 1.2),
    ("avxvnni", "alderlake", {"avx_vnni"}, 1.8, 1.15),
    ("avx2", "haswell", {"avx2", "fma", "f16c"}, 1.5, 1.15),
]
DEEP, DEEP_MUST = 4096, 1.5     # decode behind that many tokens and more
SHARE_MUST = 0.85
HOGS_MUST = 1.5                 # any case, with busy processes beside it


# -- llama.cpp, in a process of its own -------------------------------------

class PeerBench(check_models.Peer):
    def __init__(self, folder, job):
        super().__init__(folder)
        self.job, self.text = job, []
        self.keep = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)(
            lambda level, text, data: self.text.append(text))
        lib = self.lib
        lib.llama_log_set(self.keep, None)
        lib.llama_get_memory.restype = C.c_void_p
        params = lib.llama_model_default_params()
        flag = C.c_bool.from_buffer(params, EXTRA_BUFTS)
        if not flag.value:
            sys.exit("llama.cpp: repacking is not its default any more")
        flag.value = job["repack"]
        begin = time.perf_counter()
        self.model = C.c_void_p(lib.llama_model_load_from_file(
            job["model"].encode(), params))
        self.opened = (time.perf_counter() - begin) * 1e3
        if not self.model:
            self.fail("cannot open the model")
        repacked = b"REPACK model buffer" in b"".join(self.text)
        if repacked and not job["repack"]:
            self.fail("repacks though it should not")
        n_vocab = lib.llama_vocab_n_tokens(
            C.c_void_p(lib.llama_model_get_vocab(self.model)))
        self.ids = [i * 7919 % n_vocab for i in range(
            max([*job["prefill"], *job["depth"]]) + job["tokens"] + 1)]
        # A context for each depth: it is filled once, and what a round adds
        # is dropped again.
        self.prefill = self.context(max(job["prefill"], default=1))
        # Its buffers are touched for the first time here, not in a round.
        self.evaluate(self.prefill, self.ids[:max(job["prefill"], default=1)])
        self.deep = {}
        for n in job["depth"]:
            self.deep[n] = self.context(max(n, 1) + job["tokens"])
            self.evaluate(self.deep[n], self.ids[:max(n, 1)])
        self.repacked = repacked

    def fail(self, what):
        sys.exit(f"llama.cpp {what}: " +
                 b"".join(self.text[-5:]).decode(errors="replace"))

    def context(self, n_ctx):
        p = self.lib.llama_context_default_params()
        p.n_ctx = n_ctx
        p.n_threads = p.n_threads_batch = self.job["threads"]
        ctx = C.c_void_p(self.lib.llama_init_from_model(self.model, p))
        if not ctx:
            self.fail("cannot create a context")
        return ctx

    def evaluate(self, ctx, ids):
        for at in range(0, len(ids), 2048):     # its n_batch
            part = ids[at:at + 2048]
            batch = Batch(n_tokens=len(part),
                          token=(C.c_int32 * len(part))(*part))
            if self.lib.llama_decode(ctx, batch):
                self.fail("cannot evaluate")
        self.lib.llama_synchronize(ctx)

    def cut(self, ctx, n):
        memory = C.c_void_p(self.lib.llama_get_memory(ctx))
        self.lib.llama_memory_seq_rm(memory, 0, n, -1)

    def round(self):
        rates = {}
        for n in self.job["prefill"]:
            self.cut(self.prefill, 0)
            t = time.perf_counter()
            self.evaluate(self.prefill, self.ids[:n])
            rates[f"prefill {n}"] = n / (time.perf_counter() - t)
        for n, ctx in self.deep.items():
            self.cut(ctx, max(n, 1))
            t = time.perf_counter()
            for i in self.ids[max(n, 1):][:self.job["tokens"]]:
                self.evaluate(ctx, [i])
            rates[f"decode {n}"] = self.job["tokens"] / (
                time.perf_counter() - t)
        return rates


def work(job):
    """A round for each line on standard input."""
    peer = PeerBench(Path(job["folder"]), job)
    say(json.dumps(dict(version=peer.version, repacked=peer.repacked,
                        open=peer.opened)))
    for _ in sys.stdin:
        say(json.dumps(peer.round()))


# -- the three that take turns ----------------------------------------------

class Runner:
    """A program that runs a round when it is told to. Between its rounds it
    is stopped: some of them go on spinning."""

    def __init__(self, name, command):
        self.name, self.rounds, self.shares = name, [], {}
        self.process = subprocess.Popen(
            [str(c) for c in command], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE)
        # A stopped one would outlive this program.
        atexit.register(self.process.send_signal, signal.SIGCONT)
        self.hello = self.line()
        self.process.send_signal(signal.SIGSTOP)

    def line(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name}: ended, {self.process.wait()}")
        return line.strip()

    def round(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.rounds.append(self.read())
        self.process.send_signal(signal.SIGSTOP)

    def anonymous(self):
        """MiB; None where no system says."""
        path = Path(f"/proc/{self.process.pid}/status")
        if not path.exists():
            return None
        return next(int(line.split()[1]) / 1024 for line in
                    path.read_text().splitlines() if "RssAnon" in line)

    def end(self):
        self.memory = self.anonymous()
        self.process.send_signal(signal.SIGCONT)
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Ours(Runner):
    def read(self):
        rates = {}
        while line := self.line():
            row = line.split(",")
            if row[5] in ("prefill", "decode"):
                rates[f"{row[5]} {row[6]}"] = float(row[7])
            if row[5] == "open":
                self.opened = float(row[7])
            if row[5] == "share":
                self.shares.setdefault(row[6], []).append(float(row[7]))
        return rates


class Theirs(Runner):
    def __init__(self, name, command):
        super().__init__(name, command)
        self.hello = json.loads(self.hello)
        self.opened = self.hello["open"]

    def read(self):
        return json.loads(self.line())


class Engine(Theirs):
    pass


def peer_folder(folder, backend, to):
    """A folder of links, in which llama.cpp finds one backend only."""
    for lib in folder.glob("*.so"):
        if (backend is None or "ggml-cpu" not in lib.name
                or lib.name == f"libggml-cpu-{backend}.so"):
            (to / lib.name).symlink_to(lib)
    return to


def start(args, model, isa, folder):
    runners = []
    numbers = dict(prefill=args.prefill, depth=args.depth)
    command = [args.program, "--csv", "--paced", "--model", model,
               "--slice", 0, "--check", "none", "--threads", args.threads,
               "--tokens", args.tokens]
    for name, values in numbers.items():
        command += [f"--{name}", ",".join(map(str, values)) or "none"]
    for name in ("kv", "batch"):
        if getattr(args, name):
            command += [f"--{name}", getattr(args, name)]
    if isa:
        command += ["--isa", isa]
    runners.append(Ours("ksllm", command))
    for repack in (True, False):
        job = dict(numbers, folder=str(folder), model=str(model),
                   repack=repack, threads=args.threads, tokens=args.tokens)
        runners.append(Theirs("repacked" if repack else "plain", [
            sys.executable, __file__, "--worker", json.dumps(job)]))
    for path in sorted(args.engines.glob("*-g*/")) if args.engines else []:
        job = dict(numbers, model=str(path), threads=args.threads,
                   tokens=args.tokens)
        runners.append(Engine(path.name, [
            args.engines / "run/bin/python", ROOT / "tests/engine.py",
            json.dumps(job)]))
    return runners


def take_turns(runners, n_rounds, n_hogs):
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"])
            for _ in range(n_hogs)]
    try:
        for i in range(n_rounds):
            for k in range(len(runners)):
                runners[(i + k) % len(runners)].round()
            if sys.stderr.isatty():
                print(f"  round {i + 1} of {n_rounds}", end="\r",
                      file=sys.stderr, flush=True)
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait()


# -- the table --------------------------------------------------------------

def target(case, args, prefill, decode):
    kind, n = case.split()
    if args.hogs:
        return HOGS_MUST
    if kind == "prefill":
        return prefill
    return DEEP_MUST if int(n) >= DEEP else decode


def show(runners, args, prefill, decode):
    """Prints the table; how many cases meet their target, of how many."""
    ours = runners[0]
    theirs = [r for r in runners if type(r) is Theirs]
    say(f"  {'case':<14}{'ksllm':>9}{'llama.cpp':>11}  {'':<9}{'ratio':>7}"
        f"{'least':>7}{'must':>6}")
    n_met = 0
    for case in ours.rounds[0]:
        def rate(runner):
            return median(r[case] for r in runner.rounds)
        best = max(theirs, key=rate)
        ratios = [a[case] / b[case]
                  for a, b in zip(ours.rounds, best.rounds)]
        must = target(case, args, prefill, decode)
        met = must is None or median(ratios) >= must
        n_met += met
        say(f"  {case:<14}{rate(ours):>9.2f}{rate(best):>11.2f}  "
            f"{best.name:<9}{median(ratios):>7.2f}{min(ratios):>7.2f}" +
            (f"{must:>6.2f}  {'met' if met else 'not met'}" if must else ""))
    for r in runners:
        if type(r) is Engine:
            say(f"  {r.name} {r.hello['version']}: " + ", ".join(
                f"{case} {median(x[case] for x in r.rounds):.1f} (" +
                f"{median(a[case] / b[case] for a, b in both):.2f})"
                for both in [list(zip(ours.rounds, r.rounds))]
                for case in ours.rounds[0]))
        say(f"  {r.name}: opens in {r.opened:.0f} ms, {r.memory:.0f} MiB "
            "of anonymous memory")
    for n, shares in ours.shares.items():
        say(f"  {'share ' + n:<14}{median(shares):>9.2f}  of the read "
            f"bandwidth (for depth 0: {SHARE_MUST})")
    return n_met, len(ours.rounds[0])


def compare(args, model, pair, folder):
    isa, backend, _, prefill, decode = pair
    say(f"\n{model.name}: {isa or 'best'} against llama.cpp's "
        f"{backend or 'best'}; {args.threads} threads, {args.rounds} rounds"
        f" of {args.tokens} tokens" +
        (f", {args.hogs} busy processes" if args.hogs else ""))
    with tempfile.TemporaryDirectory() as links:
        runners = start(args, model, isa,
                        peer_folder(folder, backend, Path(links)))
        hello = runners[1].hello
        say(f"  llama.cpp {hello['version']}" +
            ("" if hello["repacked"] else ", which repacks nothing here"))
        take_turns(runners, args.rounds, args.hogs)
        for runner in runners:
            runner.end()
    if args.csv:
        write(args.csv, runners, model, isa, args.threads)
    return show(runners, args, prefill, decode)


def machine():
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else []:
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.machine()


def write(path, runners, model, isa, threads):
    new = not path.exists()
    with path.open("a", newline="") as f:
        out = csv.writer(f)
        if new:
            out.writerow(["date", "machine", "model", "row", "threads",
                          "program", "case", "value"])
        head = [datetime.date.today(), machine(), model.stem, isa, threads]
        for r in runners:
            name = r.name if type(r) is not Theirs else "llama.cpp " + r.name
            values = {case: median(x[case] for x in r.rounds)
                      for case in runners[0].rounds[0]}
            values |= dict(open=r.opened, anonymous=r.memory)
            for case, value in values.items():
                out.writerow(head + [name, case, f"{value:.2f}"])


# -- what there is to compare -----------------------------------------------

def pairs(args):
    """The pairs that this processor and this build of ksllm can run."""
    if platform.machine() != "x86_64":
        return [(None, None, set(), None, None)]
    info = Path("/proc/cpuinfo").read_text()
    flags = set(next(line for line in info.splitlines()
                     if line.startswith("flags")).split())
    found = []
    for pair in PAIRS:
        if args.isa and pair[0] not in args.isa:
            continue
        if args.backend and pair[1] != args.backend:
            continue
        if pair[2] <= flags and pair[0] not in [p[0] for p in found]:
            run = subprocess.run(
                [args.program, "--shape", "tiny", "--isa", pair[0],
                 "--rounds", "1", "--prefill", "none", "--depth", "0",
                 "--tokens", "1"], capture_output=True)
            if run.returncode == 0:
                found.append(pair)
    if not found:
        sys.exit("this processor and this build have no pair in common")
    return found


def models(args):
    if args.model:
        return args.model
    made = []
    for kind in args.type:
        path = STORE / f"bench-{args.shape}-{kind}.gguf"
        if not path.exists():
            part = path.with_suffix(".part")
            subprocess.run([args.program, "--shape", args.shape, "--type",
                            kind, "--write", part], check=True)
            part.rename(path)
        made.append(path)
    return made


def numbers(text):
    return [] if text == "none" else [int(n) for n in text.split(",")]


def main():
    ap = argparse.ArgumentParser(
        description=__doc__.split("\n\n")[0], epilog=__doc__[
            __doc__.index("\n\n"):],
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = ap.add_argument
    add("--worker", type=json.loads, help=argparse.SUPPRESS)
    add("--model", type=Path, action="append", metavar="FILE",
        help="a GGUF file, more than once for more; default: models made "
             "by bench, in build/models")
    add("--shape", default="1b", help="of a model made here (%(default)s)")
    add("--type", type=lambda s: s.split(","), default=TYPES, metavar="LIST",
        help=f"of models made here ({','.join(TYPES)})")
    add("--program", type=Path, default=ROOT / "build/tests/bench",
        metavar="PATH", help="tests/bench.c, built (%(default)s)")
    add("--isa", type=lambda s: s.split(","), metavar="LIST",
        help="rows of ksllm (default: all that have a counterpart)")
    add("--backend", metavar="NAME",
        help="of llama.cpp, for example zen4 where a CPU has AMX")
    add("--threads", type=int, default=os.cpu_count(), metavar="N")
    add("--rounds", type=int, default=5, metavar="N")
    add("--tokens", type=int, default=32, metavar="N", help="of a decode")
    add("--prefill", type=numbers, default=[128, 512], metavar="LIST")
    add("--depth", type=numbers, default=[0, 1024, 4096], metavar="LIST")
    add("--kv", metavar="TYPE", help="KV cache of ksllm")
    add("--batch", metavar="N", help="batch of ksllm")
    add("--hogs", type=int, default=0, metavar="N",
        help="busy processes beside it")
    add("--engines", type=Path, metavar="FOLDER",
        help="made by tests/engines.sh: compare with these too")
    add("--csv", type=Path, metavar="FILE", help="append all medians")
    add("--quick", action="store_true",
        help="under 3 minutes: one model, 3 rounds of 8 tokens, prompts of "
             "128, depths 0 and 512; other options may change that")
    if "--quick" in sys.argv:
        ap.set_defaults(rounds=3, tokens=8, prefill=[128], depth=[0, 512],
                        type=TYPES[:1])
    args = ap.parse_args()
    if args.worker:
        return work(args.worker)
    if not args.program.exists():
        sys.exit(f"{args.program}: not built")
    STORE.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    folder = check_models.fetch_peer()
    met = total = 0
    for model in models(args):
        for pair in pairs(args):
            m, n = compare(args, model, pair, folder)
            met, total = met + m, total + n
    say(f"\n{met} of {total} cases as they must be; "
        f"{time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
