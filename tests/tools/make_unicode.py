#!/usr/bin/env python3
"""make_unicode.py - prints the Unicode tables of ksllm.c, section 9 TEXT.

    pip install unicodedata2==16.0.0
    python3 tests/tools/make_unicode.py > tables.txt

Two versions of Unicode go in, because the tokenizers of Hugging Face have two
(found by asking version 0.23 about every code point):

  - its regular expressions (Oniguruma) know Unicode 16.0;
  - its NFC knows Unicode 9.0. What came later it leaves as it is, in the order
    in which it stands. AFTER_9 lists the marks and compositions added since;
    what was there before never changes its class or its decomposition
    (Unicode's stability policy), so 16.0 without these is 9.0.
"""
import sys

try:
    import unicodedata2 as ucd
except ImportError:
    sys.exit("make_unicode.py: needs unicodedata2==16.0.0 (pip)")

UNICODE = "16.0.0"
LAST = 0x110000
# Below this: two-stage table. From here on: ranges, there are few.
SPARSE = 0x20000
BLOCK = 64

AFTER_9 = (
    (0x7FD, 0x7FD), (0x897, 0x89F), (0x8CA, 0x8D3), (0x9FE, 0x9FE),
    (0xC3C, 0xC3C), (0xD3B, 0xD3C), (0xEBA, 0xEBA), (0x1715, 0x1715),
    (0x1ABF, 0x1ACE), (0x1DF6, 0x1DFA), (0xA82C, 0xA82C), (0x105C9, 0x105C9),
    (0x105E4, 0x105E4), (0x10D24, 0x10D27), (0x10D69, 0x10D6D),
    (0x10EAB, 0x10EAC), (0x10EFD, 0x10EFF), (0x10F46, 0x10F50),
    (0x10F82, 0x10F85), (0x11070, 0x11070), (0x1133B, 0x1133B),
    (0x11383, 0x11383), (0x11385, 0x11385), (0x1138E, 0x1138E),
    (0x11391, 0x11391), (0x113C5, 0x113C5), (0x113C7, 0x113C8),
    (0x113CE, 0x113D0), (0x1145E, 0x1145E), (0x11839, 0x1183A),
    (0x11938, 0x11938), (0x1193D, 0x1193E), (0x11943, 0x11943),
    (0x119E0, 0x119E0), (0x11A34, 0x11A34), (0x11A47, 0x11A47),
    (0x11A99, 0x11A99), (0x11D42, 0x11D42), (0x11D44, 0x11D45),
    (0x11D97, 0x11D97), (0x11F41, 0x11F42), (0x16121, 0x16128),
    (0x1612F, 0x1612F), (0x16D68, 0x16D6A), (0x16FF0, 0x16FF1),
    (0x1E08F, 0x1E08F), (0x1E130, 0x1E136), (0x1E2AE, 0x1E2AE),
    (0x1E2EC, 0x1E2EF), (0x1E4EC, 0x1E4EF), (0x1E5EE, 0x1E5EF),
)

# The order of enum txt_class in ksllm.c.
OTHER, UPPER, LOWER, LETTER, MARK, NUMBER, PUNCT, SYMBOL, SPACE = range(9)
BY_CATEGORY = {"Lu": UPPER, "Lt": UPPER, "Ll": LOWER, "Lm": LETTER,
               "Lo": LETTER, "M": MARK, "N": NUMBER, "P": PUNCT,
               "S": SYMBOL, "Z": SPACE}
# White_Space is category Z and these controls.
CONTROL_SPACE = {9, 10, 11, 12, 13, 0x85}

# Compatibility ideographs: each stands for one other; a plain array does.
IDEOGRAPHS = range(0xF900, 0xFADA)
MORE_IDEOGRAPHS = range(0x2F800, 0x2FA1E)
S_BASE, S_END = 0xAC00, 0xD7A4     # Hangul syllables: done by arithmetic


def class_of(cp):
    if cp in CONTROL_SPACE:
        return SPACE
    category = ucd.category(chr(cp))
    return BY_CATEGORY.get(category, BY_CATEGORY.get(category[0], OTHER))


def in_unicode_9(cp):
    return not any(lo <= cp <= hi for lo, hi in AFTER_9)


def combining_class(cp):
    return ucd.combining(chr(cp)) if in_unicode_9(cp) else 0


def decomposition(cp):
    """Canonical, one step: (), (a,) or (a, b)."""
    text = ucd.decomposition(chr(cp))
    if not text or text[0] == "<" or S_BASE <= cp < S_END:
        return ()
    return tuple(int(x, 16) for x in text.split()) if in_unicode_9(cp) else ()


def runs(value_of, first, last, skip):
    """[(lo, hi, value)] for consecutive equal values other than skip."""
    out = []
    for cp in range(first, last):
        value = value_of(cp)
        if value == skip:
            continue
        if out and out[-1][1] == cp - 1 and out[-1][2] == value:
            out[-1][1] = cp
        else:
            out.append([cp, cp, value])
    return out


def rows(items):
    """Comma-separated items in lines of at most 80 columns."""
    lines, line = [], "   "
    for item in items:
        if len(line) + len(item) + 2 > 80:
            lines.append(line)
            line = "   "
        line += " " + item + ","
    if line.strip():
        lines.append(line)
    return "\n".join(lines)


def table(kind, name, items, comment):
    print("/* %s */" % comment)
    print("static const %s %s = {\n%s\n};\n" % (kind, name, rows(items)))


def print_classes():
    blocks, index = {}, []
    for start in range(0, SPARSE, BLOCK):
        block = tuple(class_of(cp) for cp in range(start, start + BLOCK))
        index.append(blocks.setdefault(block, len(blocks)))
    words = []
    for block in blocks:
        for i in range(0, BLOCK, 16):
            word = sum(c << 4 * k for k, c in enumerate(block[i:i + 16]))
            words.append("0x%016x" % word)
    sparse = runs(class_of, SPARSE, LAST, OTHER)
    table("u16", "TXT_BLOCK[%d]" % len(index), ["%d" % i for i in index],
          "Which row of TXT_CLASS has the classes of code points 64 i to "
          "64 i + 63.")
    table("u64", "TXT_CLASS[%d * 4]" % len(blocks), words,
          "Classes of 64 code points a row, 4 bits each, the first one "
          "lowest.")
    table("txt_range", "TXT_FAR[%d]" % len(sparse),
          ["{0x%X, 0x%X, %d}" % tuple(r) for r in sparse],
          "Classes from U+20000 on: first, last, class.")
    return 2 * len(index) + 8 * len(words) + 12 * len(sparse)


def print_nfc():
    marks = runs(combining_class, 0, LAST, 0)
    items = ["{0x%X, %d, %d}" % (lo, hi - lo + 1, value)
             for lo, hi, value in marks]
    table("txt_marks", "TXT_MARKS[%d]" % len(marks), items,
          "Canonical combining classes that are not 0: first, count, class.")
    near, far = [], []
    for cp in range(LAST):
        parts = decomposition(cp)
        if not parts or cp in IDEOGRAPHS or cp in MORE_IDEOGRAPHS:
            continue
        row = (cp,) + parts + (0,) * (2 - len(parts))
        (near if max(row) < 0x10000 else far).append(row)
    table("u16", "TXT_NEAR[%d][3]" % len(near),
          ["{0x%X, 0x%X, 0x%X}" % r for r in near],
          "Canonical decompositions: the character, its first part, its "
          "second or 0.")
    table("u32", "TXT_WIDE[%d][3]" % len(far),
          ["{0x%X, 0x%X, 0x%X}" % r for r in far],
          "The same for rows with a character beyond U+FFFF.")
    one = [single(cp) for cp in IDEOGRAPHS]
    table("u32", "TXT_IDEOGRAPH[%d]" % len(one), ["0x%X" % c for c in one],
          "What the compatibility ideographs from U+%X on stand for; 0: "
          "themselves." % IDEOGRAPHS[0])
    more = [single(cp) for cp in MORE_IDEOGRAPHS]
    table("u32", "TXT_IDEOGRAPH_2[%d]" % len(more),
          ["0x%X" % c for c in more],
          "The same from U+%X on." % MORE_IDEOGRAPHS[0])
    pairs = sorted((r[1], r[2], i) for i, r in enumerate(near)
                   if r[2] and composes(*r))
    table("u16", "TXT_PAIR[%d]" % len(pairs), ["%d" % p[2] for p in pairs],
          "Rows of TXT_NEAR that compose again, ordered by their parts.")
    assert not any(r[2] and composes(*r) for r in far if r[0] < 0x10000)
    seconds = sorted({r[2] for r in near + far if r[2] and composes(*r)
                      and combining_class(r[2]) == 0})
    table("u32", "TXT_SECOND[%d]" % len(seconds),
          ["0x%X" % s for s in seconds],
          "Second parts of compositions that are of class 0; jamo are not "
          "here.")
    return (8 * len(marks) + 6 * len(near) + 12 * len(far)
            + 4 * len(one + more) + 2 * len(pairs) + 4 * len(seconds))


def single(cp):
    parts = decomposition(cp)
    assert len(parts) < 2
    return parts[0] if parts else 0


def composes(cp, a, b):
    """Whether NFC puts a and b together to cp (not a composition exclusion)."""
    return ucd.normalize("NFC", chr(a) + chr(b)) == chr(cp)


def main():
    if ucd.unidata_version != UNICODE:
        sys.exit("make_unicode.py: unicodedata2 %s is not %s"
                 % (ucd.unidata_version, UNICODE))
    size = print_classes() + print_nfc()
    print("%d bytes" % size, file=sys.stderr)


if __name__ == "__main__":
    main()
