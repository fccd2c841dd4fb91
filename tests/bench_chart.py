#!/usr/bin/env python3
"""Draw what bench_peer.py --csv has written as one SVG.

    bench_chart.py CSV OUT.svg [MODEL [ROW]]

Bars in groups: tokens per second for prompts, by their length, and for a token
after others, by their number. Of llama.cpp's two settings each case shows the
better one. Without MODEL and ROW (of ksllm's kernels) those of the first line
are drawn; of several runs on one machine the last. Colours and text are for
light and dark pages.
"""
import csv
import sys
from html import escape

BAR, GAP, GROUP, HEIGHT, TOP, LEFT = 28, 2, 26, 190, 64, 12
COLOURS = ["#0a7f5a", "#8a63d2", "#d1742f", "#3b82c4", "#b5475f", "#7d7d7d"]
NAMES = {"ov": "OpenVINO GenAI", "ort": "onnxruntime-genai", "mnn": "MNN"}


def label(program):
    kind, _, group = program.partition("-g")
    return f"{NAMES[kind]}, groups of {group}" if kind in NAMES else program


def read(path, model, row):
    """{program: {case: value}} of a run, and a line that says which."""
    with open(path, newline="") as f:
        lines = list(csv.DictReader(f))
    if not lines:
        sys.exit(f"{path}: no lines")
    model, row = model or lines[0]["model"], row or lines[0]["row"]
    lines = [x for x in lines if (x["model"], x["row"]) == (model, row)]
    if not lines:
        sys.exit(f"{path}: nothing of {model} on {row}")
    found = {}
    for x in lines:
        value, program = float(x["value"]), x["program"]
        if program == "ksllm":
            program = f"ksllm ({row})"
        cases = found.setdefault(program.replace(" plain", "").replace(
            " repacked", ""), {})
        # The two of llama.cpp follow each other.
        best = max if program.endswith(" plain") else lambda a, b: b
        cases[x["case"]] = best(cases.get(x["case"], value), value)
    last = lines[-1]
    return found, (f"{last['model'].removeprefix('bench-')}, "
                   f"{last['threads']} threads, {last['machine']}, "
                   f"{last['date']}")


def text(x, y, what, kind="", anchor="middle"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
            f'{f" class={chr(34)}{kind}{chr(34)}" if kind else ""}>'
            f"{escape(what)}</text>")


def panel(found, kind, title, x):
    """One panel from x on; its lines and its right edge."""
    cases = [c for c in next(iter(found.values())) if c.startswith(kind)]
    most = max(v.get(c, 0) for v in found.values() for c in cases)
    base, out = TOP + 28 + HEIGHT, [text(x, TOP + 6, title, "b", "start")]
    begin = x
    for case in cases:
        at = x
        for i, values in enumerate(found.values()):
            if case in values:
                h = max(1, values[case] / most * (HEIGHT - 14))
                out.append(f'<rect x="{x}" y="{base - h:.1f}" width="{BAR}" '
                           f'height="{h:.1f}" fill="{COLOURS[i]}"/>')
                v = values[case]
                out.append(text(x + BAR / 2, base - h - 4,
                                f"{v:.0f}" if v >= 99.5 else f"{v:.1f}"))
            x += BAR + GAP
        n = f"{int(case.split()[1]):,}"
        out.append(text((at + x - GAP) / 2, base + 16, n))
        x += GROUP
    end = max(x - GROUP, begin + 7 * len(title))
    out.append(f'<path d="M{begin} {base + .5}H{end}" class="axis"/>')
    return out, end


def main():
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    found, about = read(sys.argv[1], *(sys.argv[3:] + [None, None])[:2])
    if len(found) > len(COLOURS):
        sys.exit(f"{len(found)} programs are too many to draw")
    left, edge = panel(found, "prefill", "Prompts of so many tokens", LEFT)
    right, end = panel(found, "decode", "One token after so many others",
                       edge + 2 * GROUP)
    width, key, x, y = max(end + LEFT, 640), [], LEFT, 20
    for i, program in enumerate(found):
        need = 22 + 7 * len(label(program))
        if x > LEFT and x + need > width:
            x, y = LEFT, y + 20
        key.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" '
                   f'fill="{COLOURS[i]}"/>')
        key.append(text(x + 17, y, label(program), "", "start"))
        x += need
    height = TOP + 28 + HEIGHT + 46
    with open(sys.argv[2], "w") as f:
        print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" '
              f'height="{height}" viewBox="0 0 {width} {height}" role="img" '
              'font-family="sans-serif" font-size="11" '
              'aria-label="tokens per second">\n<style>\n'
              "text { fill: #24292f }\n"
              ".b { font-weight: bold; font-size: 12px }\n"
              ".axis { stroke: #8b949e; fill: none }\n"
              "@media (prefers-color-scheme: dark) "
              "{ text { fill: #e6edf3 } }\n</style>", file=f)
        for line in key + left + right:
            print(line, file=f)
        print(text(LEFT, height - 8, f"tokens per second; {about}", "",
                   "start"), file=f)
        print("</svg>", file=f)


main()
