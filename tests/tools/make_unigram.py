#!/usr/bin/env python3
"""make_unigram.py - writes tests/unigram.h: a small unigram vocabulary with a
character map, as sentencepiece trains and writes them, and ids by sentencepiece
that test_text compares with.

    build/venv/bin/python tests/tools/make_unigram.py > tests/unigram.h

The map is made of a few rules, for that of nmt_nfkc has 240 KB: full-width
letters, compatibility jamo, ligatures, three spaces, a word of three spaces,
decomposed syllables, and characters that vanish.
"""
import os
import sys
import tempfile
import unicodedata

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "tests"))
import check_tokens as ct                                   # noqa: E402
import sentencepiece                                        # noqa: E402

TEXTS = ["", " ", "안녕하세요", " 안녕  하세요 ", "로봇이 부엌으로 갑니다.", "the robot",
         "모델은 한국어를 1234개 읽는다", "ＡＢＣ１２３　ｆｕｌｌ", "ﬁne ﬂow", "㎏과 ㏄",
         "\ufdfa", "a\u00adb\u200bc", "a\tb\nc", "\u2581a\u2581b", "日本 漢字",
         "😀😀 x😀", "가" * 60, "ab" * 80, "a " * 40, "x" * 300, "Ω≈ç√",
         unicodedata.normalize("NFD", "한국어 모델"), "\ufffd", "e\u0301",
         "으로으로으로", "...!!??", "\u3000\u3000끝"]


def rules():
    out = {}
    for c in list(range(0xFF01, 0xFF5F)) + [0xFB01, 0xFB02, 0x338F, 0x33C4,
                                            0xFDFA]:
        out[chr(c)] = unicodedata.normalize("NFKC", chr(c))
    for c in "\t\n\u3000\u00a0":
        out[c] = " "
    for c in "\u00ad\u200b":
        out[c] = ""
    for c in "한국어모델":
        out[unicodedata.normalize("NFD", c)] = c
    return "".join(" ".join("%X" % ord(x) for x in k) + "\t"
                   + " ".join("%X" % ord(x) for x in v) + "\n"
                   for k, v in out.items())


def text_of(s):
    out = ""
    for b in s.encode():
        out += chr(b) if 32 <= b < 127 and b not in b'"\\?' else "\\%03o" % b
    return '"%s"' % out


def main():
    with tempfile.TemporaryDirectory() as work:
        tsv = os.path.join(work, "rules.tsv")
        with open(tsv, "w", encoding="utf-8") as f:
            f.write(rules())
        with open(os.path.join(ROOT, "tests", "quant_heldout_ko.txt"),
                  encoding="utf-8") as f:
            text = f.read()[:60000]
        text += "the robot goes to the kitchen and reads 1234 words. " * 20
        proto = ct.train_unigram(
            text, os.path.join(work, "m"), vocab_size=500,
            normalization_rule_tsv=tsv, character_coverage=0.995)
    sp = sentencepiece.SentencePieceProcessor(model_proto=proto)
    rows, charsmap = ct.rows_of(proto)
    print("/* unigram.h - made by tests/tools/make_unigram.py. */\n")
    print("static const struct { const char *text; float score; int type; }")
    print("    unigram_tokens[] = {")
    for token, score, kind in rows:
        print("    {%s, %sf, %d}," % (text_of(token), repr(float("%.9g" % score)),
                                     kind))
    print("};\n\nstatic const unsigned char unigram_map[] = {")
    for k in range(0, len(charsmap), 18):
        print("    " + "".join("%d," % b for b in charsmap[k:k + 18]))
    print("};\n\nstatic const struct { const char *text, *ids; }")
    print("    unigram_texts[] = {")
    for t in TEXTS:
        ids = " ".join(str(i + 1 if i else 3) for i in sp.encode(t))
        print("    {%s,\n        \"%s\"}," % (text_of(t), ids))
    print("};")


if __name__ == "__main__":
    main()
