"""test_openai.py COMMAND... - a server against PyPI's openai.

COMMAND as for test_http.py. Ends with "N passed, N failed".
"""
import json
import signal
import subprocess
import sys
import time

import openai

HELLO = ('안녕하세요, 반가워요 👩‍👩‍👧‍👦🇰🇷! "따옴표" \\ and a tab\t<b>.\n'
         '둘째 줄입니다.')
TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}}}}]
passed = failed = 0


def check(what, holds):
    global passed, failed
    passed, failed = passed + bool(holds), failed + (not holds)
    if not holds:
        print("failed:", what)


def user(text):
    return [{"role": "user", "content": text}]


def stream_of(**body):
    """Text, calls, the last reason, usage."""
    text, calls, reason, usage = "", {}, None, None
    for event in client.chat.completions.create(
            model=MODEL, stream=True, stream_options={"include_usage": True},
            **body):
        usage = event.usage or usage
        for choice in event.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or []:
                call = calls.setdefault(part.index, [None, None, ""])
                call[0] = part.id or call[0]
                call[1] = part.function.name or call[1]
                call[2] += part.function.arguments or ""
    return text, calls, reason, usage


def refused(**body):
    try:
        client.chat.completions.create(**{"model": MODEL, **body})
    except openai.BadRequestError as error:
        return error
    return None


def run():
    global client, MODEL
    client = openai.OpenAI(base_url=url, api_key="x", max_retries=0,
                           timeout=30)
    MODEL = client.models.list().data[0].id
    check("models", MODEL == "parrot.gguf" and
          client.models.retrieve(MODEL).id == MODEL)
    made = client.chat.completions.create(model=MODEL, messages=user("hi"))
    check("text", made.choices[0].message.content == HELLO)
    check("reason", made.choices[0].finish_reason == "stop")
    check("usage", made.usage.total_tokens > made.usage.completion_tokens > 5)
    text, _, reason, usage = stream_of(messages=user("hi"))
    check("stream", (text, reason) == (HELLO, "stop"))
    check("the cache is used", usage.prompt_tokens_details.cached_tokens > 5)

    made = client.chat.completions.create(
        model=MODEL, messages=user("weather"), tools=TOOLS)
    message = made.choices[0].message
    check("call", made.choices[0].finish_reason == "tool_calls" and json.loads(
        message.tool_calls[0].function.arguments)["city"] == "서울")
    made = client.chat.completions.create(
        model=MODEL, tools=TOOLS, messages=user("weather") + [
            message, {"role": "tool", "content": "맑음",
                      "tool_call_id": message.tool_calls[0].id}])
    check("after the call",
          made.choices[0].message.content == "서울은 맑습니다 ☀️")
    _, calls, reason, _ = stream_of(messages=user("weather"), tools=TOOLS)
    check("call as a stream", reason == "tool_calls" and len(calls) == 1
          and calls[0][0] and calls[0][1] == "get_weather"
          and json.loads(calls[0][2]) == {"city": "서울", "days": 2})

    check("stop", stream_of(messages=user("count"), stop=[" 넷"])[0]
          == "하나 둘 셋")
    check("length", stream_of(messages=user("count"), max_tokens=9)[2]
          == "length")
    check("parts", client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": [
            {"type": "text", "text": "hi"}]}]).choices[0].message.content
        == HELLO)
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}},
              "required": ["ok"], "additionalProperties": False}
    check("json_schema", type(json.loads(client.chat.completions.create(
        model=MODEL, messages=user("hi"), max_tokens=60, response_format={
            "type": "json_schema", "json_schema": {
                "name": "x", "strict": True, "schema": schema}})
        .choices[0].message.content)["ok"]) is bool)
    check("wrong schema", refused(messages=user("hi"), response_format={
        "type": "json_schema", "json_schema": {
            "name": "x", "schema": {"type": 3}}}).param == "response_format")
    check("no messages", refused(messages=[]).param == "messages")
    check("too long", refused(messages=user("x" * 9000)).code ==
          "context_length_exceeded")

    events = client.chat.completions.create(model=MODEL, stream=True,
                                            messages=user("count"))
    for i, _ in enumerate(events):
        if i == 5:
            break
    events.close()
    begun = time.monotonic()
    client.chat.completions.create(model=MODEL, messages=user("x"),
                                   max_tokens=1)
    check("left", time.monotonic() - begun < 1)


process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE)
url = process.stdout.readline().decode().strip()
try:
    run()
finally:
    process.send_signal(signal.SIGINT)
    check("ends", process.wait(10) is not None)
print("%d passed, %d failed" % (passed, failed))
sys.exit(failed > 0)
