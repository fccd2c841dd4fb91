"""Chat templates against Python's jinja2, as transformers sets it up.

    check_templates.py [--render BINARY] [--ids GGUF TOKENIZER TEMPLATE]
                       DIR_OR_FILE [...]

Every *.jinja file found is rendered for every conversation below, by
transformers' own render_jinja_template (ImmutableSandboxedEnvironment with
trim_blocks, lstrip_blocks, loop controls, the generation tag, tojson,
raise_exception, strftime_now) and by ksllm. The texts must be the same, byte
for byte; where Python raises, ksllm must report an error with a reason, the
line that Python's traceback has for the template (or a later one of the same
tag: Python knows only where a tag begins), and the text that a template gave
to raise_exception. FAULTS are small templates that fail in every way that
belongs to a line. For the templates of WIRES, answers that they write into a
conversation are split again, and must give the reasoning, the text and the
calls that were written. The calls of check_builtins.py come
last. With --ids the ids
of ksllm_chat_encode for a template are compared with those that a model's own
tokenizer (a tokenizer.json) gives for the rendered text.
"""
import argparse
import calendar
import datetime
import json
import pathlib
import re
import struct
import subprocess
import sys
import traceback

import check_builtins
import jinja2
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
    "prefix in parts": ([HI, {"role": "assistant", "content": [
        {"type": "text", "text": "대한민국의"},
        {"type": "text", "text": " 수도는 "}]}], None, {}, 2),
    "prefix after a call": ([system(), user("날씨"), assistant(
        "", tool_calls=[WEATHER]), result("맑음"), assistant("서울은 ")], TOOLS,
        {"enable_thinking": True}, 2),
    "prefix in the thinking": ([HI, assistant("<think>\n음")], None, {}, 2),
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

# Small templates for what few models use: generation blocks, dates, tojson's
# settings, typed parts.
PROGRAMS = [
    "{% generation %}\n{{ 'a' }}\n{% endgeneration %}\n|",
    "{% set x = 1 %}{% generation %}{{ x }}{% set x = 2 %}{{ x }}{% endgene"
    "ration %}{{ x }}",
    "{% for m in messages %}{% generation %}{{ loop.index }}{{ m.role }}{% "
    "endgeneration %}{% endfor %}",
    "{% set ns = namespace(n=0) %}{%- generation -%} {% set ns.n = 2 %} {%-"
    " endgeneration -%} {{ ns.n }}",
    "{% generation %}{% for x in [1,2,3] %}{% if x == 2 %}{% continue %}{% "
    "endif %}{{ x }}{% endfor %}{% endgeneration %}",
    "{% macro m(x) %}{% generation %}<{{ x }}>{% endgeneration %}{% endmacr"
    "o %}{{ m(1) }}",
    "{{ strftime_now('%d %b %Y|%y|%e|%I:%M:%S %p|%a|%A|%B|%F|%T|%j|%%|%-"
    "m|%-H|%-I|') }}",
    "{{ strftime_now('오늘 %Y년 %-m월 %-d일') }}{{ strftime_now('') }}",
    "{% if strftime_now is defined %}{{ strftime_now('%Y')|int - 1 }}{% end"
    "if %}",
    "{{ d|tojson }}",
    "{{ d|tojson(indent=4) }}",
    "{{ d|tojson(indent=0) }}",
    "{{ d|tojson(sort_keys=true) }}",
    "{{ d|tojson(ensure_ascii=True) }}",
    "{{ d|tojson(separators=(',', ':'), indent=2) }}",
    "{{ d|tojson(ensure_ascii=False, sort_keys=True, separators=(', ', '=')"
    ") }}",
    "{{ [1e16, 1e-7, 0.1, -0.0, 100.0, none, true]|tojson }}",
    "{{ '<a href=\"x\">&\\'\\x7f\\u2028😀\\t\\b\\f\\r\\x01'|tojson }}",
    "{{ '😀\\x7f'|tojson(ensure_ascii=true) }}",
    "{{ {}|tojson(indent=2) }}{{ []|tojson(indent=2) }}{{ {'a': {}, 'b': []"
    "}|tojson(indent=1) }}",
    "{{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }}",
    "{{ (1, 'a')|tojson }}",
    "{{ d|tojson|length }}",
    "{{ d|tojson|safe }}",
    "{{ d|tojson(none) }}",
    "{{ d|tojson(true, 1) }}",
    "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% e"
    "lse %}{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% "
    "elif p['type'] == 'image_url' %}<img {{ p.image_url.url }}>{% endif %}"
    "{% endfor %}{% endif %};{% endfor %}",
    "{{ messages[1].content|selectattr('type', 'equalto', 'text')|map(attri"
    "bute='text')|join('+') }}",
    "{{ messages[1].content is iterable and messages[1].content is not stri"
    "ng }}{{ messages[0].content is not mapping }}",
    "{{ messages[1].content|map(attribute='type')|list }}{{ 'text' in messa"
    "ges[1].content[1] }}",
    "{{ d|tojson(indent='--') }}",
    "{{ d|tojson(indent='\\t') }}",
]
PARTS = [HI, user([{"type": "image_url", "image_url": {"url": "u"}},
                   {"type": "text", "text": "하나"},
                   {"type": "text", "text": " 둘"}]), SEOUL]
VALUES = {"d": {"나": [1.0, {"z": None, "a": True}], "b": "<é\"\n>", "A": {}}}

# Templates that fail; the line that Python gives is the one to report.
FAULTS = [
    "\n\n{{ raise_exception('한글 ' ~ 3) }}",
    "{{ raise_exception('ㄱ' * 100) }}",
    "{{ raise_exception('a' ~ 'ㄱ' * 200) }}",
    "{{ raise_exception('ab' ~ '각' * 200) }}",
    "{{ raise_exception('two\\nlines') }}",
    "{{ raise_exception(none) }}",
    "{{ raise_exception() }}",
    "{% macro no(x) %}\n{{ raise_exception(x) }}\n{% endmacro %}\n{{ no('X') }}",
    "{{ 'a'\n~ raise_exception('q') }}",
    "a\n{% for x in [1] %}\n{{ x.y.z }}\n{% endfor %}",
    "{% macro m(a) %}\n{{ a + 1 }}\n{% endmacro %}\n\n{{ m('x') }}",
    "{% macro m(a) %}\n\n{% endmacro %}\n{{ m(1, 2) }}",
    "{% if true %}\n{% set x = [\n1,\n2 + 'a'] %}\n{% endif %}",
    "{{ 1\n+ 'a'\n}}\n",
    "{{ messages[0].content\n.nosuch() }}",
    "{%- if false %}\n{% elif 1 + 'a' %}\n{% endif %}",
    "{% for a, b in [[1]] %}\n{% endfor %}",
    "\n{% for a in 5 %}{% endfor %}",
    "{% for x in [1, 2]\nif u.x %}\n{% endfor %}",
    "{% set ns = namespace() %}\n{{ 'a' < 1 }}",
    "\r\n\r\n{{ u.x }}",
    "{% set t %}\n\n{{ u.x }}{% endset %}",
    "{% generation %}\n{{ u.x }}\n{% endgeneration %}",
    "{# a\nb #}\n{{ u.x }}",
    "{% raw %}\n\n{% endraw %}{{ u.x }}",
    "{% set x = 'a\nb' %}{{ u.x }}",
    "\n{{ messages[0]['각' * 40].x }}",
    "\n{{ messages|map('upper')|tojson }}",
    "{{ messages[0].items()|tojson }}",
    "\n{{ dict(1) }}",
    "a\n{% nosuch %}",
    "a\n{% if messages %}",
    "\n{% generation %}\n",
    "x\n{% endif %}",
    "\n{% if messages\n%}{% endfor %}",
    "{% with a = 1 %}\n{% endif %}",
    "\n{{ n|nosuch }}",
    "{{ n\n|nosuch\n}}",
    "\n{{ n is nosuch }}",
    "{% if messages %}\n{{ n|nosuch }}{% endif %}",
    "\n{% filter nosuch %}a{% endfilter %}",
    "\n{{ 'n }}",
    "\n{# n",
    "\n{{ }}",
    "\n{{ 1 2 }}",
    "\n{% for in l %}{% endfor %}",
    "\n{{ $ }}",
    "\n{{ n }\n",
    "\n{{ n",
]

# Each statement and expression of the language, and where its parts meet: the
# same text, or an error from both. `v` are the values of LANGUAGE_VALUES.
LANGUAGE = [
    # call blocks
    "{% macro m(a) %}[{{ a }}|{{ caller() }}]{% endmacro %}"
    "{% call m(1) %}in {{ n }}{% endcall %}",
    "{% macro m(l) %}{% for x in l %}<{{ caller(x, k=x*2) }}>{% endfor %}"
    "{% endmacro %}{% call(x, k, z=5) m([1, 2]) %}{{ x }},{{ k }},{{ z }}"
    "{% endcall %}",
    "{% macro m() %}{{ caller is defined }}{{ caller }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{% endmacro %}{% call m() %}{% endcall %}",
    "{% macro m(caller=3) %}{{ caller }}{% endmacro %}{{ m() }}{{ m(4) }}",
    "{% macro m(caller=3) %}{{ caller is string }}{% endmacro %}"
    "{% call m() %}x{% endcall %}",
    "{% macro a() %}A{{ caller() }}{% endmacro %}{% macro b() %}B{% call a() %}"
    "{{ caller() }}{% endcall %}{% endmacro %}{% call b() %}x{% endcall %}",
    "{% macro a() %}A{{ caller() }}{% endmacro %}{% call a() %}1{% call a() %}2"
    "{% endcall %}3{% endcall %}",
    "{% call range(3) %}{% endcall %}",
    "{% call n %}{% endcall %}", "{% call 1 + f() %}{% endcall %}",
    "{% call f()|upper %}{% endcall %}", "{% call (m()) %}{% endcall %}",
    "{% macro m() %}{{ caller() }}{% endmacro %}{% set x = 1 %}"
    "{% call m() %}{{ x }}{% set x = 2 %}{{ x }}{% endcall %}{{ x }}",
    "{% macro m(n) %}{{ n }}{{ caller(n) if n else '' }}{% endmacro %}"
    "{% macro r(n) %}{% call(k) m(n) %}({{ r(k - 1) }}){% endcall %}"
    "{% endmacro %}{{ r(3) }}",
    "{% call(x) m() %}{% endmacro %}", "{% call m() %}",
    # calls
    "{% macro m(a, b=2, c=3) %}{{ a }}{{ b }}{{ c }}{% endmacro %}"
    "{{ m(*[1, 2]) }} {{ m(1, *(7,)) }} {{ m(**{'a': 1, 'c': 9}) }} "
    "{{ m(*[1], c=4) }} {{ m(1, c=5, *[6]) }} {{ m(*[1], **{'b': 0}) }} "
    "{{ m(a=1, **{'b': 8}) }} {{ m(*'xy') }} {{ m(*{'k': 1}) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*[1, 2]) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, a=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(a=1, a=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(a=1, **{'a': 2}) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**5) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(*5) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(**{1: 2}) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(b=1) }}",
    "{{ range(*[1, 4])|list }} {{ dict(**{'a': 1}) }} {{ 'a-b'.split(*['-']) }}"
    " {{ [3,1]|sort(**{'reverse': true}) }} {{ 3 is divisibleby(*[3]) }}",
    "{{ f(1, 2 }}", "{{ f(,) }}", "{{ f(a=1, 2) }}", "{{ f(*l, 1) }}",
    "{{ f(**d, *l) }}", "{{ f(**d, a=1) }}", "{{ f(*l, *l) }}", "{{ f(1,) }}",
    "{{ range(3,)|list }}", "{{ (range)(2)|list }}", "{{ n() }}", "{{ u() }}",
    "{{ (l|first)(1) }}", "{{ 'abc'|upper() }}", "{{ l|join(', ',) }}",
    # macros
    "{% macro m() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 'x', k=2) }}"
    "{{ m() }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{% endmacro %}{{ m(1, 2, 3) }}"
    "{{ m() }}",
    "{% macro m(a) %}{{ kwargs }}{% endmacro %}{{ m(a=1, b=2) }}{{ m(1, a=2) }}",
    "{% macro m(varargs) %}{{ varargs }}{% endmacro %}{{ m(1) }}",
    "{% macro m(varargs) %}{{ varargs }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a, b=2) %}{% set x = varargs %}{% endmacro %}{{ m.name }}",
    "{% macro m() %}{% set kwargs = 1 %}{{ kwargs }}{% endmacro %}"
    "{{ m() }}{{ m(a=1) }}",
    "{% macro m(a=1, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m() }}{{ m(2) }}"
    "{{ m(b=3) }}",
    "{% set b = 'out' %}{% macro m(a=b, b=2) %}{{ a }}{{ b }}{% endmacro %}"
    "{{ m() }}{{ m(b=3) }}{{ m(1) }}",
    "{% macro m(a, b) %}{{ a is defined }}{{ b is defined }}{% endmacro %}"
    "{{ m(1) }}",
    "{% macro m(a=1, b) %}{% endmacro %}", "{% macro m(a.b) %}{% endmacro %}",
    "{% macro m(a %}{% endmacro %}", "{% macro m %}{% endmacro %}",
    "{% macro true() %}{% endmacro %}", "{% macro m() %}{% endmacro m %}",
    "{% macro m(a,) %}{% endmacro %}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}B{% endmacro %}"
    "{{ a() }}",
    "{% macro f(n) %}{{ n if n < 2 else f(n-1)|int + f(n-2)|int }}{% endmacro %}"
    "{{ f(9) }}",
    "{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}"
    "{{ m is defined }}",
    "{% macro o() %}{% macro i() %}I{% endmacro %}{{ i() }}{% endmacro %}"
    "{{ o() }}{{ i is defined }}",
    "{% set x = 1 %}{% macro m() %}{{ x }}{% endmacro %}{% set x = 2 %}{{ m() }}",
    "{% macro m() %}{% set x = 5 %}{{ x }}{% endmacro %}{{ m() }}{{ x }}",
    "{% set ns = namespace(f=none) %}{% macro m(a) %}<{{ a }}>{% endmacro %}"
    "{% set ns.f = m %}{{ ns.f(1) }}{{ [m][0](2) }}{{ {'k': m}.k(3) }}",
    "{% macro m(loop) %}{{ loop }}{% endmacro %}{{ m(1) }}",
    # loops
    "{% for x in tree recursive %}{{ x.v }}{{ loop.depth }}{{ loop.depth0 }}"
    "{% if x.c %}({{ loop(x.c) }}){% endif %}{{ loop.index }}{% endfor %}",
    "{% for x in tree if x.v != 2 recursive %}{{ x.v }}[{{ loop(x.c) }}]"
    "{% else %}none{% endfor %}",
    "{% for x in l recursive %}{{ loop(1) }}{% endfor %}",
    "{% for x in l %}{{ loop(l) }}{% endfor %}",
    "{% for x in tree recursive %}{% set y = x.v %}{{ loop(x.c) if x.c }}{{ y }}"
    "{% endfor %}",
    "{% for x in tree recursive %}{{ x.v }}{% if x.v == 2 %}{% break %}"
    "{% endif %}{{ loop(x.c or []) }}{% endfor %}",
    "{% for x in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}"
    "{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}"
    "{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.nosuch }};"
    "{% endfor %}",
    "{% for x in [1, 1, 2, 2, 1] %}{{ loop.cycle('a', 'b', 'c') }}"
    "{{ loop.changed(x) }}{{ loop.changed(x, 1) }}{% endfor %}",
    "{% for x in l %}{{ loop.cycle() }}{% endfor %}",
    "{% for x in l %}{{ loop['index'] }}{{ loop|length }}{% endfor %}",
    "{% for x in [1, 2] %}{% set o = loop %}{% for y in 'ab' %}{{ o.index }}"
    "{{ loop.index }}{{ y }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for x in l %}{% break %}{% else %}E{% endfor %}",
    "{% for x in l %}{% continue %}{% else %}E{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% else %}E"
    "{% endfor %}",
    "{% for x in [] %}{% else %}{% set y = 3 %}{{ y }}{{ loop }}{% endfor %}"
    "{{ y }}",
    "{% for x in [1, 2] %}{% for y in [] %}{% else %}{{ loop.index }}"
    "{% continue %}{% endfor %}x{% endfor %}",
    "{% for x in l if loop.first %}{{ x }}{% endfor %}",
    "{% for x in l if x is odd %}{{ loop.length }}{{ loop.nextitem }}"
    "{% endfor %}{{ x }}",
    "{% for x in 'a가' %}{{ x }}-{% endfor %}{% for k in d %}{{ k }}{% endfor %}"
    "{% for x in u %}{% else %}none{% endfor %}",
    "{% for x in 5 %}{% endfor %}", "{% for x in none %}{% endfor %}",
    "{% for a, b in [[1, 2], (3, 4), 'xy'] %}{{ a }}{{ b }}{% endfor %}",
    "{% for (a, (b, c)) in [[1, [2, 3]]] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, (b, c), in [[1, 'xy']] %}{{ a }}{{ b }}{{ c }}{% endfor %}",
    "{% for a, in [[1], [2]] %}{{ a }}{% endfor %}",
    "{% for (a) in [1] %}{{ a }}{% endfor %}",
    "{% for a, b in [[1]] %}{% endfor %}", "{% for a.b in l %}{% endfor %}",
    "{% for [a] in [[1]] %}{% endfor %}", "{% for 1 in l %}{% endfor %}",
    "{% for loop in l %}{% endfor %}", "{% for true in l %}{% endfor %}",
    "{% for x in l %}{% set loop = 1 %}{% endfor %}",
    "{% for x in 1, 2, 3 %}{{ x }}{% endfor %}{% for x in (1,) %}{{ x }}"
    "{% endfor %}",
    "{% for x in l if x > 1 if true %}{% endfor %}",
    "{% for x in l if true else [] %}{% endfor %}",
    "{% for x in (l if true else []) %}{{ x }}{% endfor %}",
    "{% for x in range(3) %}{{ x }}{% endfor %}{{ range(5)[1] }}"
    "{{ range(3) == range(3) }}{{ range(2) }}"
    "{{ range(1, 9, 3) }}{{ 2 in range(3) }}{{ range(0)|list }}"
    "{{ range(3)|length }}{{ range(5, 0, -2)|list }}{{ range(3) is iterable }}"
    "{{ range(3) == [0, 1, 2] }}{{ range(3)[-1] }}{{ range(3)[5] }}",
    "{% for k, v in d.items() %}{{ k }}{{ v }}{{ loop.last }}{% endfor %}",
    "{% for k, v in d|items %}{{ k }}{{ loop.length }}{% endfor %}",
    "{% for x in l: %}{{ x }}{% else: %}{% endfor %}",
    "{% break %}", "{% for x in l %}{% macro m() %}{% break %}{% endmacro %}"
    "{% endfor %}",
    "{% for x in l %}{% generation %}{% continue %}{% endgeneration %}"
    "{% endfor %}",
    "{% for x in [1, 2] %}{% with y = x %}{% continue %}{% endwith %}z"
    "{% endfor %}{{ y }}",
    # scopes
    "{% set x = 0 %}{% for i in [1, 2] %}{{ x }}{% set x = i %}{{ x }}"
    "{% endfor %}{{ x }}",
    "{% for i in [1, 2] %}{% if i == 2 %}{% set n = 7 %}{% endif %}{{ n }}"
    "{% endfor %}{{ n }}",
    "{% if true %}{% set x = 1 %}{% endif %}{{ x }}{% if false %}{% set x = 2 %}"
    "{% endif %}{{ x }}{% if false %}{% set n = 2 %}{% endif %}{{ n }}",
    "{% set x = 1 %}{% with %}{% set x = 2 %}{{ x }}{% endwith %}{{ x }}",
    "{% with a = 1, b = 2 %}{{ a }}{{ b }}{% endwith %}{{ a }}",
    "{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}",
    "{% with a, b = (1, 2) %}{{ a }}{{ b }}{% endwith %}",
    "{% with a = 1, %}{% endwith %}", "{% with a %}{% endwith %}",
    "{% with a.b = 1 %}{% endwith %}", "{% with ns = namespace(x=1) %}"
    "{% set ns.x = 2 %}{{ ns.x }}{% endwith %}",
    "{% set x %}a{% set y = 1 %}{{ y }}{% endset %}{{ x }}{{ y }}",
    "{% set x|upper %}a{{ n }}{% endset %}{{ x }}",
    "{% set x|replace('a', 'b')|upper %}a{% set y %}n{% endset %}{{ y }}"
    "{% endset %}{{ x }}",
    "{% set x %}{% for i in l %}{{ i }}{% endfor %}{% endset %}{{ x }}"
    "{{ x is string }}",
    "{% set ns = namespace() %}{% set ns.x %}a{% endset %}{{ ns.x }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set a, b = b, a %}{{ a }}{{ b }}",
    "{% set (a, b), c = (1, 2), 3 %}{{ a }}{{ b }}{{ c }}",
    "{% set ns = namespace(a=1) %}{% set ns.a, x = 5, 6 %}{{ ns.a }}{{ x }}",
    "{% set a, = [1] %}", "{% set a, b = 'xy' %}{{ a }}{{ b }}",
    "{% set a = 1, %}{{ a }}", "{% set a = %}", "{% set a.b.c = 1 %}",
    "{% set a[0] = 1 %}", "{% set d.x = 1 %}", "{% set u.x = 1 %}",
    "{% set none = 1 %}", "{% set a b = 1 %}", "{% set a = 1 if false %}{{ a }}",
    "{% set ns = namespace(a=1, b=2) %}{{ ns.a }}{{ ns['b'] }}{{ ns.c }}{{ ns }}",
    "{% set ns = namespace({'a': 1}, b=2) %}{{ ns.a }}{{ ns.b }}",
    "{% set ns = namespace([('a', 1)]) %}{{ ns.a }}", "{{ namespace(1) }}",
    "{% set ns = namespace(_a=1) %}", "{% set ns = namespace() %}"
    "{% set ns._a = 1 %}",
    "{% filter upper %}a{{ n }}{% set y = 1 %}{% endfilter %}{{ y }}",
    "{% filter replace('a', 'b')|upper %}a{% filter lower %}XA{% endfilter %}"
    "{% endfilter %}",
    "{% filter default(n) %}{% endfilter %}", "{% filter %}{% endfilter %}",
    "{% filter upper|nosuch %}{% endfilter %}",
    "{% print 1, 'a' %}{% print n %}{% print %}", "{% print 1 2 %}",
    # expressions
    "{{ 1 if true }}{{ 1 if false }}{{ (1 if false) is defined }}"
    "{{ 1 if n else 2 if e else 3 }}{{ (1 if e else 2) if n else 3 }}",
    "{{ 1 if n if e else 3 }}{{ 1 if e if n else 3 }}{{ 1 if n if n }}",
    "{{ [1 if e else 2, 3 if n else 4] }}{{ {'a': 1 if n else 2} }}"
    "{{ (1 if e else 2, 3) }}{{ 'x' ~ (1 if n else 2) ~ 'y' }}",
    "{{ 'a' if e else 'b' if e else 'c' ~ 'd' }}",
    "{{ 1 < 2 < 3 }}{{ 1 < 2 > 1 }}{{ 3 > 2 > 2 }}{{ 1 == 1 != 2 }}"
    "{{ 1 in [1] in [[1]] }}{{ 1 < 2 in [2] }}{{ 2 > 1 > u.x }}",
    "{{ 1 > 2 > u.x }}{{ e and u.x }}{{ n or u.x }}",
    "{{ not true }}{{ not not e }}{{ not n == 3 }}{{ not n and e }}"
    "{{ not e or n }}{{ (not e) and n }}",
    "{{ n is not none }}{{ n is not string }}{{ not n is string }}"
    "{{ n is number and s is string }}{{ n is odd or u.x }}",
    "{{ n is divisibleby 3 }}{{ n is divisibleby(3) }}{{ 4 is divisibleby 2 "
    "and true }}{{ n is in [3] }}{{ n is eq 3 }}"
    "{{ 3 is eq n + 0 }}",
    "{{ n is odd is even }}", "{{ n is }}", "{{ n is not }}",
    "{{ 7 // 2 }}{{ -7 // 2 }}{{ 7 % -3 }}{{ -7 % 3 }}{{ 7 / 2 }}{{ 6 / 2 }}",
    "{{ 7.5 / 2 }}{{ 1.5 * 3 }}{{ 1 - 0.1 }}{{ range(9)[2:7:2] }}",
    "{{ 2 ** 10 }}", "{{ 7.5 // 2 }}", "{{ 7.5 % 2 }}", "{{ 0.0 ** -1 }}",
    "{{ 1 // 0 }}", "{{ 1.0 % 0 }}", "{{ 1 + none }}",
    "{{ 'a' + 1 }}", "{{ [1] + (2,) }}",
    "{{ 'a' - 'b' }}", "{{ u + 1 }}", "{{ -'a' }}", "{{ +u }}", "{{ - - 3 }}"
    "{{ -true }}{{ +true }}{{ -1.5 }}{{ - n|abs }}{{ -n ~ 'x' }}",
    "{{ 'a' ~ 1 + 2 ~ 'b' }}", "{{ 1 ~ 2 * 3 }}{{ 1 + 2 ~ 3 }}"
    "{{ 2 * 'ab' }}{{ [1] * 2 }}{{ (1,) * 2 }}{{ 'a' * -1 }}{{ true + 1 }}",
    "{{ u ~ 'x' }}{{ none ~ 1.0 ~ [1] }}{{ ('<'|safe) ~ '<' + '<' }}",
    "{{ 1 == 1.0 }}{{ true == 1 }}{{ 'a' == 1 }}{{ u == u }}{{ none == u }}"
    "{{ [1] == [1.0] }}{{ (1,) == [1] }}{{ {'a': 1} == {'a': 1} }}"
    "{{ {} == [] }}{{ 'a' != 'b' }}{{ d.keys() == ['b'] }}",
    "{{ 'a' < 'b' }}{{ [1, 2] < [1, 3] }}{{ (1,) < (1, 2) }}{{ 1 < 1.5 }}",
    "{{ 'a' < 1 }}", "{{ none < 1 }}", "{{ u < 1 }}", "{{ {} < {} }}",
    "{{ 'a' in 'abc' }}{{ 'a' not in 'abc' }}{{ 1 in [1] }}{{ 'k' in d }}"
    "{{ '' in '' }}{{ 'x' in u }}{{ 1 in (1, 2) }}{{ 1.0 in [1] }}",
    "{{ 1 in 'a1' }}", "{{ 1 in 5 }}", "{{ [] in d }}", "{{ a not b }}",
    "{{ s[0] }}{{ s[-1] }}{{ s[99] }}{{ s[1:3] }}{{ s[:-1] }}{{ s[::-1] }}"
    "{{ s[::2] }}{{ s[5:1:-2] }}{{ s[10:] }}{{ s[-99:2] }}{{ s[:] }}{{ s[::] }}",
    "{{ l[0] }}{{ l[-1] }}{{ l[9] }}{{ l[1:] }}{{ l[::-1] }}{{ l[::2] }}"
    "{{ l[5:1:-2] }}{{ (1, 2, 3)[1:] }}{{ l[true] }}{{ l[none:2] }}{{ l[1:none] }}",
    "{{ l[::0] }}", "{{ l['a':] }}", "{{ l[u:] }}", "{{ d[1:] }}", "{{ n[1:] }}",
    "{{ u[1:] }}", "{{ l[1.0] }}|{{ l['x'] }}|{{ d[u] }}|{{ d[none] }}",
    "{{ d['b'] }}{{ d.b }}{{ d.nosuch }}{{ d['items'] }}{{ d.get('b') }}"
    "{{ d.keys()|list }}{{ d['b' ~ ''] }}{{ s.upper() }}{{ s['upper']() }}",
    "{{ u.x }}", "{{ u['x'] }}", "{{ none.x }}|{{ n.x }}|{{ none['x'] }}",
    "{{ deep.0.1 }}{{ deep.0.1.k }}{{ deep[0].1 }}{{ 'ab'.1 }}{{ d.0 }}",
    "{{ l.1e3 }}", "{{ l.-1 }}", "{{ deep.0x0.1 }}", "{{ l. 1 }}{{ d . b }}",
    "{{ l[0, 1] }}", "{{ l[] }}", "{{ l[1:2:3:4] }}", "{{ l[1 }}",
    "{{ x.__class__ }}", "{{ s.__class__ }}|{{ d['__len__'] }}",
    "{{ 'a' 'b' \"c\" }}{{ 'a' ~ 'b' 'c' }}{{ ('x' 'y')|upper }}",
    "{{ 0x1F }}", "{{ '\\101' }}", "{{ 1_000 }}{{ 1_0.5_0 }}{{ 1e3 }}"
    "{{ 1E-2 }}{{ 1.5e+2 }}{{ 0 }}{{ 0.5 }}",
    "{{ 012 }}", "{{ 1__0 }}", "{{ 1. }}", "{{ .5 }}", "{{ 0x }}", "{{ 1a }}",
    "{{ '\\x41\\u00e9\\n\\t\\\\\\'\\q' }}", "{{ '\\x4' }}", "{{ '\\u12' }}",
    "{{ 'a\\\nb' }}", "{{ 'a\nb' }}", "{{ '\\ud800' }}", "{{ \"a'b\" 'c\"d' }}",
    "{{ (1) }}{{ (1,) }}{{ () }}{{ (1, 2,) }}{{ 1, 2 }}{{ 1, }}{{ [1, 2,] }}"
    "{{ {'a': 1,} }}{{ {1: 2, none: 3, 1.5: 4, true: 5} }}{{ [[], {}, ()] }}",
    "{{ {[]: 1} }}", "{{ {'a'} }}", "{{ {'a': } }}", "{{ (1, }}", "{{ [1 2] }}",
    "{{ (1 }}", "{{ 1) }}", "{{ [1) }}", "{{ , }}", "{{ 1 + }}", "{{ * 2 }}",
    "{{ a = 1 }}", "{{ a; b }}", "{{ a ! b }}", "{{ a && b }}", "{{ → }}",
    "{{ 변수 }}{% set 변수 = 3 %}{{ 변수 }}", "{{ not }}", "{{ if }}",
    "{{ True }}{{ False }}{{ None }}{{ true }}{{ none }}{{ TRUE }}",
    "{{ s|upper|lower|length }}{{ s|replace('a', 'b')|first }}",
    "{{ s | upper ~ 'x' }}{{ -n|abs }}{{ (-n)|abs }}{{ n|string + 'x' }}",
    "{{ s|first.x }}", "{{ s|upper[0] }}", "{{ s|nosuch.x }}", "{{ s| }}",
    "{{ n|nosuch if false else 1 }}", "{% if false %}{{ n|nosuch }}{% endif %}",
    "{% if n is nosuch %}{% endif %}", "{% if n %}{% else %}{{ n|nosuch }}"
    "{% endif %}", "{% if n %}{% for x in l %}{{ n|nosuch }}{% endfor %}{% endif %}",
    # tags, white space, comments, raw
    "{% if n %}a{% elif e %}b{% else %}c{% endif %}{% if e %}a{% elif n %}b"
    "{% else %}c{% endif %}{% if e %}a{% elif e %}b{% else %}c{% endif %}",
    "{% if e %}a{% elif e %}b{% elif n %}c{% elif n %}d{% endif %}|"
    "{% if n, e %}t{% endif %}{% if n: %}x{% elif e: %}y{% else: %}z{% endif %}",
    "{% if n %}{% else %}{% else %}{% endif %}", "{% if n %}{% else %}{% elif n "
    "%}{% endif %}", "{% endif : %}", "{% if %}{% endif %}", "{% if n %}{% endif x %}",
    "{% include 'x' %}", "{% import 'x' as y %}", "{% extends 'x' %}",
    "{% from 'x' import y %}", "{% do 1 %}", "{% trans %}{% endtrans %}",
    "{% debug %}", "{% %}", "{% nosuch %}", "{% else %}", "{% endfor %}",
    "  {% if n %}\n  a\n  {% endif %}\n  b {% if n %} c {% endif %}\n",
    "a  {%- if n -%}  b  {%- endif -%}  c", "a\n\n{%- if n %}\n\nb{% endif -%}\n c",
    "  {%+ if n %}\n a{%+ endif +%}\n b", "{{- n -}}  a {{ n -}}\n b\n  {{- n }}",
    "  {{ n }}\n  {{ n }}\n\n", "a {#- c -#} b {# c #}\n d\n  {# c #}\n e {#c#} f",
    "{#-#}  a", "{##}a", "{#+ c +#}\n a", "{# {{ n }} {% if %} #}b",
    "{# a", "{{ '{#' }}", "{{ '}}' }}{{ \"%}\" }}{{ {'a': {'b': 1}}['a']['b'] }}",
    "{% raw %}{{ n }}{% if %}{# x #}{% endraw %}", "a {%- raw -%} {{ x }} "
    "{%- endraw -%} b", "  {% raw %}\n x\n  {% endraw %}\n y",
    "{% raw %} {% endraw +%}\n z", "{% raw +%}x{% endraw %}", "{% raw %}",
    "a\r\nb\rc\n{% if n %}\r\nd\r\n{% endif %}\r\ne\r\n", "a\n\n\n", "\n",
    "{{ n }}\n\n{{ n }}\n", "\t{% if n %}\t\n\tx{% endif %}", "a{% if n %}\n\n"
    "b{% endif %}\n\nc", "{%if n%}a{%endif%}", "{%\n if\n n\n %}x{%\nendif\n%}",
    "{{\n n\n }}", "{ { n } }", "{{ n }", "{% if n }", "{ % x % }", "}} %} #}",
    "\u3000{% if n %}x{% endif %}", "x{{ n }}\n {% if n %}y{% endif %}",
    "{% generation %}{{ n }}{% set y = 1 %}{% endgeneration %}{{ y }}",
]
LANGUAGE_VALUES = {
    "n": 3, "s": "가나다 abc", "l": [3, 1, 2], "e": [],
    "d": {"b": 1, "items": "x"}, "deep": [[1, {"k": "v"}]],
    "tree": [{"v": 1, "c": [{"v": 2, "c": []}, {"v": 3, "c": None}]},
             {"v": 4, "c": []}]}
# Statements of jinja2 that are refused, and what those get that use them.
LEFT_OUT = re.compile(
    r"\{%-? (call|print)|caller|varargs|kwargs|recursive|loop\(")
REFUSAL = re.compile(
    "not supported|too many macro arguments|no such parameter")
# What Python does and chat templates get a reason for, by a word of it.
UNLIKE = {
    "{{ l[0, 1] }}": "several indices",
    "{{ l[] }}": "expected an index",
    "{{ 2 ** 10 }}": "'**' is not supported",
    "{{ 7.5 // 2 }}": "'% or // of a float' is not supported",
    "{{ 7.5 % 2 }}": "'% or // of a float' is not supported",
    "{{ 7.5 / 2 }}{{ 1.5 * 3 }}{{ 1 - 0.1 }}{{ range(9)[2:7:2] }}":
        "'a slice of a range' is not supported",
    "{% macro m(a, b=2) %}{% set x = varargs %}{% endmacro %}{{ m.name }}":
        "'an attribute of a macro or function' is not supported",
    "{{ 0x1F }}": "base 2, 8 or 16 is not supported",
    "{{ deep.0x0.1 }}": "base 2, 8 or 16 is not supported",
    "{{ '\\101' }}": "octal is not supported",
    "{{ x.__class__ }}": "of an undefined value",
    "{% raw %}": "raw does not end",
}


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
    return record_of([template, json.dumps(messages, ensure_ascii=False),
                      "" if tools is None else json.dumps(tools),
                      json.dumps(switches, ensure_ascii=False)], flags)


def record_of(texts, flags):
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
        return RuntimeError(self.take(size).decode(errors="replace"))


def line_of(error):
    """The template's line that a Python exception names, the innermost; None
    when the template had ended."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return error.lineno
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__)
             if f.filename in ("<template>", "<unknown>")]
    return lines[-1] if lines else None


RAISED = 400            # bytes that are reported of a raise_exception


def same_error(template, want, got):
    """Whether an error of ours says what Python's exception does."""
    said = re.fullmatch(r"chat template, line (\d+): (.*\w.*)", str(got))
    first = line_of(want)
    if first is None:
        return str(got).endswith("cannot be continued")
    if not isinstance(got, Exception) or not said:
        return False
    line = int(said[1])
    lines = template.split("\n")
    if not first <= line <= len(lines) or \
            re.search("[%}]}", "\n".join(lines[first - 1:line - 1])):
        return False
    if type(want) is not jinja2.TemplateError:
        return True
    text = str(want).encode()[:RAISED].decode(errors="ignore")
    return said[2] == "the template refuses: " + re.sub(
        "[\\0-\x1f\x7f]", "?", text)


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
            cases.append((path.name, name, template, reference(
                template, messages, tools, switches, flags)))
            records.append(record(template, messages, tools, switches, flags))
    for template in PROGRAMS:
        want = reference(template, PARTS, None, VALUES, 0)
        assert isinstance(want, bytes), template
        cases.append(("PROGRAMS", repr(template), template, want))
        records.append(record(template, PARTS, None, VALUES, 0))
    for template in FAULTS:
        want = reference(template, [HI], None, {}, 0)
        assert isinstance(want, Exception), template
        cases.append(("FAULTS", repr(template), template, want))
        records.append(record(template, [HI], None, {}, 0))
    for template in LANGUAGE:
        want = reference(template, [], None, LANGUAGE_VALUES, 0)
        cases.append(("LANGUAGE", repr(template), template, want))
        records.append(record(template, [], None, LANGUAGE_VALUES, 0))
    answers = Answers([render], records)
    passed = failed = errors = raised = late = 0
    for path, name, template, want in cases:
        got = answers.next()
        if path == "LANGUAGE" and isinstance(got, Exception):
            same = isinstance(want, Exception) or \
                UNLIKE.get(template, "?") in str(got) or (
                    bool(LEFT_OUT.search(template)
                         and REFUSAL.search(str(got))))
        else:
            same = got == want if isinstance(want, bytes) else \
                same_error(template, want, got)
        errors += same and isinstance(want, Exception)
        raised += same and type(want) is jinja2.TemplateError
        late += same and isinstance(want, ValueError) and \
            line_of(want) is None
        passed += same
        failed += not same
        if not same and failed <= shown:
            show(path, name, want, got)
    print(f"{len(paths)} templates, {len(CONVERSATIONS)} conversations, "
          f"{len(PROGRAMS)} programs, {len(FAULTS)} faults, "
          f"{len(LANGUAGE)} of the language: "
          f"{passed - errors} texts are the same, "
          f"{errors - late} errors have the same line, {raised} of them the "
          f"text that the template raised, {late} come behind its end")
    return passed, failed


# How the answers of a model are written, by the name of its template.
WIRES = {
    "EXAONE-4.0-1.2B__chat_template.jinja": "json",
    "Qwen-Qwen3-0.6B.jinja": "json",
    "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use.jinja": "json",
    "HyperCLOVAX-SEED-Think-32B__chat_template.jinja": "glm",
    "HyperCLOVAX-SEED-Omni-8B__chat_template.jinja": "glm",
    "GLM-4.6.jinja": "glm",
    "Qwen3-Coder.jinja": "qwen-coder",
    "Qwen3.5-4B.jinja": "qwen-coder",
    "Solar-Open-100B__chat_template.jinja": "solar",
    "upstage-Solar-Open-100B.jinja": "solar",
}
ANSWERS = [
    assistant("대한민국의 <b>수도</b>는\n\n서울입니다."),
    assistant("서울입니다.", reasoning_content=THOUGHT),
    assistant("", tool_calls=[WEATHER]),
    assistant("찾아보겠습니다.", tool_calls=[WEATHER]),
    assistant("", tool_calls=[WEATHER, call("get_weather", {
        "city": "부산 <tool 1>\n\"둘\""})], reasoning_content=THOUGHT),
    # closing marks inside of arguments are text
    assistant("", tool_calls=[call("write_file", {
        "text": "a</parameter>b</arg_value>c</tool_call><tool_call>"
                "</arguments><|tool_call:end|><|calls|></think>\n"})])]


def parts_of(blob):
    """(reasoning, text, calls) of what the splitter gave."""
    thinking, text, calls = "", "", []
    for part in blob.decode().split("\1")[1:]:
        kind, body = part[0], part[1:]
        if kind == "R":
            thinking += body
        elif kind == "T":
            text += body
        elif kind == "C":
            calls.append([body])
        elif kind == "A":
            calls[-1].append(json.loads(body))
    return thinking, text, calls


def check_wires(render, paths, shown):
    cases, records, left = [], [], 0
    for path in paths:
        wire = WIRES.get(path.name)
        template = path.read_bytes().decode()
        for answer in ANSWERS if wire else []:
            for think in (True, False):
                switches = {**SPECIAL, "enable_thinking": think,
                            "thinking": think, "think_render_option": "all"}
                prompt = reference(template, [HI], TOOLS, switches, 1)
                whole = reference(template, [HI, answer], TOOLS, switches, 0)
                if not isinstance(whole, bytes) or \
                        not whole.startswith(prompt):
                    left += 1       # its history leaves out what it prompts
                    continue
                want = ["", answer["content"],
                        [[c["function"]["name"], c["function"]["arguments"]]
                         for c in answer.get("tool_calls", [])]]
                said = whole[len(prompt):].decode()
                # some leave reasoning out, or the text beside a call
                if THOUGHT.split("\n")[0] in said:
                    want[0] = answer["reasoning_content"]
                if answer.get("tool_calls") and want[1] not in said:
                    want[1] = ""
                cases.append((path.name, said, tuple(want)))
                records.append(record_of([wire, prompt.decode(), said, ""], 8))
    answers = Answers([render], records)
    failed = 0
    for path, said, want in cases:
        got = answers.next()
        got = parts_of(got) if isinstance(got, bytes) else got
        # the marks that end a turn are stop tokens, not the splitter's
        if isinstance(got, tuple):
            got = (got[0], re.sub(r"(<\|im_end\|>|\[\|endofturn\|\])\s*$", "",
                                  got[1]).strip("\n"), got[2])
        failed += got != want
        if got != want and failed <= shown:
            show(path, repr(said), want, got)
    print(f"answers as {len(WIRES)} templates write them: "
          f"{len(cases) - failed} of {len(cases)} are split into what they "
          f"were made of ({left} do not follow the prompt)")
    return len(cases) - failed, failed


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
    parser.add_argument("--all", action="store_true",
                        help="all calls of check_builtins, not every fifth")
    parser.add_argument("paths", nargs="*")
    args = parser.parse_args()
    hf.datetime = FixedTime
    paths = list(find(args.paths))
    passed, failed = check_texts(args.render, paths, args.shown)
    p, f = check_wires(args.render, paths, args.shown)
    passed += p
    failed += f
    p, f = check_builtins.check(args.render, args.shown, reference, record,
                                Answers, 1 if args.all else 5)
    passed += p
    failed += f
    for gguf, tokenizer, template in args.ids:
        p, f = check_ids(args.render, gguf, tokenizer, template, args.shown)
        passed += p
        failed += f
    print(f"{passed} passed, {failed} failed")
    return failed != 0 or passed == 0


if __name__ == "__main__":
    sys.exit(main())
