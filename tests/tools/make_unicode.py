#!/usr/bin/env python3
"""make_unicode.py - prints the Unicode tables of ksllm.c, section 9 TEXT.

    pip install unicodedataplus==16.0.0.post1
    python3 tests/tools/make_unicode.py > tables.txt

Two versions of Unicode go in, because the tokenizers of Hugging Face have two
(found by asking version 0.23 about every code point):

  - its regular expressions (Oniguruma) know Unicode 16.0;
  - its NFC knows Unicode 9.0. What came later it leaves as it is, in the order
    in which it stands. AFTER_9 lists the marks and compositions added since;
    what was there before never changes its class or its decomposition
    (Unicode's stability policy), so 16.0 without these is 9.0.

Grapheme clusters (UAX 29) are those of Unicode 16.0.

The tables are strings, for a number in hexadecimal takes twice the columns:
rows of 66 characters, a number being 1 to 6 of them, 6 bits each, the highest
first. The digits are '>' to '~' without the backslash.
"""
import re
import sys
import textwrap

try:
    import unicodedataplus as ucd
except ImportError:
    sys.exit("make_unicode.py: needs unicodedataplus==16.0.0.post1 (pip)")

UNICODE = "16.0.0"
LAST = 0x110000
# Below this: three-stage table. From here on: ranges, there are few.
SPARSE = 0x20000
BLOCK = 16          # code points of a block of TXT_CLASS, two in a character
PAGE = 256          # code points of a page of TXT_BLOCK; 16 and 256 take least
ROW = 66            # characters of a row of a table
FAST_ROW = 64       # the same where division has to be a shift

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


def digit(value, first):
    """One character; the backslash is left out of the digits."""
    value += ord(first)
    return chr(value + (value >= ord("\\")))


def number(value, size):
    """`size` characters of 6 bits."""
    assert value < 1 << 6 * size
    return "".join(digit(value >> 6 * k & 63, ">")
                   for k in reversed(range(size)))


def table(name, text, comment, row=ROW):
    """Rows of a string; returns its size."""
    lines = [text[i:i + row] for i in range(0, len(text), row)]
    print("/* %s */" % "\n * ".join(textwrap.wrap(comment, 74)))
    print("static const char %s[%d][%d] = {" % (name, len(lines), row + 1))
    for line in lines:
        line = re.sub(r"\?\?(?=[=/'()!<>-])", r"?\?", line)   # trigraphs
        print('    "%s",' % line)
    print("};\n")
    return (row + 1) * len(lines)


def ranges(entries, size, top):
    """Runs as numbers: first, length - 1 (at most `top` + 1), value."""
    out = []
    for lo, hi, value in entries:
        while lo <= hi:
            n = min(hi - lo, top)
            out.append(number((lo * (top + 1) + n) << 8 | value, size))
            lo += n + 1
    return out


def print_classes():
    blocks, index = {}, ""
    for start in range(0, SPARSE, BLOCK):
        block = "".join(digit(class_of(cp) + 9 * class_of(cp + 1), "(")
                        for cp in range(start, start + BLOCK, 2))
        index += number(blocks.setdefault(block, len(blocks)), 2)
    pages, page_index = {}, ""
    for at in range(0, len(index), PAGE // BLOCK * 2):
        page = index[at:at + PAGE // BLOCK * 2]
        page_index += number(pages.setdefault(page, len(pages)), 2)
    sparse = runs(class_of, SPARSE, LAST, OTHER)
    size = table("TXT_ASCII", "".join(str(class_of(cp)) for cp in range(128)),
                 "Classes below U+80, a digit from '0' on each.", FAST_ROW)
    size += table("TXT_PAGE", page_index, "Classes below U+20000 are found in "
                  "three steps, as many code points have those of others. Two "
                  "digits for each 256 say which part of TXT_BLOCK they have.",
                  FAST_ROW)
    size += table("TXT_BLOCK", "".join(pages),
                  "Two digits for each 16 code points of these say which part "
                  "of TXT_CLASS they have.", FAST_ROW)
    size += table("TXT_CLASS", "".join(blocks),
                  "A digit for two code points: the class of the first one "
                  "+ 9 times that of the second.", FAST_ROW)
    print("/* Classes from U+%X on. */" % SPARSE)
    print("static const struct { u32 first, last, class_; } TXT_FAR[%d] = {"
          % len(sparse))
    text = " ".join("{0x%X,_0x%X,_%d}," % tuple(r) for r in sparse)
    for line in textwrap.wrap(text, 76):
        print("    " + line.replace("_", " "))
    print("};\n")
    return size + 12 * len(sparse)


def print_nfc():
    marks = ranges(runs(combining_class, 0, LAST, 0), 6, 127)
    size = table("TXT_MARKS", "".join(marks),
                 "Canonical combining classes other than 0 in %d ranges. A "
                 "range is 6 digits, so 36 bits: the first code point (21), "
                 "the others (7), the class (8)." % len(marks))
    found = []
    for cp in range(LAST):
        parts = decomposition(cp)
        if parts and cp not in IDEOGRAPHS and cp not in MORE_IDEOGRAPHS:
            found.append((cp,) + parts + (0,) * (2 - len(parts)))
    size += table("TXT_PARTS",
                  "".join(number(c, 3) for row in found for c in row),
                  "%d canonical decompositions, 9 digits each: the character, "
                  "its first part, its second part or 0." % len(found))
    both = [single(cp) for r in (IDEOGRAPHS, MORE_IDEOGRAPHS) for cp in r]
    size += table("TXT_IDEOGRAPH", "".join(number(c, 3) for c in both),
                  "What compatibility ideographs stand for, 3 digits each, from "
                  "U+F900 and from U+2F800 on; 0: themselves.")
    pairs = sorted((r[1], r[2], i) for i, r in enumerate(found)
                   if r[2] and composes(*r))
    size += table("TXT_PAIR", "".join(number(p[2], 2) for p in pairs),
                  "The rows of TXT_PARTS that compose (%d), 2 digits each, in "
                  "the order of their parts." % len(pairs))
    seconds = sorted({r[2] for r in found if r[2] and composes(*r)
                      and combining_class(r[2]) == 0})
    size += table("TXT_SECOND", "".join(number(c, 3) for c in seconds),
                  "The %d second parts of class 0, 3 digits each, without jamo."
                  % len(seconds))
    print("enum {\n    TXT_N_MARKS = %d, TXT_N_PARTS = %d, TXT_N_PAIRS = %d, "
          "TXT_N_SECOND = %d\n};\n" % (len(marks), len(found), len(pairs),
                                       len(seconds)))
    return size


# The order of enum txt_cluster in ksllm.c. Hangul is done by arithmetic.
CLUSTER = {"CR": 1, "LF": 2, "Control": 3, "Extend": 4, "ZWJ": 5,
           "Regional_Indicator": 6, "Prepend": 7, "SpacingMark": 8}
PICTURE, CONSONANT, LINKER, NONJOINER = 9, 10, 11, 12
CONJUNCT = ("Bengali", "Devanagari", "Gujarati", "Malayalam", "Oriya",
            "Telugu")                       # Indic_Conjunct_Break (UAX 44)
# Control as well, but unassigned, which Python's data leaves out.
UNASSIGNED = [(0x2065, 0x2065), (0xFFF0, 0xFFF8), (0xE0000, 0xE0FFF)]
LATE = 0xE01F0      # from here to U+E0FFF all is Control; not in the table


def cluster_class(cp):
    if cp == 0x200C:
        return NONJOINER        # extends, but not a conjunct
    c, value = chr(cp), ucd.grapheme_cluster_break(chr(cp))
    if ucd.script(c) in CONJUNCT:
        kind = ucd.indic_syllabic_category(c)
        if kind in ("Virama", "Consonant"):
            return LINKER if kind == "Virama" else CONSONANT
    if value == "Other":
        if ucd.is_extended_pictographic(c):
            return PICTURE
        if any(lo <= cp <= hi for lo, hi in UNASSIGNED):
            return CLUSTER["Control"]
    return CLUSTER.get(value, 0)


def print_clusters():
    found = ranges(runs(cluster_class, 0, LATE, 0), 6, 127)
    size = table("TXT_CLUSTER", "".join(found),
                 "Grapheme_Cluster_Break below U+%X, %d ranges in the form of "
                 "TXT_MARKS." % (LATE, len(found)))
    print("enum { TXT_N_CLUSTER = %d };" % len(found))
    return size


def single(cp):
    parts = decomposition(cp)
    assert len(parts) < 2
    return parts[0] if parts else 0


def composes(cp, a, b):
    """Whether NFC puts a and b together to cp (not a composition exclusion)."""
    return ucd.normalize("NFC", chr(a) + chr(b)) == chr(cp)


def main():
    if ucd.unidata_version != UNICODE:
        sys.exit("make_unicode.py: unicodedataplus %s is not %s"
                 % (ucd.unidata_version, UNICODE))
    size = print_classes() + print_nfc() + print_clusters()
    print("%d bytes" % size, file=sys.stderr)


if __name__ == "__main__":
    main()
