"""Bodies that are no requests, clients that are slow or many, and what they leave behind: nothing."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from criadero.serve.limits import Limits
from serve.running import Running, running, until

HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
QUICK = Limits(header_seconds=0.6, body_seconds=0.6, stall_seconds=0.6)


@pytest.fixture(scope="module")
def server():
    with running(limits=QUICK, max_batch=8, cache_tokens=8192) as server:
        yield server


def post(server: Running, body: bytes, *, kind: bytes = b"application/json") -> tuple[int, dict]:
    """POST bytes as they are; return the status and the object of the answer."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(HEAD.replace(b"application/json", kind) + b"Content-Length: %d\r\n\r\n" % len(body))
        with suppress(BrokenPipeError, ConnectionResetError):  # it may be refused before its end
            client.sendall(body)
        return read_answer(client)


def read_answer(client: socket.socket) -> tuple[int, dict]:
    with client.makefile("rb") as lines:
        status = int(lines.readline().split()[1])
        headers = dict(line.decode().strip().lower().split(": ", 1) for line in iter(lines.readline, b"\r\n"))
        return status, json.loads(lines.read(int(headers["content-length"])))


def assert_well(server: Running) -> None:
    """It answers a request of an honest client at once."""
    begun = time.monotonic()
    body = {"prompt": "a", "max_tokens": 2, "temperature": 0}
    assert server.ask("/v1/completions", body).status == 200
    assert time.monotonic() - begun < 1


BAD_BODIES = {
    "nothing": (b"", 400),
    "cut off": (b'{"prompt": "a"', 400),
    "two objects": (b'{"prompt": "a"} {}', 400),
    "a list": (b"[]", 400),
    "null": (b"null", 400),
    "not UTF-8": (b'{"prompt": "\xff\xfe"}', 400),
    "UTF-16": ('{"prompt": "a"}'.encode("utf-16"), 400),
    "half a surrogate pair": (b'{"prompt": "\\ud800"}', 400),
    "half a surrogate pair as a stop": (b'{"prompt": "a", "stop": "\\udfff"}', 400),
    "half a surrogate pair as a field": (b'{"prompt": "a", "\\ud800": 1}', 400),
    "NaN": (b'{"prompt": "a", "temperature": NaN}', 400),
    "Infinity": (b'{"prompt": "a", "top_p": Infinity}', 400),
    "a number without end": (b'{"prompt": "a", "seed": ' + b"9" * 100_000 + b"}", 400),
    "an exponent without end": (b'{"prompt": "a", "temperature": 1e999999}', 400),
    "100,000 brackets": (b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400),
    "100,000 objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
    "100,000 brackets that stay open": (b"[" * 100_000, 400),
    "100,000 ids": (json.dumps({"prompt": [1] * 100_000}).encode(), 400),
    "an id that is none": (b'{"prompt": [1, -1]}', 400),
    "an id of 100 digits": (b'{"prompt": [1' + b"0" * 100 + b"]}", 400),
    "mixed prompts": (b'{"prompt": ["a", 1]}', 400),
    "a prompt beyond the context": (json.dumps({"prompt": "a" * 10_000}).encode(), 400),
    "50 MB": (b'{"prompt": "' + b"a" * 50_000_000 + b'"}', 413),
}


@pytest.mark.parametrize("what", BAD_BODIES)
def test_a_body_that_is_no_request_is_refused_in_json_and_costs_nothing(server, what):
    body, expected = BAD_BODIES[what]
    post(server, b"{}")
    before = resident_bytes()
    status, answer = post(server, body)
    assert status == expected
    assert answer["error"]["message"].endswith(".")
    assert resident_bytes() - before < 30_000_000
    assert_well(server)


def resident_bytes() -> int:
    """Of this process, which is the server too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.parametrize(
    "kind", [b"text/plain", b"application/x-www-form-urlencoded", b"", b"application/jsonp"]
)
def test_another_content_type_is_refused(server, kind):
    # A page elsewhere could send the first two without being asked for leave.
    assert post(server, b'{"prompt": "a"}', kind=kind)[0] == 415


def test_a_chunked_body_is_counted_while_it_comes(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        part = b"10000\r\n" + b" " * 65536 + b"\r\n"
        for _ in range(20):
            client.sendall(part)
        assert read_answer(client)[0] == 413


def test_a_body_that_does_not_come_is_408(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        begun = time.monotonic()
        assert read_answer(client)[0] == 408
        assert 0.5 < time.monotonic() - begun < 5


@pytest.mark.parametrize("trickle", [b"", b"x"], ids=["silent", "a byte now and then"])
@pytest.mark.parametrize(
    "before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["first", "second"]
)
def test_a_head_that_does_not_end_closes_the_connection(server, before, trickle):
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        client.sendall(before)
        if before:
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        client.settimeout(0.1)
        while time.monotonic() - begun < 10:
            try:
                client.sendall(trickle)
                if client.recv(4096) == b"":
                    break
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break
    assert 0.5 < time.monotonic() - begun < 5


def test_a_client_that_takes_nothing_of_its_answer_is_let_go(server):
    listener = server.server.servers[0].sockets[0]
    before = listener.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # connections inherit it
    try:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", server.port))
            body = json.dumps(
                {
                    "prompt": "a",
                    "max_tokens": 400,
                    "stream": True,
                    "logprobs": 20,
                    "n": 4,
                    "logit_bias": {"2": -100},
                }
            ).encode()
            cancelled = server.worker.cancelled
            server.engine.hold()
            client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            server.engine.allow(150)
            until(lambda: server.worker.cancelled > cancelled)
            assert b"[DONE]" not in read_all(client)
    finally:
        server.engine.go_on()
        listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, before // 2
        )  # the kernel doubles what is set
    assert_well(server)


def test_200_connections_are_answered_or_refused_and_leave_nothing_behind():
    limits = Limits(header_seconds=2.0, queued=20)
    with running(limits=limits, max_batch=4) as server:
        for _ in range(3):
            assert_well(server)
        until(lambda: not server.server.server_state.connections)
        threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
        server.engine.hold()
        with ExitStack() as open_ones:
            slow = [open_ones.enter_context(connect(server)) for _ in range(100)]
            for client in slow:
                client.sendall(b"POST /v1/completions HTTP/1.1\r\n")
            body = {
                "prompt": "a",
                "max_tokens": 20,
                "stream": True,
                "temperature": 0,
                "logit_bias": {"2": -100},
            }
            streams = [open_ones.enter_context(server.open("/v1/completions", body)) for _ in range(100)]
            until(lambda: server.worker.open_requests == 24)
            assert server.ask("/health").status == 200  # while nothing else goes on
            until(lambda: len(server.server.server_state.tasks) == 24)
            server.engine.go_on()
            answers = [read_all(client) for client in streams]
            assert sum(b" 200 OK" in answer[:20] for answer in answers) == 24
            assert all(
                answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
                for answer in answers
                if b" 200 " in answer[:20]
            )
            refused = [answer for answer in answers if b" 429 " in answer[:20]]
            assert len(refused) == 76
            assert all(b"retry-after: 1" in answer for answer in refused)
            assert [read_all(client) for client in slow] == [b""] * 100
        assert_well(server)
        until(lambda: not server.server.server_state.connections)
        until(lambda: len(os.listdir("/proc/self/fd")) <= files)
        assert threading.active_count() <= threads + os.cpu_count() + 4  # those of asyncio's own pool stay


def connect(server: Running) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def read_all(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection, as it does with idle ones."""
    parts = []
    with suppress(ConnectionResetError):
        while part := client.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)


def test_an_answer_that_takes_too_long_is_ended_and_said():
    with running(limits=Limits(request_seconds=0.4)) as server:
        server.engine.hold()
        body = {"prompt": "a", "max_tokens": 20, "temperature": 0}
        whole = server.ask("/v1/completions", body)
        assert (whole.status, whole.json["error"]["code"]) == (400, "timeout")
        streamed = server.ask("/v1/completions", {**body, "stream": True})
        assert streamed.status == 200
        assert streamed.events[-1]["error"]["code"] == "timeout"
        until(lambda: server.worker.open_requests == 0)
        server.engine.go_on()
        assert_well(server)


@pytest.mark.parametrize("start", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"X" * 100_000])
def test_what_is_no_http_is_400_or_closed(server, start):
    with connect(server) as client:
        with suppress(ConnectionResetError, BrokenPipeError):
            client.sendall(start + b"\r\n\r\n")
        assert read_all(client)[:12] in (b"HTTP/1.1 400", b"")
    assert_well(server)
