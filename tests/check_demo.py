"""What the demo model is trained on, and tested with: examples/demo-model.

Prints `N passed, N failed`. Python's own library is enough.
"""
import itertools
import pathlib
import sys

HERE = pathlib.Path(__file__).parent.parent / "examples" / "demo-model"
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
import evaluate     # noqa: E402
import generate     # noqa: E402
import korean       # noqa: E402

SCHEMAS, valid = evaluate.SCHEMAS, evaluate.valid
passed = failed = 0


def check(what, ok):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAILED", what)


def lines(n, seed, held_out=False):
    return list(itertools.islice(generate.conversations(seed, held_out), n))


def turns(made):
    return [t for line in made for t in line["turns"]]


def check_rules(made):
    """How evaluate.py judges an answer."""
    check("a true sentence is right", all(
        evaluate.sentence_right(t["say"], t["say"]) for t in made))
    wrong = sum(evaluate.sentence_right(a["say"], b["say"]) and a["say"] != b["say"]
                for a, b in itertools.pairwise(made))
    check("that of another utterance is not", wrong == 0)
    truth = "네, 거실 불을 50퍼센트로 맞출게요."
    for said, right in ((truth[3:], True), ("거실 불을 50퍼센트로 맞췄어요", True),
                        (truth.replace("거실", "안방"), False),
                        (truth.replace("불을", "불를"), False),
                        (truth.replace("50", "5"), False),
                        (truth + " 20도예요.", False),
                        ("네, 거실 불을 50퍼센트로 끌게요.", False), ("", False)):
        check(f"a sentence: {said}", evaluate.sentence_right(said, truth) == right)
    for call, ok in ((None, True), ({"name": "stop", "arguments": {}}, True),
                     ({"name": "turn", "arguments": {"degrees": 5}}, False),
                     ({"name": "stop", "arguments": {"x": 1}}, False),
                     ({"name": "fly", "arguments": {}}, False), (evaluate.BROKEN, False)):
        check(f"a call: {call}", evaluate.call_valid(call, generate.TOOLS) == ok)
    light = {"name": "light", "arguments": {"room": "거실", "percent": 5}}
    check("a call of no tool", not evaluate.call_valid(light, ["stop"]))


def main():
    made, other = lines(20000, 1), lines(2000, 1, True)
    check("the same seed says the same", made[:500] == lines(500, 1))
    check("another seed says something else", made[:500] != lines(500, 2))
    for t in turns(made) + turns(other):
        call = t["call"]
        if call and not valid(call["arguments"], SCHEMAS[call["name"]]):
            check(f"a call by its schema: {call}", False)
    check("every tool is called", set(SCHEMAS) == {
        t["call"]["name"] for t in turns(made) if t["call"]})
    check("tools that are called are declared", all(
        t["call"]["name"] in line["tools"]
        for line in made for t in line["turns"] if t["call"]))
    said = {t["user"] for t in turns(made)}
    check("three of four utterances are new", len(said) > len(turns(made)) * 3 / 4)
    again = sum(t["user"] in said for line in other for t in line["turns"][:1])
    check("what is held out was not said in training", again < len(other) / 20)
    held = generate.Held(False)
    words = {v for t in turns(made) if t["call"] for v in
             t["call"]["arguments"].values() if v in generate.ROOMS + generate.ERRANDS}
    check("nor were its names", words and not any(held.value(w) for w in words))
    for number, word in ((0, "영"), (10, "십"), (105, "백오"), (3600, "삼천육백")):
        check(f"{number} is {word}", korean.sino(number) == word)
    for number, word in ((1, "한"), (12, "열두"), (20, "스무"), (21, "스물한")):
        check(f"{number} is {word}", korean.native(number) == word)
    for word, pair, text in (("불", "을/를", "불을"), ("거실", "으로/로", "거실로"),
                             ("부엌", "으로/로", "부엌으로"), ("3", "을/를", "3을")):
        check(text, korean.josa(word, pair) == text)
    check_rules(turns(other))
    check("the sample of tests is what is generated (make demo-accept)",
          (pathlib.Path(__file__).parent / "demo.txt").read_text().splitlines()
          == list(evaluate.sample_lines(200)))
    print(f"{passed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
