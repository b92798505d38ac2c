"""The server benchmark: what its clients count as lost, and its figures, against answers written by hand."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from streaming_client import Answer, ask_all  # noqa: E402

# Under another name: `serve` is the folder of the server's tests.
spec = importlib.util.spec_from_file_location("serve_benchmark", BENCHMARKS / "serve.py")
assert spec is not None
assert spec.loader is not None
serve = importlib.util.module_from_spec(spec)
spec.loader.exec_module(serve)

sys.path.remove(str(BENCHMARKS))  # its corpus.py would hide the folder of tests of that name

OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def event(**content: object) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def text(words: str, *, reason: str | None = None) -> bytes:
    return event(
        choices=[{"index": 0, "delta": {"content": words} if words else {}, "finish_reason": reason}]
    )


USAGE = event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 2})
WHOLE = text("") + text("Hé") + text("llo") + text("", reason="length") + USAGE + b"data: [DONE]\n\n"


def chunked(data: bytes, *, size: int = 10_000) -> bytes:
    pieces = (data[i : i + size] for i in range(0, len(data), size))
    return b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)


@contextmanager
def answering(answer: Callable[[bytes], bytes]) -> Iterator[int]:
    """Run a server whose answer to each request is what a function makes of its body; yield its port."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    ports: list[int] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line.split()[1] for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        writer.write(answer(await reader.readexactly(int(length))))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def run() -> None:
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            ports.append(server.sockets[0].getsockname()[1])
            started.set()
            await stopped

    stopped = loop.create_future()
    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    assert started.wait(10)
    try:
        yield ports[0]
    finally:
        loop.call_soon_threadsafe(stopped.set_result, None)
        thread.join(10)
        loop.close()


def asked(answer: bytes, *, tokens: int = 2) -> Answer:
    with answering(lambda _body: answer) as port:
        return ask_all(port, [serve.body("Why?", tokens=tokens, forbidden=[0])])[0]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_an_answer_is_whole_however_it_is_cut_into_chunks(size: int):
    answer = asked(OK + chunked(b": ping\n\n" + WHOLE, size=size) + END)
    assert answer.problem is None
    assert (answer.prompt_tokens, answer.completion_tokens, len(answer.texts)) == (5, 2, 2)
    assert answer.sent < answer.texts[0] <= answer.texts[1] <= answer.ended


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (OK + chunked(WHOLE.removesuffix(b"data: [DONE]\n\n")) + END, "without [DONE]"),
        (OK + chunked(WHOLE.replace(USAGE, b"")) + END, "'completion_tokens': 0"),
        (OK + chunked(WHOLE.replace(b'"length"', b'"stop"')) + END, "'finish_reason': 'stop'"),
        (OK + chunked(text("Hé") + event(error={"message": "it broke"})) + END, "it broke"),
        (OK + chunked(WHOLE)[:100], "IncompleteReadError"),
        (OK + chunked(WHOLE), "ValueError"),
        (b'HTTP/1.1 429 Too Many\r\n\r\n{"error": "queue"}', "queue"),
    ],
)
def test_an_answer_that_lacks_something_is_lost_and_says_what(answer: bytes, words: str):
    found = asked(answer)
    assert words in (found.problem or "")
    assert found.tokens_per_second == 0


def test_fewer_tokens_than_asked_for_are_a_loss():
    assert "3 tokens were asked for" in (asked(OK + chunked(WHOLE) + END, tokens=3).problem or "")


def test_a_server_that_is_not_there_is_a_loss():
    with answering(lambda _body: b"") as port:
        pass
    [answer] = ask_all(port, [serve.body("Why?", tokens=2, forbidden=[])])
    assert answer.problem is not None


def test_both_servers_are_asked_the_same_and_no_question_comes_twice():
    bodies: dict[str, list[bytes]] = {serve.OURS: [], serve.PEER: []}

    def note(name: str) -> Callable[[bytes], bytes]:
        return lambda body: (bodies[name].append(body), OK + chunked(WHOLE) + END)[1]

    with answering(note(serve.OURS)) as ours, answering(note(serve.PEER)) as theirs:
        servers = [SimpleNamespace(name=serve.OURS, port=ours), SimpleNamespace(name=serve.PEER, port=theirs)]
        found, twice, share = serve.measure(servers, rounds=1, tokens=2, forbidden=[0, 1])
    assert sorted(bodies[serve.OURS]) == sorted(bodies[serve.PEER])
    long = [body for body in bodies[serve.OURS] if b"What was decided" in body]
    short = [body for body in bodies[serve.OURS] if b"in common" in body]
    assert len(set(short)) == len(short) == 2 * (1 + 8 + 32)
    assert (len(long), len(set(long))) == (4, 2)
    assert {number: len(systems[serve.OURS][0]) for number, systems in found.items()} == {1: 1, 8: 8, 32: 32}
    assert [len(pair) for pair in twice[serve.PEER]] == [2]
    assert share > 0
    systems = {name: serve.figures(rounds) for name, rounds in found[32].items()}
    assert all(not system["lost"] and system["answers"] == 32 for system in systems.values())
    assert serve.compared(systems)["ratio"] > 0


def test_figures_are_those_of_the_clients_together():
    def answer(seconds: float, *, problem: str | None = None) -> Answer:
        return Answer(10.0, 10.0 + seconds, [10.5, 11.0, 10.0 + seconds], 5, 4, "length", problem)

    found = serve.figures([[answer(2.0), answer(4.0)], [answer(2.0), answer(2.0)]])
    assert found["runs"] == [2.0, 4.0]
    assert found["tokens_per_second"] == 3.0
    assert found["first_token_ms"] == {"median": 500.0, "p99": 500.0}
    assert found["between_tokens_ms"] == {"median": 750.0, "p99": 3000.0}
    assert (found["fairness"], found["fairness_worst"]) == (0.75, 0.5)
    assert found["lost"] == []
    starved = serve.figures([[answer(2.0), answer(4.0, problem="it ended")]])
    assert (starved["fairness"], starved["lost"]) == (0.0, ["it ended"])


def test_the_second_of_two_long_prompts_is_set_against_the_first():
    first, second = Answer(0.0, 3.0, [2.0, 3.0], 1500, 8), Answer(5.0, 6.0, [5.1, 6.0], 1500, 8)
    found = serve.reuse([[first, second]])
    assert (found["first_ms"], found["second_ms"], found["ratio"]) == (2000.0, 100.0, 0.05)
    assert found["prompt_tokens"] == 1500
