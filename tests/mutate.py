#!/usr/bin/env python3
"""Breaks ksllm.c in small ways and asks whether the tests notice.

    mutate.py "GGUF" 100 test_gguf fuzz_gguf [--seed 1] [--jobs 2]

Takes 100 places of a part of ksllm.c (the name of a section, or FIRST-LAST
lines), changes one thing at each (a comparison, an operator, a number, a
condition, a statement), builds the library without SIMD kernels and runs these
tests against it. A mutant is killed when one of them fails, dies or takes much
longer. Prints the survivors: each is a missing check, or a change that changes
nothing. The last line is the share that was killed.
"""
import argparse
import concurrent.futures
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading

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
FLAGS = ["-std=gnu11", "-O0", "-w", "-DKSLLM_NO_SIMD", "-ffp-contract=off"]
LIBS = ["-lm", "-pthread"]


def span_of(source, part):
    if re.fullmatch(r"\d+-\d+", part):
        return [int(x) for x in part.split("-")]
    first = last = None
    for i, line in enumerate(source, 1):
        found = re.match(r" \* § \d+ ([A-Z ]+) \(", line)
        if found and first is None and found[1] == part:
            first = i
        elif found and first is not None:
            return first, i - 2
    return (first, len(source)) if first else sys.exit(f"no section {part}")


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


def build(folder, source, tests):
    """The library and the tests in this folder; None, or why not."""
    (folder / "ksllm.c").write_text("\n".join(source), encoding="utf-8")
    done = subprocess.run(
        ["cc", *FLAGS, "-c", "ksllm.c", "-o", "ksllm.o"], cwd=folder,
        capture_output=True, check=False)
    if done.returncode:
        return "compile"
    for test in tests:
        white = '#include "../ksllm.c"' in (
            folder / "tests" / f"{test}.c").read_text(encoding="utf-8")
        done = subprocess.run(
            ["cc", *FLAGS, "-I.", f"tests/{test}.c", "-o", test,
             *([] if white else ["ksllm.o"]), *LIBS], cwd=folder,
            capture_output=True, check=False)
        if done.returncode:
            return "link"
    return None


def killed_by(folder, tests):
    for test in tests:
        try:
            done = subprocess.run([f"./{test}"], cwd=folder, timeout=120,
                                  capture_output=True, check=False)
        except subprocess.TimeoutExpired:
            return test
        if done.returncode:
            return test
    return None


class Yard:
    """Folders that workers take in turns."""

    def __init__(self, root, n):
        self.lock, self.free = threading.Lock(), []
        for i in range(n):
            folder = pathlib.Path(root) / str(i)
            folder.mkdir()
            shutil.copy("ksllm.h", folder)
            shutil.copytree("tests", folder / "tests")
            self.free.append(folder)

    def run(self, source, tests):
        with self.lock:
            folder = self.free.pop()
        try:
            return build(folder, source, tests) or killed_by(folder, tests)
        finally:
            with self.lock:
                self.free.append(folder)


def main():
    ask = argparse.ArgumentParser()
    ask.add_argument("part")
    ask.add_argument("count", type=int)
    ask.add_argument("tests", nargs="+")
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--jobs", type=int, default=2)
    ask = ask.parse_args()
    source = open("ksllm.c", encoding="utf-8").read().split("\n")
    all_places = places(source, *span_of(source, ask.part))
    random.Random(ask.seed).shuffle(all_places)
    chosen = all_places[:ask.count * 2]     # some do not compile
    killed, survived = 0, []
    with tempfile.TemporaryDirectory() as root, \
            concurrent.futures.ThreadPoolExecutor(ask.jobs) as pool:
        yard = Yard(root, ask.jobs)
        why = yard.run(source, ask.tests)
        if why:
            sys.exit(f"without any change: {why} fails")

        def one(place):
            n, line = place
            if killed + len(survived) >= ask.count:
                return place, "skipped"
            mutant = source[:n - 1] + [line] + source[n:]
            return place, yard.run(mutant, ask.tests)

        for (n, line), why in pool.map(one, chosen):
            if why in ("compile", "link", "skipped") or \
                    killed + len(survived) >= ask.count:
                continue
            killed += why is not None
            if why is None:
                survived.append(n)
                print(f"survived, line {n}:\n  -{source[n - 1]}\n  +{line}",
                      flush=True)
            elif killed % 20 == 0:
                print(f"{killed} killed, {len(survived)} survived", flush=True)
    n = killed + len(survived)
    print(f"{ask.part}: {killed} of {n} mutants killed, "
          f"{100 * killed / max(1, n):.1f} %")


if __name__ == "__main__":
    main()
