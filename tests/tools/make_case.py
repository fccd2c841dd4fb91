#!/usr/bin/env python3
"""make_case.py - prints the tables of letter case of ksllm.c, section 11 CHAT.

    python3.11 tests/tools/make_case.py > tables.txt

The methods of Python's own texts are the source, for they are what a chat
template calls: Unicode 14.0 in Python 3.11. The rules that are not in the
tables (Georgian, Cherokee, the Greek iota subscript, the final sigma) stand in
ksllm.c, and tests/check_templates.py compares every code point.

The tables are strings, as make_unicode.py makes them; each number is 18 bits.
"""
import sys
import unicodedata

from make_unicode import number, table     # the same form

UNICODE = "14.0.0"
LETTERS = [cp for cp in range(0x20000) if not 0xD800 <= cp < 0xE000]
IOTA = range(0x1F80, 0x1FB0)        # by rule


def one(text, cp):
    return ord(text) if len(text) == 1 else cp


def runs(cps, value):
    """[(first, count, step, value)]: equal values at a distance of 1 or 2."""
    out, i = [], 0
    while i < len(cps):
        best, by = 1, 1
        for step in (1, 2):
            n = 1
            while i + n < len(cps) and cps[i + n] == cps[i] + n * step \
                    and value(cps[i + n]) == value(cps[i]):
                n += 1
            if n > best:
                best, by = n, step
        out.append((cps[i], best, by, value(cps[i])))
        i += best
    return out


def spans(cps):
    return [(first, n) for first, n, step, _ in runs(cps, lambda cp: 0)
            for first, n in ([(first, n)] if step == 1 else
                             [(first + 2 * k, 1) for k in range(n)])]


def main():
    if unicodedata.unidata_version != UNICODE:
        sys.exit(f"make_case.py: Unicode is not {UNICODE}: use Python 3.11")
    lower = {cp: one(chr(cp).lower(), cp) for cp in LETTERS}
    inverse = {}
    for cp in LETTERS:
        if lower[cp] != cp:
            inverse.setdefault(lower[cp], cp)
    several = [cp for cp in LETTERS if len(chr(cp).upper()) > 1
               and cp not in IOTA]
    upper = {cp: one(chr(cp).upper(), cp) for cp in LETTERS
             if len(chr(cp).upper()) == 1}
    down = runs([cp for cp in LETTERS if lower[cp] != cp],
                lambda cp: lower[cp] - cp)
    up = runs([cp for cp in upper if upper[cp] != inverse.get(cp, cp)],
              lambda cp: upper[cp] - cp)
    rows = [(first, 2 * n + step - 1, delta + 0x20000)
            for first, n, step, delta in down + up]
    size = table("CHAT_CASE", "".join(number(v, 3) for r in rows for v in r),
                 "Runs of letters, %d to lower case, then %d to upper case "
                 "where it is not the way back: the first, 2 * count + 1 if "
                 "every second one, what to add + 0x20000."
                 % (len(down), len(up)))
    size += table("CHAT_CASES", "".join(
        number(ord(c), 3) for cp in several
        for c in chr(cp) + chr(cp).upper().ljust(3, "\0")),
        "The %d letters whose upper case is several, and that." % len(several))
    other = [spans([cp for cp in LETTERS if test(chr(cp))
                    and unicodedata.category(chr(cp)) != category])
             for test, category in ((str.islower, "Ll"), (str.isupper, "Lu"))]
    size += table("CHAT_CASED", "".join(number(v, 3) for r in sum(other, [])
                                        for v in r),
                  "What counts as lower case, %d runs, or as upper case, %d, "
                  "though its class is another: the first, how many."
                  % tuple(len(o) for o in other))
    tens = [cp for cp in LETTERS if unicodedata.decimal(chr(cp), 1) == 0]
    digits = spans([cp for cp in LETTERS if chr(cp).isdigit()
                    and not chr(cp).isdecimal()])
    size += table("CHAT_TENS", "".join(number(cp, 3) for cp in tens),
                  "The zeros of the %d sets of decimal digits." % len(tens))
    size += table("CHAT_DIGITS", "".join(number(v, 3) for r in digits
                                         for v in r),
                  "Digits that are not decimal, %d runs." % len(digits))
    print("enum {\n    CHAT_N_DOWN = %d, CHAT_N_UP = %d, CHAT_N_CASES = %d,\n"
          "    CHAT_N_OTHER_LOW = %d, CHAT_N_OTHER_UP = %d, CHAT_N_TENS = %d,"
          "\n    CHAT_N_DIGITS = %d\n};" % (
              len(down), len(up), len(several), len(other[0]), len(other[1]),
              len(tens), len(digits)))
    print("%d bytes" % size, file=sys.stderr)


if __name__ == "__main__":
    main()
