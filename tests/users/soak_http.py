"""soak_http.py SECONDS COMMAND... - a server among bad clients.

COMMAND as for test_http.py. Eight clients do at random: ask and compare the
answer, read slowly or not at all, send half a request or rubbish, leave in the
middle. No answer may be wrong, and the memory stays what it was: resident at
the end at most 4 MiB more than after a fifth of the time. Ends with "N passed,
N failed".
"""
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

SECONDS = float(sys.argv[1])
HELLO = ('안녕하세요, 반가워요 👩‍👩‍👧‍👦🇰🇷! "따옴표" \\ and a tab\t<b>.\n'
         '둘째 줄입니다.')
SEED = int(os.environ.get("SEED", "1"))
server = subprocess.Popen(sys.argv[2:], stdout=subprocess.PIPE)
url = urlsplit(server.stdout.readline().decode().strip())
counted, lock = {}, threading.Lock()
end = time.monotonic() + SECONDS


def count(what):
    with lock:
        counted[what] = counted.get(what, 0) + 1


def request(text, **more):
    body = json.dumps(dict(more, messages=[
        {"role": "user", "content": text}]), ensure_ascii=False).encode()
    return (b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n"
            % len(body)) + body


def read_all(sock):
    """One answer of a connection that is kept."""
    with sock.makefile("rb") as f:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = f.readline()
            if not line:
                return None, b""
            head += line
        if b"chunked" in head:
            data = b""
            while True:
                size = int(f.readline(), 16)
                data += f.read(size)
                f.readline()
                if not size:
                    return head, data
        at = head.lower().index(b"content-length:") + 15
        return head, f.read(int(head[at:].split()[0]))


def good(sock, rng):
    stream = rng.random() < 0.5
    sock.sendall(request("hi", stream=stream))
    _, data = read_all(sock)
    if stream:
        said = "".join(json.loads(e[6:])["choices"][0]["delta"].get(
            "content", "") for e in data.decode().split("\n\n")[:-2])
    else:
        said = json.loads(data)["choices"][0]["message"]["content"]
    count("right" if said == HELLO else "wrong")


def slow(sock, rng):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.sendall(request("count", stream=True, max_tokens=300))
    for _ in range(rng.randrange(20)):
        if not sock.recv(rng.choice((1, 100))):
            break
        time.sleep(0.02)
    count("slow")


def leaves(sock, rng):
    sock.sendall(request("count", stream=rng.random() < 0.5))
    time.sleep(rng.random() * 0.2)
    if rng.random() < 0.5:      # a reset
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                        b"\1\0\0\0\0\0\0\0")
    count("left")


def half(sock, rng):
    whole = request("think" * rng.randrange(1, 200))
    sock.sendall(whole[:rng.randrange(len(whole))])
    time.sleep(rng.random() * 0.2)
    count("half")


def rubbish(sock, rng):
    whole = bytearray(request("weather", stop=["x"], temperature=0.5,
                              tools=[{"type": "function", "function": {
                                  "name": "get_weather"}}]))
    for _ in range(rng.randrange(1, 6)):
        whole[rng.randrange(len(whole))] = rng.randrange(256)
    sock.sendall(whole)
    sock.shutdown(socket.SHUT_WR)
    while sock.recv(4096):
        pass
    count("rubbish")


def client(number):
    rng = random.Random(SEED * 100 + number)
    while time.monotonic() < end:
        try:
            with socket.create_connection((url.hostname, url.port),
                                          timeout=60) as sock:
                what = rng.choices((good, slow, leaves, half, rubbish),
                                   (6, 1, 2, 2, 3))[0]
                what(sock, rng)
        except OSError:
            count("dropped")
        except (ValueError, IndexError, KeyError, TypeError):
            count("wrong")


def resident():
    with open("/proc/%d/status" % server.pid) as f:
        for line in f:
            if line.startswith("VmRSS"):
                return int(line.split()[1])
    return 0


threads = [threading.Thread(target=client, args=(i,)) for i in range(8)]
for t in threads:
    t.start()
time.sleep(SECONDS / 5)
early = resident()
for t in threads:
    t.join(SECONDS + 90)
stuck = any(t.is_alive() for t in threads)
late = resident()
server.send_signal(signal.SIGINT)
try:
    status = server.wait(20)
except subprocess.TimeoutExpired:
    server.kill()
    status = "it does not end"
print("answers:", counted, "resident %d KiB, then %d KiB" % (early, late))
checks = {"right answers": counted.get("right", 0) > 0,
          "wrong answers": not counted.get("wrong"), "stuck": not stuck,
          "memory": late - early < 4096, "status %s" % status: status == 0}
for what, holds in checks.items():
    if not holds:
        print("failed:", what)
bad = list(checks.values()).count(False)
print("%d passed, %d failed" % (len(checks) - bad, bad))
os._exit(bad > 0)
