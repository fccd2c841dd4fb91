#!/usr/bin/env python3
"""Breaks ksllm.c in small ways and asks whether the tests notice.

    mutate.py "GGUF" 100 test_gguf fuzz_gguf [--seed 1] [--jobs 2]
    mutate.py "CHAT/the parts of an answer" 100 test_split fuzz_split

Takes 100 places of a part of ksllm.c (a section, a headline inside of one, or
FIRST-LAST lines; 0: all places), changes one thing at each (a comparison, an
operator, a number, a condition, a statement), builds the library without SIMD
kernels and runs these tests against it. A mutant is killed when one of them
reports a failure, dies or takes far more time than before. A survivor that
compiles to the same code at -O2 is no mutant. One that mutants.txt explains
changes nothing that a caller could see. The others are missing checks: they
are printed. The last line has the share that was killed of all but the
explained ones; below --goal the program fails.
"""
import argparse
import concurrent.futures
import pathlib
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time

CHANGES = [
    (r"<=", "<"), (r">=", ">"), (r"==", "!="), (r"!=", "=="),
    (r" < ", " <= "), (r" > ", " >= "), (r"&&", "||"), (r"\|\|", "&&"),
    (r" \+ ", " - "), (r" - ", " + "), (r" \* ", " + "), (r" % ", " / "),
    (r"\+\+", "--"), (r" \+= ", " -= "), (r" << ", " >> "), (r" >> ", " << "),
    (r" & ", " | "), (r" \| ", " & "),
    (r"\btrue\b", "false"), (r"\bfalse\b", "true"),
    (r"\b(\d+)u?\b(?![.x'\"])", None),
    (r"\bif \((?!.*\bif\b)", "if (!"), (r"\breturn (?=\w)", "return !"),
    (r"^\s+[a-z][\w.>\[\]-]* [-+|&]?= .*;$", ";"),
    (r"^\s+[a-z]\w*\(.*\);$", ";"),
]
# The fastest compiler there is: a mutant costs a compilation.
CC = shutil.which("clang") or "cc"
FLAGS = ["-std=gnu11", "-w", "-DKSLLM_NO_SIMD", "-ffp-contract=off", "-I.",
         "-DTEST_ONE_OF=32"]    # of random inputs
LIBS = ["-lm", "-pthread"]
WALL = 600      # seconds after which a test hangs; CPU time decides before
FAILURE = re.compile(rb"^(FAILED|[\w/.]+\.[ch]:\d+: )")


def span_of(source, part):
    """First and last line of a section, or of a headline's part of one."""
    if re.fullmatch(r"\d+-\d+", part):
        return [int(x) for x in part.split("-")]
    section, _, headline = part.partition("/")
    first, inside = None, False
    for i, line in enumerate(source, 1):
        found = re.match(r" \* § \d+ ([A-Z ]+) \(", line)
        title = re.match(r"/\* ---- (.*) ---- \*/", line)
        if first and (found or (headline and title)):
            return first, i - 2
        inside = found[1] == section if found else inside
        if inside and (title and title[1] == headline if headline else found):
            first = i
    return (first, len(source)) if first else sys.exit(f"no part {part}")


def places(source, first, last):
    """[(line number, new line)]: everything that could be changed."""
    out, comment = [], False
    for n in range(first, last + 1):
        line = source[n - 1]
        inside = comment
        for mark in re.findall(r"/\*|\*/", line):
            comment = mark == "/*"
        code = re.sub(r"/\*.*?(\*/|$)", lambda m: " " * len(m[0]), line)
        if inside or line.startswith("#") or "_Static_assert" in line:
            continue
        quotes = [m.span() for m in re.finditer(r'"(\\.|[^"])*"', code)]
        for pattern, to in CHANGES:
            for m in re.finditer(pattern, code):
                if any(a <= m.start() < b for a, b in quotes):
                    continue
                put = to if to is not None else str(int(m[1]) + 1)
                out.append((n, line[:m.start()] + put + line[m.end():]))
    return out


def explained(path):
    """{(function, old line, new line)} of mutants.txt, without indentation."""
    out, where, old = set(), "", ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("@ "):
            where = line[2:].strip()
        elif line.startswith("- "):
            old = line[2:].strip()
        elif line.startswith("+ "):
            out.add((where, old, line[2:].strip()))
    return out


def function_at(source, n):
    """The function that line n belongs to."""
    for line in reversed(source[:n]):
        found = re.match(r"[a-zA-Z][^=;]*?(\w+)\(", line)
        if found:
            return found[1]
    return ""


def cc(folder, *args):
    """Whether it compiles."""
    return not subprocess.run([CC, *FLAGS, *args], cwd=folder, check=False,
                              capture_output=True).returncode


def optimised(folder):
    """The code of ksllm.c in this folder as it would be shipped."""
    out = folder / "optimised.o"
    return out.read_bytes() if cc(
        folder, "-O2", "-c", "ksllm.c", "-o", out.name) else None


class Test:
    """A test program and the seconds of CPU it may take."""

    def __init__(self, name):
        self.name, self.limit = name, WALL
        text = pathlib.Path(f"tests/{name}.c").read_text(encoding="utf-8")
        self.white = '#include "../ksllm.c"' in text

    def prepare(self, folder):
        """What does not change with ksllm.c."""
        return self.white or cc(folder, "-O0", "-c", f"tests/{self.name}.c",
                                "-o", f"{self.name}.o")

    def build(self, folder):
        made = [f"tests/{self.name}.c"]
        if not self.white:
            made = [f"{self.name}.o", "ksllm.o"]
            if not (folder / "ksllm.o").exists() and not cc(
                    folder, "-O0", "-c", "ksllm.c", "-o", "ksllm.o"):
                return False
        return cc(folder, "-O0", *made, "-o", self.name, *LIBS)

    def passes(self, folder):
        """Stops it at the first failure that it prints."""
        def limits():
            resource.setrlimit(resource.RLIMIT_CPU, (self.limit, self.limit))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (1 << 33, 1 << 33))
        with subprocess.Popen(
                [f"./{self.name}"], cwd=folder, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, preexec_fn=limits) as run:
            clock = threading.Timer(WALL, run.kill)
            clock.start()
            good = True
            for line in run.stdout:
                if FAILURE.match(line):
                    good = False
                    run.kill()
            clock.cancel()
            return run.wait() == 0 and good


class Yard:
    """Folders that workers take in turns."""

    def __init__(self, root, n, source, tests):
        self.tests, self.free = tests, []
        self.lock, self.code = threading.Lock(), None
        self.plain = pathlib.Path(root) / "plain"
        self.plain.mkdir()
        shutil.copy("ksllm.h", self.plain)
        self.put(self.plain, source)
        for i in range(n):
            folder = pathlib.Path(root) / str(i)
            (folder / "build").mkdir(parents=True)     # of tests' files
            shutil.copy("ksllm.h", folder)
            shutil.copytree("tests", folder / "tests")
            self.free.append(folder)
            if not all(t.prepare(folder) for t in tests):
                sys.exit("a test does not compile")
        self.put(folder, source)
        for t in tests:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            if not t.build(folder) or not t.passes(folder):
                sys.exit(f"without any change: {t.name} fails")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            t.limit = int(2 * (after.ru_utime - before.ru_utime)) + 2

    @staticmethod
    def put(folder, source):
        (folder / "ksllm.c").write_text("\n".join(source), encoding="utf-8")
        (folder / "ksllm.o").unlink(missing_ok=True)

    def is_same(self, folder):
        """Whether the mutant in this folder is shipped as the same code."""
        with self.lock:
            if not self.code:
                self.code = optimised(self.plain)
        return optimised(folder) == self.code

    def judge(self, source):
        """broken (does not compile), killed, same (code) or survived"""
        folder = self.free.pop()
        try:
            self.put(folder, source)
            for t in self.tests:
                if not t.build(folder):
                    return "broken"
                if not t.passes(folder):
                    return "killed"
            return "same" if self.is_same(folder) else "survived"
        finally:
            self.free.append(folder)


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("part")
    ask.add_argument("count", type=int)
    ask.add_argument("tests", nargs="+")
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--jobs", type=int, default=2)
    ask.add_argument("--goal", type=float, default=90)
    ask = ask.parse_args()
    source = open("ksllm.c", encoding="utf-8").read().split("\n")
    todo = places(source, *span_of(source, ask.part))
    random.Random(ask.seed).shuffle(todo)
    count = ask.count or len(todo)
    known = explained(pathlib.Path(__file__).with_name("mutants.txt"))
    sums = dict.fromkeys(("broken", "killed", "same", "survived"), 0)
    equal, begun = 0, time.monotonic()

    def judged():
        return sums["killed"] + sums["survived"] + equal

    with tempfile.TemporaryDirectory() as root, \
            concurrent.futures.ThreadPoolExecutor(ask.jobs) as pool:
        yard = Yard(root, ask.jobs, source, [Test(t) for t in ask.tests])

        def one(place):
            n, line = place
            if judged() >= count:
                return "broken"
            if (function_at(source, n), source[n - 1].strip(),
                    line.strip()) in known:
                return "equal"
            return yard.judge(source[:n - 1] + [line] + source[n:])

        for (n, line), what in zip(todo, pool.map(one, todo)):
            if judged() >= count:
                break
            if what == "equal":
                equal += 1
                continue
            sums[what] += 1
            if judged() % 20 == 0:
                print(f"{judged()} judged", file=sys.stderr, flush=True)
            if what == "survived":
                print(f"survived, line {n}:\n@ {function_at(source, n)}\n"
                      f"- {source[n - 1].strip()}\n+ {line.strip()}",
                      flush=True)
    n = sums["killed"] + sums["survived"]
    share = 100 * sums["killed"] / max(1, n)
    print(f"{ask.part}: {sums['killed']} of {n} mutants killed, {share:.1f} %; "
          f"{equal} change nothing a caller sees, {sums['same']} no code; "
          f"{time.monotonic() - begun:.0f} s")
    return share < ask.goal


if __name__ == "__main__":
    sys.exit(main())
