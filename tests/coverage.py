#!/usr/bin/env python3
"""Which lines and branches of ksllm.c the tests reach, section by section.

    coverage.py BUILD [--list SECTION]

`make coverage` builds with gcc -O0 --coverage, runs the tests and then this,
which adds up what every program saw: those that take in ksllm.c have a copy of
their own. A branch counts where it went this way at least once. --list prints
the branches of a section (its number) that never did.
"""
import collections
import json
import pathlib
import re
import subprocess
import sys

# The sections that read what comes from outside, and what is asked of them.
GOALS = {"GGUF": 95, "TOKENIZER": 95, "JSON": 95, "TEMPLATE": 95, "CHAT": 95,
         "SAMPLING": 95}
REST = 85


def sections():
    """[(first line, number, name)] of ksllm.c."""
    out = []
    for i, line in enumerate(open("ksllm.c", encoding="utf-8"), 1):
        found = re.match(r" \* § (\d+) ([A-Z ]+) \(", line)
        if found:
            out.append((i, int(found[1]), found[2]))
    return out


def measure(build):
    lines = collections.Counter()
    branches = collections.defaultdict(collections.Counter)
    for data in sorted(pathlib.Path(build).rglob("*.gcda")):
        got = subprocess.run(
            ["gcov", "--branch-probabilities", "--json-format", "--stdout",
             data.resolve()], capture_output=True, check=True)
        for text in got.stdout.splitlines():
            for source in json.loads(text)["files"]:
                if pathlib.Path(source["file"]).name != "ksllm.c":
                    continue
                for at in source["lines"]:
                    n = at["line_number"]
                    lines[n] += at["count"]
                    # A line that is compiled for each instruction set has a
                    # record for each: they are the same branches.
                    for i, way in enumerate(at["branches"]):
                        if not way["throw"]:
                            branches[n][i] += way["count"]
    return lines, branches


def main():
    build, rooms = sys.argv[1], sections()
    lines, branches = measure(build)
    wanted = int(sys.argv[3]) if "--list" in sys.argv else None
    source = open("ksllm.c", encoding="utf-8").read().split("\n")
    failed = []
    print("| section | lines | reached | branches | taken | asked |")
    print("|---|---|---|---|---|---|")
    for k, (first, number, name) in enumerate(rooms):
        last = rooms[k + 1][0] if k + 1 < len(rooms) else len(source)
        mine = [n for n in lines if first <= n < last]
        ways = [(n, i, c) for n in branches if first <= n < last
                for i, c in branches[n].items()]
        if not mine:
            continue
        seen = sum(lines[n] > 0 for n in mine)
        taken = sum(c > 0 for _, _, c in ways)
        asked = GOALS.get(name, REST)
        share = 100 * taken / max(1, len(ways))
        print(f"| § {number} {name} | {len(mine)} | {100 * seen / len(mine):.1f}"
              f" | {len(ways)} | {share:.1f} | {asked} |")
        if share < asked:
            failed.append(name)
        if number == wanted:
            for n in sorted({n for n, _, c in ways if not c}):
                missed = [str(i) for m, i, c in ways if m == n and not c]
                print(f"{n}: {source[n - 1].strip()}   [{','.join(missed)}]")
    print("below what is asked: " + (", ".join(failed) or "none"))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
