"""server.py - OpenAI's chat completions for a GGUF file; Python alone.

    python3 server.py model.gguf                    # http://127.0.0.1:8080/v1
    python3 server.py model.gguf --port 9000 --ctx 8192

GET /v1/models, POST /v1/chat/completions with stream, tools, stop, usage; a
client that goes away ends its answer. One model, one session: requests wait for
each other, and a conversation that grows is evaluated once. For a try-out on
this machine: whoever may connect may use it, so for --host other than 127.0.0.1
set --key, and put TLS before it. examples/serve.c is the same without Python.
"""
import argparse
import hmac
import json
import secrets
import select
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ksllm import KsllmError, Model

MAX_BODY = 4 << 20
MAX_CONNECTIONS = 32
SECONDS = 20            # of silence, or of a client that does not read
NOT_YET = ("logprobs", "functions", "audio", "prediction")
SAMPLING = ("temperature", "top_p", "frequency_penalty", "presence_penalty")


class Refused(Exception):
    def __init__(self, text, param=None, status=400, code=None):
        super().__init__(text)
        self.param, self.status, self.code = param, status, code


def refused(error, param=None):     # by the library
    if error.status == "KSLLM_ERR_CONTEXT":
        return Refused(error.text, "messages", 400, "context_length_exceeded")
    busy = error.status in ("KSLLM_ERR_MEMORY", "KSLLM_ERR_STATE")
    return Refused(error.text, param, 500 if busy else 400)


# ---- a request: what OpenAI's clients send, as ksllm.py takes it ----

def number(body, name, kind=float, least=None):
    value = body.get(name)
    if value is None:
        return None
    try:
        if isinstance(value, (bool, str)) or kind(value) != value:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise Refused("%s must be %s" % (name, "an integer" if kind is int
                                         else "a number"), name) from None
    if least is not None and value < least:
        raise Refused("%s is less than %d" % (name, least), name)
    return kind(value)


def content(value):
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise Refused("content must be a string or a list", "messages")
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text" or \
                not isinstance(part.get("text"), str):
            raise Refused("content may have parts of text only", "messages")
    return "".join(part["text"] for part in value)


def call(value):        # arguments are JSON in a string there, an object here
    try:
        function = value["function"]
        return {"type": "function", "function": {
            "name": function["name"],
            "arguments": json.loads(function["arguments"] or "{}")}}
    except (KeyError, TypeError, ValueError):
        raise Refused("a call has a function with a name and arguments, "
                      "a string of JSON", "messages") from None


def message(value):
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise Refused("a message is an object with a role", "messages")
    made = dict(value, content=content(value.get("content")))
    if made["role"] == "developer":
        made["role"] = "system"
    if made.get("tool_calls"):
        if not isinstance(made["tool_calls"], list):
            raise Refused("tool_calls must be a list", "messages")
        made["tool_calls"] = [call(c) for c in made["tool_calls"]]
    else:
        made.pop("tool_calls", None)
    return made


def tools_of(body):
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools is not None and not isinstance(tools, list):
        raise Refused("tools must be a list", "tools")
    return tools if tools and choice != "none" else None


def named(choice):
    name = choice.get("function", {}).get("name") if isinstance(
        choice.get("function"), dict) else None
    if not isinstance(name, str):
        raise Refused("tool_choice names no function", "tool_choice")
    return name


def grammar_of(body, tools):
    """What the answer has to be, for Model.chat, and whose wish it is. Where a
    call must come, the form of other answers says nothing."""
    choice = body.get("tool_choice")
    form = body.get("response_format")
    if form is None:
        form = {"type": "text"}
    kind = form.get("type") if isinstance(form, dict) else None
    if choice not in (None, "auto", "none"):
        if choice != "required" and not isinstance(choice, dict):
            raise Refused("tool_choice is none, auto, required, or a function",
                          "tool_choice")
        if not tools:
            raise Refused("tool_choice without tools", "tool_choice")
        return {"kind": "tools", "source": tools, "calls": "required",
                "lenient": True, "tool": named(choice) if choice != "required"
                else None}, "tool_choice"
    if kind == "text":
        return None, None
    if tools:
        raise Refused('response_format beside tools: let tool_choice be "none" '
                      'for an answer of this form, or "required" for a call',
                      "response_format")
    if kind == "json_object":
        return {"kind": "schema", "source": {"type": "object"}}, \
            "response_format"
    given = form.get("json_schema") if kind == "json_schema" else None
    if not isinstance(given, dict) or "schema" not in given:
        raise Refused("response_format is text, json_object, or json_schema "
                      "with a schema", "response_format")
    return {"kind": "schema", "source": given["schema"],
            "lenient": given.get("strict") is not True}, "response_format"


def options_of(body):
    longest = number(body, "max_completion_tokens", int, 1) or \
        number(body, "max_tokens", int, 1)
    seed = number(body, "seed", int)
    options = {"max_tokens": min(longest or 0, 2 ** 32 - 1),
               "stop": body.get("stop") or (),
               "seed": secrets.randbits(63) if seed is None
               else seed % 2 ** 64}
    if isinstance(options["stop"], str):
        options["stop"] = [options["stop"]]
    if not isinstance(options["stop"], (list, tuple)) or \
            not all(isinstance(s, str) for s in options["stop"]):
        raise Refused("stop must be a string or a list of them", "stop")
    for name in SAMPLING:
        value = number(body, name)
        if value is not None:       # else what the model's file recommends
            options[name] = value
    return options


def request_of(data):
    """Messages, tools, variables, and options for Model.chat."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refused("the body is not JSON: %s" % error) from None
    if not isinstance(body, dict):
        raise Refused("the body must be an object")
    if not isinstance(body.get("messages"), list) or not body["messages"]:
        raise Refused("messages must be a list with one at least", "messages")
    for name in NOT_YET:
        if body.get(name):
            raise Refused("%s: not yet" % name, name)
    if body.get("n") not in (None, 1):
        raise Refused("n other than 1: not yet", "n")
    variables = body.get("chat_template_kwargs") or {}
    if not isinstance(variables, dict):
        raise Refused("chat_template_kwargs must be an object",
                      "chat_template_kwargs")
    if not isinstance(body.get("stream_options") or {}, dict):
        raise Refused("stream_options must be an object", "stream_options")
    if body.get("reasoning_effort"):
        variables["reasoning_effort"] = body["reasoning_effort"]
    tools, options = tools_of(body), options_of(body)
    options["grammar"], _ = grammar_of(body, tools)
    return body, ([message(m) for m in body["messages"]], tools,
                  variables), options


# ---- an answer ----

class Answer:
    """Parts as they come, as deltas; together, a message."""

    def __init__(self, name):
        self.base = {"id": "chatcmpl-" + secrets.token_hex(12),
                     "created": int(time.time()), "model": name}
        self.message = {"role": "assistant", "content": ""}
        self.calls, self.n_whole = [], 0      # calls, and how many have an end

    def delta(self, kind, text):
        """Takes a part, gives the delta that says it, or None."""
        key = {"text": "content", "thinking": "reasoning_content"}.get(kind)
        if key:
            self.message[key] = self.message.get(key, "") + text
            return {key: text}
        if kind == "call":
            self.calls.append({"id": "call_" + secrets.token_hex(8),
                               "type": "function",
                               "function": {"name": text, "arguments": ""}})
            first = dict(self.calls[-1], index=len(self.calls) - 1)
            first["function"] = dict(first["function"])
            return {"tool_calls": [first]}
        if kind == "arguments":
            self.calls[-1]["function"]["arguments"] += text
            return {"tool_calls": [{"index": len(self.calls) - 1,
                                    "function": {"arguments": text}}]}
        self.n_whole = len(self.calls)
        return None

    def reason(self, stop):
        if self.n_whole:
            return "tool_calls"
        return "stop" if stop in ("token", "text", "complete") else "length"

    def chunk(self, delta, reason=None):
        return dict(self.base, object="chat.completion.chunk", choices=[
            {"index": 0, "delta": delta, "logprobs": None,
             "finish_reason": reason}])

    def whole(self, stop, usage):
        if self.n_whole:
            self.message["tool_calls"] = self.calls[:self.n_whole]
        return dict(self.base, object="chat.completion", usage=usage, choices=[
            {"index": 0, "message": self.message, "logprobs": None,
             "finish_reason": self.reason(stop)}])


def usage_of(result):
    return {"prompt_tokens": result.n_prompt,
            "completion_tokens": result.n_generated,
            "total_tokens": result.n_prompt + result.n_generated,
            "prompt_tokens_details": {"cached_tokens": result.n_reused}}


def gone(sock):
    try:
        ready, _, _ = select.select([sock], [], [], 0)
        return bool(ready) and not sock.recv(1, socket.MSG_PEEK)
    except (OSError, ValueError):
        return True


# ---- HTTP ----

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "ksllm", ""
    timeout = SECONDS
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def send_json(self, status, value):
        data = json.dumps(value, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, error):
        kind = "server_error" if error.status >= 500 else \
            "invalid_request_error"
        self.send_json(error.status, {"error": {
            "message": str(error), "type": kind, "param": error.param,
            "code": error.code}})

    def send_error(self, code, message=None, explain=None):
        self.close_connection = True    # what http.server itself refuses
        self.refuse(Refused(message or "bad request", status=code))

    def answer(self, method):
        try:
            key = self.server.key
            given = self.headers.get("Authorization", "")
            if key and not hmac.compare_digest(given.encode(),
                                               b"Bearer " + key.encode()):
                self.close_connection = True    # its body is not read
                raise Refused("wrong key", status=401)
            method()
        except Refused as error:
            self.refuse(error)
        except (OSError, KsllmError):   # the client is gone, or the model
            self.close_connection = True

    def do_GET(self):
        self.answer(self.get)

    def do_POST(self):
        self.answer(self.post)

    def handle(self):
        try:
            super().handle()
        except OSError:
            pass                        # the client is gone, or too slow

    def get(self):
        card = {"id": self.server.name, "object": "model", "created": 0,
                "owned_by": "ksllm"}
        if self.path == "/v1/models":
            self.send_json(200, {"object": "list", "data": [card]})
        elif self.path == "/v1/models/" + self.server.name:
            self.send_json(200, card)
        elif self.path == "/health":
            self.send_json(200, {"status": "ok"})
        else:
            raise Refused("no such path", status=404)

    def body(self):
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or \
                int(length[:9]) > MAX_BODY or len(length) > 9:
            self.close_connection = True
            raise Refused("Content-Length, of at most %d" % MAX_BODY,
                          status=413 if length.isdigit() else 411)
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise ConnectionError
        return data

    def post(self):
        data = self.body()
        if self.path != "/v1/chat/completions":
            raise Refused("no such path", status=404)
        body, conversation, options = request_of(data)
        self.begun = False      # the head of a stream
        with self.server.turn:
            if gone(self.connection):
                raise ConnectionError
            over = threading.Event()
            watch = threading.Thread(target=self.watch, args=(over,))
            watch.start()
            try:
                self.complete(body, conversation, options)
            except KsllmError as error:
                self.fail(refused(error, grammar_of(body, conversation[1])[1]))
            except UnicodeEncodeError:
                self.fail(Refused("half of a surrogate pair", "messages"))
            finally:
                over.set()
                watch.join()

    def watch(self, over):
        """A client that has gone: also during the prompt."""
        while not over.wait(0.03):
            if gone(self.connection):
                self.server.model.cancel()

    def fail(self, error):
        if not self.begun:
            raise error
        self.close_connection = True
        self.event({"error": {"message": str(error), "type": "server_error",
                              "param": None, "code": error.code}})

    def complete(self, body, conversation, options):
        answer, model = Answer(self.server.name), self.server.model
        stream = body.get("stream") is True

        def on_part(kind, text):
            delta = answer.delta(kind, text)
            if stream and delta:
                self.begin(answer)
                self.event(answer.chunk(delta))
        model.chat(*conversation, on_part=on_part, **options)
        usage = usage_of(model.result)
        if model.stop == "cancelled":
            raise ConnectionError
        if not stream:
            return self.send_json(200, answer.whole(model.stop, usage))
        self.begin(answer)
        self.event(answer.chunk({}, answer.reason(model.stop)))
        if (body.get("stream_options") or {}).get("include_usage"):
            self.event(dict(answer.chunk({}), choices=[], usage=usage))
        self.send(b"data: [DONE]\n\n")
        if self.chunked:
            self.wfile.write(b"0\r\n\r\n")

    def begin(self, answer):
        """Errors of the prompt have a status of their own: not before it."""
        if self.begun:
            return
        self.begun = True
        self.chunked = self.request_version >= "HTTP/1.1"
        self.close_connection = self.close_connection or not self.chunked
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header(*("Transfer-Encoding", "chunked") if self.chunked
                         else ("Connection", "close"))
        self.end_headers()
        self.event(answer.chunk({"role": "assistant", "content": ""}))

    def event(self, value):
        text = json.dumps(value, ensure_ascii=False)
        self.send(b"data: " + text.encode() + b"\n\n")

    def send(self, data):
        if self.chunked:
            data = b"%x\r\n%s\r\n" % (len(data), data)
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address, model, name, key=None):
        super().__init__(address, Handler)
        self.model, self.name, self.key = model, name, key
        self.turn = threading.Lock()
        self.room = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request, address):
        if not self.room.acquire(blocking=False):
            return self.shutdown_request(request)
        super().process_request(request, address)

    def process_request_thread(self, request, address):
        try:
            super().process_request_thread(request, address)
        finally:
            self.room.release()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--ctx", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--key", help="the API key that clients must send")
    args = parser.parse_args()
    name = args.model.replace("\\", "/").rsplit("/", 1)[-1]
    with Model(args.model, n_ctx=args.ctx, n_threads=args.threads) as model:
        server = Server((args.host, args.port), model, name, args.key)
        for end in signal.SIGINT, signal.SIGTERM:   # an exception can get lost
            signal.signal(end, lambda *_: threading.Thread(
                target=server.shutdown).start())
        print("http://%s:%d/v1" % server.server_address[:2], flush=True)
        server.serve_forever()
        server.server_close()


if __name__ == "__main__":
    main()
