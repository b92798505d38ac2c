"""A server with the chat page and fixed answers, on a real socket; it remembers what it was asked.

Entry point: `running()`. The last message decides the answer: "slow", "cut", one of `replies`, or an echo.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from criadero.serve.page import add_page

ATTACK = (
    "<img src=x onerror=alert(1)> <script>alert(2)</script> [a](javascript:alert(3)) "
    "![b](https://elsewhere.example/pixel.png)\n\n```html\n<svg onload=alert(4)>\n```\n"
)


@dataclass
class Stub:
    """What a test sets and what it reads."""

    url: str = ""
    key: str = ""
    loading: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    replies: dict[str, str] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when a client went away in the middle of an answer."""

    def refusal(self, request: Request) -> Response | None:
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return error(401, "The API key is missing or wrong.")
        return error(503, "The model is still loading.") if self.loading else None


def error(status: int, message: str) -> Response:
    headers = {"Retry-After": "2"} if status == 429 else {}
    return JSONResponse({"error": {"message": message}}, status_code=status, headers=headers)


def make_app(stub: Stub) -> FastAPI:
    app = FastAPI(openapi_url=None)
    add_page(app)

    @app.get("/v1/models")
    async def models(request: Request) -> Response:
        entry = {"id": "tiny-llama", "object": "model", "context_length": 2048}
        return stub.refusal(request) or JSONResponse({"object": "list", "data": [entry]})

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        body = await request.json()
        if (refused := stub.refusal(request)) is not None:
            return refused
        stub.asked.append(body)
        if stub.failures:
            return error(*stub.failures.pop(0))
        return StreamingResponse(answer(stub, body), media_type="text/event-stream")

    return app


async def answer(stub: Stub, body: dict[str, Any]) -> AsyncIterator[bytes]:
    text = body["messages"][-1]["content"]
    try:
        if text == "slow":
            for number in range(600):
                yield event(delta(f"word{number} "))
                await asyncio.sleep(0.05)
        reply = stub.replies.get(text, f"Answer {len(stub.asked)} to: {text}")
        for at in range(0, len(reply), 7):
            for piece in in_parts(event(delta(reply[at : at + 7]))):
                yield piece
                await asyncio.sleep(0.002)
    except (asyncio.CancelledError, GeneratorExit):
        stub.left.set()
        raise
    if text == "cut":
        return
    yield event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    usage = {"prompt_tokens": 24, "completion_tokens": 100, "total_tokens": 124}
    yield event({"choices": [], "usage": usage})
    yield b": ping\n\ndata: [DONE]\n\n"


def delta(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}


def event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def in_parts(data: bytes) -> tuple[bytes, bytes]:
    """Cut an event in its middle, inside of a character when there is one of several bytes."""
    wide = next((at + 1 for at, byte in enumerate(data) if byte > 0xC0), len(data) // 2)
    return data[:wide], data[wide:]


@contextmanager
def running() -> Iterator[Stub]:
    stub = Stub()
    config = uvicorn.Config(make_app(stub), port=0, log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.01)
        stub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
        yield stub
    finally:
        server.should_exit = True
        thread.join(timeout=20)
