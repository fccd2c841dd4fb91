"""test_http.py COMMAND... - a server of OpenAI's interface, by hand.

COMMAND starts it on the model of parrot.c and a port of its choice, and prints
its address first. Plain sockets, nothing to install: what a client library
would not send. AT_ONCE=1 says that it gives several answers at once. Ends with
"N passed, N failed".
"""
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
from urllib.parse import urlsplit

COMMAND = sys.argv[1:]
del sys.argv[1:]
HELLO = ('안녕하세요, 반가워요 👩‍👩‍👧‍👦🇰🇷! "따옴표" \\ and a tab\t<b>.\n'
         '둘째 줄입니다.')
COUNT = "하나 둘 셋 넷 다섯 여섯 일곱 여덟 아홉 열 "
PATH = "/v1/chat/completions"
TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "parameters": {"type": "object"}}}]


class Http:
    """One connection. Reads answers with a length, in chunks, or to its end."""

    def __init__(self):
        self.sock = socket.create_connection(ADDRESS, timeout=20)
        self.file = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data if isinstance(data, bytes) else data.encode())

    def head(self):
        line = self.file.readline().split()
        headers = {}
        while True:
            row = self.file.readline().decode().strip()
            if not row:
                break
            name, value = row.split(":", 1)
            headers[name.lower()] = value.strip()
        return (int(line[1]) if line else 0), headers

    def chunks(self):
        while True:
            size = int(self.file.readline(), 16)
            data = self.file.read(size)
            assert self.file.readline() == b"\r\n"
            if not size:
                return
            yield data

    def answer(self):
        status, headers = self.head()
        if "content-length" in headers:
            data = self.file.read(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            data = b"".join(self.chunks())
        else:
            data = self.file.read()
        return status, headers, data

    def post(self, body, path=PATH, more="", version="1.1"):
        body = body if isinstance(body, bytes) else json.dumps(
            body, ensure_ascii=False).encode()
        self.send("POST %s HTTP/%s\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n"
                  % (path, version, more, len(body)))
        self.send(body)


def ask(text, **more):
    return dict(more, messages=[{"role": "user", "content": text}])


def post(body, **more):
    with Http() as http:
        http.post(body, **more)
        status, _, data = http.answer()
        return status, json.loads(data)


def events(data):
    assert data.endswith(b"data: [DONE]\n\n"), data[-100:]
    return [json.loads(e[6:]) for e in data.decode().split("\n\n")[:-2]]


class Server(unittest.TestCase):
    def said(self, body):
        status, answer = post(body)
        self.assertEqual(status, 200, answer)
        return answer["choices"][0]["message"]

    def refused(self, body, status=400, param=None, **more):
        got, answer = post(body, **more)
        self.assertEqual(got, status, answer)
        self.assertTrue(answer["error"]["message"])
        self.assertIn("type", answer["error"])
        if param:
            self.assertEqual(answer["error"]["param"], param)

    def usable(self, within=2.0):
        begun = time.monotonic()
        self.assertEqual(self.said(ask("hi"))["content"], HELLO)
        self.assertLess(time.monotonic() - begun, within)

    def test_answer(self):
        status, answer = post(ask("hi"))
        self.assertEqual(status, 200)
        self.assertEqual(answer["object"], "chat.completion")
        self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
        self.assertEqual(answer["choices"][0]["message"],
                         {"role": "assistant", "content": HELLO})
        usage = answer["usage"]
        self.assertEqual(usage["total_tokens"], usage["prompt_tokens"]
                         + usage["completion_tokens"])

    def test_thinking(self):
        message = self.said(ask("think"))
        self.assertEqual(message["reasoning_content"],
                         "곰곰이 생각해 봅니다 🤔")
        self.assertEqual(message["content"], "답은 둘입니다.")

    def test_call(self):
        status, answer = post(ask("weather", tools=TOOLS))
        choice = answer["choices"][0]
        self.assertEqual(choice["finish_reason"], "tool_calls")
        made = choice["message"]["tool_calls"][0]
        self.assertEqual(made["type"], "function")
        self.assertEqual(made["function"]["name"], "get_weather")
        self.assertEqual(json.loads(made["function"]["arguments"]),
                         {"city": "서울", "days": 2})
        talk = [{"role": "user", "content": "weather"}, choice["message"],
                {"role": "tool", "tool_call_id": made["id"],
                 "content": "맑음"}]
        self.assertEqual(self.said({"messages": talk, "tools": TOOLS})
                         ["content"], "서울은 맑습니다 ☀️")

    def test_stream(self):
        with Http() as http:
            http.post(ask("hi", stream=True))
            status, headers, data = http.answer()
            self.assertEqual(status, 200)
            self.assertIn("text/event-stream", headers["content-type"])
            got = events(data)
            self.assertEqual(got[0]["choices"][0]["delta"]["role"],
                             "assistant")
            self.assertEqual("".join(
                e["choices"][0]["delta"].get("content", "") for e in got),
                HELLO)
            self.assertEqual(got[-1]["choices"][0]["finish_reason"], "stop")
            self.assertEqual(len({e["id"] for e in got}), 1)
            # and the connection goes on
            http.post(ask("hi"))
            self.assertEqual(http.answer()[0], 200)

    def test_stream_of_a_call(self):
        with Http() as http:
            http.post(ask("weather", tools=TOOLS, stream=True,
                          stream_options={"include_usage": True}))
            got = events(http.answer()[2])
        self.assertEqual(got[-1]["choices"], [])
        self.assertGreater(got[-1]["usage"]["completion_tokens"], 5)
        self.assertEqual(got[-2]["choices"][0]["finish_reason"], "tool_calls")
        deltas = [t for e in got[:-1] for t in
                  e["choices"][0]["delta"].get("tool_calls", [])]
        self.assertTrue(deltas[0]["id"])
        self.assertEqual({t["index"] for t in deltas}, {0})
        self.assertEqual(json.loads("".join(
            t["function"].get("arguments", "") for t in deltas)),
            {"city": "서울", "days": 2})

    def test_http_1_0(self):
        with Http() as http:
            http.post(ask("hi", stream=True), version="1.0")
            status, headers, data = http.answer()
            self.assertNotIn("transfer-encoding", headers)
            self.assertIn(b"[DONE]", data)

    def test_options(self):
        status, answer = post(ask("count", max_tokens=5))
        self.assertEqual(answer["choices"][0]["finish_reason"], "length")
        self.assertEqual(answer["usage"]["completion_tokens"], 5)
        self.assertEqual(self.said(ask("count", stop=" 넷"))["content"],
                         "하나 둘 셋")
        self.assertEqual(self.said(ask("count", stop=["x", "둘"]))["content"],
                         "하나 ")
        self.assertEqual(self.said(ask(
            "hi", temperature=0, top_p=0.5, seed=7, user="u", n=1,
            max_completion_tokens=500, presence_penalty=None))["content"],
            HELLO)

    def test_content_in_parts(self):
        body = {"messages": [{"role": "user", "content": [
            {"type": "text", "text": "thi"}, {"type": "text", "text": "nk"}]}]}
        self.assertIn("reasoning_content", self.said(body))
        body["messages"][0]["content"][0] = {
            "type": "image_url", "image_url": {"url": "data:"}}
        self.refused(body)

    def test_escapes(self):
        body = (b'{"messages": [{"role": "user", "content": '
                b'"\\ud83d\\ude42 \\u0074hink \\"\\\\\\n"}]}')
        self.assertIn("reasoning_content", self.said(body))

    def test_wrong_bodies(self):
        for body in (b"", b"{", b"[]", b"3", b"{}", b'{"messages": 3}',
                     b'{"messages": []}', b'{"messages": [3]}',
                     b'{"messages": [{}]}', b'{"messages": [{"role": 3}]}',
                     b'{"messages": [{"role": "user"}] "stream": true}',
                     b'{"messages": [{"role": "user", "content": "x"}]} x',
                     b"[" * 100000, b'{"a":' * 100000,
                     b'{"messages": "' + b"x" * 1000 + b"\xff",
                     b'\x00\x01\x02'):
            self.refused(body)

    def test_wrong_options(self):
        for name, value in (
                ("temperature", "hot"), ("temperature", -1),
                ("temperature", 1e99), ("top_p", []), ("max_tokens", 1.5),
                ("max_tokens", -3), ("stop", 5), ("stop", [5]),
                ("stop", ["x"] * 17), ("stop", "x" * 200), ("tools", 3),
                ("stream_options", 3), ("chat_template_kwargs", [1])):
            self.refused(ask("hi", **{name: value}))

    def test_not_yet(self):
        self.refused(ask("hi", n=2), param="n")
        self.refused(ask("hi", tools=TOOLS,
                         response_format={"type": "json_object"}),
                     param="response_format")

    def answer_of(self, **options):
        """A message, the same in one piece and as a stream."""
        asked = ask("hi", max_tokens=80, seed=7, **options)
        status, whole = post(asked)
        self.assertEqual(status, 200, whole)
        message = whole["choices"][0]["message"]
        with Http() as http:
            http.post(dict(asked, stream=True))
            status, _, data = http.answer()
        deltas = [e["choices"][0]["delta"] for e in events(data)
                  if e["choices"]]
        self.assertEqual("".join(d.get("content", "") for d in deltas),
                         message["content"])
        return message, whole["choices"][0]["finish_reason"]

    def test_json(self):
        message, _ = self.answer_of(response_format={"type": "json_object"})
        self.assertIsInstance(json.loads(message["content"]), dict)
        schema = {"type": "object", "required": ["city", "days"],
                  "properties": {"city": {"enum": ["서울", "부산"]},
                                 "days": {"type": "integer", "minimum": 1,
                                          "maximum": 7}},
                  "additionalProperties": False}
        for strict in True, False:
            message, reason = self.answer_of(response_format={
                "type": "json_schema", "json_schema": {
                    "name": "x", "strict": strict, "schema": schema}})
            data = json.loads(message["content"])
            self.assertEqual(sorted(data), ["city", "days"])
            self.assertIn(data["city"], ("서울", "부산"))
            self.assertIn(data["days"], range(1, 8))
            self.assertIn(reason, ("stop", "length"))

    def test_wrong_formats(self):
        bad = [3, {}, {"type": "xml"}, {"type": "json_schema"}]
        for given in 3, {"name": "x"}, {"schema": 3}, \
                {"schema": {"type": 3}}, \
                {"strict": True, "schema": {"contains": {"minimum": 3}}}:
            bad.append({"type": "json_schema", "json_schema": given})
        for form in bad:
            self.refused(ask("hi", response_format=form),
                         param="response_format")

    def test_required_calls(self):
        one = {"type": "function", "function": {"name": "get_weather"}}
        form = {"type": "json_object"}
        for choice, more in ("required", {}), (one, {}), \
                ("required", {"response_format": form}):
            message, reason = self.answer_of(tools=TOOLS, tool_choice=choice,
                                             **more)
            self.assertEqual(reason, "tool_calls")
            for call in message["tool_calls"]:
                self.assertEqual(call["function"]["name"], "get_weather")
                self.assertIsInstance(
                    json.loads(call["function"]["arguments"]), dict)
        message, _ = self.answer_of(tools=TOOLS, tool_choice="none",
                                    response_format=form)
        self.assertIsInstance(json.loads(message["content"]), dict)
        self.refused(ask("hi", tool_choice="required"), param="tool_choice")
        for choice in ("some", 3, {"type": "function"}, {"function": {
                "name": "nothing"}}, {"function": {"name": "x" * 5000}}):
            self.refused(ask("hi", tools=TOOLS, tool_choice=choice),
                         param="tool_choice")

    def test_too_long(self):
        status, answer = post(ask("x" * 9000))
        self.assertEqual(status, 400)
        self.assertEqual(answer["error"]["code"], "context_length_exceeded")

    def test_too_big(self):
        with Http() as http:
            http.send("POST %s HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n"
                      % PATH)
            self.assertEqual(http.answer()[0], 413)

    def test_calls_that_grow(self):
        calls = b",".join([b'{"function":{"name":""}}'] * 20960)
        post(b'{"messages":[{"role":"assistant","tool_calls":[' + calls
             + b"]}]}")
        self.usable()

    def test_paths(self):
        self.refused(ask("hi"), 404, path="/v1/nothing")
        for path, status in (("/v1/models", 200), ("/health", 200),
                             ("/../etc/passwd", 404), ("/v1/models/no", 404)):
            with Http() as http:
                http.send("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                self.assertEqual(http.answer()[0], status)

    def test_wrong_http(self):
        for data in (b"\r\n\r\n", b"nonsense\r\n\r\n", b"\x16\x03\x01" * 50,
                     b"DELETE /v1/models HTTP/1.1\r\n\r\n",
                     b"POST " + PATH.encode() + b" HTTP/1.1\r\n\r\n",
                     b"POST " + PATH.encode() + b" HTTP/1.1\r\n"
                     b"Content-Length: -5\r\n\r\n",
                     b"POST " + PATH.encode() + b" HTTP/1.1\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                     b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20000 + b"\r\n",
                     b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\n\r\n"):
            with Http() as http:
                try:
                    http.send(data)
                    http.sock.shutdown(socket.SHUT_WR)
                    status, _ = http.head()
                except (OSError, ValueError):   # it may hang up at once
                    status = 0
            self.assertTrue(status == 0 or 400 <= status < 510, (data, status))
        self.usable()

    def test_requests_in_one_packet(self):
        body = json.dumps(ask("hi")).encode()
        one = b"POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (
            PATH.encode(), len(body), body)
        with Http() as http:
            http.send(one + one + one)
            for _ in range(3):
                self.assertEqual(http.answer()[0], 200)

    def test_byte_by_byte(self):
        body = json.dumps(ask("hi")).encode()
        with Http() as http:
            for b in b"POST %s HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (
                    PATH.encode(), len(body), body):
                http.send(bytes([b]))
            self.assertEqual(http.answer()[0], 200)

    def test_expect_100(self):
        body = json.dumps(ask("hi")).encode()
        with Http() as http:
            http.send("POST %s HTTP/1.1\r\nExpect: 100-continue\r\n"
                      "Content-Length: %d\r\n\r\n" % (PATH, len(body)))
            self.assertEqual(http.head()[0], 100)
            http.send(body)
            self.assertEqual(http.answer()[0], 200)

    def test_client_gone(self):
        for stream in (True, False):
            http = Http()
            http.post(ask("count", stream=stream))
            if stream:
                http.head()
                next(http.chunks())
            else:
                time.sleep(0.3)
            http.__exit__()
            begun = time.monotonic()
            self.assertEqual(self.said(ask("x", max_tokens=1))["role"],
                             "assistant")
            print("the client of %s is gone: next answer after %.0f ms" % (
                "a stream" if stream else "a message",
                1e3 * (time.monotonic() - begun)))
            self.assertLess(time.monotonic() - begun, 1)

    def test_gone_while_it_waits(self):
        busy = Http()
        busy.post(ask("count", stream=True))
        busy.head()
        for _ in range(5):
            with Http() as http:
                http.post(ask("count"))
        time.sleep(0.2)
        busy.__exit__()
        self.usable()

    def test_reader_that_does_not_read(self):
        with Http() as http:
            http.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            http.post(ask("count", stream=True))
            time.sleep(0.5)
            http.sock.close()
        self.usable()

    def test_several_at_once(self):
        out, threads = [], []

        def one(text, want):
            message = self.said(ask(text))
            out.append(message["content"] == want)
        for i in range(8):
            threads.append(threading.Thread(target=one, args=(
                ("hi", HELLO) if i % 2 else ("think", "답은 둘입니다."))))
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        self.assertEqual(out, [True] * 8)

    def counts_on(self, http, n):
        """Reads an answer to `count` of n tokens."""
        http.sock.settimeout(120)
        choice = json.loads(http.answer()[2])["choices"][0]
        text = choice["message"]["content"].rstrip("\ufffd")
        self.assertGreater(len(text), n / 2)
        self.assertTrue((COUNT * n).startswith(text), text)
        self.assertEqual(choice["finish_reason"], "length")

    @unittest.skipUnless(os.environ.get("AT_ONCE"), "one at a time")
    def test_joins(self):
        """A long answer does not hold up others, nor do they change it."""
        with Http() as http:
            http.post(ask("count", max_tokens=1500))
            time.sleep(0.1)
            self.test_thinking()
            self.test_stream_of_a_call()
            self.test_wrong_options()
            http.sock.settimeout(0)
            self.assertRaises(BlockingIOError, http.sock.recv, 1,
                              socket.MSG_PEEK)
            self.counts_on(http, 1500)

    def test_others_are_gone(self):
        with Http() as http:
            http.post(ask("count", max_tokens=300))
            for _ in range(3):
                with Http() as other:
                    other.post(ask("count", stream=True))
                    time.sleep(0.05)
            self.counts_on(http, 300)
        self.usable()

    def test_many_connections(self):
        idle = []
        try:
            for _ in range(100):
                idle.append(socket.create_connection(ADDRESS, timeout=5))
        except OSError:
            pass
        for sock in idle:
            sock.close()
        time.sleep(0.2)
        self.usable()


def begin():
    process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE)
    url = urlsplit(process.stdout.readline().decode().strip())
    return process, (url.hostname, url.port)


server, ADDRESS = begin()
try:
    ran = unittest.main(exit=False, verbosity=1).result
    alive = server.poll() is None
finally:
    server.send_signal(signal.SIGINT)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        print("it does not end", file=sys.stderr)
        server.send_signal(signal.SIGABRT)  # -X faulthandler: where it stands
        server.wait()
        alive = False
bad = len(ran.failures) + len(ran.errors) + (not alive)
sys.stderr.flush()
print("%d passed, %d failed" % (ran.testsRun + 1 - bad, bad))
sys.exit(bad > 0)
