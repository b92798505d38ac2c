"""A real server on a real socket, with a tiny model whose steps a test may hold back.

Entry point: `running()`. `PacedEngine` counts its steps, waits for permission to take them, and raises where
a test wants it to. Beside the server's own routes there is `/plain`, which takes `prompts` (lists of ids),
`stream` and settings of sampling, and answers in few words: what carries tokens is tried without a protocol.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.types import ASGIApp

from criadero.generate.engine import Engine
from criadero.generate.request import Request as GenerateRequest
from criadero.generate.request import Ticket, Token
from criadero.generate.sampling import SamplingConfig
from criadero.model.transformer import Transformer
from criadero.serve.access import Access
from criadero.serve.app import create_app
from criadero.serve.connection import connection_class
from criadero.serve.limits import Limits
from criadero.serve.metrics import Metrics
from criadero.serve.model import ServedModel
from criadero.serve.streams import AnswerResponse
from criadero.serve.worker import Worker
from generate.tiny_model import byte_tokenizer, tiny_model


class PacedEngine(Engine):
    """An engine that takes a step only when it may; all it likes until `hold` is called."""

    def __init__(self, model: Transformer, **sizes: int) -> None:
        super().__init__(model, byte_tokenizer(), **sizes)
        self.steps = 0
        self.fault: Exception | None = None
        """Raised by the next step."""
        self._permits = threading.Semaphore(0)
        self._held = False

    def hold(self) -> None:
        """Take no step from now on but those that `allow` permits."""
        self._held = True

    def allow(self, steps: int) -> None:
        self._permits.release(steps)

    def go_on(self) -> None:
        """Hold nothing back any more."""
        self._held = False
        self._permits.release()

    def step(self):
        if self._held:
            self._permits.acquire()
        self.steps += 1
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        return super().step()


class PlainReply:
    """Tokens as they are; what `refused` names as text cannot be written."""

    def __init__(self, tickets: tuple[Ticket, ...], *, refused: str | None = None) -> None:
        self.tickets = tickets
        self.refused = refused

    def whole(self, tokens: Sequence[Sequence[Token]]) -> dict[str, Any]:
        return {"answers": [[self.chunk(i, token)[0] for token in row] for i, row in enumerate(tokens)]}

    def opening(self) -> list[dict[str, Any]]:
        return [{"prompts": [ticket.prompt_tokens for ticket in self.tickets]}]

    def chunk(self, index: int, token: Token) -> list[dict[str, Any]]:
        if token.text == self.refused:
            raise ValueError("these words are not known")
        return [{"index": index, "id": token.id, "text": token.text, "end": token.finish_reason}]

    def closing(self) -> list[dict[str, Any]]:
        return [{"closing": True}]


def plain_route(worker: Worker, *, limits: Limits) -> Callable[[Request], Awaitable[AnswerResponse]]:
    async def answer(request: Request) -> AnswerResponse:
        body = await request.json()
        prompts, stream, refused = body.pop("prompts"), body.pop("stream", False), body.pop("refused", None)
        sampling = SamplingConfig(**{"temperature": 0.0, **body})
        return AnswerResponse(
            worker,
            [GenerateRequest(prompt, sampling, end_ids=()) for prompt in prompts],
            write=lambda tickets: PlainReply(tickets, refused=refused),
            stream=stream,
            limits=limits,
            on_end=lambda answer: None,
        )

    return answer


@dataclass
class Answered:
    """A whole HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The objects of a stream; `[DONE]` as the string it is."""
        lines = [
            line.removeprefix("data: ") for line in self.body.decode().split("\n") if line[:5] == "data:"
        ]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


def ask(port: int, path: str, body: object = None, *, headers: dict[str, str] | None = None) -> Answered:
    """GET a path of a server here, or POST a JSON body to it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        if body is None:
            connection.request("GET", path, headers=headers or {})
        else:
            kind = {"Content-Type": "application/json"}
            connection.request("POST", path, json.dumps(body), headers=kind | (headers or {}))
        response = connection.getresponse()
        return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


@dataclass
class Running:
    """A server that runs and has its model."""

    port: int
    worker: Worker
    engine: PacedEngine
    server: uvicorn.Server = field(repr=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: object = None, *, headers: dict[str, str] | None = None) -> Answered:
        """GET a path, or POST a JSON body to it."""
        return ask(self.port, path, body, headers=headers)

    def open(self, path: str, body: object) -> socket.socket:
        """POST a JSON body and return the socket, with nothing of the answer read."""
        data = json.dumps(body).encode()
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        return connection


def until(condition: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """Wait until something is so; fail if it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be in time"
        time.sleep(0.002)


@contextmanager
def running(
    *,
    model: Transformer | None = None,
    template: str | None = "plain",
    max_batch: int = 4,
    cache_tokens: int = 2048,
    prefill_tokens: int = 256,
    limits: Limits | None = None,
    wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> Iterator[Running]:
    """Run a server with this model, or a tiny random one of 512 tokens of context.

    Args:
        wrap: puts middleware around the application.
    """
    limits = Limits() if limits is None else limits
    engine = PacedEngine(
        tiny_model(max_seq_len=512) if model is None else model,
        cache_tokens=cache_tokens,
        max_batch=max_batch,
        prefill_tokens=prefill_tokens,
    )
    model = ServedModel(engine, "tiny", template, created=1_700_000_000)
    with serving(lambda: model, limits=limits, wrap=wrap) as (port, worker, server):
        until(lambda: worker.state == "ready")
        try:
            yield Running(port, worker, engine, server)
        finally:
            engine.go_on()


@contextmanager
def serving(
    open_model: Callable[[], ServedModel],
    *,
    limits: Limits,
    wrap: Callable[[ASGIApp], ASGIApp] = lambda app: app,
) -> Iterator[tuple[int, Worker, uvicorn.Server]]:
    """Run a server that answers before its model is there; yield its port, its worker and itself."""
    worker = Worker(open_model, limits=limits)
    worker.start()
    metrics = Metrics(worker)
    app = create_app(worker, limits=limits, metrics=metrics)
    app.add_route("/plain", plain_route(worker, limits=limits), methods=["POST"])
    config = uvicorn.Config(
        Access(wrap(app), metrics=metrics),
        port=0,
        log_level="critical",
        lifespan="off",
        ws="none",
        http=connection_class(limits),
        access_log=False,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1], worker, server
    finally:
        server.should_exit = True
        server.force_exit = True
        thread.join(timeout=20)
        worker.close()
    assert not thread.is_alive()
