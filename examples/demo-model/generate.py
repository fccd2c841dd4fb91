"""Conversations of a home robot and of a car, as lines of JSON.

    generate.py --count 1000 --seed 1 [--held-out]

A line is {"tools": [names], "turns": [{"user", "say", "call"}]}: what the
person says, the sentence that answers, and the action (or null). A third of
all requests is followed by one that leans on it ("거기 불도", "한 번 더",
"아니 부엌"). Half of all names in training are invented: so names are repeated,
not recognised.

What a program can hold out to be tested by, it does: a request is known by its
intent, its phrasing and its values; one in 40 of all such triples, some places
and destinations, and some numbers come with --held-out only, and only they do.
"""
import argparse
import json
import pathlib
import random
import zlib

from korean import ask, decimal, josa, native, sino, slips, spoken

TOOLS = [t["function"]["name"] for t in json.loads(
    (pathlib.Path(__file__).parent / "tools.json").read_text())]

ROOMS = ["거실", "부엌", "안방", "침실", "서재", "화장실", "욕실", "현관", "베란다",
         "아이방", "옷방", "다락방", "창고", "복도", "식당", "작은방", "공부방",
         "세탁실", "발코니", "주방", "지하실", "차고", "마당", "놀이방", "큰방"]
CITY = ["서울", "부산", "대구", "인천", "광주", "대전", "울산", "세종", "수원", "춘천",
        "강릉", "청주", "전주", "여수", "목포", "경주", "포항", "창원", "제주", "속초",
        "안동", "군산", "순천", "통영", "진주", "평택", "김포", "파주", "의정부", "천안"]
SPOT = ["역", "터미널", "시청", "공항", "병원", "도서관", "박물관", "시장", "대학교", "항",
        "경찰서", "우체국", "버스정류장", "휴게소", "주유소", "경기장", "미술관", "해수욕장"]
NEAR = ["집", "회사", "학교", "가장 가까운 주유소", "가까운 편의점", "할머니 댁", "친구 집",
        "마트", "어린이집", "가까운 충전소", "약국", "근처 카페", "주차장", "유치원", "사무실"]
SINGERS = ["아이유", "조용필", "이문세", "김광석", "나훈아", "이선희", "잔나비", "혁오",
           "장범준", "심수봉", "들국화", "산울림", "신해철", "서태지", "양희은", "송창식",
           "버스커버스커", "볼빨간사춘기", "악뮤", "십센치", "윤하", "박효신", "성시경"]
KINDS = ["재즈", "클래식", "발라드", "트로트", "동요", "잔잔한 노래", "신나는 노래",
         "피아노 음악", "가을 노래", "팝송", "자장가", "국악", "비 오는 날 노래", "캐럴",
         "운동할 때 듣는 노래", "옛날 노래", "힙합", "록 음악", "영화 음악"]
ERRANDS = ["약 먹기", "회의", "빨래 널기", "전화하기", "아이 데리러 가기", "운동", "장 보기",
           "쓰레기 버리기", "물 주기", "우유 사기", "병원 가기", "숙제", "저녁 준비", "산책",
           "은행 가기", "택배 받기", "보고서 보내기", "설거지", "생일 축하하기", "책 반납"]
CANNOT = ["커피 타기", "빨래", "설거지", "요리", "하늘 날기", "노래 부르기", "아이 숙제",
          "장 보기", "택배 보내기", "머리 자르기", "강아지 산책", "청소", "피자 주문",
          "비행기 예약", "돈 보내기", "문 잠그기", "세차", "운전", "춤", "그림 그리기"]

SEATS = {"driver": ["운전석", "내 쪽", "내 자리", "운전자 쪽"],
         "passenger": ["조수석", "옆자리", "보조석", "동승석"],
         "rear_left": ["왼쪽 뒷자리", "뒷좌석 왼쪽", "왼쪽 뒤"],
         "rear_right": ["오른쪽 뒷자리", "뒷좌석 오른쪽", "오른쪽 뒤"],
         "all": ["전체", "모든 자리", "전부", "다"]}
SEAT_SAID = {"driver": "운전석", "passenger": "조수석", "rear_left": "왼쪽 뒷좌석",
             "rear_right": "오른쪽 뒷좌석", "all": "모든 좌석"}
WAYS = {"forward": (["앞으로", "앞쪽으로", "전방으로", "앞"], "앞으로"),
        "backward": (["뒤로", "뒤쪽으로", "후방으로", "뒤"], "뒤로"),
        "left": (["왼쪽으로", "좌측으로", "왼편으로"], "왼쪽으로"),
        "right": (["오른쪽으로", "우측으로", "오른편으로"], "오른쪽으로")}
STATUS = {
    "battery": (["배터리 얼마나 남았어", "배터리 몇 퍼센트야", "충전 얼마나 됐어",
                 "배터리 괜찮아", "전원 얼마나 남았지"], "배터리를"),
    "position": (["지금 어디야", "너 어디 있어", "현재 위치 알려 줘", "여기가 어디지",
                  "위치 좀 알려 줘"], "위치를"),
    "fuel": (["기름 얼마나 남았어", "연료 충분해", "기름 넣어야 돼", "연료 상태 알려 줘",
              "얼마나 더 달릴 수 있어"], "연료를"),
    "time": (["지금 몇 시야", "몇 시지", "시간 좀 알려 줘", "지금 시각이 어떻게 돼"],
             "시각을"),
    "weather": (["오늘 날씨 어때", "비 와", "밖에 추워", "날씨 좀 알려 줘",
                 "우산 챙겨야 돼"], "날씨를"),
    "temperature": (["지금 몇 도야", "실내 온도 알려 줘", "집 안이 몇 도지",
                     "온도가 어떻게 돼"], "온도를"),
    "schedule": (["오늘 일정 알려 줘", "오늘 뭐 있어", "다음 약속이 뭐야",
                  "일정 좀 읽어 줘", "내일 일정 있어"], "일정을"),
}
TALK = [
    (["안녕", "안녕하세요", "반가워", "좋은 아침", "하이"], "안녕하세요, 무엇을 도와드릴까요?"),
    (["고마워", "고맙습니다", "땡큐", "감사해요", "수고했어"], "천만에요, 언제든 불러 주세요."),
    (["이름이 뭐야", "너 누구야", "넌 이름이 뭐니"], "저는 온새예요."),
    (["뭐 할 수 있어", "무슨 일 해", "할 줄 아는 게 뭐야"],
     "움직이기, 조명, 온도, 창문, 음악, 길 안내, 알림을 도와드려요."),
    (["잘했어", "똑똑하네", "최고야", "착하다"], "고마워요, 더 잘할게요."),
    (["심심해", "재미있는 얘기 해 줘", "농담해 봐"], "저는 배터리가 닳을 때 제일 진지해져요."),
    (["나 왔어", "다녀왔어", "집에 왔다"], "어서 오세요, 오늘도 고생하셨어요."),
    (["잘 자", "굿나잇", "나 잘게"], "안녕히 주무세요."),
    (["힘들다", "피곤해", "오늘 너무 지쳤어"], "오늘 많이 힘드셨군요. 조금 쉬세요."),
    (["사랑해", "네가 좋아"], "저도 함께 있어서 좋아요."),
    (["배고파", "출출하다"], "맛있는 걸 드셔야겠어요."),
    (["몇 살이야", "나이가 어떻게 돼"], "저는 나이가 없어요. 늘 새것 같은 마음이에요."),
]


class Held:
    """Which of all requests are held out; the same for every seed."""

    def __init__(self, wanted):
        self.wanted = wanted

    @staticmethod
    def _hash(text):
        return zlib.crc32(text.encode())

    def value(self, v):     # a name that training never sees
        return self._hash(f"value {v}") % 12 == 0

    def triple(self, intent, phrasing, call):
        what = json.dumps(call, ensure_ascii=False, sort_keys=True)
        return self._hash(f"{intent}|{phrasing}|{what}") % 40 == 0


# The syllables that names are made of: those of the lists, and now and then any
# of the 2,350 that KS X 1001 has.
COMMON = sorted({c for w in ROOMS + CITY + SPOT + NEAR + SINGERS + KINDS + ERRANDS
                 + CANNOT for c in w if c != " "})
ANY = [bytes((a, b)).decode("euc_kr") for a in range(0xB0, 0xC9) for b in range(0xA1, 0xFF)]


PARTICLES = "을를은는이가으로에쪽의도만좀라"


def invent(rng):
    """A name that nobody has heard: what is not known has to be repeated letter
    by letter, and is learned from such names alone. None ends in what may be a
    particle of a shorter name."""
    while True:
        name = " ".join(
            "".join(rng.choice(COMMON if rng.random() < .8 else ANY)
                    for _ in range(rng.choice([1, 2, 2, 3, 3, 4])))
            for _ in range(rng.choice([1, 1, 1, 2])))
        if name[-1] not in PARTICLES:
            return name


def pick(rng, words, held):
    """A word of an open list; in training often an invented one, with --held-out
    often one that training lacks."""
    if held.wanted:
        new = [w for w in words if held.value(w)]
        if new and rng.random() < .4:
            return rng.choice(new)
    elif rng.random() < .5:
        return next(w for w in iter(lambda: invent(rng), 0) if not held.value(w))
    return rng.choice([w for w in words if not held.value(w)])


def fill(rng, phrasings, **values):
    """A phrasing by its number, filled: (number, text)."""
    i = rng.randrange(len(phrasings))
    return i, phrasings[i].format(**values)


def drop(rng, word, pair):
    """A word with its particle, which speech drops half of the time."""
    return word if rng.random() < .5 else josa(word, pair)


def whole(x):
    return int(x) if float(x).is_integer() else x


# ---- the requests: each gives (phrasing, what is said, answer, call, keep) ----

def move(rng, held):
    way = rng.choice(list(WAYS))
    meters = rng.choice([rng.randint(1, 20), rng.randint(1, 10), rng.randint(1, 5),
                         rng.randint(1, 20) / 2, rng.randint(1, 9) / 10, rng.randint(11, 49) / 10])
    said = rng.choice(WAYS[way][0])
    if rng.random() < .45:
        long = f"{meters:g}" + rng.choice(["미터", " 미터", "m", "미터만"])
    elif meters < 1 and rng.random() < .7:
        long = sino(round(meters * 100)) + rng.choice([" 센티", " 센티미터", "센티"])
    elif meters % 1 == .5 and meters > 1 and rng.random() < .7:
        long = sino(int(meters)) + rng.choice([" 미터 반", "미터 반"])
    else:
        long = decimal(meters) + rng.choice([" 미터", "미터", " 미터만"])
    i, stem = fill(rng, ["{w} {n} 가", "{n} {w} 가", "{w} {n} 움직여", "{w} {n} 이동해",
                         "{n} {w} 이동해", "{w} {n}만 더 가", "{w} {n} 정도 가", "{w}{n} 가"],
                   w=said, n=long)
    say = josa(f"네, {WAYS[way][1]} {meters:g}미터", "을/를")[:-1] + " 갈게요."
    return i, ask(rng, stem), say, ("move", {"direction": way, "meters": whole(meters)}), (long,)


def turn(rng, held):
    way = rng.choice(["left", "right"])
    said = rng.choice(WAYS[way][0])
    degrees, long = rng.choice([(180, "반 바퀴"), (360, "한 바퀴"), (720, "두 바퀴"),
                                (1080, "세 바퀴"), (90, "직각으로"), (540, "한 바퀴 반")])
    if rng.random() < .7:
        degrees = rng.choice([rng.randint(1, 36) * 10, rng.randint(1, 24) * 15, rng.randint(1, 359)])
        long = rng.choice([f"{degrees}도", f"{degrees} 도", sino(degrees) + " 도", sino(degrees) + "도"])
    i, stem = fill(rng, ["{w} {n} 돌아", "{n} {w} 돌아", "{w} {n} 회전해", "{n}만 {w} 돌아",
                         "제자리에서 {w} {n} 돌아", "{w} {n} 틀어", "몸을 {w} {n} 돌려"], w=said, n=long)
    say = f"네, {WAYS[way][1]} {degrees}도 돌게요."
    return i, ask(rng, stem), say, ("turn", {"direction": way, "degrees": degrees}), (long,)


def stop(rng, held):
    i, when = fill(rng, ["", "", "", "당장 ", "거기 ", "잠깐 ", "제자리에 ", "이제 ", "바로 "])
    j, said = fill(rng, ["멈춰", "정지", "그만", "서", "스톱", "스탑", "움직이지 마", "멈추라고", "그만 가",
                         "가지 마", "멈춰 서", "정지해", "그만 움직여", "동작 그만", "중지", "서라", "멈춰라",
                         "멈춰 줘", "멈춰 주세요", "서 줘", "그만해", "멈춰요", "정지해 줘"])
    return f"{i} {j}", when + said, "네, 멈출게요.", ("stop", {}), ()


def speed(rng, held):
    level = rng.choice(["slow", "normal", "fast"])
    words = {"slow": ["천천히", "느리게", "조심조심", "더 천천히"], "normal": ["보통으로", "원래대로", "적당히"],
             "fast": ["빨리", "빠르게", "더 빨리", "서둘러"]}[level]
    j, word = fill(rng, words)
    i, stem = fill(rng, ["{w} 가", "{w} 움직여", "{w} 다녀", "속도를 {w} 해", "좀 {w} 가", "{w} 다녀와",
                         "{w} 이동해", "이제 {w} 가"], w=word)
    say = {"slow": "네, 천천히 갈게요.", "normal": "네, 보통 빠르기로 갈게요.", "fast": "네, 빠르게 갈게요."}[level]
    return f"{i} {j}", ask(rng, stem), say, ("speed", {"level": level}), ()


def go_to(rng, held):
    room = pick(rng, ROOMS, held)
    i, stem = fill(rng, ["{r} 가", "{r} 와", "{r} 이동해", "{r} 좀 가", "지금 {r} 가", "{r} 가서 기다려"],
                   r=rng.choice([josa(room, "으로/로"), room + "에", room + " 쪽으로"]))
    return i, ask(rng, stem), f"네, {josa(room, '으로/로')} 갈게요.", ("go_to", {"place": room}), (room,)


def light_words(rng, percent):
    if percent == 0:
        return rng.choice(["꺼", "꺼", "좀 꺼", "다 꺼"]), "끌게요"
    if percent == 100:
        return rng.choice(["켜", "켜", "좀 켜", "환하게 켜", "최대로 켜"]), "켤게요"
    if percent == 50 and rng.random() < .5:
        return rng.choice(["반만 켜", "절반으로 줄여", "반으로 해"]), "50퍼센트로 맞출게요"
    n = rng.choice([f"{percent}퍼센트로", f"{percent}%로", sino(percent) + " 퍼센트로", sino(percent) + "프로로"])
    return n + rng.choice([" 맞춰", " 해", " 바꿔", " 켜"]), f"{percent}퍼센트로 맞출게요"


def light(rng, held):
    room = pick(rng, ROOMS, held)
    percent = rng.choice([0, 0, 100, 100, 50, rng.randint(1, 19) * 5, rng.randint(1, 99)])
    does, will = light_words(rng, percent)
    thing = rng.choice(["불", "불", "조명", "등", "전등"])
    i, stem = fill(rng, ["{r} {t} {d}", "{r}에 {t} {d}", "{r} {t} 좀 {d}", "{r}에 있는 {t} {d}"],
                   r=room, t=drop(rng, thing, "을/를"), d=does)
    return i, ask(rng, stem), f"네, {room} 불을 {will}.", ("light", {"room": room, "percent": percent}), (room,)


def temperature(rng, held):
    c = rng.choice([rng.randint(16, 30), rng.randint(16, 30), rng.randint(10, 35), rng.randint(34, 56) / 2])
    n = rng.choice([f"{c:g}도", f"{c:g} 도", decimal(c) + " 도", decimal(c) + "도"])
    if c % 1 and rng.random() < .5:
        n = sino(int(c)) + rng.choice([" 도 반", "도 반"])
    thing = rng.choice(["온도", "에어컨", "히터", "난방", "보일러", "실내 온도"])
    i, stem = fill(rng, ["{t} {n} 맞춰", "{t} {n} 해", "{n} 맞춰", "{t} {n} 설정해", "{t} 좀 {n} 올려", "{t} {n} 틀어"],
                   t=drop(rng, thing, "을/를"), n=n + "로")
    return i, ask(rng, stem), f"네, 온도를 {c:g}도로 맞출게요.", ("temperature", {"celsius": whole(c)}), (n,)


def window(rng, held):
    seat = rng.choice(list(SEATS))
    said = rng.choice(SEATS[seat])
    percent = rng.choice([0, 0, 100, 100, 50, rng.randint(1, 9) * 10])
    if percent == 0:
        does, will = rng.choice(["닫아", "올려", "꼭 닫아"]), "닫을게요"
    elif percent == 100:
        does, will = rng.choice(["열어", "내려", "활짝 열어", "끝까지 내려"]), "열게요"
    elif percent == 50:
        does, will = rng.choice(["반만 열어", "절반만 내려", "반쯤 열어"]), "50퍼센트 열게요"
    else:
        n = rng.choice([f"{percent}퍼센트", f"{percent}%", sino(percent) + " 퍼센트", sino(percent) + "프로"])
        does, will = n + rng.choice(["만 열어", " 열어", "만 내려"]), f"{percent}퍼센트 열게요"
    thing = drop(rng, rng.choice(["창문", "창문", "창", "유리창"]), "을/를")
    i, stem = fill(rng, ["{s} {t} {d}", "{s} {t} 좀 {d}", "{t} {s} {d}"], s=said, t=thing, d=does)
    return i, ask(rng, stem), f"네, {SEAT_SAID[seat]} 창문을 {will}.", ("window", {"seat": seat, "percent": percent}), ()


def seat_heater(rng, held):
    seat = rng.choice(["driver", "passenger", "all"])
    said, level = rng.choice(SEATS[seat]), rng.randint(0, 3)
    words = {0: ["꺼", "끄고 있어", "좀 꺼"], 1: ["1단으로 켜", "일 단으로 해", "약하게 켜", "한 단계로 켜"],
             2: ["2단으로 켜", "이 단으로 해", "중간으로 켜", "두 단계로 해"],
             3: ["3단으로 켜", "삼 단으로 해", "제일 세게 켜", "최대로 틀어"]}[level]
    thing = drop(rng, rng.choice(["열선", "시트 열선", "엉뜨", "좌석 히터", "열선시트"]), "을/를")
    i, stem = fill(rng, ["{s} {t} {d}", "{s} {t} 좀 {d}", "{t} {s} {d}"], s=said, t=thing, d=rng.choice(words))
    will = f"{level}단으로 켤게요" if level else "끌게요"
    return i, ask(rng, stem), f"네, {SEAT_SAID[seat]} 열선을 {will}.", ("seat_heater", {"seat": seat, "level": level}), ()


def music(rng, held):
    action = rng.choice(["play"] * 5 + ["pause", "next", "previous"])
    if action != "play":
        words, say = {
            "pause": (["음악 꺼", "노래 멈춰", "음악 그만 틀어", "노래 좀 꺼", "잠깐 음악 멈춰", "재생 정지해"], "네, 음악을 멈출게요."),
            "next": (["다음 곡 틀어", "다음 노래 틀어", "이 노래 넘겨", "다음 걸로 넘겨", "다른 노래 틀어"], "네, 다음 곡을 틀게요."),
            "previous": (["이전 곡 틀어", "아까 그 노래 다시 틀어", "앞의 노래로 돌려", "이전 노래 틀어"], "네, 이전 곡을 틀게요."),
        }[action]
        i, stem = fill(rng, words)
        return i + 20, ask(rng, stem), say, ("music", {"action": action}), ()
    if rng.random() < .55:
        query = pick(rng, SINGERS, held) + rng.choice([" 노래", " 노래", ""])
    else:
        query = pick(rng, KINDS, held)
    i, stem = fill(rng, ["{q} 틀어", "{q} 좀 틀어", "{q} 들려", "{q} 하나 틀어", "{q} 재생해"], q=drop(rng, query, "을/를"))
    say = f"네, {josa(query, '을/를')} 틀게요."
    return i, ask(rng, stem), say, ("music", {"action": "play", "query": query}), (query,)


def volume(rng, held):
    p, n = rng.choice([0, 100, 50, rng.randint(1, 19) * 5, rng.randint(1, 99)]), ""
    if p == 0:
        stem, i = rng.choice(["소리 꺼", "음소거 해", "소리 없애", "무음으로 해"]), 20
    elif p == 100:
        stem, i = rng.choice(["소리 최대로 올려", "볼륨 끝까지 올려", "소리 제일 크게 해"]), 21
    elif p == 50 and rng.random() < .4:
        stem, i = rng.choice(["소리 반으로 줄여", "볼륨 절반으로 해"]), 22
    else:
        n = rng.choice([f"{p}", f"{p}퍼센트", f"{p}%", sino(p), sino(p) + " 퍼센트"])
        i, stem = fill(rng, ["{t} {n} 맞춰", "{t} {n} 해", "{t} {n} 올려", "{t} {n} 줄여", "{n} {t} 맞춰"],
                       t=drop(rng, rng.choice(["소리", "볼륨", "음량"]), "을/를"), n=josa(n, "으로/로").replace("%으로", "%로"))
    say = "네, 소리를 끌게요." if p == 0 else f"네, 소리를 {p}퍼센트로 맞출게요."
    return i, ask(rng, stem), say, ("volume", {"percent": p}), (n,)


def navigate(rng, held):
    if rng.random() < .35:
        to = pick(rng, NEAR, held)
    else:
        to = pick(rng, CITY, held) + pick(rng, SPOT, held)
        if rng.random() < .25:
            to = to[:2] + " " + to[2:]
    i, stem = fill(rng, ["{r} 안내해", "{r} 가는 길 알려", "{r} 가자고 해", "{r} 길 안내해", "{r} 가고 싶으니 안내해",
                         "내비 {r} 찍어", "목적지를 {r} 해", "{r} 데려다"], r=josa(to, "으로/로"))
    return i, ask(rng, stem), f"네, {josa(to, '으로/로')} 안내할게요.", ("navigate", {"destination": to}), (to,)


def clock(rng):
    """A time of day: (what is said, "HH:MM", how the answer says it)."""
    hour, minute = rng.randint(1, 12), rng.choice([0, 0, 30, rng.randint(1, 11) * 5, rng.randint(1, 59)])
    part = rng.choice(["오전", "오후", "아침", "저녁", "밤", "새벽"])
    low, high, late = {"오전": (1, 11, 0), "오후": (1, 11, 12), "아침": (6, 10, 0), "저녁": (5, 9, 12),
                       "밤": (8, 11, 12), "새벽": (1, 5, 0)}[part]
    hour = min(max(hour, low), high)
    m = "" if not minute else rng.choice([" 반"] if minute == 30 and rng.random() < .7
                                         else [f" {minute}분", " " + sino(minute) + " 분"])
    said = part + " " + rng.choice([f"{hour}시", native(hour) + " 시", native(hour) + "시"]) + m
    return said, f"{hour + late:02}:{minute:02}", f"{part} {hour}시" + (f" {minute}분" if minute else "")


def remind(rng, held):
    said, at, shown = clock(rng)
    what = pick(rng, ERRANDS, held)
    i, stem = fill(rng, ["{t}에 {w} 알려", "{t}에 {w} 알림 맞춰", "{t}에 {q} 말해", "{w} {t}에 알려",
                         "{t}에 {w} 잊지 않게 해", "{t} {w} 일정 넣어"],
                   t=said, w=what, q=josa(what, "이라고/라고"))
    return i, ask(rng, stem), f"네, {shown}에 {josa(what, '을/를')} 알려 드릴게요.", ("remind", {"time": at, "text": what}), (what, said)


def timer(rng, held):
    unit, key = rng.choice([("초", "seconds"), ("분", "minutes"), ("분", "minutes"), ("분", "minutes"), ("시간", "hours")])
    n = rng.randint(1, 12 if unit == "시간" else 90)
    said = rng.choice([f"{n}{unit}", f"{n} {unit}", (native(n) if unit == "시간" else sino(n)) + " " + unit])
    call, shown = {key: n}, f"{n}{unit}"
    if unit != "초" and rng.random() < .15:
        said, shown = said + " 반", shown + " 반"
        call["seconds" if unit == "분" else "minutes"] = 30
    i, stem = fill(rng, ["{t} 타이머 맞춰", "{t} 뒤에 알려", "타이머 {t} 해", "{t} 후에 깨워", "{t}만 재", "타이머 {t}로 맞춰"], t=said)
    return i, ask(rng, stem), f"네, {shown} 타이머를 맞출게요.", ("timer", call), (said,)


def status(rng, held):
    of = rng.choice(list(STATUS))
    i, said = fill(rng, STATUS[of][0])
    end = rng.choice(["", "요"] if said.endswith("줘") else ["", "", "?", "요?"])
    return f"{i} {end}", said + end, f"네, {STATUS[of][1]} 확인할게요.", ("status", {"of": of}), ()


INTENTS = {f.__name__: f for f in (
    move, turn, stop, speed, go_to, light, temperature, window, seat_heater,
    music, volume, navigate, remind, timer, status)}
WEIGHTS = {"move": 3, "turn": 3, "light": 3, "window": 2, "music": 2, "navigate": 2,
           "remind": 3, "timer": 2, "temperature": 2, "volume": 2, "go_to": 2}


def talk(rng):
    said, say = rng.choice(TALK)
    return rng.choice(said) + rng.choice(["", "", "!"]), say


def refuse(rng, held):
    """What no tool can do."""
    what = pick(rng, CANNOT, held)
    said = rng.choice([josa(what, "을/를") + " 해 줘", what + " 해 줄래?", what + " 부탁해", what + " 좀 해 주세요",
                       what + " 할 수 있어?", josa(what, "을/를") + " 해 봐"])
    return said, f"죄송해요, {josa(what, '은/는')} 제가 할 수 없어요.", what


NO_TOOL = {"move": "움직일 수", "turn": "돌 수", "go_to": "그곳에 갈 수", "light": "조명을 바꿀 수",
           "temperature": "온도를 바꿀 수", "window": "창문을 움직일 수", "seat_heater": "열선을 켤 수",
           "music": "음악을 틀 수", "volume": "소리를 바꿀 수", "navigate": "길을 안내할 수",
           "remind": "알림을 맞출 수", "timer": "타이머를 맞출 수", "status": "상태를 알 수",
           "speed": "빠르기를 바꿀 수", "stop": "멈출 수"}


def first(rng, held):
    """A request that stands alone; None when it is of the other set."""
    name = rng.choices(list(INTENTS), [WEIGHTS.get(n, 1) for n in INTENTS])[0]
    i, said, say, call, keep = INTENTS[name](rng, held)
    values = [v for v in call[1].values() if isinstance(v, str)]
    out = held.triple(name, i, call) or any(
        held.value(w) for w in keep if w) or (
        name == "navigate" and any(held.value(w) for w in CITY + SPOT if w in values[0]))
    if out != held.wanted:
        return None
    return said, say, call, keep


def again(rng, held, call, say):
    """A second request that leans on the first: (said, say, call) or None."""
    name, a = call
    if name in ("move", "turn") and rng.random() < .5:
        return rng.choice(["한 번 더", "다시 한 번", "한 번만 더 해 줘", "또 해 줘", "그만큼 더"]), say, call
    if name == "move":
        back = {"forward": "backward", "backward": "forward", "left": "right", "right": "left"}[a["direction"]]
        return (rng.choice(["다시 돌아와", "원래 자리로", "아까 자리로 돌아가 줘", "되돌아와 줘"]),
                f"네, {WAYS[back][1]} {a['meters']:g}미터 갈게요.", ("move", {"direction": back, "meters": a["meters"]}))
    if name == "light":
        if rng.random() < .5:
            room = pick(rng, ROOMS, held)
            does = "끌게요" if a["percent"] == 0 else "켤게요" if a["percent"] == 100 else f"{a['percent']}퍼센트로 맞출게요"
            return (rng.choice([f"{room}도", f"{room}도 그렇게 해 줘", f"아니 {room}", f"{room}도 똑같이"]),
                    f"네, {room} 불을 {does}.", ("light", {"room": room, "percent": a["percent"]}))
        p = 0 if a["percent"] else 100
        return (rng.choice(["다시 꺼 줘", "그거 꺼", "도로 꺼 줄래?", "거기 불 꺼"] if p == 0
                           else ["다시 켜 줘", "그거 켜", "도로 켜 줄래?", "거기 불 켜"]),
                f"네, {a['room']} 불을 {'켤' if p else '끌'}게요.", ("light", {"room": a["room"], "percent": p}))
    if name == "go_to":
        p = rng.choice([0, 100])
        return (rng.choice(["거기 불도 켜 줘", "거기 불 좀 켜", "그 방 불 켜 줄래?"] if p
                           else ["거기 불도 꺼 줘", "거기 불 좀 꺼", "그 방 불 꺼 줄래?"]),
                f"네, {a['place']} 불을 {'켤' if p else '끌'}게요.", ("light", {"room": a["place"], "percent": p}))
    if name in ("temperature", "volume"):
        key, lo, hi = {"temperature": ("celsius", 10, 35), "volume": ("percent", 0, 100)}[name]
        d = rng.choice([1, 2, 3] if name == "temperature" else [10, 20])
        up = rng.random() < .5
        v = a[key] + (d if up else -d)
        if not lo <= v <= hi or (name == "volume" and v == 0):
            return None
        unit = "도" if name == "temperature" else ""
        n = rng.choice([f"{d}{unit}", sino(d) + (" " + unit if unit else "")])
        said = n + rng.choice(["만 더 올려 줘", " 올려 줘", " 더 높여 줄래?"] if up else ["만 내려 줘", " 낮춰 줘", " 줄여 줄래?"])
        thing = "온도를" if name == "temperature" else "소리를"
        end = "도로" if name == "temperature" else "퍼센트로"
        return said, f"네, {thing} {v:g}{end} 맞출게요.", (name, {key: whole(v)})
    if name == "window":
        p = 0 if a["percent"] else 100
        return (rng.choice(["다시 닫아 줘", "이제 닫아", "도로 올려 줄래?"] if p == 0 else ["다시 열어 줘", "이제 열어", "도로 내려 줄래?"]),
                f"네, {SEAT_SAID[a['seat']]} 창문을 {'열' if p else '닫을'}게요.", ("window", {"seat": a["seat"], "percent": p}))
    if name == "navigate":
        to = pick(rng, NEAR, held)
        return (rng.choice([f"아니 {josa(to, '으로/로')}", f"{to} 먼저 들르자", f"그 전에 {josa(to, '으로/로')} 가 줘"]),
                f"네, {josa(to, '으로/로')} 안내할게요.", ("navigate", {"destination": to}))
    if name == "music" and a["action"] == "play":
        return rng.choice(["다음 곡", "이거 말고 다음 거", "넘겨 줘"]), "네, 다음 곡을 틀게요.", ("music", {"action": "next"})
    return None


def utter(rng, said, keep):
    if rng.random() < .3:
        said = slips(rng, said, keep)
    return spoken(rng, said)


def entry(user, say, call=None):
    return {"user": user, "say": say,
            "call": call and {"name": call[0], "arguments": call[1]}}


def exchange(rng, held, tools):
    """One to three turns about one thing; None when the draw is of the other set,
    or of a tool that is not there."""
    roll, turns = rng.random(), []
    if roll < .06 and not held.wanted or roll < .02:
        turns.append(entry(utter(rng, *(lambda t: (t[0], ()))(t := talk(rng))), t[1]))
    elif roll < .12:
        said, say, what = refuse(rng, held)
        if held.value(what) != held.wanted:
            return None
        turns.append(entry(utter(rng, said, (what,)), say))
    drawn = first(rng, held)
    if drawn is None:
        return None
    said, say, call, keep = drawn
    if call[0] not in tools:
        turns.append(entry(utter(rng, said, keep), f"죄송해요, 지금은 {NO_TOOL[call[0]]} 없어요."))
        return turns
    turns.append(entry(utter(rng, said, keep), say, call))
    more = again(rng, held, call, say) if rng.random() < .4 else None
    if more and more[2][0] in tools and len(turns) < 3:
        words = tuple(v for v in more[2][1].values() if isinstance(v, str) and v in more[0])
        turns.append(entry(utter(rng, more[0], words), more[1], more[2]))
    return turns


def conversation(rng, held):
    """One line: the tools that there are, and what is said."""
    tools = rng.sample(TOOLS, rng.randint(5, len(TOOLS))) if rng.random() < .5 else list(TOOLS)
    turns = []
    for _ in range(rng.choice([1, 2, 2, 3, 4, 5, 7])):
        turns += next(filter(None, iter(lambda: exchange(rng, held, tools), 0)))
    return {"tools": tools, "turns": turns}


def conversations(seed, held_out=False):
    """Without end."""
    rng, held = random.Random(seed), Held(held_out)
    while True:
        yield conversation(rng, held)


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("--count", type=int, default=20)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--held-out", action="store_true")
    a = args.parse_args()
    for _, line in zip(range(a.count), conversations(a.seed, a.held_out)):
        print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
