"""A client that leaves stops its answer: in the queue, while its prompt is read, and while it is written."""

from __future__ import annotations

import socket
import struct
from functools import partial

import pytest

from generate.tiny_model import BOS
from serve.running import PacedEngine, Running, running, until

PROMPT = [BOS, *range(200)]
STREAMED = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def leave(connection: socket.socket) -> None:
    """Close at once, as a process that is killed does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def ask(server: Running, *, stream: bool, answers: int = 1) -> socket.socket:
    before = server.worker.requests
    body = {"prompts": [PROMPT] * answers, "max_tokens": 300, "stream": stream}
    connection = server.open("/plain", body)
    until(lambda: server.worker.requests == before + answers)
    return connection


def reached(engine: PacedEngine, steps: int) -> bool:
    return engine.steps >= steps


def assert_nothing_is_held(server: Running) -> None:
    """Nothing runs, no block is held, and what comes next is answered."""
    until(lambda: not server.engine.has_work)
    assert server.engine.free_tokens == server.engine.capacity_tokens
    assert server.engine.num_running == server.engine.num_waiting == 0
    until(lambda: not server.worker._answers)  # a client may know the end a moment earlier
    assert not server.worker._places
    assert server.ask("/plain", {"prompts": [[BOS]], "max_tokens": 3}).status == 200


@STREAMED
def test_who_leaves_the_queue_never_runs(stream):
    with running(max_batch=1) as server:
        server.engine.hold()
        first = ask(server, stream=True)
        server.engine.allow(2)
        until(lambda: server.engine.steps == 2 and server.engine.num_running == 1)
        second = ask(server, stream=stream)
        leave(second)
        until(lambda: server.worker.cancelled == 1)
        before = server.engine.counts.prefilled
        server.engine.go_on()
        leave(first)
        until(lambda: server.worker.cancelled == 2)
        until(lambda: not server.engine.has_work)
        assert server.engine.counts.prefilled == before
        assert_nothing_is_held(server)


@STREAMED
def test_who_leaves_while_the_prompt_is_read_stops_it_within_one_part(stream):
    with running(prefill_tokens=16) as server:
        server.engine.hold()
        connection = ask(server, stream=stream)
        server.engine.allow(3)
        until(lambda: server.engine.counts.prefilled == 48)
        leave(connection)
        until(lambda: server.worker.cancelled == 1)
        server.engine.go_on()
        until(lambda: not server.engine.has_work)
        assert server.engine.counts.prefilled <= 48 + 16
        assert server.engine.counts.decoded == 0
        assert_nothing_is_held(server)


@STREAMED
def test_who_leaves_while_it_is_written_stops_it_within_two_tokens(stream):
    with running() as server:
        server.engine.hold()
        connection = ask(server, stream=stream)
        server.engine.allow(10)
        until(lambda: server.engine.counts.decoded == 9)
        leave(connection)
        until(lambda: server.worker.cancelled == 1)
        server.engine.go_on()
        until(lambda: not server.engine.has_work)
        assert server.engine.counts.decoded <= 9 + 2
        assert_nothing_is_held(server)


def test_who_leaves_takes_all_answers_of_the_request_along_and_nobody_elses():
    with running() as server:
        server.engine.hold()
        staying = ask(server, stream=True)
        leaving = ask(server, stream=True, answers=6)
        server.engine.allow(8)
        until(lambda: server.engine.steps == 8)
        leave(leaving)
        until(lambda: server.worker.cancelled == 6)
        server.engine.go_on()
        received = b""
        while b"[DONE]" not in received:
            received += staying.recv(10_000)
        staying.close()
        assert received.count(b'"index":0') == 300
        assert_nothing_is_held(server)


def test_a_client_that_ends_its_connection_in_order_is_gone_too():
    with running() as server:
        server.engine.hold()
        connection = ask(server, stream=True)
        connection.close()
        until(lambda: server.worker.cancelled == 1)
        server.engine.go_on()
        assert_nothing_is_held(server)


def test_100_clients_that_leave_at_any_time_leave_nothing_behind():
    with running(max_batch=4) as server:
        for number in range(100):
            steps = server.engine.steps + number % 7
            connection = ask(server, stream=bool(number % 2))
            until(partial(reached, server.engine, steps))
            leave(connection)
        until(lambda: not server.worker._places)
        assert_nothing_is_held(server)
        assert server.worker.requests == 101
