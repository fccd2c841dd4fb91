#!/usr/bin/env python3
"""Which lines and branches of ksllm.c the tests reach, section by section.

    coverage.py BUILD [--list SECTION]

`make coverage` builds with gcc -O0 --coverage, runs the tests and then this,
which adds up the counters of every program: each of those that include ksllm.c
has its own copy. Fails if a section is below its goal. --list prints what was
never reached of a section, given by its number or its name.

A branch is one way out of a condition, as gcc compiles it: `if (a && b)` has
four. A line that is compiled once for each instruction set has the same
branches each time: one counts once, and as reached if any copy reached it. Code
for other machines (Arm) is not compiled, so it is not counted; rows of table 7i
that need more than this CPU has are counted and stay unreached. So the sections
CPU and KERNELS have a goal only where the CPU has all of x86's rows.

Threads count without locks: from run to run a section's figure differs by a
branch or two.
"""
import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys

# Sections that read what comes from outside; the others have REST.
GOALS = dict.fromkeys(["GGUF", "TEXT", "TOKENIZER", "JSON", "TEMPLATE", "CHAT",
                       "SAMPLING"], 95)
REST = 85

# The sections that depend on the CPU, and what the rows of x86 need.
ROWS = ("CPU", "KERNELS")
WHOLE = ("avx2", "avx512bw", "avx512vl", "avx512_vnni")

Section = collections.namedtuple("Section", "number name first last")


def sections(source):
    """The sections of ksllm.c with the numbers of their lines."""
    found = [(i, re.match(r" \* § (\d+) ([A-Z]+) \(", line))
             for i, line in enumerate(source, 1)]
    heads = [(i, m) for i, m in found if m]
    ends = [i - 1 for i, _ in heads[1:]] + [len(source)]
    return [Section(int(m[1]), m[2], i, end)
            for (i, m), end in zip(heads, ends)]


def has_all_rows():
    """Whether the CPU can run every row of table 7i but AVX-VNNI, which adds
    one line."""
    cpu = pathlib.Path("/proc/cpuinfo")
    flags = cpu.read_text(encoding="utf-8").split() if cpu.exists() else []
    return all(flag in flags for flag in WHOLE)


def measure(build):
    """How often each line ran, and each branch: (line, how many branches its
    copy has, which of them). Copies with another number of branches are other
    code, out of a macro that depends on the instruction set."""
    lines, branches = collections.Counter(), collections.Counter()
    for data in sorted(pathlib.Path(build).rglob("*.gcda")):
        got = subprocess.run(
            ["gcov", "--branch-probabilities", "--json-format", "--stdout",
             data.resolve()], capture_output=True, check=True)
        for text in got.stdout.splitlines():
            for file in json.loads(text)["files"]:
                if pathlib.Path(file["file"]).name != "ksllm.c":
                    continue
                for at in file["lines"]:
                    n = at["line_number"]
                    lines[n] += at["count"]
                    ways = [w for w in at["branches"] if not w["throw"]]
                    for i, way in enumerate(ways):
                        branches[n, len(ways), i] += way["count"]
    return lines, branches


def show(section, lines, branches, source):
    """Prints the branches of a section that were never taken."""
    missed = collections.defaultdict(list)
    for (n, ways, i), count in sorted(branches.items()):
        if section.first <= n <= section.last and not count:
            missed[n].append(f"{i + 1} of {ways}")
    for n, which in missed.items():
        never = "" if lines[n] else ", line never ran"
        print(f"{n}: {source[n - 1].strip()}   [{', '.join(which)}{never}]")


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("build")
    args.add_argument("--list", metavar="SECTION")
    args = args.parse_args()
    source = pathlib.Path("ksllm.c").read_text(encoding="utf-8").split("\n")
    every = sections(source)
    lines, branches = measure(args.build)
    if args.list:
        wanted = [s for s in every
                  if args.list.upper() in (s.name, str(s.number))]
        if not wanted:
            sys.exit(f"there is no section {args.list}")
        return show(wanted[0], lines, branches, source)
    below, free = [], () if has_all_rows() else ROWS
    print("section         lines  reached  branches  taken     %  goal")
    for s in every:
        mine = [c for n, c in lines.items() if s.first <= n <= s.last]
        ways = [c for (n, _, _), c in branches.items()
                if s.first <= n <= s.last]
        if not ways:
            continue
        taken, goal = sum(c > 0 for c in ways), GOALS.get(s.name, REST)
        ok = 100 * taken >= goal * len(ways)
        word = "ok" if ok else "fewer rows" if s.name in free else "below"
        if word == "below":
            below.append(s.name)
        # Cut, not rounded: what is below its goal must not look like it.
        share = 1000 * taken // len(ways) / 10
        print(f"§ {s.number:<2} {s.name:<10} {len(mine):>6}  "
              f"{sum(c > 0 for c in mine):>7}  {len(ways):>8}  {taken:>5}  "
              f"{share:>4}  {goal:>4}  {word}")
    total = len(branches), sum(c > 0 for c in branches.values())
    print(f"all: {total[1]} of {total[0]} branches, "
          f"{1000 * total[1] // max(1, total[0]) / 10} %", flush=True)
    if not lines:
        sys.exit(f"no counters in {args.build}: run `make coverage`")
    if below:
        sys.exit("below the goal: " + ", ".join(below))


if __name__ == "__main__":
    main()
