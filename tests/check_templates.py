"""Chat templates against Python's jinja2, as transformers sets it up.

    check_templates.py [--render BINARY] [--ids GGUF TOKENIZER TEMPLATE]
                       DIR_OR_FILE [...]

Every *.jinja file found is rendered for every conversation below, by
transformers' own render_jinja_template (ImmutableSandboxedEnvironment with
trim_blocks, lstrip_blocks, loop controls, the generation tag, tojson,
raise_exception, strftime_now) and by ksllm. The texts must be the same, byte
for byte; where Python raises, ksllm must report an error. With --ids the ids
of ksllm_chat_encode for a template are compared with those that a model's own
tokenizer (a tokenizer.json) gives for the rendered text.
"""
import argparse
import calendar
import datetime
import json
import pathlib
import struct
import subprocess
import sys

import transformers.utils.chat_template_utils as hf

NOW = datetime.datetime(2026, 3, 7, 9, 5, 2)


class FixedTime(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def tool(name, description, properties, required):
    return {"type": "function", "function": {
        "name": name, "description": description, "parameters": {
            "type": "object", "properties": properties,
            "required": required}}}


TOOLS = [
    tool("get_weather", "도시의 현재 날씨를 <b>알려</b> 준다 & more", {
        "city": {"type": "string", "description": "도시 이름, e.g. \"서울\""},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "description": "며칠", "default": 3}},
        ["city"]),
    tool("search", "Search\nover two lines", {
        "query": {"type": "string", "description": "what"},
        "filters": {"type": "object", "properties": {
            "year": {"type": ["integer", "null"], "description": "연도"},
            "tags": {"type": "array", "items": {"type": "string"}}}},
        "ratio": {"type": "number", "description": "0.1 to 1.0",
                  "minimum": 0.1, "maximum": 1e16},
        "items": {"type": "boolean", "description": "named like a method"}},
        ["query", "filters"])]


def call(name, arguments, id="call00001"):
    return {"type": "function", "id": id,
            "function": {"name": name, "arguments": arguments}}


def system(text="너는 친절한 한국어 비서다."):
    return {"role": "system", "content": text}


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def result(text, name="get_weather", id="call00001"):
    return {"role": "tool", "content": text, "name": name,
            "tool_call_id": id}


HI = user("안녕하세요! 대한민국의 수도는 어디인가요?")
SEOUL = assistant("대한민국의 수도는 서울입니다.")
THOUGHT = "사용자가 수도를 묻는다.\n서울이다."
WEATHER = call("get_weather", {"city": "서울", "unit": "celsius", "days": 2})
MIXED = call("search", {"query": "한글 \"창제\"\n역사", "ratio": 0.5, "n": 3,
                        "deep": {"a": [1, None, True], "b": 1e-7},
                        "flag": False, "none": None}, "call00002")

# name: messages, tools, switches, flags
CONVERSATIONS = {
    "user": ([HI], None, {}, 1),
    "user, no generation prompt": ([HI], None, {}, 0),
    "system": ([system(), HI], None, {}, 1),
    "turns": ([system(), HI, SEOUL, user("  인구는?\n\n")], None, {}, 1),
    "ends with the answer": ([HI, SEOUL], None, {}, 0),
    "long": ([system("You are helpful.")] + [
        m for i in range(6) for m in (
            user(f"질문 {i}: 1+{i}?"), assistant(f"답 {1 + i}\n"))]
        + [user("끝 👩‍👩‍👧 <b>&'\"")], None, {}, 1),
    "thinking on": ([HI], None, {
        "enable_thinking": True, "thinking": True,
        "reasoning_effort": "high"}, 1),
    "thinking off": ([system(), HI], None, {
        "enable_thinking": False, "thinking": False, "skip_reasoning": True,
        "reasoning_effort": "low"}, 1),
    "reasoning kept": ([HI, assistant("서울입니다.",
                        reasoning_content=THOUGHT), user("정말?")],
                       None, {"enable_thinking": True}, 1),
    "reasoning in the text": ([HI, assistant(
        f"<think>\n{THOUGHT}\n</think>\n\n서울입니다."), user("정말?"),
        assistant("<think>네</think>네.")], None, {}, 0),
    "reasoning by another name": ([HI, assistant(
        "서울입니다.", reasoning=THOUGHT)], None, {}, 0),
    "tools": ([system(), user("서울 날씨?")], TOOLS, {}, 1),
    "tools, no system": ([user("서울 날씨?")], TOOLS,
                         {"enable_thinking": True}, 1),
    "empty tools": ([user("서울 날씨?")], [], {}, 1),
    "call": ([user("서울 날씨?"), assistant("", tool_calls=[WEATHER]),
              result("{\"temp\": 3, \"sky\": \"맑음\"}")], TOOLS, {}, 1),
    "calls": ([system(), user("둘 다"), assistant(
        "찾아보겠습니다.", tool_calls=[WEATHER, MIXED],
        reasoning_content="도구가 필요하다."),
        result("맑음"), result("1443년", "search", "call00002"),
        assistant("맑고, 1443년입니다."), user("고마워")], TOOLS, {}, 1),
    "call without text": ([user("날씨"), {
        "role": "assistant", "content": None, "tool_calls": [WEATHER]},
        result("맑음")], TOOLS, {}, 1),
    "arguments as text": ([user("날씨"), assistant("", tool_calls=[
        call("get_weather", "{\"city\": \"서울\"}")]), result("맑음")],
        TOOLS, {}, 1),
    "last is a call": ([user("날씨"), assistant(
        "", tool_calls=[WEATHER])], TOOLS, {}, 0),
    "parts": ([{"role": "user", "content": [
        {"type": "text", "text": "이 문장을"},
        {"type": "text", "text": " 읽어줘"}]}], None, {}, 1),
    "parts with an image": ([system(), {"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "http://x.kr/a/b.PNG"}},
        {"type": "text", "text": "무엇이 보이니?"}]}], None, {}, 1),
    "parts with media": ([{"role": "user", "content": [
        {"type": "image", "image": "x"}, {"type": "video", "video": "y"},
        {"type": "text", "text": "무엇?"}]}], None, {}, 1),
    "prefix continued": ([HI, assistant("대한민국의 수도는")], None, {}, 2),
    "prefix with space": ([HI, assistant("1. 서울\n2. ")], None, {}, 2),
    "developer": ([{"role": "developer", "content": "짧게."}, HI], None, {},
                  1),
    "unknown role": ([HI, {"role": "가수", "content": "라라"}], None, {}, 1),
    "two systems": ([system(), HI, system("이제 영어로."), user("ok")], None,
                    {}, 1),
    "answers in a row": ([HI, SEOUL, SEOUL, HI, HI], None, {}, 1),
    "no content": ([{"role": "user"}], None, {}, 1),
    "number as content": ([{"role": "user", "content": 3.0}], None, {}, 1),
    "empty": ([], None, {}, 1),
    "switches": ([system(), HI], TOOLS, {
        "documents": [{"title": "제목", "text": "본문 <x>", "id": 1}],
        "custom_tools": TOOLS, "tools_in_user_message": False,
        "date_string": "26 Jul 2024", "builtin_tools": ["wolfram_alpha"],
        "reasoning_effort": "medium", "model_identity": "너는 곰이다.",
        "response_format": {"type": "json_schema"}, "thinking_budget": 512,
        "default_system_prompt": False, "think_render_option": "all"}, 1),
}
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
           "pad_token": "<pad>"}


def reference(template, messages, tools, switches, flags):
    try:
        out, _ = hf.render_jinja_template(
            [messages], tools=tools, chat_template=template,
            add_generation_prompt=bool(flags & 1),
            continue_final_message=bool(flags & 2), **switches)
        return out[0].encode()
    except Exception as e:      # whatever a template can raise
        return e


def record(template, messages, tools, switches, flags):
    texts = [template, json.dumps(messages, ensure_ascii=False),
             "" if tools is None else json.dumps(tools),
             json.dumps(switches, ensure_ascii=False)]
    out = struct.pack("=Iq", flags, calendar.timegm(NOW.timetuple()))
    for text in texts:
        b = text.encode()
        out += struct.pack("=I", len(b)) + b
    return out


class Answers:
    def __init__(self, command, records):
        done = subprocess.run(command, input=b"".join(records),
                              stdout=subprocess.PIPE, check=True)
        self.data, self.at = done.stdout, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def next(self, item=1):
        n, = struct.unpack("=i", self.take(4))
        if n >= 0:
            return self.take(n * item)
        size, = struct.unpack("=I", self.take(4))
        return RuntimeError(self.take(size).decode())


def find(paths):
    for p in map(pathlib.Path, paths):
        yield from sorted(p.rglob("*.jinja")) if p.is_dir() else [p]


def show(what, name, want, got):
    print(f"FAILED {what}, {name}")
    if isinstance(want, bytes) and isinstance(got, bytes):
        i = next((i for i, (a, b) in enumerate(zip(want, got)) if a != b),
                 min(len(want), len(got)))
        print(f"    at byte {i}\n    want {want[max(0, i - 60):i + 60]!r}"
              f"\n    got  {got[max(0, i - 60):i + 60]!r}")
    else:
        print(f"    want {want!r:.300}\n    got  {got!r:.300}")


def check_texts(render, paths, shown):
    cases, records = [], []
    for path in paths:
        template = path.read_text(encoding="utf-8", newline="") \
            if sys.version_info >= (3, 13) else \
            path.read_bytes().decode("utf-8")
        for name, (messages, tools, switches, flags) in CONVERSATIONS.items():
            switches = {**SPECIAL, **switches}
            cases.append((path.name, name, reference(
                template, messages, tools, switches, flags)))
            records.append(record(template, messages, tools, switches, flags))
    answers = Answers([render], records)
    passed = failed = errors = 0
    for path, name, want in cases:
        got = answers.next()
        same = got == want if isinstance(want, bytes) else \
            isinstance(got, Exception)
        errors += same and isinstance(want, Exception)
        passed += same
        failed += not same
        if not same and failed <= shown:
            show(path, name, want, got)
    print(f"{len(paths)} templates, {len(CONVERSATIONS)} conversations: "
          f"{passed - errors} texts and {errors} errors agree")
    return passed, failed


def check_ids(render, gguf, tokenizer, template, shown):
    """Ids of honest conversations, against the tokenizer on the text."""
    import tokenizers
    hf_tokenizer = tokenizers.Tokenizer.from_file(tokenizer)
    text = pathlib.Path(template).read_bytes().decode()
    cases, records = [], []
    for name, (messages, tools, switches, flags) in CONVERSATIONS.items():
        switches = {**SPECIAL, **switches}
        want = reference(text, messages, tools, switches, flags)
        if isinstance(want, bytes):
            cases.append((name, want))
            records.append(record(text, messages, tools, switches, flags | 4))
    answers = Answers([render, gguf], records)
    failed = 0
    for name, want in cases:
        got = answers.next(4)
        ids = hf_tokenizer.encode(want.decode(), add_special_tokens=False).ids
        same = isinstance(got, bytes) and \
            list(struct.unpack(f"={len(got) // 4}i", got)) == ids
        failed += not same
        if not same and failed <= shown:
            show(gguf, name, ids, got if isinstance(got, Exception) else
                 list(struct.unpack(f"={len(got) // 4}i", got)))
    print(f"{gguf}: ids of {len(cases) - failed} of {len(cases)} "
          "conversations agree")
    return len(cases) - failed, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--render", default="build/tests/render")
    parser.add_argument("--shown", type=int, default=20)
    parser.add_argument("--ids", nargs=3, action="append", default=[],
                        metavar=("GGUF", "TOKENIZER_JSON", "TEMPLATE"))
    parser.add_argument("paths", nargs="*")
    args = parser.parse_args()
    hf.datetime = FixedTime
    passed, failed = check_texts(args.render, list(find(args.paths)),
                                 args.shown)
    for gguf, tokenizer, template in args.ids:
        p, f = check_ids(args.render, gguf, tokenizer, template, args.shown)
        passed += p
        failed += f
    print(f"{passed} passed, {failed} failed")
    return failed != 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main())
