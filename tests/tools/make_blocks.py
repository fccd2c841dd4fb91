#!/usr/bin/env python3
"""Writes tests/blocks.h: what blocks of every weight type mean.

    pip install gguf numpy
    python tests/tools/make_blocks.py > tests/blocks.h

The values come from gguf-py's dequantize, which shares no code with the
library. For each type there is one block of random bytes with its values in
full, and the hash of the values of 64 more blocks that C can make again from
the same generator (splitmix64, as in fixture.h).
"""
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize

# Type, values of a block, its bytes, where its f16 scales stand.
TYPES = [
    (T.F32, 1, 4, []), (T.F16, 1, 2, []), (T.BF16, 1, 2, []),
    (T.Q4_0, 32, 18, [0]), (T.Q4_1, 32, 20, [0, 2]),
    (T.Q5_0, 32, 22, [0]), (T.Q5_1, 32, 24, [0, 2]), (T.Q8_0, 32, 34, [0]),
    (T.Q2_K, 256, 84, [80, 82]), (T.Q3_K, 256, 110, [108]),
    (T.Q4_K, 256, 144, [0, 2]), (T.Q5_K, 256, 176, [0, 2]),
    (T.Q6_K, 256, 210, [208]), (T.IQ4_NL, 32, 18, [0]),
    (T.IQ4_XS, 256, 136, [0]), (T.IQ2_XXS, 256, 66, [0]),
    (T.IQ2_XS, 256, 74, [0]), (T.IQ3_XXS, 256, 98, [0]),
    (T.IQ1_S, 256, 50, [0]), (T.IQ3_S, 256, 110, [0]),
    (T.IQ2_S, 256, 82, [0]), (T.IQ1_M, 256, 56, [54]),
    (T.TQ1_0, 256, 54, [52]), (T.TQ2_0, 256, 66, [64]),
    (T.MXFP4, 32, 17, []),
]
MASK = (1 << 64) - 1


class Rng:
    def __init__(self, seed):
        self.state = seed

    def byte(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return (z ^ (z >> 31)) >> 56


def random_blocks(rng, n_bytes, scales, exponent_byte):
    """Bytes of one unit: every bit random, but no infinity and no NaN."""
    b = bytearray(rng.byte() for _ in range(n_bytes))
    for at in scales:
        b[at + 1] &= 0xBF           # exponent below 16: |scale| below 2
    for at, keep in exponent_byte:
        b[at] &= keep
    return bytes(b)


def values(kind, data):
    if kind == T.F32:
        return np.frombuffer(data, "<f4")
    if kind == T.F16:
        return np.frombuffer(data, "<f2").astype(np.float32)
    raw = np.frombuffer(data, np.uint8)
    return dequantize(raw, kind).reshape(-1).astype(np.float32)


def bits(x):
    b = x.astype("<f4").view("<u4").copy()
    b[b == 0x80000000] = 0          # -0 is 0
    return b


def fnv(x):
    h = 0xCBF29CE484222325
    for byte in bits(x).tobytes():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    return h


def main():
    out = sys.stdout.write
    out("/* blocks.h - blocks of every weight type and their values. Made by\n"
        " * tools/make_blocks.py with gguf-py's dequantize; not edited by "
        "hand. */\n")
    table = []
    for kind, items, size, scales in TYPES:
        unit, n_values = size, items
        exponent = []
        if items == 1:              # 32 values stand for a block
            unit, n_values = size * 32, 32
            exponent = [(size * i + size - 1, 0xBF) for i in range(32)]
        if kind == T.MXFP4:         # 2^-1 at most
            exponent = [(0, 0x7F)]
        rng = Rng(int(kind) + 1)
        first = random_blocks(rng, unit, scales, exponent)
        more = b"".join(random_blocks(rng, unit, scales, exponent)
                        for _ in range(64))
        v = values(kind, first)
        w = values(kind, more)
        assert len(v) == n_values and len(w) == 64 * n_values
        assert np.isfinite(v).all() and np.isfinite(w).all()
        name = kind.name
        out(f"\nstatic const uint8_t bytes_{name}[{unit}] = {{")
        for i, b in enumerate(first):
            out(("\n    " if i % 15 == 0 else " ") + f"{b},")
        out(f"\n}};\nstatic const uint32_t values_{name}[{n_values}] = {{")
        for i, b in enumerate(bits(v)):
            out(("\n    " if i % 6 == 0 else " ") + f"0x{b:08x},")
        out("\n};\n")
        table.append(f"    {{{int(kind)}, \"{name}\", {items}, {size}, "
                     f"{unit}, {n_values},\n     bytes_{name}, "
                     f"values_{name}, UINT64_C(0x{fnv(w):016x})}},\n")
    out("\nstatic const block_case block_cases[] = {\n" + "".join(table)
        + "};\n")


main()
