"""Korean as it is spoken: numbers, particles, endings, slips of the hand.

Everything draws from the random.Random that it is given, so a seed repeats it.
"""

DIGITS = "영일이삼사오육칠팔구"
NATIVE = ["", "한", "두", "세", "네", "다섯", "여섯", "일곱", "여덟", "아홉"]
NATIVE_TENS = ["", "열", "스물", "서른", "마흔", "쉰", "예순", "일흔", "여든", "아흔"]


def sino(n):
    """Sino-Korean, as with metres, degrees and minutes: 105 -> 백오."""
    if n == 0:
        return "영"
    out = ""
    for size, name in ((1000, "천"), (100, "백"), (10, "십"), (1, "")):
        digit, n = divmod(n, size)
        if digit:
            out += ("" if digit == 1 and name else DIGITS[digit]) + name
    return out


def native(n):
    """Native Korean before a counter, 1 to 99: 20 -> 스무, 21 -> 스물한."""
    if n == 20:
        return "스무"
    return NATIVE_TENS[n // 10] + NATIVE[n % 10]


def decimal(x):
    """2.5 -> 이점오."""
    whole, _, part = f"{x:g}".partition(".")
    words = sino(int(whole))
    return words + ("점" + "".join(DIGITS[int(d)] for d in part) if part else "")


def batchim(word):
    """0: it ends in a vowel; 8: in ㄹ; else in another consonant."""
    c = word[-1] if word else "가"
    if "가" <= c <= "힣":
        return (ord(c) - 0xAC00) % 28
    if c.isdigit():     # read aloud: 영일이삼사오육칠팔구
        return (21, 8, 0, 16, 0, 0, 1, 8, 8, 0)[int(c)]
    return 8 if c in "lrLR" else 0 if c not in "mnkptMNKPT" else 16


def josa(word, pair):
    """The particle that fits: josa("불", "을/를") -> 불을."""
    with_final, without = pair.split("/")
    final = batchim(word)
    if pair == "으로/로" and final == 8:
        final = 0
    return word + (with_final if final else without)


# A request: what stands before the ending, the stem with 아/어. Families of
# endings, from blunt to polite; those of a region are asked for by name.
ENDINGS = {
    "blunt": ["", "라", " 봐", "봐"],
    "casual": [" 줘", "줘", " 줄래", "줄래?", " 줄 수 있어?", " 주라", "주라"],
    "polite": [" 줘요", "줘요", " 주세요", "주세요", " 주실래요?", "주실래요",
               " 주시겠어요?", " 줄래요?", " 주십시오", "요"],
    "gyeongsang": [" 도", "도", " 주이소", "주이소", " 줄래예?", " 주소"],
    "jeolla": [" 부러", "주랑께", " 주쇼잉", "봐잉"],
    "chungcheong": [" 줘유", "줘유", " 주셔유", "봐유"],
    "jeju": [" 줍서", "줍서"],
}
LEVELS = (["casual"] * 9 + ["polite"] * 9 + ["blunt"] * 3
          + ["gyeongsang", "jeolla", "chungcheong", "jeju"])


def ask(rng, stem, level=None):
    """A stem with 아/어 as a request: 켜 -> 켜 줄래?"""
    return stem + rng.choice(ENDINGS[level or rng.choice(LEVELS)])


# ---- slips ----

LEADS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
NEAR_LEAD = {"ㄱ": "ㅋㄲ", "ㄷ": "ㄸㅌㅈ", "ㅂ": "ㅃㅈ", "ㅅ": "ㅆㄱ",
             "ㅈ": "ㅊㄷ", "ㄴ": "ㅁㅇ", "ㅇ": "ㄴㄹ", "ㅎ": "ㄹㅗ"}
NEAR_VOWEL = {"ㅐ": "ㅔ", "ㅔ": "ㅐ", "ㅗ": "ㅓ", "ㅓ": "ㅗㅏ", "ㅏ": "ㅓㅣ",
              "ㅚ": "ㅙㅞ", "ㅙ": "ㅚ", "ㅜ": "ㅠ", "ㅡ": "ㅜ", "ㅕ": "ㅓ"}


def slip_letter(rng, c):
    """One letter of a syllable as a neighbouring key or a like sound."""
    lead, rest = divmod(ord(c) - 0xAC00, 588)
    vowel, final = divmod(rest, 28)
    kind = rng.randrange(3)
    if kind == 0 and LEADS[lead] in NEAR_LEAD:
        to = rng.choice(NEAR_LEAD[LEADS[lead]])
        lead = LEADS.index(to) if to in LEADS else lead
    elif kind == 1 and VOWELS[vowel] in NEAR_VOWEL:
        vowel = VOWELS.index(rng.choice(NEAR_VOWEL[VOWELS[vowel]]))
    elif final:
        final = {20: 19, 19: 20}.get(final, 0 if rng.random() < .3 else final)
    return chr(0xAC00 + lead * 588 + vowel * 28 + final)


def slips(rng, text, keep=()):
    """A text as people type it in a hurry. What is in `keep` stays whole."""
    fixed = set()
    for word in keep:
        at = text.find(word)
        if word and at >= 0:
            fixed.update(range(at, at + len(word)))
    out = []
    for i, c in enumerate(text):
        roll = rng.random()
        if c == " " and roll < .15 and i not in fixed:
            continue
        if "가" <= c <= "힣" and i not in fixed and roll < .04:
            c = slip_letter(rng, c)
        out.append(c)
        if c in "요줘" and roll > .98:
            out.append(c if rng.random() < .3 else "ㅛ")
    return "".join(out)


def spoken(rng, text):
    """The same request as it is spoken: fillers, marks, a name called."""
    if rng.random() < .12:
        text = rng.choice(["음 ", "어 ", "저기 ", "저기요 ", "자 ", "아 "]) + text
    if rng.random() < .12:
        text = rng.choice(["온새야 ", "온새야, ", "야 ", "로봇아 ", "헤이 온새 "]) + text
    if not text.endswith(("?", "!", ".")) and rng.random() < .35:
        text += rng.choice([".", ".", "!", "~", ".."])
    if rng.random() < .05:
        text += rng.choice([" 빨리", " 지금", " 얼른", " 부탁해", " 제발"])
    return text
