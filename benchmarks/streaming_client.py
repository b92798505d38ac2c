"""Clients of an OpenAI-compatible server that read a streamed chat answer and note when its parts came.

Entry point: `ask_all`, which asks every question at once, each on a connection of its own. It is plain HTTP
on asyncio sockets, and events are only noted while answers come and parsed after the last, so that the
clients take little of the processor that the server works on. An answer that lacks anything says so in
`problem`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

PATIENCE_SECONDS = 300.0


@dataclass
class Answer:
    """One streamed answer; times are those of `time.perf_counter`, in seconds.

    Attributes:
        sent: when its question was sent.
        ended: when the last of it came.
        texts: when each event with text came.
        completion_tokens: as the server counts them.
        problem: what is missing; None for an answer that is whole.
    """

    sent: float
    ended: float = 0.0
    texts: list[float] = field(default_factory=list)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str | None = None
    problem: str | None = None

    @property
    def first_seconds(self) -> float:
        """From the question to the first text."""
        return self.texts[0] - self.sent

    @property
    def gaps_seconds(self) -> list[float]:
        """Between one text and the next."""
        return [late - early for early, late in zip(self.texts, self.texts[1:], strict=False)]

    @property
    def tokens_per_second(self) -> float:
        """From the question to the end; 0 if anything is missing."""
        return 0.0 if self.problem else self.completion_tokens / (self.ended - self.sent)


def ask_all(port: int, bodies: Sequence[dict[str, Any]]) -> list[Answer]:
    """Ask everything at once; return when all answers are there or given up."""
    noted = asyncio.run(_note_all(port, bodies))
    return [read(*notes, tokens=body["max_tokens"]) for notes, body in zip(noted, bodies, strict=True)]


Notes = tuple[float, list[tuple[float, bytes]], str | None]
"""When the question was sent, what came when, and what broke it off."""


async def _note_all(port: int, bodies: Sequence[dict[str, Any]]) -> list[Notes]:
    return await asyncio.gather(*(_note(port, json.dumps(body).encode()) for body in bodies))


async def _note(port: int, body: bytes) -> Notes:
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    parts: list[tuple[float, bytes]] = []
    writer = None
    sent = time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(head.encode() + body)
            await _receive(reader, parts)
    except (OSError, EOFError, ValueError) as problem:  # OSError is too much time as well
        return sent, parts, f"{type(problem).__name__}: {problem}"
    finally:
        if writer is not None:
            writer.close()
    return sent, parts, None


async def _receive(reader: asyncio.StreamReader, parts: list[tuple[float, bytes]]) -> None:
    """Note the chunks of an answer's body.

    Raises:
        ValueError: it is no chunked answer with status 200.
        EOFError: it ended in the middle.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0] or b"transfer-encoding: chunked" not in head.lower():
        raise ValueError(f"{head.decode()}{(await reader.read(2000)).decode(errors='replace')}")
    while size := int((await reader.readline()).partition(b";")[0], 16):
        part = await reader.readexactly(size + 2)
        parts.append((time.perf_counter(), part[:-2]))


def read(sent: float, parts: Sequence[tuple[float, bytes]], broken: str | None, *, tokens: int) -> Answer:
    """Make sense of what came; nothing is missing if it has as many tokens as were asked for, and an end."""
    answer = Answer(sent, ended=parts[-1][0] if parts else sent)
    done, left, error = False, b"", None
    for moment, part in parts:
        *events, left = (left + part).split(b"\n\n")
        for event in events:
            data = event.removeprefix(b"data: ")
            if data == b"[DONE]":
                done = True
            elif data != event:  # anything else is a comment
                error = _take(answer, moment, json.loads(data)) or error
    found = {"finish_reason": answer.finish_reason, "completion_tokens": answer.completion_tokens}
    if broken or error:
        answer.problem = broken or error
    elif not done:
        answer.problem = "it ended without [DONE]"
    elif not answer.texts or found != {"finish_reason": "length", "completion_tokens": tokens}:
        answer.problem = f"{len(answer.texts)} texts, {found}; {tokens} tokens were asked for"
    return answer


def _take(answer: Answer, moment: float, event: dict[str, Any]) -> str | None:
    """Add an event to the answer; return the error it brings."""
    for choice in event.get("choices", ()):
        if choice["delta"].get("content"):
            answer.texts.append(moment)
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
    if usage := event.get("usage"):
        answer.prompt_tokens, answer.completion_tokens = usage["prompt_tokens"], usage["completion_tokens"]
    return str(event["error"]) if event.get("error") else None
