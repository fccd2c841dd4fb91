"""How well the demo model understands what it was never told.

    evaluate.py MODEL.gguf... [--float FOLDER] [--count 2000] [--missing] [--show]
    evaluate.py --sample 200 >tests/demo.txt

Each turn of held-out conversations is asked with the true turns before it: of
those with all tools, as in robot.c and car.c, or with --missing of those where
some are not there, so that what they are for has to be refused. The file
answers twice, freely and under the grammar of its tools (libksllm.so, see
../python/ksllm.py); with --float the checkpoint it was made of answers too
(PyTorch). Three things are judged:

  action    name and arguments are exactly the true ones; none is one too
  valid     there is no call, or one that the schema of a declared tool allows
  sentence  it names what the true one names: see sentence_right
"""
import argparse
import collections
import json
import pathlib
import re
import statistics
import sys

import generate
from korean import batchim

HERE = pathlib.Path(__file__).parent
TOOLS = json.loads((HERE / "tools.json").read_text())
SCHEMAS = {t["function"]["name"]: t["function"]["parameters"] for t in TOOLS}
SEED = 4242     # train.py draws its curve from another one
KINDS = {"string": str, "integer": int, "number": (int, float), "object": dict}


# ---- what is judged, and how ----

def samples(count, seed=SEED, missing=False):
    """(tools, turns before, the turn), `count` of them."""
    for line in generate.conversations(seed, True):
        if (len(line["tools"]) < len(TOOLS)) != missing:
            continue
        for i, turn in enumerate(line["turns"]):
            if count == 0:
                return
            count -= 1
            yield line["tools"], line["turns"][:i], turn


def intent(turn):
    return (turn["call"]["name"] if turn["call"] else
            "refusal" if turn["say"].startswith("죄송해요") else "talk")


def valid(value, schema):
    """The keywords that tools.json has."""
    if "type" in schema and (isinstance(value, bool) or not isinstance(
            value, KINDS[schema["type"]])):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, (int, float)):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    if isinstance(value, str):
        return len(value) <= schema.get("maxLength", len(value)) and bool(
            re.search(schema.get("pattern", ""), value))
    return len(value) >= schema.get("minProperties", 0) and set(
        schema.get("required", [])) <= set(value) and all(
        k in schema["properties"] and valid(v, schema["properties"][k])
        for k, v in value.items())


def call_valid(call, tools):
    return call is None or isinstance(call, dict) and set(call) == {
        "name", "arguments"} and call["name"] in tools and isinstance(
        call["arguments"], dict) and valid(call["arguments"], SCHEMAS[call["name"]])


def stem(word):
    """The first syllable of a verb without its final: 켤게요, 켜 -> 켜."""
    return chr(ord(word[0]) - batchim(word[0])) if "가" <= word[0] <= "힣" else word[0]


def sentence_right(said, truth):
    """All words of the true sentence but its verb come in it, in order and with
    their particles; then a verb with the same stem; no other number is named.
    Marks, spaces doubled and courtesies do not count."""
    want, words = (
        [w for w in re.sub(r"[.,!?]", " ", s).split() if w not in ("네", "제가", "지금은")]
        for s in (truth, said))
    if re.findall(r"\d+(?:\.\d+)?", said) != re.findall(r"\d+(?:\.\d+)?", truth):
        return False
    rest = iter(words)
    return bool(want and words) and all(w in rest for w in want[:-1]) and any(
        stem(w) == stem(want[-1]) for w in rest)


Answer = collections.namedtuple("Answer", "say call first_ms")
BROKEN = {"name": "?", "arguments": {}}     # a call that is none


def judge(answer, tools, turn):
    """(action, valid, sentence)"""
    return (answer.call == turn["call"], call_valid(answer.call, tools),
            sentence_right(answer.say, turn["say"]))


# ---- who answers ----

def messages(before, turn):
    out = []
    for t in before:
        out += [{"role": "user", "content": t["user"]},
                {"role": "assistant", "content": t["say"]}]
        if t["call"]:
            out[-1]["tool_calls"] = [{"type": "function", "function": t["call"]}]
    return out + [{"role": "user", "content": turn["user"]}]


def by_file(path, obey):
    sys.path.insert(0, str(HERE.parent / "python"))
    from ksllm import KsllmError, Model
    model = Model(path, n_threads=1)

    def answer(names, before, turn):
        tools = [t for n in names for t in TOOLS if t["function"]["name"] == n]
        options = {"grammar": {"kind": "tools", "source": tools}} if obey else {}
        try:
            m = model.chat(messages(before, turn), tools, max_tokens=120,
                           temperature=0, **options)
        except KsllmError as error:     # it ended inside of a call
            return Answer(str(error), BROKEN, 0)
        calls = [c["function"] for c in m.get("tool_calls", [])]
        # What looks like a call and is none comes as text.
        none = BROKEN if len(calls) > 1 or (not obey and "{" in m["content"]) else None
        return Answer(m["content"], calls[0] if len(calls) == 1 else none,
                      model.result.first_ns / 1e6)
    return lambda asked: (answer(*a) for a in asked)


def parsed(text):
    say, mark, rest = text.split("<|end|>")[0].partition("<tool_call>")
    try:
        return Answer(say, json.loads(rest.removesuffix("</tool_call>")) if mark
                      else None, 0)
    except ValueError:
        return Answer(say, BROKEN, 0)


def by_folder(folder, threads, size=64):
    import torch
    import transformers
    import train
    torch.set_num_threads(threads)
    tokenizer = train.Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
    model = transformers.LlamaForCausalLM.from_pretrained(folder).eval()

    def batch(part):
        ids = []
        for names, before, turn in part:
            line = {"tools": names, "turns": [*before, turn]}
            ids.append(tokenizer.encode("".join(
                text for text, _ in list(train.pieces(line))[:-1])).ids)
        n = max(map(len, ids))
        rows = torch.tensor([[0] * (n - len(x)) + x for x in ids])
        mask = torch.tensor([[0] * (n - len(x)) + [1] * len(x) for x in ids])
        with torch.no_grad():
            out = model.generate(rows, attention_mask=mask, max_new_tokens=120,
                                 do_sample=False, pad_token_id=0)
        for row in out[:, n:].tolist():
            yield parsed(tokenizer.decode(row, skip_special_tokens=False))
    return lambda asked: (a for i in range(0, len(asked), size)
                          for a in batch(asked[i:i + size]))


# ---- the tables ----

def ask(name, answers, asked):
    """What came of all, with progress on a terminal."""
    out = []
    for got in answers(asked):
        out.append(got)
        if sys.stderr.isatty() and len(out) % 20 == 0 or len(out) % 500 == 0:
            right = sum(a.call == t["call"] for a, (_, _, t) in zip(out, asked))
            print(f"{name}: {len(out)} of {len(asked)}, {100 * right / len(out):.1f} %"
                  " of the actions right", file=sys.stderr,
                  end="\r" if sys.stderr.isatty() else "\n", flush=True)
    return out


def percent(marks):
    return f"{100 * sum(marks) / max(1, len(marks)):.1f} %"


def table(rows):
    width = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(c.ljust(w) if i == 0 else c.rjust(w)
                        for i, (c, w) in enumerate(zip(row, width))))
    print()


def show_wrong(answers, asked, n=20):
    for got, (tools, before, turn) in zip(answers, asked):
        if not all(judge(got, tools, turn)) and n:
            n -= 1
            for t in before[-2:]:
                print(f"   {t['user']} -> {t['say']}")
            print(f"   {turn['user']}\n     true {turn['say']} {turn['call']}\n"
                  f"     got  {got.say} {got.call}\n")


def sample_lines(count):
    """Turns as tests/test_demo.c reads them."""
    text = lambda v: json.dumps(v, ensure_ascii=False)
    for names, before, turn in samples(count):
        if not before:
            yield "T " + " ".join(names)
        call = turn["call"]
        yield "U " + text(turn["user"])
        yield "S " + text(turn["say"])
        yield "C " + (f"{call['name']} {text(call['arguments'])}" if call else "")


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("models", help="GGUF files", nargs="*", type=pathlib.Path)
    args.add_argument("--sample", type=int, help="only writes so many utterances")
    args.add_argument("--float", metavar="FOLDER", help="of train.py")
    args.add_argument("--count", type=int, default=2000)
    args.add_argument("--seed", type=int, default=SEED)
    args.add_argument("--threads", type=int, default=1, help="of PyTorch")
    args.add_argument("--missing", action="store_true",
                      help="conversations where some tools are not there")
    args.add_argument("--show", action="store_true", help="the first 20 wrong ones")
    a = args.parse_args()
    if a.sample:
        return print("\n".join(sample_lines(a.sample)))
    if not a.models:
        args.error("which file?")
    asked = list(samples(a.count, a.seed, a.missing))
    names = [p.stem if len(a.models) > 1 else "file" for p in a.models]
    who = {name + how: by_file(path, bool(how)) for name, path in zip(names, a.models)
           for how in ("", ", grammar")}
    if a.float:
        who["float"] = by_folder(a.float, a.threads)
    answers = {name: ask(name, f, asked) for name, f in who.items()}
    marks = {name: [judge(got, tools, turn) for got, (tools, _, turn) in zip(
        answers[name], asked)] for name in who}
    for path in a.models:
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    print(f"{len(asked)} held-out utterances, seed {a.seed}\n")
    table([["", *who]] + [
        [what, *(percent([m[i] for m in marks[name]]) for name in who)]
        for i, what in enumerate(("action exactly right", "valid by the schema",
                                  "sentence right"))])
    kinds = collections.Counter(intent(t) for _, _, t in asked)
    table([["actions right by intent", "utterances", *who]] + [
        [kind, str(n), *(percent([m[0] for m, (_, _, t) in zip(marks[name], asked)
                                  if intent(t) == kind]) for name in who)]
        for kind, n in kinds.most_common()])
    if a.float:
        for name in names:
            same = [x.call == y.call for x, y in zip(answers[name], answers["float"])]
            print(f"{name}: the same action as float32: {percent(same)}")
    last = names[-1] + ", grammar"
    first = sorted(x.first_ms for x in answers[last])
    print(f"first text after {statistics.median(first):.1f} ms (median), "
          f"{first[len(first) * 99 // 100]:.1f} ms (99 of 100), on one thread")
    if a.show:
        print("\nthe first wrong ones, under the grammar:\n")
        show_wrong(answers[last], asked)


if __name__ == "__main__":
    main()
