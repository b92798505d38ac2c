"""An answer on its way to a client: as one JSON object, or as server-sent events while it is written.

Entry point: `AnswerResponse`, which the routes of answers return. It queues the requests itself, so that
whatever becomes of the connection, in the queue, while the prompt is read or between two tokens, the answer
is let go. Tokens that came together are written together.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import aclosing
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from criadero.generate.request import Request, Ticket, Token
from criadero.serve.errors import ApiError
from criadero.serve.limits import Limits
from criadero.serve.worker import Answer, Worker

PING = b": ping\n\n"
DONE = b"data: [DONE]\n\n"

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # a reverse proxy would keep tokens back
]

logger = logging.getLogger("criadero")

# Made once: json.dumps makes an encoder for each call that is not by its defaults.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class Reply(Protocol):
    """What puts tokens into the words of the protocol."""

    def whole(self, tokens: Sequence[Sequence[Token]]) -> dict[str, Any]: ...
    def opening(self) -> list[dict[str, Any]]: ...
    def chunk(self, index: int, token: Token) -> list[dict[str, Any]]: ...
    def closing(self) -> list[dict[str, Any]]: ...


class AnswerResponse(Response):
    """Queues requests, waits for their tokens and sends them; lets go of them when the client leaves.

    Args:
        worker: who answers.
        requests: what is answered together.
        write: makes the reply from the tickets of the requests.
        stream: whether to send events.
        limits: how long an answer may take, and how long a stream may be silent.
        on_end: is told of the answer when it is over, or let go.

    Raises:
        ApiError: when called, as long as nothing is sent; in a stream it is the last event.
    """

    def __init__(
        self,
        worker: Worker,
        requests: Sequence[Request],
        *,
        write: Callable[[tuple[Ticket, ...]], Reply],
        stream: bool,
        limits: Limits,
        on_end: Callable[[Answer], None],
    ) -> None:
        super().__init__()
        self._worker = worker
        self._requests = requests
        self._write = write
        self._stream = stream
        self._limits = limits
        self._on_end = on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Answer as an ASGI application."""
        answer = self._worker.submit(self._requests)
        seconds = self._limits.request_seconds
        limit = asyncio.get_running_loop().call_later(seconds, answer.fail, _too_long(seconds))
        try:
            reply = self._write(answer.tickets)
            if self._stream:
                stream = events(answer, reply, ping_seconds=self._limits.ping_seconds)
                await until_gone(receive, _send_events(stream, send))
            else:
                await until_gone(receive, _send_whole(answer, reply, send))
        finally:
            limit.cancel()
            answer.cancel()
            self._on_end(answer)


async def events(answer: Answer, reply: Reply, *, ping_seconds: float) -> AsyncGenerator[bytes, None]:
    """Yield a whole stream, a few events at a time; after an error it ends without `[DONE]`."""
    now = asyncio.get_running_loop().time
    try:
        yield _joined(reply.opening())
        due = now() + ping_seconds
        while not answer.over:
            come = await answer.more(within=max(0.0, due - now()))
            data = _joined(chunk for index, token in come for chunk in reply.chunk(index, token))
            if not data and now() >= due:
                data = PING
            if data:
                yield data
                due = now() + ping_seconds
        yield _joined(reply.closing()) + DONE
    except ApiError as problem:
        yield _event(problem.body())
    except Exception:
        logger.exception("an answer could not be written")
        yield _event(mistake().body())


async def _send_events(stream: AsyncGenerator[bytes, None], send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": _STREAM_HEADERS})
    async with aclosing(stream):
        async for data in stream:
            await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _send_whole(answer: Answer, reply: Reply, send: Send) -> None:
    tokens: list[list[Token]] = [[] for _ in answer.tickets]
    async for index, token in answer:
        tokens[index].append(token)
    body = _encode(reply.whole(tokens)).encode()
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Await some work, and give it up when the client goes away."""
    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        done, _ = await asyncio.gather(*tasks, return_exceptions=True)
    if isinstance(done, Exception):
        raise done


def mistake() -> ApiError:
    """Return what a client is told where the server itself is wrong."""
    message = "The server made a mistake; its log says which. Please report it."
    return ApiError(message, status=500, kind="server_error")


def _too_long(seconds: float) -> ApiError:
    # Not a status that clients repeat: it would take as long again.
    message = f"The answer was not finished within {seconds:g} seconds. Ask for fewer tokens, or stream it."
    return ApiError(message, param="max_tokens", code="timeout")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {_encode(data)}\n\n".encode()


def _joined(chunks: Iterable[dict[str, Any]]) -> bytes:
    return b"".join([_event(chunk) for chunk in chunks])
