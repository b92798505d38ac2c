"""Reading the JSON object of a request, however wrong it is.

Entry point: `read_json`. Bytes are counted while they come: a large body is refused before it is held.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import Request

from criadero.serve.errors import ApiError
from criadero.serve.limits import Limits


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """Return the JSON object that a request carries.

    Raises:
        ApiError: 415 for another content type, 413 for too many bytes, 408 for a body that comes too slowly,
            400 for what is no JSON object in UTF-8.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(f"The content type is {kind!r}; send application/json.", status=415)
    try:
        async with asyncio.timeout(limits.body_seconds):
            data = await _read(request, limits.body_bytes)
    except TimeoutError:
        message = f"The body did not come within {limits.body_seconds:g} seconds; send it faster."
        raise ApiError(message, status=408) from None
    return _parse(data)


async def _read(request: Request, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise ApiError(f"The body is larger than {most:,} bytes; send a shorter one.", status=413)
        parts.append(part)
    return b"".join(parts)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data.decode(), parse_constant=_no_number)
    except UnicodeDecodeError:
        raise ApiError("The body is not UTF-8; encode it so.") from None
    except RecursionError:
        raise ApiError("The body is nested too deeply; send the fields of the protocol.") from None
    except ValueError as problem:
        raise ApiError(f"The body is not JSON: {problem}. Check how it is written.") from None
    if not isinstance(body, dict):
        raise ApiError("The body is not a JSON object; send one with the fields of the protocol.")
    return body


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number of JSON")
